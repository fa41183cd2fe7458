# SPDX-License-Identifier: Apache-2.0
"""What the records of host B say: how soon a change took effect, what is missing and why.

Pure functions of plain data. Times are Unix time in ns.
"""
import bisect
import collections
import math
from dataclasses import dataclass

# What the TX core may already have handed over when the path broke: one batch.
IN_HAND_AT_BREAK = 64

# Why a datagram may be missing without being `lost`, in the words of the summary. The keys of the
# report have "lost_" in front.
DOWNED, CUT = "in_downed_interface", "on_cut_fiber"
CAUSES = {DOWNED: "lost in a downed interface", CUT: "lost on the cut fiber"}
# How many that can have been. A downed interface counts what it drops; a fiber does not.
BOUNDS = {
    DOWNED: "the kernel's tx_dropped of that interface + the sender's lost_in_device",
    CUT: f"rate x time to publication + {IN_HAND_AT_BREAK}",
}


@dataclass
class Change:
    """One command, or several, and what came of it."""

    command: str
    begin_ns: int  # Just before the command was given.
    end_ns: int
    before: str  # The path that the kernel named for the stream before the command,
    after: str  # and after it.
    breaks: str | None = None  # The path that the command breaks,
    cause: str = ""  # as one of CAUSES.
    repairs: str | None = None  # The path that it repairs.
    # If a daemon moves the route: when A was last told `before`, and when `after` for the first time.
    old_path_ns: int | None = None
    new_path_ns: int | None = None
    published_ns: int | None = None  # When `cowire route monitor` saw the new table published.
    first_ns: int | None = None  # First arrival on `after` since.

    @property
    def moves(self):
        return self.before != self.after

    @property
    def since_ns(self):
        """Never later than the kernel's change."""
        return self.old_path_ns or self.begin_ns

    @property
    def latency_us(self):
        return None if self.first_ns is None else (self.first_ns - self.since_ns) / 1000

    @property
    def breaks_stream(self):
        return self.breaks is not None and self.breaks == self.before


@dataclass
class Excused:
    """Datagrams that are missing for a cause that nobody can do anything about."""

    lost: int = 0
    allowance: int = 0  # How many that can have been, by BOUNDS.


@dataclass
class Account:
    """Every datagram of the run, in exactly one of the places it can have ended."""

    submitted: int
    transmitted: dict  # By interface.
    modes: dict  # By interface: how its AF_XDP socket sends ("zero-copy", "copy" …).
    kernel_path: int
    refused: int
    lost_in_device: int  # By the sender's own account.
    received: int
    received_by_path: dict
    lost: int
    excused: dict  # By cause, those that the run had.
    reordered: int

    def carriers(self):
        """Who transmitted how many, in words: ("transmitted by public (copy mode)", 1200)."""
        for name, count in self.transmitted.items():
            mode = f" ({self.modes[name]} mode)" if name in self.modes else ""
            yield f"transmitted by {name}{mode}", count

    def complaints(self):
        """What makes the run a failure, in words."""
        found = []
        accounted = (
            sum(self.transmitted.values()) + self.kernel_path + self.refused + self.lost_in_device
        )
        if accounted != self.submitted:
            found.append(
                f"the sender's totals do not add up: submitted {self.submitted}, "
                f"accounted for {accounted}"
            )
        if self.lost != 0:
            found.append(f"{self.lost} datagrams lost")
        for cause, excused in self.excused.items():
            if excused.lost > excused.allowance:
                found.append(
                    f"{excused.lost} datagrams {CAUSES[cause]}, more than "
                    f"{BOUNDS[cause]} = {excused.allowance}"
                )
        return found


def first_arrival(arrivals, interface, since_ns):
    """Time of the first arrival on `interface` (index) not before `since_ns`, or None."""
    # Arrival times are those of the kernel and may be some microseconds out of order across CPUs.
    start = max(0, bisect.bisect_left(arrivals.arrived_ns, since_ns) - 64)
    for i in range(start, len(arrivals.arrived_ns)):
        if arrivals.interface[i] == interface and arrivals.arrived_ns[i] >= since_ns:
            return arrivals.arrived_ns[i]
    return None


def published_at(change, monitor_lines):
    """When the table that first reflects the change was published; None if nothing was seen.

    A daemon may have changed more than the path meanwhile: the last change before A was told the
    new path is not too early."""
    since = [line for line in monitor_lines if line["event_time_ns"] >= change.since_ns]
    early = [line for line in since if line["event_time_ns"] <= (change.new_path_ns or 0)]
    if early:
        return max(line["publish_time_ns"] for line in early)
    return min((line["publish_time_ns"] for line in since), default=None)


def gaps(arrivals, submitted):
    """Runs of missing sequence numbers: (count, submission of the one before, of the one after).

    None stands for a neighbour beyond the beginning or the end of the stream."""
    submitted_at = [0] * submitted
    for sequence, at_ns in zip(arrivals.sequence, arrivals.submitted_ns):
        if sequence < submitted:
            submitted_at[sequence] = at_ns
    found = []
    missing = 0
    before_ns = None
    for at_ns in submitted_at:
        if at_ns == 0:
            missing += 1
            continue
        if missing:
            found.append((missing, before_ns, at_ns))
            missing = 0
        before_ns = at_ns
    if missing:
        found.append((missing, before_ns, None))
    return found


def excuse(gap, changes):
    """The cause of a gap that touches the time from a break to the first use of the new path."""
    _, before_ns, after_ns = gap
    for change in changes:
        if change.breaks_stream and change.first_ns is not None:
            ended_before = after_ns is not None and after_ns < change.begin_ns
            began_after = before_ns is not None and before_ns > change.first_ns
            if not ended_before and not began_after:
                return change.cause
    return None


def excuses(found, changes, rate, dropped, lost_in_device):
    """Excused by cause: what is missing of that cause, and how many that may be."""
    by_cause = {change.cause: Excused() for change in changes if change.breaks}
    for change in changes:
        if change.cause == CUT and change.breaks_stream and change.published_ns:
            by_cause[CUT].allowance += (
                int(rate * (change.published_ns - change.begin_ns) / 1e9) + IN_HAND_AT_BREAK
            )
    if DOWNED in by_cause:
        downed = {change.breaks for change in changes if change.cause == DOWNED}
        by_cause[DOWNED].allowance = lost_in_device + sum(dropped[path] for path in downed)
    for gap in found:
        if cause := excuse(gap, changes):
            by_cause[cause].lost += gap[0]
    return by_cause


def percentile(values, share):
    """The smallest value that is not exceeded by that share of them."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else None


def count_reordered(sequences):
    """Arrivals that an arrival with a higher sequence number had overtaken."""
    highest = -1
    reordered = 0
    for sequence in sequences:
        if sequence < highest:
            reordered += 1
        else:
            highest = sequence
    return reordered


def settle(totals, arrivals, changes, rate, paths, dropped):
    """Weighs the sender's totals (the JSON of `cowire send -j`) against what arrived.

    `paths`: the path by interface of B, as the records have it. `dropped`: by path, what A's kernel
    dropped at its interface."""
    submitted = totals["submitted"]
    refused = sum(totals["refused"].values())
    found = gaps(arrivals, submitted)
    missing = sum(gap[0] for gap in found)
    excused = excuses(found, changes, rate, dropped, totals["lost_in_device"])
    by_interface = collections.Counter(arrivals.interface)
    return Account(
        submitted=submitted,
        transmitted=totals["transmitted"],
        modes={name: rung["mode"] for name, rung in totals["mode"].items()},
        kernel_path=totals["kernel_path"],
        refused=refused,
        lost_in_device=totals["lost_in_device"],
        received=submitted - missing,
        received_by_path={path: by_interface[index] for index, path in paths.items()},
        lost=missing - refused - sum(each.lost for each in excused.values()),
        excused=excused,
        reordered=count_reordered(arrivals.sequence),
    )


def move_latencies_us(changes):
    """How long each change of path took, in order of time."""
    return [
        round(change.latency_us, 1)
        for change in changes
        if change.moves and change.latency_us is not None
    ]


def report(account, changes, origin_ns):
    """The content of demo-report.json."""
    latencies = move_latencies_us(changes)
    return {
        "submitted": account.submitted,
        "transmitted": account.transmitted,
        "kernel_path": account.kernel_path,
        "refused": account.refused,
        "received": account.received,
        "received_by_path": account.received_by_path,
        "lost": account.lost,
        **{f"lost_{cause}": account.excused.get(cause, Excused()).lost for cause in CAUSES},
        "allowance": {f"lost_{cause}": each.allowance for cause, each in account.excused.items()},
        "reordered": account.reordered,
        "first_on_new_path_us": {
            "moves": len(latencies),
            "p50": percentile(latencies, 0.5),
            "p99": percentile(latencies, 0.99),
        },
        "changes": [
            {
                "command": change.command,
                "at_s": round((change.begin_ns - origin_ns) / 1e9, 6),
                "path_before": change.before,
                "path_after": change.after,
                "kernel_moved_after_ms": None
                if change.old_path_ns is None
                else round((change.old_path_ns - change.begin_ns) / 1e6, 1),
                "first_on_new_path_us": None
                if change.latency_us is None
                else round(change.latency_us, 1),
                "published_after_us": None
                if change.published_ns is None or not change.moves
                else round((change.published_ns - change.since_ns) / 1000, 1),
            }
            for change in changes
        ],
    }
