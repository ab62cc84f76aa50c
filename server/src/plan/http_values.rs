//! Single values of what HTTP answers say, and of whom they are given to, from text.
//!
//! Knows: how people write header fields, error pages and origins, and which of them are right. Must
//! not know: which flag they stand at. An error is the end of the sentence "… is not right: ".

use uringcast_protocol::{forwarded::is_token, response::reason_phrase};

use super::values;

/// `NAME: VALUE`, to a header line with its line end.
pub(super) fn header(text: &str) -> Result<String, String> {
    let wanted = || "wants NAME: VALUE, such as 'X-Frame-Options: DENY'".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(wanted)?;
    if !is_token(name) {
        return Err(wanted());
    }
    let value = value.trim_matches(BLANK);
    // RFC 9110 section 5.5. Whatever ends a line would begin a field, or an answer, of its own.
    if value.is_empty() || value.chars().any(|c| !c.is_ascii_graphic() && !BLANK.contains(&c)) {
        return Err("wants a value of one line of ASCII".to_owned());
    }
    let lower = name.to_ascii_lowercase();
    if OURS.contains(&&*lower) || lower.starts_with("sec-websocket-") {
        return Err(format!("wants another header: {name} is the server's to say"));
    }
    if lower == "content-type" {
        return Err("wants another header: --http-error-type says what errors are".to_owned());
    }
    Ok(format!("{name}: {value}\r\n"))
}

/// `TEXT` or `*:TEXT` for every error, `404:TEXT` for one status.
pub(super) fn error_body(text: &str) -> Result<(Option<u16>, String), String> {
    let (status, body) = match text.split_once(':') {
        Some(("*", body)) => (None, body),
        Some((status, body)) if status.len() == 3 && status.parse::<u16>().is_ok() => {
            let number = status.parse().ok().filter(|number| ERRORS.contains(number));
            let known: Vec<_> = ERRORS.iter().map(ToString::to_string).collect();
            let wanted = || format!("wants a status that is answered: {}", known.join(", "));
            (Some(number.ok_or_else(wanted)?), body)
        }
        _ => (None, text),
    };
    if body.len() > ERROR_BODY_BYTES_MAX {
        return Err(format!("wants at most {} KiB", ERROR_BODY_BYTES_MAX >> 10));
    }
    Ok((status, body.to_owned()))
}

/// `text/html; charset=utf-8`
pub(super) fn content_type(text: &str) -> Result<String, String> {
    let kind = text.split(';').next().unwrap_or_default().trim_end();
    let named = kind.split_once('/').is_some_and(|(one, other)| is_token(one) && is_token(other));
    let clean = text.len() <= 255 && text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    if named && clean && text.trim() == text {
        Ok(text.to_owned())
    } else {
        Err("wants a media type such as application/json or text/html; charset=utf-8".to_owned())
    }
}

/// Whose pages may connect: `*`, a host, `*.` and a domain, or one of these after a scheme, with a
/// port or without.
pub(super) fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let Some((scheme, authority)) = text.split_once("://") else {
        return values::host(text).map_err(|_| ORIGIN_WANTED.to_owned());
    };
    let (host, port) = match authority.rsplit_once(':') {
        // Of an address in brackets the last colon is not the port's.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let scheme_good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let port_good = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0)
    });
    if scheme_good && port_good && values::host(host).is_ok() {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(ORIGIN_WANTED.to_owned())
    }
}

const ORIGIN_WANTED: &str = "wants a host such as example.com or *.example.com, an origin such as \
                             https://example.com:8443, or * for all; without a path";

const BLANK: [char; 2] = [' ', '\t'];

/// What an answer's framing and meaning hang on.
const OURS: &[&str] = &[
    "allow",
    "connection",
    "content-encoding",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "retry-after",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The statuses of refusals.
const ERRORS: &[u16] = &[400, 403, 404, 405, 408, 426, 429, 431, 503, 505];

/// The longest body as it is written, bytes. `{error}`, the longest that is filled in, makes at most
/// nine bytes of each of these.
const ERROR_BODY_BYTES_MAX: usize = 8 << 10;

const _: () = {
    let mut index = 0;
    while index < ERRORS.len() {
        assert!(!reason_phrase(ERRORS[index]).is_empty());
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    use uringcast_protocol::Refusal;

    use super::*;

    #[test]
    fn headers() {
        assert_eq!(header("X-A:b").as_deref(), Ok("X-A: b\r\n"));
        assert_eq!(header("Server: \tr: b\t").as_deref(), Ok("Server: r: b\r\n"));
        for bad in [
            "",
            "X-A",
            ": b",
            "X A: b",
            "X-A : b",
            "X-A:",
            "X-A: a\r\nB: c",
            "X-A: a\nb",
            "X-A: a\0",
            "X-A: ü",
            "Ü: b",
            "connection: close",
            "UPGRADE: h2c",
            "Content-Length: 5",
            "transfer-encoding: chunked",
            "Sec-WebSocket-Accept: x",
            "Content-Type: text/html",
        ] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn error_bodies() {
        assert_eq!(error_body("404:gone"), Ok((Some(404), "gone".to_owned())));
        assert_eq!(error_body("*:404:x"), Ok((None, "404:x".to_owned())));
        for all in ["see: {error}", "", "{\"a\":1}", "4044:x"] {
            assert_eq!(error_body(all), Ok((None, all.to_owned())));
        }
        assert!(error_body("200:fine").is_err() && error_body("999:x").is_err());
        assert!(error_body(&"x".repeat(ERROR_BODY_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn every_refusal_can_have_a_body_of_its_own() {
        assert!(Refusal::ALL.iter().all(|refusal| ERRORS.contains(&refusal.status())));
        assert!(ERRORS.iter().all(|&error| Refusal::ALL.iter().any(|r| r.status() == error)));
        // `{error}` is seven bytes; see the bound.
        assert!(Refusal::ALL.iter().all(|refusal| refusal.to_string().len() <= 7 * 9));
    }

    #[test]
    fn content_types() {
        for good in ["text/plain", "text/html; charset=utf-8", "application/problem+json"] {
            assert_eq!(content_type(good).as_deref(), Ok(good));
        }
        for bad in ["", "text", "text/", "text/plain\r\nX: y", " text/plain", "te xt/plain"] {
            assert!(content_type(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn origins() {
        for good in [
            "*",
            "a.example",
            "*.a.example",
            "https://A.example",
            "http://*.a.example",
            "http://[::1]",
            "http://[::1]:8080",
            "https://a.example:8443",
            "chrome-extension://abc",
        ] {
            assert_eq!(origin(good), Ok(good.to_ascii_lowercase()), "{good}");
        }
        for bad in [
            "",
            "null",
            "https://",
            "https://a.example/",
            "https://a.example:0",
            "https://a:x",
            "://a",
            "1http://a",
            "https://a:+1",
            "a.example:80",
            "https://*",
        ] {
            let found = origin(bad);
            assert!(found.is_err() || bad == "null", "{bad}: {found:?}");
        }
    }
}
