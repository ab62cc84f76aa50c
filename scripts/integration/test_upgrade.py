"""The opening handshake and plain HTTP over raw sockets: order, ends, and nothing smuggled."""

import contextlib
import json
import socket
import time

import pytest

from server import wait_for
from wire import BINARY, PING, PONG, TEXT, Wire, frame, head


def request(path, method="GET", version="HTTP/1.1", **fields):
    """A plain request; `_` stands for `-`."""
    fields = {"Host": "127.0.0.1", **fields}
    lines = [f"{method} {path} {version}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


HEALTH = request("/healthz")
PING_COMMAND = frame(TEXT, '{"op":"ping","id":1}')


def test_requests_one_after_the_other(server, counted):
    with Wire(server.address("data")) as wire:
        for _ in range(5):
            status, fields, body = wire.send(HEALTH).response()
            assert (status, body, fields["connection"]) == (200, b"ok\n", "keep-alive")
        for path, method, status in [
            ("/nothing", "GET", 404),
            ("/healthz", "POST", 405),
            ("/ws", "GET", 426),
            ("/raw/a..b", "GET", 400),
            ("/ws", "PUT", 405),
        ]:
            got, fields, body = wire.send(request(path, method)).response()
            assert got == status and body
            assert fields["connection"].endswith("keep-alive")
        wire.send(head("/ws") + PING_COMMAND)
        assert wire.response()[0] == 101
        assert wire.message()[1].startswith(b'{"op":"pong","id":1,')
    assert counted("handshakes_total", result="plain") == 5
    assert counted("handshakes_total", result="upgraded") == 1
    assert counted("handshakes_total", result="405") == 2


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
def test_pipelined_requests_are_answered_in_order(server, size):
    """Then an upgrade, and what came behind it, all in pieces of any size."""
    many = [HEALTH, request("/nothing"), request("/healthz", "HEAD"), request("/ws"), HEALTH]
    bytes_ = b"".join(many) + head("/ws") + frame(PING, "early") + PING_COMMAND
    with Wire(server.address("data")) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(bytes_), size):
            wire.send(bytes_[at : at + size])
        statuses = [wire.response(to_head=n == 2)[0] for n in range(len(many))]
        assert statuses == [200, 404, 200, 426, 200]
        assert wire.response()[0] == 101
        assert wire.frame() == (True, PONG, b"early")
        assert wire.message()[1].startswith(b'{"op":"pong","id":1,')


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_what_a_publisher_sends_early_is_published(server, topic, size):
    messages = [f'"{number}"' for number in range(20)]
    bytes_ = request("/nothing") + head(f"/publish/{topic}?ack=1")
    bytes_ += b"".join(frame(TEXT, message) for message in messages)
    with Wire(server.address("publish")) as wire:
        for at in range(0, len(bytes_), size):
            wire.send(bytes_[at : at + size])
        assert wire.response()[0] == 404
        assert wire.response()[0] == 101
        answers = [json.loads(wire.message()[1])["seq"] for _ in messages]
    assert answers == list(range(1, 21))


def test_a_large_message_right_behind_the_handshake(start):
    server = start("--echo")
    payload = bytes(range(256)) * 250
    for before in (b"", HEALTH):
        with Wire(server.address("data")) as wire:
            wire.send(before + head("/echo") + frame(BINARY, payload) * 3)
            if before:
                assert wire.response()[0] == 200
            assert wire.response()[0] == 101
            for _ in range(3):
                assert wire.message() == (BINARY, payload)


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/ws"])
def test_the_answer_to_a_head_has_no_body(server, path):
    with Wire(server.address("data")) as wire:
        wire.send(request(path, "HEAD"), HEALTH)
        _, fields, _ = wire.response(to_head=True)
        assert int(fields["content-length"]) > 0
        assert wire.response()[2] == b"ok\n"


SMUGGLED = HEALTH
LAST = {
    "connection-close": request("/healthz", Connection="close") + HEALTH,
    "http-1.0": request("/healthz", version="HTTP/1.0") + HEALTH,
    "http-1.0-keep-alive": request("/healthz", version="HTTP/1.0", Connection="keep-alive")
    + HEALTH,
    "body": request("/healthz", Content_Length=len(SMUGGLED)) + SMUGGLED,
    "post-body": request("/nothing", "POST", Content_Length=len(SMUGGLED)) + SMUGGLED,
    "chunked": request("/healthz", Transfer_Encoding="chunked") + b"0\r\n\r\n" + SMUGGLED,
    "both-lengths": request("/healthz", Content_Length=0, Transfer_Encoding="chunked") + SMUGGLED,
    "two-lengths": request("/healthz", Content_Length="0\r\nContent-Length: 38") + SMUGGLED,
    "bad-length": request("/healthz", Content_Length="0x26") + SMUGGLED,
    "lost-upgrade": head("/nothing") + SMUGGLED,
    "bad-version": head("/ws", Sec_WebSocket_Version="8") + SMUGGLED,
    "bad-key": head("/ws", Sec_WebSocket_Key="x") + SMUGGLED,
    "no-connection-field": head("/ws", Connection="keep-alive") + SMUGGLED,
    "foreign-origin": head("/ws", Origin="http://evil.example") + SMUGGLED,
    "not-http": b"\x00\r\n\r\n" + SMUGGLED,
    "no-host": b"GET /healthz HTTP/1.1\r\n\r\n" + SMUGGLED,
    "target": request("*") + SMUGGLED,
    "too-large": request("/healthz", X="x" * 17_000) + SMUGGLED,
    "too-many": b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 65 + b"\r\n" + SMUGGLED,
    "proxy-line": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("port", ["data", "publish"])
@pytest.mark.parametrize("name", LAST)
def test_nothing_behind_the_last_request_is_read_as_one(server, port, name):
    with Wire(server.address(port)) as wire:
        wire.send(LAST[name])
        _, fields, _ = wire.response()
        assert fields["connection"].endswith("close")
        assert wire.at_end()


def test_a_connection_is_left_after_so_many_requests(server):
    with Wire(server.address("data")) as wire:
        wire.send(HEALTH * 1_200)
        answers = [wire.response()[1]["connection"] for _ in range(1_000)]
        assert answers == ["keep-alive"] * 999 + ["close"]
        assert wire.at_end()


def test_who_asks_and_never_reads_is_read_no_further(start):
    """Its answers are bounded by 64 KiB of ours and the socket's buffers."""
    server = start(
        "--handshake-timeout", "2s", "--close-timeout", "1s", "--http-error-body", "x" * 8_000
    )
    with Wire(server.address("data"), receive_buffer=4_096) as wire:
        wire.socket.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                sent += wire.socket.send(request("/nothing") * 100)
        assert sent < 100_000_000
        rss = server.metrics().sum("process_resident_memory_bytes")
        with Wire(server.address("data")) as other:
            assert other.send(HEALTH).response()[0] == 200
        # It goes on where it stopped, whenever it reads.
        wire.socket.settimeout(5)
        for _ in range(100):
            assert wire.response()[0] == 404
        assert server.metrics().sum("process_resident_memory_bytes") < rss + 20_000_000
        # And if it stops again, it is left.
        wait_for(lambda: server.metrics().sum("connections") == 0, "it to be left", 15)


def drip(wire, bytes_, every_s):
    """Sends a byte at a time until there is an answer or the end."""
    wire.socket.settimeout(every_s)
    for at in range(len(bytes_)):
        wire.send(bytes_[at : at + 1])
        try:
            wire.rest += wire.socket.recv(65536)
        except TimeoutError:
            continue
        return
    raise AssertionError("all of it was taken")


def test_a_head_has_so_much_time_in_all(start):
    server = start("--handshake-timeout", "1s")
    with Wire(server.address("data")) as wire:
        began = time.monotonic()
        drip(wire, head("/ws"), 0.1)
        assert 0.9 < time.monotonic() - began < 2
        wire.socket.settimeout(5)
        assert wire.response()[0] == 408
        assert wire.at_end()
    # The next head's time counts from the answer before.
    with Wire(server.address("data")) as wire:
        time.sleep(0.7)
        assert wire.send(HEALTH).response()[0] == 200
        began = time.monotonic()
        time.sleep(0.7)
        assert wire.send(HEALTH).response()[0] == 200
        began = time.monotonic()
        drip(wire, head("/ws"), 0.1)
        assert 0.9 < time.monotonic() - began < 2
        wire.socket.settimeout(5)
        assert wire.response()[0] == 408
    assert server.metrics().sum("handshakes_total", result="408") == 2


def test_an_idle_connection_is_left_without_a_word(start):
    """A 408 could be taken for the answer to the request that is just being sent."""
    server = start("--handshake-timeout", "1s")
    with Wire(server.address("data")) as wire:
        assert wire.send(HEALTH).response()[0] == 200
        began = time.monotonic()
        assert wire.at_end()
        assert 0.8 < time.monotonic() - began < 2
    assert server.metrics().sum("handshakes_total", result="408") == 0
    assert server.metrics().sum("handshakes_total", result="gone") == 0


def test_half_closed_after_many_requests(server):
    with Wire(server.address("data")) as wire:
        wire.send(HEALTH * 50)
        wire.socket.shutdown(socket.SHUT_WR)
        for _ in range(50):
            assert wire.response()[0] == 200
        assert wire.at_end()


def test_idle_connections_do_not_hold_up_the_end(start):
    server = start()
    with Wire(server.address("data")) as wire:
        assert wire.send(HEALTH).response()[0] == 200
        server.signal()
        assert wire.at_end()
        assert server.wait() == 0


def test_headers_and_error_bodies_by_configuration(tmp_path, start):
    config = tmp_path / "uringcast.toml"
    config.write_text(
        """
        handshake_timeout = "1s"
        [http]
        headers = { X-Frame-Options = "DENY", Server = "push" }
        error_type = "application/json"
        [http.error_body]
        404 = '{"code":{status},"what":"nobody here"}'
        default = '{"code":{status},"reason":"{reason}","error":"{error}"}'
        """
    )
    server = start("--config", str(config))
    with Wire(server.address("data")) as wire:
        for bytes_, status, body in [
            (HEALTH, 200, b"ok\n"),
            (request("/nothing"), 404, b'{"code":404,"what":"nobody here"}'),
            (
                request("/ws"),
                426,
                b'{"code":426,"reason":"Upgrade Required","error":"this path speaks '
                b'WebSocket only"}',
            ),
            (head("/ws"), 101, b""),
        ]:
            got, fields, got_body = wire.send(bytes_).response()
            assert (got, got_body) == (status, body)
            assert (fields["x-frame-options"], fields["server"]) == ("DENY", "push")
            if status > 400:
                assert fields["content-type"] == "application/json"
    for bytes_, status in ((b"\x00\r\n\r\n", 400), (b"GET", 408)):
        with Wire(server.address("publish")) as wire:
            got, fields, body = wire.send(bytes_).response()
            assert got == status and fields["server"] == "push"
            assert body.startswith(b'{"code":%d,' % status)


def test_a_subprotocol_only_if_it_is_known(server):
    for offered, chosen in [
        (None, None),
        ("uringcast.v1.json", "uringcast.v1.json"),
        ("x, uringcast.v1.json, y", "uringcast.v1.json"),
        ("x", None),
        ("Uringcast.v1.json", None),
    ]:
        with Wire(server.address("data")) as wire:
            wire.send(head("/ws", Sec_WebSocket_Protocol=offered))
            status, fields, _ = wire.response()
            assert status == 101 and fields.get("sec-websocket-protocol") == chosen
    with Wire(server.address("data")) as wire:
        wire.send(head("/raw/a", Sec_WebSocket_Protocol="uringcast.v1.json"))
        assert "sec-websocket-protocol" not in wire.response()[1]


def test_origins_with_scheme_and_port_and_all(start):
    server = start(
        "--allow-origin", "https://app.example", "--allow-origin", "http://*.b.example:80"
    )
    everyone = start("--allow-origin", "*")
    for origin, status in [
        ("https://app.example", 101),
        ("https://APP.example:443", 101),
        ("https://app.example:8443", 403),
        ("http://app.example", 403),
        ("http://x.b.example", 101),
        ("https://x.b.example", 403),
        ("http://127.9.9.9:1", 101),
        ("http://[::1]", 101),
        ("http://localhost.", 101),
        ("null", 403),
        ("http://localhost.evil.example", 403),
    ]:
        for each, expected in ((server, status), (everyone, 101)):
            with Wire(each.address("data")) as wire:
                wire.send(head("/ws", host="127.0.0.1", Origin=origin))
                assert wire.response()[0] == expected, origin


def test_so_many_connections_of_an_address(start):
    server = start("--connections-per-address-max", "3")
    wires = [Wire(server.address("data")).upgrade("/raw/a") for _ in range(3)]
    with Wire(server.address("data")) as wire:
        status, fields, _ = wire.response()
        assert status == 429 and int(fields["retry-after"]) >= 1
        assert wire.at_end()
    with Wire(server.address("data"), source="127.0.0.2").upgrade("/raw/a"):
        pass
    # The publish port is not counted.
    with Wire(server.address("publish")).upgrade("/publish/a"):
        pass
    assert server.metrics().sum("handshakes_total", result="429") == 1
    wires.pop().reset()
    wait_for(lambda: server.metrics().sum("connections") == 2, "it to be gone")
    with Wire(server.address("data")).upgrade("/raw/a"):
        pass
    for wire in wires:
        wire.socket.close()
