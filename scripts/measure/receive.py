#!/usr/bin/env python3
"""The receiving side: processor time per message taken in, beside servers on tokio-tungstenite and on
fastwebsockets and beside a floor.

    cargo build --release
    cargo build --release --manifest-path benches/peers/ingest/Cargo.toml --target-dir target/peers
    scripts/measure/receive.py                        # 1,000 connections, 100 messages a second each, 128 B
    scripts/measure/receive.py --rates 20000,100000 --old OTHER/uringcast
    scripts/measure/receive.py --connections 200 --subscribers 2 --old OTHER/uringcast --servers ours,old

Each serves alone on one processor, the load generator on another, in turns. What each does with a message: ours
checks that text is UTF-8 and JSON, numbers it, keeps it as the topic's history and looks for subscribers (there are
none); the peers check UTF-8, count, and keep the last payload; `plain` is the floor without subscribers, which
receives as ours does and cuts frames, nothing else. A figure is the median over the rounds, a ratio is of two
turns of one round. Who falls behind finds several messages in one receive and pays less for each, so the lateness
of the load generator stands beside it. With subscribers, of whom each gets every message, all that passes on what it
takes in is compared, ours and an older one, and what counts is also how late messages arrive.
"""

import argparse
from functools import partial
from pathlib import Path

import plots
from record import Record
from servers import KINDS, TARGET, Running, by_port_and_cpu, ours
from turns import in_turns, loadgen, median, ratios, spread, table


def peer(name, binary):
    return by_port_and_cpu(name, TARGET / "peers/release" / binary)


def kinds(options):
    found = {
        "ours": KINDS["ours"],
        "tungstenite": peer("tungstenite", "ingest-tokio-tungstenite"),
        "fastwebsockets": peer("fastwebsockets", "ingest-fastwebsockets"),
        "plain": KINDS["plain"],
    }
    if options.old:
        found["old"] = ours("old", binary=options.old)
    for name in options.servers:
        if name not in found:
            raise SystemExit(f"--servers {name}: none of {', '.join(found)}")
        if missing := found[name].missing():
            raise SystemExit(f"{name}: {missing[0]} is not built; the head of this script has the line")
    return {name: found[name] for name in options.servers}


def turn(name, servers, options, rate):
    """One turn of one server."""
    with Running(servers[name], cpus=[options.server_cpu]) as server:
        if options.subscribers:
            urls = ["--url", server.url, "--publish-url", server.publish_url, "--subscribers", options.subscribers]
        else:
            urls = ["--url", server.publish_url]
        report = loadgen(
            "fanout" if options.subscribers else "publish",
            *(*urls, *server.used([options.client_cpu]), "--publishers", options.connections),
            *("--rate", rate, "--size", options.size, *(["--binary"] if options.binary else [])),
            *("--duration", f"{options.duration}s", "--warmup", "1s"),
            cpus=[options.client_cpu],
        )
    if options.subscribers:
        sent_per_s, late = report["deliveries"]["per_s"] / options.subscribers, report["latency"]["corrected"]
    else:
        sent_per_s, late = report["sending"]["per_s"], report["sending"]["lateness"]
    return {
        "ns": report["server"]["cpus"] * 1e9 / sent_per_s,
        "user": report["server"]["user_share"],
        "cpus": report["server"]["cpus"],
        "per_s": sent_per_s,
        "late_ms": late["p50_ns"] / 1e6,
        "late_p99_ms": late["p99_ns"] / 1e6,
        "lost": report["faults"]["lost"],
        "unsent": report["published"]["unsent"],
        "failures": sum(report["connections"]["failures"].values()),
        "client": max(thread["cpu_ns"] / thread["wall_ns"] for thread in report["threads"]),
    }


def compare(record, servers, options, rate):
    """One table: all of them at one rate."""
    rounds = in_turns(list(servers), options.rounds, partial(turn, servers=servers, options=options, rate=rate))
    first = next(iter(servers))
    rows = [
        [name, median(each, "ns"), median(each, "user"), median(each, "cpus"), median(each, "per_s")]
        + [median(each, "late_ms"), median(each, "late_p99_ms"), median(each, "client")]
        + [sum(one["unsent"] + one["failures"] + one["lost"] for one in each)]
        + ["1" if name == first else spread(ratios(rounds[first], each, "ns"))]
        + ["1" if name == first else spread(ratios(rounds[first], each, "late_p99_ms"))]
        for name, each in rounds.items()
    ]
    heads = ["server", "ns/message", "in user space", "cpus", "messages/s"]
    heads += [f"{'arrived' if options.subscribers else 'sent'} late by ms, p50", "p99"]
    heads += ["client cpus", "lost or not sent", f"{first}'s CPU / its", "p99"]
    record.say(f"{options.connections:,} connections, {rate:,} messages/s in all, {options.size} B")
    if options.subscribers:
        record.say(f"to {options.subscribers} subscribers, each of whom gets every message")
    record.say()
    record.say(table(heads, rows))
    record.say()
    return rounds


def numbers_of(text):
    return [int(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=lambda text: text.split(","), help="which, ours first")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--subscribers", type=int, default=0, help="who get every message")
    parser.add_argument("--rates", type=numbers_of, default=[100_000], help="messages per second, all together")
    parser.add_argument("--size", type=int, default=128, help="payload, bytes")
    parser.add_argument("--binary", action="store_true", help="binary messages instead of text")
    parser.add_argument("--old", type=Path, help="another build of the server, to be compared as `old`")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--duration", type=int, default=4, help="seconds of each turn")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--record", help="folder for the record: text, numbers, plots")
    options = parser.parse_args()
    if not options.servers:
        options.servers = ["ours", *(["old"] if options.old else []), "tungstenite", "fastwebsockets", "plain"]
    servers = kinds(options)
    record, numbers = Record("receive", options.record), []
    for rate in options.rates:
        rounds = compare(record, servers, options, rate)
        numbers.append({"rate": rate, "rounds": rounds})
        plots.bars(
            record.plot_path(f"-{rate}"),
            {name: median(each, "ns") for name, each in rounds.items()},
            y="ns of the server's processor time per message",
            title=f"Taking in {rate:,} messages/s from {options.connections:,} connections, {options.size} B",
        )
    record.write(numbers, connections=options.connections, size=options.size)


if __name__ == "__main__":
    main()
