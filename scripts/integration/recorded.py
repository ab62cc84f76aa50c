"""Recorded market data, where there is any, and made-up lines where there is none.

Knows: where it is, the two formats of lines that `loadgen replay` takes. Must not know: servers.
"""

import gzip
import itertools
import json
import os
import re
from pathlib import Path

from server import ROOT

WRAPPED = re.compile(r'\d+ \{"stream":"([a-z]+)@([A-Za-z]+)[^"]*","data":(.*)\}\n')
KINDS = ["trade", "bookTicker", "depth"]


def files():
    """The files of recorded market data, if there are any."""
    places = [os.environ.get("URINGCAST_DATA"), ROOT.parent / "shared/data/1-binance-2024-08-08"]
    for place in filter(None, places):
        found = sorted(Path(place).glob("*/*.gz"))
        if found:
            return [str(each) for each in found]
    return None


def made_up(path, count):
    """Writes so many lines of our own, of lengths as real ones have them."""
    with path.open("w") as out:
        for n in range(count):
            topic = f"{('spot', 'usdm')[n % 2]}.BTCUSDT.{KINDS[n % 3]}"
            price = f"{61_837 + n % 91 / 7:.2f}000000"
            levels = [[price, f"{m}.37000000"] for m in range(2 + n % 40)]
            data = {"e": KINDS[n % 3], "s": "BTCUSDT", "u": 50093239189 + n, "b": levels}
            line = {"topic": topic, "data": data, "ts": 1723161253937085 + n * 2_000}
            out.write(json.dumps(line) + "\n")
    return str(path)


def part(folder, lines_per_file):
    """The beginning of what there is, in files of its own: their paths, and the payloads of each
    topic in their order, as they stand in the lines."""
    payloads = {}
    whole = files()
    if whole is None:
        path = made_up(folder / "own.ndjson", 4 * lines_per_file)
        for line in Path(path).read_text().splitlines():
            topic = json.loads(line)["topic"]
            # The line is ours: `data` stands between the topic and the time.
            data = line[line.index('"data": ') + 8 : line.rindex(', "ts"')]
            payloads.setdefault(topic, []).append(data)
        return [path], payloads
    paths = []
    for path in map(Path, whole):
        copy = folder / path.parent.name / path.stem
        copy.parent.mkdir(exist_ok=True)
        with gzip.open(path, "rt", encoding="utf-8") as lines, copy.open("w") as out:
            for line in itertools.islice(lines, lines_per_file):
                out.write(line)
                if found := WRAPPED.fullmatch(line):
                    topic = f"{path.parent.name}.{found[1].upper()}.{found[2]}"
                    payloads.setdefault(topic, []).append(found[3])
        paths.append(str(copy))
    return paths, payloads
