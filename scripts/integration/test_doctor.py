"""`uringcast doctor`: what it finds here, and what it says where less is allowed."""

import itertools
import json
import os

import pytest

from server import CONFINED, run_binary

USERS = itertools.count(2_000_000 + os.getpid())
NO_IO_URING = (*CONFINED, "--refuse", "io_uring_setup")
FREE_PORTS = [f"{port}=127.0.0.1:0" for port in ("--listen", "--publish-listen", "--admin")]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def doctor(*arguments, under=()):
    """Its exit code and its report."""
    code, out, error = run_binary("uringcast", "doctor", "--json", *arguments, under=under)
    assert not error, error
    return code, json.loads(out)


def check_of(report, name):
    (found,) = [check for check in report["checks"] if check["name"] == name]
    return found


def lines(check):
    return [fix["line"] for fix in check["fixes"]]


def another_user():
    """Memory is charged by user and given back late, so each takes another."""
    return ("--user", str(next(USERS)))


def test_it_says_what_it_finds():
    code, out, _ = run_binary("uringcast", "doctor")
    assert code == 0
    for word in ("kernel", "io_uring", "reactors", "RLIMIT_NOFILE", "somaxconn", "tcp_mem"):
        assert word in out, out
    assert "\nuringcast runs here, " in out and "\x1b" not in out


def test_json_has_the_same_and_every_problem_its_line():
    code, report = doctor("--reactors", "2", "--connections-max", "1000")
    assert code == 0 and report["can_serve"]
    assert (report["reactors"], report["connections_max"]) == (2, 2000)
    for check in report["checks"]:
        assert check["verdict"] in ("ok", "note", "problem")
        assert check["verdict"] == "ok" or check["fixes"], check
    assert check_of(report, "io_uring")["found"] == "allowed"


def test_a_seccomp_filter_that_bans_io_uring_is_named_with_what_lifts_it():
    code, report = doctor(under=NO_IO_URING)
    assert code == 1 and not report["can_serve"]
    check = check_of(report, "io_uring")
    assert check["stops"] and "seccomp" in check["why"]
    assert "--security-opt seccomp=scripts/deploy/seccomp.json" in lines(check)
    assert check_of(report, "seccomp")["found"] == "a filter"
    code, out, _ = run_binary("uringcast", "doctor", under=NO_IO_URING)
    assert code == 1 and "uringcast does not run here: io_uring" in out


def test_serve_under_such_a_filter_ends_with_the_same_reason():
    code, out, error = run_binary("uringcast", "serve", *FREE_PORTS, under=NO_IO_URING)
    assert code == 1 and out == ""
    assert "seccomp" in error and "--security-opt" in error, error


def test_a_filter_that_lets_io_uring_pass_is_no_problem():
    code, report = doctor(under=(*CONFINED, "--refuse", "ptrace"))
    assert code == 0
    assert check_of(report, "seccomp")["found"] == "a filter that lets io_uring pass"


def test_open_files_say_how_many_connections_and_reactors():
    code, report = doctor("--reactors", "2", under=(*CONFINED, "--files", "4000"))
    check = check_of(report, "RLIMIT_NOFILE")
    assert code == 0 and check["verdict"] == "note"
    assert report["connections_max"] == 7600
    for words in (
        "3,800 connections per reactor",
        "100,000 take 27 reactors",
        "1,000,000 are more",
    ):
        assert words in check["why"], check["why"]
    assert "LimitNOFILE=1048576" in lines(check)


@pytest.mark.parametrize(
    ("files", "flags"), [("64", []), ("4000", ["--connections-max", "5000"])], ids=["few", "asked"]
)
def test_too_few_open_files_are_told_where_serve_refuses(files, flags):
    under = (*CONFINED, "--files", files)
    code, report = doctor(*flags, under=under)
    check = check_of(report, "RLIMIT_NOFILE")
    assert code == 1 and check["stops"] and "serve does not start" in check["why"]
    assert run_binary("uringcast", "serve", *FREE_PORTS, *flags, under=under)[0] == 2


def test_reactors_share_the_limit_on_the_base_tier():
    code, report = doctor("--reactors=2", "--kernel-tier=base", under=(*CONFINED, "--files=8000"))
    assert code == 0 and check_of(report, "features")["found"] == "tier base"
    assert report["connections_max"] == 7600
    assert "however many reactors" in check_of(report, "RLIMIT_NOFILE")["why"]


@needs_root
def test_locked_memory_is_told_by_what_rings_take():
    """Just enough for the rings of two reactors and of the control thread, and too little for those
    of the reactors; kernels that charge nothing say so."""
    needed = 806_912
    code, report = doctor(
        "--reactors=2", under=(*CONFINED, "--locked", str(needed), *another_user())
    )
    assert code == 0 and check_of(report, "RLIMIT_MEMLOCK")["verdict"] == "ok"
    short = 700_000
    code, report = doctor(
        "--reactors=2", under=(*CONFINED, "--locked", str(short), *another_user())
    )
    check = check_of(report, "RLIMIT_MEMLOCK")
    if check["verdict"] == "ok":
        assert code == 0 and "does not charge" in check["why"]
    else:
        assert code == 1 and lines(check)[0] == "LimitMEMLOCK=infinity"
        under = (*CONFINED, "--locked", str(short), *another_user())
        code, _, error = run_binary("uringcast", "serve", "--reactors=2", *FREE_PORTS, under=under)
        assert code == 1 and "RLIMIT_MEMLOCK" in error, error


def test_wrong_flags_are_wrong_use():
    for flags, named in ((["--reactors", "0"], "reactors"), (["--jason"], "--jason")):
        code, out, error = run_binary("uringcast", "doctor", *flags)
        assert code == 2 and out == "" and named in error
