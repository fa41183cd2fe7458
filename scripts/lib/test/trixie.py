# SPDX-License-Identifier: Apache-2.0
"""Builds cowire and runs its unit and namespace tests on Debian 13, in a root of its own.

The kernel is the host's; compilers (gcc 14, clang 19) and libraries (Asio 1.30, libxdp 1.5) are
Debian 13's.
"""
import time

import roots
from presets import ROOT, build_and_test, Preset
from results import Case
from roots import debian, enter

SUITE = "trixie"


def prepare(screen):
    """The root with all that the tests need; installs only what is missing."""
    root = roots.make(SUITE, SUITE, screen)
    screen.progress("trixie", "installing packages")
    debian.run([*enter(root), "scripts/setup", "trixie"], cwd=ROOT)
    return root


def presets(root):
    folder = ROOT / "build"
    unit = ["-L", "unit|namespaces|fuzz", "-LE", "stress"]
    gcc = ["cli/all", "examples/all", "tests/all"]
    clang = ["cli/all", "examples/all", "tests/fuzz/all"]
    return [
        Preset("dev", gcc, unit, folder / "trixie-gcc", enter(root)),
        Preset("clang", clang, ["-L", "fuzz"], folder / "trixie-clang", enter(root)),
    ]


def check(timed, screen):
    """`timed` gets the seconds; making the root counts as building."""
    began = time.monotonic()
    try:
        root = prepare(screen)
    except debian.Unavailable as reason:
        return [Case("trixie", "failed", str(reason))]
    timed.build_s += time.monotonic() - began
    cases = []
    for preset in presets(root):
        cases += build_and_test(preset, screen)
        timed.build_s += preset.build_s
        timed.tests_s += preset.tests_s
    return cases
