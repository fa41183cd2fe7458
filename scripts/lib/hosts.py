# SPDX-License-Identifier: Apache-2.0
"""Hosts that are network namespaces, and programs that run in them."""
import glob
import json
import os
import signal
import subprocess
import threading


class Failure(Exception):
    """Ends the script with one line for the user."""


def run(*command):
    """Runs one command; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def remove_leftovers(prefix):
    """Removes the namespaces of runs that were killed; the name tells whose they are."""
    for path in glob.glob(f"/run/netns/{prefix}*"):
        name = os.path.basename(path)
        owner = name.removeprefix(prefix).split("-")[0]
        # Another prefix may begin with this one: what follows then is no process.
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


class Hosts:
    """Makes the namespaces on entry and removes them, with all that is in them, on exit.

    Who derives from it says how they are called, and builds what is between them."""

    HOSTS = ("a", "b")
    PREFIX: str  # Of the namespaces' names; the process and the host follow.

    def __init__(self, keep):
        self.keep = keep

    def __enter__(self):
        remove_leftovers(self.PREFIX)
        try:
            for host in self.HOSTS:
                run("ip", "netns", "add", self.namespace(host))
                self.ip(host, "link set lo up")
            self.build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_):
        if not self.keep:
            self._remove()

    def _remove(self):
        for host in self.HOSTS:
            subprocess.run(["ip", "netns", "del", self.namespace(host)], capture_output=True)

    def build(self):
        raise NotImplementedError

    def namespace(self, host):
        return f"{self.PREFIX}{os.getpid()}-{host}"

    def ip(self, host, words):
        return run("ip", "-n", self.namespace(host), *words.split())

    def execute(self, host, words):
        return run("ip", "netns", "exec", self.namespace(host), *words.split())


class Program:
    """A child in a namespace; a thread takes the lines of JSON that it prints as they come.

    A context manager that has ended when the block ends, however it ends. It runs in a session of
    its own: Ctrl-C reaches the script only, which then ends it in order. Should the script be
    killed, the kernel ends it."""

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

    def error_text(self):
        """All of it once the program has ended."""
        return self._error_text.strip()

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
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()
        return status

    def fail_if_ended(self):
        if self.process.poll() is not None:
            status = self.wait()
            words = " ".join(self.command)
            raise Failure(f"`{words}` ended with status {status}: {self.error_text()}")

    def finish(self, timeout_s, what, statuses=(0,)):
        """Waits for the end that the caller has just asked for; the exit status, one of these."""
        try:
            status = self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"{what} did not end within {timeout_s} s") from None
        if status not in statuses:
            raise Failure(f"{what} ended with status {status}: {self.error_text()}")
        return status


class Interrupted(Program):
    """A `cowire` command that goes on until SIGINT, and then prints its totals, a line of JSON."""

    def __init__(self, namespace, cowire, words, limit_s):
        self._name = f"cowire {words[0]}"
        self._limit_s = limit_s
        self._totals = None
        super().__init__(namespace, [cowire, *words, "-j"], self._note)

    def _note(self, totals):
        self._totals = totals

    def stop(self):
        """Has it drain; its totals."""
        self.process.send_signal(signal.SIGINT)
        self.finish(self._limit_s, self._name)
        if self._totals is None:
            raise Failure(f"`{self._name} -j` printed no totals")
        return self._totals
