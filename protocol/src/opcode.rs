//! The numbers of RFC 6455: opcodes and close codes.
//!
//! Knows: which numbers exist and which are legal. Must not know: frames, or when a code is sent.

/// What a frame is (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message begun before.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The end of what its sender has to say.
    Close = 0x8,
    /// A question to be answered by a pong.
    Ping = 0x9,
    /// The answer to a ping, or unsolicited.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode of these four bits; `None` for the reserved ones.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xA => Some(Self::Pong),
            _ => None,
        }
    }

    /// Its four bits.
    #[inline]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// Close, ping or pong: never fragmented, at most 125 bytes (RFC 6455 section 5.5).
    #[inline]
    pub const fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

/// The code in a close frame (RFC 6455 section 7.4 and its registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// 1000: the purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server goes down, or the browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a type of data that is not accepted here.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1005: never on the wire; reported when a close frame had no code.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: never on the wire; reported when a connection ended without a close frame.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: the data is not what its type says, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: against the server's policy.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: the message is too big.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: an extension the client needs was not negotiated.
    pub const EXTENSION_MISSING: Self = Self(1010);
    /// 1011: the server met something unexpected.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: overload; try again later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got a bad answer from upstream.
    pub const BAD_GATEWAY: Self = Self(1014);

    /// The number.
    #[inline]
    pub const fn value(self) -> u16 {
        self.0
    }

    /// May stand in a close frame: 1000–1003 and 1007–1014 as registered, 3000–4999 for libraries
    /// and applications (RFC 6455 section 7.4.2). 1004 is reserved; 1005, 1006 and 1015 are for
    /// reporting only (section 7.4.1).
    #[inline]
    pub const fn is_legal_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl core::fmt::Display for CloseCode {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_are_their_bits_and_the_rest_is_reserved() {
        let known: std::vec::Vec<u8> =
            (0..=255).filter(|&bits| Opcode::from_bits(bits).is_some()).collect();
        assert_eq!(known, [0, 1, 2, 8, 9, 10]);
        for bits in known {
            let opcode = Opcode::from_bits(bits).expect("filtered to the known ones");
            assert_eq!(opcode.bits(), bits);
            assert_eq!(opcode.is_control(), bits >= 8);
        }
    }

    #[test]
    fn close_codes_by_range() {
        for legal in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
        {
            assert!(CloseCode(legal).is_legal_on_wire(), "{legal}");
        }
        for illegal in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!CloseCode(illegal).is_legal_on_wire(), "{illegal}");
        }
    }
}
