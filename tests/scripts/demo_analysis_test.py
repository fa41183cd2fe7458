# SPDX-License-Identifier: Apache-2.0
"""What the demo concludes from records and totals."""
import array
import pathlib
import sys
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib/demo"))
import analysis

PUBLIC, FIBER = 2, 3
PATHS = {PUBLIC: "public", FIBER: "fiber"}
MS = 1_000_000


def arrivals(datagrams):
    """From (sequence, interface), in order of arrival: submitted 1 ms apart, 10 us under way."""
    columns = types.SimpleNamespace(
        sequence=array.array("Q"),
        submitted_ns=array.array("Q"),
        arrived_ns=array.array("Q"),
        interface=array.array("Q"),
    )
    for sequence, interface in datagrams:
        columns.sequence.append(sequence)
        columns.submitted_ns.append((sequence + 1) * MS)
        columns.arrived_ns.append((sequence + 1) * MS + 10_000)
        columns.interface.append(interface)
    return columns


def totals(submitted, kernel_path=0, **refused):
    transmitted = submitted - kernel_path - sum(refused.values())
    return {
        "submitted": submitted,
        "transmitted": {"public": transmitted},
        "kernel_path": kernel_path,
        "refused": refused,
        "lost_in_device": 0,
        "mode": {"public": {"mode": "copy"}},
    }


def link_down(at_ms, seen):
    change = analysis.Change(
        "link set public down",
        at_ms * MS,
        at_ms * MS + 1,
        "public",
        "fiber",
        breaks="public",
        cause="in_downed_interface",
    )
    change.first_ns = analysis.first_arrival(seen, FIBER, change.begin_ns)
    return change


def fiber_cut(at_ms, old_path_ms, published_ms, seen):
    """BGP moves the stream to "public" after `old_path_ms`."""
    change = analysis.Change(
        "fiber cut",
        at_ms * MS,
        published_ms * MS,
        "fiber",
        "public",
        breaks="fiber",
        cause="on_cut_fiber",
        old_path_ns=old_path_ms * MS,
    )
    change.published_ns = published_ms * MS
    change.first_ns = analysis.first_arrival(seen, PUBLIC, change.since_ns)
    return change


def settle(sent, seen, changes=(), dropped=0):
    """1000 datagrams a second; `dropped` at A's interface "public"."""
    return analysis.settle(sent, seen, changes, 1000, PATHS, {"public": dropped, "fiber": 0})


def downed(account):
    """(lost, allowance)"""
    excused = account.excused["in_downed_interface"]
    return excused.lost, excused.allowance


class Settle(unittest.TestCase):
    def test_a_stream_that_arrived_whole_has_no_complaint(self):
        account = settle(totals(5), arrivals([(n, PUBLIC) for n in range(5)]))
        self.assertEqual((account.received, account.lost, account.reordered), (5, 0, 0))
        self.assertEqual(account.complaints(), [])

    def test_a_gap_without_a_downed_interface_is_a_loss(self):
        account = settle(totals(5), arrivals([(0, PUBLIC), (1, PUBLIC), (4, PUBLIC)]))
        self.assertEqual((account.received, account.lost, account.excused), (3, 2, {}))
        self.assertEqual(account.complaints(), ["2 datagrams lost"])

    def test_a_loss_at_either_end_counts(self):
        account = settle(totals(5), arrivals([(1, PUBLIC), (2, PUBLIC), (3, PUBLIC)]))
        self.assertEqual(account.lost, 2)

    def test_what_the_downed_interface_took_along_is_told_apart(self):
        seen = arrivals([(n, PUBLIC) for n in range(10)] + [(n, FIBER) for n in range(13, 20)])
        change = link_down(10, seen)
        account = settle(totals(20), seen, [change], dropped=3)
        self.assertEqual(account.lost, 0)
        self.assertEqual(downed(account), (3, 3))
        self.assertEqual(account.complaints(), [])

    def test_what_the_sender_lost_in_the_device_needs_no_counter_of_the_kernel(self):
        seen = arrivals([(n, PUBLIC) for n in range(10)] + [(n, FIBER) for n in range(13, 20)])
        sent = totals(20) | {"lost_in_device": 2}
        sent["transmitted"]["public"] -= 2
        account = settle(sent, seen, [link_down(10, seen)], dropped=1)
        self.assertEqual(downed(account), (3, 3))
        self.assertEqual(account.complaints(), [])

    def test_a_gap_elsewhere_is_not_excused_by_a_downed_interface(self):
        seen = arrivals(
            [(n, PUBLIC) for n in range(10) if n != 4]
            + [(n, FIBER) for n in range(10, 20) if n != 15]
        )
        account = settle(totals(20), seen, [link_down(10, seen)])
        self.assertEqual((account.lost, downed(account)[0]), (2, 0))

    def test_more_missing_than_the_downed_interface_dropped_is_a_failure(self):
        seen = arrivals([(n, PUBLIC) for n in range(10)] + [(n, FIBER) for n in range(200, 220)])
        account = settle(totals(220), seen, [link_down(10, seen)], dropped=189)
        self.assertEqual((account.lost, downed(account)), (0, (190, 189)))
        self.assertEqual(len(account.complaints()), 1)

    def test_taking_down_an_idle_interface_excuses_nothing(self):
        seen = arrivals([(n, FIBER) for n in range(20) if n != 10])
        change = analysis.Change(
            *("link set public down", 10 * MS, 10 * MS + 1, "fiber", "fiber", "public"),
            cause="in_downed_interface",
        )
        change.first_ns, change.published_ns = 12 * MS, 12 * MS
        account = settle(totals(20), seen, [change])
        self.assertEqual((account.lost, downed(account)), (1, (0, 0)))

    def test_refused_datagrams_are_not_lost(self):
        seen = arrivals([(0, PUBLIC), (3, PUBLIC)])
        account = settle(totals(4, ENETUNREACH=2), seen)
        self.assertEqual((account.refused, account.lost), (2, 0))

    def test_totals_that_do_not_add_up_are_a_failure(self):
        wrong = totals(4)
        wrong["transmitted"]["public"] -= 1
        account = settle(wrong, arrivals([(n, PUBLIC) for n in range(4)]))
        self.assertEqual(len(account.complaints()), 1)

    def test_an_overtaken_datagram_is_reordered_not_lost(self):
        account = settle(totals(4), arrivals([(0, PUBLIC), (2, FIBER), (1, PUBLIC), (3, FIBER)]))
        self.assertEqual((account.lost, account.reordered), (0, 1))


class CutFiber(unittest.TestCase):
    BEFORE = [(n, FIBER) for n in range(10)]
    AFTER = [(n, PUBLIC) for n in range(3010, 3050)]

    def test_what_bgp_needs_to_notice_is_excused_up_to_the_publication(self):
        seen = arrivals(self.BEFORE + self.AFTER)
        account = settle(totals(3050), seen, [fiber_cut(11, 3008, 3010, seen)])
        cut = account.excused["on_cut_fiber"]
        self.assertEqual((account.lost, cut.lost), (0, 3000))
        self.assertEqual(cut.allowance, 2999 + analysis.IN_HAND_AT_BREAK)
        self.assertEqual(account.complaints(), [])

    def test_a_stream_that_follows_the_kernel_too_late_is_a_failure(self):
        seen = arrivals(self.BEFORE + self.AFTER)
        account = settle(totals(3050), seen, [fiber_cut(11, 2900, 2910, seen)])
        self.assertEqual((account.lost, account.excused["on_cut_fiber"].lost), (0, 3000))
        self.assertEqual(len(account.complaints()), 1)

    def test_a_loss_after_the_fallback_is_none_of_the_fiber(self):
        seen = arrivals(self.BEFORE + [each for each in self.AFTER if each[0] != 3040])
        account = settle(totals(3050), seen, [fiber_cut(11, 3008, 3010, seen)])
        self.assertEqual((account.lost, account.excused["on_cut_fiber"].lost), (1, 3000))
        self.assertEqual(account.complaints(), ["1 datagrams lost"])

    def test_the_report_names_paths_causes_and_the_time_of_detection(self):
        seen = arrivals(self.BEFORE + self.AFTER)
        changes = [fiber_cut(11, 3008, 3010, seen)]
        report = analysis.report(settle(totals(3050), seen, changes), changes, origin_ns=MS)
        self.assertEqual(report["received_by_path"], {"public": 40, "fiber": 10})
        self.assertEqual(report["lost_on_cut_fiber"], 3000)
        self.assertEqual(report["lost_in_downed_interface"], 0)
        self.assertEqual(report["changes"][0]["kernel_moved_after_ms"], 2997)
        self.assertEqual(report["changes"][0]["first_on_new_path_us"], 3010)
        self.assertEqual(report["first_on_new_path_us"], {"moves": 1, "p50": 3010, "p99": 3010})


class Latency(unittest.TestCase):
    def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(self):
        self.assertEqual(analysis.percentile(list(range(1, 101)), 0.99), 99)
        self.assertEqual(analysis.percentile([3, 1, 2], 0.5), 2)
        self.assertIsNone(analysis.percentile([], 0.5))

    def test_it_ends_with_the_first_arrival_on_the_new_path(self):
        seen = arrivals([(0, PUBLIC), (1, PUBLIC), (2, FIBER), (3, FIBER)])
        change = analysis.Change("route replace", 1 * MS, 1 * MS + 1, "public", "fiber")
        change.first_ns = analysis.first_arrival(seen, FIBER, change.begin_ns)
        self.assertEqual(change.latency_us, 2010)

    def test_arrivals_before_the_change_do_not_count(self):
        seen = arrivals([(0, FIBER), (1, PUBLIC)])
        self.assertIsNone(analysis.first_arrival(seen, FIBER, 2 * MS))

    def test_the_publication_is_the_first_one_of_an_event_after_the_change(self):
        change = analysis.Change("route replace", 100, 110, "public", "fiber")
        lines = [
            {"event_time_ns": 90, "publish_time_ns": 95},
            {"event_time_ns": 105, "publish_time_ns": 130},
            {"event_time_ns": 106, "publish_time_ns": 125},
        ]
        self.assertEqual(analysis.published_at(change, lines), 125)
        self.assertIsNone(analysis.published_at(change, lines[:1]))

    def test_a_daemons_publication_is_the_last_before_the_new_path_was_seen(self):
        change = analysis.Change("fiber cut", 0, 900, "fiber", "public")
        change.old_path_ns, change.new_path_ns = 500, 700
        lines = [
            {"event_time_ns": at, "publish_time_ns": at + 10} for at in (400, 510, 690, 720, 880)
        ]
        self.assertEqual(analysis.published_at(change, lines), 700)
        self.assertEqual(analysis.published_at(change, lines[:1] + lines[3:]), 730)


unittest.main()
