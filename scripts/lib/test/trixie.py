# SPDX-License-Identifier: Apache-2.0
"""Builds cowire and runs its unit and namespace tests on Debian 13, in a root of its own.

The kernel is the host's; compilers (gcc 14, clang 19) and libraries (Asio 1.30, libxdp 1.5) are
Debian 13's. The root is in the cache folder, for the next run; who wants a fresh one removes it.
"""
import os
import pathlib
import subprocess
import sys
import time

from presets import ROOT, as_root, build_and_test, Preset

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import debian
from results import Case

SUITE = "trixie"
# $1: the root, $2: the tree, then the command. Mounts are this process's own and end with it.
ENTER = """
set -e
root=$1 tree=$2
shift 2
# A mount of its own: `ip netns exec` makes what is mounted at / a slave.
mount --bind "$root" "$root"
mkdir -p "$root$tree"
mount --bind "$tree" "$root$tree"
for folder in proc sys dev; do mount --rbind "/$folder" "$root/$folder"; done
for folder in run tmp; do mount -t tmpfs tmpfs "$root/$folder"; done
[ ! -e /etc/resolv.conf ] || cat /etc/resolv.conf >"$root/etc/resolv.conf"
exec chroot "$root" sh -c 'cd "$0" && exec "$@"' "$tree" "$@"
"""


def enter(root):
    """What is put in front of a command to run it there, in the same folder."""
    own_mounts = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "enter"]
    keep = ["env", "HOME=/root"]
    return [*as_root(), *own_mounts, str(root), str(ROOT), *keep]


def prepare(screen):
    """The root with all that the tests need; installs only what is missing."""
    root = debian.cache_folder("") / SUITE
    if not (root / "etc/debian_version").exists() or (root / "debootstrap").exists():
        debian.run(["scripts/setup", "trixie-root"], cwd=ROOT)
        screen.say(f"trixie: making a Debian 13 root in {root}")
        subprocess.run([*as_root(), "rm", "-rf", str(root)], check=True)
        command = ["debootstrap", "--variant=minbase", f"--keyring={debian.KEYRING}", SUITE]
        debian.run([*as_root(), *command, str(root), debian.archive_address()])
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
