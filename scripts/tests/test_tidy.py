"""tidy finds what it should find and nothing else: `python3 -m unittest discover scripts/tests`."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tidy  # noqa: E402 (the line above has to come first)


def findings(path, *lines):
    return sorted(tidy.check_file(path, "".join(line + "\n" for line in lines)))


class Rooms(unittest.TestCase):
    def test_topics_and_conn_never_name_each_other(self):
        found = findings("server/src/topics/mod.rs", "//! t", "use crate::conn::Table;")
        self.assertEqual(found, [(2, "'topics' must not know 'conn'")])
        found = findings("server/src/conn/table.rs", "//! c", "", "type T = crate::topics::T;")
        self.assertEqual(found, [(3, "'conn' must not know 'topics'")])

    def test_names_in_braces_count(self):
        found = findings(
            "server/src/control/mod.rs", "//! c", "use crate::{", "    ids::{NodeId, LaneId},",
            "    shard, mail::Mail,", "    topics::{conn::A},", "};",
        )
        self.assertEqual(
            found, [(4, "'control' must not know 'shard'"), (5, "'control' must not know 'topics'")]
        )

    def test_own_room_and_lower_ones_are_free(self):
        self.assertEqual(
            findings("server/src/shard/mod.rs", "//! s", "use crate::{conn, topics, shard::A};"), []
        )

    def test_an_unknown_room_is_a_decision(self):
        self.assertIn("is not in the table", findings("server/src/news.rs", "//! n")[0][1])
        found = findings("server/src/shard.rs", "//! s", "use crate::news::A;")
        self.assertEqual(found, [(2, "'shard' names 'news', which is not in the table of rooms")])

    def test_super_out_of_a_room(self):
        self.assertEqual(
            findings("server/src/conn/mod.rs", "//! c", "use super::topics;"),
            [(2, "super:: out of a room: say crate::")],
        )
        self.assertEqual(findings("server/src/conn/table.rs", "//! c", "use super::State;"), [])

    def test_other_crates(self):
        found = findings("server/src/topics/log.rs", "//! t", "use uringcast_ring::Slot;")
        self.assertEqual(found, [(2, "'topics' must not know 'uringcast_ring::Slot'")])
        self.assertEqual(
            findings("server/src/topics/log.rs", "//! t", "use uringcast_ring::pool::Frame;"), []
        )
        found = findings("server/src/conn/mod.rs", "//! c", "use uringcast_ring::{pool::Lease, Ring};")
        self.assertEqual(found, [(2, "'conn' must not know 'uringcast_ring::Ring'")])
        found = findings("server/src/conn/mod.rs", "//! c", "use uringcast_mesh::Node;")
        self.assertEqual(found, [(2, "'conn' must not know 'uringcast_mesh::Node'")])

    def test_tests_comments_and_strings_are_free(self):
        self.assertEqual(
            findings(
                "server/src/topics/mod.rs", "//! crate::conn is not for us", 'const A: &str = "crate::conn";',
                "const B: char = '\"'; // crate::conn", "#[cfg(test)]", "mod tests {",
                "    use crate::{conn::A, shard};", "    use super::*;", "}",
            ),
            [],
        )
        found = findings(
            "server/src/topics/mod.rs", "//! t", "#[cfg(test)]", "mod tests {}", "use crate::conn;"
        )
        self.assertEqual(found, [(4, "'topics' must not know 'conn'")])


class Text(unittest.TestCase):
    def test_unsafe_has_its_places(self):
        line = "fn f() { unsafe { g() } }"
        self.assertEqual(
            findings("server/src/shard.rs", "//! s", line),
            [(2, "unsafe stands in the ring and the mesh only")],
        )
        for path in ("server/ring/src/a.rs", "server/mesh/src/a.rs", "loadgen/src/driver/ring/a.rs"):
            self.assertEqual(findings(path, "//! a", line), [])
        self.assertEqual(len(findings("loadgen/src/client.rs", "//! c", "#![allow(unsafe_code)]")), 1)
        self.assertEqual(findings("loadgen/src/client.rs", "//! unsafe", "// unsafe"), [])

    def test_roots_forbid_unsafe(self):
        self.assertEqual(len(findings("protocol/src/lib.rs", "//! p")), 1)
        self.assertEqual(findings("protocol/src/lib.rs", "//! p", "#![forbid(unsafe_code)]"), [])

    def test_modules_begin_with_what_they_know(self):
        self.assertEqual(findings("loadgen/src/a.rs", "use std::io;")[0][0], 1)

    def test_length(self):
        lines = ["//! a"] + ["//"] * (tidy.LINES_MAX - 1)
        self.assertEqual(findings("loadgen/src/a.rs", *lines), [])
        self.assertEqual(len(findings("loadgen/src/a.rs", *lines, "//")), 1)

    def test_unfinished_work(self):
        for line in ("fn f() { todo!() }", "#[ignore]", "#[ignore = \"slow\"]", "dbg!(1);"):
            self.assertEqual(len(findings("loadgen/src/a.rs", "//! a", line)), 1, line)
        self.assertEqual(findings("loadgen/src/a.rs", "//! todo! is not used", "// todo!()"), [])

    def test_paths_of_one_machine(self):
        for place in ("work", "root", "tmp", "home"):
            self.assertEqual(len(findings("README.md", f"see /{place}/x")), 1, place)
        for line in ("https://example.org/home/x", "$HOME/tmp/x", "a/tmp/b", "under /tmp"):
            self.assertEqual(findings("README.md", line), [], line)


class Manifests(unittest.TestCase):
    def test_every_kind_of_dependency_counts(self):
        manifest = {
            "dependencies": {"a": 1},
            "dev-dependencies": {"b": 1},
            "target": {"cfg(loom)": {"dependencies": {"c": 1}}},
        }
        self.assertEqual(sorted(tidy.dependencies(manifest)), ["a", "b", "c"])


if __name__ == "__main__":
    unittest.main()
