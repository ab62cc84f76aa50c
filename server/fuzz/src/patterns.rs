//! Topic names and patterns, against a grammar and a matcher as plain as can be.
//!
//! Knows: the grammar. Must not know: who subscribes.
//!
//! Input: a pattern, a line feed, a name.

use uringcast_protocol::topic_name::{Pattern, validate_name};

/// What is valid, what it prints as, what it matches.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, name) = text.split_once('\n').unwrap_or((text, text));
    for text in [pattern, name] {
        assert_eq!(validate_name(text).is_ok(), is_name(text), "{text:?}");
        assert_eq!(Pattern::parse(text).is_ok(), is_pattern(text), "{text:?}");
    }
    let Ok(parsed) = Pattern::parse(pattern) else { return };
    let shown = parsed.to_string();
    assert_eq!((shown.as_str(), parsed.as_str()), (pattern, pattern));
    assert_eq!(Pattern::parse(&shown), Ok(parsed.clone()));
    assert_eq!(parsed.is_exact(), is_name(pattern));
    if parsed.is_exact() {
        assert!(parsed.matches(pattern));
    }
    if is_name(name) {
        let (wanted, tokens): (Vec<&str>, Vec<&str>) =
            (pattern.split('.').collect(), name.split('.').collect());
        assert_eq!(parsed.matches(name), matches(&wanted, &tokens), "{pattern:?} {name:?}");
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= 255 && text.split('.').all(is_token)
}

fn is_pattern(text: &str) -> bool {
    let (front, last) = match text.rsplit_once('.') {
        Some((front, last)) => (Some(front), last),
        None => (None, text),
    };
    let any = |token: &str| is_token(token) || token == "*";
    text.len() <= 255
        && front.is_none_or(|front| front.split('.').all(any))
        && (any(last) || last == ">")
}

fn is_token(token: &str) -> bool {
    !token.is_empty() && token.chars().all(|c| c.is_ascii_alphanumeric() || "_@:-".contains(c))
}

/// Token by token.
fn matches(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        ([wanted, pattern @ ..], [token, name @ ..]) => {
            (*wanted == "*" || wanted == token) && matches(pattern, name)
        }
        _ => false,
    }
}
