# SPDX-License-Identifier: Apache-2.0
"""clang-tidy, with the tree's .clang-tidy, on what changed."""
import collections
import concurrent.futures
import os
import pathlib
import re
import subprocess

from presets import ROOT
from results import Case

TIDY = "clang-tidy-19"
INCLUDE = re.compile(r'^#include [<"](\S+)[>"]', re.MULTILINE)
SINCE = ("origin/HEAD", "origin/main", "main")


def git(*words):
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def base():
    """Where this branch left the main one; on the main one itself, the commit before."""
    head = git("rev-parse", "HEAD")
    for name in SINCE:
        if (left := git("merge-base", "HEAD", name)) and left != head:
            return left
    return git("rev-parse", "--verify", "HEAD^")


def names_of(*command):
    return [pathlib.PurePath(name) for name in git(*command).splitlines()]


def changed(since):
    names = names_of("diff", "--name-only", "--diff-filter=d", since)
    return names + names_of("ls-files", "--others", "--exclude-standard")


def includers():
    """By header, all that include it: from its own folder, from the root, or as <cowire/...>."""
    found = collections.defaultdict(set)
    for name in names_of("ls-files", "--cached", "--others", "--exclude-standard"):
        if name.suffix not in (".cpp", ".hpp") or not (ROOT / name).exists():
            continue
        for header in INCLUDE.findall((ROOT / name).read_text()):
            for folder in (name.parent, pathlib.PurePath()):
                path = os.path.normpath(folder / header.removeprefix("cowire/"))
                found[pathlib.PurePath(path)].add(name)
    return found


def seen_through(header, includers_of, is_compiled):
    """The source of the same name; else the first one to include the header, by as few others as
    can be. None: no source that is compiled does."""
    own = header.with_suffix(".cpp")
    if is_compiled(own):
        return own
    known, level = {header}, [header]
    while level:
        found = set().union(*(includers_of.get(one, ()) for one in level)) - known
        if sources := sorted(name for name in found if name.suffix == ".cpp" and is_compiled(name)):
            return sources[0]
        known |= found
        level = [name for name in found if name.suffix == ".hpp"]
    return None


def changed_sources(since, is_compiled):
    """Sources that changed, and through which changed headers are seen; then the headers that no
    source shows."""
    names = changed(since)
    found = {name for name in names if name.suffix == ".cpp" and is_compiled(name)}
    headers = {name for name in names if name.suffix == ".hpp"}
    includers_of = includers() if headers else {}
    through = {header: seen_through(header, includers_of, is_compiled) for header in headers}
    unseen = sorted(header for header, source in through.items() if source is None)
    return sorted(found.union(through.values()) - {None}), unseen


def compiled(folder):
    """Whether this build knows how to compile a source."""
    text = (folder / "compile_commands.json").read_text()
    return lambda source: f'"{ROOT / source}"' in text


def check(preset, screen):
    """`preset`: clang's, which is configured in a folder of its own, with each source by itself."""
    since = base()
    if not since:
        return [Case("tidy", "skipped", "git knows no earlier commit to compare with")]
    folder = ROOT / "build" / "tidy"
    command = ["cmake", "--preset", preset.name, "-B", str(folder), "-DCOWIRE_UNITY=OFF"]
    configure = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if configure.returncode != 0:
        screen.say(configure.stdout + configure.stderr)
        return [Case("tidy", "failed", f"`{' '.join(command)}` failed")]
    sources, unseen = changed_sources(since, compiled(folder))
    screen.say(f"tidy: {len(sources)} sources for what changed since {since[:10]}")

    def one(source):
        command = [TIDY, "--quiet", "-p", str(folder), str(ROOT / source)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    nowhere = "no source of this build includes it"
    cases = [Case(f"tidy: {name}", "skipped", nowhere) for name in unseen]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (name, done) in enumerate(zip(sources, pool.map(one, sources)), 1):
            screen.progress("tidy", f"{number} of {len(sources)}, last {name}")
            if done.returncode != 0:
                screen.say(done.stdout)
            outcome = "failed" if done.returncode != 0 else "passed"
            cases.append(Case(f"tidy: {name}", outcome, f"{TIDY} found something"))
    return cases or [Case("tidy", "passed", "nothing changed")]
