# SPDX-License-Identifier: Apache-2.0
"""Builds cowire in several ways and runs its tests; says at the end what ran where.

Started by scripts/test. Exit status 0 only if nothing failed.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections import defaultdict

import style
from results import Case, collect

ROOT = pathlib.Path(__file__).resolve().parents[3]
JOBS = str(os.cpu_count())

# What ctest selects in each preset. `dev` runs everything; release shows that what users, scripts/demo
# and scripts/bench build has no warnings and stays within its budget of instructions; asan and tsan run the same code through a sanitizer; clang
# shows that the other compiler takes the library, the command and the examples, and runs the fuzz
# targets, which are real libFuzzer programs there. After these, `lab` runs dev's programs again, those
# with the label lab, in a guest whose kernel and NICs have what the host may lack.
SELECTION = {
    "dev": [],
    "release": ["-L", "instructions"],
    "asan": ["-L", "unit|namespaces|fuzz", "-LE", "stress|lab"],
    "tsan": ["-L", "unit|namespaces", "-LE", "lab|soak"],
    "clang": ["-L", "fuzz"],
}
TARGETS = {
    "dev": ["all", "all_verify_interface_header_sets"],
    "release": ["cli/all", "examples/all", "bench/all"],
    "asan": ["all"],
    "tsan": ["all"],
    "clang": ["cli/all", "examples/all", "tests/fuzz/all"],
}


# How many bits of an address the ThreadSanitizer of gcc 12 lets the kernel choose at random.
TSAN_ADDRESS_BITS = 28


# The guest's NICs, and which tests they are for.
LAB_RUNS = {"virtio": "lab", "igb": "nic"}
LAB_TIMEOUT_S = 1800
KNOWN = ["style", *SELECTION, "lab"]
LAB_UNAVAILABLE = 126  # As scripts/lab says it.


class Failed(Exception):
    """A step without which the rest of its preset is pointless."""


def options():
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__.splitlines()[0])
    parser.add_argument(
        "presets",
        nargs="*",
        metavar="PRESET",
        help=f"which of {', '.join(KNOWN)} (default: all of them)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="style and dev without the stress tests"
    )
    chosen = parser.parse_args()
    for name in chosen.presets:
        if name not in KNOWN:
            parser.error(f"unknown preset '{name}'; there are {', '.join(KNOWN)}")
    if chosen.quick and chosen.presets:
        parser.error("--quick names its presets itself")
    if chosen.quick:
        chosen.presets = ["style", "dev"]
        SELECTION["dev"] = ["-LE", "stress"]
    chosen.presets = chosen.presets or KNOWN
    return chosen


def as_root():
    """Namespaces and AF_XDP sockets are root's; the build is not."""
    return [] if os.geteuid() == 0 else ["sudo", "--"]


def address_bits_randomised():
    return int(pathlib.Path("/proc/sys/vm/mmap_rnd_bits").read_text())


def build(preset):
    folder = ROOT / "build" / preset
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "scripts-test.log"
    with open(log, "w") as out:
        for command in (
            ["cmake", "--preset", preset],
            ["cmake", "--build", "--preset", preset, "-j", JOBS, "--target", *TARGETS[preset]],
        ):
            done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
            if done.returncode != 0:
                # The compiler's words, without ninja's progress.
                lines = [line for line in log.read_text().splitlines() if not line.startswith("[")]
                print("\n".join(lines[-200:]))
                raise Failed(f"`{' '.join(command)}` failed (all of it: {log})")


def run_ctest(preset):
    folder = ROOT / "build" / preset
    gtest_folder = folder / "gtest-reports"
    junit = folder / "ctest-report.xml"
    for old in (gtest_folder, junit):
        subprocess.run([*as_root(), "rm", "-rf", str(old)], check=True)
    command = ["env", f"GTEST_OUTPUT=xml:{gtest_folder}/"]
    if preset == "tsan" and address_bits_randomised() > TSAN_ADDRESS_BITS:
        command += ["setarch", "-R"]
    command += ["ctest", "--preset", preset, "-j", JOBS, "--output-junit", str(junit)]
    command += SELECTION[preset]
    status = subprocess.run([*as_root(), *command], cwd=ROOT).returncode
    if not junit.exists():
        raise Failed("ctest wrote no report")
    cases = collect(junit, gtest_folder)
    if status != 0 and all(case.outcome != "failed" for case in cases):
        cases.append(Case("ctest", "failed", f"exit status {status}"))
    if not cases:
        cases.append(Case("ctest", "failed", "it found no tests"))
    return cases


def run_in_lab(nic, label):
    """The tests with this label, in a guest with these NICs."""
    out = ROOT / "build" / "dev" / f"lab-{nic}"
    subprocess.run([*as_root(), "rm", "-rf", str(out)], check=True)
    (ROOT / "build" / "dev" / "Testing").mkdir(exist_ok=True)
    inside = (
        "mount -t tmpfs tmpfs build/dev/Testing &&"  # ctest writes there; the rest is read-only.
        " GTEST_OUTPUT=xml:$LAB_OUT/gtest-reports/"
        f" ctest --preset dev -L '^{label}$' --output-junit $LAB_OUT/junit.xml"
    )
    lab = ["scripts/lab", "run", "--nic", nic, "--out", str(out), "--timeout", str(LAB_TIMEOUT_S)]
    status = subprocess.run([*lab, "--", "bash", "-c", inside], cwd=ROOT).returncode
    if status == LAB_UNAVAILABLE:
        return [Case("lab", "skipped", "no guest can be had on this machine (its reason is above)")]
    junit = out / "junit.xml"
    cases = collect(junit, out / "gtest-reports") if junit.exists() else []
    if (status != 0 or not cases) and all(case.outcome != "failed" for case in cases):
        cases.append(Case(f"lab with {nic}", "failed", f"exit status {status}"))
    return cases


def run_lab():
    build("dev")
    cases = [case for nic, label in LAB_RUNS.items() for case in run_in_lab(nic, label)]
    ran = {case.name for case in cases if case.outcome != "skipped"}
    # Made for the other NIC.
    return [case for case in cases if case.outcome != "skipped" or case.name not in ran]


def run_preset(preset):
    if preset == "style":
        return style.check(ROOT)
    if preset == "lab":
        try:
            return run_lab()
        except Failed as failure:
            return [Case("build", "failed", str(failure))]
    cases = []
    try:
        build(preset)
        cases.append(Case("build", "passed"))
        cases += run_ctest(preset)
    except Failed as failure:
        cases.append(Case("build" if not cases else "ctest", "failed", str(failure)))
    return cases


def count(cases, outcome):
    return sum(case.outcome == outcome for case in cases)


def name_skipped(runs):
    """Every skipped test with its reason, and those that ran nowhere at all."""
    skipped = defaultdict(dict)  # name -> {preset: reason}
    ran = set()
    for preset, (cases, _) in runs.items():
        for case in cases:
            if case.outcome == "skipped":
                skipped[case.name][preset] = case.reason
            else:
                ran.add(case.name)
    if not skipped:
        print("\nNo test was skipped.")
        return
    print("\nSkipped:")
    for name, reasons in skipped.items():
        where = "everywhere" if name not in ran else "in " + ", ".join(reasons)
        for reason in dict.fromkeys(reasons.values()):
            print(f"  {name} ({where}): {reason}")
    nowhere = [name for name in skipped if name not in ran]
    print(
        f"\n{len(nowhere)} of them ran nowhere."
        if nowhere
        else "\nEach of them ran in another preset."
    )


def summarise(runs):
    name_skipped(runs)
    failed = [
        (preset, case)
        for preset, (cases, _) in runs.items()
        for case in cases
        if case.outcome == "failed"
    ]
    if failed:
        print("\nFailed:")
        for preset, case in failed:
            print(f"  {preset}: {case.name}: {case.reason}")
    print(f"\n{'preset':<10}{'passed':>8}{'failed':>8}{'skipped':>9}{'time':>9}")
    for preset, (cases, seconds) in runs.items():
        print(
            f"{preset:<10}{count(cases, 'passed'):>8}{count(cases, 'failed'):>8}"
            f"{count(cases, 'skipped'):>9}{seconds:>7.0f} s"
        )
    every = [case for cases, _ in runs.values() for case in cases]
    print(
        f"\n{count(every, 'passed')} passed, {count(every, 'failed')} failed, "
        f"{count(every, 'skipped')} skipped"
    )
    return 1 if failed else 0


def main():
    chosen = options()
    if os.geteuid() != 0 and not shutil.which("sudo"):
        sys.exit("test: the namespace tests need root; run as root or install sudo")
    runs = {}
    for preset in chosen.presets:
        print(f"== {preset}", flush=True)
        began = time.monotonic()
        runs[preset] = (run_preset(preset), time.monotonic() - began)
    return summarise(runs)


sys.exit(main())
