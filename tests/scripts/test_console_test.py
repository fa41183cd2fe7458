# SPDX-License-Identifier: Apache-2.0
"""What scripts/test shows while it runs, and the table at its end."""
import io
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib/test"))
import console
import presets
import summary
from results import Case


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(out):
    return [line.strip() for line in re.split("[\r\n]", out.getvalue()) if line.strip()]


class Progress(unittest.TestCase):
    def follow(self, out, *said):
        times = iter([0.0, *(65.0 for _ in range(20))])
        screen = console.Console(out, lambda: next(times))
        take = presets.follow_ctest("dev", screen)
        for line in said:
            take(line)
        return lines(out)

    def test_a_terminal_sees_how_far_the_tests_are(self):
        shown = self.follow(
            Terminal(), "      Start 5: lpm", " 5/70 Test  #5: lpm ....   Passed    0.10 sec"
        )
        self.assertEqual(shown, ["1:05  dev: ran 5 of 70 tests, last lpm"])

    def test_a_terminal_sees_a_failure_and_its_output(self):
        shown = self.follow(
            Terminal(), " 5/70 Test  #5: lpm ....***Failed    0.10 sec", "lpm_test.cpp:3: Failure"
        )
        self.assertEqual(
            shown, ["5/70 Test  #5: lpm ....***Failed    0.10 sec", "lpm_test.cpp:3: Failure"]
        )

    def test_a_file_gets_every_line(self):
        said = ["Start 5: lpm", "5/70 Test  #5: lpm ....   Passed    0.10 sec"]
        self.assertEqual(self.follow(io.StringIO(), *said), said)


class Table(unittest.TestCase):
    def test_counts_and_times(self):
        phases = [
            summary.Phase("dev", [Case("a", "passed"), Case("b", "skipped", "no GRE")], 61, 5),
            summary.Phase("lab", [Case("b", "passed"), Case("c", "failed", "why")], 0, 60),
        ]
        self.assertEqual(summary.table(phases)[1].split(), ["dev", "1", "0", "1", "1:01", "0:05"])
        self.assertEqual(summary.table(phases)[-1].split(), ["all", "2", "1", "1", "1:01", "1:05"])
        self.assertEqual(summary.failures(phases), ["Failed:", "  lab: c: why"])
        self.assertEqual(
            summary.skipped(phases),
            ["Skipped:", "  b (in dev): no GRE", "Each of them ran in another phase."],
        )


unittest.main()
