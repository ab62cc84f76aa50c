//! From one pace to another, with nothing lost, nothing twice, and nothing going back.
//!
//! Knows: what two interests have shown of a topic, where a sweep stands. Must not know: whose
//! interests they are, or commands.

use crate::{
    ids::{EntryId, TopicId},
    rules::Kind,
    topics::{
        Topics,
        sweep::{Need, Owed, Sweep},
    },
};

impl Topics {
    /// A subscriber changes from one interest to another (rising entries), in which topics are shown at
    /// other times. What the new one has shown and the old one has not is added to `starts`: it is to
    /// be sent first. Where the subscriber is ahead of the new one, that one is brought to where the
    /// subscriber is, before its tick. `sweep` is the subscriber's, if it is not in its lane's log.
    pub fn repace(
        &mut self,
        (before, after): (&[EntryId], &[EntryId]),
        sweep: Option<&Sweep>,
        starts: &mut Vec<Owed>,
        now_ns: u64,
    ) {
        if !self.has_sampled(before) && !self.has_sampled(after) {
            return;
        }
        let topics = self.topics_at_issue(before, after, sweep.is_some());
        for start in starts.iter().filter(|start| start.need != Need::Snapshot) {
            self.show_up_to(after, start.topic, start.next.saturating_sub(1), now_ns);
        }
        let mut begun: Vec<_> = starts.iter().map(|start| start.topic).collect();
        begun.sort_unstable();
        for topic in topics {
            let Some(old) = self.view(before, topic) else { continue };
            let (old_seq, old_at) = (old.seq(), old.at);
            let Some(new_seq) = self.show_up_to(after, topic, old_seq, now_ns) else { continue };
            if begun.binary_search(&topic).is_ok() {
                continue;
            }
            let unsent =
                sweep.is_some_and(|sweep| match sweep.owed(topic, self.names.topic(topic)) {
                    Some(owed) => owed.need == Need::Snapshot || owed.next <= old_seq,
                    None => old_at > sweep.seen(topic),
                });
            let has_more = unsent || new_seq > old_seq;
            if has_more || sweep.is_some() {
                let next = if has_more { new_seq } else { old_seq + 1 };
                starts.push(Owed::from(topic, self.names.topic(topic), next, Need::Next));
            }
        }
    }

    /// Value topics of which two interests may have shown something else. A subscriber that sweeps
    /// (`all`) has seen some of what its interest has shown, by counts that mean nothing in another.
    fn topics_at_issue(&self, before: &[EntryId], after: &[EntryId], all: bool) -> Vec<TopicId> {
        let mut topics = Vec::new();
        for &entry in before.iter().chain(after) {
            let entry = self.names.entry(entry);
            match &entry.sampled {
                Some(_) if all => topics.extend_from_slice(&entry.topics),
                Some(sampled) => topics.extend(sampled.dirty()),
                None => {}
            }
        }
        topics.retain(|&topic| self.names.topic(topic).kind == Kind::Value);
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// Sees to it that subscribers of these entries have been shown a topic's message of this number.
    /// The number of what they have been shown; `None` if no entry matches.
    fn show_up_to(
        &mut self,
        entries: &[EntryId],
        topic: TopicId,
        seq: u64,
        now_ns: u64,
    ) -> Option<u64> {
        let view = self.view(entries, topic)?;
        match view.entry {
            Some(entry) if view.seq() < seq => {
                self.show(entry, topic, now_ns);
                self.view(entries, topic).map(|view| view.seq())
            }
            _ => Some(view.seq()),
        }
    }
}

#[cfg(test)]
mod tests;
