//! Whether there are descriptors and files for as many connections.
//!
//! Knows: that rings have tables of their own, each bounded by the process's limit. Must not know: where
//! facts are read.

use super::{
    check::{AS_ROOT, Check, DOCKER, SYSTEMD, count, limit, several},
    facts::Facts,
    wanted::Wanted,
};

pub(super) fn open_files(facts: &Facts, wanted: &Wanted) -> Check {
    let hard = facts.nofile.hard.unwrap_or(u64::MAX);
    let found = format!(
        "soft {}, hard {}",
        limit(facts.nofile.soft, count),
        limit(facts.nofile.hard, count)
    );
    let check = Check::ok("RLIMIT_NOFILE", found);
    if wanted.files_short {
        return too_few(check, hard, wanted);
    }
    if facts.ring.is_err() {
        // There is no telling whose the connections' descriptors would be.
        return check;
    }
    let why = if wanted.direct { each_its_own(hard, wanted) } else { one_for_all(wanted) };
    let check = check.why(why);
    if wanted.asked || hard >= OPEN_FILES_WANTED { check } else { fixes(check.note()) }
}

/// `serve` refuses it as wrong use.
fn too_few(check: Check, hard: u64, wanted: &Wanted) -> Check {
    let reactors = wanted.reactors as u64;
    let (share, of_all) = if wanted.direct { (hard, 1) } else { (hard / reactors, reactors) };
    // Unasked, the server keeps a twentieth back, and accepts must fit into that.
    let connections = if wanted.asked { wanted.connections_max } else { usual(share) };
    let check = fixes(check.stops().why(format!(
        "serve does not start: {} connections per reactor and {} accepts want a hard limit of {}",
        count(connections),
        wanted.accepts,
        count((connections + wanted.accepts) * of_all)
    )));
    if share > wanted.accepts {
        let most = share - wanted.accepts;
        check.fix("on the command line", format!("--connections-max {most}"))
    } else {
        check
    }
}

/// Direct descriptors: the limit is that of each ring's table.
fn each_its_own(hard: u64, wanted: &Wanted) -> String {
    let take = |connections: u64| match connections.div_ceil(usual(hard)) {
        reactors @ 0..=REACTORS_MAX => {
            format!("{} take {}", count(connections), several(reactors, "reactor"))
        }
        _ => format!("{} are more than {REACTORS_MAX} can take", count(connections)),
    };
    format!(
        "{} connections per reactor, {} with {}; {}, {}",
        count(wanted.connections_max),
        count(wanted.connections()),
        several(wanted.reactors as u64, "reactor"),
        take(100_000),
        take(1_000_000)
    )
}

/// Descriptors of the process: there are no more for more reactors.
fn one_for_all(wanted: &Wanted) -> String {
    format!(
        "{} connections in all, however many reactors: on this kernel tier connections are \
         descriptors of the process (direct ones, a table for each reactor, from Linux 6.13)",
        count(wanted.connections())
    )
}

/// What is left for connections, and at most what the server takes unasked.
fn usual(hard: u64) -> u64 {
    (hard / 20 * 19).clamp(1, 1_000_000)
}

fn fixes(check: Check) -> Check {
    check
        .fix(SYSTEMD, format!("LimitNOFILE={OPEN_FILES_WANTED}"))
        .fix(DOCKER, format!("--ulimit nofile={OPEN_FILES_WANTED}:{OPEN_FILES_WANTED}"))
        .fix(AS_ROOT, format!("ulimit -n {OPEN_FILES_WANTED}"))
}

/// No limit of open files can be higher.
pub(super) fn open_files_most(facts: &Facts) -> Option<Check> {
    let most = facts.nr_open?;
    let check = Check::ok("fs.nr_open", count(most));
    Some(if most < OPEN_FILES_WANTED {
        check
            .note()
            .why("RLIMIT_NOFILE can't be set higher")
            .fix_sysctl("fs.nr_open", OPEN_FILES_WANTED)
    } else {
        check
    })
}

/// Every socket is a file of the system, direct descriptor or not.
pub(super) fn files_of_all(facts: &Facts, wanted: &Wanted) -> Option<Check> {
    let files = facts.file_max?;
    let found = format!("{} ({} open)", limit_of_all(files.most), count(files.used));
    let check = Check::ok("fs.file-max", found);
    let connections = wanted.connections();
    Some(if files.left() < connections {
        check
            .short_of(wanted.asked)
            .why(format!(
                "connections of all processes end at {}, not at {}",
                count(files.left()),
                count(connections)
            ))
            .fix_sysctl("fs.file-max", files.used + connections + connections / 4)
    } else {
        check
    })
}

/// systemd sets it to the largest number there is.
fn limit_of_all(most: u64) -> String {
    limit(Some(most).filter(|&most| most < 1 << 62), count)
}

/// What a ring's table of direct descriptors can hold, and what `fs.nr_open` is by default.
const OPEN_FILES_WANTED: u64 = 1 << 20;
/// As in `plan`.
const REACTORS_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        Verdict,
        facts::{Limits, Use, tests::well},
        tests::wanted,
    };

    fn judged(hard: u64, wanted: &Wanted) -> Check {
        let nofile = Limits { soft: Some(1_024), hard: Some(hard) };
        open_files(&Facts { nofile, ..well() }, wanted)
    }

    #[test]
    fn a_low_limit_says_how_many_reactors_would_do() {
        let check = judged(20_000, &Wanted { connections_max: 19_000, ..wanted() });
        assert_eq!((check.verdict, check.stops), (Verdict::Note, false));
        assert_eq!(
            check.why,
            "19,000 connections per reactor, 38,000 with 2 reactors; 100,000 take 6 reactors, \
             1,000,000 take 53 reactors"
        );
        assert_eq!(check.fixes[0].line, "LimitNOFILE=1048576");
        let low = judged(4_096, &Wanted { connections_max: 3_876, ..wanted() });
        assert!(low.why.contains("1,000,000 are more than 64 can take"), "{}", low.why);
    }

    #[test]
    fn a_high_limit_or_one_that_suffices_is_well() {
        assert_eq!(judged(1 << 20, &wanted()).verdict, Verdict::Ok);
        let asked = Wanted { connections_max: 10_000, asked: true, ..wanted() };
        assert_eq!(judged(20_000, &asked).verdict, Verdict::Ok);
    }

    #[test]
    fn what_serve_refuses_stops_it() {
        let asked = Wanted { connections_max: 50_000, asked: true, files_short: true, ..wanted() };
        let check = judged(20_000, &asked);
        assert!(check.stops && check.why.contains("a hard limit of 50,128"), "{}", check.why);
        assert_eq!(check.fixes[3].line, "--connections-max 19872");
        let unasked = judged(64, &Wanted { files_short: true, ..wanted() });
        assert!(unasked.stops && unasked.why.contains("57 connections"), "{}", unasked.why);
        assert_eq!(unasked.fixes.len(), 3);
    }

    #[test]
    fn reactors_share_the_limit_where_descriptors_are_the_process_s() {
        let shared = Wanted { direct: false, connections_max: 9_500, ..wanted() };
        let check = judged(20_000, &shared);
        assert!(check.why.starts_with("19,000 connections in all"), "{}", check.why);
        let asked = Wanted { connections_max: 10_000, asked: true, files_short: true, ..shared };
        let check = judged(20_000, &asked);
        assert!(check.why.contains("a hard limit of 20,256"), "{}", check.why);
        assert_eq!(check.fixes[3].line, "--connections-max 9872");
    }

    #[test]
    fn the_system_s_own_bounds_are_told() {
        let low = open_files_most(&Facts { nr_open: Some(65_536), ..well() }).expect("told");
        assert_eq!(low.fixes[0].line, "sysctl -w fs.nr_open=1048576");
        let file_max = Some(Use { most: 10_000, used: 2_000 });
        let few = files_of_all(&Facts { file_max, ..well() }, &wanted()).expect("told");
        assert_eq!(few.verdict, Verdict::Note);
        assert!(few.why.contains("end at 8,000"), "{}", few.why);
        assert_eq!(limit_of_all(i64::MAX as u64), "none");
    }
}
