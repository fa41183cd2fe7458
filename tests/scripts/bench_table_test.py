# SPDX-License-Identifier: Apache-2.0
"""How scripts/bench reads Google Benchmark's JSON."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib"))
import bench


def iteration(name, real_time, unit="ns", **more):
    return {
        "name": name,
        "run_name": name,
        "run_type": "iteration",
        "real_time": real_time,
        "time_unit": unit,
        **more,
    }


class Rows(unittest.TestCase):
    def test_peers_are_compared_within_group_and_arguments(self):
        rows = bench.rows_of(
            {
                "benchmarks": [
                    iteration("lpm/kernel/100", 200),
                    iteration("lpm/cowire/100", 10),
                    iteration("lpm/cowire/100", 30),
                    iteration("lpm/cowire/100", 20),
                    iteration("lpm/cowire/900", 50),
                ]
            }
        )
        self.assertEqual(
            [(row["who"], row["arguments"], row["cowire_to_peer"]) for row in rows],
            [("cowire", "100", None), ("kernel", "100", 0.1), ("cowire", "900", None)],
        )
        self.assertEqual((rows[0]["median_ns"], rows[0]["min_ns"], rows[0]["max_ns"]), (20, 10, 30))

    def test_a_peer_that_takes_no_time_has_no_ratio(self):
        rows = bench.rows_of(
            {"benchmarks": [iteration("late/cowire/max", 20), iteration("late/sendto/max", 0)]}
        )
        self.assertEqual([row["cowire_to_peer"] for row in rows], [None, None])

    def test_items_count_rather_than_iterations(self):
        self.assertEqual(bench.time_ns(iteration("tx/cowire", 5, "us", items_per_second=1e8)), 10)
        self.assertEqual(bench.time_ns(iteration("tx/cowire", 5, "us")), 5000)

    def test_what_the_library_appends_to_a_name_is_dropped(self):
        self.assertEqual(
            bench.split_name("tx/cowire/64/min_time:0.050/real_time"), ("tx", "cowire", "64")
        )

    def test_aggregates_are_left_out(self):
        self.assertEqual(
            bench.rows_of(
                {
                    "benchmarks": [
                        {"name": "tx/cowire_mean", "run_name": "tx/cowire", "run_type": "aggregate"}
                    ]
                }
            ),
            [],
        )

    def test_a_benchmark_that_failed_ends_the_run(self):
        with self.assertRaises(SystemExit):
            bench.rows_of(
                {
                    "benchmarks": [
                        iteration("tx/cowire", 1, error_occurred=True, error_message="no socket")
                    ]
                }
            )


unittest.main()
