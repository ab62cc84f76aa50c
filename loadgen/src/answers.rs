//! A connection's answers of HTTP/1.1, cut anywhere, to their status codes.
//!
//! Knows: where one answer ends and the next begins. Must not know: what was asked, sockets.

use httparse::Status;
use thiserror::Error;

/// An answer that has been received to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server will take no further request on this connection.
    pub(crate) closes: bool,
}

/// Not HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an answer that is not HTTP/1.1")]
pub(crate) struct AnswerError;

/// What one connection keeps between two receives.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// What could not be used yet.
    buffer: Vec<u8>,
    /// The answer whose head has been read, and how much of it is still to come.
    current: Option<(Answer, Body)>,
    /// The last answer was the last one, and what comes is the rest of it.
    over: bool,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    /// So many bytes more.
    Bytes(u64),
    /// So many bytes of a chunk and the line's end behind it; then a chunk's head.
    Chunks(u64),
    /// Lines, the last of them empty.
    Trailers,
}

impl Answers {
    /// Takes all of `bytes`; calls `visit` for every answer that has become complete.
    ///
    /// # Errors
    /// [`AnswerError`]; the connection is of no use after it.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut visit: impl FnMut(Answer),
    ) -> Result<(), AnswerError> {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while !self.over {
            let rest = &self.buffer[at..];
            let taken = match &mut self.current {
                None => match head(rest)? {
                    Some((bytes, found)) => {
                        self.current = found;
                        bytes
                    }
                    None => break,
                },
                Some((_, body)) => match body.take(rest)? {
                    Some(bytes) => bytes,
                    None => break,
                },
            };
            at += taken;
            if let Some((answer, Body::Bytes(0))) = self.current {
                self.current = None;
                self.over = answer.closes;
                visit(answer);
            }
        }
        if self.over {
            self.buffer.clear();
            return Ok(());
        }
        self.buffer.drain(..at);
        match self.buffer.len() {
            0..=HEAD_BYTES_MAX => Ok(()),
            _ => Err(AnswerError),
        }
    }
}

impl Body {
    /// How much of `rest` belongs to it; `None` if more is needed to know. A body that is complete
    /// becomes `Bytes(0)`.
    fn take(&mut self, rest: &[u8]) -> Result<Option<usize>, AnswerError> {
        match self {
            Self::Bytes(left) | Self::Chunks(left @ 1..) => {
                let bytes = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= bytes as u64;
                Ok(Some(bytes).filter(|&bytes| bytes > 0))
            }
            Self::Chunks(_) => match httparse::parse_chunk_size(rest).map_err(|_| AnswerError)? {
                Status::Complete((bytes, 0)) => {
                    *self = Self::Trailers;
                    Ok(Some(bytes))
                }
                Status::Complete((bytes, size)) => {
                    *self = Self::Chunks(size.saturating_add(2));
                    Ok(Some(bytes))
                }
                Status::Partial => Ok(None),
            },
            Self::Trailers => {
                let line = memchr::memmem::find(rest, b"\r\n").map(|end| end + 2);
                if line == Some(2) {
                    *self = Self::Bytes(0);
                }
                Ok(line)
            }
        }
    }
}

/// The head at the front of `bytes`: its length, and what it heads, which is nothing if the answer is
/// only on its way (status 1xx).
type Head = (usize, Option<(Answer, Body)>);

fn head(bytes: &[u8]) -> Result<Option<Head>, AnswerError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes).map_err(|_| AnswerError)? {
        Status::Complete(length) => length,
        Status::Partial => return Ok(None),
    };
    let status = response.code.ok_or(AnswerError)?;
    if status < 200 {
        return Ok(Some((length, None)));
    }
    let mut closes = response.version == Some(0);
    let mut body = None;
    for field in response.headers.iter() {
        let value = field.value.trim_ascii();
        if field.name.eq_ignore_ascii_case("connection") {
            closes = value.eq_ignore_ascii_case(b"close");
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            body = Some(Body::Chunks(0));
        } else if field.name.eq_ignore_ascii_case("content-length") && body.is_none() {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            body = Some(Body::Bytes(length.ok_or(AnswerError)?));
        }
    }
    let body = match (status, body) {
        (204 | 304, _) => Body::Bytes(0),
        (_, Some(body)) => body,
        // Without a length its body ends with the connection, and tells nothing more.
        (_, None) => {
            closes = true;
            Body::Bytes(0)
        }
    };
    Ok(Some((length, Some((Answer { status, closes }, body)))))
}

/// Of an answer's head, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nT: 1\r\n\r\n\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n";

    #[test]
    fn every_split_gives_the_same_answers() {
        let expected = [(200, false), (201, false), (204, false), (503, true)]
            .map(|(status, closes)| Answer { status, closes });
        for cut in 0..=TEXT.len() {
            let (mut answers, mut got) = (Answers::default(), Vec::new());
            for part in [&TEXT[..cut], &TEXT[cut..]] {
                answers.feed(part.as_bytes(), |answer| got.push(answer)).expect("HTTP");
            }
            assert_eq!(got, expected, "cut at {cut}");
            assert!(answers.buffer.is_empty());
        }
    }

    #[test]
    fn an_answer_without_a_length_ends_with_its_connection() {
        for head in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"] {
            let (mut answers, mut got) = (Answers::default(), Vec::new());
            for part in [head, "body", &"longer than any head".repeat(1_000)] {
                answers.feed(part.as_bytes(), |answer| got.push(answer)).expect("HTTP");
            }
            assert_eq!(got, [Answer { status: 200, closes: true }]);
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let feed = |text: &str| Answers::default().feed(text.as_bytes(), |_| {});
        for text in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            &"HTTP/1.1 200 a".repeat(2_000),
        ] {
            assert_eq!(feed(text), Err(AnswerError), "{text:.30}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end(text in "(HTTP/1.1 20[04] OK\r\n|Content-Length: [0-9]{0,21}|Transfer-Encoding: x|\r\n|[0-9a-f]{0,17}|.){0,30}", bytes: Vec<u8>) {
            let mut answers = Answers::default();
            let _ = answers.feed(text.as_bytes(), |_| {});
            let _ = answers.feed(&bytes, |_| {});
        }
    }
}
