//! The PROXY protocol, versions 1 and 2: what a proxy says of the connection before its first byte.
//!
//! Knows: the bytes of <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt> (section
//! numbers below are its own). Must not know: who may be believed, or what follows.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Reads what stands before the connection's own bytes, from all the bytes received so far. `None`:
/// more is needed; no answer needs more than [`V2_BYTES_MAX`].
///
/// # Errors
/// As soon as it is wrong, or no PROXY line at all.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyLine>, ProxyLineError> {
    if bytes.starts_with(V2_SIGNATURE) {
        parse_v2(bytes)
    } else if bytes.starts_with(V1_SIGNATURE) {
        parse_v1(bytes)
    } else if V1_SIGNATURE.starts_with(bytes) || V2_SIGNATURE.starts_with(bytes) {
        Ok(None)
    } else {
        Err(ProxyLineError::Absent)
    }
}

/// Whether a connection's first bytes are those of a PROXY line, right or wrong.
pub fn is_begun(bytes: &[u8]) -> bool {
    bytes.starts_with(V1_SIGNATURE) || bytes.starts_with(V2_SIGNATURE)
}

/// A PROXY line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyLine {
    /// Its length: what follows are the connection's own bytes.
    pub bytes: usize,
    /// Who connected to the proxy. `None`: the proxy speaks for itself (`LOCAL`), or for somebody
    /// without an IP address (`UNKNOWN`, `AF_UNSPEC`, `AF_UNIX`), or over something else than TCP.
    pub source: Option<SocketAddr>,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyLineError {
    /// The connection does not begin with one.
    #[error("there is no PROXY line")]
    Absent,
    /// An address or port is not one, or of another family than was said.
    #[error("the PROXY line's addresses are not valid")]
    Address,
    /// Neither `LOCAL` nor `PROXY` (section 2.2).
    #[error("the PROXY line's command is not known")]
    Command,
    /// A family or transport that is none (section 2.2).
    #[error("the PROXY line's family is not known")]
    Family,
    /// Fewer bytes than its family's addresses take, or a TLV that goes beyond the end.
    #[error("the PROXY line's length is not right")]
    Length,
    /// More than 107 bytes (version 1, section 2.1) or [`V2_BYTES_MAX`] (version 2).
    #[error("the PROXY line is too long")]
    TooLong,
    /// The signature of version 2 and another version.
    #[error("the PROXY line's version is not known")]
    Version,
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`: one space between, no leading zeros.
fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyLine>, ProxyLineError> {
    let bounded = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = bounded.windows(2).position(|two| two == b"\r\n") else {
        let full = bounded.len() == V1_BYTES_MAX;
        return if full { Err(ProxyLineError::TooLong) } else { Ok(None) };
    };
    let line = core::str::from_utf8(&bounded[V1_SIGNATURE.len()..end])
        .map_err(|_| ProxyLineError::Address)?;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    let mut word = || words.next().ok_or(ProxyLineError::Address);
    let source = match family {
        // "The receiver must ignore anything presented before the CRLF".
        "UNKNOWN" => return Ok(Some(ProxyLine { bytes: end + 2, source: None })),
        "TCP4" => {
            let (source, _) = (address::<Ipv4Addr>(word()?)?, address::<Ipv4Addr>(word()?)?);
            IpAddr::V4(source)
        }
        "TCP6" => {
            let (source, _) = (address::<Ipv6Addr>(word()?)?, address::<Ipv6Addr>(word()?)?);
            IpAddr::V6(source).to_canonical()
        }
        _ => return Err(ProxyLineError::Family),
    };
    let (source_port, _) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(ProxyLineError::Address);
    }
    let source = Some(SocketAddr::new(source, source_port));
    Ok(Some(ProxyLine { bytes: end + 2, source }))
}

/// Signature (12), version and command, family and transport, length (2, big endian), addresses,
/// TLVs.
fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyLine>, ProxyLineError> {
    let Some(&[version_command, family, high, low]) = bytes.get(12..V2_HEAD_BYTES) else {
        return Ok(None);
    };
    if version_command >> 4 != 2 {
        return Err(ProxyLineError::Version);
    }
    let local = match version_command & 0xf {
        0 => true,
        1 => false,
        _ => return Err(ProxyLineError::Command),
    };
    let end = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if end > V2_BYTES_MAX {
        return Err(ProxyLineError::TooLong);
    }
    let Some(block) = bytes.get(V2_HEAD_BYTES..end) else { return Ok(None) };
    if local {
        // "The receiver must accept this connection as valid and must use the real connection
        // endpoints and discard the protocol block including the family".
        return Ok(Some(ProxyLine { bytes: end, source: None }));
    }
    let (addresses_bytes, source) = match (family >> 4, family & 0xf) {
        (0..=3, 3..) | (4.., _) => return Err(ProxyLineError::Family),
        (1, transport) => (12, source_v4(block).filter(|_| transport == STREAM)),
        (2, transport) => (36, source_v6(block).filter(|_| transport == STREAM)),
        (3, _) => (216, None),
        // Unspecified: what follows has no form that is known.
        (0, _) => return Ok(Some(ProxyLine { bytes: end, source: None })),
    };
    let tlvs = block.get(addresses_bytes..).ok_or(ProxyLineError::Length)?;
    check_tlvs(tlvs)?;
    Ok(Some(ProxyLine { bytes: end, source }))
}

/// Source address (4), destination address (4), source port (2), destination port (2).
fn source_v4(block: &[u8]) -> Option<SocketAddr> {
    let address = block.first_chunk::<4>()?;
    let port = block.get(8..)?.first_chunk()?;
    Some(SocketAddr::from((Ipv4Addr::from(*address), u16::from_be_bytes(*port))))
}

/// The same with addresses of 16.
fn source_v6(block: &[u8]) -> Option<SocketAddr> {
    let address = block.first_chunk::<16>()?;
    let port = block.get(32..)?.first_chunk()?;
    let address = IpAddr::V6(Ipv6Addr::from(*address)).to_canonical();
    Some(SocketAddr::new(address, u16::from_be_bytes(*port)))
}

/// Type (1), length (2), value: none is used, but all must end where the line does.
fn check_tlvs(mut tlvs: &[u8]) -> Result<(), ProxyLineError> {
    while !tlvs.is_empty() {
        let &[_, high, low] = tlvs.first_chunk().ok_or(ProxyLineError::Length)?;
        let end = 3 + usize::from(u16::from_be_bytes([high, low]));
        tlvs = tlvs.get(end..).ok_or(ProxyLineError::Length)?;
    }
    Ok(())
}

fn address<A: core::str::FromStr>(word: &str) -> Result<A, ProxyLineError> {
    word.parse().map_err(|_| ProxyLineError::Address)
}

/// "Heading zeroes are not permitted."
fn port(word: &str) -> Result<u16, ProxyLineError> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = word.len() > 1 && word.starts_with('0');
    if !digits || zeros {
        return Err(ProxyLineError::Address);
    }
    word.parse().map_err(|_| ProxyLineError::Address)
}

/// The longest line of version 1, its end included, bytes (section 2.1).
pub const V1_BYTES_MAX: usize = 107;

/// The longest of version 2 that is taken, bytes: the largest addresses and about 3.8 KiB of TLVs;
/// cloud balancers send below 200.
pub const V2_BYTES_MAX: usize = 4096;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD_BYTES: usize = 16;
const STREAM: u8 = 1;

const _: () = assert!(V2_SIGNATURE.len() == 12);
