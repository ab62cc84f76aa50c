//! The client's side of the upgrade: the request, and the check of its answer.
//!
//! Knows: RFC 6455 section 4.1. Must not know: sockets, randomness (the nonce comes from the
//! caller).

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;

use crate::deflate::{Agreement, Offer};
use crate::handshake::{accept_key, elements, split_unquoted};
use crate::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};

/// What a client asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Path and query, as they go on the wire.
    pub path: &'a str,
    /// The server's name, with its port unless that is the scheme's own.
    pub host: &'a str,
    /// From [`encode_key`].
    pub key: &'a str,
    /// The subprotocols offered, in order of preference; may be empty.
    pub protocols: &'a [&'a str],
    /// Further header fields, names and values.
    pub headers: &'a [(&'a str, &'a str)],
}

/// `Sec-WebSocket-Key` of a nonce: 24 bytes of ASCII.
pub fn encode_key(nonce: [u8; 16]) -> String {
    base64::engine::general_purpose::STANDARD.encode(nonce)
}

/// Appends the upgrade request.
pub fn write_request(out: &mut Vec<u8>, ask: &Ask<'_>) {
    let mut line = |parts: &[&str]| {
        for part in parts {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    };
    line(&["GET ", ask.path, " HTTP/1.1"]);
    line(&["Host: ", ask.host]);
    line(&["Upgrade: websocket"]);
    line(&["Connection: Upgrade"]);
    line(&["Sec-WebSocket-Key: ", ask.key]);
    line(&["Sec-WebSocket-Version: 13"]);
    if !ask.protocols.is_empty() {
        line(&["Sec-WebSocket-Protocol: ", &ask.protocols.join(", ")]);
    }
    for (name, value) in ask.headers {
        line(&[name, ": ", value]);
    }
    line(&[]);
}

/// Reads the answer from all the bytes received so far and checks it (RFC 6455 section 4.1):
/// the length of its head, behind which the frames begin. `None`: more is needed.
///
/// `protocols` are those offered. No extension was, so none may be accepted.
///
/// # Errors
/// Whatever makes the client fail the connection.
pub fn parse_response(
    bytes: &[u8],
    key: &str,
    protocols: &[&str],
) -> Result<Option<usize>, ResponseError> {
    let answer = parse_answer(bytes, key, protocols, None)?;
    Ok(answer.map(|answer| answer.head_bytes))
}

/// A proper answer to an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The length of its head, bytes; behind it the frames begin.
    pub head_bytes: usize,
    /// permessage-deflate was accepted, on these terms.
    pub deflate: Option<Agreement>,
}

/// The same as [`parse_response`] where permessage-deflate may have been offered, as a
/// `Sec-WebSocket-Extensions` of `deflate`'s text.
///
/// # Errors
/// Whatever makes the client fail the connection.
pub fn parse_answer(
    bytes: &[u8],
    key: &str,
    protocols: &[&str],
    deflate: Option<&Offer>,
) -> Result<Option<Answer>, ResponseError> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let bounded = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let head_bytes = match response.parse(bounded) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bounded.len() == HEAD_BYTES_MAX => {
            return Err(ResponseError::HeadTooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(ResponseError::HeadInvalid),
    };
    let status = response.code.ok_or(ResponseError::HeadInvalid)?;
    if status != 101 {
        return Err(ResponseError::Status(status));
    }
    check_switching(response.headers, key, protocols)?;
    let deflate = check_extensions(response.headers, deflate)?;
    Ok(Some(Answer { head_bytes, deflate }))
}

/// The extensions accepted, over all their fields: permessage-deflate once, if it was offered.
fn check_extensions(
    fields: &[httparse::Header<'_>],
    offer: Option<&Offer>,
) -> Result<Option<Agreement>, ResponseError> {
    let mut agreement = None;
    for field in fields {
        if !field.name.eq_ignore_ascii_case("sec-websocket-extensions") {
            continue;
        }
        let value =
            core::str::from_utf8(field.value).map_err(|_| ResponseError::ExtensionNotOffered)?;
        let list = split_unquoted(value, b',').map(str::trim_ascii);
        for element in list.filter(|element| !element.is_empty()) {
            let offer = offer.filter(|_| agreement.is_none());
            let offer = offer.ok_or(ResponseError::ExtensionNotOffered)?;
            let agreed = offer.judge(element).map_err(|_| ResponseError::ExtensionNotOffered)?;
            agreement = Some(agreed);
        }
    }
    Ok(agreement)
}

fn check_switching(
    fields: &[httparse::Header<'_>],
    key: &str,
    protocols: &[&str],
) -> Result<(), ResponseError> {
    let mut upgrade = false;
    let mut connection = false;
    let mut accept = false;
    let mut protocol_seen = false;
    for field in fields {
        let is = |wanted: &str| field.name.eq_ignore_ascii_case(wanted);
        let value = core::str::from_utf8(field.value).map_or("", str::trim_ascii);
        if is("upgrade") {
            upgrade |= value.eq_ignore_ascii_case("websocket");
        } else if is("connection") {
            connection |= elements(value).any(|token| token.eq_ignore_ascii_case("upgrade"));
        } else if is("sec-websocket-accept") {
            if value.as_bytes() != accept_key(key) {
                return Err(ResponseError::AcceptWrong);
            }
            accept = true;
        } else if is("sec-websocket-protocol") {
            if protocol_seen || !protocols.contains(&value) {
                return Err(ResponseError::ProtocolNotOffered);
            }
            protocol_seen = true;
        }
    }
    if !upgrade {
        return Err(ResponseError::UpgradeMissing);
    }
    if !connection {
        return Err(ResponseError::ConnectionMissing);
    }
    if !accept {
        return Err(ResponseError::AcceptMissing);
    }
    Ok(())
}

/// Why the answer to an upgrade is no upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ResponseError {
    /// No `Sec-WebSocket-Accept`.
    #[error("Sec-WebSocket-Accept is missing")]
    AcceptMissing,
    /// `Sec-WebSocket-Accept` does not belong to the key sent.
    #[error("Sec-WebSocket-Accept does not fit the key")]
    AcceptWrong,
    /// No `Connection: upgrade`.
    #[error("Connection: upgrade is missing")]
    ConnectionMissing,
    /// An extension that was not offered, or not with such parameters.
    #[error("an extension that was not offered so")]
    ExtensionNotOffered,
    /// Not HTTP, or more than 64 header fields.
    #[error("the answer is not HTTP")]
    HeadInvalid,
    /// More than 16 KiB of head.
    #[error("the answer's head is larger than 16 KiB")]
    HeadTooLarge,
    /// A subprotocol that was not offered.
    #[error("a subprotocol that was not offered")]
    ProtocolNotOffered,
    /// Another status than 101.
    #[error("HTTP status {0}")]
    Status(
        /// The status.
        u16,
    ),
    /// No `Upgrade: websocket`.
    #[error("Upgrade: websocket is missing")]
    UpgradeMissing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake;

    /// RFC 6455 section 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\n\
        connection: keep-alive, upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn both_sides_agree() {
        let key = encode_key(*b"the sample nonce");
        assert_eq!(key, KEY);
        let mut request = Vec::new();
        let ask = Ask {
            path: "/ws?topics=a",
            host: "localhost:9001",
            key: &key,
            protocols: &["x", "uringcast.v1.json"],
            headers: &[("User-Agent", "test")],
        };
        write_request(&mut request, &ask);
        let parsed = handshake::parse(&request).expect("good").expect("whole");
        assert_eq!(parsed.head_bytes, request.len());
        let upgrade = parsed.upgrade().expect("an upgrade");
        assert_eq!((upgrade.key, upgrade.protocols), (KEY, ask.protocols));

        let mut answer = Vec::new();
        let switching =
            handshake::Switching { protocol: Some("x"), ..handshake::Switching::new(upgrade.key) };
        handshake::write_switching(&mut answer, &switching);
        for cut in 0..answer.len() {
            assert_eq!(parse_response(&answer[..cut], KEY, ask.protocols), Ok(None));
        }
        let length = answer.len();
        answer.push(0x81);
        assert_eq!(parse_response(&answer, KEY, ask.protocols), Ok(Some(length)));
    }

    #[test]
    fn deflate_is_accepted_where_it_was_offered() {
        let offer = Offer { server_max_window_bits: Some(10), ..Offer::default() };
        let agreed = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10";
        let answer = |fields: &str| {
            let text = GOOD.replacen("\r\n\r\n", &alloc::format!("\r\n{fields}\r\n\r\n"), 1);
            let whole = parse_answer(text.as_bytes(), KEY, &[], Some(&offer))?;
            let answer = whole.expect("whole");
            assert_eq!(answer.head_bytes, text.len());
            Ok(answer.deflate.map(|agreement| agreement.server_window_bits))
        };
        let refused = Err(ResponseError::ExtensionNotOffered);
        let field = alloc::format!("sec-websocket-extensions: {agreed}");
        assert_eq!(answer("x: y"), Ok(None));
        assert_eq!(answer("Sec-WebSocket-Extensions: , "), Ok(None));
        assert_eq!(answer(&field), Ok(Some(10)));
        assert_eq!(answer(&alloc::format!("{field}, {agreed}")), refused);
        assert_eq!(answer(&alloc::format!("{field}\r\n{field}")), refused);
        assert_eq!(answer("Sec-WebSocket-Extensions: permessage-deflate"), refused);
        assert_eq!(answer("Sec-WebSocket-Extensions: x"), refused);
    }

    #[test]
    fn each_wrong_answer_has_its_error() {
        let parse = |text: &str| parse_response(text.as_bytes(), KEY, &["a"]);
        assert_eq!(parse(GOOD), Ok(Some(GOOD.len())));
        let end = "\r\n\r\n";
        for (from, to, error) in [
            ("xOo=", "xOp=", ResponseError::AcceptWrong),
            ("sec-websocket-accept", "x", ResponseError::AcceptMissing),
            ("keep-alive, upgrade", "close", ResponseError::ConnectionMissing),
            ("WebSocket", "h2c", ResponseError::UpgradeMissing),
            (end, "\r\nSec-WebSocket-Protocol: b\r\n\r\n", ResponseError::ProtocolNotOffered),
            (end, "\r\nSec-WebSocket-Extensions: x\r\n\r\n", ResponseError::ExtensionNotOffered),
            ("101 Switching Protocols", "503 Busy", ResponseError::Status(503)),
            ("HTTP/1.1", "SMTP", ResponseError::HeadInvalid),
        ] {
            assert_eq!(parse(&GOOD.replacen(from, to, 1)), Err(error), "{to}");
        }
        let long = "HTTP/1.1 101 OK\r\nx: ".len();
        let mut endless = String::from("HTTP/1.1 101 OK\r\nx: ");
        endless.push_str(&"y".repeat(HEAD_BYTES_MAX - long));
        assert_eq!(parse(&endless), Err(ResponseError::HeadTooLarge));
    }
}
