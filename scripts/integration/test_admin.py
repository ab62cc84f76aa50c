"""The admin port: HTTP API and metrics."""

import json
import socket

import pytest

from client import Json, dial
from server import Metrics, wait_for


def test_health_on_both_ports(server):
    assert server.get("/healthz").body == b"ok\n"
    assert server.get("/readyz").status == 200
    with socket.create_connection(server.address("data"), 5) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while more := plain.recv(4096):
            answer += more
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nok\n")
    assert b"Connection: close\r\n" in answer


def test_publish_and_look(server, topic):
    answer = server.post(topic, '{"a":1}', content_type="application/json")
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/json"
    placed = answer.json()
    assert set(placed) == {"topic", "epoch", "seq"} and placed["topic"] == topic
    report = server.get(f"/v1/topics/{topic}").json()
    assert report["topic"] == topic and report["kind"] == "event"
    assert (report["seq"], report["epoch"]) == (1, placed["epoch"])
    assert report["last_bytes"] == 7 and report["subscribers"] == 0
    with Json(server.ws("/ws")) as one, Json(server.ws("/ws")) as two:
        one.subscribe(topic)
        two.subscribe(topic)
        assert server.get(f"/v1/topics/{topic}").json()["subscribers"] == 2


def test_delete_makes_a_new_epoch(server, topic):
    first = server.publish_now(topic, "1")
    assert server.request("DELETE", f"/v1/topics/{topic}").json() == {
        "topic": topic,
        "deleted": True,
    }
    assert server.get(f"/v1/topics/{topic}").status == 404
    gone = server.request("DELETE", f"/v1/topics/{topic}")
    assert (gone.status, gone.code()) == (404, "not_found")
    second = server.publish_now(topic, "1")
    assert second["seq"] == 1 and second["epoch"] != first["epoch"]


def test_a_subscription_outlives_its_topic(server, topic):
    with Json(server.ws("/ws")) as client:
        client.subscribe(topic)
        server.publish_now(topic, "1")
        assert client.receive()["data"] == 1
        server.request("DELETE", f"/v1/topics/{topic}")
        server.publish_now(topic, "2")
        message = client.receive()
        assert (message["data"], message["seq"]) == (2, 1)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/topics/a..b", 400, "topic_invalid"),
        ("POST", "/v1/topics/a.*", 400, "topic_invalid"),
        ("POST", "/v1/topics/%3E", 400, "topic_invalid"),
        ("POST", "/v1/topics/%FF", 400, None),
        ("POST", "/v1/topics/a?pub_seq=x", 400, "bad_request"),
        ("POST", "/v1/topics/a?pub_sec=1", 400, "bad_request"),
        ("GET", "/v1/topics?limit=0", 400, "bad_request"),
        ("GET", "/v1/topics?limit=100000", 400, "bad_request"),
        ("GET", "/v1/connections?sort=age", 400, "bad_request"),
        ("GET", "/v1/topics/never.published", 404, "not_found"),
        ("DELETE", "/v1/topics/never.published", 404, "not_found"),
        ("GET", "/v1/nothing", 404, None),
        ("GET", "/nothing", 404, None),
        ("PUT", "/v1/topics/a", 405, None),
        ("GET", "/v1/publish", 405, None),
        ("POST", "/metrics", 405, None),
    ],
)
def test_errors(server, method, path, status, code):
    answer = server.request(method, path, b"1" if method in ("POST", "PUT") else None)
    assert answer.status == status, answer.body
    if code:
        assert answer.code() == code and answer.json()["error"]["message"]


def test_lines(server, topic):
    lines = [
        json.dumps({"topic": f"{topic}.a", "data": {"n": 1}, "pub_seq": 1}),
        "nonsense",
        "",
        json.dumps({"topic": f"{topic}.a", "data": 2, "pub_seq": 1}),
        json.dumps({"topic": f"{topic}..", "data": 2}),
        json.dumps({"topic": f"{topic}.b", "data_base64": "AA=="}),
    ]
    with Json(server.ws("/ws")) as client:
        client.subscribe(f"{topic}.>")
        answer = server.request("POST", "/v1/publish", "\n".join(lines).encode())
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        outcomes = [json.loads(line) for line in answer.body.splitlines()]
        assert outcomes[0]["seq"] == 1 and "duplicate" not in outcomes[0]
        assert outcomes[1]["line"] == 2 and outcomes[1]["error"]["code"] == "bad_request"
        assert outcomes[2]["duplicate"] is True and outcomes[2]["seq"] == 1
        assert outcomes[3]["line"] == 4 and outcomes[3]["error"]["code"] == "topic_invalid"
        assert outcomes[4]["topic"] == f"{topic}.b" and len(outcomes) == 5
        assert {client.receive()["topic"] for _ in range(2)} == {f"{topic}.a", f"{topic}.b"}
        client.settled()


def test_ten_thousand_lines(server, topic):
    lines = b"\n".join(b'{"topic":"%s","data":%d}' % (topic.encode(), n) for n in range(10_000))
    with dial(server.ws(f"/raw/{topic}")) as raw:
        answer = server.request("POST", "/v1/publish", lines)
        assert answer.status == 200
        assert [json.loads(line)["seq"] for line in answer.body.splitlines()] == list(
            range(1, 10_001)
        )
        assert [raw.recv(5) for _ in range(10_000)] == [str(n) for n in range(10_000)]
    more = server.request("POST", "/v1/publish", lines + b'\n{"topic":"a","data":1}')
    assert (more.status, more.code()) == (413, "payload_too_large")


def test_topics_in_pages(start):
    server = start(reactors=2)
    names = sorted(f"p.{number:03}" for number in range(25))
    for name in names:
        server.publish_now(name, "1")
    seen, after = [], ""
    while True:
        page = server.get(f"/v1/topics?limit=10{after}").json()
        assert len(page["topics"]) <= 10
        seen += [each["topic"] for each in page["topics"]]
        if "next" not in page:
            break
        after = f"&after={page['next']}"
    assert seen == names


def test_connections(server, topic):
    with Json(server.ws("/ws")) as client, dial(server.ws(f"/raw/{topic}")) as raw:
        client.subscribe(f"{topic}.a", f"{topic}.b")
        ports = {
            client.socket.local_address[1]: ("/ws", 2),
            raw.local_address[1]: ("/raw", 1),
        }
        for query in ("", "?sort=lag"):
            reports = server.get(f"/v1/connections{query}").json()["connections"]
            mine = {int(each["peer"].rsplit(":", 1)[1]): each for each in reports}
            for port, (path, subscriptions) in ports.items():
                each = mine[port]
                assert each["path"].startswith(path) and each["subscriptions"] == subscriptions
                assert each["backlog_bytes"] == 0 and each["lagging"] is False
                assert 0 <= each["shard"] < server.reactors
        assert len(server.get("/v1/connections?limit=1").json()["connections"]) == 1


def test_foreign_hosts_and_pages_are_refused(server, start, topic):
    for host in ("evil.example", "localhost.evil.example"):
        answer = server.get("/v1/topics", Host=host)
        assert (answer.status, answer.code()) == (403, "forbidden")
    assert server.get("/v1/topics", Host="localhost").status == 200
    for origin in ("http://evil.example", "null", "http://localhost:1"):
        for method, path in (("POST", f"/v1/topics/{topic}"), ("DELETE", f"/v1/topics/{topic}")):
            answer = server.request(method, path, b"1", {"Origin": origin})
            assert answer.status == 403, (origin, method)
    own = f"http://{server.admin}"
    assert server.request("POST", f"/v1/topics/{topic}", b"1", {"Origin": own}).status == 200
    named = start("--admin-host", "push.example")
    assert named.get("/v1/topics", Host="push.example").status == 200
    assert named.get("/v1/topics", Host="other.example").status == 403


METRICS = [
    "connections",
    "subscribers",
    "publishers",
    "connections_lagging",
    "connections_blocked",
    "accepted_total",
    "accept_failures_total",
    "handshakes_total",
    "received_messages_total",
    "received_bytes_total",
    "publications_total",
    "publications_bytes_total",
    "publications_refused_total",
    "deliveries_total",
    "sends_total",
    "sent_bytes_total",
    "sends_own_total",
    "sends_troubled_total",
    "skipped_messages_total",
    "lags_total",
    "rule_conflated_messages_total",
    "rule_lags_total",
    "rule_gaps_total",
    "rule_slow_closes_total",
    "rule_resumes_total",
    "rule_snapshots_total",
    "rule_stale_total",
    "rejoins_total",
    "waits_gathered_total",
    "overload_rotations_total",
    "overloaded",
    "publishers_slowed_total",
    "mesh_parked",
    "mesh_full_total",
    "receive_starved_total",
    "topics",
    "lanes",
    "patterns",
    "lane_log_bytes",
    "pool_bytes",
    "pings_total",
    "closed_total",
    "close_timeouts_total",
    "offences_total",
    "build_info",
    "reactors",
    "ready",
    "process_lane_log_bytes",
    "log_lines_dropped_total",
    "tick_cpu_seconds",
    "tick_cpu_longest_seconds",
    "tick_wall_seconds",
    "tick_wall_longest_seconds",
    "publish_to_last_send_seconds",
    "rotation_seconds",
]


def test_metrics_are_all_there(server):
    answer = server.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    metrics = Metrics(answer.body.decode())
    names = {name.removeprefix("uringcast_") for name in metrics.types}
    assert set(METRICS) <= names, set(METRICS) - names
    assert set(metrics.types) == set(metrics.helps)
    assert metrics.sum("reactors") == server.reactors and metrics.sum("ready") == 1
    assert metrics.sum("process_resident_memory_bytes") > 1 << 20


def test_metrics_are_right_after_known_traffic(start):
    server = start(reactors=2)
    subscribers, publications, payload = 7, 30, b"x" * 100
    clients = [Json(server.ws("/ws")) for _ in range(subscribers)]
    for number, client in enumerate(clients):
        client.subscribe("known.a", *(["known.*"] if number < 2 else []))
    metrics = server.metrics()
    assert metrics.sum("connections") == metrics.sum("subscribers") == subscribers
    assert metrics.sum("lanes") in (2, 3, 4) and metrics.sum("topics") == 0
    for _ in range(publications):
        server.publish_now("known.a", payload)
    for client in clients:
        for _ in range(publications):
            client.receive()
    metrics = server.metrics()
    assert metrics.sum("publications_total") == publications
    assert metrics.sum("publications_bytes_total") == publications * len(payload)
    assert metrics.sum("deliveries_total") == subscribers * publications
    assert 0 < metrics.sum("sends_total") <= subscribers * publications
    assert metrics.sum("sent_bytes_total") > subscribers * publications * len(payload)
    assert metrics.sum("handshakes_total", result="upgraded") == subscribers
    assert metrics.sum("received_messages_total") == subscribers
    assert metrics.sum("topics") == 2, "each of two shards knows the topic"
    assert metrics.sum("skipped_messages_total") == metrics.sum("lags_total") == 0
    assert metrics.sum("publish_to_last_send_seconds_count") > 0
    for client in clients:
        client.close()
    wait_for(lambda: server.metrics().sum("connections") == 0, "all to be gone")
    metrics = server.metrics()
    assert metrics.sum("closed_total", by="peer", code="1000") == subscribers
    assert metrics.sum("closed_total") == subscribers
    assert metrics.sum("subscribers") == metrics.sum("lanes") == 0
    assert metrics.sum("lane_log_bytes") == 0


def test_ticks_are_timed(start):
    server = start(reactors=1)
    client = Json(server.ws("/ws"))
    client.subscribe("timed.a")
    begun = server.metrics()
    for _ in range(200):
        server.publish_now("timed.a", b"x" * 100)
        client.receive()
    metrics = server.metrics()
    for clock in ("cpu", "wall"):
        name = f"tick_{clock}_seconds"
        ticks = metrics.sum(f"{name}_count") - begun.sum(f"{name}_count")
        assert ticks >= 10, f"{clock}: two hundred publications, one after the other's delivery"
        assert 0 < metrics.sum(f"tick_{clock}_longest_seconds") <= metrics.sum(f"{name}_sum")
    # All of the thread's time is in it, how it is cut does not matter.
    assert metrics.sum("tick_cpu_seconds_sum") <= metrics.sum("process_cpu_seconds_total") + 0.02
    client.close()


def test_the_page_is_whole_in_itself(server):
    answer = server.get("/")
    text = answer.body.decode()
    assert answer.headers["Content-Type"].startswith("text/html") and "WebSocket" in text
    assert 'src="http' not in text and 'href="http' not in text
    assert server.get("/v1/stats").json()["data_port"] == server.address("data")[1]
