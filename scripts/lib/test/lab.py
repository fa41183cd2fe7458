# SPDX-License-Identifier: Apache-2.0
"""Runs dev's programs again, those with the label lab, in a guest.

Its kernel and NICs have what the host may lack.
"""
import subprocess
import time

import console
from presets import CTEST_END, ROOT, Failed, as_root, build, cases_of
from results import Case

# The guest's NICs, and which tests they are for.
RUNS = {"virtio": ["-L", "^lab$"], "igb": ["-L", "^nic$"]}
# What shows in seconds that the guest starts, a NIC sends without copies and GRE is served.
FIRST_TESTS = ["-R", "^zero_copy$"]
FIRST_CASES = "zero_copy.carries_*"
TIMEOUT_S = 2400
JOBS = 2  # As many as the guest has CPUs; those that need its NICs lock them.
UNAVAILABLE = 126  # As scripts/lab says it.


def run_in_guest(nic, selection, cases, screen):
    """The selected tests in a guest with these NICs; `cases` is a filter of GoogleTest or empty."""
    out = ROOT / "build" / "dev" / f"lab-{nic}"
    subprocess.run([*as_root(), "rm", "-rf", str(out)], check=True)
    (ROOT / "build" / "dev" / "Testing").mkdir(exist_ok=True)
    quoted = " ".join(f"'{word}'" for word in selection)
    inside = (
        "mount -t tmpfs tmpfs build/dev/Testing &&"  # ctest writes there; the rest is read-only.
        f" GTEST_OUTPUT=xml:$LAB_OUT/gtest-reports/ GTEST_FILTER='{cases or '*'}'"
        f" ctest --preset dev -j {JOBS} {quoted} --output-junit $LAB_OUT/junit.xml"
    )
    lab = ["scripts/lab", "run", "--nic", nic, "--out", str(out), "--timeout", str(TIMEOUT_S)]

    def take(line):
        ended = CTEST_END.match(line)
        if ended and ended[4] == "Passed":
            screen.progress("lab", f"{nic}: ran {ended[1]} of {ended[2]} tests, last {ended[3]}")
        if not screen.is_terminal or (ended and ended[4].startswith("***")):
            screen.say(line)

    screen.progress("lab", f"starting a guest with {nic}")
    status = console.run([*lab, "--", "bash", "-c", inside], take, cwd=ROOT)
    if status == UNAVAILABLE:
        return [Case("lab", "skipped", "no guest can be had on this machine: scripts/lab says why")]
    return cases_of(out / "junit.xml", out / "gtest-reports", status, f"lab with {nic}")


def check(preset, quick, screen):
    """`preset`: dev, to be built; its tests' seconds are those of the guests."""
    try:
        build(preset, screen)
    except Failed as failure:
        return [Case("build", "failed", str(failure))]
    began = time.monotonic()
    if quick:
        cases = run_in_guest("virtio", FIRST_TESTS, FIRST_CASES, screen)
    else:
        cases = [
            case
            for nic, selection in RUNS.items()
            for case in run_in_guest(nic, selection, "", screen)
        ]
    preset.tests_s += time.monotonic() - began
    ran = {case.name for case in cases if case.outcome != "skipped"}
    # Made for the other NIC.
    return [case for case in cases if case.outcome != "skipped" or case.name not in ran]
