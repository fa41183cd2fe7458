# SPDX-License-Identifier: Apache-2.0
"""Counts what a caller's thread spends on a datagram, and holds a shared_sender to its promise.

Under callgrind, as scripts/lib/instructions.py: by a sender of the thread's own, and by a
shared_sender that nobody else calls; by the former from frames that hold the bytes already, for
what a copy costs beside writing in place; by a coroutine that awaits, and by the C interface, for
what they cost more than a bare call. What is compared is the ratio of the same run, so that no
budget has to be recorded for it. Run by `ctest -L instructions` in a release build. Exit status: 0,
1 (the shared one costs more than AT_MOST times the other), 77 (cannot tell).
"""
import shutil
import sys

import instructions
from without_io_uring import refuse_io_uring

AT_MOST = 1.3
BATCHES = 50


def main():
    program = sys.argv[1]
    if not shutil.which("valgrind"):
        instructions.skip("valgrind is missing (scripts/setup installs it)")
    refuse_io_uring()
    counts = {
        who: instructions.events(
            program,
            [who, BATCHES],
            "*counted_run*",
            datagrams=BATCHES * instructions.BATCH_SIZE,
        )[0]
        for who in ("sender", "shared", "c", "awaited", "await_frames")
    }
    for size in (64, 1232):
        copied, in_place = (
            instructions.events(
                program,
                [how, BATCHES, size],
                "*counted_run*",
                datagrams=BATCHES * instructions.BATCH_SIZE,
            )[0]
            for how in ("sender", "payload")
        )
        print(f"{size} bytes: {copied:.1f} copied, {in_place:.1f} from where they were written in place")
    ratio = counts["shared"] / counts["sender"]
    for who, counted in counts.items():
        more = counted - counts["sender"]
        print(f"{who:<12}{counted:>8.1f} instructions a datagram, {more:+.1f}")
    print(f"shared / sender: {ratio:.3f}, at most {AT_MOST}")
    if not 1 < ratio <= AT_MOST:
        sys.exit("instructions: a shared_sender costs its lone caller too much, or nothing was counted")


if __name__ == "__main__":
    main()
