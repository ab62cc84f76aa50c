"""A server on Python's websockets, over TLS: whatever anybody sends, everybody gets.

Usage: broadcast_tls.py CERTIFICATE KEY. Prints its port.

Knows: websockets, ssl. Must not know: what the messages are.
"""

import asyncio
import ssl
import sys

from websockets.asyncio.server import broadcast, serve


async def main(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    everybody = set()

    async def handle(socket):
        everybody.add(socket)
        try:
            async for message in socket:
                broadcast(everybody, message)
        finally:
            everybody.discard(socket)

    options = {"ssl": context, "compression": None, "ping_interval": 0.5, "max_queue": None}
    async with serve(handle, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
