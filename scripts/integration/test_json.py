"""/ws: the JSON protocol, over the Python client."""

import asyncio
import base64
import json
import re
import time

import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed

from client import Json, dial, refused
from server import wait_for


def test_subscribe_publish_receive(server, topic):
    before_us = time.time() * 1e6
    with Json(server.ws("/ws")) as client:
        (ack,) = client.subscribe(topic)
        assert ack == {"topic": topic, "kind": "event"}
        placed = server.publish_now(topic, '{"price": 1.50}')
        message = client.receive()
        assert message["topic"] == topic and message["data"] == {"price": 1.5}
        assert message["seq"] == placed["seq"] == 1
        assert before_us - 2e6 < message["ts"] < time.time() * 1e6 + 2e6
        assert re.fullmatch(r"[0-9a-f]{16}", placed["epoch"])


def test_payloads_keep_their_bytes(server, topic):
    payload = '{"b": 1,  "a":1e400, "n":123456789012345678901234567890}'
    with Json(server.ws("/ws")) as client:
        client.subscribe(topic)
        server.publish_now(topic, payload)
        text = client.socket.recv(5)
        assert text.endswith(f'"data":{payload}}}'), text


def test_payloads_by_content(server, topic):
    with Json(server.ws("/ws")) as client:
        client.subscribe(f"{topic}.>")
        assert server.post(f"{topic}.text", 'a\n"é', content_type="text/plain").status == 200
        assert client.receive()["data"] == 'a\n"é'
        binary = bytes(range(256))
        octets = "application/octet-stream"
        assert server.post(f"{topic}.binary", binary, content_type=octets).status == 200
        message = client.receive()
        assert base64.b64decode(message["data_base64"]) == binary and "data" not in message
        assert server.post(f"{topic}.auto", "not json").status == 200
        assert client.receive()["data"] == "not json"
        assert server.post(f"{topic}.auto2", b"\xff").status == 200
        assert client.receive()["data_base64"] == "/w=="
        bad = server.post(f"{topic}.json", "{", content_type="application/json")
        assert (bad.status, bad.code()) == (400, "payload_invalid")
        client.settled()


def test_ids_are_echoed(server):
    with Json(server.ws("/ws")) as client:
        for number in (0, 1, 2**53 - 1, "", 'a"b', "x" * 36):
            client.send(op="ping", id=number)
            answer = client.receive()
            assert answer["op"] == "pong" and answer["id"] == number
        client.send(op="ping")
        assert set(client.receive()) == {"op", "ts"}
        for number in (2**53, -1, 1.5, "x" * 37, True, [1]):
            client.send(op="ping", id=number)
            answer = client.receive()
            assert answer["op"] == "error" and answer["code"] == "bad_request"
            assert "id" not in answer


@pytest.mark.parametrize(
    ("text", "code", "number"),
    [
        ("", "bad_request", None),
        ("x", "bad_request", None),
        ("[]", "bad_request", None),
        ('{"op":"ping"', "bad_request", None),
        ('{"op":"ping","op":"ping"}', "bad_request", None),
        ('{"id":1}', "bad_request", 1),
        ('{"op":7,"id":1}', "bad_request", 1),
        ('{"op":"nonsense","id":1}', "op_unknown", 1),
        ('{"op":"subscribe","id":"q"}', "bad_request", "q"),
        ('{"op":"subscribe","id":1,"topics":"a"}', "bad_request", 1),
        ('{"op":"subscribe","id":1,"topics":[1]}', "bad_request", 1),
        ('{"op":"subscribe","id":1,"topics":["a"],"snapshot":1}', "bad_request", 1),
        ('{"op":"subscribe","id":1,"topics":["a"],"sample_ms":0}', "bad_request", 1),
        ('{"op":"subscribe","id":1,"topics":["a"],"resume":[]}', "bad_request", 1),
        ('{"op":"unsubscribe","id":1}', "bad_request", 1),
        ('{"op":"publish","id":1,"topic":"a.b","data":1}', "forbidden", 1),
        ('{"op":"auth","id":1,"token":"x"}', "forbidden", 1),
        (json.dumps({"op": "subscribe", "id": 1, "topics": ["a"] * 1025}), "limit", 1),
    ],
)
def test_errors(server, counted, text, code, number):
    with Json(server.ws("/ws")) as client:
        client.socket.send(text)
        answer = client.receive()
        assert answer["op"] == "error" and answer["code"] == code and answer.get("id") == number
        assert answer["message"] and answer["retry"] is False
        # An error is an answer: the connection goes on.
        client.settled()


def test_a_wrong_command_is_counted(server, counted):
    with Json(server.ws("/ws")) as client:
        client.socket.send("x")
        client.receive()
    assert counted("offences_total", kind="command") == 1


def test_each_topic_is_answered_for_itself(server, topic):
    long, longest = topic + ".x" * 200, "x" * 255
    wrong = [
        "",
        ".",
        "a..b",
        ".a",
        "a.",
        "a b",
        "a/b",
        "ä",
        "a.>.b",
        ">.a",
        "a*",
        "*a.b",
        long[:256],
    ]
    right = [topic, f"{topic}.*", f"*.{topic}.>", ">", longest]
    with Json(server.ws("/ws")) as client:
        acks = client.subscribe(*wrong, *right)
        assert [ack["topic"] for ack in acks] == wrong + right
        assert [ack.get("error") for ack in acks] == ["topic_invalid"] * len(wrong) + [None] * 5
        assert sorted(each["topic"] for each in client.list()) == sorted(right)


def test_subscribing_twice_delivers_once(server, topic):
    with Json(server.ws("/ws")) as client:
        client.subscribe(topic, topic)
        client.subscribe(topic, f"{topic}", "t.*")
        server.publish_now(topic, "1")
        assert client.receive()["data"] == 1
        client.settled()
        assert sorted(each["topic"] for each in client.list()) == sorted([topic, "t.*"])


def test_patterns(server, topic):
    matches = {
        f"{topic}.*": ["a", "b"],
        f"{topic}.>": ["a", "a.x", "a.y", "b", "b.x"],
        f"{topic}.*.x": ["a.x", "b.x"],
        f"{topic}.a.*": ["a.x", "a.y"],
        f"{topic}.a.x": ["a.x"],
    }
    clients = {pattern: Json(server.ws("/ws")) for pattern in matches}
    try:
        for pattern, client in clients.items():
            (ack,) = client.subscribe(pattern)
            assert ack["topic"] == pattern and "error" not in ack
        for name in ["a", "a.x", "a.y", "b", "b.x"]:
            server.publish_now(f"{topic}.{name}", "0")
        for pattern, client in clients.items():
            # Each message says its topic, not the pattern; order holds per topic only.
            got = [client.receive()["topic"] for _ in matches[pattern]]
            assert sorted(got) == [f"{topic}.{name}" for name in matches[pattern]], pattern
            client.settled()
    finally:
        for client in clients.values():
            client.close()


def test_a_pattern_has_a_kind_where_it_is_one_for_all(start):
    server = start("--topic", "md.*.bookTicker:kind=value")
    with Json(server.ws("/ws")) as client:
        acks = client.subscribe("md.*.bookTicker", "md.>", "md.X.bookTicker", "md.X.trade")
        assert [ack.get("kind") for ack in acks] == ["value", None, "value", "event"]


def test_unsubscribe(server, topic):
    with Json(server.ws("/ws")) as client:
        client.subscribe(topic, f"{topic}.*")
        acks = client.unsubscribe(topic, "never.asked", "a..b", topic)
        assert [ack.get("error") for ack in acks] == [
            None,
            "not_subscribed",
            "topic_invalid",
            "not_subscribed",
        ]
        server.publish_now(topic, "1")
        server.publish_now(f"{topic}.x", "2")
        assert client.receive()["data"] == 2
        client.settled()
        assert [each["topic"] for each in client.list()] == [f"{topic}.*"]
        client.unsubscribe(f"{topic}.*")
        assert client.list() == []
        server.publish_now(f"{topic}.x", "3")
        client.settled()


def test_the_terms_say_where_the_topic_is(server, topic):
    placed = server.publish_now(topic, "1")
    placed = server.publish_now(topic, "2")
    with Json(server.ws("/ws")) as client:
        (ack,) = client.subscribe(topic)
        assert ack["seq"] == placed["seq"] == 2 and ack["epoch"] == placed["epoch"]
        server.publish_now(topic, "3")
        assert client.receive()["seq"] == 3
        (each,) = client.list()
        assert each["seq"] == 3 and each["epoch"] == placed["epoch"]


def test_a_snapshot_comes_after_the_ack_and_before_live(server, topic):
    server.publish_now(f"{topic}.a", '"old"')
    server.publish_now(f"{topic}.a", '"last"')
    server.publish_now(f"{topic}.b", '"only"')
    with Json(server.ws("/ws")) as client:
        client.subscribe(f"{topic}.a", f"{topic}.none", snapshot=True)
        first = client.receive()
        assert (first["seq"], first["data"], first["snapshot"]) == (2, "last", True)
        client.settled()
        client.subscribe(f"{topic}.>", snapshot=True)
        both = {client.receive()["data"] for _ in range(2)}
        assert both == {"last", "only"}
        server.publish_now(f"{topic}.a", '"live"')
        live = client.receive()
        assert live["data"] == "live" and "snapshot" not in live


def test_resume_is_answered_honestly(server, topic):
    server.publish_now(topic, "1")
    with Json(server.ws("/ws")) as client:
        (ack,) = client.subscribe(topic, resume={topic: {"epoch": "0" * 16, "seq": 0}})
        assert ack["recovered"] is False


def test_topics_in_the_query(server, topic):
    with Json(server.ws(f"/ws?topics={topic}.a,{topic}.*.x,a..b&hello=1")) as client:
        hello = client.receive()
        assert hello["op"] == "hello" and hello["connection"]
        assert hello["ping_interval_ms"] == 25_000
        assert hello["limits"]["message_bytes_max"] == 65_536
        assert hello["limits"]["subscriptions_max"] == 1_024
        acks = client.receive()
        assert acks["op"] == "subscribed" and "id" not in acks
        names = [(each["topic"], each.get("error")) for each in acks["topics"]]
        assert names == [(f"{topic}.a", None), (f"{topic}.*.x", None), ("a..b", "topic_invalid")]
        server.publish_now(f"{topic}.b.x", "1")
        assert client.receive()["topic"] == f"{topic}.b.x"


def test_heartbeats(server):
    with Json(server.ws("/ws?heartbeat_ms=100")) as client:
        began = time.monotonic()
        beats = [client.receive() for _ in range(4)]
        took = time.monotonic() - began
        assert all(each["op"] == "heartbeat" and each["ts"] > 0 for each in beats)
        assert 0.3 < took < 2
    for wrong in ("x", "0", "-1", "99", "3600001", "1.5"):
        assert refused(server.ws(f"/ws?heartbeat_ms={wrong}")) == 400


def test_subprotocol(server):
    chosen = "uringcast.v1.json"
    for offered, answered in [
        ([chosen], chosen),
        (["other", chosen], chosen),
        (["other"], None),
        (None, None),
    ]:
        with dial(server.ws("/ws"), subprotocols=offered) as socket:
            assert socket.subprotocol == answered


def test_commands_are_text(server):
    with dial(server.ws("/ws")) as socket:
        socket.send(b'{"op":"ping"}')
        with pytest.raises(ConnectionClosed):
            socket.recv(5)
        assert socket.close_code == 1003


def test_publishing_on_the_data_port_is_a_right(start, topic):
    server = start("--publish-from", "127.0.0.0/8", reactors=2)
    with Json(server.ws("/ws")) as client, Json(server.ws("/ws")) as other:
        other.subscribe(f"{topic}.>")
        client.send(op="publish", id="p", topic=f"{topic}.a", data={"x": [1]})
        answer = client.receive()
        assert answer["op"] == "published" and answer["id"] == "p"
        assert answer["topic"] == f"{topic}.a" and answer["seq"] == 1
        assert other.receive()["data"] == {"x": [1]}
        client.send(op="publish", id=1, topic=f"{topic}.a", data_base64="AP8=", pub_seq=7)
        assert client.receive()["seq"] == 2
        assert other.receive()["data_base64"] == "AP8="
        client.send(op="publish", id=2, topic=f"{topic}.a", data=1, pub_seq=7)
        again = client.receive()
        assert again["duplicate"] is True and again["seq"] == 2
        for fields, code in [
            ({"topic": f"{topic}.*", "data": 1}, "topic_invalid"),
            ({"topic": topic}, "bad_request"),
            ({"data": 1}, "bad_request"),
            ({"topic": topic, "data": 1, "data_base64": ""}, "bad_request"),
            ({"topic": topic, "data_base64": "?"}, "payload_invalid"),
            ({"topic": topic, "data": 1, "pub_seq": -1}, "bad_request"),
        ]:
            answer = client.ask("publish", **fields)
            assert answer["op"] == "error" and answer["code"] == code, fields
        other.settled()
    # Whoever comes through a proxy or from a page is not who the address says.
    for headers in (
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"X-Real-IP": "10.0.0.1"},
        {"Via": "1.1 proxy"},
    ):
        with Json(server.ws("/ws"), additional_headers=headers) as client:
            assert client.ask("publish", topic=topic, data=1)["code"] == "forbidden"
    with Json(server.ws("/ws"), origin="http://127.0.0.1") as client:
        assert client.ask("publish", topic=topic, data=1)["code"] == "forbidden"


def test_publishing_from_elsewhere_is_forbidden(start, topic):
    server = start("--publish-from", "10.0.0.0/8")
    with Json(server.ws("/ws")) as client:
        assert client.ask("publish", topic=topic, data=1)["code"] == "forbidden"


def test_subscriptions_limit(start, topic):
    server = start("--subscriptions-max", "3")
    with Json(server.ws("/ws")) as client:
        acks = client.subscribe(*(f"{topic}.{n}" for n in range(5)))
        assert [ack.get("error") for ack in acks] == [None, None, None, "limit", "limit"]
        assert len(client.list()) == 3
        # What is subscribed to already costs nothing more.
        assert "error" not in client.subscribe(f"{topic}.0")[0]
        client.unsubscribe(f"{topic}.0")
        assert "error" not in client.subscribe(f"{topic}.4")[0]
    assert refused(server.ws("/ws?topics=a,b,c,d")) == 400


def test_topics_limit(start):
    server = start("--topics-max", "2")
    assert server.post("a", "1").status == 200
    assert server.post("b", "1").status == 200
    third = server.post("c", "1")
    assert (third.status, third.code()) == (507, "limit")
    assert server.post("a", "2").json()["seq"] == 2
    assert server.request("DELETE", "/v1/topics/a").status == 200
    assert server.post("c", "1").status == 200


def test_patterns_limit(start):
    server = start("--patterns-max", "2")
    with Json(server.ws("/ws")) as client:
        acks = client.subscribe("a.*", "b.*", "c.*", "c.d")
        assert [ack.get("error") for ack in acks] == [None, None, "limit", None]
        client.unsubscribe("a.*")
        assert "error" not in client.subscribe("c.*")[0]


def test_subscribing_creates_no_topic(server, topic):
    with Json(server.ws("/ws")) as client:
        client.subscribe(topic)
        assert server.get(f"/v1/topics/{topic}").status == 404


def test_many_clients_with_asyncio(server, topic):
    """200 asyncio clients, each with an interest of its own beside the common one."""
    clients, messages = 200, 20

    async def one(index, ready, start):
        options = {"proxy": None, "compression": None}
        async with connect_async(server.ws("/ws"), **options) as socket:
            topics = [f"{topic}.all", f"{topic}.own.{index}"]
            await socket.send(json.dumps({"op": "subscribe", "topics": topics}))
            assert json.loads(await socket.recv())["op"] == "subscribed"
            ready.append(index)
            await start.wait()
            got = [json.loads(await socket.recv()) for _ in range(messages + 1)]
            common = [each["seq"] for each in got if each["topic"] == topics[0]]
            assert common == list(range(1, messages + 1))
            own = [each["data"] for each in got if each["topic"] == topics[1]]
            assert own == [index]

    async def everyone():
        ready, start = [], asyncio.Event()
        tasks = [asyncio.create_task(one(index, ready, start)) for index in range(clients)]
        while len(ready) < clients and not any(task.done() for task in tasks):
            await asyncio.sleep(0.01)

        def publish():
            lines = [{"topic": f"{topic}.all", "data": n} for n in range(messages)]
            lines += [{"topic": f"{topic}.own.{n}", "data": n} for n in range(clients)]
            body = "\n".join(map(json.dumps, lines)).encode()
            return server.request("POST", "/v1/publish", body)

        start.set()
        answer = await asyncio.to_thread(publish)
        assert answer.status == 200
        await asyncio.wait_for(asyncio.gather(*tasks), 30)

    asyncio.run(everyone())
    wait_for(lambda: server.metrics().sum("subscribers") == 0, "all of them to be gone")
