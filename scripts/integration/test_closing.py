"""The end: of a process, and of connections that time judges."""

import signal
import time

import pytest
from websockets.exceptions import ConnectionClosed

from client import Json, dial
from server import wait_for
from wire import CLOSE, KEY, PING, PONG, TEXT, Wire, close_payload, frame


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("reactors", [1, 2])
def test_a_signal_closes_everyone_with_1001(start, number, reactors):
    server = start(reactors=reactors)
    clients = [Json(server.ws("/ws")) for _ in range(20)]
    raw = [dial(server.ws("/raw/a")).__enter__() for _ in range(20)]
    publisher = dial(server.publish_ws("/publish/a")).__enter__()
    for client in clients:
        client.subscribe("a")
    began = time.monotonic()
    server.signal(number)
    delays = set()
    for client in clients:
        goaway = client.receive()
        assert goaway["op"] == "goaway" and goaway["reconnect_after_ms"] > 0
        delays.add(goaway["reconnect_after_ms"])
    for socket in [client.socket for client in clients] + raw + [publisher]:
        with pytest.raises(ConnectionClosed):
            socket.recv(5)
        assert socket.close_code == 1001
    assert len(delays) > 1, "all are to come back at one moment"
    assert server.wait() == 0
    assert time.monotonic() - began < 5
    server.check_log()


def test_what_was_published_before_the_end_arrives(start):
    server = start(reactors=2)
    with Json(server.ws("/ws")) as client:
        client.subscribe("a")
        for number in range(50):
            server.publish_now("a", str(number))
        server.signal()
        messages = [client.receive() for _ in range(51)]
        # The warning may overtake what another reactor has only just handed over; nothing is lost.
        assert [each["data"] for each in messages if "data" in each] == list(range(50))
        assert [each["op"] for each in messages if "op" in each] == ["goaway"]
    assert server.wait() == 0


def test_the_end_does_not_wait_for_the_silent(start):
    """Clients that answer no Close cost --close-timeout once, not each."""
    server = start("--close-timeout", "1s")
    silent = [Wire(server.address("data")).upgrade("/raw/a") for _ in range(50)]
    half = [Wire(server.address("data")).send(b"GET /ws HTTP/1.1\r\n") for _ in range(5)]
    # Who is not accepted yet when the end begins is not answered.
    everyone = len(silent) + len(half)
    wait_for(lambda: server.metrics().sum("connections") == everyone, "all to be accepted")
    began = time.monotonic()
    server.signal()
    assert server.wait() == 0
    assert time.monotonic() - began < 6
    for wire in silent:
        assert wire.closed() == 1001
    for wire in half:
        assert wire.response()[0] == 503
    for wire in silent + half:
        wire.socket.close()


def test_while_draining_nobody_new_comes_in(start):
    server = start("--close-timeout", "3s")
    with Wire(server.address("data")).upgrade("/raw/a") as silent:
        server.signal()
        assert silent.closed() == 1001
        assert server.get("/readyz").status == 503
        assert server.get("/healthz").status == 200
        refused = server.post("a", "1")
        assert (refused.status, refused.code()) == (503, "busy")
        try:
            with Wire(server.address("data"), timeout_s=2) as late:
                late.send(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
                assert late.response()[0] == 503
        except (ConnectionError, EOFError, TimeoutError):
            pass
        silent.send(frame(CLOSE, close_payload(1001)))
    assert server.wait() == 0


def test_a_second_signal_ends_at_once(start):
    server = start("--close-timeout", "5s")
    with Wire(server.address("data")).upgrade("/raw/a") as silent:
        server.signal()
        assert silent.closed() == 1001
        began = time.monotonic()
        server.signal()
        assert server.wait() == 1
        assert time.monotonic() - began < 1


def test_handshakes_have_a_time_limit(start):
    server = start("--handshake-timeout", "1s")
    began = time.monotonic()
    address = server.address("data")
    with Wire(address) as silent, Wire(address) as half, Wire(address) as slow:
        half.send(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
        # A byte now and then does not buy time.
        slow.send(b"GET /ws HTTP/1.1\r\n")
        for _ in range(8):
            time.sleep(0.1)
            slow.send(b"X")
        for wire in (silent, half, slow):
            status, fields, _ = wire.response()
            assert status == 408 and fields["connection"] == "close"
            assert wire.at_end()
        assert 0.9 < time.monotonic() - began < 4
    assert server.metrics().sum("handshakes_total", result="408") == 3
    assert server.metrics().sum("connections") == 0


def test_who_answers_no_ping_is_closed(start):
    server = start("--ping-interval", "1s", "--pong-timeout", "500ms")
    with Wire(server.address("data")).upgrade("/ws") as silent, Json(server.ws("/ws")) as alive:
        fin, opcode, _ = silent.frame(pings=True)
        assert (fin, opcode) == (True, PING)
        asked = time.monotonic()
        fin, opcode, payload = silent.frame()
        assert opcode == CLOSE and payload[:2] == close_payload(1008)
        assert 0.3 < time.monotonic() - asked < 2.5
        # Who answers stays, as long as it likes.
        time.sleep(1.5)
        alive.settled()
    assert server.metrics().sum("closed_total", reason="ping_timeout") == 1
    assert server.metrics().sum("pings_total") >= 3


def test_any_sign_of_life_is_an_answer(start):
    server = start("--ping-interval", "1s", "--pong-timeout", "500ms")
    with Wire(server.address("data")).upgrade("/ws") as busy:
        end = time.monotonic() + 4
        pings = 0
        while time.monotonic() < end:
            busy.send(frame(TEXT, '{"op":"ping"}'))
            _, opcode, payload = busy.frame(pings=True)
            assert opcode in (PING, TEXT), (opcode, payload)
            pings += opcode == PING
            time.sleep(0.1)
        assert pings >= 2


def test_pings_are_answered_with_their_payload(server):
    with Wire(server.address("data")).upgrade("/raw/a") as wire:
        for payload in (b"", b"x", b"y" * 125):
            wire.send(frame(PING, payload))
            assert wire.frame() == (True, PONG, payload)
        # An unsolicited pong is no offence (RFC 6455 section 5.5.3).
        wire.send(frame(PONG, b"unasked"), frame(PING, b"z"))
        assert wire.frame() == (True, PONG, b"z")


@pytest.mark.parametrize(
    ("payload", "answer", "label"),
    [
        (close_payload(1000, b"bye"), 1000, "normal"),
        (close_payload(1001), 1001, "going_away"),
        (close_payload(3000), 3000, "other"),
        (close_payload(4999), 4999, "other"),
        (b"", 1005, "no_status"),
    ],
)
@pytest.mark.parametrize("path", ["/ws", "/raw/a", "/publish/a"])
def test_a_close_is_answered_with_its_own_code(server, counted, path, payload, answer, label):
    port = "publish" if path.startswith("/publish") else "data"
    with Wire(server.address(port)).upgrade(path) as wire:
        wire.send(frame(CLOSE, payload))
        assert wire.closed() == answer
        # The server closes first (RFC 6455 section 7.1.1).
        assert wire.at_end()
    wait_for(lambda: counted("closed_total", by="peer", reason=label) == 1, "the count")


def test_a_close_inside_a_fragmented_message(server):
    with Wire(server.address("data")).upgrade("/ws") as wire:
        wire.send(frame(TEXT, "{", fin=False), frame(CLOSE, close_payload(1000)))
        assert wire.closed() == 1000
        assert wire.at_end()


def test_nothing_is_read_after_a_close(server, counted):
    with Wire(server.address("data")).upgrade("/ws") as wire:
        wire.send(frame(CLOSE, close_payload(1000)), frame(TEXT, "x"), frame(3, b""))
        assert wire.closed() == 1000
    assert counted("offences_total") == 0


def test_fin_without_close_is_1006(server, counted):
    for path, port in (("/ws", "data"), ("/raw/a", "data"), ("/publish/a", "publish")):
        with Wire(server.address(port)).upgrade(path):
            pass
    wait_for(lambda: counted("closed_total", code="1006", reason="no_close_frame") == 3, "3")


def test_connections_limit(start):
    server = start("--connections-max", "3")
    address = server.address("data")
    kept = [Wire(address).upgrade("/raw/a") for _ in range(3)]
    with Wire(address) as fourth:
        status, fields, _ = fourth.response()
        assert status == 503 and "retry-after" in fields
        assert fourth.at_end()
    metrics = server.metrics()
    assert metrics.sum("accept_failures_total", reason="connections_max") == 1
    kept.pop().socket.close()
    wait_for(lambda: server.metrics().sum("connections") == 2, "the place to be free")
    with Wire(address).upgrade("/raw/a") as fourth:
        server.publish_now("a", "1")
        for wire in [*kept, fourth]:
            assert wire.message() == (TEXT, b"1")
    for wire in kept:
        wire.socket.close()


def test_the_key_is_answered(server):
    # The example of RFC 6455 section 1.3; `upgrade` checks the answer.
    assert KEY == "dGhlIHNhbXBsZSBub25jZQ=="
    Wire(server.address("data")).upgrade("/raw/a").socket.close()


def test_an_offender_that_answers_our_close_is_not_waited_for(server):
    """Regression: it was left to itself for 200 ms, and clients that give the server half a second
    to close first gave up on a busy machine."""
    waits = []
    for _ in range(5):
        with Wire(server.address("data")).upgrade("/raw/a") as wire:
            wire.send(frame(TEXT, b"\xff"))
            assert wire.closed() == 1007
            wire.send(frame(CLOSE, close_payload(1000)))
            began = time.monotonic()
            assert wire.at_end()
            waits.append(time.monotonic() - began)
    assert min(waits) < 0.15, waits
