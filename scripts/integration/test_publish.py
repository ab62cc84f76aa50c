"""The publish port and /raw: payloads in, the same payloads out."""

import base64
import json
import random

import pytest
from websockets.exceptions import ConnectionClosed

from client import Json, dial, refused


def test_raw_is_verbatim(server, topic):
    payloads = [
        "",
        "text",
        '{"a": 1}',
        b"",
        b"\x00\xff",
        "é€😀",
        b"x" * 125,
        b"x" * 126,
        "x" * 65536,
    ]
    with (
        dial(server.ws(f"/raw/{topic}")) as raw,
        dial(server.publish_ws(f"/publish/{topic}?ack=1")) as publisher,
    ):
        for seq, payload in enumerate(payloads, 1):
            publisher.send(payload)
            ack = json.loads(publisher.recv(5))
            assert ack["op"] == "published" and ack["topic"] == topic and ack["seq"] == seq
            got = raw.recv(5)
            assert type(got) is type(payload) and got == payload


def test_raw_of_a_pattern(server, topic):
    with dial(server.ws(f"/raw/{topic}.%3E")) as raw, dial(server.ws(f"/raw/{topic}.*")) as star:
        for name in ("a", "a.b", "c"):
            server.publish_now(f"{topic}.{name}", f'"{name}"')
        assert sorted(raw.recv(5) for _ in range(3)) == ['"a"', '"a.b"', '"c"']
        assert sorted(star.recv(5) for _ in range(2)) == ['"a"', '"c"']


def test_raw_takes_no_messages(server, topic):
    with dial(server.ws(f"/raw/{topic}")) as raw:
        raw.send("hello")
        with pytest.raises(ConnectionClosed):
            raw.recv(5)
        assert raw.close_code == 1003


def test_raw_of_no_topic(server):
    for path in (
        "/raw/a..b",
        "/raw/",
        "/raw/a%20b",
        "/raw/%C3%A4",
        "/raw/a%2Fb",
        "/raw/" + "x" * 256,
    ):
        assert refused(server.ws(path)) == 400, path
    assert refused(server.ws("/raw")) == 404


def test_without_acks_nothing_is_answered(server, topic):
    with (
        dial(server.ws(f"/raw/{topic}")) as raw,
        dial(server.publish_ws(f"/publish/{topic}")) as publisher,
    ):
        for number in range(100):
            publisher.send(str(number))
        assert [raw.recv(5) for _ in range(100)] == [str(number) for number in range(100)]
        with pytest.raises(TimeoutError):
            publisher.recv(0.1)


def test_order_of_two_publishers(server, topic):
    """Each publisher's own order holds, and all subscribers see one order."""
    with (
        dial(server.publish_ws(f"/publish/{topic}?ack=1")) as one,
        dial(server.publish_ws(f"/publish/{topic}?ack=1")) as two,
        Json(server.ws("/ws")) as first,
        Json(server.ws("/ws")) as second,
    ):
        first.subscribe(topic)
        second.subscribe(topic)
        for number in range(200):
            one.send(json.dumps(["one", number]))
            two.send(json.dumps(["two", number]))
        seen = [[client.receive() for _ in range(400)] for client in (first, second)]
        acks = [json.loads(each.recv(5))["seq"] for each in (one, two) for _ in range(200)]
    assert [each["seq"] for each in seen[0]] == list(range(1, 401))
    assert [each["data"] for each in seen[0]] == [each["data"] for each in seen[1]]
    for name in ("one", "two"):
        assert [n for who, n in (each["data"] for each in seen[0]) if who == name] == list(
            range(200)
        )
    assert sorted(acks) == list(range(1, 401))
    assert acks[:200] == sorted(acks[:200]) and acks[200:] == sorted(acks[200:])


def test_lines(server, topic):
    with dial(server.publish_ws("/publish?ack=1")) as publisher, Json(server.ws("/ws")) as client:
        client.subscribe(f"{topic}.>")
        lines = [
            {"topic": f"{topic}.a", "data": {"n": 1}},
            {"topic": f"{topic}.b", "data_base64": base64.b64encode(b"\xff").decode()},
            {"topic": f"{topic}.a", "data": None, "pub_seq": 5},
        ]
        publisher.send("\n".join(map(json.dumps, lines)) + "\n\n")
        acks = [json.loads(publisher.recv(5)) for _ in lines]
        assert sorted((ack["topic"], ack["seq"]) for ack in acks) == [
            (f"{topic}.a", 1),
            (f"{topic}.a", 2),
            (f"{topic}.b", 1),
        ]
        got = [client.receive() for _ in lines]
        assert [each["data"] for each in got if each["topic"].endswith(".a")] == [{"n": 1}, None]
        assert [each["data_base64"] for each in got if each["topic"].endswith(".b")] == ["/w=="]


def test_a_wrong_line_is_told_and_the_others_go_on(server, topic, counted):
    wrong = ["x", "[]", "{}", '{"topic":"a"}', '{"topic":"a..b","data":1}', '{"data":1}']
    wrong += ['{"topic":"a","data":1,"pub_seq":"x"}', '{"topic":"a","data_base64":"?"}']
    # Told whether acknowledgements are wanted or not.
    for query in ("", "?ack=1"):
        with (
            dial(server.publish_ws(f"/publish{query}")) as publisher,
            dial(server.ws(f"/raw/{topic}")) as raw,
        ):
            good = json.dumps({"topic": topic, "data": 1})
            publisher.send("\n".join([*wrong, good]))
            answers = [json.loads(publisher.recv(5)) for _ in wrong]
            assert all(each["op"] == "error" for each in answers)
            codes = [each["code"] for each in answers]
            assert codes[4] == "topic_invalid" and codes[0] == "bad_request", codes
            assert raw.recv(5) == "1"
    assert counted("publications_refused_total", reason="invalid") == 2 * len(wrong)


def test_pub_seq_repeats_are_duplicates(server, topic, counted):
    def line(pub_seq, data=0):
        return json.dumps({"topic": topic, "data": data, "pub_seq": pub_seq})

    with (
        dial(server.publish_ws("/publish?ack=1")) as publisher,
        dial(server.ws(f"/raw/{topic}")) as raw,
    ):
        outcomes = []
        for pub_seq in (10, 11, 11, 3, 20, 20, 21):
            publisher.send(line(pub_seq, pub_seq))
            ack = json.loads(publisher.recv(5))
            assert ack["op"] == "published"
            outcomes.append((ack["seq"], ack.get("duplicate", False)))
        assert outcomes == [
            (1, False),
            (2, False),
            (2, True),
            (2, True),
            (3, False),
            (3, True),
            (4, False),
        ]
        assert [raw.recv(5) for _ in range(4)] == ["10", "11", "20", "21"]
    # The same rule over HTTP, for the same topic.
    again = server.post(topic, "21", "?pub_seq=21")
    assert again.json()["duplicate"] is True and again.json()["seq"] == 4
    assert server.post(topic, "22", "?pub_seq=22").json()["seq"] == 5
    assert counted("publications_refused_total", reason="duplicate") == 4


def test_snapshots_are_refused_until_there_are_delta_topics(server, topic):
    with dial(server.publish_ws("/publish")) as publisher:
        publisher.send(json.dumps({"topic": topic, "data": 1, "pub_seq": 1, "snapshot": True}))
        assert json.loads(publisher.recv(5))["op"] == "error"
    assert server.post(topic, "1", "?snapshot=1&pub_seq=1").status in (400, 501)
    assert server.get(f"/v1/topics/{topic}").status == 404


@pytest.mark.parametrize("port", ["data", "publish"])
def test_each_path_is_on_its_port_only(server, port):
    paths = {
        "data": ["/publish", "/publish/a", "/echo", "/", "/nothing", "/wsx", "/metrics"],
        "publish": ["/ws", "/raw/a", "/echo", "/", "/publishing", "/metrics"],
    }
    url = {"data": server.ws, "publish": server.publish_ws}[port]
    for path in paths[port]:
        assert refused(url(path)) == 404, path


def test_publish_port_topics_are_names(server):
    for path in ("/publish/a.*", "/publish/a..b", "/publish/", "/publish/%3E"):
        assert refused(server.publish_ws(path)) == 400, path


def test_the_publish_port_refuses_pages_and_proxies(server, topic, counted):
    url = server.publish_ws(f"/publish/{topic}")
    assert refused(url, origin="http://127.0.0.1") == 403
    assert refused(url, origin="null") == 403
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        assert refused(url, additional_headers={name: "10.0.0.1"}) == 403, name
    assert counted("handshakes_total", result="403") == 6


def test_content_rules(start):
    server = start(
        *("--topic", "j.>:content=json"),
        *("--topic", "x.>:content=text"),
        *("--topic", "b.>:content=binary"),
        reactors=2,
    )
    with Json(server.ws("/ws")) as client:
        client.subscribe("j.a", "x.a", "b.a")
        for topic, payload, content_type, status in [
            ("j.a", "{}", None, 200),
            ("j.a", "{}", "application/octet-stream", 200),
            ("j.a", "no", None, 400),
            ("x.a", "{}", None, 200),
            ("x.a", b"\xff", None, 400),
            ("b.a", "{}", None, 200),
        ]:
            assert server.post(topic, payload, "", content_type).status == status
        got = [client.receive() for _ in range(4)]
        assert [each["data"] for each in got if each["topic"] == "j.a"] == [{}, {}]
        assert [each["data"] for each in got if each["topic"] == "x.a"] == ["{}"]
        assert [each["data_base64"] for each in got if each["topic"] == "b.a"] == ["e30="]
        with dial(server.publish_ws("/publish/j.a?ack=1")) as publisher:
            publisher.send("no")
            answer = json.loads(publisher.recv(5))
            assert (answer["op"], answer["code"]) == ("error", "payload_invalid")
            publisher.send(b"[1]")
            assert json.loads(publisher.recv(5))["op"] == "published"
            assert client.receive()["data"] == [1]


@pytest.mark.parametrize("size", [8191, 8192, 65_535, 65_536, 300_000, 1_048_576])
def test_large_messages(server, topic, size):
    payload = random.Random(size).randbytes(size)
    text = json.dumps("x" * (size - 2))
    with (
        dial(server.publish_ws(f"/publish/{topic}?ack=1")) as publisher,
        dial(server.ws(f"/raw/{topic}")) as raw,
        Json(server.ws("/ws")) as client,
    ):
        client.subscribe(topic)
        for _ in range(3):
            publisher.send(payload)
            assert json.loads(publisher.recv(10))["op"] == "published"
            assert raw.recv(10) == payload
            assert base64.b64decode(client.receive(10)["data_base64"]) == payload
        publisher.send(text)
        assert raw.recv(10) == text
        assert client.receive(10)["data"] == text[1:-1]


def test_many_large_messages_keep_their_order(server, topic):
    """64 MiB through three subscribers, sizes mixed."""
    random_ = random.Random(7)
    sizes = [random_.choice([1, 100, 8_000, 9_000, 70_000, 1_000_000]) for _ in range(300)]
    total = 0
    with (
        dial(server.publish_ws(f"/publish/{topic}?ack=1")) as publisher,
        dial(server.ws(f"/raw/{topic}")) as raw,
    ):
        for number, size in enumerate(sizes):
            message = number.to_bytes(4, "big") + bytes([number % 256]) * size
            publisher.send(message)
            publisher.recv(10)
            got = raw.recv(10)
            assert got == message, (number, size, len(got))
            total += size
    assert total > 32 << 20


def test_fragments_in_are_one_message_out(server, topic):
    with (
        dial(server.publish_ws(f"/publish/{topic}")) as publisher,
        dial(server.ws(f"/raw/{topic}")) as raw,
    ):
        publisher.send(["a", "b" * 70_000, "", "ü"])
        assert raw.recv(5) == "a" + "b" * 70_000 + "ü"
        publisher.send([b"", b"\x01", b"\x02" * 9_000])
        assert raw.recv(5) == b"\x01" + b"\x02" * 9_000


def test_too_large_for_a_publisher(start):
    server = start("--publish-bytes-max", "10000")
    with dial(server.publish_ws("/publish/a?ack=1")) as publisher:
        publisher.send("x" * 10_000)
        assert json.loads(publisher.recv(5))["op"] == "published"
        publisher.send("x" * 10_001)
        with pytest.raises(ConnectionClosed):
            publisher.recv(5)
        assert publisher.close_code == 1009
    answer = server.post("a", "x" * 10_001)
    assert (answer.status, answer.code()) == (413, "payload_too_large")
    assert server.post("a", "x" * 10_000).status == 200
    assert server.metrics().sum("closed_total", code="1009") == 1


def test_too_large_for_a_client(server, counted):
    with Json(server.ws("/ws")) as client:
        client.send(op="ping", pad="x" * 65_000)
        assert client.receive()["op"] == "pong"
        client.send(op="ping", pad="x" * 65_536)
        with pytest.raises(ConnectionClosed):
            client.receive()
        assert client.socket.close_code == 1009
    assert counted("offences_total", kind="too_big") == 1
    assert counted("closed_total", code="1009") == 1


def test_echo_is_there_only_if_asked_for(start, server):
    assert refused(server.ws("/echo")) == 404
    echo = start("--echo")
    with dial(echo.ws("/echo")) as socket:
        for message in ("", "ü", b"\x00", "x" * 65_536, b"y" * 65_536):
            socket.send(message)
            assert socket.recv(5) == message
        socket.send(["a", "b", "c"])
        assert socket.recv(5) == "abc"
        assert socket.ping(b"hello").wait(5)
