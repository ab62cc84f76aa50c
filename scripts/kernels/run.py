#!/usr/bin/env python3
"""Runs the server on other kernels than this machine's: a smoke suite in a guest each, one table.

    scripts/kernels/run.py                       every kernel, from 5.10.46 to the newest
    scripts/kernels/run.py --kernels uml-5.10,uml-6.1,debian-6.1
    scripts/kernels/run.py --tier base           the lower tier on each, whatever it has
    scripts/kernels/run.py --list                what there is
    scripts/kernels/run.py --bin-dir target/release --json kernels.json

The binaries are --bin-dir's, else $URINGCAST_BIN_DIR's, else target/ci's (`scripts/test build`).
Kernels are Debian's: user-mode Linux, and cloud kernels in qemu without hardware support. They are
downloaded once and kept below the target directory; --refresh asks the mirror for newer ones. qemu
itself is the system's, or unpacked beside them: nothing is installed, and no root is needed. A
guest takes about a minute.

Exit code 0: every check passed on every kernel; 1: one did not, or the mirror does not have a
kernel any more (`--allow-missing` lets that pass); 2: nothing could be run. What each guest said is
kept below the target directory, where the last line says.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

import catalogue
import guests
import packages
import verdicts

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BINARIES = Path(os.environ.get("URINGCAST_BIN_DIR", TARGET / "ci"))
HOME = TARGET / "kernels"
TIERS = ("auto", "base")
# A guest without hope ends in well under that: its checks wait for some seconds each.
GUEST_S = 300


def main():
    options = arguments()
    if options.list:
        for kernel in catalogue.KERNELS:
            print(f"{kernel.name:15}{kernel.boots:6}{kernel.what}")
        return 0
    try:
        matrix = Matrix(options)
    except (packages.PackagesError, guests.GuestError) as error:
        print(f"kernels: {error}", file=sys.stderr)
        return 2
    for kernel in options.kernels:
        matrix.run(kernel)
    for line in verdicts.table(matrix.verdicts):
        print(line)
    print(f"what the guests said: {matrix.logs}")
    if options.json:
        report = [verdicts.as_json(each, matrix.notes.get(each.kernel)) for each in matrix.verdicts]
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if verdicts.acceptable(matrix.verdicts, options.allow_missing) else 1


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kernels",
        metavar="NAME,…",
        type=kernels,
        default=list(catalogue.KERNELS),
        help="these only; --list names them",
    )
    parser.add_argument("--tier", choices=TIERS, default="auto", help="serve --kernel-tier")
    parser.add_argument("--bin-dir", metavar="DIR", type=Path, default=BINARIES)
    parser.add_argument("--json", metavar="FILE", type=Path, help="the table, for programs")
    parser.add_argument(
        "--allow-missing", action="store_true", help="a kernel that cannot be had is no failure"
    )
    parser.add_argument(
        "--refresh", action="store_true", help="download again what there is already"
    )
    parser.add_argument(
        "--mirror", metavar="URL", help="of Debian, instead of the one that the system's apt uses"
    )
    parser.add_argument("--list", action="store_true", help="name the kernels, run none")
    return parser.parse_args()


def kernels(text):
    try:
        return catalogue.by_name([name.strip() for name in text.split(",")])
    except KeyError as error:
        known = ", ".join(kernel.name for kernel in catalogue.KERNELS)
        raise argparse.ArgumentTypeError(f"{error} is no kernel of these: {known}") from None


class Matrix:
    """What all guests of a run share, and what became of them."""

    def __init__(self, options):
        self.options = options
        self.store = packages.Store(packages.Mirror(options.mirror), HOME)
        self.folder, self.scratch, self.logs = HOME / "guest", HOME / "scratch", HOME / "logs"
        self.initrd = HOME / "initrd"
        self.qemu = None
        self.verdicts = []
        # {kernel: where it is from}
        self.notes = {}
        for each in (self.scratch, self.logs):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir(parents=True)
        show("busybox: asking the mirror")
        busybox, _ = self.store.fetch(catalogue.BUSYBOX)
        guests.make_folder(self.folder, busybox, options.bin_dir.resolve())
        if any(kernel.boots == "qemu" for kernel in options.kernels):
            guests.make_initrd(self.folder, self.initrd)

    def run(self, kernel):
        try:
            show(f"{kernel.name}: asking the mirror")
            image, self.notes[kernel.name] = self.store.fetch(kernel, self.options.refresh)
            command = self.command(kernel, image)
        except packages.PackagesError as error:
            missing = verdicts.Verdict(kernel.name, self.options.tier, missing=str(error))
            self.verdicts.append(missing)
            show("")
            return
        lines = []
        began = time.monotonic()

        def heard(line):
            lines.append(line)
            show(f"{kernel.name}: {time.monotonic() - began:3.0f} s  {verdicts.clean(line)}")

        show(f"{kernel.name}: booting")
        guests.run(command, self.logs / f"{kernel.name}.log", GUEST_S, heard)
        verdict = verdicts.judge(kernel, self.options.tier, lines, time.monotonic() - began)
        self.verdicts.append(verdict)
        show("")

    def command(self, kernel, image):
        tier = self.options.tier
        if kernel.boots == "uml":
            return guests.uml(image, self.folder, self.scratch, tier)
        if self.qemu is None:
            show("qemu: asking the mirror")
            self.qemu = self.store.qemu()
        return guests.qemu(self.qemu, image, self.initrd, tier)


def show(text):
    """Progress, in a line of its own, where somebody looks."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\033[K{text[:width]}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
