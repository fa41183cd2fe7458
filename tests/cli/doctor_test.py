#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shape of `cowire doctor`."""
import json
import os
import sys
import unittest

import support

HOST_CHECKS = {
    "kernel",
    "cap_net_raw",
    "cap_net_admin",
    "cap_bpf",
    "af_xdp",
    "bpf",
    "memlock",
    "huge_pages",
    "io_uring",
    "cpus",
    "rules",
    "multicast",
    "output netfilter",
    "output conntrack",
    "output ipsec",
    "output traffic_control",
    "output control_groups",
    "output taps",
}
INTERFACE_CHECKS = {
    "link",
    "driver",
    "queues",
    "rings",
    "xdp",
    "zero_copy",
    "tx_metadata",
    "xdp_program",
    "mtu",
    "offload",
}

HEAR_TTL = """
import socket, sys
hearing = socket.socket(type=socket.SOCK_DGRAM)
hearing.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
hearing.bind((sys.argv[1], 9000))
print("ready", flush=True)
_, [(_, _, ttl)], _, _ = hearing.recvmsg(64, 64)
print(int.from_bytes(ttl[:4], sys.byteorder), flush=True)
"""


class Doctor(unittest.TestCase):
    def report(self, *words, **options):
        done = support.cowire("doctor", "-j", *words, **options)
        report = json.loads(done.stdout)
        self.assertEqual(done.returncode, 0 if report["ok"] else 1)
        return report

    def test_every_check_has_a_status_a_meaning_and_where_it_fails_a_fix(self):
        report = self.report("lo")
        names = {check["name"] for check in report["checks"]}
        self.assertLessEqual(HOST_CHECKS, names)
        self.assertLessEqual({f"lo {check}" for check in INTERFACE_CHECKS}, names)
        for check in report["checks"]:
            self.assertIn(check["status"], ("ok", "warn", "fail"))
            self.assertTrue(check["meaning"], check)
            if check["status"] == "fail":
                self.assertTrue(check["fix"], check)
        self.assertEqual(report["ok"], all(check["status"] != "fail" for check in report["checks"]))

    def test_text_has_a_line_for_each_check(self):
        done = support.cowire("doctor", "lo")
        self.assertIn("io_uring", done.stdout)
        for line in done.stdout.splitlines():
            self.assertIn(line.split()[0], ("ok", "warn", "fail"))

    def test_a_namespace_without_an_interface_that_is_up_fails(self):
        support.need_root()
        world = support.World("empty")
        self.addCleanup(world.close)
        self.assertFalse(self.report(netns=world.names["empty"])["ok"])

    def test_a_rule_that_the_fast_path_cannot_decide_is_named(self):
        support.need_root()
        world = support.World("a")
        self.addCleanup(world.close)
        world.ip("a", "rule add pref 77 dport 53 lookup 100")
        checks = {
            check["name"]: check for check in self.report("lo", netns=world.names["a"])["checks"]
        }
        self.assertNotIn("rules", checks)
        self.assertEqual(checks["ipv4 rule 77"]["status"], "warn")
        self.assertIn("destination port", checks["ipv4 rule 77"]["value"])

    def test_routes_of_groups_that_share_the_kernels_memory_with_hosts_are_named(self):
        """And nothing is amiss with the others: the kernel itself is asked and sends."""
        support.need_root()
        world = support.World("a", "b")
        self.addCleanup(world.close)
        world.connect("a", "u0", "b", "u0", 1)
        world.ip("b", "route add local 10.60.0.0/16 dev lo")
        for number in (7, 8, 9):
            world.ip("a", f"nexthop add id {number} via 10.77.1.2 dev u0")
        through = "via 10.77.1.2 dev u0"
        # Each pair in a table of its own that both of its destinations are looked up in.
        pairs = (
            (through, through, True),
            (through + " src 10.77.1.1", through, False),
            (through + " metric 77", through, False),
            (through + " proto bgp", through + " proto bgp", True),
            (through + " proto bgp", through, False),
            ("nhid 7 metric 4", "nhid 7", True),
            ("nhid 8", "nhid 9", False),
            ("dev u0", through, False),
        )
        for n, (group, host, _) in enumerate(pairs):
            table = f"table {100 + n}"
            world.ip("a", f"rule add to 239.0.{n}.0/24 lookup {100 + n}")
            world.ip("a", f"rule add to 10.60.{n}.0/24 lookup {100 + n}")
            world.ip("a", f"route add 239.0.{n}.0/24 {group} {table}")
            world.ip("a", f"route add 10.60.{n}.0/24 {host} {table}")
        checks = {
            check["name"]: check for check in self.report("u0", netns=world.names["a"])["checks"]
        }
        for n, (group, host, shared) in enumerate(pairs):
            with self.subTest(group=group, host=host):
                check = checks.get(f"group route 239.0.{n}.0/24")
                self.assertEqual(check is not None, shared)
                if shared:
                    self.assertEqual(check["status"], "warn")
                    self.assertIn(f"10.60.{n}.0/24", check["value"])
                    self.assertIn("metric N" if "nhid" not in group else "nexthop", check["fix"])
                elif self.ttl_after_question(world, n) == 1:
                    self.fail("the kernel's memory is shared and nobody says so")

    def ttl_after_question(self, world, n):
        """The TTL of a datagram to a host right after a question about a group, on one CPU."""
        listen = world.start("b", sys.executable, "-c", HEAR_TTL, f"10.60.{n}.1")
        with support.ended(listen):
            self.assertEqual(listen.stdout.readline(), "ready\n")
            cpu = min(os.sched_getaffinity(0))
            world.exec("a", "taskset", "-c", cpu, "ip", "route", "get", f"239.0.{n}.1", check=0)
            send = (
                "import socket\n"
                f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('10.60.{n}.1', 9000))"
            )
            world.exec("a", "taskset", "-c", cpu, sys.executable, "-c", send, check=0)
            return int(listen.stdout.readline())

    def output_checks(self, world, *words):
        """What it says of the output path of host a, by layer."""
        checks = self.report(*words, netns=world.names["a"])["checks"]
        found = {check["name"]: check for check in checks}
        return {
            name.removeprefix("output "): check
            for name, check in found.items()
            if name.startswith("output ")
        }

    def test_each_layer_of_the_output_path_is_told_with_obstacle_and_remedy(self):
        support.need_root()
        support.need_nft()
        world = support.World("a")
        self.addCleanup(world.close)
        world.ip("a", "link add u0 type veth peer name p0")
        for device in ("u0", "p0"):
            world.ip("a", f"link set {device} up")
        for name, check in self.output_checks(world).items():
            if name == "netfilter" and check["status"] == "warn":
                self.assertIn("does not list netfilter's hooks", check["meaning"])
                self.assertIn("nfnetlink_hook", check["fix"])
            elif name != "control_groups":  # Those of whoever runs the test.
                self.assertEqual(check["status"], "ok", check)
                self.assertEqual(check["fix"], "")
        untouched = self.output_checks(world)["netfilter"]
        self.assertIn("untouched", untouched["value"])
        self.assertIn("AF_XDP", self.output_checks(world)["taps"]["value"])

        rules = (
            "table ip t { chain in { type filter hook input priority 0; ct state new accept; }\n"
            'chain out { type filter hook output priority 0; oifname "u0" udp dport 9 drop; }\n}\n'
        )
        world.exec("a", "nft", "-f", "-", stdin=rules, check=0)
        world.ip("a", "xfrm policy add dst 192.0.2.0/24 dir out action block")
        checks = self.output_checks(world)
        for name, what, reason in (
            ("netfilter", "table ip t, chain out, rule ", "(netfilter)"),
            ("ipsec", "IPsec policy of index ", "(ipsec)"),
        ):
            self.assertEqual(checks[name]["status"], "warn", checks[name])
            self.assertIn(what, checks[name]["value"])
            self.assertIn(reason, checks[name]["meaning"])
            self.assertIn(f'[output] {name} = "ignore"', checks[name]["fix"])
        self.assertIn("drop (IPv4 on u0)", checks["netfilter"]["value"])
        self.assertEqual(checks["conntrack"]["status"], "ok", checks["conntrack"])
        self.assertEqual(checks["conntrack"]["value"], "tracked (IPv4)")
        self.assertIn("first datagram of each flow", checks["conntrack"]["meaning"])
        self.assertEqual(checks["conntrack"]["fix"], "")
        self.assertIn("for 192.0.2.0/24: block (IPv4)", checks["ipsec"]["value"])
        self.assertEqual(checks["traffic_control"]["status"], "ok")
        self.assertEqual(self.output_checks(world, "p0")["netfilter"], untouched)

    def test_a_control_group_that_cannot_be_known_is_a_warning(self):
        """The file that tells is masked, as containers mask others."""
        support.need_root()
        masked = (
            "mount --make-rprivate / && mount --bind /dev/null /proc/$$/task/$$/cgroup"
            ' && exec "$0" doctor -j'
        )
        done = support.run("unshare", "-m", "sh", "-c", masked, support.COWIRE)
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        check = checks["output control_groups"]
        self.assertEqual(check["status"], "warn", check)
        self.assertIn("/proc/thread-self/cgroup", check["value"])
        self.assertIn("(cgroup_program)", check["meaning"])

    def test_a_queueing_discipline_that_holds_back_is_a_warning(self):
        support.need_root()
        world = support.World("a")
        self.addCleanup(world.close)
        world.ip("a", "link add u0 type veth peer name p0")
        for device in ("u0", "p0"):
            world.ip("a", f"link set {device} up")
        tbf = "qdisc replace dev u0 root tbf rate 1mbit burst 10kb latency 10ms"
        if world.exec("a", "tc", *tbf.split()).returncode != 0:
            self.skipTest("the kernel has no tbf")
        check = self.output_checks(world)["traffic_control"]
        self.assertEqual(check["status"], "warn")
        self.assertIn("queueing discipline tbf", check["value"])
        self.assertIn("on u0", check["value"])
        self.assertEqual(self.output_checks(world, "p0")["traffic_control"]["status"], "ok")

    def test_a_downed_interface_fails_with_the_command_that_mends_it(self):
        support.need_root()
        world = support.World("a")
        self.addCleanup(world.close)
        world.ip("a", "link add u0 type veth peer name p0")
        report = self.report("u0", netns=world.names["a"])
        self.assertFalse(report["ok"])
        fixes = [check["fix"] for check in report["checks"] if check["name"] == "u0 link"]
        self.assertEqual(fixes, ["ip link set u0 up"])
        world.ip("a", "link set u0 up")
        world.ip("a", "link set p0 up")
        link = [
            check
            for check in self.report("u0", netns=world.names["a"])["checks"]
            if check["name"] == "u0 link"
        ]
        self.assertEqual(link[0]["status"], "ok")

    def test_without_privilege_it_fails_and_names_the_capability(self):
        support.need_root()
        done = support.unprivileged("doctor", "-j")
        self.assertEqual(done.returncode, 1)
        missing = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        self.assertEqual(missing["cap_net_raw"]["status"], "fail")
        self.assertIn("setcap", missing["cap_net_raw"]["fix"])
        # What it may not read is no reason to fail.
        for layer in ("netfilter", "conntrack", "ipsec"):
            self.assertEqual(missing[f"output {layer}"]["status"], "warn")
            self.assertIn("setcap", missing[f"output {layer}"]["fix"])


if __name__ == "__main__":
    unittest.main()
