#!/usr/bin/env python3
"""What permessage-deflate costs the server per delivery, and what it saves on the wire.

Subscribers that offer compression and subscribers that do not take turns on one server's settings, so that each ratio is
of two neighbouring runs. Messages are an exchange's changes of an order book, made up, at a rate that leaves nothing to
coalesce; with recorded market data as arguments, the bytes that its subscribers receive are compared as well.

A server that is overloaded sends plain to all: figures count only where the same share came compressed, so on a quiet machine.

    cargo build --release -p uringcast -p uringcast-loadgen
    scripts/compare_deflate.py                                             # 512 B and 4 KiB, raw, to 5,000
    scripts/compare_deflate.py --out benches/runs/DATE-MACHINE/deflate_delivery RECORDED.gz…
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from compare import TARGET, free_port

TOPIC = "md.BTCUSDT.depth"


def depth(dice, number, size):
    """One message of about so many bytes."""
    first = 50_093_239_189 + 20 * number
    head = f'{{"e":"depthUpdate","E":{1_723_161_255_208 + 100 * number},"s":"BTCUSDT","U":{first},"u":{first + 19}'
    sides = {"b": [], "a": []}
    used = len(head) + len(',"b":[],"a":[]}')
    while used < size:
        price = f"{61_000 + dice.random() * 1_500:.2f}000000"
        quantity = f"{dice.choice([0, dice.random(), dice.random() * 3]):.5f}000"
        level = f'["{price}","{quantity}"]'
        sides[dice.choice("ba")].append(level)
        used += len(level) + 1
    return head + "".join(f',"{side}":[{",".join(levels)}]' for side, levels in sides.items()) + "}"


def write_recording(path, options, size):
    """Evenly spaced messages, as the load generator replays them; no two runs of one size differ."""
    dice = random.Random(size)
    count = int(options.rate * (options.duration + options.warmup))
    with open(path, "w") as out:
        for number in range(count):
            ts = 1_723_161_255_000_000 + int(number * 1e6 / options.rate)
            out.write(f'{{"topic":"{TOPIC}","data":{depth(dice, number, size)},"ts":{ts}}}\n')


@contextlib.contextmanager
def server(options, *more):
    """The process, its data port and its publish port."""
    port, publish, admin = free_port(), free_port(), free_port()
    command = [TARGET / "release/uringcast", "serve", "--listen", f"127.0.0.1:{port}", "--publish-listen", f"127.0.0.1:{publish}", "--admin", f"127.0.0.1:{admin}"]
    command += ["--reactors", "1", "--cpus", options.server_cpu, "--log-level", "warn", *more]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        # It prints its addresses once it listens.
        if not process.stdout.readline():
            sys.exit("the server does not start")
        yield process, port, publish
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def replay(options, files, deflate, flags, settings=()):
    """One turn: the load generator's report."""
    with server(options, *settings) as (process, port, publish), tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [TARGET / "release/loadgen", "replay", *files, "--url", f"ws://127.0.0.1:{port}", "--publish-url", f"ws://127.0.0.1:{publish}"]
        command += ["--pid", process.pid, "--cpus", options.client_cpu, "--quiet", "--json", out.name, *flags]
        command += ["--deflate"] if deflate else []
        ended = subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            return json.load(open(out.name))
        except json.JSONDecodeError:
            sys.exit(f"loadgen said: {ended.stderr.strip()}")


def figures(report):
    latency = report["latency"]["corrected"]
    deliveries = report["deliveries"]
    faults = report["faults"]
    compressed = report.get("deflate") or {}
    return {
        "ns/delivery": report["server"]["cpu_ns_per_delivery"],
        "wire B/delivery": deliveries["wire_bytes"] / max(deliveries["messages"], 1),
        "p50 ms": latency["p50_ns"] / 1e6,
        "p99 ms": latency["p99_ns"] / 1e6,
        "faults": sum(faults[name] for name in ("lost", "duplicated", "reordered", "damaged")),
        "agreed": compressed.get("agreed", 0),
        "compressed %": 100 * compressed.get("messages", 0) / max(deliveries["messages"], 1),
        "deliveries": deliveries["messages"],
        "server cpus": report["server"]["cpus"],
        "client cpus": max(thread["cpu_ns"] / thread["wall_ns"] for thread in report["threads"]),
    }


def ratios(pairs, name):
    values = sorted(deflated[name] / plain[name] for plain, deflated in pairs if plain[name])
    return f"{statistics.median(values):.3f} ({values[0]:.3f} to {values[-1]:.3f})" if values else "-"


def delivery(options, size, say):
    """Pairs of a plain and a compressed turn; which goes first changes."""
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        recording = pathlib.Path(folder) / "depth.ndjson"
        write_recording(recording, options, size)
        flags = ["--subscribers", options.subscribers, "--format", options.format, "--interest", TOPIC, "--warmup", f"{options.warmup}s"]
        for turn in range(options.rounds):
            order = (False, True) if turn % 2 == 0 else (True, False)
            got = {deflate: figures(replay(options, [recording], deflate, flags)) for deflate in order}
            pairs.append((got[False], got[True]))
    say(f"{size} B, {options.format}, {options.subscribers} subscribers, {options.rate:g} publications/s, {options.rounds} pairs")
    names = list(pairs[0][0])
    say(f"{'':10}" + "".join(f"{name:>17}" for name in names))
    for label, index in (("plain", 0), ("deflate", 1)):
        say(f"{label:10}" + "".join(f"{statistics.median(pair[index][name] for pair in pairs):>17.2f}" for name in names))
    for name in ("ns/delivery", "wire B/delivery", "p50 ms", "p99 ms"):
        say(f"deflate/plain {name}: {ratios(pairs, name)}")
    say("")
    return {"size": size, "format": options.format, "pairs": pairs}


def recorded(options, say):
    """The same recording to subscribers with and without, for each form and threshold."""
    results = []
    for form in ("raw", "json"):
        flags = ["--subscribers", 8, "--format", form, "--speed", options.speed]
        plain = figures(replay(options, options.files, False, flags))
        say(f"recorded, {form}: plain {plain['wire B/delivery']:.1f} B a delivery on the wire, {plain['deliveries']} deliveries, {plain['faults']} faults")
        results.append({"form": form, "min bytes": None, **plain})
        for least in options.min_bytes:
            got = figures(replay(options, options.files, True, flags, ["--deflate-min-bytes", least]))
            saved = 100 - 100 * got["wire B/delivery"] / plain["wire B/delivery"]
            say(f"  deflate from {least:>5} B: {got['wire B/delivery']:8.1f} B, {saved:5.1f} % saved, {got['compressed %']:.1f} % came compressed, {got['faults']} faults, {got['agreed']} agreed")
            results.append({"form": form, "min bytes": least, **got})
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="recorded market data, as `loadgen replay` takes it")
    parser.add_argument("--subscribers", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=10, help="publications per second")
    parser.add_argument("--sizes", default=[512, 4096], type=lambda text: [int(size) for size in text.split(",")], help="payloads, bytes; none: 0")
    parser.add_argument("--format", choices=["raw", "json"], default="raw")
    parser.add_argument("--warmup", type=int, default=2, help="seconds")
    parser.add_argument("--duration", type=int, default=6, help="seconds")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--speed", type=float, default=20, help="of the recorded data, times its own")
    parser.add_argument("--min-bytes", default=[0, 128, 256], type=lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--out", help="write OUT.txt and OUT.json as well")
    options = parser.parse_args()
    lines = []

    def say(line):
        print(line, flush=True)
        lines.append(line)

    began = time.strftime("%Y-%m-%d")
    say(f"Linux {platform.release()}, {os.cpu_count()} cores, {began}\n")
    results = {"delivery": [delivery(options, size, say) for size in options.sizes if size]}
    if options.files:
        results["recorded"] = recorded(options, say)
    if options.out:
        pathlib.Path(f"{options.out}.txt").write_text("\n".join(lines) + "\n")
        pathlib.Path(f"{options.out}.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
