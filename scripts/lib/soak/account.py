# SPDX-License-Identifier: Apache-2.0
"""What a soak concludes from the totals and the measurements of a run. Pure functions and data."""
import re
from dataclasses import dataclass

# What a change of a link may swallow: datagrams that were handed to it before anybody knew.
LOST_PER_LINK_CHANGE = 500
# How `cowire send --via` ends, and what it says, where the kernel refused all of its datagrams.
STATUS_NONE_LEFT = 1
NONE_LEFT = re.compile(r"none of (\d+) datagrams left this host: the kernel refused them all")


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


def wrong_end(status, totals, error_text):
    """What is wrong with the end of a client, in words; empty if nothing is.

    `totals`: the JSON of `cowire send --via -j`. A client of which the kernel refused everything,
    as it must where no route is left, says so and ends with another status than others."""
    if "submitted" not in totals:
        return "without the service's totals"
    if totals["failed"] != 0 or totals["refused"] != 0:
        return "and the service did not take all"
    none_left = totals["submitted"] if totals["kernel_refused"] == totals["submitted"] else 0
    said = NONE_LEFT.search(error_text)
    if none_left != (int(said[1]) if said else 0):
        return f"and the kernel refused {totals['kernel_refused']} of {totals['submitted']}"
    due = STATUS_NONE_LEFT if none_left else 0
    return "" if status == due else f"where {due} was due"


def share_of_one(datagrams, destinations, place):
    """How many of a client's datagrams went to the destination at that place: it goes round."""
    rounds, rest = divmod(datagrams, destinations)
    return rounds + (place < rest)


@dataclass
class Sent:
    """What clients tell of their datagrams in the end."""

    clients: int = 0
    clients_refused: int = 0  # All of their datagrams.
    handed_over: int = 0
    kernel_refused: int = 0
    to_black_hole: int = 0  # The kernel must refuse these,
    past_black_hole: int = 0  # and did not.
    while_links_changed: int = 0  # Refused besides: it may, while a route is away with its link,
    unexplained: int = 0  # and may not else.

    def add(self, totals, to_black_hole, links_changed):
        """A client's. `links_changed`: whether any did between its beginning and its end."""
        refused = totals["kernel_refused"]
        self.clients += 1
        self.clients_refused += 0 < refused == totals["submitted"]
        self.handed_over += totals["submitted"]
        self.kernel_refused += refused
        self.to_black_hole += to_black_hole
        self.past_black_hole += max(0, to_black_hole - refused)
        besides = max(0, refused - to_black_hole)
        if links_changed:
            self.while_links_changed += besides
        else:
            self.unexplained += besides


@dataclass
class Account:
    totals: dict  # The JSON of `cowire run -j`.
    sent: Sent
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

    def _complaints_about_refusals(self):
        by_intake = self.totals["intake"]["kernel_refused"]
        if not self.sent.kernel_refused == by_intake == self.refused:
            yield (
                f"the kernel refused {self.refused} datagrams, {by_intake} by the intake's account, "
                f"{self.sent.kernel_refused} by what clients were told"
            )
        if self.sent.past_black_hole != 0:
            yield f"{self.sent.past_black_hole} datagrams to a black hole were not refused"
        if self.sent.unexplained != 0:
            yield (
                f"the kernel refused {self.sent.unexplained} datagrams of clients in whose time no "
                "link changed"
            )

    def complaints(self):
        """What makes the run a failure, in words."""
        found = []
        if self.unaccounted != 0:
            found.append(f"{self.unaccounted} datagrams are not accounted for")
        if self.sent.handed_over != self.totals["submitted"]:
            found.append(
                f"clients handed over {self.sent.handed_over} datagrams, "
                f"{self.totals['submitted']} were submitted"
            )
        found += self._complaints_about_refusals()
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


def report(account, seconds, changes):
    """The content of the report."""
    totals = account.totals
    return {
        "seconds": round(seconds),
        "clients": account.sent.clients,
        "changes": changes,
        "submitted": totals["submitted"],
        "transmitted": totals["transmitted"],
        "kernel_path": totals["kernel_path"],
        "diverted": totals["diverted"],
        "refused": totals["refused"],
        "refused_of": {
            "black_hole": account.sent.to_black_hole,
            "changing_links": account.sent.while_links_changed,
            "whole_clients": account.sent.clients_refused,
        },
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
