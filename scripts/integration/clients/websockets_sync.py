"""The replayed data set, over websockets' threaded client. Knows: that library; see tally.py."""

import contextlib
import functools
import threading

import tally
from websockets.sync.client import connect


def receive(told, socket, take, names):
    for message in socket:
        take(message)
        if told.is_over(*names):
            return


def main():
    base, form, deflate, told = tally.arguments()
    compression = "deflate" if deflate else None
    names = list(told.topics)

    def dial(path):
        socket = connect(f"{base}{path}", compression=compression, max_size=None, proxy=None)
        return stack.enter_context(socket)

    with contextlib.ExitStack() as stack:
        if form == "ws":
            socket = dial("/ws")
            socket.send(told.subscribe())
            told.subscribed(socket.recv())
            receivers = [(told, socket, told.wrapped, names)]
        else:
            receivers = [
                (told, dial(f"/raw/{name}"), functools.partial(told.payload, name), [name])
                for name in names
            ]
        sockets = [socket for _, socket, _, _ in receivers]
        tally.tell_open([", ".join(map(repr, each.protocol.extensions)) for each in sockets])
        threads = [threading.Thread(target=receive, args=each) for each in receivers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    tally.tell_end(told)


main()
