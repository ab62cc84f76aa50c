//! Who may ask: the admin port has no passwords, so web pages must not reach it by a trick.
//!
//! Knows: Host and Origin. Must not know: what is asked for.
//!
//! A page of an attacker can have a name of its own point to 127.0.0.1 (DNS rebinding): its requests
//! carry that name in Host. And any page can send a POST to an address it may not read from (CSRF):
//! such a request carries the page's Origin.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, header};

use super::error::ApiError;

/// Lets a request through or says why not.
pub(super) fn check(
    method: &Method,
    headers: &HeaderMap,
    hosts: &[String],
) -> Result<(), ApiError> {
    let host = text(headers, header::HOST)
        .ok_or_else(|| ApiError::bad_request("one Host header is wanted"))?;
    if !is_ours(host, hosts) {
        return Err(ApiError::forbidden(
            "the Host is neither an IP address nor localhost; --admin-host allows another",
        ));
    }
    let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && headers.contains_key(header::ORIGIN) {
        let origin = text(headers, header::ORIGIN).and_then(|origin| origin.split_once("://"));
        if !origin.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)) {
            return Err(ApiError::forbidden("a page of another origin may not change anything"));
        }
    }
    Ok(())
}

/// A header that stands there once, as text.
fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(first)
}

fn is_ours(authority: &str, hosts: &[String]) -> bool {
    let Some(host) = without_port(authority) else { return false };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|allowed| match allowed.strip_prefix('*') {
            Some(domain) => {
                let end = host.len().checked_sub(domain.len()).and_then(|at| host.get(at..));
                end.is_some_and(|end| end.eq_ignore_ascii_case(domain))
            }
            None => host.eq_ignore_ascii_case(allowed),
        })
}

/// `name`, `name:80`, `[::1]`, `[::1]:80`.
fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "0"),
    };
    let good = !host.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    good.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(method: Method, all: &[(header::HeaderName, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(name, value.parse().expect("a header's value"));
        }
        check(&method, &headers, &["push.example.com".into(), "*.example.org".into()]).is_ok()
    }

    #[test]
    fn names_that_anyone_can_point_here_are_refused() {
        for good in [
            "127.0.0.1:9002",
            "127.0.0.1",
            "[::1]:9002",
            "[::1]",
            "localhost:9002",
            "LOCALHOST",
            "push.example.com:80",
            "a.example.org",
        ] {
            assert!(allowed(Method::GET, &[(header::HOST, good)]), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "example.org",
            "xexample.org",
            "127.0.0.1.evil.example",
            "",
            ":80",
            "localhost:x",
        ] {
            assert!(!allowed(Method::GET, &[(header::HOST, bad)]), "{bad}");
        }
        assert!(!allowed(Method::GET, &[]));
        assert!(!allowed(Method::GET, &[(header::HOST, "::1"), (header::HOST, "localhost")]));
    }

    #[test]
    fn pages_of_other_origins_may_read_nothing_and_change_nothing() {
        let host = (header::HOST, "localhost:9002");
        let with = |method, origin| allowed(method, &[host.clone(), (header::ORIGIN, origin)]);
        assert!(with(Method::POST, "http://localhost:9002"));
        for origin in ["http://localhost:3000", "http://evil.example", "null", ""] {
            assert!(!with(Method::POST, origin), "{origin}");
            assert!(!with(Method::DELETE, origin), "{origin}");
        }
        assert!(allowed(Method::POST, &[host]));
    }
}
