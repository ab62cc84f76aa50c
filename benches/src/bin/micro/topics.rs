//! Topic names: checking one, and matching it with a pattern.

use std::hint::black_box;

use uringcast_benches::suite::{Group, Suite};
use uringcast_protocol::{Pattern, topic_name::validate_name};

pub(crate) fn run(suite: &Suite) {
    let mut group =
        Group::new("topic").case("check the name", || validate_name(black_box(NAME)).is_ok());
    for text in [NAME, "md.*.trade", "md.>", "md.*.bookTicker"] {
        let Ok(pattern) = Pattern::parse(text) else { continue };
        let found = if pattern.matches(NAME) { "matches" } else { "differs" };
        group = group.case(format!("{text} {found}"), move || pattern.matches(black_box(NAME)));
    }
    suite.run(group);
}

const NAME: &str = "md.BTCUSDT.trade";
