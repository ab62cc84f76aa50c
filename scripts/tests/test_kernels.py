"""The kernel matrix picks the right packages and can say no: `python3 -m unittest discover scripts/tests`."""

import io
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernels"))

import catalogue  # noqa: E402 (the line above has to come first)
import guests  # noqa: E402
import packages  # noqa: E402
import verdicts  # noqa: E402

UML, = catalogue.by_name(["uml-5.10"])
NEWEST, = catalogue.by_name(["debian-newest"])
GOOD = """\
SELinux: something of the kernel's
kernel 5.10.46
checks start publish drain
log reactor index=0 cpu=0 ring=tier base, 1024 submissions, 16384 completions
metric uringcast_ring_tier{tier="base"} 1
metric uringcast_ring_feature{feature="ext_arg",since="5.11"} 0
metric uringcast_ring_feature{feature="eventfd",since="5.2"} 1
ok start 1
ok publish 3
ok drain 2
GUEST_EXIT=0
"""


def judged(text, tier="auto"):
    return verdicts.judge(UML, tier, text.splitlines(), 12.3)


class Verdicts(unittest.TestCase):
    def test_a_good_guest(self):
        verdict = judged(GOOD)
        self.assertTrue(verdict.good, verdict.failed)
        self.assertEqual(verdict.passed, ("start", "publish", "drain"))
        self.assertEqual(verdict.release, "5.10.46")
        self.assertEqual(verdict.chosen, verdicts.Chosen("base", ("eventfd",)))

    def test_a_console_has_carriage_returns_and_colours(self):
        text = "".join(f"\x1b[0m{line}\r\n" for line in GOOD.splitlines())
        self.assertTrue(judged(text).good)

    def test_a_failed_check(self):
        text = GOOD.replace("ok publish 3", "failed publish 3: lost: all of it").replace("=0\n", "=1\n")
        self.assertEqual(judged(text).failed, {"publish": "lost: all of it"})

    def test_a_check_that_was_not_run(self):
        text = GOOD.replace("ok drain 2\n", "").replace("=0\n", "=1\n")
        self.assertEqual(judged(text).failed, {"drain": verdicts.NOT_RUN})

    def test_no_boot(self):
        self.assertEqual(list(judged("Kernel panic - not syncing").failed), ["boot"])
        self.assertEqual(list(judged("").failed), ["boot"])

    def test_another_kernel_than_was_asked_for(self):
        self.assertIn("5.10.99", judged(GOOD.replace("5.10.46", "5.10.99")).failed["boot"])

    def test_a_guest_that_hangs_or_dies_at_the_end(self):
        self.assertEqual(list(judged(GOOD.replace("GUEST_EXIT=0", "")).failed), ["end"])

    def test_an_exit_status_that_does_not_fit(self):
        self.assertEqual(list(judged(GOOD.replace("EXIT=0", "EXIT=1")).failed), ["end"])
        text = GOOD.replace("ok publish 3", "failed publish 3: lost")
        self.assertEqual(list(judged(text).failed), ["publish", "end"])

    def test_another_tier_than_was_asked_for(self):
        self.assertTrue(judged(GOOD, "base").good)
        text = GOOD.replace('tier="base"', 'tier="modern"')
        self.assertTrue(judged(text).good)
        self.assertEqual(list(judged(text, "base").failed), ["tier"])

    def test_the_tier_from_the_log_alone(self):
        lines = ["log reactor index=1 cpu=0 ring=tier modern (6.1), 1024 submissions, 9 slots"]
        self.assertEqual(verdicts.read_chosen(lines), verdicts.Chosen("modern", ()))
        self.assertIsNone(verdicts.read_chosen(["ok start 1"]))
        text = "\n".join(line for line in GOOD.splitlines() if line[:4] not in ("log ", "metr"))
        self.assertEqual(list(judged(text).failed), ["tier"])

    def test_what_is_acceptable(self):
        missing = verdicts.Verdict("uml-6.1", "auto", missing="the mirror has none")
        good, bad = judged(GOOD), judged("")
        self.assertTrue(verdicts.acceptable([good], allow_missing=False))
        self.assertFalse(verdicts.acceptable([good, missing], allow_missing=False))
        self.assertTrue(verdicts.acceptable([good, missing], allow_missing=True))
        self.assertFalse(verdicts.acceptable([good, bad, missing], allow_missing=True))
        # A mirror that does not answer is no success.
        self.assertFalse(verdicts.acceptable([missing], allow_missing=True))

    def test_the_table(self):
        text = GOOD.replace("ok publish 3", "failed publish 3: lost").replace("ok drain 2\n", "")
        missing = verdicts.Verdict("uml-6.1", "auto", missing="the mirror has none")
        self.assertEqual(
            verdicts.table([judged(GOOD), judged(text.replace("=0\n", "=1\n")), missing]),
            [
                "kernel    release  tier  passed  failed  seconds  features",
                "uml-5.10  5.10.46  base       3       0       12  eventfd",
                "uml-5.10  5.10.46  base       1       2       12  eventfd",
                "    failed publish: lost",
                "    not run: drain",
                "uml-6.1   missing",
                "    the mirror has none",
            ],
        )

    def test_for_programs(self):
        found = verdicts.as_json(judged(GOOD), {"sha256": "0"})
        self.assertEqual(
            (found["tier"], found["features"], found["package"]), ("base", ["eventfd"], {"sha256": "0"})
        )


class Catalogue(unittest.TestCase):
    def test_madison(self):
        text = (
            " user-mode-linux | 5.10um3+b1 | http://mirror/debian bullseye/main amd64 Packages\n"
            "user-mode-linux | 5.10um3 | http://mirror/debian bullseye/main Sources\n"
            "N: something else\n"
        )
        self.assertEqual(catalogue.read_madison(text), [("user-mode-linux", "5.10um3+b1")])

    def test_the_newest_by_debians_order(self):
        found = [
            catalogue.Package(f"linux-image-{version}+deb13-cloud-amd64", f"{version}-1")
            for version in ("6.12.9", "6.12.118", "6.12.90", "6.12.118~rc1")
        ]
        self.assertEqual(catalogue.newest(found).version, "6.12.118-1")
        self.assertIsNone(catalogue.newest([]))

    def test_what_has_the_image_goes_before_what_stands_for_it(self):
        names = ("linux-image-7.3.4+deb13-cloud-amd64", "linux-binary-7.3.4+deb13-cloud-amd64")
        for order in (names, names[::-1]):
            found = [catalogue.Package(name, "7.3.4-1~bpo13+1") for name in order]
            self.assertEqual(catalogue.newest(found).name, names[1])

    def test_which_packages_are_meant(self):
        for name, meant in {
            "linux-image-7.3.4+deb13-cloud-amd64": True,
            "linux-image-cloud-amd64": False,
            "linux-image-7.3.4+deb13-cloud-amd64-unsigned": False,
            "linux-image-7.3.4+deb13-amd64": False,
            "linux-image-7.3.4+deb13-cloud-amd64-dbg": False,
        }.items():
            found = catalogue.matching(NEWEST, [catalogue.Package(name, "7.3.4-1")])
            self.assertEqual(bool(found), meant, name)
        versions = [catalogue.Package("user-mode-linux", each) for each in ("5.10um3", "6.1um4", "15.10um1")]
        self.assertEqual(catalogue.matching(UML, versions), versions[:1])

    def test_names(self):
        names = ["debian-6.1", "uml-5.10"]
        self.assertEqual([each.name for each in catalogue.by_name(names)], ["uml-5.10", "debian-6.1"])
        with self.assertRaises(KeyError):
            catalogue.by_name(["uml-5.10", "uml-4"])


class Packages(unittest.TestCase):
    def test_mirrors(self):
        text = "http://a/debian/\nhttp://a/debian-security/\nhttps://b/tools\nhttp://c/debian\n"
        self.assertEqual(packages.read_mirrors(text), ("http://a/debian", "http://a/debian-security"))
        self.assertEqual(packages.read_mirrors("https://b/tools\n"), (None, None))
        mirror = packages.Mirror("http://a/debian/")
        self.assertIn(" http://a/debian-security bullseye-security main", mirror.line("bullseye-security"))
        self.assertIn(" http://a/debian/ bullseye main", mirror.line("bullseye"))

    def test_the_systems_release(self):
        text = 'NAME="x"\nID=debian\nVERSION_CODENAME=bookworm\n'
        self.assertEqual(packages.read_codename(text), "bookworm")
        self.assertIsNone(packages.read_codename(text.replace("debian", "fedora")))
        self.assertIsNone(packages.read_codename(""))

    def test_qemu_counts_as_not_installed(self):
        status = "Package: libc6\nVersion: 1\n\nPackage: qemu-utils\nVersion: 2\n\nPackage: zlib1g\n\n"
        self.assertEqual(packages.without_qemu(status), "Package: libc6\nVersion: 1\n\nPackage: zlib1g\n\n")


class Guests(unittest.TestCase):
    def test_ldd(self):
        text = (
            "\tlinux-vdso.so.1 (0x00007fec)\n"
            "\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007fed)\n"
            "\tlibnone.so => not found\n"
            "\t/lib64/ld-linux-x86-64.so.2 (0x00007fee)\n"
        )
        self.assertEqual(
            guests.read_ldd(text),
            ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"],
        )
        self.assertEqual(guests.read_ldd("\tstatically linked\n"), [])

    def test_an_archive(self):
        file = io.BytesIO()
        archive = guests.Cpio(file)
        archive.device("dev/console", 5, 1)
        archive.link("bin/sh", "/guest/busybox")
        archive.file("/a/b/this", Path(__file__))
        archive.end()
        data, names, at = file.getvalue(), [], 0
        while at < len(data):
            fields = [int(data[at + 6 + 8 * each : at + 14 + 8 * each], 16) for each in range(13)]
            name = data[at + 110 : at + 110 + fields[11] - 1].decode()
            at += -(-(110 + fields[11]) // 4) * 4
            names.append((name, oct(fields[1]), data[at : at + fields[6]]))
            at += -(-fields[6] // 4) * 4
        self.assertEqual([name for name, _, _ in names][:4], ["dev/console", "bin/sh", "a", "a/b"])
        self.assertEqual(names[1][1:], ("0o120777", b"/guest/busybox"))
        self.assertEqual(names[4][2], Path(__file__).read_bytes())
        self.assertEqual(names[-1][0], "TRAILER!!!")


if __name__ == "__main__":
    unittest.main()
