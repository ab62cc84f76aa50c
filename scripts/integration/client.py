"""A subscriber of the JSON protocol, on a real client library.

Knows: commands and answers. Must not know: the server's process.
"""

import contextlib
import itertools
import json

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect


def dial(url, **options):
    """A client (to be entered) with no proxy and no limits of its own in the way."""
    options.setdefault("proxy", None)
    options.setdefault("max_size", None)
    options.setdefault("compression", None)
    options.setdefault("ping_interval", None)
    # It reads on its own thread, however late the test takes what came.
    options.setdefault("max_queue", None)
    return connect(url, **options)


def refused(url, **options):
    """The HTTP status with which the handshake is refused."""
    with pytest.raises(InvalidStatus) as info, dial(url, **options):
        pass
    return info.value.response.status_code


class Json:
    """One connection to /ws."""

    def __init__(self, url, **options):
        self.stack = contextlib.ExitStack()
        self.socket = self.stack.enter_context(dial(url, **options))
        self.ids = itertools.count(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.stack.close()

    def send(self, **command):
        self.socket.send(json.dumps(command))

    def receive(self, timeout=5):
        message = self.socket.recv(timeout)
        assert isinstance(message, str), message
        return json.loads(message)

    def ask(self, op, **fields):
        """A command and its answer, which must be the next message."""
        number = next(self.ids)
        self.send(op=op, id=number, **fields)
        answer = self.receive()
        assert answer.get("id") == number, answer
        return answer

    def subscribe(self, *topics, **fields):
        """The answers per topic."""
        answer = self.ask("subscribe", topics=list(topics), **fields)
        assert answer["op"] == "subscribed", answer
        return answer["topics"]

    def unsubscribe(self, *topics):
        answer = self.ask("unsubscribe", topics=list(topics))
        assert answer["op"] == "unsubscribed", answer
        return answer["topics"]

    def list(self):
        answer = self.ask("list")
        assert answer["op"] == "list", answer
        return answer["topics"]

    def settled(self):
        """Everything that was on its way before has arrived: only the pong comes."""
        answer = self.ask("ping")
        assert answer["op"] == "pong", answer
