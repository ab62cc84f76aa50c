"""The servers that are measured: how each is started, pinned, found by the load generator, and stopped.

Knows: command lines, ports, processes. Must not know: what load they get, or what is read from it.
"""

import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BIN = Path(os.environ.get("URINGCAST_BIN_DIR", TARGET / "release"))
START_S = 15
STOP_S = 15


@dataclass(frozen=True)
class Place:
    """Where one server shall run: its ports, its processors, how many threads it may have, and a folder of its own."""

    data: int
    publish: int
    admin: int
    cpus: tuple[int, ...]
    threads: int = 1
    folder: Path = Path()

    @property
    def cpu_list(self):
        return ",".join(map(str, self.cpus))


@dataclass(frozen=True)
class Kind:
    """One sort of server: its command at a place, and where subscribers and publishers go.

    `loadgen` are further flags that its protocol needs, `publishing` those for who publishes. `publish_port`
    says which of a place's ports publishers use: servers of one port take both there. `config` is what stands in
    the file `config` of its folder. `threads_max` is how many threads it can have and still reach everybody.
    """

    name: str
    command: Callable[[Place], list]
    subscribe_path: str = "/raw/bench"
    publish_path: str = "/publish/bench"
    publish_port: str = "data"
    loadgen: tuple[str, ...] = ()
    publishing: tuple[str, ...] = ()
    config: Callable[[Place], str] | None = None
    threads_max: int = 64
    environment: dict = field(default_factory=dict)
    needs: tuple[Path, ...] = ()

    def missing(self):
        """What has to be built or installed before it runs."""
        return [path for path in self.needs if not path.exists()]


def uringcast(place, *flags, tier="auto"):
    """The command of the server itself; further flags are its own."""
    return [
        *(BIN / "uringcast", "serve"),
        *("--listen", f"127.0.0.1:{place.data}"),
        *("--publish-listen", f"127.0.0.1:{place.publish}"),
        *("--admin", f"127.0.0.1:{place.admin}"),
        *("--reactors", place.threads, "--cpus", place.cpu_list),
        *("--log-level", "warn", "--kernel-tier", tier, *flags),
    ]


def ours(name="ours", *flags, binary=None, tier="auto"):
    """The server itself, by another name where its flags or its binary differ."""

    def command(place):
        words = uringcast(place, *flags, tier=tier)
        return [binary or words[0], *words[1:]]

    return Kind(name, command, publish_port="publish", needs=(Path(binary or BIN / "uringcast"),))


def by_port_and_cpu(name, binary):
    """A floor: one thread, one port."""
    return Kind(name, lambda place: [binary, "--port", place.data, "--cpu", place.cpus[0]], needs=(binary,))


KINDS = {
    kind.name: kind
    for kind in (
        ours(),
        ours("base", tier="base"),
        by_port_and_cpu("plain", BIN / "floor_plain"),
        by_port_and_cpu("lane", BIN / "floor_lane"),
    )
}


def free_ports(count):
    """Ports nobody listens on, each another."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def raise_descriptors():
    """As many open files as this process may have: for it and what it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Running:
    """A server that runs; a context that stops it, and all its children, at its end."""

    def __init__(self, kind, cpus=(0,), threads=1):
        self.kind = kind
        self.place = Place(*free_ports(3), tuple(cpus), threads, Path(tempfile.mkdtemp(prefix="measured-")))
        if kind.config:
            (self.place.folder / "config").write_text(kind.config(self.place))
        self.log = self.place.folder / "log"
        with self.log.open("w") as log:
            # A session of its own: what it forks is stopped with it.
            self.process = subprocess.Popen(
                [str(word) for word in kind.command(self.place)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **kind.environment},
            )

    def __enter__(self):
        try:
            deadline = time.monotonic() + START_S
            while not listens(self.place.data):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.kind.name} did not start: {self.said() or self.process.args}")
                time.sleep(0.05)
        except BaseException:
            self.__exit__()
            raise
        return self

    def said(self):
        """Its last line."""
        return (self.log.read_text(errors="replace").strip().splitlines() or [""])[-1]

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.place.folder, ignore_errors=True)

    @property
    def pid(self):
        return self.process.pid

    def used(self, client_cpus):
        """The load generator's flags for what the server uses; it shares no processor of its own with the client."""
        flags = ["--pid", self.pid]
        if not set(self.place.cpus) & set(client_cpus) and sees_kernel_threads():
            flags += ["--pid-cpus", self.place.cpu_list]
        return flags

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.place.data}{self.kind.subscribe_path}"

    @property
    def publish_url(self):
        port = getattr(self.place, self.kind.publish_port)
        return f"ws://127.0.0.1:{port}{self.kind.publish_path}"


def sees_kernel_threads():
    """Whether ksoftirqd's processor time can be read: not where processes have a namespace of their own."""
    return Path("/proc/2/comm").exists() and Path("/proc/2/comm").read_text().strip() == "kthreadd"


def listens(port):
    """Whether somebody listens there; asks without connecting, as some servers count connections."""
    wanted = f":{port:04X} "
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            if fields[3] == "0A" and wanted in f"{fields[1]} ":
                return True
    return False
