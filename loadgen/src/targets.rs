//! Where to connect: `ws://` URLs to addresses, host names and paths.
//!
//! Knows: the form of such a URL, name resolution. Must not know: sockets.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use thiserror::Error;

use crate::plan::Group;

/// A `ws://host:port/path?query` that has been resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The first address of the name.
    pub(crate) address: SocketAddr,
    /// Host and port as written.
    pub(crate) host: String,
    /// Path and query; `/` if there is none.
    pub(crate) path: String,
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
    /// Not ours (yet).
    #[error("should begin with ws://, as in ws://127.0.0.1:9001/raw/bench")]
    Scheme,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let rest = text.strip_prefix("ws://").ok_or(TargetError::Scheme)?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TargetError::Character);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let has_port = host.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
        let with_port = if has_port { host.to_owned() } else { format!("{host}:80") };
        let resolve = |error| TargetError::Resolve { host: host.to_owned(), error };
        let address = with_port
            .to_socket_addrs()
            .map_err(resolve)?
            .next()
            .ok_or_else(|| resolve(std::io::ErrorKind::NotFound.into()))?;
        Ok(Self { address, host: host.to_owned(), path })
    }
}

impl Target {
    /// A group of connections to it.
    pub(crate) fn group(&self, interest: Option<u16>) -> Group {
        Group { address: self.address, host: self.host.clone(), path: self.path.clone(), interest }
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
        for wrong in ["http://a/", "ws://", "ws://127.0.0.1/a b", "ws://127.0.0.1:x/"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
