"""The load generator against servers of others: everybody gets everything, what is wrong is named.

The commands are those of the README's section on other servers, with smaller numbers.
"""

import json

import pytest

import targets
from server import run_binary

CONNECT = r'CONNECT {"verbose":false}\r\n'
SUBSCRIBE = r"SUB bench {n}\r\nPING\r\n"
SMALL = ("--subscribers", "30", "--rate", "200", "--warmup", "100ms", "--duration", "400ms")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return targets.certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def nchan(certificate):
    with targets.nchan(*certificate) as server:
        yield server


@pytest.fixture(scope="module")
def python_tls(certificate):
    with targets.python_tls(*certificate) as server:
        yield server


@pytest.fixture
def fanout(tmp_path):
    """One small run: its report and what it printed. The last of two equal flags holds."""

    def run(url, publish_url, *flags, expect=0, command="fanout"):
        file = tmp_path / "report.json"
        urls = ["--url", url, *(["--publish-url", publish_url] if publish_url else [])]
        small = SMALL if command == "fanout" else ()
        code, out, error = run_binary("loadgen", command, *urls, *small, *flags, "--json", file)
        assert code == expect, f"{code}\n{out}\n{error}"
        return json.loads(file.read_text()), out

    return run


def whole(report, subscribers=30):
    """All was published, and everybody has all of it."""
    published = report["published"]["published"]
    assert report["clean"] is True and report["missed"] == [] and published == 100
    assert report["deliveries"]["messages"] == published * subscribers
    assert report["latency"]["corrected"]["count"] == 80 * subscribers
    return report


# Ours, as if it were another's.


def test_ours_by_a_message_that_subscribes(start, fanout):
    server = start(reactors=2)
    subscribe = '{"op":"subscribe","id":{n},"topics":["bench"]}'
    report, _ = fanout(
        server.ws("/ws"),
        server.publish_ws("/publish/bench"),
        *("--send", subscribe, "--ready", '"op":"subscribed"'),
    )
    whole(report)
    assert report["deliveries"]["control_messages"] >= 30


@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_ours_by_http(start, fanout, pipeline):
    server = start(reactors=2)
    report, out = fanout(
        server.ws("/raw/bench"),
        f"http://{server.admin}/v1/topics/bench",
        *("--publishers", "2", "--pipeline", pipeline),
    )
    whole(report)
    assert report["posts"] == {"by_status": {"200": 100}, "unanswered": 0, "reopened": 0}
    assert "100 times 200" in out


def test_publishers_alone_by_http(start, fanout):
    server = start()
    report, _ = fanout(
        f"http://{server.admin}/v1/topics/bench",
        None,
        *("--template", '{"wrapped":%s}', "--count", "100", "--rate", "500"),
        command="publish",
    )
    assert report["clean"] is True and report["posts"]["by_status"] == {"200": 100}
    assert server.metrics().sum("publications_total") == 100


def test_requests_that_are_refused_are_counted(start, fanout):
    server = start()
    report, out = fanout(
        server.ws("/raw/bench"),
        f"http://{server.admin}/v1/topics/not..a.topic",
        *("--grace", "300ms"),
        expect=1,
    )
    assert report["posts"]["by_status"] == {"400": 100}
    assert report["faults"]["lost"] == 100 * 30
    assert "100 requests to publish were answered with 400" in out


def test_a_market_over_tls(start, fanout, certificate):
    """Our own server behind nginx that ends TLS: `synth`, with comings and goings."""
    server = start("--topic", "*.*.bookTicker:kind=value", reactors=2)
    with targets.tls_before(server, *certificate) as nginx:
        report, _ = fanout(
            nginx.url("wss"),
            f"wss://127.0.0.1:{nginx.publish_port}",
            *("--ca", certificate[0], "--subscribers", "60", "--rate", "300"),
            *("--format", "json", "--churn", "5", "--duration", "1500ms", "--deflate"),
            command="synth",
        )
        assert report["clean"] is True and report["deliveries"]["messages"] > 1_000
        assert report["deflate"]["agreed"] == report["deflate"]["offered"] >= 60


# Nchan.


@pytest.mark.parametrize("flags", [(), ("--deflate", "--size", "600")], ids=["plain", "deflate"])
def test_nchan(nchan, fanout, flags):
    report, _ = fanout(nchan.url("ws", "/sub"), nchan.url("ws", "/pub"), *flags)
    whole(report)
    if flags:
        deflate = report["deflate"]
        assert deflate["agreed"] == deflate["offered"] == 30 and deflate["messages"] == 100 * 30


def test_nchan_by_http(nchan, fanout):
    """nginx ends a connection after so many requests: the next request opens one."""
    report, _ = fanout(nchan.url("ws", "/sub"), nchan.url("http", "/pub"))
    whole(report)
    posts = report["posts"]
    assert posts["by_status"] == {"201": 100} and posts["unanswered"] == 0
    assert posts["reopened"] == 3


def test_nchan_over_tls_by_https(nchan, fanout, certificate):
    report, _ = fanout(
        f"wss://localhost:{nchan.tls_port}/sub",
        f"https://localhost:{nchan.tls_port}/pub",
        *("--ca", certificate[0], "--publishers", "2"),
    )
    whole(report)
    assert report["posts"]["by_status"] == {"201": 100}


# npm's ws.


@pytest.mark.parametrize(
    "words",
    [
        ("pings",),
        ("deflate", "pings"),
        ("fragments", "pings"),
        ("deflate", "fragments"),
        ("string",),
    ],
    ids="-".join,
)
def test_npm_ws(fanout, words):
    flags = ["--deflate"] if "deflate" in words else []
    with targets.npm_ws(*words) as server:
        report, _ = fanout(server.url("ws"), server.url("ws"), *flags)
    whole(report)
    if "deflate" in words:
        assert report["deflate"]["messages"] == report["deliveries"]["messages"]


def test_header_fields_subprotocols_and_templates(fanout):
    with targets.npm_ws("token") as server:
        report, _ = fanout(
            server.url("ws"),
            server.url("ws"),
            *("--header", "X-Token: t-{n}", "--subprotocol", "other,bench"),
            *("--template", '{"event":"tick","at":%b,"data":%j}'),
        )
        whole(report)
        url = server.url("ws")
        code, _, error = run_binary("loadgen", "connect", "--url", url, "--connections", "2")
        assert code == 1 and "HTTP status 401" in error


def test_what_is_not_recognised_is_named(fanout):
    with targets.npm_ws("base64") as server:
        report, out = fanout(server.url("ws"), server.url("ws"), "--grace", "300ms", expect=1)
    assert report["deliveries"]["messages"] == 0
    assert report["deliveries"]["unrecognised"] == report["faults"]["lost"] == 100 * 30
    assert "NOT RECOGNISED" in out and "eyJ1YyI6" in out


def test_close_codes_are_named(fanout):
    with targets.npm_ws("close") as server:
        report, _ = fanout(server.url("ws"), server.url("ws"), "--grace", "200ms", expect=1)
    assert report["connections"]["closes"] == {"close 4001": 30}


# tokio-tungstenite and nats-server.


def test_tungstenite(fanout):
    with targets.tungstenite() as server:
        report, _ = fanout(server.url("ws"), server.url("ws"), "--binary")
    whole(report)


@pytest.mark.parametrize("flags", [(), ("--deflate",)], ids=["plain", "deflate"])
def test_nats(fanout, flags):
    """Its messages may stand several in a frame, and each is counted."""
    with targets.nats() as server:
        report, _ = fanout(
            server.url("ws"),
            server.url("ws"),
            *("--send-binary", CONNECT, "--send-binary", SUBSCRIBE, "--ready", "PONG", *flags),
            *("--publish-send-binary", CONNECT),
            *("--binary", "--template", r"PUB bench %b\r\n%s\r\n"),
        )
        whole(report)
        if flags:
            assert report["deflate"]["agreed"] == 30
        # Frames of several: all that is due in a millisecond goes out at once.
        report, _ = fanout(
            server.url("ws"),
            server.url("ws"),
            *("--send-binary", CONNECT + SUBSCRIBE, "--ready", "PONG", "--rate", "20000"),
            *("--publish-send-binary", CONNECT),
            *("--binary", "--template", r"PUB bench %b\r\n%s\r\n", "--subscribers", "5"),
        )
        assert report["clean"] is True and report["deliveries"]["messages"] == 10_000 * 5


def test_pings_of_a_protocol_of_its_own(fanout):
    """nats-server ends who leaves three of its pings without an answer."""
    with targets.nats(ping_interval="400ms") as server:
        report, _ = fanout(
            server.url("ws"),
            None,
            *("--send-binary", CONNECT, "--answer", r"PING\r\n", r"PONG\r\n"),
            *("--connections", "10", "--hold", "4s"),
            command="connect",
        )
    assert report["clean"] is True and report["connections"]["closes"] == {}
    # Its greeting, and more pings than it takes unanswered.
    assert report["deliveries"]["control_messages"] >= 10 * (1 + 4)


def test_what_a_publisher_is_told_is_shown_when_nothing_comes(fanout):
    with targets.nats() as server:
        _, out = fanout(
            server.url("ws"),
            server.url("ws"),
            *("--send-binary", CONNECT + SUBSCRIBE, "--ready", "PONG", "--grace", "200ms"),
            *("--publish-send-binary", CONNECT, "--template", r"PUBLISH bench %b\r\n%s\r\n"),
            expect=1,
        )
    assert "a publisher was told last: -ERR" in out


# TLS.


@pytest.mark.parametrize("trust", ["ca", "insecure"])
def test_tls(python_tls, fanout, certificate, trust):
    flags = ["--ca", certificate[0]] if trust == "ca" else ["--insecure"]
    report, _ = fanout(python_tls.url("wss"), python_tls.url("wss"), *flags)
    whole(report)


def test_tls_with_long_messages(python_tls, fanout, certificate):
    """Of several records each, cut anywhere by receives."""
    flags = ("--ca", certificate[0], "--size", "50000", "--rate", "40", "--subscribers", "10")
    report, _ = fanout(python_tls.url("wss"), python_tls.url("wss"), *flags)
    assert report["clean"] is True and report["deliveries"]["messages"] == 20 * 10


def test_tls_with_comings_and_goings(python_tls, fanout, certificate):
    flags = ("--ca", certificate[0], "--churn", "20", "--rate", "50", "--duration", "1500ms")
    report, _ = fanout(python_tls.url("wss"), python_tls.url("wss"), *flags)
    assert report["clean"] is True and report["connections"]["churning"] == 6


def test_tls_connections_that_are_held(python_tls, fanout, certificate):
    report, _ = fanout(
        python_tls.url("wss"),
        None,
        *("--ca", certificate[0], "--connections", "60", "--hold", "1s"),
        *("--send", "hello", "--ready", "hello"),
        command="connect",
    )
    assert report["clean"] is True and report["connections"]["idle"] == 60


def test_whom_nobody_vouches_for_is_not_trusted(python_tls, tmp_path, certificate):
    def connect(url, *flags):
        code, _, error = run_binary(
            "loadgen", "connect", "--url", url, "--connections", "2", *flags
        )
        return code, error

    url = python_tls.url("wss")
    code, error = connect(url)
    assert code == 1 and "invalid peer certificate" in error and "--insecure" in error
    other = targets.certificate(tmp_path, "DNS:else.example")
    with targets.python_tls(*other) as server:
        code, error = connect(server.url("wss"), "--ca", other[0])
        assert code == 1 and "certificate" in error and "else.example" in error
    (tmp_path / "empty.pem").write_text("")
    for file in (tmp_path / "empty.pem", tmp_path / "none.pem", certificate[1]):
        code, error = connect(url, "--ca", file)
        assert code == 2 and "--ca" in error and file.name in error


def test_wrong_use_is_named():
    url = ("--url", "ws://127.0.0.1:1/")
    for flags, named in [
        (["--template", "no payload"], "--template"),
        (["--header", "x"], "--header"),
        (["--header", "Upgrade: h2c"], "Upgrade"),
        (["--publish-url", "ftp://127.0.0.1/"], "--publish-url"),
        (["--pipeline", "0"], "--pipeline"),
        (["--subprotocol", "a b"], "--subprotocol"),
    ]:
        code, _, error = run_binary("loadgen", "fanout", *url, *flags)
        assert code == 2 and named in error, (flags, code, error)
    for flags in (["--url", "http://127.0.0.1/"], ["--publish-url", "http://127.0.0.1/"]):
        code, _, error = run_binary("loadgen", "synth", *flags)
        assert code == 2 and "ws://" in error, (flags, code, error)
