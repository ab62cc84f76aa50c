"""Runs a program in a container of runc, on the network of the host.

    python3 contained.py --bundle DIR --profile FILE [--user ID] [--new-privileges] \
        [--writable DIR] COMMAND…

In the container are the program, its libraries, and one directory that it may write to. The bundle
is left to whoever named it.

Knows: bundles of the OCI runtime specification. Must not know: what is run.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def fill(root, program):
    """The program and its libraries, each at its place."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for path in [program, *re.findall(r"(/\S+) \(", listing)]:
        there = root / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)


def configure(bundle, arguments):
    """runc's own defaults, but for what is asked."""
    subprocess.run(["runc", "spec", "--bundle", str(bundle)], check=True)
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    process, linux = config["process"], config["linux"]
    process.update(terminal=False, args=arguments.command, rlimits=[])
    process.update(user={"uid": arguments.user, "gid": arguments.user})
    process["noNewPrivileges"] = not arguments.new_privileges
    linux["seccomp"] = json.loads(Path(arguments.profile).read_text())
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "network"]
    if arguments.writable:
        there = arguments.writable
        config["mounts"].append(
            {"destination": there, "source": there, "type": "bind", "options": ["bind", "rw"]}
        )
    path.write_text(json.dumps(config))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", required=True, type=Path, metavar="DIR")
    parser.add_argument("--profile", required=True, metavar="FILE")
    parser.add_argument("--user", type=int, default=0, metavar="ID")
    parser.add_argument("--new-privileges", action="store_true")
    parser.add_argument("--writable", metavar="DIR")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("a command is missing")
    bundle = arguments.bundle
    shutil.rmtree(bundle, ignore_errors=True)
    fill(bundle / "rootfs", arguments.command[0])
    configure(bundle, arguments)
    name = f"uringcast-{os.getpid()}"
    state = str(bundle / "state")
    os.execvp("runc", ["runc", "--root", state, "run", "--bundle", str(bundle), name])


if __name__ == "__main__":
    sys.exit(main())
