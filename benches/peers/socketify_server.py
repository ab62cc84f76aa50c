#!/usr/bin/env python3
"""A broadcast server on socketify, Python's wheel of uWebSockets: one thread, and its own publish and subscribe.

Knows: socketify. Must not know: what the messages are.

    socketify_server.py --port 9103 [--cpu 0]

Python runs once for each publication; delivering it to the subscribers is uWebSockets' own work. Its topics are
those of one thread: several processes would need a broker between them, which its users take from elsewhere
(Redis, NATS), so there is no second thread here.
"""

import argparse
import os

from socketify import App, AppListenOptions, OpCode

TOPIC = "bench"
# A subscriber that falls behind by more loses messages without a word; the library's own bound is 64 KiB.
BACKPRESSURE_BYTES = 1 << 30
MESSAGE_BYTES = 16 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cpu", type=int, default=0, help="the processor to stay on")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.cpu})
    app = App()
    behaviour = {
        "max_payload_length": MESSAGE_BYTES,
        "max_backpressure": BACKPRESSURE_BYTES,
        # Nobody is asked for signs of life, as nobody is by the other servers.
        "idle_timeout": 0,
    }
    app.ws("/pub/*", {**behaviour, "message": publish})
    app.ws("/publish/*", {**behaviour, "message": publish})
    app.ws("/*", {**behaviour, "open": lambda ws: ws.subscribe(TOPIC)})
    app.listen(AppListenOptions(port=options.port, host="127.0.0.1"))
    # `app.run` polls without rest for whatever asyncio might have to do; nothing here needs asyncio.
    app.loop.uv_loop.run()


def publish(ws, message, opcode):
    # Text comes as str, everything else as bytes.
    ws.publish(TOPIC, message, OpCode.TEXT if isinstance(message, str) else opcode)


if __name__ == "__main__":
    main()
