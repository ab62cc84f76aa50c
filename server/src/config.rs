//! The configuration file: TOML with the flags' names.
//!
//! Knows: how TOML is spelled, which names there are. Must not know: what a value means (`plan`
//! does). A name may be written with `-` or `_`; a repeatable flag takes a list; rules for topics
//! are `[[topic]]` tables of `pattern` and the keys of `--topic`, with `history` a table of its own.

use std::{fs, io, ops::Range, path::Path};

use toml::de::{DeTable, DeValue};

use crate::{
    flags::{self, Given, GivenKey, table::Flag},
    plan::Mistake,
};

/// Reads the file into what a command line would have given, and says what can't be.
pub fn read(path: &Path, mistakes: &mut Vec<Mistake>) -> Vec<Given> {
    let name = path.display().to_string();
    let text = match read_bounded(path) {
        Ok(text) => text,
        Err(error) => {
            mistakes.push(Mistake {
                place: "--config".to_owned(),
                value: name,
                wanted: format!("wants a readable TOML file of at most 1MiB: {error}"),
            });
            return Vec::new();
        }
    };
    parse(&name, &text, mistakes)
}

fn read_bounded(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    fs::read_to_string(path)
}

/// Reads the text of a file of this name into what a command line would have given, and says what
/// can't be.
pub fn parse(name: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Vec<Given> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut file = File { name, text, given: Vec::new(), mistakes };
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line = text[..span.start].lines().last().unwrap_or_default();
        let found = text.get(span.clone()).filter(|found| !found.is_empty()).unwrap_or(line);
        file.wrong(&span, "", found.to_owned(), format!("wants TOML: {}", error.message()));
    }
    // What could be read in spite of errors may be read wrongly.
    if file.mistakes.is_empty() {
        file.table(table.get_ref());
    }
    file.given
}

struct File<'a> {
    name: &'a str,
    text: &'a str,
    given: Vec<Given>,
    mistakes: &'a mut Vec<Mistake>,
}

impl File<'_> {
    fn table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let (span, key) = (key.span(), key.get_ref().as_ref());
            if key == "http" {
                self.http(&span, value.get_ref());
                continue;
            }
            match flags::flag(key) {
                None => self.wrong(&span, key, key.to_owned(), unknown(key)),
                Some(flag) if self.twice(flag) => {
                    self.wrong(&span, key, key.to_owned(), "is given twice".to_owned());
                }
                Some(flag) if flag.name == "topic" => self.rules(flag, &span, value.get_ref()),
                Some(flag) => self.value(flag, key, &span, value.get_ref()),
            }
        }
    }

    /// `[http]`: what answers say, under shorter names.
    fn http(&mut self, span: &Range<usize>, value: &DeValue<'_>) {
        let DeValue::Table(table) = value else {
            return self.wrong(span, "http", shown(value), "wants a table".to_owned());
        };
        for (key, value) in table {
            let (span, key) = (key.span(), key.get_ref().as_ref());
            let flag = match key {
                "headers" => flags::flag("http-header"),
                "error_body" | "error-body" => flags::flag("http-error-body"),
                "error_type" | "error-type" => flags::flag("http-error-type"),
                _ => None,
            };
            match (flag, value.get_ref()) {
                (None, _) => {
                    let wanted = "is no key of [http]: headers, error_body or error_type";
                    self.wrong(&span, "http", key.to_owned(), wanted.to_owned());
                }
                (Some(flag), _) if self.twice(flag) => {
                    self.wrong(&span, key, key.to_owned(), "is given twice".to_owned());
                }
                (Some(flag), DeValue::Table(table)) if flag.repeats => {
                    self.pairs(flag, key, table);
                }
                // So that a text that begins with a number is not taken for a status's.
                (Some(flag), DeValue::String(text)) if flag.name == "http-error-body" => {
                    self.push(flag, key, &span, format!("*:{text}"));
                }
                (Some(flag), other) => self.value(flag, key, &span, other),
            }
        }
    }

    /// A table of strings, as `NAME: VALUE` or `STATUS:TEXT`.
    fn pairs(&mut self, flag: &'static Flag, key: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let (span, name) = (name.span(), name.get_ref().as_ref());
            let place = format!("{key}.{name}");
            let DeValue::String(text) = value.get_ref() else {
                let found = shown(value.get_ref());
                self.wrong(&span, &place, found, "wants a string".to_owned());
                continue;
            };
            match (flag.name, name) {
                ("http-error-body", "default") => {
                    self.push(flag, &place, &span, format!("*:{text}"))
                }
                ("http-error-body", status) if status.parse::<u16>().is_err() => {
                    let wanted = "is no status; \"default\" stands for the others".to_owned();
                    self.wrong(&span, &place, status.to_owned(), wanted);
                }
                ("http-error-body", status) => {
                    self.push(flag, &place, &span, format!("{status}:{text}"));
                }
                _ => self.push(flag, &place, &span, format!("{name}: {text}")),
            }
        }
    }

    /// The same name with dashes and with underscores; the same spelling twice is TOML's error.
    fn twice(&self, flag: &Flag) -> bool {
        self.given.iter().any(|given| given.name == flag.name)
    }

    fn value(&mut self, flag: &'static Flag, key: &str, span: &Range<usize>, value: &DeValue<'_>) {
        // A list of cores is one value, whatever its spelling.
        if let (Some(list), "cpus") = (value.as_array(), flag.name) {
            let cores: Vec<_> = list.iter().map(|core| shown(core.get_ref())).collect();
            return self.push(flag, key, span, cores.join(","));
        }
        match value {
            DeValue::Array(list) if flag.repeats => {
                for one in list {
                    self.scalar(flag, key, &one.span(), one.get_ref());
                }
            }
            other => self.scalar(flag, key, span, other),
        }
    }

    fn scalar(&mut self, flag: &'static Flag, key: &str, span: &Range<usize>, value: &DeValue<'_>) {
        match value {
            DeValue::String(text) => self.push(flag, key, span, text.as_ref().to_owned()),
            DeValue::Integer(_) | DeValue::Boolean(_) => self.push(flag, key, span, shown(value)),
            other => {
                let wanted = match flag.repeats {
                    true => "wants a string or a list of strings",
                    false => "wants a single value",
                };
                self.wrong(span, key, shown(other), wanted.to_owned());
            }
        }
    }

    fn rules(&mut self, flag: &'static Flag, span: &Range<usize>, value: &DeValue<'_>) {
        let wanted = "wants [[topic]] tables".to_owned();
        let DeValue::Array(rules) = value else {
            return self.wrong(span, "topic", shown(value), wanted);
        };
        for rule in rules {
            match rule.get_ref() {
                DeValue::Table(table) => self.rule(flag, &rule.span(), table),
                other => self.wrong(&rule.span(), "topic", shown(other), wanted.clone()),
            }
        }
    }

    /// A pattern and its keys; what these mean is not known here.
    fn rule(&mut self, flag: &'static Flag, span: &Range<usize>, table: &DeTable<'_>) {
        let (mut pattern, mut keys) = (None, Vec::new());
        for (key, value) in table {
            let (span, key) = (key.span(), key.get_ref().as_ref());
            match (key, value.get_ref()) {
                ("pattern", DeValue::String(text)) => {
                    pattern = Some((span, text.as_ref().to_owned()));
                }
                ("pattern", other) => {
                    self.wrong(&span, key, shown(other), "wants a string".to_owned());
                    // Named once; the other keys are looked at still.
                    pattern = Some((span, ">".to_owned()));
                }
                ("history", DeValue::Table(bounds)) => {
                    for (bound, value) in bounds {
                        let (span, bound) = (bound.span(), bound.get_ref().as_ref());
                        let place = self.place(&span, &format!("history.{bound}"));
                        self.rule_key(
                            &mut keys,
                            &format!("history-{bound}"),
                            place,
                            value.get_ref(),
                        );
                    }
                }
                (
                    "publish_from" | "publish-from" | "subscribe_from" | "subscribe-from",
                    DeValue::Array(list),
                ) => {
                    if list.is_empty() {
                        let wanted = "wants an address at least; without this key anyone may";
                        self.wrong(&span, key, "[]".to_owned(), wanted.to_owned());
                    }
                    for one in list {
                        let place = self.place(&one.span(), key);
                        self.rule_key(&mut keys, key, place, one.get_ref());
                    }
                }
                (_, value) => {
                    let place = self.place(&span, key);
                    self.rule_key(&mut keys, key, place, value);
                }
            }
        }
        let Some((span, pattern)) = pattern else {
            let wanted = "wants pattern = \"…\"".to_owned();
            return self.wrong(span, "topic", "[[topic]]".to_owned(), wanted);
        };
        let place = self.place(&span, "pattern");
        self.given.push(Given { name: flag.name, value: pattern, place, keys: Some(keys) });
    }

    fn rule_key(
        &mut self,
        keys: &mut Vec<GivenKey>,
        key: &str,
        place: String,
        value: &DeValue<'_>,
    ) {
        match value {
            DeValue::String(_) | DeValue::Integer(_) | DeValue::Boolean(_) => {
                keys.push(GivenKey { key: key.to_owned(), value: shown(value), place });
            }
            other => {
                let wanted = "wants a single value, text or a whole number".to_owned();
                self.mistakes.push(Mistake { place, value: shown(other), wanted });
            }
        }
    }

    fn push(&mut self, flag: &'static Flag, key: &str, span: &Range<usize>, value: String) {
        let place = self.place(span, key);
        self.given.push(Given { name: flag.name, value, place, keys: None });
    }

    fn wrong(&mut self, span: &Range<usize>, key: &str, value: String, wanted: String) {
        let place = self.place(span, key);
        self.mistakes.push(Mistake { place, value, wanted });
    }

    fn place(&self, span: &Range<usize>, key: &str) -> String {
        let line = self.text[..span.start].matches('\n').count() + 1;
        match key {
            "" => format!("{}:{line}", self.name),
            key => format!("{}:{line}: {key}", self.name),
        }
    }
}

fn unknown(key: &str) -> String {
    let names = flags::table::FLAGS.iter().map(|flag| flag.name);
    let near = names
        .map(|name| (distance(name, &key.replace('_', "-")), name))
        .min()
        .filter(|&(distance, name)| distance <= name.len() / 3);
    match near {
        Some((_, name)) => format!("is no setting; {name:?} is one"),
        None => "is no setting; `uringcast serve --help` names them all".to_owned(),
    }
}

/// How many letters must be changed, added or taken away (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// For a message.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.as_ref().to_owned(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::Table(_) => "{…}".to_owned(),
    }
}

const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Vec<(&'static str, String)> {
        let mut mistakes = Vec::new();
        let given = parse("f.toml", text, &mut mistakes);
        assert_eq!(mistakes, []);
        given.into_iter().map(|given| (given.name, given.value)).collect()
    }

    fn mistakes(text: &str) -> Vec<String> {
        let mut mistakes = Vec::new();
        parse("f.toml", text, &mut mistakes);
        mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_become_what_would_have_been_typed() {
        let all = given(
            "reactors = 2\necho = true\nping_interval = '25s'\ncpus = [0, 1]\n\
             allow-origin = ['a.example', 'b.example']\npublish_from = '10.0.0.0/8'\n",
        );
        for wanted in [
            ("reactors", "2"),
            ("echo", "true"),
            ("ping-interval", "25s"),
            ("cpus", "0,1"),
            ("allow-origin", "a.example"),
            ("allow-origin", "b.example"),
            ("publish-from", "10.0.0.0/8"),
        ] {
            assert!(all.contains(&(wanted.0, wanted.1.to_owned())), "{wanted:?} in {all:?}");
        }
    }

    #[test]
    fn the_table_of_http_answers() {
        let all = given(
            "[http]\nheaders = { X-A = 'b' }\nerror_body = '404: {error}'\nerror-type = 'a/b'\n",
        );
        for wanted in [
            ("http-header", "X-A: b"),
            ("http-error-body", "*:404: {error}"),
            ("http-error-type", "a/b"),
        ] {
            assert!(all.contains(&(wanted.0, wanted.1.to_owned())), "{wanted:?} in {all:?}");
        }
        let all = given("[http]\nheaders = ['X-A: b', 'X-A: c']\n[http.error_body]\n404 = 'x'\n");
        assert_eq!(all.iter().filter(|(name, _)| *name == "http-header").count(), 2);
        assert!(all.contains(&("http-error-body", "404:x".to_owned())));
        let all = mistakes(
            "http_header = 'X-B: c'\n[http]\nheader = 1\nheaders = ['a: b']\n\
             error_type = { a = 'b' }\n[http.error_body]\n404 = 1\nother = 'x'\n",
        );
        for wanted in [
            "f.toml:3: http: \"header\" is not right: is no key of [http]",
            "\" is not right: is given twice",
            "f.toml:5: error_type: \"{…}\" is not right: wants a single value",
            "f.toml:7: error_body.404: \"1\" is not right: wants a string",
            "f.toml:8: error_body.other: \"other\" is not right: is no status",
        ] {
            assert!(all.iter().any(|mistake| mistake.contains(wanted)), "{wanted} not in {all:#?}");
        }
        assert_eq!(mistakes("http = 1\n"), ["f.toml:1: http: \"1\" is not right: wants a table"]);
    }

    #[test]
    fn rules_keep_the_files_order() {
        let rules = given(
            "[[topic]]\npattern = 'md.*'\nkind = 'value'\n[[topic]]\npattern = 'a:b'\n\
             [[topic]]\ncontent = 'json'\npattern = 'c'\nkind='event'\n",
        );
        let patterns: Vec<_> = rules.iter().map(|(_, pattern)| pattern.as_str()).collect();
        assert_eq!(patterns, ["md.*", "a:b", "c"]);
    }

    #[test]
    fn a_rules_keys_keep_their_lines() {
        let mut mistakes = Vec::new();
        let text = "[[topic]]\npattern = 'md.>'\nhistory = { messages = 5,\n  age = '1m' }\n\
                    publish_from = ['::1',\n '10.0.0.0/8']\nlag-bytes-max = '1MiB'\n";
        let given = parse("f.toml", text, &mut mistakes);
        assert_eq!((mistakes.as_slice(), given.len()), (&[][..], 1));
        assert_eq!(
            (given[0].value.as_str(), given[0].place.as_str()),
            ("md.>", "f.toml:2: pattern")
        );
        let keys = given[0].keys.as_deref().expect("a rule of a file");
        for wanted in [
            ("history-messages", "5", "f.toml:3: history.messages"),
            ("history-age", "1m", "f.toml:4: history.age"),
            ("publish_from", "::1", "f.toml:5: publish_from"),
            ("publish_from", "10.0.0.0/8", "f.toml:6: publish_from"),
            ("lag-bytes-max", "1MiB", "f.toml:7: lag-bytes-max"),
        ] {
            let same = |key: &GivenKey| (&*key.key, &*key.value, &*key.place) == wanted;
            assert!(keys.iter().any(same), "{wanted:?} not in {keys:#?}");
        }
    }

    #[test]
    fn a_rules_values_are_single_ones_where_they_must_be() {
        let all = mistakes(
            "[[topic]]\npattern = 'a'\nkind = ['value']\nhistory = { messages = [1] }\n\
             publish_from = []\nsubscribe_from = [['::1']]\nexpire = 1.5\nsnapshot = { a = 1 }\n\
             stale_after = 10:00:00\n",
        );
        for wanted in [
            "f.toml:3: kind: \"[…]\" is not right: wants a single value",
            "f.toml:4: history.messages: \"[…]\" is not right: wants a single value",
            "f.toml:5: publish_from: \"[]\" is not right: wants an address at least",
            "f.toml:6: subscribe_from: \"[…]\" is not right: wants a single value",
            "f.toml:7: expire: \"1.5\" is not right: wants a single value",
            "f.toml:8: snapshot: \"{…}\" is not right: wants a single value",
            "f.toml:9: stale_after: \"10:00:00\" is not right: wants a single value",
        ] {
            assert!(all.iter().any(|mistake| mistake.contains(wanted)), "{wanted} not in {all:#?}");
        }
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let all = mistakes(
            "reactor = 2\nping-interval = '1s'\nping_interval = '2s'\nlisten = ['a']\n\
             admin = 1.5\n[[topic]]\nkind = 'value'\n[[topic]]\npattern = 3\n",
        );
        for wanted in [
            "f.toml:1: reactor: \"reactor\" is not right: is no setting; \"reactors\" is one",
            "f.toml:3: ping_interval: \"ping_interval\" is not right: is given twice",
            "f.toml:4: listen: \"[…]\" is not right: wants a single value",
            "f.toml:5: admin: \"1.5\" is not right: wants a single value",
            "f.toml:6: topic: \"[[topic]]\" is not right: wants pattern = \"…\"",
            "f.toml:9: pattern: \"3\" is not right: wants a string",
        ] {
            assert!(all.iter().any(|mistake| mistake == wanted), "{wanted}\nnot in {all:#?}");
        }
    }

    #[test]
    fn what_is_not_toml_is_named_with_its_line() {
        let all = mistakes("reactors = 2\nlisten = 127.0.0.1:9001\n");
        assert!(!all.is_empty());
        assert!(all.iter().all(|mistake| mistake.starts_with("f.toml:2: ")), "{all:?}");
        assert!(all[0].contains("wants TOML"), "{all:?}");
    }

    #[test]
    fn an_unreadable_file_is_one_mistake() {
        let mut mistakes = Vec::new();
        assert!(read(Path::new("/nonexistent/uringcast.toml"), &mut mistakes).is_empty());
        assert_eq!(mistakes.len(), 1);
        assert!(mistakes[0].value.contains("nonexistent"));
    }
}
