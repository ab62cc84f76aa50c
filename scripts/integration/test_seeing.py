"""Seeing a run of the load generator: on a terminal, as a page, as a report with a schema."""

import contextlib
import json

import jsonschema
import pytest

from browser import Browser
from server import BINARIES, run_binary
from terminal import Terminal


def fanout(server, *flags):
    urls = ["--url", server.ws("/raw/bench"), "--publish-url", server.publish_ws("/publish/bench")]
    load = ["--subscribers", "200", "--rate", "100", "--warmup", "1s"]
    return ["fanout", *urls, *load, *flags]


@pytest.fixture
def terminal():
    opened = []

    def run(*arguments, **size):
        opened.append(Terminal([BINARIES / "loadgen", *arguments], **size))
        return opened[-1]

    yield run
    for each in opened:
        each.kill()


@pytest.mark.parametrize("size", [{}, {"columns": 80, "lines": 24}])
def test_a_terminal_shows_the_run_and_is_left_as_it_was(start, terminal, size):
    server = start()
    flags = ["--duration", "60s", "--pid", str(server.process.pid)]
    screen = terminal(*fanout(server, *flags), **size)
    for part in [
        r"measuring  \d+ s, \d+ s left",
        r"connections +201 of 201 open, 0 failed, 0 ended",
        r"published +\d+/s, \d+ in all",
        r"delivered +[\d,]+/s, [\d,]+ in all, [\d.]+ [kM]B/s",
        r"lost +nothing so far",
        r"server +[\d.]+ processors, [\d.]+ MB resident",
        r"own threads +publishing \d+ %, receiving \d+ %",
        r"latency +last second +whole run",
        r"p99\.9 +[\d.]+ [µmn]?s +[\d.]+ [µmn]?s",
        r"latencies of the run",
        r"< \d+ [µmn]?s +█.* [\d.]+ %",
        r"deliveries/s, highest [\d,]+",
        r"p99, highest [\d.]+ [µmn]?s",
    ]:
        screen.wait_for(part)
    screen.interrupt()
    assert screen.end() == 0
    # The other screen was left, the cursor is back, and the report stands on the usual one.
    assert screen.raw.count(b"\x1b[?1049h") == screen.raw.count(b"\x1b[?1049l") == 1
    assert screen.raw.rindex(b"\x1b[?25h") > screen.raw.rindex(b"\x1b[?25l")
    report = screen.raw.split(b"\x1b[?1049l")[1].decode()
    assert "interrupted" in report and "p99.999" in report


def test_without_a_terminal_there_are_lines_and_with_quiet_nothing(start):
    server = start()
    code, out, error = run_binary("loadgen", *fanout(server, "--duration", "3s"))
    assert code == 0 and "p99.99" in out
    assert "measuring 1 of 3 s; 201 connections;" in error and "\x1b" not in out + error
    code, out, error = run_binary("loadgen", *fanout(server, "--duration", "1s", "--quiet"))
    assert (code, out, error) == (0, "", "")


def test_reports_are_as_their_schema_says(start, tmp_path):
    code, out, _ = run_binary("loadgen", "schema")
    assert code == 0
    schema = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    server = start("--topic", "*.*.bookTicker:kind=value")
    path = tmp_path / "report.json"
    pid = ["--pid", str(server.process.pid), "--json", str(path)]
    urls = ["--url", f"ws://{server.data}", "--publish-url", f"ws://{server.publish}"]
    for arguments in [
        fanout(server, "--duration", "2s", "--deflate", "--churn", "5", *pid),
        ["synth", *urls, "--subscribers", "40", "--duration", "2s", *pid],
        ["connect", "--url", server.ws("/ws"), "--connections", "50", "--hold", "1s", *pid],
    ]:
        code, _, error = run_binary("loadgen", *arguments)
        assert code == 0, error
        report = json.loads(path.read_text())
        problems = [f"{each.json_path}: {each.message}" for each in validator.iter_errors(report)]
        assert problems == []
        # Every field of the report is one of the schema's.
        assert set(report) <= set(schema["properties"])
    assert list(validator.iter_errors({"schema": 1})) != []


def test_a_page_is_whole_without_a_network(start, tmp_path):
    server = start()
    reports = []
    for name in ("one", "two"):
        reports.append(str(tmp_path / f"{name}.json"))
        html = ["--html", str(tmp_path / f"{name}.html"), "--json", reports[-1]]
        code, _, error = run_binary("loadgen", *fanout(server, "--duration", "3s", *html))
        assert code == 0, error
    both = ["--html", str(tmp_path / "both.html")]
    code, out, error = run_binary("loadgen", "compare", *reports, *both)
    assert code == 0 and "no confidence" in out, out + error
    for page, plots in [("one", 5), ("both", 3)]:
        with contextlib.closing(Browser()) as browser:
            browser.open((tmp_path / f"{page}.html").as_uri())
            shown = browser.run(
                """return [...document.querySelectorAll('svg')].map(svg => {
                    const box = svg.getBoundingClientRect();
                    return box.width > 300 && box.height > 100
                        && svg.querySelectorAll('polyline, circle, path').length > 2;
                })"""
            )
            assert shown == [True] * plots
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
            loaded = browser.run("return performance.getEntriesByType('resource').length")
            assert loaded == 0 and browser.errors() == []
