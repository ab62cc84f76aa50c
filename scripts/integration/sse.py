"""A client of Server-Sent Events as WHATWG HTML section 9.2 has it, over a plain socket.

Knows: HTTP's head, the event stream's grammar. Must not know: what the events say.
"""

import json
import time

from wire import Wire


class Event:
    """What a page would be told: the type, the data, the last id at that moment."""

    def __init__(self, kind, data, last_id):
        self.kind, self.data, self.last_id = kind, data, last_id

    def json(self):
        return json.loads(self.data)

    def __repr__(self):
        return f"{self.kind}: {self.data[:200]} [{self.last_id}]"


def request(path, **fields):
    """A right request's head; `_` in a field's name stands for `-`."""
    fields = {"Host": "127.0.0.1", "Accept": "text/event-stream"} | {
        name.replace("_", "-"): value for name, value in fields.items()
    }
    lines = [f"GET {path} HTTP/1.1"] + [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Stream:
    """One connection to /sse."""

    def __init__(self, address, path, last_id=None, receive_buffer=None, **fields):
        if last_id is not None:
            fields["Last_Event_ID"] = last_id
        self.wire = Wire(address, receive_buffer=receive_buffer)
        self.wire.send(request(path, **fields))
        self.status, self.fields, self.body = self.wire.response()
        self.chunked = self.fields.get("transfer-encoding") == "chunked"
        self.text = b""
        self.last_id, self.retry_ms, self.comments, self.ended = last_id or "", None, 0, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wire.socket.close()

    def line(self, timeout_s):
        """The next line; None at the end of the stream."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self.text:
            self.wire.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                more = self.chunk() if self.chunked else self.some()
            except (ConnectionResetError, EOFError):
                more = b""
            if not more:
                self.ended = True
                return None
            self.text += more
        line, self.text = self.text.split(b"\n", 1)
        assert b"\r" not in line, line
        return line.decode()

    def some(self):
        more, self.wire.rest = self.wire.rest, b""
        return more or self.wire.socket.recv(65536)

    def chunk(self):
        """A proxy of HTTP/1.1 cuts the body into chunks."""
        size = b""
        while not size.endswith(b"\r\n"):
            size += self.wire.take(1)
        return self.wire.take(int(size, 16) + 2)[:-2]

    def event(self, timeout_s=5):
        """The next event; None at the end, where one without an empty line behind it is nothing."""
        kind, data = "message", []
        while (line := self.line(timeout_s)) is not None:
            if line == "":
                if data:
                    return Event(kind, "\n".join(data), self.last_id)
                kind = "message"
                continue
            if line.startswith(":"):
                self.comments += 1
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                self.last_id = value
            else:
                assert name == "retry" and value.isdigit(), line
                self.retry_ms = int(value)
        return None

    def message(self, timeout_s=5):
        """The next event's data, which must be a topic's message."""
        event = self.event(timeout_s)
        assert event and event.kind == "message", event
        return event.json()

    def acks(self):
        """The first event: what became of each topic."""
        event = self.event()
        assert event and event.kind == "subscribed", event
        answer = event.json()
        assert answer["op"] == "subscribed", answer
        return answer["topics"]

    def rest(self):
        """Everything up to the stream's end."""
        events = []
        while event := self.event(10):
            events.append(event)
        return events
