#!/usr/bin/env python3
"""What steering packets between processors (RPS, RFS) comes to, in a network namespace of its own.

    cargo build --release
    scripts/measure/rps.py                              # 5,000 subscribers, 20 publications a second
    scripts/measure/rps.py --subscribers 2000 --rate 2000 --rounds 5

Needs root. The server is alone on one processor, the load generator on another; the settings of loopback's
receive queue take turns: none; RPS to the server's, to the client's processor; RFS, which goes where the socket
is read. On loopback a packet's receiving half runs where it was sent, so this moves work between two ends that
share a machine: `both` is what they and the kernel's threads for packets cost together, and what counts. The
namespace and its loopback go with the script; of the machine only `net.core.rps_sock_flow_entries`, which belongs
to no namespace, is set for the turns of RFS, and put back.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import namespace
from processes import softirq_ns
from record import Record
from servers import KINDS, Running
from turns import in_turns, loadgen, median, ratios, spread, table

SOCK_FLOW_ENTRIES = Path("/proc/sys/net/core/rps_sock_flow_entries")
QUEUE = Path("/sys/class/net/lo/queues/rx-0")
# In the namespace the sysctl is not to be seen; what was opened before goes on naming it.
SOCK_FLOW_ENTRIES_FD = "URINGCAST_SOCK_FLOW_ENTRIES_FD"
FLOWS = 32768


@dataclass(frozen=True)
class Setting:
    """Processors that receive, as a mask, and flows that are remembered."""

    cpus: int = 0
    flows: int = 0

    def apply(self, sock_flow_entries):
        (QUEUE / "rps_cpus").write_text(f"{self.cpus:x}")
        (QUEUE / "rps_flow_cnt").write_text(str(self.flows))
        os.pwrite(sock_flow_entries, str(self.flows).encode(), 0)


def settings(server_cpu, client_cpu):
    return {
        "none": Setting(),
        "RPS, server's": Setting(1 << server_cpu),
        "RPS, client's": Setting(1 << client_cpu),
        "RFS": Setting(1 << server_cpu | 1 << client_cpu, FLOWS),
    }


def open_sysctl():
    """Before the namespace, where it is not to be seen."""
    try:
        entries = os.open(SOCK_FLOW_ENTRIES, os.O_RDWR)
    except OSError as error:
        sys.exit(f"{SOCK_FLOW_ENTRIES}: {error.strerror}: needs root and a kernel with CONFIG_RPS")
    os.set_inheritable(entries, True)
    os.environ[SOCK_FLOW_ENTRIES_FD] = str(entries)


@contextlib.contextmanager
def own_loopback():
    """The descriptor of the sysctl; afterwards it has its old value."""
    entries = int(os.environ[SOCK_FLOW_ENTRIES_FD])
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    before = os.pread(entries, 32, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        yield entries
    finally:
        os.pwrite(entries, before.strip(), 0)


def turn(name, options, entries):
    """One turn under one setting."""
    cpus = (options.server_cpu, options.client_cpu)
    settings(*cpus)[name].apply(entries)
    with Running(KINDS["ours"], cpus=[options.server_cpu]) as server:
        before = softirq_ns(cpus)
        report = loadgen(
            "fanout",
            *("--url", server.url, "--publish-url", server.publish_url, "--pid", server.pid),
            *("--subscribers", options.subscribers, "--rate", options.rate, "--size", options.size),
            *("--duration", f"{options.duration}s", "--warmup", "2s"),
            cpus=[options.client_cpu],
        )
        softirq = softirq_ns(cpus) - before
    latency = report["latency"]["corrected"]
    server = report["server"]["cpu_ns_per_delivery"]
    client = sum(thread["cpu_ns"] / thread["wall_ns"] for thread in report["threads"])
    client *= 1e9 / report["deliveries"]["per_s"]
    # Of all the run, the warm-up at the same rate too.
    softirq /= options.rate * options.subscribers * (options.duration + 2)
    return {
        "server": server,
        "client": client,
        "both": server + client + softirq,
        "p50": latency["p50_ns"] / 1e6,
        "p99": latency["p99_ns"] / 1e6,
        "lost": report["faults"]["lost"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=5000)
    parser.add_argument("--rate", type=int, default=20, help="publications per second")
    parser.add_argument("--size", type=int, default=128, help="payload, bytes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=int, default=4, help="seconds of each turn")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--record", help="folder for the record: text and numbers")
    options = parser.parse_args()
    if SOCK_FLOW_ENTRIES_FD not in os.environ:
        open_sysctl()
    namespace.enter()
    names = list(settings(options.server_cpu, options.client_cpu))
    with own_loopback() as entries:
        rounds = in_turns(names, options.rounds, partial(turn, options=options, entries=entries))
    record = Record("rps", options.record)
    record.say(f"{options.size} B to {options.subscribers}, {options.rate} publications/s; ratios to `none`")
    record.say()
    rows = []
    for name in names:
        of = {figure: ratios(rounds[name], rounds["none"], figure) for figure in ("server", "both", "p99")}
        rows.append(
            [name, *(median(rounds[name], figure) for figure in ("server", "client", "both"))]
            + [spread(of[figure]) for figure in ("server", "both", "p99")]
            + [median(rounds[name], "p50"), median(rounds[name], "p99")]
            + [sum(each["lost"] for each in rounds[name])]
        )
    heads = ["setting", "server, ns/delivery", "client, ns", "both, ns", "server, CPU", "both, CPU", "p99"]
    record.say(table([*heads, "p50 ms", "p99 ms", "lost"], rows))
    record.write({"rounds": rounds})


if __name__ == "__main__":
    main()
