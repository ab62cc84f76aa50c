"""The replayed data set, over websockets' asyncio client. Knows: that library; see tally.py."""

import tally
from websockets.asyncio.client import connect


async def listen(told, url, names, deflate, opened):
    options = {"compression": "deflate" if deflate else None, "max_size": None, "proxy": None}
    async with connect(url, **options) as socket:
        if url.endswith("/ws"):
            await socket.send(told.subscribe())
            told.subscribed(await socket.recv())
        opened(", ".join(map(repr, socket.protocol.extensions)))
        async for message in socket:
            if url.endswith("/ws"):
                told.wrapped(message)
            else:
                told.payload(names[0], message)
            if told.is_over(*names):
                return


tally.run(listen)
