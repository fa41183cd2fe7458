# SPDX-License-Identifier: Apache-2.0
"""Other suites of Debian beside this machine's own, which stays as it is."""
import os
import pathlib
import subprocess

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Unavailable(Exception):
    """It cannot be had on this machine; the text says what is missing."""


def cache_folder(name):
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(base) / "cowire" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-3:]
        raise Unavailable(f"`{' '.join(map(str, command[:3]))} …` failed: {' / '.join(words)}")
    return done.stdout


def archive_address():
    """Where this machine gets Debian's main archive from."""
    shown = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(COMPONENT)"])
    for line in sorted(set(shown.decode().splitlines())):
        address, origin, component = (line.split() + ["", "", ""])[:3]
        if origin == "Debian" and component == "main" and "security" not in address:
            return address
    raise Unavailable("apt knows no Debian archive: run `apt-get update`")
