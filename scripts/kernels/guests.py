"""Boots a kernel with the smoke suite in it, and keeps what comes over its console.

User-mode Linux is a process with the host's files as its root, read only. Qemu gets everything in
an initrd, and emulates the processor: what hosts offer for virtual machines differs, and some of it
cannot run an ordinary kernel. Both have one processor; neither says anything about speed.
Knows: how each is started, what a guest needs of files. Must not know: packages, what is tested.
"""

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "guest"
BINARIES = ("uringcast", "loadgen")
# Of memory; 500 subscribers and a journal in a tmpfs take some 150 MiB, an initrd twice its size.
MEMORY = "640M"


class GuestError(Exception):
    """A guest cannot be made."""


def make_folder(folder, busybox, binaries):
    """Everything that runs in a guest, in one directory."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCES, folder)
    shutil.copy(busybox, folder / "busybox")
    for name in BINARIES:
        if not (binaries / name).exists():
            raise GuestError(f"{binaries / name} is missing: `scripts/test build` makes it")
        shutil.copy(binaries / name, folder / name)


def make_initrd(folder, path):
    """The directory as /guest, the shared libraries of what is in it, and a shell."""
    with open(path, "wb") as file:
        archive = Cpio(file)
        archive.directory("dev")
        archive.device("dev/console", 5, 1)
        for each in ("proc", "sys", "run", "bin"):
            archive.directory(each)
        archive.link("bin/sh", "/guest/busybox")
        archive.link("init", "/guest/init")
        archive.directory("guest")
        for each in sorted(folder.iterdir()):
            archive.file(f"guest/{each.name}", each)
        for each in sorted({library for name in BINARIES for library in libraries(folder / name)}):
            archive.file(each, Path(each))
        archive.end()


def libraries(binary):
    """The shared libraries of a program; none of a static one."""
    said = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    return read_ldd(said.stdout)


def read_ldd(text):
    """The paths in what ldd prints: `name => /path (0x…)`, and of the loader `/path (0x…)`."""
    return re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", text, re.MULTILINE)


class Cpio:
    """A writer of the archive that Linux unpacks at its start, format `newc`."""

    def __init__(self, file):
        self.out = file
        self.number = 0
        self.folders = set()

    def directory(self, name):
        if name and name not in self.folders:
            self.folders.add(name)
            self.parents(name)
            self.entry(name, stat.S_IFDIR | 0o755)

    def parents(self, name):
        self.directory(name.rpartition("/")[0])

    def link(self, name, target):
        self.entry(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name, major, minor):
        self.entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def file(self, name, path):
        name = name.lstrip("/")
        self.parents(name)
        self.entry(name, stat.S_IFREG | path.stat().st_mode & 0o777, path.read_bytes())

    def end(self):
        self.entry("TRAILER!!!", 0)

    def entry(self, name, mode, data=b"", device=(0, 0)):
        self.number += 1
        fields = (
            *(self.number, mode, 0, 0, 1, 0, len(data)),
            *(0, 0, *device, len(name) + 1, 0),
        )
        head = b"070701" + b"".join(b"%08X" % field for field in fields)
        self.out.write(padded(head + name.encode() + b"\0"))
        self.out.write(padded(data))


def padded(data):
    return data + b"\0" * (-len(data) % 4)


def uml(image, folder, scratch, tier):
    """A command that boots user-mode Linux."""
    return [
        *(str(image), f"mem={MEMORY}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
        *(f"init={folder}/init", "con=null", "con0=null,fd:1", "quiet", "panic=-1"),
        # Where it keeps its sockets, which would be in the home directory.
        *(f"uml_dir={scratch}/", f"guest={folder}", f"tier={tier}"),
    ]


def qemu(program, image, initrd, tier):
    """A command that boots an ordinary kernel."""
    return [
        *(*program, "-nodefaults", "-no-user-config", "-machine", "q35", "-accel", "tcg"),
        *("-cpu", "max", "-smp", "1", "-m", MEMORY, "-display", "none", "-serial", "stdio"),
        *("-no-reboot", "-kernel", str(image), "-initrd", str(initrd), "-append"),
        f"console=ttyS0 panic=-1 quiet mitigations=off guest=/guest tier={tier}",
    ]


def run(command, log, timeout_s, heard):
    """Boots a guest and gives each line of its console to `heard`, until it is off or its time is
    up. Everything goes to the log as well."""
    # A group of its own: user-mode Linux is several processes.
    guest = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    watchdog = threading.Timer(timeout_s, kill, [guest])
    watchdog.start()
    try:
        with open(log, "w") as file:
            for line in guest.stdout:
                line = line.decode(errors="replace").rstrip()
                file.write(line + "\n")
                heard(line)
    finally:
        watchdog.cancel()
        kill(guest)
        guest.wait()
        guest.stdout.close()


def kill(guest):
    """All of a guest. Its group outlives its first process, which is not waited for before."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(guest.pid, signal.SIGKILL)
