# SPDX-License-Identifier: Apache-2.0
"""What a soak calls a failure."""
import dataclasses
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib/soak"))
from account import LOST_PER_LINK_CHANGE, Account, Measurements

TOTALS = {
    "submitted": 100,
    "transmitted": {"u0": 60, "u1": 20},
    "kernel_path": 10,
    "diverted": {"no_route": 19},
    "refused": {"ENETUNREACH": 9},
    "lost_in_device": 1,
    "audit": {
        "audited": 50,
        "mismatched": 0,
        "last_mismatch": "",
        "dumps": 2,
        "dump_differences": 0,
    },
}
GOOD = Account(
    totals=TOTALS,
    handed_over=100,
    arrived=90,
    wrong_checksums=0,
    discarded=0,
    link_changes=0,
    measured=Measurements(50_000, 51_000, 60_000, 25, 25),
)


class Complaints(unittest.TestCase):
    def complaints(self, **changed):
        return dataclasses.replace(GOOD, **changed).complaints()

    def measured(self, **changed):
        return self.complaints(measured=dataclasses.replace(GOOD.measured, **changed))

    def assertOne(self, found, words):
        self.assertEqual(len(found), 1, found)
        self.assertIn(words, found[0])

    def test_a_run_in_which_all_is_accounted_for_has_none(self):
        self.assertEqual(self.complaints(), [])

    def test_a_datagram_that_is_nowhere(self):
        self.assertOne(
            self.complaints(totals=TOTALS | {"lost_in_device": 0}), "1 datagrams are not"
        )

    def test_a_mirror_that_was_not_as_the_kernel(self):
        audit = TOTALS["audit"] | {"dump_differences": 1}
        self.assertOne(self.complaints(totals=TOTALS | {"audit": audit}), "not as the kernel")

    def test_clients_and_service_disagree(self):
        self.assertOne(self.complaints(handed_over=101), "handed over 101")

    def test_what_does_not_arrive_needs_a_link_that_changed(self):
        self.assertOne(self.complaints(arrived=89), "1 datagrams left A")
        self.assertEqual(self.complaints(arrived=89, link_changes=1), [])
        self.assertEqual(self.complaints(arrived=89, discarded=5), [])
        self.assertOne(self.complaints(arrived=80, discarded=9), "10 datagrams left A")
        many = TOTALS | {"submitted": 100 + 2 * LOST_PER_LINK_CHANGE}
        many["kernel_path"] += 2 * LOST_PER_LINK_CHANGE
        found = self.complaints(totals=many, handed_over=many["submitted"], link_changes=1)
        self.assertOne(found, "explain")

    def test_more_arrives_than_was_sent(self):
        self.assertOne(self.complaints(arrived=91, link_changes=1), "1 datagrams arrived that")

    def test_wrong_checksums(self):
        self.assertOne(self.complaints(wrong_checksums=1), "wrong checksum")

    def test_memory_that_grows(self):
        self.assertEqual(self.measured(rss_end_kb=54_000), [])
        self.assertOne(self.measured(rss_end_kb=60_000), "memory grew by 10000 KiB")

    def test_descriptors_that_stay_open(self):
        self.assertOne(self.measured(fds_end=26), "25 before, 26 after")


unittest.main()
