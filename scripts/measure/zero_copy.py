#!/usr/bin/env python3
"""SEND and SEND_ZC for large sends, over loopback and over a pair of interfaces between two network namespaces.

    cargo build --release -p uringcast-benches --bin zero_copy
    scripts/measure/zero_copy.py --links loopback
    sudo scripts/measure/zero_copy.py                 # the pair as well, with and without segmentation offload

Processor time of the sending thread per MiB, as a ratio to SEND in the same round, and in how many of the
zero-copy sends the kernel says that it copied all the same. The namespaces are made for the run and removed
after it; nothing leaves the machine.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import plots
from record import Record
from servers import BIN
from turns import progress, spread, table

LINKS = ("loopback", "veth", "veth-no-gso")
ADDRESS, PORT = "10.213.0.2", 9180


def run(*words):
    subprocess.run([str(word) for word in words], check=True)


@contextmanager
def pair(gso):
    """Two namespaces and a pair of interfaces between them; the words that run a command in each."""
    names = [f"uringcast-{os.getpid()}-{end}" for end in "ab"]
    with ExitStack() as made:
        for name in names:
            run("ip", "netns", "add", name)
            made.callback(run, "ip", "netns", "del", name)
        run("ip", "link", "add", "va", "netns", names[0], "type", "veth", "peer", "name", "vb", "netns", names[1])
        for name, link, address in zip(names, ("va", "vb"), ("10.213.0.1", ADDRESS), strict=True):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", link)
            offload = () if gso else ("gso_max_segs", 1)
            run("ip", "-n", name, "link", "set", "dev", link, *offload, "up")
        yield [["ip", "netns", "exec", name] for name in names]


def measured(words, options):
    """{size: {method: [figures of round 1, …]}}"""
    command = [*words, BIN / "zero_copy", "--json", "--cpu", options.server_cpu, "--rounds", options.rounds]
    command += ["--receiver-cpu", options.client_cpu, "--connections", options.connections]
    command += ["--mebibytes", options.mebibytes, "--sizes", options.sizes, *options.to]
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"zero_copy: {ended.stderr.strip()}")
    found = {}
    for line in map(json.loads, ended.stdout.splitlines()):
        found.setdefault(line["bytes"], {}).setdefault(line["method"], []).append(line)
    return found


def over(link, options):
    """The figures over one sort of link."""
    progress(f"over {link}")
    options.to = []
    if link == "loopback":
        return measured([], options)
    with pair(gso=link == "veth") as (sender, receiver):
        words = [*receiver, BIN / "zero_copy", "--receive", f"{ADDRESS}:{PORT}", "--receiver-cpu", options.client_cpu]
        other = subprocess.Popen([str(word) for word in words])
        try:
            time.sleep(0.5)
            options.to = ["--to", f"{ADDRESS}:{PORT}"]
            return measured(sender, options)
        finally:
            other.terminate()
            other.wait()


def show(record, link, found):
    rows, lines = [], {}
    for size, methods in found.items():
        first = next(iter(methods.values()))
        for method, rounds in methods.items():
            of = sorted(
                each["thread_ns_per_mib"] / base["thread_ns_per_mib"] for each, base in zip(rounds, first, strict=True)
            )
            micros = sorted(each["thread_ns_per_mib"] / 1e3 for each in rounds)[len(rounds) // 2]
            copied = max(each["copied"] for each in rounds)
            rows.append(
                [f"{size // 1024} KiB", method, micros, spread(of), "-" if rounds is first else f"{copied:.0%}"]
            )
            lines.setdefault(method, []).append((size, of[len(of) // 2]))
    record.say(f"over {link}")
    record.say()
    record.say(table(["one send", "by", "µs of processor time per MiB", "to SEND", "copied"], rows))
    record.say()
    plots.lines(
        record.plot_path(f"-{link}"),
        lines,
        x="one send, bytes",
        y="processor time per byte, to SEND",
        title=f"SEND_ZC over {link}",
        log_x=True,
        bound=1,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", default=",".join(LINKS), type=lambda text: text.split(","))
    parser.add_argument("--sizes", default="4096,16384,65536,262144,1048576", help="one send, bytes")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--mebibytes", type=int, default=64, help="sent in each turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--record", help="folder for the record: text, numbers, plots")
    options = parser.parse_args()
    for link in options.links:
        if link not in LINKS:
            parser.error(f"--links {link}: none of {', '.join(LINKS)}")
        if link != "loopback" and os.geteuid() != 0:
            parser.error(f"--links {link}: only root makes network namespaces; or --links loopback")
    # Stopped from outside, the namespaces go as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    record, numbers = Record("zero_copy", options.record), {}
    for link in options.links:
        numbers[link] = over(link, options)
        progress("")
        show(record, link, numbers[link])
    record.write(numbers)


if __name__ == "__main__":
    main()
