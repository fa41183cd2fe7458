# SPDX-License-Identifier: Apache-2.0
"""The programs of the demo: `cowire send` and `cowire route monitor` in A, the receiver in B.

Each is a context manager that has ended when the block ends, however it ends. They run in sessions
of their own: Ctrl-C reaches the demo only, which then ends them in order. Should the demo be
killed, the kernel ends them.
"""
import array
import json
import signal
import subprocess
import threading
import time

from world import Failure

PORT = 9000
RECORD_WORDS = (
    4  # sequence, submitted_ns, arrived_ns, interface: `record` in examples/sequence_receiver.cpp
)


class Program:
    """A child in a namespace; a thread takes the lines of JSON that it prints as they come."""

    def __init__(self, namespace, command, on_line):
        self.command = command
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "ip", "netns", "exec", namespace, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._error_text = ""
        self._threads = [
            threading.Thread(target=self._read_lines, args=(on_line,), daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_lines(self, on_line):
        for line in self.process.stdout:
            if line.startswith("{"):
                on_line(json.loads(line))

    def _read_errors(self):
        self._error_text = self.process.stderr.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def wait(self, timeout_s=None):
        status = self.process.wait(timeout_s)
        for thread in self._threads:
            thread.join()
        return status

    def fail_if_ended(self):
        if self.process.poll() is not None:
            status = self.wait()
            words = " ".join(self.command)
            raise Failure(f"`{words}` ended with status {status}: {self._error_text.strip()}")

    def finish(self, timeout_s, what):
        """Waits for the end that the caller has just asked for."""
        try:
            status = self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"{what} did not end within {timeout_s} s") from None
        if status != 0:
            raise Failure(f"{what} ended with status {status}: {self._error_text.strip()}")


class Receiver(Program):
    """Counts what has arrived, by interface; the records themselves are in the file."""

    def __init__(self, namespace, program, records_path):
        self.report = None
        super().__init__(namespace, [program, str(PORT), str(records_path)], self._note)

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


class Sender(Program):
    """`cowire send`, whose one line of JSON comes at the end."""

    def __init__(self, world, cowire, rate, size, longest_s):
        self.result = None
        command = [
            cowire,
            "send",
            "--to",
            f"{world.SERVICE}:{PORT}",
            *world.SENDER_OPTIONS,
            "--rate",
            str(rate),
            "--size",
            str(size),
            "--duration",
            str(longest_s),
            "-j",
        ]
        super().__init__(world.namespace("a"), command, self._note)

    def _note(self, result):
        self.result = result

    def stop(self):
        """SIGINT drains and prints the totals."""
        self.process.send_signal(signal.SIGINT)
        self.finish(10, "cowire send")
        if self.result is None:
            raise Failure("`cowire send -j` printed no totals")
        return self.result


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
