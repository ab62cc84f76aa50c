//! Publications compressed for deflated lanes: here, or by the helper thread.
//!
//! Knows: what is compressed where and within which bounds, and that the order of a topic holds
//! meanwhile. Must not know: who subscribes, how bytes are compressed.
//!
//! A topic's home compresses a publication once for all shards, before it is sent to them. Short ones
//! are done on the spot; a longer one goes to the helper, and all that comes for its topic waits
//! until it is back. What can't be compressed in time goes plain: it is never lost, and never late by
//! more than [`HELPER_NS_MAX`].

use uringcast_mesh::grid::Wake;
use uringcast_protocol::command::ErrorCode;
use uringcast_ring::{Io, pool::Frame};

use super::{
    Shard, count,
    held::{Job, Waiting},
};
use crate::{
    ids::TopicId,
    mail::{Ingest, Mail, Origin},
    publication::{Publication, deflated::Wanted},
};

/// Longer messages are compressed by the helper: on a reactor every connection would wait for them.
pub(super) const INLINE_BYTES_MAX: usize = 16 << 10;
/// Bytes compressed by a reactor in one tick, about a millisecond; what comes beyond goes plain.
pub(super) const INLINE_BYTES_PER_TICK: usize = 128 << 10;
/// Publications out at the helper, bytes of all shards together.
const OUT_BYTES_MAX: usize = 16 << 20;
/// A publication that the helper has not compressed after this goes plain.
const HELPER_NS_MAX: u64 = 250_000_000;

impl<I: Io> Shard<I> {
    /// Compresses an ordered publication if anyone wants it so. `None` if it is out at the helper.
    pub(super) fn compress(
        &mut self,
        topic: TopicId,
        mut publication: Publication,
        origin: Origin,
    ) -> Option<Publication> {
        let wanted = self.shared.census.wanted(publication.topic_hash());
        if wanted.is_empty() {
            return Some(publication);
        }
        let bytes_min = self.settings.deflate_min_bytes as usize;
        let longest = wanted.longest(&publication, bytes_min);
        if longest == 0 {
            return Some(publication);
        }
        if longest > INLINE_BYTES_MAX {
            return self.compress_elsewhere(topic, publication, origin, wanted);
        }
        if self.is_pressed() || self.deflate_left < longest {
            count!(self.deflate_skipped);
            return Some(publication);
        }
        let pool = &mut self.topics.memory.pool;
        let left = self.deflate_left;
        let deflated = self.deflater.deflate(&publication, wanted, bytes_min, left, pool);
        self.deflate_left -= deflated.bytes_in;
        self.count_deflated(deflated.block.as_ref(), deflated.bytes_in, deflated.bytes_out);
        publication.set_deflated(deflated.block);
        Some(publication)
    }

    fn count_deflated(&self, block: Option<&Frame>, bytes_in: usize, bytes_out: usize) {
        count!(self.deflate_bytes_in, bytes_in as u64);
        count!(self.deflate_bytes_out, bytes_out as u64);
        if block.is_some() {
            count!(self.deflate_publications);
        } else {
            count!(self.deflate_useless);
        }
    }

    /// To the helper, if there is one and it has room. `None` if it has it now.
    fn compress_elsewhere(
        &mut self,
        topic: TopicId,
        publication: Publication,
        origin: Origin,
        wanted: Wanted,
    ) -> Option<Publication> {
        let bytes_max = OUT_BYTES_MAX / self.shards;
        let busy = self.is_pressed()
            || self.drain.is_some()
            || !self.held.has_room(publication.block_bytes(), bytes_max);
        let sent = self.helper.filter(|_| !busy).and_then(|helper| {
            let number = self.held.last_number() + 1;
            let frame = publication.frame().clone();
            match self.node.send(helper, Mail::Deflate { topic, number, wanted, frame }) {
                Ok(Wake::Needed) => self.io.wake(helper),
                Ok(Wake::NotNeeded) => {}
                Err(_) => return None,
            }
            Some(())
        });
        if sent.is_none() {
            count!(self.deflate_skipped);
            return Some(publication);
        }
        count!(self.deflate_helper);
        self.held.begin(topic, publication, origin, self.now.ns);
        None
    }

    /// The helper has answered.
    pub(super) fn compressed(
        &mut self,
        topic: TopicId,
        number: u64,
        block: Option<Frame>,
        bytes: [u32; 2],
    ) {
        // Late ones are published already.
        if let Some(job) = self.held.end(topic, number) {
            let [bytes_in, bytes_out] = bytes.map(|bytes| bytes as usize);
            self.count_deflated(block.as_ref(), bytes_in, bytes_out);
            self.release(topic, job, block);
        }
    }

    /// Publishes what was out, then what waited for it.
    fn release(&mut self, topic: TopicId, job: Job, block: Option<Frame>) {
        let Job { mut publication, origin, mut queue, .. } = job;
        publication.set_deflated(block);
        self.publish(topic, &publication, origin);
        let number = self.held.last_number();
        while let Some(waiting) = self.held.next(&mut queue) {
            match waiting {
                Waiting::Delete { topic, ticket } => self.delete_topic(&topic, ticket),
                Waiting::Ingest(ingest) => self.order(ingest),
            }
            if self.held.last_number() != number {
                // That one is out now; the rest waits for it.
                return self.held.hand_down(queue);
            }
        }
    }

    /// A publication comes behind one that is out.
    pub(super) fn wait_behind(&mut self, topic: TopicId, ingest: Ingest) {
        if self.held.is_full() {
            return self.refused(ingest.origin, ErrorCode::Busy);
        }
        self.held.wait(topic, Waiting::Ingest(ingest));
    }

    /// What has been out for too long goes plain; all of it, once the process is to end.
    pub(super) fn give_up_compressing(&mut self) {
        let since_ns = match self.drain {
            Some(_) => u64::MAX,
            None => self.now.ns.saturating_sub(HELPER_NS_MAX),
        };
        while let Some((topic, job)) = self.held.give_up(since_ns) {
            count!(self.deflate_skipped);
            self.release(topic, job, None);
        }
    }

    /// When the oldest that is out goes plain, ns.
    pub(super) fn compressing_until_ns(&self) -> Option<u64> {
        self.held.oldest_ns().map(|at| at + HELPER_NS_MAX)
    }
}
