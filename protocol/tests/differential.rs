//! The session against the plain decoder: the same input, the same messages, the same end.

mod heard;
mod plain;

use proptest::prelude::*;
use uringcast_protocol::PeerError;

use crate::{
    heard::receive,
    plain::{Agreed, End},
};

const fn agreed(masked: bool, deflate: bool) -> Agreed {
    // A compressed message may be an eighth larger, and 64 bytes.
    Agreed { masked, deflate, message_bytes_max: 200, deflated_bytes_max: 200 + 25 + 64 }
}

/// Both decoders, on all of it and in pieces.
fn compare(agreed: Agreed, input: &[u8], sizes: &[usize]) -> Result<(), TestCaseError> {
    let (said, end) = plain::decode(input, agreed);
    for sizes in [&[usize::MAX], &[1], sizes] {
        let (heard, outcome) = receive(agreed, input, sizes);
        prop_assert_eq!(&heard, &said, "pieces of {:?}", sizes);
        match end {
            End::Wrong(wrong) => {
                let code = outcome.map_err(|error| error.close_code().value());
                prop_assert_eq!(code, Err(wrong.close_code), "pieces of {:?}", sizes);
                let not_minimal = outcome == Err(PeerError::LengthNotMinimal);
                prop_assert_eq!(not_minimal, wrong.length_not_minimal);
                let too_long = outcome == Err(PeerError::ControlTooLong);
                prop_assert_eq!(too_long, wrong.control_extended);
            }
            End::Input | End::Closed => prop_assert_eq!(outcome, Ok(())),
        }
    }
    Ok(())
}

/// Bytes that look like frames: most of them right in most of their parts.
fn almost_frames(masked: bool) -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        6 => prop::sample::select(vec![0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1, 0x42_u8]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        4 => "\\PC{0,20}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..20),
        1 => prop::collection::vec(any::<u8>(), 120..320),
        1 => (1000..1020_u16, "\\PC{0,5}")
            .prop_map(|(code, reason)| [&code.to_be_bytes(), reason.as_bytes()].concat()),
    ];
    // How the length is written: as it should be, or as one of the longer forms.
    let form = prop_oneof![8 => Just(0), 1 => Just(2), 1 => Just(8_usize)];
    let mask = prop::bool::weighted(0.03).prop_map(move |wrong| masked != wrong);
    let frame = (first, form, mask, any::<[u8; 4]>(), payload).prop_map(
        |(first, form, masked, key, payload)| {
            let bit = if masked { 0x80 } else { 0 };
            let length = payload.len() as u64;
            let mut bytes = vec![first];
            match form {
                0 if length < 126 => bytes.push(bit | length as u8),
                0 | 2 => {
                    bytes.push(bit | 126);
                    bytes.extend((length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(bit | 127);
                    bytes.extend(length.to_be_bytes());
                }
            }
            let key = if masked { key } else { [0; 4] };
            bytes.extend(&key[..if masked { 4 } else { 0 }]);
            bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
            bytes
        },
    );
    (prop::collection::vec(frame, 0..6), any::<prop::sample::Index>(), prop::bool::weighted(0.3))
        .prop_map(|(frames, at, cut)| {
            let mut bytes = frames.concat();
            if cut && !bytes.is_empty() {
                bytes.truncate(at.index(bytes.len()));
            }
            bytes
        })
}

proptest! {
    #[test]
    fn frames_of_clients(
        input in almost_frames(true),
        sizes in prop::collection::vec(1..40_usize, 1..4),
        deflate in any::<bool>(),
    ) {
        compare(agreed(true, deflate), &input, &sizes)?;
    }

    #[test]
    fn frames_of_servers(
        input in almost_frames(false),
        sizes in prop::collection::vec(1..40_usize, 1..4),
        deflate in any::<bool>(),
    ) {
        compare(agreed(false, deflate), &input, &sizes)?;
    }
}
