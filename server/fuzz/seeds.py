#!/usr/bin/env python3
"""Writes the inputs that each fuzz target begins with: one of each kind of thing, small.

    server/fuzz/seeds.py [FOLDER]

Knows: the input formats, which stand at the top of src/<target>.rs. What fuzzing added to a corpus it
leaves alone.
"""

import struct
import sys
import zlib
from pathlib import Path

KEY = bytes([0x37, 0xFA, 0x21, 0x3D])
HEAD = (
    "GET {target} HTTP/1.1\r\nHost: localhost:9001\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)


def frame(first, payload=b"", key=KEY, form=None):
    bit = 0x80 if key else 0
    length = len(payload)
    if form is None:
        form = 0 if length < 126 else 2 if length < 65536 else 8
    size = {0: lambda: bytes([bit | length]), 2: lambda: bytes([bit | 126]) + struct.pack(">H", length),
            8: lambda: bytes([bit | 127]) + struct.pack(">Q", length)}[form]()
    key = key or b""
    masked = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload)) if key else payload
    return bytes([first]) + size + key + masked


def deflated(message, last=False):
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    if last:
        return stream.compress(message) + stream.flush() + b"\0"
    return (stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def frames(masked):
    key = KEY if masked else None
    text = "ünï😀".encode()
    flag = bytes([1 if masked else 0, 1, 4])
    yield "talk", flag + b"".join([
        frame(0x81, b"Hello", key), frame(0x89, b"ping", key), frame(0x01, text[:1], key),
        frame(0x8A, b"", key), frame(0x00, text[1:6], key), frame(0x80, text[6:], key),
        frame(0x82, bytes(130), key), frame(0x88, struct.pack(">H", 1000) + b"bye", key)])
    yield "close_empty", flag + frame(0x88, b"", key)
    yield "close_1014", flag + frame(0x88, struct.pack(">H", 1014), key)
    yield "close_1005", flag + frame(0x88, struct.pack(">H", 1005), key)
    yield "not_minimal", flag + frame(0x82, b"x", key, form=2) + frame(0x82, b"x", key, form=8)
    yield "wrong_mask", flag + frame(0x81, b"x", None if masked else KEY)
    yield "not_utf8", flag + frame(0x81, b"a\xed\xa0\x80", key)
    yield "too_big", bytes([(1 if masked else 0) | 12, 0]) + frame(0x02, b"abcd", key) + frame(0x80, b"efgh", key)
    yield "long", bytes([(1 if masked else 0) | 8, 0]) + frame(0x82, bytes(300), key, form=8)
    yield "deflated", bytes([(1 if masked else 0) | 2, 1, 0]) + frame(0xC1, deflated(b"Hello"), key)
    yield "deflated_parts", (bytes([(1 if masked else 0) | 2, 0]) + frame(0x41, deflated(b"Hello")[:3], key)
                             + frame(0x89, b"", key) + frame(0x80, deflated(b"Hello")[3:], key))
    yield "deflated_later", flag + frame(0x01, b"a", key) + frame(0xC0, b"b", key)


def session():
    begin, fragment = b"\0\0\x05", b"\x02\0\x02\x01" + KEY
    whole = b"\0\0\x05\x01hello!!!" + KEY
    yield "whole", b"\0" + whole + b"\x08" + b"\x86\x01\x03\xe8\0" + b"\x88"
    yield "fragments", (b"\0" + begin + b"\0" + "é€😀".encode()[:8] + b"\0\x01\0" + KEY
                        + b"\x04\x02hi" + KEY + fragment * 3 + b"\x07\x03\x08")
    yield "server_says", b"\0" + bytes([0x81]) + b"\x01\0\x01abcdefgh" + KEY + b"\x88"
    yield "too_big", b"\x03" + b"\x01\0\x20\x01abcdefgh" + KEY + b"\x08\x88"
    yield "large", b"\x02" + b"\x01\xff\xff\xf1abcdefgh" + KEY + b"\x07\xff\x08"
    yield "both_close", b"\0\x06\x01\x03\xe8\x03bye" + KEY + b"\x86\0\0" + KEY + b"\x08\x88"
    yield "noise", b"\0" + whole + b"\x09\x00\x40\x08\x88"


def lines(*texts):
    for at, text in enumerate(texts):
        yield f"{at:02}", text.encode() if isinstance(text, str) else text


def proxies():
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    v4 = bytes([192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 1, 0xBB])
    v6 = bytes([0x20, 1, 0x0D, 0xB8]) + bytes(11) + b"\1" + bytes(16) + b"\x12\x34\0\x50"
    for name, text in [
        ("tcp4", "PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\r\nGET /"), ("tcp6", "PROXY TCP6 ::ffff:192.0.2.1 ::1 80 0\r\n"),
        ("unknown", "PROXY UNKNOWN anything\r\n"), ("zeros", "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n")]:
        yield f"v1_{name}", b"\0" + text.encode()
    for name, head, block in [
        ("tcp4", b"\x21\x11", v4), ("tlvs", b"\x21\x11", v4 + b"\4\0\1x" + b"\x20\0\0"), ("tcp6", b"\x21\x21", v6),
        ("udp", b"\x21\x12", v4), ("unix", b"\x21\x31", bytes(216)), ("local", b"\x20\0", b""), ("short", b"\x21\x21", v4)]:
        yield f"v2_{name}", b"\0" + signature + head + struct.pack(">H", len(block)) + block
    for at, text in enumerate(["127.0.0.1, 192.0.2.1, 10.0.0.2", "192.0.2.1:99\n10.1.1.1,\t10.0.0.2 ,", "junk, [2001:db8::1]:80\n10.0.0.3"]):
        yield f"x_forwarded_for_{at}", b"\1" + text.encode()
    for at, text in enumerate([
            'for=192.0.2.43, For="[2001:db8:cafe::17]:4711";proto=http;by=x', "for=192.0.2.1, for=unknown, for=10.0.0.1",
            'for=10.9.9.9;x=", for=192.0.2.1', 'for="10.0.0.1:_a", ,; \nfor="a\\"b";for=c']):
        yield f"forwarded_{at}", b"\3" + text.encode()


def targets():
    def head(target="/ws", more=""):
        return HEAD.format(target=target, more=more)

    yield "head", lines(
        head(), head("/ws?topics=a,b.*&hello=1"), head("/raw/md.%2A.x%3e?a=1+2&b=%C3%A9&c&=d&&e=f=g"),
        head(more="Origin: https://x.example\r\nSec-WebSocket-Protocol: a, b\r\nsec-websocket-protocol:c,,\r\n"
             "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x; a=\"b,c\"\r\n"),
        head("http://h:1/ws"), head(more="Content-Length: 3\r\n") + "abc", head() + "\x01\x05Hello",
        "GET /healthz HTTP/1.1\r\nhost:x\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n",
        "POST /publish/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n", "HEAD * HTTP/1.1\nHost: x\nX-Forwarded-For: 1.2.3.4\n\n",
        "\r\nGET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    yield "frames", [(f"{side}_{name}", data) for side, masked in (("client", True), ("server", False))
                     for name, data in frames(masked)]
    yield "session", session()
    yield "commands", lines(
        '{"op":"subscribe","id":1,"topics":["md.BTCUSDT.trade","md.*.bookTicker","a..b","\\u0061\\ud83d\\ude00"],'
        '"snapshot":true,"sample_ms":250,"resume":{"a":{"epoch":"9f","seq":41}},"resume_from":{"ts":1},"x":[1]}',
        '{"op":"update","id":1,"topics":["a.*"],"sample_ms":500}', '{"op":"unsubscribe","id":"q\\"1","topics":["a"]}',
        '{"op":"list"}', '{"op":"ping","id":9007199254740991}',
        '{"op":"ping","id":9007199254740992}', '{"op":"auth","id":null}', '{"op":"dance","id":3}', '{"id":1,"id":2}',
        '{"op":"publish","id":5,"topic":"a.b","data":{"x":[1,"y",1e400,-0]},"pub_seq":9,"snapshot":false}',
        '{"op":"publish","topic":"a","data_base64":"AP8="}', '{"op":"publish","topic":"a.*","data":null}', '[]', '"ping"')
    yield "publish_lines", lines(
        '{"topic":"a.b","data":{"p": 1.50},"pub_seq":7}\n{"topic":"a","data":"x\\ny","snapshot":true}\r\n\n',
        '{"topic":"a","data_base64":"AP8"}', '{"topic":"a","data":1,"data_base64":""}', 'p=1', b"\xff\0", '[1e999]')
    yield "patterns", lines(
        "md.*.trade\nmd.BTC.trade", "a.>\na.b.c", ">\na", "a.b\na.b", "*\na.b", "a..b\n.a", "@:-_\n@:-_", "a.>.b\na.c.b",
        "*.*.*.*\na.b.c.d", "x" * 255 + "\n" + "x" * 256)
    text = b"md.BTCUSDT.trade 26000.10 " * 5
    yield "deflate", lines(
        b"\0\x10\0" + deflated(text), b"\0\0\x05" + deflated(b"Hello", last=True), b"\0\0\x20\0\x05\0\xfa\xffHello\0",
        b"\0\0\x20\xf3\x48\xcd\xc9\xc9\x07\0\xf2\0\x11\0\0", b"\0\0\x04" + deflated(b"Hello"), b"\0\xff\xff" + deflated(bytes(60000)),
        b"\x01\x01\0\0\x10\0\x08abcdefgh", b"\x01\x00\0\0\x01\0\x05abcab", b"\x01\x07\x12\x34\xff\xff\x10" + text[:16] + b"\0\x20\x04aaab",
        b"\x02\x0fpermessage-deflate; client_max_window_bits\npermessage-deflate; server_max_window_bits=\"10\"",
        b"\x02\x0apermessage-deflate; server_max_window_bits=08\nx-webkit-deflate-frame\npermessage-deflate;server_no_context_takeover",
        b"\x03\x0f\0", b"\x03\x0a\x0f\x02", b"\x03\x0c\x17\x03\x01")
    yield "proxies", proxies()
    yield "config", lines(
        "reactors = 2\necho = true\nping_interval = '25s'\ncpus = [0, 1]\nallow-origin = ['a.example', '*.b.example']\n",
        "publish_from = '10.0.0.0/8'\n[[topic]]\npattern = 'md.>'\nkind = 'value'\ncontent = \"json\"\n",
        "reactor = 2\n", "listen = '0.0.0.0:9001'\nlisten = 1\n", "message_bytes_max = '64KiB'\nlag_bytes_max = 1.5\n",
        "[topic]\npattern = 'é'\n", "a = \"\n", "log_filter = 'info,uringcast=debug'\nlog-format = 'json'\n")


def main(folder):
    for target, inputs in targets():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in inputs:
            (folder / target / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "corpus")
