#!/usr/bin/env python3
"""Runs the server, the floors and a peer in turn under one load and prints ratios from that one run.

Each serves alone on one processor, the load generator on another. A round is one turn of each; figures are
medians over the rounds, ratios are taken round by round against the first server named.

    cargo build --release
    scripts/compare.py --subscribers 5000 --rate 20              # CPU per delivery: ours, plain floor
    scripts/compare.py --servers ours,lane --subscribers 2000 --rate 3000
    scripts/compare.py --servers ours,ntex --subscribers 2000 --ramp 1000,2000,3000 --p99 20

    scripts/compare.py --servers ours,base --subscribers 5000 --rate 20       # what the base tier costs

`base` is the server with no more of the kernel than Linux 5.10 had, `ntex` is benches/peers/ntex, built with its own lock file.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

# The server itself, by kernel tier.
OURS = {"ours": "auto", "base": "base"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(server, port, publish, admin, cpu):
    release = TARGET / "release"
    if server in OURS:
        ports = ["--listen", f"127.0.0.1:{port}", "--publish-listen", f"127.0.0.1:{publish}", "--admin", f"127.0.0.1:{admin}"]
        return [release / "uringcast", "serve", *ports, "--reactors", "1", "--cpus", str(cpu), "--log-level", "warn", "--kernel-tier", OURS[server]]
    binary = {
        "plain": release / "floor_plain",
        "lane": release / "floor_lane",
        "ntex": pathlib.Path(os.environ.get("NTEX_PEER", ROOT / "benches/peers/ntex/target/release/peer-ntex")),
    }[server]
    return [binary, "--port", str(port), "--cpu", str(cpu)]


def run(server, options, rate):
    """One turn of one server: the load generator's report as JSON, with its exit code."""
    port, publish, admin = free_port(), free_port(), free_port()
    started = subprocess.Popen(list(map(str, command(server, port, publish, admin, options.server_cpu))), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            publish_port = publish if server in OURS else port
            loadgen = [TARGET / "release/loadgen", "fanout", "--url", f"ws://127.0.0.1:{port}/raw/bench", "--publish-url", f"ws://127.0.0.1:{publish_port}/publish/bench"]
            loadgen += ["--subscribers", options.subscribers, "--rate", rate, "--size", options.size, "--duration", f"{options.duration}s", "--warmup", "2s"]
            loadgen += ["--cpus", options.client_cpu, "--pid", started.pid, "--stalled", options.stalled, "--quiet", "--json", out.name]
            ended = subprocess.run(list(map(str, loadgen)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            try:
                report = json.load(open(out.name))
            except json.JSONDecodeError:
                sys.exit(f"{server}: loadgen said: {ended.stderr.strip()}")
            return report
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def figures(report):
    latency = report["latency"]["corrected"]
    threads = report["threads"]
    return {
        "ns/delivery": report["server"]["cpu_ns_per_delivery"],
        "user share": report["server"]["user_share"],
        "M deliveries/s": report["deliveries"]["per_s"] / 1e6,
        "p50 ms": latency["p50_ns"] / 1e6,
        "p99 ms": latency["p99_ns"] / 1e6,
        "lost": report["faults"]["lost"],
        "server cpus": report["server"]["cpus"],
        "client cpus": max(t["cpu_ns"] / t["wall_ns"] for t in threads),
        "rss MB": report["server"]["rss_bytes"] / 1e6,
    }


def table(servers, rounds):
    """Medians, and ratios of the first server to each other, round by round."""
    names = list(next(iter(rounds.values()))[0])
    print(f"{'':8}" + "".join(f"{name:>16}" for name in names))
    for server in servers:
        medians = [statistics.median(r[name] for r in rounds[server]) for name in names]
        print(f"{server:8}" + "".join(f"{value:>16.3f}" for value in medians))
    first = servers[0]
    for other in servers[1:]:
        for name in ("ns/delivery", "p50 ms", "p99 ms"):
            ratios = sorted(a[name] / b[name] for a, b in zip(rounds[first], rounds[other]) if b[name])
            if ratios:
                print(f"{first}/{other} {name}: median {statistics.median(ratios):.3f}, {ratios[0]:.3f} to {ratios[-1]:.3f} in {len(ratios)} pairs")


def ramp(options, servers):
    """The highest rate of each with nothing lost and p99 under the bound."""
    best = {}
    for server in servers:
        for rate in options.ramp:
            got = figures(run(server, options, rate))
            good = got["lost"] == 0 and got["p99 ms"] < options.p99 and got["M deliveries/s"] * 1e6 > 0.97 * rate * options.subscribers
            print(f"{server:8} {rate:>7}/s  {got['M deliveries/s']:7.2f} M deliveries/s  p50 {got['p50 ms']:8.2f} ms  p99 {got['p99 ms']:8.2f} ms  lost {got['lost']}  server {got['server cpus']:.2f} client {got['client cpus']:.2f} cpus  {'good' if good else '-'}", flush=True)
            if good:
                best[server] = rate
            elif got["p99 ms"] > 50 * options.p99:
                break
    for server in servers:
        print(f"{server}: {best.get(server, 0)} publications/s, {best.get(server, 0) * options.subscribers / 1e6:.2f} M deliveries/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default="ours,plain", type=lambda text: text.split(","))
    parser.add_argument("--subscribers", type=int, default=5000)
    parser.add_argument("--stalled", type=int, default=0, help="connections more that never read")
    parser.add_argument("--rate", type=float, default=20, help="publications per second")
    parser.add_argument("--ramp", type=lambda text: [int(rate) for rate in text.split(",")], help="rates to try, rising")
    parser.add_argument("--p99", type=float, default=20, help="bound for --ramp, ms")
    parser.add_argument("--size", type=int, default=128, help="payload, bytes")
    parser.add_argument("--duration", type=int, default=8, help="seconds")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--json", help="write every round's figures here")
    options = parser.parse_args()
    if options.ramp:
        return ramp(options, options.servers)
    rounds = {server: [] for server in options.servers}
    for turn in range(options.rounds):
        for server in options.servers:
            rounds[server].append(figures(run(server, options, options.rate)))
            if sys.stderr.isatty():
                print(f"round {turn + 1} of {options.rounds}: {server}", end="\r", file=sys.stderr)
    table(options.servers, rounds)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"command": sys.argv, "kernel": os.uname().release, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
