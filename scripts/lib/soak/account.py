# SPDX-License-Identifier: Apache-2.0
"""What a soak concludes from the totals and the measurements of a run. Pure functions and data."""
from dataclasses import dataclass

# What a change of a link may swallow: datagrams that were handed to it before anybody knew.
LOST_PER_LINK_CHANGE = 500


@dataclass
class Measurements:
    """Of the process that sends."""

    rss_begin_kb: int  # Once every kind of traffic and change has been seen.
    rss_end_kb: int
    rss_max_kb: int
    fds_begin: int  # Both times without clients.
    fds_end: int
    # What the allocator may hold back: it grows in steps with the largest peak so far, of which one
    # re-sync's second mirror alone is 2 MiB.
    rss_allowance_kb: int = 8192


@dataclass
class Account:
    totals: dict  # The JSON of `cowire run -j`.
    handed_over: int  # By the clients' own account.
    arrived: int  # At B's UDP layer.
    wrong_checksums: int
    discarded: int  # By the kernel, of those that waited for a neighbour to be resolved.
    link_changes: int
    measured: Measurements

    @property
    def transmitted(self):
        return sum(self.totals["transmitted"].values())

    @property
    def refused(self):
        return sum(self.totals["refused"].values())

    @property
    def unaccounted(self):
        return self.totals["submitted"] - (
            self.transmitted
            + self.totals["kernel_path"]
            + self.refused
            + self.totals["lost_in_device"]
        )

    @property
    def missing(self):
        return self.transmitted + self.totals["kernel_path"] - self.arrived

    @property
    def lost_in_links(self):
        """The kernel counts what it discards for the whole machine, so this may be too little."""
        return max(0, self.missing - self.discarded)

    def complaints(self):
        """What makes the run a failure, in words."""
        found = []
        if self.unaccounted != 0:
            found.append(f"{self.unaccounted} datagrams are not accounted for")
        if self.handed_over != self.totals["submitted"]:
            found.append(
                f"clients handed over {self.handed_over} datagrams, "
                f"{self.totals['submitted']} were submitted"
            )
        if self.wrong_checksums != 0:
            found.append(f"{self.wrong_checksums} datagrams arrived with a wrong checksum")
        if self.missing < 0:
            found.append(f"{-self.missing} datagrams arrived that had not left A")
        if self.lost_in_links > self.link_changes * LOST_PER_LINK_CHANGE:
            found.append(
                f"{self.missing} datagrams left A and did not arrive; the kernel discarded "
                f"{self.discarded} without a neighbour, and {self.link_changes} changes of links "
                f"explain {self.link_changes * LOST_PER_LINK_CHANGE} at most"
            )
        audit = self.totals["audit"]
        if audit["dump_differences"] != 0:
            found.append(f"the mirror was not as the kernel in {audit['dump_differences']} places")
        growth_kb = self.measured.rss_end_kb - self.measured.rss_begin_kb
        if growth_kb > self.measured.rss_allowance_kb:
            found.append(
                f"memory grew by {growth_kb} KiB, more than {self.measured.rss_allowance_kb}"
            )
        if self.measured.fds_end != self.measured.fds_begin:
            found.append(
                f"descriptors: {self.measured.fds_begin} before, {self.measured.fds_end} after"
            )
        return found


def report(account, seconds, changes, clients):
    """The content of the report."""
    totals = account.totals
    return {
        "seconds": round(seconds),
        "clients": clients,
        "changes": changes,
        "submitted": totals["submitted"],
        "transmitted": totals["transmitted"],
        "kernel_path": totals["kernel_path"],
        "diverted": totals["diverted"],
        "refused": totals["refused"],
        "lost_in_device": totals["lost_in_device"],
        "unaccounted": account.unaccounted,
        "audit": {
            word: totals["audit"][word]
            for word in ("audited", "mismatched", "last_mismatch", "dumps", "dump_differences")
        },
        "arrived": account.arrived,
        "discarded_without_neighbour": account.discarded,
        "lost_in_links": account.lost_in_links,
        "rss_kb": {
            "begin": account.measured.rss_begin_kb,
            "end": account.measured.rss_end_kb,
            "max": account.measured.rss_max_kb,
            "allowance": account.measured.rss_allowance_kb,
        },
        "descriptors": {"begin": account.measured.fds_begin, "end": account.measured.fds_end},
        "complaints": account.complaints(),
    }
