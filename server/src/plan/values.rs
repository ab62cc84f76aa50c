//! Single values, from text.
//!
//! Knows: how people write numbers, sizes, times and addresses. Must not know: which flag
//! they stand at. An error is the end of the sentence "… is not right: ".

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::journal::Fsync;

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "wants an IP address and a port, such as 127.0.0.1:9001".to_owned())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    choice(text, &[("true", true), ("false", false)])
}

pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(name, _)| *name == text).map(|&(_, value)| value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|&(name, _)| name).collect();
        format!("wants {}", names.join(" or "))
    })
}

pub(super) fn number<T>(text: &str, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: Copy + Into<u64> + TryFrom<u64>,
{
    let (least, most) = ((*range.start()).into(), (*range.end()).into());
    text.parse::<u64>()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("wants a whole number from {least} to {most}"))
}

pub(super) fn power_of_two(text: &str, range: &RangeInclusive<u32>) -> Result<u32, String> {
    number(text, range)
        .ok()
        .filter(|number| number.is_power_of_two())
        .ok_or_else(|| format!("wants a power of two from {} to {}", range.start(), range.end()))
}

pub(super) fn bytes<T: TryFrom<u64>>(text: &str, range: &RangeInclusive<u64>) -> Result<T, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim_start() {
        "" | "B" => Some(1),
        "kB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    unit.zip(digits.parse::<u64>().ok())
        .and_then(|(unit, number): (u64, _)| number.checked_mul(unit))
        .filter(|bytes| range.contains(bytes))
        .and_then(|bytes| T::try_from(bytes).ok())
        .ok_or_else(|| {
            format!(
                "wants bytes from {} to {}, as a number with or without kB, MB, GB, KiB, MiB, GiB",
                shown(*range.start()),
                shown(*range.end())
            )
        })
}

pub(super) fn time(text: &str, range_ms: &RangeInclusive<u64>) -> Result<Duration, String> {
    let least = Duration::from_millis(*range_ms.start());
    let most = Duration::from_millis(*range_ms.end());
    humantime::parse_duration(text).ok().filter(|time| (least..=most).contains(time)).ok_or_else(
        || {
            format!(
                "wants a time from {} to {}, with its unit: 25s, 5ms, 2m",
                humantime::format_duration(least),
                humantime::format_duration(most)
            )
        },
    )
}

/// A directory, which need not be there.
pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if text.is_empty() || text.contains('\0') || path.is_file() {
        return Err("wants a directory, or a name for one to be made".to_owned());
    }
    Ok(path)
}

pub(super) fn fsync(text: &str) -> Result<Fsync, String> {
    match text {
        "always" => Ok(Fsync::Always),
        "off" => Ok(Fsync::Off),
        _ => time(text, &FSYNC_MS)
            .map(Fsync::Every)
            .map_err(|_| "wants always, off or a time from 1ms to 1m, such as 100ms".to_owned()),
    }
}

/// `0,1,4-7`; each must be one that the process may run on.
pub(super) fn cpus(text: &str, allowed: &[usize]) -> Result<Vec<usize>, String> {
    let wanted = || format!("wants cores out of {}, as a list such as 0,1 or 0-3", ranges(allowed));
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first = first.trim().parse::<usize>().map_err(|_| wanted())?;
        let last = last.trim().parse::<usize>().map_err(|_| wanted())?;
        // Bounded before it is walked: the list can't be longer than what is allowed.
        if first > last || last - first >= allowed.len() || cpus.len() >= CPUS_MAX {
            return Err(wanted());
        }
        cpus.extend(first..=last);
    }
    if cpus.iter().all(|cpu| allowed.contains(cpu)) { Ok(cpus) } else { Err(wanted()) }
}

/// A host's name, or `*.` and a domain; no scheme, no port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let good = !name.is_empty()
        && name.len() <= 253
        && (address.parse::<std::net::IpAddr>().is_ok()
            || name.split('.').all(|label| {
                !label.is_empty()
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            }));
    if good {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("wants a host such as example.com or *.example.com, without scheme and port".to_owned())
    }
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let host = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|_| host())
        .map_err(|_| "wants an address and its bits, such as 10.0.0.0/8".to_owned())
}

/// In the largest unit that divides it.
fn shown(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = |&&(unit, _): &&(u64, &str)| bytes >= unit && bytes.is_multiple_of(unit);
    match units.iter().find(fits) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// `0-3,8`.
pub(super) fn ranges(sorted: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &cpu in sorted {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let one = |&(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    parts.iter().map(one).collect::<Vec<_>>().join(",")
}

const FSYNC_MS: RangeInclusive<u64> = 1..=60_000;
const CPUS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let any = 0..=u64::MAX;
        for (text, wanted) in
            [("0", 0), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("2kB", 2_000), ("3B", 3)]
        {
            assert_eq!(bytes::<u64>(text, &any), Ok(wanted), "{text}");
        }
        for text in
            ["", "KiB", "-1", "1.5MiB", "64kib", "64 K", "99999999999999999999", "17179869184TiB"]
        {
            assert!(bytes::<u64>(text, &any).is_err(), "{text}");
        }
        let error = bytes::<u32>("5", &(1024..=1 << 20)).expect_err("too small");
        assert!(error.starts_with("wants bytes from 1KiB to 1MiB"), "{error}");
    }

    #[test]
    fn cores() {
        assert_eq!(cpus("0,2-3", &[0, 1, 2, 3]), Ok(vec![0, 2, 3]));
        assert_eq!(cpus("1,1", &[0, 1]), Ok(vec![1, 1]));
        for text in ["", "a", "3-1", "0-", "4", "0-18446744073709551615"] {
            let error = cpus(text, &[0, 1, 3]).expect_err(text);
            assert!(error.starts_with("wants cores out of 0-1,3,"), "{text}: {error}");
        }
    }

    #[test]
    fn hosts() {
        for good in ["example.com", "*.example.com", "localhost", "192.0.2.1", "[::1]", "a_b"] {
            assert!(host(good).is_ok(), "{good}");
        }
        for bad in ["", "*", "*.", "https://example.com", "example.com:80", "a..b", "a b"] {
            assert!(host(bad).is_err(), "{bad}");
        }
        assert_eq!(host("Example.COM"), Ok("example.com".to_owned()));
    }

    #[test]
    fn networks() {
        assert!(network("10.0.0.0/8").is_ok() && network("::1").is_ok());
        assert!(network("10.0.0.0/33").is_err() && network("ten").is_err());
    }
}
