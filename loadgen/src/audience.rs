//! Who subscribes to what: parts of the subscribers, each with a pattern.
//!
//! Knows: patterns, topics, paths of the server. Must not know: sockets, publishing.

use uringcast_protocol::topic_name::Pattern;

use crate::crew::churners;
use crate::failure::Failure;
use crate::flags::{AudienceFlags, Format};
use crate::plan::{ClientPlan, Group, Role};
use crate::verify::{Interest, StreamKind, Streams};

/// Subscribers in equal parts, ready for a crew.
pub(crate) struct Audience {
    /// One group for each interest, in order.
    pub(crate) groups: Vec<Group>,
    pub(crate) interests: Vec<Interest>,
    pub(crate) clients: Vec<ClientPlan>,
    pub(crate) streams: Streams,
}

impl Audience {
    /// Shares the subscribers out over `interests`.
    ///
    /// # Errors
    /// A pattern that is none, or that no topic of the run matches.
    pub(crate) fn new(
        flags: &AudienceFlags,
        interests: &[String],
        topics: Vec<String>,
    ) -> Result<Self, Failure> {
        let parse = |flag: &'static str, text: &String| {
            let right = "a topic or pattern, as in md.*.trade or md.>";
            Pattern::parse(text).map_err(|_| Failure::usage(flag, text, right))
        };
        let values: Result<Vec<_>, _> =
            flags.value.iter().map(|text| parse("--value", text)).collect();
        let values = values?;
        let kind = |topic: &String| match values.iter().any(|value| value.matches(topic)) {
            true => StreamKind::Value,
            false => StreamKind::Event,
        };
        let streams = Streams { kinds: topics.iter().map(kind).collect(), names: topics };
        let mut audience =
            Self { groups: Vec::new(), interests: Vec::new(), clients: Vec::new(), streams };
        for (index, text) in interests.iter().enumerate() {
            let pattern = parse("--interest", text)?;
            let names = &audience.streams.names;
            let matches = |stream: usize| pattern.matches(&names[stream]);
            if flags.subscribers > 0 && !(0..names.len()).any(matches) {
                let first = names.first().map_or("", String::as_str);
                let right = format!("a pattern that matches topics of this run, such as {first}");
                return Err(Failure::usage("--interest", text, &right));
            }
            audience.interests.push(Interest::new(names.len(), matches));
            let path = path(flags.format, text);
            audience.groups.push(flags.url.with_path(&path).group(Some(index as u16)));
        }
        let churns = churners(flags.subscribers, flags.churn);
        let parts = interests.len().max(1) as u32;
        audience.clients = (0..flags.subscribers)
            .map(|number| ClientPlan {
                role: Role::Subscriber { churns: churns(number) },
                group: (number % parts) as u16,
            })
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
