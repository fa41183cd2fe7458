# SPDX-License-Identifier: Apache-2.0
"""What every story of the demo has: hosts that are network namespaces, and steps that change them.

In each of them host A streams to an address of host B, over one of two paths: "public" and "fiber".
"""
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from hosts import Failure, Hosts

PATHS = ("public", "fiber")
PREFIX = "cowire-demo-"
ROUTES_LIMIT_S = 60  # How long a routing daemon may take.


@dataclass(frozen=True)
class Step:
    """Something that happens under the running stream."""

    title: str
    in_a: str = ""  # An ip command for A that takes effect at once, without the leading "ip",
    starts: Callable | None = None  # or what starts a Program,
    action: Callable | None = None  # or what does it, on a thread of its own,
    until_path: str | None = None  # and then the kernel of A must send the stream there.
    breaks: str | None = None  # The path that loses from now on what is still sent there.
    cause: str = ""  # Of that loss: DOWNED or CUT of analysis.
    repairs: str | None = None


@dataclass(frozen=True)
class Words:
    """What a reader is told about a story."""

    stream: str  # "host A sends 20000 datagrams/s of 200 bytes, " goes before it.
    headline: str
    picture: str
    change: str  # What a row of the table is.
    clock: str  # Where a latency begins and ends.


def wait_until(condition, complaint):
    deadline = time.monotonic() + ROUTES_LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"{complaint} after {ROUTES_LIMIT_S} s")
        time.sleep(0.05)


class World(Hosts):
    """A story derives from it and says what is below."""

    PREFIX = PREFIX
    WORDS: Words
    SERVICE: str  # The address that the stream goes to.
    SELECTORS = ""  # What else `ip route get` must be told about the stream.
    DEVICES: dict  # Path by interface of A, as the kernel names it for the stream,
    ARRIVALS: dict  # and by interface of B, where it comes out.
    SENDER_OPTIONS: tuple
    RATE_PPS: int  # By default.
    DURATION_S: float  # By default.

    def steps(self):
        raise NotImplementedError

    @staticmethod
    def reason_not_here():
        """What this machine lacks for the story, or None."""
        return None

    def daemons(self, _folder, _chosen):
        """Starts the programs that belong to the world; they may keep files in the folder."""
        return []

    def settle(self, _changes):
        """Ends what the world has sent besides the stream: an account, or None."""
        return None

    def paths_of_arrival(self):
        """Path by index of B's interfaces."""
        links = json.loads(self.ip("b", "-j link show"))
        return {
            link["ifindex"]: self.ARRIVALS[link["ifname"]]
            for link in links
            if link["ifname"] in self.ARRIVALS
        }

    def dropped(self):
        """By path: how many frames A's kernel has dropped at the interface of the path so far."""
        links = json.loads(self.ip("a", "-j -s link show"))
        by_path = dict.fromkeys(PATHS, 0)
        for link in links:
            if path := self.DEVICES.get(link["ifname"]):
                by_path[path] += link["stats64"]["tx"]["dropped"]
        return by_path

    def shell(self):
        return IpShell(
            self.namespace("a"), f"route get {self.SERVICE} {self.SELECTORS}", self.DEVICES
        )


class IpShell:
    """One `ip -batch -` waiting in A: commands take effect without the delay of a start."""

    def __init__(self, namespace, question, paths):
        self._question = question
        self._paths = paths
        self._process = subprocess.Popen(
            ["ip", "-n", namespace, "-json", "-batch", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def change(self, command=""):
        """Runs one command and asks the kernel where the stream goes from now on.

        Returns (the moment before, the moment after, the path); moments are Unix time in ns.
        """
        before_ns = time.time_ns()
        self._process.stdin.write(f"{command}\n{self._question}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        after_ns = time.time_ns()
        if not answer:
            raise Failure(f"`ip {command}` failed: {self._process.stderr.read().strip()}")
        return before_ns, after_ns, self._paths[json.loads(answer)[0]["dev"]]
