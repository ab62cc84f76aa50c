"""Many topics and interests of one's own: nothing is lost, and the server counts the same."""

import pytest

from server import run_binary, wait_for
from test_loadgen import load


def watch(server, *flags, tmp_path):
    urls = ["--url", f"ws://{server.data}", "--publish-url", f"ws://{server.publish}"]
    fixed = ["--warmup", "500ms", "--duration", "2s"]
    report, out = load(server, "watchlists", *urls, *fixed, *flags, tmp_path=tmp_path)
    assert report["clean"] is True and report["missed"] == [], out
    assert report["published"]["published"] == server.metrics().sum("publications_total")
    return report


@pytest.mark.parametrize("reactors", [1, 3])
def test_everyone_on_one_of_many_topics(start, tmp_path, reactors):
    server = start(reactors=reactors)
    flags = ["--topics", "1000", "--rate", "2000", "--size", "512", "--subscribers", "2000"]
    report = watch(server, *flags, "--threads", "2", tmp_path=tmp_path)
    # Whoever watches one topic of 1,000 gets one in 1,000 of 5,000.
    assert report["deliveries"]["messages"] == 2000 * 5
    assert server.metrics().sum("deliveries_total") == 2000 * 5


@pytest.mark.parametrize("reactors", [1, 2])
def test_own_watchlists_that_change(start, tmp_path, reactors):
    server = start(reactors=reactors)
    lists = ["--topics", "200", "--watch", "20", "--format", "json", "--subscribers", "100"]
    flags = ["--rate", "400", "--changing", "5", "--change-rate", "500"]
    report = watch(server, *lists, *flags, tmp_path=tmp_path)
    changes = report["changes"]
    assert changes["asked"] == changes["answered"] > 1000
    assert changes["refused"] == changes["astray"] == changes["unanswered"] == 0
    # 20 topics each at nearly any time.
    assert 0.9 < report["deliveries"]["messages"] / (100 * 20 * 5) <= 1.1
    wait_for(lambda: server.metrics().sum("connections") == 0, "all to be gone")
    assert server.metrics().sum("lane_log_bytes") == 0


def test_changes_as_fast_as_they_are_answered(start, tmp_path):
    server = start()
    lists = ["--topics", "100", "--watch", "10", "--format", "json", "--subscribers", "50"]
    flags = ["--lists", "5", "--changing", "10", "--change-rate", "1000000"]
    report = watch(server, *lists, *flags, tmp_path=tmp_path)
    assert report["changes"]["answered_per_s"] > 500


def test_a_burst_is_sent_together(start, tmp_path):
    server = start()
    urls = ["--url", server.ws("/raw/bench"), "--publish-url", server.publish_ws("/publish/bench")]
    flags = ["--subscribers", "200", "--rate", "100", "--burst", "50"]
    times = ["--warmup", "0s", "--duration", "2s"]
    report, _ = load(server, "fanout", *urls, *flags, *times, tmp_path=tmp_path)
    metrics = server.metrics()
    assert report["clean"] is True
    assert metrics.sum("deliveries_total") == 200 * 200
    # Several to a SEND; how many depends on how the burst was cut on its way here.
    assert metrics.sum("sends_total") < metrics.sum("deliveries_total") / 2


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["watchlists", "--topics", "10", "--watch", "11"], "--watch"),
        (["watchlists", "--watch", "2"], "--format json"),
        (["watchlists", "--change-rate", "2"], "--changing"),
        (["fanout", "--burst", "0"], "a number from 1 to 100000, or within a time as in 50/1ms"),
        (["fanout", "--burst", "5", "--outstanding", "2"], "--burst"),
    ],
)
def test_wrong_flags_are_named(flags, named):
    code, _, error = run_binary("loadgen", *flags)
    assert code == 2 and named in error
