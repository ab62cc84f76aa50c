//! Mistakes and decisions, on a machine made up for the test.

use std::time::Duration;

use uringcast_protocol::topic_name::Pattern;

use super::*;
use crate::{
    flags::{self, Invocation},
    rules::{Content, HistoryBounds, Kind, Overflow, Pace, RULES_MAX, SnapshotSource, TopicRule},
};

fn machine() -> Machine {
    Machine {
        cpus: vec![2, 3, 5],
        cpu_quota: None,
        open_files_max: 20_000,
        direct_descriptors: true,
    }
}

fn plan_on(machine: &Machine, arguments: &[&str]) -> Result<Plan, Mistakes> {
    match flags::parse(["uringcast", "serve"].iter().chain(arguments)) {
        Ok(Invocation::Serve(low)) => Plan::load(&low, machine),
        other => panic!("{other:?}"),
    }
}

fn plan(arguments: &[&str]) -> Plan {
    plan_on(&machine(), arguments).expect("a right command line")
}

fn mistakes(arguments: &[&str]) -> Vec<Mistake> {
    mistakes_on(&machine(), arguments)
}

fn mistakes_on(machine: &Machine, arguments: &[&str]) -> Vec<Mistake> {
    plan_on(machine, arguments).expect_err("a wrong command line").0
}

/// A file for one test, removed at its end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let file = format!("uringcast-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, text).expect("a file for the test");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("made from text")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed stays in the system's temporary directory.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_defaults_are_those_of_the_settings() {
    let plan = plan(&[]);
    assert_eq!(format!("{:?}", plan.settings), format!("{:?}", Settings::default()));
    assert_eq!(plan.listen, "0.0.0.0:9001".parse().expect("an address"));
    assert_eq!(plan.cpus, [2, 3, 5]);
    assert_eq!(plan.tier, TierChoice::Auto);
    assert_eq!(plan.log_filter, "info");
}

#[test]
fn every_wrong_value_is_named_with_what_would_be_right() {
    for (name, value, wanted) in [
        ("listen", "9001", "wants an IP address and a port"),
        ("publish-listen", "localhost:9003", "wants an IP address and a port"),
        ("admin", "127.0.0.1:99999", "wants an IP address and a port"),
        ("admin-host", "http://x", "wants a host"),
        ("publish-from", "10.0.0.0/40", "wants an address and its bits"),
        ("allow-origin", "https://example.com/", "without a path"),
        ("allow-origin", "example.com:443", "an origin such as https://example.com:8443"),
        ("trust-proxy", "nginx", "wants an address and its bits"),
        ("proxy-header", "x-real-ip", "wants x-forwarded-for or forwarded"),
        ("proxy-protocol", "on", "wants off or optional or required"),
        ("proxy-protocol", "required", "wants --trust-proxy"),
        ("http-header", "X-A", "wants NAME: VALUE"),
        ("http-header", "Upgrade: h2c", "Upgrade is the server's to say"),
        ("http-error-body", "200:fine", "wants a status that is answered: 400, 403"),
        ("http-error-type", "html", "wants a media type"),
        ("connections-per-address-max", "-1", "from 0 to 1048576"),
        ("reactors", "0", "from 1 to 64"),
        ("reactors", "65", "from 1 to 64"),
        ("cpus", "0", "wants cores out of 2-3,5"),
        ("kernel-tier", "modern", "wants auto or base"),
        ("connections-max", "many", "wants a whole number"),
        ("message-bytes-max", "64KB", "from 125 to 64MiB"),
        ("publish-bytes-max", "1GiB", "from 125 to 64MiB"),
        ("handshake-timeout", "10", "wants a time from 100ms to 10m"),
        ("ping-interval", "10ms", "wants a time from 1s to 1h"),
        ("pong-timeout", "soon", "wants a time"),
        ("close-timeout", "2h", "wants a time"),
        ("topic", "a..b:kind=value", "an empty token"),
        ("topic", "a b", "wants a topic or pattern"),
        ("history-bytes-max", "1KiB", "from 1MiB to 1TiB"),
        ("topics-max", "0", "from 1 to"),
        ("patterns-max", "-1", "from 1 to"),
        ("lanes-max", "1e6", "from 1 to"),
        ("subscriptions-max", "100000", "from 1 to 65536"),
        ("lag-bytes-max", "1", "from 4KiB to 1GiB"),
        ("lag-messages-max", "0", "from 1 to"),
        ("log-bytes-max", "1KiB", "from 1MiB to 1TiB"),
        ("overload-rotation", "1m", "wants a time from 1ms to 10s"),
        ("send-buffer", "-1", "from 0 to 64MiB"),
        ("notsent-lowat", "x", "from 0 to 64MiB"),
        ("user-timeout", "0s", "wants a time from 1s to 1h"),
        ("backlog", "0", "from 1 to"),
        ("accepts-in-flight", "0", "from 1 to 1024"),
        ("receive-buffers", "1000", "wants a power of two from 16 to 32768"),
        ("receive-buffer-bytes", "1", "from 512 to 64KiB"),
        ("journal", "", "wants a directory"),
        ("journal", "/proc/self/stat", "wants a directory"),
        ("journal-fsync", "never", "wants always, off or a time"),
        ("journal-fsync", "2h", "from 1ms to 1m"),
        ("journal-fsync", "100ms", "wants --journal DIR as well"),
        ("journal-bytes-max", "1MiB", "from 256MiB to 16TiB"),
        ("journal-bytes-max", "1GiB", "wants --journal DIR as well"),
        ("log-format", "xml", "wants text or json"),
        ("log-level", "loud", "wants error, warn, info"),
    ] {
        let found = mistakes(&[&format!("--{name}={value}")]);
        assert_eq!(found.len(), 1, "--{name} {value}: {found:?}");
        assert_eq!(found[0].place, format!("--{name}"));
        assert_eq!(found[0].value, value);
        assert!(found[0].wanted.contains(wanted), "--{name} {value}: {}", found[0].wanted);
    }
}

#[test]
fn all_mistakes_of_flags_and_file_are_named_at_once() {
    let file = Scratch::new("mistakes", "reactors = 0\nbanana = 1\n\n[[topic]]\npattern = 'a b'\n");
    let found = mistakes(&["--listen=x", "--config", file.path()]);
    let places: Vec<_> = found.iter().map(|mistake| mistake.place.as_str()).collect();
    let at = |rest: &str| format!("{}:{rest}", file.path());
    assert_eq!(places, [&at("2: banana"), "--listen", &at("1: reactors"), &at("5: pattern")]);
    assert_eq!(Mistakes(found).to_string().lines().count(), 4);
}

#[test]
fn a_flag_wins_over_the_file_and_lists_are_replaced_but_rules_go_first() {
    let file = Scratch::new(
        "wins",
        "reactors = 2\nping_interval = '5s'\nallow_origin = ['a.example', 'b.example']\n\
         [[topic]]\npattern = 'md.>'\nkind = 'value'\n",
    );
    let plan = plan(&[
        "--config",
        file.path(),
        "--reactors=1",
        "--allow-origin=c.example",
        "--topic=md.x:kind=event",
    ]);
    assert_eq!(plan.reactors(), 1);
    assert_eq!(plan.settings.ping_interval, Duration::from_secs(5));
    assert_eq!(plan.settings.allow_origin, ["c.example"]);
    let rules: Vec<_> =
        plan.settings.rules.given().iter().map(|rule| rule.pattern.as_str()).collect();
    assert_eq!(rules, ["md.x", "md.>"]);
}

#[test]
fn reactors_follow_mask_quota_and_list() {
    let cpus =
        |machine: &Machine, arguments: &[&str]| plan_on(machine, arguments).expect("right").cpus;
    let quota = Machine { cpu_quota: Some(2), ..machine() };
    assert_eq!(cpus(&quota, &[]), [2, 3]);
    assert_eq!(cpus(&quota, &["--cpus=5,2,3"]), [5, 2, 3]);
    assert_eq!(cpus(&machine(), &["--reactors=5"]), [2, 3, 5, 2, 3]);
    assert_eq!(cpus(&machine(), &["--cpus=3", "--reactors=2"]), [3, 3]);
    let large = Machine { cpus: (0..200).collect(), ..machine() };
    assert_eq!(cpus(&large, &[]).len(), 64);
}

#[test]
fn connections_follow_the_limit_of_open_files() {
    let most = |open_files_max| {
        let machine = Machine { open_files_max, ..machine() };
        plan_on(&machine, &[]).expect("right").settings.connections_max
    };
    assert_eq!(most(1 << 14), 15_561);
    assert_eq!(most(1 << 30), 1_000_000);
    assert_eq!(most(u64::MAX), 1_000_000);
    let found = mistakes(&["--connections-max=20000"]);
    assert!(found[0].wanted.contains("at most 19872 here"), "{}", found[0].wanted);
    // Descriptors of the process are shared by its reactors.
    let old = Machine { direct_descriptors: false, ..machine() };
    let most = |flags: &[&str]| plan_on(&old, flags).expect("right").settings.connections_max;
    assert_eq!(most(&["--reactors=1"]), 19_000);
    assert_eq!(most(&["--reactors=4"]), 4_750);
    // A low limit leaves room for accepts too: the default must not be refused.
    let low = Machine { open_files_max: 4_096, ..old.clone() };
    let most_of_low =
        |flags: &[&str]| plan_on(&low, flags).expect("right").settings.connections_max;
    assert_eq!(most_of_low(&["--reactors=2"]), 1_888);
    assert_eq!(most_of_low(&["--reactors=2", "--accepts-in-flight=1000"]), 16);
    let base = ["--reactors=4", "--kernel-tier=base"];
    assert_eq!(plan_on(&machine(), &base).expect("right").settings.connections_max, 4_750);
    let found = mistakes_on(&old, &["--reactors=4", "--connections-max=5000"]);
    assert!(found[0].wanted.contains("at most 4872 here"), "{}", found[0].wanted);
}

#[test]
fn what_does_not_go_together_is_a_mistake() {
    let found = mistakes(&["--admin=127.0.0.1:9001"]);
    assert_eq!(found[0].place, "--admin");
    assert!(found[0].wanted.contains("--listen's"), "{}", found[0].wanted);
    let found = mistakes(&["--log-bytes-max=1MiB", "--lag-bytes-max=2MiB"]);
    assert_eq!(found[0].place, "--lag-bytes-max");
    let free = plan(&["--listen=127.0.0.1:0", "--admin=127.0.0.1:0"]);
    assert_eq!(free.admin.port(), 0);
}

#[test]
fn http_answers_and_proxies() {
    let file = Scratch::new(
        "http",
        "trust-proxy = ['10.0.0.0/8', '::1']\nproxy_header = 'forwarded'\n\
         proxy_protocol = 'required'\nconnections_per_address_max = 3\n[http]\n\
         headers = { X-B = 'c', Server = 'd' }\nerror_type = 'application/json'\n\
         error_body = { 404 = '{}', default = '{status}' }\n",
    );
    let settings = plan(&["--config", file.path()]).settings;
    assert_eq!((settings.trust_proxy.len(), settings.connections_per_address_max), (2, 3));
    assert_eq!(settings.proxy_header, ProxyHeader::Forwarded);
    assert_eq!(settings.proxy_protocol, ProxyProtocol::Required);
    assert!(settings.http.headers.contains("X-B: c\r\n"));
    assert!(settings.http.headers.contains("Server: d\r\n"));
    let page = |status| settings.http.page(status).map(|page| (page.template, page.content_type));
    assert_eq!(page(404), Some(("{}", "application/json")));
    assert_eq!(page(400), Some(("{status}", "application/json")));
    assert!(Settings::default().http.page(404).is_none());

    let many = vec!["--http-header=X-A: b"; 33];
    assert!(mistakes(&many)[0].wanted.contains("at most 32 headers"));
    let long = format!("--http-header=X-A: {}", "x".repeat(4 << 10));
    assert!(mistakes(&[&long])[0].wanted.contains("4096 bytes together"));
    let twice = mistakes(&["--http-error-body=404:a", "--http-error-body=404:b"]);
    assert!(twice[0].wanted.contains("one body for 404"), "{twice:?}");
}

#[test]
fn a_journal_is_as_it_was_asked_for() {
    assert_eq!(plan(&[]).journal, None);
    let of = |fsync, bytes_max| Some(journal::Options::new("j".into(), fsync, bytes_max));
    let every = journal::Fsync::Every(Duration::from_millis(100));
    assert_eq!(plan(&["--journal=j"]).journal, of(every, 8 << 30));
    let always = ["--journal=j", "--journal-fsync=always", "--journal-bytes-max=1GiB"];
    assert_eq!(plan(&always).journal, of(journal::Fsync::Always, 1 << 30));
    assert_eq!(
        plan(&["--journal=j", "--journal-fsync=off"]).journal,
        of(journal::Fsync::Off, 8 << 30)
    );
}

#[test]
fn zero_leaves_socket_buffers_to_the_kernel() {
    let plan = plan(&["--send-buffer=0", "--notsent-lowat=0"]);
    assert_eq!(plan.settings.send_buffer_bytes, None);
    assert_eq!(plan.settings.notsent_lowat_bytes, None);
}

/// The one rule of a command line.
fn rule(text: &str) -> TopicRule {
    let settings = plan(&["--topic", text]).settings;
    settings.rules.given()[0].clone()
}

#[test]
fn the_keys_of_a_rule() {
    let all = rule(
        "ns:md.*:kind=value,content=json,lag-bytes-max=1MiB,lag_messages_max=7,lag-age-max=20ms,\
         history-messages=9,history-bytes=1KiB,history-age=1m,snapshot=none,sample=250ms,expire=1h,stale-after=3s,\
         publish-from=10.0.0.0/8,publish-from=::1,subscribe-from=192.0.2.1",
    );
    assert!(all.pattern.matches("ns:md.a"));
    assert_eq!((all.kind, all.content), (Kind::Value, Content::Json));
    assert_eq!((all.lag_bytes_max, all.lag_messages_max), (Some(1 << 20), Some(7)));
    assert_eq!(all.lag_age_max, Some(Duration::from_millis(20)));
    let age = Some(Duration::from_secs(60));
    assert_eq!(all.history, HistoryBounds { messages: 9, bytes: 1 << 10, age });
    assert_eq!(all.snapshot, SnapshotSource::None);
    assert_eq!(all.pace, Pace::Sample(Duration::from_millis(250)));
    assert_eq!(all.expire, Some(Duration::from_secs(3_600)));
    assert_eq!(all.stale_after, Some(Duration::from_secs(3)));
    assert_eq!(format!("{:?}", all.publish_from), "[10.0.0.0/8, ::1/128]");
    assert_eq!(format!("{:?}", all.subscribe_from), "[192.0.2.1/32]");
    let gap = rule("a:overflow=gap,batch=5ms");
    assert_eq!((gap.overflow, gap.pace), (Overflow::Gap, Pace::Batch(Duration::from_millis(5))));
    assert_eq!(rule("a:pace=live").pace, Pace::Live);
}

#[test]
fn what_a_rule_does_not_say_follows_its_kind() {
    for (text, kind) in [
        ("ns:a", Kind::Event),
        ("a:kind=event", Kind::Event),
        ("a:kind=value", Kind::Value),
        ("a:kind=delta", Kind::Delta),
    ] {
        let usual = TopicRule::new(Pattern::parse("a").expect("a name"), kind);
        let given = TopicRule { pattern: usual.pattern.clone(), ..rule(text) };
        assert_eq!(format!("{given:?}"), format!("{usual:?}"), "{text}");
    }
    // Bounds by bytes or age alone leave the number open.
    assert_eq!(rule("a:history-age=1m").history.messages, u32::MAX);
    assert_eq!(rule("a:history-bytes=1MiB").history.messages, u32::MAX);
    assert_eq!(rule("a:history-messages=5").history.bytes, 4 << 20);
}

#[test]
fn every_mistake_of_a_rule_is_named_with_its_key() {
    for (options, key, value, wanted) in [
        ("kind=keyed", "kind", "keyed", "wants event or value or delta"),
        ("content=xml", "content", "xml", "wants auto or json or text or binary"),
        ("colour=red", "colour", "red", "is no key of a rule, which are pattern, kind, content"),
        ("kind=value,sample", "sample", "", "wants a time from 10ms to 1m"),
        ("kind=value,kind=event", "kind", "event", "is given twice"),
        ("lag-bytes-max=1", "lag-bytes-max", "1", "from 4KiB to 1GiB"),
        ("lag-messages-max=0", "lag-messages-max", "0", "from 1 to"),
        ("kind=value,lag-age-max=1ms", "lag-age-max", "1ms", "a time from 10ms to 1day"),
        ("overflow=drop", "overflow", "drop", "wants close or gap"),
        ("history=5", "history", "5", "history-messages=1000"),
        ("history-messages=-1", "history-messages", "-1", "from 0 to 100000000"),
        ("history-bytes=1", "history-bytes", "1", "from 1KiB to 1TiB"),
        ("history-age=0s", "history-age", "0s", "a time from 1ms to 30days"),
        ("history-bytes=2GiB", "history-bytes", "2GiB", "at most --history-bytes-max, 1073741824"),
        ("history-messages=0,history-age=1s", "history-age", "1s", "more than 0 messages"),
        ("snapshot=true", "snapshot", "true", "wants last or published or none"),
        ("pace=100ms", "pace", "100ms", "wants live; batch=5ms and sample=100ms"),
        ("batch=0ms", "batch", "0ms", "a time from 1ms to 10s"),
        ("kind=value,sample=1ms", "sample", "1ms", "a time from 10ms to 1m"),
        ("kind=value,sample=0", "sample", "0", "a time from 10ms to 1m"),
        ("expire=0s", "expire", "0s", "a time from 1s to"),
        ("stale-after=1ms", "stale-after", "1ms", "a time from 100ms to 1day"),
        ("publish-from=here", "publish-from", "here", "wants an address and its bits"),
        ("subscribe-from=::1/129", "subscribe-from", "::1/129", "wants an address and its bits"),
        // Each right by itself, and nonsense together.
        ("sample=1s", "sample", "1s", "wants kind value: of event topics every message matters"),
        ("kind=delta,sample=1s", "sample", "1s", "wants kind value: of delta topics"),
        ("kind=delta,lag-age-max=1s", "lag-age-max", "1s", "wants kind value: of delta topics"),
        ("kind=value,overflow=gap", "overflow", "gap", "wants kind event"),
        ("kind=delta,overflow=close", "overflow", "close", "wants kind event"),
        ("kind=delta,snapshot=last", "snapshot", "last", "wants published or none"),
        ("kind=value,snapshot=published", "snapshot", "published", "wants last or none"),
        ("snapshot=published", "snapshot", "published", "wants last or none"),
        (
            "kind=delta,history-messages=0",
            "history-messages",
            "0",
            "at least 1 where kind is delta",
        ),
        ("kind=value,batch=1s,sample=1s", "sample", "1s", "batch or sample, not both"),
        ("pace=live,batch=1s", "pace", "live", "no batch and no sample"),
        ("batch=3s,stale-after=3s", "stale-after", "3s", "more than batch or sample"),
        ("expire=3s,stale-after=3s", "stale-after", "3s", "less than expire"),
    ] {
        let text = format!("md.*:{options}");
        let found = mistakes(&["--topic", &text]);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].place, format!("--topic '{text}': {key}"));
        assert_eq!(found[0].value, value, "{text}");
        assert!(found[0].wanted.contains(wanted), "{text}: {}", found[0].wanted);
    }
    let found = mistakes(&["--topic=a:lag-bytes-max=2MiB", "--log-bytes-max=1MiB"]);
    assert!(found[0].wanted.contains("at most --log-bytes-max"), "{found:?}");
}

#[test]
fn all_mistakes_of_all_rules_are_named_at_once() {
    let file = Scratch::new(
        "rules",
        "[[topic]]\npattern = 'a..b'\nkind = 'valu'\nsample = '1s'\nhistory = { message = 1, \
         age = 5 }\n[[topic]]\npattern = 'c'\nkind = 'delta'\nsnapshot = 'last'\n\
         sample = '1s'\noverflow = 'gap'\nhistory = { messages = 0 }\n\
         [[topic]]\npattern = 'd'\nexpire = true\n",
    );
    let mut found: Vec<_> =
        mistakes(&["--config", file.path()]).into_iter().map(|mistake| mistake.place).collect();
    found.sort();
    let mut wanted = [
        "2: pattern",
        "3: kind",
        "5: history.message",
        "5: history.age",
        "9: snapshot",
        "10: sample",
        "11: overflow",
        "12: history.messages",
        "15: expire",
    ]
    .map(|rest| format!("{}:{rest}", file.path()));
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn rules_are_bounded() {
    let many = vec!["--topic=a"; RULES_MAX + 1];
    assert!(mistakes(&many)[0].wanted.contains("at most 1000 rules"));
}
