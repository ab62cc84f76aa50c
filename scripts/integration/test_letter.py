"""RFC 6455 to the letter, where Autobahn's suite does not look: frames that come slowly or in
single bytes, peers that half close, go on after a Close, never answer one, or read nothing."""

import random
import socket
import struct
import threading
import time
from collections import Counter

import pytest

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


@pytest.fixture(params=[1, 2], ids=["1-reactor", "2-reactors"])
def echo(request, start):
    return start("--echo", "--message-bytes-max", "1MiB", reactors=request.param)


def undelayed(wire):
    """Each send is a segment of its own."""
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return wire


def in_bytes(wire, data, pause_s=0.0):
    for at in range(len(data)):
        wire.send(data[at : at + 1])
        time.sleep(pause_s)


def closed_abnormally(server):
    return server.metrics().sum("closed_total", code="1006", reason="no_close_frame")


# Bytes that take their time.


def test_a_whole_conversation_in_segments_of_one_byte(echo):
    long = random.Random(17).randbytes(70_000)
    sent = b"".join(
        [
            head("/echo"),
            frame(TEXT, "grüß"),
            frame(PING, "one"),
            frame(TEXT, "", fin=False),
            frame(CONTINUATION, "ä".encode()[:1], fin=False),
            frame(PING, "two"),
            frame(CONTINUATION, "ä".encode()[1:]),
            frame(BINARY, long[:200]),
            frame(PONG, "unasked"),
            # A key of zeros is a key (the bytes of key and payload are those of zeros and payload).
            bytes([0x82, 0x83, 0, 0, 0, 0]) + b"abc",
        ]
    )
    with undelayed(Wire(echo.address("data"))) as wire:
        in_bytes(wire, sent)
        assert wire.response()[0] == 101
        assert wire.message() == (TEXT, "grüß".encode())
        assert wire.message() == (PONG, b"one")
        # The pong may not wait for the message's end.
        assert wire.message() == (PONG, b"two")
        assert wire.message() == (TEXT, "ä".encode())
        assert wire.message() == (BINARY, long[:200])
        assert wire.message() == (BINARY, b"abc")
        # The longest form of a length, its header byte by byte.
        large = frame(BINARY, long)
        in_bytes(wire, large[:20])
        wire.send(large[20:])
        assert wire.message() == (BINARY, long)
        in_bytes(wire, frame(CLOSE, close_payload(3001, "tschüß".encode())))
        assert wire.closed() == 3001
        assert wire.at_end()


def test_a_slow_message_with_pings_between_its_fragments(start):
    """Seconds for one message: each byte is a sign of life, each ping is answered at once."""
    server = start("--echo", "--ping-interval", "1s", "--pong-timeout", "500ms")
    parts = [b'{"slow', b"", "äöü€".encode()[:4], "äöü€".encode()[4:], b'er"}']
    with undelayed(Wire(server.address("data"))).upgrade("/echo") as wire:
        began, asked = time.monotonic(), 0
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            piece = frame(CONTINUATION if number else TEXT, part, fin=last)
            in_bytes(wire, piece, 0.08)
            if last:
                break
            payload = str(number).encode()
            wire.send(frame(PING, payload))
            while True:
                fin, opcode, got = wire.frame(pings=True)
                assert fin
                if opcode == PONG:
                    assert got == payload
                    break
                # Never answered: what comes of the message is life enough.
                assert opcode == PING
                asked += 1
        while True:
            fin, opcode, got = wire.frame(pings=True)
            if opcode != PING:
                break
            asked += 1
        assert (fin, opcode, got) == (True, TEXT, b"".join(parts))
        assert time.monotonic() - began > 3
        assert asked >= 2
        wire.send(frame(CLOSE, close_payload(1000)))
        assert wire.closed() == 1000


# Half-closed peers.


@pytest.mark.parametrize("path", ["/ws", "/raw/a", "/publish/a"])
def test_fin_right_after_a_close(server, path):
    """The answer comes all the same, and the connection was closed in order."""
    port = "publish" if path.startswith("/publish") else "data"
    before = closed_abnormally(server)
    with Wire(server.address(port)).upgrade(path) as wire:
        wire.send(frame(CLOSE, close_payload(1000, b"done")))
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.closed() == 1000
        assert wire.at_end()
    assert closed_abnormally(server) == before


UNFINISHED = {
    "between frames": b"",
    "half a header": frame(TEXT, "x" * 300)[:3],
    "half a key": frame(TEXT, "x")[:4],
    "half a payload": frame(TEXT, "x" * 300)[:100],
    "half a ping": frame(PING, "x" * 100)[:50],
    "half a close": frame(CLOSE, close_payload(1000))[:7],
    "between fragments": frame(TEXT, "{", fin=False),
}


@pytest.mark.parametrize("name", UNFINISHED)
@pytest.mark.parametrize("path", ["/ws", "/raw/a", "/publish/a"])
def test_fin_without_a_close(server, path, name):
    """Half a frame is no frame: 1006, no Close from us, and the place is free."""
    port = "publish" if path.startswith("/publish") else "data"
    before = closed_abnormally(server)
    connections = server.metrics().sum("connections")
    with Wire(server.address(port)).upgrade(path) as wire:
        wire.send(frame(PING, "before"), UNFINISHED[name])
        assert wire.frame() == (True, PONG, b"before")
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.at_end()
        wait_for(lambda: closed_abnormally(server) == before + 1, "the count")
        wait_for(lambda: server.metrics().sum("connections") == connections, "its place")


def test_fin_instead_of_the_answer_to_our_close(server):
    """Ours went out and theirs will not come: over at once, not after five seconds."""
    with Wire(server.address("data")).upgrade("/raw/a") as wire:
        wire.send(frame(TEXT, "this endpoint takes none"))
        assert wire.closed() == 1003
        began = time.monotonic()
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.at_end()
        assert time.monotonic() - began < 2


# After a Close.


@pytest.mark.parametrize("pause_s", [0, 0.05])
def test_data_after_the_peers_own_close_is_not_looked_at(server, counted, topic, pause_s):
    with Wire(server.address("publish")).upgrade(f"/publish/{topic}?ack=1") as wire:
        wire.send(frame(TEXT, '"counts"'))
        assert wire.message()[0] == TEXT
        wire.send(frame(CLOSE, close_payload(1000)))
        time.sleep(pause_s)
        try:
            for _ in range(20):
                wire.send(frame(TEXT, '"does not"'), frame(3, "x"), frame(PING, "anyone?"))
                time.sleep(pause_s / 10)
        except (BrokenPipeError, ConnectionResetError):
            pass
        # Our answer, and nothing behind it.
        assert wire.message() == (CLOSE, close_payload(1000))
        assert wire.at_end()
    assert server.get(f"/v1/topics/{topic}").json()["seq"] == 1
    assert counted("offences_total") == 0


def test_what_comes_after_our_close_is_not_answered(server, counted):
    """A peer may have sent before it saw our Close; that is no offence, and gets no answer."""
    with Wire(server.address("data")).upgrade("/raw/a") as wire:
        wire.send(frame(TEXT, "this endpoint takes none"))
        assert wire.message()[0] == CLOSE
        wire.send(frame(TEXT, "still"), frame(PING, "there?"), frame(TEXT, "half", fin=False))
        time.sleep(0.05)
        wire.send(frame(CONTINUATION, ""), frame(CLOSE, close_payload(1003)))
        assert wire.at_end()
    assert counted("closed_total", reason="unsupported") == 1
    assert counted("closed_total", by="server") == 1
    assert counted("offences_total") == 0


def test_who_never_answers_our_close_is_closed_after_five_seconds(server, counted):
    with Wire(server.address("data")).upgrade("/raw/a") as wire:
        wire.send(frame(TEXT, "this endpoint takes none"))
        assert wire.closed() == 1003
        began = time.monotonic()
        # Signs of life are no answer.
        while time.monotonic() - began < 3:
            wire.send(frame(PING, "still there"))
            time.sleep(0.2)
        assert wire.at_end()
        assert 4.5 < time.monotonic() - began < 8
    assert counted("close_timeouts_total") == 1


# What no frame may be.


NOT_IN_A_MESSAGE = {
    **{f"opcode-{n}": (frame(n, "x"), "opcode") for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"unfinished-opcode-{n}": (frame(n, "x", fin=False), "opcode") for n in (3, 7)},
    **{
        f"{name}-rsv{4 - bit.bit_length()}": (frame(opcode, "x", reserved=bit), "reserved_bits")
        for name, opcode in (("continuation", CONTINUATION), ("ping", PING), ("pong", PONG))
        for bit in (1, 2, 4)
    },
    "close-rsv1": (frame(CLOSE, close_payload(1000), reserved=4), "reserved_bits"),
    "text": (frame(TEXT, "x"), "fragmentation"),
    "binary": (frame(BINARY, "x"), "fragmentation"),
    "unfinished-text": (frame(TEXT, "x", fin=False), "fragmentation"),
    "unmasked": (frame(CONTINUATION, "x", mask=False), "unmasked"),
    "unmasked-pong": (frame(PONG, "x", mask=False), "unmasked"),
    "unmasked-close": (frame(CLOSE, close_payload(1000), mask=False), "unmasked"),
}


@pytest.mark.parametrize(("path", "port"), [("/ws", "data"), ("/publish/a", "publish")])
def test_offences_between_fragments(server, counted, path, port):
    """The state of a message is no cover for a wrong frame."""
    wires = {name: Wire(server.address(port)).upgrade(path) for name in NOT_IN_A_MESSAGE}
    for name, wire in wires.items():
        offence, _ = NOT_IN_A_MESSAGE[name]
        wire.send(frame(TEXT, '{"op":', fin=False), frame(CONTINUATION, '"ping"', fin=False))
        wire.send(frame(PING, name), offence, frame(CONTINUATION, "}"))
    for name, wire in wires.items():
        # What stands before the offence is answered, what stands behind it is not.
        assert wire.frame() == (True, PONG, name.encode())
        assert (name, wire.closed()) == (name, 1002)
        assert wire.at_end()
        wire.socket.close()
    for kind, count in Counter(kind for _, kind in NOT_IN_A_MESSAGE.values()).items():
        assert counted("offences_total", kind=kind) == count, kind
    assert counted("offences_total") == len(NOT_IN_A_MESSAGE)


LEGAL = [*range(1000, 1004), *range(1007, 1015), 3000, 3001, 3999, 4000, 4001, 4500, 4998, 4999]
ILLEGAL = [
    *(0, 1, 100, 255, 256, 998, 999, 1004, 1005, 1006, 1015, 1016, 1017, 1100, 1999, 2000, 2500),
    *(2998, 2999, 5000, 5001, 9999, 32767, 32768, 65534, 65535),
]


def closes_with(server, codes):
    """What each code is answered with, all asked at one time."""
    wires = [Wire(server.address("data")).upgrade("/raw/a") for _ in codes]
    for wire, code in zip(wires, codes, strict=True):
        wire.send(frame(CLOSE, close_payload(code)))
    answers = [wire.closed() for wire in wires]
    for wire in wires:
        assert wire.at_end()
        wire.socket.close()
    return answers


def test_close_codes_that_may_be_sent_are_answered_with_themselves(server, counted):
    assert closes_with(server, LEGAL) == LEGAL
    # All but 1000 and 1001, which have counters of their own.
    assert counted("closed_total", by="peer", reason="other") == len(LEGAL) - 2
    assert counted("offences_total") == 0


def test_close_codes_that_may_not_be_sent_are_offences(server, counted):
    assert closes_with(server, ILLEGAL) == [1002] * len(ILLEGAL)
    assert counted("offences_total", kind="close_frame") == len(ILLEGAL)


REASONS = {
    "longest": (b"x" * 123, 1000),
    "longest-of-many-bytes": (("€" * 41).encode(), 1000),
    "nul": (b"\0", 1000),
    "cut": ("€".encode()[:2], 1007),
    "surrogate": (b"\xed\xa0\x80", 1007),
    "overlong": (b"\xc0\x80", 1007),
    "beyond-unicode": (b"\xf4\x90\x80\x80", 1007),
    "wrong-at-the-end": (b"x" * 122 + b"\xff", 1007),
    "too-long": (b"x" * 124, 1002),
}


@pytest.mark.parametrize("name", REASONS)
def test_close_reasons(server, name):
    reason, code = REASONS[name]
    with Wire(server.address("data")).upgrade("/ws") as wire:
        wire.send(frame(CLOSE, close_payload(1000, reason)))
        assert wire.closed() == code
        assert wire.at_end()


def test_the_limit_of_a_message_is_exact(start):
    """Fragments add up, control frames between them don't."""
    server = start("--echo", "--message-bytes-max", "1000")
    within = [
        [frame(BINARY, b"x" * 1000)],
        [frame(BINARY, b"", fin=False), frame(CONTINUATION, b"x" * 1000)],
        [
            frame(BINARY, b"x" * 600, fin=False),
            frame(PING, b"y" * 125),
            frame(CONTINUATION, b"x" * 400, fin=False),
            frame(CONTINUATION, b""),
        ],
    ]
    beyond = [
        [frame(BINARY, b"x" * 1001)],
        [frame(BINARY, b"x" * 1000, fin=False), frame(CONTINUATION, b"x")],
        [frame(BINARY, b"x" * 600, fin=False), frame(CONTINUATION, b"x" * 401, fin=False)],
    ]
    with Wire(server.address("data")).upgrade("/echo") as wire:
        for parts in within:
            wire.send(*parts)
            got = wire.message()
            while got[0] == PONG:
                got = wire.message()
            assert got == (BINARY, b"x" * 1000)
    for parts in beyond:
        with Wire(server.address("data")).upgrade("/echo") as wire:
            wire.send(*parts)
            assert wire.closed() == 1009
            assert wire.at_end()


# Who reads nothing.


@pytest.mark.parametrize("path", ["/ws", "/publish/a", "/echo"])
def test_a_flood_of_pings_by_who_reads_no_pongs(start, path):
    """It is read no further, so that what is owed to it stays small; and once it reads, no pong was
    lost or came out of order."""
    server = start("--echo", "--send-buffer", "16KiB", "--ping-interval", "60s")
    port = "publish" if path.startswith("/publish") else "data"
    resident = server.metrics().sum("process_resident_memory_bytes")
    bytes_max = 64 << 20
    with Wire(server.address(port), receive_buffer=4096).upgrade(path) as wire:
        wire.socket.settimeout(1)
        sent, rest = 0, b""
        try:
            while sent * 131 < bytes_max:
                rest = b"".join(
                    frame(PING, struct.pack("!I", number) + b"x" * 121)
                    for number in range(sent, sent + 500)
                )
                while rest:
                    rest = rest[wire.socket.send(rest) :]
                sent += 500
        except TimeoutError:
            sent += 500
        assert sent * 131 < bytes_max, "it is read for ever"
        grown = server.metrics().sum("process_resident_memory_bytes") - resident
        assert grown < 8 << 20
        # Others are served meanwhile.
        with Wire(server.address("data")).upgrade("/ws") as other:
            other.send(frame(PING, "alive?"))
            assert other.frame() == (True, PONG, b"alive?")
        wire.socket.settimeout(20)
        sender = threading.Thread(target=wire.socket.sendall, args=[rest])
        sender.start()
        for number in range(sent):
            fin, opcode, payload = wire.frame()
            assert (fin, opcode) == (True, PONG)
            assert payload == struct.pack("!I", number) + b"x" * 121
        sender.join()
        wire.send(frame(CLOSE, close_payload(1000)))
        assert wire.closed() == 1000


def test_who_floods_and_never_reads_does_not_stay(start):
    """It can't be pinged, since nothing of ours reaches it; the kernel's patience decides."""
    server = start("--send-buffer", "16KiB", "--user-timeout", "2s")
    with Wire(server.address("data"), receive_buffer=4096).upgrade("/ws") as wire:
        wire.socket.settimeout(0.5)
        flood = frame(PING, b"x" * 125) * 500_000
        with pytest.raises((TimeoutError, ConnectionResetError, BrokenPipeError)):
            wire.socket.sendall(flood)
        wait_for(
            lambda: server.metrics().sum("connections") == 0, "its place to be free", timeout_s=15
        )
