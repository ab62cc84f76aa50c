//! DEFLATE decompressed bit by bit, as RFC 1951 has it, for tests.
//!
//! Knows: RFC 1951. Must not know: the library, which keeps a window of 32 KiB whatever it is told and
//! so cannot show that a smaller one is enough.

/// What a compressed message holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Puffed {
    pub(super) message: Vec<u8>,
    /// How far back its furthest reference reaches, bytes.
    pub(super) distance_max: usize,
}

/// Decompresses a message that its sender has cut the last four bytes off. `None` if it is invalid.
pub(super) fn puff(compressed: &[u8]) -> Option<Puffed> {
    let whole = [compressed, &super::SYNC_FLUSH_TAIL].concat();
    let mut bits = Bits { bytes: &whole, at: 0 };
    let mut puffed = Puffed { message: Vec::new(), distance_max: 0 };
    while bits.at < whole.len() * 8 {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut puffed)?,
            1 => coded(&mut bits, &mut puffed, &fixed_literals(), &Codes::new(&[5; 30]))?,
            2 => {
                let (literals, distances) = dynamic(&mut bits)?;
                coded(&mut bits, &mut puffed, &literals, &distances)?;
            }
            _ => return None,
        }
        if last {
            bits.align();
        }
    }
    Some(puffed)
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<usize> {
        let mut value = 0;
        for place in 0..count {
            let bit = self.bytes.get(self.at / 8)? >> (self.at % 8) & 1;
            value |= usize::from(bit) << place;
            self.at += 1;
        }
        Some(value)
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}

/// A Huffman code: how many codes there are of each length, and their symbols in order.
struct Codes {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Codes {
    fn new(lengths: &[usize]) -> Self {
        let mut counts = [0; 16];
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|&s| lengths[s] != 0).collect();
        symbols.sort_by_key(|&symbol| lengths[symbol]);
        for &symbol in &symbols {
            counts[lengths[symbol]] += 1;
        }
        Self { counts, symbols }
    }

    fn take(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1)?;
            if code < first + count {
                return self.symbols.get(index + code - first).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

fn stored(bits: &mut Bits<'_>, puffed: &mut Puffed) -> Option<()> {
    bits.align();
    let (length, complement) = (bits.take(16)?, bits.take(16)?);
    if length ^ complement != 0xFFFF {
        return None;
    }
    for _ in 0..length {
        puffed.message.push(bits.take(8)? as u8);
    }
    Some(())
}

/// RFC 1951 section 3.2.6.
fn fixed_literals() -> Codes {
    let length = |symbol| match symbol {
        0..=143 => 8,
        144..=255 => 9,
        256..=279 => 7,
        _ => 8,
    };
    Codes::new(&(0..288).map(length).collect::<Vec<_>>())
}

/// RFC 1951 section 3.2.7.
fn dynamic(bits: &mut Bits<'_>) -> Option<(Codes, Codes)> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let literals = bits.take(5)? + 257;
    let distances = bits.take(5)? + 1;
    let of_lengths = bits.take(4)? + 4;
    let mut lengths = [0; 19];
    for &place in &ORDER[..of_lengths] {
        lengths[place] = bits.take(3)?;
    }
    let of_lengths = Codes::new(&lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match of_lengths.take(bits)? {
            16 => (*lengths.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    let both = lengths.get(..literals + distances)?;
    Some((Codes::new(&both[..literals]), Codes::new(&both[literals..])))
}

/// RFC 1951 section 3.2.5.
fn coded(
    bits: &mut Bits<'_>,
    puffed: &mut Puffed,
    literals: &Codes,
    distances: &Codes,
) -> Option<()> {
    loop {
        let symbol = literals.take(bits)?;
        match symbol {
            0..=255 => puffed.message.push(symbol as u8),
            256 => return Some(()),
            _ => {
                let length = match symbol - 257 {
                    28 => 258,
                    code => 3 + extended(bits, code, 4)?,
                };
                let code = distances.take(bits)?;
                let distance = 1 + extended(bits, code, 2)?;
                let start = puffed.message.len().checked_sub(distance)?;
                for at in start..start + length {
                    puffed.message.push(puffed.message[at]);
                }
                puffed.distance_max = puffed.distance_max.max(distance);
            }
        }
    }
}

/// Lengths and distances alike: `per_step` codes for each further extra bit, the first of them two
/// steps' worth without any.
fn extended(bits: &mut Bits<'_>, code: usize, per_step: usize) -> Option<usize> {
    if code < 2 * per_step {
        return Some(code);
    }
    let extra = code / per_step - 1;
    Some(((per_step + code % per_step) << extra) + bits.take(extra)?)
}
