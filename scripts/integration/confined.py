"""Runs a program with fewer rights, as a container engine or systemd would give it.

    python3 confined.py [--profile FILE | --allow CALL,… | --refuse CALL,…] [--no-new-code] \
        [--files N] [--locked BYTES] [--user ID] COMMAND…

`--profile` is an OCI seccomp profile, `--allow` a list of the only calls there are, `--refuse` one
of those that answer EPERM. They are loaded by libseccomp, as runc and systemd do.

Knows: libseccomp, limits, the kernel's flag against new code (Linux 6.3). Must not know: what is
run.
"""

import argparse
import ctypes
import errno
import json
import os
import resource
import sys

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`"""

    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


class Filter:
    """One filter, built up and loaded; it holds for this process and whatever it becomes."""

    def __init__(self, default):
        self.library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(default)))
        assert self.context, "seccomp_init"

    def rule(self, action, name, comparisons=()):
        number = self.library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            # Of another architecture, or newer than the library: runc passes over it as well.
            return
        array = (Comparison * len(comparisons))(*comparisons)
        outcome = self.library.seccomp_rule_add_array(
            self.context, ctypes.c_uint32(action), number, len(comparisons), array
        )
        assert outcome == 0, (name, os.strerror(-outcome))

    def load(self):
        outcome = self.library.seccomp_load(self.context)
        assert outcome == 0, os.strerror(-outcome)


def profile(path):
    """An OCI profile of two actions: allow, and an errno."""
    with open(path, encoding="utf-8") as file:
        read = json.load(file)
    assert read["defaultAction"] == "SCMP_ACT_ERRNO", read["defaultAction"]
    built = Filter(ERRNO | read["defaultErrnoRet"])
    for group in read["syscalls"]:
        assert group["action"] == "SCMP_ACT_ALLOW", group["action"]
        comparisons = [
            Comparison(each["index"], OPERATORS[each["op"]], each["value"], each.get("valueTwo", 0))
            for each in group.get("args", [])
        ]
        for name in group["names"]:
            built.rule(ALLOW, name, comparisons)
    return built


def list_of(default, action, names):
    built = Filter(default)
    for name in names.split(","):
        built.rule(action, name)
    return built


def confine(arguments):
    if arguments.files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (arguments.files,) * 2)
    if arguments.locked is not None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (arguments.locked,) * 2)
    if arguments.user is not None:
        os.setgroups([])
        os.setgid(arguments.user)
        os.setuid(arguments.user)
    if arguments.no_new_code:
        outcome = ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
        assert outcome == 0, "PR_SET_MDWE: Linux 6.3"
    if arguments.profile:
        profile(arguments.profile).load()
    elif arguments.allow:
        list_of(ERRNO | errno.ENOSYS, ALLOW, arguments.allow).load()
    elif arguments.refuse:
        list_of(ALLOW, ERRNO | errno.EPERM, arguments.refuse).load()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--profile", metavar="FILE")
    which.add_argument("--allow", metavar="CALL,…")
    which.add_argument("--refuse", metavar="CALL,…")
    parser.add_argument("--no-new-code", action="store_true")
    parser.add_argument("--files", type=int, metavar="N")
    parser.add_argument("--locked", type=int, metavar="BYTES")
    parser.add_argument("--user", type=int, metavar="ID")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("a command is missing")
    confine(arguments)
    os.execv(arguments.command[0], arguments.command)


if __name__ == "__main__":
    sys.exit(main())
