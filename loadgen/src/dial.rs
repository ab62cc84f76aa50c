//! How a connection of a group is begun: over TLS or not, with which header fields and subprotocols,
//! and what is said first.
//!
//! Knows: what `--header`, `--subprotocol`, `--send` and `--ca` ask for. Must not know: sockets,
//! answers.

use std::borrow::Cow;
use std::sync::Arc;

use uringcast_protocol::Opcode;
use uringcast_protocol::client_handshake::{Ask, write_request};
use uringcast_protocol::writer::write_message;

use crate::failure::Failure;
use crate::flags::{DialFlags, PublisherFlags};
use crate::plan::{ClientPlan, Group, Role};
use crate::targets::Target;
use crate::tls::{self, TlsTarget, Trust, TrustError};

/// What the connections of a group have in common besides their address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dial {
    /// For `wss` and `https`.
    pub(crate) tls: Option<Arc<TlsTarget>>,
    /// Requests of HTTP, and no WebSocket.
    pub(crate) posts: bool,
    /// Further fields of the request; `{n}` in a value stands for the connection's number.
    pub(crate) headers: Vec<Header>,
    /// Subprotocols offered.
    pub(crate) protocols: Vec<String>,
    /// Sent as soon as the upgrade has been answered.
    pub(crate) greetings: Vec<Greeting>,
}

/// A field of a request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// A message to be sent after connecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) opcode: Opcode,
    /// `{n}` in it stands for the connection's number.
    pub(crate) bytes: Vec<u8>,
}

impl Header {
    /// Whether it has this name, given in lower case.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

impl Dial {
    /// Appends the request of the connection with this number; `extensions` are offered.
    pub(crate) fn write_upgrade(
        &self,
        group: &Group,
        number: u32,
        key: &str,
        extensions: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let path = group.path_of(number);
        let own = self.headers_of(number);
        let host = own.iter().find(|header| header.is("host"));
        let host = host.map_or(group.host.as_str(), |header| &header.value);
        let mut headers: Vec<_> = own
            .iter()
            .filter(|header| !header.is("host"))
            .map(|header| (header.name.as_str(), header.value.as_str()))
            .collect();
        headers.extend(extensions.map(|offer| ("Sec-WebSocket-Extensions", offer)));
        let protocols = self.protocols();
        write_request(
            out,
            &Ask { path: &path, host, key, protocols: &protocols, headers: &headers },
        );
    }

    /// The subprotocols offered.
    pub(crate) fn protocols(&self) -> Vec<&str> {
        self.protocols.iter().map(String::as_str).collect()
    }

    /// The fields of the connection with this number.
    pub(crate) fn headers_of(&self, number: u32) -> Vec<Header> {
        let of = |header: &Header| Header {
            name: header.name.clone(),
            value: header.value.replace(NUMBER, &number.to_string()),
        };
        self.headers.iter().map(of).collect()
    }

    /// Appends the frames of what is sent after connecting.
    pub(crate) fn write_greetings(
        &self,
        number: u32,
        mut mask: impl FnMut() -> [u8; 4],
        out: &mut Vec<u8>,
    ) {
        for greeting in &self.greetings {
            let bytes = with_number(&greeting.bytes, number);
            write_message(out, greeting.opcode, &bytes, Some(mask()));
        }
    }
}

/// A group of publishers, with what was typed for them.
pub(crate) fn publishing(group: Group, flags: &PublisherFlags, others: &DialFlags) -> Group {
    let own = &flags.publish_header;
    let dial = Dial {
        headers: if own.is_empty() { others.header.clone() } else { own.clone() },
        greetings: flags.sends.greetings.clone(),
        ..Dial::default()
    };
    Group { dial: Arc::new(dial), ..group }
}

/// Tells every group how its connections are begun. Subscribers' say what `--send` asks for;
/// publishers' are told only what they have not been told by [`publishing`].
///
/// # Errors
/// [`Failure::Usage`] for certificates that can't be had and a name that no certificate could bear.
pub(crate) fn complete(
    groups: &mut [Group],
    clients: &[ClientPlan],
    flags: &DialFlags,
) -> Result<(), Failure> {
    let mut publish = vec![false; groups.len()];
    for client in clients {
        publish[usize::from(client.group)] |= matches!(client.role, Role::Publisher(_));
    }
    let mut config = None;
    for (group, publishes) in groups.iter_mut().zip(publish) {
        let mut dial = match publishes {
            true => (*group.dial).clone(),
            false => Dial { greetings: flags.sends.greetings.clone(), ..(*group.dial).clone() },
        };
        if dial.headers.is_empty() {
            dial.headers.clone_from(&flags.header);
        }
        dial.protocols.clone_from(&flags.subprotocol);
        dial.posts = group.scheme.is_http();
        if group.scheme.is_secure() {
            let config = match &config {
                Some(config) => Arc::clone(config),
                None => Arc::clone(config.insert(trust(flags)?)),
            };
            let host = Target::host_name(&group.host);
            let name = host.to_owned().try_into().map_err(|_| {
                Failure::usage("--url", host, "a name or an address that a certificate can bear")
            })?;
            dial.tls = Some(Arc::new(TlsTarget { config, name }));
        }
        group.dial = Arc::new(dial);
    }
    Ok(())
}

fn trust(flags: &DialFlags) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let trust = match (&flags.ca, flags.insecure) {
        (_, true) => Trust::Anyone,
        (Some(path), false) => Trust::File(path),
        (None, false) => Trust::System,
    };
    tls::config(trust).map_err(|error| match (&error, &flags.ca) {
        (TrustError::File { .. } | TrustError::Empty { .. }, Some(path)) => {
            let right = format!("a file of certificates as PEM: {error}");
            Failure::usage("--ca", path.display(), &right)
        }
        _ => Failure::Setup(std::io::Error::other(error)),
    })
}

fn with_number(bytes: &[u8], number: u32) -> Cow<'_, [u8]> {
    if memchr::memmem::find(bytes, NUMBER.as_bytes()).is_none() {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    while let Some(offset) = memchr::memmem::find(rest, NUMBER.as_bytes()) {
        out.extend_from_slice(&rest[..offset]);
        out.extend_from_slice(number.to_string().as_bytes());
        rest = &rest[offset + NUMBER.len()..];
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// Stands for the connection's number, in URLs as well.
pub(crate) const NUMBER: &str = "{n}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::Target;

    #[test]
    fn a_request_has_the_fields_asked_for_and_ones_own_host() {
        let header =
            |name: &str, value: &str| Header { name: name.to_owned(), value: value.to_owned() };
        let mut dial = Dial {
            headers: vec![header("Authorization", "Bearer {n}"), header("hOst", "else.example")],
            protocols: vec!["a".to_owned(), "b".to_owned()],
            ..Dial::default()
        };
        let target: Target = "ws://127.0.0.1:1/x".parse().expect("a target");
        let group = target.group(None);
        let text = |dial: &Dial| {
            let mut out = Vec::new();
            dial.write_upgrade(&group, 17, "key", Some("x"), &mut out);
            String::from_utf8(out).expect("text")
        };
        let request = text(&dial);
        for line in [
            "GET /x HTTP/1.1",
            "Host: else.example",
            "Authorization: Bearer 17",
            "Sec-WebSocket-Protocol: a, b",
            "Sec-WebSocket-Extensions: x",
        ] {
            assert_eq!(request.matches(&format!("{line}\r\n")).count(), 1, "{line} in {request}");
        }
        dial.headers.clear();
        assert!(text(&dial).contains("\r\nHost: 127.0.0.1:1\r\n"));
    }

    #[test]
    fn greetings_may_hold_the_number_in_binary_messages_too() {
        assert_eq!(*with_number(b"SUB a.{n} {n}\r\n\xFF", 5), *b"SUB a.5 5\r\n\xFF");
        assert_eq!(*with_number(b"{m}", 5), *b"{m}");
        let greeting = |text: &str| Greeting { opcode: Opcode::Text, bytes: text.into() };
        let dial = Dial { greetings: vec![greeting("a"), greeting("{n}")], ..Dial::default() };
        let mut out = Vec::new();
        dial.write_greetings(12, || [0; 4], &mut out);
        assert_eq!(out, [0x81, 0x81, 0, 0, 0, 0, b'a', 0x81, 0x82, 0, 0, 0, 0, b'1', b'2']);
    }
}
