#!/usr/bin/env python3
"""Builds the bench once for each deflate library, lets the builds take turns, and prints what each saves and costs.

    benches/peers/deflate/compare.py RECORDED.gz… --out benches/runs/DATE-MACHINE/deflate
    benches/peers/deflate/compare.py                                       # made-up messages

Every figure is of single messages without context between them. Times are processor time of the one thread, the
median of the rounds. zlib-ng needs cmake; a candidate that does not build is left out and named.
"""

import argparse
import collections
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
CANDIDATES = ["zlib-rs", "zlib-ng", "zlib", "miniz_oxide", "libdeflate"]
FORMS = ["raw", "json"]
KEY = ("candidate", "level", "kind", "form", "class")
SUMS = ("messages", "bytes_in", "bytes_out", "compress_ns", "inflate_ns")


def build(candidates):
    """A binary of each that builds."""
    binaries = {}
    for candidate in candidates:
        cargo = ["cargo", "build", "--release", "--locked", "--quiet", "--features", candidate]
        built = subprocess.run(cargo, cwd=HERE, env=os.environ | {"CARGO_TARGET_DIR": str(TARGET)}, stderr=subprocess.PIPE, text=True)
        if built.returncode:
            print(f"{candidate} does not build: {built.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        binaries[candidate] = TARGET / "release" / f"peer-deflate-{candidate}"
        shutil.copy(TARGET / "release/peer-deflate", binaries[candidate])
    return binaries


def measure(binaries, options):
    """Of every level and group: the medians over the rounds, in which each binary runs once."""
    rounds = collections.defaultdict(list)
    for turn in range(options.rounds):
        order = list(binaries.items())
        for candidate, binary in order if turn % 2 == 0 else reversed(order):
            command = [binary, *options.files, "--levels", options.levels, "--per-group", options.per_group, "--window-bits", options.window_bits]
            for line in subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
                row = json.loads(line)
                rounds[tuple(row[name] for name in KEY)].append(row)
    rows = []
    for rows_of_group in rounds.values():
        row = dict(rows_of_group[0])
        for name in ("compress_ns", "inflate_ns"):
            row[name] = statistics.median(each[name] for each in rows_of_group)
        rows.append(row)
    return rows


def weighed(rows):
    """The sum over groups, each counted as often as its messages were recorded."""
    total = dict.fromkeys(SUMS, 0)
    for row in rows:
        weight = row["total"] / row["messages"]
        for name in SUMS:
            total[name] += row[name] * weight
    return total


def figures(total):
    return {
        "saved %": 100 - 100 * total["bytes_out"] / total["bytes_in"],
        "B in": total["bytes_in"] / total["messages"],
        "B out": total["bytes_out"] / total["messages"],
        "ns/message": total["compress_ns"] / total["messages"],
        "MB/s in": 1e3 * total["bytes_in"] / total["compress_ns"],
        "ns to inflate": total["inflate_ns"] / total["messages"],
        "MB/s out": 1e3 * total["bytes_in"] / total["inflate_ns"],
    }


def table(title, groups, key_names):
    """One line for each key of `groups`."""
    lines = [title]
    head = None
    for key, rows in groups.items():
        got = figures(weighed(rows))
        if head is None:
            head = "  " + "".join(f"{name:>12}" for name in key_names) + "".join(f"{name:>14}" for name in got)
            lines.append(head)
        lines.append("  " + "".join(f"{part!s:>12}" for part in key) + "".join(f"{value:>14.1f}" for value in got.values()))
    return "\n".join(lines) + "\n"


def grouped(rows, *names):
    groups = collections.defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return {key: groups[key] for key in sorted(groups, key=lambda key: [rank(part) for part in key])}


def rank(part):
    """Candidates in their order, numbers by size, names by the alphabet."""
    if part in CANDIDATES:
        return CANDIDATES.index(part), ""
    return (part, "") if isinstance(part, int) else (0, part)


def tables(rows, options):
    for form in FORMS:
        exchange = [row for row in rows if row["form"] == form and row["kind"] not in ("small", "snapshot")]
        yield table(f"Trades, bookTickers and depths together, {form}", grouped(exchange, "candidate", "level"), ["", "level"])
    some = [row for row in rows if row["level"] in options.shown]
    for form in FORMS:
        here = [row for row in some if row["form"] == form]
        for (kind,), of_kind in grouped(here, "kind").items():
            yield table(f"{kind}, {form}", grouped(of_kind, "candidate", "level"), ["", "level"])
    for form in FORMS:
        here = [row for row in some if row["form"] == form]
        for candidate in options.sizes_of:
            of_one = [row for row in here if row["candidate"] == candidate]
            if of_one:
                yield table(f"By size (bytes, at most), {form}, {candidate}", grouped(of_one, "kind", "class", "level"), ["", "size", "level"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="recorded messages; without any, made-up ones")
    parser.add_argument("--candidates", default=CANDIDATES, type=lambda text: text.split(","))
    parser.add_argument("--levels", default="1,2,3,4,5,6,7,8,9")
    parser.add_argument("--shown", default=[1, 2, 6], type=lambda text: [int(level) for level in text.split(",")], help="levels in the tables by kind and size")
    parser.add_argument("--sizes-of", default=["zlib-rs", "libdeflate"], type=lambda text: text.split(","), help="candidates in the tables by size")
    parser.add_argument("--per-group", type=int, default=500, help="messages of each kind, form and size")
    parser.add_argument("--window-bits", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", help="write OUT.txt and OUT.json as well")
    options = parser.parse_args()
    binaries = build(options.candidates)
    rows = measure(binaries, options)
    about = f"{'recorded' if options.files else 'made-up'} messages, {options.rounds} rounds, {options.per_group} messages a group, window {options.window_bits} bits, Linux {platform.release()}\n"
    text = "\n".join([about, *tables(rows, options)])
    print(text)
    if options.out:
        pathlib.Path(f"{options.out}.txt").write_text(text)
        columns = [*KEY, "total", *SUMS]
        lines = ",\n".join(json.dumps([row[name] for name in columns], separators=(",", ":")) for row in rows)
        pathlib.Path(f"{options.out}.json").write_text(f'{{"about":{json.dumps(about.strip())},\n"columns":{json.dumps(columns)},\n"rows":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
