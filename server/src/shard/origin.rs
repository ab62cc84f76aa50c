//! Which `Origin` a browser may come from.
//!
//! Knows: hosts in headers. Must not know: connections.

/// Whether a page of `origin` may connect to `host`, with these hosts allowed besides: exact names,
/// `*.example.com` for everything below, `*` for all. Ports and schemes are ignored; names of the
/// loopback are one.
pub(super) fn is_allowed(origin: &str, host: Option<&str>, allowed: &[String]) -> bool {
    if allowed.iter().any(|pattern| pattern == "*") {
        return true;
    }
    // `null` and anything else without a scheme is no host's page.
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let page = host_of(authority);
    if page.is_empty() {
        return false;
    }
    if host.is_some_and(|host| same(page, host_of(host))) {
        return true;
    }
    allowed.iter().any(|pattern| match pattern.strip_prefix("*.") {
        Some(parent) => page.len().checked_sub(parent.len() + 1).is_some_and(|dot| {
            page.as_bytes()[dot] == b'.' && page[dot + 1..].eq_ignore_ascii_case(parent)
        }),
        None => same(page, pattern),
    })
}

fn host_of(authority: &str) -> &str {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if authority.starts_with('[') {
        return authority.split_inclusive(']').next().unwrap_or(authority);
    }
    authority.split(':').next().unwrap_or(authority)
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || (is_loopback(one) && is_loopback(other))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn same_host_whatever_the_port() {
        assert!(is_allowed("http://a.example:8080", Some("A.example:9001"), &[]));
        assert!(is_allowed("https://[2001:db8::1]", Some("[2001:db8::1]:9001"), &[]));
        assert!(is_allowed("http://localhost:9002", Some("127.0.0.1:9001"), &[]));
        assert!(!is_allowed("http://b.example", Some("a.example"), &[]));
        assert!(!is_allowed("null", Some("a.example"), &[]));
        assert!(!is_allowed("http://", Some(""), &[]));
        assert!(!is_allowed("http://b.example", None, &[]));
    }

    #[test]
    fn others_by_name_or_below_a_name() {
        let allowed = ["b.example".to_owned(), "*.c.example".to_owned()];
        assert!(is_allowed("https://B.example", Some("a"), &allowed));
        assert!(is_allowed("https://x.y.c.example", Some("a"), &allowed));
        assert!(!is_allowed("https://c.example", Some("a"), &allowed));
        assert!(!is_allowed("https://xc.example", Some("a"), &allowed));
        assert!(is_allowed("null", None, &["*".to_owned()]));
    }
}
