# SPDX-License-Identifier: Apache-2.0
"""Builds the Debian packages in a root of each suite that they are for, and has them checked by
lintian, installed, used and purged in another root that has nothing else.
"""
import pathlib
import shutil
import subprocess
import tempfile
import time

import roots
from presets import ROOT, as_root
from results import Case
from roots import debian, enter

SUITES = ("bookworm", "trixie")
BUILD = """
set -e
cd "$1/source"
DEB_BUILD_OPTIONS=parallel=$(nproc) dpkg-buildpackage -b -us -uc
"""
CHECK = """
set -e
cd "$1"
lintian --allow-root --fail-on error --display-info *.changes
"""
# As somebody does who has just got the packages: no compiler but for what -dev is tried with.
USE = r"""
set -ex
export DEBIAN_FRONTEND=noninteractive
cd "$1"
apt-get -qq update
apt-get -qq install -y --no-install-recommends ./cowire_*.deb ./libcowire0_*.deb
cowire --version | grep "^cowire $(dpkg-query -W -f '${Version}' cowire)"
cowire route get 127.0.0.1
apt-get -qq install -y --no-install-recommends ./libcowire-dev_*.deb gcc g++ libc6-dev pkg-config python3 bash-completion \
  man-db libngtcp2-dev libngtcp2-crypto-gnutls-dev libgnutls28-dev
subcommands=$(cowire --help | sed -n '/^Subcommands:/,/^$/s/^  \([a-z]*\) .*/cowire-\1/p')
test -n "$subcommands"
export LC_ALL=C.UTF-8 MANROFFSEQ= MANWIDTH=80
for page in cowire $subcommands cowire.3 cowire.toml.5; do
  file=$(man -w "$page")
  test -z "$(man --warnings -E UTF-8 -l -Tutf8 -Z "$file" 2>&1 >/dev/null)"
done
mkdir -p /tmp/use
printf '#include <cowire.h>\n#include <stdio.h>\nint main(void) { return puts(cowire_version()) < 0; }\n' >/tmp/use/c.c
cc -std=c11 -Wall -Wextra -Werror -o /tmp/use/c /tmp/use/c.c $(pkg-config --cflags --libs cowire-c)
/tmp/use/c
cp source/tests/package/consumer/main.cpp /tmp/use/
c++ -std=c++20 -o /tmp/use/cpp /tmp/use/main.cpp $(pkg-config --cflags --libs --static cowire)
cp -r source/examples/quic_server /tmp/use/
c++ -std=c++20 -o /tmp/use/quic /tmp/use/quic_server/*.cpp $(pkg-config --cflags --libs --static cowire) \
  $(pkg-config --cflags --libs libngtcp2 libngtcp2_crypto_gnutls gnutls)
/tmp/use/quic --help 2>&1 | grep "^quic_server: usage: "
python3 -c 'import ctypes; ctypes.CDLL("libcowire.so.0").cowire_version'
words=$(bash -c '. /usr/share/bash-completion/bash_completion; . /usr/share/bash-completion/completions/cowire
  COMP_WORDS=(cowire route mo) COMP_CWORD=2 COMP_LINE="cowire route mo" COMP_POINT=15; _cowire cowire; echo "${COMPREPLY[@]}"
  COMP_WORDS=(cowire send --when-f) COMP_CWORD=2 COMP_LINE="cowire send --when-f" COMP_POINT=20; _cowire cowire; echo "${COMPREPLY[@]}"')
test "$words" = "monitor
--when-full"
apt-get -qq purge -y cowire libcowire0 libcowire-dev
test -z "$(dpkg -l | awk '/cowire/ && $1 != "un"')"
test -z "$(find / -xdev -path "${1%/build/packages/*}" -prune -o -name '*cowire*' -not -path '/proc/*' -not -path '/var/lib/apt/*' -print)"
"""


def prepare(suite, screen):
    """The root that builds."""
    name = suite if suite == "trixie" else f"{suite}-build"
    root = roots.make(suite, name, screen)
    screen.progress("packages", f"{suite}: installing what builds them")
    debian.run([*enter(root), "scripts/setup", "packages"], cwd=ROOT)
    return root


def copy_of_the_tree(folder):
    """What git knows, or would."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    listed = debian.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT)
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).exists():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)


def step(name, root, script, folder):
    done = subprocess.run(
        [*enter(root), "sh", "-c", script, "sh", str(folder)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    (folder / f"{name}.log").write_text(done.stdout)
    if done.returncode == 0:
        return Case(f"packages_{name}", "passed", "")
    return Case(f"packages_{name}", "failed", done.stdout[-3000:])


def of_suite(suite, timed, screen):
    began = time.monotonic()
    root = prepare(suite, screen)
    folder = ROOT / "build/packages" / suite
    shutil.rmtree(folder, ignore_errors=True)
    copy_of_the_tree(folder / "source")
    screen.progress("packages", f"{suite}: building")
    built = step(f"{suite}_build", root, BUILD, folder)
    timed.build_s += time.monotonic() - began
    yield built
    if built.outcome == "failed":
        return
    began = time.monotonic()
    yield step(f"{suite}_lintian", root, CHECK, folder)
    clean = roots.make(suite, f"{suite}-clean", screen)
    screen.progress("packages", f"{suite}: installing, using, purging")
    with tempfile.TemporaryDirectory(prefix="cowire-packages-") as place:
        subprocess.run([*as_root(), "cp", "-a", str(clean), f"{place}/root"], check=True)
        yield step(f"{suite}_use", pathlib.Path(place) / "root", USE, folder)
        subprocess.run([*as_root(), "rm", "-rf", f"{place}/root"], check=True)
    timed.tests_s += time.monotonic() - began


def check(timed, screen):
    """`timed` gets the seconds; making the roots counts as building."""
    cases = []
    for suite in SUITES:
        try:
            cases += of_suite(suite, timed, screen)
        except debian.Unavailable as reason:
            cases.append(Case(f"packages_{suite}", "failed", str(reason)))
    return cases
