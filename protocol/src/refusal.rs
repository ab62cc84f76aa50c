//! Why a handshake is refused, and the HTTP answer that says so.
//!
//! Knows: statuses and the text of answers. Must not know: sockets, which paths exist, how a
//! request was read.

use alloc::vec::Vec;

use crate::response::{Page, Response, reason_phrase};

/// Why the upgrade (or the plain request) is refused: one variant per offence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// As many connections as one address may have.
    #[error("too many connections from this address")]
    AddressFull,
    /// A body with an upgrade: its end and the first frame could be taken for each other.
    #[error("an upgrade has no body")]
    BodyUnexpected,
    /// `Upgrade` without `Connection: upgrade` (RFC 6455 section 4.2.1).
    #[error("Connection: upgrade is missing")]
    ConnectionHeader,
    /// As many connections as are allowed.
    #[error("too many connections")]
    ConnectionsFull,
    /// `Content-Length` not a number, or two different ones.
    #[error("Content-Length is not a number")]
    ContentLengthInvalid,
    /// The server is going down.
    #[error("the server is shutting down")]
    Draining,
    /// Not allowed to this client.
    #[error("not allowed")]
    Forbidden,
    /// Not HTTP.
    #[error("the request is not HTTP")]
    HeadInvalid,
    /// More than 16 KiB of head.
    #[error("the request's head is larger than 16 KiB")]
    HeadTooLarge,
    /// More than 64 header fields.
    #[error("the request has more than 64 header fields")]
    HeadersTooMany,
    /// HTTP/1.1 without `Host` (RFC 9112 section 3.2).
    #[error("Host is missing")]
    HostMissing,
    /// Two `Host` fields (RFC 9112 section 3.2).
    #[error("Host is repeated")]
    HostRepeated,
    /// An upgrade from HTTP/1.0 (RFC 6455 section 4.2.1: "HTTP/1.1 or higher").
    #[error("an upgrade needs HTTP/1.1")]
    Http10Upgrade,
    /// A version of HTTP that is not 1.0 or 1.1.
    #[error("the HTTP version is not supported")]
    HttpVersion,
    /// `Sec-WebSocket-Key` is not 16 bytes of base64 (RFC 6455 section 4.2.1).
    #[error("Sec-WebSocket-Key is not 16 bytes of base64")]
    KeyInvalid,
    /// No `Sec-WebSocket-Key`.
    #[error("Sec-WebSocket-Key is missing")]
    KeyMissing,
    /// Two `Sec-WebSocket-Key` fields (RFC 6455 section 11.3.1).
    #[error("Sec-WebSocket-Key is repeated")]
    KeyRepeated,
    /// Another method than GET.
    #[error("the method is not allowed")]
    MethodNotAllowed,
    /// Nothing is at this path.
    #[error("not found")]
    NotFound,
    /// The `Origin` is not allowed here.
    #[error("the origin is not allowed")]
    OriginForbidden,
    /// Two `Origin` fields (RFC 6454 section 7.3).
    #[error("Origin is repeated")]
    OriginRepeated,
    /// What a proxy says before the first byte is not a PROXY line as it should be.
    #[error("the PROXY line is not valid")]
    ProxyLineInvalid,
    /// A proxy that must say a PROXY line has said none.
    #[error("a PROXY line is missing")]
    ProxyLineMissing,
    /// A PROXY line from who is no trusted proxy, or where none is expected.
    #[error("a PROXY line is not taken from here")]
    ProxyLineUntrusted,
    /// A parameter of the query has a value that means nothing here.
    #[error("a query parameter is not valid")]
    QueryInvalid,
    /// The request's target is not a path, or its percent-encoding is wrong.
    #[error("the request's target is not valid")]
    TargetInvalid,
    /// The head did not come in time.
    #[error("the request took too long")]
    Timeout,
    /// The topic in the path or query is not a topic.
    #[error("the topic is not valid")]
    TopicInvalid,
    /// A plain request where only WebSocket is spoken.
    #[error("this path speaks WebSocket only")]
    UpgradeRequired,
    /// A `Sec-WebSocket-Version` other than 13, or none (RFC 6455 section 4.4).
    #[error("Sec-WebSocket-Version must be 13")]
    VersionUnsupported,
}

impl Refusal {
    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::BodyUnexpected
            | Self::ConnectionHeader
            | Self::ContentLengthInvalid
            | Self::HeadInvalid
            | Self::HostMissing
            | Self::HostRepeated
            | Self::Http10Upgrade
            | Self::KeyInvalid
            | Self::KeyMissing
            | Self::KeyRepeated
            | Self::OriginRepeated
            | Self::ProxyLineInvalid
            | Self::ProxyLineMissing
            | Self::ProxyLineUntrusted
            | Self::QueryInvalid
            | Self::TargetInvalid
            | Self::TopicInvalid => 400,
            Self::Forbidden | Self::OriginForbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::UpgradeRequired | Self::VersionUnsupported => 426,
            // RFC 6585 section 4. Not 503, which would tell a proxy that the whole server is busy.
            Self::AddressFull => 429,
            Self::HeadTooLarge | Self::HeadersTooMany => 431,
            Self::ConnectionsFull | Self::Draining => 503,
            Self::HttpVersion => 505,
        }
    }

    /// The status line's reason phrase.
    pub const fn reason(&self) -> &'static str {
        reason_phrase(self.status())
    }

    /// A short name for logs and metrics, in snake case.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::AddressFull => "address_full",
            Self::BodyUnexpected => "body_unexpected",
            Self::ConnectionHeader => "connection_header",
            Self::ConnectionsFull => "connections_full",
            Self::ContentLengthInvalid => "content_length_invalid",
            Self::Draining => "draining",
            Self::Forbidden => "forbidden",
            Self::HeadInvalid => "head_invalid",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadersTooMany => "headers_too_many",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::Http10Upgrade => "http10_upgrade",
            Self::HttpVersion => "http_version",
            Self::KeyInvalid => "key_invalid",
            Self::KeyMissing => "key_missing",
            Self::KeyRepeated => "key_repeated",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound => "not_found",
            Self::OriginForbidden => "origin_forbidden",
            Self::OriginRepeated => "origin_repeated",
            Self::ProxyLineInvalid => "proxy_line_invalid",
            Self::ProxyLineMissing => "proxy_line_missing",
            Self::ProxyLineUntrusted => "proxy_line_untrusted",
            Self::QueryInvalid => "query_invalid",
            Self::TargetInvalid => "target_invalid",
            Self::Timeout => "timeout",
            Self::TopicInvalid => "topic_invalid",
            Self::UpgradeRequired => "upgrade_required",
            Self::VersionUnsupported => "version_unsupported",
        }
    }

    /// Every variant, in the order of [`Refusal::index`]: for tables of counters.
    pub const ALL: [Self; 30] = [
        Self::AddressFull,
        Self::BodyUnexpected,
        Self::ConnectionHeader,
        Self::ConnectionsFull,
        Self::ContentLengthInvalid,
        Self::Draining,
        Self::Forbidden,
        Self::HeadInvalid,
        Self::HeadTooLarge,
        Self::HeadersTooMany,
        Self::HostMissing,
        Self::HostRepeated,
        Self::Http10Upgrade,
        Self::HttpVersion,
        Self::KeyInvalid,
        Self::KeyMissing,
        Self::KeyRepeated,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::OriginForbidden,
        Self::OriginRepeated,
        Self::ProxyLineInvalid,
        Self::ProxyLineMissing,
        Self::ProxyLineUntrusted,
        Self::QueryInvalid,
        Self::TargetInvalid,
        Self::Timeout,
        Self::TopicInvalid,
        Self::UpgradeRequired,
        Self::VersionUnsupported,
    ];

    /// Its place in [`Refusal::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Header lines that the status demands, each with its line end.
    const fn extra_headers(&self) -> &'static str {
        match self {
            // RFC 9110 section 15.5.6.
            Self::MethodNotAllowed => "Allow: GET\r\n",
            // RFC 9110 section 15.5.22 and RFC 6455 section 4.4.
            Self::UpgradeRequired | Self::VersionUnsupported => {
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            }
            // A second: long enough to matter, short enough for a client to wait.
            Self::AddressFull | Self::ConnectionsFull | Self::Draining => "Retry-After: 1\r\n",
            _ => "",
        }
    }

    /// Appends the whole answer in its own words; the connection closes behind it.
    pub fn respond(&self, out: &mut Vec<u8>) {
        self.respond_as(out, &Manner::default());
    }

    /// Appends the whole answer.
    pub fn respond_as(&self, out: &mut Vec<u8>, manner: &Manner<'_>) {
        let error = alloc::format!("{self}\n");
        let filled = manner.page.map(|page| page.fill(self.status(), error.trim_end()));
        let headers = alloc::format!("{}{}", self.extra_headers(), manner.headers);
        let answer = Response {
            status: self.status(),
            headers: &headers,
            content_type: manner.page.map_or("text/plain; charset=utf-8", |page| page.content_type),
            body: filled.as_deref().unwrap_or(error.as_bytes()),
            keep_alive: manner.keep_alive,
            head_only: manner.head_only,
        };
        answer.write(out);
    }
}

/// How a refusal is put.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner<'a> {
    /// More header lines, each with its line end.
    pub headers: &'a str,
    /// The body in other words than the refusal's own.
    pub page: Option<Page<'a>>,
    /// The connection may be used again.
    pub keep_alive: bool,
    /// The answer to a HEAD: no body.
    pub head_only: bool,
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    #[test]
    fn every_refusal_is_a_whole_http_answer() {
        for refusal in Refusal::ALL {
            let mut out = Vec::new();
            refusal.respond(&mut out);
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut response = httparse::Response::new(&mut headers);
            let head = response.parse(&out).expect("HTTP").unwrap();
            assert_eq!(response.code, Some(refusal.status()));
            assert_eq!(response.reason, Some(refusal.reason()));
            assert!(!refusal.reason().is_empty());
            let length = response
                .headers
                .iter()
                .find(|header| header.name == "Content-Length")
                .map(|header| String::from_utf8_lossy(header.value).into_owned());
            assert_eq!(length, Some(std::format!("{}", out.len() - head)));
            let has = |name: &str| response.headers.iter().any(|header| header.name == name);
            assert_eq!(has("Allow"), refusal.status() == 405);
            assert_eq!(has("Sec-WebSocket-Version"), refusal.status() == 426);
        }
    }

    #[test]
    fn all_is_complete_and_in_order() {
        for (index, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(refusal.index(), index, "{refusal:?}");
        }
        assert_eq!(Refusal::VersionUnsupported.index() + 1, Refusal::ALL.len());
    }

    #[test]
    fn in_other_words() {
        let manner = Manner {
            headers: "Server: x\r\n",
            page: Some(Page { content_type: "application/json", template: "{\"e\":\"{error}\"}" }),
            keep_alive: true,
            head_only: false,
        };
        let mut out = Vec::new();
        Refusal::UpgradeRequired.respond_as(&mut out, &manner);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade, keep-alive\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nServer: x\r\n\
             Content-Type: application/json\r\nContent-Length: 39\r\n\r\n\
             {\"e\":\"this path speaks WebSocket only\"}"
        );
    }
}
