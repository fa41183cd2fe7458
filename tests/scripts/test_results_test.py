# SPDX-License-Identifier: Apache-2.0
"""How scripts/test reads the reports of ctest and GoogleTest."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib/test"))
import results

GTEST = """<?xml version="1.0"?><testsuites><testsuite name="Trie">
<testcase name="Finds" status="run" result="completed" classname="Trie"/>
<testcase name="IsWide" status="run" result="skipped" classname="Trie">
  <skipped message="lpm_test.cpp:12&#x0A;needs AVX2"/></testcase>
<testcase name="DISABLED_Old" status="notrun" result="suppressed" classname="Trie"/>
</testsuite></testsuites>"""


class Collect(unittest.TestCase):
    def collect(self, tests):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "test_lpm.xml").write_text(GTEST)
            (folder / "junit.xml").write_text(f"<testsuite>{tests}</testsuite>")
            return [
                (case.name, case.outcome, case.reason)
                for case in results.collect(folder / "junit.xml", folder)
            ]

    def test_a_gtest_program_counts_by_its_cases(self):
        self.assertEqual(
            self.collect('<testcase name="lpm" status="run"/>'),
            [("lpm: Trie.Finds", "passed", ""), ("lpm: Trie.IsWide", "skipped", "needs AVX2")],
        )

    def test_a_program_that_fails_after_its_cases_passed_is_a_failure(self):
        found = self.collect(
            '<testcase name="lpm" status="fail"><failure message=""/>'
            "<system-out>[  PASSED  ]\nleaked 8 bytes</system-out></testcase>"
        )
        self.assertIn(("lpm", "failed", "leaked 8 bytes"), found)

    def test_any_other_test_counts_as_one(self):
        self.assertEqual(
            self.collect('<testcase name="package" status="run"/>'), [("package", "passed", "")]
        )

    def test_a_skip_by_return_code_tells_its_last_line(self):
        found = self.collect(
            '<testcase name="example" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/>'
            "<system-out>hello\nno AF_XDP here\n</system-out></testcase>"
        )
        self.assertEqual(found, [("example", "skipped", "no AF_XDP here")])

    def test_a_program_that_could_not_be_started_is_a_failure(self):
        found = self.collect(
            '<testcase name="gone" status="notrun"><skipped message="Unable to find it"/>'
            "<system-out>Unable to find executable: /gone</system-out></testcase>"
        )
        self.assertEqual(found, [("gone", "failed", "Unable to find executable: /gone")])


unittest.main()
