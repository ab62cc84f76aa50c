#!/usr/bin/env python3
"""Style as a test: which room may know which, where `unsafe` may stand, what no file may hold.

    scripts/tidy.py [ROOT]

Prints `file:line: reason` for every finding and exits 1 if there is one. Knows the source's text and
the manifests. Must not know: what the compiler and clippy check already.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

# Which room of server/src may name which others, as `crate::<room>`. A room is a file or folder
# right under server/src; below a room there are no walls. A room that is not listed is a finding:
# whoever adds one decides what it may know.
LOWEST = {"clock", "constants", "counters", "home", "ids", "rules", "settings"}
SHARED = LOWEST | {"census", "late", "mail", "payload", "publication", "shared"}
ROOMS = {
    "clock": set(),
    "constants": set(),
    "counters": set(),
    "ids": set(),
    "home": {"ids"},
    "rules": set(),
    "settings": {"constants", "rules"},
    "shared": {"census", "counters", "late", "rules", "settings"},
    "publication": {"constants", "deflate", "ids"},
    "census": {"publication"},
    "late": set(),
    "payload": {"publication", "rules", "settings"},
    "deflate": set(),
    "mail": {"ids", "publication"},
    "timers": LOWEST,
    # To whom, and one connection: they meet in `shard` and nowhere else.
    "topics": LOWEST | {"census", "publication"},
    "conn": LOWEST | {"publication"},
    # What.
    "shard": SHARED | {"conn", "deflate", "revived", "timers", "topics"},
    # When: of what it runs it knows the face only.
    "gathering": set(),
    "reactor": {"clock", "counters", "gathering", "shard", "shared"},
    # What was typed, what will be done.
    "logging": {"settings"},
    "flags": {"config", "logging", "plan", "settings"},
    "config": {"flags", "logging", "plan", "settings"},
    "plan": {
        "cgroup", "config", "constants", "counters", "flags", "journal", "logging", "rules", "settings",
    },
    # What this machine allows of it.
    "cgroup": set(),
    "doctor": {"cgroup", "flags", "plan", "settings"},
    # What the journal has, as shards need it.
    "revived": {"home", "journal", "publication", "topics"},
    # Files only: who publishes, and who wants it back, is others' business.
    "journal": {"clock", "counters", "mail", "publication"},
    # Speaks to shards through the mesh only.
    "control": SHARED | {"journal", "logging", "plan"},
    # Compresses what is too long for a shard; to shards it speaks through the mesh only.
    "helper": {"mail", "publication"},
    # Wiring: who is given what.
    "serve": SHARED | {"control", "helper", "journal", "logging", "plan", "reactor", "revived", "shard"},
    # Tests only: an `Io` with a seed.
    "sim": LOWEST,
}
# The crate's roots may name every room.
ROOTS = {"lib", "main"}

# What of our other crates a room may name: these items, or everything. Memory of the ring's pool is
# open to whoever holds frames; how the ring works is not.
EVERYTHING = None
CRATES = {
    "uringcast_mesh": {
        "control": {"Node", "Wake"},
        "helper": {"Node", "Wake"},
        "serve": EVERYTHING,
        "shard": EVERYTHING,
    },
    "uringcast_ring": {
        "conn": {"Slot", "pool"},
        "control": {"Capabilities", "Feature", "WakeHandle", "pool"},
        "doctor": {"Feature", "Ring", "RingError", "RingOptions", "TierChoice"},
        "gathering": {"MinWait"},
        "helper": {"WakeHandle", "pool"},
        "mail": {"pool"},
        "plan": {"Capabilities", "TierChoice"},
        "publication": {"pool"},
        "revived": {"pool"},
        "reactor": EVERYTHING,
        "serve": EVERYTHING,
        "shard": EVERYTHING,
        "shared": {"Capabilities"},
        "sim": EVERYTHING,
        "topics": {"pool"},
    },
    "uringcast_protocol": dict.fromkeys(
        set(ROOMS) - {"census", "clock", "counters", "gathering", "helper", "ids", "late", "reactor", "sim", "timers"},
        EVERYTHING,
    ),
}

# Which of our crates may depend on which (ARCHITECTURE.md has the reasons).
DEPENDENCIES = {
    "uringcast-protocol": set(),
    "uringcast-ring": set(),
    "uringcast-mesh": set(),
    "uringcast": {"uringcast-protocol", "uringcast-ring", "uringcast-mesh"},
    "uringcast-loadgen": {"uringcast-protocol"},
    "uringcast-benches": {
        "uringcast", "uringcast-loadgen", "uringcast-mesh", "uringcast-protocol", "uringcast-ring",
    },
}

UNSAFE_ALLOWED = ("server/ring/", "server/mesh/", "loadgen/src/driver/ring.rs", "loadgen/src/driver/ring/")
FORBID_UNSAFE = ("protocol/src/lib.rs", "server/src/lib.rs", "server/src/main.rs")
LINES_MAX = 600
MACHINE_PATH = re.compile(r"(?<![\w.$}~-])/(?:work|root|tmp|home)/[\w.]")
UNFINISHED = re.compile(r"\b(?:todo|unimplemented|dbg)!|#\[ignore\b")


def main(root):
    findings = []
    for path in files(root):
        text = read(root / path)
        if text is not None:
            findings += [(path, line, reason) for line, reason in check_file(path, text)]
    findings += check_manifests(root)
    for path, line, reason in sorted(findings):
        print(f"{path}:{line}: {reason}")
    return 1 if findings else 0


def files(root):
    """What git knows or would add: not what builds leave behind."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True,
    ).stdout
    return sorted({path for path in listing.split("\0") if path})


def read(path):
    """The file's text; nothing for what is not text, or is gone."""
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
        return None


def check_file(path, text):
    yield from matches(MACHINE_PATH, text, "a path of one machine: {}")
    if not path.endswith((".rs", ".py", ".sh")):
        return
    lines = text.count("\n")
    if lines > LINES_MAX:
        yield lines, f"{lines} lines; at most {LINES_MAX}, one idea each"
    if path.endswith(".rs"):
        yield from check_rust(path, text)


def check_rust(path, text):
    if not text.startswith("//!"):
        yield 1, "a module begins with //!: what it knows, what it must not know"
    if path in FORBID_UNSAFE and "#![forbid(unsafe_code)]" not in text:
        yield 1, "this crate's root says #![forbid(unsafe_code)]"
    code = blank_text(text)
    yield from matches(UNFINISHED, code, "{} is not finished work")
    if not path.startswith(UNSAFE_ALLOWED):
        yield from matches(re.compile(r"\bunsafe\b"), code, "{} stands in the ring and the mesh only")
        allowed = re.compile(r"\b(?:allow|expect)\(\s*unsafe_code\b")
        yield from matches(allowed, code, "{}) stands in the ring and the mesh only")
    if path.startswith("server/src/") and not is_test_file(path):
        yield from check_rooms(path, blank_tests(code))


def check_rooms(path, code):
    parts = path.removeprefix("server/src/").split("/")
    room = parts[0].removesuffix(".rs")
    if room in ROOTS:
        return
    if room not in ROOMS:
        yield 1, f"room '{room}' is not in the table of rooms (scripts/tidy.py)"
        return
    for at, named in names_under("crate", code):
        if named != room and named in ROOMS and named not in ROOMS[room]:
            yield line_of(code, at), f"'{room}' must not know '{named}'"
        elif named not in ROOMS and named not in ROOTS and named[0].islower():
            yield line_of(code, at), f"'{room}' names '{named}', which is not in the table of rooms"
    for crate, rooms in CRATES.items():
        items = rooms.get(room, set())
        for at, named in names_under(crate, code):
            if items is not EVERYTHING and named not in items:
                yield line_of(code, at), f"'{room}' must not know '{crate}::{named}'"
    # From a room's root file `super` is the crate: a way round the table.
    if len(parts) == 1 or parts[1:] == ["mod.rs"]:
        yield from matches(re.compile(r"\bsuper::"), code, "{} out of a room: say crate::")


def names_under(parent, code):
    """Every `parent::name`, also those of `parent::{a, b::{c}}`: where, and the first name."""
    for found in re.finditer(rf"\b{parent}::\s*", code):
        at = found.end()
        if not code.startswith("{", at):
            name = re.match(r"\w+", code[at:])
            if name:
                yield at, name.group()
            continue
        depth = 0
        expect_name = False
        while at < len(code):
            if code[at] == "{":
                depth += 1
                expect_name = depth == 1
            elif code[at] == "}":
                depth -= 1
                if depth == 0:
                    break
            elif code[at] == "," and depth == 1:
                expect_name = True
            elif expect_name and (name := re.match(r"\w+", code[at:])):
                yield at, name.group()
                expect_name = False
                at += name.end() - 1
            at += 1


def check_manifests(root):
    workspace = tomllib.loads((root / "Cargo.toml").read_text(encoding="utf-8"))
    seen = set()
    for member in workspace["workspace"]["members"]:
        path = f"{member}/Cargo.toml"
        text = (root / path).read_text(encoding="utf-8")
        manifest = tomllib.loads(text)
        name = manifest["package"]["name"]
        seen.add(name)
        if name not in DEPENDENCIES:
            yield path, 1, f"crate '{name}' is not in the table of crates (scripts/tidy.py)"
            continue
        for dependency in sorted(dependencies(manifest)):
            if dependency in DEPENDENCIES and dependency not in DEPENDENCIES[name]:
                line = line_of(text, max(text.find(f"\n{dependency}") + 1, 0))
                yield path, line, f"'{name}' must not depend on '{dependency}'"
        if manifest.get("lints") != {"workspace": True}:
            yield path, 1, "says [lints] workspace = true, and nothing else of lints"
    for name in sorted(set(DEPENDENCIES) - seen):
        yield "Cargo.toml", 1, f"crate '{name}' of the table of crates is not a member"


def dependencies(manifest):
    for section in (manifest, *manifest.get("target", {}).values()):
        for kind in ("dependencies", "dev-dependencies", "build-dependencies"):
            yield from section.get(kind, {})


def is_test_file(path):
    return path.endswith(("/tests.rs", "_tests.rs")) or "/tests/" in path


def blank_text(code):
    """Comments and the insides of literals as spaces, so that only code is left, line for line."""
    token = re.compile(
        r"//[^\n]*|/\*.*?\*/"
        r'|b?r(?P<hashes>#*)".*?"(?P=hashes)'
        r'|b?"(?:\\.|[^"\\])*"'
        r"|b?'(?:\\[^\n]+?|[^\\'\n])'",
        re.DOTALL,
    )
    return token.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), code)


def blank_tests(code):
    """Modules under `#[cfg(test)]` as spaces: tests may know more than what they test."""
    start = re.compile(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*mod\s+\w+\s*\{")
    at = 0
    while found := start.search(code, at):
        depth = 1
        end = found.end()
        while end < len(code) and depth:
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        blank = re.sub(r"[^\n]", " ", code[found.start():end])
        code = code[:found.start()] + blank + code[end:]
        at = end
    return code


def matches(pattern, text, reason):
    for found in pattern.finditer(text):
        yield line_of(text, found.start()), reason.format(found.group())


def line_of(text, at):
    return text.count("\n", 0, at) + 1


if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
