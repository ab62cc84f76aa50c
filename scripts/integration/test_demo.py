"""`scripts/demo --quick`: the README's first command, in small."""

import os
import re
import signal
import subprocess
import time

import pytest

from server import BINARIES, ROOT


@pytest.fixture
def demo():
    process = subprocess.Popen(
        [str(ROOT / "scripts" / "demo"), "--quick"],
        env={**os.environ, "URINGCAST_BIN_DIR": str(BINARIES)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where this runs in the background SIGINT may be ignored, and a shell can't undo that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    yield process
    if process.poll() is None:
        process.terminate()
    process.wait(30)
    process.stdout.close()


def alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def pids(text):
    return re.findall(r"(?:server|feed) pid (\d+)", text)


def test_quick(demo):
    out = demo.communicate(timeout=120)[0]
    assert demo.returncode == 0, out
    assert out.count("p99.999") == 2 and out.count("none doubled, reordered or damaged") == 2
    assert "curl -d" in out and "new WebSocket(" in out and "/v1/topics/md.HELLO.trade" in out
    assert len(pids(out)) == 2 and not any(alive(pid) for pid in pids(out))


def test_ctrl_c_stops_everything(demo):
    seen = ""
    while len(pids(seen)) < 2:
        line = demo.stdout.readline()
        assert line, seen
        seen += line
    time.sleep(0.5)
    assert all(alive(pid) for pid in pids(seen))
    demo.send_signal(signal.SIGINT)
    rest = demo.communicate(timeout=30)[0]
    assert demo.returncode == 0 and "stopping" in rest, rest
    assert not any(alive(pid) for pid in pids(seen))


def test_wrong_use():
    done = subprocess.run(
        [str(ROOT / "scripts" / "demo"), "--fast"], capture_output=True, check=False
    )
    assert done.returncode == 2 and b"usage" in done.stderr
