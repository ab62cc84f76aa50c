//! What the server says itself, framed for each wire format: answers, gaps, errors, notices.
//!
//! Knows: which frame carries a JSON message in which format. Must not know: what the message says,
//! or to whom.

use uringcast_protocol::{opcode::Opcode, sse, writer};

use super::Body;

impl Body {
    /// Appends a JSON message of the server's own. `event` names what it is about where the format has
    /// a name for it.
    pub fn write_notice(self, out: &mut Vec<u8>, event: &str, message: &[u8]) {
        match self {
            Self::Json | Self::Raw => writer::write_message(out, Opcode::Text, message, None),
            Self::Sse => sse::write_event(out, Some(event), None, message),
        }
    }

    /// The same, for an answer that says where a subscriber begins: whoever comes back with the cursor
    /// begins there again.
    pub fn write_answer(
        self,
        out: &mut Vec<u8>,
        event: &str,
        cursor_us: Option<u64>,
        message: &[u8],
    ) {
        match self {
            Self::Json | Self::Raw => self.write_notice(out, event, message),
            Self::Sse => sse::write_event(out, Some(event), cursor_us, message),
        }
    }

    /// Appends a JSON message of a topic's: what lanes send, put together anew.
    pub(super) fn write_message(self, out: &mut Vec<u8>, message: &[u8]) {
        match self {
            Self::Json | Self::Raw => writer::write_message(out, Opcode::Text, message, None),
            Self::Sse => sse::write_event(out, None, None, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_has_its_frame() {
        let said = |body: Body| {
            let mut out = Vec::new();
            body.write_notice(&mut out, "gap", b"{}");
            out
        };
        assert_eq!(said(Body::Json), b"\x81\x02{}");
        assert_eq!(said(Body::Sse), b"event: gap\ndata: {}\n\n");
    }
}
