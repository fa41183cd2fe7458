# SPDX-License-Identifier: Apache-2.0
"""The house style, as far as a program can see it."""
import re
import subprocess

import rules
from results import Case

LICENSE = "SPDX-License-Identifier: Apache-2.0"
COLUMNS = 100
SOURCES = {".cpp", ".hpp"}
# Programs, which may consist of several files; quotes find these.
OWN_PARTS = {"tests", "testbed", "bench", "examples"}


def tree(root):
    """Everything that belongs to the project."""
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.is_file() and not hidden and inside.parts[0] != "build":
            yield path


def source_files(root):
    """Of these, what is text we wrote."""
    for path in tree(root):
        if path.suffix in SOURCES | {".py", ".cmake"} or path.name == "CMakeLists.txt":
            yield path


def findings(root, path):
    lines = path.read_text().splitlines()
    name = path.relative_to(root)
    if not any(LICENSE in line for line in lines[:2]):
        yield f"{name}: the first line must say '{LICENSE}'"
    if path.suffix == ".hpp" and "#pragma once" not in lines:
        yield f"{name}: '#pragma once' is missing"
    if path.suffix not in SOURCES:
        return
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            yield f"{name}:{number}: {len(line)} columns; {COLUMNS} is the limit"
        if name.parts[0] not in OWN_PARTS and re.match(r'\s*#include\s+"', line):
            yield f"{name}:{number}: include as <cowire/folder/file.hpp>"


def rule_findings(root, files):
    """What rules.py finds in the sources, and in the commits."""
    texts = {path.relative_to(root): path.read_text() for path in files}
    sources = {name: text for name, text in texts.items() if name.suffix in SOURCES}
    tracked = [path.relative_to(root) for path in tree(root)]
    yield from rules.includes(sources)
    yield from rules.long_functions(sources)
    yield from rules.comments(sources, rules.words_of(texts), tracked)
    yield from rules.subjects(root)


def check(root):
    """Three cases: our own rules, clang-format's opinion, and symbols without a comment."""
    files = list(source_files(root))
    found = [finding for path in files for finding in findings(root, path)]
    found += rule_findings(root, files)
    for finding in found:
        print(finding)
    sources = [str(path) for path in files if path.suffix in SOURCES]
    formatted = subprocess.run(["clang-format", "--dry-run", "-Werror", *sources], cwd=root)
    reference = subprocess.run(["scripts/reference", "--check"], cwd=root)
    return [
        Case("style: rules", "failed" if found else "passed", f"{len(found)} findings"),
        Case(
            "style: clang-format",
            "failed" if formatted.returncode else "passed",
            "run clang-format -i on the files named above",
        ),
        Case(
            "style: reference",
            "failed" if reference.returncode else "passed",
            "the public symbols named above need a comment (scripts/reference)",
        ),
    ]
