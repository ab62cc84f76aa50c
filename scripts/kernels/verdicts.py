"""What a guest said, and what that is worth.

Knows: the lines of smoke.sh, how the server describes what it chose. Must not know: processes,
files, how a guest was booted.
"""

import re
from typing import NamedTuple

# Colours, and what a terminal is told when a machine starts.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc|\r")
OUTCOME = re.compile(r"(ok|failed) (\S+) (\d+)(?:: (.*))?")

NOT_RUN = "not run"


class Chosen(NamedTuple):
    """What the server took of the kernel."""

    tier: str
    features: tuple[str, ...]


class Verdict(NamedTuple):
    """What became of one kernel."""

    kernel: str
    tier_asked: str
    # What answered, by `uname -r`; None if nothing did.
    release: str | None = None
    chosen: Chosen | None = None
    passed: tuple[str, ...] = ()
    # {check: why}, in order.
    failed: dict[str, str] = {}
    # Why there is nothing to judge: its package is missing.
    missing: str | None = None
    seconds: float = 0.0

    @property
    def good(self):
        return not self.failed and not self.missing


def judge(kernel, tier_asked, lines, seconds):
    """A guest by the lines of its console. What it does not say has failed."""
    release, checks, passed, failed, status = None, [], [], {}, None
    for line in map(clean, lines):
        word, _, rest = line.partition(" ")
        outcome = OUTCOME.fullmatch(line)
        if outcome and outcome[1] == "ok":
            passed.append(outcome[2])
        elif outcome:
            failed[outcome[2]] = outcome[4] or "it does not say why"
        elif word == "kernel" and release is None:
            release = rest
        elif word == "checks" and not checks:
            checks = rest.split()
        elif found := re.fullmatch(r"GUEST_EXIT=(\d+)", line):
            status = int(found[1])
    for check in checks:
        if check not in passed and check not in failed:
            failed[check] = NOT_RUN
    if release is None:
        failed["boot"] = "the suite did not begin"
    elif not release.startswith(kernel.release):
        failed["boot"] = f"the kernel is {release}, not {kernel.release}"
    elif status is None:
        failed["end"] = "the guest did not come to its end"
    elif (status == 0) != (not failed):
        failed["end"] = f"the guest ended with {status}"
    chosen = read_chosen(map(clean, lines))
    if chosen is None and "start" in passed:
        failed["tier"] = "the server does not say what it chose"
    elif chosen and tier_asked != "auto" and chosen.tier != tier_asked:
        failed["tier"] = f"{tier_asked} was asked for, {chosen.tier} chosen"
    return Verdict(kernel.name, tier_asked, release, chosen, tuple(passed), failed, seconds=seconds)


def clean(line):
    return ESCAPES.sub("", line).strip()


def read_chosen(lines):
    """What the server says that it chose: `uringcast_ring_tier` and `uringcast_ring_feature` of its
    figures, or else what its reactors log (`ring=tier modern (6.1), …`)."""
    tier, logged, features = None, None, []
    for line in lines:
        if found := re.match(r'metric uringcast_ring_tier\{.*?tier="([^"]+)".*\} 1$', line):
            tier = found[1]
        elif found := re.match(r'metric uringcast_ring_feature\{feature="([^"]+)".*\} 1$', line):
            features.append(found[1])
        elif found := re.match(r"log reactor .*\bring=tier (\w+)", line):
            logged = found[1]
    tier = tier or logged
    return Chosen(tier, tuple(features)) if tier else None


def acceptable(verdicts, allow_missing):
    """Whether a run may pass: everything that was run is good, and something was."""
    ran = [verdict for verdict in verdicts if not verdict.missing]
    return bool(ran) and all(each.good for each in (ran if allow_missing else verdicts))


def table(verdicts):
    """The report, as lines: a row for each kernel, and below it what failed."""
    head = ("kernel", "release", "tier", "passed", "failed", "seconds", "features")
    rows = [head, *(row(verdict) for verdict in verdicts)]
    widths = [max(len(each[column]) for each in rows) for column in range(len(head))]
    lines = [line(head, widths)]
    for verdict, each in zip(verdicts, rows[1:], strict=True):
        lines.append(line(each, widths))
        if verdict.missing:
            lines.append(f"    {verdict.missing}")
        lines += [
            f"    failed {check}: {why}" for check, why in verdict.failed.items() if why != NOT_RUN
        ]
        if not_run := [check for check, why in verdict.failed.items() if why == NOT_RUN]:
            lines.append(f"    not run: {', '.join(not_run)}")
    return lines


def row(verdict):
    if verdict.missing:
        return (verdict.kernel, "missing", "", "", "", "", "")
    chosen = verdict.chosen
    return (
        verdict.kernel,
        verdict.release or "?",
        chosen.tier if chosen else "?",
        str(len(verdict.passed)),
        str(len(verdict.failed)),
        f"{verdict.seconds:.0f}",
        " ".join(chosen.features) or "-" if chosen else "",
    )


def line(cells, widths):
    """Numbers to the right, the rest to the left."""
    numbers = {"passed": 3, "failed": 4, "seconds": 5}.values()
    return "  ".join(
        cell.rjust(width) if at in numbers else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()


def as_json(verdict, note):
    """A verdict for programs, with the note of where the kernel is from."""
    return {
        "kernel": verdict.kernel,
        "tier_asked": verdict.tier_asked,
        "release": verdict.release,
        "tier": verdict.chosen.tier if verdict.chosen else None,
        "features": list(verdict.chosen.features) if verdict.chosen else [],
        "passed": list(verdict.passed),
        "failed": verdict.failed,
        "missing": verdict.missing,
        "seconds": round(verdict.seconds, 1),
        "package": note,
    }
