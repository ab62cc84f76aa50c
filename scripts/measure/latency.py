#!/usr/bin/env python3
"""Latency and the longest tick at shares of the highest rate.

    cargo build --release
    scripts/measure/latency.py                         # 10,000 subscribers, 128 B; 30, 60 and 90 %
    scripts/measure/latency.py --rate-max 900          # the highest rate is known already
    scripts/measure/latency.py --acks at-once          # no timers of the client's (needs root)

The highest rate is the one that the load generator finds with nothing lost and p99 within the bound. Then each share
of it has runs of its own, each with a new server. Ticks are counted by the server itself, from when all are connected
until the first is gone: CPU is the reactor's thread, wall is what passed. That a
steady tick allocates nothing is a test (benches/tests/allocations.rs).

Over loopback the server's thread also works for the client: a socket that has received acknowledges 40 ms later, by a
timer on the processor that it received on, which is the server's; those of hundreds of sockets run out together, in
one interrupt of some ms, which counts as a tick of the server's. With a client on another machine they run out there.
`--acks at-once` makes a network namespace whose sockets acknowledge when they receive.
"""

import argparse
import statistics
import sys

import namespace
import plots
from metrics import Watch, above, longest_s
from record import Record
from servers import Running, ours
from turns import loadgen, progress, table

# No tick shall take more of the thread's CPU time below 90 %, s.
TICK_GOAL_S = 0.002
PERCENTILES = ["p50", "p99", "p99_9", "max"]


def load(server, options, *flags):
    return loadgen(
        "fanout",
        *("--url", server.url, "--publish-url", server.publish_url, *server.used([options.client_cpu])),
        *("--subscribers", options.subscribers, "--size", options.size, *flags),
        cpus=[options.client_cpu],
    )


def find_max(kind, options):
    """The highest rate that held, publications per second."""
    progress("looking for the highest rate")
    with Running(kind, cpus=[options.server_cpu]) as server:
        report = load(
            server,
            options,
            *("--find-max", f"p99={options.p99:g}ms", "--rate", options.rate_from, "--precision", 10),
            *("--warmup", "1s", "--duration", "3s"),
        )
    progress("")
    found = report.get("find_max") or {}
    if not found.get("rate_per_s"):
        sys.exit(f"no rate from {options.rate_from}/s upwards has p99 within {options.p99} ms and loses nothing")
    return found["rate_per_s"], found["at_least"]


def turn(kind, options, rate):
    with Running(kind, cpus=[options.server_cpu]) as server, Watch(server.place.admin) as watch:
        report = load(server, options, "--rate", rate, "--warmup", "2s", "--duration", f"{options.duration}s")
    before, after = watch.under_load(options.subscribers)
    figures = {each: report["latency"]["corrected"][f"{each}_ns"] / 1e6 for each in PERCENTILES}
    for clock in ("cpu", "wall"):
        name = f"uringcast_tick_{clock}_seconds"
        figures[f"tick_{clock}"] = longest_s(before, after, name) * 1e3
        figures[f"long_{clock}"] = above(before, after, name, TICK_GOAL_S)
    figures["ticks"] = round(
        after.sum("uringcast_tick_wall_seconds_count") - before.sum("uringcast_tick_wall_seconds_count")
    )
    figures["deliveries_per_send"] = after.sum("uringcast_deliveries_total") / max(
        after.sum("uringcast_sends_total"), 1
    )
    figures["kept"] = report["deliveries"]["per_s"] / (rate * options.subscribers)
    figures["lost"] = report["faults"]["lost"]
    figures["server"] = report["server"]["cpus"]
    return figures


def shares_of(text):
    return [int(share) for share in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=128, help="payload, bytes")
    parser.add_argument("--p99", type=float, default=20, help="bound of the highest rate, ms")
    parser.add_argument("--rate-from", type=float, default=50, help="where the search begins, publications per second")
    parser.add_argument("--rate-max", type=float, help="the highest rate, if it is known; no search")
    parser.add_argument("--shares", type=shares_of, default=[30, 60, 90], help="of the highest rate, percent")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=int, default=8, help="seconds of each turn")
    parser.add_argument("--acks", choices=["delayed", "at-once"], default="delayed", help="of the client's sockets")
    parser.add_argument("--binary", help="another build of the server")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--record", help="folder for the record: text, numbers, plot")
    options = parser.parse_args()
    if options.acks == "at-once":
        namespace.enter()
        namespace.acknowledge_at_once()
    record, kind = Record("latency", options.record), ours("ours", binary=options.binary)
    rate_max, at_least = (options.rate_max, False) if options.rate_max else find_max(kind, options)
    limit = " at least (the load generator was the limit)" if at_least else ""
    found = "given" if options.rate_max else f"with p99 within {options.p99:g} ms and nothing lost"
    record.say(f"{options.subscribers:,} subscribers, {options.size} B; highest rate, {found}:")
    deliveries = rate_max * options.subscribers / 1e6
    record.say(f"{rate_max:,.0f} publications/s{limit}, {deliveries:.2f} M deliveries/s")
    record.say()
    rounds = {share: [] for share in options.shares}
    for number in range(options.rounds):
        for share in options.shares:
            progress(f"round {number + 1} of {options.rounds}: {share} %")
            rounds[share].append(turn(kind, options, rate_max * share / 100))
    progress("")
    record.say(show(rounds))
    record.say()
    record.say(f"Times in ms: medians of {options.rounds} rounds; longest ticks and counts over all of them.")
    record.say(f"Acknowledgements: {options.acks}.")
    record.say(f"Goal: below 90 % no tick takes more than {TICK_GOAL_S * 1e3:g} ms of the thread's CPU time.")
    plots.lines(
        record.plot_path(),
        {
            **{
                each.replace("_", "."): [(share, middle(rounds[share], each)) for share in rounds]
                for each in PERCENTILES
            },
            "longest tick, CPU": [(share, max(r["tick_cpu"] for r in rounds[share])) for share in rounds],
        },
        x="% of the highest rate",
        y="ms",
        title=f"Latency of {options.subscribers:,} subscribers",
        log_y=True,
        bound=TICK_GOAL_S * 1e3,
    )
    record.write({"rate_max": rate_max, "at_least": at_least, "rounds": rounds})


def middle(rounds, figure):
    return statistics.median(each[figure] for each in rounds)


def show(rounds):
    heads = [
        "load",
        *(each.replace("_", ".") for each in PERCENTILES),
        "tick CPU",
        "tick wall",
        "ticks",
        "over 2 ms CPU",
        "wall",
    ]
    heads += ["messages/send", "kept", "lost", "server cpus"]
    rows = []
    for share, each in rounds.items():
        row = [f"{share} %", *(middle(each, figure) for figure in PERCENTILES)]
        row += [max(r[figure] for r in each) for figure in ("tick_cpu", "tick_wall")]
        row += [sum(r[figure] for r in each) for figure in ("ticks", "long_cpu", "long_wall")]
        row += [middle(each, figure) for figure in ("deliveries_per_send", "kept")]
        row += [sum(r["lost"] for r in each), middle(each, "server")]
        rows.append(row)
    return table(heads, rows)


if __name__ == "__main__":
    main()
