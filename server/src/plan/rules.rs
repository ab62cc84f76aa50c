//! Rules for topics, from keys and text.
//!
//! Knows: every key of a rule, its unit and bounds, and which do not go together. Must not know: how
//! a file is spelled, or how rules are carried out. An error is the end of the sentence "… is not
//! right: ".

use std::{ops::RangeInclusive, time::Duration};

use ipnet::IpNet;
use uringcast_protocol::topic_name::Pattern;

use super::{Mistake, values};
use crate::{
    flags::{Given, GivenKey},
    rules::{Content, HistoryBounds, Kind, Overflow, Pace, SnapshotSource, TopicRule},
};

/// The bounds of the process that a rule must not exceed; 0 where they are not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    /// `--history-bytes-max`
    pub(super) history_bytes_max: u64,
    /// `--log-bytes-max`
    pub(super) log_bytes_max: u64,
}

/// One rule; `None`, and every mistake in it, if it is wrong.
pub(super) fn rule(
    given: &Given,
    totals: Totals,
    mistakes: &mut Vec<Mistake>,
) -> Option<TopicRule> {
    let before = mistakes.len();
    let (pattern, keys) = match &given.keys {
        Some(keys) => (given.value.clone(), keys.clone()),
        None => split(given),
    };
    let mut reader = Reader { keys, mistakes };
    let parsed = Pattern::parse(&pattern);
    if let Err(error) = &parsed {
        let wanted = format!("wants a topic or pattern, and {pattern:?} is {error}");
        let (place, value) = (given.place.clone(), given.value.clone());
        reader.mistakes.push(Mistake { place, value, wanted });
    }
    reader.names();
    // Whatever the pattern is, all that is wrong with the rest is named too.
    let any = || Pattern::parse(">").expect("a pattern by the grammar of names");
    let rule = reader.rule(parsed.unwrap_or_else(|_| any()), totals);
    (reader.mistakes.len() == before).then_some(rule)
}

/// `PATTERN:key=value,key=value`. Patterns hold no `=` but may hold `:`, as values may.
fn split(given: &Given) -> (String, Vec<GivenKey>) {
    let text = given.value.as_str();
    let colon = text.find('=').and_then(|equals| text[..equals].rfind(':'));
    let Some(colon) = colon else { return (text.to_owned(), Vec::new()) };
    let options = text[colon + 1..].split(',').filter(|option| !option.is_empty());
    let keys = options.map(|option| {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let place = format!("{} '{text}': {key}", given.place);
        GivenKey { key: key.to_owned(), value: value.to_owned(), place }
    });
    (text[..colon].to_owned(), keys.collect())
}

struct Reader<'m> {
    keys: Vec<GivenKey>,
    mistakes: &'m mut Vec<Mistake>,
}

impl Reader<'_> {
    /// Names the keys that there are not, and those that come twice.
    fn names(&mut self) {
        for key in &mut self.keys {
            key.key = key.key.replace('_', "-");
        }
        for (index, given) in self.keys.iter().enumerate() {
            let key = given.key.as_str();
            let wanted = if key == "history" {
                "wants messages, bytes or age: history = { messages = 1000 }, history-messages=1000"
                    .to_owned()
            } else if !KEYS.contains(&key) {
                format!("is no key of a rule, which are pattern, {}", KEYS.join(", "))
            } else if !LISTS.contains(&key) && self.keys[..index].iter().any(|k| k.key == key) {
                "is given twice".to_owned()
            } else {
                continue;
            };
            let (place, value) = (given.place.clone(), given.value.clone());
            self.mistakes.push(Mistake { place, value, wanted });
        }
    }

    fn rule(&mut self, pattern: Pattern, totals: Totals) -> TopicRule {
        let kind = self.choice("kind", KINDS);
        // Of a kind that is none nothing can be said.
        let known = (kind.is_some() || !self.has("kind")).then(|| kind.unwrap_or_default());
        let mut rule = TopicRule::new(pattern, known.unwrap_or_default());
        rule.content = self.choice("content", CONTENTS).unwrap_or_default();
        rule.lag_bytes_max = self.one("lag-bytes-max", |text| values::bytes(text, &LAG_BYTES));
        rule.lag_messages_max =
            self.one("lag-messages-max", |text| values::number(text, &LAG_MESSAGES));
        let age = self.one("lag-age-max", |text| values::time(text, &LAG_AGE_MS));
        rule.lag_age_max = age.or(rule.lag_age_max);
        rule.overflow = self.choice("overflow", OVERFLOWS).unwrap_or_default();
        rule.history = self.history(rule.history);
        rule.snapshot = self.choice("snapshot", SNAPSHOTS).unwrap_or(rule.snapshot);
        rule.pace = self.pace();
        rule.expire = self.one("expire", |text| values::time(text, &EXPIRE_MS));
        rule.stale_after = self.one("stale-after", |text| values::time(text, &STALE_MS));
        rule.publish_from = self.networks("publish-from");
        rule.subscribe_from = self.networks("subscribe-from");
        if let Some(kind) = known {
            self.agree_with_kind(kind, &rule);
        }
        self.agree(&rule, totals);
        rule
    }

    fn history(&mut self, usual: HistoryBounds) -> HistoryBounds {
        let messages = self.one("history-messages", |text| values::number(text, &MESSAGES));
        let bytes = self.one("history-bytes", |text| values::bytes(text, &HISTORY_BYTES));
        let age = self.one("history-age", |text| values::time(text, &AGE_MS));
        // Bounds by bytes or age alone mean: as many messages as these leave room for.
        let open = self.has("history-bytes") || self.has("history-age");
        let unnamed = if open { u32::MAX } else { usual.messages };
        HistoryBounds {
            messages: messages.unwrap_or(unnamed),
            bytes: bytes.unwrap_or(usual.bytes),
            age,
        }
    }

    fn pace(&mut self) -> Pace {
        let live = self.one("pace", |text| match text {
            "live" => Ok(()),
            _ => Err("wants live; batch=5ms and sample=100ms are keys of their own".to_owned()),
        });
        let batch = self.one("batch", |text| values::time(text, &BATCH_MS));
        let sample = self.one("sample", |text| values::time(text, &SAMPLE_MS));
        if self.has("batch") && self.has("sample") {
            self.wrong("sample", "wants batch or sample, not both".to_owned());
        } else if live.is_some() && (self.has("batch") || self.has("sample")) {
            self.wrong("pace", "wants no batch and no sample beside it".to_owned());
        }
        match (batch, sample) {
            (_, Some(every)) => Pace::Sample(every),
            (Some(every), _) => Pace::Batch(every),
            (None, None) => Pace::Live,
        }
    }

    fn agree_with_kind(&mut self, kind: Kind, rule: &TopicRule) {
        let name = kind.name();
        if self.has("sample") && kind != Kind::Value {
            let wanted = format!("wants kind value: of {name} topics every message matters");
            self.wrong("sample", wanted);
        }
        if self.has("lag-age-max") && kind != Kind::Value {
            let wanted = format!(
                "wants kind value: of {name} topics every message matters, however old it is"
            );
            self.wrong("lag-age-max", wanted);
        }
        if self.has("overflow") && kind != Kind::Event {
            let instead = match kind {
                Kind::Delta => "a gap and a snapshot",
                _ => "the newest value",
            };
            let wanted =
                format!("wants kind event: who lags on a {name} topic is sent {instead} anyway");
            self.wrong("overflow", wanted);
        }
        if self.has("snapshot") {
            match (kind, rule.snapshot) {
                (Kind::Delta, SnapshotSource::Last) => {
                    let wanted = "wants published or none: of a delta topic the last message alone \
                                  says nothing";
                    self.wrong("snapshot", wanted.to_owned());
                }
                (Kind::Event | Kind::Value, SnapshotSource::Published) => {
                    let wanted = format!(
                        "wants last or none: publishers send snapshots of delta topics, not of \
                         {name} topics"
                    );
                    self.wrong("snapshot", wanted);
                }
                _ => {}
            }
        }
        if kind == Kind::Delta && rule.history.messages == 0 {
            let wanted = "wants at least 1 where kind is delta: without history nothing follows a \
                          snapshot";
            self.wrong("history-messages", wanted.to_owned());
        }
    }

    fn agree(&mut self, rule: &TopicRule, totals: Totals) {
        if rule.history.messages == 0 {
            for key in ["history-bytes", "history-age"] {
                self.wrong(key, "wants more than 0 messages of history beside it".to_owned());
            }
        }
        let bounds = [
            (
                "history-bytes",
                Some(rule.history.bytes),
                totals.history_bytes_max,
                "--history-bytes-max",
            ),
            ("lag-bytes-max", rule.lag_bytes_max, totals.log_bytes_max, "--log-bytes-max"),
        ];
        for (key, bytes, total, flag) in bounds {
            if total > 0 && bytes.is_some_and(|bytes| bytes > total) {
                self.wrong(key, format!("wants at most {flag}, {total} bytes"));
            }
        }
        let Some(stale_after) = rule.stale_after else { return };
        if rule.expire.is_some_and(|expire| expire <= stale_after) {
            self.wrong("stale-after", "wants less than expire".to_owned());
        }
        if let Pace::Batch(every) | Pace::Sample(every) = rule.pace
            && stale_after <= every
        {
            self.wrong("stale-after", "wants more than batch or sample".to_owned());
        }
    }

    fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|given| given.key == key)
    }

    /// The value of a key that was given, if it is right.
    fn one<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let given = self.keys.iter().find(|given| given.key == key)?;
        parse(&given.value)
            .map_err(|wanted| {
                let (place, value) = (given.place.clone(), given.value.clone());
                self.mistakes.push(Mistake { place, value, wanted });
            })
            .ok()
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.one(key, |text| values::choice(text, choices))
    }

    fn networks(&mut self, key: &str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for given in self.keys.iter().filter(|given| given.key == key) {
            match values::network(&given.value) {
                Ok(network) => networks.push(network),
                Err(wanted) => {
                    let (place, value) = (given.place.clone(), given.value.clone());
                    self.mistakes.push(Mistake { place, value, wanted });
                }
            }
        }
        networks
    }

    /// The value that was given for a key is wrong beside the others.
    fn wrong(&mut self, key: &str, wanted: String) {
        if let Some(given) = self.keys.iter().find(|given| given.key == key) {
            let (place, value) = (given.place.clone(), given.value.clone());
            self.mistakes.push(Mistake { place, value, wanted });
        }
    }
}

/// Every key but `pattern`. In a file those of history are those of one table.
pub(super) const KEYS: &[&str] = &[
    "kind",
    "content",
    "history-messages",
    "history-bytes",
    "history-age",
    "snapshot",
    "overflow",
    "lag-bytes-max",
    "lag-messages-max",
    "lag-age-max",
    "pace",
    "batch",
    "sample",
    "stale-after",
    "expire",
    "publish-from",
    "subscribe-from",
];
/// Those that may come more than once.
const LISTS: &[&str] = &["publish-from", "subscribe-from"];
const KINDS: &[(&str, Kind)] =
    &[("event", Kind::Event), ("value", Kind::Value), ("delta", Kind::Delta)];
const CONTENTS: &[(&str, Content)] = &[
    ("auto", Content::Auto),
    ("json", Content::Json),
    ("text", Content::Text),
    ("binary", Content::Binary),
];
const OVERFLOWS: &[(&str, Overflow)] = &[("close", Overflow::Close), ("gap", Overflow::Gap)];
const SNAPSHOTS: &[(&str, SnapshotSource)] = &[
    ("last", SnapshotSource::Last),
    ("published", SnapshotSource::Published),
    ("none", SnapshotSource::None),
];
const LAG_BYTES: RangeInclusive<u64> = 4 << 10..=1 << 30;
const LAG_MESSAGES: RangeInclusive<u64> = 1..=1_000_000_000;
const LAG_AGE_MS: RangeInclusive<u64> = 10..=DAY_MS;
const MESSAGES: RangeInclusive<u32> = 0..=100_000_000;
const HISTORY_BYTES: RangeInclusive<u64> = 1 << 10..=1 << 40;
const AGE_MS: RangeInclusive<u64> = 1..=DAY_MS * 30;
const BATCH_MS: RangeInclusive<u64> = 1..=10_000;
/// As of a subscriber's `sample_ms`.
const SAMPLE_MS: RangeInclusive<u64> = 10..=60_000;
const STALE_MS: RangeInclusive<u64> = 100..=DAY_MS;
const EXPIRE_MS: RangeInclusive<u64> = 1_000..=DAY_MS * 365;
const DAY_MS: u64 = Duration::from_secs(86_400).as_millis() as u64;
