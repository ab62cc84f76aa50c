"""A server under test: started on free ports, asked, stopped.

Knows: the binary's command line, its line on stdout, its admin API. Must not know: WebSocket.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARIES = Path(os.environ.get("URINGCAST_BIN_DIR", TARGET / "ci"))
CONFINED = (sys.executable, str(Path(__file__).with_name("confined.py")))
UNEXPECTED = re.compile(r"panicked|this is a bug|\bERROR\b|a reactor has ended")
# What of the kernel the servers use: auto or base.
TIER = os.environ.get("URINGCAST_KERNEL_TIER", "auto")
START_S = 15
STOP_S = 20


class Answer:
    """An HTTP answer, whatever its status."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def code(self):
        return self.json()["error"]["code"]


class Server:
    """One process of `uringcast serve`."""

    def __init__(self, *flags, reactors=1, under=()):
        """`under`: a command that becomes the server's, with fewer rights perhaps."""
        self.reactors = reactors
        self.log = tempfile.NamedTemporaryFile("w+", prefix="uringcast-", suffix=".log")
        command = [*under, str(BINARIES / "uringcast"), "serve", "--reactors", str(reactors)]
        for port in ("--listen", "--publish-listen", "--admin"):
            if port not in flags:
                command += [port, "127.0.0.1:0"]
        command += flags
        if "--kernel-tier" not in flags:
            command += ["--kernel-tier", TIER]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening data=(\S+) publish=(\S+) admin=(\S+)\n", line)
        if not found:
            self.process.kill()
            raise AssertionError(f"{command} said {line!r}\n{self.stderr()}")
        self.data, self.publish, self.admin = found.groups()
        wait_for(lambda: self.get("/readyz").status == 200, "the server to be ready", START_S)

    # What it says of itself.

    def stderr(self):
        return Path(self.log.name).read_text(errors="replace")

    def address(self, port):
        host, number = getattr(self, port).rsplit(":", 1)
        return host, int(number)

    def ws(self, path):
        return f"ws://{self.data}{path}"

    def publish_ws(self, path):
        return f"ws://{self.publish}{path}"

    def request(self, method, path, body=None, headers=None):
        request = urllib.request.Request(
            f"http://{self.admin}{path}", data=body, method=method, headers=headers or {}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as answer:
            return Answer(answer.code, answer.headers, answer.read())

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, topic, payload, query="", content_type=None):
        if isinstance(payload, str):
            payload = payload.encode()
        headers = {"Content-Type": content_type or "application/x-www-form-urlencoded"}
        return self.request("POST", f"/v1/topics/{topic}{query}", payload, headers)

    def publish_now(self, topic, payload):
        answer = self.post(topic, payload)
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json()

    def metrics(self):
        return Metrics(self.get("/metrics").body.decode())

    # Its life.

    def processor_s(self):
        """Processor time that it has used, seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def check_alive(self):
        """Running, answering, and without complaint."""
        assert self.process.poll() is None, f"exited {self.process.returncode}\n{self.stderr()}"
        assert self.get("/healthz").body == b"ok\n"
        self.check_log()

    def check_log(self):
        found = UNEXPECTED.search(self.stderr())
        assert not found, self.stderr()[-4000:]

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, timeout_s=STOP_S):
        """Its exit code."""
        return self.process.wait(timeout_s)

    def stop(self):
        """SIGTERM, and out with 0 in bounded time."""
        if self.process.poll() is None:
            self.signal()
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"not ended in {STOP_S} s\n{self.stderr()}") from None
        assert code == 0, f"exit code {code}\n{self.stderr()}"
        self.check_log()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Metrics:
    """One reading of /metrics."""

    LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")

    def __init__(self, text):
        self.text, self.figures, self.types, self.helps = text, [], {}, {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                name, shape = line[7:].split(" ")
                assert name not in self.types, f"{name} has two types"
                self.types[name] = shape
            elif line.startswith("# HELP "):
                name, help_text = line[7:].split(" ", 1)
                self.helps[name] = help_text
            else:
                name, labels, value = self.LINE.fullmatch(line).groups()
                pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""))
                self.figures.append((name, pairs, float(value)))

    def sum(self, name, **labels):
        """Over all shards."""
        if not name.startswith(("uringcast_", "process_")):
            name = f"uringcast_{name}"
        matching = [
            value
            for other, pairs, value in self.figures
            if other == name and labels.items() <= pairs.items()
        ]
        assert matching, f"no figure {name}{labels}"
        return sum(matching)


def wait_for(holds, what, timeout_s=5.0):
    """Polls until it holds; an assertion names what did not come."""
    deadline = time.monotonic() + timeout_s
    while True:
        outcome = holds()
        if outcome:
            return outcome
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.01)


def run_binary(name, *arguments, timeout_s=60, under=()):
    """A binary that ends by itself: (exit code, stdout, stderr)."""
    done = subprocess.run(
        [*under, str(BINARIES / name), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
