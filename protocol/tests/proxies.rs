//! PROXY lines and forwarding headers: the forms there are, every split point, and made-up ones.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use uringcast_protocol::{
    forwarded::{Client, HOPS_MAX, ProxyHeader, client},
    proxy_line::{ProxyLine, ProxyLineError, V1_BYTES_MAX, V2_BYTES_MAX, is_begun, parse},
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("short");
    [SIGNATURE, &[version_command, family], &length.to_be_bytes(), block].concat()
}

/// 192.0.2.1:4660 to 198.51.100.2:443.
const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0x01, 0xbb];

fn v6() -> Vec<u8> {
    let mut block = vec![0; 36];
    block[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    block[15] = 1;
    block[32..34].copy_from_slice(&[0x12, 0x34]);
    block
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn lines_of_both_versions_at_every_split_point() {
    let tlvs = [V4, &[0x20, 0, 5, 1, 0, 0, 0, 0, 0x03, 0, 4, 1, 2, 3, 4]].concat();
    let mapped =
        [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 1], &[0; 16], &[0x12, 0x34, 0, 80]].concat();
    let unix = [0x41; 216];
    let v4 = Some(address("192.0.2.1:4660"));
    for (line, source) in [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\r\n".to_vec(), v4),
        (b"PROXY TCP6 2001:db8::1 ::1 4660 0\r\n".to_vec(), Some(address("[2001:db8::1]:4660"))),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4660 0\r\n".to_vec(), v4),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff:f...f:ffff whatever \xc3\xa9\r\n".to_vec(), None),
        (v2(0x21, 0x11, V4), v4),
        (v2(0x21, 0x11, &tlvs), v4),
        (v2(0x21, 0x21, &v6()), Some(address("[2001:db8::1]:4660"))),
        (v2(0x21, 0x21, &mapped), v4),
        // Not TCP, not IP, not a client's.
        (v2(0x21, 0x12, V4), None),
        (v2(0x21, 0x31, &unix), None),
        (v2(0x21, 0x00, b"whatever"), None),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, V4), None),
    ] {
        for cut in 0..line.len() {
            assert_eq!(parse(&line[..cut]), Ok(None), "{cut} of {line:?}");
        }
        let followed = [&line[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&followed), Ok(Some(ProxyLine { bytes: line.len(), source })));
        assert!(is_begun(&line));
    }
}

#[test]
fn wrong_lines() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX));
    let longest = vec![0; V2_BYTES_MAX - 16];
    assert!(matches!(parse(&v2(0x21, 0, &longest)), Ok(Some(_))));
    for (line, error) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), ProxyLineError::Absent),
        (b"PROXYTCP4".to_vec(), ProxyLineError::Absent),
        (b"proxy TCP4 ".to_vec(), ProxyLineError::Absent),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), ProxyLineError::Absent),
        (long.into_bytes(), ProxyLineError::TooLong),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660\r\n".to_vec(), ProxyLineError::Address),
        (b"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n".to_vec(), ProxyLineError::Address),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n".to_vec(), ProxyLineError::Address),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n".to_vec(), ProxyLineError::Address),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n".to_vec(), ProxyLineError::Address),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n".to_vec(), ProxyLineError::Address),
        (b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n".to_vec(), ProxyLineError::Address),
        (b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), ProxyLineError::Address),
        (b"PROXY TCP4 \xff 192.0.2.2 1 2\r\n".to_vec(), ProxyLineError::Address),
        (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), ProxyLineError::Family),
        (b"PROXY \r\n".to_vec(), ProxyLineError::Family),
        (v2(0x11, 0x11, V4), ProxyLineError::Version),
        (v2(0x22, 0x11, V4), ProxyLineError::Command),
        (v2(0x21, 0x41, V4), ProxyLineError::Family),
        (v2(0x21, 0x13, V4), ProxyLineError::Family),
        (v2(0x21, 0x11, &V4[..11]), ProxyLineError::Length),
        (v2(0x21, 0x21, V4), ProxyLineError::Length),
        (v2(0x21, 0x11, &[V4, &[4, 0]].concat()), ProxyLineError::Length),
        (v2(0x21, 0x11, &[V4, &[4, 0, 2, 0]].concat()), ProxyLineError::Length),
        (v2(0x21, 0, &vec![0; V2_BYTES_MAX - 15]), ProxyLineError::TooLong),
    ] {
        assert_eq!(parse(&line), Err(error), "{}", String::from_utf8_lossy(&line));
    }
}

/// Everything in 10.0.0.0/8 is a proxy of ours.
fn ours(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10)
}

fn from(text: &str) -> Client {
    Client::Address(address(text))
}

#[test]
fn the_rightmost_address_that_is_not_trusted_is_the_client() {
    let of = |values: &[&str]| client(ProxyHeader::XForwardedFor, values, ours);
    assert_eq!(of(&[]), Client::Unnamed);
    assert_eq!(of(&[" , "]), Client::Unnamed);
    assert_eq!(of(&["192.0.2.1"]), from("192.0.2.1:0"));
    assert_eq!(of(&["192.0.2.1:99"]), from("192.0.2.1:99"));
    // What stands left of it is the client's own invention.
    assert_eq!(of(&["127.0.0.1, 192.0.2.1, 10.0.0.2"]), from("192.0.2.1:0"));
    assert_eq!(of(&["127.0.0.1, 192.0.2.1", "10.1.1.1", "10.0.0.2"]), from("192.0.2.1:0"));
    assert_eq!(of(&["junk, 192.0.2.1"]), from("192.0.2.1:0"));
    // All of ours: the first of them asked by itself.
    assert_eq!(of(&["10.0.0.3, 10.0.0.2"]), from("10.0.0.3:0"));
    assert_eq!(of(&["192.0.2.1, unknown"]), Client::Hidden(None));
    let nearest = Client::Hidden(Some(address("10.0.0.2:0")));
    assert_eq!(of(&["192.0.2.1, junk, 10.0.0.2"]), nearest);
    let many = vec!["10.0.0.2"; HOPS_MAX + 1].join(",");
    assert_eq!(of(&["192.0.2.1", &many]), nearest);
}

#[test]
fn the_same_by_rfc_7239() {
    let of = |values: &[&str]| client(ProxyHeader::Forwarded, values, ours);
    assert_eq!(of(&["for=192.0.2.1"]), from("192.0.2.1:0"));
    assert_eq!(
        of(&["for=_a, For=\"[2001:db8::1]:80\";proto=https", "for=10.0.0.2"]),
        from("[2001:db8::1]:80")
    );
    assert_eq!(of(&["for=192.0.2.1, proto=https"]), Client::Hidden(None));
    assert_eq!(of(&["for=192.0.2.1, for=unknown"]), Client::Hidden(None));
    // A quoted string that the client began and no proxy ends, or ends by chance.
    assert_eq!(of(&["for=10.9.9.9;x=\", for=192.0.2.1"]), Client::Hidden(None));
    assert_eq!(of(&["for=10.9.9.9;x=\", for=\"[2001:db8::1]\""]), Client::Hidden(None));
    let nearest = Client::Hidden(Some(address("10.0.0.2:0")));
    assert_eq!(of(&["for=\"", "for=10.0.0.2"]), nearest);
}

proptest! {
    #[test]
    fn no_line_panics_and_more_bytes_never_change_an_answer(
        kind in 0..3_usize,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cut in any::<prop::sample::Index>(),
    ) {
        let start: &[u8] = [b"".as_slice(), b"PROXY TCP4 ", SIGNATURE][kind];
        let line = [start, &bytes].concat();
        let part = &line[..cut.index(line.len() + 1)];
        let early = parse(part);
        if early != Ok(None) {
            prop_assert_eq!(parse(&line), early);
        }
        if let Ok(Some(found)) = parse(&line) {
            prop_assert!(found.bytes <= line.len());
        }
    }

    #[test]
    fn a_written_line_is_read_back(ip in any::<std::net::Ipv4Addr>(), port in any::<u16>()) {
        let source = Some(SocketAddr::from((ip, port)));
        let line = format!("PROXY TCP4 {ip} 127.0.0.1 {port} 1\r\n");
        prop_assert_eq!(parse(line.as_bytes()).map(|line| line.and_then(|l| l.source)), Ok(source));
        let block = [&ip.octets()[..], &[127, 0, 0, 1], &port.to_be_bytes(), &[0, 1]].concat();
        let line = v2(0x21, 0x11, &block);
        prop_assert_eq!(parse(&line).map(|line| line.and_then(|l| l.source)), Ok(source));
    }

    /// Whatever a client sends, what our proxy adds at the right is what counts, or nothing does.
    #[test]
    fn nobody_can_speak_for_a_proxy(sent in "[ -~]{0,40}", quoted in any::<bool>()) {
        let told = if quoted { "for=\"192.0.2.1\"" } else { "for=192.0.2.1" };
        for value in [format!("{sent}, {told}"), format!("{sent},{told};proto=http")] {
            let found = client(ProxyHeader::Forwarded, &[&value], ours);
            prop_assert!(matches!(found, Client::Hidden(None)) || found == from("192.0.2.1:0"), "{value}");
        }
        let value = format!("{sent}, 192.0.2.1");
        prop_assert_eq!(client(ProxyHeader::XForwardedFor, &[&value], ours), from("192.0.2.1:0"));
    }
}
