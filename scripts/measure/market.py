#!/usr/bin/env python3
"""The server under loads that have the shape of market data.

    cargo build --release
    scripts/measure/market.py                         # all four
    scripts/measure/market.py --loads topics,bursts --rounds 3 --record benches/runs/NAME

`topics`: 10,000 topics of one publication a second, 512 B each, 40,000 clients on one topic each. 40,000 sockets are
more than one ring's table holds under the usual limit of open files: so there are three reactors, on one processor.
Beside it, in turns, one topic with as many deliveries to as many clients: what so many sockets cost by themselves.
`replay`: a day's recorded market data (set 1: $URINGCAST_DATA, or ../shared/data) at rising speed, nothing may be
skipped, until something is lost or late.
`bursts`: one topic, 50 publications within a millisecond, beside the same rate evenly spaced, in turns: the factor
that coalescing brings.
`watchlists`: every client with 50 topics of 5,000 of its own, some of them changing, beside the same clients with
shared watchlists, in turns; memory for each; and how many changes a second are answered.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import plots
from metrics import read
from record import Record
from servers import KINDS, ROOT, Running
from turns import in_turns, loadgen, median, progress, ratios, spread, table

# A ring's table of sockets, under a limit of 20,000 open files; headroom for SO_REUSEPORT's uneven hashing.
PER_REACTOR = 14_000
# Later than that is not what a subscriber of market data calls live.
LATE_MS = 1000
GOAL_P99_MS, GOAL_CPUS, GOAL_OWN = 10, 0.6, 1.3


def turn(options, command, *flags, subscribers):
    """One run against a server of its own; what is told of it."""
    rings = -(-subscribers // PER_REACTOR)
    with Running(KINDS["ours"], cpus=[options.server_cpu], threads=rings) as server:
        place = server.place
        urls = ["--url", f"ws://127.0.0.1:{place.data}", "--publish-url", f"ws://127.0.0.1:{place.publish}"]
        if command == "fanout":
            urls = ["--url", server.url, "--publish-url", server.publish_url]
        report = loadgen(
            command,
            *(*urls, *server.used([options.client_cpu]), "--subscribers", subscribers, "--threads", rings, *flags),
            cpus=[options.client_cpu] * rings,
        )
        counted = read(server.place.admin)
    return figures(report, counted)


def figures(report, counted):
    latency, threads = report["latency"]["corrected"], report["threads"]
    server, changes = report["server"] or {}, report.get("changes") or {}
    return {
        "ns": server.get("cpu_ns_per_delivery"),
        "cpus": server.get("cpus"),
        "rss": server.get("rss_bytes"),
        "per_s": report["deliveries"]["per_s"],
        "p50": latency["p50_ns"] / 1e6,
        "p99": latency["p99_ns"] / 1e6,
        "p99_9": latency["p99_9_ns"] / 1e6,
        "lost": report["faults"]["lost"],
        "clean": report["clean"],
        "notes": report["notes"],
        "per_send": counted.sum("uringcast_deliveries_total") / max(counted.sum("uringcast_sends_total"), 1),
        "client": max((thread["cpu_ns"] / max(thread["wall_ns"], 1) for thread in threads), default=0),
        "clients": sum(thread["cpu_ns"] / max(thread["wall_ns"], 1) for thread in threads),
        "published_late": report["published"]["late"] / max(report["published"]["published"], 1),
        "changes_per_s": changes.get("answered_per_s"),
        "changes_p99": changes["latency"]["p99_ns"] / 1e6 if changes else None,
    }


def during(options):
    return ["--duration", f"{options.duration}s", "--warmup", "2s"]


def topics(record, options):
    """10,000 topics, everyone on one; also faster, to see what the goal's share of a processor can take."""
    count, clients = options.topics, options.clients
    record.say(f"{count:,} topics, 512 B, {clients:,} clients on a random one each, one server processor")
    record.say()
    rows, runs = [], []
    for times in options.times:
        flags = {
            "topics": ["watchlists", "--topics", count, "--rate", count * times],
            "one topic": ["fanout", "--rate", times],
        }
        rounds = in_turns(
            list(flags),
            options.topic_rounds,
            lambda name, flags=flags: turn(options, *flags[name], "--size", 512, *during(options), subscribers=clients),
        )
        got = rounds["topics"]
        ratio = ratios(got, rounds["one topic"], "ns")
        of = partial(median, got)
        runs.append({"per_topic_per_s": times, "rounds": rounds})
        rows.append(
            [times, of("per_s"), of("cpus"), of("ns"), spread(ratio)]
            + [of("p50"), of("p99"), of("p99_9"), of("per_send")]
            + [sum(each["lost"] for each in got), of("clients")]
        )
    heads = ["each/s", "deliveries/s", "processors", "ns/delivery", "topics/one topic, CPU"]
    heads += ["p50 ms", "p99 ms", "p99.9 ms", "messages/SEND", "lost", "client cpus"]
    record.say(table(heads, rows))
    within = [(times, p99) for times, _, cpus, _, _, _, p99, *_, lost, _ in rows if cpus <= GOAL_CPUS and not lost]
    if within:
        times, p99 = within[-1]
        record.say(
            f"within {GOAL_CPUS:.0%} of a processor: {times}/s each, p99 {p99:.2f} ms (goal: under {GOAL_P99_MS} ms)"
        )
    else:
        record.say(f"no rate was clean within {GOAL_CPUS:.0%} of a processor")
    record.say()
    plots.lines(
        record.plot_path("-topics"),
        {"p99 ms": [(row[2], row[6]) for row in rows], "p50 ms": [(row[2], row[5]) for row in rows]},
        x="server processors",
        y="latency from the intended time, ms",
        title=f"{count:,} topics, {clients:,} clients on one each",
        bound=GOAL_P99_MS,
    )
    return runs


def recorded():
    """The files of set 1."""
    places = [os.environ.get("URINGCAST_DATA"), ROOT.parent / "shared/data/1-binance-2024-08-08"]
    for place in places:
        files = sorted(Path(place).glob("*/*.gz")) if place else []
        if files:
            return files
    sys.exit("replay: no recorded data; set URINGCAST_DATA to a folder with */*.gz in it (see scripts/test)")


def replay(record, options):
    """Recorded data, faster and faster."""
    files, rows, runs = recorded(), [], []
    record.say(f"Recorded set 1, {options.replay_clients:,} subscribers, every message an event")
    record.say()
    for speed in options.speeds:
        progress(f"replay at {speed} times its speed")
        flags = [*files, "--speed", speed, "--lines", "--value", "none", "--duration", f"{options.replay_s}s"]
        got = turn(options, "replay", *flags, subscribers=options.replay_clients)
        is_late = got["p99"] > LATE_MS
        verdict = "; ".join(got["notes"][:1]) if not got["clean"] else "late" if is_late else "held"
        runs.append({"speed": speed, **got, "verdict": verdict})
        rows.append(
            [speed, got["per_s"], got["cpus"], got["ns"], got["per_send"]]
            + [got["p50"], got["p99"], got["lost"], got["client"], verdict]
        )
        if not got["clean"] or is_late:
            break
    progress("")
    heads = ["speed", "deliveries/s", "processors", "ns/delivery", "messages/SEND", "p50 ms", "p99 ms", "lost"]
    record.say(table([*heads, "client cpus", ""], rows))
    record.say()
    plots.lines(
        record.plot_path("-replay"),
        {f"{name} ms": [(run["per_s"], run[name]) for run in runs] for name in ("p99", "p50")},
        x="deliveries per second",
        y="latency from the intended time, ms",
        title="Recorded market data at rising speed",
        log_x=True,
        log_y=True,
    )
    return runs


def bursts(record, options):
    """The same mean rate, evenly and in bursts."""
    record.say("One topic, 128 B, 5,000 subscribers, 50 publications/s: evenly spaced, and 50 within a millisecond")
    record.say()
    of = {"evenly": [], "bursts": ["--burst", "50/1ms"]}
    fixed = ["--rate", 50, *during(options)]
    rounds = in_turns(
        list(of), options.rounds, lambda name: turn(options, "fanout", *fixed, *of[name], subscribers=5000)
    )
    compared(record, rounds)
    factor = ratios(rounds["evenly"], rounds["bursts"], "ns")
    record.say(f"coalescing takes a delivery's processor time down by a factor of {spread(factor)}")
    record.say()
    bars(record, rounds, "-bursts", "50 publications/s to 5,000")
    return rounds


def watchlists(record, options):
    """A watchlist of one's own beside shared ones, and changing ones."""
    record.say("5,000 clients with 50 of 5,000 topics each, 2,000 publications/s of 128 B, as JSON")
    record.say()
    fixed = ["--topics", 5000, "--watch", 50, "--format", "json"]
    changing = ["--changing", 5, "--change-rate"]
    of = {"shared": ["--lists", 50], "own": [], "own, changing": [*changing, options.change_rate]}
    load = [*fixed, "--rate", 2000, *during(options)]
    rounds = in_turns(
        list(of), options.rounds, lambda name: turn(options, "watchlists", *load, *of[name], subscribers=5000)
    )
    compared(record, rounds)
    for name in ("own", "own, changing"):
        ratio = spread(ratios(rounds[name], rounds["shared"], "ns"))
        record.say(f"processor time per delivery, {name} / shared: {ratio} (goal for own: at most {GOAL_OWN})")
    # One publication in all: what there is are connections.
    still = [*fixed, "--rate", 0.01, "--duration", "2s", "--warmup", "0s"]
    memory = {}
    for name in ("shared", "own"):
        progress(f"memory: {name}")
        few, many = (turn(options, "watchlists", *still, *of[name], subscribers=each)["rss"] for each in (1000, 5000))
        memory[name] = (many - few) / 4000
        record.say(f"memory of a connection, {name}: {memory[name]:,.0f} B of RSS more")
    progress("changes as fast as they are answered")
    most = turn(options, "watchlists", *fixed, "--rate", 100, *changing, 1_000_000, *during(options), subscribers=5000)
    progress("")
    record.say(
        f"changes as fast as they are answered: {most['changes_per_s']:,.0f} a second (an unsubscribe and a "
        f"subscribe each) with {most['cpus']:.2f} processors, lost {most['lost']}"
    )
    record.say()
    bars(record, rounds, "-watchlists", "5,000 clients, 50 topics each")
    return {"rounds": rounds, "memory": memory, "changes": most}


def compared(record, rounds):
    """The medians of what took turns."""
    rows = []
    for name, got in rounds.items():
        of = partial(median, got)
        changed = of("changes_per_s") if got[0]["changes_per_s"] else None
        answered = of("changes_p99") if got[0]["changes_p99"] else None
        rows.append(
            [name, of("ns"), of("cpus"), of("per_s"), of("per_send"), of("p50"), of("p99"), changed, answered]
            + [sum(each["lost"] for each in got), sum(not each["clean"] for each in got), of("client")]
        )
    heads = ["", "ns/delivery", "processors", "deliveries/s", "messages/SEND", "p50 ms", "p99 ms"]
    record.say(table([*heads, "changes/s", "answered p99 ms", "lost", "not clean", "client cpus"], rows))


def bars(record, rounds, suffix, title):
    values = {name: median(got, "ns") for name, got in rounds.items()}
    plots.bars(record.plot_path(suffix), values, y="processor time per delivery, ns", title=title)


LOADS = {"topics": topics, "replay": replay, "bursts": bursts, "watchlists": watchlists}


def numbers_of(text):
    return [int(number) for number in text.split(",")]


def loads_of(text):
    names = text.split(",")
    if unknown := set(names) - set(LOADS):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: should be some of {', '.join(LOADS)}")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=loads_of, default=list(LOADS), help="some of topics,replay,bursts,watchlists")
    parser.add_argument("--rounds", type=int, default=7, help="of what is compared in turns")
    parser.add_argument("--duration", type=int, default=6, help="seconds of each turn")
    parser.add_argument("--topics", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=40_000, help="of `topics`")
    parser.add_argument("--times", type=numbers_of, default=[1, 2, 3, 4], help="publications a second per topic")
    parser.add_argument("--topic-rounds", type=int, default=3, help="of `topics`, whose clients take long to connect")
    parser.add_argument("--speeds", type=numbers_of, default=[1, 2, 4, 8, 12, 16, 24, 32, 48, 64])
    parser.add_argument("--replay-clients", type=int, default=2000)
    parser.add_argument("--replay-s", type=int, default=10, help="seconds of each speed, at most")
    parser.add_argument("--change-rate", type=int, default=1000, help="changes a second among 5,000 watchlists")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--record", help="folder for the record: text, numbers, plots")
    options = parser.parse_args()
    record = Record("market", options.record)
    record.write({name: LOADS[name](record, options) for name in options.loads})


if __name__ == "__main__":
    main()
