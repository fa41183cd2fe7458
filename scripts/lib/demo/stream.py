# SPDX-License-Identifier: Apache-2.0
"""The programs of the demo: `cowire send` and `cowire route monitor` in A, the receiver in B."""
import array
import json
import time

from hosts import Failure, Interrupted, Program

PORT = 9000
RECORD_WORDS = (
    4  # sequence, submitted_ns, arrived_ns, interface: `record` in examples/sequence_receiver.cpp
)


class Receiver(Program):
    """Counts what has arrived, by interface; the records themselves are in the file."""

    def __init__(self, namespace, program, records_path, port=PORT):
        self.report = None
        super().__init__(namespace, [program, str(port), str(records_path)], self._note)

    def _note(self, report):
        self.report = report

    def wait_for(self, count, timeout_s, sender=None):
        """Waits until the port is open (0) or `count` datagrams have arrived."""
        deadline = time.monotonic() + timeout_s
        while self.report is None or self.report["received"] < count:
            self.fail_if_ended()
            if sender:
                sender.fail_if_ended()
            if time.monotonic() > deadline:
                raise Failure(f"host B had not received {count} datagrams after {timeout_s} s")
            time.sleep(0.02)

    def finish_reading(self):
        self.process.stdin.close()
        self.finish(10, "the receiver")


class Sender(Interrupted):
    """The stream, or another one."""

    def __init__(self, world, cowire, rate, size, longest_s, to=None, options=None):
        words = [
            "send",
            "--to",
            to or f"{world.SERVICE}:{PORT}",
            *(options or world.SENDER_OPTIONS),
            "--rate",
            str(rate),
            "--size",
            str(size),
            "--duration",
            str(longest_s),
        ]
        super().__init__(world.namespace("a"), cowire, words, limit_s=10)


class Monitor(Program):
    """`cowire route monitor`: when was each change of the kernel's routes published?"""

    def __init__(self, namespace, cowire):
        self.changes = []
        super().__init__(namespace, [cowire, "route", "monitor", "-j"], self.changes.append)


class Arrivals:
    """The receiver's records, columns by column, read as the file grows."""

    def __init__(self, path):
        self._path = path
        self._words_read = 0
        self.sequence = array.array("Q")
        self.submitted_ns = array.array("Q")
        self.arrived_ns = array.array("Q")
        self.interface = array.array("Q")

    def update(self):
        words = array.array("Q")
        with open(self._path, "rb") as file:
            file.seek(self._words_read * words.itemsize)
            data = file.read()
        record_size = RECORD_WORDS * words.itemsize
        words.frombytes(data[: len(data) // record_size * record_size])
        self._words_read += len(words)
        for offset, column in enumerate(
            (self.sequence, self.submitted_ns, self.arrived_ns, self.interface)
        ):
            column.extend(words[offset::RECORD_WORDS])
