//! Who a request is from, by the word of the proxies it came through.
//!
//! Knows: `X-Forwarded-For` and `Forwarded` (RFC 7239). Must not know: which proxies may be
//! believed (the caller says), or what an address is used for.
//!
//! Each proxy adds at the right whom it got the request from. So the list is read from the right, for
//! as long as who added the next entry can be believed; all that stands left of it may be made up.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::handshake;

/// Which header field the trusted proxies write. Only one can be believed: a proxy passes on the
/// other as the client sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Forwarded-For`: addresses, separated by commas.
    #[default]
    XForwardedFor,
}

/// Who a request is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// From here; port 0 where it is not said.
    Address(SocketAddr),
    /// A trusted proxy hides it, or says something that is no address. This is the last trusted
    /// proxy before that, if it is not the one that is connected.
    Hidden(Option<SocketAddr>),
    /// There is no such field.
    Unnamed,
}

/// Follows the field's values (in the order they came in) back to the first address that is not
/// `trusted`, or to the first of all. At most [`HOPS_MAX`] proxies are followed.
pub fn client(header: ProxyHeader, values: &[&str], trusted: impl Fn(IpAddr) -> bool) -> Client {
    let mut nearest = None;
    let mut hops = 0;
    for value in values.iter().rev() {
        let found = match header {
            ProxyHeader::Forwarded => follow_forwarded(value, &trusted, &mut nearest, &mut hops),
            ProxyHeader::XForwardedFor => {
                let entries = handshake::elements(value).rev().map(Some);
                follow(entries, &trusted, &mut nearest, &mut hops)
            }
        };
        if let Some(found) = found {
            return found;
        }
    }
    nearest.map_or(Client::Unnamed, Client::Address)
}

/// `None`: all of these are trusted.
fn follow<'a>(
    entries: impl Iterator<Item = Option<&'a str>>,
    trusted: &impl Fn(IpAddr) -> bool,
    nearest: &mut Option<SocketAddr>,
    hops: &mut usize,
) -> Option<Client> {
    for entry in entries {
        *hops += 1;
        let Some(address) = entry.and_then(node).filter(|_| *hops <= HOPS_MAX) else {
            return Some(Client::Hidden(*nearest));
        };
        if !trusted(address.ip()) {
            return Some(Client::Address(address));
        }
        *nearest = Some(address);
    }
    None
}

fn follow_forwarded(
    value: &str,
    trusted: &impl Fn(IpAddr) -> bool,
    nearest: &mut Option<SocketAddr>,
    hops: &mut usize,
) -> Option<Client> {
    // One wrong byte and none of it can be believed: a client may begin a quoted string in which
    // the proxies' own words would disappear.
    let Some(entries) = forwarded_elements(value) else { return Some(Client::Hidden(*nearest)) };
    follow(entries.into_iter().rev(), trusted, nearest, hops)
}

/// The `for` of each element (RFC 7239 section 4), unquoted; `None` for the whole if the grammar is
/// broken anywhere, and for an element without one.
fn forwarded_elements(value: &str) -> Option<Vec<Option<&str>>> {
    let mut elements = Vec::new();
    let mut rest = value;
    loop {
        let mut from = None;
        let mut pairs = 0;
        loop {
            rest = rest.trim_start_matches(BLANK);
            // Empty elements and pairs do not count (RFC 9110 section 5.6.1).
            if !rest.starts_with([',', ';']) && !rest.is_empty() {
                let (name, after) = rest.split_once('=')?;
                let (given, after) = pair_value(after)?;
                if !is_token(name) {
                    return None;
                }
                if name.eq_ignore_ascii_case("for") {
                    // Section 4: "Each parameter MUST NOT occur more than once per field-value."
                    if from.replace(given).is_some() {
                        return None;
                    }
                }
                pairs += 1;
                rest = after.trim_start_matches(BLANK);
            }
            match rest.strip_prefix(';') {
                Some(after) => rest = after,
                None => break,
            }
        }
        if pairs > 0 {
            elements.push(from);
        }
        if rest.is_empty() {
            return Some(elements);
        }
        rest = rest.strip_prefix(',')?;
    }
}

/// A token or a quoted string, and what stands behind it. A string with an escape in it is no
/// address, and is given with its backslash.
fn pair_value(text: &str) -> Option<(&str, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !is_token_char(c)).unwrap_or(text.len());
        return (end > 0).then(|| text.split_at(end));
    };
    let mut escaped = false;
    for (at, byte) in quoted.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&quoted[..at], &quoted[at + 1..])),
            _ => {}
        }
    }
    None
}

/// An address with or without a port, as people write it; canonical. `None` for `unknown`, for
/// names made up to hide one (`_x`), and for all else.
fn node(text: &str) -> Option<SocketAddr> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match port.strip_prefix(':') {
            Some(port) => port_of(port)?,
            None if port.is_empty() => 0,
            None => return None,
        };
        return Some(SocketAddr::new(IpAddr::V6(address).to_canonical(), port));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address.to_canonical(), 0));
    }
    let (address, port) = text.split_once(':')?;
    let address: Ipv4Addr = address.parse().ok()?;
    Some(SocketAddr::new(IpAddr::V4(address), port_of(port)?))
}

/// A port, 0 for one that is hidden (RFC 7239 section 6: `_` and a name).
fn port_of(text: &str) -> Option<u16> {
    if text.starts_with('_') {
        return is_token(text).then_some(0);
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// RFC 9110 section 5.6.2.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_char)
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// More proxies than that are not followed: nobody has so many.
pub const HOPS_MAX: usize = 32;

/// Optional white space (RFC 9110 section 5.6.3).
const BLANK: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        for (text, wanted) in [
            ("192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("192.0.2.1:_x", "192.0.2.1:0"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("::ffff:192.0.2.1", "192.0.2.1:0"),
        ] {
            assert_eq!(node(text), wanted.parse().ok(), "{text}");
        }
        for text in [
            "",
            "unknown",
            "_hidden",
            "a.example",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:99999",
            "192.0.2.1:+1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[192.0.2.1]",
            "::1:x",
            "192.0.2.01",
        ] {
            assert_eq!(node(text), None, "{text}");
        }
    }

    #[test]
    fn elements_by_the_grammar() {
        let elements = |value| forwarded_elements(value);
        assert_eq!(
            elements("for=192.0.2.43, for=\"[2001:db8:cafe::17]:4711\";proto=http"),
            Some(alloc::vec![Some("192.0.2.43"), Some("[2001:db8:cafe::17]:4711")])
        );
        assert_eq!(elements("By=x; FOR=a ,,;,proto=https"), Some(alloc::vec![Some("a"), None]));
        assert_eq!(elements("for=\"a\\\"b\""), Some(alloc::vec![Some("a\\\"b")]));
        assert_eq!(elements(""), Some(Vec::new()));
        for broken in [
            "for",
            "for=",
            "=a",
            "for=a b=c",
            "for=\"a",
            "for=\"a\"b",
            "for=[::1]",
            "a b=c",
            "for=a;for=b",
            "for=a/for=b",
            "for=\"x, for=192.0.2.1",
        ] {
            assert_eq!(elements(broken), None, "{broken}");
        }
    }
}
