//! Topics that a sweep serves by a sampled entry.
//!
//! Knows: what the entry has shown last. Must not know: when it shows more.

use super::{Batch, Need, Owed, Served, Sweep, Told};
use crate::{
    ids::TopicId,
    publication::Format,
    topics::{names::Topic, pace::View},
};

impl Sweep {
    /// The count up to which everything of a value topic was sent that has no entry of its own.
    pub fn seen(&self, topic: TopicId) -> u64 {
        let mut from = self.at;
        for mark in &self.marks {
            if (from..mark.end).contains(&topic.0) {
                return mark.seen;
            }
            from = if mark.end == u32::MAX { 0 } else { mark.end };
        }
        0
    }
}

/// A sampled entry's topic: of it there is what was shown last, and nothing else.
pub(super) fn serve(
    format: Format,
    sweep: &mut Sweep,
    topic: &Topic,
    (id, seen): (TopicId, u64),
    view: View<'_>,
    batch: &mut Batch,
) -> Served {
    let found = sweep.owed.binary_search_by_key(&id, |owed| owed.topic).ok();
    let owed = found.map(|at| sweep.owed.remove(at)).filter(|owed| owed.epoch == topic.epoch);
    let Some(publication) = view.publication else { return Served::Done };
    match owed {
        Some(Owed { need: Need::Snapshot, .. }) => {
            batch.told.push((topic.rule, Told::Snapshot));
            batch.write(|out| publication.write_snapshot(out, format.body));
        }
        Some(owed) if owed.next > view.seq() => {}
        None if view.at <= seen => {}
        _ => {
            batch.push(publication, format);
            sweep.sent += 1;
            if view.at > sweep.began {
                sweep.shown.add(topic.rule, 1);
            }
        }
    }
    Served::Done
}
