//! `SEND_ZC` beside `SEND`, to be measured: the server sends no such thing (ARCHITECTURE.md says why).
//!
//! Knows: the operations, their two completions, what the kernel says of having copied. Must not know: who
//! measures, what the bytes are. All calls wait until everything they began is over.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// How bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `SEND`: copied into the socket's own memory.
    Copy,
    /// `SEND_ZC` from memory that the kernel looks up and pins for each send.
    ZeroCopy,
    /// `SEND_ZC` from memory that was registered before.
    ZeroCopyFixed,
}

/// What came of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes that the sockets took.
    pub bytes: u64,
    /// Notifications that memory is free again: one for each zero-copy send that took any.
    pub notifications: u64,
    /// Of these, where the kernel says that it copied in the end.
    pub copied: u64,
}

/// A ring that sends from memory of its own.
pub struct ZeroCopySender {
    uring: IoUring,
    /// Never freed: the kernel may read it for as long as a receiver has not, and no owner that could
    /// be dropped, or forgotten, has to answer for that.
    bytes: &'static [u8],
}

impl ZeroCopySender {
    /// A ring for batches of at most `batch_max` sends of at most `bytes`, which are leaked and
    /// registered.
    ///
    /// # Errors
    /// What the system refuses: rings, `SEND_ZC` (Linux 6.0), or so much locked memory.
    pub fn new(bytes: Vec<u8>, batch_max: u32) -> io::Result<Self> {
        let bytes: &'static [u8] = bytes.leak();
        // A zero-copy send completes twice.
        let uring = IoUring::builder().setup_cqsize(batch_max * 2).build(batch_max)?;
        let mut probe = io_uring::Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::SendZc::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let memory =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: the memory is leaked, so it outlives the registration; sends only read it.
        unsafe { uring.submitter().register_buffers(&[memory]) }?;
        Ok(Self { uring, bytes })
    }

    /// Sends the first `bytes` of the memory to each socket, whole, and waits until that is done and
    /// the memory free again.
    ///
    /// # Errors
    /// What a send failed with, after all have ended; or what the ring did, which is of no more use then.
    ///
    /// # Panics
    /// More sockets than `batch_max`, or more bytes than there are.
    pub fn send(
        &mut self,
        method: Method,
        sockets: &[BorrowedFd<'_>],
        bytes: usize,
    ) -> io::Result<Sent> {
        let memory = &self.bytes[..bytes];
        for (index, socket) in (0..).zip(sockets) {
            let entry = entry(method, *socket, memory).user_data(index);
            // SAFETY: the entry points to leaked memory alone, and the kernel keeps the socket's file
            // from here on, or fails the send.
            let pushed = unsafe { self.uring.submission().push(&entry) };
            pushed.expect("a batch is within the bound, and every one before is over");
        }
        let (mut open, mut sent, mut error) = (sockets.len(), Sent::default(), None);
        while open > 0 {
            match self.uring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for completion in self.uring.completion() {
                let flags = completion.flags();
                if cqueue::notif(flags) {
                    sent.notifications += 1;
                    sent.copied += u64::from(completion.result() as u32 & USAGE_COPIED != 0);
                } else if let Ok(taken) = u64::try_from(completion.result()) {
                    sent.bytes += taken;
                } else {
                    error = Some(io::Error::from_raw_os_error(-completion.result()));
                }
                // Of an operation that goes on, the notification is to come.
                open -= usize::from(!cqueue::more(flags));
            }
        }
        error.map_or(Ok(sent), Err)
    }
}

fn entry(method: Method, socket: BorrowedFd<'_>, memory: &'static [u8]) -> squeue::Entry {
    let (at, bytes) = (memory.as_ptr(), memory.len() as u32);
    let fd = types::Fd(socket.as_raw_fd());
    let zero_copy = || {
        opcode::SendZc::new(fd, at, bytes).flags(libc::MSG_WAITALL).zc_flags(SEND_ZC_REPORT_USAGE)
    };
    match method {
        Method::Copy => opcode::Send::new(fd, at, bytes).flags(libc::MSG_WAITALL).build(),
        Method::ZeroCopy => zero_copy().build(),
        Method::ZeroCopyFixed => zero_copy().buf_index(Some(0)).build(),
    }
}

/// `IORING_SEND_ZC_REPORT_USAGE` and `IORING_NOTIF_USAGE_ZC_COPIED` of `linux/io_uring.h`.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;
const USAGE_COPIED: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
        os::fd::AsFd as _,
        thread,
    };

    use super::*;

    #[test]
    fn each_method_delivers_the_bytes_and_gives_the_memory_back() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let mut sender = match ZeroCopySender::new(bytes.clone(), 2) {
            Ok(sender) => sender,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        for method in [Method::Copy, Method::ZeroCopy, Method::ZeroCopyFixed] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("bound");
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let mut reader = TcpStream::connect(address).expect("connects");
                    thread::spawn(move || {
                        let mut got = Vec::new();
                        reader.read_to_end(&mut got).map(|_| got)
                    })
                })
                .collect();
            let sockets = [(); 2].map(|()| listener.accept().expect("accepts").0);
            let sent = sender
                .send(method, &sockets.each_ref().map(|socket| socket.as_fd()), bytes.len())
                .expect("sends");
            assert_eq!(sent.bytes, 200_000, "{method:?}");
            assert_eq!(sent.notifications > 0, method != Method::Copy, "{method:?}");
            drop(sockets);
            for reader in readers {
                assert_eq!(reader.join().expect("ends").expect("reads"), bytes, "{method:?}");
            }
        }
    }
}
