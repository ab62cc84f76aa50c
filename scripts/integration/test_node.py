"""The same server, over npm's ws."""

import base64
import json
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from server import TARGET

MODULES = Path(os.environ.get("URINGCAST_NODE_MODULES", TARGET / "node" / "node_modules"))
SCRIPT = Path(__file__).parent / "node" / "client.js"


class Node:
    """One client process."""

    def __init__(self, url, protocol=""):
        assert shutil.which("node") and MODULES.is_dir(), "scripts/test installs node and ws"
        self.process = subprocess.Popen(
            ["node", str(SCRIPT), url, protocol],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_PATH": str(MODULES)},
        )
        self.events = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def order(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def next(self, event):
        """The next event, which must be this."""
        got = self.events.get(timeout=20)
        while got["event"] == "ping":
            # The server's; they come when it is their turn.
            got = self.events.get(timeout=20)
        assert got["event"] == event, got
        return got

    def message(self):
        return json.loads(self.next("message")["data"])


def test_json(server, topic):
    with Node(server.ws("/ws"), "uringcast.v1.json") as node:
        opened = node.next("open")
        assert opened["protocol"] == "uringcast.v1.json"
        node.order(text=json.dumps({"op": "subscribe", "id": 1, "topics": [topic, f"{topic}.*"]}))
        assert node.message()["op"] == "subscribed"
        for number in range(100):
            server.publish_now(topic, json.dumps({"n": number}))
        assert [node.message()["data"]["n"] for _ in range(100)] == list(range(100))
        server.publish_now(f"{topic}.x", '"ü€😀"')
        assert node.message()["data"] == "ü€😀"
        node.order(ping="are you there")
        assert node.next("pong")["data"] == "are you there"
        node.order(close=1000, reason="done")
        assert node.next("close")["code"] == 1000


def test_binary_both_ways(server, topic):
    payload = bytes(range(256)) * 300
    with (
        Node(server.ws(f"/raw/{topic}")) as subscriber,
        Node(server.publish_ws(f"/publish/{topic}?ack=1")) as publisher,
    ):
        subscriber.next("open")
        publisher.next("open")
        publisher.order(base64=base64.b64encode(payload).decode())
        assert publisher.message()["seq"] == 1
        got = subscriber.next("message")
        assert got["binary"] is True and base64.b64decode(got["data"]) == payload
        publisher.order(text="text")
        assert subscriber.next("message") == {"event": "message", "binary": False, "data": "text"}


@pytest.mark.parametrize(
    ("path", "order", "code"),
    [
        ("/ws", {"close": 3001}, 3001),
        ("/ws", {"base64": "AA=="}, 1003),
        ("/raw/a", {"text": "no"}, 1003),
        ("/ws", {"text": "x" * 70_000}, 1009),
    ],
)
def test_close_codes(server, path, order, code):
    with Node(server.ws(path)) as node:
        node.next("open")
        node.order(**order)
        assert node.next("close")["code"] == code


def test_refusals(server):
    for path, status in (("/nothing", 404), ("/raw/a..b", 400), ("/ws?heartbeat_ms=1", 400)):
        with Node(server.ws(path)) as node:
            assert node.next("refused")["status"] == status


def test_the_end_of_the_server(start):
    server = start()
    with Node(server.ws("/ws")) as node:
        node.next("open")
        server.signal()
        assert node.message()["op"] == "goaway"
        assert node.next("close")["code"] == 1001
    assert server.wait() == 0
