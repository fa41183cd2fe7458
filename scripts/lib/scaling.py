# SPDX-License-Identifier: Apache-2.0
"""What 100 Gbit/s Ethernet would take, computed from what was measured here.

    scripts/bench tx tx-cores end-to-end checksum && python3 scripts/lib/scaling.py

Times are the least of the repetitions in bench-report.json, which other work on the machine
disturbs least. Instructions and cache lines are counted by callgrind, with its model of a
first-level cache, on build/release/bench/bench_tx_instructions. Prints Markdown for
docs/performance.md.
"""
import json
import math
import pathlib

import instructions

ROOT = pathlib.Path(__file__).resolve().parents[2]
REPORT = ROOT / "bench-report.json"
PROGRAM = ROOT / "build/release/bench/bench_tx_instructions"

LINE_RATE = 100e9
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
RING_INDICES = 2 * RING_ELEMENTS / instructions.BATCH_SIZE

COUNTED = {"core plain": "TX core", "copy_and_sum": "copy with checksum, 1232 bytes"}


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


def cost_of_a_datagram():
    rows = []
    for what, name in COUNTED.items():
        counts = instructions.events(PROGRAM, *instructions.COUNTED[what], "--cache-sim=yes")
        lines = counts[4] + counts[5]  # Ir Dr Dw I1mr D1mr D1mw …
        rings = (RING_ELEMENTS, f"{RING_INDICES:.2f}") if name == "TX core" else ("", "")
        rows.append((name, f"{counts[0]:.0f}", f"{lines:.1f}", *rings))
    headings = ("a datagram", "instructions", "cache lines", "ring elements", "ring indices")
    return table(headings, rows)


def sharing(measured):
    """What a core takes beside another one over the same table, to what it takes beside a stranger."""
    if ("tx_cores", "cowire", "") not in measured:
        return 1.0
    return max(1.0, measured["tx_cores", "cowire", ""] / measured["tx_cores", "apart", ""])


def at_line_rate(measured):
    # With the producer's part but the copy; the core's alone is less than a clock can tell apart.
    core_ns = measured["tx_in_place", "cowire", ""]
    rows = []
    for name, size in SIZES.items():
        rate = LINE_RATE / 8 / (size + HEADERS + ON_THE_WIRE)
        copying = copy_ns(measured, size)
        cores, producers = rate * core_ns / 1e9, rate * copying / 1e9
        if cores > 1:
            cores *= sharing(measured)
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
        "core ns",
        "TX cores",
        "copy ns",
        "producers",
        "memory GB/s",
        "binds first",
    )
    return table(headings, rows)


def prediction(measured):
    """cowire over a device = the bare loop over it + what cowire does more than a bare loop."""
    more = measured["tx_with_copy", "cowire", ""] - measured["tx_with_copy", "memcpy_loop", ""]
    rows = []
    for group, name in (("end_to_end", "veth"), ("end_to_end_ifb", "ifb")):
        if (group, "cowire", "") not in measured:
            continue  # The kernel has no such device.
        predicted = measured[group, "bare_libxdp", ""] + more
        seen = measured[group, "cowire", ""]
        rows.append(
            (f"{name}, copy mode, ns", f"{predicted:.0f}", f"{seen:.0f}", f"{seen / predicted:.2f}")
        )
    return table(("end to end", "predicted", "measured", "measured/predicted"), rows)


def main():
    measured = times()
    for lines in (cost_of_a_datagram(), at_line_rate(measured), prediction(measured)):
        print("\n".join(lines))
        print()


main()
