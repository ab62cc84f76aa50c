//! Signals and ends. One test at a time: a signal reaches the whole process.

mod control_rig;

use std::{sync::atomic::Ordering::Release, time::Duration};

use control_rig::{Manner, Rig};
use rustix::process::{Signal, getpid, kill_process};
use uringcast::{control::Outcome, settings::Settings, shared::Stage};

#[test]
fn a_life() {
    a_signal_drains_and_a_second_one_does_not_wait();
    one_signal_is_enough_when_shards_end();
    a_shard_that_ends_unasked_ends_the_process();
    a_reactor_that_fails_wakes_the_others();
    shards_that_do_not_end_are_left_behind();
}

fn signal(signal: Signal) {
    kill_process(getpid(), signal).expect("it is our own process");
}

fn a_signal_drains_and_a_second_one_does_not_wait() {
    let rig = Rig::start(2, Settings::default(), Manner::Stuck);
    signal(Signal::TERM);
    rig.wait_for("draining", || rig.shared.stage() == Stage::Draining);
    assert_eq!(rig.get("/readyz").status, 503);
    assert_eq!(rig.get("/healthz").status, 200);
    let reply = rig.request("POST", "/v1/topics/a", "", b"1");
    assert_eq!((reply.status, reply.code().as_str()), (503, "busy"));
    // One signal counts once, however long draining takes.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rig.shared.stage(), Stage::Draining);
    signal(Signal::INT);
    let (outcome, _) = rig.join();
    assert_eq!((outcome, outcome.exit_code()), (Outcome::Aborted, 1));
}

fn one_signal_is_enough_when_shards_end() {
    let rig = Rig::start(2, Settings::default(), Manner::Good);
    signal(Signal::INT);
    let (outcome, _) = rig.join();
    assert_eq!((outcome, outcome.exit_code()), (Outcome::Drained, 0));
}

fn a_shard_that_ends_unasked_ends_the_process() {
    let rig = Rig::start(2, Settings::default(), Manner::Good);
    rig.shared.ended[1].store(true, Release);
    let (outcome, _) = rig.join();
    assert_eq!((outcome, outcome.exit_code()), (Outcome::ShardFailed, 1));
}

/// They slept on, for as long as they had nothing to do.
fn a_reactor_that_fails_wakes_the_others() {
    let rig = Rig::start(2, Settings::default(), Manner::Good);
    // As its thread does; it has no bells.
    rig.shared.advance(Stage::Aborting);
    let (outcome, _) = rig.join();
    assert_eq!(outcome, Outcome::Drained);
}

fn shards_that_do_not_end_are_left_behind() {
    let rig = Rig::start(1, Settings::default(), Manner::Stuck);
    let (outcome, _) = rig.end();
    assert_eq!((outcome, outcome.exit_code()), (Outcome::DrainTimeout, 1));
}
