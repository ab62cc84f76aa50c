"""Fixtures: servers that must be well after each test, and must end well."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from client import Json  # noqa: E402
from server import Server  # noqa: E402


@pytest.fixture(scope="session")
def _shared_servers():
    """One server per number of reactors, for all tests that need no flags of their own."""
    servers = {}
    yield servers
    for server in servers.values():
        try:
            server.stop()
        finally:
            server.kill()


@pytest.fixture(params=[1, 2], ids=["1-reactor", "2-reactors"])
def server(request, _shared_servers):
    """A server with its defaults, shared: topics are to be named after the test."""
    reactors = request.param
    if reactors not in _shared_servers:
        _shared_servers[reactors] = Server(reactors=reactors)
    shared = _shared_servers[reactors]
    yield shared
    shared.check_alive()


@pytest.fixture
def start():
    """Starts servers with flags of the test's own; each must be alive at the end, and end well,
    unless the test has ended it."""
    servers = []

    def started(*flags, reactors=1, under=()):
        servers.append(Server(*flags, reactors=reactors, under=under))
        return servers[-1]

    yield started
    try:
        for each in servers:
            if each.process.returncode is None:
                each.check_alive()
                each.stop()
    finally:
        for each in servers:
            each.kill()


@pytest.fixture
def topic(request):
    """A topic's name that is this test's alone."""
    name = f"{request.module.__name__}.{request.node.name}"
    return "t." + "".join(c if c.isalnum() else "-" for c in name)[:180]


@pytest.fixture
def bystander(server, topic):
    """Another subscriber, who must lose nothing whatever the test does to the server."""
    with Json(server.ws("/ws")) as client:
        name = f"{topic}.bystander"
        client.subscribe(name)
        before = server.publish_now(name, "0")["seq"]
        assert client.receive()["seq"] == before
        yield client
        count = 20
        for number in range(count):
            server.publish_now(name, str(number))
        received = [client.receive() for _ in range(count)]
        assert [each["seq"] for each in received] == list(range(before + 1, before + 1 + count))
        assert [each["data"] for each in received] == list(range(count))


@pytest.fixture
def counted(server):
    """A counter's rise since the test began: `counted("offences_total", kind="utf8")`."""
    before = server.metrics()
    return lambda name, **labels: server.metrics().sum(name, **labels) - before.sum(name, **labels)


def pytest_report_header():
    kernel = subprocess.run(["uname", "-sr"], capture_output=True, text=True, check=False)
    return f"kernel: {kernel.stdout.strip()}"
