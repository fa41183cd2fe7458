# SPDX-License-Identifier: Apache-2.0
"""What is said at the end: what was skipped and why, what failed, a table of phases."""
from collections import defaultdict
from dataclasses import dataclass

from console import minutes


@dataclass
class Phase:
    name: str
    cases: list
    build_s: float
    tests_s: float

    def count(self, outcome):
        return sum(case.outcome == outcome for case in self.cases)


def skipped(phases):
    """Every skipped test with its reason, and how many of them ran in no phase at all."""
    reasons = defaultdict(dict)  # name -> {phase: reason}
    ran = set()
    for phase in phases:
        for case in phase.cases:
            if case.outcome == "skipped":
                reasons[case.name][phase.name] = case.reason
            else:
                ran.add(case.name)
    if not reasons:
        return ["No test was skipped."]
    lines = ["Skipped:"]
    for name, where in reasons.items():
        place = "everywhere" if name not in ran else "in " + ", ".join(where)
        lines += [f"  {name} ({place}): {reason}" for reason in dict.fromkeys(where.values())]
    nowhere = sum(name not in ran for name in reasons)
    lines.append(
        f"{nowhere} of them ran nowhere." if nowhere else "Each of them ran in another phase."
    )
    return lines


def failures(phases):
    found = [
        f"  {phase.name}: {case.name}: {case.reason}"
        for phase in phases
        for case in phase.cases
        if case.outcome == "failed"
    ]
    return ["Failed:", *found] if found else []


def table(phases):
    columns = "{:<10}{:>8}{:>8}{:>9}{:>9}{:>9}"
    lines = [columns.format("phase", "passed", "failed", "skipped", "build", "tests")]
    for phase in phases:
        counts = [phase.count(outcome) for outcome in ("passed", "failed", "skipped")]
        lines.append(
            columns.format(phase.name, *counts, minutes(phase.build_s), minutes(phase.tests_s))
        )
    totals = [sum(p.count(outcome) for p in phases) for outcome in ("passed", "failed", "skipped")]
    spent = [minutes(sum(p.build_s for p in phases)), minutes(sum(p.tests_s for p in phases))]
    return [*lines, columns.format("all", *totals, *spent)]
