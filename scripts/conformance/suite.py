"""Autobahn's cases, one at a time, as they are asked for: the runner's other end.

    suite.py URL MESSAGES      run by the suite's Python 2.7

Writes a line of JSON with all case ids, then reads a case id a line and answers each with a line of
JSON. MESSAGES is how many each compression case sends (the suite's own number: 1000).

Knows: the suite's classes. Must not know: what results are good.
"""

import json
import os
import sys

# The answers' own descriptor: the suite prints to stdout, and that goes to stderr.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import autobahntestsuite.choosereactor  # noqa: E402, F401 (has to come before what uses a reactor)
from autobahntestsuite.case import Cases  # noqa: E402
from autobahntestsuite.fuzzing import FuzzingClientFactory  # noqa: E402
from twisted.internet import reactor  # noqa: E402

FULL_MESSAGES = 1000
SHORT_CASE_S = 60
WIRE_LOG_MAX = 200


class OneAtATime(FuzzingClientFactory):
    """The suite's client without its plan and its reports."""

    def nextCase(self):  # noqa: N802 (the suite's name)
        line = sys.stdin.readline().strip()
        if not line:
            return False
        self.currentCaseId = line
        self.currentCaseIndex = self.CaseSet.CasesIndices[line]
        return True

    def logCase(self, result):  # noqa: N802
        answer = {
            name: result[name]
            for name in (
                "id",
                "description",
                "expectation",
                "behavior",
                "behaviorClose",
                "result",
                "resultClose",
                "remoteCloseCode",
                "wasNotCleanReason",
                "duration",
            )
        }
        if (result["behavior"], result["behaviorClose"]) != ("OK", "OK"):
            answer["expected"] = result["expected"]
            answer["received"] = result["received"]
            answer["httpResponse"] = result["httpResponse"]
            answer["wirelog"] = result["wirelog"][:WIRE_LOG_MAX]
        tell(answer)

    def clientConnectionLost(self, connector, reason):  # noqa: N802
        if self.nextCase():
            connector.connect()
        else:
            reactor.stop()

    def clientConnectionFailed(self, connector, reason):  # noqa: N802
        tell({"id": self.currentCaseId, "not_run": reason.getErrorMessage()})
        if self.nextCase():
            connector.connect()
        else:
            reactor.stop()


def tell(answer):
    # Latin-1 takes any byte: what the server sent need not be UTF-8.
    answers.write(json.dumps(answer, encoding="latin-1") + "\n")
    answers.flush()


def shorten(messages):
    for case in Cases:
        if case.__name__.startswith(("Case12_", "Case13_")):
            case.COUNT = messages
            if messages < FULL_MESSAGES:
                case.WAITSECS = min(case.WAITSECS, SHORT_CASE_S)


def main(url, messages):
    shorten(messages)
    tell([".".join(case.__name__[len("Case") :].split("_")) for case in Cases])
    OneAtATime({"servers": [{"agent": "server", "url": url}], "cases": []})
    reactor.run()


main(sys.argv[1], int(sys.argv[2]))
