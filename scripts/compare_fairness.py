#!/usr/bin/env python3
"""What a lane of few subscribers waits beside one of thousands, and one of thousands beside thousands of lanes of one.

The lane that is measured is published to at a rate that leaves its core idle; alone, and beside others that are published
to in a closed loop, so that they always wait for their slice. Turns alone and beside others alternate on one server's
settings, so that each ratio is of two neighbouring runs. A slice is 256 sends: a lane of few should wait for one or two
(the one that goes on when its publication comes, and none or one between), a lane of many at most twice as long as alone.

The server has one core, both load generators the other; that of the others runs only when the measured one's does not
want to (SCHED_IDLE), so that they don't wait for each other there. Figures count only where nothing else runs.

    cargo build --release -p uringcast -p uringcast-loadgen
    scripts/compare_fairness.py                                            # 10 beside 15,000; 8,000 beside 8,000 lanes of one
    scripts/compare_fairness.py --out benches/runs/DATE-MACHINE/fairness_server
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from compare import TARGET, free_port

CONNECTS_PER_S = 5000


class Server:
    """One process with ports of its own, until the end of a turn."""

    def __init__(self, options):
        self.data, self.publish, self.admin = free_port(), free_port(), free_port()
        command = [TARGET / "release/uringcast", "serve", "--reactors", 1, "--cpus", options.server_cpu, "--log-level", "warn"]
        command += ["--listen", f"127.0.0.1:{self.data}", "--publish-listen", f"127.0.0.1:{self.publish}", "--admin", f"127.0.0.1:{self.admin}"]
        # On a busy machine the others' load generator may not come to answer pings in time.
        command += ["--ping-interval", "10m"]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def __enter__(self):
        # It prints its addresses once it listens.
        said = self.process.stdout.readline()
        if not said.startswith("listening "):
            stop(self.process, signal.SIGKILL)
            sys.exit(f"the server does not start: {said.strip()}")
        return self

    def __exit__(self, *_):
        stop(self.process, signal.SIGTERM)

    def figures(self):
        """So far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return {"cpu s": ticks / os.sysconf("SC_CLK_TCK"), "s": time.monotonic(), "sends": self.metric("uringcast_sends_total"), "overloads": self.metric("uringcast_overload_rotations_total")}

    def metric(self, name):
        """Summed over shards."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", text, re.MULTILINE)
        return sum(map(float, values))


def stop(process, how):
    """By its own id; whatever it does, it is gone afterwards."""
    if process.poll() is None:
        process.send_signal(how)
    try:
        return process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


class Load:
    """A load generator that publishes to one topic and checks its subscribers."""

    def __init__(self, options, server, path, topic, subscribers, pace, seconds):
        self.report_path = tempfile.NamedTemporaryFile(suffix=".json")
        self.subscribers = subscribers
        command = [TARGET / "release/loadgen", "fanout", "--url", f"ws://127.0.0.1:{server.data}{path}", "--publish-url", f"ws://127.0.0.1:{server.publish}/publish/{topic}"]
        command += ["--subscribers", subscribers, "--size", options.size, "--warmup", f"{options.warmup}s", "--duration", f"{seconds}s", "--connect-rate", CONNECTS_PER_S]
        command += ["--cpus", options.client_cpu, "--quiet", "--json", self.report_path.name, *pace]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        # Connecting, what was asked for, and what a busy machine takes longer.
        self.seconds_max = subscribers / CONNECTS_PER_S + options.warmup + seconds + 60

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process, signal.SIGKILL)
        self.report_path.close()

    def report(self):
        """Once it has ended."""
        try:
            _, said = self.process.communicate(timeout=self.seconds_max)
        except subprocess.TimeoutExpired:
            sys.exit(f"loadgen has not ended within {self.seconds_max:.0f} s")
        return self.read(said)

    def interrupted(self):
        """It reports what was until now."""
        _, said = stop(self.process, signal.SIGINT)
        return self.read(said)

    def read(self, said):
        try:
            return json.load(self.report_path.file)
        except json.JSONDecodeError:
            sys.exit(f"loadgen said: {said.strip()}")

    def run_as(self, policy):
        """All its threads."""
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            os.sched_setscheduler(int(task.name), policy, os.sched_param(0))

    def wait_until_open(self, server, before):
        """All of it and its publisher, beside so many connections that were there."""
        deadline = time.monotonic() + self.subscribers / CONNECTS_PER_S + 30
        wanted = before + self.subscribers + 1
        while (open_now := server.metric("uringcast_connections")) < wanted:
            if self.process.poll() is not None:
                sys.exit(f"loadgen said: {self.process.communicate()[1].strip()}")
            if time.monotonic() > deadline:
                sys.exit(f"{open_now:.0f} connections, not {wanted}")
            time.sleep(0.1)


def turn(options, case, beside):
    """The measured lane alone or beside the others."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(options))
        others = None
        if beside:
            pace = ["--outstanding", options.outstanding]
            # Longer than what is measured; it is told to end then.
            others = stack.enter_context(Load(options, server, case["others path"], "others", case["others"], pace, 3600))
            others.wait_until_open(server, 0)
            others.run_as(os.SCHED_IDLE)
            time.sleep(1)
        pace = ["--rate", case["rate"]]
        measured = stack.enter_context(Load(options, server, "/raw/measured", "measured", case["subscribers"], pace, options.duration))
        measured.wait_until_open(server, case["others"] + 1 if beside else 0)
        # What the server does for connecting and closing is left out.
        time.sleep(options.warmup)
        before = server.figures()
        time.sleep(max(options.duration - 1, 1))
        more = {name: value - before[name] for name, value in server.figures().items()}
        got = figures(measured.report())
        got["overloads"] = more["overloads"]
        got["server sends/s"] = more["sends"] / more["s"]
        got["server cpus"] = more["cpu s"] / more["s"]
        got["server ns/send"] = 1e9 * more["cpu s"] / max(more["sends"], 1)
        if others:
            others.run_as(os.SCHED_OTHER)
            got["beside"] = figures(others.interrupted())
        return got


def figures(report):
    latency, deliveries, faults = report["latency"], report["deliveries"], report["faults"]
    return {
        "p50 ms": latency["corrected"]["p50_ns"] / 1e6,
        "p99 ms": latency["corrected"]["p99_ns"] / 1e6,
        "max ms": latency["corrected"]["max_ns"] / 1e6,
        "p99 ms, as sent": latency["uncorrected"]["p99_ns"] / 1e6,
        "deliveries": deliveries["messages"],
        "deliveries/s": deliveries["per_s"],
        "faults": sum(faults[name] for name in ("lost", "duplicated", "reordered", "damaged")),
        "closed": sum(report["connections"]["closes"].values()),
        "client cpus": max(thread["cpu_ns"] / thread["wall_ns"] for thread in report["threads"]),
    }


def pairs(options, case, say):
    """Pairs of a turn alone and a turn beside the others; which goes first changes."""
    got = []
    for number in range(options.rounds):
        order = (False, True) if number % 2 == 0 else (True, False)
        pair = {beside: turn(options, case, beside) for beside in order}
        got.append((pair[False], pair[True]))
    say(f"{case['name']}; {case['rate']:g} publications/s of {options.size} B to the lane that is measured, {options.rounds} pairs")
    names = ["p50 ms", "p99 ms", "max ms", "deliveries", "faults", "closed", "overloads", "server sends/s", "server ns/send", "server cpus", "client cpus"]
    say(f"{'':8}" + "".join(f"{name:>17}" for name in names))
    for label, index in (("alone", 0), ("beside", 1)):
        say(f"{label:8}" + "".join(f"{statistics.median(pair[index][name] for pair in got):>17.3f}" for name in names))
    for name in ("p50 ms", "p99 ms"):
        say(f"beside/alone {name}: {spread([beside[name] / alone[name] for alone, beside in got])}; beside - alone: {spread([beside[name] - alone[name] for alone, beside in got])} ms")
    others = [beside["beside"] for _, beside in got]
    told = (f"{name} {spread([other[name] for other in others])}" for name in ("deliveries/s", "p50 ms", "p99 ms", "client cpus", "faults", "closed"))
    say(f"the others: {', '.join(told)}")
    say(f"256 sends took the server {spread([256 * beside['server ns/send'] / 1e6 for _, beside in got])} ms beside\n")
    return {"case": case, "pairs": got}


def spread(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def cases(options):
    few = {
        "name": f"A lane of {options.few} beside a lane of {options.large}",
        "subscribers": options.few,
        "rate": options.few_rate,
        "others": options.large,
        "others path": "/raw/others",
    }
    return {
        "few": few,
        "many": {
            "name": f"A lane of {options.many} beside {options.ones} lanes of one",
            "subscribers": options.many,
            "rate": options.many_rate,
            "others": options.ones,
            # A topic of its own, to which nobody publishes, makes each a lane of its own.
            "others path": "/ws?topics=others,own.{n}",
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=["few", "many"], type=lambda text: text.split(","), help="few, many [default: both]")
    parser.add_argument("--few", type=int, default=10, help="subscribers of the small lane")
    parser.add_argument("--few-rate", type=float, default=200, help="publications per second to it")
    parser.add_argument("--large", type=int, default=15000, help="subscribers of the lane beside it")
    parser.add_argument("--many", type=int, default=8000, help="subscribers of the lane of many")
    parser.add_argument("--many-rate", type=float, default=5, help="publications per second to it")
    parser.add_argument("--ones", type=int, default=8000, help="lanes of one beside it")
    parser.add_argument("--outstanding", type=int, default=8, help="publications of the others that not everyone has")
    parser.add_argument("--size", type=int, default=128, help="payload, bytes")
    parser.add_argument("--warmup", type=int, default=2, help="seconds")
    parser.add_argument("--duration", type=int, default=6, help="seconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--out", help="write OUT.txt and OUT.json as well")
    options = parser.parse_args()
    lines = []

    def say(line):
        print(line, flush=True)
        lines.append(line)

    say(f"Linux {platform.release()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}\n")
    results = [pairs(options, cases(options)[name], say) for name in options.cases]
    if options.out:
        pathlib.Path(f"{options.out}.txt").write_text("\n".join(lines) + "\n")
        pathlib.Path(f"{options.out}.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
