# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command share: running it, and namespaces that are always removed."""
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
import unittest

COWIRE = os.environ.get("COWIRE", "cowire")
DEADLINE_S = 60


def need_root():
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root to make network namespaces")


def run(*words, netns=None, stdin=None, check=None, env=None):
    """Runs a command to its end. With `check` its exit status must be that."""
    prefix = ["ip", "netns", "exec", netns] if netns else []
    done = subprocess.run(
        [*prefix, *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=env,
    )
    if check is not None and done.returncode != check:
        raise AssertionError(
            f"{words}: exit {done.returncode}, expected {check}\n{done.stdout}\n{done.stderr}"
        )
    return done


def cowire(*words, **options):
    return run(COWIRE, *words, **options)


def unprivileged(*words):
    """The command as a user without any capability runs it; the caller is root."""
    return run(
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", COWIRE, *words
    )


def start(*words, netns=None, **options):
    prefix = ["ip", "netns", "exec", netns] if netns else []
    return subprocess.Popen(
        [*prefix, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_until(condition, what):
    """Polls, because nothing announces what the tests wait for; fails after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited {DEADLINE_S} s in vain for: {what}")


@contextlib.contextmanager
def ended(process):
    """Kills a background process that a failed test left behind."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


class World:
    """Network namespaces of one test; `ip` runs iproute2 in one of them."""

    def __init__(self, *names):
        self.names = {name: f"cowire-{os.getpid()}-{name}" for name in names}
        for namespace in self.names.values():
            run("ip", "netns", "add", namespace, check=0)
            run("ip", "-n", namespace, "link", "set", "lo", "up", check=0)

    def close(self):
        for namespace in self.names.values():
            run("ip", "netns", "del", namespace)

    def ip(self, name, command):
        return run("ip", "-n", self.names[name], *command.split(), check=0)

    def ip_json(self, name, command):
        """None where iproute2 reports an error."""
        done = run("ip", "-n", self.names[name], "-j", *command.split())
        return json.loads(done.stdout) if done.returncode == 0 else None

    def exec(self, name, *words, **options):
        return run(*words, netns=self.names[name], **options)

    def cowire(self, name, *words, **options):
        return cowire(*words, netns=self.names[name], **options)

    def start(self, name, *words, **options):
        return start(*words, netns=self.names[name], **options)


def scratch_file(test, text):
    file = tempfile.NamedTemporaryFile("w", delete=False)
    with file:
        file.write(text)
    test.addCleanup(os.unlink, file.name)
    return file.name


def interrupt(process):
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=DEADLINE_S)
