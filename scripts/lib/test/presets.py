# SPDX-License-Identifier: Apache-2.0
"""Builds a preset and runs its tests."""
import os
import pathlib
import re
import subprocess
import time
from dataclasses import dataclass, field

import console
from results import Case, collect

ROOT = pathlib.Path(__file__).resolve().parents[3]
JOBS = str(os.cpu_count())
# Tests wait for kernels and timers more than they compute: two for each CPU.
TEST_JOBS = str(2 * os.cpu_count())
# How many bits of an address the ThreadSanitizer of gcc 12 lets the kernel choose at random.
TSAN_ADDRESS_BITS = 28
NINJA_STEP = re.compile(r"\[(\d+)/(\d+)\]")
CTEST_START = re.compile(r"\s*Start +\d+: ")
CTEST_END = re.compile(r"\s*(\d+)/(\d+) Test +#\d+: (\S+) .*?(\*\*\*\w+|Passed|Skipped)")


class Failed(Exception):
    """A step without which the rest of its phase is pointless."""


@dataclass
class Preset:
    """`targets` and `selection` (of ctest): what is built and run.

    `root`: a command that enters another system, put in front of each.
    """

    name: str
    targets: list
    selection: list
    folder: pathlib.Path = None
    root: list = field(default_factory=list)
    build_s: float = 0
    tests_s: float = 0

    def __post_init__(self):
        self.folder = self.folder or ROOT / "build" / self.name


def as_root():
    """Namespaces and AF_XDP sockets are root's; the build is not."""
    return [] if os.geteuid() == 0 else ["sudo", "--"]


def address_bits_randomised():
    return int(pathlib.Path("/proc/sys/vm/mmap_rnd_bits").read_text())


def build(preset, screen):
    """Configures and compiles; the compiler speaks only if that fails."""
    began = time.monotonic()
    folder = preset.folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scripts-test.log"
    with open(path, "w") as log:

        def take(line):
            log.write(line + "\n")
            if step := NINJA_STEP.match(line):
                screen.progress(preset.name, f"built {step[1]} of {step[2]}")

        for command in (
            ["cmake", "--preset", preset.name, "-B", str(folder)],
            ["cmake", "--build", str(folder), "-j", JOBS, "--target", *preset.targets],
        ):
            screen.progress(preset.name, "configuring")
            # Tests that run meanwhile go first (builder.py).
            if console.run([*preset.root, "nice", "-n19", *command], take, cwd=ROOT) != 0:
                log.flush()
                lines = [line for line in path.read_text().splitlines() if line[:1] != "["]
                screen.say("\n".join(lines[-200:]))
                raise Failed(f"`{' '.join(command)}` failed (all of it: {path})")
    preset.build_s += time.monotonic() - began


def follow_ctest(name, screen):
    """Takes ctest's lines: shows all, or on a terminal what failed and how far it is."""

    def take(line):
        ended = CTEST_END.match(line)
        if not screen.is_terminal or (ended and ended[4].startswith("***")):
            screen.say(line)
        elif ended:
            screen.progress(name, f"ran {ended[1]} of {ended[2]} tests, last {ended[3]}")
        elif line and not CTEST_START.match(line):
            screen.say(line)

    return take


def cases_of(junit, gtest_folder, status, name):
    cases = collect(junit, gtest_folder) if junit.exists() else []
    if (status != 0 or not cases) and all(case.outcome != "failed" for case in cases):
        cases.append(Case(name, "failed", f"exit status {status}, {len(cases)} tests reported"))
    return cases


def run_ctest(preset, screen):
    began = time.monotonic()
    gtest_folder = preset.folder / "gtest-reports"
    junit = preset.folder / "ctest-report.xml"
    for old in (gtest_folder, junit):
        subprocess.run([*as_root(), "rm", "-rf", str(old)], check=True)
    command = ["env", f"GTEST_OUTPUT=xml:{gtest_folder}/"]
    if preset.name == "tsan" and address_bits_randomised() > TSAN_ADDRESS_BITS:
        command += ["setarch", "-R"]
    command += ["ctest", "--preset", preset.name, "--test-dir", str(preset.folder)]
    command += ["-j", TEST_JOBS, "--output-junit", str(junit), *preset.selection]
    status = console.run(
        [*(preset.root or as_root()), *command], follow_ctest(preset.name, screen), cwd=ROOT
    )
    preset.tests_s += time.monotonic() - began
    return cases_of(junit, gtest_folder, status, "ctest")


def build_and_test(preset, screen, builds=build):
    """`builds`: what comes back once the preset is built."""
    try:
        builds(preset, screen)
    except Failed as failure:
        return [Case("build", "failed", str(failure))]
    return [Case("build", "passed"), *run_ctest(preset, screen)]
