//! The configuration file: any text is a plan or a list of mistakes, each with its place.
//!
//! Knows: what a mistake must say. Must not know: which settings there are.

use std::sync::OnceLock;

use uringcast::{
    config,
    flags::LowArgs,
    plan::{Machine, Plan},
};

/// Reading it, and deciding on what it says.
pub fn check(data: &[u8]) {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut mistakes = Vec::new();
    let given = config::parse(FILE, text, &mut mistakes);
    let lines = text.matches('\n').count() + 1;
    let in_file = |place: &str| {
        let rest = place.strip_prefix(FILE).and_then(|rest| rest.strip_prefix(':'));
        let line = rest.and_then(|rest| rest.split(':').next()?.parse().ok());
        assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{place:?}");
    };
    for mistake in &mistakes {
        in_file(&mistake.place);
        assert!(!mistake.wanted.is_empty() && !mistake.to_string().is_empty());
    }
    for given in &given {
        in_file(&given.place);
    }
    if mistakes.is_empty() {
        let low = LowArgs { config: None, given };
        match Plan::load(&low, MACHINE.get_or_init(Machine::read)) {
            Ok(plan) => assert!((1..=64).contains(&plan.reactors())),
            Err(mistakes) => {
                assert!(!mistakes.0.is_empty());
                assert!(mistakes.0.iter().all(|mistake| !mistake.wanted.is_empty()));
            }
        }
    }
}

const FILE: &str = "f.toml";
