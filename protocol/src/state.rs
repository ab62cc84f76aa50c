//! Every transition of a session, as two tables. A missing entry is the error.
//!
//! Knows: states and steps, for either role. Must not know: bytes, roles, limits.
//!
//! ```text
//!                    send close
//!          Open ───────────────────► CloseSent
//!           │ receive close, or        │ receive close, or
//!           │ the peer offends         │ the peer offends
//!           ▼        send close        ▼
//!     CloseReceived ────────────────► Closed
//! ```

use crate::error::PeerError;
use crate::opcode::Opcode;

/// How far the closing of a connection has come (RFC 6455 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Both sides may send.
    Open = 0,
    /// We sent close and wait for the peer's.
    CloseSent = 1,
    /// The peer sent close, or offended: nothing more is read. We still owe a close.
    CloseReceived = 2,
    /// Nothing more is read or sent.
    Closed = 3,
}

/// What moves a [`State`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Step {
    /// A frame that is no close came.
    Receive = 0,
    /// A close came.
    ReceiveClose = 1,
    /// The peer broke a rule; no more of it is read (RFC 6455 section 7.1.7).
    Offend = 2,
    /// We sent close.
    SendClose = 3,
}

/// What is there of a message whose end has not come (RFC 6455 section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Assembly {
    /// Between messages.
    None = 0,
    /// Inside a text message.
    Text = 1,
    /// Inside a binary message.
    Binary = 2,
    /// Inside a compressed text message.
    DeflatedText = 3,
    /// Inside a compressed binary message.
    DeflatedBinary = 4,
}

impl State {
    /// The state after a step; `None` if the step must not be taken now.
    #[inline]
    pub const fn after(self, step: Step) -> Option<Self> {
        STATES[self as usize][step as usize]
    }

    /// Frames are still read.
    #[inline]
    pub const fn reads(self) -> bool {
        self.after(Step::Receive).is_some()
    }

    /// Frames may still be sent: no close has been.
    #[inline]
    pub const fn sends(self) -> bool {
        self.after(Step::SendClose).is_some()
    }
}

impl Assembly {
    /// What the message is while a data frame with this opcode is read, and what is left of it
    /// after the frame's end.
    ///
    /// # Errors
    /// A continuation of nothing; a new message inside an unfinished one. Control frames are no
    /// part of messages and pass between their fragments.
    #[inline]
    pub const fn after(self, opcode: Opcode, fin: bool) -> Result<(Self, Self), PeerError> {
        let Some(column) = column(opcode) else {
            return Ok((self, self));
        };
        match ASSEMBLIES[self as usize][column] {
            Some(during) => Ok((during, if fin { Self::None } else { during })),
            None if column == CONTINUATION => Err(PeerError::ContinuationUnexpected),
            None => Err(PeerError::ContinuationExpected),
        }
    }
}

impl Assembly {
    /// The same message, compressed.
    pub(crate) const fn deflated(self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Text | Self::DeflatedText => Self::DeflatedText,
            Self::Binary | Self::DeflatedBinary => Self::DeflatedBinary,
        }
    }

    pub(crate) const fn is_deflated(self) -> bool {
        matches!(self, Self::DeflatedText | Self::DeflatedBinary)
    }
}

const fn column(opcode: Opcode) -> Option<usize> {
    match opcode {
        Opcode::Text => Some(0),
        Opcode::Binary => Some(1),
        Opcode::Continuation => Some(CONTINUATION),
        Opcode::Close | Opcode::Ping | Opcode::Pong => None,
    }
}

const CONTINUATION: usize = 2;

/// Rows: the state. Columns: receive, receive close, offend, send close.
const STATES: [[Option<State>; 4]; 4] = {
    use State::{CloseReceived, CloseSent, Closed, Open};
    [
        [Some(Open), Some(CloseReceived), Some(CloseReceived), Some(CloseSent)],
        [Some(CloseSent), Some(Closed), Some(Closed), None],
        [None, None, None, Some(Closed)],
        [None, None, None, None],
    ]
};

/// Rows: what there is of a message. Columns: text, binary, continuation.
const ASSEMBLIES: [[Option<Assembly>; 3]; 5] = {
    use Assembly::{Binary, DeflatedBinary, DeflatedText, Text};
    [
        [Some(Text), Some(Binary), None],
        [None, None, Some(Text)],
        [None, None, Some(Binary)],
        [None, None, Some(DeflatedText)],
        [None, None, Some(DeflatedBinary)],
    ]
};

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const EVERY_STATE: [State; 4] =
        [State::Open, State::CloseSent, State::CloseReceived, State::Closed];
    const EVERY_STEP: [Step; 4] =
        [Step::Receive, Step::ReceiveClose, Step::Offend, Step::SendClose];

    #[test]
    fn rows_and_columns_are_in_the_order_of_the_enums() {
        for (row, state) in EVERY_STATE.into_iter().enumerate() {
            assert_eq!(state as usize, row);
        }
        for (column, step) in EVERY_STEP.into_iter().enumerate() {
            assert_eq!(step as usize, column);
        }
    }

    /// Walks every path from `Open` and checks what must hold on each, whatever the table says.
    #[test]
    fn no_path_sends_or_reads_two_closes_or_comes_back() {
        let mut paths: Vec<(State, Vec<Step>)> = std::vec![(State::Open, Vec::new())];
        let mut reached = Vec::new();
        while let Some((state, path)) = paths.pop() {
            let sent = path.iter().filter(|step| **step == Step::SendClose).count();
            let ended = path
                .iter()
                .filter(|step| matches!(step, Step::ReceiveClose | Step::Offend))
                .count();
            assert!(sent <= 1 && ended <= 1, "{path:?}");
            assert_eq!(state.sends(), sent == 0, "{path:?}");
            assert_eq!(state.reads(), ended == 0, "{path:?}");
            assert_eq!(state == State::Closed, sent + ended == 2, "{path:?}");
            if !reached.contains(&state) {
                reached.push(state);
            }
            for step in EVERY_STEP {
                if let Some(next) = state.after(step)
                    && path.len() < 5
                {
                    let mut longer = path.clone();
                    longer.push(step);
                    paths.push((next, longer));
                }
            }
        }
        assert_eq!(reached.len(), EVERY_STATE.len());
    }

    #[test]
    fn every_frame_in_every_assembly() {
        use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
        let expected = PeerError::ContinuationExpected;
        let unexpected = PeerError::ContinuationUnexpected;
        for now in [
            Assembly::None,
            Assembly::Text,
            Assembly::Binary,
            Assembly::DeflatedText,
            Assembly::DeflatedBinary,
        ] {
            for (opcode, during) in [
                (Text, (now == Assembly::None).then_some(Assembly::Text).ok_or(expected)),
                (Binary, (now == Assembly::None).then_some(Assembly::Binary).ok_or(expected)),
                (Continuation, (now != Assembly::None).then_some(now).ok_or(unexpected)),
            ] {
                let last = during.map(|during| (during, Assembly::None));
                assert_eq!(now.after(opcode, true), last, "{now:?} {opcode:?}");
                let more = during.map(|during| (during, during));
                assert_eq!(now.after(opcode, false), more, "{now:?} {opcode:?}");
            }
            for opcode in [Close, Ping, Pong] {
                assert_eq!(now.after(opcode, true), Ok((now, now)));
            }
        }
    }
}
