//! Sockets and readiness: sockets go in, completions come out.
//!
//! Knows: io_uring, sockets, their options and addresses. Must not know: WebSocket, latency, why a
//! socket is opened or what its bytes mean.

mod ring;
mod sockets;

pub(crate) use ring::{
    Chunk, Completion, Discarded, Interrupts, Means, Ring, RingError, Sizes, SocketId,
};
pub(crate) use sockets::{
    Sources, file_limit_raise, open, receive_buffer_bytes, set_send_buffer, wait_connected,
};
