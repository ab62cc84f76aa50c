"""A program on a terminal: what it draws, as a person would see it.

Knows: pseudo-terminals. Must not know: which program.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pyte


class Terminal:
    """A process whose standard output is a terminal of this size."""

    def __init__(self, command, columns=100, lines=32):
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(theirs)
        self.fd = ours

    def read(self, wait_s):
        """Takes in what comes within this time; false at the end."""
        ready, _, _ = select.select([self.fd], [], [], wait_s)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b""
        self.raw += data
        self.stream.feed(data)
        return bool(data)

    def text(self):
        return "\n".join(self.screen.display)

    def wait_for(self, pattern, timeout_s=30):
        """Until something like it can be seen."""
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self.text()):
            assert time.monotonic() < deadline, f"{pattern!r} is not on\n{self.text()}"
            assert self.read(0.2), f"ended without {pattern!r}\n{self.text()}"

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def end(self, timeout_s=20):
        """Everything to the end, and the exit code."""
        deadline = time.monotonic() + timeout_s
        while self.read(0.2):
            assert time.monotonic() < deadline, f"not ended\n{self.text()}"
        os.close(self.fd)
        return self.process.wait(timeout_s)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
