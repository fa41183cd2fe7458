# SPDX-License-Identifier: Apache-2.0
"""How scripts/test ends with all that it has started."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

LIBRARY = pathlib.Path(__file__).resolve().parents[2] / "scripts/lib/test"
DEADLINE_S = 100
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import children, console
def work():
    return console.run(["sh", "-c", sys.argv[2]], print)
sys.exit(children.supervise(work, patience_s=float(sys.argv[3])))
"""
# What is run says who it is in $PIDS.
# As ninja and ctest have theirs: a child that is waited for, whose own child is in another session.
NESTED = """
sh -c 'echo $$ >>$PIDS; setsid sh -c "echo \\$\\$ >>$PIDS; exec sleep 1000" & wait' & wait
"""
STUBBORN = "trap '' TERM; echo $$ >>$PIDS; while :; do sleep 1; done"
# What it begins once it was told to end has not been told. Nobody reads any more what it prints.
BREEDING = """
exec >/dev/null 2>&1
trap 'setsid sleep 1000 & echo $! >>$PIDS; exit' TERM; echo $$ >>$PIDS; while :; do sleep 0.1; done
"""
# It hears that it is to end, and becomes another program all the same, which has not heard.
TURNING = """
exec >/dev/null 2>&1
trap told=1 TERM; echo $$ >>$PIDS; until [ $told ]; do sleep 0.1; done; exec sleep 1000
"""


def has_ended(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Ending(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = pathlib.Path(folder.name) / "pids"
        self.file.touch()
        self.seen = set()
        self.addCleanup(self.kill_what_is_left)

    def kill_what_is_left(self):
        for pid in self.seen:
            if not has_ended(pid):
                os.kill(pid, signal.SIGKILL)

    def pids(self):
        found = [int(line) for line in self.file.read_text().splitlines()]
        self.seen.update(found)
        return found

    def start(self, script, patience_s=DEADLINE_S, **options):
        command = [sys.executable, "-B", "-c", RUN, str(LIBRARY), script, str(patience_s)]
        environment = os.environ | {"PIDS": str(self.file)}
        return subprocess.Popen(command, env=environment, **options)

    def wait_until(self, condition, what):
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"waited in vain for {what}")
            time.sleep(0.02)

    def end(self, script, number, before, after, **options):
        """Ends a run when it is so many processes, which in the end have been so many."""
        self.file.write_text("")
        with self.start(script, **options) as run:
            self.wait_until(lambda: len(self.pids()) == before, "the processes")
            run.send_signal(number)
            self.assertEqual(run.wait(DEADLINE_S), 128 + number)
        self.assertEqual(len(self.pids()), after)
        for pid in self.pids():
            self.wait_until(lambda: has_ended(pid), f"the end of {pid}")

    def test_a_run_that_is_ended_ends_all_that_it_started(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            with self.subTest(number):
                self.end(NESTED, number, 2, 2)

    def test_what_does_not_end_when_asked_to_is_killed(self):
        self.end(STUBBORN, signal.SIGTERM, 1, 1, patience_s=0.5)

    def test_what_begins_while_others_end_ends_too(self):
        self.end(BREEDING, signal.SIGTERM, 1, 2)

    def test_what_becomes_another_program_is_told_again(self):
        self.end(TURNING, signal.SIGTERM, 1, 1)

    def test_a_signal_that_is_ignored_stays_so(self):
        ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
        script = "echo $$ >>$PIDS; read line; exit 3"
        with self.start(script, preexec_fn=ignore, stdin=subprocess.PIPE) as run:
            self.wait_until(self.pids, "the process")
            run.send_signal(signal.SIGHUP)
            run.stdin.close()
            self.assertEqual(run.wait(DEADLINE_S), 3)

    def test_the_status_is_that_of_the_work(self):
        for script, status in (("exit 0", 0), ("exit 3", 3), ("kill -9 $PPID", 128 + 9)):
            with self.subTest(script), self.start(script) as run:
                self.assertEqual(run.wait(DEADLINE_S), status)


if __name__ == "__main__":
    unittest.main()
