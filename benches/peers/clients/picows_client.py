"""Counts what subscribers are sent, with picows on asyncio: no payload is looked at, none is copied.

Usage: picows_client.py PORT CONNECTIONS WARMUP_S DURATION_S, then one line of JSON. Knows: that library.
"""

import asyncio
import json
import sys
import time

from picows import WSListener, WSMsgType, ws_connect


class Subscriber(WSListener):
    messages = 0

    def on_ws_frame(self, transport, frame):
        Subscriber.messages += 1


async def main(port, connections, warmup_s, duration_s):
    for _ in range(connections):
        await ws_connect(Subscriber, f"ws://127.0.0.1:{port}/raw/x")
    # The server begins with the first publication.
    publisher, _ = await ws_connect(WSListener, f"ws://127.0.0.1:{port}/publish/x")
    publisher.send(WSMsgType.TEXT, b"x")
    await asyncio.sleep(warmup_s)
    begun = Subscriber.messages, time.process_time_ns(), time.monotonic_ns()
    await asyncio.sleep(duration_s)
    ended = Subscriber.messages, time.process_time_ns(), time.monotonic_ns()
    names = ("messages", "cpu_ns", "wall_ns")
    print(json.dumps({name: b - a for name, a, b in zip(names, begun, ended, strict=True)}))


if __name__ == "__main__":
    port, connections = map(int, sys.argv[1:3])
    asyncio.run(main(port, connections, *map(float, sys.argv[3:5])))
