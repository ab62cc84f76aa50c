//! Unmasking, between the byte loop of the RFC and a plain copy.

use std::{array, hint::black_box};

use uringcast_benches::suite::{Group, Suite};
use uringcast_protocol::mask::{mask_bytewise, mask_in_place, mask_into};

pub(crate) fn run(suite: &Suite) {
    for bytes in [64, 128, 1 << 10, 16 << 10, 64 << 10, 1 << 20] {
        let name = format!("unmask {bytes} B");
        if !suite.wants(&name) {
            continue;
        }
        // One byte in: a payload begins wherever its header ends, seldom on a word.
        let mut buffers: [Vec<u8>; 6] =
            array::from_fn(|place| vec![0x5A; 1 + place * APART_BYTES + bytes]);
        let mut slices = buffers.each_mut().map(|buffer| {
            let start = buffer.len() - bytes;
            &mut buffer[start..]
        });
        let [source, copied, out_of_place, in_place, out_bytewise, in_place_bytewise] = &mut slices;
        let source: &[u8] = source;
        suite.run(
            Group::new(name)
                .bytes(bytes as u64)
                .case("memcpy", || copied.copy_from_slice(black_box(source)))
                .case("words, out of place", || {
                    mask_into(black_box(source), black_box(out_of_place), black_box(KEY), 1)
                })
                .case("words, in place", || mask_in_place(black_box(in_place), black_box(KEY), 1))
                .case("bytes, out of place", || {
                    let key = black_box(KEY);
                    let pairs = black_box(source).iter().zip(black_box(&mut **out_bytewise));
                    for (offset, (from, to)) in pairs.enumerate() {
                        *to = from ^ key[(offset + 1) & 3];
                    }
                })
                .case("bytes, in place", || {
                    mask_bytewise(black_box(in_place_bytewise), black_box(KEY), 1)
                }),
        );
    }
}

/// Buffers whose addresses agree in their low twelve bits make the processor take a load for a store
/// that is still under way: a copy is ten times slower then. So each begins elsewhere in its page.
const APART_BYTES: usize = 576;
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
