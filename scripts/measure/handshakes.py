#!/usr/bin/env python3
"""What a handshake costs the server, beside the least that it can cost.

    cargo build --release
    scripts/measure/handshakes.py                                # 15,000 connections, seven pairs
    scripts/measure/handshakes.py --servers ours,accept,poll     # and a floor that polls before it receives

`accept` is benches' floor_accept: it accepts, finds the key, answers 101 and holds; `poll` and `look` are the same
by a poll, or a look before it. Each serves alone on one processor, new in each turn, while the load generator
opens all connections from another as fast as they are answered. Processor time is the server's own, from before the
first connection until it has come to rest after the last; what the kernel does for it on the client's processor (the
handshake of TCP) is in nobody's figure.
"""

import argparse
import threading
import time
from functools import partial

import plots
from processes import cpu_ns, sockets, sockets_left
from record import Record
from servers import BIN, KINDS, Kind, Running, ours
from turns import in_turns, loadgen, median, ratios, spread, table

CPU_RATIO_GOAL = 1.25
PER_S_GOAL = 30_000
# So long with hardly any processor time, and a server has come to rest, s; pings go on.
REST_S = 0.15
REST_SHARE = 0.05
HOLD_S = 3


def kinds(connections, before=None):
    """The servers, with room for so many."""
    floor, room = BIN / "floor_accept", ["--connections-max", connections + 1000]

    def accept(name, *flags):
        command = lambda place: [floor, "--port", place.data, "--cpu", place.cpus[0], *room, *flags]  # noqa: E731
        return Kind(name, command, subscribe_path="/ws", needs=(floor,))

    # Limits of one address do not hold for loopback; all else is as by default.
    return {
        **KINDS,
        "ours": ours("ours", *room),
        "ours-before": ours("ours-before", *room, binary=before),
        "accept": accept("accept"),
        "poll": accept("poll", "--first", "poll"),
        "look": accept("look", "--first", "look"),
    }


def at_rest(pid, wanted, found):
    """Waits until so many sockets are there and the server has come to rest; then notes its processor time."""
    while sockets() < wanted:
        time.sleep(0.01)
    before = cpu_ns(pid)
    while True:
        time.sleep(REST_S)
        now = cpu_ns(pid)
        if now - before < REST_S * 1e9 * REST_SHARE:
            found.append(now)
            return
        before = now


def turn(name, options):
    with Running(kinds(options.connections, options.before)[name], cpus=[options.server_cpu]) as server:
        url = f"ws://127.0.0.1:{server.place.data}{options.path if name.startswith('ours') else '/'}"
        wanted = sockets_left() + 2 * options.connections
        begun, found = cpu_ns(server.pid), []
        watch = threading.Thread(target=at_rest, args=(server.pid, wanted, found), daemon=True)
        watch.start()
        report = loadgen(
            "connect",
            *("--url", url, "--connections", options.connections, "--connect-rate", options.rate),
            *("--hold", f"{HOLD_S}s", *server.used([options.client_cpu])),
            cpus=[options.client_cpu],
        )
        watch.join(timeout=1)
    if not found or not report["clean"]:
        raise RuntimeError(f"{name}: not all connections were opened and held: {report['notes']}")
    return {
        "us": (found[0] - begun) / options.connections / 1e3,
        "per_s": options.connections / report["connections"]["connecting_s"],
        "busy": (found[0] - begun) / 1e9 / report["connections"]["connecting_s"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--servers",
        default="ours,accept",
        type=lambda text: text.split(","),
        help="the first is compared with the others",
    )
    parser.add_argument("--connections", type=int, default=15_000)
    parser.add_argument("--rate", type=float, default=0, help="connections begun per second; 0: as fast as answered")
    parser.add_argument("--path", default="/ws", help="what is asked of our server; /raw/bench subscribes as well")
    parser.add_argument("--before", help="another build of the server, called ours-before among --servers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--record", help="folder for the record: text, numbers, plot")
    options = parser.parse_args()
    if "ours-before" in options.servers and not options.before:
        parser.error("--servers ours-before: wants --before FILE")
    record = Record("handshakes", options.record)
    rounds = in_turns(options.servers, options.rounds, partial(turn, options=options))
    first, *others = options.servers
    record.say(f"{options.connections:,} connections, each a handshake; processor time of the server's")
    record.say()
    heads = [
        "server",
        "µs/handshake",
        "connections/s",
        "server cpus",
        f"CPU, {first} / this",
        f"connections/s, {first} / this",
    ]
    rows = []
    for name in options.servers:
        of = [spread(ratios(rounds[first], rounds[name], figure)) for figure in ("us", "per_s")]
        rows.append(
            [
                name,
                *(median(rounds[name], figure) for figure in ("us", "per_s", "busy")),
                *(of if name != first else ["1", "1"]),
            ]
        )
    record.say(table(heads, rows))
    record.say()
    record.say(f"Goals: at most {CPU_RATIO_GOAL} times the floor's processor time, and {PER_S_GOAL:,} connections/s.")
    plots.bars(
        record.plot_path(),
        {name: median(rounds[name], "us") for name in options.servers},
        y="processor time per handshake, µs",
        title=f"{options.connections:,} connections, as fast as they are answered",
    )
    record.write(rounds)


if __name__ == "__main__":
    main()
