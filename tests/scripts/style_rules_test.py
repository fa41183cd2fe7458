# SPDX-License-Identifier: Apache-2.0
"""What scripts/test's rules find, and what they let pass."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib/test"))
import rules


def tree(**texts):
    return {pathlib.Path(name): text for name, text in texts.items()}


def include(header):
    return f"#include <cowire/{header}>\n"


class Includes(unittest.TestCase):
    def found(self, name, header):
        return list(rules.includes(tree(**{name: include(header)})))

    def test_a_room_may_include_what_is_below_it_and_its_own_detail(self):
        self.assertEqual(self.found("async/sender.hpp", "follow/route_events.hpp"), [])
        self.assertEqual(self.found("route/lpm.cpp", "route/detail/cover.hpp"), [])
        self.assertEqual(self.found("tests/route/lpm_test.cpp", "route/detail/cover.hpp"), [])

    def test_a_room_may_not_include_what_is_above_it(self):
        for name, header in (
            ("follow/route_events.hpp", "async/sender.hpp"),
            ("follow/route_events.hpp", "xdp/umem.hpp"),
            ("ring/ring_timer.cpp", "route/lpm.hpp"),
            ("base/error.hpp", "ring/asio.hpp"),
        ):
            self.assertIn(f"includes {header}", self.found(name, header)[0])

    def test_a_room_may_not_include_what_is_below_it_and_not_its_business(self):
        found = self.found("xdp/umem.cpp", "gre/header.hpp")
        self.assertIn("xdp may include: base netlink route", found[0])

    def test_the_detail_of_another_room_is_its_own(self):
        self.assertIn("for route alone", self.found("cli/route.cpp", "route/detail/cover.hpp")[0])
        self.assertIn("for follow alone", self.found("async/a.hpp", "follow/detail/sysctls.hpp")[0])

    def test_tests_and_benchmarks_share_the_testbed_alone(self):
        text = '#include "tests/support/netns.hpp"\n'
        for name, count in (("bench/a.cpp", 1), ("testbed/a.hpp", 1), ("tests/route/a.cpp", 0)):
            self.assertEqual(len(list(rules.includes(tree(**{name: text})))), count, name)

    def test_spaces_hide_no_include(self):
        for text in ("#include  <cowire/async/a.hpp>", "#  include <cowire/async/a.hpp>",
                     "  #include<cowire/async/a.hpp>"):  # fmt: skip
            found = list(rules.includes(tree(**{"base/a.hpp": text + "\n"})))
            self.assertIn("base may include: nothing", found[0], text)


class Functions(unittest.TestCase):
    def lines(self, text):
        return [(head.split("(")[0], lines) for _, lines, head in rules.functions(text)]

    def test_counts_from_the_first_word_to_the_last_brace(self):
        text = "namespace a {\nint f(\n    int x) {\n  return x;\n}\n}"
        self.assertEqual(self.lines(text), [("int f", 4)])

    def test_constructors_with_braces_in_their_initialisers(self):
        text = "struct a {\n  a()\n      : b_{1},\n        c_{2} {\n    f();\n  }\n"
        text += "  int d() { return 1; }\n};"
        self.assertEqual(self.lines(text), [("a", 5), ("int d", 1)])

    def test_blocks_and_lambdas_inside_are_part_of_it(self):
        text = "void f() {\n  if (x) {\n    g([] { return 1; });\n  }\n}"
        self.assertEqual(self.lines(text), [("void f", 5)])

    def test_tables_types_and_strings_are_not_functions(self):
        text = (
            "const std::map<int, int> a = {\n{1, 2},\n};\nenum class b { c };\n"
            'const char* d = "{(";\nauto e = R"({)";\nchar f = \'{\';\n// g() {\nvoid h() {}'
        )
        self.assertEqual(self.lines(text), [("void h", 1)])

    def test_operators_and_lambdas_with_a_name_are_functions(self):
        for head in ("bool operator==(a x)", "a& operator=(a&& x)", "auto operator<=>(a x)"):
            self.assertEqual([lines for _, lines in self.lines(head + " {\n}\n")], [2], head)
        self.assertEqual(self.lines("auto f = [](int x) {\n};\n"), [("auto f = []", 2)])
        self.assertEqual(self.lines("const a b = make({1, 2});\nbool c = d(1) == e{};\n"), [])

    def test_one_line_too_many_is_a_finding_unless_it_is_known(self):
        fits = "void f() {\n" + "g();\n" * 68 + "}"
        long = "void f() {\n" + "g();\n" * 69 + "}"
        self.assertEqual(list(rules.long_functions(tree(a=fits), {})), [])
        self.assertIn("a:1: 71 lines", list(rules.long_functions(tree(a=long), {}))[0])
        self.assertEqual(list(rules.long_functions(tree(a=long), {"a: f": "why"})), [])
        self.assertIn("take it off", list(rules.long_functions(tree(a=fits), {"a: f": "why"}))[0])


class Comments(unittest.TestCase):
    def found(self, text):
        paths = [pathlib.Path("route/lpm.hpp")]
        return list(rules.comments(tree(a=text), {"look_up", "grow", "tables_"}, paths))

    def test_what_exists_may_be_named(self):
        text = "// look_up() reads `tables_`; see grow(), lpm.hpp, route/lpm.hpp\n"
        self.assertEqual(self.found(text), [])

    def test_what_does_not_exist_may_not(self):
        for text, word in (
            ("// See shrink().\n", "shrink"),
            ("// pairs with `wake`\n", "wake"),
            ("int a;  // guarded by slots_\n", "slots_"),
            ("// the free_list is full\n", "free_list"),
            ("// as route/trie.hpp says\n", "route/trie.hpp"),
        ):
            self.assertIn(word, self.found(text)[0])

    def test_the_kernel_may_be_cited(self):
        self.assertEqual(self.found("// As the kernel's do_that() (net/core/dev.c).\n"), [])
        self.assertEqual(self.found("// Not what fib_select_default() does.\n"), [])


class Subjects(unittest.TestCase):
    def test_a_long_subject_is_a_finding(self):
        with tempfile.TemporaryDirectory() as folder:

            def git(*words):
                person = ["-c", "user.name=a", "-c", "user.email=a@b"]
                command = ["git", "-C", folder, *person, *words]
                subprocess.run(command, check=True, capture_output=True)

            git("init")
            git("commit", "--allow-empty", "-m", "x" * 72)
            self.assertEqual(list(rules.subjects(folder, "2000-01-01")), [])
            git("commit", "--allow-empty", "-m", "x" * 73)
            self.assertIn("73 columns", list(rules.subjects(folder, "2000-01-01"))[0])


class Tree(unittest.TestCase):
    def test_the_umbrella_includes_the_headers_that_the_architecture_lists(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        included = rules.re.findall(
            r"^#include <cowire/(.+)>", (root / "cowire.hpp").read_text(), rules.re.MULTILINE
        )
        text = (root / "docs/architecture.md").read_text()
        listed = rules.re.findall(r"^\| `(\w+/\w+\.hpp)` \|", text, rules.re.MULTILINE)
        self.assertEqual(sorted(listed), sorted(included))

    def test_the_umbrella_drags_in_neither_engine_nor_netlink(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        reached, left = set(), ["cowire.hpp"]
        while left:
            name = left.pop()
            if name not in reached:
                reached.add(name)
                text = (root / name).read_text()
                left += rules.re.findall(r"^#include <cowire/(.+)>", text, rules.re.MULTILINE)
        self.assertGreater(len(reached), 20)
        for unwanted in ("async/detail/", "follow/detail/", "route/epoch", "route/mirror.hpp"):
            self.assertEqual([name for name in reached if name.startswith(unwanted)], [])
        for unwanted in ("netlink/message.hpp", "netlink/nft_message.hpp", "xdp/tx_core.hpp"):
            self.assertNotIn(unwanted, reached)

    def test_every_room_has_its_rule(self):
        text = (pathlib.Path(__file__).resolve().parents[2] / "CMakeLists.txt").read_text()
        for room in rules.re.findall(r"^add_subdirectory\((\w+)\)", text, rules.re.MULTILINE):
            self.assertIn(room, rules.NEEDS)

    def test_the_rooms_stand_on_one_another_without_a_cycle(self):
        done = []
        for room, needs in rules.NEEDS.items():  # From below.
            self.assertLessEqual(set(needs.split()), set(done), room)
            done.append(room)

    def test_the_build_links_what_a_room_may_include(self):
        """A room links no more than it may include, and whatever it may include comes along."""
        root = pathlib.Path(__file__).resolve().parents[2]
        for room, needs in rules.NEEDS.items():
            text = (root / room / "CMakeLists.txt").read_text()
            linked = set(rules.re.findall(r"\bcowire(?:::|_)(\w+)", text))
            linked = {"cli" if name == "command" else name for name in linked} & set(rules.NEEDS)
            linked -= {room}
            reached = linked.union(*(rules.NEEDS[other].split() for other in linked))
            self.assertLessEqual(linked, set(needs.split()), room)
            self.assertLessEqual(set(needs.split()), reached, room)


unittest.main()
