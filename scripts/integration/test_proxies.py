"""Who a client is, by the word of proxies: believed from trusted ones, and from nobody else."""

import struct

import pytest

from client import Json
from server import wait_for
from wire import TEXT, Wire, frame, head

TRUST = ("--trust-proxy", "127.0.0.1")
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 443\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command, family, block):
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(block)) + block


V4 = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 4242, 443)
LINE_V2 = v2(1, 0x11, V4 + b"\x20\0\x05\x01\0\0\0\0")
LOCAL = v2(0, 0, b"")


def own(wire):
    host, port = wire.socket.getsockname()
    return f"{host}:{port}"


def peers(server):
    return [
        (each["peer"], each["proxied"])
        for each in server.get("/v1/connections").json()["connections"]
    ]


def publishes(wire):
    """Whether it may publish."""
    wire.send(frame(TEXT, '{"op":"publish","id":1,"topic":"a","data":1}'))
    answer = wire.message()[1]
    assert b'"published"' in answer or b'"forbidden"' in answer, answer
    return b'"published"' in answer


@pytest.mark.parametrize(
    ("flags", "fields", "peer"),
    [
        ((), {"X_Forwarded_For": "192.0.2.7"}, "192.0.2.7"),
        ((), {"X_Forwarded_For": "10.1.1.1, 192.0.2.7:99, 127.0.0.1"}, "192.0.2.7:99"),
        ((), {"X_Forwarded_For": "2001:db8::7"}, "2001:db8::7"),
        ((), {"X_Forwarded_For": "x", "Forwarded": "for=192.0.2.7"}, None),
        ((), {"Forwarded": "for=192.0.2.7"}, None),
        ((), {}, None),
        (
            ("--proxy-header", "forwarded"),
            {"X_Forwarded_For": "192.0.2.9", "Forwarded": 'for=x, for="[2001:db8::7]:99"'},
            "[2001:db8::7]:99",
        ),
        (("--proxy-header", "forwarded"), {"Forwarded": 'for="192.0.2.7'}, None),
    ],
)
def test_a_trusted_proxys_header_names_the_client(start, flags, fields, peer):
    server = start(*TRUST, *flags)
    with Wire(server.address("data")).upgrade("/raw/a", **fields) as wire:
        assert peers(server) == [(peer or own(wire), peer is not None)]


def test_others_headers_name_nobody(start):
    server = start("--trust-proxy", "10.0.0.0/8", "--publish-from", "0.0.0.0/0")
    with Wire(server.address("data")).upgrade("/ws", X_Forwarded_For="192.0.2.7") as wire:
        assert peers(server) == [(own(wire), False)]
        assert not publishes(wire)


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        ({"X_Forwarded_For": "192.0.2.7"}, True),
        ({"X_Forwarded_For": "192.0.3.7"}, False),
        # What the client wrote itself.
        ({"X_Forwarded_For": "192.0.2.7, 192.0.3.7"}, False),
        # Loopback's rights are never to be had through a proxy.
        ({"X_Forwarded_For": "127.0.0.1"}, False),
        ({"X_Forwarded_For": "::1"}, False),
        ({"X_Forwarded_For": "::ffff:127.0.0.2"}, False),
        # A proxy that names nobody.
        ({}, False),
        ({"Via": "1.1 x"}, False),
        ({"Forwarded": "for=192.0.2.7"}, False),
        ({"X_Forwarded_For": "192.0.2.7", "Origin": "http://127.0.0.1"}, False),
    ],
)
def test_rights_follow_the_client(start, fields, may):
    server = start(*TRUST, "--publish-from", "127.0.0.0/8", "--publish-from", "192.0.2.0/24")
    with Wire(server.address("data")).upgrade("/ws", **fields) as wire:
        assert publishes(wire) is may


@pytest.mark.parametrize("line", [LINE, LINE_V2], ids=["v1", "v2"])
def test_proxy_lines(start, line):
    server = start(
        *TRUST, "--proxy-protocol", "required", "--publish-from", "192.0.2.0/24", reactors=2
    )
    request = line + head("/ws") + frame(TEXT, '{"op":"ping","id":1}')
    for size in (1, 10, len(line), len(request)):
        with Wire(server.address("data")) as wire:
            for at in range(0, len(request), size):
                wire.send(request[at : at + size])
            assert wire.response()[0] == 101
            assert wire.message()[1].startswith(b'{"op":"pong","id":1,')
            assert peers(server) == [("192.0.2.7:4242", True)]
            assert publishes(wire)
        wait_for(lambda: not peers(server), "it to be gone")
    # A header behind it is the client's own.
    with Wire(server.address("data")).send(line) as wire:
        wire.upgrade("/ws", X_Forwarded_For="192.0.2.8")
        assert peers(server) == [("192.0.2.7:4242", True)]
        assert not publishes(wire)


def test_a_proxy_line_that_names_nobody(start):
    server = start(*TRUST, "--proxy-protocol", "required", "--publish-from", "127.0.0.0/8")
    loopback = b"PROXY TCP4 127.0.0.9 127.0.0.1 1 2\r\n"
    for line in (LOCAL, b"PROXY UNKNOWN\r\n", v2(1, 0x31, b"x" * 216), loopback):
        with Wire(server.address("data")).send(line) as wire:
            assert not publishes(wire.upgrade("/ws"))
        # And of a health check.
        with Wire(server.address("data")).send(line) as wire:
            wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert wire.response()[0] == 200


def test_a_proxy_behind_a_proxy(start):
    server = start(*TRUST, "--trust-proxy", "192.0.2.7", "--proxy-protocol", "required")
    with Wire(server.address("data")).send(LINE) as wire:
        wire.upgrade("/raw/a", X_Forwarded_For="203.0.113.1")
        assert peers(server) == [("203.0.113.1", True)]


@pytest.mark.parametrize(
    ("flags", "bytes_", "status"),
    [
        (("--proxy-protocol", "required"), head("/ws"), 400),
        (("--proxy-protocol", "required"), b"PROXY TCP4 nonsense\r\n", 400),
        (("--proxy-protocol", "required"), b"PROXY UNKNOWN " + b"x" * 100, 400),
        (("--proxy-protocol", "required"), SIGNATURE + b"\x21\x11\0\x04abcd", 400),
        (("--proxy-protocol", "required"), SIGNATURE + b"\x21\x11\xff\xff", 400),
        (("--proxy-protocol", "required"), LINE + LINE + head("/ws"), 400),
        (("--proxy-protocol", "required"), LINE + LINE_V2 + head("/ws"), 400),
        (("--proxy-protocol", "optional"), head("/ws"), 101),
        (("--proxy-protocol", "optional"), LINE + head("/ws"), 101),
        ((), LINE + head("/ws"), 400),
        ((), LINE_V2 + head("/ws"), 400),
    ],
)
def test_where_proxy_lines_are_taken(start, flags, bytes_, status):
    server = start(*TRUST, *flags)
    with Wire(server.address("data")) as wire:
        assert wire.send(bytes_).response()[0] == status
    # Nor does a stranger get to say one, or the publish port listen to it.
    if status == 101 and bytes_.startswith(LINE):
        stranger = start("--trust-proxy", "192.0.2.0/24", *flags)
        for port in (stranger.address("data"), server.address("publish")):
            with Wire(port) as wire:
                status, _, body = wire.send(bytes_).response()
                assert status == 400 and b"PROXY line" in body
                assert wire.at_end()


def test_the_limit_by_address_is_the_clients(start):
    server = start(*TRUST, "--connections-per-address-max", "2")

    def dial(client):
        return Wire(server.address("data")).send(head("/raw/a", X_Forwarded_For=client))

    wires = [dial("192.0.2.7"), dial("192.0.2.7"), dial("192.0.2.8"), dial("2001:db8::1")]
    wires += [dial("2001:db8::2")]
    for wire in wires:
        assert wire.response()[0] == 101
    for client in ("192.0.2.7", "2001:db8::3"):
        with dial(client) as wire:
            assert wire.response()[0] == 429
            assert wire.at_end()
    # The proxy's own connection goes from client to client.
    with Wire(server.address("data")) as wire:
        for client, status in (("192.0.2.8", 200), ("192.0.2.9", 200), ("192.0.2.7", 429)):
            wire.send(
                b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %b\r\n\r\n" % client.encode()
            )
            assert wire.response()[0] == status
        assert wire.at_end()
    for wire in wires:
        wire.socket.close()
    wait_for(lambda: server.metrics().sum("connections") == 0, "all to be gone")
    with dial("192.0.2.7") as wire:
        assert wire.response()[0] == 101


def test_lines_and_the_limit_by_address(start):
    server = start(*TRUST, "--proxy-protocol", "required", "--connections-per-address-max", "1")
    with Wire(server.address("data")).send(LINE).upgrade("/raw/a"):
        with Wire(server.address("data")).send(LINE, head("/raw/a")) as second:
            assert second.response()[0] == 429
        with Wire(server.address("data")).send(LINE.replace(b".7", b".8")) as other:
            other.upgrade("/raw/a")


def test_the_log_names_the_client(start):
    server = start(*TRUST, "--log-level", "debug")
    with Wire(server.address("data")).upgrade("/raw/a", X_Forwarded_For="192.0.2.7"):
        pass
    with Wire(server.address("data")) as wire:
        assert wire.send(head("/no", X_Forwarded_For="192.0.2.8")).response()[0] == 404
    wait_for(lambda: "192.0.2.7" in server.stderr() and "192.0.2.8" in server.stderr(), "the lines")


def test_a_json_client_with_a_forwarding_header(start):
    server = start(*TRUST)
    headers = {"X-Forwarded-For": "192.0.2.7"}
    with Json(server.ws("/ws"), additional_headers=headers) as client:
        client.subscribe("a")
        server.publish_now("a", "1")
        assert client.receive()["data"] == 1
        assert peers(server) == [("192.0.2.7", True)]
