//! WebSocket (RFC 6455) and the uringcast message protocol, as bytes and rules.
//!
//! No I/O and no clock: bytes come in as slices, bytes go out into buffers the caller owns. The
//! server and the load generator use the same code in opposite roles.
//!
//! * Numbers: [`opcode`], [`limits`], [`error`] (what a peer can do wrong, and its close code).
//! * Bytes: [`header`], [`mask`], [`utf8`], [`control`], [`writer`].
//! * Rules: [`state`] holds every transition, [`session`] joins it to the bytes.
//! * The upgrade: [`handshake`] (the server's side), [`refusal`], [`response`],
//!   [`client_handshake`], [`deflate`] (what both say of compression).
//! * Through proxies: [`forwarded`] (header fields), [`proxy_line`] (before the first byte).
//! * Inside a message: [`topic_name`], [`command`] and [`publish`] (from clients),
//!   [`reply`] (to clients), [`json`] (what all three need).
//! * Another way out: [`sse`] (Server-Sent Events).

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod client_handshake;
pub mod command;
pub mod control;
pub mod deflate;
pub mod error;
pub mod forwarded;
pub mod handshake;
pub mod header;
pub mod json;
pub mod limits;
pub mod mask;
pub mod opcode;
pub mod proxy_line;
pub mod publish;
pub mod refusal;
pub mod reply;
pub mod response;
pub mod session;
pub mod sse;
pub mod state;
pub mod topic_name;
pub mod utf8;
pub mod writer;

pub use control::ControlPayload;
pub use error::PeerError;
pub use header::Header;
pub use opcode::{CloseCode, Opcode};
pub use refusal::Refusal;
pub use session::{Event, MessageKind, Role, Session, Sink, SinkFull};
pub use state::State;
pub use topic_name::Pattern;
