//! HTTP answers that are no upgrade, as bytes.
//!
//! Knows: status lines, the fields every answer has, and pages with places to fill in. Must not
//! know: why an answer is given.

use alloc::vec::Vec;

/// A whole answer.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The status.
    pub status: u16,
    /// More header lines, each with its line end.
    pub headers: &'a str,
    /// What the body is.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// The connection may be used again.
    pub keep_alive: bool,
    /// The answer to a HEAD: it says the body's length, and has none (RFC 9110 section 9.3.2).
    pub head_only: bool,
}

impl Response<'_> {
    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        // RFC 9110 section 7.8: an answer with Upgrade lists it in Connection as well.
        let connection = match (self.status, self.keep_alive) {
            (426, true) => "upgrade, keep-alive",
            (426, false) => "upgrade, close",
            (_, true) => "keep-alive",
            (_, false) => "close",
        };
        let head = alloc::format!(
            "HTTP/1.1 {} {}\r\nConnection: {connection}\r\n{}Content-Type: {}\r\n\
             Content-Length: {}\r\n\r\n",
            self.status,
            reason_phrase(self.status),
            self.headers,
            self.content_type,
            self.body.len(),
        );
        out.extend_from_slice(head.as_bytes());
        if !self.head_only {
            out.extend_from_slice(self.body);
        }
    }
}

/// The body of an error's answer, in somebody else's words.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// What it is.
    pub content_type: &'a str,
    /// Its text; `{status}`, `{reason}` and `{error}` are filled in, all else stays as it is.
    pub template: &'a str,
}

impl Page<'_> {
    /// The text with its places filled in. What is filled in is the server's own; nothing of the
    /// request gets in.
    pub(crate) fn fill(&self, status: u16, error: &str) -> Vec<u8> {
        let status_text = itoa::Buffer::new().format(status).as_bytes().to_vec();
        let places = [
            ("{status}", &*status_text),
            ("{reason}", reason_phrase(status).as_bytes()),
            ("{error}", error.as_bytes()),
        ];
        let mut filled = Vec::with_capacity(self.template.len() + error.len());
        let mut rest = self.template;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            filled.extend_from_slice(before.as_bytes());
            let place = places.iter().find(|(name, _)| from.starts_with(name));
            let (text, taken) = place.map_or((&b"{"[..], 1), |&(name, text)| (text, name.len()));
            filled.extend_from_slice(text);
            rest = &from[taken..];
        }
        filled.extend_from_slice(rest.as_bytes());
        filled
    }
}

/// The phrase of a status (RFC 9110 section 15, RFC 6585 sections 4 and 5); empty, which is legal,
/// for those not used here.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    #[test]
    fn a_plain_answer_and_its_head() {
        let answer = Response {
            status: 200,
            headers: "X-A: b\r\n",
            content_type: "text/plain",
            body: b"ok\n",
            keep_alive: true,
            head_only: false,
        };
        let head = "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nX-A: b\r\n\
                    Content-Type: text/plain\r\nContent-Length: 3\r\n\r\n";
        let mut out = Vec::new();
        answer.write(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), std::format!("{head}ok\n"));
        out.clear();
        Response { head_only: true, ..answer }.write(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), head);
    }

    #[test]
    fn a_page_is_filled_in_and_its_other_braces_stay() {
        let page = |template| {
            let filled = Page { content_type: "", template }.fill(404, "gone {status}");
            String::from_utf8(filled).expect("text")
        };
        assert_eq!(page("{\"code\":{status},\"{reason}\"}"), "{\"code\":404,\"Not Found\"}");
        assert_eq!(page("{error}{status"), "gone {status}{status");
        assert_eq!(page("{{status}}"), "{404}");
        assert_eq!(page("ü{"), "ü{");
        assert_eq!(page(""), "");
    }
}
