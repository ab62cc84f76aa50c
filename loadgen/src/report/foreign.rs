//! What is to be said of servers of others: messages that carry no stamp, requests that were refused.
//!
//! Knows: which of it makes a run unclean. Must not know: how stamps are found.

use super::Report;
use crate::escapes::legible;
use crate::post::Posts;

impl Report {
    /// Adds it to a report that has been judged. Messages without a stamp are a server's own words as
    /// long as nothing is missing; else they may well be what is.
    /// What publishers were told last may say why nothing came.
    pub(super) fn add_foreign(
        &mut self,
        first_unrecognised: Option<String>,
        last_to_publishers: &[u8],
    ) {
        let mut wrong = self.posts.as_ref().map(Posts::wrong).unwrap_or_default();
        let counts = &self.deliveries.counts;
        let mut note = None;
        if let Some(first) = first_unrecognised {
            let count = counts.unrecognised;
            match self.faults.lost > 0 || counts.messages == 0 {
                true => wrong.push(format!(
                    "{count} messages were NOT RECOGNISED: they carry no stamp, or hide it; the first: {first}"
                )),
                false => {
                    note = Some(format!("{count} messages carried no stamp; the first: {first}"));
                }
            }
        }
        // What was lost stays first.
        let first = usize::from(!self.clean).min(self.notes.len());
        self.clean &= wrong.is_empty();
        self.notes.splice(first..first, wrong);
        self.notes.extend(note);
        if !self.clean && !last_to_publishers.is_empty() {
            self.notes.push(format!("a publisher was told last: {}", legible(last_to_publishers)));
        }
    }
}

impl Posts {
    /// For the table.
    pub(super) fn text(&self) -> String {
        let by_status = self.by_status.iter();
        let parts: Vec<_> =
            by_status.map(|(status, count)| format!("{count} times {status}")).collect();
        let mut text = match parts.is_empty() {
            true => "none".to_owned(),
            false => parts.join(", "),
        };
        if self.reopened > 0 {
            text += &format!("; connections opened anew: {}", self.reopened);
        }
        text
    }
}
