//! The head of an HTTP request, however it is cut; its query against another reader; its upgrade
//! against tungstenite's judgement; the answer 101 against our own client.
//!
//! Knows: where tungstenite is known to differ. Must not know: which paths exist.
//!
//! Input: the bytes of a connection from its beginning.

use tungstenite::handshake::{machine::TryParse, server};
use uringcast_protocol::{
    Refusal,
    client_handshake::parse_response,
    handshake::{Request, Switching, Upgrade, accept_key, parse, write_switching},
};

/// Once it is read or refused, no more bytes change that.
pub fn check(data: &[u8]) {
    let whole = parse(data);
    let verdict = format!("{whole:?}");
    // At about a hundred places, and each near the end.
    let step = data.len() / 100 + 1;
    for cut in (0..data.len()).filter(|cut| cut % step == 0 || data.len() - cut < 8) {
        let early = parse(&data[..cut]);
        if !matches!(early, Ok(None)) {
            assert_eq!(format!("{early:?}"), verdict, "at {cut} of {}", data.len());
        }
    }
    match whole {
        Ok(None) => assert!(data.len() < HEAD_BYTES_MAX),
        Err(refusal) => assert!((400..=505).contains(&refusal.status())),
        Ok(Some(request)) => {
            let alone = parse(&data[..request.head_bytes]);
            assert_eq!(format!("{alone:?}"), verdict);
            assert!(parse(&data[..request.head_bytes - 1]).is_ok_and(|early| early.is_none()));
            read(&request);
            match request.upgrade() {
                Ok(upgrade) => accepted(&data[..request.head_bytes], &upgrade),
                Err(refusal) => refused(&data[..request.head_bytes], refusal),
            }
        }
    }
}

fn read(request: &Request<'_>) {
    assert!(request.path.starts_with('/'));
    let pairs: Vec<_> = request.query().collect();
    let Some(query) = raw_query(request) else { return };
    let theirs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    assert_eq!(pairs, theirs, "{query:?}");
    for element in request.protocols.iter().chain(&request.extensions) {
        assert!(!element.is_empty() && element.trim_ascii() == *element);
    }
}

/// The query as it stands in the target. A `Request` shows it to nobody, but prints it.
fn raw_query(request: &Request<'_>) -> Option<String> {
    let printed = format!("{request:?}");
    let (_, rest) = printed.split_once("query: ")?;
    serde_json::Deserializer::from_str(rest).into_iter::<String>().next()?.ok()
}

/// The answer fits the request; and who else judges upgrades takes it too.
fn accepted(head: &[u8], upgrade: &Upgrade<'_>) {
    for protocol in [None].into_iter().chain(upgrade.protocols.iter().map(|name| Some(*name))) {
        let mut answer = Vec::new();
        write_switching(&mut answer, &Switching { protocol, ..Switching::new(upgrade.key) });
        let read = parse_response(&answer, upgrade.key, upgrade.protocols);
        assert_eq!(read, Ok(Some(answer.len())), "{}", answer.escape_ascii());
    }
    // It cannot read every target that we can, and of repeated fields it looks at the first.
    let Ok(Some((head_bytes, theirs))) = server::Request::try_parse(head) else { return };
    assert_eq!(head_bytes, head.len());
    let once = |name: &str| theirs.headers().get_all(name).iter().count() == 1;
    let plain_lists = once("upgrade")
        && once("connection")
        && theirs.headers()["upgrade"].as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket")
        && !theirs.headers()["connection"].as_bytes().contains(&b'\t');
    match server::create_response(&theirs) {
        Ok(answer) => {
            let accept = &answer.headers()["sec-websocket-accept"];
            assert_eq!(accept.as_bytes(), accept_key(upgrade.key));
        }
        // Unused bits in the key's last digit: it refuses them, browsers never set them.
        Err(_)
            if !upgrade.key.ends_with("A==")
                && !upgrade.key.ends_with("Q==")
                && !upgrade.key.ends_with("g==")
                && !upgrade.key.ends_with("w==") => {}
        Err(error) => assert!(!plain_lists, "{error} {}", head.escape_ascii()),
    }
}

/// What we refuse and tungstenite takes, we refuse for a reason it does not look at.
fn refused(head: &[u8], refusal: Refusal) {
    let Ok(Some((_, theirs))) = server::Request::try_parse(head) else { return };
    if server::create_response(&theirs).is_ok() {
        let repeated = theirs.headers().get_all("sec-websocket-version").iter().count() > 1;
        // It parts tokens at blanks too; the grammar knows the comma only (RFC 9110 section 5.6.1).
        let blanks = theirs.headers().get_all("connection").iter().any(|value| {
            let mut elements = value.as_bytes().split(|byte| *byte == b',');
            elements.any(|element| element.trim_ascii().contains(&b' '))
        });
        assert!(
            matches!(refusal, Refusal::BodyUnexpected)
                || refusal == Refusal::VersionUnsupported && repeated
                || refusal == Refusal::ConnectionHeader && blanks,
            "{refusal:?} {}",
            head.escape_ascii()
        );
    }
}

const HEAD_BYTES_MAX: usize = 16 * 1024;
