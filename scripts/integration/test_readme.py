"""What the README shows is what happens: its examples are run, in their order, on one server."""

import json
import re
import subprocess
import sys

import pytest

from client import Json
from server import ROOT, run_binary

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def on(server, text):
    """With the test server's addresses in place of the defaults."""
    for default, port in (
        ("127.0.0.1:9001", server.data),
        ("127.0.0.1:9002", server.admin),
        ("127.0.0.1:9003", server.publish),
    ):
        text = text.replace(default, port)
    return text


def shell(command):
    done = subprocess.run(
        ["bash", "-euc", command], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def test_the_tour(start):
    server = start("--topic", "md.*.bookTicker:kind=value", reactors=2)
    curls = [line for block in blocks("sh") for line in block.splitlines() if "curl " in line]
    publish, *looks = [on(server, line) for line in curls]
    with Json(server.ws("/ws")) as client:
        client.subscribe("md.*.trade", "md.*.bookTicker")
        answer = json.loads(shell(publish))
        assert answer["topic"] == "md.BTCUSDT.trade" and answer["seq"] == 1
        shown = json.loads(blocks("json")[0])
        message = client.receive()
        assert set(message) == set(shown) and message["data"] == shown["data"]
        scripts = blocks("python")
        assert len(scripts) == 3
        for script in scripts:
            done = subprocess.run(
                [sys.executable, "-c", on(server, script)],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            expected = re.search(r"print\(.*\)  # (.*)", script)
            if expected:
                # The dots stand for what differs from run to run.
                pattern = re.escape(expected[1]).replace("…", ".*")
                assert re.fullmatch(pattern, done.stdout.strip()), done.stdout
        topics = [client.receive()["topic"] for _ in range(4)]
        assert sorted(topics) == [
            "md.BTCUSDT.bookTicker",
            "md.BTCUSDT.trade",
            "md.BTCUSDT.trade",
            "md.ETHUSDT.bookTicker",
        ]
    assert len(looks) == 4
    for look in looks:
        assert shell(look.replace("curl ", "curl --fail --silent --show-error "))


def test_flags_are_what_the_readme_says():
    _, help_text, _ = run_binary("uringcast", "serve", "--help")
    table = README.split("## Flags")[1].split("##")[0]
    flags = set(re.findall(r"--[a-z][a-z-]+", README.split("## Flags")[1].split("## The load")[0]))
    # Not serve's: doctor's, and docker's.
    flags -= {"--help", "--json", "--init", "--security-opt", "--ulimit"}
    assert len(flags) > 12
    for flag in flags:
        assert flag in help_text, flag
    for default in ("0.0.0.0:9001", "127.0.0.1:9003", "127.0.0.1:9002"):
        assert default in table and default in help_text


def test_the_rules_file_is_right(tmp_path, start):
    (example,) = blocks("toml")
    file = tmp_path / "uringcast.toml"
    file.write_text(example)
    assert run_binary("uringcast", "check-config", str(file))[0] == 0
    server = start("--config", str(file))
    kinds = {}
    for name in ("md.A.trade", "md.A.bookTicker", "md.A.depth", "log.a.b", "else"):
        server.publish_now(name, "1")
        kinds[name] = server.get(f"/v1/topics/{name}").json()["kind"]
    assert list(kinds.values()) == ["event", "value", "delta", "event", "event"]


def test_every_key_of_a_rule_is_explained():
    _, help_text, _ = run_binary("uringcast", "serve", "--help")
    said = README.split("## Topic rules")[1].split("## Who may")[0]
    typed = help_text.split("Keys: ")[1].split("The README")[0]
    keys = re.findall(r"\b(?:[a-z]+-)+[a-z]+|kind|content|snapshot|overflow|batch|sample", typed)
    assert len(set(keys)) >= 14
    for key in set(keys) | {"pace", "expire"}:
        assert f"`{key}`" in said or f"`{key.replace('-', '_')}`" in said or f"`{key}=`" in said, (
            key
        )


@pytest.mark.parametrize("command", ["fanout", "synth", "replay", "connect"])
def test_the_load_generators_commands_exist(command):
    assert f"loadgen {command}" in README
    assert run_binary("loadgen", command, "--help")[0] == 0
