# SPDX-License-Identifier: Apache-2.0
"""Builds cowire and runs its tests; says at the end what ran where, and how long each phase took.

Started by scripts/test. Without an argument: the style, the debug build with its unit and namespace
tests, and the first tests in the lab. Exit status 0 only if nothing failed.
"""
import argparse
import os
import shutil
import sys
import time

import children
import lab
import packages
import style
import tidy
import trixie
from builder import Builder
from console import Console, minutes
from presets import ROOT, Preset, build_and_test
from summary import Phase, failures, skipped, table

# What is built and what ctest selects in each preset. `dev` runs everything, each source compiled by
# itself; release shows that what users and scripts/bench build has no warnings and stays within its
# budget of instructions; asan and tsan run the same code through a sanitizer; asan shows that the
# other compiler, clang, takes it: its fuzz targets are real libFuzzer programs; aarch64 and
# x86-64 run the unit tests of what is written for several kinds of processors in an emulator of
# others. clang is asan's compiler with -O1 and without precompiled headers or sanitizers.
PRESETS = {
    "dev": (
        ["cli/all", "examples/all", "tests/all", "c/all", "all_verify_interface_header_sets"],
        [],
    ),
    "release": (["cli/all", "examples/all", "bench/all"], ["-L", "instructions"]),
    "asan": (["all"], ["-L", "unit|namespaces|fuzz", "-LE", "stress|lab"]),
    "tsan": (["all"], ["-L", "unit|namespaces", "-LE", "lab|soak|one-thread"]),
    "aarch64": (["all"], []),
    "x86-64": (["all"], []),
    "clang": (["cli/all", "examples/all", "tests/fuzz/all"], ["-L", "fuzz"]),
}
# Without an argument: what dev builds and runs of it.
FIRST = (["cli/all", "examples/all", "tests/all"], ["-L", "unit|namespaces|fuzz", "-LE", "stress"])
DEFAULT = ["style", "dev", "lab"]
# The lab last: nothing is built any more then, and its emulated CPUs want all that there are.
ALL = ["style", "tidy", "dev", "release", "asan", "tsan", "aarch64", "x86-64", "lab"]
KNOWN = [*ALL, "clang", "trixie", "packages"]


def options():
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__.splitlines()[0])
    parser.add_argument(
        "phases",
        nargs="*",
        metavar="PHASE",
        help=f"which of {', '.join(KNOWN)}, whole (default: {', '.join(DEFAULT)}, abridged)",
    )
    parser.add_argument("--all", action="store_true", help=f"{', '.join(ALL)}, whole")
    chosen = parser.parse_args()
    for name in chosen.phases:
        if name not in KNOWN:
            parser.error(f"unknown phase '{name}'; there are {', '.join(KNOWN)}")
    if chosen.all and chosen.phases:
        parser.error("--all names its phases itself")
    chosen.quick = not chosen.all and not chosen.phases
    chosen.phases = chosen.phases or (ALL if chosen.all else DEFAULT)
    return chosen


def preset_of(name, quick):
    targets, selection = FIRST if quick else PRESETS[name]
    return Preset(name, targets, selection)


def run_phase(name, quick, screen, builder):
    """`builder`: of all phases that are presets."""
    began = time.monotonic()
    if name in ("style", "tidy"):
        cases = style.check(ROOT) if name == "style" else tidy.check(preset_of("clang", 0), screen)
        return Phase(name, cases, 0, time.monotonic() - began)
    if name in PRESETS:
        timed = builder.presets[name]
        cases = build_and_test(timed, screen, builder.wait)
        return Phase(name, cases, timed.build_s, timed.tests_s)
    timed = preset_of("dev", quick)
    if name == "lab":
        builder.wait_for_end(timed.name, screen)  # One at a time in a folder.
        cases = lab.check(timed, quick, screen)
    elif name == "trixie":
        cases = trixie.check(timed, screen)
    else:
        cases = packages.check(timed, screen)
    return Phase(name, cases, timed.build_s, timed.tests_s)


def main():
    chosen = options()
    if os.geteuid() != 0 and not shutil.which("sudo"):
        sys.exit("test: the namespace tests need root; run as root or install sudo")
    began = time.monotonic()
    screen = Console()
    builder = Builder(preset_of(name, chosen.quick) for name in chosen.phases if name in PRESETS)
    phases = []
    for name in chosen.phases:
        screen.say(f"== {name}")
        phases.append(run_phase(name, chosen.quick, screen, builder))
    failed = failures(phases)
    for lines in (skipped(phases), failed, table(phases)):
        if lines:
            screen.say("\n" + "\n".join(lines))
    screen.say(f"\n{'failed' if failed else 'passed'} after {minutes(time.monotonic() - began)}")
    return 1 if failed else 0


sys.exit(children.supervise(main))
