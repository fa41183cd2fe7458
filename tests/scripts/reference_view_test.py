# SPDX-License-Identifier: Apache-2.0
"""What Doxygen gets to see of a header."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib"))
import reference_view

TOP = "// SPDX\n/// What it is for.\n#pragma once\n\nnamespace cowire {\n\n"


def cpp(text, stem="other"):
    return reference_view.cpp_view(TOP + text + "\n}  // namespace cowire\n", stem)


class Cpp(unittest.TestCase):
    def test_the_comment_on_top_is_the_files_and_its_classs(self):
        seen = cpp("class thing {\n public:\n  void f();\n};\n", "thing")
        self.assertIn("/// \\file\n/// What it is for.\n", seen)
        self.assertIn("/// \\copydoc thing.hpp\nclass thing {", seen)
        self.assertNotIn("copydoc", cpp("class thing {\n};\n"))
        self.assertNotIn("copydoc", cpp("/// A thing.\nclass thing {\n};\n", "thing"))

    def test_a_comment_is_for_all_overloads(self):
        seen = cpp("class a {\n  /// Does.\n  void f();\n  void f(int i);\n  void g();\n};\n")
        self.assertIn("/// \\overload\n  void f(int i);", seen)
        self.assertIn("void f(int i);\n  void g();", seen)  # Whose nobody has written.

    def test_but_not_for_those_of_another_class(self):
        seen = cpp("class a {\n  /// Does.\n  void f();\n};\nclass b {\n  void f();\n};\n")
        self.assertNotIn("overload", seen)

    def test_what_a_function_calls_is_no_declaration(self):
        body = "  /// Calls.\n  void g() {\n    f();\n  }\n"
        seen = cpp("class a {\n  /// Does.\n  void f();\n" + body + "};\n")
        self.assertNotIn("overload", seen)

    def test_special_members_are_left_out_unless_something_is_said(self):
        special = "  a() = default;\n  a(a&&) = default;\n  ~a();\n"
        seen = cpp("class a {\n" + special + "  explicit a(int i);\n};\n")
        self.assertNotIn("default", seen)
        self.assertNotIn("~a", seen)
        self.assertIn("explicit a(int i);", seen)
        self.assertIn("~a();", cpp("class a {\n  /// Waits.\n  ~a();\n};\n"))

    def test_each_variable_of_a_statement_has_its_comment(self):
        seen = cpp("struct a {\n  int b = 1, c{};  ///< Of both.\n};\n")
        self.assertIn("int b = 1; /**< Of both. */ int c{}; /**< Of both. */", seen)

    def test_digits_are_not_quoted(self):
        self.assertIn("= 10000;", cpp("/// Many.\ninline constexpr int a = 10'000;\n"))


class C(unittest.TestCase):
    def test_comments_are_doxygens(self):
        seen = reference_view.c_view(
            "/* SPDX-License */\n/* What for. */\nstruct a {\n  int b;   /* It. */\n};\n"
            "/* Does. */\nint f(void);\n"
        )
        self.assertEqual(
            "/* SPDX-License */\n/** \\file\n * What for. */\n"
            "struct a {\n  int b; /**< It. */\n};\n"
            "/** Does. */\nint f(void);\n",
            seen,
        )


if __name__ == "__main__":
    unittest.main()
