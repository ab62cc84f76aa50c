//! Which `Origin` a browser may come from.
//!
//! Knows: hosts in headers. Must not know: connections.

use std::net::{IpAddr, Ipv6Addr};

/// Whether a page of `origin` may connect to `host`, with these allowed besides: names,
/// `*.example.com` for everything below, either of them after a scheme and with a port, or `*` for
/// all; in lower case. Where no scheme is said, schemes and ports are ignored, as they are of `host`.
/// Names and addresses of the loopback are one.
pub(super) fn is_allowed(origin: &str, host: Option<&str>, allowed: &[String]) -> bool {
    if allowed.iter().any(|pattern| pattern == "*") {
        return true;
    }
    // `null` and anything else without a scheme is no host's page.
    let Some(page) = Page::read(origin) else { return false };
    if host.is_some_and(|host| same(page.host, host_of(host).0)) {
        return true;
    }
    allowed.iter().any(|pattern| match Page::read(pattern) {
        Some(only) => {
            page.scheme.eq_ignore_ascii_case(only.scheme)
                && page.port() == only.port()
                && matches(page.host, only.host)
        }
        None => matches(page.host, host_of(pattern).0),
    })
}

/// Where a page is from (RFC 6454 section 4).
struct Page<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
}

impl<'a> Page<'a> {
    fn read(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let (host, port) = host_of(authority);
        (!host.is_empty()).then_some(Self { scheme, host, port })
    }

    fn port(&self) -> Option<&str> {
        let default = || match &*self.scheme.to_ascii_lowercase() {
            "http" | "ws" => Some("80"),
            "https" | "wss" => Some("443"),
            _ => None,
        };
        self.port.or_else(default)
    }
}

/// The host of an authority, without its brackets' port and without the root's dot; and the port.
fn host_of(authority: &str) -> (&str, Option<&str>) {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let end = match authority.find(']') {
        Some(bracket) if authority.starts_with('[') => bracket + 1,
        _ => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    (host.strip_suffix('.').unwrap_or(host), rest.strip_prefix(':').filter(|port| !port.is_empty()))
}

/// A host against a name, or against `*.` and a domain.
fn matches(host: &str, pattern: &str) -> bool {
    let Some(parent) = pattern.strip_prefix("*.") else { return same(host, pattern) };
    // Bytes: an Origin need not be ASCII, and then a cut may fall into a letter.
    let (host, parent) = (host.as_bytes(), parent.as_bytes());
    host.len().checked_sub(parent.len() + 1).is_some_and(|dot| {
        dot > 0 && host[dot] == b'.' && host[dot + 1..].eq_ignore_ascii_case(parent)
    })
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
        || (is_loopback(one) && is_loopback(other))
        || address(one).is_some_and(|address_| address(other) == Some(address_))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|ip| ip.is_loopback())
}

/// A host that is an address, of which IPv6 has many spellings.
fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(bracketed) => {
            bracketed.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical())
        }
        None => host.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn same_host_whatever_the_port() {
        for (page, host) in [
            ("http://a.example:8080", "A.example:9001"),
            ("https://a.example.", "a.example"),
            ("https://a.example", "a.example.:9001"),
            ("https://[2001:db8::1]", "[2001:db8::1]:9001"),
            ("https://[2001:DB8:0::1]:80", "[2001:db8::1]"),
            ("http://localhost:9002", "127.0.0.1:9001"),
            ("http://127.0.0.1", "127.0.0.53:9001"),
            ("http://[::1]:9002", "LOCALHOST"),
            ("http://[::ffff:127.0.0.1]", "localhost"),
        ] {
            assert!(is_allowed(page, Some(host), &[]), "{page} {host}");
        }
        for (page, host) in [
            ("http://b.example", Some("a.example")),
            ("http://a.example..", Some("a.example")),
            ("null", Some("a.example")),
            ("null", Some("null")),
            ("http://", Some("")),
            ("http://.", Some(".")),
            ("http://b.example", None),
            ("http://127.0.0.1.evil.example", Some("127.0.0.1")),
            ("http://localhost.evil.example", Some("localhost")),
            ("http://127.0.0.1@evil.example", Some("127.0.0.1")),
            ("http://128.0.0.1", Some("127.0.0.1")),
            ("http://[::1", Some("localhost")),
            ("http://[::1].evil.example", Some("evil.example")),
        ] {
            assert!(!is_allowed(page, host, &[]), "{page} {host:?}");
        }
    }

    #[test]
    fn others_by_name_or_below_a_name() {
        let allowed = ["b.example".to_owned(), "*.c.example".to_owned(), "[::2]".to_owned()];
        for page in [
            "https://B.example",
            "https://b.example.:1",
            "https://x.y.c.example",
            "http://[0::2]:80",
        ] {
            assert!(is_allowed(page, Some("a"), &allowed), "{page}");
        }
        for page in [
            "https://c.example",
            "https://.c.example",
            "https://xc.example",
            "https://c.example.d",
            "https://éc.example",
            "https://ü.d",
            "b.example",
            "null",
        ] {
            assert!(!is_allowed(page, Some("a"), &allowed), "{page}");
        }
        assert!(is_allowed("null", None, &["*".to_owned()]));
    }

    #[test]
    fn others_with_their_scheme_and_port() {
        let allowed = ["https://a.example", "http://*.b.example:8080", "https://[::2]"];
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        for (page, allows) in [
            ("https://a.example", true),
            ("HTTPS://A.example:443", true),
            ("https://a.example:8443", false),
            ("http://a.example", false),
            ("http://x.b.example:8080", true),
            ("http://x.b.example", false),
            ("https://[0:0::2]", true),
        ] {
            assert_eq!(is_allowed(page, None, &allowed), allows, "{page}");
        }
    }
}
