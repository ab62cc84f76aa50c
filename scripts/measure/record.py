"""The record of a run: what was called, with which versions, every raw number, and what was printed.

Knows: files of one folder. Must not know: what the numbers mean.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from servers import BIN, ROOT


class Record:
    """Collects what a script prints and counts, and writes it as NAME.txt and NAME.json."""

    def __init__(self, name, folder=None):
        self.name = name
        self.folder = folder and Path(folder)
        self.lines = []
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)

    def say(self, text=""):
        """Prints it, and keeps it for the record."""
        print(text, flush=True)
        self.lines.append(text)

    def plot_path(self, suffix=""):
        """Where a plot of this record goes; None without a folder."""
        return self.folder and self.folder / f"{self.name}{suffix}.svg"

    def write(self, numbers, **versions):
        """Both files; does nothing without a folder."""
        if not self.folder:
            return
        head = {"command": command(), "versions": {**machine(), **versions}, "numbers": numbers}
        (self.folder / f"{self.name}.json").write_text(json.dumps(head, indent=1) + "\n")
        text = [
            head["command"],
            "; ".join(f"{key} {value}" for key, value in head["versions"].items()),
            "",
        ]
        (self.folder / f"{self.name}.txt").write_text("\n".join([*text, *self.lines]) + "\n")


def command():
    """As typed, without where this machine keeps things."""
    script = Path(sys.argv[0]).resolve()
    words = [str(script.relative_to(ROOT)) if script.is_relative_to(ROOT) else script.name]
    for word in sys.argv[1:]:
        words.append(Path(word).name if word.startswith("/") else word)
    return " ".join(words)


def machine():
    """What the figures depend on besides the code."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "?",
    )
    version = subprocess.run([BIN / "uringcast", "--version"], capture_output=True, text=True).stdout.strip()
    revision = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    return {
        "processor": f"{os.cpu_count()} of {model}",
        "kernel": platform.release(),
        "server": version,
        "revision": revision or "?",
    }
