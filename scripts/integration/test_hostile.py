"""Peers that break the rules: the right answer, a counter, and nothing lost for anybody else."""

import os
import random
import socket
import time

import pytest

from client import dial, refused
from server import wait_for
from wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Wire,
    close_payload,
    frame,
    head,
)

pytestmark = pytest.mark.usefixtures("bystander")


def answer(server, *parts, port="data"):
    """What a request that is no upgrade gets; the server then closes."""
    with Wire(server.address(port)) as wire:
        wire.send(*parts)
        status, fields, _ = wire.response()
        if status != 101:
            assert "close" in fields["connection"]
            assert wire.at_end()
        return status, fields


HEADS = {
    "garbage": (bytes(range(128, 256)) + b"\r\n\r\n", 400, "400"),
    "tls": (bytes.fromhex("16030102000100") + b"\x01\xfc\x03\x03" * 40, 400, "400"),
    "http2-preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "505"),
    "empty-line": (b"\x00\r\n\r\n", 400, "400"),
    "no-host": (head("/ws", Host=None), 400, "400"),
    "two-hosts": (head("/ws").replace(b"\r\n\r\n", b"\r\nHost: b\r\n\r\n"), 400, "400"),
    "no-key": (head("/ws", Sec_WebSocket_Key=None), 400, "400"),
    "short-key": (head("/ws", Sec_WebSocket_Key="dGhlIHNhbXBsZQ=="), 400, "400"),
    "bad-key": (head("/ws", Sec_WebSocket_Key="*" * 24), 400, "400"),
    "no-connection": (head("/ws", Connection="keep-alive"), 400, "400"),
    "version-8": (head("/ws", Sec_WebSocket_Version="8"), 426, "426"),
    "no-version": (head("/ws", Sec_WebSocket_Version=None), 426, "426"),
    "no-upgrade": (head("/ws", Upgrade=None), 426, "426"),
    "other-upgrade": (head("/ws", Upgrade="h2c"), 426, "426"),
    "http-1.0": (head("/ws", version="HTTP/1.0"), 400, "400"),
    "http-3": (head("/ws", version="HTTP/3.0"), 505, "505"),
    "post": (head("/ws", method="POST"), 405, "405"),
    "delete": (head("/raw/a", method="DELETE"), 405, "405"),
    "post-healthz": (head("/healthz", method="POST", Upgrade=None), 405, "405"),
    "body": (head("/ws", Content_Length="5") + b"hello", 400, "400"),
    "chunked": (head("/ws", Transfer_Encoding="chunked"), 400, "400"),
    "bad-length": (head("/ws", Content_Length="x"), 400, "400"),
    "unknown-path": (head("/nothing"), 404, "404"),
    "dots": (head("/../ws"), 404, "404"),
    "bad-percent": (head("/ws%zz"), 400, "400"),
    "bad-topic": (head("/raw/a..b"), 400, "400"),
    "no-target": (b"GET\r\n\r\n", 400, "400"),
    "folded": (b"GET /ws HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400, "400"),
    "bare-lf-name": (b"GET /ws HTTP/1.1\r\nHo\x00st: a\r\n\r\n", 400, "400"),
    "too-large": (b"GET /ws HTTP/1.1\r\nX: " + b"x" * 17_000, 431, "431"),
    "too-many": (b"GET /ws HTTP/1.1\r\n" + b"X: y\r\n" * 65 + b"\r\n", 431, "431"),
    "foreign-origin": (head("/ws", Origin="http://evil.example"), 403, "403"),
    "null-origin": (head("/ws", Origin="null"), 403, "403"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_wrong_request_is_refused_and_counted(server, counted, name):
    request, status, label = HEADS[name]
    got, fields = answer(server, request)
    assert got == status
    if status == 405:
        assert fields["allow"] == "GET"
    if status == 426:
        assert fields["sec-websocket-version"] == "13" and fields["upgrade"] == "websocket"
    assert counted("handshakes_total", result=label) == 1


@pytest.mark.parametrize("pieces", ["bytes", "random"])
def test_a_request_may_come_in_pieces(server, pieces):
    request = head("/ws") + frame(TEXT, '{"op":"ping","id":1}')
    random_ = random.Random(5)
    with Wire(server.address("data")) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = 0
        while at < len(request):
            size = 1 if pieces == "bytes" else random_.randrange(1, 30)
            wire.send(request[at : at + size])
            at += size
            time.sleep(0.001)
        assert wire.response()[0] == 101
        assert wire.message()[1].startswith(b'{"op":"pong","id":1,')


def test_half_a_handshake_and_away(server, counted):
    request = head("/ws")
    for cut in (0, 1, len(request) // 2, len(request) - 1):
        with Wire(server.address("data")) as wire:
            wire.send(request[:cut])
        wire = Wire(server.address("data"))
        wire.send(request[:cut])
        wire.reset()
    wait_for(lambda: counted("handshakes_total", result="gone") == 8, "all to be counted")


def test_origins(server, start):
    host = "127.0.0.1"
    for origin, status in [
        ("http://127.0.0.1", 101),
        ("http://127.0.0.1:3000", 101),
        ("https://localhost:8443", 101),
        ("http://evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("http://127.0.0.1@evil.example", 403),
    ]:
        with Wire(server.address("data")) as wire:
            wire.send(head("/ws", host=host, Origin=origin))
            assert wire.response()[0] == status, origin
    allowing = start("--allow-origin", "app.example", "--allow-origin", "*.pages.example")
    for origin, status in [
        ("https://app.example", 101),
        ("https://app.example:1234", 101),
        ("https://a.b.pages.example", 101),
        ("https://pages.example", 403),
        ("https://xapp.example", 403),
    ]:
        with Wire(allowing.address("data")) as wire:
            wire.send(head("/ws", host=host, Origin=origin))
            assert wire.response()[0] == status, origin


def bad_utf8_message():
    return frame(TEXT, b'{"op":"\xc3\x28"}')


FRAMES = {
    "unmasked": (frame(TEXT, "{}", mask=False), 1002, "unmasked"),
    "unmasked-ping": (frame(PING, "", mask=False), 1002, "unmasked"),
    "rsv1": (frame(TEXT, "{}", reserved=4), 1002, "reserved_bits"),
    "rsv2": (frame(TEXT, "{}", reserved=2), 1002, "reserved_bits"),
    "rsv3": (frame(PING, "", reserved=1), 1002, "reserved_bits"),
    **{f"opcode-{n}": (frame(n, ""), 1002, "opcode") for n in (3, 7, 11, 15)},
    "bad-utf8": (bad_utf8_message(), 1007, "utf8"),
    "surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007, "utf8"),
    "overlong": (frame(TEXT, b"\xc0\xaf"), 1007, "utf8"),
    "cut-utf8": (frame(TEXT, b"\xe2\x82"), 1007, "utf8"),
    "long-ping": (frame(PING, "x" * 126), 1002, "control_frame"),
    "fragmented-ping": (frame(PING, "x", fin=False), 1002, "control_frame"),
    "fragmented-close": (frame(CLOSE, close_payload(1000), fin=False), 1002, "control_frame"),
    "lone-continuation": (frame(CONTINUATION, "x"), 1002, "fragmentation"),
    "interleaved": (frame(TEXT, "{", fin=False) + frame(TEXT, "}"), 1002, "fragmentation"),
    "long-length": (frame(TEXT, "{}", length=("medium", 2)), 1002, "length"),
    "longer-length": (frame(TEXT, "{}", length=("long", 2)), 1002, "length"),
    "highest-bit": (frame(TEXT, "", length=("long", 1 << 63)), 1002, "length"),
    "oversize": (frame(TEXT, "", length=("long", 65_537)), 1009, "too_big"),
    "huge": (frame(BINARY, "", length=("long", (1 << 63) - 1)), 1009, "too_big"),
    "oversize-in-parts": (
        frame(TEXT, "x" * 40_000, fin=False) + frame(CONTINUATION, "x" * 40_000),
        1009,
        "too_big",
    ),
    "close-1-byte": (frame(CLOSE, b"\x03"), 1002, "close_frame"),
    **{
        f"close-{code}": (frame(CLOSE, close_payload(code)), 1002, "close_frame")
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "close-bad-utf8": (frame(CLOSE, close_payload(1000, b"\xff")), 1007, "close_frame"),
}
COUNTED_AS = {1002: "protocol_error", 1007: "invalid_payload", 1009: "message_too_big"}


@pytest.mark.parametrize("name", FRAMES)
def test_a_wrong_frame_is_answered_and_counted(server, counted, name):
    offence, code, kind = FRAMES[name]
    with Wire(server.address("data")).upgrade("/ws") as wire:
        began = time.monotonic()
        # What stands before the offence is answered before it.
        wire.send(frame(PING, "before"), offence)
        assert wire.frame() == (True, PONG, b"before")
        assert wire.closed() == code
        assert wire.at_end()
        assert time.monotonic() - began < 2
    assert counted("offences_total", kind=kind) == 1
    assert counted("offences_total") == 1
    assert counted("closed_total", by="server", reason=COUNTED_AS[code]) == 1


@pytest.mark.parametrize("path", ["/publish/hostile", "/publish"])
@pytest.mark.parametrize("name", ["unmasked", "rsv1", "opcode-3", "bad-utf8", "interleaved"])
def test_the_same_on_the_publish_port(server, counted, path, name):
    offence, code, kind = FRAMES[name]
    with Wire(server.address("publish")).upgrade(path) as wire:
        wire.send(frame(PING, "before"), offence)
        assert wire.frame() == (True, PONG, b"before")
        assert wire.closed() == code
        assert wire.at_end()
    assert counted("offences_total", kind=kind) == 1


def test_bad_utf8_is_refused_at_once(server):
    """At the first wrong byte, not at the message's end (RFC 6455 section 8.1)."""
    with Wire(server.address("data")).upgrade("/ws") as wire:
        wire.send(frame(TEXT, b"{\xc3\x28", length=("medium", 60_000)))
        assert wire.closed() == 1007


def test_oversize_is_refused_by_its_header(server):
    with Wire(server.address("data")).upgrade("/ws") as wire:
        began = time.monotonic()
        wire.send(frame(TEXT, "", length=("long", 1 << 40)))
        assert wire.closed() == 1009
        assert time.monotonic() - began < 1


def test_an_offender_that_goes_on_sending_still_learns_why(server):
    """Unread input would turn our Close into a reset."""
    with Wire(server.address("data")).upgrade("/ws") as wire:
        wire.send(frame(3, ""), os.urandom(60_000))
        assert wire.closed() == 1002


def test_fragments_with_control_frames_between(server):
    with Wire(server.address("data")).upgrade("/ws") as wire:
        wire.send(
            frame(TEXT, '{"op":', fin=False),
            frame(PING, "a"),
            frame(CONTINUATION, "", fin=False),
            frame(PONG, "unasked"),
            frame(CONTINUATION, '"ping","id":"ü"}'.encode()[:16], fin=False),
            frame(PING, "b"),
            frame(CONTINUATION, '"ping","id":"ü"}'.encode()[16:]),
        )
        assert wire.frame() == (True, PONG, b"a")
        assert wire.frame() == (True, PONG, b"b")
        assert wire.message()[1].startswith('{"op":"pong","id":"ü",'.encode())


def test_many_tiny_fragments(server):
    message = ('{"op":"ping","id":7,"pad":"' + "x" * 3_000 + '"}').encode()
    with Wire(server.address("data")).upgrade("/ws") as wire:
        parts = [frame(TEXT, message[:1], fin=False)]
        parts += [
            frame(CONTINUATION, message[n : n + 1], fin=False) for n in range(1, len(message))
        ]
        wire.send(*parts, frame(CONTINUATION, ""))
        assert wire.message()[1].startswith(b'{"op":"pong","id":7,')


def test_resets_in_every_state(server, counted, topic):
    """RST instead of any step: nothing is left of the connection."""
    states = {
        "connected": [],
        "half a head": [head("/ws")[:40]],
        "upgraded": [head("/ws")],
        "subscribed": [head(f"/ws?topics={topic}")],
        "raw": [head(f"/raw/{topic}")],
        "half a header": [head("/ws"), b"\x81"],
        "half a payload": [head("/ws"), frame(TEXT, "x" * 500)[:100]],
        "between fragments": [head("/ws"), frame(TEXT, "{", fin=False)],
        "half a ping": [head("/ws"), frame(PING, "x" * 100)[:50]],
        "closing": [head("/ws"), frame(CLOSE, close_payload(1000))],
        "offended": [head("/ws"), frame(3, "")],
        "refused": [head("/nothing")],
    }
    for waits in (0, 0.02):
        for parts in states.values():
            wire = Wire(server.address("data")).send(*parts)
            time.sleep(waits)
            server.publish_now(topic, '"meanwhile"')
            wire.reset()
            publisher = Wire(server.address("publish"))
            publisher.send(*(part.replace(b"/ws", b"/publish/x") for part in parts))
            time.sleep(waits)
            publisher.reset()
    wait_for(lambda: server.metrics().sum("connections") <= 1, "all to be gone but the bystander")
    assert counted("closed_total", reason="reset") + counted("closed_total", code="1006") > 0
    assert server.metrics().sum("publishers") == 0


def test_a_peer_that_vanishes_while_it_is_sent_to(server, topic):
    """Resets under a stream of publications: dead sockets are found by their sends."""
    for _ in range(3):
        wires = [Wire(server.address("data")).upgrade(f"/raw/{topic}") for _ in range(30)]
        for number in range(10):
            server.publish_now(topic, f'"{"x" * 5_000}"')
            for wire in wires[number * 3 : number * 3 + 3]:
                wire.reset()
    wait_for(lambda: server.metrics().sum("connections") == 1, "all to be gone but the bystander")
    assert server.metrics().sum("subscribers") == 1


def test_half_closed_peers(server, topic):
    """A FIN from who has a subscription ends it: no Close will come any more."""
    with Wire(server.address("data")).upgrade(f"/raw/{topic}") as wire:
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.at_end()
    # A request with FIN behind it is answered all the same.
    with Wire(server.address("data")) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.response()[0] == 200


def test_random_bytes_after_the_handshake(server):
    """Whatever comes, the answer is a legal close, and the server lives."""
    random_ = random.Random(11)
    for path, port in (("/ws", "data"), ("/raw/a", "data"), ("/publish/z", "publish")):
        for _ in range(40):
            with Wire(server.address(port)).upgrade(path) as wire:
                wire.send(random_.randbytes(random_.randrange(1, 3_000)))
                wire.socket.shutdown(socket.SHUT_WR)
                assert wire.closed() in (None, 1000, 1002, 1003, 1005, 1007, 1009)


def test_mutated_conversations(server):
    """A right conversation with a few bytes changed."""
    random_ = random.Random(13)
    right = head("/ws?topics=a.b&hello=1") + frame(TEXT, '{"op":"subscribe","id":1,"topics":["a"]}')
    right += frame(PING, "x") + frame(TEXT, '{"op":"list"}') + frame(CLOSE, close_payload(1000))
    for _ in range(150):
        changed = bytearray(right)
        for _ in range(random_.randrange(1, 4)):
            changed[random_.randrange(len(changed))] = random_.randrange(256)
        with Wire(server.address("data")) as wire:
            wire.send(bytes(changed))
            wire.socket.shutdown(socket.SHUT_WR)
            received = wire.rest
            try:
                while more := wire.socket.recv(65536):
                    received += more
            except ConnectionResetError:
                pass
            assert received == b"" or received.startswith(b"HTTP/1.1 ")


def test_a_thousand_connections_come_and_go(server):
    address = server.address("data")
    for _ in range(10):
        wires = [Wire(address).send(head("/raw/churn")) for _ in range(100)]
        for wire in wires:
            assert wire.response()[0] == 101
        server.publish_now("churn", '"x"')
        for wire in wires:
            assert wire.message() == (TEXT, b'"x"')
            wire.socket.close()
    wait_for(lambda: server.metrics().sum("connections") == 1, "all to be gone but the bystander")


def test_unknown_paths_with_a_real_client(server):
    assert refused(server.ws("/nothing")) == 404
    with dial(server.ws("/raw/a")) as socket_:
        assert socket_.response.status_code == 101
