"""Headless Chromium, driven over W3C WebDriver with nothing but the standard library.

Knows: WebDriver's HTTP. Must not know: the page.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from server import wait_for

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,900",
]


class Browser:
    """One session of one Chromium."""

    def __init__(self):
        driver = shutil.which("chromedriver")
        assert driver, "scripts/test installs chromium and chromium-driver"
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        self.process = subprocess.Popen(
            [driver, "--port=0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # A process group of its own, so that Chromium ends with its driver.
            start_new_session=True,
        )
        self.url = None
        for line in self.process.stdout:
            if "started successfully on port" in line:
                port = line.rstrip(".\n ").rsplit(" ", 1)[1]
                self.url = f"http://127.0.0.1:{port}"
                break
        assert self.url, "chromedriver did not start"
        options = {"args": [*FLAGS, f"--user-data-dir={self.profile}"]}
        if chromium := shutil.which("chromium"):
            options["binary"] = chromium
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        wanted["goog:loggingPrefs"] = {"browser": "ALL"}
        made = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{made['sessionId']}"
        self.version = made["capabilities"]["browserVersion"]

    def ask(self, method, path, body=None):
        data = None if method == "GET" else json.dumps(body or {}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url):
        self.ask("POST", f"{self.session}/url", {"url": url})

    def run(self, script, *arguments):
        """A script's value; it ends with `return`."""
        body = {"script": script, "args": list(arguments)}
        return self.ask("POST", f"{self.session}/execute/sync", body)

    def wait(self, script, what, timeout_s=20):
        return wait_for(lambda: self.run(script), what, timeout_s)

    def screenshot(self, path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(base64.b64decode(self.ask("GET", f"{self.session}/screenshot")))

    def errors(self):
        """What the console complained of; a missing icon is no matter."""
        log = self.ask("POST", f"{self.session}/se/log", {"type": "browser"})
        return [
            line["message"]
            for line in log
            if line["level"] == "SEVERE" and "favicon" not in line["message"]
        ]

    @contextlib.contextmanager
    def asleep(self):
        """Stopped with all its processes, as on a laptop that is shut."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    def close(self):
        try:
            self.ask("DELETE", self.session)
        finally:
            os.killpg(self.process.pid, 15)
            self.process.wait(10)
            self.process.stdout.close()
            shutil.rmtree(self.profile, ignore_errors=True)
