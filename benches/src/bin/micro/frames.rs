//! A frame's header, both ways.

use std::hint::black_box;

use uringcast_benches::suite::{Group, Suite};
use uringcast_protocol::{Header, Opcode, limits::HEADER_BYTES_MAX};

pub(crate) fn run(suite: &Suite) {
    let lengths = [("7 bits", 100), ("16 bits", 1_000), ("64 bits", 100_000)];
    let headers = lengths.map(|(name, payload_bytes)| {
        let mask = Some([0x37, 0xFA, 0x21, 0x3D]);
        (name, Header { fin: true, rsv1: false, opcode: Opcode::Text, mask, payload_bytes })
    });
    let mut decode = Group::new("frame header: decode, masked");
    let mut encode = Group::new("frame header: encode, unmasked");
    for (name, header) in headers {
        let mut bytes = [0; HEADER_BYTES_MAX];
        header.encode(&mut bytes);
        decode = decode.case(name, move || Header::decode(black_box(&bytes)));
        let unmasked = Header { mask: None, ..header };
        encode = encode.case(name, move || {
            let mut out = [0; HEADER_BYTES_MAX];
            black_box(unmasked).encode(&mut out);
            out
        });
    }
    suite.run(decode);
    suite.run(encode);
}
