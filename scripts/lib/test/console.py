# SPDX-License-Identifier: Apache-2.0
"""What a run tells while it goes on: on a terminal where it is, elsewhere all lines."""
import subprocess
import sys
import time


def minutes(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class Console:
    """`began` is when the whole run did: the line shows the time since then."""

    def __init__(self, out=sys.stdout, clock=time.monotonic):
        self._out = out
        self._clock = clock
        self._began = clock()
        self._line = ""
        self.is_terminal = out.isatty()

    def progress(self, phase, text):
        """Replaces the line; says nothing where there is no terminal."""
        if not self.is_terminal:
            return
        line = f"{minutes(self._clock() - self._began)}  {phase}: {text}"[:78]
        self._out.write("\r" + line.ljust(len(self._line)))
        self._out.flush()
        self._line = line

    def clear(self):
        if self._line:
            self._out.write("\r" + " " * len(self._line) + "\r")
            self._line = ""

    def say(self, text):
        self.clear()
        print(text, file=self._out, flush=True)


def run(command, on_line, **options):
    """Runs a command to its end and hands over each line of its output; its exit status."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        **options,
    ) as process:
        for line in process.stdout:
            on_line(line.rstrip("\n"))
    return process.returncode
