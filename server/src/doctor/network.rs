//! What the network's sysctls leave of what was planned.
//!
//! Knows: what a connection takes of each. Must not know: where facts are read.

use super::{
    check::{Check, bytes, count},
    facts::Facts,
    wanted::Wanted,
};

/// Connections that wait to be accepted.
pub(super) fn backlog(facts: &Facts, wanted: &Wanted) -> Option<Check> {
    let most = facts.somaxconn?;
    let check = Check::ok("net.core.somaxconn", count(most));
    let planned = wanted.backlog;
    Some(if most < planned {
        check
            .note()
            .why(format!(
                "--backlog is {}, but only {} connections may wait to be accepted by a reactor; \
                 beyond that they are dropped and tried again after 1 s",
                count(planned),
                count(most)
            ))
            .fix_sysctl("net.core.somaxconn", planned)
    } else {
        check.why(format!("--backlog {} holds", count(planned)))
    })
}

/// Without cookies, handshakes beyond three quarters of it are dropped.
pub(super) fn half_open(facts: &Facts, wanted: &Wanted) -> Option<Check> {
    let most = facts.syn_backlog?;
    let check = Check::ok("tcp_max_syn_backlog", count(most));
    Some(if facts.syn_cookies {
        check.why("no bound, since SYN cookies are on")
    } else if most < wanted.backlog {
        check
            .note()
            .why(format!(
                "so many handshakes at a time, where --backlog is {}",
                count(wanted.backlog)
            ))
            .fix_sysctl("net.ipv4.tcp_max_syn_backlog", wanted.backlog)
            .fix_sysctl("net.ipv4.tcp_syncookies", 1)
    } else {
        check
    })
}

/// A socket with anything in its buffers is charged a page at least.
pub(super) fn socket_memory(facts: &Facts, wanted: &Wanted) -> Option<Check> {
    let [_, pressure, most] = facts.tcp_mem?;
    let blocked = wanted.send_buffer_bytes.or(facts.tcp_wmem_max).unwrap_or(4 << 20).max(1);
    let found = format!(
        "pressure at {}, at most {}",
        bytes(pressure * PAGE_BYTES),
        bytes(most * PAGE_BYTES)
    );
    let check = Check::ok("net.ipv4.tcp_mem", found).why(format!(
        "pressure with {} connections that hold a page each, or {} blocked ones that hold up to {}",
        count(pressure),
        count(pressure * PAGE_BYTES / blocked),
        bytes(blocked)
    ));
    let connections = wanted.connections();
    Some(if pressure < connections {
        // Half the machine, if that is less than what all connections would be well with.
        let ceiling = facts.memory.total / 2 / PAGE_BYTES;
        let room = (4 * connections).min(ceiling.max(most));
        check
            .short_of(wanted.asked)
            .fix_sysctl("net.ipv4.tcp_mem", format!("{} {} {room}", room / 4, room / 2))
    } else {
        check
    })
}

/// Where the firewall tracks connections, one that finds no room in the table is dropped.
pub(super) fn tracked(facts: &Facts, wanted: &Wanted) -> Option<Check> {
    let Some(table) = facts.conntrack else {
        return Some(Check::ok("nf_conntrack", "not loaded"));
    };
    let found = format!("{} of {} used", count(table.used), count(table.most));
    let check = Check::ok("nf_conntrack", found);
    let connections = wanted.connections();
    Some(if table.used == 0 {
        check.why("tracks nothing here")
    } else if table.left() < connections {
        check
            .short_of(wanted.asked)
            .why(format!(
                "where the firewall tracks them, connections end at {}, not at {}",
                count(table.left()),
                count(connections)
            ))
            .fix_sysctl("net.netfilter.nf_conntrack_max", 2 * (connections + table.used))
    } else {
        check
    })
}

/// Nobody else than who connects from this machine needs them.
pub(super) fn local_ports(facts: &Facts, wanted: &Wanted) -> Option<Check> {
    let [first, last] = facts.local_ports?;
    let ports = (last + 1).saturating_sub(first);
    let check = Check::ok("ip_local_port_range", format!("{first} to {last}")).why(format!(
        "a proxy or a load generator on this machine gets {} connections from each of its addresses",
        count(ports)
    ));
    // Above what the server itself listens on.
    let (lowest, highest) = (10_240, 65_535);
    Some(if ports < wanted.connections().min(highest + 1 - lowest) {
        check.note().fix_sysctl("net.ipv4.ip_local_port_range", format!("{lowest} {highest}"))
    } else {
        check
    })
}

/// The unit of `tcp_mem` on the machines that this runs on.
const PAGE_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        Verdict,
        facts::{Memory, Use, tests::well},
        tests::wanted,
    };

    fn told(check: Option<Check>) -> (Verdict, Option<String>) {
        let check = check.expect("told");
        (check.verdict, check.fixes.first().map(|fix| fix.line.clone()))
    }

    fn noted(line: &str) -> (Verdict, Option<String>) {
        (Verdict::Note, Some(line.to_owned()))
    }

    #[test]
    fn a_backlog_above_somaxconn_is_noted() {
        assert_eq!(told(backlog(&well(), &wanted())), (Verdict::Ok, None));
        let facts = Facts { somaxconn: Some(128), ..well() };
        assert_eq!(told(backlog(&facts, &wanted())), noted("sysctl -w net.core.somaxconn=4096"));
    }

    #[test]
    fn half_open_connections_matter_without_cookies_only() {
        let few = Facts { syn_backlog: Some(128), ..well() };
        assert_eq!(told(half_open(&few, &wanted())), (Verdict::Ok, None));
        let facts = Facts { syn_cookies: false, ..few };
        let line = "sysctl -w net.ipv4.tcp_max_syn_backlog=4096";
        assert_eq!(told(half_open(&facts, &wanted())), noted(line));
    }

    #[test]
    fn a_page_for_each_connection_must_fit_before_pressure() {
        let judged = |pressure, gibibytes: u64, asked| {
            let memory = Memory { total: gibibytes << 30, ..well().memory };
            let tcp_mem = Some([pressure / 2, pressure, pressure * 2]);
            let wanted = Wanted { connections_max: 500_000, asked, ..wanted() };
            socket_memory(&Facts { tcp_mem, memory, ..well() }, &wanted)
        };
        assert_eq!(told(judged(1_000_000, 64, false)), (Verdict::Ok, None));
        let line = "sysctl -w net.ipv4.tcp_mem=\"1000000 2000000 4000000\"";
        assert_eq!(told(judged(200_000, 64, false)), noted(line));
        assert_eq!(told(judged(200_000, 64, true)).0, Verdict::Problem);
        // No more than half of a small machine.
        let small = judged(200_000, 4, false).expect("told");
        assert_eq!(small.fixes[0].line, "sysctl -w net.ipv4.tcp_mem=\"131072 262144 524288\"");
        assert!(
            small.why.contains("or 1,562 blocked ones that hold up to 512.0 KiB"),
            "{}",
            small.why
        );
    }

    #[test]
    fn a_table_of_connections_matters_where_it_is_used() {
        let judged = |used| {
            let conntrack = Some(Use { most: 10_000, used });
            told(tracked(&Facts { conntrack, ..well() }, &wanted()))
        };
        assert_eq!(told(tracked(&well(), &wanted())), (Verdict::Ok, None));
        assert_eq!(judged(0), (Verdict::Ok, None));
        assert_eq!(judged(50), noted("sysctl -w net.netfilter.nf_conntrack_max=40100"));
    }

    #[test]
    fn ports_are_counted_for_who_connects_from_here() {
        assert_eq!(told(local_ports(&well(), &wanted())), (Verdict::Ok, None));
        let facts = Facts { local_ports: Some([32_768, 40_959]), ..well() };
        let line = "sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\"";
        assert_eq!(told(local_ports(&facts, &wanted())), noted(line));
        let check = local_ports(&facts, &wanted()).expect("told");
        assert!(check.why.contains("gets 8,192 connections"), "{}", check.why);
    }
}
