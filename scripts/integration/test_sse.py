"""Server-Sent Events: the same messages as over WebSocket, and a stream that can be taken up again
where it broke off."""

import base64
import contextlib
import json
import random
import re
import socket
import subprocess
import threading
import time

import pytest

from browser import Browser
from client import Json, dial
from nginx import Nginx
from server import Server, wait_for
from sse import Stream, request
from test_slow import SMALL, flood
from wire import Wire, head

# Delta topics have history by default.
DELTA = ("--topic", "d.>:kind=delta", "--topic", "v.>:kind=value")


def stream(server, path, last_id=None, **options):
    return Stream(server.address("data"), path, last_id, **options)


def test_the_head_and_the_form_of_events(server, topic):
    with stream(server, f"/sse?topics={topic},{topic}.*") as events:
        assert events.status == 200
        assert events.fields["content-type"] == "text/event-stream"
        assert events.fields["cache-control"] == "no-store"
        assert events.fields["x-accel-buffering"] == "no"
        assert "content-length" not in events.fields and not events.chunked
        assert "access-control-allow-origin" not in events.fields
        acks = events.acks()
        assert [(ack["topic"], ack["kind"]) for ack in acks] == [
            (topic, "event"),
            (f"{topic}.*", "event"),
        ]
        assert events.retry_ms == 2000
        assert re.fullmatch("[0-9a-f]{16}", events.last_id)
        # As they stand on the wire.
        answer = server.publish_now(topic, '{\n  "price": 1,\r\n  "text": "a\\nb"\n}')
        event = events.event()
        assert event.kind == "message" and re.fullmatch("[0-9a-f]{16}", event.last_id)
        assert event.data.startswith(f'{{"topic":"{topic}","seq":{answer["seq"]},"ts":')
        assert event.json()["data"] == {"price": 1, "text": "a\nb"}
        server.post(f"{topic}.text", "line\nline", content_type="text/plain")
        assert events.message()["data"] == "line\nline"
        server.post(f"{topic}.binary", b"\0\xff\n", content_type="application/octet-stream")
        assert base64.b64decode(events.message()["data_base64"]) == b"\0\xff\n"
        for size in (8_100, 9_000, 70_000, 500_000):
            server.publish_now(f"{topic}.large", json.dumps(["x" * size], indent=1))
            assert events.message()["data"] == ["x" * size]


def test_json_and_streams_say_the_same(server, topic):
    with Json(server.ws("/ws")) as client, stream(server, f"/sse?topics={topic}") as events:
        events.acks()
        client.subscribe(topic)
        for number in range(200):
            server.publish_now(topic, json.dumps([number, "x" * (number * 97 % 12_000)]))
        for _ in range(200):
            assert events.message() == client.receive()


def test_what_is_refused(server, topic):
    def answer(head_bytes):
        with Wire(server.address("data")) as wire:
            wire.send(head_bytes)
            status, fields, _ = wire.response(to_head=head_bytes.startswith(b"HEAD"))
            return status, fields

    for path in ("/sse", "/sse?topics=", "/sse?topics=" + ",".join(["a"] * 1_025)):
        assert answer(request(path))[0] == 400, path
    assert answer(request("/sse?topics=a..b,c.>.d"))[0] == 400
    assert answer(request(f"/sse?topics={topic}").replace(b"GET", b"POST"))[0] == 405
    assert answer(request(f"/sse?topics={topic}").replace(b"GET", b"HEAD"))[0] == 405
    assert answer(head(f"/sse?topics={topic}"))[0] == 405
    status, fields = answer(request(f"/sse?topics={topic}", Origin="https://evil.example"))
    assert status == 403 and "access-control-allow-origin" not in fields
    with Wire(server.address("publish")) as wire:
        assert wire.send(request(f"/sse?topics={topic}")).response()[0] == 404
    with stream(server, f"/sse?topics=a..b,{topic}") as events:
        assert events.acks()[0] == {"topic": "a..b", "error": "topic_invalid"}
        server.publish_now(topic, "1")
        assert events.message()["data"] == 1


def test_pages_of_allowed_origins_may_read(start):
    server = start("--allow-origin", "*.example.com", "--http-header", "X-Served-By: us")
    page = "https://a.example.com"
    with stream(server, "/sse?topics=a", Origin=page) as events:
        assert events.fields["access-control-allow-origin"] == page
        assert events.fields["vary"] == "Origin"
        assert events.fields["x-served-by"] == "us"
    with stream(server, "/sse?topics=a", Origin=f"http://{server.admin}") as events:
        assert events.fields["access-control-allow-origin"] == f"http://{server.admin}"
    with stream(server, "/sse?topics=a") as events:
        assert events.status == 200 and events.fields["vary"] == "Origin"


@pytest.mark.parametrize("by", ["header", "query"])
@pytest.mark.parametrize("reactors", [1, 2])
def test_taken_up_where_it_broke_off(start, reactors, by):
    server = start(*DELTA, reactors=reactors)
    with stream(server, "/sse?topics=d.a,d.b.*") as events:
        events.acks()
        for number in range(10):
            server.publish_now("d.a", str(number))
        had = [events.message()["seq"] for _ in range(10)]
        last_id = events.last_id
    for number in range(10, 20):
        server.publish_now("d.a", str(number))
        server.publish_now("d.b.new", str(number))
    path = "/sse?topics=d.a,d.b.*&snapshot=1"
    if by == "query":
        path, last_id = f"{path}&last_event_id={last_id}", None
    with stream(server, path, last_id) as events:
        assert [ack["recovered"] for ack in events.acks()] == [True, True]
        server.publish_now("d.a", '"live"')
        server.publish_now("d.b.new", '"live"')
        got = {"d.a": [], "d.b.new": []}
        while min((len(seqs) and seqs[-1]) for seqs in got.values()) < 11 or got["d.a"][-1] < 21:
            message = events.message()
            assert "snapshot" not in message
            got[message["topic"]].append(message["seq"])
    assert set(had + got["d.a"]) == set(range(1, 22))
    assert got["d.a"] == list(range(got["d.a"][0], 22))
    assert got["d.b.new"] == list(range(1, 12))
    assert server.metrics().sum("resumes_total", recovered="true") == 2


@pytest.mark.parametrize("reactors", [1, 2])
def test_every_message_at_least_once_whatever_breaks(start, reactors):
    """Connections break at any moment, in the middle of events too: nobody misses anything."""
    # As much history as there are messages.
    rule = ("--topic", "d.>:kind=delta,history-messages=700,history-bytes=64MiB")
    server = start(*rule, reactors=reactors)
    topics = [f"d.{number}" for number in range(6)]
    count, clients = 700, 8
    seen = [{topic: set() for topic in topics} for _ in range(clients)]
    breaks = [0] * clients
    done = threading.Event()
    errors = []

    def publish():
        with dial(server.publish_ws("/publish?ack=1")) as publisher:
            for number in range(count):
                for topic in topics:
                    pad = "x" * random.choice([10, 10, 100, 9_000])
                    publisher.send(json.dumps({"topic": topic, "data": [number, pad]}))
                for _ in topics:
                    assert json.loads(publisher.recv(10))["op"] == "published"

    def read(mine):
        last_id = ids[mine]
        try:
            while not all(len(seqs) == count for seqs in seen[mine].values()):
                with stream(server, "/sse?topics=d.*", last_id, receive_buffer=65_536) as events:
                    assert events.acks()[0]["recovered"] is True
                    # Whoever has not caught up begins where it did before: in the end it must.
                    most = 10**9 if done.is_set() else random.randrange(1, 1_500)
                    for _ in range(most):
                        event = events.event(2 if done.is_set() else 20)
                        assert event and event.kind == "message", event
                        message = event.json()
                        seen[mine][message["topic"]].add(message["seq"])
                        if all(len(seqs) == count for seqs in seen[mine].values()):
                            break
                    last_id = events.last_id
                breaks[mine] += 1
        except BaseException as error:  # noqa: BLE001
            errors.append((mine, error))

    # Everyone has begun before the first message.
    first = [stream(server, "/sse?topics=d.*") for _ in range(clients)]
    ids = []
    for events in first:
        events.acks()
        ids.append(events.last_id)
        events.wire.socket.close()
    threads = [threading.Thread(target=read, args=(mine,), daemon=True) for mine in range(clients)]
    publisher = threading.Thread(target=publish)
    for thread in [*threads, publisher]:
        thread.start()
    publisher.join(60)
    done.set()
    for thread in threads:
        thread.join(30)
    missing = [
        {topic: count - len(seqs) for topic, seqs in mine.items() if len(seqs) < count}
        for mine in seen
    ]
    assert not errors, (errors, missing, breaks)
    assert sum(breaks) > 3 * clients


@pytest.mark.parametrize("last_id", ["x", "0x12", "ffffffffffffffff", "1" * 17, "%00"])
def test_an_id_that_is_none_of_ours(start, last_id):
    server = start(*DELTA)
    server.publish_now("v.a", "1")
    with stream(server, "/sse?topics=v.a&snapshot=1", last_id) as events:
        (ack,) = events.acks()
        assert (ack["recovered"], ack["reason"]) == (False, "cursor")
        assert events.last_id != last_id
        # As if there had been none.
        message = events.message()
        assert message["snapshot"] is True and message["data"] == 1
    assert server.metrics().sum("resumes_total", recovered="false") == 1


def test_an_id_of_another_life_of_the_server(start):
    with stream(start(*DELTA), "/sse?topics=v.a") as events:
        events.acks()
        last_id = events.last_id
    server = start(*DELTA)
    server.publish_now("v.a", "1")
    with stream(server, "/sse?topics=v.a", last_id) as events:
        (ack,) = events.acks()
        assert (ack["recovered"], ack["reason"]) == (False, "history")
        assert events.message()["data"] == 1


def test_events_without_history_are_told_as_a_gap(start):
    server = start()
    with stream(server, "/sse?topics=e") as events:
        events.acks()
        server.publish_now("e", "0")
        assert events.message()["seq"] == 1
        last_id = events.last_id
    for number in range(5):
        server.publish_now("e", str(number))
    with stream(server, "/sse?topics=e", last_id) as events:
        assert events.acks()[0]["recovered"] is False
        event = events.event()
        assert event.kind == "gap"
        gap = event.json()
        assert (gap["op"], gap["topic"], gap["to"], gap["reason"]) == ("gap", "e", 5, "history")
        assert gap["from"] <= 2
        # What has not caught up goes back to where it was.
        assert event.last_id == last_id
        assert events.message()["seq"] == 6


def test_a_snapshot_of_the_publisher(start):
    server = start(*DELTA)
    for number in range(1, 6):
        assert server.post("d.book", str(number), f"?pub_seq={number}").status == 200
    with stream(server, "/sse?topics=d.book&snapshot=1") as events:
        events.acks()
        event = events.event()
        assert event.kind == "error"
        assert event.json()["code"] == "snapshot_unavailable"
        large = {"book": "x" * 20_000}
        answer = server.post("d.book", json.dumps(large), "?snapshot=1&pub_seq=3")
        assert answer.status == 200, answer.body
        message = events.message()
        assert (message["seq"], message["snapshot"], message["data"]) == (3, True, large)
        assert [events.message()["seq"] for _ in range(2)] == [4, 5]
        assert server.post("d.book", "6", "?pub_seq=6").status == 200
        assert events.message()["seq"] == 6


def test_the_slow_are_told_and_closed(start):
    server = start(*SMALL)
    count = 2_000
    with stream(server, "/sse?topics=slow.event", receive_buffer=4096) as slow:
        slow.acks()
        with dial(server.ws("/raw/slow.event")) as quick:
            flood(server, "slow.event", count, reader=lambda: quick.recv(5))
        wait_for(
            lambda: server.metrics().sum("closed_total", code="1013", reason="slow") == 1,
            "the slow one to be found out",
        )
        events = slow.rest()
        assert slow.ended
        assert events[-1].kind == "error"
        assert events[-1].json() == {
            "op": "error",
            "code": "busy",
            "message": "too slow",
            "retry": True,
        }
        seqs = [event.json()["seq"] for event in events[:-1]]
        assert seqs == list(range(1, len(seqs) + 1)) and 0 < len(seqs) < count
        # It begins again behind what it has had.
        last_id = slow.last_id
    with stream(server, "/sse?topics=slow.event", last_id) as again:
        assert again.acks()[0]["recovered"] is False
        gap = again.event().json()
        assert gap["op"] == "gap" and gap["from"] <= len(seqs) + 1
        assert again.message()["seq"] == count
    wait_for(lambda: server.metrics().sum("connections") == 0, "both to be gone")
    assert server.metrics().sum("lane_log_bytes") == 0


def test_a_slow_reader_of_values_and_deltas_has_it_all(start):
    """Conflated or from history, by each topic's kind; the id waits until it has caught up."""
    server = start(*SMALL, *DELTA)
    with stream(server, "/sse?topics=v.*,d.*", receive_buffer=4096) as slow:
        slow.acks()
        for number in range(300):
            pad = "x" * (20_000 if number % 10 == 0 else 1_000)
            server.publish_now("v.a", json.dumps([number, pad]))
            server.publish_now("d.a", json.dumps([number, pad]))
        assert server.metrics().sum("connections_lagging") == 1
        values, deltas = [], []
        while not values or values[-1] < 300 or len(deltas) < 300:
            message = slow.message(10)
            (values if message["topic"] == "v.a" else deltas).append(message["seq"])
        assert deltas == list(range(1, 301))
        assert values == sorted(set(values)) and len(values) < 300
        wait_for(lambda: server.metrics().sum("connections_lagging") == 0, "it to have caught up")
        before = slow.last_id
        server.publish_now("d.a", "0")
        assert slow.message()["seq"] == 301
        assert slow.last_id > before


def test_pings_keep_it_open_and_nobody_answers(start):
    server = start("--ping-interval", "1s", "--pong-timeout", "1s")
    with stream(server, "/sse?topics=a") as events:
        events.acks()
        began = events.last_id
        events.wire.socket.settimeout(6)
        deadline = time.monotonic() + 8
        while events.comments < 4:
            assert time.monotonic() < deadline
            line = events.line(5)
            assert line is not None
            if line.startswith(":"):
                events.comments += 1
            elif line.startswith("id: "):
                events.last_id = line[4:]
        # With everything at hand, a ping says so.
        assert events.last_id > began
        server.publish_now("a", "1")
        assert events.message()["data"] == 1
    assert server.metrics().sum("closed_total", reason="ping_timeout") == 0


def test_what_a_client_says_is_ignored_within_a_bound(start):
    server = start()
    with stream(server, "/sse?topics=a") as events:
        events.acks()
        events.wire.send(b"GET / HTTP/1.1\r\n\r\n" * 10, b"\0" * 10_000)
        server.publish_now("a", "1")
        assert events.message()["data"] == 1
        events.wire.send(b"x" * 10_000)
        (last,) = events.rest()
        assert last.kind == "error" and last.json()["code"] == "bad_request"
        assert events.ended
    wait_for(lambda: server.metrics().sum("connections") == 0, "its end")
    # Sent with the request already.
    with Wire(server.address("data")) as wire:
        wire.send(request("/sse?topics=a"), b"x" * 100_000)
        assert wire.response()[0] == 200
        with contextlib.suppress(ConnectionResetError):
            while wire.socket.recv(65_536):
                pass
    wait_for(lambda: server.metrics().sum("connections") == 0, "its end")


def test_what_the_server_tells_of_it(start):
    server = start()
    with stream(server, "/sse?topics=a,b") as events:
        events.acks()
        (report,) = server.get("/v1/connections").json()["connections"]
        assert (report["path"], report["subscriptions"]) == ("/sse", 2)
        metrics = server.metrics()
        assert metrics.sum("sse_connections") == metrics.sum("subscribers") == 1
        assert metrics.sum("handshakes_total", result="stream") == 1
    wait_for(lambda: server.metrics().sum("sse_connections") == 0, "its end")
    assert server.metrics().sum("closed_total", reason="stream_left") == 1
    with stream(server, "/sse?topics=a") as events:
        events.acks()
        events.wire.reset()
    wait_for(lambda: server.metrics().sum("sse_connections") == 0, "its end")


def test_the_end_of_the_server(start):
    server = start()
    with stream(server, "/sse?topics=a") as events, Json(server.ws("/ws?topics=a")) as other:
        events.acks()
        other.receive()
        server.publish_now("a", "1")
        began = time.monotonic()
        server.signal()
        assert events.message()["data"] == 1
        event = events.event()
        assert event.kind == "goaway"
        assert events.retry_ms == event.json()["reconnect_after_ms"] >= 500
        assert events.event() is None
        other.close()
        assert server.wait() == 0
        assert time.monotonic() - began < 5


def test_curl(server, topic):
    command = ["curl", "--silent", "--show-error", "--no-buffer", "--max-time", "10"]
    url = f"http://{server.data}/sse?topics={topic}"
    with subprocess.Popen([*command, url], stdout=subprocess.PIPE, text=True) as curl:
        lines = iter(curl.stdout.readline, "")
        assert next(lines) == "retry: 2000\n"
        wait_for(lambda: next(lines).startswith("data: "), "the answers")
        server.publish_now(topic, '"hello"')
        assert next(lines) == "\n"
        assert next(lines).startswith("id: ")
        assert json.loads(next(lines).removeprefix("data: "))["data"] == "hello"
        curl.terminate()


class Relay:
    """A TCP proxy whose connections can be cut."""

    def __init__(self, upstream):
        self.upstream, self.sockets = upstream, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.listener.getsockname())
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                try:
                    far = socket.create_connection(self.upstream)
                except OSError:
                    near.close()
                    continue
                self.sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self.copy, args=pair, daemon=True).start()

    def copy(self, source, to):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                to.sendall(data)
        for each in (source, to):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self):
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.sockets = []

    def close(self):
        self.listener.close()
        self.cut()


PAGE = """
window.got = [];
window.told = [];
window.opened = 0;
const source = window.source = new EventSource(arguments[0]);
source.onopen = () => { window.opened += 1; };
source.onmessage = (event) => {
  window.got.push([JSON.parse(event.data).seq, event.lastEventId]);
};
for (const kind of ['subscribed', 'gap', 'goaway']) {
  source.addEventListener(kind, (event) => window.told.push([kind, JSON.parse(event.data)]));
}
"""


@pytest.fixture(scope="module")
def browser():
    started = Browser()
    yield started
    started.close()


@pytest.mark.parametrize("reactors", [1, 2])
def test_chromium_comes_back_by_itself(start, browser, reactors):
    server = start(*DELTA, reactors=reactors)
    relay = Relay(server.address("data"))
    try:
        # A page of another port: it may read because hosts are the same.
        browser.open(f"http://{server.admin}/healthz")
        browser.run(PAGE, f"http://{relay.address}/sse?topics=d.a&snapshot=1")
        browser.wait("return window.told.length === 1", "the subscription")
        rounds, each = 4, 25
        for number in range(1, rounds + 1):
            for _ in range(each):
                server.publish_now("d.a", "0")
            if number % 2:
                # In the middle of what is on its way, perhaps.
                relay.cut()
                server.publish_now("d.a", "0")
                browser.wait(f"return window.opened === {(number + 1) // 2 + 1}", "the comeback")
        count = rounds * each + rounds // 2
        seqs = "new Set(window.got.map((each) => each[0]))"
        browser.wait(f"return {seqs}.size === {count}", "every message")
        got = browser.run("return window.got")
        assert {seq for seq, _ in got} == set(range(1, count + 1))
        told = browser.run("return window.told")
        assert [kind for kind, _ in told] == ["subscribed"] * 3, told
        assert [answer["topics"][0].get("recovered") for _, answer in told] == [None, True, True]
        browser.run("window.source.close()")
        wait_for(lambda: server.metrics().sum("sse_connections") == 0, "its end")
    finally:
        relay.close()


def test_chromium_after_a_restart(start, browser):
    server = start(*DELTA)
    host, port = server.address("data")
    browser.open(f"http://{server.admin}/healthz")
    browser.run(PAGE, f"http://{host}:{port}/sse?topics=d.a")
    browser.wait("return window.told.length === 1", "the subscription")
    server.publish_now("d.a", "0")
    browser.wait("return window.got.length === 1", "the message")
    server.stop()
    browser.wait("return window.told.length === 2", "the goodbye")
    second = Server("--listen", f"{host}:{port}", *DELTA)
    try:
        browser.wait("return window.opened === 2 && window.told.length === 3", "the comeback")
        told = browser.run("return window.told")
        assert [kind for kind, _ in told] == ["subscribed", "goaway", "subscribed"]
        assert told[2][1]["topics"][0]["recovered"] is False
        second.publish_now("d.a", "0")
        browser.wait("return window.got.length === 2", "the message")
        browser.run("window.source.close()")
        second.stop()
    finally:
        second.kill()


def test_behind_nginx(start):
    server = start(*DELTA, "--trust-proxy", "127.0.0.1", reactors=2)
    with Nginx(server.data) as nginx:
        for port in (nginx.port, nginx.kept_port):
            with Stream(("127.0.0.1", port), "/sse?topics=d.a") as events:
                assert events.status == 200
                assert events.fields["content-type"] == "text/event-stream"
                events.acks()
                for number in range(20):
                    # Each at once, not when a buffer is full.
                    server.publish_now("d.a", str(number))
                    assert events.message()["data"] == number
                server.publish_now("d.a", json.dumps("x" * 100_000))
                assert len(events.message()["data"]) == 100_000
            wait_for(lambda: server.metrics().sum("sse_connections") == 0, "its end")
