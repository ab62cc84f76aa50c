//! Commands of the JSON protocol, good and bad, with the id wherever it can be read.

use proptest::prelude::*;
use uringcast_protocol::command::{Command, ErrorCode, Id, Position, parse};

fn good(message: &str) -> Command<'_> {
    parse(message.as_bytes()).unwrap_or_else(|error| panic!("{message}: {error}"))
}

fn bad(message: &str) -> (Option<Id>, ErrorCode) {
    let error = parse(message.as_bytes()).expect_err(message);
    assert!(!error.message.is_empty());
    (error.id, error.code)
}

#[test]
fn subscribe_with_everything() {
    let command = good(
        r#" {"op":"subscribe","id":1,"topics":["md.BTCUSDT.trade","md.*.bookTicker","a..b","\u0061"],
        "snapshot":true,"sample_ms":250,"resume":{"a":{"epoch":"9f","seq":41}},"resume_from":{"ts":1},
        "unknown":[1,2]}"#,
    );
    let Command::Subscribe(subscribe) = command else { panic!("{command:?}") };
    assert_eq!(subscribe.id, Some(Id::Integer(1)));
    assert_eq!(subscribe.topics, ["md.BTCUSDT.trade", "md.*.bookTicker", "a..b", "a"]);
    assert!(subscribe.snapshot);
    assert_eq!(subscribe.sample_ms, Some(250));
    let position = Position { epoch: 0x9f, seq: 41 };
    assert_eq!(Vec::from_iter(subscribe.resume), [("a".into(), position)]);
    assert_eq!(subscribe.resume_from_us, Some(1));
}

#[test]
fn subscribe_with_the_least() {
    let command = good(r#"{"topics":[],"op":"subscribe","id":null,"sample_ms":null}"#);
    let Command::Subscribe(subscribe) = command else { panic!("{command:?}") };
    assert_eq!((subscribe.id, subscribe.sample_ms, subscribe.snapshot), (None, None, false));
    assert!(subscribe.topics.is_empty() && subscribe.resume.is_empty());
}

#[test]
fn the_other_operations() {
    let id = "x".repeat(36);
    let text = format!(r#"{{"op":"ping","id":"{id}"}}"#);
    assert!(matches!(good(&text), Command::Ping { id: Some(Id::Text(text)) } if *text == *id));
    assert!(matches!(good(r#"{"op":"list"}"#), Command::List { id: None }));
    let highest = good(r#"{"op":"auth","id":9007199254740991}"#);
    assert!(matches!(highest, Command::Auth { id: Some(Id::Integer(9_007_199_254_740_991)) }));
    let command = good(r#"{"op":"unsubscribe","id":0,"topics":["a"]}"#);
    assert!(
        matches!(command, Command::Unsubscribe { id: Some(Id::Integer(0)), topics } if topics == ["a"])
    );
    let command = good(r#"{"op":"update","id":2,"topics":["a"],"sample_ms":500}"#);
    let Command::Update { id, topics, sample_ms } = command else { panic!("{command:?}") };
    assert_eq!((id, sample_ms), (Some(Id::Integer(2)), Some(500)));
    assert_eq!(topics, ["a"]);
    let command = good(r#"{"op":"update","topics":["a"],"sample_ms":null}"#);
    assert!(matches!(command, Command::Update { sample_ms: None, .. }));
    let command = good(r#"{"op":"publish","id":5,"topic":"a.b","data":null,"pub_seq":9}"#);
    let Command::Publish(publish) = command else { panic!("{command:?}") };
    assert_eq!((&*publish.topic, publish.pub_seq), ("a.b", Some(9)));
    assert_eq!(publish.data.as_bytes(), b"null");
}

#[test]
fn the_id_comes_back_with_the_error() {
    let one = Some(Id::Integer(1));
    for (message, code) in [
        (r#"{"id":1}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":2}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"dance"}"#, ErrorCode::OpUnknown),
        (r#"{"id":1,"op":"subscribe"}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"subscribe","topics":"a"}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"subscribe","topics":["a",1]}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"subscribe","topics":[],"snapshot":"yes"}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"subscribe","topics":[],"sample_ms":0}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"subscribe","topics":[],"sample_ms":-1}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"subscribe","topics":[],"resume":[]}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"subscribe","topics":[],"resume_from":3}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"subscribe","topics":[],"resume_from":{"ts":-1}}"#, ErrorCode::BadRequest),
        (
            r#"{"id":1,"op":"subscribe","topics":[],"resume":{"a":{"seq":1}}}"#,
            ErrorCode::BadRequest,
        ),
        (
            r#"{"id":1,"op":"subscribe","topics":[],"resume":{"a":{"epoch":"+1","seq":1}}}"#,
            ErrorCode::BadRequest,
        ),
        (
            r#"{"id":1,"op":"subscribe","topics":[],"resume":{"a":{"epoch":"","seq":1}}}"#,
            ErrorCode::BadRequest,
        ),
        (
            r#"{"id":1,"op":"subscribe","topics":[],"resume":{"a":{"epoch":"00000000000000001","seq":1}}}"#,
            ErrorCode::BadRequest,
        ),
        (r#"{"id":1,"op":"update"}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"unsubscribe"}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"publish","data":1}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"publish","topic":"a","pub_seq":1.5,"data":1}"#, ErrorCode::BadRequest),
        (r#"{"id":1,"op":"publish","topic":"a.*","data":1}"#, ErrorCode::TopicInvalid),
        (r#"{"id":1,"op":"publish","topic":"a","data_base64":"!"}"#, ErrorCode::PayloadInvalid),
    ] {
        assert_eq!(bad(message), (one.clone(), code), "{message}");
    }
}

#[test]
fn where_no_id_can_be_read() {
    let long = format!(r#"{{"op":"ping","id":"{}"}}"#, "x".repeat(37));
    for message in [
        "",
        "null",
        "[\"ping\"]",
        "{\"op\":\"ping\"",
        "{\"op\":\"ping\"}x",
        "{\"op\":\"ping\",\"op\":\"ping\",\"id\":1}",
        "{\"op\":\"ping\",\"id\":9007199254740992}",
        "{\"op\":\"ping\",\"id\":-1}",
        "{\"op\":\"ping\",\"id\":1.5}",
        "{\"op\":\"ping\",\"id\":{}}",
        "{\"op\":\"ping\",\"id\":true}",
        &long,
    ] {
        assert_eq!(bad(message), (None, ErrorCode::BadRequest), "{message}");
    }
    let error = parse(b"{\"op\":\"\xff\",\"id\":1}").expect_err("not UTF-8");
    assert_eq!(error.code, ErrorCode::BadRequest);
}

#[test]
fn a_command_has_a_bounded_number_of_topics() {
    let command = |count: usize| {
        let topics = vec!["\"a\""; count].join(",");
        format!(r#"{{"op":"subscribe","id":1,"topics":[{topics}]}}"#)
    };
    assert!(parse(command(1024).as_bytes()).is_ok());
    assert_eq!(bad(&command(1025)), (Some(Id::Integer(1)), ErrorCode::Limit));
}

proptest! {
    #[test]
    fn no_input_panics(message in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&message);
        let object = [b"{\"op\":", &message[..], b"}"].concat();
        let _ = parse(&object);
    }

    #[test]
    fn a_cut_command_is_refused(cut in 0..60_usize) {
        let whole = br#"{"op":"publish","id":5,"topic":"a.b","data":{"x":[1,"y"]}}"#;
        let cut = cut.min(whole.len() - 1);
        prop_assert!(parse(&whole[..cut]).is_err());
        prop_assert!(parse(whole).is_ok());
    }
}
