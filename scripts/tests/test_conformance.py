"""The judge of the conformance run can say no: `python3 -m unittest discover scripts/tests`."""

import sys
import unittest
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent / "conformance"
sys.path.insert(0, str(HOME))

import judge  # noqa: E402 (the line above has to come first)

TABLE = judge.read_table("1.1.1-3 OK OK\n7.1.6 INFORMATIONAL INFORMATIONAL\n12.1.1 OK OK\n")


def answers(**changes):
    """The suite's answers as the table has them, but for `changes`, by case: _7_1_6="FAILED"."""
    all_ = {case: answer(case, *outcome) for case, outcome in TABLE.items()}
    for name, change in changes.items():
        case = name[1:].replace("_", ".")
        if change is None:
            del all_[case]
        elif isinstance(change, dict):
            all_[case] = change
        else:
            all_[case] = answer(case, *change)
    return all_


def answer(case, behavior, closing):
    return {
        "id": case, "behavior": behavior, "behaviorClose": closing, "seconds": 0.5,
        "result": "as it went", "resultClose": "as it closed", "remoteCloseCode": 1002,
    }


def found(**changes):
    return [str(each) for each in judge.differences(TABLE, answers(**changes))]


class Judge(unittest.TestCase):
    def test_all_as_expected(self):
        self.assertEqual(found(), [])

    def test_a_missing_case(self):
        self.assertEqual(found(_1_1_2=None), ["1.1.2    did not run: no answer"])
        self.assertEqual(len(judge.differences(TABLE, {})), len(TABLE))

    def test_a_case_that_could_not_be_run(self):
        refused = {"id": "1.1.2", "not_run": "connection refused"}
        self.assertEqual(found(_1_1_2=refused), ["1.1.2    did not run: connection refused"])

    def test_a_failed_case(self):
        self.assertEqual(
            found(_1_1_1=("FAILED", "OK")),
            ["1.1.1    FAILED, closing OK; expected OK: as it went"],
        )

    def test_non_strict_and_unimplemented_are_not_enough(self):
        for word in ("NON-STRICT", "UNIMPLEMENTED", "FAILED BY CLIENT", "something new"):
            self.assertEqual(len(found(_12_1_1=(word, "OK"))), 1, word)

    def test_an_unclean_close(self):
        for word in ("UNCLEAN", "WRONG CODE", "FAILED", "FAILED BY CLIENT"):
            self.assertEqual(
                found(_1_1_3=("OK", word)),
                [f"1.1.3    OK, closing {word}; expected OK: as it closed (close code 1002)"],
            )

    def test_better_than_expected_is_a_change_of_the_table(self):
        self.assertEqual(len(found(_7_1_6=("OK", "OK"))), 1)
        self.assertEqual(len(found(_1_1_1=("INFORMATIONAL", "INFORMATIONAL"))), 1)

    def test_a_case_that_the_table_does_not_have(self):
        got = {**answers(), "14.1.1": answer("14.1.1", "OK", "OK")}
        self.assertEqual(
            [str(each) for each in judge.differences(TABLE, got)],
            ["14.1.1   OK: the table does not have it"],
        )

    def test_rows_add_up(self):
        rows = judge.rows(TABLE, answers(_1_1_1=("FAILED", "OK"), _12_1_1=None))
        self.assertEqual(
            [tuple(each) for each in rows],
            [
                (" 1 framing", 3, 2, 0, 1, 1.5),
                (" 7 closing", 1, 0, 1, 0, 0.5),
                ("12 compression by data", 1, 0, 0, 1, 0.0),
                ("all", 5, 2, 1, 2, 2.0),
            ],
        )


class Table(unittest.TestCase):
    def test_the_committed_one_has_every_case_of_the_suite_and_is_content_with_none_less(self):
        table = judge.read_table((HOME / "expected.txt").read_text(encoding="utf-8"))
        self.assertEqual(len(table), 517)
        self.assertEqual(
            sorted(case for case, outcome in table.items() if outcome != ("OK", "OK")),
            ["7.1.6", "7.13.1", "7.13.2"],
        )

    def test_ranges_and_comments(self):
        table = judge.read_table("# a table\n\n2.9-11 OK OK # three\n")
        self.assertEqual(list(table), ["2.9", "2.10", "2.11"])

    def test_wrong_tables(self):
        for text, reason in (
            ("1.1.1 FAILED OK", "no result to be content with"),
            ("1.1.1 OK UNCLEAN", "no result to be content with"),
            ("1.1.1 NON-STRICT OK", "no result to be content with"),
            ("1.1.1 OK", "line 1: not"),
            ("1.* OK OK", "line 1: not"),
            ("1.1.5-3 OK OK", "an empty range"),
            ("1.1.1-3 OK OK\n1.1.2 OK OK", "line 2: 1.1.2 has a line already"),
        ):
            with self.assertRaisesRegex(judge.TableError, reason):
                judge.read_table(text)


if __name__ == "__main__":
    unittest.main()
