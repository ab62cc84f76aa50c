"""The command line: what is wrong is named, and the exit code says whose fault it is."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from client import Json, dial
from server import BINARIES, run_binary


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        ("--listen", "nonsense", "nonsense"),
        ("--listen", "127.0.0.1", "127.0.0.1"),
        ("--reactors", "0", "0"),
        ("--reactors", "65", "65"),
        ("--reactors", "many", "many"),
        ("--cpus", "0,,1", "0,,1"),
        ("--cpus", "9999", "9999"),
        ("--kernel-tier", "old", "old"),
        ("--connections-max", "-1", "-1"),
        ("--message-bytes-max", "64KB!", "64KB!"),
        ("--ping-interval", "25", "25"),
        ("--ping-interval", "0s", "0s"),
        ("--publish-from", "10.0.0.0/33", "10.0.0.0/33"),
        ("--allow-origin", "https://example.com/path", "https://example.com/path"),
        ("--trust-proxy", "nginx", "nginx"),
        ("--proxy-header", "x-real-ip", "x-real-ip"),
        ("--proxy-protocol", "required", "--trust-proxy"),
        ("--connections-per-address-max", "some", "some"),
        ("--http-header", "Connection: close", "Connection"),
        ("--http-header", "X-A: b\r\nX-C: d", "one line"),
        ("--http-error-body", "201:x", "201"),
        ("--http-error-type", "html", "html"),
        ("--topic", "a..b:kind=value", "a..b"),
        ("--topic", "a:kind=nonsense", "nonsense"),
        ("--topic", "a:colour=red", "colour"),
        ("--log-format", "xml", "xml"),
        ("--receive-buffers", "1000", "1000"),
        ("--config", "/no/such/file.toml", "/no/such/file.toml"),
    ],
)
def test_a_wrong_value_is_named(flag, value, named):
    code, out, error = run_binary("uringcast", "serve", f"{flag}={value}")
    assert code == 2 and out == ""
    assert flag.lstrip("-") in error and named in error, error


def test_an_unknown_flag_or_command_is_wrong_use():
    for arguments in (["serve", "--lisen", "x"], ["sreve"], []):
        code, _, error = run_binary("uringcast", *arguments)
        assert code == 2 and error, arguments


def test_help_explains_every_flag_with_its_default():
    code, out, _ = run_binary("uringcast", "serve", "--help")
    assert code == 0
    for words in (
        "--listen", "0.0.0.0:9001", "--publish-listen", "127.0.0.1:9003", "--admin",
        "127.0.0.1:9002", "--reactors", "--cpus", "--config", "--kernel-tier", "--echo",
        "--connections-max", "--message-bytes-max", "64KiB", "--publish-bytes-max", "1MiB",
        "--trust-proxy", "--proxy-header", "x-forwarded-for", "--proxy-protocol", "--http-header",
        "--http-error-body", "--http-error-type", "--connections-per-address-max",
        "--publish-from", "--allow-origin", "--ping-interval", "25s", "--log-format", "--topic",
    ):  # fmt: skip
        assert words in out, words


def test_check_config(tmp_path):
    good = tmp_path / "good.toml"
    good.write_text(
        'listen = "127.0.0.1:0"\nping_interval = "10s"\n'
        '[[topic]]\npattern = "md.*.bookTicker"\nkind = "value"\n'
    )
    assert run_binary("uringcast", "check-config", str(good))[0] == 0
    bad = tmp_path / "bad.toml"
    bad.write_text('lisen = "x"\nreactors = 0\n[[topic]]\npattern = "a..b"\n')
    code, _, error = run_binary("uringcast", "check-config", str(bad))
    assert code == 2
    # Every mistake, not only the first.
    for named in ("lisen", "reactors", "a..b"):
        assert named in error, error


def test_check_config_of_http_answers(tmp_path):
    good = tmp_path / "good.toml"
    good.write_text(
        'trust_proxy = ["10.0.0.0/8", "::1"]\nproxy_protocol = "optional"\n'
        '[http]\nheaders = ["X-A: b", "X-A: c"]\nerror_body = "{error}"\n'
    )
    assert run_binary("uringcast", "check-config", str(good))[0] == 0
    bad = tmp_path / "bad.toml"
    bad.write_text(
        'proxy_header = "via"\n[http]\nheaders = { Upgrade = "h2c", "X A" = "b", X-B = 1 }\n'
        'error_type = "html"\nbanner = 1\n[http.error_body]\n200 = "x"\nothers = "y"\n'
    )
    code, _, error = run_binary("uringcast", "check-config", str(bad))
    assert code == 2
    for named in ("via", "Upgrade", "X A", "X-B", "html", "banner", "200", "others"):
        assert named in error, (named, error)
    assert len(error.strip().splitlines()) == 8


def test_config_file_holds_and_flags_win(tmp_path, start):
    config = tmp_path / "uringcast.toml"
    config.write_text(
        'echo = true\nmessage_bytes_max = "1KiB"\nsubscriptions-max = 5\n'
        '[[topic]]\npattern = "v.>"\nkind = "value"\n'
    )
    server = start("--config", str(config), "--subscriptions-max", "3", "--topic", "v.x:kind=event")
    with Json(server.ws("/ws?hello=1")) as client:
        limits = client.receive()["limits"]
        assert limits["message_bytes_max"] == 1024 and limits["subscriptions_max"] == 3
        kinds = [ack["kind"] for ack in client.subscribe("v.x", "v.y", "w")]
        assert kinds == ["event", "value", "event"]
    with dial(server.ws("/echo")) as socket_:
        socket_.send("x")
        assert socket_.recv(5) == "x"


def test_a_port_in_use_is_a_failure_that_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for flag in ("--listen", "--publish-listen", "--admin"):
            others = {"--listen", "--publish-listen", "--admin"} - {flag}
            arguments = [f"{flag}={address}", *(f"{other}=127.0.0.1:0" for other in others)]
            code, _, error = run_binary("uringcast", "serve", *arguments)
            assert code == 1 and address in error and flag.lstrip("-") in error, error


def test_two_servers_do_not_share_a_port_in_silence(start):
    """SO_REUSEPORT is for one process's reactors; a second server must be told."""
    server = start(reactors=2)
    others = ["--publish-listen=127.0.0.1:0", "--admin=127.0.0.1:0"]
    try:
        code, _, error = run_binary(
            "uringcast", "serve", f"--listen={server.data}", *others, timeout_s=5
        )
    except subprocess.TimeoutExpired:
        pytest.fail("the second server serves as well")
    assert code == 1 and server.data in error


def test_version():
    code, out, _ = run_binary("uringcast", "--version")
    assert code == 0 and out.startswith("uringcast ")


def test_json_logs(start):
    server = start("--log-format", "json", reactors=2)
    lines = [json.loads(line) for line in server.stderr().splitlines()]
    assert lines and all(line["level"] == "INFO" for line in lines)


def test_pinning(start):
    server = start("--cpus", "0", reactors=2)
    found = []
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("reactor-"):
            found.append((name, os.sched_getaffinity(int(task.name))))
    assert sorted(found) == [("reactor-0", {0}), ("reactor-1", {0})]


@pytest.mark.parametrize("tier", ["auto", "base"])
def test_the_kernel_tier_is_shown_feature_by_feature(start, tier):
    server = start("--kernel-tier", tier)
    metrics = server.get("/metrics").body.decode()
    shown = re.findall(r'^uringcast_ring_tier\{tier="(\w+)"\} 1$', metrics, re.M)
    used = {
        feature: value == "1"
        for feature, value in re.findall(
            r'^uringcast_ring_feature\{feature="(\w+)",since="[\d.]+"\} ([01])$',
            metrics,
            re.M,
        )
    }
    assert len(used) >= 13 and len(shown) == 1
    assert f"tier {shown[0]}" in server.stderr()
    if tier == "base":
        assert shown == ["base"] and not any(used.values())
    else:
        assert (shown == ["modern"]) == all(used.values())


def test_too_few_files_name_the_line_that_fixes_it():
    command = f"ulimit -n 64; exec {BINARIES / 'uringcast'} serve --listen 127.0.0.1:0"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 2 and "RLIMIT_NOFILE" in done.stderr and "ulimit" in done.stderr
