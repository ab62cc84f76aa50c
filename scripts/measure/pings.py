#!/usr/bin/env python3
"""What pinging those who say nothing costs the server, beside the least that it can cost.

    cargo build --release
    scripts/measure/pings.py                               # 15,000 connections, each pinged every 3.75 s
    scripts/measure/pings.py --servers ours,floor,wait     # and a floor whose connections wait by a receive
    scripts/measure/pings.py --servers ours,ours-before --before FILE

As many pings a second as 100,000 connections get that are pinged every 25 s. `floor` is benches' floor_accept: it sends
two bytes to each whose turn it is, receives what comes back, and does nothing else; its connections are polled, as
ours are. `wait` and `multishot` have a receive that waits, or that stays armed. Each serves alone on one processor,
new in each turn, while the load generator holds all connections from another and answers. Processor time is the
server's with what the kernel's own thread of that processor does for it; `silent` is the server with a ping an hour.
"""

import argparse
import subprocess
import time
from functools import partial

import plots
from processes import cpu_ns, sockets, sockets_left, softirq_ns
from record import Record
from servers import BIN, Kind, Running, ours
from turns import in_turns, median, ratios, spread, table

# Of a core for 100,000 connections that are pinged every 25 s.
SHARE_GOAL = 0.04
PER_S_OF_100K = 100_000 / 25
CONNECT_S_MAX = 60


def kinds(connections, interval_ms, before=None):
    """The servers, with room for so many."""
    floor, room = BIN / "floor_accept", ["--connections-max", connections + 1000]
    pinged = ["--ping-interval", f"{interval_ms}ms", "--pong-timeout", f"{interval_ms // 2}ms"]

    def held(name, how):
        command = lambda place: [  # noqa: E731
            *(floor, "--port", place.data, "--cpu", place.cpus[0], *room),
            *("--held", how, "--ping-interval-ms", interval_ms),
        ]
        return Kind(name, command, subscribe_path="/ws", needs=(floor,))

    return {
        "ours": ours("ours", *room, *pinged),
        "ours-before": ours("ours-before", *room, *pinged, binary=before),
        "silent": ours("silent", *room, "--ping-interval", "1h"),
        "floor": held("floor", "poll"),
        "wait": held("wait", "wait"),
        "multishot": held("multishot", "multishot"),
    }


def turn(name, options):
    interval_ms = round(options.connections / PER_S_OF_100K * 1000)
    kind = kinds(options.connections, interval_ms, options.before)[name]
    with Running(kind, cpus=[options.server_cpu]) as server:
        url = f"ws://127.0.0.1:{server.place.data}/ws"
        wanted = sockets_left() + 2 * options.connections
        words = [BIN / "loadgen", "connect", "--url", url, "--connections", options.connections, "--connect-rate", 0]
        words += ["--hold", f"{CONNECT_S_MAX + options.seconds}s", "--quiet", "--cpus", options.client_cpu]
        client = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + CONNECT_S_MAX
            while sockets() < wanted:
                if client.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{name}: not all connections were opened")
                time.sleep(0.1)
            # A whole interval first: then every buffer, page and socket has been used once.
            time.sleep(interval_ms / 1000 + 1)
            used, kernels, begun = cpu_ns(server.pid), softirq_ns([options.server_cpu]), time.monotonic()
            time.sleep(options.seconds)
            used, kernels = cpu_ns(server.pid) - used, softirq_ns([options.server_cpu]) - kernels
            seconds = time.monotonic() - begun
            if sockets() < wanted or client.poll() is not None:
                raise RuntimeError(f"{name}: connections were lost")
        finally:
            client.kill()
            client.wait()
    share = (used + kernels) / 1e9 / seconds
    return {"share": share, "us": share / PER_S_OF_100K * 1e6, "softirq": kernels / 1e9 / seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--servers",
        default="ours,floor,silent",
        type=lambda text: text.split(","),
        help="the first is compared with the others",
    )
    parser.add_argument("--connections", type=int, default=15_000)
    parser.add_argument("--before", help="another build of the server, called ours-before among --servers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10, help="how long each turn is looked at")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--record", help="folder for the record: text, numbers, plot")
    options = parser.parse_args()
    if wrong := set(options.servers) - set(kinds(1, 1)):
        parser.error(f"--servers {','.join(sorted(wrong))}: not known; it is one of {', '.join(kinds(1, 1))}")
    if "ours-before" in options.servers and not options.before:
        parser.error("--servers ours-before: wants --before FILE")
    record = Record("pings", options.record)
    rounds = in_turns(options.servers, options.rounds, partial(turn, options=options))
    first = options.servers[0]
    record.say(f"{options.connections:,} connections, {PER_S_OF_100K:,.0f} pings a second, each answered")
    record.say()
    rows = [
        [
            name,
            f"{median(rounds[name], 'share') * 100:.2f} %",
            median(rounds[name], "us"),
            f"{median(rounds[name], 'softirq') * 100:.2f} %",
            spread(ratios(rounds[first], rounds[name], "us")) if name != first else "1",
        ]
        for name in options.servers
    ]
    heads = ["server", "of a core", "µs a ping and its pong", "of it ksoftirqd", f"CPU, {first} / this"]
    record.say(table(heads, rows))
    record.say()
    record.say(f"Goal: at most {SHARE_GOAL * 100:.0f} % of a core.")
    plots.bars(
        record.plot_path(),
        {name: median(rounds[name], "us") for name in options.servers},
        y="processor time a ping and its pong, µs",
        title=f"{options.connections:,} connections, {PER_S_OF_100K:,.0f} pings a second",
    )
    record.write(rounds)


if __name__ == "__main__":
    main()
