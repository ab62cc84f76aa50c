//! Topic names and patterns: which are legal, and which pattern matches which name.
//!
//! Knows: the grammar. Must not know: which topics exist, who subscribes.
//!
//! A name is 1–255 bytes: tokens of `[A-Za-z0-9_@:-]`, at least one byte each, joined by `.`. In a
//! pattern a token may be `*` (any one token), and the last may be `>` (one or more tokens).

use alloc::boxed::Box;

use crate::limits::TOPIC_BYTES_MAX;

/// What is wrong with a topic name or pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// A byte that no token may hold, or a wildcard inside a longer token.
    #[error("a character that is not allowed in a topic")]
    ByteInvalid,
    /// No bytes at all.
    #[error("an empty topic")]
    Empty,
    /// Nothing between two dots, or at one end.
    #[error("an empty token in a topic")]
    TokenEmpty,
    /// More than 255 bytes.
    #[error("a topic of more than 255 bytes")]
    TooLong,
    /// `*` or `>` where a name is wanted.
    #[error("a wildcard where a topic's own name is wanted")]
    Wildcard,
    /// `>` somewhere else than at the end.
    #[error("`>` is allowed as the last token only")]
    WildcardNotLast,
}

/// Checks a topic's own name: no wildcards.
///
/// # Errors
/// The first thing wrong with it.
#[inline]
pub fn validate_name(name: &str) -> Result<(), TopicNameError> {
    match validate(name)? {
        Shape::Exact => Ok(()),
        Shape::Wild => Err(TopicNameError::Wildcard),
    }
}

/// A valid pattern; a name without wildcards is a pattern that matches itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Checks and keeps a pattern or name.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn parse(text: &str) -> Result<Self, TopicNameError> {
        validate(text)?;
        Ok(Self(text.into()))
    }

    /// As it was written.
    #[inline]
    pub const fn as_str(&self) -> &str {
        &self.0
    }

    /// No wildcards: matches one name, its own.
    #[inline]
    pub fn is_exact(&self) -> bool {
        // Wildcards are whole tokens and no other token may hold these bytes.
        !self.0.bytes().any(|byte| matches!(byte, b'*' | b'>'))
    }

    /// Whether there is a name that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.as_str().split('.'), other.as_str().split('.'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                // It stands for one token or more, and the other has one here.
                (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (Some(one), Some(two)) if one == two || one == "*" || two == "*" => {}
                _ => return false,
            }
        }
    }

    /// Whether the pattern matches this valid name.
    #[inline]
    pub fn matches(&self, name: &str) -> bool {
        tokens_match(&self.0, name)
    }
}

/// Whether tokens of a valid pattern match tokens of a valid name, all of each.
#[inline]
pub fn tokens_match(pattern: &str, name: &str) -> bool {
    let mut tokens = name.split('.');
    for wanted in pattern.split('.') {
        let Some(token) = tokens.next() else {
            return false;
        };
        match wanted {
            // The last token, so whatever else the name has is matched too.
            ">" => return true,
            "*" => {}
            exact if exact == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

impl core::fmt::Display for Pattern {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str(&self.0)
    }
}

impl AsRef<str> for Pattern {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl core::str::FromStr for Pattern {
    type Err = TopicNameError;

    fn from_str(text: &str) -> Result<Self, TopicNameError> {
        Self::parse(text)
    }
}

enum Shape {
    Exact,
    Wild,
}

fn validate(text: &str) -> Result<Shape, TopicNameError> {
    if text.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicNameError::TooLong);
    }
    let mut shape = Shape::Exact;
    let mut ended = false;
    for token in text.split('.') {
        if ended {
            return Err(TopicNameError::WildcardNotLast);
        }
        match token {
            "" => return Err(TopicNameError::TokenEmpty),
            "*" => shape = Shape::Wild,
            ">" => {
                shape = Shape::Wild;
                ended = true;
            }
            plain if plain.bytes().all(is_token_byte) => {}
            _ => return Err(TopicNameError::ByteInvalid),
        }
    }
    Ok(shape)
}

const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'@' | b':' | b'-')
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for good in ["a", "md.BTCUSDT.trade", "a_b.c-d.e:f.@g", &"x".repeat(255)] {
            assert_eq!(validate_name(good), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", TopicNameError::Empty),
            (".", TopicNameError::TokenEmpty),
            ("a..b", TopicNameError::TokenEmpty),
            (".a", TopicNameError::TokenEmpty),
            ("a.", TopicNameError::TokenEmpty),
            ("a b", TopicNameError::ByteInvalid),
            ("ü", TopicNameError::ByteInvalid),
            ("a/b", TopicNameError::ByteInvalid),
            ("a*", TopicNameError::ByteInvalid),
            ("a.>>", TopicNameError::ByteInvalid),
            ("a.*.b", TopicNameError::Wildcard),
            (">", TopicNameError::Wildcard),
            (">.a", TopicNameError::WildcardNotLast),
            (&"x".repeat(256), TopicNameError::TooLong),
        ] {
            assert_eq!(validate_name(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn patterns() {
        let pattern = |text| Pattern::parse(text).expect("a valid pattern");
        assert!(pattern("a.b").is_exact());
        assert!(!pattern("a.*").is_exact());
        assert!(!pattern("a.>").is_exact());
        assert!(pattern("a.>").matches("a.b") && pattern("a.>").matches("a.b.c"));
        assert!(!pattern("a.>").matches("a"));
        assert!(pattern("*.b").matches("a.b") && !pattern("*.b").matches("a.b.c"));
        assert!(pattern("a.b").matches("a.b") && !pattern("a.b").matches("a"));
        assert_eq!(Pattern::parse("a.>.b"), Err(TopicNameError::WildcardNotLast));
    }

    /// As simple as can be: try every way to use up the tokens.
    fn reference(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            ([first, pattern @ ..], [token, name @ ..]) => {
                (*first == "*" || first == token) && reference(pattern, name)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_reference(
            pattern in "([ab]|\\*|aa)(\\.([ab]|\\*)){0,3}(\\.>)?",
            name in "(a|b|aa)(\\.[ab]){0,4}",
        ) {
            let parsed = Pattern::parse(&pattern).expect("made by the grammar");
            let wanted: Vec<&str> = pattern.split('.').collect();
            let tokens: Vec<&str> = name.split('.').collect();
            prop_assert_eq!(parsed.matches(&name), reference(&wanted, &tokens));
        }

        #[test]
        fn overlapping_agrees_with_matching(
            one in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("*")], 1..4),
            two in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("*")], 1..4),
            tails in any::<(bool, bool)>(),
        ) {
            let pattern = |mut tokens: Vec<&'static str>, tail| {
                if tail {
                    tokens.push(">");
                }
                Pattern::parse(&tokens.join(".")).expect("a pattern")
            };
            let (one, two) = (pattern(one, tails.0), pattern(two, tails.1));
            // Every name of up to five tokens.
            let mut names = Vec::from(["a", "b"].map(String::from));
            for at in 0..30 {
                let longer = ["a", "b"].map(|token| std::format!("{}.{token}", names[at]));
                names.extend(longer);
            }
            let met = names.iter().any(|name| one.matches(name) && two.matches(name));
            prop_assert_eq!(one.overlaps(&two), met);
            prop_assert_eq!(two.overlaps(&one), met);
        }

        #[test]
        fn what_is_valid_is_what_the_grammar_says(text in "[aZ0_@:\\-.*> /é]{0,8}") {
            let tokens: Vec<&str> = text.split('.').collect();
            let plain = |token: &&str| {
                !token.is_empty() && token.chars().all(|c| c.is_ascii_alphanumeric() || "_@:-".contains(c))
            };
            let name = tokens.iter().all(plain);
            let (last, front) = tokens.split_last().expect("split gives one at least");
            let pattern = front.iter().all(|token| plain(token) || *token == "*")
                && (plain(last) || matches!(*last, "*" | ">"));
            prop_assert_eq!(validate_name(&text).is_ok(), name);
            prop_assert_eq!(Pattern::parse(&text).is_ok(), pattern);
            let shown: Option<String> = Pattern::parse(&text).ok().map(|p| std::format!("{p}"));
            prop_assert!(shown.is_none_or(|shown| shown == text));
        }
    }
}
