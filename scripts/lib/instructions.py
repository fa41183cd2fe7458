# SPDX-License-Identifier: Apache-2.0
"""Counts the TX core's instructions per datagram under callgrind and compares them with a budget.

Exact where times are not: the same program counts the same on a busy machine. The budget is
recorded for one compiler and kind of processor (bench/instructions.json). Run by `ctest -L
instructions` in a release build; `--record` writes what was counted as the new budget. Exit status:
0, 1 (over the budget), 77 (cannot tell: no valgrind, or no budget for this build).
"""
import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys

BUDGET = pathlib.Path(__file__).resolve().parents[2] / "bench/instructions.json"
SKIPPED = 77
TOLERANCE = 1.03
BATCHES, BATCH_SIZE = 400, 64

# What is counted: the function and all it calls, for the datagrams of a workload.
COUNTED = {
    **{
        f"core {kind}": ([kind, BATCHES], "*counted_run*")
        for kind in ("plain", "vlan", "ipv6", "gre", "gre_in_gre")
    },
    # Where nothing that is remembered is of use.
    **{f"new {kind}": ([kind, BATCHES, "new"], "*counted_run*") for kind in ("plain", "ipv6")},
    "copy_and_sum": (["plain", BATCHES, "copy"], "cowire::copy_and_sum*"),
}
# What a datagram through a tunnel may cost, as a multiple of a plain one.
TUNNELS_AT_MOST = {"core gre": 1.03, "core gre_in_gre": 1.05}


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=pathlib.Path, help="bench_tx_instructions")
    parser.add_argument("--record", action="store_true", help="write the counts as the budget")
    return parser.parse_args()


def skip(reason):
    print(f"instructions: not compared: {reason}")
    sys.exit(SKIPPED)


def events(program, workload, function, *options, datagrams=BATCHES * BATCH_SIZE):
    """What callgrind counts, per datagram: instructions first, others as the options say."""
    done = subprocess.run(
        [
            "valgrind",
            "--fair-sched=try",  # A core that polls would keep the others waiting.
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
            f"--toggle-collect={function}",
            *options,
            str(program),
            *map(str, workload),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    collected = re.search(r"Collected\s*:([\d ]+)", done.stderr)
    if done.returncode == SKIPPED:
        skip(done.stderr.splitlines()[-1])
    if done.returncode != 0 or not collected:
        sys.exit(f"{done.stderr}\ninstructions: callgrind failed")
    return [int(number) / datagrams for number in collected.group(1).split()]


def compare(counts, budget):
    """Prints the table; whether all is within the budget."""
    within = True
    for name, counted in counts.items():
        limit = budget.get(name, 0)
        verdict = "more than 3 % over" if counted > limit * TOLERANCE else "within"
        if counted * TOLERANCE < limit:
            verdict = "well below: record it"
        within = within and counted <= limit * TOLERANCE
        against = f", {counted / counts['core plain']:.3f} x plain" if name[:4] in ("core", "new ") else ""
        print(
            f"{name:<16}{counted:>8.1f} of {limit:>6.1f} instructions a datagram: {verdict}{against}"
        )
        if counted > counts["core plain"] * TUNNELS_AT_MOST.get(name, counted):
            print(f"{name}: more than {TUNNELS_AT_MOST[name]} x plain")
            within = False
    return within


def main():
    chosen = options()
    if not shutil.which("valgrind"):
        skip("valgrind is missing (scripts/setup installs it)")
    build = subprocess.run([chosen.program], stdout=subprocess.PIPE, text=True, check=True)
    build = build.stdout.strip()
    budgets = json.loads(BUDGET.read_text())
    if build not in budgets and not chosen.record:
        skip(f"no budget for {build} in {BUDGET.name}, only for {', '.join(budgets)}")
    counts = {name: events(chosen.program, *what)[0] for name, what in COUNTED.items()}
    if chosen.record:
        budgets[build] = {name: round(counted, 1) for name, counted in counts.items()}
        BUDGET.write_text(json.dumps(budgets, indent=2) + "\n")
    if not compare(counts, budgets[build]):
        sys.exit(
            "instructions: over the budget (see callgrind_annotate; --record if it is worth it)"
        )


if __name__ == "__main__":
    main()
