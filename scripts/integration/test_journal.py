"""`--journal`: what outlives the process, however it ends."""

import base64
import itertools
import json
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from client import Json, dial
from server import run_binary, wait_for

RULES = (
    "j.event:kind=event,history-messages=1000",
    "j.value:kind=value",
    "j.delta:kind=delta,history-messages=1000",
    "j.short:kind=event,history-messages=10,overflow=gap",
)


def flags(directory, *more):
    rules = [flag for rule in RULES for flag in ("--topic", rule)]
    return ["--journal", str(directory), *rules, *more]


def publish(server, topic, numbers):
    """Numbers, acknowledged; the epoch."""
    epoch = None
    with dial(server.publish_ws(f"/publish/{topic}?ack=1")) as publisher:
        for number in numbers:
            publisher.send(json.dumps({"n": number}))
        for number in numbers:
            answer = json.loads(publisher.recv(10))
            assert answer["seq"] == number, answer
            epoch = answer["epoch"]
    return epoch


def durable(server, records):
    """Waits until so many records were taken in, and all is on the disk."""

    def holds():
        metrics = server.metrics()
        taken = metrics.sum("journal_records_total")
        return taken >= records and metrics.sum("journal_queue_bytes") == 0

    wait_for(holds, f"{records} records to be on the disk")


def resumed(server, topic, epoch, seq, count):
    """The answer to a resume, and what follows it."""
    with Json(server.ws("/ws")) as client:
        position = {"epoch": epoch, "seq": seq}
        (answer,) = client.subscribe(topic, resume={topic: position})
        got = [client.receive() for _ in range(count)]
        client.settled()
        return answer, got


def is_run(got, first, last):
    assert [each["seq"] for each in got] == list(range(first, last + 1))
    assert [each["data"]["n"] for each in got] == list(range(first, last + 1))


@pytest.mark.parametrize("reactors", [1, 2])
@pytest.mark.parametrize("fsync", ["always", "20ms", "off"])
def test_a_killed_server_goes_on(start, tmp_path, fsync, reactors):
    given = flags(tmp_path / "journal", "--journal-fsync", fsync)
    server = start(*given, reactors=reactors)
    epoch = publish(server, "j.event", range(1, 301))
    publish(server, "j.value", range(1, 6))
    for number in range(1, 31):
        delta = server.post("j.delta", str(number), f"?pub_seq={number * 10}").json()["epoch"]
    answer = server.post("j.delta", '"book"', "?pub_seq=205&snapshot=1")
    assert answer.status == 200 and answer.json()["seq"] == 20, answer.body
    durable(server, 300 + 5 + 30 + 1 + 3)
    assert server.metrics().sum("journal_bytes_written_total") > 300 * 20
    server.kill()

    server = start(*given, reactors=reactors)
    answer, got = resumed(server, "j.event", epoch, 100, 200)
    assert answer["recovered"] is True and answer["seq"] == 300 and answer["epoch"] != epoch
    is_run(got, 101, 300)
    second = answer["epoch"]
    with Json(server.ws("/ws")) as client:
        client.subscribe("j.value", snapshot=True)
        last = client.receive()
        assert (last["seq"], last["data"], last["snapshot"]) == (5, {"n": 5}, True)
        client.subscribe("j.delta", snapshot=True)
        book = client.receive()
        assert (book["seq"], book["data"], book["snapshot"]) == (20, "book", True)
        assert [client.receive()["seq"] for _ in range(10)] == list(range(21, 31))
        # The publisher's numbers are known still.
        again = server.post("j.delta", "30", "?pub_seq=300").json()
        assert again["seq"] == 30 and again["duplicate"] is True and again["epoch"] != delta
        assert server.post("j.delta", "31", "?pub_seq=310").json()["seq"] == 31
        assert client.receive()["seq"] == 31
    for at, wrong in ((epoch, 301), (second, 301)):
        answer, _ = resumed(server, "j.event", at, wrong, 0)
        assert answer["recovered"] is False and answer["reason"] == "seq"
    answer, _ = resumed(server, "j.event", "0123456789abcdef", 1, 0)
    assert answer["recovered"] is False and answer["reason"] == "epoch"
    publish(server, "j.event", range(301, 311))
    durable(server, 11)
    server.kill()

    server = start(*given, reactors=reactors)
    for at, seq in ((epoch, 300), (second, 305), (second, 290)):
        answer, got = resumed(server, "j.event", at, seq, 310 - seq)
        assert answer["recovered"] is True
        is_run(got, seq + 1, 310)
    # What was first published in the second process is not of the first one's epoch.
    answer, _ = resumed(server, "j.event", epoch, 305, 0)
    assert answer["recovered"] is False and answer["reason"] == "seq"


def test_payloads_come_back_as_they_were(start, tmp_path):
    """Of every content, small and so large that it is kept in pieces."""
    given = flags(tmp_path / "journal", "--publish-bytes-max", "1MiB")
    payloads = {
        "small.json": ({"a": [1, "é"]}, "application/json"),
        "large.json": ({"a": "x" * 300_000}, "application/json"),
        "small.text": ("é\n€", "text/plain"),
        "large.text": ("€" * 100_000, "text/plain"),
        "small.binary": (b"\x00\xff", "application/octet-stream"),
        "large.binary": (bytes(range(256)) * 1000, "application/octet-stream"),
    }
    server = start(*given, reactors=2)
    for topic, (payload, content_type) in payloads.items():
        body = json.dumps(payload) if isinstance(payload, dict) else payload
        assert server.post(topic, body, content_type=content_type).status == 200
    durable(server, 2 * len(payloads))
    server.kill()
    server = start(*given, reactors=2)
    for topic, (payload, _) in payloads.items():
        with Json(server.ws("/ws")) as client:
            client.subscribe(topic, snapshot=True)
            got = client.receive()
            data = got["data"] if "data" in got else base64.b64decode(got["data_base64"])
            assert data == payload, topic


@pytest.mark.parametrize("reactors", [1, 2])
def test_killed_at_any_moment(start, tmp_path, reactors):
    """Again and again, while it is published to: what a resume calls recovered is what was
    published in that epoch, and in those after it."""
    given = flags(tmp_path / "journal", "--journal-fsync", "5ms")
    contents, dice = itertools.count(), random.Random(reactors)
    # By epoch: number and content of what was acknowledged or seen.
    epochs, positions, outcomes = {}, [], []
    for _ in range(5):
        server = start(*given, reactors=reactors)
        for epoch, seq in positions:
            with Json(server.ws("/ws")) as client:
                (answer,) = client.subscribe(
                    "j.event", resume={"j.event": {"epoch": epoch, "seq": seq}}
                )
                outcomes.append(answer["recovered"])
                if not answer["recovered"]:
                    assert answer["reason"] in ("seq", "history"), answer
                    continue
                got = [client.receive() for _ in range(answer["seq"] - seq)]
                client.settled()
            assert [each["seq"] for each in got] == list(range(seq + 1, answer["seq"] + 1))
            later = list(epochs)[list(epochs).index(epoch) :]
            # A number that was given in several epochs is the last one's: those before were lost.
            known = {}
            for each in later:
                first = min(epochs[each])
                known = {n: c for n, c in known.items() if n < first} | epochs[each]
            for each in got:
                assert known.get(each["seq"], each["data"]) == each["data"]
        with dial(server.publish_ws("/publish/j.event?ack=1")) as publisher:
            seen, epoch = {}, None
            for content in itertools.islice(contents, dice.randrange(50, 400)):
                publisher.send(str(content))
                answer = json.loads(publisher.recv(5))
                epoch = answer["epoch"]
                seen[answer["seq"]] = content
            time.sleep(dice.random() * 0.01)
            server.kill()
            epochs[epoch] = seen
            positions += [(epoch, dice.choice(list(seen))), (epoch, max(seen))]
    assert True in outcomes


def test_what_history_did_not_keep_is_told(start, tmp_path):
    given = flags(tmp_path / "journal")
    server = start(*given)
    epoch = publish(server, "j.short", range(1, 51))
    durable(server, 51)
    server.kill()
    server = start(*given)
    answer, got = resumed(server, "j.short", epoch, 20, 11)
    assert answer["recovered"] is False and answer["reason"] == "history"
    assert (got[0]["op"], got[0]["from"], got[0]["to"]) == ("gap", 21, 40)
    is_run(got[1:], 41, 50)


def test_a_torn_end_is_cut_off(start, tmp_path):
    directory = tmp_path / "journal"
    server = start(*flags(directory))
    epoch = publish(server, "j.event", range(1, 101))
    durable(server, 101)
    server.kill()
    written = [path for path in directory.iterdir() if path.stat().st_size > 1000]
    (segment,) = written
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size - 5)
    server = start(*flags(directory))
    answer, got = resumed(server, "j.event", epoch, 90, 9)
    assert answer["recovered"] is True
    is_run(got, 91, 99)
    answer, _ = resumed(server, "j.event", epoch, 100, 0)
    assert answer["recovered"] is False and answer["reason"] == "seq"
    # The number is given again, to another message, in another epoch.
    publish(server, "j.event", range(100, 102))
    answer, _ = resumed(server, "j.event", epoch, 100, 0)
    assert answer["recovered"] is False


def test_by_time_across_restarts(start, tmp_path):
    """Whether nothing is missing is known after an orderly end, and not after a kill."""
    given = flags(tmp_path / "journal")
    server = start(*given)
    from_us = int(time.time() * 1e6) + 2_500_000
    time.sleep(2.6)
    publish(server, "j.event", range(1, 11))

    def since(server):
        with Json(server.ws("/ws")) as client:
            (answer,) = client.subscribe("j.*", resume_from={"ts": from_us})
            got = [client.receive() for _ in range(10)]
            client.settled()
            is_run(got, 1, 10)
            return answer["recovered"]

    assert since(server) is True
    for _ in range(2):
        server.stop()
        server = start(*given)
        assert since(server) is True
    server.kill()
    server = start(*given)
    assert since(server) is False


def test_a_deleted_topic_stays_so(start, tmp_path):
    given = flags(tmp_path / "journal")
    server = start(*given)
    epoch = publish(server, "j.event", range(1, 11))
    assert server.request("DELETE", "/v1/topics/j.event").status == 200
    publish(server, "j.event", range(1, 6))
    publish(server, "j.value", range(1, 3))
    assert server.request("DELETE", "/v1/topics/j.value").status == 200
    durable(server, 10 + 5 + 2 + 5)
    server.kill()
    server = start(*given)
    assert server.get("/v1/topics/j.value").status == 404
    answer, _ = resumed(server, "j.event", epoch, 3, 0)
    assert answer["recovered"] is False and answer["reason"] == "epoch" and answer["seq"] == 5


def test_one_journal_is_one_servers(start, tmp_path):
    directory = tmp_path / "journal"
    start(*flags(directory))
    ports = ("--listen", "--publish-listen", "--admin")
    ports = [word for port in ports for word in (port, "127.0.0.1:0")]
    code, out, err = run_binary("uringcast", "serve", *ports, *flags(directory), timeout_s=20)
    assert (code, out) == (2, "") and "another server uses it" in err
    assert directory.stat().st_mode & 0o777 == 0o700


def test_without_a_journal_there_is_none(server):
    assert "uringcast_journal_records_total" not in server.get("/metrics").body.decode()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    options = "size=24m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "uringcast", str(path)], check=True)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk_harms_no_subscriber(start, small_disk):
    """An alarm, counters, and everyone is sent everything; what follows is kept again."""
    server = start(*flags(small_disk / "journal", "--journal-fsync", "10ms"))
    epoch = publish(server, "j.event", range(1, 101))
    durable(server, 101)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(small_disk).free))
    assert shutil.disk_usage(small_disk).free == 0

    # 160 MB: more than the journal holds in memory, so that it must drop.
    size, numbers = 200_000, itertools.count(101)
    taken_s = []
    with (
        Json(server.ws("/ws")) as client,
        dial(server.publish_ws("/publish/j.event?ack=1")) as publisher,
    ):
        client.subscribe("j.event")
        for number in itertools.islice(numbers, 800):
            begun = time.monotonic()
            publisher.send(json.dumps({"n": number, "pad": "x" * size}))
            assert json.loads(publisher.recv(5))["seq"] == number
            got = client.receive()
            assert (got["seq"], got["data"]["n"]) == (number, number)
            taken_s.append(time.monotonic() - begun)
    # All but a few, which the machine may have been late with: nobody waits for a disk.
    assert sorted(taken_s)[-10] < 0.5
    metrics = server.metrics()
    assert metrics.sum("journal_alarm") == 1 and metrics.sum("journal_errors_total") > 0
    assert metrics.sum("journal_dropped_total") > 0

    ballast.unlink()
    # The journal has room again for far less than it holds in memory: that goes first.
    wait_for(lambda: server.metrics().sum("journal_errors_total") > 1, "another try")
    server.kill()
    server = start(*flags(small_disk / "journal"))
    answer, _ = resumed(server, "j.event", epoch, 900, 0)
    assert answer["recovered"] is False and answer["reason"] == "seq"
    assert 100 <= answer["seq"] < 900


def test_a_disk_with_room_again_is_written_again(start, small_disk):
    server = start(*flags(small_disk / "journal", "--journal-fsync", "10ms"))
    epoch = publish(server, "j.event", range(1, 11))
    durable(server, 11)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(small_disk).free))
    # Pages have room left: until one is needed there is no error.
    publish(server, "j.event", range(11, 811))
    wait_for(lambda: server.metrics().sum("journal_alarm") == 1, "the alarm")
    ballast.unlink()
    wait_for(lambda: server.metrics().sum("journal_alarm") == 0, "the alarm to end")
    durable(server, 811)
    server.kill()
    server = start(*flags(small_disk / "journal"))
    answer, got = resumed(server, "j.event", epoch, 10, 800)
    assert answer["recovered"] is True
    is_run(got, 11, 810)


def test_check_config_names_what_is_wrong(tmp_path):
    file = Path(tmp_path / "uringcast.toml")
    for text, wanted in (
        ("journal-fsync = '5ms'", "wants --journal DIR as well"),
        (f"journal = '{file}'", "wants a directory"),
        ("journal = 'j'\njournal-fsync = 'often'", "wants always, off or a time"),
    ):
        file.write_text(text)
        code, _, err = run_binary("uringcast", "check-config", str(file))
        assert code == 2 and wanted in err, err
