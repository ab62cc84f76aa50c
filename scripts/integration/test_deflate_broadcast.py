"""Broadcasts to subscribers that agreed on permessage-deflate: compressed once, the same for all.

Knows: what each subscriber is sent, and what the server counts. Must not know: DEFLATE.
"""

import contextlib
import json
import random
import resource
import socket
from pathlib import Path

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from client import Json, dial
from server import wait_for
from wire import head

# A busy machine looks like overload, and then nothing is compressed.
CALM = ("--overload-rotation", "10s")
HELPER_BYTES = 16 << 10  # Longer messages are compressed by the helper thread.


@pytest.fixture
def clients():
    """Opens clients that are closed at the end."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def offer(window=None):
    """Options of a client that offers it, with this window or its usual one."""
    factory = ClientPerMessageDeflateFactory(server_max_window_bits=window)
    return {"compression": None, "extensions": [factory]}


def rows(number, size):
    """JSON of exactly this size, as repetitive as market data."""
    noise = random.Random(number)
    row = lambda: f'{{"price":"{noise.randrange(10**6)}","quantity":"0.001"}}'  # noqa: E731
    text = f'{{"n":{number},"rows":['
    while len(text) + 60 < size:
        text += row() + ","
    text += "0]"
    return text + " " * (size - len(text) - 1) + "}"


def compressed(metrics):
    """Publications compressed, and the bytes of their messages."""
    name = "deflate_broadcast_bytes_total"
    return (
        metrics.sum("deflate_broadcast_publications_total"),
        metrics.sum(name, stage="before"),
        metrics.sum(name, stage="after"),
    )


@pytest.mark.parametrize("reactors", [1, 2])
def test_everyone_is_sent_the_same_in_order(start, clients, topic, reactors):
    server = start(*CALM, reactors=reactors)
    sizes = [60, 300, 1_000, 9_000, 20_000, 100, 70_000, 200, 300_000, 90, 1_000_000, 80, 5_000]
    payloads = [rows(number, size) for number, size in enumerate(sizes)]
    noise = random.Random(1)
    payloads.insert(5, noise.randbytes(40_000))
    payloads.insert(9, noise.randbytes(3_000))
    payloads += [rows(100 + number, 100 + 977 * number % 40_000) for number in range(40)]
    windows = [None, 9, 12, 15]
    options = [{}] + [offer(window) for window in windows]
    raws = [clients(dial(server.ws(f"/raw/{topic}"), **each)) for each in options]
    options = [{}] + [offer(window) for window in windows]
    jsons = [clients(Json(server.ws("/ws"), **each)) for each in options]
    for client in jsons:
        client.subscribe(topic)
    with dial(server.publish_ws(f"/publish/{topic}")) as publisher:
        for payload in payloads:
            publisher.send(payload)
        for client in raws:
            assert [client.recv(20) for _ in payloads] == payloads
        for client in jsons:
            messages = [client.receive(20) for _ in payloads]
            assert [each["seq"] for each in messages] == list(range(1, len(payloads) + 1))
            for message, payload in zip(messages, payloads, strict=True):
                if isinstance(payload, str):
                    assert message["data"] == json.loads(payload)
                else:
                    assert "data_base64" in message
    metrics = server.metrics()
    assert metrics.sum("deflate_helper_total") >= 1
    assert metrics.sum("deflate_held") == 0
    # What comes too fast goes plain.
    skipped = metrics.sum("deflate_broadcast_skipped_total")
    assert compressed(metrics)[0] >= 5
    assert compressed(metrics)[0] + skipped >= 45
    assert metrics.sum("publications_total") == len(payloads)


@pytest.mark.parametrize("size", [1_000, 2 * HELPER_BYTES], ids=["inline", "helper"])
def test_a_publication_is_compressed_once_however_many_want_it(start, clients, topic, size):
    server = start(*CALM, reactors=2)
    options = [offer() for _ in range(40)] + [{}] * 10
    everyone = [clients(dial(server.ws(f"/raw/{topic}"), **each)) for each in options]
    payloads = [rows(number, size) for number in range(20)]
    for payload in payloads:
        server.publish_now(topic, payload)
    for client in everyone:
        assert [client.recv(10) for _ in payloads] == payloads
    publications, before, after = compressed(server.metrics())
    assert (publications, before) == (20, 20 * size)
    assert after < before / 2
    sent = server.metrics().sum("sent_bytes_total")
    assert sent < 50 * 20 * (after / 20 + 500) + 10 * 20 * size


def test_windows_that_reach_over_the_message_share_one_result(start, clients, topic):
    server = start(*CALM)
    path = server.ws(f"/raw/{topic}")
    everyone = [clients(dial(path, **offer(window))) for window in (11, 12, 13, 15)]
    payload = rows(1, 2_000)
    server.publish_now(topic, payload)
    assert [client.recv(5) for client in everyone] == [payload] * 4
    assert compressed(server.metrics())[1] == 2_000
    # A smaller one has its own.
    everyone.append(clients(dial(path, **offer(9))))
    server.publish_now(topic, payload)
    assert [client.recv(5) for client in everyone] == [payload] * 5
    assert compressed(server.metrics())[1] == 2_000 + 2 * 2_000


def test_short_messages_go_plain(start, topic):
    server = start(*CALM, "--deflate-min-bytes", "500")
    with dial(server.ws(f"/raw/{topic}"), **offer()) as client:
        for size, expected in [(499, 0), (500, 1)]:
            payload = rows(1, size)
            server.publish_now(topic, payload)
            assert client.recv(5) == payload
            assert compressed(server.metrics())[0] == expected


def test_topics_that_nobody_wants_compressed_are_not(start, topic):
    server = start(*CALM, reactors=2)
    with dial(server.ws(f"/raw/{topic}"), **offer()) as deflated, dial(server.ws("/raw/p.*")) as _:
        for number in range(20):
            server.publish_now(f"p.{number}", rows(number, 1_000))
        # Names are told apart by a part of their hash.
        assert compressed(server.metrics())[0] <= 2
        server.publish_now(topic, rows(1, 1_000))
        assert deflated.recv(5) == rows(1, 1_000)
        assert compressed(server.metrics())[0] >= 1
    with dial(server.ws(f"/raw/{topic}")) as plain:
        wait_for(lambda: server.metrics().sum("subscribers") == 1, "the others to be gone")
        before = compressed(server.metrics())
        server.publish_now(topic, rows(2, 1_000))
        assert plain.recv(5) == rows(2, 1_000)
        assert compressed(server.metrics()) == before


def test_switched_off_nothing_is_agreed_to(start, topic):
    server = start("--deflate", "off")
    with dial(server.ws(f"/raw/{topic}"), **offer()) as client:
        for size in (1_000, 2 * HELPER_BYTES):
            server.publish_now(topic, rows(1, size))
            assert client.recv(5) == rows(1, size)
    assert compressed(server.metrics()) == (0, 0, 0)


def resident_bytes(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def idle_bytes(server, topic, fields):
    """Resident memory per idle subscriber, from 500 on."""
    sockets, resident = [], []
    for count in (500, 3_500):
        while len(sockets) < count:
            sockets.append(socket.create_connection(server.address("data")))
            sockets[-1].sendall(head(f"/raw/{topic}", **fields))
            answer = sockets[-1].recv(4_096)
            assert answer.startswith(b"HTTP/1.1 101 "), answer
            assert (b"permessage-deflate" in answer) == bool(fields)
        wait_for(lambda: server.metrics().sum("subscribers") == len(sockets), "all to sit")
        # One publication, so that all that compressing needs is there.
        server.publish_now(topic, rows(1, 1_000))
        for each in sockets:
            # A ping may come before it: however rare they are, it is somebody's turn.
            while len(received := each.recv(4_096)) == 2:
                assert received == b"\x89\0"
            assert len(received) > 100
        resident.append(resident_bytes(server))
    for each in sockets:
        each.close()
    return (resident[1] - resident[0]) / 3_000


def test_a_compressed_subscriber_takes_no_more_memory(start, topic, monkeypatch):
    # In pages of 2 MiB, which the allocator asks for, memory grows by 699 B a subscriber or not.
    monkeypatch.setenv("MIMALLOC_ALLOW_THP", "0")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8_000:
        pytest.skip("RLIMIT_NOFILE is too low for thousands of connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 8_000), hard))
    quiet = (*CALM, "--ping-interval", "1h")
    plain = idle_bytes(start(*quiet), topic, {})
    deflated = idle_bytes(start(*quiet), topic, {"Sec_WebSocket_Extensions": "permessage-deflate"})
    print(f"{plain:.0f} B plain, {deflated:.0f} B compressed")
    assert deflated - plain <= 64
