//! Many shards' answers, made one.
//!
//! Knows: what each kind of answer means summed. Must not know: HTTP, the mesh.

use std::collections::BTreeMap;

use serde::Serialize;

use super::asks::FromShard;
use crate::mail::{Answer, ConnectionReport, TopicReport};

/// A connection with the shard that has it.
#[derive(Debug, Serialize)]
pub(super) struct PlacedConnection {
    shard: usize,
    #[serde(flatten)]
    report: ConnectionReport,
}

/// A page of topics.
#[derive(Debug, Serialize)]
pub(super) struct TopicPage {
    topics: Vec<TopicReport>,
    /// What to give as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One topic as all shards together see it; `None` if none knows it.
pub(super) fn topic(answers: Vec<FromShard>) -> Option<TopicReport> {
    topic_reports(answers).into_iter().flatten().reduce(join)
}

/// One page of at most `limit` topics, each shard having been asked for as many.
pub(super) fn topics(answers: Vec<FromShard>, limit: usize) -> TopicPage {
    let shards = topic_reports(answers);
    // A shard whose list is full may know more topics after its last: beyond that name the sums
    // would lack it, so the page ends there.
    let full = || shards.iter().filter(|list| list.len() >= limit);
    let end = full().filter_map(|list| list.last()).map(|last| last.topic.clone()).min();
    let mut by_name = BTreeMap::new();
    for report in shards.into_iter().flatten() {
        if end.as_ref().is_some_and(|end| report.topic > *end) {
            continue;
        }
        let joined = match by_name.remove(&report.topic) {
            Some(earlier) => join(earlier, report),
            None => report,
        };
        by_name.insert(joined.topic.clone(), joined);
    }
    let more = end.is_some() || by_name.len() > limit;
    let topics: Vec<_> = by_name.into_values().take(limit).collect();
    let next = topics.last().filter(|_| more).map(|last| last.topic.clone());
    TopicPage { topics, next }
}

/// At most `limit` connections, the worst laggard first if so sorted.
pub(super) fn connections(
    answers: Vec<FromShard>,
    limit: usize,
    by_lag: bool,
) -> Vec<PlacedConnection> {
    let mut all = Vec::new();
    for FromShard { shard, answer } in answers {
        if let Answer::Connections(reports) = answer {
            all.extend(reports.into_iter().map(|report| PlacedConnection { shard, report }));
        }
    }
    all.sort_by_key(|placed| placed.shard);
    if by_lag {
        all.sort_by_key(|placed| {
            let ConnectionReport { lagging, behind_messages, backlog_bytes, .. } = placed.report;
            // Of who is only behind in its lane's log bytes say more than messages do.
            let swept_messages = if lagging { behind_messages } else { 0 };
            std::cmp::Reverse((lagging, swept_messages, backlog_bytes))
        });
    }
    all.truncate(limit);
    all
}

/// Whether any shard had the topic.
pub(super) fn deleted(answers: &[FromShard]) -> bool {
    answers.iter().any(|from| matches!(from.answer, Answer::Deleted(true)))
}

fn topic_reports(answers: Vec<FromShard>) -> Vec<Vec<TopicReport>> {
    let topics = |from: FromShard| match from.answer {
        Answer::Topics(reports) => Some(reports),
        Answer::Connections(_) | Answer::Deleted(_) => None,
    };
    answers.into_iter().filter_map(topics).collect()
}

/// Subscribers add up; a publication reaches the shards one after the other, so what is newest of
/// the rest is true.
fn join(a: TopicReport, b: TopicReport) -> TopicReport {
    let subscribers = a.subscribers + b.subscribers;
    let newest = if (b.ts, b.seq) > (a.ts, a.seq) { b } else { a };
    TopicReport { subscribers, ..newest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::ConnectionState;

    fn report(topic: &str, seq: u64) -> TopicReport {
        TopicReport {
            topic: topic.to_owned(),
            kind: "event",
            epoch: "0".repeat(16),
            seq,
            ts: seq,
            last_bytes: seq,
            subscribers: 1,
            rule: "(none)".to_owned(),
            history_messages: 1,
            history_bytes: 1,
            first_seq: Some(seq),
            snapshot_seq: None,
            snapshot_usable: false,
            stale_since: None,
        }
    }

    fn shard(shard: usize, topics: &[(&str, u64)]) -> FromShard {
        let reports = topics.iter().map(|&(topic, seq)| report(topic, seq)).collect();
        FromShard { shard, answer: Answer::Topics(reports) }
    }

    fn names(page: &TopicPage) -> Vec<&str> {
        page.topics.iter().map(|report| report.topic.as_str()).collect()
    }

    #[test]
    fn subscribers_add_up_and_the_newest_holds() {
        let one = topic(vec![shard(0, &[("a", 3)]), shard(1, &[("a", 4)]), shard(2, &[])]);
        let one = one.expect("known to two");
        assert_eq!((one.subscribers, one.seq, one.last_bytes), (2, 4, 4));
        assert!(topic(vec![shard(0, &[])]).is_none());
    }

    #[test]
    fn a_page_ends_where_a_full_list_ends() {
        let page =
            topics(vec![shard(0, &[("a", 1), ("c", 1)]), shard(1, &[("a", 1), ("b", 1)])], 2);
        assert_eq!(names(&page), ["a", "b"]);
        assert_eq!(page.next.as_deref(), Some("b"));
        let page = topics(vec![shard(0, &[("a", 1), ("c", 1)]), shard(1, &[("a", 1)])], 3);
        assert_eq!(names(&page), ["a", "c"]);
        assert_eq!(page.next, None);
        assert_eq!(page.topics[0].subscribers, 2);
    }

    #[test]
    fn pages_together_hold_every_topic_once() {
        let all = [("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1)];
        let ask = |after: Option<&str>, of: &[usize]| {
            let rest = of.iter().map(|&at| all[at]).filter(|(name, _)| after < Some(*name));
            rest.take(2).collect::<Vec<_>>()
        };
        let (mut after, mut seen) = (None::<String>, Vec::new());
        loop {
            let at = after.as_deref();
            let answers = vec![shard(0, &ask(at, &[0, 1, 2, 3, 4])), shard(1, &ask(at, &[1, 4]))];
            let page = topics(answers, 2);
            seen.extend(names(&page).iter().map(ToString::to_string));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn the_worst_laggard_comes_first() {
        let connection = |name: &str, backlog_bytes, lagging| ConnectionReport {
            connection: name.to_owned(),
            peer: "127.0.0.1:1".to_owned(),
            proxied: false,
            path: "/ws",
            subscriptions: 1,
            backlog_bytes,
            behind_messages: backlog_bytes * 10,
            state: if lagging { ConnectionState::Lagging } else { ConnectionState::Live },
            since: None,
            lagging,
            blocked: lagging,
        };
        let answers = |lists: [Vec<ConnectionReport>; 2]| {
            let placed = lists.into_iter().enumerate();
            placed
                .map(|(shard, list)| FromShard { shard, answer: Answer::Connections(list) })
                .collect::<Vec<_>>()
        };
        let lists = || {
            [
                vec![connection("a", 5, false)],
                vec![connection("b", 9, false), connection("c", 1, true)],
            ]
        };
        let names = |by_lag, limit| {
            let all = connections(answers(lists()), limit, by_lag);
            all.into_iter().map(|placed| placed.report.connection).collect::<Vec<_>>()
        };
        assert_eq!(names(true, 3), ["c", "b", "a"]);
        assert_eq!(names(false, 2), ["a", "b"]);
    }
}
