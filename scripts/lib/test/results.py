# SPDX-License-Identifier: Apache-2.0
"""What ran and how it ended, read from the XML of ctest and of the GoogleTest programs."""
import xml.etree.ElementTree as xml
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One test. `name` is the same in every preset, so that runs can be compared."""

    name: str
    outcome: str  # "passed", "failed" or "skipped"
    reason: str = ""


def one_line(text):
    return " ".join(text.split())


def skip_reason(message):
    """GoogleTest puts 'file:line' in front of what the test said."""
    lines = [line for line in (message or "").splitlines() if line.strip()]
    return one_line(" ".join(lines[1:] if len(lines) > 1 else lines)) or "no reason given"


def gtest_cases(program, path):
    """The cases of one GoogleTest program."""
    found = []
    for case in xml.parse(path).iter("testcase"):
        if case.get("status") == "notrun":
            continue  # DISABLED_ or filtered out.
        name = f"{program}: {case.get('classname')}.{case.get('name')}"
        failure, skipped = case.find("failure"), case.find("skipped")
        if failure is not None:
            found.append(Case(name, "failed", one_line(failure.get("message", ""))))
        elif skipped is not None:
            found.append(Case(name, "skipped", skip_reason(skipped.get("message"))))
        else:
            found.append(Case(name, "passed"))
    return found


def last_line(test):
    lines = (test.findtext("system-out") or "").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def ctest_outcome(test):
    """How ctest saw one of its tests end, and why."""
    status = test.get("status")
    skipped = test.find("skipped")
    if status == "run":
        return "passed", ""
    if status == "disabled" or (skipped is not None and skipped.get("message").startswith("SKIP_")):
        return "skipped", last_line(test)
    return "failed", last_line(test)


def collect(junit_path, gtest_folder):
    """All cases of a ctest run: a GoogleTest program counts by its cases, any other test as one."""
    cases = []
    for test in xml.parse(junit_path).iter("testcase"):
        program = test.get("name")
        outcome, reason = ctest_outcome(test)
        report = gtest_folder / f"test_{program}.xml"
        inner = gtest_cases(program, report) if report.exists() else []
        cases += inner
        # A program can also fail as a whole: a sanitizer's finding, a crash, a timeout.
        if not inner or (outcome == "failed" and all(case.outcome != "failed" for case in inner)):
            cases.append(Case(program, outcome, reason))
    return cases
