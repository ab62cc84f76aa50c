"""Which versions of other people's servers were measured.

Knows: lock files and `--version`. Must not know: how they run.
"""

import json
import re
import subprocess
import tomllib

from peer_servers import NATS, NGINX, PEERS
from servers import ROOT

REQUIREMENTS = ROOT / "scripts" / "measure" / "requirements.txt"
PACKAGES = ROOT / "scripts" / "integration" / "node" / "package-lock.json"
CRATES = {
    "actix": ("broadcast", "actix-web"),
    "axum": ("broadcast", "axum"),
    "fastwebsockets": ("broadcast", "fastwebsockets"),
    "ntex": ("ntex", "ntex"),
    "tokio-tungstenite": ("broadcast", "tokio-tungstenite"),
}


def versions(names):
    """{name: version} of these peers."""
    return {name: version_of(name) for name in names}


def version_of(name):
    if name in CRATES:
        package, crate = CRATES[name]
        lock = tomllib.loads((PEERS / package / "Cargo.lock").read_text())["package"]
        # Another crate may need an older one too.
        return max((each["version"] for each in lock if each["name"] == crate), key=numbers)
    if name == "ws":
        ws = json.loads(PACKAGES.read_text())["packages"]["node_modules/ws"]["version"]
        return f"{ws} on node {said('node', '--version')}"
    if name == "uWebSockets":
        return re.search(r"^socketify==.*", REQUIREMENTS.read_text(), re.MULTILINE).group().replace("==", " ")
    return said(*([NGINX, "-v"] if name == "nchan" else [NATS, "--version"]))


def numbers(version):
    return [int(number) for number in re.findall(r"\d+", version)]


def said(*command):
    """The version in what a program says of itself."""
    try:
        ended = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    except OSError:
        return "?"
    found = re.search(r"\d+\.\d+\S*", ended.stdout + ended.stderr)
    return found.group() if found else "?"
