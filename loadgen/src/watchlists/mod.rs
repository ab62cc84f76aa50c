//! `loadgen watchlists`: many topics, and subscribers that watch some of them.
//!
//! Knows: which connections and sources that takes. Must not know: rings, report formats.

mod changes;
mod lists;
mod source;

use std::sync::Arc;

pub(crate) use self::changes::{Changes, ChangesPlan, Figures};
use self::lists::Lists;
use self::source::{Round, WatchedSource};
use crate::audience::path;
use crate::crew::Crew;
use crate::failure::Failure;
use crate::flags::{Format, WatchlistsFlags};
use crate::interest::Interest;
use crate::judge::Identify;
use crate::plan::{ClientPlan, Group, Role};
use crate::report::Report;
use crate::run::{DRAIN_MAX, Timing};
use crate::source::Source;
use crate::spread::Spread;
use crate::stamp::Finder;
use crate::verify::{StreamKind, Streams};

/// Runs it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn watchlists(flags: &WatchlistsFlags) -> Result<Report, Failure> {
    check(flags)?;
    let names: Vec<_> = (0..flags.topics).map(|topic| format!("watch.{topic:05}")).collect();
    let lists = Lists::new(flags)?;
    let url = |list: &[u16]| {
        let topics: Vec<_> = list.iter().map(|&topic| names[usize::from(topic)].as_str()).collect();
        path(flags.format, &topics.join(","))
    };
    let group = |(index, list): (usize, &Vec<u16>)| {
        flags.url.with_path(&url(list)).group(Some(index as u16))
    };
    let mut groups: Vec<Group> = lists.lists.iter().enumerate().map(group).collect();
    let fixed = |list: &Vec<u16>| {
        Interest::few(list.iter().copied().filter(|topic| !lists.apart.contains(topic)).collect())
    };
    let interests = lists.lists.iter().map(fixed).collect();
    let publish = groups.len() as u16;
    groups.push(flags.publish_url.with_path("/publish").group(None));
    let subscriber = |number: u32| ClientPlan {
        role: Role::Subscriber { churns: false },
        group: (number % u32::from(publish)) as u16,
    };
    let publisher = |number| ClientPlan { role: Role::Publisher(number), group: publish };
    let clients = (0..flags.subscribers).map(subscriber);
    let clients = clients.chain((0..flags.publishers).map(publisher)).collect();
    let timing = Timing {
        warmup: flags.warmup,
        duration: Some(flags.duration),
        grace: flags.run.grace,
        drain_max: DRAIN_MAX,
    };
    let publications = flags.rate * (flags.warmup + flags.duration).as_secs_f64();
    let changes = (flags.changing > 0).then(|| ChangesPlan {
        per_s: flags.change_rate,
        apart: lists.apart.clone(),
        lists: Arc::new(lists.lists),
        seed: flags.run.seed,
    });
    let kinds = vec![StreamKind::Event; names.len()];
    let topics: Arc<[String]> = Arc::from(names.clone());
    Crew {
        groups,
        clients,
        interests,
        streams: Streams { names, kinds },
        payload_bytes: (flags.format == Format::Raw).then_some(flags.size),
        // Of a topic with few subscribers the first and the last say little: none but the first
        // publications are sampled.
        spread: Spread::new(publications as u64),
        changes,
        ..Crew::plain(&flags.run, timing)
    }
    .run(
        |shared| {
            let source = |publisher: u16| -> Box<dyn Source> {
                let round = Round {
                    topics: u64::from(flags.topics),
                    publishers: u64::from(flags.publishers),
                    publisher: u64::from(publisher),
                    rate_per_s: flags.rate,
                };
                let (topics, shared) = (Arc::clone(&topics), Arc::clone(shared));
                Box::new(WatchedSource::new(round, topics, shared, flags.size))
            };
            (0..flags.publishers).map(source).collect()
        },
        || Identify::Stamp(Finder::default()),
    )
}

/// What is wrong with flags together.
fn check(flags: &WatchlistsFlags) -> Result<(), Failure> {
    let wrong = |flag, value: u32, right: &str| Err(Failure::usage(flag, value, right));
    if flags.watch > flags.topics {
        let right = format!("at most --topics, {}", flags.topics);
        return wrong("--watch", flags.watch.into(), &right);
    }
    if flags.publishers > flags.topics {
        let right = format!("at most --topics, {}", flags.topics);
        return wrong("--publishers", flags.publishers.into(), &right);
    }
    if flags.format == Format::Raw && flags.watch > 1 {
        let right = "1 with --format raw: a raw connection has one topic; --format json has lists";
        return wrong("--watch", flags.watch.into(), right);
    }
    if flags.format == Format::Raw && flags.changing > 0 {
        let right = "0 with --format raw, which has no commands; --format json has";
        return wrong("--changing", flags.changing.into(), right);
    }
    if flags.changing > flags.watch {
        let right = format!("at most --watch, {}", flags.watch);
        return wrong("--changing", flags.changing.into(), &right);
    }
    if flags.lists.is_none() && flags.subscribers > u32::from(lists::LISTS_MAX) {
        let right = format!("at most {} without --lists", lists::LISTS_MAX);
        return wrong("--subscribers", flags.subscribers, &right);
    }
    Ok(())
}
