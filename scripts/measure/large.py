#!/usr/bin/env python3
"""Large publications: processor time per MiB delivered, beside the plain floor (one SEND of a pre-made frame).

    cargo build --release
    scripts/measure/large.py                           # 64 KiB, 256 KiB and 1 MiB to 200 subscribers

Each serves alone on one processor, the load generator on another, in turns; all sizes at the same bytes per second.
The server sends what is large in fragments of at most 64 KiB, from the publication itself.
"""

import argparse
from functools import partial

import plots
from floors import numbers_of, turn
from record import Record
from turns import in_turns, median, ratios, spread, table

MIB = 1 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=numbers_of, default=[64 << 10, 256 << 10, MIB], help="payloads, bytes")
    parser.add_argument("--subscribers", type=int, default=200)
    parser.add_argument("--mebibytes", type=int, default=250, help="delivered per second, to all together")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--duration", type=int, default=4, help="seconds of each turn")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--record", help="folder for the record: text, numbers, plots")
    options = parser.parse_args()
    record, numbers, rows, lines = Record("large", options.record), [], [], {"ours": [], "plain": []}
    for size in options.sizes:
        rate = round(options.mebibytes * MIB / (size * options.subscribers), 3)
        one = partial(turn_in_mebibytes, options=options, rate=rate, size=size)
        rounds = in_turns(["ours", "plain"], options.rounds, one)
        ours, plain = rounds["ours"], rounds["plain"]
        rows.append(
            [f"{size >> 10} KiB", f"{rate:.2f}", median(ours, "us"), median(plain, "us")]
            + [spread(ratios(ours, plain, figure)) for figure in ("us", "p99")]
            + [median(ours, "p99"), sum(one["lost"] for one in ours + plain), median(ours, "client")]
        )
        for name, points in lines.items():
            points.append((size, median(rounds[name], "us")))
        numbers.append({"size": size, "rate": rate, "rounds": rounds})
    heads = ["payload", "publications/s", "ours, µs/MiB", "plain, µs/MiB", "ours/plain, CPU", "ours/plain, p99"]
    record.say(f"{options.subscribers} subscribers, {options.mebibytes} MiB/s delivered")
    record.say()
    record.say(table([*heads, "p99 ms", "lost", "client cpus"], rows))
    plots.lines(
        record.plot_path(),
        lines,
        x="payload, bytes",
        y="µs of the server's processor time per MiB",
        title=f"Large publications to {options.subscribers} subscribers",
        log_x=True,
    )
    record.write(numbers, subscribers=options.subscribers)


def turn_in_mebibytes(name, options, rate, size):
    figures = turn(name, options, options.subscribers, rate, size)
    return {**figures, "us": figures["ns"] / 1e3 / (size / MIB)}


if __name__ == "__main__":
    main()
