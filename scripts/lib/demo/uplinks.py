# SPDX-License-Identifier: Apache-2.0
"""The first story: A and B are joined by two uplinks, iproute2 moves the stream between them.

      A  public 10.1.0.1/24 ---- 10.1.0.2/24 public  B
         fiber  10.2.0.1/24 ---- 10.2.0.2/24 fiber      10.9.0.1/32 lo (the service)

B answers for the service address on both uplinks, so A's routes alone decide which one carries the
traffic.
"""
from analysis import DOWNED
from world import PATHS, Step, Words, World

GATEWAY = {"public": "10.1.0.2", "fiber": "10.2.0.2"}
SERVICE = "10.9.0.1"
MARK = 7  # What A's stream is marked with, so that an `ip rule` can single it out.
VIA_PUBLIC = f"{SERVICE} via {GATEWAY['public']} dev public"
VIA_FIBER = f"{SERVICE} via {GATEWAY['fiber']} dev fiber"


def step(command, **effect):
    return Step(f"ip {command}", in_a=command, **effect)


class Uplinks(World):
    SERVICE = SERVICE
    SELECTORS = f"mark {MARK}"
    DEVICES = ARRIVALS = {name: name for name in PATHS}
    SENDER_OPTIONS = ("--mark", str(MARK), "--interface", *PATHS)
    RATE_PPS = 20000
    DURATION_S = 12
    WORDS = Words(
        stream=f"mark {MARK}, to {SERVICE} on host B; uplinks: {', '.join(PATHS)}",
        headline="Routes change, the stream follows",
        picture=f"Host A streams to {SERVICE} on host B while iproute2 changes A's routes.\n"
        "Arrivals at B, per uplink, in bins of 50 ms.",
        change="command in host A",
        clock="Times run from the moment `ip` is given the command to the kernel's time stamp of "
        "arrival at host B.",
    )

    def steps(self):
        return [
            step(f"route replace {VIA_FIBER} metric 10"),
            step(f"route replace {VIA_PUBLIC} metric 10"),
            step(f"route add {VIA_FIBER} table 100"),
            step(f"rule add fwmark {MARK} lookup 100"),
            step(f"rule del fwmark {MARK} lookup 100"),
            step("link set public down", breaks="public", cause=DOWNED),
            step("link set public up", repairs="public"),
            step(f"route replace {VIA_PUBLIC} metric 10"),
            step(f"neigh del {GATEWAY['public']} dev public"),
        ]

    def build(self):
        self.ip("b", f"address add {SERVICE}/32 dev lo")
        for number, uplink in enumerate(PATHS, 1):
            b = self.namespace("b")
            self.ip("a", f"link add {uplink} type veth peer {uplink} netns {b}")
            for side, host in enumerate(("a", "b"), 1):
                self.ip(host, f"address add 10.{number}.0.{side}/24 dev {uplink}")
                self.ip(host, f"link set {uplink} up")
        # "public" carries the stream; "fiber" stands by with a worse metric.
        for metric, uplink in ((10, "public"), (100, "fiber")):
            self.ip("a", f"route add {SERVICE} via {GATEWAY[uplink]} dev {uplink} metric {metric}")
