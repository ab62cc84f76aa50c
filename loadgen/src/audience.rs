//! Who subscribes to what: parts of the subscribers, each with a pattern.
//!
//! Knows: patterns, topics, paths of the server. Must not know: sockets, publishing.

use uringcast_protocol::topic_name::Pattern;

use crate::crew::evenly;
use crate::failure::Failure;
use crate::flags::{AudienceFlags, Format};
use crate::interest::Interest;
use crate::plan::{ClientPlan, Group, Role};
use crate::verify::{StreamKind, Streams};

/// Subscribers in equal parts, ready for a crew.
pub(crate) struct Audience {
    /// One group for each interest, in order.
    pub(crate) groups: Vec<Group>,
    pub(crate) interests: Vec<Interest>,
    pub(crate) clients: Vec<ClientPlan>,
    pub(crate) streams: Streams,
}

impl Audience {
    /// Shares the subscribers out over `interests`, each one pattern or several with commas between.
    /// `deltas` are the topics of that kind; so many of the subscribers are slow.
    ///
    /// # Errors
    /// A pattern that is none, or that no topic of the run matches.
    pub(crate) fn new(
        flags: &AudienceFlags,
        interests: &[String],
        topics: Vec<String>,
        deltas: &[Pattern],
        slow: u32,
    ) -> Result<Self, Failure> {
        let parse = |flag: &'static str, text: &String| {
            let right = "a topic or pattern, as in md.*.trade or md.>";
            Pattern::parse(text).map_err(|_| Failure::usage(flag, text, right))
        };
        let values: Result<Vec<_>, _> =
            flags.value.iter().map(|text| parse("--value", text)).collect();
        let values = values?;
        let kind = |topic: &String| {
            let is = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(topic));
            match (is(deltas), is(&values)) {
                (true, _) => StreamKind::Delta,
                (false, true) => StreamKind::Value,
                (false, false) => StreamKind::Event,
            }
        };
        let streams = Streams { kinds: topics.iter().map(kind).collect(), names: topics };
        let mut audience =
            Self { groups: Vec::new(), interests: Vec::new(), clients: Vec::new(), streams };
        for (index, text) in interests.iter().enumerate() {
            let patterns = text.split(',').map(|part| parse("--interest", &part.to_owned()));
            let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
            let names = &audience.streams.names;
            let matches =
                |stream: usize| patterns.iter().any(|pattern| pattern.matches(&names[stream]));
            if flags.subscribers > 0 && !(0..names.len()).any(matches) {
                let first = names.first().map_or("", String::as_str);
                let right = format!("a pattern that matches topics of this run, such as {first}");
                return Err(Failure::usage("--interest", text, &right));
            }
            audience.interests.push(Interest::new(names.len(), matches));
            let path = path(flags.format, text);
            audience.groups.push(flags.url.with_path(&path).group(Some(index as u16)));
        }
        let slow = slow.min(flags.subscribers);
        let is_slow = evenly(flags.subscribers, u64::from(slow));
        let churning = f64::from(flags.subscribers) * flags.churn / 100.0;
        // Among those who are not slow: every tenth and every hundredth would be the same ones.
        let fast = flags.subscribers - slow;
        let churns = evenly(fast, (churning.round() as u64).min(u64::from(fast)));
        let mut fast_before = 0;
        let mut role = |number: u32| {
            if is_slow(number) {
                return Role::Slow;
            }
            fast_before += 1;
            Role::Subscriber { churns: churns(fast_before - 1) }
        };
        let parts = interests.len().max(1) as u32;
        audience.clients = (0..flags.subscribers)
            .map(|number| ClientPlan { role: role(number), group: (number % parts) as u16 })
            .collect();
        Ok(audience)
    }
}

/// Where to subscribe to a topic or pattern.
pub(crate) fn path(format: Format, pattern: &str) -> String {
    // RFC 3986 allows no `>` in a path or query.
    let pattern = pattern.replace('>', "%3E");
    match format {
        Format::Json => format!("/ws?topics={pattern}"),
        Format::Raw => format!("/raw/{pattern}"),
    }
}
