# SPDX-License-Identifier: Apache-2.0
"""What the README and the guide show is understood by what it is for; the build compiles C++ and C.

COWIRE is the built command."""
import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import snippets

COWIRE = os.environ.get("COWIRE", "")
# No option: where it is all that the command refuses, the rest was understood.
REFUSED = "--refused-by-the-test"
UNCHECKED_MAX = 2  # They are to be rare.


def complaint(words):
    """What the command finds wrong with its words; nothing is done."""
    done = subprocess.run([COWIRE, *words, REFUSED], capture_output=True, text=True)
    expected = f"was not expected: {REFUSED}; "
    return "" if expected in done.stderr else done.stderr or "it was obeyed"


def config_complaint(text):
    """What the command finds wrong with a configuration; without a destination it sends nothing."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(
            [COWIRE, "send", "--config", file.name], capture_output=True, text=True
        )
    return "" if "no destination; give --to" in done.stderr else done.stderr


def page(text):
    return list(snippets.blocks_of(text, "page.md"))


class Blocks(unittest.TestCase):
    def test_each_says_what_it_is(self):
        found = list(snippets.blocks())
        unchecked = [one.where for one in found if one.unchecked]
        self.assertLessEqual(len(unchecked), UNCHECKED_MAX, unchecked)
        self.assertGreater(len(found), len(unchecked))

    def test_one_that_does_not_is_found(self):
        for words in ("", "cpp bodies", "c++", "cpp unchecked:"):
            with self.assertRaises(snippets.Unknown, msg=words):
                page(f"```{words}\nint i;\n```\n")
        with self.assertRaises(snippets.Unknown):
            page("```cpp\nint i;\n")

    def test_code_keeps_its_page_and_line(self):
        (block,) = page("\n```cpp body\n#include <span>\nint i;\n```\n")
        self.assertIn('#line 3 "page.md"\n\nint i;\n', snippets.cpp(block, 1))


class Links(unittest.TestCase):
    LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")

    def test_each_leads_somewhere(self):
        for name in snippets.PAGES:
            for target, anchor in self.LINK.findall(name.read_text()):
                if target.startswith("http"):
                    continue
                file = name if not target else name.parent / target
                self.assertTrue(file.exists(), f"{name}: {target}")
                if anchor:
                    self.assertIn(anchor, self.anchors(file), f"{name}: {target}#{anchor}")

    def anchors(self, file):
        """As GitHub makes them of headings."""
        headings = re.findall(r"(?m)^#+ (.*)$", file.read_text())
        return [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings]

    def test_each_page_is_in_the_index(self):
        index = (snippets.ROOT / "docs/guide/README.md").read_text()
        for name in snippets.PAGES:
            if name.parent.name == "guide" and name.name != "README.md":
                self.assertIn(f"]({name.name})", index)


@unittest.skipUnless(COWIRE, "needs the command")
class Commands(unittest.TestCase):
    def test_are_understood(self):
        for block in snippets.of("sh") + snippets.of("console"):
            for words in snippets.commands(block):
                with self.subTest(where=block.where, words=words):
                    if words[0] == "cowire":
                        self.assertEqual("", complaint(words[1:]))
                    elif "scripts/" in words[0]:
                        self.assertTrue(os.access(snippets.ROOT / words[0], os.X_OK))

    def test_are_shell(self):
        for block in snippets.of("sh"):
            done = subprocess.run(["sh", "-n"], input=block.text, capture_output=True, text=True)
            self.assertEqual("", done.stderr, block.where)

    def test_a_wrong_one_is_found(self):
        for words in (["send", "--too", "x"], ["sent"], ["route", "got", "10.0.0.1"]):
            self.assertNotEqual("", complaint(words), words)
        self.assertEqual("", complaint(["send", "--to", "10.0.0.1:9"]))
        self.assertEqual("", complaint(["route", "get", "10.0.0.1", "-j"]))

    def test_behind_others_are_found(self):
        (block,) = page(
            "```sh\necho hello | A=1 sudo cowire send \\\n  --stdin <f && cowire doctor\n```\n"
        )
        self.assertEqual(
            [["echo", "hello"], ["cowire", "send", "--stdin"], ["cowire", "doctor"]],
            list(snippets.commands(block)),
        )


@unittest.skipUnless(COWIRE, "needs the command")
class Configurations(unittest.TestCase):
    def test_are_read(self):
        for block in snippets.of("toml"):
            self.assertEqual("", config_complaint(block.text), block.where)

    def test_a_wrong_one_is_found(self):
        self.assertIn(":2:1: ", config_complaint("[xdp]\ntx_coares = 2\n"))


class Python(unittest.TestCase):
    def test_is_python_and_what_it_imports_exists(self):
        for block in snippets.of("python"):
            tree = ast.parse(block.text, block.where)
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    file = snippets.ROOT / "examples" / f"{node.module}.py"
                    module = ast.parse(file.read_text())
                    defined = {one.name for one in module.body if hasattr(one, "name")}
                    for name in node.names:
                        self.assertIn(name.name, defined, block.where)


@unittest.skipUnless(shutil.which("rustc"), "needs rustc")
class Rust(unittest.TestCase):
    """Against the crates' declarations, which takes no library."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.made = []
        for crate in ("cowire-sys", "cowire"):
            lib = snippets.ROOT / "bindings/rust" / crate / "src/lib.rs"
            self.assertEqual("", self.compile(crate.replace("-", "_"), lib))

    def compile(self, name, file):
        command = ["rustc", "--edition", "2021", "--crate-type", "lib", "--emit", "metadata"]
        command += ["--crate-name", name, "--out-dir", str(self.scratch), "-L", str(self.scratch)]
        command += [word for crate in self.made for word in ("--extern", crate)]
        done = subprocess.run([*command, str(file)], capture_output=True, text=True)
        self.made.append(name)
        return done.stderr if done.returncode else ""

    def test_compile(self):
        for number, block in enumerate(snippets.of("rust")):
            self.assertEqual("", self.snippet(number, block.text), block.where)

    def snippet(self, number, text):
        file = self.scratch / f"snippet_{number}.rs"
        file.write_text(text)
        return self.compile(f"snippet_{number}", file)

    def test_a_wrong_one_is_found(self):
        self.assertIn("no_such", self.snippet(99, "pub fn f() { cowire::no_such(); }\n"))


if __name__ == "__main__":
    unittest.main()
