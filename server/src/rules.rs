//! Rules for topics: what each is, and what may happen to those who read it slowly.
//!
//! Knows: the choices, their defaults by kind, which rule holds for a name. Must not know: how rules
//! are spelled (`plan`), or how they are carried out.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use uringcast_protocol::topic_name::Pattern;

/// What may happen to a subscriber of a topic that lags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Never merged: trades.
    #[default]
    Event,
    /// Only the newest matters; conflated for a subscriber that can't keep up.
    Value,
    /// Each builds on the one before: order-book changes. Never merged or dropped singly.
    Delta,
}

impl Kind {
    /// As it stands in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Value => "value",
            Self::Delta => "delta",
        }
    }
}

/// What a topic's payloads are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Decided by each payload: valid JSON text is json, other UTF-8 text is text, the rest binary.
    #[default]
    Auto,
    /// Anything; `data_base64` in JSON messages.
    Binary,
    /// Valid JSON only.
    Json,
    /// UTF-8; a JSON string in JSON messages.
    Text,
}

/// What becomes of a subscriber of an event topic whose missed messages are not in history any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It is closed with 1013.
    #[default]
    Close,
    /// It is told which are not coming.
    Gap,
}

/// What a subscriber that asks for a snapshot is sent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotSource {
    /// Nothing.
    None,
    /// The last publication.
    Last,
    /// What the publisher last sent as a snapshot.
    Published,
}

/// When publications go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    #[default]
    Live,
    /// All of them, every so often: fewer sends for a known delay.
    Batch(Duration),
    /// The newest, every so often; value topics only.
    Sample(Duration),
}

/// How much of a topic's past is kept; whichever bound is reached first. The last publication is
/// always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Messages.
    pub messages: u32,
    /// Bytes of memory.
    pub bytes: u64,
    /// Nothing older than this.
    pub age: Option<Duration>,
}

/// History of a delta topic whose rule names none: less could not bridge from one snapshot of the
/// publisher to the next.
const DELTA_HISTORY_MESSAGES: u32 = 1_024;
/// The same in bytes, and the bytes where a rule names only messages.
const HISTORY_BYTES: u64 = 4 << 20;

/// A value topic whose rule names no age: with what the kernel holds for a slow subscriber, this is
/// how old a value may be when it comes.
const VALUE_LAG_AGE: Duration = Duration::from_secs(1);

/// A rule for the topics that a pattern matches; the first rule that matches a topic holds.
#[derive(Clone, Debug)]
pub struct TopicRule {
    /// Which topics.
    pub pattern: Pattern,
    /// Their kind.
    pub kind: Kind,
    /// Their content.
    pub content: Content,
    /// A blocked subscriber's lag bound, bytes; `None` for the server's.
    pub lag_bytes_max: Option<u64>,
    /// A blocked subscriber's lag bound, messages; `None` for the server's.
    pub lag_messages_max: Option<u64>,
    /// For so long a subscriber of a value topic may be blocked before it is sent the newest in place
    /// of what it missed; value topics only.
    pub lag_age_max: Option<Duration>,
    /// Event topics only.
    pub overflow: Overflow,
    /// How much of the past is kept.
    pub history: HistoryBounds,
    /// What a snapshot is.
    pub snapshot: SnapshotSource,
    /// When publications go out.
    pub pace: Pace,
    /// A topic that nobody published to for so long is forgotten; `None`: never.
    pub expire: Option<Duration>,
    /// After so long without a publication subscribers are told; `None`: never.
    pub stale_after: Option<Duration>,
    /// From where may be published; empty: from wherever publishing is allowed at all.
    pub publish_from: Vec<IpNet>,
    /// From where may be subscribed; empty: from anywhere.
    pub subscribe_from: Vec<IpNet>,
}

impl TopicRule {
    /// What holds for topics of a kind unless their rule says otherwise.
    pub fn new(pattern: Pattern, kind: Kind) -> Self {
        let messages = if kind == Kind::Delta { DELTA_HISTORY_MESSAGES } else { 0 };
        let snapshot =
            if kind == Kind::Delta { SnapshotSource::Published } else { SnapshotSource::Last };
        Self {
            pattern,
            kind,
            content: Content::default(),
            lag_bytes_max: None,
            lag_messages_max: None,
            lag_age_max: (kind == Kind::Value).then_some(VALUE_LAG_AGE),
            overflow: Overflow::default(),
            history: HistoryBounds { messages, bytes: HISTORY_BYTES, age: None },
            snapshot,
            pace: Pace::default(),
            expire: None,
            stale_after: None,
            publish_from: Vec::new(),
            subscribe_from: Vec::new(),
        }
    }

    /// Whether its topics may be published to from this address, where publishing is allowed at all.
    pub fn may_publish(&self, from: IpAddr) -> bool {
        is_within(&self.publish_from, from)
    }

    /// Whether its topics may be subscribed to from this address.
    pub fn may_subscribe(&self, from: IpAddr) -> bool {
        is_within(&self.subscribe_from, from)
    }
}

fn is_within(networks: &[IpNet], address: IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|net| net.contains(&address.to_canonical()))
}

/// A rule's place among the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(pub u16);

/// All rules: those given, and behind them the one for topics that none of them matches.
#[derive(Clone, Debug)]
pub struct Rules(Vec<TopicRule>);

/// Rules at most.
pub const RULES_MAX: usize = 1_000;

impl Rules {
    /// Those given, in their order; at most [`RULES_MAX`].
    pub fn new(mut rules: Vec<TopicRule>) -> Self {
        let all = Pattern::parse(">").expect("a pattern by the grammar of names");
        rules.truncate(RULES_MAX);
        rules.push(TopicRule::new(all, Kind::default()));
        Self(rules)
    }

    /// Which holds for a topic of this name.
    pub fn of(&self, name: &str) -> RuleId {
        let at = self.0.iter().position(|rule| rule.pattern.matches(name));
        RuleId(at.unwrap_or(self.0.len() - 1) as u16)
    }

    /// A rule.
    pub fn rule(&self, id: RuleId) -> &TopicRule {
        &self.0[usize::from(id.0)]
    }

    /// All, the last one for topics that none of the others matches.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &TopicRule> + ExactSizeIterator + Clone {
        self.0.iter()
    }

    /// Those given.
    pub fn given(&self) -> &[TopicRule] {
        &self.0[..self.0.len() - 1]
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_matches_holds_and_one_always_does() {
        let rule = |text, kind| TopicRule::new(Pattern::parse(text).expect("right"), kind);
        let rules = Rules::new(vec![rule("a.*", Kind::Value), rule("a.>", Kind::Delta)]);
        let kind = |name| rules.rule(rules.of(name)).kind;
        assert_eq!(
            (kind("a.b"), kind("a.b.c"), kind("b")),
            (Kind::Value, Kind::Delta, Kind::Event)
        );
        assert_eq!(rules.given().len(), 2);
    }

    #[test]
    fn networks_hold_for_mapped_addresses_too() {
        let mut rule = TopicRule::new(Pattern::parse("a").expect("right"), Kind::Event);
        assert!(rule.may_publish(IpAddr::from([192, 0, 2, 1])));
        rule.publish_from = vec!["10.0.0.0/8".parse().expect("right")];
        assert!(rule.may_publish("::ffff:10.1.2.3".parse().expect("right")));
        assert!(!rule.may_publish(IpAddr::from([192, 0, 2, 1])));
        assert!(rule.may_subscribe(IpAddr::from([192, 0, 2, 1])));
    }
}
