"""The replayed data set, over picows. It hands out frames and negotiates nothing by itself, so both
the offer and the inflating are done here. Knows: that library, zlib; see tally.py."""

import asyncio
import zlib

import tally
from picows import WSCloseCode, WSListener, WSMsgType, ws_connect

OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; server_no_context_takeover"}


class Listener(WSListener):
    def __init__(self, told, is_json, names, answer):
        self.told, self.is_json, self.names = told, is_json, names
        self.extensions = answer.headers.get("Sec-WebSocket-Extensions", "")
        self.subscribed = asyncio.Event()
        self.parts, self.is_compressed = [], False

    def on_ws_connected(self, transport):
        if self.is_json:
            transport.send(WSMsgType.TEXT, self.told.subscribe())
        else:
            self.subscribed.set()

    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        if frame.msg_type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            return
        if frame.msg_type != WSMsgType.CONTINUATION:
            self.is_compressed = bool(frame.rsv1)
        self.parts.append(frame.get_payload_as_bytes())
        if not frame.fin:
            return
        message = b"".join(self.parts)
        self.parts.clear()
        if self.is_compressed:
            self.told.compressed += 1
            # RFC 7692 section 7.2.2; without context takeover every message begins anew.
            message = zlib.decompressobj(-15).decompress(message + b"\x00\x00\xff\xff")
        self.message(transport, message.decode())

    def message(self, transport, text):
        if not self.is_json:
            self.told.payload(self.names[0], text)
        elif not self.subscribed.is_set():
            self.told.subscribed(text)
            self.subscribed.set()
        else:
            self.told.wrapped(text)
        if self.told.is_over(*self.names):
            transport.send_close(WSCloseCode.OK)


async def listen(told, url, names, deflate, opened):
    told.compressed = 0
    is_json = url.endswith("/ws")
    transport, listener = await ws_connect(
        lambda _, answer: Listener(told, is_json, names, answer),
        url,
        extra_headers=OFFER if deflate else None,
    )
    await listener.subscribed.wait()
    opened(listener.extensions)
    await transport.wait_disconnected()


tally.run(listen)
