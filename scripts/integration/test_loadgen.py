"""The load generator against the server: what it counts is what the server counts."""

import json

import pytest

import recorded
from server import run_binary, wait_for


def load(server, command, *flags, tmp_path, expect=0):
    """One run; its report."""
    report = tmp_path / "report.json"
    urls = ["--url", f"ws://{server.data}", "--publish-url", f"ws://{server.publish}"]
    arguments = [command, *(urls if command in ("synth", "replay") else []), *flags]
    arguments += ["--pid", str(server.process.pid), "--json", str(report)]
    code, out, error = run_binary("loadgen", *arguments, timeout_s=180)
    assert code == expect, f"{code}\n{out}\n{error}"
    return json.loads(report.read_text()), out


@pytest.mark.parametrize("reactors", [1, 2])
@pytest.mark.parametrize("form", ["raw", "json"])
def test_fanout_with_comings_and_goings(start, tmp_path, form, reactors):
    server = start(reactors=reactors)
    path = {"raw": "/raw/bench", "json": "/ws?topics=bench"}[form]
    report, out = load(
        server,
        "fanout",
        *("--url", server.ws(path), "--publish-url", server.publish_ws("/publish/bench")),
        *("--subscribers", "500", "--publishers", "2", "--rate", "200", "--churn", "5"),
        *("--duration", "3s", "--warmup", "500ms"),
        tmp_path=tmp_path,
    )
    assert report["clean"] is True and report["missed"] == []
    assert report["faults"]["lost"] == report["faults"]["duplicated"] == 0
    assert report["deliveries"]["messages"] > 475 * 600
    assert "p99.99" in out
    metrics = server.metrics()
    assert metrics.sum("publications_total") == report["published"]["published"]
    wait_for(lambda: server.metrics().sum("connections") == 0, "all to be gone")
    assert server.metrics().sum("lane_log_bytes") == 0


def test_fanout_beside_connections_that_never_read(start, tmp_path):
    server = start("--send-buffer", "16KiB", "--lag-bytes-max", "2MiB")
    report, _ = load(
        server,
        "fanout",
        *("--url", server.ws("/raw/bench"), "--publish-url", server.publish_ws("/publish/bench")),
        *("--subscribers", "200", "--stalled", "20", "--rate", "500", "--size", "4096"),
        *("--duration", "3s", "--warmup", "500ms"),
        tmp_path=tmp_path,
    )
    assert report["clean"] is True and report["connections"]["stalled"] == 20
    assert server.metrics().sum("closed_total", code="1013", reason="slow") == 20


def test_closed_loop_as_fast_as_it_goes(start, tmp_path):
    server = start()
    report, _ = load(
        server,
        "fanout",
        *("--url", server.ws("/raw/bench"), "--publish-url", server.publish_ws("/publish/bench")),
        *("--subscribers", "100", "--outstanding", "64", "--duration", "2s", "--warmup", "200ms"),
        tmp_path=tmp_path,
    )
    assert report["clean"] is True and report["deliveries"]["messages"] > 50_000


def test_a_ramp_of_several_publishers(start, tmp_path):
    server = start(reactors=2)
    report, out = load(
        server,
        "fanout",
        *("--url", server.ws("/raw/*"), "--publish-url", server.publish_ws("/publish/bench")),
        *("--subscribers", "100", "--publishers", "3", "--rate", "100..500/2s", "--silence", "30s"),
        tmp_path=tmp_path,
    )
    assert report["clean"] is True and report["interrupted"] is False
    # 2 s of warm-up at 100 a second, then 300 a second on average.
    assert report["published"]["published"] == 800
    assert [step["lost"] for step in report["steps"]] == [0] * 20
    assert sum(step["publications"] for step in report["steps"]) == 600
    assert (
        report["spread"]["first_us"] <= report["spread"]["median_us"] <= report["spread"]["last_us"]
    )
    assert report["silence"]["connections"] == 100
    assert report["connect"]["count"] == report["handshake"]["count"] == 103
    assert "steps " in out
    assert server.metrics().sum("publications_total") == 800


def test_publishers_alone_are_answered(start, tmp_path):
    server = start(reactors=2)
    report, out = load(
        server,
        "publish",
        *("--url", server.publish_ws("/publish/bench"), "--publishers", "2", "--acks"),
        *("--rate", "2000", "--count", "2500"),
        tmp_path=tmp_path,
    )
    acks = report["acks"]
    assert (acks["accepted"], acks["refused"], acks["unanswered"]) == (2500, 0, 0)
    assert acks["latency"]["count"] == report["sending"]["lateness"]["count"] == 2500
    assert "2500 accepted" in out
    assert server.metrics().sum("publications_total") == 2500


@pytest.mark.parametrize("form", ["raw", "json"])
def test_synthetic_market(start, tmp_path, form):
    server = start("--topic", "*.*.bookTicker:kind=value", reactors=2)
    report, _ = load(
        server,
        "synth",
        *("--subscribers", "400", "--format", form, "--rate", "500", "--churn", "2"),
        *("--duration", "3s"),
        tmp_path=tmp_path,
    )
    assert report["clean"] is True and report["deliveries"]["messages"] > 20_000
    # Topics have different subscribers: first and last are of those who want it.
    assert (
        report["spread"]["first_us"] <= report["spread"]["median_us"] <= report["spread"]["last_us"]
    )


@pytest.mark.parametrize("form", ["raw", "json"])
def test_replay(start, tmp_path, form):
    """Recorded market data, or lines of our own where there is none: every event once and in
    order, payloads byte for byte."""
    files = recorded.files() or [recorded.made_up(tmp_path / "own.ndjson", 3_000)]
    server = start("--topic", "*.*.bookTicker:kind=value", reactors=2)
    report, _ = load(
        server,
        "replay",
        *files,
        *("--subscribers", "200", "--format", form, "--speed", "2", "--duration", "6s"),
        *("--churn", "1"),
        tmp_path=tmp_path,
    )
    assert report["clean"] is True, report["faults"]
    assert report["deliveries"]["messages"] > 5_000


@pytest.mark.parametrize("path", ["/raw/bench", "/ws?topics=bench"])
def test_compressed_deliveries_are_checked_like_any(start, tmp_path, path):
    server = start(reactors=2)
    report, out = load(
        server,
        "fanout",
        *("--url", server.ws(path), "--publish-url", server.publish_ws("/publish/bench")),
        *("--subscribers", "200", "--rate", "100", "--churn", "5", "--size", "2000"),
        *("--duration", "2s", "--warmup", "500ms", "--deflate"),
        tmp_path=tmp_path,
    )
    assert report["clean"] is True and report["missed"] == []
    deflate = report["deflate"]
    assert deflate["agreed"] == deflate["offered"] >= 200
    # A reactor with too much to do leaves some plain.
    assert 0 < deflate["messages"] <= report["deliveries"]["messages"]
    assert deflate["compressed_bytes"] < deflate["inflated_bytes"] / 2
    assert "deflate       agreed on" in out
    metrics = server.metrics()
    assert metrics.sum("deflate_broadcast_publications_total") <= report["published"]["published"]
    wait_for(lambda: server.metrics().sum("connections") == 0, "all to be gone")


def test_idle_connections(start, tmp_path):
    server = start(reactors=2)
    report, _ = load(
        server,
        "connect",
        *("--url", server.ws("/ws?topics=idle.a"), "--connections", "2000", "--hold", "2s"),
        tmp_path=tmp_path,
    )
    assert report["clean"] is True
    assert server.metrics().sum("handshakes_total", result="upgraded") == 2000
    wait_for(lambda: server.metrics().sum("connections") == 0, "all to be gone", 10)


def test_wrong_use_is_named():
    for flags, named in [
        (["fanout", "--subscribers", "x"], "x"),
        (["fanout", "--url", "http://127.0.0.1/"], "url"),
        (["synth", "--rate=-1"], "rate"),
    ]:
        code, _, error = run_binary("loadgen", *flags)
        assert code == 2 and named in error, (flags, code, error)


def test_no_server_is_a_failure():
    code, _, error = run_binary("loadgen", "fanout", "--url", "ws://127.0.0.1:1/raw/a")
    assert code == 1 and error


def test_no_file_is_a_failure():
    code, _, error = run_binary("loadgen", "replay", "/no/such/file")
    assert code == 1 and "/no/such/file" in error


def test_a_flood_makes_waits_gather_until_it_is_over(start, tmp_path):
    server = start()
    publish = ("publish", "--url", server.publish_ws("/publish/bench"), "--duration", "2s")
    flood = ("--publishers", "50", "--rate", "400000", "--warmup", "500ms")
    load(server, *publish, *flood, tmp_path=tmp_path)
    gathered = server.metrics().sum("waits_gathered_total")
    if server.metrics().sum("ring_feature", feature="min_wait"):
        assert gathered > 0
    report, _ = load(server, *publish, "--rate", "50", tmp_path=tmp_path)
    assert report["clean"] is True
    # The first of them may still find it busy.
    assert server.metrics().sum("waits_gathered_total") <= gathered + 10
