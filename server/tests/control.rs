//! The admin API, from its socket to the mesh and back.

mod control_rig;

use std::sync::atomic::Ordering::Relaxed;

use control_rig::{Manner, Ordered, Rig};
use uringcast::{
    clock,
    control::Outcome,
    home::topic_hash,
    journal::{Fsync, Journal, Keep, Options},
    rules::{Content, Kind, Rules, TopicRule},
    settings::Settings,
};
use uringcast_protocol::topic_name::Pattern;

fn rig() -> Rig {
    Rig::start(3, Settings::default(), Manner::Good)
}

#[test]
fn publishing_answers_with_the_place_that_the_topics_home_gave() {
    let rig = rig();
    for seq in 1..=2 {
        let reply = rig.request("POST", "/v1/topics/md.X", "", b"{\"p\":1}");
        assert_eq!(reply.status, 200, "{reply:?}");
        let wanted = format!(r#"{{"topic":"md.X","epoch":"0000000000000007","seq":{seq}}}"#);
        assert_eq!(reply.body, wanted);
    }
    let text = rig.request("POST", "/v1/topics/md.Y", "Content-Type: text/plain\r\n", b"{}");
    assert_eq!(text.status, 200);
    let bytes = rig.request("POST", "/v1/topics/md.Z", "", &[0xff, 0, 1]);
    assert_eq!(bytes.status, 200);
    let (outcome, mut ordered) = rig.end();
    assert_eq!(outcome, Outcome::Drained);
    ordered.sort_by(|a, b| (&a.topic, a.seq).cmp(&(&b.topic, b.seq)));
    let place = |topic: &str, content: &str, bytes, seq| Ordered {
        topic: topic.to_owned(),
        content: content.to_owned(),
        bytes,
        seq,
    };
    assert_eq!(
        ordered,
        [
            place("md.X", "Json", 7, 1),
            place("md.X", "Json", 7, 2),
            place("md.Y", "Text", 2, 1),
            place("md.Z", "Binary", 3, 1),
        ]
    );
}

#[test]
fn a_repeated_pub_seq_is_answered_as_a_duplicate() {
    let rig = rig();
    let publish = |pub_seq| {
        let path = format!("/v1/topics/a?pub_seq={pub_seq}");
        rig.request("POST", &path, "", b"1").json()
    };
    assert_eq!(publish(5)["seq"], 1);
    assert_eq!(publish(5)["duplicate"], true);
    assert_eq!(publish(5)["seq"], 1);
    assert!(publish(6).get("duplicate").is_none());
    rig.end();
}

#[test]
fn what_is_wrong_with_a_publication_is_said() {
    let rule = TopicRule {
        content: Content::Json,
        ..TopicRule::new(Pattern::parse("strict.>").expect("a pattern"), Kind::Event)
    };
    let settings =
        Settings { publish_bytes_max: 100, rules: Rules::new(vec![rule]), ..Settings::default() };
    let rig = Rig::start(1, settings, Manner::Good);
    for (path, headers, body, status, code) in [
        ("/v1/topics/a..b", "", "1", 400, "topic_invalid"),
        ("/v1/topics/a.*", "", "1", 400, "topic_invalid"),
        ("/v1/topics/a%ff", "", "1", 400, "bad_request"),
        ("/v1/topics/a?pubseq=1", "", "1", 400, "bad_request"),
        ("/v1/topics/a?pub_seq=-1", "", "1", 400, "bad_request"),
        ("/v1/topics/strict.a", "", "no json", 400, "payload_invalid"),
        ("/v1/topics/a", "Content-Type: application/json\r\n", "no json", 400, "payload_invalid"),
        ("/v1/topics/full", "", "1", 507, "limit"),
        ("/v1/topic/a", "", "1", 404, "not_found"),
        ("/metrics", "", "1", 405, "method_not_allowed"),
    ] {
        let reply = rig.request("POST", path, headers, body.as_bytes());
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path}: {reply:?}");
    }
    let reply = rig.request("POST", "/v1/topics/a", "", &[b'1'; 101]);
    assert_eq!((reply.status, reply.code().as_str()), (413, "payload_too_large"));
    let chunked = format!(
        "POST /v1/topics/a HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n70\r\n{}\r\n0\r\n\r\n",
        rig.admin,
        "1".repeat(0x70)
    );
    assert_eq!(rig.raw(chunked.as_bytes()).status, 413);
    rig.end();
}

#[test]
fn lines_are_published_in_order_and_each_is_answered() {
    let rig = rig();
    let mut lines = String::new();
    for n in 0..300 {
        lines.push_str(&format!("{{\"topic\":\"t.{}\",\"data\":{n}}}\n\n", n % 7));
    }
    lines.push_str("{\"topic\":\"a..b\",\"data\":1}\n");
    lines.push_str("not json\n");
    lines.push_str("{\"topic\":\"bin\",\"data_base64\":\"AP8=\"}");
    let reply = rig.request("POST", "/v1/publish", "", lines.as_bytes());
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.head.contains("content-type: application/x-ndjson"));
    let answers: Vec<serde_json::Value> =
        reply.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 303);
    for (n, answer) in answers[..300].iter().enumerate() {
        assert_eq!(answer["topic"], format!("t.{}", n % 7));
        assert_eq!(answer["seq"], n as u64 / 7 + 1);
    }
    assert_eq!(answers[300]["error"]["code"], "topic_invalid");
    assert_eq!(
        (&answers[301]["line"], &answers[301]["error"]["code"]),
        (&302.into(), &"bad_request".into())
    );
    assert_eq!(answers[302]["seq"], 1);
    rig.end();
}

#[test]
fn too_many_lines_are_refused_before_any_is_published() {
    let rig = rig();
    let lines = "{\"topic\":\"a\",\"data\":1}\n".repeat(10_001);
    let reply = rig.request("POST", "/v1/publish", "", lines.as_bytes());
    assert_eq!((reply.status, reply.code().as_str()), (413, "payload_too_large"));
    assert_eq!(rig.end().1, []);
}

#[test]
fn topics_are_listed_in_pages_and_deleted() {
    let rig = rig();
    for n in 0..25 {
        rig.request("POST", &format!("/v1/topics/t.{n:02}"), "", b"1");
    }
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = rig.get(&format!("/v1/topics?limit=10&after={after}")).json();
        let topics = page["topics"].as_array().expect("a list").clone();
        seen.extend(topics.iter().map(|topic| topic["topic"].as_str().expect("a name").to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, (0..25).map(|n| format!("t.{n:02}")).collect::<Vec<_>>());
    assert_eq!(rig.get("/v1/topics/t.03").json()["seq"], 1);
    let deleted = rig.request("DELETE", "/v1/topics/t.03", "", b"");
    assert_eq!(deleted.body, r#"{"topic":"t.03","deleted":true}"#);
    for reply in [rig.get("/v1/topics/t.03"), rig.request("DELETE", "/v1/topics/t.03", "", b"")] {
        assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"));
    }
    assert_eq!(rig.get("/v1/topics?limit=0").status, 400);
    rig.end();
}

#[test]
fn connections_come_with_their_shard_and_the_worst_first() {
    let rig = rig();
    let all = rig.get("/v1/connections?sort=lag&limit=2").json();
    let shards: Vec<_> =
        all["connections"].as_array().expect("a list").iter().map(|c| c["shard"].clone()).collect();
    assert_eq!(shards, [2, 1]);
    assert_eq!(all["connections"][0]["backlog_bytes"], 20);
    assert_eq!(rig.get("/v1/connections?sort=age").status, 400);
    rig.end();
}

#[test]
fn the_page_metrics_and_health_are_there() {
    let rig = rig();
    rig.shared.counters[1].deliveries.add(5);
    let metrics = rig.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"));
    assert!(metrics.body.contains("\nuringcast_deliveries_total{shard=\"1\"} 5\n"));
    let stats = rig.get("/v1/stats").json();
    assert_eq!((&stats["deliveries"], &stats["data_port"]), (&5.into(), &9001.into()));
    assert_eq!(stats["stage"], "ready");
    let page = rig.get("/");
    assert!(page.head.contains("content-security-policy: default-src 'none'"));
    assert!(page.body.starts_with("<!doctype html>"));
    assert_eq!((rig.get("/healthz").status, rig.get("/readyz").status), (200, 200));
    rig.end();
}

#[test]
fn overload_slows_publishers_down() {
    let rig = rig();
    rig.shared.overloaded[2].store(true, Relaxed);
    let reply = rig.request("POST", "/v1/topics/a", "", b"1");
    assert_eq!((reply.status, reply.code().as_str()), (503, "busy"));
    assert!(reply.head.contains("retry-after: 1"), "{reply:?}");
    assert_eq!(rig.get("/v1/topics").status, 200);
    rig.shared.overloaded[2].store(false, Relaxed);
    // Only those of a topic whose lanes are late.
    rig.shared.late.mark(topic_hash(rig.shared.hash_seed, "b"), clock::now().ns + 1_000_000_000);
    let reply = rig.request("POST", "/v1/topics/b", "", b"1");
    assert_eq!((reply.status, reply.code().as_str()), (503, "busy"));
    assert!(reply.head.contains("retry-after: 1"), "{reply:?}");
    let lines = b"{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"b\",\"data\":1}\n";
    let reply = rig.request("POST", "/v1/publish", "", lines);
    let answers: Vec<&str> = reply.body.lines().collect();
    assert!(answers[0].contains("\"seq\":1") && answers[1].contains("busy"), "{reply:?}");
    assert_eq!(rig.request("POST", "/v1/topics/a", "", b"1").status, 200);
    rig.end();
}

#[test]
fn shards_that_do_not_answer_are_waited_for_two_seconds() {
    let rig = Rig::start(2, Settings::default(), Manner::Silent);
    let reply = rig.request("POST", "/v1/topics/a", "", b"1");
    assert_eq!((reply.status, reply.code().as_str()), (504, "timeout"));
    assert_eq!(rig.get("/healthz").status, 200);
    rig.end();
}

#[test]
fn pages_of_other_sites_are_kept_out() {
    let rig = rig();
    let ask = |method: &str, host: &str, origin: &str| {
        let origin =
            if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
        let head = format!(
            "{method} /v1/topics/a HTTP/1.1\r\nHost: {host}\r\n{origin}Connection: close\r\n\
             Content-Length: 1\r\n\r\n1"
        );
        rig.raw(head.as_bytes()).status
    };
    assert_eq!(ask("POST", "localhost:1", ""), 200);
    assert_eq!(ask("POST", "localhost:1", "http://localhost:1"), 200);
    assert_eq!(ask("POST", "localhost:1", "http://evil.example"), 403);
    assert_eq!(ask("DELETE", "localhost:1", "null"), 403);
    assert_eq!(ask("GET", "rebound.example", ""), 403);
    rig.end();
}

#[test]
fn garbage_is_survived() {
    let rig = rig();
    let oversize =
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(60_000));
    for (garbage, status) in
        [(b"\x16\x03\x01 nonsense\r\n\r\n".as_slice(), 400), (oversize.as_bytes(), 431)]
    {
        assert_eq!(rig.raw(garbage).status, status);
    }
    assert_eq!(rig.get("/healthz").status, 200);
    rig.end();
}

#[test]
fn what_shards_send_for_the_journal_is_in_it_at_the_end() {
    let name = format!("uringcast-control-{}-{:016x}", std::process::id(), rand::random::<u64>());
    let directory = std::env::temp_dir().join(name);
    let hour = std::time::Duration::from_secs(3_600);
    let options = Options::new(directory.clone(), Fsync::Every(hour), 1 << 30);
    let open = || Journal::open(options.clone(), Box::new(|_| Keep::default())).expect("it opens");
    let (journal, restored) = open();
    assert!(restored.topics.is_empty());
    let rig = Rig::start_with(2, Settings::default(), Manner::Good, Some(journal));
    for topic in ["a", "b", "c"] {
        assert_eq!(rig.request("POST", &format!("/v1/topics/{topic}"), "", b"1").status, 200);
    }
    rig.wait_for("three records", || {
        let metrics = rig.request("GET", "/metrics", "", b"").body;
        metrics.contains("\nuringcast_journal_records_total 3\n")
    });
    assert_eq!(rig.end().0, Outcome::Drained);
    let (_, restored) = open();
    let mut names: Vec<_> = restored.topics.iter().map(|topic| &*topic.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(restored.topics.iter().all(|topic| topic.next_seq == 1 && topic.last.is_none()));
    std::fs::remove_dir_all(directory).expect("made by the test");
}
