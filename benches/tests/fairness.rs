//! Nobody waits for more than a slice of others: the bounds, with everything smaller than in
//! `fairness`, but lanes that are many slices long all the same.

use uringcast_benches::fairness::{Among, Arrival, Beside, Served};

#[test]
fn a_small_lane_waits_for_one_slice_of_a_large_one_at_most() {
    for arrival in [Arrival::Close, Arrival::Chance(8)] {
        let case =
            Beside { large: 3_000, small: 10, publications: 500, payload_bytes: 128, arrival };
        let waits = case.run();
        assert_eq!(waits.idle_ticks, 0, "the large lane always waits");
        assert_eq!(waits.sends.len(), 5_000, "everyone gets everything");
        let longest = waits.sends.last().copied();
        assert!(longest <= Some(SLICE_SENDS), "{arrival:?}: {longest:?} sends to others");
        if arrival == Arrival::Close {
            let median = waits.sends[waits.sends.len() / 2];
            assert_eq!(median, SLICE_SENDS, "after its own slice it is the others' turn");
        }
    }
}

#[test]
fn a_slice_of_large_messages_is_bounded_by_bytes() {
    let arrival = Arrival::Close;
    let case =
        Beside { large: 3_000, small: 10, publications: 100, payload_bytes: 60_000, arrival };
    let waits = case.run();
    assert_eq!((waits.idle_ticks, waits.sends.len()), (0, 1_000));
    let longest = waits.bytes.last().copied();
    // The visit that reaches the bound is made.
    assert!(longest < Some(SLICE_BYTES + VISIT_BYTES), "{longest:?} bytes to others");
    assert!(longest >= Some(SLICE_BYTES), "{longest:?}: there was a whole slice in between");
}

#[test]
fn lanes_of_one_and_a_lane_of_many_have_every_other_slice() {
    let (ones, many, slices) = (3_000, 2_000, 200);
    let shares = Among { ones, many, slices }.run();
    assert_eq!(shares.idle_ticks, 0);
    for (name, subscribers, served) in [("ones", ones, &shares.ones), ("many", many, &shares.many)]
    {
        assert_eq!(served.sends, slices / 2 * SLICE_SENDS, "{name}: half of all");
        assert_eq!(served.wait_max, SLICE_SENDS, "{name}");
        never_longer_than_twice_a_round(name, subscribers, served);
    }
}

/// Half of the sends are theirs, so a round takes twice as many sends as they are.
fn never_longer_than_twice_a_round(name: &str, subscribers: u32, served: &Served) {
    let most = 2 * u64::from(subscribers) + SLICE_SENDS;
    assert!(served.rotation_max <= most, "{name}: {} of at most {most}", served.rotation_max);
    let visits = served.sends / u64::from(subscribers);
    assert!(served.visits_min >= visits, "{name}: {} of at least {visits}", served.visits_min);
}

/// A slice, as the design has it.
const SLICE_SENDS: u64 = 256;
const SLICE_BYTES: u64 = 1 << 20;
const VISIT_BYTES: u64 = 64 << 10;
