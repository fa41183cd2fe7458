# SPDX-License-Identifier: Apache-2.0
"""What 100 Gbit/s Ethernet would take, computed from what was measured here.

    scripts/bench tx end-to-end checksum && python3 scripts/lib/scaling.py

Times are the least of the repetitions in bench-report.json, which other work on the machine disturbs
least. Instructions and cache lines are counted by callgrind, with its model of a first-level cache, on
build/release/bench/bench_tx_instructions. Prints Markdown for docs/performance.md.
"""
import json
import math
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
REPORT = ROOT / "bench-report.json"
PROGRAM = ROOT / "build/release/bench/bench_tx_instructions"

LINE_RATE = 100e9
BATCH = 64
HEADERS = 14 + 20 + 8  # Ethernet, IPv4, UDP
ON_THE_WIRE = 4 + 20  # Checksum of the frame; preamble and gap.
# Bytes of payload by what the frame is called.
SIZES = {
    "64-byte frame": 64 - 4 - HEADERS,
    "1232-byte payload": 1232,
    "1500-byte MTU": 1500 - 28,
}
# Elements that move: request, descriptor, completion, free frame. An index is published and one is
# read at each end, once a batch.
RING_ELEMENTS = 4
RING_INDICES = 2 * RING_ELEMENTS / BATCH

BATCHES = 400
COUNTED = {
    "TX core": ("plain", "cowire::tx_core::run_once()"),
    "copy with checksum, 1232 bytes": ("copy", "cowire::copy_and_sum*"),
}


def count(workload, function):
    """(instructions, cache lines that were not in the first level) a datagram."""
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            "--cache-sim=yes",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
            f"--toggle-collect={function}",
            str(PROGRAM),
            workload,
            str(BATCHES),
        ],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    # Ir Dr Dw I1mr D1mr D1mw …
    events = re.search(r"Collected\s*:\s*([\d ]+)", done.stderr).group(1).split()
    datagrams = BATCHES * BATCH
    return int(events[0]) / datagrams, (int(events[4]) + int(events[5])) / datagrams


def times():
    """Least time in ns by (group, who, arguments)."""
    rows = json.loads(REPORT.read_text())["benchmarks"]
    return {(row["group"], row["who"], row["arguments"]): row["min_ns"] for row in rows}


def copy_ns(measured, size):
    """A straight line through the measured sizes around it."""
    points = sorted(
        (int(arguments), ns)
        for (group, who, arguments), ns in measured.items()
        if (group, who) == ("copy_and_sum", "cowire")
    )
    pairs = list(zip(points, points[1:]))
    (x0, y0), (x1, y1) = next((p for p in pairs if size <= p[1][0]), pairs[-1])
    return y0 + (y1 - y0) * (size - x0) / (x1 - x0)


def table(headings, rows):
    yield "| " + " | ".join(headings) + " |"
    yield "|---" + "|--:" * (len(headings) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def cost_of_a_datagram(measured):
    rows = []
    for name, what in COUNTED.items():
        instructions, lines = count(*what)
        rings = (RING_ELEMENTS, f"{RING_INDICES:.2f}") if name == "TX core" else ("", "")
        rows.append((name, f"{instructions:.0f}", f"{lines:.1f}", *rings))
    headings = ("a datagram", "instructions", "cache lines", "ring elements", "ring indices")
    return table(headings, rows)


def at_line_rate(measured):
    core_ns = measured["tx_core", "cowire", ""]
    rows = []
    for name, size in SIZES.items():
        rate = LINE_RATE / 8 / (size + HEADERS + ON_THE_WIRE)
        copying = copy_ns(measured, size)
        cores, producers = rate * core_ns / 1e9, rate * copying / 1e9
        # Written by the producer, read by it, read by the NIC.
        memory = rate * (3 * size + 2 * HEADERS) / 1e9
        first = "TX core" if cores > producers else "producers' copy"
        rows.append(
            (
                name,
                f"{rate / 1e6:.1f}",
                f"{1e9 / rate:.1f}",
                f"{core_ns:.1f}",
                math.ceil(cores),
                f"{copying:.1f}",
                math.ceil(producers),
                f"{memory:.0f}",
                first,
            )
        )
    headings = (
        "100 GbE",
        "Mpps",
        "ns a datagram",
        "TX core ns",
        "TX cores",
        "copy ns",
        "producers",
        "memory GB/s",
        "binds first",
    )
    return table(headings, rows)


def prediction(measured):
    """cowire over veth = the bare loop over veth + what the core does more than a bare loop."""
    more = measured["tx_with_copy", "cowire", ""] - measured["tx_with_copy", "memcpy_loop", ""]
    predicted = measured["end_to_end", "bare_libxdp", ""] + more
    seen = measured["end_to_end", "cowire", ""]
    row = ("veth, copy mode, ns", f"{predicted:.0f}", f"{seen:.0f}", f"{seen / predicted:.2f}")
    return table(("end to end", "predicted", "measured", "measured/predicted"), [row])


def main():
    measured = times()
    for part in (cost_of_a_datagram, at_line_rate, prediction):
        print("\n".join(part(measured)))
        print()


main()
