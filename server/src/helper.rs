//! The helper thread: compresses publications that are too long for a reactor to do so.
//!
//! Knows: the mesh's mail to it and its answers. Must not know: topics, subscribers, order; each
//! topic's home holds that topic's order while a publication of it is here.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::error;
use uringcast_mesh::{Node, Wake};
use uringcast_ring::{
    WakeHandle,
    pool::{Pool, PoolOptions},
};

use crate::{
    mail::Mail,
    publication::{
        Publication,
        deflated::{Deflated, Deflater},
    },
};

/// What the thread is given.
#[derive(Debug)]
pub struct HelperInput {
    /// Its place in the mesh, behind the control thread's.
    pub node: Node<Mail>,
    /// An eventfd that is rung when there is mail, and when it is to end.
    pub bell: OwnedFd,
    /// By shard.
    pub bells: Vec<WakeHandle>,
    /// Shorter messages stay plain, bytes.
    pub bytes_min: usize,
}

/// The thread, running.
#[derive(Debug)]
pub struct HelperThread {
    thread: thread::JoinHandle<()>,
    stop: Arc<AtomicBool>,
    bell: WakeHandle,
}

impl HelperThread {
    /// Starts it.
    ///
    /// # Errors
    /// There are no threads or descriptors to be had.
    pub fn start(input: HelperInput) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let bell = WakeHandle::eventfd_only(input.bell.try_clone()?);
        let named = thread::Builder::new().name("helper".to_owned());
        Ok(Self { thread: named.spawn(move || run(input, &told))?, stop, bell })
    }

    /// Stops it after what it is at, and waits for that.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring_bell();
        if self.thread.join().is_err() {
            error!("the helper thread has panicked; this is a bug");
        }
    }
}

/// Runs until told to stop; the bell is rung after that.
fn run(input: HelperInput, stop: &AtomicBool) {
    let HelperInput { mut node, bell, bells, bytes_min } = input;
    let mut helper = Helper::new(bytes_min, PoolOptions::default());
    let mut inbox = Vec::new();
    // Answers that found a ring full.
    let mut parked: VecDeque<(usize, Mail)> = VecDeque::new();
    while !stop.load(Ordering::Acquire) {
        let received = node.receive(RECEIVE_BUDGET, |from, mail| inbox.push((from, mail)));
        for (from, mail) in inbox.drain(..) {
            if let Some(answer) = helper.answer(mail) {
                parked.push_back((from, answer));
            }
        }
        for _ in 0..parked.len() {
            let Some((to, mail)) = parked.pop_front() else { break };
            match node.send(to, mail) {
                Ok(Wake::Needed) => bells[to].ring_bell(),
                Ok(Wake::NotNeeded) => {}
                // One answer per topic is out, so their order among themselves does not matter.
                Err(mail) => parked.push_back((to, mail)),
            }
        }
        if received > 0 {
            continue;
        }
        if !parked.is_empty() {
            // No bell tells that a full ring has room again.
            thread::sleep(RETRY_INTERVAL);
        } else if node.prepare_sleep() {
            // An error would be a signal's, and then it is asked again.
            let _ = rustix::io::read(&bell, &mut [0; 8]);
            node.awake();
        }
    }
}

/// What the thread does with each mail.
#[derive(Debug)]
pub struct Helper {
    deflater: Deflater,
    pool: Pool,
    bytes_min: usize,
}

impl Helper {
    /// With a pool of its own, whose blocks come home from the shards.
    pub fn new(bytes_min: usize, pool: PoolOptions) -> Self {
        Self { deflater: Deflater::default(), pool: Pool::new(pool), bytes_min }
    }

    /// The answer; `None` for mail that is not for it.
    pub fn answer(&mut self, mail: Mail) -> Option<Mail> {
        let Mail::Deflate { topic, number, wanted, frame } = mail else {
            error!(?mail, "mail that is not for the helper");
            return None;
        };
        let publication = Publication::from_frames(frame, None);
        let (deflater, pool) = (&mut self.deflater, &mut self.pool);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            deflater.deflate(&publication, wanted, self.bytes_min, usize::MAX, pool)
        }));
        let Deflated { block, bytes_in, bytes_out } = outcome.unwrap_or_else(|_| {
            // Its home waits for an answer: this one goes plain.
            error!("compressing has panicked; this is a bug");
            self.deflater = Deflater::default();
            Deflated::default()
        });
        let bytes = [bytes_in, bytes_out].map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        Some(Mail::Deflated { topic, number, deflated: block, bytes })
    }
}

/// Mail taken at once; its answers go out after it.
const RECEIVE_BUDGET: usize = 4;
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use uringcast_protocol::opcode::Opcode;

    use super::*;
    use crate::{
        ids::TopicId,
        publication::{
            self, Block, Body, Encoded, Format, Order, PayloadContent, deflated::Wanted,
        },
    };

    fn ask(number: u64, payload: &[u8], format: Format) -> Mail {
        let pool = &mut Pool::unregistered();
        let lease = publication::draft(pool, "t", 1, PayloadContent::Text, Opcode::Text, payload)
            .expect("room");
        let order = Order { epoch: 1, seq: 1, ts_us: 0, pub_seq: None, snapshot: false };
        let publication = publication::order(pool, lease, order, &mut Vec::new()).expect("room");
        let mut wanted = Wanted::default();
        wanted.add(format);
        let frame = publication.frame().clone();
        Mail::Deflate { topic: TopicId(5), number, wanted, frame }
    }

    #[test]
    fn every_request_is_answered_with_its_number() {
        let format = Format { body: Body::Raw, window_bits: 15 };
        let mut helper = Helper::new(256, PoolOptions::default());
        let payload = b"a".repeat(100_000);
        for (number, payload, smaller) in [(1, &payload[..], true), (2, b"too short", false)] {
            let Mail::Deflate { frame, .. } = &ask(number, payload, format) else { unreachable!() };
            let publication = Publication::from_frames(frame.clone(), None);
            let answer = helper.answer(ask(number, payload, format));
            let Some(Mail::Deflated { topic, number: answered, deflated, bytes }) = answer else {
                panic!("{answer:?}")
            };
            assert_eq!((topic, answered, deflated.is_some()), (TopicId(5), number, smaller));
            assert_eq!(bytes[0] as usize, if smaller { payload.len() } else { 0 });
            let publication = Publication::from_frames(publication.frame().clone(), deflated);
            let encoded = publication.encoded(format);
            assert_eq!(matches!(encoded, Encoded::Ready { kind: Block::Deflated, .. }), smaller);
        }
        let other = Mail::Forget { topic: "t".into() };
        assert!(helper.answer(other).is_none());
    }

    #[test]
    fn a_full_pool_is_an_answer_too() {
        let format = Format { body: Body::Json, window_bits: 9 };
        let nothing = PoolOptions { bytes_max: 0, registered_bytes_max: 0 };
        let answer = Helper::new(0, nothing).answer(ask(9, &b"a".repeat(100_000), format));
        assert!(matches!(answer, Some(Mail::Deflated { number: 9, deflated: None, .. })));
    }

    #[test]
    fn the_thread_answers_until_it_is_stopped() {
        let mut nodes = uringcast_mesh::grid(3, 8);
        let (node, _control) = (nodes.pop().expect("three"), nodes.pop().expect("three"));
        let mut shard = nodes.pop().expect("three");
        let (bell, shard_bell) = (bell(), bell());
        let handle = WakeHandle::eventfd_only(bell.try_clone().expect("descriptors"));
        let bells = vec![WakeHandle::eventfd_only(shard_bell.try_clone().expect("descriptors"))];
        let thread = HelperThread::start(HelperInput { node, bell, bells, bytes_min: 0 });
        let format = Format { body: Body::Raw, window_bits: 15 };
        let mut answers = Vec::new();
        for number in 0..20 {
            let sent = shard.send(2, ask(number, &b"a".repeat(20_000), format));
            if matches!(sent, Ok(Wake::Needed)) {
                handle.ring_bell();
            }
            while answers.len() <= number as usize {
                if shard.receive(8, |from, mail| answers.push((from, mail))) > 0 {
                    continue;
                }
                if shard.prepare_sleep() {
                    assert!(rustix::io::read(&shard_bell, &mut [0; 8]).is_ok());
                    shard.awake();
                }
            }
        }
        for (at, (from, mail)) in answers.iter().enumerate() {
            let right = matches!(mail, Mail::Deflated { number, deflated: Some(_), .. } if *number == at as u64);
            assert!(right && *from == 2, "{mail:?}");
        }
        thread.expect("started").stop();
    }

    fn bell() -> OwnedFd {
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        rustix::event::eventfd(0, flags).expect("descriptors")
    }
}
