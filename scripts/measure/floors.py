#!/usr/bin/env python3
"""The server beside the floors: its processor time per delivery as a ratio to the least possible.

    cargo build --release
    scripts/measure/floors.py                          # 128 B to 5,000, with nothing to coalesce and with much
    scripts/measure/floors.py --sizes 64,128,512,4096 --subscribers 1000,5000,15000 --rounds 3

`flat`: 20 publications a second, so that nothing can be coalesced, against the plain floor (one frame, one SEND
each). `rising`: 2,000 subscribers at rising rates, against the bare lane (a log and cursors, nothing else). Each
serves alone on one processor, the load generator on another, in turns. A ratio counts only where the latency
is the floor's as well: who delays more coalesces more.
"""

import argparse
from functools import partial

import plots
from record import Record
from servers import KINDS, Running
from turns import in_turns, loadgen, median, ratios, spread, table

GOALS = {"plain": 1.08, "lane": 1.15}


def turn(name, options, subscribers, rate, size):
    """One turn of one server."""
    with Running(KINDS[name], cpus=[options.server_cpu]) as server:
        report = loadgen(
            "fanout",
            *("--url", server.url, "--publish-url", server.publish_url, *server.used([options.client_cpu])),
            *("--subscribers", subscribers, "--rate", rate, "--size", size),
            *("--duration", f"{options.duration}s", "--warmup", "2s"),
            cpus=[options.client_cpu],
        )
    latency = report["latency"]["corrected"]
    return {
        "ns": report["server"]["cpu_ns_per_delivery"],
        "user": report["server"]["user_share"],
        "p50": latency["p50_ns"] / 1e6,
        "p99": latency["p99_ns"] / 1e6,
        "kept": report["deliveries"]["per_s"] / (rate * subscribers),
        "lost": report["faults"]["lost"],
        "client": max(thread["cpu_ns"] / thread["wall_ns"] for thread in report["threads"]),
    }


def compare(record, options, floor, cases):
    """One table: every (size, subscribers, rate) in turns with its floor."""
    rows, numbers, found = [], [], {}
    for size, subscribers, rate in cases:
        rounds = in_turns(
            ["ours", floor],
            options.rounds,
            partial(turn, options=options, subscribers=subscribers, rate=rate, size=size),
        )
        ours, theirs = rounds["ours"], rounds[floor]
        of = {figure: ratios(ours, theirs, figure) for figure in ("ns", "p50", "p99")}
        rows.append(
            [f"{size} B", subscribers, rate]
            + [median(ours, "ns"), median(theirs, "ns")]
            + [spread(of["ns"]), spread(of["p99"])]
            + [
                median(ours, "p99"),
                sum(each["lost"] for each in ours + theirs),
                median(ours, "client"),
            ]
        )
        numbers.append({"size": size, "subscribers": subscribers, "rate": rate, "rounds": rounds})
        found[size, subscribers, rate] = of["ns"][len(of["ns"]) // 2]
    heads = ["payload", "subscribers", "publications/s", "ours, ns/delivery", f"{floor}, ns"]
    heads += [f"ours/{floor}, CPU", f"ours/{floor}, p99", "p99 ms", "lost", "client cpus"]
    record.say(table(heads, rows))
    record.say()
    return numbers, found


def numbers_of(text):
    return [int(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=numbers_of, default=[128], help="payloads, bytes")
    parser.add_argument("--subscribers", type=numbers_of, default=[5000], help="for `flat`")
    parser.add_argument("--rates", type=numbers_of, default=[500, 2000, 4000], help="for `rising`")
    parser.add_argument("--flat-rate", type=int, default=20, help="publications/s of `flat`: a slow machine takes less")
    parser.add_argument("--loads", default="flat,rising")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--duration", type=int, default=4, help="seconds of each turn")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--record", help="folder for the record: text, numbers, plots")
    options = parser.parse_args()
    record, numbers = Record("floors", options.record), {}
    if "flat" in options.loads:
        record.say(f"Nothing to coalesce: {options.flat_rate} publications/s, beside one pre-made frame per SEND")
        record.say()
        cases = [(size, each, options.flat_rate) for size in options.sizes for each in options.subscribers]
        numbers["flat"], found = compare(record, options, "plain", cases)
        show(record, found, "plain", "-flat")
    if "rising" in options.loads:
        record.say("Rising rate: 2,000 subscribers, beside one log and a cursor each")
        record.say()
        # The rates are for small payloads; of larger ones as many bytes go.
        cases = [
            (size, 2000, max(rate * 128 // max(size, 128), 20)) for size in options.sizes for rate in options.rates
        ]
        numbers["rising"], found = compare(record, options, "lane", cases)
        show(record, found, "lane", "-rising")
    record.write(numbers)


def show(record, found, floor, suffix):
    bars = {f"{size} B\n{each:,} × {rate}/s": ratio for (size, each, rate), ratio in found.items()}
    plots.bars(
        record.plot_path(suffix),
        bars,
        y=f"processor time per delivery, ours / {floor}",
        title=f"Ratio to the floor (goal: at most {GOALS[floor]} at 128 B)",
    )


if __name__ == "__main__":
    main()
