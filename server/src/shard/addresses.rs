//! How many connections each address has.
//!
//! Knows: addresses and the bound. Must not know: connections, or how an address was found.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
};

/// Connections by address; empty while there is no bound. Addresses are the peers' to choose, so the
/// map's hashing is keyed.
#[derive(Debug)]
pub(super) struct Addresses {
    most: u32,
    counts: HashMap<IpAddr, u32>,
}

impl Addresses {
    /// At most so many each; 0 for no bound, and then nothing is kept.
    pub(super) fn new(most: u32) -> Self {
        Self { most, counts: HashMap::new() }
    }

    /// Whether there is a bound.
    pub(super) fn are_counted(&self) -> bool {
        self.most > 0
    }

    /// Counts one more, unless that is one too many.
    pub(super) fn add(&mut self, address: IpAddr) -> bool {
        let count = self.counts.entry(whose(address)).or_insert(0);
        let fits = *count < self.most;
        *count += u32::from(fits);
        fits
    }

    /// Counts one less; it was counted before.
    pub(super) fn remove(&mut self, address: IpAddr) {
        if let Entry::Occupied(mut count) = self.counts.entry(whose(address)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Of IPv6 the first 64 bits: who has one address there has them all (RFC 4291 section 2.5.4).
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn no_address_has_more_than_the_bound_and_nothing_is_left() {
        let mut addresses = Addresses::new(2);
        for (text, fits) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2:1", true),
            ("2001:db8:0:0:ffff::", false),
            ("2001:db8:0:1::", true),
        ] {
            assert_eq!(addresses.add(address(text)), fits, "{text}");
        }
        addresses.remove(address("192.0.2.1"));
        assert!(addresses.add(address("192.0.2.1")));
        for text in
            ["192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::", "2001:db8:0:1::5"]
        {
            addresses.remove(address(text));
        }
        assert!(addresses.counts.is_empty());
    }
}
