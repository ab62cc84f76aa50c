//! Where to connect: URLs to schemes, addresses, host names and paths.
//!
//! Knows: the form of such a URL, name resolution. Must not know: sockets.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::plan::Group;

/// A `ws://host:port/path?query` that has been resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    /// The first address of the name.
    pub(crate) address: SocketAddr,
    /// Host and port as written.
    pub(crate) host: String,
    /// Path and query; `/` if there is none.
    pub(crate) path: String,
}

/// What is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
    Ws,
    Wss,
}

impl Scheme {
    /// Over TLS.
    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Wss)
    }

    /// Requests, and no WebSocket.
    pub(crate) fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    fn port(self) -> u16 {
        if self.is_secure() { 443 } else { 80 }
    }

    /// The scheme in front of a URL, and what follows.
    fn cut(text: &str) -> Option<(Self, &str)> {
        let (name, rest) = text.split_once("://")?;
        let scheme = match name {
            "http" => Self::Http,
            "https" => Self::Https,
            "ws" => Self::Ws,
            "wss" => Self::Wss,
            _ => return None,
        };
        Some((scheme, rest))
    }
}

/// Why it is none.
#[derive(Debug, Error)]
pub(crate) enum TargetError {
    /// Spaces and control characters would end the request line.
    #[error("a character that a URL can't have: write it as %XX")]
    Character,
    /// Unknown name.
    #[error("{host}: {error}")]
    Resolve { host: String, error: std::io::Error },
    /// Not spoken here.
    #[error("should begin with {0}, as in ws://127.0.0.1:9001/raw/bench")]
    Scheme(&'static str),
}

impl FromStr for Target {
    type Err = TargetError;

    /// Where WebSocket is spoken.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        match Scheme::cut(text) {
            Some((scheme @ (Scheme::Ws | Scheme::Wss), rest)) => Self::resolve(scheme, rest),
            _ => Err(TargetError::Scheme("ws:// or wss://")),
        }
    }
}

impl Target {
    /// Where publications may go: WebSocket or HTTP.
    ///
    /// # Errors
    /// [`TargetError`].
    pub(crate) fn of_publications(text: &str) -> Result<Self, TargetError> {
        let right = "ws://, wss://, http:// or https://";
        let (scheme, rest) = Scheme::cut(text).ok_or(TargetError::Scheme(right))?;
        Self::resolve(scheme, rest)
    }

    fn resolve(scheme: Scheme, rest: &str) -> Result<Self, TargetError> {
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TargetError::Character);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let has_port = host.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
        let with_port =
            if has_port { host.to_owned() } else { format!("{host}:{}", scheme.port()) };
        let resolve = |error| TargetError::Resolve { host: host.to_owned(), error };
        let address = with_port
            .to_socket_addrs()
            .map_err(resolve)?
            .next()
            .ok_or_else(|| resolve(std::io::ErrorKind::NotFound.into()))?;
        Ok(Self { scheme, address, host: host.to_owned(), path })
    }

    /// A group of connections to it.
    pub(crate) fn group(&self, interest: Option<u16>) -> Group {
        Group {
            address: self.address,
            host: self.host.clone(),
            path: self.path.clone(),
            interest,
            scheme: self.scheme,
            dial: Arc::default(),
        }
    }

    /// The host's name or address, without port and brackets.
    pub(crate) fn host_name(host: &str) -> &str {
        match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => host.split_once(':').map_or(host, |(name, _)| name),
        }
    }

    /// The same peer, another path.
    pub(crate) fn with_path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target: Target = "ws://127.0.0.1:9001/ws?topics=a,b.*".parse().expect("a target");
        assert_eq!(target.address, "127.0.0.1:9001".parse().expect("an address"));
        assert_eq!(target.path, "/ws?topics=a,b.*");
        let bare: Target = "ws://[::1]?x".parse().expect("a target");
        assert_eq!((bare.address.port(), bare.path.as_str()), (80, "/?x"));
        for wrong in ["http://a/", "ws://", "ws://127.0.0.1/a b", "ws://127.0.0.1:x/", "ftp://a"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
        let secure: Target = "wss://127.0.0.1/".parse().expect("a target");
        assert_eq!((secure.scheme, secure.address.port()), (Scheme::Wss, 443));
        let posts = Target::of_publications("http://127.0.0.1:8080/pub").expect("a target");
        assert_eq!((posts.scheme, posts.path.as_str()), (Scheme::Http, "/pub"));
        assert!(Target::of_publications("127.0.0.1").is_err());
    }

    #[test]
    fn a_host_has_a_name_without_its_port() {
        for (host, name) in [
            ("a.example", "a.example"),
            ("a:1", "a"),
            ("[::1]:2", "::1"),
            ("127.0.0.1:9", "127.0.0.1"),
        ] {
            assert_eq!(Target::host_name(host), name);
        }
    }
}
