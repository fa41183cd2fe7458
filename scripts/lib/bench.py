# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and sets cowire beside its peers of the same run.

Started by scripts/bench. A benchmark is named GROUP/WHO or GROUP/WHO/ARGUMENTS; WHO is "cowire" for
ours. Rows are compared within one group and one set of arguments. Writes bench-report.json and the
picture bench-report.svg.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from collections import defaultdict

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = (
    "lpm",
    "convergence",
    "spsc",
    "shared-sender",
    "calls",
    "port-receive",
    "epoch",
    "checksum",
    "tx",
    "tx-cores",
    "end-to-end",
    "follow",
    "path-change",
    "latency",
    "tracked-flows",
    "output-rules",
    "output-change",
    "quic",
    "compile-time",
)
# Measured by a script, not by a program that is built.
SCRIPTS = {"compile-time": "compile_time.py"}
NEEDS_ROOT = {
    "calls",
    "port-receive",
    "end-to-end",
    "follow",
    "path-change",
    "latency",
    "tracked-flows",
    "output-change",
    "quic",
}
REPETITIONS = 7
OURS = "cowire"
NS_PER = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}


def options():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which of {', '.join(NAMES)} (default: all)"
    )
    parser.add_argument(
        "--table",
        type=pathlib.Path,
        metavar="FILE",
        help="a real routing table for lpm and convergence, lines `prefix/len nexthop`",
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("-j", "--json", action="store_true", help="print the report as JSON only")
    chosen = parser.parse_args()
    for name in chosen.names:
        if name not in NAMES:
            parser.error(f"no benchmark '{name}'; there are {', '.join(NAMES)}")
    if chosen.table and not chosen.table.is_file():
        parser.error(f"--table {chosen.table}: no such file")
    chosen.names = chosen.names or list(NAMES)
    return chosen


def program(name):
    return "bench_" + name.replace("-", "_")


def build(names):
    targets = [program(name) for name in names if name not in SCRIPTS]
    if not targets:
        return
    for command in (
        ["cmake", "--preset", "release"],
        ["cmake", "--build", "--preset", "release", "--target", *targets],
    ):
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode != 0:
            sys.exit(f"{done.stdout}\nbench: `{' '.join(command)}` failed")


def run_script(name):
    """The parsed output of one script, as if it were a program."""
    command = [sys.executable, "-B", str(ROOT / "scripts/lib" / SCRIPTS[name]), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: {name} ended with status {done.returncode}")
    return json.loads(done.stdout)


def run(name, table):
    """The parsed output of one program."""
    if name in SCRIPTS:
        return run_script(name)
    command = [
        str(ROOT / "build/release/bench" / program(name)),
        "--benchmark_format=json",
        f"--benchmark_repetitions={REPETITIONS}",
        "--benchmark_enable_random_interleaving=true",
    ]
    if table:
        command.append(f"--table={table}")
    if name in NEEDS_ROOT and os.geteuid() != 0:
        command = ["sudo", "--", *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: {program(name)} ended with status {done.returncode}")
    return json.loads(done.stdout)


def split_name(name):
    """'lpm/cowire/64/real_time' -> ('lpm', 'cowire', '64'): what the library appends is dropped."""
    group, who, *rest = name.split("/")
    arguments = [
        word
        for word in rest
        if ":" not in word and word not in ("real_time", "manual_time", "process_time")
    ]
    return group, who, "/".join(arguments)


def time_ns(entry):
    """Time per item where the benchmark counts items, else per iteration."""
    if entry.get("items_per_second"):
        return 1e9 / entry["items_per_second"]
    return entry["real_time"] * NS_PER[entry["time_unit"]]


def rows_of(output):
    """One row a benchmark, the peers of each group after cowire."""
    samples, resident = defaultdict(list), defaultdict(list)
    for entry in output["benchmarks"]:
        if entry.get("error_occurred"):
            sys.exit(f"bench: {entry['name']}: {entry['error_message']}")
        if entry["run_type"] == "iteration":
            samples[split_name(entry["run_name"])].append(time_ns(entry))
            if "resident_MiB" in entry:
                resident[split_name(entry["run_name"])].append(entry["resident_MiB"])
    medians = {key: statistics.median(values) for key, values in samples.items()}
    rows = []
    for (group, who, arguments), values in samples.items():
        ours = medians.get((group, OURS, arguments))
        theirs = medians[group, who, arguments]
        ratio = None if who == OURS or ours is None or theirs == 0 else ours / theirs
        rows.append(
            {
                "group": group,
                "arguments": arguments,
                "who": who,
                "median_ns": medians[group, who, arguments],
                "min_ns": min(values),
                "max_ns": max(values),
                "cowire_to_peer": ratio,
                "resident_mib": statistics.median(resident[group, who, arguments] or [0]),
            }
        )
    order = {
        (row["group"], row["arguments"]): place for place, row in reversed(list(enumerate(rows)))
    }
    return sorted(rows, key=lambda row: (order[row["group"], row["arguments"]], row["who"] != OURS))


def number(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def cells(row, unit):
    """The texts of one row, times in `unit`."""
    median, least, most = (
        number(row[key] / NS_PER[unit]) for key in ("median_ns", "min_ns", "max_ns")
    )
    group = f"{row['group']} {row['arguments']}".strip()
    ratio = "" if row["cowire_to_peer"] is None else f"{row['cowire_to_peer']:.3g}"
    return [group, row["who"], median, f"{least}–{most}", unit, ratio]


def units_of(rows):
    """One unit for each group, so that its rows can be compared by eye."""
    least = {}
    for row in rows:
        typical = row["median_ns"] or row["max_ns"]
        least[row["group"]] = min(typical, least.get(row["group"], typical))
    return {group: "ns" if ns < 1e4 else "us" if ns < 1e7 else "ms" for group, ns in least.items()}


HEADINGS = ["group", "who", "median", "min–max", "unit", "cowire/peer"]


def print_table(rows, markdown):
    units = units_of(rows)
    lines = [HEADINGS, *(cells(row, units[row["group"]]) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    for place, line in enumerate(lines):
        # Words to the left, numbers to the right.
        padded = [
            text.ljust(width) if column in (0, 1, 4) else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths))
        ]
        print("| " + " | ".join(padded) + " |" if markdown else "  ".join(padded).rstrip())
        if markdown and place == 0:
            print(
                "|"
                + "|".join(
                    "---" if column in (0, 1, 4) else "--:" for column in range(len(HEADINGS))
                )
                + "|"
            )
    for row in rows:
        if row["resident_mib"]:
            print(f"{row['group']}, {row['who']}: {row['resident_mib']:.0f} MiB resident")


# Rows from top to bottom, grouped; a point at the median, a bar from least to most.
PLOT = """
set terminal svg size 1000,{height} dynamic background rgb "white"
set output "{picture}"
set logscale x
set format x "%.0s %cs"
set yrange [{rows}:-1]
set grid x
set key outside top center horizontal
set xlabel "time of one item: median, least to most"
plot $peers using 2:1:3:4:ytic(5) with xerrorbars pt 7 ps 0.6 lc rgb "#808080" title "peer", \
  $ours using 2:1:3:4:ytic(5) with xerrorbars pt 7 ps 0.8 lc rgb "#c02020" title "cowire"
"""


def draw(rows, picture):
    """Draws all rows into one SVG, groups apart from each other."""
    blocks = {True: [], False: []}
    place, previous = -1, None
    for row in rows:
        group = f"{row['group']} {row['arguments']}".strip()
        place += 1 if group == previous else 2
        previous = group
        times = " ".join(
            f"{row[key] / NS_PER['s']:.6g}" for key in ("median_ns", "min_ns", "max_ns")
        )
        label = f"{group}: {row['who']}".replace("_", "\\\\_")
        blocks[row["who"] == OURS].append(f'{place} {times} "{label}"')
    script = "".join(
        f"${name} << end\n" + "\n".join(lines) + "\nend\n"
        for name, lines in (("ours", blocks[True]), ("peers", blocks[False]))
    )
    script += PLOT.format(height=60 + 18 * (place + 2), rows=place + 1, picture=picture)
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def processor():
    with open("/proc/cpuinfo") as lines:
        return next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
            "unknown",
        )


def main():
    chosen = options()
    print("bench: building", file=sys.stderr, flush=True)
    build(chosen.names)
    rows = []
    for name in chosen.names:
        print(f"bench: running {SCRIPTS.get(name) or program(name)}", file=sys.stderr, flush=True)
        rows += rows_of(run(name, chosen.table))
    report = {
        "machine": {"processor": processor(), "cpus": os.cpu_count(), "kernel": platform.release()},
        "repetitions": REPETITIONS,
        "benchmarks": rows,
    }
    (ROOT / "bench-report.json").write_text(json.dumps(report, indent=2) + "\n")
    draw(rows, ROOT / "bench-report.svg")
    if chosen.json:
        print(json.dumps(report))
        return
    print_table(rows, chosen.markdown)
    if not chosen.markdown:
        print(
            "\nTimes are per item, over",
            REPETITIONS,
            "interleaved repetitions; cowire/peer below 1: cowire is faster.",
        )
        print("bench-report.json has all of it, bench-report.svg is a picture of it.")


if __name__ == "__main__":
    main()
