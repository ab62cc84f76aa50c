#!/usr/bin/env python3
"""Runs Autobahn's fuzzing client against a server and compares every case with expected.txt.

    scripts/conformance/setup                    once: installs the suite
    scripts/conformance/run.py                   all 517 cases, 20 messages in each compression case
    scripts/conformance/run.py --count 1000      as the suite has it, some minutes
    scripts/conformance/run.py --cases '7.*,9.1.1' --reactors 1
    scripts/conformance/run.py --url ws://127.0.0.1:9001/echo      a server that runs already

The server is $URINGCAST_BIN_DIR/uringcast, or target/ci's (`scripts/test build`). Exit code 0:
every case is as the table says; 1: not so, or a case did not run; 2: nothing could be run. Every
answer of the suite, with the wire log of those that are not OK, is kept below the target directory.
"""

import argparse
import fnmatch
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

import judge  # noqa: E402
from server import TARGET, Server  # noqa: E402

HOME = TARGET / "conformance"
PYTHON = HOME / "suite" / "python"
# The suite's largest messages are of 16 MiB.
SERVER_FLAGS = ("--echo", "--message-bytes-max", "32MiB")
FULL_MESSAGES = 1000
# The suite ends a case by itself: after 60 s with few messages, after 480 s else, except two that
# have 1,000 s. A case that is not ended by then will never be.
CASE_S, FULL_CASE_S = 150, 600
RUN_S, FULL_RUN_S = 300, 3600
BAR_WIDTH = 40
WIRE_LOGS_SHOWN, WIRE_LOG_LINES = 10, 8


def main():
    options = arguments()
    if not PYTHON.exists():
        return broken("the suite is not installed: scripts/conformance/setup")
    try:
        table = judge.read_table((HERE / "expected.txt").read_text())
    except judge.TableError as error:
        return broken(f"expected.txt: {error}")
    patterns = options.cases.split(",")
    expected = {
        case: outcome
        for case, outcome in table.items()
        if any(fnmatch.fnmatchcase(case, pattern.strip()) for pattern in patterns)
    }
    if not expected:
        return broken(f"no case matches {options.cases}")
    good = True
    for reactors in [None] if options.url else options.reactors:
        try:
            good &= run_server(options, expected, reactors)
        except RunError as error:
            return broken(error)
    return 0 if good else 1


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="*", help="ids or patterns: '7.*,9.1.1'")
    parser.add_argument(
        "--count", type=positive, default=20, help="messages in each compression case, default 20"
    )
    parser.add_argument(
        "--reactors",
        type=lambda text: [positive(each) for each in text.split(",")],
        default=[1, 2],
        help="a run with each number of reactors, default 1,2",
    )
    parser.add_argument("--url", help="of another server's echo endpoint, instead of starting ours")
    parser.add_argument("--jobs", type=positive, default=4, help="cases at one time, default 4")
    return parser.parse_args()


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


class RunError(Exception):
    """Nothing could be run."""


def broken(reason):
    print(f"conformance: {reason}", file=sys.stderr)
    return 2


def run_server(options, expected, reactors):
    """One server through all chosen cases; whether all is as expected."""
    if options.url:
        return run_cases(options, expected, options.url, options.url, "url")
    try:
        server = Server(*SERVER_FLAGS, reactors=reactors)
    except (AssertionError, OSError) as error:
        raise RunError(f"the server does not start: {error}") from None
    try:
        title = f"{reactors} reactor{'s' if reactors > 1 else ''}"
        good = run_cases(options, expected, server.ws("/echo"), title, f"{reactors}-reactors")
        try:
            server.check_alive()
            server.stop()
        except (AssertionError, OSError) as error:
            print(f"  the server did not stay well: {error}")
            good = False
        return good
    finally:
        server.kill()


def run_cases(options, expected, url, title, name):
    began = time.monotonic()
    run = Run(url, options.count, sorted(expected, key=judge.order, reverse=True))
    run.work(min(options.jobs, len(expected)))
    report = HOME / f"{name}.json"
    report.write_text(json.dumps(run.answers, indent=1))
    found = judge.differences(expected, run.answers)
    print(
        f"Autobahn, {title}, {options.count} messages per compression case: {len(expected)} cases "
        f"in {time.monotonic() - began:.1f} s"
    )
    show_rows(judge.rows(expected, run.answers))
    for number, each in enumerate(found):
        print(f"  {each}")
        if number < WIRE_LOGS_SHOWN:
            show_wire_log(run.answers.get(each.case, {}))
    if found:
        print(f"{len(found)} not as expected; all answers: {report}")
    return not found


def show_rows(rows):
    print(f"  {'':30}{'cases':>7}{'OK':>7}{'informational':>15}{'different':>11}{'seconds':>9}")
    for each in rows:
        print(
            f"  {each.section:30}{each.cases:7}{each.ok:7}{each.informational:15}"
            f"{each.different:11}{each.seconds:9.1f}"
        )


def show_wire_log(answer):
    if "expectation" in answer:
        print(f"           wanted: {' '.join(answer['expectation'].split())}")
    for entry in answer.get("wirelog", [])[-WIRE_LOG_LINES:]:
        print(f"           {json.dumps(entry)}")


class Run:
    """Cases handed out one by one to some processes of the suite, in bounded time."""

    def __init__(self, url, count, cases):
        self.command = [str(PYTHON), str(HERE / "suite.py"), url, str(count)]
        full = count >= FULL_MESSAGES
        self.case_s = FULL_CASE_S if full else CASE_S
        self.deadline = time.monotonic() + (FULL_RUN_S if full else RUN_S)
        self.total = len(cases)
        self.cases = queue.SimpleQueue()
        for case in cases:
            self.cases.put(case)
        self.answers = {}
        self.faults = []
        self.lock = threading.Lock()

    def work(self, jobs):
        threads = [threading.Thread(target=self.job, args=[number]) for number in range(jobs)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self.deadline = 0
            raise
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        if self.faults and not self.answers:
            raise RunError(self.faults[0])

    def job(self, number):
        """One process after another, the next where one has died over a case."""
        with open(HOME / f"job-{number}.log", "w") as log:
            while self.session(log):
                pass

    def session(self, log):
        """A process of the suite; whether another one shall go on after it."""
        suite = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            known = self.ask(suite, None)
            if not isinstance(known, list):
                self.faults.append(f"the suite does not start; see {log.name}")
                return False
            while (case := self.next_case()) is not None:
                if case not in known:
                    answer = {"id": case, "not_run": "the suite does not have it"}
                else:
                    answer = self.ask(suite, case)
                self.keep(case, answer)
                if answer is None:
                    return True
            return False
        finally:
            suite.stdin.close()
            suite.stdout.close()
            suite.kill()
            suite.wait()

    def next_case(self):
        """None at the end: of the cases, or of the time there is."""
        try:
            return self.cases.get_nowait() if time.monotonic() < self.deadline else None
        except queue.Empty:
            return None

    def ask(self, suite, case):
        """The suite's answer to a case; None when it has none in time, or dies."""
        watchdog = threading.Timer(self.case_s, suite.kill)
        watchdog.start()
        began = time.monotonic()
        try:
            if case:
                suite.stdin.write(f"{case}\n")
                suite.stdin.flush()
            answer = json.loads(suite.stdout.readline())
            if case:
                answer["seconds"] = round(time.monotonic() - began, 3)
            return answer
        except (OSError, ValueError):
            return None
        finally:
            watchdog.cancel()

    def keep(self, case, answer):
        with self.lock:
            self.answers[case] = answer or {
                "id": case,
                "not_run": f"the suite died over it, or {self.case_s} s were not enough",
            }
            done = len(self.answers)
            if sys.stderr.isatty():
                filled = BAR_WIDTH * done // self.total
                bar = "#" * filled + "." * (BAR_WIDTH - filled)
                print(
                    f"\r[{bar}] {done}/{self.total} {case:8}", end="", file=sys.stderr, flush=True
                )


if __name__ == "__main__":
    os.chdir(HERE.parent.parent)
    sys.exit(main())
