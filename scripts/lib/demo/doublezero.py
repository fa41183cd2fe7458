# SPDX-License-Identifier: Apache-2.0
"""The story of DoubleZero's users: a private fiber network, reached through GRE tunnels, whose
routes come and go by BGP, with the public Internet as fallback.

      A ---- public ---- internet ---- public ---- B        10.1.0.2 (A), 10.2.0.2 (B)
      :                  |      |                  :
      :  doublezero0/1   DA -- DB   doublezero0/1  :        10.3.0.2/3 (DA), 10.4.0.2/3 (DB)
      :..................:  fiber :................:

A and B are validators, DA and DB the devices next to them; dotted lines are tunnels over the public
addresses. BIRD runs on all four. The stream goes to B's public address: without BGP by the default
route; when A has learned that address as a /32, into the tunnel to DA, over the fiber to DB and
through the tunnel to B. What a device has learned serves only what comes out of a tunnel or the
fiber; its own tunnel packets take the public way, always.

A also publishes to a multicast group, for which it has a route over the second tunnel. The devices
hand it on over the fiber to B, a member on its own second tunnel.
"""
import re
import shutil

from analysis import CUT
from hosts import Failure, Hosts, Program
from publication import Publication
from world import PREFIX, Step, Words, World, wait_until

PUBLIC = {"a": "10.1.0.2", "b": "10.2.0.2", "da": "10.3.0.2", "db": "10.4.0.2"}
SECOND = {"da": "10.3.0.3", "db": "10.4.0.3"}  # Where the tunnels of multicast end.
DEVICE = {"a": "da", "b": "db"}
FIBER = {"da": "10.5.0.1", "db": "10.5.0.2"}
AS = {"a": 65001, "b": 65002, "da": 65010, "db": 65020}
MULTICAST_GROUP = "233.84.178.1"
TABLE = 100  # Where the learned routes are.
OTHER_ROUTES = 10_000
# They come in portions: what BIRD must tell the kernel in one go keeps it from its hold timers.
PORTIONS = 20
PORTION = OTHER_ROUTES // PORTIONS

# The even address is the device's.
OVERLAY = {"a": ("169.254.0.0", "169.254.0.1"), "b": ("169.254.0.4", "169.254.0.5")}
SECOND_OVERLAY = {"a": ("169.254.0.2", "169.254.0.3"), "b": ("169.254.0.6", "169.254.0.7")}


def tunnel(name, local, remote, address):
    """The commands that make a tunnel as DoubleZero's daemon does."""
    return [
        f"link add {name} mtu 1476 type gre local {local} remote {remote} ttl 64 nopmtudisc",
        f"address add {address}/31 dev {name} scope link",
        f"link set {name} up",
    ]


def validator_tunnels(host):
    device = DEVICE[host]
    return [
        *tunnel("doublezero0", PUBLIC[host], PUBLIC[device], OVERLAY[host][1]),
        *tunnel("doublezero1", PUBLIC[host], SECOND[device], SECOND_OVERLAY[host][1]),
        f"route add {MULTICAST_GROUP} via {SECOND_OVERLAY[host][0]} dev doublezero1 proto static "
        f"src {PUBLIC[host]}",
    ]


def other_address(number):
    return f"20.0.{number // 256}.{number % 256}"


def in_a(commands):
    return tuple(("a", f"ip {command}") for command in commands)


class Bird(Program):
    """BIRD on one host. What it learns by BGP goes into TABLE of the kernel."""

    def __init__(self, world, host, folder, text):
        file = folder / f"{host}.conf"
        file.write_text(text)
        # Busy neighbours must not make the hold time of 3 s expire.
        command = ["nice", "-n", "-15", "bird", "-f", "-c", str(file)]
        command += ["-s", str(control(folder, host))]
        super().__init__(world.namespace(host), command, on_line=lambda _: None)


def control(folder, host):
    return folder / f"{host}.ctl"


def session(host, peer, own_address, peer_address, exported="all"):
    return f"""protocol bgp to_{peer} {{
  local {own_address} as {AS[host]};
  neighbor {peer_address} as {AS[peer]};
  hold time 3;
  keepalive time 1;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  ipv4 {{ table learned; import all; export {exported}; next hop self; }};
}}
"""


def origin(name, prefixes, state=""):
    routes = "".join(f"  route {prefix} unreachable;\n" for prefix in prefixes)
    return f"protocol static {name} {{\n{state}  ipv4 {{ table learned; }};\n{routes}}}\n"


def kernel(host):
    if host in DEVICE:  # The far end takes only what comes from the validator's own address.
        condition, source = "source != RTS_BGP", f"krt_prefsrc = {PUBLIC[host]}; "
    else:  # A device needs no more than the ways to the validators.
        condition, source = "source != RTS_BGP || net !~ [10.0.0.0/8+]", ""
    return f"""protocol kernel {{
  kernel table {TABLE};
  metric 0;
  ipv4 {{
    table learned;
    import none;
    export filter {{ if {condition} then reject; {source}accept; }};
  }};
}}
"""


def configuration(host):
    text = f"log stderr all;\nrouter id {PUBLIC[host]};\nipv4 table learned;\n"
    text += "protocol device {}\n" + kernel(host)
    if host in DEVICE:
        device_address, own_address = OVERLAY[host]
        text += session(host, DEVICE[host], own_address, device_address)
        return text + origin("own", [f"{PUBLIC[host]}/32"])
    validator, other = ("a", "db") if host == "da" else ("b", "da")
    own_address, validator_address = OVERLAY[validator]
    # A validator is told of the other one only; what DB originates goes over the fiber.
    text += session(host, validator, own_address, validator_address, "where source = RTS_BGP")
    text += session(host, other, FIBER[host], FIBER[other])
    if host == "db":
        for portion in range(PORTIONS):
            numbers = range(portion * PORTION, (portion + 1) * PORTION)
            others = (f"{other_address(n)}/32" for n in numbers)
            text += origin(f"others{portion}", others, state="  disabled;\n")
    return text


class Probe(Hosts):
    """A host in which is tried what the kernel has."""

    HOSTS = ("probe",)
    PREFIX = PREFIX

    def build(self):
        """Nothing: it is alone."""


class DoubleZero(World):
    HOSTS = ("a", "b", "da", "db", "internet")
    SERVICE = PUBLIC["b"]
    DEVICES = ARRIVALS = {"public": "public", "doublezero0": "fiber"}
    SENDER_OPTIONS = ("--interface", "public")
    # What an emulated machine can keep up with.
    RATE_PPS = 500
    DURATION_S = 18
    WORDS = Words(
        stream=f"to {SERVICE}, the public address of host B; paths: the Internet, and a fiber "
        "behind GRE tunnels",
        headline="BGP moves the stream between the Internet and a fiber behind GRE tunnels",
        picture=f"Validator A streams to {SERVICE}, validator B. BIRD learns and loses the way "
        "over the fiber.\nArrivals at B, per path, in bins of 50 ms.",
        change="event",
        clock="Times run from when the kernel of A last named the old path, or was given the "
        "command, to the kernel's time stamp of arrival at host B.",
    )

    @staticmethod
    def reason_not_here():
        if not shutil.which("bird"):
            return "needs BIRD (Debian: bird2)"
        probes = {
            "ip_gre": "ip link add probe type gre local 10.0.0.1 remote 10.0.0.2",
            "netem": "tc qdisc add dev lo root netem loss 100%",
        }
        with Probe(keep=False) as probe:
            for feature, command in probes.items():
                try:
                    probe.execute("probe", command)
                except Failure:
                    return f"the kernel has no {feature}"
        return None

    def build(self):
        for host in self.HOSTS:
            for where in ("all", "default"):
                self.execute(host, f"sysctl -qw net.ipv4.conf.{where}.rp_filter=0")
        for host in ("internet", "da", "db"):
            self.execute(host, "sysctl -qw net.ipv4.ip_forward=1")
        for host, address in PUBLIC.items():
            self._connect_to_internet(host, address)
        self.ip("da", f"link add fiber type veth peer fiber netns {self.namespace('db')}")
        for validator, device in DEVICE.items():
            self._set_up_device(device, validator)
            for prefix in (f"{self._other(validator)}/24", "20.0.0.0/8"):
                self.ip(validator, f"rule add to {prefix} lookup {TABLE} pref 100")
        for command in validator_tunnels("b"):
            self.ip("b", command)

    @staticmethod
    def _other(validator):
        """Where the other validator is: the prefix whose routes may be learned."""
        return PUBLIC["b" if validator == "a" else "a"].rsplit(".", 1)[0] + ".0"

    def _connect_to_internet(self, host, address):
        router = address.rsplit(".", 1)[0] + ".1"
        namespace = self.namespace(host)
        # A queue for the stream, and one for the publication.
        queues = "numtxqueues 2 numrxqueues 2"
        peer = f"peer name public {queues} netns {namespace}"
        self.ip("internet", f"link add to_{host} {queues} type veth {peer}")
        self.ip("internet", f"address add {router}/24 dev to_{host}")
        self.ip("internet", f"link set to_{host} up")
        self.ip(host, f"address add {address}/24 dev public")
        self.ip(host, "link set public up")
        self.ip(host, f"route add default via {router}")

    def _set_up_device(self, device, validator):
        self.ip(device, f"address add {SECOND[device]}/24 dev public")
        self.ip(device, f"address add {FIBER[device]}/24 dev fiber")
        self.ip(device, "link set fiber up")
        first = tunnel("to_user0", PUBLIC[device], PUBLIC[validator], OVERLAY[validator][0])
        second = tunnel("to_user1", SECOND[device], PUBLIC[validator], SECOND_OVERLAY[validator][0])
        for command in first + second:
            self.ip(device, command)
        for entrance in ("to_user0", "to_user1", "fiber"):
            self.ip(device, f"rule add iif {entrance} lookup {TABLE} pref 100")
        # The private network never hands over to the Internet.
        self.ip(device, f"route add blackhole default table {TABLE} metric 1000")

    def daemons(self, folder, chosen):
        self._db_control = control(folder, "db")
        self._chosen = chosen
        self._publication = Publication(self, MULTICAST_GROUP, PUBLIC["a"], folder)
        birds = [Bird(self, host, folder, configuration(host)) for host in PUBLIC]
        copies = {"da": ("to_user1", "fiber"), "db": ("fiber", "to_user1")}
        return [*birds, *self._publication.listeners(chosen.receiver, "doublezero1", copies)]

    def _publish(self):
        chosen = self._chosen
        rate, longest_s = max(100, chosen.rate // 5), chosen.duration + 1200
        return self._publication.begin(chosen.cowire, rate, chosen.size, longest_s)

    def settle(self, changes):
        """The fiber is cut from the break to the first of the stream that comes over it again."""
        cuts = [change.begin_ns for change in changes if change.breaks == "fiber"]
        repairs = [change.first_ns or change.end_ns for change in changes if change.repairs]
        return self._publication.settle(list(zip(cuts, repairs)))

    def _change_others(self, verb, expected):
        """Announces ("enable") or withdraws the others and waits until A's kernel has followed."""
        for portion in range(PORTIONS):
            self.execute("db", f"birdc -s {self._db_control} {verb} others{portion}")
            last = other_address((portion + 1) * PORTION - 1)
            device = "doublezero0" if expected else "public"
            wait_until(
                lambda: f"dev {device} " in self.ip("a", f"route get {last}"),
                f"{last} is not routed over {device}",
            )

        def count():
            return len(re.findall(r"^20\.0\.", self.ip("a", "route show table all"), re.MULTILINE))

        wait_until(
            lambda: count() == expected,
            f"A's kernel has not {expected} other routes",
        )

    def _executor(self, *commands):
        def execute():
            for host, words in commands:
                self.execute(host, words)

        return execute

    def steps(self):
        both_ends = ("da", "db")
        again = tunnel("doublezero0", PUBLIC["a"], PUBLIC["da"], OVERLAY["a"][1])
        return [
            Step(
                "A's tunnels doublezero0 and doublezero1 come up",
                action=self._executor(*in_a(validator_tunnels("a"))),
                until_path="fiber",
            ),
            Step(
                f"A publishes to {MULTICAST_GROUP}, through doublezero1",
                starts=self._publish,
            ),
            Step(
                "fiber cut: tc qdisc add dev fiber root netem loss 100%",
                action=self._executor(
                    *((end, "tc qdisc add dev fiber root netem loss 100%") for end in both_ends)
                ),
                until_path="public",
                breaks="fiber",
                cause=CUT,
            ),
            Step(
                "fiber: ip link set fiber down",
                action=self._executor(("da", "ip link set fiber down")),
            ),
            Step(
                "fiber repaired: netem removed, link up",
                action=self._executor(
                    *((end, "tc qdisc del dev fiber root") for end in both_ends),
                    ("da", "ip link set fiber up"),
                ),
                until_path="fiber",
                repairs="fiber",
            ),
            Step(
                "ip link del doublezero0",
                action=self._executor(*in_a(["link del doublezero0"])),
                until_path="public",
            ),
            Step(
                "doublezero0 made again, with a new ifindex",
                action=self._executor(*in_a(again)),
                until_path="fiber",
            ),
            Step(
                f"{OTHER_ROUTES} other routes announced by BGP",
                action=lambda: self._change_others("enable", OTHER_ROUTES),
            ),
            Step(
                f"{OTHER_ROUTES} other routes withdrawn by BGP",
                action=lambda: self._change_others("disable", 0),
            ),
        ]
