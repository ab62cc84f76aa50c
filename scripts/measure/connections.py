#!/usr/bin/env python3
"""Hundreds of thousands of connections to one server: memory, idle processor time, and a broadcast to all.

    cargo build --release
    scripts/measure/connections.py                          # 200,000, pinged, a broadcast a second
    scripts/measure/connections.py --connections 1000000 --rate 0.02 --ping-interval 1h --idle 30

Every connection subscribes to one topic, which is published to at a rate, the first time when all are
there. With `--idle` nothing is published for so long afterwards: then the server's processor time is that
of idle connections. The load generator checks that everybody got everything, in order. Reactors and
receiving threads are as many as RLIMIT_NOFILE makes necessary, since a ring's table of descriptors is as
large as that; SO_REUSEPORT spreads connections unevenly, so some room is left.

What a connection takes is told apart: the server's resident memory, the load generator's, and what the
kernel's caches of objects and the sockets' buffers have grown by, which both ends share evenly.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import plots
from metrics import read
from processes import cpu_ns, rss_bytes
from record import Record
from servers import BIN, Running, ours
from turns import progress, table

# Of a ring's table, how many connections it is planned for: the hash spreads them unevenly.
FILLED = 0.88
# Figures that are sums, and no cache of the kernel's.
WHOLES = ("server", "loadgen", "machine")
# Of the load generator's report: not what names this machine's folders.
KEPT = {"connections", "deliveries", "faults", "handshake", "latency", "published", "server", "silence", "spread"}
# How often it is looked whether all are connected, or have been reached, seconds.
LOOK_S = 0.5


def machine_bytes():
    """What the whole machine has in use: neither free nor a cache of files."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    of = {name: int(value.split()[0]) * 1024 for name, value in fields.items()}
    return of["MemTotal"] - of["MemFree"] - of["Buffers"] - of["Cached"] - of["SReclaimable"]


def slabs():
    """{cache: bytes of its objects in use}; {} where it can't be read."""
    try:
        lines = Path("/proc/slabinfo").read_text().splitlines()[2:]
    except PermissionError:
        return {}
    return {line.split()[0]: int(line.split()[1]) * int(line.split()[3]) for line in lines}


def metric(server, name):
    """A figure of the server's, of all its shards."""
    return read(server.place.admin).sum(name)


def wait_until(server, name, least, process, what):
    """Waits until a metric is that high; how long that took, seconds."""
    started = time.monotonic()
    while (there := metric(server, name)) < least:
        if process.poll() is not None:
            sys.exit(f"the load generator ended before all were {what}")
        progress(f"{there:,.0f} of {least:,} {what} after {time.monotonic() - started:.0f} s")
        time.sleep(LOOK_S)
    progress("")
    return time.monotonic() - started


def idle(server, seconds):
    """Processor time of the server while nothing is published, as a share of one processor; pings a second."""
    pings, cpu, wall = metric(server, "uringcast_pings_total"), cpu_ns(server.pid), time.monotonic()
    time.sleep(seconds)
    # The clock first: asking for a metric costs something as well.
    cpu, wall = cpu_ns(server.pid) - cpu, time.monotonic() - wall
    return {"cpus": cpu / 1e9 / wall, "pings_per_s": (metric(server, "uringcast_pings_total") - pings) / wall}


def run(options):
    """One run; its numbers."""
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    rings = -(-options.connections // int(nofile * FILLED))
    kind = ours("ours", "--ping-interval", options.ping_interval, "--pong-timeout", options.pong_timeout)
    cpus = [ring % os.cpu_count() for ring in range(rings)]
    with Running(kind, cpus=cpus, threads=rings) as server, tempfile.NamedTemporaryFile(suffix=".json") as out:
        time.sleep(1)
        empty = {"server": rss_bytes(server.pid), "machine": machine_bytes(), **slabs()}
        cpu = cpu_ns(server.pid)
        words = [BIN / "loadgen", "fanout", "--url", server.url, "--publish-url", server.publish_url]
        words += ["--subscribers", options.connections, "--connect-rate", 0, "--threads", rings]
        words += ["--rate", options.rate, "--warmup", "0s", "--duration", f"{options.duration}s"]
        words += ["--grace", "20s", "--pid", server.pid, "--quiet", "--json", out.name]
        client = subprocess.Popen([str(word) for word in words])
        try:
            # All but the publisher.
            half = options.connections // 2
            connecting_s = wait_until(server, "uringcast_connections", half, client, "connected")
            # By then each reactor has used all its receive buffers once: 4 MiB that more connections share.
            before = metric(server, "uringcast_connections"), rss_bytes(server.pid)
            connecting_s += wait_until(server, "uringcast_connections", options.connections, client, "connected")
            more_bytes = (rss_bytes(server.pid) - before[1]) / (options.connections - before[0])
            handshakes_ns = cpu_ns(server.pid) - cpu
            wait_until(server, "uringcast_deliveries_total", options.connections, client, "reached")
            full = {"server": rss_bytes(server.pid), "machine": machine_bytes(), **slabs()}
            full["loadgen"], empty["loadgen"] = rss_bytes(client.pid), 0
            resting = idle(server, options.idle) if options.idle else None
            client.wait()
            report = {key: value for key, value in json.load(out).items() if key in KEPT}
        finally:
            with contextlib.suppress(ProcessLookupError):
                client.kill()
            client.wait()
    grown = {name: (full[name] - empty.get(name, 0)) / options.connections for name in full}
    return {
        "connections": options.connections,
        "rings": rings,
        "connecting_s": connecting_s,
        "more_bytes": more_bytes,
        "handshake_cpu_ns": handshakes_ns / options.connections,
        "bytes_each": {name: value for name, value in grown.items() if abs(value) >= 8},
        "idle": resting,
        "report": report,
    }


def show(record, numbers):
    """The figures that people ask for."""
    each, report, count = numbers["bytes_each"], numbers["report"], numbers["connections"]
    kernel = each["machine"] - each["server"] - each["loadgen"]
    rows = [
        ["connections; reactors and receiving threads", f"{count:,}; {numbers['rings']}"],
        ["time to connect and subscribe all", f"{numbers['connecting_s']:.1f} s"],
        ["connections per second", count / numbers["connecting_s"]],
        ["server's processor time per connection", f"{numbers['handshake_cpu_ns'] / 1000:.1f} us"],
        ["server's resident memory for each", f"{each['server']:.0f} B"],
        ["the same, the second half of them only", f"{numbers['more_bytes']:.0f} B"],
        ["load generator's", f"{each['loadgen']:.0f} B"],
        ["the kernel's, both ends", f"{kernel:.0f} B"],
        ["whole machine, both ends", f"{each['machine']:.0f} B"],
        ["server's end in all: its own, half the kernel's", f"{each['server'] + kernel / 2:.0f} B"],
    ]
    if numbers["idle"]:
        share = numbers["idle"]["cpus"] / count * 100_000
        rows += [
            ["idle: pings per second", numbers["idle"]["pings_per_s"]],
            ["idle: of a core for each 100,000", f"{share * 100:.2f} %"],
        ]
    latency, faults = report["latency"]["corrected"], report["faults"]
    rows += [
        ["publications; deliveries", f"{report['published']['published']:,}; {report['deliveries']['messages']:,}"],
        ["lost, doubled, reordered", f"{faults['lost']}, {faults['duplicated']}, {faults['reordered']}"],
        ["publish to the last subscriber, p50 and most", spread_ms(report)],
        ["latency p50, p99", f"{latency['p50_ns'] / 1e6:.0f} ms, {latency['p99_ns'] / 1e6:.0f} ms"],
    ]
    record.say(table(["", "value"], rows))
    caches = sorted(((value, name) for name, value in each.items() if name not in WHOLES), reverse=True)
    record.say()
    record.say("The kernel's caches, both ends, B a connection: " + ", ".join(f"{n} {v:.0f}" for v, n in caches[:10]))


def spread_ms(report):
    spread = report["spread"]
    return f"{spread['last_us'] / 1e3:.0f} ms, {spread['last_us_max'] / 1e3:.0f} ms"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=1, help="publications per second")
    parser.add_argument("--duration", type=int, default=30, help="seconds of publishing")
    parser.add_argument("--idle", type=float, default=0, help="seconds of rest after the first publication")
    parser.add_argument("--ping-interval", default="25s")
    parser.add_argument("--pong-timeout", default="10s")
    parser.add_argument("--record", help="folder for the record: text, numbers, a plot")
    options = parser.parse_args()
    if options.idle and options.idle + 10 > 1 / options.rate:
        parser.error(f"--idle {options.idle:g}: with --rate {options.rate:g} at most {1 / options.rate - 10:g}")
    record = Record(f"connections_{options.connections}", options.record)
    numbers = run(options)
    show(record, numbers)
    each = numbers["bytes_each"]
    plots.bars(
        record.plot_path(),
        {name: each[name] for name in sorted(each, key=each.get, reverse=True)[:10]},
        y="bytes for each connection, both ends",
        title=f"{options.connections:,} connections",
    )
    record.write(numbers)


if __name__ == "__main__":
    main()
