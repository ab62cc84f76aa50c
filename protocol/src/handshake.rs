//! The server's side of the upgrade: the bytes of a request ⇄ [`Request`], and the answer 101.
//!
//! Knows: HTTP heads and RFC 6455 section 4.2. Must not know: sockets, which paths or topics
//! exist, which origins are allowed.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::net::IpAddr;

use base64::Engine as _;
use sha1::Digest as _;

use crate::forwarded::{self, Client, ProxyHeader};
use crate::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};
use crate::refusal::Refusal;

/// Reads a request's head from all the bytes received so far. `None`: more is needed.
///
/// # Errors
/// As soon as the head is wrong or larger than 16 KiB or 64 fields. Whether the request is a
/// proper upgrade is another question: [`Request::upgrade`].
pub fn parse(head: &[u8]) -> Result<Option<Request<'_>>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let bounded = &head[..head.len().min(HEAD_BYTES_MAX)];
    let head_bytes = match parsed.parse(bounded) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bounded.len() == HEAD_BYTES_MAX => {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadersTooMany),
        Err(httparse::Error::Version) => return Err(version_refusal(bounded)),
        Err(_) => return Err(Refusal::HeadInvalid),
    };
    // A complete parse sets all three.
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::HeadInvalid);
    };
    let target = Target::split(target)?;
    let mut request = Request {
        method,
        path: percent_decode(target.path, Plus::Literal).ok_or(Refusal::TargetInvalid)?,
        query: target.query,
        head_bytes,
        host: None,
        origin: None,
        last_event_id: None,
        key: None,
        protocols: Vec::new(),
        extensions: Vec::new(),
        forwarded: false,
        forwarded_values: Vec::new(),
        forwarded_for_values: Vec::new(),
        wants_upgrade: false,
        keep_alive: minor == 1,
        content_length: 0,
        chunked: false,
        connection_upgrade: false,
        content_length_seen: false,
        http_11: minor == 1,
        version_13: false,
        version_seen: false,
    };
    for field in parsed.headers.iter() {
        request.take(field.name, field.value)?;
    }
    // RFC 9112 section 3.2: 400 for any HTTP/1.1 request without Host. 3.2.2: the authority of an
    // absolute target is used in its place.
    if request.host.is_none() && request.http_11 {
        return Err(Refusal::HostMissing);
    }
    if target.authority.is_some() {
        request.host = target.authority;
    }
    Ok(Some(request))
}

/// A request's head: the parts that matter here, borrowed from the bytes received.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path, percent-decoded, with its leading slash.
    pub path: Cow<'a, str>,
    query: &'a str,
    /// The length of the head: what follows came early and belongs to what comes next.
    pub head_bytes: usize,
    /// `Host`, or the authority of an absolute target.
    pub host: Option<&'a str>,
    /// `Origin`: sent by browsers.
    pub origin: Option<&'a str>,
    /// `Last-Event-ID`: sent by clients of Server-Sent Events that come back.
    pub last_event_id: Option<&'a [u8]>,
    key: Option<&'a str>,
    /// The subprotocols offered, in the client's order of preference.
    pub protocols: Vec<&'a str>,
    /// The extensions offered, each with its parameters, in the client's order of preference.
    pub extensions: Vec<&'a str>,
    /// Came through a proxy that says so: any of `Forwarded`, `X-Forwarded-For`, `X-Real-IP`,
    /// `Via`.
    pub forwarded: bool,
    /// The values of `Forwarded`, in order.
    pub forwarded_values: Vec<&'a str>,
    /// The values of `X-Forwarded-For`, in order.
    pub forwarded_for_values: Vec<&'a str>,
    /// `Upgrade` names `websocket`.
    pub wants_upgrade: bool,
    /// The connection may be used again after the answer.
    pub keep_alive: bool,
    /// The body's length, bytes; 0 if not said.
    pub content_length: u64,
    /// There is a body of unstated length (`Transfer-Encoding`).
    pub chunked: bool,
    connection_upgrade: bool,
    content_length_seen: bool,
    http_11: bool,
    version_13: bool,
    version_seen: bool,
}

impl<'a> Request<'a> {
    /// The query's pairs, percent-decoded, `+` as a space; a key without `=` has an empty value.
    pub fn query(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        self.query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // `Target::split` has decoded it all once, so neither can fail here.
            let decode = |text| percent_decode(text, Plus::Space).unwrap_or(Cow::Borrowed(text));
            (decode(key), decode(value))
        })
    }

    /// Whether it has a body; nothing here takes one.
    pub fn has_body(&self) -> bool {
        self.content_length != 0 || self.chunked
    }

    /// Whether it means to be an upgrade, right or wrong: what follows it may be no HTTP.
    pub fn means_upgrade(&self) -> bool {
        self.wants_upgrade || self.connection_upgrade || self.key.is_some()
    }

    /// Whom the request is from, by the word of proxies that are `trusted`.
    pub fn client(&self, header: ProxyHeader, trusted: impl Fn(IpAddr) -> bool) -> Client {
        let values = match header {
            ProxyHeader::Forwarded => &self.forwarded_values,
            ProxyHeader::XForwardedFor => &self.forwarded_for_values,
        };
        forwarded::client(header, values, trusted)
    }

    /// The request as an upgrade to WebSocket (RFC 6455 section 4.2.1).
    ///
    /// # Errors
    /// What keeps it from being one.
    pub fn upgrade(&self) -> Result<Upgrade<'_>, Refusal> {
        if self.method != "GET" {
            return Err(Refusal::MethodNotAllowed);
        }
        if !self.wants_upgrade {
            return Err(Refusal::UpgradeRequired);
        }
        if !self.http_11 {
            return Err(Refusal::Http10Upgrade);
        }
        if !self.connection_upgrade {
            return Err(Refusal::ConnectionHeader);
        }
        if !self.version_13 {
            return Err(Refusal::VersionUnsupported);
        }
        let key = self.key.ok_or(Refusal::KeyMissing)?;
        if !key_is_valid(key) {
            return Err(Refusal::KeyInvalid);
        }
        if self.has_body() {
            return Err(Refusal::BodyUnexpected);
        }
        Ok(Upgrade { key, protocols: &self.protocols, extensions: &self.extensions })
    }

    /// Notes one header field; names are compared without case (RFC 9110 section 5.1).
    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Refusal> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("host") {
            once(&mut self.host, value, Refusal::HostRepeated)
        } else if is("origin") {
            once(&mut self.origin, value, Refusal::OriginRepeated)
        } else if is("sec-websocket-key") {
            once(&mut self.key, value, Refusal::KeyRepeated)
        } else if is("sec-websocket-version") {
            // Exactly one, and exactly 13.
            self.version_13 = !self.version_seen && value.trim_ascii() == b"13";
            self.version_seen = true;
            Ok(())
        } else if is("upgrade") {
            // A product may carry a version: `websocket/13` is not the RFC's token.
            self.wants_upgrade |=
                elements(text(value)?).any(|token| token.eq_ignore_ascii_case("websocket"));
            Ok(())
        } else if is("connection") {
            for token in elements(text(value)?) {
                self.connection_upgrade |= token.eq_ignore_ascii_case("upgrade");
                if token.eq_ignore_ascii_case("close") {
                    self.keep_alive = false;
                }
            }
            Ok(())
        } else if is("sec-websocket-protocol") {
            self.protocols.extend(elements(text(value)?));
            Ok(())
        } else if is("sec-websocket-extensions") {
            // Parameters may be quoted strings with commas in them (RFC 6455 section 9.1).
            let list = split_unquoted(text(value)?, b',').map(str::trim_ascii);
            self.extensions.extend(list.filter(|element| !element.is_empty()));
            Ok(())
        } else if is("content-length") {
            self.take_content_length(value)
        } else if is("last-event-id") {
            self.last_event_id = Some(value.trim_ascii()).filter(|id| !id.is_empty());
            Ok(())
        } else {
            self.chunked |= is("transfer-encoding");
            self.take_forwarding(name, value);
            Ok(())
        }
    }

    /// Notes what proxies add. A value that is no text names nobody, as `?` does.
    fn take_forwarding(&mut self, name: &str, value: &'a [u8]) {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("forwarded") {
            self.forwarded_values.push(core::str::from_utf8(value).unwrap_or("?"));
        } else if is("x-forwarded-for") {
            self.forwarded_for_values.push(core::str::from_utf8(value).unwrap_or("?"));
        } else if !is("x-real-ip") && !is("via") {
            return;
        }
        self.forwarded = true;
    }

    /// RFC 9112 section 6.3: a length that is no number, or two that differ, cannot be recovered.
    fn take_content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = text(value).map_err(|_| Refusal::ContentLengthInvalid)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Refusal::ContentLengthInvalid);
        }
        let length = digits.parse().map_err(|_| Refusal::ContentLengthInvalid)?;
        if self.content_length_seen && self.content_length != length {
            return Err(Refusal::ContentLengthInvalid);
        }
        self.content_length = length;
        self.content_length_seen = true;
        Ok(())
    }
}

/// A proper upgrade, to be answered by [`write_switching`].
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    /// `Sec-WebSocket-Key`: 16 bytes in base64.
    pub key: &'a str,
    /// The subprotocols offered, in the client's order of preference.
    pub protocols: &'a [&'a str],
    /// The extensions offered, each with its parameters, in the client's order of preference.
    pub extensions: &'a [&'a str],
}

/// The server's most preferred subprotocol of those offered (RFC 6455 section 4.2.2 item 5.5);
/// names are compared as they stand.
pub fn choose_protocol<'s>(preferred: &[&'s str], offered: &[&str]) -> Option<&'s str> {
    preferred.iter().copied().find(|name| offered.contains(name))
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2 item 5.4): 28 bytes of ASCII.
pub fn accept_key(key: &str) -> [u8; 28] {
    let mut hash = sha1::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(ACCEPT_GUID);
    let mut encoded = [0; 28];
    let length = base64::engine::general_purpose::STANDARD
        .encode_slice(hash.finalize(), &mut encoded)
        .expect("20 bytes are 28 in base64");
    debug_assert_eq!(length, encoded.len());
    encoded
}

/// What the answer 101 says.
#[derive(Clone, Copy, Debug)]
pub struct Switching<'a> {
    /// The request's `Sec-WebSocket-Key`.
    pub key: &'a str,
    /// The subprotocol chosen of those offered.
    pub protocol: Option<&'a str>,
    /// The extensions agreed upon, as `Sec-WebSocket-Extensions` says them.
    pub extensions: Option<&'a str>,
    /// More header lines, each with its line end.
    pub headers: &'a str,
}

impl<'a> Switching<'a> {
    /// Without a subprotocol or extensions.
    pub const fn new(key: &'a str) -> Self {
        Self { key, protocol: None, extensions: None, headers: "" }
    }
}

/// Appends the answer 101 (RFC 6455 section 4.2.2).
pub fn write_switching(out: &mut Vec<u8>, answer: &Switching<'_>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_key(answer.key));
    for (name, value) in [
        ("\r\nSec-WebSocket-Protocol: ", answer.protocol),
        ("\r\nSec-WebSocket-Extensions: ", answer.extensions),
    ] {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(answer.headers.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Another version of HTTP, or something else altogether: by the third word, where the version stands,
/// so that no byte behind it changes the answer.
fn version_refusal(head: &[u8]) -> Refusal {
    let line = head.trim_ascii_start().split(|&byte| byte == b'\n').next().unwrap_or(head);
    match line.split(|&byte| byte == b' ').nth(2) {
        Some(version) if version.starts_with(b"HTTP/") => Refusal::HttpVersion,
        _ => Refusal::HeadInvalid,
    }
}

/// A request's target in its parts (RFC 9112 section 3.2).
struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    fn split(target: &'a str) -> Result<Self, Refusal> {
        // A fragment is never sent, but a careless client may; it is no part of the target.
        let target = target.split_once('#').map_or(target, |(front, _)| front);
        let (authority, rest) = if target.starts_with('/') {
            (None, target)
        } else {
            // The absolute form, as sent to proxies: servers must accept it (section 3.2.2).
            let (scheme, rest) = target.split_once("://").ok_or(Refusal::TargetInvalid)?;
            if !["http", "https", "ws", "wss"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known))
            {
                return Err(Refusal::TargetInvalid);
            }
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            if authority.is_empty() {
                return Err(Refusal::TargetInvalid);
            }
            (Some(authority), rest)
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if percent_decode(query, Plus::Space).is_none() {
            return Err(Refusal::TargetInvalid);
        }
        Ok(Self { authority, path: if path.is_empty() { "/" } else { path }, query })
    }
}

/// What `+` means: itself in a path, a space in a query.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Literal,
    Space,
}

/// `None` if a `%` is not followed by two hexadecimal digits, or the result is not UTF-8.
fn percent_decode(text: &str, plus: Plus) -> Option<Cow<'_, str>> {
    let special = |byte| byte == b'%' || (byte == b'+' && plus == Plus::Space);
    if !text.bytes().any(special) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            b'+' if plus == Plus::Space => b' ',
            other => other,
        });
    }
    alloc::string::String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// 16 bytes in base64: 24 characters. Unused bits of the last digit may be set, as some clients do.
fn key_is_valid(key: &str) -> bool {
    let mut nonce = [0; 18];
    key.len() == 24 && KEY_BASE64.decode_slice(key, &mut nonce) == Ok(16)
}

/// A field's value as text; those that matter here are ASCII.
fn text(value: &[u8]) -> Result<&str, Refusal> {
    let text = core::str::from_utf8(value).map_err(|_| Refusal::HeadInvalid)?;
    Ok(text.trim_ascii())
}

/// Notes a field that may come once.
fn once<'a>(
    place: &mut Option<&'a str>,
    value: &'a [u8],
    repeated: Refusal,
) -> Result<(), Refusal> {
    if place.is_some() {
        return Err(repeated);
    }
    *place = Some(text(value)?);
    Ok(())
}

/// The elements of a comma-separated list; empty ones do not count (RFC 9110 section 5.6.1).
pub(crate) fn elements(list: &str) -> impl DoubleEndedIterator<Item = &str> {
    list.split(',').map(str::trim_ascii).filter(|element| !element.is_empty())
}

/// The parts of a text between separators that are not inside a quoted string (RFC 9110 section
/// 5.6.4); one that does not end reaches to the text's end.
pub(crate) fn split_unquoted(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character: char| {
        let here = character == char::from(separator) && !quoted;
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        here
    })
}

/// RFC 6455 section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const KEY_BASE64: base64::engine::GeneralPurpose = base64::engine::GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);
