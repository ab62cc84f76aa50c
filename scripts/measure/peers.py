#!/usr/bin/env python3
"""The server beside other people's: the same load generator, the same processors, in turns.

    scripts/measure/setup                              # installs and builds all of them
    scripts/measure/peers.py                           # all loads, one thread
    scripts/measure/peers.py --threads 2 --loads flat
    scripts/measure/peers.py --servers nchan,ntex --rounds 1 --duration 2
    target/measure/bin/python scripts/measure/peers.py --record DIR        # with plots

`flat`: 20 publications a second of 128 B to 5,000 subscribers, so that nothing can be coalesced. `ramp`: 2,000
subscribers and a rising rate until the 99th percentile reaches 20 ms or something is lost, then latency at half of
each one's own highest rate. `idle`: memory per connection, and how fast connections are opened. With one thread
the server has processor 0 and the load generator 1; with two both have both, so that they take time from each
other. Every column also comes as a ratio of ours to the peer that is best in it, round by round.

Exits with 1 if a server is missing, fails or, but for the end of a ramp, loses something.
"""

import argparse
import statistics
import sys

import peer_loads
import plots
from peer_servers import PEER_KINDS
from peer_versions import versions
from record import Record
from servers import KINDS, raise_descriptors
from turns import in_turns, ratios, spread, table

OURS = "ours"
LOWER, HIGHER = min, max
# Figure, head of its column, which end of it is better.
FLAT = [
    ("ns", "CPU ns/delivery", LOWER),
    ("per_cpu_s", "deliveries/CPU s", None),
    ("user", "user share", None),
    ("p50", "p50 ms", LOWER),
    ("p99", "p99 ms", LOWER),
    ("p999", "p99.9 ms", LOWER),
    ("first", "first ms", None),
    ("last", "last ms", LOWER),
    ("spread", "first to last ms", LOWER),
    ("client", "client cpus", None),
]
RAMP = [
    ("highest", "highest M/s", HIGHER),
    ("half_p50", "p50 ms at half", LOWER),
    ("half_p99", "p99 ms at half", LOWER),
    ("half_p999", "p99.9 ms at half", LOWER),
    ("half_ns", "CPU ns/delivery at half", LOWER),
]
IDLE = [
    ("bytes", "B/connection", LOWER),
    ("rss_mb", "RSS MB", None),
    ("per_s", "connects/s", HIGHER),
    ("connect_us", "CPU us/connect", LOWER),
]


class Comparison:
    """The servers, where they sit, and what went wrong."""

    def __init__(self, options, kinds, record):
        self.options, self.kinds, self.record = options, kinds, record
        both = tuple(range(options.threads))
        self.seats = peer_loads.Seats(both, both if options.threads > 1 else (1,))
        self.failed = {}

    def rounds(self, load, **arguments):
        """{name: figures of each round}; of a turn that failed, none."""

        def turn(name):
            try:
                return load(self.kinds[name], self.seats, **arguments)
            except (RuntimeError, SystemExit) as error:
                self.failed.setdefault(name, str(error))
                return {}

        return in_turns(list(self.kinds), self.options.rounds, turn)

    def show(self, columns, rounds):
        """The table of medians, ours first, and the ratios to the best of the others."""
        rows = [[name, *(middle(each, figure) for figure, _, _ in columns)] for name, each in rounds.items()]
        self.record.say(table(["server", *(head for _, head, _ in columns)], rows))
        self.record.say()
        for figure, head, better in columns:
            if better:
                self.say_ratio(head, figure, better, rounds)
        self.record.say()

    def say_ratio(self, head, figure, better, rounds):
        others = {name: middle(each, figure) for name, each in rounds.items() if name != OURS}
        others = {name: value for name, value in others.items() if value is not None}
        if others and OURS in rounds:
            best = better(others, key=others.get)
            pairs = spread(ratios(rounds[OURS], rounds[best], figure))
            self.record.say(f"ours / {best}, {head}: {pairs}")

    def flat(self):
        rate = self.options.flat_rate
        self.record.say(f"flat: {rate} publications/s of 128 B to 5,000 subscribers")
        self.record.say()
        rounds = self.rounds(peer_loads.flat, duration_s=self.options.duration, rate=rate)
        for name, each in rounds.items():
            if lost := sum(figures.get("lost", 0) for figures in each):
                self.failed.setdefault(name, f"lost, doubled or damaged {lost} messages of `flat`")
        self.show(FLAT, rounds)
        self.bars(
            "-flat", rounds, "ns", "processor time per delivery, ns", f"{rate} publications/s to 5,000 subscribers"
        )
        return rounds

    def ramp(self):
        self.record.say(f"ramp: 2,000 subscribers, 128 B, until p99 reaches {self.options.p99} ms or loss")
        self.record.say()
        rounds = self.rounds(
            peer_loads.ramp, duration_s=self.options.duration, rates=self.options.rates, p99_ms_max=self.options.p99
        )
        self.show(RAMP, rounds)
        at_rates = {
            rate: {name: [point_at(figures, rate) for figures in each] for name, each in rounds.items()}
            for rate in self.options.rates
        }
        self.record.say("p99, ms, at each rate of publications/s")
        self.record.say()
        rows = [[name, *(middle(at_rates[rate][name], "p99") for rate in at_rates)] for name in rounds]
        self.record.say(table(["server", *at_rates], rows))
        self.record.say()
        for rate, at_rate in at_rates.items():
            self.say_ratio(f"p99 at {rate}/s", "p99", LOWER, at_rate)
        self.record.say()
        plots.lines(
            self.record.plot_path("-ramp"),
            {
                name: [
                    (rate * peer_loads.RAMP_SUBSCRIBERS / 1e6, middle(at_rates[rate][name], "p99")) for rate in at_rates
                ]
                for name in rounds
            },
            **{"x": "offered, million deliveries/s", "y": "p99, ms", "title": "2,000 subscribers, 128 B"},
            **{"log_x": True, "log_y": True, "bound": self.options.p99},
        )
        return rounds

    def idle(self):
        connections = self.options.connections
        self.record.say(f"idle: {connections:,} subscribed connections; memory of those beyond the first 1,000")
        self.record.say()
        rounds = self.rounds(peer_loads.idle, connections=connections)
        self.show(IDLE, rounds)
        self.bars("-idle", rounds, "bytes", "resident memory per idle connection, B", f"{connections:,} connections")
        return rounds

    def bars(self, suffix, rounds, figure, y, title):
        values = {name: middle(each, figure) for name, each in rounds.items()}
        plots.bars(self.record.plot_path(suffix), values, y=y, title=title, log_y=figure == "bytes")


def middle(rounds, figure):
    """The median of a figure over the rounds that have it."""
    values = [each[figure] for each in rounds if each.get(figure) is not None]
    return statistics.median(values) if values else None


def point_at(figures, rate):
    """What a ramp found at a rate."""
    return next((point for point in figures.get("points", ()) if point["rate"] == rate), {})


def chosen(parser, options):
    """{name: kind}, ours first, and what is missing of those asked for."""
    every = {OURS: KINDS[OURS], **PEER_KINDS}
    names = options.servers.split(",") if options.servers else list(PEER_KINDS)
    for name in names:
        if name not in every:
            parser.error(f"--servers {name}: not known; it is one of {', '.join(every)}")
    kinds = {name: every[name] for name in [OURS, *names]}
    one_thread = [name for name, kind in kinds.items() if kind.threads_max < options.threads]
    missing = {name: kind.missing() for name, kind in kinds.items() if kind.missing()}
    return {name: kind for name, kind in kinds.items() if name not in [*missing, *one_thread]}, missing, one_thread


def numbers_of(text):
    return sorted(int(number) for number in text.split(","))


def loads_of(text):
    loads = text.split(",")
    if wrong := set(loads) - {"flat", "ramp", "idle"}:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(wrong))} is not one of flat, ramp, idle")
    return loads


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", help=f"to compare with, of {','.join(PEER_KINDS)} (all)")
    parser.add_argument("--loads", type=loads_of, default=["flat", "ramp", "idle"], help="of flat,ramp,idle (all)")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=1, help="of each server (1)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server (5)")
    parser.add_argument("--duration", type=int, default=4, help="seconds measured in each run (4)")
    parser.add_argument("--connections", type=int, default=15_000, help="of `idle` (15000)")
    rates = [25, 50, 100, 200, 400, 800, 1200, 1600, 2400, 3200, 4000, 5000, 6000]
    parser.add_argument("--rates", type=numbers_of, default=rates, help="publications/s of `ramp`")
    parser.add_argument(
        "--flat-rate", type=int, default=20, help="publications/s of `flat`: a slow machine takes less (20)"
    )
    parser.add_argument("--p99", type=int, default=20, help="bound of `ramp`, ms: a slow machine takes longer (20)")
    parser.add_argument("--allow-missing", action="store_true", help="compare with those that are there")
    parser.add_argument("--record", help="folder for the record: text, numbers, plots")
    return parser, parser.parse_args()


def main():
    parser, options = parse()
    raise_descriptors()
    kinds, missing, one_thread = chosen(parser, options)
    for name, paths in missing.items():
        print(f"{name} is missing: {', '.join(path.name for path in paths)} (scripts/measure/setup)", file=sys.stderr)
    if OURS in missing or (missing and not options.allow_missing):
        return 1
    record = Record("peers" if options.threads == 1 else f"peers-{options.threads}-threads", options.record)
    comparison = Comparison(options, kinds, record)
    seats = comparison.seats
    record.say(f"server on processors {seats.server}, load generator on {seats.client}; medians of {options.rounds}")
    if one_thread:
        record.say(f"left out, as they have one thread only: {', '.join(one_thread)}")
    if missing:
        record.say(f"missing: {', '.join(missing)}")
    record.say()
    numbers = {load: getattr(comparison, load)() for load in options.loads}
    for name, why in comparison.failed.items():
        record.say(f"FAILED {name}: {why}")
    record.write(numbers, **versions([name for name in kinds if name != OURS]))
    return 1 if comparison.failed else 0


if __name__ == "__main__":
    sys.exit(main())
