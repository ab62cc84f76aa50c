//! What proxies say of a client: PROXY lines at every cut and against a plain reader; forwarding
//! headers against a plain reader, and whatever a client makes up, the last proxy's word stands.
//!
//! Knows: both grammars, written down a second time. Must not know: what an address is used for.
//!
//! Input: a byte; where it is even, the beginning of a connection, else `X-Forwarded-For` (its second
//! bit unset) or `Forwarded`, a line feed between a field's values. 10.0.0.0/8 is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use uringcast_protocol::{
    forwarded::{Client, HOPS_MAX, ProxyHeader, client},
    proxy_line::{ProxyLine, V1_BYTES_MAX, V2_BYTES_MAX, is_begun, parse},
};

/// A line, or one of the two headers.
pub fn check(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    if kind & 1 == 0 {
        return line(rest);
    }
    let header = if kind & 2 == 0 { ProxyHeader::XForwardedFor } else { ProxyHeader::Forwarded };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    // A head with any of these is refused before.
    if text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t' && byte != b'\n') {
        return;
    }
    let values: Vec<&str> = text.split('\n').collect();
    said(header, &values);
}

fn line(data: &[u8]) {
    let whole = parse(data);
    // Once it is read or refused, no more bytes change that.
    for cut in 0..data.len().min(V1_BYTES_MAX + 1) {
        let early = parse(&data[..cut]);
        assert!(early == Ok(None) || early == whole, "at {cut}");
    }
    match whole {
        Ok(None) => assert!(data.len() < V2_BYTES_MAX),
        Ok(Some(line)) => {
            assert!(is_begun(data));
            assert_eq!(parse(&data[..line.bytes]), whole);
            assert_eq!(parse(&data[..line.bytes - 1]), Ok(None));
            assert_eq!(plain_line(data), Some(line));
        }
        Err(_) => assert_eq!(plain_line(data), None),
    }
}

/// A whole line, or `None` where it is wrong or not all here.
fn plain_line(data: &[u8]) -> Option<ProxyLine> {
    if let Some(block) = data.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        return plain_v2(block);
    }
    let bytes = data.windows(2).position(|two| two == b"\r\n")? + 2;
    let text = std::str::from_utf8(data.get(..bytes.min(V1_BYTES_MAX))?).ok()?;
    let words: Vec<&str> = text.strip_suffix("\r\n")?.split(' ').collect();
    let port = |word: &str| word.parse().ok().filter(|port: &u16| port.to_string() == word);
    let source: Option<IpAddr> = match words[..] {
        ["PROXY", "UNKNOWN", ..] => return Some(ProxyLine { bytes, source: None }),
        ["PROXY", "TCP4", source, destination, _, _] => {
            let both: (Ipv4Addr, Ipv4Addr) = (source.parse().ok()?, destination.parse().ok()?);
            Some(both.0.into())
        }
        ["PROXY", "TCP6", source, destination, _, _] => {
            let both: (Ipv6Addr, Ipv6Addr) = (source.parse().ok()?, destination.parse().ok()?);
            Some(both.0.to_canonical())
        }
        _ => None,
    };
    let (from, _) = (port(words.get(4)?)?, port(words.get(5)?)?);
    Some(ProxyLine { bytes, source: Some(SocketAddr::new(source?, from)) })
}

/// Behind the signature.
fn plain_v2(data: &[u8]) -> Option<ProxyLine> {
    let &[command, family, high, low, ref rest @ ..] = data else { return None };
    let length = usize::from(high) * 256 + usize::from(low);
    let bytes = 16 + length;
    let block = rest.get(..length).filter(|_| bytes <= V2_BYTES_MAX)?;
    let unnamed = Some(ProxyLine { bytes, source: None });
    let addresses = match (command, family) {
        (0x20, _) | (0x21, 0x00..=0x02) => return unnamed,
        (0x21, 0x10..=0x12) => 12,
        (0x21, 0x20..=0x22) => 36,
        (0x21, 0x30..=0x32) => 216,
        _ => return None,
    };
    let mut tlvs = block.get(addresses..)?;
    while let [_, high, low, value @ ..] = tlvs {
        tlvs = value.get(usize::from(*high) * 256 + usize::from(*low)..)?;
    }
    if !tlvs.is_empty() {
        return None;
    }
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let source = match family {
        0x11 => Some((IpAddr::from(*block.first_chunk::<4>()?), port(8))),
        0x21 => Some((IpAddr::from(*block.first_chunk::<16>()?), port(32))),
        _ => None,
    };
    let source = source.map(|(address, port)| SocketAddr::new(address.to_canonical(), port));
    Some(ProxyLine { bytes, source })
}

fn said(header: ProxyHeader, values: &[&str]) {
    let found = client(header, values, trusted);
    assert_eq!(found, plain_client(header, values), "{values:?}");
    if let Client::Address(address) = found {
        assert_eq!(address.ip(), address.ip().to_canonical());
    }
    // A proxy of ours adds whom it got the request from, in a field of its own or behind what there is.
    let (word, peer) = match header {
        ProxyHeader::Forwarded => ("for=\"192.0.2.9:7\"", SocketAddr::from(([192, 0, 2, 9], 7))),
        ProxyHeader::XForwardedFor => ("192.0.2.9:7", SocketAddr::from(([192, 0, 2, 9], 7))),
    };
    assert_eq!(client(header, &[values, &[word]].concat(), trusted), Client::Address(peer));
    let behind = format!("{}, {word}", values[values.len() - 1]);
    let found = client(header, &[&values[..values.len() - 1], &[&behind]].concat(), trusted);
    let hidden = header == ProxyHeader::Forwarded && found == Client::Hidden(None);
    assert!(hidden || found == Client::Address(peer), "{found:?} {behind:?}");
}

fn trusted(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10)
}

/// All that was said, right to left; then the first of it that is not trusted.
fn plain_client(header: ProxyHeader, values: &[&str]) -> Client {
    let mut entries = Vec::new();
    for value in values.iter().rev() {
        match header {
            ProxyHeader::Forwarded => match plain_forwarded(value) {
                Some(elements) => entries.extend(elements.into_iter().rev()),
                None => entries.push(None),
            },
            ProxyHeader::XForwardedFor => {
                let elements = value.split(',').map(|entry| entry.trim_matches([' ', '\t']));
                let elements: Vec<_> = elements.filter(|entry| !entry.is_empty()).collect();
                entries.extend(elements.into_iter().rev().map(|entry| Some(entry.to_owned())));
            }
        }
    }
    let mut nearest = None;
    for (at, entry) in entries.into_iter().enumerate() {
        match entry.as_deref().and_then(plain_node) {
            Some(address) if at < HOPS_MAX && trusted(address.ip()) => nearest = Some(address),
            Some(address) if at < HOPS_MAX => return Client::Address(address),
            _ => return Client::Hidden(nearest),
        }
    }
    nearest.map_or(Client::Unnamed, Client::Address)
}

/// Cut at the commas and semicolons that stand outside quotes, then each piece by itself.
fn plain_forwarded(value: &str) -> Option<Vec<Option<String>>> {
    let mut elements = Vec::new();
    for element in outside_quotes(value, ',')? {
        let mut from = None;
        let mut empty = true;
        for pair in outside_quotes(element, ';')? {
            let pair = pair.trim_matches([' ', '\t']);
            if pair.is_empty() {
                continue;
            }
            empty = false;
            let (name, given) = pair.split_once('=')?;
            let inner = given.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            let quoted = inner.is_some_and(|text| given.len() > 1 && !ends_early(text));
            if !is_token(name) || !(quoted || is_token(given)) {
                return None;
            }
            let given = if quoted { inner? } else { given };
            if name.eq_ignore_ascii_case("for") && from.replace(given.to_owned()).is_some() {
                return None;
            }
        }
        if !empty {
            elements.push(from);
        }
    }
    Some(elements)
}

/// `None`: a quote is left open.
fn outside_quotes(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut pieces, mut began) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '"' {
            quoted = !quoted;
        } else if c == '\\' && quoted {
            escaped = true;
        } else if c == separator && !quoted {
            pieces.push(&text[began..at]);
            began = at + 1;
        }
    }
    pieces.push(&text[began..]);
    (!quoted).then_some(pieces)
}

/// A quoted string's inside with a quote in it, or whose last quote is escaped.
fn ends_early(inside: &str) -> bool {
    let mut bytes = inside.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'"' || byte == b'\\' && bytes.next().is_none() {
            return true;
        }
    }
    false
}

fn is_token(text: &str) -> bool {
    let known = |c: char| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(c);
    !text.is_empty() && text.chars().all(known)
}

/// With a port, without one, or with one that is hidden.
fn plain_node(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if let Some(address) = bare.and_then(|bare| bare.parse::<Ipv6Addr>().ok()) {
        return Some(SocketAddr::new(address.to_canonical(), 0));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address.to_canonical(), 0));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = match port.strip_prefix('_') {
        Some(_) if is_token(port) => 0,
        Some(_) => return None,
        None if port.starts_with('+') => return None,
        None => port.parse().ok()?,
    };
    let host: IpAddr = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_canonical(),
        None => host.parse::<Ipv4Addr>().ok()?.into(),
    };
    Some(SocketAddr::new(host, port))
}
