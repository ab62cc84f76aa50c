"""WebSocket by hand, over a plain socket: for what no honest client would send.

Knows: bytes. Must not know: what the server should answer.
"""

import base64
import os
import socket
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3


def head(path, host="127.0.0.1", **changes):
    """A right request's head; a change to None leaves the field out, `_` stands for `-`."""
    fields = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    method = changes.pop("method", "GET")
    version = changes.pop("version", "HTTP/1.1")
    for name, value in changes.items():
        fields[name.replace("_", "-")] = value
    lines = [f"{method} {path} {version}"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def frame(opcode, payload=b"", fin=True, mask=True, reserved=0, length=None):
    """One frame; `length` lies about the payload's, as ('short'|'medium'|'long', number)."""
    if isinstance(payload, str):
        payload = payload.encode()
    first = (0x80 if fin else 0) | (reserved << 4) | opcode
    form, number = length or (None, len(payload))
    masked = 0x80 if mask else 0
    if form == "short" or (form is None and number < 126):
        out = struct.pack("!BB", first, masked | number)
    elif form == "medium" or (form is None and number < 65536):
        out = struct.pack("!BBH", first, masked | 126, number)
    else:
        out = struct.pack("!BBQ", first, masked | 127, number)
    if not mask:
        return out + payload
    key = os.urandom(4)
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    xored = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return out + key + xored.to_bytes(len(payload), "big")


class Wire:
    """A socket and what came over it and was not looked at yet."""

    def __init__(self, address, timeout_s=10.0, receive_buffer=None, source=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.settimeout(timeout_s)
        self.socket.connect(address)
        self.rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))
        return self

    def reset(self):
        """Away with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def take(self, count):
        while len(self.rest) < count:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError(f"FIN where {count} bytes were wanted, after {self.rest!r}")
            self.rest += more
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def response(self, to_head=False):
        """(status, fields in lower case, body) of an HTTP answer; that to a HEAD has no body."""
        while b"\r\n\r\n" not in self.rest:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError(f"FIN inside an answer's head: {self.rest!r}")
            self.rest += more
        text, self.rest = self.rest.split(b"\r\n\r\n", 1)
        lines = text.decode().split("\r\n")
        fields = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            fields[name.strip().lower()] = value.strip()
        status = int(lines[0].split(" ")[1])
        body = b"" if status == 101 or to_head else self.take(int(fields.get("content-length", 0)))
        return status, fields, body

    def upgrade(self, path, **changes):
        self.send(head(path, **changes))
        status, fields, body = self.response()
        assert status == 101, (status, body)
        assert fields["sec-websocket-accept"] == ACCEPT
        return self

    def frame(self, pings=False):
        """(fin, opcode, payload) of the next frame; the server's pings, which may come at any
        moment, only if they are wanted."""
        while True:
            first, second = self.take(2)
            assert not second & 0x80, "a masked frame from the server"
            assert not first & 0x70, "a reserved bit from the server"
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", self.take(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self.take(8))
            fin, opcode, payload = bool(first & 0x80), first & 0x0F, self.take(length)
            if pings or opcode != PING:
                return fin, opcode, payload

    def message(self):
        """(opcode, payload) of the next whole message or control frame."""
        kind, whole = None, b""
        while True:
            fin, opcode, payload = self.frame()
            if opcode >= CLOSE:
                return opcode, payload
            kind = opcode if kind is None else kind
            whole += payload
            if fin:
                return kind, whole

    def closed(self):
        """The code of the Close frame that comes, data before it passed over; None without one."""
        while True:
            try:
                opcode, payload = self.message()
            except (EOFError, ConnectionResetError):
                return None
            if opcode == CLOSE:
                return struct.unpack("!H", payload[:2])[0] if payload else 1005

    def at_end(self):
        """The server has closed: FIN or RST, no more bytes."""
        try:
            return self.rest == b"" and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def close_payload(code, reason=b""):
    return struct.pack("!H", code) + reason


def random_key():
    return base64.b64encode(os.urandom(16)).decode()
