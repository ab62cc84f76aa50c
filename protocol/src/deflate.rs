//! permessage-deflate as it is negotiated (RFC 7692 section 7.1): offers, answers, agreements.
//!
//! Knows: the four parameters and which of them may stand where. Must not know: DEFLATE itself, the
//! rest of the handshake.
//!
//! The server takes over no context in either direction: without one a frame can be compressed
//! once for all receivers, and a connection holds no window. RFC 7692 section 7.1.1 lets a server say
//! both unasked.

use core::fmt;

use crate::handshake::split_unquoted;

/// What the server asks for beyond what it always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The largest window that clients are to compress with, bits, 8 to 15. Asked for where a client
    /// lets itself be asked; 15 asks nothing.
    pub client_window_bits_max: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self { client_window_bits_max: WINDOW_BITS_MAX }
    }
}

/// What both sides keep to. As text it is the server's `Sec-WebSocket-Extensions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Agreement {
    /// The server compresses each message by itself.
    pub server_no_context_takeover: bool,
    /// The client compresses each message by itself.
    pub client_no_context_takeover: bool,
    /// The server's window is 2 to the power of this at most, bytes; 8 to 15.
    pub server_window_bits: u8,
    /// The same of the client's; 15 if it is not limited.
    pub client_window_bits: u8,
    /// The answer has `server_max_window_bits`.
    server_window_said: bool,
    /// The answer has `client_max_window_bits`.
    client_window_said: bool,
}

/// The first offer that can be accepted, as the server answers it; `offers` are the elements of
/// `Sec-WebSocket-Extensions`, in the client's order of preference. `None`: go on without.
///
/// Other extensions and offers with anything wrong or unknown in them are passed over (RFC 7692
/// section 7.1 wants them declined).
pub fn agree(offers: &[&str], policy: &Policy) -> Option<Agreement> {
    offers.iter().find_map(|offer| accept(&Parameters::parse(offer, Side::Client)?, policy))
}

fn accept(offer: &Parameters, policy: &Policy) -> Option<Agreement> {
    let server = offer.server_max_window_bits;
    let client = offer.client_max_window_bits;
    let asked = policy.client_window_bits_max.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX);
    // A client that names a value uses no larger window whatever the answer (section 7.1.2.2).
    let hint = client.and_then(Window::bits).unwrap_or(WINDOW_BITS_MAX);
    let ask = client.is_some() && asked < WINDOW_BITS_MAX;
    Some(Agreement {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_window_bits: match server {
            None => WINDOW_BITS_MAX,
            // "must have a value" (section 7.1.2.1), and `parse` has seen to it.
            Some(window) => window.bits()?,
        },
        client_window_bits: if ask { hint.min(asked) } else { hint },
        server_window_said: server.is_some(),
        client_window_said: ask,
    })
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Parameters {
            server_no_context_takeover: self.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover,
            server_max_window_bits: self
                .server_window_said
                .then_some(Window::Bits(self.server_window_bits)),
            client_max_window_bits: self
                .client_window_said
                .then_some(Window::Bits(self.client_window_bits)),
        }
        .fmt(f)
    }
}

/// What a client offers. As text it is a `Sec-WebSocket-Extensions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offer {
    /// The server must compress each message by itself.
    pub server_no_context_takeover: bool,
    /// The client will compress each message by itself.
    pub client_no_context_takeover: bool,
    /// The server's window must not be larger, bits, 8 to 15.
    pub server_max_window_bits: Option<u8>,
    /// The server may limit the client's window; with a value, it is no larger in any case.
    pub client_max_window_bits: Option<Window>,
}

/// The value of `client_max_window_bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// The parameter stands without a value.
    Any,
    /// 8 to 15.
    Bits(u8),
}

impl Offer {
    /// Judges the server's answer: one element of its `Sec-WebSocket-Extensions`.
    ///
    /// # Errors
    /// It is no permessage-deflate, is malformed, or is not what was offered (RFC 7692 section 7.1:
    /// the client then fails the connection).
    pub fn judge(&self, answer: &str) -> Result<Agreement, AnswerInvalid> {
        let answer = Parameters::parse(answer, Side::Server).ok_or(AnswerInvalid)?;
        let server = answer.server_max_window_bits.and_then(Window::bits);
        let client = answer.client_max_window_bits.and_then(Window::bits);
        // Section 7.1.1.1: accepted "by including it in the response".
        let takes_over = self.server_no_context_takeover && !answer.server_no_context_takeover;
        // Section 7.1.2.1: "the same or smaller value".
        let server_wrong = self
            .server_max_window_bits
            .is_some_and(|offered| server.is_none_or(|answered| answered > offered));
        // Section 7.1.2.2: not in the answer unless it was in the offer, and not a larger one.
        let client_wrong = client.is_some_and(|answered| match self.client_max_window_bits {
            None => true,
            Some(Window::Any) => false,
            Some(Window::Bits(offered)) => answered > offered,
        });
        if takes_over || server_wrong || client_wrong {
            return Err(AnswerInvalid);
        }
        let hint = self.client_max_window_bits.and_then(Window::bits).unwrap_or(WINDOW_BITS_MAX);
        Ok(Agreement {
            server_no_context_takeover: answer.server_no_context_takeover,
            client_no_context_takeover: answer.client_no_context_takeover
                || self.client_no_context_takeover,
            server_window_bits: server.unwrap_or(WINDOW_BITS_MAX),
            client_window_bits: client.unwrap_or(hint),
            server_window_said: server.is_some(),
            client_window_said: client.is_some(),
        })
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Parameters {
            server_no_context_takeover: self.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover,
            server_max_window_bits: self.server_max_window_bits.map(Window::Bits),
            client_max_window_bits: self.client_max_window_bits,
        }
        .fmt(f)
    }
}

/// The server's answer is no legal answer to the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the answer to permessage-deflate is not one to the offer")]
pub struct AnswerInvalid;

impl Window {
    const fn bits(self) -> Option<u8> {
        match self {
            Self::Any => None,
            Self::Bits(bits) => Some(bits),
        }
    }
}

/// Whose parameters they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// What stands behind the extension's name, in an offer or an answer.
#[derive(Clone, Copy, Debug, Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<Window>,
    client_max_window_bits: Option<Window>,
}

impl Parameters {
    /// `None` if it is another extension, or has a parameter that is unknown, repeated or has a wrong
    /// value.
    fn parse(element: &str, side: Side) -> Option<Self> {
        let mut parts = split_unquoted(element, b';').map(str::trim_ascii);
        if !parts.next()?.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut parameters = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_ascii_end(), Some(value.trim_ascii_start())),
                None => (part, None),
            };
            parameters.take(name, value, side)?;
        }
        Some(parameters)
    }

    fn take(&mut self, name: &str, value: Option<&str>, side: Side) -> Option<()> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is(SERVER_NO_CONTEXT_TAKEOVER) {
            note_flag(&mut self.server_no_context_takeover, value)
        } else if is(CLIENT_NO_CONTEXT_TAKEOVER) {
            note_flag(&mut self.client_no_context_takeover, value)
        } else if is(SERVER_MAX_WINDOW_BITS) {
            note_window(&mut self.server_max_window_bits, Window::Bits(parse_bits(value?)?))
        } else if is(CLIENT_MAX_WINDOW_BITS) {
            let window = match value {
                Some(value) => Window::Bits(parse_bits(value)?),
                // "may or may not have a value" in an offer (section 7.1.2.2); a value in an answer.
                None if side == Side::Client => Window::Any,
                None => return None,
            };
            note_window(&mut self.client_max_window_bits, window)
        } else {
            None
        }
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        for (name, said) in [
            (SERVER_NO_CONTEXT_TAKEOVER, self.server_no_context_takeover),
            (CLIENT_NO_CONTEXT_TAKEOVER, self.client_no_context_takeover),
        ] {
            if said {
                write!(f, "; {name}")?;
            }
        }
        for (name, window) in [
            (SERVER_MAX_WINDOW_BITS, self.server_max_window_bits),
            (CLIENT_MAX_WINDOW_BITS, self.client_max_window_bits),
        ] {
            match window {
                None => {}
                Some(Window::Any) => write!(f, "; {name}")?,
                Some(Window::Bits(bits)) => write!(f, "; {name}={bits}")?,
            }
        }
        Ok(())
    }
}

/// Has no value, and stands once.
fn note_flag(place: &mut bool, value: Option<&str>) -> Option<()> {
    (value.is_none() && !*place).then(|| *place = true)
}

fn note_window(place: &mut Option<Window>, window: Window) -> Option<()> {
    place.is_none().then(|| *place = Some(window))
}

/// "a decimal integer without leading zeroes between 8 to 15, inclusive" (section 7.1.2), as a token
/// or a quoted string that holds one (RFC 6455 section 9.1).
fn parse_bits(value: &str) -> Option<u8> {
    let mut digits = [0; 2];
    let mut length = 0;
    let mut note = |byte: u8| {
        *digits.get_mut(length)? = byte;
        length += 1;
        Some(())
    };
    match value.strip_prefix('"') {
        None => value.bytes().try_for_each(&mut note)?,
        Some(rest) => {
            let mut bytes = rest.strip_suffix('"')?.bytes();
            while let Some(byte) = bytes.next() {
                note(if byte == b'\\' { bytes.next()? } else { byte })?;
            }
        }
    }
    match digits[..length] {
        [one @ b'8'..=b'9'] => Some(one - b'0'),
        [b'1', two @ b'0'..=b'5'] => Some(10 + two - b'0'),
        _ => None,
    }
}

/// RFC 7692 section 7.
const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

const WINDOW_BITS_MIN: u8 = 8;
const WINDOW_BITS_MAX: u8 = 15;

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn answer_to(offers: &[&str]) -> Option<String> {
        agree(offers, &Policy::default()).map(|agreement| agreement.to_string())
    }

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn offers_and_their_answers() {
        for offer in [
            "permessage-deflate",
            " Permessage-Deflate ",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=10",
            "permessage-deflate; client_max_window_bits = \"15\"",
            "permessage-deflate; server_no_context_takeover ;client_no_context_takeover",
        ] {
            assert_eq!(answer_to(&[offer]).as_deref(), Some(PLAIN), "{offer}");
        }
        for (value, bits) in [("8", 8), ("15", 15), ("\"10\"", 10), ("\"1\\1\"", 11), ("9", 9)] {
            let offer = std::format!("permessage-deflate; server_max_window_bits={value}");
            let agreement = agree(&[&offer], &Policy::default()).expect("legal");
            assert_eq!((agreement.server_window_bits, agreement.client_window_bits), (bits, 15));
            let answer = std::format!("{PLAIN}; server_max_window_bits={bits}");
            assert_eq!(agreement.to_string(), answer);
        }
    }

    #[test]
    fn what_is_wrong_or_unknown_is_declined() {
        for parameters in [
            "x",
            "",
            "=",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_no_context_takeover; server_no_context_takeover",
            "client_max_window_bits; client_max_window_bits=9",
            "server_max_window_bits",
            "server_max_window_bits=",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=010",
            "server_max_window_bits=1 0",
            "server_max_window_bits=-9",
            "server_max_window_bits=+9",
            "server_max_window_bits=\"9",
            "server_max_window_bits=9\"",
            "server_max_window_bits=\"\"",
            "server_max_window_bits=\"9\\\"",
            "server_max_window_bits=9; server_max_window_bits=9",
            "client_max_window_bits=",
            "client_max_window_bits=0",
            "client_max_window_bits=99999999999999999999",
            "client_max_window_bits=\"8;9\"",
        ] {
            let offer = std::format!("permessage-deflate; {parameters}");
            assert_eq!(answer_to(&[&offer]), None, "{offer}");
            let next = [offer.as_str(), "permessage-deflate; server_max_window_bits=12"];
            let bits = agree(&next, &Policy::default()).map(|a| a.server_window_bits);
            assert_eq!(bits, Some(12), "{offer}");
        }
        for other in ["", "x-webkit-deflate-frame", "permessage-deflatex", "permessage", ";"] {
            assert_eq!(answer_to(&[other]), None, "{other}");
        }
        assert_eq!(answer_to(&[]), None);
        assert_eq!(answer_to(&["x; y=\"z\"", "permessage-deflate"]).as_deref(), Some(PLAIN));
    }

    #[test]
    fn the_client_is_limited_where_it_lets_itself_be() {
        let policy = Policy { client_window_bits_max: 12 };
        for (offer, bits, said) in [
            ("permessage-deflate", 15, false),
            ("permessage-deflate; client_max_window_bits", 12, true),
            ("permessage-deflate; client_max_window_bits=15", 12, true),
            ("permessage-deflate; client_max_window_bits=9", 9, true),
        ] {
            let agreement = agree(&[offer], &policy).expect("legal");
            assert_eq!(agreement.client_window_bits, bits, "{offer}");
            let answer = agreement.to_string();
            let end = std::format!("; client_max_window_bits={bits}");
            assert_eq!(answer.ends_with(&end), said, "{offer}: {answer}");
        }
        let unlimited =
            agree(&["permessage-deflate; client_max_window_bits=9"], &Policy::default());
        assert_eq!(unlimited.map(|agreement| agreement.client_window_bits), Some(9));
    }

    #[test]
    fn answers_that_a_client_must_refuse() {
        let nothing = Offer::default();
        let all = Offer {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: Some(10),
            client_max_window_bits: Some(Window::Bits(11)),
        };
        for (offer, answer, legal) in [
            (nothing, "permessage-deflate", true),
            (nothing, "permessage-deflate; server_max_window_bits=8", true),
            (nothing, "permessage-deflate; server_max_window_bits", false),
            (nothing, "permessage-deflate; client_max_window_bits=9", false),
            (nothing, "permessage-deflate; client_no_context_takeover", true),
            (nothing, "permessage-deflate; x", false),
            (nothing, "x", false),
            (all, "permessage-deflate", false),
            (all, "permessage-deflate; server_no_context_takeover", false),
            (all, "permessage-deflate; server_max_window_bits=10", false),
            (
                all,
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=11",
                false,
            ),
            (all, "permessage-deflate; server_no_context_takeover; server_max_window_bits=9", true),
        ] {
            assert_eq!(offer.judge(answer).is_ok(), legal, "{answer}");
        }
        let agreed = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10";
        let agreement = all.judge(agreed).expect("legal");
        assert!(agreement.client_no_context_takeover, "what the offer says holds");
        assert_eq!((agreement.server_window_bits, agreement.client_window_bits), (10, 11));
        for (more, bits) in
            [("; client_max_window_bits=9", Some(9)), ("; client_max_window_bits=12", None)]
        {
            let answer = std::format!("{agreed}{more}");
            assert_eq!(all.judge(&answer).ok().map(|a| a.client_window_bits), bits);
        }
        assert!(all.judge(&std::format!("{agreed}; client_max_window_bits")).is_err());
    }

    fn any_offer() -> impl Strategy<Value = Offer> {
        let client = prop_oneof![
            Just(None),
            Just(Some(Window::Any)),
            (8..=15_u8).prop_map(|bits| Some(Window::Bits(bits)))
        ];
        (any::<bool>(), any::<bool>(), prop::option::of(8..=15_u8), client).prop_map(
            |(server, client, server_max_window_bits, client_max_window_bits)| Offer {
                server_no_context_takeover: server,
                client_no_context_takeover: client,
                server_max_window_bits,
                client_max_window_bits,
            },
        )
    }

    proptest! {
        #[test]
        fn every_legal_offer_is_answered_and_both_sides_understand_the_same(
            offer in any_offer(),
            client_window_bits_max in 8..=15_u8,
            wrong in prop::collection::vec("[a-z-]{0,9}(; ?[a-z_]{0,9}(=\"?[0-9]{0,3}\"?)?){0,3}", 0..3),
        ) {
            let text = offer.to_string();
            let mut offers: Vec<&str> = wrong.iter().map(String::as_str).collect();
            offers.push(&text);
            let server = agree(&offers, &Policy { client_window_bits_max }).expect("legal");
            let client = offer.judge(&server.to_string());
            prop_assert_eq!(client, Ok(server));
        }

        #[test]
        fn no_text_makes_it_panic(
            element in "(permessage-deflate;)? ?((server|client)_(max_window_bits|no_context_takeover))?\\PC{0,30}"
        ) {
            let _ = Offer::default().judge(&element);
            if let Some(agreement) = agree(&[&element], &Policy::default()) {
                prop_assert!((8..=15).contains(&agreement.server_window_bits));
                prop_assert!((8..=15).contains(&agreement.client_window_bits));
            }
        }
    }
}
