"""Servers in turns: every round has one turn of each, and ratios are taken within a round.

Knows: rounds, medians, ratios, the load generator's command line. Must not know: which servers there are.
"""

import json
import statistics
import subprocess
import sys
import tempfile

from servers import BIN


def in_turns(names, rounds, turn):
    """{name: [figures of round 1, …]}; `turn(name)` gives the figures of one turn.

    Every other round goes backwards: what one leaves behind hits the others in turn.
    """
    got = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            progress(f"round {number + 1} of {rounds}: {name}")
            got[name].append(turn(name))
    progress("")
    return got


def progress(text):
    """One line that replaces the last one; nothing where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def loadgen(command, *flags, cpus=None):
    """Runs `loadgen COMMAND`; its report. A run that lost something has a report as well."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        words = [BIN / "loadgen", command, *flags, "--quiet", "--json", out.name]
        if cpus is not None:
            words += ["--cpus", ",".join(map(str, cpus))]
        ended = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        try:
            return json.load(open(out.name))
        except json.JSONDecodeError:
            sys.exit(f"loadgen {command} said: {ended.stderr.strip()}")


def median(rounds, figure):
    """The median of a figure over rounds."""
    return statistics.median(each[figure] for each in rounds)


def ratios(ours, others, figure):
    """Ours divided by theirs, round by round, sorted; rounds without the figure are left out."""
    pairs = zip(ours, others, strict=True)
    return sorted(a[figure] / b[figure] for a, b in pairs if b.get(figure) and a.get(figure))


def spread(values):
    """`median (lowest to highest in N pairs)`."""
    if not values:
        return "-"
    middle = statistics.median(values)
    return f"{middle:.3f} ({values[0]:.3f} to {values[-1]:.3f} in {len(values)} pairs)"


def table(heads, rows):
    """Rows as a table in Markdown, which reads well as plain text too; numbers to four digits."""
    cells = [list(map(str, heads)), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    lines = [
        "| " + " | ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def cell(value):
    """A figure as people read it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
