"""Debian's packages without installing them: one file of each, or a program with its libraries.

Each suite has lists and a cache of its own below the target directory: the system's apt is left as
it is. The mirror is the one that the system's apt is set up with; apt checks signatures as ever.
Knows: apt, dpkg, the catalogue. Must not know: guests, what a package is for.
"""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import catalogue

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SYSTEM_STATUS = Path("/var/lib/dpkg/status")
NOTE = "package.json"


class PackagesError(Exception):
    """A package cannot be had: a mirror does not have it (any more), or does not answer."""


def run(command, **more):
    """What a command prints; PackagesError with its last words if it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **more
    )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"ended with {done.returncode}"
        # The first error is the reason; apt's others follow from it.
        errors = [line for line in said.splitlines() if line.startswith(("E:", "Err:"))]
        raise PackagesError(f"{command[0]}: {(errors or said.splitlines())[0]}")
    return done.stdout


class Mirror:
    """Where Debian is, by what the system's apt says or `--mirror`."""

    def __init__(self, main=None):
        self.security = None
        if main is None:
            main, self.security = read_mirrors(
                run(
                    ["apt-get", "indextargets", "--no-release-info"]
                    + ["--format", "$(REPO_URI)", "Created-By: Packages"]
                )
            )
        if not main:
            raise PackagesError("the system's apt has no mirror of Debian: name one with --mirror")
        self.main = main
        self.security = self.security or re.sub(r"/*$", "-security", main, count=1)

    def line(self, suite):
        """A suite's line of sources.list: of its lists the packages only."""
        where = self.security if suite.endswith("-security") else self.main
        return f"deb [target=Packages signed-by={KEYRING}] {where} {suite} main\n"


def read_mirrors(text):
    """The mirrors of Debian and of its security updates among the addresses that apt uses; None
    for what is not there."""
    addresses = [line.strip().rstrip("/") for line in text.splitlines()]
    return tuple(
        next((address for address in addresses if address.endswith(end)), None)
        for end in ("/debian", "/debian-security")
    )


class Apt:
    """An apt with nothing of the system's but its mirror and, if given, what is installed."""

    def __init__(self, home, lines, status=""):
        self.home = home
        for each in ("lists/partial", "cache/archives/partial"):
            (home / each).mkdir(parents=True, exist_ok=True)
        (home / "status").write_text(status)
        (home / "sources.list").write_text("".join(lines))
        options = {
            "Dir::Etc::sourcelist": home / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": home / "lists",
            "Dir::State::status": home / "status",
            "Dir::Cache": home / "cache",
            # A release that gets no updates any more is out of date for ever.
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            # The unprivileged user of apt may not enter every target directory.
            "APT::Sandbox::User": "root",
            # Nothing of the system's is changed, so there is nothing to lock.
            "Debug::NoLocking": "true",
        }
        self.options = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]

    def run(self, program, *arguments, **more):
        return run([program, *self.options, "-q", *arguments], **more)

    def update(self):
        self.run("apt-get", "update", "--error-on=any")

    def matching(self, kernel):
        prefix = re.match(r"[a-z0-9+.-]*", kernel.package).group()
        names = self.run("apt-cache", "pkgnames", prefix).split()
        names = [name for name in names if re.fullmatch(kernel.package, name)]
        if not names:
            return []
        return catalogue.matching(
            kernel, catalogue.read_madison(self.run("apt-cache", "madison", *names))
        )

    def download(self, package, folder):
        """The package's file, into an empty folder."""
        self.run("apt-get", "download", f"{package.name}={package.version}", cwd=folder)
        return next(folder.glob("*.deb"))

    def download_with_dependencies(self, name, suite):
        """The files of a package and of what it needs that the system does not have."""
        self.run(
            *("apt-get", "install", "--download-only", "--yes", "--no-install-recommends"),
            *("--target-release", suite, name),
        )
        return sorted((self.home / "cache/archives").glob("*.deb"))


class Store:
    """What was downloaded, by this run or an earlier one."""

    def __init__(self, mirror, home):
        self.mirror = mirror
        self.home = home
        # {suite: Apt with its lists}
        self.suites = {}

    def fetch(self, kernel, refresh=False):
        """A kernel's image, and the note of where it is from."""
        folder = self.home / kernel.name
        note = folder / NOTE
        if note.exists() and not refresh:
            found = json.loads(note.read_text())
            return folder / found["image"], found
        package, suite = self.find(kernel)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked = folder / "unpacked"
        unpacked.mkdir(parents=True)
        deb = self.suites[suite].download(package, folder)
        run(["dpkg-deb", "--extract", str(deb), str(unpacked)])
        image = next((path for path in unpacked.glob(kernel.image) if path.is_file()), None)
        if image is None:
            raise PackagesError(f"{package.name} {package.version} has no {kernel.image}")
        image = image.rename(folder / image.name)
        found = {
            "package": package.name,
            "version": package.version,
            "suite": suite,
            "sha256": sha256(deb),
            "image": image.name,
        }
        # Of the rest, modules and documentation, guests need nothing.
        shutil.rmtree(unpacked)
        deb.unlink()
        # Last: with the note, all of it is there.
        note.write_text(json.dumps(found, indent=1) + "\n")
        return image, found

    def find(self, kernel):
        """The newest package of the first suite that has one."""
        reasons = []
        for suite in kernel.suites:
            try:
                package = catalogue.newest(self.suite(suite).matching(kernel))
            except PackagesError as error:
                reasons.append(f"; {suite}: {error}")
                continue
            if package:
                return package, suite
        raise PackagesError(f"the mirror has no {catalogue.wanted(kernel)}{''.join(reasons)}")

    def suite(self, suite):
        if suite not in self.suites:
            apt = Apt(self.home / "apt" / suite, [self.mirror.line(suite)])
            apt.update()
            self.suites[suite] = apt
        return self.suites[suite]

    def qemu(self):
        """How to start qemu for this processor: a command's first words. The system's, or one that
        is unpacked here."""
        if found := shutil.which("qemu-system-x86_64"):
            return [found]
        folder = self.home / "qemu"
        if not (folder / NOTE).exists():
            self.unpack_qemu(folder)
        libraries = (*folder.glob("lib/*-gnu"), *folder.glob("usr/lib/*-gnu"))
        return [
            *("env", f"LD_LIBRARY_PATH={':'.join(map(str, libraries))}"),
            *(str(folder / "usr/bin/qemu-system-x86_64"), "-L", str(folder / "usr/share/qemu")),
            *("-L", str(folder / "usr/share/seabios")),
        ]

    def unpack_qemu(self, folder):
        """Of the system's own release, for it is run with the system's libraries; backports first,
        which have the newer one."""
        codename = read_codename(Path("/etc/os-release").read_text())
        if not codename:
            raise PackagesError("qemu-system-x86_64 is missing, and this is no Debian: install it")
        backports = f"{codename}-backports"
        suites = (codename, f"{codename}-updates", f"{codename}-security", backports)
        apt = Apt(
            self.home / "apt" / "qemu",
            [self.mirror.line(suite) for suite in suites],
            without_qemu(SYSTEM_STATUS.read_text()),
        )
        apt.update()
        debs = apt.download_with_dependencies("qemu-system-x86", backports)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note = {}
        for deb in debs:
            run(["dpkg-deb", "--extract", str(deb), str(folder)])
            note[deb.name] = sha256(deb)
            deb.unlink()
        (folder / NOTE).write_text(json.dumps(note, indent=1) + "\n")


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_codename(text):
    """Debian's name for the system's release, by /etc/os-release; None where it is another's."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if fields.get("ID") != "debian":
        return None
    return fields.get("VERSION_CODENAME", "").strip('"') or None


def without_qemu(status):
    """dpkg's list of what is installed, but for qemu's packages: they would have to be of the
    version that is downloaded, and nothing is installed over them."""
    return "".join(
        f"{paragraph}\n\n"
        for paragraph in status.split("\n\n")
        if paragraph.strip() and not paragraph.startswith("Package: qemu")
    )
