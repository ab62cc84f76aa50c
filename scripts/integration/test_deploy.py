"""What is shipped to run the server with: the seccomp profile and the systemd unit, for real."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from client import Json, refused
from server import BINARIES, CONFINED, ROOT, run_binary

DEPLOY = ROOT / "scripts" / "deploy"
PROFILE = DEPLOY / "seccomp.json"
UNIT = DEPLOY / "uringcast.service"
IO_URING = {"io_uring_setup", "io_uring_enter", "io_uring_register"}
CONTAINED = Path(__file__).with_name("contained.py")
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(not ANALYZE, reason="systemd is not installed")
needs_runc = pytest.mark.skipif(
    not shutil.which("runc") or os.geteuid() != 0, reason="needs runc, and root"
)


class Unit:
    """A unit file, whose keys may come more than once: all values of one, in order."""

    def __init__(self, path):
        self.values = {}
        for line in path.read_text().splitlines():
            if found := re.fullmatch(r"([A-Za-z]+)=(.*)", line):
                self.values.setdefault(found[1], []).append(found[2])

    def one(self, key):
        (value,) = self.values[key]
        return value


def confined_server_works(start, directory, under):
    """A whole life: a subscriber, publications by HTTP, the journal, a refusal, a drain; and again,
    so that the journal is read."""
    for life in range(2):
        server = start("--journal", str(directory / "journal"), reactors=2, under=under)
        assert refused(server.ws("/nowhere")) == 404
        with Json(server.ws("/ws"), compression="deflate") as client:
            client.subscribe("t.confined")
            for number in range(100):
                server.publish_now("t.confined", json.dumps({"number": number, "text": "x" * 400}))
            received = [client.receive() for _ in range(100)]
            first = 101 * life + 1
            assert [each["seq"] for each in received] == list(range(first, first + 100))
            server.publish_now("t.confined", json.dumps("long" * 50_000))
            assert len(client.receive()["data"]) == 200_000
            assert server.metrics().sum("process_open_fds") > 0
            server.check_alive()
            server.signal()
            assert client.receive()["op"] == "goaway"
            with pytest.raises(ConnectionClosed) as closed:
                client.socket.recv(10)
            assert closed.value.rcvd.code == 1001
        assert server.wait() == 0
        server.check_log()


def doctor_is_well(under):
    code, out, error = run_binary("uringcast", "doctor", under=under)
    assert code == 0 and "a filter that lets io_uring pass" in out, out + error


def test_a_whole_life_under_the_profile(start, tmp_path):
    under = (*CONFINED, "--profile", str(PROFILE))
    doctor_is_well(under)
    confined_server_works(start, tmp_path, under)


@needs_runc
@pytest.mark.parametrize("privileges", [[], ["--new-privileges"]], ids=["none-new", "docker-s"])
@pytest.mark.parametrize("user", [0, 4242], ids=["root", "user"])
def test_a_whole_life_in_a_container(start, tmp_path, privileges, user):
    """With new privileges, as docker has it, the filter is there before runc changes the user."""
    directory = tmp_path / "data"
    directory.mkdir()
    os.chown(directory, user, user)
    under = (
        *(sys.executable, str(CONTAINED), "--bundle", str(tmp_path / "bundle")),
        *("--profile", str(PROFILE), "--user", str(user), *privileges),
        *("--writable", str(directory)),
    )
    doctor_is_well(under)
    confined_server_works(start, directory, under)


@needs_runc
def test_doctor_in_a_container_that_bans_io_uring_says_so(tmp_path):
    profile = json.loads(PROFILE.read_text()) | {"defaultErrnoRet": 1}
    for group in profile["syscalls"]:
        group["names"] = [name for name in group["names"] if name not in IO_URING] or ["read"]
    banned = tmp_path / "banned.json"
    banned.write_text(json.dumps(profile))
    under = (
        *(sys.executable, str(CONTAINED), "--bundle", str(tmp_path / "bundle")),
        *("--profile", str(banned)),
    )
    code, out, _ = run_binary("uringcast", "doctor", under=under)
    assert code == 1 and "a seccomp filter answers EPERM" in out, out
    assert "--security-opt seccomp=scripts/deploy/seccomp.json" in out


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.fork()",
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import os; os.chmod('.', 0o700)",
        "import os; os.kill(1, 0)",
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
        "exit(c.unshare(0x10000000) and ctypes.get_errno())",
    ],
    ids=["fork", "packets", "chmod", "kill", "unshare"],
)
def test_the_profile_has_nothing_else(program):
    command = (*CONFINED, "--profile", str(PROFILE), CONFINED[0], "-c", program)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 38 or "[Errno 38]" in done.stderr, (done.returncode, done.stderr)


def test_the_profile_is_in_the_form_that_engines_read():
    profile = json.loads(PROFILE.read_text())
    assert set(profile) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    for group in profile["syscalls"]:
        assert set(group) <= {"comment", "names", "action", "args"}
        assert group["names"] == sorted(set(group["names"])) and group["comment"]
    unconditional = [
        name for group in profile["syscalls"] if "args" not in group for name in group["names"]
    ]
    assert len(unconditional) == len(set(unconditional)) and set(unconditional) >= IO_URING
    # Called with arguments that are looked at only; allowed twice they would not be.
    assert not {"socket", "clone", "clone3"} & set(unconditional)


def test_the_unit_fits_the_server():
    unit = Unit(UNIT)
    assert unit.one("KillSignal") == "SIGTERM" and unit.one("LimitMEMLOCK") == "infinity"
    assert int(unit.one("LimitNOFILE")) == 1 << 20
    # Draining takes 10 s at most.
    assert 10 < int(unit.one("TimeoutStopSec").removesuffix("s")) <= 30
    path, command, *flags = unit.one("ExecStart").split()
    assert path.endswith("/uringcast") and command == "serve"
    help_text = run_binary("uringcast", "serve", "--help")[1]
    for flag in flags:
        assert flag.startswith("$") or flag.split("=")[0] in help_text
    filters = " ".join(unit.values["SystemCallFilter"]).split()
    assert set(filters) >= IO_URING
    assert unit.one("RestartPreventExitStatus") == "2"


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    there = tmp_path / UNIT.name
    binary = BINARIES / "uringcast"
    there.write_text(UNIT.read_text().replace("/usr/local/bin/uringcast", str(binary)))
    command = [ANALYZE, "verify", "--man=no", str(there)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert done.returncode == 0 and not ours, done.stderr


@needs_systemd
def test_systemd_calls_the_unit_well_confined():
    command = [ANALYZE, "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


@needs_systemd
def test_a_whole_life_under_the_unit_s_filter(start, tmp_path):
    """The calls that the unit leaves, and no new code."""
    allowed = set()
    for words in Unit(UNIT).values["SystemCallFilter"]:
        for word in words.removeprefix("~").split():
            names = calls(word)
            allowed = allowed - names if words.startswith("~") else allowed | names
    # Who becomes the server has been filtered already.
    under = (*CONFINED, "--no-new-code", "--allow", ",".join(sorted(allowed | {"execve"})))
    doctor_is_well(under)
    confined_server_works(start, tmp_path, under)


def calls(word):
    """What systemd means by it: a call, or a set of them and of other sets."""
    if not word.startswith("@"):
        return {word}
    command = [ANALYZE, "syscall-filter", "--no-pager", word]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    words = [line.strip() for line in out.splitlines()[1:]]
    return set().union(*(calls(each) for each in words if each and not each.startswith("#")))
