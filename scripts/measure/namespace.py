"""A network namespace of one's own, with a loopback that can be set up as a measurement needs it.

Knows: unshare, ip. Must not know: what is measured in it. Needs root; the namespace goes with the script.
"""

import os
import subprocess
import sys

INSIDE = "URINGCAST_IN_NAMESPACE"


def enter():
    """Runs this script once more inside, unless it is there already; loopback is up."""
    if INSIDE not in os.environ:
        if os.geteuid() != 0:
            sys.exit(f"{os.path.basename(sys.argv[0])}: a network namespace needs root")
        os.environ[INSIDE] = "1"
        # A mount namespace as well: /sys shows the network of whoever mounted it.
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def acknowledge_at_once():
    """Receivers answer each packet when it comes, and set no timers to do so later."""
    for place in ("127.0.0.0/8", "127.0.0.1"):
        route = ["local", place, "dev", "lo", "table", "local", "proto", "kernel", "scope", "host", "src", "127.0.0.1"]
        subprocess.run(["ip", "route", "replace", *route, "quickack", "1"], check=True)
