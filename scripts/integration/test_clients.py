"""Other people's clients subscribe to the replayed data set: every message of every topic comes
once, in order and byte for byte, over /ws and /raw, with compression and without."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

import recorded
from browser import Browser
from server import ROOT, TARGET, Server, run_binary, wait_for

HERE = Path(__file__).parent
CLIENTS = HERE / "clients"
NODE_MODULES = Path(os.environ.get("URINGCAST_NODE_MODULES", TARGET / "node" / "node_modules"))
TUNGSTENITE = Path(
    os.environ.get("URINGCAST_TUNGSTENITE", TARGET / "tungstenite/debug/client-tungstenite")
)
# Whether the server agrees to compression where a client offers it.
DEFLATE = True
FORMS = ["ws", "raw"]
# How each is started, and whether it offers compression. tokio-tungstenite has none, and browsers
# always do.
PROGRAMS = {
    "websockets-sync": ([sys.executable, CLIENTS / "websockets_sync.py"], [True, False]),
    "websockets-asyncio": ([sys.executable, CLIENTS / "websockets_asyncio.py"], [True, False]),
    "picows": ([sys.executable, CLIENTS / "picows_asyncio.py"], [True, False]),
    "npm-ws": (["node", CLIENTS / "npm_ws.js"], [True, False]),
    "tokio-tungstenite": ([TUNGSTENITE], [False]),
}
CHROMIUM = "chromium"
# (client, compression offered, form)
CASES = [
    (name, deflate, form)
    for name, deflates in [
        *((name, deflates) for name, (_, deflates) in PROGRAMS.items()),
        (CHROMIUM, [True]),
    ]
    for deflate in deflates
    for form in FORMS
]
LAST = '"this was the last one"'
LINES_PER_FILE = 2_500
SPEED = 4
END_S = 30


class Program:
    """A client in a process of its own; see clients/tally.py."""

    def __init__(self, server, name, deflate, form, topics):
        command, _ = PROGRAMS[name]
        offer = "on" if deflate else "off"
        self.what = f"{name}, compression {offer}, {form}"
        self.process = subprocess.Popen(
            [*map(str, command), f"ws://{server.data}", form, offer, *topics],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
        )
        self.lines = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def line(self, number):
        """Its n-th line, once it is there."""

        def come():
            alive = self.process.poll() is None or self.reader.is_alive()
            assert alive or len(self.lines) > number, f"{self.what}\n{self.process.stderr.read()}"
            return len(self.lines) > number

        wait_for(come, f"line {number} of {self.what}", END_S)
        return self.lines[number]

    def opened(self):
        return self.line(0)["extensions"]

    def ended(self):
        return self.line(1)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


class Page:
    """Both forms in a page of headless Chromium."""

    def __init__(self, browser, server, form, topics):
        self.browser, self.form = browser, form
        browser.run(
            """
            const [base, form, names] = arguments;
            const open = (url) => new WebSocket(url);
            const {opened, ended} = subscriber(open, base, form, names);
            window.told ??= {};
            const told = window.told[form] = {opened: null, ended: null};
            opened.then((extensions) => { told.opened = extensions; });
            ended.then((end) => { told.ended = end; });
            """,
            f"ws://{server.data}",
            form,
            topics,
        )

    def opened(self):
        return self.told("opened")

    def ended(self):
        return self.told("ended")

    def told(self, what):
        script = f"return window.told.{self.form}.{what}"
        return self.browser.wait(script, f"{self.form} in Chromium: {what}", END_S)


class Replayed:
    """What was published, and what every client says of it."""

    def __init__(self, payloads, report, metrics):
        self.payloads, self.report, self.metrics = payloads, report, metrics
        self.extensions, self.ends = {}, {}


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """One server and one replay for all of them, at the same time."""
    folder = tmp_path_factory.mktemp("replayed")
    paths, payloads = recorded.part(folder, LINES_PER_FILE)
    # The clients share the machine with everything else: how slow they may be is not the question.
    flags = ["--lag-bytes-max", "256MiB", "--lag-messages-max", "1000000"]
    if DEFLATE:
        # Most of the data would be too short to be worth it.
        flags += ["--deflate-min-bytes", "64"]
    server = Server(*flags, reactors=2)
    with contextlib.ExitStack() as stack:
        stack.callback(server.kill)
        browser = Browser()
        stack.callback(browser.close)
        browser.open(f"http://{server.admin}/healthz")
        browser.run((CLIENTS / "subscriber.js").read_text() + "\nwindow.subscriber = subscriber;")
        clients = {}
        for case in CASES:
            name, deflate, form = case
            if name == CHROMIUM:
                clients[case] = Page(browser, server, form, list(payloads))
            else:
                clients[case] = Program(server, name, deflate, form, payloads)
                stack.callback(clients[case].close)
        extensions = {case: client.opened() for case, client in clients.items()}
        report = replay(server, folder / "report.json", paths)
        count = sum(map(len, payloads.values()))
        wait_for(
            lambda: server.metrics().sum("publications_total") == count,
            f"all {count} messages to be taken",
            END_S,
        )
        for topic in payloads:
            # While the machine is overloaded publishers over HTTP are told to come again.
            taken = functools.partial(publish_or_busy, server, topic)
            wait_for(taken, f"the last message of {topic} to be taken", END_S)
        result = Replayed(payloads, report, server.metrics())
        result.extensions = extensions
        for case, client in clients.items():
            try:
                result.ends[case] = client.ended()
            except AssertionError as error:
                # Its own test fails, not all of them.
                result.ends[case] = error
        write_versions(browser.version)
        server.check_alive()
        server.stop()
    return result


def publish_or_busy(server, topic):
    answer = server.post(topic, LAST)
    assert answer.status in (200, 503), (answer.status, answer.body)
    return answer.status == 200


def replay(server, report, paths):
    """`loadgen replay` of these files, and its report."""
    flags = ["--speed", str(SPEED), "--publish-url", f"ws://{server.publish}", "--quiet"]
    code, _, error = run_binary("loadgen", "replay", *paths, *flags, "--json", str(report))
    assert code == 0, error
    return json.loads(report.read_text())


def test_all_of_it_is_published(replayed):
    payloads = replayed.payloads
    assert sum(map(len, payloads.values())) == replayed.report["published"]["published"]
    assert sorted(payloads) == sorted(replayed.report["streams"])
    assert sum(map(len, payloads.values())) > 9_000 and len(payloads) >= 6


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{name}-{('plain', 'deflate')[on]}-{form}" for name, on, form in CASES]
)
def test_every_message_once_in_order_byte_for_byte(replayed, case):
    _, offered, form = case
    end = replayed.ends[case]
    if isinstance(end, AssertionError):
        raise end
    assert end["faults"] == []
    assert end["topics"] == {topic: told(lines) for topic, lines in replayed.payloads.items()}
    extensions = replayed.extensions[case]
    assert len(extensions) == (1 if form == "ws" else len(replayed.payloads))
    for extension in extensions:
        assert bool(re.match("permessage-?deflate", extension, re.IGNORECASE)) == (
            offered and DEFLATE
        )
    if end["compressed"] is not None:
        # The one that counts them.
        assert (end["compressed"] > 0) == (offered and DEFLATE)


def told(payloads):
    digest = hashlib.sha256("".join(f"{each}\n" for each in payloads).encode())
    return {"count": len(payloads), "sha256": digest.hexdigest()}


def test_each_publication_is_compressed_once_for_all(replayed):
    """Not once per client: the counter stays below what was published."""
    published = replayed.report["published"]["published"] + len(replayed.payloads)
    if DEFLATE:
        compressed = replayed.metrics.sum("deflate_broadcast_publications_total")
        assert published / 2 < compressed <= published


def pinned():
    """The versions of the clients as the lock files have them."""
    python = dict(
        line.split("==")
        for line in (HERE / "requirements.txt").read_text().split("\n")
        if "==" in line
    )
    npm = json.loads((HERE / "node/package-lock.json").read_text())["packages"]
    cargo = tomllib.loads((HERE / "tungstenite/Cargo.lock").read_text())["package"]
    crates = {each["name"]: each["version"] for each in cargo}
    return {
        "Python websockets": python["websockets"],
        "picows": python["picows"],
        "npm ws": npm["node_modules/ws"]["version"],
        "tokio-tungstenite": crates["tokio-tungstenite"],
    }


def write_versions(chromium):
    """The versions that have run, for whoever writes the README's table."""
    ws = json.loads((NODE_MODULES / "ws/package.json").read_text())["version"]
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    versions = {
        **pinned(),
        "Python websockets": importlib.metadata.version("websockets"),
        "picows": importlib.metadata.version("picows"),
        "npm ws": f"{ws} on Node.js {node.stdout.strip().removeprefix('v')}",
        "Chromium": chromium,
    }
    path = TARGET / "integration" / "clients.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"| {name} | {version} |\n" for name, version in versions.items()))


def test_the_readme_names_the_versions():
    table = (ROOT / "README.md").read_text().split("## Clients")[1].split("\n## ")[0]
    for name, version in pinned().items():
        assert re.search(rf"^\| {re.escape(name)}.*\| {re.escape(version)}\b", table, re.MULTILINE)
    assert re.search(r"^\| Chromium.*\| Debian's, \d+ ", table, re.MULTILINE)
