"""Rules for topics: mistakes, rights, and what is counted by rule."""

import json
import time

import pytest

from client import Json, dial, refused
from server import run_binary, wait_for
from wire import Wire

SMALL = ("--send-buffer", "16KiB", "--lag-bytes-max", "128KiB")


def stalled(server, path):
    return Wire(server.address("data"), timeout_s=10, receive_buffer=4096).upgrade(path)


# Mistakes.


def test_every_mistake_of_a_file_is_named_with_its_line(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text(
        """
[[topic]]
pattern = "md.*.trade"
kind = "trade"
history = { message = 5, age = "soon" }
[[topic]]
pattern = "md.*.depth"
kind = "delta"
snapshot = "last"
sample = "100ms"
overflow = "gap"
lag_bytes_max = 1
[[topic]]
pattern = "a..b"
expire = true
publish_from = ["here"]
[[topic]]
kind = "value"
"""
    )
    wanted = {
        "4: kind": '"trade" is not right: wants event or value or delta',
        "5: history.message": '"5" is not right: is no key of a rule',
        "5: history.age": '"soon" is not right: wants a time',
        "9: snapshot": '"last" is not right: wants published or none',
        "10: sample": '"100ms" is not right: wants kind value',
        "11: overflow": '"gap" is not right: wants kind event',
        "12: lag_bytes_max": '"1" is not right: wants bytes from 4KiB',
        "14: pattern": '"a..b" is not right: wants a topic or pattern',
        "15: expire": '"true" is not right: wants a time',
        "16: publish_from": '"here" is not right: wants an address',
        "17: topic": '"[[topic]]" is not right: wants pattern =',
    }
    for arguments in (["check-config", str(file)], ["serve", "--config", str(file)]):
        code, out, error = run_binary("uringcast", *arguments)
        assert code == 2 and out == ""
        for place, words in wanted.items():
            assert f"{file}:{place}: {words}" in error, (place, error)
        assert len(error.strip().splitlines()) == len(wanted), error


@pytest.mark.parametrize(
    ("rule", "key", "wanted"),
    [
        ("a:kind=event,sample=1s", "sample", "wants kind value"),
        ("a:kind=value,overflow=gap", "overflow", "wants kind event"),
        ("a:kind=delta,history-messages=0", "history-messages", "at least 1"),
        ("a:kind=value,batch=1s,sample=1s", "sample", "not both"),
        ("a:history-bytes=2GiB", "history-bytes", "at most --history-bytes-max"),
        ("a:expire=0s", "expire", "wants a time"),
    ],
)
def test_nonsense_on_the_command_line(rule, key, wanted):
    code, out, error = run_binary("uringcast", "serve", "--topic", rule)
    assert code == 2 and out == ""
    assert f"--topic '{rule}': {key}: " in error and wanted in error, error


# Rights.


def test_who_may_publish(start):
    server = start(
        *("--topic", "closed.>:publish-from=192.0.2.0/24"),
        *("--topic", "open.>:publish-from=192.0.2.0/24,publish-from=127.0.0.0/8"),
        *("--publish-from", "127.0.0.1"),
        reactors=2,
    )
    assert refused(server.publish_ws("/publish/closed.a")) == 403
    with dial(server.publish_ws("/publish/open.a?ack=1")) as publisher:
        publisher.send("1")
        assert json.loads(publisher.recv(5))["seq"] == 1
    with dial(server.publish_ws("/publish?ack=1")) as publisher:
        lines = [{"topic": name, "data": 1} for name in ("closed.a", "open.a", "closed.b", "x")]
        publisher.send("\n".join(map(json.dumps, lines)))
        answers = [json.loads(publisher.recv(5)) for _ in lines]
        refusals = [answer for answer in answers if answer["op"] == "error"]
        assert [refusal["code"] for refusal in refusals] == ["forbidden", "forbidden"]
        done = [answer["topic"] for answer in answers if answer["op"] == "published"]
        assert sorted(done) == ["open.a", "x"]
    # Without acknowledgements too.
    with dial(server.publish_ws("/publish")) as publisher:
        publisher.send(json.dumps({"topic": "closed.a", "data": 1}))
        assert json.loads(publisher.recv(5))["code"] == "forbidden"
    with Json(server.ws("/ws")) as client:
        assert client.ask("publish", topic="closed.a", data=1)["code"] == "forbidden"
        assert client.ask("publish", topic="open.a", data=1)["op"] == "published"
    # The admin port is exempt, and makes the topic: that changes nothing for the others.
    assert server.publish_now("closed.a", "1")["seq"] == 1
    assert refused(server.publish_ws("/publish/closed.a")) == 403
    with dial(server.publish_ws("/publish")) as publisher:
        publisher.send(json.dumps({"topic": "closed.a", "data": 1}))
        assert json.loads(publisher.recv(5))["code"] == "forbidden"
    assert server.metrics().sum("publications_refused_total", reason="forbidden") == 5
    assert server.get("/v1/topics/closed.a").json()["seq"] == 1


def test_who_may_subscribe(start):
    server = start("--topic", "closed.>:subscribe-from=192.0.2.0/24,subscribe-from=::2")
    for path in ("/raw/closed.a", "/raw/closed.*", "/raw/>", "/raw/*.a"):
        assert refused(server.ws(path)) == 403, path
    with dial(server.ws("/raw/open.>")) as raw:
        server.publish_now("closed.a", "1")
        server.publish_now("open.a", "2")
        assert raw.recv(5) == "2"
    with Json(server.ws("/ws")) as client:
        acks = client.subscribe("closed.a", "open.a", ">", "open.*", snapshot=True)
        assert [ack.get("error") for ack in acks] == ["forbidden", None, "forbidden", None]
        assert client.receive()["topic"] == "open.a"


# What is told and counted.


def test_a_topics_rule_and_history_are_shown(start):
    server = start(
        *("--topic", "d.*:kind=delta,history-messages=3"),
        *("--topic", "e.>:history-messages=2,stale-after=100ms"),
        reactors=2,
    )
    for number in range(5):
        server.post("d.a", "{}", query=f"?pub_seq={number + 1}")
        server.publish_now("e.a", "{}")
        server.publish_now("other", "{}")
    report = server.get("/v1/topics/d.a").json()
    assert (report["rule"], report["kind"], report["seq"]) == ("d.*", "delta", 5)
    assert (report["history_messages"], report["first_seq"]) == (3, 3)
    assert report["history_bytes"] > 0 and report["stale_since"] is None
    assert (report["snapshot_seq"], report["snapshot_usable"]) == (None, False)
    server.post("d.a", "{}", query="?pub_seq=4&snapshot=1")
    report = server.get("/v1/topics/d.a").json()
    assert (report["snapshot_seq"], report["snapshot_usable"]) == (4, True)
    for number in range(5, 9):
        server.post("d.a", "{}", query=f"?pub_seq={number + 1}")
    report = server.get("/v1/topics/d.a").json()
    assert (report["snapshot_seq"], report["snapshot_usable"]) == (4, False)
    report = server.get("/v1/topics/e.a").json()
    assert (report["rule"], report["history_messages"]) == ("e.>", 2)
    time.sleep(0.15)
    report = server.get("/v1/topics/e.a").json()
    assert report["stale_since"] == report["ts"]
    report = server.get("/v1/topics/other").json()
    assert (report["rule"], report["history_messages"], report["first_seq"]) == ("(none)", 1, 5)


def flood(server, *topics, count, size=2_000):
    """Lines for each topic in turn."""
    for start in range(0, count, 20):
        lines = [
            json.dumps({"topic": topic, "data": [number, "x" * size]})
            for number in range(start, min(start + 20, count))
            for topic in topics
        ]
        assert server.request("POST", "/v1/publish", "\n".join(lines).encode()).status == 200


def lagging(server):
    return server.get("/v1/connections?sort=lag").json()["connections"][0]


def test_what_a_lag_costs_is_counted_by_rule(start):
    server = start(
        *SMALL,
        *("--topic", "v.>:kind=value"),
        *("--topic", "g.>:overflow=gap,history-messages=10"),
        *("--topic", "d.>:kind=delta,history-messages=10"),
    )
    count = 400
    with stalled(server, "/ws?topics=v.a,g.a,d.a") as slow, Json(server.ws("/ws")):
        before = time.time() * 1e6
        flood(server, "v.a", "g.a", "d.a", count=count)
        worst = lagging(server)
        assert worst["state"] == "lagging" and worst["lagging"] and worst["path"] == "/ws"
        assert before - 1e6 < worst["since"] < time.time() * 1e6
        assert worst["behind_messages"] > count
        assert server.get("/v1/connections").json()["connections"][1]["state"] in (
            "live",
            "lagging",
        )
        received, gaps, missing = {"v.a": 0, "g.a": 0, "d.a": 0}, {}, 0
        while "g.a" not in gaps or not missing or received["v.a"] == 0:
            message = json.loads(slow.message()[1])
            if message.get("op") == "gap":
                gaps[message["topic"]] = message["to"] - message["from"] + 1
            elif message.get("op") == "error":
                assert (message["code"], message["topic"]) == ("snapshot_unavailable", "d.a")
                missing += 1
            elif "seq" in message:
                received[message["topic"]] += 1
                last = message
        # To the newest of both, and then only the delta topic's snapshot is missing.
        while last["seq"] < count or received["g.a"] + gaps["g.a"] < count:
            last = json.loads(slow.message()[1])
            received[last["topic"]] += 1
        wait_for(lambda: lagging(server)["state"] == "awaiting_snapshot", "it to wait")
        assert lagging(server)["behind_messages"] == 0
        server.post("d.a", "{}", query="?pub_seq=1000&snapshot=1")
        wait_for(lambda: server.metrics().sum("connections_lagging") == 0, "it to be live")
        assert lagging(server)["state"] == "live"
    metrics = server.metrics()

    def by_rule(name, rule, **labels):
        return metrics.sum(f"rule_{name}_total", rule=rule, **labels)

    skipped = count - received["v.a"]
    assert by_rule("conflated_messages", "v.>", kind="value") == skipped > 0
    assert metrics.sum("skipped_messages_total") == skipped
    for rule in ("g.>", "d.>", "(none)"):
        assert by_rule("conflated_messages", rule) == 0
    assert by_rule("lags", "v.>") == by_rule("lags", "g.>") == by_rule("lags", "d.>") == 1
    assert by_rule("gaps", "g.>", kind="event") == by_rule("gaps", "d.>", kind="delta") == 1
    assert by_rule("gaps", "v.>") == by_rule("gaps", "(none)") == 0
    assert by_rule("snapshots", "d.>", state="missing") == 1
    assert by_rule("snapshots", "d.>", state="published") == 1
    assert by_rule("snapshots", "d.>", state="sent") == 1
    assert by_rule("slow_closes", "g.>") == 0


def test_slow_closes_and_resumes_are_counted_by_rule(start):
    server = start(*SMALL, "--topic", "e.>:history-messages=5", reactors=2)
    with stalled(server, "/ws?topics=e.a"):
        flood(server, "e.a", count=400)
        wait_for(lambda: server.metrics().sum("closed_total", reason="slow") == 1, "the close")
    placed = server.publish_now("e.a", "1")
    with Json(server.ws("/ws")) as client:
        position = {"epoch": placed["epoch"], "seq": placed["seq"] - 3}
        (ack,) = client.subscribe("e.a", resume={"e.a": position})
        assert ack["recovered"] is True
        assert [client.receive()["seq"] - placed["seq"] for _ in range(3)] == [-2, -1, 0]
    assert server.metrics().sum("rule_slow_closes_total", rule="e.>", kind="event") == 1
    with Json(server.ws("/ws")) as client:
        client.subscribe("e.a", resume={"e.a": {"epoch": placed["epoch"], "seq": 1}})
        assert client.receive()["op"] == "gap"
    metrics = server.metrics()
    assert metrics.sum("rule_resumes_total", rule="e.>", recovered="true") == 1
    assert metrics.sum("rule_resumes_total", rule="e.>", recovered="false") == 1
    assert metrics.sum("rule_gaps_total", rule="e.>") == 1
