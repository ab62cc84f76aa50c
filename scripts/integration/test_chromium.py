"""What pages see through headless Chromium's WebSocket: text and binary, compression, how it ends,
and that a page that connects again goes on."""

import base64
import json
import os
import signal
import time

import pytest

from browser import Browser
from client import dial
from server import wait_for

# Sockets by name, each with what has happened to it.
PAGE = """
window.sockets = {};
window.listen = (name, url, command, binaryType) => {
  const told = window.sockets[name] = {messages: [], opened: false, close: null};
  const socket = told.socket = new WebSocket(url);
  if (binaryType) socket.binaryType = binaryType;
  socket.onopen = () => {
    told.opened = true;
    if (command) socket.send(JSON.stringify(command));
  };
  socket.onmessage = async (event) => {
    const place = told.messages.push(null) - 1;
    told.messages[place] = await window.describe(event.data);
  };
  socket.onclose = ({code, reason, wasClean}) => { told.close = {code, reason, wasClean}; };
};
window.describe = async (data) => {
  if (typeof data === 'string') return ['text', data];
  const type = data.constructor.name;
  const bytes = new Uint8Array(data instanceof Blob ? await data.arrayBuffer() : data);
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return [type, btoa(text)];
};
"""


@pytest.fixture(scope="module")
def _chromium():
    started = Browser()
    yield started
    started.close()


class Page:
    """An empty page of a server's own host, and its sockets."""

    def __init__(self, browser, server):
        self.browser = browser
        browser.open(f"http://{server.admin}/healthz")
        browser.run(PAGE)

    def listen(self, name, url, command=None, binary_type=None):
        self.browser.run("listen(...arguments)", name, url, command, binary_type)
        outcome = f"return sockets.{name}.opened || sockets.{name}.close"
        assert self.browser.wait(outcome, f"{name} to open") is True

    def subscribe(self, name, server, *topics):
        command = {"op": "subscribe", "id": 1, "topics": list(topics)}
        self.listen(name, server.ws("/ws"), command)
        answer = json.loads(self.messages(name, 1)[0][1])
        assert answer["op"] == "subscribed", answer

    def messages(self, name, count):
        """Its first messages, once there are so many: kind, and text or base64."""
        self.browser.wait(
            f"const all = sockets.{name}.messages;"
            f"return all.length >= {count} && !all.includes(null)",
            f"{count} messages on {name}",
        )
        return self.browser.run(f"return sockets.{name}.messages")

    def extensions(self, name):
        return self.browser.run(f"return sockets.{name}.socket.extensions")

    def closed(self, name):
        return self.browser.wait(f"return sockets.{name}.close", f"the end of {name}")

    def send(self, name, text):
        self.browser.run(f"sockets.{name}.socket.send(arguments[0])", text)


@pytest.fixture
def page(_chromium, server):
    return Page(_chromium, server)


@pytest.fixture
def page_of(_chromium):
    """For a server of the test's own."""
    return lambda server: Page(_chromium, server)


@pytest.mark.parametrize("binary_type", ["arraybuffer", "blob"])
def test_text_and_binary_payloads_as_they_are(page, server, topic, binary_type):
    binary = bytes(range(256)) * 40
    large = b"0123456789abcdef" * 65_536
    page.listen("raw", server.ws(f"/raw/{topic}"), None, binary_type)
    page.subscribe("json", server, topic)
    sent = ["plain", "ü€😀", binary, "", b"", large, large.decode()]
    with dial(server.publish_ws(f"/publish/{topic}?ack=1"), max_size=None) as publisher:
        for payload in sent:
            publisher.send(payload)
            assert json.loads(publisher.recv())["op"] == "published"
    kind = {"arraybuffer": "ArrayBuffer", "blob": "Blob"}[binary_type]
    raw = page.messages("raw", len(sent))
    assert [first for first, _ in raw] == [
        "text" if isinstance(each, str) else kind for each in sent
    ]
    assert [text if first == "text" else base64.b64decode(text) for first, text in raw] == sent
    for payload, (first, text) in zip(sent, page.messages("json", 1 + len(sent))[1:], strict=True):
        assert first == "text"
        message = json.loads(text)
        if isinstance(payload, str):
            assert message["data"] == payload
        else:
            assert base64.b64decode(message["data_base64"]) == payload


def test_compression(page, server, topic, counted):
    """Both ways: browsers compress what they send as well."""
    page.listen("raw", server.ws(f"/raw/{topic}"))
    # Longer than anything that is sent plain for being short.
    page.subscribe("json", server, topic, *(f"{topic}.{number}" for number in range(50)))
    for name in ("raw", "json"):
        extensions = page.extensions(name)
        assert extensions.startswith("permessage-deflate"), extensions
        assert "server_no_context_takeover" in extensions
    assert counted("deflate_in_messages_total") == 1
    lines = [
        json.dumps({"n": n, "bids": [["61837.63000000", "3.78826000"]] * n}) for n in range(99)
    ]
    for line in lines:
        server.publish_now(topic, line)
    assert [text for _, text in page.messages("raw", len(lines))] == lines
    received = page.messages("json", 1 + len(lines))[1:]
    assert [json.loads(text)["data"] for _, text in received] == [
        json.loads(each) for each in lines
    ]
    assert counted("deflate_broadcast_publications_total") > 0


@pytest.mark.parametrize(
    ("path", "message", "code"),
    [("/raw/a", "no commands here", 1003), ("/ws", "x" * 70_000, 1009)],
)
def test_offences_close_with_their_codes(page, server, path, message, code):
    page.listen("it", server.ws(path))
    page.send("it", message)
    closed = page.closed("it")
    assert closed["code"] == code and closed["wasClean"] is True


def test_its_own_close_is_answered(page, server):
    page.listen("it", server.ws("/ws"))
    page.browser.run("sockets.it.socket.close(3001, 'enough')")
    closed = page.closed("it")
    assert closed["code"] == 3001 and closed["wasClean"] is True


def test_too_slow_is_1013(start, page_of):
    """A page that is busy reads nothing; on an event topic that ends it."""
    server = start("--send-buffer", "16KiB", "--lag-bytes-max", "1MiB")
    page = page_of(server)
    page.listen("it", server.ws("/raw/busy"))
    page.browser.run(
        "const busy = (end) => { while (performance.now() < end); };"
        "setTimeout(() => busy(performance.now() + 6000))"
    )
    payload = os.urandom(500_000)
    for _ in range(100):
        server.post("busy", payload, content_type="application/octet-stream")
        if server.metrics().sum("closed_total", code="1013", reason="slow") == 1:
            break
    assert server.metrics().sum("closed_total", code="1013", reason="slow") == 1
    closed = page.closed("it")
    assert closed["code"] == 1013 and closed["reason"] == "too slow"


def test_silent_is_1008(start, page_of):
    """A browser answers pings unasked, unless it sleeps."""
    server = start("--ping-interval", "1s", "--pong-timeout", "1s")
    page = page_of(server)
    page.listen("it", server.ws("/ws"))
    time.sleep(2.5)
    assert page.browser.run("return sockets.it.close") is None
    with page.browser.asleep():
        wait_for(
            lambda: server.metrics().sum("closed_total", code="1008", reason="ping_timeout") == 1,
            "the ping timeout",
            10,
        )
    assert page.closed("it")["code"] == 1008


def test_going_away_is_1001(start, page_of):
    server = start()
    page = page_of(server)
    page.subscribe("it", server, "any")
    server.signal()
    closed = page.closed("it")
    assert closed["code"] == 1001 and closed["wasClean"] is True
    goaway = json.loads(page.messages("it", 2)[1][1])
    assert goaway["op"] == "goaway" and goaway["reconnect_after_ms"] >= 0
    assert server.wait() == 0


def test_a_page_that_connects_again_goes_on(start, page_of):
    """As a page would do it: after a close it tries again until it is let in, and subscribes."""
    first = start()
    page = page_of(first)
    page.browser.run(
        """
        window.got = [];
        window.closes = [];
        window.tries = 0;
        const connect = () => {
          window.tries += 1;
          const socket = new WebSocket(arguments[0]);
          socket.onopen = () =>
            socket.send(JSON.stringify({op: 'subscribe', id: 1, topics: ['again.>']}));
          socket.onmessage = (event) => window.got.push(JSON.parse(event.data));
          socket.onclose = (event) => {
            window.closes.push(event.code);
            setTimeout(connect, 100);
          };
        };
        connect();
        """,
        first.ws("/ws"),
    )
    page.browser.wait("return got.length === 1", "the first answer")
    first.publish_now("again.a", "1")
    page.browser.wait("return got.length === 2", "the first message")
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    page.browser.wait("return closes.length >= 3", "tries in vain")
    second = start("--listen", first.data)
    page.browser.wait("return got.length === 4", "the second answer")
    second.publish_now("again.a", "2")
    page.browser.wait("return got.length === 5", "the second message")
    got = page.browser.run("return got")
    assert [each.get("op") for each in got] == ["subscribed", None, "goaway", "subscribed", None]
    assert [got[1]["data"], got[4]["data"]] == [1, 2]
    closes = page.browser.run("return closes")
    assert closes[0] == 1001 and set(closes[1:]) == {1006}
