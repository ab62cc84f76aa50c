//! One flag after the other: from the command line, else the file, else its default.
//!
//! Knows: which of several values holds, and how to say that one is wrong. Must not know: what the
//! values are for.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{
    Mistake, Mistakes, http_values,
    rules::{self, Totals},
    values,
};
use crate::{
    flags::{self, Given, table::Fallback},
    journal::Fsync,
    logging,
    rules::{RULES_MAX, TopicRule},
};

/// What was given, and the mistakes found so far.
pub(super) struct Reading<'a> {
    typed: &'a [Given],
    file: &'a [Given],
    mistakes: Vec<Mistake>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(typed: &'a [Given], file: &'a [Given], mistakes: Vec<Mistake>) -> Self {
        Self { typed, file, mistakes }
    }

    /// No mistake so far.
    pub(super) fn is_right(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// The plan, if there is no mistake.
    pub(super) fn finish(self, plan: super::Plan) -> Result<super::Plan, Mistakes> {
        if self.mistakes.is_empty() { Ok(plan) } else { Err(Mistakes(self.mistakes)) }
    }

    /// The value that holds for a flag is wrong for a reason that only the whole shows.
    pub(super) fn wrong(&mut self, name: &'static str, wanted: String) {
        let given = self.given(name);
        self.mistakes.push(Mistake { place: given.place, value: given.value, wanted });
    }

    pub(super) fn address(&mut self, name: &'static str) -> SocketAddr {
        self.one(name, values::address).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(super) fn switch(&mut self, name: &'static str) -> bool {
        self.one(name, values::switch).unwrap_or_default()
    }

    pub(super) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> T {
        self.one(name, |text| values::choice(text, choices)).unwrap_or(choices[0].1)
    }

    pub(super) fn number<T>(&mut self, name: &'static str, range: RangeInclusive<T>) -> T
    where
        T: Copy + Into<u64> + TryFrom<u64>,
    {
        let least = *range.start();
        self.one(name, |text| values::number(text, &range)).unwrap_or(least)
    }

    /// A number whose default is found out.
    pub(super) fn number_or(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u32>,
        found: impl FnOnce() -> u32,
    ) -> u32 {
        if self.last(name).is_some() { self.number(name, range) } else { found() }
    }

    pub(super) fn power_of_two(&mut self, name: &'static str, range: RangeInclusive<u32>) -> u32 {
        let least = *range.start();
        self.one(name, |text| values::power_of_two(text, &range)).unwrap_or(least)
    }

    pub(super) fn bytes<T>(&mut self, name: &'static str, range: RangeInclusive<u64>) -> T
    where
        T: Default + TryFrom<u64>,
    {
        self.one(name, |text| values::bytes(text, &range)).unwrap_or_default()
    }

    pub(super) fn time_ms(
        &mut self,
        name: &'static str,
        range_ms: RangeInclusive<u64>,
    ) -> Duration {
        self.one(name, |text| values::time(text, &range_ms)).unwrap_or_default()
    }

    /// `None`: not given, or given wrongly.
    pub(super) fn directory(&mut self, name: &'static str) -> Option<PathBuf> {
        self.last(name)?;
        self.one(name, values::directory)
    }

    pub(super) fn fsync(&mut self, name: &'static str) -> Fsync {
        self.one(name, values::fsync).unwrap_or(Fsync::Always)
    }

    pub(super) fn is_given(&self, name: &'static str) -> bool {
        self.last(name).is_some()
    }

    pub(super) fn log_filter(&mut self, name: &'static str) -> String {
        self.one(name, |text| logging::check_filter(text).map(|()| text.to_owned()))
            .unwrap_or_default()
    }

    /// `None`: not given, or given wrongly.
    pub(super) fn cpus(&mut self, name: &'static str, allowed: &[usize]) -> Option<Vec<usize>> {
        self.last(name)?;
        self.one(name, |text| values::cpus(text, allowed))
    }

    pub(super) fn hosts(&mut self, name: &'static str) -> Vec<String> {
        self.all(name, self.nearest(name), values::host)
    }

    pub(super) fn origins(&mut self, name: &'static str) -> Vec<String> {
        self.all(name, self.nearest(name), http_values::origin)
    }

    /// One after the other, as they stand in an answer.
    pub(super) fn headers(&mut self, name: &'static str) -> String {
        let headers = self.all(name, self.nearest(name), http_values::header);
        let bytes: usize = headers.iter().map(String::len).sum();
        if headers.len() > HEADERS_MAX || bytes > HEADERS_BYTES_MAX {
            let wanted = format!(
                "wants at most {HEADERS_MAX} headers of {HEADERS_BYTES_MAX} bytes together"
            );
            self.wrong(name, wanted);
        }
        headers.concat()
    }

    pub(super) fn error_bodies(&mut self, name: &'static str) -> Vec<(Option<u16>, String)> {
        let bodies = self.all(name, self.nearest(name), http_values::error_body);
        for (index, (status, _)) in bodies.iter().enumerate() {
            if bodies[..index].iter().any(|(other, _)| other == status) {
                let which = status.map_or_else(|| "every status".to_owned(), |s| s.to_string());
                self.wrong(name, format!("wants one body for {which}"));
            }
        }
        bodies
    }

    pub(super) fn content_type(&mut self, name: &'static str) -> String {
        self.one(name, http_values::content_type).unwrap_or_default()
    }

    pub(super) fn networks(&mut self, name: &'static str) -> Vec<IpNet> {
        self.all(name, self.nearest(name), values::network)
    }

    /// Those typed, then the file's: the first that matches a topic holds, so what is typed wins.
    pub(super) fn rules(&mut self, name: &'static str, totals: Totals) -> Vec<TopicRule> {
        let given: Vec<_> =
            self.typed.iter().chain(self.file).filter(|given| given.name == name).collect();
        if let Some(first) = given.get(RULES_MAX) {
            let (place, value) = (first.place.clone(), first.value.clone());
            let wanted = format!("wants at most {RULES_MAX} rules");
            self.mistakes.push(Mistake { place, value, wanted });
        }
        let rule = |given| rules::rule(given, totals, &mut self.mistakes);
        given.into_iter().filter_map(rule).collect()
    }

    /// A value that may be wrong; `None` and a mistake if it is.
    fn one<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let given = self.given(name);
        parse(&given.value)
            .map_err(|wanted| {
                self.mistakes.push(Mistake { place: given.place, value: given.value, wanted });
            })
            .ok()
    }

    fn all<T>(
        &mut self,
        name: &'static str,
        from: &'a [Given],
        parse: fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut good = Vec::new();
        for given in from.iter().filter(|given| given.name == name) {
            match parse(&given.value) {
                Ok(value) => good.push(value),
                Err(wanted) => self.mistakes.push(Mistake {
                    place: given.place.clone(),
                    value: given.value.clone(),
                    wanted,
                }),
            }
        }
        good
    }

    /// What was typed if it names this flag at all, else the file.
    fn nearest(&self, name: &str) -> &'a [Given] {
        if self.typed.iter().any(|given| given.name == name) { self.typed } else { self.file }
    }

    fn last(&self, name: &str) -> Option<&'a Given> {
        self.nearest(name).iter().rfind(|given| given.name == name)
    }

    /// What holds for this flag, its default included.
    fn given(&self, name: &'static str) -> Given {
        let fallback = || {
            let flag = flags::flag(name).expect("plan asks for flags of the table only");
            let value = match flag.default {
                Fallback::Typed(text) => text,
                Fallback::Found(text) => text,
                Fallback::Nothing => "false",
            };
            let place = format!("--{name} (its default)");
            Given { name, value: value.to_owned(), place, keys: None }
        };
        self.last(name).cloned().unwrap_or_else(fallback)
    }
}

/// Header lines added to every answer, at most.
const HEADERS_MAX: usize = 32;
/// All of them together, bytes: every answer carries them.
const HEADERS_BYTES_MAX: usize = 4 << 10;
