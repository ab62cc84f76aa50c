"""What the suite's answers are worth: each against its line in the table of expected results.

Knows: case ids, the suite's words. Must not know: servers, processes, how a case is run.
"""

import re
from typing import NamedTuple

# The suite's other words are FAILED, NON-STRICT, UNIMPLEMENTED, UNCLEAN, WRONG CODE and FAILED BY
# CLIENT. A table that expects one of them is no table.
GOOD = {"OK", "INFORMATIONAL"}
SECTIONS = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragmentation",
    6: "UTF-8",
    7: "closing",
    9: "limits and load",
    10: "sending in pieces",
    12: "compression by data",
    13: "compression by parameters",
}
LINE = re.compile(r"(\d+(?:\.\d+){1,2})(?:-(\d+))?\s+(\S+)\s+(\S+)")


class TableError(Exception):
    """The table of expected results is wrong in itself."""


class Outcome(NamedTuple):
    """What a case came to, and how its connection was closed."""

    behavior: str
    closing: str

    def __str__(self):
        return self.behavior if self == ("OK", "OK") else f"{self.behavior}, closing {self.closing}"


class Difference(NamedTuple):
    case: str
    expected: Outcome | None
    got: Outcome | None
    reason: str

    def __str__(self):
        if self.expected is None:
            return f"{self.case:8} {self.got}: {self.reason}"
        if self.got is None:
            return f"{self.case:8} did not run: {self.reason}"
        return f"{self.case:8} {self.got}; expected {self.expected}: {self.reason}"


class Row(NamedTuple):
    section: str
    cases: int
    ok: int
    informational: int
    different: int
    seconds: float


def read_table(text):
    """{case id: Outcome} of lines `7.1.1-5  OK  OK`: cases, behaviour, closing."""
    table = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        found = LINE.fullmatch(line)
        if not found:
            raise TableError(f"line {number}: not `CASES BEHAVIOUR CLOSING`: {line}")
        first, last, behavior, closing = found.groups()
        for word in (behavior, closing):
            if word not in GOOD:
                raise TableError(f"line {number}: {word} is no result to be content with")
        stem, _, start = first.rpartition(".")
        ids = [f"{stem}.{n}" for n in range(int(start), int(last or start) + 1)]
        if not ids:
            raise TableError(f"line {number}: an empty range: {line}")
        for case in ids:
            if case in table:
                raise TableError(f"line {number}: {case} has a line already")
            table[case] = Outcome(behavior, closing)
    return table


def outcome(answer):
    """What an answer of the suite says; None for one that says that the case could not be run."""
    if answer is None or "not_run" in answer:
        return None
    return Outcome(answer["behavior"], answer["behaviorClose"])


def differences(expected, answers):
    """Every case that is not as the table says, in order: other results, cases without one, cases
    that the table does not have. A result that is better than expected is a difference too."""
    found = []
    for case in sorted(expected.keys() | answers.keys(), key=order):
        answer = answers.get(case)
        wanted, got = expected.get(case), outcome(answer)
        if wanted is None:
            found.append(Difference(case, None, got, "the table does not have it"))
        elif got is None:
            reason = answer["not_run"] if answer else "no answer"
            found.append(Difference(case, wanted, None, reason))
        elif got != wanted:
            found.append(Difference(case, wanted, got, why(answer, wanted)))
    return found


def why(answer, wanted):
    """The suite's sentence for what differs."""
    reasons = []
    if answer["behavior"] != wanted.behavior:
        reasons.append(answer["result"])
    if answer["behaviorClose"] != wanted.closing:
        reasons.append(answer["resultClose"])
        if answer.get("remoteCloseCode") is not None:
            reasons.append(f"(close code {answer['remoteCloseCode']})")
    return " ".join(reasons)


def rows(expected, answers):
    """A row for each of the suite's sections, and one for all."""
    different = {each.case for each in differences(expected, answers)}
    numbers = sorted({order(case)[0] for case in expected})
    return [
        row(
            SECTIONS.get(number, "?"),
            {c for c in expected if order(c)[0] == number},
            answers,
            different,
            number,
        )
        for number in numbers
    ] + [row("all", set(expected), answers, different)]


def row(name, cases, answers, different, number=None):
    outcomes = [outcome(answers.get(case)) for case in cases]
    return Row(
        section=name if number is None else f"{number:2} {name}",
        cases=len(cases),
        ok=outcomes.count(Outcome("OK", "OK")),
        informational=sum(1 for each in outcomes if each and "INFORMATIONAL" in each),
        different=len(cases & different),
        seconds=sum(answers[case].get("seconds", 0) for case in cases if case in answers),
    )


def order(case):
    return tuple(int(part) for part in case.split("."))
