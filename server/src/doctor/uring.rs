//! Whether io_uring may be used, and what it has here.
//!
//! Knows: each refusal's line that mends it. Must not know: where facts are read.

use uringcast_ring::RingError;

use super::{
    check::{AS_ROOT, Check, DOCKER, SYSTEMD, bytes, limit, several},
    facts::{Facts, Limits},
    wanted::Wanted,
};

pub(super) fn kernel(facts: &Facts) -> Check {
    Check::ok("kernel", facts.kernel.clone())
}

/// By trying: nothing else tells all refusals.
pub(super) fn allowed(facts: &Facts) -> Check {
    let check = |found: &str| Check::ok("io_uring", found);
    match &facts.ring {
        Ok(_) => match facts.io_uring_disabled {
            Some(1) => check("only for CAP_SYS_ADMIN and one group")
                .note()
                .why(format!(
                    "kernel.io_uring_disabled is 1 and kernel.io_uring_group {}: this user may, a \
                     service's may not",
                    facts.io_uring_group.unwrap_or(-1)
                ))
                .fix_sysctl("kernel.io_uring_group", "$(id -g uringcast)")
                .fix_sysctl("kernel.io_uring_disabled", 0),
            _ => check("allowed"),
        },
        Err(error) => refused(check("refused"), error).stops(),
    }
}

fn refused(check: Check, error: &RingError) -> Check {
    match error {
        RingError::DisabledBySysctl { value } => check
            .why(format!("kernel.io_uring_disabled is {value}"))
            .fix_sysctl("kernel.io_uring_disabled", 0),
        RingError::RefusedBySeccomp => seccomp_fixes(check.why(
            "a seccomp filter answers EPERM, as the default profile of container engines does",
        )),
        RingError::NoIoUring { seccomp: true } => seccomp_fixes(check.why(
            "ENOSYS: a seccomp filter hides it, or the kernel was built without CONFIG_IO_URING",
        )),
        RingError::NoIoUring { seccomp: false } => check
            .why("ENOSYS: the kernel was built without it")
            .fix("in the kernel's configuration", "CONFIG_IO_URING=y"),
        RingError::MemoryLocked { .. } => memlock_fixes(check.why(error.to_string())),
        RingError::Refused => check
            .why("EPERM, neither by kernel.io_uring_disabled nor by seccomp: a security module")
            .fix("shows the denial", "ausearch -m avc -ts recent")
            .fix("shows the denial", "dmesg | grep -i -e apparmor -e denied"),
        RingError::KernelTooOld { missing } => check
            .why(format!("this kernel's io_uring has no {missing}"))
            .fix("a newer kernel", "Linux 5.10 or newer"),
        // Its words have the line.
        other => check.why(other.to_string()),
    }
}

fn seccomp_fixes(check: Check) -> Check {
    check
        .fix(DOCKER, "--security-opt seccomp=scripts/deploy/seccomp.json")
        .fix(DOCKER, "--security-opt seccomp=unconfined")
        .fix(
            "in the pod's securityContext",
            "seccompProfile: {type: Localhost, localhostProfile: uringcast.json}",
        )
        .fix(SYSTEMD, "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register")
}

/// Whether there is a filter; one that refuses io_uring is told as that.
pub(super) fn seccomp(facts: &Facts) -> Option<Check> {
    let found = match (facts.seccomp?, &facts.ring) {
        (0, _) => "no filter",
        (_, Ok(_)) => "a filter that lets io_uring pass",
        (_, Err(_)) => "a filter",
    };
    Some(Check::ok("seccomp", found))
}

pub(super) fn features(facts: &Facts, wanted: &Wanted) -> Option<Check> {
    let ring = facts.ring.as_ref().ok()?;
    let missing: Vec<String> = ring
        .features
        .iter()
        .filter(|feature| !feature.there)
        .map(|feature| format!("{} (Linux {})", feature.name, feature.since))
        .collect();
    let check = Check::ok("features", format!("tier {}", ring.tier));
    Some(if wanted.base_asked {
        check.why("no more than Linux 5.10 has, as --kernel-tier base asks")
    } else if missing.is_empty() {
        check.why(format!("all {} that are used are there", ring.features.len()))
    } else {
        let newest = ring.features.iter().filter(|feature| !feature.there);
        let newest = newest.map(|feature| feature.since).max_by_key(|since| version(since));
        check
            .note()
            .why(format!("done without: {}", missing.join(", ")))
            .fix("a newer kernel", format!("Linux {} or newer", newest.unwrap_or_default()))
    })
}

/// `6.10` is newer than `6.9`.
fn version(text: &str) -> Vec<u32> {
    text.split('.').flat_map(str::parse).collect()
}

pub(super) fn locked_memory(facts: &Facts, wanted: &Wanted) -> Check {
    let Limits { soft, hard } = facts.memlock;
    let found = format!("soft {}, hard {}", limit(soft, bytes), limit(hard, bytes));
    let needed = bytes(wanted.locked_bytes());
    let check = Check::ok("RLIMIT_MEMLOCK", found);
    let why = format!("the rings of {} take {needed}", several(wanted.reactors as u64, "reactor"));
    let soft = soft.unwrap_or(u64::MAX);
    if facts.may_lock {
        check.why(format!("{why}, not charged with CAP_IPC_LOCK"))
    } else if matches!(facts.ring, Err(RingError::MemoryLocked { .. })) {
        memlock_fixes(check.stops().why(why))
    } else if soft >= wanted.locked_bytes() {
        // Regions of the pool that can't be registered are used as they are.
        check.why(why)
    } else if soft < wanted.rings_bytes {
        // They could all be made, so this kernel does not count them: 5.12 to about 6.13.
        check.why(format!("{why}, which this kernel does not charge"))
    } else {
        memlock_fixes(check.problem().why(why))
    }
}

fn memlock_fixes(check: Check) -> Check {
    check
        .fix(SYSTEMD, "LimitMEMLOCK=infinity")
        .fix(DOCKER, "--ulimit memlock=-1:-1")
        .fix(AS_ROOT, "ulimit -l unlimited")
}

#[cfg(test)]
mod tests {
    use uringcast_ring::Feature;

    use super::*;
    use crate::doctor::{Verdict, facts::tests::well, tests::wanted};

    fn lines(check: &Check) -> Vec<&str> {
        check.fixes.iter().map(|fix| fix.line.as_str()).collect()
    }

    #[test]
    fn each_refusal_stops_the_server_and_has_its_line() {
        let judged = |error| allowed(&Facts { ring: Err(error), ..well() });
        for (error, line) in [
            (RingError::DisabledBySysctl { value: 2 }, "sysctl -w kernel.io_uring_disabled=0"),
            (RingError::RefusedBySeccomp, "--security-opt seccomp=scripts/deploy/seccomp.json"),
            (
                RingError::NoIoUring { seccomp: true },
                "--security-opt seccomp=scripts/deploy/seccomp.json",
            ),
            (RingError::NoIoUring { seccomp: false }, "CONFIG_IO_URING=y"),
            (RingError::MemoryLocked { what: "x", limit_bytes: 1 }, "LimitMEMLOCK=infinity"),
            (RingError::Refused, "ausearch -m avc -ts recent"),
            (RingError::KernelTooOld { missing: "IORING_FEAT_X" }, "Linux 5.10 or newer"),
        ] {
            let check = judged(error);
            assert!(check.stops && check.verdict == Verdict::Problem, "{check:?}");
            assert_eq!(lines(&check)[0], line);
        }
    }

    #[test]
    fn what_root_may_and_a_service_may_not_is_noted() {
        assert_eq!(allowed(&well()).verdict, Verdict::Ok);
        let check = allowed(&Facts { io_uring_disabled: Some(1), ..well() });
        assert!(check.verdict == Verdict::Note && !check.stops);
        assert_eq!(lines(&check)[1], "sysctl -w kernel.io_uring_disabled=0");
    }

    #[test]
    fn a_filter_is_told_with_what_it_does() {
        let filtered = |ring| seccomp(&Facts { seccomp: Some(2), ring, ..well() }).expect("told");
        assert!(filtered(well().ring).found.contains("lets io_uring pass"));
        assert_eq!(filtered(Err(RingError::RefusedBySeccomp)).found, "a filter");
        assert_eq!(seccomp(&well()).expect("told").found, "no filter");
    }

    #[test]
    fn missing_features_name_the_kernel_that_has_them_all() {
        let mut facts = well();
        facts.ring.as_mut().expect("there").features.extend([
            Feature { name: "two", since: "6.9", there: false },
            Feature { name: "three", since: "6.10", there: false },
        ]);
        let check = features(&facts, &wanted()).expect("told");
        assert_eq!((check.verdict, lines(&check)[0]), (Verdict::Note, "Linux 6.10 or newer"));
        assert!(check.why.contains("two (Linux 6.9), three (Linux 6.10)"), "{}", check.why);
    }

    #[test]
    fn locked_memory_is_measured_by_what_the_rings_take() {
        let judged = |soft, may_lock, ring| {
            let memlock = Limits { soft, hard: soft };
            locked_memory(&Facts { memlock, may_lock, ring, ..well() }, &wanted())
        };
        assert_eq!(judged(None, false, well().ring).verdict, Verdict::Ok);
        assert_eq!(judged(Some(8 << 20), false, well().ring).verdict, Verdict::Ok);
        assert_eq!(judged(Some(0), true, well().ring).verdict, Verdict::Ok);
        let uncharged = judged(Some(64 << 10), false, well().ring);
        assert!(uncharged.verdict == Verdict::Ok && uncharged.why.contains("does not charge"));
        // Enough for the reactors, not for the control thread.
        let tight = judged(Some(wanted().rings_bytes), false, well().ring);
        assert_eq!(tight.verdict, Verdict::Problem);
        let refused = RingError::MemoryLocked { what: "rings", limit_bytes: 64 << 10 };
        let short = judged(Some(64 << 10), false, Err(refused));
        assert!(short.stops && lines(&short)[0] == "LimitMEMLOCK=infinity", "{short:?}");
    }
}
