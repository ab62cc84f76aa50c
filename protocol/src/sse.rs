//! Server-Sent Events as bytes (WHATWG HTML section 9.2).
//!
//! Knows: fields, events, comments, the answer that a stream begins with, and how a cursor stands in
//! an event's id. Must not know: what the events say, or what a cursor means.
//!
//! A field's value ends at a line feed or carriage return, so those in data become spaces: in JSON
//! they stand between tokens only. An event without an id leaves the client's last one as it was.

use alloc::vec::Vec;

use crate::json::write_number;

/// `id: `, 16 hexadecimal digits, line feed.
pub const ID_LINE_BYTES: usize = 4 + 16 + 1;
/// Begins an event's data.
pub const DATA: &[u8] = b"data: ";
/// Ends an event.
pub const END: &[u8] = b"\n\n";
/// A client that lost its connection comes back after so long, ms, unless it was told otherwise.
pub const RETRY_MS: u32 = 2_000;

/// The line that gives an event this cursor as its id.
#[inline]
pub fn id_line(cursor: u64) -> [u8; ID_LINE_BYTES] {
    let mut line = *b"id: 0000000000000000\n";
    for (place, digit) in line[4..20].iter_mut().enumerate() {
        let nibble = (cursor >> (60 - 4 * place)) & 0xF;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    line
}

/// The cursor of an id that came back: 1 to 16 hexadecimal digits.
pub fn parse_id(id: &[u8]) -> Option<u64> {
    if id.is_empty() || id.len() > 16 {
        return None;
    }
    id.iter().try_fold(0, |cursor, &digit| {
        Some(cursor << 4 | u64::from(char::from(digit).to_digit(16)?))
    })
}

/// Copies data into `out`, which is as long.
#[inline]
pub fn copy_data(out: &mut [u8], data: &[u8]) {
    for (to, &byte) in out.iter_mut().zip(data) {
        *to = if byte == b'\n' || byte == b'\r' { b' ' } else { byte };
    }
}

/// Appends an event; without a type it is a `message`.
pub fn write_event(out: &mut Vec<u8>, event: Option<&str>, cursor: Option<u64>, data: &[u8]) {
    if let Some(event) = event {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(event.as_bytes());
        out.push(b'\n');
    }
    if let Some(cursor) = cursor {
        out.extend_from_slice(&id_line(cursor));
    }
    out.extend_from_slice(DATA);
    let start = out.len();
    out.resize(start + data.len(), 0);
    copy_data(&mut out[start..], data);
    out.extend_from_slice(END);
}

/// Appends a comment, which tells a client nothing but keeps proxies from giving up; with a cursor,
/// the client's last id changes as well, without an event.
pub fn write_ping(out: &mut Vec<u8>, cursor: Option<u64>) {
    out.extend_from_slice(b": ping\n");
    if let Some(cursor) = cursor {
        out.extend_from_slice(&id_line(cursor));
    }
    out.push(b'\n');
}

/// Tells a client to come back after so long, should it lose its connection.
pub fn write_retry(out: &mut Vec<u8>, retry_ms: u64) {
    out.extend_from_slice(b"retry: ");
    write_number(out, retry_ms);
    out.push(b'\n');
}

/// Appends the answer that a stream begins with; its body ends with the connection. `headers` are
/// more header lines, each with its line end; `origin` is the page's, if it may read the stream.
pub fn write_head(out: &mut Vec<u8>, headers: &str, origin: Option<&str>) {
    let allow = ["Access-Control-Allow-Origin: ", "\r\n"];
    let [before, after] = if origin.is_some() { allow } else { [""; 2] };
    let head = alloc::format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\n{headers}Content-Type: text/event-stream\r\n\
         Cache-Control: no-store\r\nX-Accel-Buffering: no\r\nVary: Origin\r\n\
         {before}{}{after}\r\nretry: {RETRY_MS}\n\n",
        origin.unwrap_or(""),
    );
    out.extend_from_slice(head.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    #[test]
    fn an_id_goes_there_and_back() {
        for cursor in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            let line = id_line(cursor);
            assert_eq!(line.len(), ID_LINE_BYTES);
            assert_eq!(parse_id(&line[4..20]), Some(cursor));
        }
        assert_eq!(&id_line(0x00ab), b"id: 00000000000000ab\n");
        assert_eq!(parse_id(b"Ab"), Some(0xAB));
        for id in [&b""[..], b"0x1", b"-1", b"1 ", b"g", b"00000000000000000", b"\xFF"] {
            assert_eq!(parse_id(id), None, "{id:?}");
        }
    }

    #[test]
    fn events_end_where_they_should() {
        let mut out = Vec::new();
        write_event(&mut out, Some("gap"), Some(1), b"{\n\"a\":\r\n1}");
        write_event(&mut out, None, None, b"");
        write_ping(&mut out, None);
        write_ping(&mut out, Some(2));
        assert_eq!(
            String::from_utf8_lossy(&out),
            "event: gap\nid: 0000000000000001\ndata: { \"a\":  1}\n\ndata: \n\n: ping\n\n\
             : ping\nid: 0000000000000002\n\n"
        );
    }

    #[test]
    fn a_stream_s_head_is_http() {
        for origin in [None, Some("https://a.example")] {
            let mut out = Vec::new();
            write_head(&mut out, "X-A: b\r\n", origin);
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut response = httparse::Response::new(&mut headers);
            let head = response.parse(&out).expect("HTTP").unwrap();
            assert_eq!(response.code, Some(200));
            let value = |name: &str| {
                let found = response.headers.iter().find(|header| header.name == name);
                found.map(|header| String::from_utf8_lossy(header.value).into_owned())
            };
            assert_eq!(value("Content-Type").as_deref(), Some("text/event-stream"));
            assert_eq!(value("Access-Control-Allow-Origin").as_deref(), origin);
            assert_eq!(value("X-A").as_deref(), Some("b"));
            assert_eq!(&out[head..], b"retry: 2000\n\n");
        }
    }
}
