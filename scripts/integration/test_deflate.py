"""permessage-deflate: agreed to as offered, decompressed within bounds, refused where wrong."""

import base64
import itertools
import json
import os
import random
import zlib

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from client import Json, dial
from server import Server, wait_for
from test_node import Node
from wire import BINARY, CLOSE, CONTINUATION, PING, TEXT, Wire, close_payload, frame, head

RSV1 = 4
BOTH = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
MESSAGE_BYTES_MAX = 64 << 10


@pytest.fixture(scope="module", params=[1, 2], ids=["1-reactor", "2-reactors"])
def echo(request):
    """A server with /echo."""
    server = Server("--echo", "--publish-bytes-max", "100KiB", reactors=request.param)
    yield server
    try:
        server.check_alive()
        server.stop()
    finally:
        server.kill()


def deflated(message, bits=15, flush=zlib.Z_SYNC_FLUSH):
    """A message's payload as a client compresses it."""
    if isinstance(message, str):
        message = message.encode()
    stream = zlib.compressobj(9, zlib.DEFLATED, -bits)
    whole = stream.compress(message) + stream.flush(flush)
    assert whole.endswith(b"\x00\x00\xff\xff")
    return whole[:-4]


def inflated(payload, bits=15):
    """What a payload from the server stands for, to a client with no larger window."""
    stream = zlib.decompressobj(-bits)
    return stream.decompress(payload + b"\x00\x00\xff\xff")


class Deflate(Wire):
    """A wire that knows RSV1: messages come as (opcode, compressed, payload)."""

    def agree(self, path, offer="permessage-deflate", answer=BOTH):
        self.send(head(path, Sec_WebSocket_Extensions=offer))
        status, fields, body = self.response()
        assert status == 101, (status, body)
        assert fields.get("sec-websocket-extensions") == answer
        return self

    def message(self):
        kind, compressed, whole = None, False, b""
        while True:
            first, second = self.take(2)
            assert not second & 0x80 and not first & 0x30
            length = second & 0x7F
            if length > 125:
                length = int.from_bytes(self.take({126: 2, 127: 8}[length]), "big")
            fin, opcode, payload = bool(first & 0x80), first & 0x0F, self.take(length)
            rsv1 = bool(first & 0x40)
            if opcode == PING:
                assert not rsv1
                continue
            if opcode >= CLOSE:
                assert not rsv1
                return opcode, False, payload
            assert (opcode == CONTINUATION) == (kind is not None)
            if kind is None:
                kind, compressed = opcode, rsv1
            else:
                assert not rsv1
            whole += payload
            if fin:
                return kind, compressed, whole

    def closed(self):
        """The code of the Close frame that comes; None without one."""
        while True:
            try:
                opcode, _, payload = self.message()
            except (EOFError, ConnectionResetError):
                return None
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else 1005


@pytest.fixture
def undisturbed(echo, topic):
    """A subscriber of the same server, who must lose nothing whatever the test does."""
    with Json(echo.ws("/ws")) as client:
        name = f"{topic}.bystander"
        client.subscribe(name)
        yield client
        for number in range(20):
            echo.publish_now(name, str(number))
        assert [client.receive()["data"] for _ in range(20)] == list(range(20))


def counted(server, name, **labels):
    before = server.metrics().sum(name, **labels)
    return lambda: server.metrics().sum(name, **labels) - before


# What is agreed.

OFFERS = {
    "plain": ("permessage-deflate", BOTH),
    "browser": ("permessage-deflate; client_max_window_bits", BOTH),
    "server-bits": (
        "permessage-deflate; server_max_window_bits=10",
        f"{BOTH}; server_max_window_bits=10",
    ),
    "quoted": (
        'permessage-deflate; server_max_window_bits="8"; client_max_window_bits="9"',
        f"{BOTH}; server_max_window_bits=8",
    ),
    "all": (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
        "server_max_window_bits=15; client_max_window_bits=15",
        f"{BOTH}; server_max_window_bits=15",
    ),
    "second": (
        "permessage-deflate; server_max_window_bits=16, permessage-deflate; x, "
        "permessage-deflate; server_max_window_bits=9",
        f"{BOTH}; server_max_window_bits=9",
    ),
    "others": ('x-other; a="b, permessage-deflate", permessage-deflate', BOTH),
    "unknown-parameter": ("permessage-deflate; x", None),
    "repeated": ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
    "no-value": ("permessage-deflate; server_max_window_bits", None),
    "leading-zero": ("permessage-deflate; server_max_window_bits=09", None),
    "out-of-range": ("permessage-deflate; client_max_window_bits=7", None),
    "nothing-known": ("x-webkit-deflate-frame, bbf-usp-protocol", None),
}


@pytest.mark.parametrize("name", OFFERS)
@pytest.mark.parametrize("path", ["/ws", "/raw/a", "/echo", "/publish", "/publish/a"])
def test_offers(echo, path, name):
    offer, answer = OFFERS[name]
    port = "publish" if path.startswith("/publish") else "data"
    with Deflate(echo.address(port)) as wire:
        wire.agree(path, offer, answer)


def test_it_can_be_switched_off(start):
    server = start("--echo", "--deflate", "off")
    with Deflate(server.address("data")) as wire:
        wire.agree("/echo", "permessage-deflate", None)
        wire.send(frame(TEXT, deflated("x"), reserved=RSV1))
        assert wire.closed() == 1002


def test_it_can_be_switched_off_in_the_file(start, tmp_path):
    file = tmp_path / "uringcast.toml"
    file.write_text("deflate = false\n")
    server = start("--config", str(file))
    with Deflate(server.address("data")) as wire:
        wire.agree("/ws", "permessage-deflate", None)


# Real clients.

FACTORIES = [
    {},
    {"server_max_window_bits": 9, "client_max_window_bits": 9},
    {"server_max_window_bits": 12, "client_max_window_bits": True},
    {"client_max_window_bits": 10, "client_no_context_takeover": True},
    {"server_no_context_takeover": True, "client_no_context_takeover": True},
    {"server_max_window_bits": 15, "server_no_context_takeover": True},
]


def python(url, **parameters):
    factory = ClientPerMessageDeflateFactory(**parameters)
    socket = dial(url, extensions=[factory])
    assert socket.protocol.extensions, "agreed to"
    return socket


def samples():
    """Messages of many lengths, around every window's, some of which do not compress."""
    dice = random.Random(7692)
    words = [f'"{name}":{dice.random():.8f},' for name in ("price", "quantity", "bid", "ask")]
    for length in [0, 1, 5, 100, 255, 256, 257, 511, 512, 513, 4095, 4097, 32768, 65535, 65536]:
        text = "".join(itertools.islice(itertools.cycle(words), length // 20 + 1))[:length]
        yield text
        yield dice.randbytes(length)
        half = dice.randbytes(length // 2)
        yield half + half


@pytest.mark.parametrize("parameters", FACTORIES, ids=str)
def test_python_echo(echo, parameters):
    before = echo.metrics().sum("deflate_in_messages_total")
    with python(echo.ws("/echo"), **parameters) as socket:
        for message in samples():
            socket.send(message)
            assert socket.recv(10) == message
        # In fragments, which are compressed as one message.
        socket.send(iter(["frag", "", "ments ü€😀", "x" * 1000]))
        assert socket.recv(10) == "fragments ü€😀" + "x" * 1000
    assert echo.metrics().sum("deflate_in_messages_total") > before + 10


@pytest.mark.parametrize("parameters", FACTORIES, ids=str)
def test_python_subscribes_and_publishes(echo, topic, parameters):
    with python(echo.ws("/ws"), **parameters) as socket:
        padding = "x" * 2000
        socket.send(json.dumps({"op": "subscribe", "id": 1, "topics": [topic], "x": padding}))
        assert json.loads(socket.recv(5))["op"] == "subscribed"
        with python(echo.publish_ws(f"/publish/{topic}?ack=1"), **parameters) as publisher:
            payloads = [{"n": n, "text": "ü" * n} for n in (0, 1, 100, 5000, 20_000)]
            for payload in payloads:
                publisher.send(json.dumps(payload, ensure_ascii=False))
                assert json.loads(publisher.recv(5))["op"] == "published"
            assert [json.loads(socket.recv(5))["data"] for _ in payloads] == payloads
        with python(echo.publish_ws("/publish?ack=1"), **parameters) as publisher:
            lines = "\n".join(json.dumps({"topic": topic, "data": n}) for n in range(500))
            for _ in range(2):
                publisher.send(lines)
                for _ in range(500):
                    assert json.loads(publisher.recv(5))["op"] == "published"
                received = [json.loads(socket.recv(5))["data"] for _ in range(500)]
                assert received == list(range(500))


def test_raw_publications_stay_what_they_are(echo, topic):
    with (
        python(echo.ws(f"/raw/{topic}")) as socket,
        python(echo.publish_ws(f"/publish/{topic}")) as publisher,
    ):
        for message in ["", "text", b"", b"\x00\xff" * 3000, "long " * 15_000]:
            publisher.send(message)
            assert socket.recv(5) == message


def test_node_echo_and_commands(echo, topic):
    with Node(echo.ws("/echo")) as node:
        assert "permessage-deflate" in node.next("open")["extensions"]
        for text in ["short", "compressible " * 4000, "ü€😀" * 500]:
            node.order(text=text)
            assert node.next("message")["data"] == text
        noise = base64.b64encode(os.urandom(5000)).decode()
        node.order(base64=noise)
        assert node.next("message") == {"event": "message", "binary": True, "data": noise}
        node.order(close=1000, reason="done")
        assert node.next("close")["code"] == 1000
    with Node(echo.ws("/ws"), "uringcast.v1.json") as node:
        node.next("open")
        topics = [f"{topic}.{number}" for number in range(500)]
        node.order(text=json.dumps({"op": "subscribe", "id": 1, "topics": topics}))
        assert len(node.message()["topics"]) == 500


# By hand.


@pytest.mark.parametrize("bits", range(8, 16))
def test_answers_fit_the_window_that_the_client_has(echo, bits):
    """The window of 256 bytes is not in zlib, which then would be a larger one for this check."""
    with Deflate(echo.address("data")) as wire:
        parameter = f"server_max_window_bits={bits}"
        wire.agree("/echo", f"permessage-deflate; {parameter}", f"{BOTH}; {parameter}")
        window = 1 << bits
        piece = os.urandom(window // 2 - 20)
        for length in [100, window - 1, window, window + 1, 2 * window]:
            message = (piece * 8 + b"tail" * 20)[:length]
            wire.send(frame(BINARY, message))
            opcode, compressed, payload = wire.message()
            assert opcode == BINARY
            if compressed:
                assert len(payload) < len(message)
                payload = inflated(payload, max(bits, 9))
            assert payload == message
        wire.send(frame(TEXT, "a" * 200))
        opcode, compressed, payload = wire.message()
        assert (opcode, compressed, inflated(payload)) == (TEXT, True, b"a" * 200)


def test_plain_and_compressed_messages_mix_and_nothing_is_taken_over(echo):
    with Deflate(echo.address("data")) as wire:
        wire.agree("/echo")
        text = b"the same text again and again and again"
        for _ in range(3):
            wire.send(frame(TEXT, text), frame(TEXT, deflated(text), reserved=RSV1))
            for _ in range(2):
                _, compressed, payload = wire.message()
                assert (inflated(payload) if compressed else payload) == text


def test_fragments_and_blocks_of_every_shape(echo):
    payload = deflated("Hello, Hello, Hello, Hello")
    finished = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"  # RFC 7692 section 7.2.3.4
    stored = b"\x00\x05\x00\xfa\xffHello\x00"
    with Deflate(echo.address("data")) as wire:
        wire.agree("/echo")
        for cut in range(len(payload) + 1):
            wire.send(
                frame(TEXT, payload[:cut], fin=False, reserved=RSV1),
                frame(PING),
                frame(CONTINUATION, b"", fin=False),
                frame(CONTINUATION, payload[cut:]),
            )
            opcode, _, _ = wire.message()
            assert opcode == 10
            _, compressed, answer = wire.message()
            assert (inflated(answer) if compressed else answer) == b"Hello, Hello, Hello, Hello"
        for other in [finished, stored, b"\x00", b""]:
            wire.send(frame(BINARY, other, reserved=RSV1))
            expected = b"Hello" if len(other) > 1 else b""
            assert wire.message() == (BINARY, False, expected)


BOMB = deflated(bytes(16 << 20))
INVALID = {
    "garbage": (frame(BINARY, b"\xff\xff\xff\xff", reserved=RSV1), 1007, "deflate"),
    "cut-off": (frame(TEXT, deflated("x" * 500)[:-2], reserved=RSV1), 1007, "deflate"),
    "tail-left-on": (
        frame(TEXT, deflated("x" * 50) + b"\x00\x00\xff\xff", reserved=RSV1),
        1007,
        "deflate",
    ),
    "something-behind": (
        frame(TEXT, b"\xf3\x48\xcd\xc9\xc9\x07\x00\xff\xff", reserved=RSV1),
        1007,
        "deflate",
    ),
    "too-far-back": (frame(TEXT, b"\xf2\x00\x11\x00\x00", reserved=RSV1), 1007, "deflate"),
    "bad-utf8": (frame(TEXT, deflated(b"ab\xffcd"), reserved=RSV1), 1007, "utf8"),
    "half-a-character": (frame(TEXT, deflated("€".encode()[:2]), reserved=RSV1), 1007, "utf8"),
    "bomb": (frame(BINARY, BOMB, reserved=RSV1), 1009, "too_big"),
    "continuation": (
        frame(TEXT, b"\xf2", fin=False, reserved=RSV1) + frame(CONTINUATION, reserved=RSV1),
        1002,
        "reserved_bits",
    ),
    "continuation-of-plain": (
        frame(TEXT, b"a", fin=False) + frame(CONTINUATION, reserved=RSV1),
        1002,
        "reserved_bits",
    ),
    "ping": (frame(PING, reserved=RSV1), 1002, "reserved_bits"),
    "close": (frame(CLOSE, close_payload(1000), reserved=RSV1), 1002, "reserved_bits"),
    "rsv2": (frame(TEXT, deflated("x"), reserved=RSV1 | 2), 1002, "reserved_bits"),
}


@pytest.mark.parametrize("name", INVALID)
@pytest.mark.parametrize("path", ["/echo", "/ws", "/publish", "/publish/a"])
@pytest.mark.usefixtures("undisturbed")
def test_what_is_wrong_is_answered_and_counted(echo, path, name):
    sent, code, kind = INVALID[name]
    rise = counted(echo, "offences_total", kind=kind)
    port = "publish" if path.startswith("/publish") else "data"
    with Deflate(echo.address(port)) as wire:
        # What comes after the offence is not understood any more.
        wire.agree(path).send(sent, frame(PING, b"still there?"))
        assert wire.closed() == code
        assert wire.at_end()
    wait_for(lambda: rise() == 1, "the offence to be counted")


@pytest.mark.usefixtures("undisturbed")
def test_without_agreement_the_bit_is_an_offence(echo):
    for offer in [None, "permessage-deflate; x"]:
        with Deflate(echo.address("data")) as wire:
            wire.agree("/echo", offer, None)
            wire.send(frame(TEXT, deflated("x"), reserved=RSV1))
            assert wire.closed() == 1002


def test_the_bound_is_that_of_the_message(echo):
    """However well or badly it compresses; and the bound is the same as for plain ones."""
    noise = random.Random(1).randbytes(MESSAGE_BYTES_MAX)
    with Deflate(echo.address("data")) as wire:
        wire.agree("/echo")
        for message in [bytes(MESSAGE_BYTES_MAX), noise]:
            payload = deflated(message)
            wire.send(frame(BINARY, payload, reserved=RSV1))
            _, compressed, answer = wire.message()
            assert (inflated(answer) if compressed else answer) == message
    for message in [bytes(MESSAGE_BYTES_MAX + 1), noise + b"x"]:
        for sent in [frame(BINARY, message), frame(BINARY, deflated(message), reserved=RSV1)]:
            with Deflate(echo.address("data")) as wire:
                wire.agree("/echo").send(sent)
                assert wire.closed() == 1009


@pytest.mark.usefixtures("undisturbed")
def test_many_bombs_cost_no_memory(echo):
    resident = echo.metrics().sum("process_resident_memory_bytes")
    for _ in range(30):
        with Deflate(echo.address("data")) as wire:
            wire.agree("/echo").send(frame(BINARY, BOMB, reserved=RSV1))
            assert wire.closed() == 1009
    assert echo.metrics().sum("process_resident_memory_bytes") < resident + (8 << 20)


@pytest.mark.usefixtures("undisturbed")
def test_random_bytes_as_compressed_messages(echo):
    """Every one is answered by an echo or a close, and the server lives."""
    dice = random.Random(2024)
    for _ in range(200):
        payload = bytearray(deflated(dice.choice(["", "abc" * 30, "x" * 3000])))
        for _ in range(dice.randrange(4)):
            payload[dice.randrange(len(payload))] = dice.randrange(256)
        with Deflate(echo.address("data")) as wire:
            wire.agree("/echo").send(frame(BINARY, bytes(payload), reserved=RSV1))
            opcode, _, body = wire.message()
            if opcode == CLOSE:
                assert int.from_bytes(body[:2], "big") in (1007, 1009)
