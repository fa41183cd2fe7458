# SPDX-License-Identifier: Apache-2.0
"""A publication to a multicast group beside the stream: its programs, and what became of it.

The devices next to the validators copy the group's datagrams from tunnel to fiber and from fiber to
tunnel. In life they do so by a multicast routing protocol; here each has a static entry.
"""
import sys
import time

from analysis import gaps
from hosts import Program
from stream import Arrivals, Receiver, Sender

PORT = 9001

# Arguments: source, group, the device that the group comes in by, the one that it leaves by. The
# numbers are those of linux/mroute.h; entries live as long as the socket.
ROUTER = """
import socket, struct, sys
source, group, *devices = sys.argv[1:]
MRT_INIT, MRT_ADD_VIF, MRT_ADD_MFC = 200, 202, 204
USE_IFINDEX, MAXVIFS = 8, 32
router = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
router.setsockopt(socket.IPPROTO_IP, MRT_INIT, 1)
for number, device in enumerate(devices):
    index = socket.if_nametoindex(device)
    vif = struct.pack("=HBBIiI", number, USE_IFINDEX, 1, 0, index, 0)
    router.setsockopt(socket.IPPROTO_IP, MRT_ADD_VIF, vif)
thresholds = bytes([0, 1]) + bytes(MAXVIFS - 2)
addresses = socket.inet_aton(source) + socket.inet_aton(group)
entry = addresses + struct.pack("=H32s2xIIIi", 0, thresholds, 0, 0, 0, 0)
router.setsockopt(socket.IPPROTO_IP, MRT_ADD_MFC, entry)
sys.stdin.read()
"""

# Arguments: group and device. Membership is a host's: whoever is bound to the port hears it.
MEMBER = """
import socket, struct, sys
group, device = sys.argv[1:]
member = socket.socket(type=socket.SOCK_DGRAM)
request = socket.inet_aton(group) + bytes(4) + struct.pack("=i", socket.if_nametoindex(device))
member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
sys.stdin.read()
"""


def script(namespace, text, *words):
    return Program(namespace, [sys.executable, "-c", text, *words], on_line=lambda _: None)


class Publication:
    """From `source` (host A) to `group`, of which B is a member on its tunnel."""

    def __init__(self, world, group, source, folder):
        self._world = world
        self._group = group
        self._source = source
        self._records = folder / "published"
        self._sender = self._receiver = None

    def listeners(self, receiver, member_device, routers):
        """The programs that have to run before anything is published; `routers`: by host, the
        devices that the group comes in by and leaves by."""
        b = self._world.namespace("b")
        self._receiver = Receiver(b, receiver, self._records, PORT)
        yield self._receiver
        yield script(b, MEMBER, self._group, member_device)
        for host, devices in routers.items():
            namespace = self._world.namespace(host)
            yield script(namespace, ROUTER, self._source, self._group, *devices)

    def begin(self, cowire, rate, size, longest_s):
        """Publishes until settle(); returns the sender, a program to be watched."""
        self._receiver.wait_for(0, timeout_s=10)
        # No two processes may have one queue.
        options = (*self._world.SENDER_OPTIONS, "--multicast-ttl", "32", "--queue", "1")
        to = f"{self._group}:{PORT}"
        self._sender = Sender(self._world, cowire, rate, size, longest_s, to, options)
        self._receiver.wait_for(1, timeout_s=60, sender=self._sender)
        return self._sender

    def settle(self, outages):
        """Ends it; what became of each datagram. `outages`: when the fiber was cut, from and to."""
        totals = self._sender.stop()
        time.sleep(0.2)
        self._receiver.finish_reading()
        arrivals = Arrivals(self._records)
        arrivals.update()
        cut = lost = 0
        for count, before_ns, after_ns in gaps(arrivals, totals["submitted"]):
            excused = any(
                (before_ns is None or before_ns <= end_ns)
                and (after_ns is None or after_ns >= begin_ns)
                for begin_ns, end_ns in outages
            )
            if excused:
                cut += count
            else:
                lost += count
        return {
            "group": self._group,
            "submitted": totals["submitted"],
            "transmitted": totals["transmitted"],
            "kernel_path": totals["kernel_path"],
            "diverted": totals["diverted"],
            "received": totals["submitted"] - cut - lost,
            "lost": lost,
            "lost_on_cut_fiber": cut,
        }


def complaints(account):
    """What makes a run a failure, in words."""
    if account["lost"] != 0:
        yield f"{account['lost']} datagrams to {account['group']} lost"


def rows(account):
    """The same as lines of the summary: label and number."""
    yield f"published to {account['group']}", account["submitted"]
    for name, count in account["transmitted"].items():
        yield f"  transmitted by {name}", count
    yield "  sent by the kernel path", account["kernel_path"]
    yield "  received by host B, a member", account["received"]
    yield "  lost", account["lost"]
    yield "  lost on the cut fiber", account["lost_on_cut_fiber"]
