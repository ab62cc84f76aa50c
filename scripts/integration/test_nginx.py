"""Behind nginx: as an HTTP proxy with the usual Upgrade configuration, and as a TCP proxy that says
who its clients are in PROXY lines."""

import json
import time

import pytest
from websockets.exceptions import ConnectionClosed

from browser import Browser
from client import Json, dial, refused
from nginx import Nginx
from server import wait_for
from test_node import Node
from wire import CLOSE, TEXT, Wire, close_payload, frame, head

# Whoever could publish by address could publish here.
EVERYBODY = ("--publish-from", "127.0.0.0/8")


@pytest.fixture(params=["http", "stream"])
def both(request, start):
    """(server, nginx) of either kind."""
    stream = request.param == "stream"
    line = ("--proxy-protocol", "required") if stream else ()
    server = start("--trust-proxy", "127.0.0.1", "--echo", *line, *EVERYBODY, reactors=2)
    with Nginx(server.data, stream) as nginx:
        yield server, nginx


def reports(server):
    return server.get("/v1/connections").json()["connections"]


def test_python_through_nginx(both, topic):
    server, nginx = both
    options = {"compression": "deflate", "subprotocols": ["uringcast.v1.json"]}
    with Json(nginx.ws("/ws"), **options) as client:
        assert client.socket.subprotocol == "uringcast.v1.json"
        client.subscribe(topic, f"{topic}.*")
        for number in range(200):
            server.publish_now(topic, json.dumps({"n": number, "pad": "x" * 500}))
        assert [client.receive()["data"]["n"] for _ in range(200)] == list(range(200))
        large = "y" * 500_000
        server.publish_now(f"{topic}.large", json.dumps(large))
        assert client.receive()["data"] == large
        # Loopback is nginx's, not the client's.
        answer = client.ask("publish", topic=topic, data=1)
        assert (answer["op"], answer["code"]) == ("error", "forbidden")
        client.settled()


def test_whose_connections_they_are(both):
    server, nginx = both
    with dial(nginx.ws("/ws")) as client:
        host, port = client.local_address
        (report,) = reports(server)
        assert report["proxied"] is True and report["path"] == "/ws"
        # A header has no port.
        assert report["peer"] in (host, f"{host}:{port}")
    # What a client writes itself stands left of what nginx knows.
    with Wire(("127.0.0.1", nginx.port), source="127.0.0.2") as wire:
        wire.send(head("/raw/a", X_Forwarded_For="192.0.2.1", Forwarded="for=192.0.2.2"))
        assert wire.response()[0] == 101
        wait_for(lambda: [each["path"] for each in reports(server)] == ["/raw"], "the report")
        (report,) = reports(server)
        assert report["peer"].split(":")[0] == "127.0.0.2"


def nginx_is_http(server):
    return "--proxy-protocol" not in server.process.args


def test_echo_and_close_codes(both):
    server, nginx = both
    with dial(nginx.ws("/echo")) as client:
        for message in ("text", "ü€😀", bytes(range(256)) * 200, "x" * 60_000, ""):
            client.send(message)
            assert client.recv(5) == message
        assert client.ping().wait(5)
    for code in (1000, 1001, 3001, 4999):
        client = dial(nginx.ws("/echo")).__enter__()
        client.close(code, "reason")
        assert client.close_code == code
    for path, message, code in [
        ("/ws", b"x", 1003),
        ("/raw/a", "x", 1003),
        ("/ws", "x" * 70_000, 1009),
    ]:
        with dial(nginx.ws(path)) as client:
            client.send(message)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(5)
            assert closed.value.rcvd.code == code
    for path, status in (("/nothing", 404), ("/raw/a..b", 400)):
        assert refused(nginx.ws(path)) == status
    wait_for(lambda: not reports(server), "all to be gone")


def test_npm_ws_through_nginx(both, topic):
    server, nginx = both
    with Node(nginx.ws("/ws"), "uringcast.v1.json") as node:
        assert node.next("open")["protocol"] == "uringcast.v1.json"
        node.order(text=json.dumps({"op": "subscribe", "id": 1, "topics": [topic]}))
        assert node.message()["op"] == "subscribed"
        for number in range(50):
            server.publish_now(topic, str(number))
        assert [node.message()["data"] for _ in range(50)] == list(range(50))
        node.order(close=3001, reason="done")
        assert node.next("close")["code"] == 3001
    with Node(nginx.ws("/nothing")) as node:
        assert node.next("refused")["status"] == 404


def test_a_compression_offer_passes(both, topic):
    """Whatever is agreed upon without nginx is agreed upon through it."""
    server, nginx = both
    offer = "permessage-deflate; client_max_window_bits"
    if nginx_is_http(server):
        direct = server.address("data")
        with Wire(direct) as wire:
            wire.send(head("/ws", Sec_WebSocket_Extensions=offer))
            expected = wire.response()[1].get("sec-websocket-extensions")
        with Wire(("127.0.0.1", nginx.port)) as wire:
            wire.send(head("/ws", Sec_WebSocket_Extensions=offer))
            assert wire.response()[1].get("sec-websocket-extensions") == expected
    with Json(nginx.ws("/ws"), compression="deflate") as client:
        client.subscribe(topic)
        server.publish_now(topic, json.dumps("x" * 5_000))
        assert client.receive()["data"] == "x" * 5_000


def test_chromium_through_nginx(both, topic):
    server, nginx = both
    browser = Browser()
    try:
        # A page of nginx's own host: the Origin's port is not the server's.
        browser.open(f"http://{nginx.address}/healthz")
        browser.run(
            """
            window.got = [];
            const socket = new WebSocket(arguments[0], 'uringcast.v1.json');
            socket.onmessage = (event) => window.got.push(JSON.parse(event.data));
            socket.onclose = (event) => { window.code = event.code; };
            window.socket = socket;
            """,
            nginx.ws(f"/ws?topics={topic}"),
        )
        browser.wait("return window.got.length === 1", "the subscription")
        server.publish_now(topic, '"hello"')
        browser.wait("return window.got.length === 2", "the message")
        assert browser.run("return window.got[1].data") == "hello"
        assert any(each["proxied"] for each in reports(server))
        browser.run("window.socket.close(3007)")
        browser.wait("return window.code === 3007", "the close")
    finally:
        browser.close()


def test_the_other_usual_configuration(start):
    """`Connection: upgrade` for every request, without `Upgrade` where there is none."""
    server = start("--trust-proxy", "127.0.0.1")
    with Nginx(server.data) as nginx:
        with dial(nginx.ws("/plain/ws")) as client:
            client.send('{"op":"ping","id":1}')
            assert json.loads(client.recv(5))["op"] == "pong"
        for path in ("/plain/healthz", "/healthz"):
            with Wire(("127.0.0.1", nginx.port)) as wire:
                for _ in range(3):
                    wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    assert wire.response()[0] == 200


def test_kept_upstream_connections(start):
    """nginx sends many clients' plain requests over one connection."""
    server = start("--trust-proxy", "127.0.0.1")
    with Nginx(server.data) as nginx:
        for _ in range(20):
            with Wire(("127.0.0.1", nginx.kept_port)) as wire:
                for path, status in (("/healthz", 200), ("/no", 404), ("/ws", 426)):
                    wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    assert wire.response()[0] == status
        assert server.metrics().sum("accepted_total") < 5


def test_the_limit_by_address_behind_nginx(start):
    server = start("--trust-proxy", "127.0.0.1", "--connections-per-address-max", "2")
    with Nginx(server.data) as nginx:
        wires = []
        for client, status in [("127.0.0.2", 101)] * 2 + [("127.0.0.2", 429), ("127.0.0.3", 101)]:
            wire = Wire(("127.0.0.1", nginx.port), source=client)
            wires.append(wire.send(head("/raw/a")))
            assert wire.response()[0] == status
        for wire in wires:
            wire.socket.close()
        wait_for(lambda: not reports(server), "all to be gone")


def test_the_end_of_the_server_reaches_the_clients(both):
    server, nginx = both
    with Wire(("127.0.0.1", nginx.port)) as wire:
        wire.send(head("/ws"))
        assert wire.response()[0] == 101
        server.signal()
        opcode, payload = wire.message()
        assert opcode == TEXT and b"goaway" in payload
        opcode, payload = wire.message()
        assert (opcode, payload[:2]) == (CLOSE, close_payload(1001))
        wire.send(frame(CLOSE, payload))
    began = time.monotonic()
    assert server.wait() == 0
    assert time.monotonic() - began < 6
