#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`cowire tunnel` against iproute2 and the kernel in private network namespaces."""
import json
import os
import unittest

import support

# name: words of `cowire tunnel add`, the same for `ip link add` where they are others.
TUNNELS = {
    "g0": ("mode gre remote 10.0.0.2 local 10.0.0.1 ttl 64 nopmtudisc", "type gre remote 10.0.0.2 "
           "local 10.0.0.1 ttl 64 nopmtudisc"),
    "g1": ("mode gre remote 10.0.0.3 dev u0 tos b8 key 5 csum seq fwmark 7",
           "type gre remote 10.0.0.3 dev u0 tos b8 key 5 csum seq fwmark 7"),
    "g2": ("mode gre remote 10.0.0.4 tos inherit nopmtudisc ignore-df ikey 5 okey 1.2.3.4 oseq",
           "type gre remote 10.0.0.4 tos inherit nopmtudisc ignore-df ikey 5 okey 1.2.3.4 oseq"),
    "g3": ("mode gre remote 239.1.1.1 local 10.0.0.1", "type gre remote 239.1.1.1 local 10.0.0.1"),
    "g4": ("mode gre remote 10.0.0.5 mtu 1400", "mtu 1400 type gre remote 10.0.0.5"),
    "t0": ("mode gretap remote 10.0.0.2 local 10.0.0.1 key 9 ttl 3",
           "type gretap remote 10.0.0.2 local 10.0.0.1 key 9 ttl 3"),
    "s0": ("mode ip6gre remote fd00::2 local fd00::1 hoplimit 9 tclass 20 flowlabel 12345",
           "type ip6gre remote fd00::2 local fd00::1 hoplimit 9 tclass 20 flowlabel 12345"),
    "s1": ("mode ip6gre remote fd00::3 local fd00::1 encaplimit none tclass inherit "
           "flowlabel inherit key 5 csum", "type ip6gre remote fd00::3 local fd00::1 encaplimit none "
           "tclass inherit flowlabel inherit key 5 csum"),
    "s2": ("mode ip6gretap remote fd00::2 local fd00::1 encaplimit 7",
           "type ip6gretap remote fd00::2 local fd00::1 encaplimit 7"),
    "i0": ("mode ipip remote 10.0.0.2 local 10.0.0.1 ttl 7",
           "type ipip mode ipip remote 10.0.0.2 local 10.0.0.1 ttl 7"),
    "i1": ("mode sit remote 10.0.0.2 local 10.0.0.1",
           "type sit mode ip6ip remote 10.0.0.2 local 10.0.0.1"),
    "i2": ("mode ip6ip6 remote fd00::2 local fd00::1",
           "type ip6tnl mode ip6ip6 remote fd00::2 local fd00::1"),
    "i3": ("mode any remote fd00::3 local fd00::1 fwmark inherit allow-localremote",
           "type ip6tnl mode any remote fd00::3 local fd00::1 fwmark inherit allow-localremote"),
}
# Keys that name one device, or that only one of the two commands has.
INDIVIDUAL = {"ifindex", "ifname", "address"}
UNMODELLED = {"prefix", "prefixlen"}  # 6rd of sit.


def has_gre():
    world = support.World("probe")
    try:
        done = support.run("ip", "-n", world.names["probe"], *"link add x type gre remote 1.1.1.1".split())
        return done.returncode == 0
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
        self.world = support.World("a")
        self.addCleanup(self.world.close)
        for command in """
            link add u0 type veth peer name p0
            link set u0 up
            link set p0 up
            addr add 10.0.0.1/24 dev u0
            addr add fd00::1/64 dev u0 nodad
            neigh add 10.0.0.2 lladdr 02:00:00:00:00:aa dev u0
            neigh add 10.0.0.9 lladdr 02:00:00:00:00:ab dev u0
            neigh add fd00::2 lladdr 02:00:00:00:00:aa dev u0
        """.strip().splitlines():
            self.world.ip("a", command)

    def tunnel(self, words, check=0):
        return self.world.cowire("a", "tunnel", *words.split(), check=check)

    def shown(self, name):
        return json.loads(self.tunnel(f"show {name} -j").stdout)[0]

    def kernels(self, name):
        return self.world.ip_json("a", f"-d -s link show {name}")[0]

    def assert_as_iproute2_shows(self, name):
        ours, theirs = self.shown(name), self.kernels(name)
        for key, value in ours.items():
            if key in ("cowire", "linkinfo", "stats64"):
                continue
            self.assertEqual(value, theirs.get(key), f"{name}: {key}")
        wanted = dict(theirs["linkinfo"]["info_data"])
        for key in UNMODELLED:
            wanted.pop(key, None)
        self.assertEqual(ours["linkinfo"]["info_kind"], theirs["linkinfo"]["info_kind"])
        self.assertEqual(ours["linkinfo"]["info_data"], wanted, name)
        self.assertEqual(set(ours["stats64"]["tx"]), set(theirs["stats64"]["tx"]))


class Add(TunnelWorld):
    def test_makes_what_ip_link_makes_of_the_same_words(self):
        for name, (ours, theirs) in TUNNELS.items():
            with self.subTest(name):
                self.tunnel(f"add {name} {ours}")
                made = self.kernels(name)
                self.assert_as_iproute2_shows(name)
                self.tunnel(f"del {name}")
                self.world.ip("a", f"link add {name} {theirs}")
                reference = self.kernels(name)
                self.assert_as_iproute2_shows(name)
                self.world.ip("a", f"link del {name}")
                for one in (made, reference):
                    for key in ("ifindex", "permaddr", "stats64"):
                        one.pop(key, None)
                    if name in ("t0", "s2"):
                        one.pop("address")  # Random.
                self.assertEqual(made, reference)

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
        for name, (words, _) in TUNNELS.items():
            with self.subTest(name):
                self.tunnel(f"add {name} {words}")
                before = self.kernels(name)
                self.tunnel(f"change {name} ttl 33")
                after = self.kernels(name)
                self.assertEqual(after["linkinfo"]["info_data"].pop("ttl"), 33)
                before["linkinfo"]["info_data"].pop("ttl")
                self.assertEqual(after, before)
                self.tunnel(f"del {name}")

    def test_each_word_can_be_taken_back(self):
        self.tunnel("add g0 mode gre remote 10.0.0.2 local 10.0.0.1 key 5 csum seq ttl 4 tos inherit")
        self.tunnel("change g0 nokey nocsum noseq ttl inherit tos 0 nopmtudisc remote 10.0.0.9")
        data = self.kernels("g0")["linkinfo"]["info_data"]
        self.assertEqual(
            data, {"remote": "10.0.0.9", "local": "10.0.0.1", "ttl": 0, "pmtudisc": False}
        )
        self.assertEqual(self.kernels("g0")["mtu"], 1476)

    def test_the_fallback_devices_are_left_to_the_kernel(self):
        for name in ("gre0", "gretap0", "erspan0", "ip6gre0", "tunl0", "sit0", "ip6tnl0"):
            with self.subTest(name):
                self.assertIn("fallback", self.tunnel(f"change {name} ttl 5", 2).stderr)
                self.assertIn("fallback", self.tunnel(f"del {name}", 2).stderr)
                self.assertIn("fallback", self.shown(name)["cowire"]["left_to_kernel"])

    def test_an_external_tunnel_is_left_to_the_kernel(self):
        self.world.ip("a", "link add e0 type gre external")
        self.assertIn("external", self.shown("e0")["cowire"]["left_to_kernel"])
        self.assertIn("external", self.tunnel("change e0 ttl 5", 2).stderr)


class Show(TunnelWorld):
    def bring_up(self, words):
        self.tunnel(f"add g0 {words}")
        self.world.ip("a", "link set g0 up")
        self.world.ip("a", "addr add 10.9.0.1/24 dev g0")
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
            self.bring_up("mode gre remote 10.0.0.2 local 10.0.0.1 seq")["divert"], "tunnel_sequence"
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
            "a", "python3", "-c",
            "import socket; s = socket.socket(type=socket.SOCK_DGRAM);"
            "[s.sendto(b'x', ('10.9.0.2', 9)) for _ in range(5)]", check=0,
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
            "a", support.COWIRE, "run", "--config", path, "--mode", "kernel", "--intake",
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


if __name__ == "__main__":
    unittest.main()
