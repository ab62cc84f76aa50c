"""The live page and a page of one's own, in headless Chromium."""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from browser import Browser
from client import dial
from server import BINARIES, TARGET


class Blank(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self):  # noqa: N802
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def browser():
    started = Browser()
    yield started
    started.close()


@pytest.fixture
def feed():
    """Starts `loadgen synth` against a server; ended by pid."""
    processes = []

    def started(server, *flags):
        command = [str(BINARIES / "loadgen"), "synth", "--publish-url", f"ws://{server.publish}"]
        processes.append(
            subprocess.Popen(
                [*command, "--quiet", *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield started
    for process in processes:
        process.terminate()
        process.wait(10)
        process.stderr.close()


def test_the_page_shows_ticks(start, browser, feed):
    server = start(reactors=2)
    feed(server, "--symbols", "10", "--rate", "200")
    browser.open(f"http://{server.admin}/")
    rows = "return document.querySelectorAll('#rows tr').length"
    browser.wait(f"{rows} >= 10", "ten topics on the page")
    assert "md." in browser.run("return document.querySelector('#rows tr').textContent")
    text = "return document.getElementById('rows').innerText"
    browser.run("window.earlier = arguments[0]", browser.run(text))
    browser.wait(f"{text} !== window.earlier", "the rows to tick")
    figures = "return document.getElementById('tiles').innerText"
    browser.wait(
        "return /Deliveries/i.test(document.getElementById('tiles').innerText)", "the figures"
    )
    assert "Connections" in browser.run(figures)
    # Another interest, typed into the form.
    browser.run(
        "const field = document.getElementById('pattern'); field.value = 'mine.>';"
        "document.getElementById('form').requestSubmit()"
    )
    browser.wait("return document.querySelectorAll('#rows tr').length === 0", "md.> to be gone")
    server.publish_now("mine.own", json.dumps({"p": "1.50", "q": "2"}))
    browser.wait(
        "return document.getElementById('rows').innerText.includes('mine.own')", "the new topic"
    )
    browser.screenshot(TARGET / "integration" / "page-pattern.png")
    assert browser.errors() == []


def test_a_screenshot_of_the_page_at_work(start, browser, feed):
    server = start()
    feed(server, "--symbols", "20", "--rate", "500")
    clients = [dial(server.ws("/raw/md.%3E")) for _ in range(20)]
    for client in clients:
        client.__enter__()
    browser.open(f"http://{server.admin}/")
    browser.wait("return document.querySelectorAll('#rows tr').length >= 20", "twenty topics")
    busy = "return /[1-9][\\d.]* ?k?\\s*\\/s/.test(document.getElementById('tiles').innerText)"
    browser.wait(busy, "rates that are not zero")
    browser.screenshot(TARGET / "integration" / "page.png")
    assert (TARGET / "integration" / "page.png").stat().st_size > 20_000
    assert browser.errors() == []
    for client in clients:
        client.__exit__(None, None, None)


def test_three_lines_of_javascript(start, browser):
    """What the README shows, on a page from another port of the same host."""
    server = start()
    browser.open(f"http://{server.admin}/healthz")
    browser.run(
        """
        window.got = [];
        const socket = new WebSocket(arguments[0]);
        socket.onmessage = (event) => window.got.push(JSON.parse(event.data));
        socket.onopen = () => socket.send(JSON.stringify({op: "subscribe", topics: ["js.>"]}));
        """,
        server.ws("/ws"),
    )
    browser.wait("return window.got.length === 1", "the answer")
    server.publish_now("js.a", '{"ü":[1,2]}')
    browser.wait("return window.got.length === 2", "the message")
    acked, message = browser.run("return window.got")
    assert acked["op"] == "subscribed"
    assert message["topic"] == "js.a" and message["data"] == {"ü": [1, 2]}


def test_pages_of_other_hosts_are_refused_by_the_browser_too(start, browser):
    server = start()
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        # Browsers take every name below localhost for the loopback; the server does not.
        browser.open(f"http://foreign.localhost:{pages.server_port}/")
        pages.shutdown()
    browser.run(
        """
        window.outcome = null;
        const socket = new WebSocket(arguments[0]);
        socket.onopen = () => { window.outcome = "open"; };
        socket.onclose = (event) => { window.outcome ??= event.code; };
        """,
        server.ws("/ws"),
    )
    assert browser.wait("return window.outcome", "an outcome") == 1006
    assert server.metrics().sum("handshakes_total", result="403") == 1
