# SPDX-License-Identifier: Apache-2.0
"""What the records of host B say: how soon a change took effect, what is missing and why.

Pure functions of plain data. Times are Unix time in ns.
"""
import bisect
from dataclasses import dataclass

# What the TX core may already have handed over when the interface went down: one batch.
IN_HAND_AT_DOWN = 64


@dataclass
class Change:
    """One command and what came of it."""

    command: str  # Without the leading "ip".
    begin_ns: int  # Just before `ip` was given the command: never later than the kernel's change.
    end_ns: int
    before: str  # The interface the kernel named for the stream before the command,
    after: str  # and after it.
    downs: str | None = None  # The interface that the command takes down.
    published_ns: int | None = None  # When `cowire route monitor` saw the new table published.
    first_ns: int | None = None  # First arrival on `after` since.

    @property
    def moves(self):
        return self.before != self.after

    @property
    def latency_us(self):
        return None if self.first_ns is None else (self.first_ns - self.begin_ns) / 1000


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
    lost: int
    lost_in_downed_interface: int
    downed_allowance: int  # How many the downed interfaces may have taken along.
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
        if self.lost_in_downed_interface > self.downed_allowance:
            found.append(
                f"{self.lost_in_downed_interface} datagrams lost in a downed interface, more than "
                f"rate x time to publication + {IN_HAND_AT_DOWN} = {self.downed_allowance}"
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
    """When the table that first reflects the change was published; None if nothing was seen."""
    times = [
        line["publish_time_ns"]
        for line in monitor_lines
        if line["event_time_ns"] >= change.begin_ns
    ]
    return min(times, default=None)


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


def in_downed_interface(gap, changes):
    """Whether a gap touches the time from a link going down to the first use of the new path."""
    _, before_ns, after_ns = gap
    for change in changes:
        if change.downs and change.downs == change.before and change.first_ns is not None:
            ended_before = after_ns is not None and after_ns < change.begin_ns
            began_after = before_ns is not None and before_ns > change.first_ns
            if not ended_before and not began_after:
                return True
    return False


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


def settle(totals, arrivals, changes, rate):
    """Weighs the sender's totals (the JSON of `cowire send -j`) against what arrived."""
    submitted = totals["submitted"]
    refused = sum(totals["refused"].values())
    found = gaps(arrivals, submitted)
    missing = sum(gap[0] for gap in found)
    downed = sum(gap[0] for gap in found if in_downed_interface(gap, changes))
    allowance = sum(
        int(rate * (change.published_ns - change.begin_ns) / 1e9) + IN_HAND_AT_DOWN
        for change in changes
        if change.downs == change.before and change.published_ns
    )
    return Account(
        submitted=submitted,
        transmitted=totals["transmitted"],
        modes={name: rung["mode"] for name, rung in totals["mode"].items()},
        kernel_path=totals["kernel_path"],
        refused=refused,
        lost_in_device=totals["lost_in_device"],
        received=submitted - missing,
        lost=missing - downed - refused,
        lost_in_downed_interface=downed,
        downed_allowance=allowance,
        reordered=count_reordered(arrivals.sequence),
    )


def report(account, changes, origin_ns):
    """The content of demo-report.json."""
    return {
        "submitted": account.submitted,
        "transmitted": account.transmitted,
        "kernel_path": account.kernel_path,
        "refused": account.refused,
        "received": account.received,
        "lost": account.lost,
        "lost_in_downed_interface": account.lost_in_downed_interface,
        "reordered": account.reordered,
        "changes": [
            {
                "command": f"ip {change.command}",
                "at_s": round((change.begin_ns - origin_ns) / 1e9, 6),
                "first_on_new_path_us": None
                if change.latency_us is None
                else round(change.latency_us, 1),
            }
            for change in changes
        ],
    }
