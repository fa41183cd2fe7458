# SPDX-License-Identifier: Apache-2.0
"""The hosts of the soak, what changes in them, and who sends.

      A  u0 10.1.0.1 fd01::1 ---- 10.1.0.2 fd01::2 u0  B   10.9.0.1 … 10.9.0.3, fd09::1 … fd09::3
         u1 10.2.0.1 fd02::1 ---- 10.2.0.2 fd02::2 u1      on lo

Of the services the first has one way, the second two at once (ECMP), the third is in a table of its
own that a rule leads to. 10.9.0.66 is a black hole.
"""
import pathlib
import subprocess
import time

import account
from hosts import Failure, Hosts, Interrupted, Program, run

PORT = 9000
LINKS = ("u0", "u1")
TABLE = 100
SERVICES = [f"10.9.0.{n}" for n in (1, 2, 3)] + [f"[fd09::{n}]" for n in (1, 2, 3)]
BLACK_HOLE = "10.9.0.66"
BATCH_ROUTES = 500


class World(Hosts):
    PREFIX = "cowire-soak-"

    def build(self):
        for host in self.HOSTS:
            # Addresses outlive a link that is down, and are usable at once.
            for setting in ("all", "default"):
                self.sysctl(host, f"ipv6.conf.{setting}.keep_addr_on_down=1")
                self.sysctl(host, f"ipv6.conf.{setting}.accept_dad=0")
                self.sysctl(host, f"ipv4.conf.{setting}.rp_filter=0")
        for service in (1, 2, 3):
            self.ip("b", f"address add 10.9.0.{service}/32 dev lo")
            self.ip("b", f"address add fd09::{service}/128 dev lo")
        for link in LINKS:
            self.connect(link)
        self.ip("a", f"route add blackhole {BLACK_HOLE}")
        for family in ("-4", "-6"):
            self.ip("a", f"{family} rule add to {self.third(family)} lookup {TABLE}")
        self.add_routes()

    def sysctl(self, host, setting):
        self.execute(host, f"sysctl -qw net.{setting}")

    @staticmethod
    def third(family):
        return "10.9.0.3" if family == "-4" else "fd09::3"

    def connect(self, link):
        number = LINKS.index(link) + 1
        self.ip("a", f"link add {link} type veth peer {link} netns {self.namespace('b')}")
        for side, host in enumerate(self.HOSTS, 1):
            self.ip(host, f"address add 10.{number}.0.{side}/24 dev {link}")
            self.ip(host, f"address add fd0{number}::{side}/64 dev {link} nodad")
            self.ip(host, f"link set {link} up")

    def add_routes(self):
        """All of A's, also those that went away with a link."""
        for base, ways in (
            ("10.9.0.", [f"via 10.{n}.0.2 dev u{n - 1}" for n in (1, 2)]),
            ("fd09::", [f"via fd0{n}::2 dev u{n - 1}" for n in (1, 2)]),
        ):
            self.ip("a", f"route replace {base}1 {ways[0]}")
            self.ip("a", f"route replace {base}2 nexthop {ways[0]} nexthop {ways[1]}")
            self.ip("a", f"route replace {base}3 {ways[1]} table {TABLE}")


class Changes:
    """What happens to A's routes, rules, neighbours and links; each leaves all as it was."""

    def __init__(self, world, random):
        self._world = world
        self._random = random
        self._kinds = {
            "route": self._route,
            "many_routes": self._many_routes,
            "rule": self._rule,
            "neighbours": self._neighbours,
            "link_down": self._link_down,
            "link_made_anew": self._link_made_anew,
        }
        self.count = dict.fromkeys(self._kinds, 0)

    @property
    def of_links(self):
        return self.count["link_down"] + self.count["link_made_anew"]

    def next(self):
        kind = self._random.choice(list(self._kinds))
        self._kinds[kind]()
        self.count[kind] += 1

    def _ip(self, words):
        self._world.ip("a", words)

    def _route(self):
        self._ip("route replace 10.9.0.1 via 10.2.0.2 dev u1")
        self._ip("route replace fd09::1 via fd02::2 dev u1")
        time.sleep(self._random.uniform(0, 0.2))
        self._world.add_routes()

    def _many_routes(self):
        for verb in ("replace", "delete"):
            lines = [
                f"route {verb} 198.18.{n // 256}.{n % 256}/32 via 10.1.0.2 dev u0"
                for n in range(BATCH_ROUTES)
            ]
            self._batch(lines)

    def _batch(self, lines):
        done = subprocess.run(
            ["ip", "-n", self._world.namespace("a"), "-batch", "-"],
            input="\n".join(lines),
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise Failure(f"`ip -batch` failed: {done.stderr.strip()}")

    def _rule(self):
        for family in ("-4", "-6"):
            rule = f"to {self._world.third(family)} lookup {TABLE}"
            self._ip(f"{family} rule add {rule} priority 50")
            self._ip(f"{family} rule delete {rule} priority 50")

    def _neighbours(self):
        for link in LINKS:
            # Under traffic neighbours come back at once, which `ip` calls a failure.
            flush = ["ip", "-n", self._world.namespace("a"), "neighbour", "flush", "dev", link]
            subprocess.run(flush, capture_output=True)

    def _link_down(self):
        link = self._random.choice(LINKS)
        self._ip(f"link set {link} down")
        time.sleep(self._random.uniform(0, 0.2))
        self._ip(f"link set {link} up")
        self._world.add_routes()

    def _link_made_anew(self):
        self._ip("link delete u1")
        self._world.connect("u1")
        self._world.add_routes()


class Service(Interrupted):
    """What is under test."""

    def __init__(self, world, cowire, socket):
        words = ["run", "--intake", str(socket), "--interface", *LINKS]
        super().__init__(world.namespace("a"), cowire, words, limit_s=20)


class Client(Program):
    """A `cowire send --via` that comes, sends for a while or a burst, and goes."""

    def __init__(self, world, cowire, socket, random, changes):
        self._totals = {}
        self._changes = changes
        self._links_changed_before = changes.of_links
        self._destinations = random.sample([*SERVICES, BLACK_HOLE], random.randint(1, 4))
        command = [cowire, "send", "--via", str(socket), "-j"]
        for destination in self._destinations:
            command += ["--to", f"{destination}:{PORT}"]
        # One size in ten needs fragments.
        size = 1800 if random.random() < 0.1 else random.randint(16, 1400)
        command += ["--size", str(size)]
        if random.random() < 0.5:
            command += ["--count", str(random.randint(1, 2000))]
        else:
            command += ["--rate", str(random.randint(100, 4000))]
            command += ["--duration", str(round(random.uniform(0.5, 4), 1))]
        super().__init__(world.namespace("a"), command, self._note)

    def _note(self, totals):
        self._totals = totals

    def ended(self):
        return self.process.poll() is not None

    def settle(self, timeout_s, sent):
        """Waits for its end and adds what it tells to `sent`."""
        what = "cowire send --via"
        status = self.finish(timeout_s, what, (0, account.STATUS_NONE_LEFT))
        if wrong := account.wrong_end(status, self._totals, self.error_text()):
            raise Failure(f"{what} ended with status {status}, {wrong}: {self.error_text()}")
        to_black_hole = 0
        if BLACK_HOLE in self._destinations:
            to_black_hole = account.share_of_one(
                self._totals["submitted"],
                len(self._destinations),
                self._destinations.index(BLACK_HOLE),
            )
        links_changed = self._changes.of_links != self._links_changed_before
        sent.add(self._totals, to_black_hole, links_changed)


class Sink(Program):
    """What arrives at B, as B's kernel counts it."""

    COUNTERS = ("UdpInErrors", "Udp6InErrors", "UdpInCsumErrors", "Udp6InCsumErrors")

    def __init__(self, world):
        self._namespace = world.namespace("b")
        self._ready = False
        program = pathlib.Path(__file__).with_name("sink.py")
        super().__init__(self._namespace, ["python3", "-B", str(program), str(PORT)], self._note)
        while not self._ready:
            self.fail_if_ended()
            time.sleep(0.01)

    def _note(self, _):
        self._ready = True

    def arrived(self):
        """How many with a right checksum, and how many with a wrong one."""
        lines = run("ip", "netns", "exec", self._namespace, "nstat", "-asz", *self.COUNTERS)
        counts = dict(line.split()[:2] for line in lines.splitlines() if line.startswith("Udp"))
        refused, refused_v6, wrong, wrong_v6 = (int(counts[name]) for name in self.COUNTERS)
        return refused + refused_v6 - wrong - wrong_v6, wrong + wrong_v6
