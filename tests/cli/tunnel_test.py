#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`cowire tunnel` against iproute2 and the kernel in private network namespaces."""
import functools
import json
import os
import pathlib
import unittest

import support

# name: how `cowire tunnel add` and how `ip link add` begin, and the words that follow both.
TUNNELS = {
    "g0": ("mode gre", "type gre", "remote 10.0.0.2 local 10.0.0.1 ttl 64 nopmtudisc"),
    "g1": ("mode gre", "type gre", "remote 10.0.0.3 dev u0 tos b8 key 5 csum seq fwmark 7"),
    "g2": ("mode gre", "type gre", "remote 10.0.0.4 tos inherit nopmtudisc ignore-df ikey 5 oseq"),
    "g3": ("mode gre", "type gre", "remote 239.1.1.1 local 10.0.0.1"),
    "g4": ("mode gre mtu 1400", "mtu 1400 type gre", "remote 10.0.0.5 okey 1.2.3.4"),
    "t0": ("mode gretap", "type gretap", "remote 10.0.0.2 local 10.0.0.1 key 9 ttl 3"),
    "s0": ("mode ip6gre", "type ip6gre", "remote fd00::2 local fd00::1 hoplimit 9 tclass 20"),
    "s1": (
        "mode ip6gre",
        "type ip6gre",
        "remote fd00::3 encaplimit none tclass inherit key 5 csum",
    ),
    "s2": ("mode ip6gre", "type ip6gre", "remote fd00::4 flowlabel 12345 fwmark inherit"),
    "s3": ("mode ip6gretap", "type ip6gretap", "remote fd00::5 encaplimit 7 flowlabel inherit"),
    "i0": ("mode ipip", "type ipip mode ipip", "remote 10.0.0.2 local 10.0.0.1 ttl 7"),
    "i1": ("mode sit", "type sit mode ip6ip", "remote 10.0.0.2 local 10.0.0.1"),
    "i2": ("mode ip6ip6", "type ip6tnl mode ip6ip6", "remote fd00::2 local fd00::1"),
    "i3": ("mode any", "type ip6tnl mode any", "remote fd00::3 allow-localremote"),
}
# Keys that name one device, or that only one of the two commands has.
INDIVIDUAL = {"ifindex", "ifname", "address"}
UNMODELLED = {"prefix", "prefixlen"}  # 6rd of sit.


# Both ends of a link, and neighbours on it.
LINK = """
link add u0 type veth peer name p0
link set u0 up
link set p0 up
addr add 10.0.0.1/24 dev u0
addr add fd00::1/64 dev u0 nodad
neigh add 10.0.0.2 lladdr 02:00:00:00:00:aa dev u0
neigh add 10.0.0.9 lladdr 02:00:00:00:00:ab dev u0
neigh add fd00::2 lladdr 02:00:00:00:00:aa dev u0
"""


@functools.cache
def has_gre():
    world = support.World("probe")
    words = "link add x type gre remote 10.0.0.2".split()
    try:
        return support.run("ip", "-n", world.names["probe"], *words).returncode == 0
    finally:
        world.close()


class KernelWithoutTunnels(unittest.TestCase):
    """What the command says where the kernel has none, which a kernel that has them cannot show."""

    @classmethod
    def setUpClass(cls):
        support.need_root()
        if has_gre():
            raise unittest.SkipTest("kernel has ip_gre")
        cls.world = support.World("a")
        cls.addClassCleanup(cls.world.close)

    def test_creation_names_the_module_and_the_option(self):
        for mode, needles in {
            "gre remote 10.0.0.2": ["ip_gre", "CONFIG_NET_IPGRE"],
            "gretap remote 10.0.0.2": ["ip_gre", "CONFIG_NET_IPGRE"],
            "ip6gre remote fd00::2": ["ip6_gre", "CONFIG_IPV6_GRE"],
            "ipip remote 10.0.0.2": ["ipip", "CONFIG_NET_IPIP"],
            "sit remote 10.0.0.2": ["sit", "CONFIG_IPV6_SIT"],
            "ip6ip6 remote fd00::2": ["ip6_tunnel", "CONFIG_IPV6_TUNNEL"],
        }.items():
            with self.subTest(mode):
                done = self.world.cowire("a", "tunnel", "add", "x", "mode", *mode.split())
                self.assertEqual(done.returncode, 2, done)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                for needle in ["tunnel x", mode.split()[0].replace("ip6ip6", "ip6tnl"), *needles]:
                    self.assertIn(needle, done.stderr)

    def test_nothing_is_shown(self):
        self.assertEqual(self.world.cowire("a", "tunnel", "show", "-j", check=0).stdout, "[]\n")
        self.assertEqual(self.world.cowire("a", "tunnel", "show", check=0).stdout, "")


class Refusals(unittest.TestCase):
    def assert_refused(self, words, needles):
        done = support.cowire("tunnel", *words.split())
        self.assertEqual(done.returncode, 2, done)
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for needle in needles:
            self.assertIn(needle, done.stderr)

    def test_each_is_one_line_that_names_the_thing_and_the_remedy(self):
        for words, needles in [
            ("", ["cowire tunnel --help"]),
            ("add", ["no name", "mode gre"]),
            ("add g remote 10.0.0.1", ["tunnel g", "no mode"]),
            ("add g mode gre remotr 10.0.0.1", ["remotr", "cowire tunnel add --help"]),
            ("add g mode gre remote fd00::1", ["fd00::1", "IPv4"]),
            ("add g mode ipip key 5", ["key", "ipip", "ip6gre"]),
            ("change nosuch0 ttl 5", ["nosuch0", "cowire tunnel show"]),
            ("del nosuch0", ["nosuch0", "cowire tunnel show"]),
            ("show nosuch0", ["nosuch0"]),
            ("show lo", ["lo", "not a tunnel"]),
            ("show lo lo", ["only one name"]),
            ("del lo", ["lo", "not a tunnel"]),
        ]:
            with self.subTest(words):
                self.assert_refused(words, needles)

    @unittest.skipUnless(os.geteuid() == 0, "needs root to give privileges up")
    def test_creation_without_capabilities_says_what_is_missing(self):
        done = support.unprivileged(*"tunnel add x mode gre remote 10.0.0.2".split())
        self.assertEqual(done.returncode, 2, done)
        self.assertIn("CAP_NET_ADMIN", done.stderr)


class TunnelWorld(unittest.TestCase):
    def setUp(self):
        support.need_root()
        if not has_gre():
            self.skipTest("kernel has no ip_gre")
        self.world = support.World("a", "b")
        self.addCleanup(self.world.close)
        self.batch("a", LINK)

    def batch(self, where, commands):
        support.run("ip", "-n", self.world.names[where], "-batch", "-", stdin=commands, check=0)

    def make_all(self, where):
        commands = [
            f"link add {name} {begin} {words}" for name, (_, begin, words) in TUNNELS.items()
        ]
        self.batch(where, "\n".join(commands))

    def tunnel(self, words, check=0):
        return self.world.cowire("a", "tunnel", *words.split(), check=check)

    def shown(self, name=""):
        """As `cowire tunnel show` has them: one, or all by name."""
        found = json.loads(self.tunnel(f"show {name} -j").stdout)
        return found[0] if name else {one["ifname"]: one for one in found}

    def kernels(self, name="", where="a"):
        """As iproute2 shows them."""
        found = self.world.ip_json(where, f"-d -s link show {name}")
        return found[0] if name else {one["ifname"]: one for one in found}

    def assert_same_keys(self, ours, theirs):
        for key, value in ours.items():
            if key not in ("cowire", "linkinfo", "stats64"):
                self.assertEqual(value, theirs.get(key), f"{ours['ifname']}: {key}")
        wanted = dict(theirs["linkinfo"]["info_data"])
        for key in UNMODELLED:
            wanted.pop(key, None)
        self.assertEqual(ours["linkinfo"]["info_kind"], theirs["linkinfo"]["info_kind"])
        self.assertEqual(ours["linkinfo"]["info_data"], wanted, ours["ifname"])
        self.assertEqual(set(ours["stats64"]["tx"]), set(theirs["stats64"]["tx"]))


class Add(TunnelWorld):
    def test_makes_what_ip_link_makes_of_the_same_words(self):
        for name, (begin, _, words) in TUNNELS.items():
            self.tunnel(f"add {name} {begin} {words}")
        self.batch("b", LINK)
        self.make_all("b")
        made, reference = self.kernels(), self.kernels(where="b")
        for name in TUNNELS:
            for one in (made[name], reference[name]):
                for key in ("ifindex", "permaddr", "stats64"):
                    one.pop(key, None)
                if one["link_type"] == "ether":
                    one.pop("address")  # Random.
            with self.subTest(name):
                self.assertEqual(made[name], reference[name])

    def test_show_has_the_keys_and_values_of_ip_link(self):
        self.make_all("a")
        ours, theirs = self.shown(), self.kernels()
        for name in TUNNELS:
            with self.subTest(name):
                self.assert_same_keys(ours[name], theirs[name])

    def test_a_name_or_end_points_that_are_taken_are_told_apart(self):
        self.tunnel("add g0 mode gre remote 10.0.0.2")
        self.assertIn("of this name", self.tunnel("add g0 mode gre remote 10.0.0.9", 2).stderr)
        self.assertIn("the same remote", self.tunnel("add g1 mode gre remote 10.0.0.2", 2).stderr)

    def test_a_device_to_bind_to_must_exist(self):
        done = self.tunnel("add g0 mode gre remote 10.0.0.2 dev nosuch0", 2)
        self.assertIn("nosuch0", done.stderr)
        self.assertIsNone(self.world.ip_json("a", "link show g0"))

    def test_prints_the_new_tunnel_as_json(self):
        done = self.tunnel("add g0 mode gre remote 10.0.0.2 -j")
        self.assertEqual(json.loads(done.stdout)[0]["ifname"], "g0")


class Change(TunnelWorld):
    def test_keeps_everything_that_is_not_told(self):
        self.make_all("a")
        before = self.kernels()
        for name in TUNNELS:
            self.tunnel(f"change {name} ttl 33")
        after = self.kernels()
        for name in TUNNELS:
            with self.subTest(name):
                self.assertEqual(after[name]["linkinfo"]["info_data"].pop("ttl"), 33)
                before[name]["linkinfo"]["info_data"].pop("ttl")
                self.assertEqual(after[name], before[name])

    def test_end_points_that_are_taken_are_refused(self):
        self.tunnel("add g0 mode gre remote 10.0.0.2")
        self.tunnel("add g1 mode gre remote 10.0.0.9")
        self.assertIn("the same remote", self.tunnel("change g1 remote 10.0.0.2", 2).stderr)

    def test_each_word_can_be_taken_back(self):
        self.tunnel(
            "add g0 mode gre remote 10.0.0.2 local 10.0.0.1 key 5 csum seq ttl 4 tos inherit"
        )
        self.tunnel("change g0 nokey nocsum noseq ttl inherit tos 0 nopmtudisc remote 10.0.0.9")
        data = self.kernels("g0")["linkinfo"]["info_data"]
        self.assertEqual(
            data, {"remote": "10.0.0.9", "local": "10.0.0.1", "ttl": 0, "pmtudisc": False}
        )
        self.assertEqual(self.kernels("g0")["mtu"], 1476)

    def test_the_fallback_devices_are_left_to_the_kernel(self):
        shown = self.shown()
        for name in ("gre0", "gretap0", "erspan0", "ip6gre0", "tunl0", "sit0", "ip6tnl0"):
            with self.subTest(name):
                self.assertIn("fallback", shown[name]["cowire"]["left_to_kernel"])
        self.assertIn("fallback", self.tunnel("change gre0 ttl 5", 2).stderr)
        self.assertIn("fallback", self.tunnel("del ip6tnl0", 2).stderr)

    def test_an_external_tunnel_is_left_to_the_kernel(self):
        self.world.ip("a", "link add e0 type gre external")
        self.assertIn("external", self.shown("e0")["cowire"]["left_to_kernel"])
        self.assertIn("external", self.tunnel("change e0 ttl 5", 2).stderr)


class Show(TunnelWorld):
    def bring_up(self, words):
        self.tunnel(f"add g0 {words}")
        # Without an IPv6 address it sends nothing by itself.
        self.batch(
            "a", "link set g0 addrgenmode none\nlink set g0 up\naddr add 10.9.0.1/24 dev g0\n"
        )
        return self.shown("g0")["cowire"]

    def test_a_plain_tunnel_is_fast_by_its_underlay(self):
        cowire = self.bring_up("mode gre remote 10.0.0.2 local 10.0.0.1 ttl 64")
        self.assertTrue(cowire["fast"], cowire)
        self.assertEqual(cowire["egress"], "u0")
        self.assertEqual(cowire["destination_mac"], "02:00:00:00:00:aa")
        self.assertEqual(cowire["underlay"]["dev"], "u0")
        self.assertEqual(
            cowire["mtu_budget"], {"tunnel": 1476, "underlay": 1500, "overhead": 24, "fits": 1476}
        )
        self.assertEqual(cowire["max_payload"], 1476 - 28)
        text = self.tunnel("show g0").stdout
        for needle in ("mode gre", "remote 10.0.0.2", "ttl 64", "fast", "egress u0", "1476 fit"):
            self.assertIn(needle, text)

    def test_the_budget_shrinks_with_the_underlay(self):
        self.tunnel("add g1 mode gre remote 10.0.0.2 key 5 csum")
        self.world.ip("a", "link set u0 mtu 1300")
        budget = self.shown("g1")["cowire"]["mtu_budget"]
        self.assertEqual(budget, {"tunnel": 1468, "underlay": 1300, "overhead": 32, "fits": 1268})

    def test_a_tunnel_that_is_not_fast_says_why(self):
        self.assertEqual(
            self.bring_up("mode gre remote 10.0.0.2 local 10.0.0.1 seq")["divert"],
            "tunnel_sequence",
        )
        self.world.ip("a", "link set g0 down")
        self.assertEqual(self.shown("g0")["cowire"]["divert"], "egress_down")

    def test_agrees_with_route_get(self):
        cowire = self.bring_up("mode gre remote 10.0.0.2 local 10.0.0.1")
        got = json.loads(self.world.cowire("a", "route", "get", "10.9.0.7", "-j", check=0).stdout)
        self.assertEqual(got[0]["cowire"]["header_template"], cowire["header_template"])

    def test_counts_what_the_kernel_sent(self):
        self.bring_up("mode gre remote 10.0.0.2 local 10.0.0.1")
        before = self.shown("g0")["stats64"]["tx"]["packets"]
        self.world.exec(
            "a",
            "python3",
            "-c",
            "import socket; s = socket.socket(type=socket.SOCK_DGRAM);"
            "[s.sendto(b'x', ('10.9.0.2', 9)) for _ in range(5)]",
            check=0,
        )
        self.assertEqual(self.shown("g0")["stats64"]["tx"]["packets"], before + 5)


class Declared(TunnelWorld):
    """[[tunnel]] of a configuration file: there while the command runs."""

    CONFIG = """
        [[tunnel]]
        name = "d0"
        mode = "gre"
        remote = "10.0.0.2"
        local = "10.0.0.1"
        ttl = 64
        addresses = ["169.254.0.1/31"]
        [[tunnel]]
        name = "d1"
        mode = "ipip"
        remote = "10.0.0.9"
        dev = "d0"
    """

    def send(self, config, check=0):
        path = support.scratch_file(self, config)
        words = ["send", "--config", path, "--mode", "kernel", "--to", "10.0.0.2:9"]
        return self.world.cowire("a", *words, "--count", "3", "--rate", "1000", check=check)

    def test_made_at_start_with_addresses_and_removed_at_stop(self):
        path = support.scratch_file(self, self.CONFIG)
        service = self.world.start(
            "a",
            support.COWIRE,
            "run",
            "--config",
            path,
            "--mode",
            "kernel",
            "--intake",
            f"/tmp/cowire-{os.getpid()}.sock",
        )
        with support.ended(service):
            support.wait_until(
                lambda: self.world.ip_json("a", "link show d1") is not None, "the tunnels"
            )
            made = self.kernels("d0")
            self.assertIn("UP", made["flags"])
            self.assertEqual(made["linkinfo"]["info_data"]["ttl"], 64)
            self.assertEqual(self.kernels("d1")["linkinfo"]["info_data"]["link"], "d0")
            addresses = self.world.ip_json("a", "addr show d0")[0]["addr_info"]
            self.assertIn("169.254.0.1", [address["local"] for address in addresses])
            support.interrupt(service)
        self.assertIsNone(self.world.ip_json("a", "link show d0"))
        self.assertIsNone(self.world.ip_json("a", "link show d1"))

    def running(self, config):
        """A service with these tunnels, that is there."""
        path = support.scratch_file(self, config)
        intake = pathlib.Path(path + ".sock")
        self.addCleanup(intake.unlink, missing_ok=True)
        words = ["run", "--config", path, "--mode", "kernel", "--intake", intake]
        service = self.world.start("a", support.COWIRE, *words)
        try:
            support.wait_until(intake.exists, "the service")
        except BaseException:
            service.kill()
            raise
        return support.ended(service)

    def is_there(self, name):
        return self.world.ip_json("a", f"link show {name}") is not None

    def kill(self, config):
        """Leaves them behind as a service does that is killed."""
        with self.running(config) as service:
            service.kill()
            service.wait()
        self.assertTrue(self.is_there("d0"))
        self.assertIn("cowire", self.alias("d0"))

    def alias(self, name):
        shown = self.world.ip_json("a", f"link show {name}")
        return shown[0].get("ifalias", "") if shown else ""

    def test_those_of_a_killed_process_are_taken_over(self):
        self.kill(self.CONFIG)
        index = self.kernels("d0")["ifindex"]
        with self.running(self.CONFIG) as service:
            self.assertEqual(self.kernels("d0")["ifindex"], index)
            support.interrupt(service)
        self.assertFalse(self.is_there("d0"))
        self.assertFalse(self.is_there("d1"))

    def test_those_of_a_killed_process_that_differ_are_made_anew(self):
        self.kill(self.CONFIG)
        self.send(self.CONFIG.replace("ttl = 64", "ttl = 63").replace('"d1"', '"d3"'))
        for name in ("d0", "d1", "d3"):
            self.assertFalse(self.is_there(name), name)

    def test_those_of_a_process_that_lives_are_left_alone(self):
        with self.running(self.CONFIG) as service:
            self.send(self.CONFIG)
            done = self.send(self.CONFIG.replace("ttl = 64", "ttl = 63"), check=2)
            self.assertIn("ttl 63", done.stderr)
            self.assertTrue(self.is_there("d0") and self.is_there("d1"))
            support.interrupt(service)
        self.assertFalse(self.is_there("d0"))

    def test_what_somebody_took_for_himself_stays(self):
        self.kill(self.CONFIG)
        for name in ("d0", "d1"):
            self.world.ip("a", f"link set {name} alias mine")
        self.send(self.CONFIG)
        self.assertEqual(self.alias("d0"), "mine")
        self.assertTrue(self.is_there("d1"))

    def send_from(self, *words, config=CONFIG):
        path = support.scratch_file(self, config)
        words = [*words, "--count", "3", "--rate", "1000", "-j"]
        done = self.world.cowire("a", "send", "--config", path, *words, check=0)
        return json.loads(done.stdout)

    def test_its_addresses_and_itself_are_there_for_a_sender(self):
        for words in ("--source 169.254.0.1", "--device d0", "--source 169.254.0.1 --device d0"):
            sent = self.send_from(*words.split(), "--to", "169.254.0.0:9")
            self.assertEqual(sent["submitted"], 3, sent)
            self.assertEqual(sent["refused"], {}, sent)
        path = support.scratch_file(self, self.CONFIG)
        words = ["send", "--config", path, "--to", "169.254.0.0:9", "--count", "1"]
        done = self.world.cowire("a", *words, "--source", "169.254.0.2", check=2)
        self.assertIn("169.254.0.2", done.stderr)

    def test_an_ipv6_address_is_there_for_a_sender_once_nobody_else_has_it(self):
        config = """
            [[tunnel]]
            name = "d2"
            mode = "gretap"
            remote = "10.0.0.2"
            local = "10.0.0.1"
            addresses = ["fd00:9::1/64"]
        """
        sent = self.send_from("--source", "fd00:9::1", "--to", "[fd00:9::2]:9", config=config)
        self.assertEqual(sent["submitted"], 3, sent)

    def test_an_address_of_a_vrf_is_one_of_senders_in_it(self):
        added = "link add red type vrf table 100".split()
        if support.run("ip", "-n", self.world.names["a"], *added).returncode != 0:
            self.skipTest("the kernel has no vrf")
        self.batch("a", "link set red up\naddr add 10.255.0.1/32 dev red\n")
        path = support.scratch_file(self, "")
        words = ["send", "--config", path, "--mode", "kernel", "--source", "10.255.0.1"]
        words += ["--to", "10.255.0.1:9", "--count", "1"]
        self.world.cowire("a", *words, "--device", "red", check=0)
        self.assertIn("10.255.0.1", self.world.cowire("a", *words, check=2).stderr)

    def test_an_equal_one_is_used_and_stays(self):
        self.tunnel("add d0 mode gre remote 10.0.0.2 local 10.0.0.1 ttl 64")
        self.world.ip("a", "link set d0 up")
        self.world.ip("a", "addr add 169.254.0.1/31 dev d0")
        index = self.kernels("d0")["ifindex"]
        self.send(self.CONFIG)
        self.assertEqual(self.kernels("d0")["ifindex"], index)
        self.assertIsNone(self.world.ip_json("a", "link show d1"))

    def test_a_different_one_is_never_overwritten(self):
        self.tunnel("add d0 mode gre remote 10.0.0.2 local 10.0.0.1 ttl 63")
        before = self.kernels("d0")
        done = self.send(self.CONFIG, check=2)
        for needle in ("d0", "ttl 64", "ttl 63"):
            self.assertIn(needle, done.stderr)
        self.assertEqual(self.kernels("d0"), before)

    def test_what_was_made_goes_when_a_later_one_fails(self):
        done = self.send(self.CONFIG.replace('dev = "d0"', 'dev = "nosuch0"'), check=2)
        self.assertIn("nosuch0", done.stderr)
        self.assertIsNone(self.world.ip_json("a", "link show d0"))


class Restricted(unittest.TestCase):
    """[doublezero]: what is not listed goes the kernel's way, and arrives."""

    def setUp(self):
        support.need_root()
        self.world = support.World("a")
        self.addCleanup(self.world.close)
        self.batch(LINK)

    def batch(self, commands):
        support.run("ip", "-n", self.world.names["a"], "-batch", "-", stdin=commands, check=0)

    def send(self, config, *destinations):
        path = support.scratch_file(self, config)
        words = [word for to in destinations for word in ("--to", f"{to}:9")]
        done = self.world.cowire(
            "a", "send", "--config", path, *words, "--count", "5", "--rate", "200", "-j", check=0
        )
        return json.loads(done.stdout)

    def test_a_rule_to_a_table_that_is_not_listed_diverts(self):
        self.batch(
            "route add 20.0.0.0/8 via 10.0.0.2 table 100\nrule add to 20.0.0.0/8 lookup 100\n"
        )
        listed = self.send("[doublezero]\nrouting_tables = ['main', 100]\n", "20.0.0.1", "10.0.0.2")
        self.assertEqual(listed["transmitted"], {"u0": 10}, listed)
        other = self.send("[doublezero]\nrouting_tables = ['main']\n", "20.0.0.1", "10.0.0.2")
        self.assertEqual(other["diverted"], {"table_not_mirrored": 5}, other)
        self.assertEqual(other["kernel_path"], 5)
        self.assertEqual(other["transmitted"], {"u0": 5})

    def test_tunnels_and_their_destinations_are_restricted(self):
        if not has_gre():
            self.skipTest("kernel has no ip_gre")
        for name, remote, net in (("g0", "10.0.0.2", 20), ("g1", "10.0.0.9", 30)):
            self.batch(
                f"link add {name} type gre remote {remote} local 10.0.0.1 ttl 64\n"
                f"link set {name} addrgenmode none\n"
                f"link set {name} up\n"
                f"route add {net}.0.0.0/8 dev {name} src 10.0.0.1\n"
            )
        to = ("20.0.0.1", "20.1.0.1", "30.0.0.1", "10.0.0.2")
        free = self.send("", *to)
        self.assertEqual(free["transmitted"], {"u0": 20}, free)
        kept = self.send(
            "[doublezero]\ntunnel_interfaces = ['g0']\nprefixes = ['20.1.0.0/16']\n", *to
        )
        self.assertEqual(kept["diverted"], {"outside_prefixes": 5, "tunnel_not_listed": 5}, kept)
        self.assertEqual(kept["kernel_path"], 10)
        self.assertEqual(kept["transmitted"], {"u0": 10})


if __name__ == "__main__":
    unittest.main()
