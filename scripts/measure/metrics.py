"""The server's own figures while it is under load: its metrics page, read now and then.

Knows: Prometheus' text, the server's histograms. Must not know: which load there is.
"""

import re
import threading
import time
import urllib.request

LINE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")
EVERY_S = 0.25


class Page:
    """One reading; figures of all shards together."""

    def __init__(self, text):
        self.figures = [
            (match[1], match[2] or "", float(match[3])) for line in text.splitlines() if (match := LINE.match(line))
        ]

    def sum(self, name):
        return sum(value for figure, _, value in self.figures if figure == name)

    def longest_s(self, name):
        """Of a time histogram, since the start."""
        name = name.replace("_seconds", "_longest_seconds")
        return max((value for figure, _, value in self.figures if figure == name), default=0)

    def buckets(self, name):
        """[(upper bound s, how many were at most that)], rising."""
        found = {}
        for figure, labels, value in self.figures:
            if figure == f"{name}_bucket":
                bound = float(re.search(r'le="([^"]+)"', labels)[1])
                found[bound] = found.get(bound, 0) + value
        return sorted(found.items())


def read(admin_port):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/metrics", timeout=60) as answer:
        return Page(answer.read().decode())


def above(before, after, name, bound_s):
    """How many times of a histogram were longer than a bound (one of its buckets'), between two readings."""
    counts = [sum(n for bound, n in page.buckets(name) if bound == bound_s) for page in (before, after)]
    total = after.sum(f"{name}_count") - before.sum(f"{name}_count")
    return round(total - (counts[1] - counts[0]))


def longest_s(before, after, name):
    """The longest time of a histogram between two readings, s: to the microsecond if it is the longest since the
    start, else the bound of the highest bucket that was counted in."""
    if after.longest_s(name) > before.longest_s(name):
        return after.longest_s(name)
    earlier, highest, below = dict(before.buckets(name)), 0, 0
    for bound, count in after.buckets(name):
        count -= earlier.get(bound, 0)
        if count > below:
            highest, below = bound, count
    return min(highest, after.longest_s(name))


class Watch:
    """Reads the page again and again while the context lasts; `pages` are (time, page)."""

    def __init__(self, admin_port):
        self.admin_port = admin_port
        self.pages = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def look(self):
        while not self.over.wait(EVERY_S):
            try:
                self.pages.append((time.monotonic(), read(self.admin_port)))
            except OSError:
                # It ends, or is too busy to answer: the next reading tells as much.
                continue

    def under_load(self, connections):
        """The first page and the last with so many connections: what lies between is neither connecting nor
        closing."""
        full = [page for _, page in self.pages if page.sum("uringcast_connections") >= connections]
        if len(full) < 2:
            raise RuntimeError(f"{connections} connections were not seen twice: too short a run, or some were lost")
        return full[0], full[-1]
