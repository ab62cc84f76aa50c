"""What every server is put under in the comparison with peers, and the figures that are read from it.

Knows: the load generator's flags and reports. Must not know: which servers there are, how figures are shown.

`flat` is nothing to coalesce, `ramp` a rising open-loop rate, `idle` connections that are held. Each server is
started anew for each run, so that no queue of the last one is measured.
"""

from dataclasses import dataclass

from servers import Running
from turns import loadgen, progress

# What the comparison is about: DESIGN's two loads.
FLAT_SUBSCRIBERS = 5000
RAMP_SUBSCRIBERS = 2000
PAYLOAD_BYTES = 128
# Connections a second while memory is measured: few handshakes at a time, which need memory of their own.
CONNECT_RATE = 3000


@dataclass(frozen=True)
class Seats:
    """Which processors the server has, and which the load generator, with a thread on each."""

    server: tuple[int, ...]
    client: tuple[int, ...]

    @property
    def threads(self):
        return len(self.server)


def flat(kind, seats, duration_s, rate):
    """Nothing to coalesce: few publications a second."""
    return fanout(kind, seats, FLAT_SUBSCRIBERS, rate, duration_s)


def ramp(kind, seats, duration_s, rates, p99_ms_max):
    """Rates upwards until the latency is too long or something is lost, then half of the highest that held."""
    points = []
    for rate in rates:
        progress(f"{kind.name}: {rate} publications/s")
        point = {"rate": rate, **fanout(kind, seats, RAMP_SUBSCRIBERS, rate, duration_s)}
        points.append(point)
        if not held(point, p99_ms_max):
            break
    found = {"points": points}
    highest = max((point["rate"] for point in points if held(point, p99_ms_max)), default=None)
    if highest is None:
        return found
    progress(f"{kind.name}: {highest // 2} publications/s, half of its highest rate")
    half = fanout(kind, seats, RAMP_SUBSCRIBERS, max(highest // 2, 1), duration_s)
    found |= {"rate": highest, "highest": highest * RAMP_SUBSCRIBERS / 1e6}
    return found | {f"half_{name}": half[name] for name in ("p50", "p99", "p999", "ns", "lost")}


def held(point, p99_ms_max):
    return point["lost"] == 0 and point["p99"] < p99_ms_max


def idle(kind, seats, connections):
    """Memory with few at a time, then how fast as many can be opened, by a new server."""
    slowly = connect(kind, seats, connections, CONNECT_RATE)
    at_once = connect(kind, seats, connections, 0)
    return {
        "bytes": slowly["server"]["rss_bytes_per_connection"],
        "rss_mb": slowly["server"]["rss_bytes"] / 1e6,
        "per_s": connections / at_once["connections"]["connecting_s"],
        "connect_us": at_once["server"]["cpu_ns_per_connect"] / 1e3,
    }


def connect(kind, seats, connections, rate):
    with Running(kind, seats.server, seats.threads) as server:
        report = loadgen(
            "connect",
            *("--url", server.url, *kind.loadgen, *server.used(seats.client)),
            *("--connections", connections, "--connect-rate", rate, "--hold", "2s"),
            *("--threads", len(seats.client)),
            cpus=seats.client,
        )
    return connected(report)


def fanout(kind, seats, subscribers, rate, duration_s):
    with Running(kind, seats.server, seats.threads) as server:
        report = loadgen(
            "fanout",
            *("--url", server.url, "--publish-url", server.publish_url),
            *(*kind.loadgen, *kind.publishing, *server.used(seats.client)),
            *("--subscribers", subscribers, "--rate", rate, "--size", PAYLOAD_BYTES),
            *("--duration", f"{duration_s}s", "--warmup", "1s", "--threads", len(seats.client)),
            cpus=seats.client,
        )
    return figures(connected(report), rate * subscribers)


def connected(report):
    """The report, if everybody was there all the time."""
    for what in ("failures", "closes"):
        if report["connections"][what]:
            raise RuntimeError(f"connections: {report['connections'][what]}")
    return report


def figures(report, offered):
    """What is compared: times in ms but for `ns`, processor time per delivery."""
    latency = report["latency"]["corrected"]
    spread = report["spread"] or {"first_us": None, "last_us": None}
    first, last = (us and us / 1e3 for us in (spread["first_us"], spread["last_us"]))
    delivery_ns = report["server"]["cpu_ns_per_delivery"]
    faults = report["faults"]
    return {
        "ns": delivery_ns,
        "per_cpu_s": 1e9 / delivery_ns if delivery_ns else None,
        "user": report["server"]["user_share"],
        "p50": latency["p50_ns"] / 1e6,
        "p99": latency["p99_ns"] / 1e6,
        "p999": latency["p99_9_ns"] / 1e6,
        "first": first,
        "last": last,
        "spread": last - first if last and first else None,
        "kept": report["deliveries"]["per_s"] / offered,
        "rss_mb": report["server"]["rss_bytes"] / 1e6,
        "client": max(thread["cpu_ns"] / thread["wall_ns"] for thread in report["threads"]),
        # Whatever came that should not have is as bad as what did not.
        "lost": sum(count for name, count in faults.items() if isinstance(count, int) and name != "skipped"),
    }
