# SPDX-License-Identifier: Apache-2.0
"""Roots of Debian's suites, in the cache folder for the next run; who wants a fresh one removes it.

The kernel is the host's; compilers and libraries are the suite's.
"""
import pathlib
import subprocess
import sys

from presets import ROOT, as_root

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import debian

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


def make(suite, name, screen):
    """A minimal root of the suite, called so; made if it is not there."""
    root = debian.cache_folder("") / name
    if not (root / "etc/debian_version").exists() or (root / "debootstrap").exists():
        debian.run(["scripts/setup", "trixie-root"], cwd=ROOT)
        screen.say(f"making a root of Debian {suite} in {root}")
        subprocess.run([*as_root(), "rm", "-rf", str(root)], check=True)
        command = ["debootstrap", "--variant=minbase", f"--keyring={debian.KEYRING}", suite]
        debian.run([*as_root(), *command, str(root), debian.archive_address()])
    return root


