#!/usr/bin/env python3
"""What slow readers of order books cost the others, and what they get themselves.

Recorded market data is replayed to subscribers that each rebuild every book, with readers of a few KB/s beside them and
without, in turns: the ratio of the fast ones' p99 is of two neighbouring runs. Each turn also says whether anything was lost,
how old values came to the slow ones at most, how the server's memory went, and whether its metrics agree with what the load
generator counted. Values are old only by what kernels hold of a connection; see `loadgen replay --help`, --server-buffer.

    cargo build --release -p uringcast -p uringcast-loadgen
    scripts/compare_slow.py --speed 10 --out benches/runs/DATE-MACHINE/slow RECORDED.gz…
    scripts/compare_slow.py --speed 1 --rounds 0 --churn 1 RECORDED.gz…        # one turn, with slow readers
"""

import argparse
import json
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from compare import TARGET, free_port

RULES = ["*.*.bookTicker:kind=value", "*.*.depth:kind=delta"]


class Memory(threading.Thread):
    """The server's resident memory, once a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.mib, self.done = pid, [], threading.Event()

    def run(self):
        while not self.done.wait(1):
            status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
            self.mib.append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024)

    def stop(self):
        self.done.set()
        self.join()
        return self.mib


def metrics(address):
    """Sums over shards, by name and labels without the shard."""
    sums = {}
    for line in urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode().splitlines():
        if found := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line):
            name, labels, value = found.groups()
            labels = ",".join(label for label in (labels or "").split(",") if not label.startswith("shard="))
            sums[name, labels] = sums.get((name, labels), 0) + float(value)
    return sums


def turn(options, slow):
    """The load generator's report, the server's metrics after it, and its memory meanwhile."""
    port, publish, admin = free_port(), free_port(), free_port()
    history = f",history-messages={options.history},history-bytes=1GiB"
    command = [TARGET / "release/uringcast", "serve", "--listen", f"127.0.0.1:{port}", "--publish-listen", f"127.0.0.1:{publish}", "--admin", f"127.0.0.1:{admin}"]
    command += ["--reactors", "1", "--cpus", options.server_cpu, "--log-level", "warn", "--topic", RULES[0], "--topic", RULES[1] + history]
    command += ["--lag-messages-max", 1_000_000, "--lag-bytes-max", "64MiB", *options.server_flags]
    server = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        if not server.stdout.readline():
            sys.exit("the server does not start")
        memory = Memory(server.pid)
        memory.start()
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            command = [TARGET / "release/loadgen", "replay", *options.files, "--books", "--format", "json", "--speed", options.speed]
            command += ["--url", f"ws://127.0.0.1:{port}", "--publish-url", f"ws://127.0.0.1:{publish}", "--pid", server.pid]
            command += ["--cpus", options.client_cpu, "--quiet", "--json", out.name, "--receive-buffer", options.receive_buffer]
            # Where the kernel drops what an overloaded reader has no room for, it takes seconds to send it again.
            command += ["--subscribers", options.subscribers + slow, "--grace", "30s"]
            command += ["--slow", slow, "--slow-rate", f"{options.slow_rate}B/s", "--slow-catch-up"] if slow else []
            command += ["--churn", options.churn, "--resume"] if options.churn else []
            command += ["--duration", options.duration] if options.duration else []
            ended = subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            try:
                report = json.load(open(out.name))
            except json.JSONDecodeError:
                sys.exit(f"loadgen said: {ended.stderr.strip()}")
        # What the connections that ended last took with them is counted when the server has seen it.
        time.sleep(1)
        return report, metrics(f"127.0.0.1:{admin}"), memory.stop()
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


def agreement(report, known):
    """What both sides counted, and both numbers."""
    books, faults = report["books"], report["faults"]
    total = lambda by_sort: sum(by_sort.values())
    of = lambda name, labels="": int(known.get((name, labels), 0))
    return {
        "publications": (report["published"]["published"], of("uringcast_publications_total")),
        "deliveries": (report["deliveries"]["messages"], of("uringcast_deliveries_total")),
        "skipped values": (faults["skipped"], of("uringcast_skipped_messages_total", 'kind="value"')),
        "gaps": (total(books["gaps_told"]), of("uringcast_gaps_total")),
        "snapshots": (total(books["snapshots"]), of("uringcast_snapshots_total", 'state="sent"')),
        "resumes whole": (books["resumed"], of("uringcast_resumes_total", 'recovered="true"')),
        "resumes not whole": (sum(books["resumed_not"].values()), of("uringcast_resumes_total", 'recovered="false"')),
    }


def figures(report, known, memory):
    books, faults = report["books"], report["faults"]
    # While it was published to, in fifths: the first fill buffers and histories.
    during = memory[: max(1, round(report["deliveries"]["window_s"]))]
    fifths = [during[len(during) * part // 5 : len(during) * (part + 1) // 5] for part in range(5)]
    slow = books["slow"] or {}
    return {
        "p50 ms": report["latency"]["corrected"]["p50_ns"] / 1e6,
        "p99 ms": report["latency"]["corrected"]["p99_ns"] / 1e6,
        "lost": sum(faults[name] for name in ("lost", "duplicated", "reordered", "damaged", "foreign")),
        "gaps to fast": books["gaps_told"]["steady"] + books["gaps_told"]["churning"],
        "books equal": books["equal"],
        "books not": books["unequal"] + books["missing"],
        "links broken": books["links_broken"],
        "value age s": slow.get("value_age_max_ns", 0) / 1e9,
        "allowed s": slow.get("value_age_bound_ns", 0) / 1e9,
        "RSS MiB": " ".join(f"{max(part, default=0):.0f}" for part in fifths),
        "server cpus": report["server"]["cpus"],
        "client cpus": max(thread["cpu_ns"] / thread["wall_ns"] for thread in report["threads"]),
        "deliveries": report["deliveries"]["messages"],
        "agreement": agreement(report, known),
        "notes": report["notes"],
    }


def show(say, label, got):
    say(f"{label}: " + ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in got.items() if name not in ("agreement", "notes")))
    apart = {name: pair for name, pair in got["agreement"].items() if pair[0] != pair[1]}
    say("  report and metrics agree: " + ", ".join(f"{pair[0]} {name}" for name, pair in got["agreement"].items() if name not in apart))
    for name, (ours, servers) in apart.items():
        say(f"  {name}: {ours} in the report, {servers} in the metrics")
    for note in got["notes"]:
        say(f"  note: {note}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path, help="recorded market data, as `loadgen replay` takes it")
    parser.add_argument("--subscribers", type=int, default=1800, help="those that read at once")
    parser.add_argument("--slow", type=int, default=200, help="and those that do not")
    parser.add_argument("--slow-rate", type=int, default=5000, help="what each of them reads, bytes per second")
    parser.add_argument("--speed", type=float, default=10, help="of the recorded data, times its own")
    parser.add_argument("--duration", help="stop publishing after this time")
    parser.add_argument("--churn", type=float, default=0, help="so many of a hundred come back with resume all the time")
    parser.add_argument("--history", type=int, default=30_000, help="messages kept of each book's changes")
    parser.add_argument("--receive-buffer", type=int, default=131_072, help="of each subscriber, bytes")
    parser.add_argument("--rounds", type=int, default=3, help="pairs; 0: one turn with slow readers")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--server-flags", nargs="*", default=[], help="more flags for the server")
    parser.add_argument("--out", help="write OUT.txt and OUT.json as well")
    options = parser.parse_args()
    lines, pairs, single = [], [], None

    def say(line):
        print(line, flush=True)
        lines.append(line)

    def write():
        if options.out:
            pathlib.Path(f"{options.out}.txt").write_text("\n".join(lines) + "\n")
            pathlib.Path(f"{options.out}.json").write_text(json.dumps({"pairs": pairs, "single": single}, indent=1) + "\n")

    say(f"Linux {platform.release()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    say(f"{options.subscribers} subscribers and {options.slow} at {options.slow_rate} B/s, at {options.speed:g} times the recorded speed")
    if options.rounds == 0:
        single = figures(*turn(options, options.slow))
        show(say, "with slow readers", single)
    for number in range(options.rounds):
        got = {}
        for slow in (0, options.slow) if number % 2 == 0 else (options.slow, 0):
            got[slow] = figures(*turn(options, slow))
            show(say, "with slow readers" if slow else "without", got[slow])
        pairs.append((got[0], got[options.slow]))
        write()
    if pairs:
        for name in ("p50 ms", "p99 ms"):
            ratios = sorted(beside[name] / alone[name] for alone, beside in pairs)
            say(f"with slow readers / without, {name}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    write()


if __name__ == "__main__":
    main()
