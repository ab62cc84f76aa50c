"""When messages go out: sampled and batched topics, a subscriber's own pace, silence, expiry."""

import json
import time

import pytest

from client import Json, dial
from server import wait_for

BEST = "best.*:kind=value"


def publish(server, topic, count, pause_s=0.0):
    """Numbered messages, each acknowledged; the answers."""
    acks = []
    with dial(server.publish_ws(f"/publish/{topic}?ack=1")) as publisher:
        for number in range(count):
            publisher.send(json.dumps(number))
            acks.append(json.loads(publisher.recv(10)))
            time.sleep(pause_s)
    return acks


def until(client, seq):
    """Messages up to this number."""
    got = [client.receive()]
    while got[-1]["seq"] < seq:
        got.append(client.receive())
    return got


def check_sampled(got, period_s):
    """Rising numbers, hardly more often than once a period."""
    numbers = [message["seq"] for message in got]
    assert numbers == sorted(set(numbers))
    # Each is the newest of its period, so any three span more than one.
    for early, late in zip(got, got[2:], strict=False):
        assert late["ts"] - early["ts"] > period_s * 1e6, numbers


@pytest.mark.parametrize("reactors", [1, 2])
def test_a_sampled_topic_shows_the_newest_at_its_ticks(start, reactors):
    server = start("--topic", "best.*:kind=value,sample=200ms", reactors=reactors)
    with Json(server.ws("/ws?topics=best.x,trade.x")) as client:
        client.receive()
        acks = publish(server, "best.x", 100, 0.01)
        assert [ack["seq"] for ack in acks] == list(range(1, 101)), "each has its number at once"
        got = until(client, 100)
        check_sampled(got, 0.2)
        assert got[-1]["data"] == 99
        shown = len(got)
        metrics = server.metrics()
        assert metrics.sum("publications_total") == 100
        assert metrics.sum("sampled_total") == 100 - shown
        # An event topic beside it is live.
        assert len(publish(server, "trade.x", 20)) == 20
        assert [client.receive()["seq"] for _ in range(20)] == list(range(1, 21))


def test_what_waits_for_its_tick_is_not_lost_with_its_topic(start):
    server = start("--topic", "best.*:kind=value,sample=10s", reactors=2)
    with Json(server.ws("/ws?topics=best.x")) as client:
        client.receive()
        publish(server, "best.x", 5)
        assert server.request("DELETE", "/v1/topics/best.x").status == 200
        assert client.receive()["seq"] == 5
        (again,) = publish(server, "best.x", 1)
        assert again["seq"] == 1


def test_a_batched_topic_comes_whole_and_later(start):
    server = start("--topic", "batched.*:batch=300ms")
    with Json(server.ws("/ws?topics=batched.x")) as client:
        client.receive()
        sends = server.metrics().sum("sends_total")
        begun = time.monotonic()
        publish(server, "batched.x", 50)
        assert [client.receive()["seq"] for _ in range(50)] == list(range(1, 51))
        assert time.monotonic() - begun >= 0.25
        assert server.metrics().sum("sends_total") - sends <= 3
        # Answers do not wait, and with a live topic beside it nothing does.
        begun = time.monotonic()
        publish(server, "batched.x", 1)
        client.settled()
        assert time.monotonic() - begun < 0.25
        assert client.receive()["seq"] == 51
        client.subscribe("live.x")
        publish(server, "live.x", 1)
        client.receive()
        begun = time.monotonic()
        publish(server, "batched.x", 1)
        assert client.receive()["seq"] == 52
        assert time.monotonic() - begun < 0.25


def test_a_subscriber_chooses_its_pace_and_changes_it(start):
    server = start("--topic", BEST)
    with Json(server.ws("/ws")) as slow, Json(server.ws("/ws?topics=best.x")) as live:
        live.receive()
        terms = slow.subscribe("best.*", "trade.x", "all.>", sample_ms=200)
        assert [each.get("sample_ms") for each in terms] == [200, None, 200]
        assert {each["topic"]: each.get("sample_ms") for each in slow.list()} == {
            "best.*": 200,
            "trade.x": None,
            "all.>": 200,
        }
        publish(server, "best.x", 100, 0.01)
        assert [live.receive()["seq"] for _ in range(100)] == list(range(1, 101))
        check_sampled(until(slow, 100), 0.2)
        publish(server, "trade.x", 10)
        assert [slow.receive()["seq"] for _ in range(10)] == list(range(1, 11))

        # Live again, and what was not shown yet comes with the answer.
        publish(server, "best.x", 3)
        slow.send(op="update", topics=["best.*", "nope", "a..b"])
        got = [slow.receive()]
        while got[-1].get("op") != "updated":
            got.append(slow.receive())
        *shown, answer = got
        errors = [each.get("error") for each in answer["topics"]]
        assert errors == [None, "not_subscribed", "topic_invalid"]
        if not shown or shown[-1]["seq"] < 103:
            assert slow.receive()["seq"] == 103, "only the newest"
        publish(server, "best.x", 5)
        assert [slow.receive()["seq"] for _ in range(5)] == list(range(104, 109))

        # And slower again; nothing that was seen live comes once more.
        (terms,) = slow.ask("update", topics=["best.*"], sample_ms=1_234)["topics"]
        assert terms["sample_ms"] == 1_200, "two significant digits"
        assert slow.unsubscribe("best.*")[0].get("error") is None
        assert {each["topic"] for each in slow.list()} == {"trade.x", "all.>"}


@pytest.mark.parametrize("sample_ms", [0, 9, 60_001, "1", -5])
def test_paces_out_of_bounds_are_refused(start, sample_ms):
    server = start("--topic", BEST)
    with Json(server.ws("/ws")) as client:
        for op in ("subscribe", "update"):
            answer = client.ask(op, topics=["best.x"], sample_ms=sample_ms)
            assert (answer["op"], answer["code"]) == ("error", "bad_request")


def test_a_snapshot_is_what_was_shown(start):
    server = start("--topic", BEST)
    with Json(server.ws("/ws")) as first, Json(server.ws("/ws")) as second:
        first.subscribe("best.x", sample_ms=1_000)
        publish(server, "best.x", 1)
        until(first, 1)
        publish(server, "best.x", 2)
        (terms,) = second.subscribe("best.x", sample_ms=1_000, snapshot=True)
        snapshot = second.receive()
        assert snapshot["snapshot"] and snapshot["seq"] == terms["seq"]
        for client in (first, second):
            got = [message["seq"] for message in until(client, 3)]
            assert got == sorted(set(got)) and got[0] > snapshot["seq"] or client is first


def test_silence_is_told_and_ends(start):
    server = start("--topic", "feed.*:stale-after=300ms", reactors=2)
    with Json(server.ws("/ws?topics=feed.x")) as client, dial(server.ws("/raw/feed.x")) as raw:
        client.receive()
        publish(server, "feed.x", 2)
        messages = [client.receive() for _ in range(2)]
        assert [raw.recv(5) for _ in range(2)] == ["0", "1"]
        told = client.receive()
        assert told == {"op": "stale", "topic": "feed.x", "since": messages[-1]["ts"]}
        with Json(server.ws("/ws")) as late:
            (terms,) = late.subscribe("feed.x")
            assert terms["stale_since"] == messages[-1]["ts"]
        publish(server, "feed.x", 1)
        assert client.receive()["seq"] == 3
        assert raw.recv(5) == "0", "nothing but payloads"
        assert "stale_since" not in client.subscribe("feed.x")[0]
        assert client.receive()["op"] == "stale"
        metrics = server.metrics()
        assert metrics.sum("rule_stale_total") >= 2
        assert metrics.sum("deliveries_total") == 6, "a notice is no message"


def test_a_topic_that_nobody_publishes_to_expires(start):
    server = start("--topic", "old.*:expire=4s", reactors=2)
    with Json(server.ws("/ws?topics=old.x,new.x")) as client:
        client.receive()
        first = publish(server, "old.x", 2)
        publish(server, "new.x", 1)
        assert [client.receive()["seq"] for _ in range(3)]
        time.sleep(2.2)
        (third,) = publish(server, "old.x", 1)
        assert third["seq"] == client.receive()["seq"] == 3
        time.sleep(2.2)
        assert server.get("/v1/topics/old.x").status == 200, "it counts from the last one"
        wait_for(lambda: server.get("/v1/topics/old.x").status == 404, "old.x to go")
        assert server.metrics().sum("expired_topics_total") == 1
        assert server.get("/v1/topics/new.x").status == 200
        (again,) = publish(server, "old.x", 1)
        assert (again["seq"], again["epoch"] != first[0]["epoch"]) == (1, True)
        assert client.receive()["seq"] == 1
