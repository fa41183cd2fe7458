# SPDX-License-Identifier: Apache-2.0
"""The hosts of the demo: network namespaces A and B, joined by two uplinks.

      A  public 10.1.0.1/24 ---- 10.1.0.2/24 public  B
         fiber  10.2.0.1/24 ---- 10.2.0.2/24 fiber      10.9.0.1/32 lo (the service)

B answers for the service address on both uplinks, so A's routes alone decide which one carries the
traffic.
"""
import glob
import json
import os
import subprocess
import time

SERVICE = "10.9.0.1"
MARK = 7  # What A's stream is marked with, so that an `ip rule` can single it out.
UPLINKS = ("public", "fiber")
GATEWAY = {"public": "10.1.0.2", "fiber": "10.2.0.2"}
PREFIX = "cowire-demo-"


class Failure(Exception):
    """Ends the demo with one line for the user."""


def ip(*words):
    """Runs one ip command outside of the measured stream."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout


def remove_leftovers():
    """Removes the namespaces of runs that were killed; the name tells whose they are."""
    for path in glob.glob(f"/run/netns/{PREFIX}*"):
        name = os.path.basename(path)
        owner = name.removeprefix(PREFIX).split("-")[0]
        if not os.path.exists(f"/proc/{owner}"):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


class World:
    """Makes the namespaces on entry and removes them, with all that is in them, on exit."""

    def __init__(self, keep):
        self.keep = keep
        self.a = f"{PREFIX}{os.getpid()}-a"
        self.b = f"{PREFIX}{os.getpid()}-b"

    def __enter__(self):
        remove_leftovers()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_):
        if not self.keep:
            self._remove()

    def _build(self):
        for name in (self.a, self.b):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.b, "address", "add", f"{SERVICE}/32", "dev", "lo")
        for number, uplink in enumerate(UPLINKS, 1):
            ip("-n", self.a, "link", "add", uplink, "type", "veth", "peer", uplink, "netns", self.b)
            for side, name in enumerate((self.a, self.b), 1):
                ip("-n", name, "address", "add", f"10.{number}.0.{side}/24", "dev", uplink)
                ip("-n", name, "link", "set", uplink, "up")
        # "public" carries the stream; "fiber" stands by with a worse metric.
        for metric, uplink in ((10, "public"), (100, "fiber")):
            ip(
                "-n",
                self.a,
                "route",
                "add",
                SERVICE,
                "via",
                GATEWAY[uplink],
                "dev",
                uplink,
                "metric",
                str(metric),
            )

    def _remove(self):
        for name in (self.a, self.b):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def interface_names(self):
        """Names of B's interfaces by index."""
        return {
            link["ifindex"]: link["ifname"]
            for link in json.loads(ip("-n", self.b, "-j", "link", "show"))
        }

    def shell(self):
        return IpShell(self.a)


class IpShell:
    """One `ip -batch -` waiting in A: commands take effect without the delay of a start."""

    def __init__(self, namespace):
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

    def change(self, command):
        """Runs one command and asks the kernel where the stream goes from now on.

        Returns (the moment before, the moment after, the interface); moments are Unix time in ns.
        """
        before_ns = time.time_ns()
        self._process.stdin.write(f"{command}\nroute get {SERVICE} mark {MARK}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        after_ns = time.time_ns()
        if not answer:
            raise Failure(f"`ip {command}` failed: {self._process.stderr.read().strip()}")
        return before_ns, after_ns, json.loads(answer)[0]["dev"]
