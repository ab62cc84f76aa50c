//! Before the run: the recorded snapshots are published, so that subscribers find books to begin.
//!
//! Knows: one blocking connection to the publish port. Must not know: the run, rings.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use thiserror::Error;
use uringcast_protocol::Opcode;
use uringcast_protocol::client_handshake::{Ask, ResponseError, encode_key};
use uringcast_protocol::client_handshake::{parse_answer, write_request};
use uringcast_protocol::writer::write_message;

use super::market::Market;
use super::words;
use crate::frames::{Frame, FrameError, Frames};
use crate::targets::Target;

/// Why the books can't begin.
#[derive(Debug, Error)]
pub(crate) enum PrologueError {
    /// The server did not upgrade.
    #[error(transparent)]
    Answer(#[from] ResponseError),
    /// It ended the connection.
    #[error("the server ended the connection")]
    Ended,
    /// It sent what no server may.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The socket.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It said no.
    #[error("the server did not take the snapshot: {0}")]
    Refused(String),
    /// Numbers of the recording were published to it before.
    #[error("{topic} is at seq {seq} already: the server must be new, or the topic deleted")]
    Used { topic: String, seq: u64 },
}

/// Publishes every book's recorded snapshot and waits for the answers.
///
/// # Errors
/// [`PrologueError`].
pub(crate) fn publish_first(
    target: &Target,
    market: &Market,
    topics: &[String],
) -> Result<(), PrologueError> {
    let mut stream = TcpStream::connect(target.address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let key = encode_key(*b"before the run!!");
    let mut out = Vec::new();
    let ask = Ask {
        path: "/publish?ack=1",
        host: &target.host,
        key: &key,
        headers: &[],
        ..Ask::default()
    };
    write_request(&mut out, &ask);
    stream.write_all(&out)?;
    let mut head = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let rest = loop {
        let bytes = read(&mut stream, &mut buffer)?;
        head.extend_from_slice(&buffer[..bytes]);
        if let Some(answer) = parse_answer(&head, &key, &[], None)? {
            break head[answer.head_bytes..].to_vec();
        }
    };
    let mut frames = Frames::default();
    let mut answers = Vec::new();
    take(&mut frames, &rest, &mut answers)?;
    for origin in &market.origins {
        let topic = &topics[usize::from(origin.stream)];
        let update_id = origin.book.update_id;
        let line = snapshot_line(topic, update_id, |line| line.extend_from_slice(&origin.snapshot));
        out.clear();
        write_message(&mut out, Opcode::Text, &line, Some(MASK));
        stream.write_all(&out)?;
        while answers.is_empty() {
            let bytes = read(&mut stream, &mut buffer)?;
            take(&mut frames, &buffer[..bytes], &mut answers)?;
        }
        let answer = answers.remove(0);
        match words::read(&answer) {
            Some(word) if word.op == "published" => {
                let seq = word.seq.unwrap_or(0);
                if seq > 0 || word.duplicate {
                    return Err(PrologueError::Used { topic: topic.clone(), seq });
                }
            }
            _ => {
                let text = String::from_utf8_lossy(&answer).into_owned();
                return Err(PrologueError::Refused(text));
            }
        }
    }
    Ok(())
}

/// A line that publishes a snapshot.
pub(crate) fn snapshot_line(
    topic: &str,
    update_id: u64,
    write: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let head =
        format!("{{\"topic\":\"{topic}\",\"snapshot\":true,\"pub_seq\":{update_id},\"data\":");
    let mut line = head.into_bytes();
    write(&mut line);
    line.push(b'}');
    line
}

fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<usize, PrologueError> {
    match stream.read(buffer)? {
        0 => Err(PrologueError::Ended),
        bytes => Ok(bytes),
    }
}

fn take(
    frames: &mut Frames,
    bytes: &[u8],
    answers: &mut Vec<Vec<u8>>,
) -> Result<(), PrologueError> {
    let mut closed = false;
    frames.feed(bytes, |frame| {
        match frame {
            Frame::Message { payload, .. } => answers.push(payload.to_vec()),
            Frame::Close(_) => closed = true,
            Frame::Deflated(_) | Frame::Ping(_) | Frame::Pong => {}
        }
        Ok(())
    })?;
    if closed { Err(PrologueError::Ended) } else { Ok(()) }
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// Everything sent is public: the mask need not be a surprise.
const MASK: [u8; 4] = [0x5A, 0x17, 0xC3, 0x88];
