# SPDX-License-Identifier: Apache-2.0
"""clang-tidy, with the tree's .clang-tidy, on the sources that changed."""
import concurrent.futures
import os
import subprocess

from presets import ROOT
from results import Case

TIDY = "clang-tidy-19"
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


def changed_sources(since):
    """Sources that changed or whose own header did; headers are seen through them."""
    names = git("diff", "--name-only", "--diff-filter=d", since).splitlines()
    names += git("ls-files", "--others", "--exclude-standard").splitlines()
    found = {ROOT / name for name in names if name.endswith(".cpp")}
    found |= {
        source
        for name in names
        if name.endswith(".hpp") and (source := (ROOT / name).with_suffix(".cpp")).exists()
    }
    return sorted(found)


def compiled(folder):
    """The sources that this build knows how to compile."""
    text = (folder / "compile_commands.json").read_text()
    return lambda source: f'"{source}"' in text


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
    sources = list(filter(compiled(folder), changed_sources(since)))
    screen.say(f"tidy: {len(sources)} sources changed since {since[:10]}")

    def one(source):
        command = [TIDY, "--quiet", "-p", str(folder), str(source)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    cases = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for source, done in zip(sources, pool.map(one, sources)):
            name = source.relative_to(ROOT)
            screen.progress("tidy", f"{len(cases) + 1} of {len(sources)}, last {name}")
            if done.returncode != 0:
                screen.say(done.stdout)
            outcome = "failed" if done.returncode != 0 else "passed"
            cases.append(Case(f"tidy: {name}", outcome, f"{TIDY} found something"))
    return cases or [Case("tidy", "passed", "nothing changed")]
