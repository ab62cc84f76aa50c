"""Which kernels the server is run on, and which package of Debian has each.

Knows: names of packages, suites, versions, what apt prints. Must not know: networks, files, guests.
"""

import re
import subprocess
from typing import NamedTuple


class Kernel(NamedTuple):
    """A kernel of the matrix, by what does not change when its package gets an update."""

    name: str
    # How it is booted: "uml" or "qemu".
    boots: str
    # Where to look, in this order; the newest of the first suite that has any.
    suites: tuple[str, ...]
    # Of the package's name, whole, and of its version, from the beginning.
    package: str
    version: str
    # The program or image inside the package: a pattern below its root.
    image: str
    # What `uname -r` begins with, or the guest ran something else.
    release: str
    # Why it is in the matrix.
    what: str


CLOUD = "linux-(image|binary)-[0-9].*-cloud-amd64"

KERNELS = (
    Kernel(
        "uml-5.10", "uml", ("bullseye",), "user-mode-linux", r"5\.10um", "usr/bin/linux.uml",
        "5.10.46", "the first io_uring of 5.10",
    ),
    Kernel(
        "uml-6.1", "uml", ("bookworm",), "user-mode-linux", r"6\.1um", "usr/bin/linux.uml",
        "6.1.", "user-mode Linux 6.1",
    ),
    # From 5.10.162 on these have the io_uring of 5.15.
    Kernel(
        "debian-5.10", "qemu", ("bullseye-security", "bullseye"), CLOUD, r"5\.10\.",
        "**/vmlinuz*", "5.10.", "Debian 11",
    ),
    Kernel(
        "debian-6.1", "qemu", ("bookworm-security", "bookworm"), CLOUD, r"6\.1\.",
        "**/vmlinuz*", "6.1.", "Debian 12",
    ),
    Kernel(
        "debian-6.12", "qemu", ("trixie-security", "trixie"), CLOUD, r"6\.12\.",
        "**/vmlinuz*", "6.12.", "Debian 13",
    ),
    Kernel(
        "debian-newest", "qemu", ("trixie-backports",), CLOUD, r"[0-9]",
        "**/vmlinuz*", "", "the newest of Debian 13's backports",
    ),
)  # fmt: skip

# Guests have nothing but this and our binaries.
BUSYBOX = Kernel(
    "busybox",
    "",
    ("bookworm", "trixie"),
    "busybox-static",
    r"[0-9]",
    "*bin/busybox",
    "",
    "the tools",
)


class Package(NamedTuple):
    name: str
    version: str


def by_name(names):
    """The kernels of those names, in the catalogue's order; KeyError with the first unknown one."""
    known = {kernel.name: kernel for kernel in KERNELS}
    for name in names:
        if name not in known:
            raise KeyError(name)
    return [kernel for kernel in KERNELS if kernel.name in names]


def read_madison(text):
    """The packages of `apt-cache madison`: lines of `name | version | where`."""
    packages = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 3 and fields[2].endswith(" Packages"):
            packages.append(Package(fields[0], fields[1]))
    return packages


def matching(kernel, packages):
    return [
        package
        for package in packages
        if re.fullmatch(kernel.package, package.name) and re.match(kernel.version, package.version)
    ]


def newest(packages):
    """The one with the highest version; None of none. Of one version, a package named `binary` has
    the image where there are both, and `image` only stands for it."""
    best = None
    for package in packages:
        same = best is not None and package.version == best.version
        has_image = same and "-binary-" in package.name
        if best is None or has_image or is_newer(package.version, best.version):
            best = package
    return best


def is_newer(version, other):
    """By Debian's own order, in which 6.12.9 comes before 6.12.10~rc1, and that before 6.12.10."""
    return not subprocess.run(
        ["dpkg", "--compare-versions", version, "gt", other], check=False
    ).returncode


def wanted(kernel):
    """What a mirror was asked for, to be read."""
    return f"{kernel.package} (version {kernel.version}…) in {' or '.join(kernel.suites)}"
