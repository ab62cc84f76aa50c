//! What may stand between a socket and a WebSocket's frames: TLS, or answers of HTTP in their place.
//!
//! Knows: which of them a group's connections have. Must not know: rings, what bytes mean.
//!
//! A plain WebSocket has neither and no `Layers` at all.

use crate::answers::Answers;
use crate::dial::Dial;
use crate::tls::Tls;

/// One connection's.
#[derive(Debug)]
pub(crate) struct Layers {
    pub(crate) tls: Option<Tls>,
    /// Publishes by requests: what comes are their answers.
    pub(crate) answers: Option<Answers>,
}

impl Layers {
    /// Those of a new connection; boxed, because most have none.
    ///
    /// # Errors
    /// What rustls says.
    pub(crate) fn new(dial: &Dial) -> Result<Option<Box<Self>>, rustls::Error> {
        let tls = dial.tls.as_deref().map(Tls::new).transpose()?;
        let answers = dial.posts.then(Answers::default);
        let has_any = tls.is_some() || answers.is_some();
        Ok(has_any.then(|| Box::new(Self { tls, answers })))
    }

    /// What goes out for `plain`.
    pub(crate) fn seal(&mut self, plain: Vec<u8>) -> Vec<u8> {
        match &mut self.tls {
            Some(tls) => tls.seal(&plain),
            None => plain,
        }
    }

    /// Something of TLS's own is to be sent.
    pub(crate) fn wants_seal(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::wants_seal)
    }

    /// Appends to `plain` what was in `bytes`; whether the peer has said that nothing will follow.
    ///
    /// # Errors
    /// What the peer does wrong, or why it is not trusted.
    pub(crate) fn open(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<bool, rustls::Error> {
        match &mut self.tls {
            Some(tls) => tls.open(bytes, plain),
            None => {
                plain.extend_from_slice(bytes);
                Ok(false)
            }
        }
    }

    /// Nothing can be said yet.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::is_handshaking)
    }
}
