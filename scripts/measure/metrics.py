"""What the server counts of itself, from its admin port.

Knows: Prometheus' text. Must not know: what the figures mean.
"""

import urllib.request


class Metrics:
    """One reading of /metrics."""

    def __init__(self, text):
        self.samples = []
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                self.samples.append((name.partition("{")[0], float(value)))

    @classmethod
    def of(cls, server):
        """Of a server that runs."""
        with urllib.request.urlopen(f"http://127.0.0.1:{server.place.admin}/metrics", timeout=10) as answer:
            return cls(answer.read().decode())

    def sum(self, name):
        """A counter, over all reactors and labels."""
        return sum(value for found, value in self.samples if found == f"uringcast_{name}")
