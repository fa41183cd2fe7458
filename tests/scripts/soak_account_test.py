# SPDX-License-Identifier: Apache-2.0
"""What a soak calls a failure."""
import copy
import dataclasses
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib/soak"))
from account import (
    LOST_PER_LINK_CHANGE,
    Account,
    Measurements,
    Sent,
    share_of_one,
    wrong_end,
)

TOTALS = {
    "submitted": 100,
    "transmitted": {"u0": 60, "u1": 20},
    "kernel_path": 10,
    "diverted": {"no_route": 19},
    "refused": {"ENETUNREACH": 9},
    "lost_in_device": 1,
    "intake": {"kernel_refused": 9},
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
    sent=Sent(clients=1, handed_over=100, kernel_refused=9, to_black_hole=9),
    arrived=90,
    wrong_checksums=0,
    discarded=0,
    link_changes=0,
    measured=Measurements(50_000, 51_000, 60_000, 25, 25),
)


class Complaints(unittest.TestCase):
    def complaints(self, **changed):
        return dataclasses.replace(GOOD, **changed).complaints()

    def sent(self, **changed):
        return self.complaints(sent=dataclasses.replace(GOOD.sent, **changed))

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
        self.assertOne(self.sent(handed_over=101), "handed over 101")

    def test_three_accounts_of_what_the_kernel_refused_must_agree(self):
        told = "the kernel refused 9 datagrams, 9 by the intake's account, 8 by what clients"
        self.assertOne(self.sent(kernel_refused=8), told)
        totals = TOTALS | {"intake": {"kernel_refused": 10}}
        self.assertOne(self.complaints(totals=totals), "10 by the intake's account")
        totals = TOTALS | {"refused": {"EINVAL": 5, "ENETUNREACH": 5}, "lost_in_device": 0}
        self.assertOne(self.complaints(totals=totals), "the kernel refused 10 datagrams")

    def test_what_is_refused_without_a_cause(self):
        self.assertOne(self.sent(unexplained=1), "no link changed")

    def test_a_black_hole_that_lets_through(self):
        self.assertOne(self.sent(past_black_hole=1), "1 datagrams to a black hole were not")

    def test_what_does_not_arrive_needs_a_link_that_changed(self):
        self.assertOne(self.complaints(arrived=89), "1 datagrams left A")
        self.assertEqual(self.complaints(arrived=89, link_changes=1), [])
        self.assertEqual(self.complaints(arrived=89, discarded=5), [])
        self.assertOne(self.complaints(arrived=80, discarded=9), "10 datagrams left A")
        many = TOTALS | {"submitted": 100 + 2 * LOST_PER_LINK_CHANGE}
        many["kernel_path"] += 2 * LOST_PER_LINK_CHANGE
        sent = dataclasses.replace(GOOD.sent, handed_over=many["submitted"])
        found = self.complaints(totals=many, sent=sent, link_changes=1)
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


TOLD = {"submitted": 40, "failed": 0, "refused": 0, "kernel_refused": 0}
ALL_REFUSED = TOLD | {"kernel_refused": 40}
NONE_LEFT = (
    "cowire: none of 40 datagrams left this host: the kernel refused them all; 'cowire route get' "
    "tells about one destination"
)


class Clients(unittest.TestCase):
    def test_ends_that_are_as_the_totals_say(self):
        self.assertEqual(wrong_end(0, TOLD, ""), "")
        self.assertEqual(wrong_end(0, TOLD | {"kernel_refused": 39}, ""), "")
        self.assertEqual(wrong_end(1, ALL_REFUSED, NONE_LEFT), "")
        self.assertEqual(wrong_end(0, TOLD | {"submitted": 0}, ""), "")

    def test_a_status_that_the_totals_do_not_explain(self):
        for status, totals, text, wrong in (
            (1, TOLD, "", "0 was due"),
            (2, ALL_REFUSED, NONE_LEFT, "1 was due"),
            (0, ALL_REFUSED, NONE_LEFT, "1 was due"),
            (1, ALL_REFUSED, "", "refused 40 of 40"),
            (1, TOLD | {"kernel_refused": 39}, NONE_LEFT, "refused 39 of 40"),
            (1, ALL_REFUSED, NONE_LEFT.replace("40", "41"), "refused 40 of 40"),
            (1, ALL_REFUSED | {"failed": 1}, NONE_LEFT, "did not take all"),
            (1, ALL_REFUSED | {"refused": 1}, NONE_LEFT, "did not take all"),
            (1, {"via": "/s", "handed_over": 40}, "cowire: --via /s: flush", "without"),
            (0, {}, "", "without"),
        ):
            with self.subTest(status=status, totals=totals, text=text):
                self.assertIn(wrong, wrong_end(status, totals, text) or "nothing")

    def test_a_client_goes_round_its_destinations(self):
        for datagrams in (0, 1, 7, 40):
            sent = [0, 0, 0]
            for number in range(datagrams):
                sent[number % 3] += 1
            self.assertEqual([share_of_one(datagrams, 3, place) for place in range(3)], sent)

    def add(self, refused, to_black_hole, links_changed):
        sent = copy.copy(GOOD.sent)
        sent.add(TOLD | {"kernel_refused": refused}, to_black_hole, links_changed)
        return {
            name: value
            for name, value in dataclasses.asdict(sent).items()
            if value != getattr(GOOD.sent, name)
        }

    def test_refusals_are_put_down_to_what_explains_them(self):
        always = {"clients": 2, "handed_over": 140}
        self.assertEqual(self.add(0, 0, False), always)
        black_hole = {"kernel_refused": 19, "to_black_hole": 19}
        self.assertEqual(self.add(10, 10, False), always | black_hole)
        besides = always | {"kernel_refused": 21, "to_black_hole": 19}
        self.assertEqual(self.add(12, 10, True), besides | {"while_links_changed": 2})
        self.assertEqual(self.add(12, 10, False), besides | {"unexplained": 2})
        through = always | {"kernel_refused": 18, "to_black_hole": 19, "past_black_hole": 1}
        self.assertEqual(self.add(9, 10, True), through)
        everything = always | {"clients_refused": 1, "kernel_refused": 49, "to_black_hole": 49}
        self.assertEqual(self.add(40, 40, False), everything)


unittest.main()
