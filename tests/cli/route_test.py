#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`cowire route` against iproute2 and the kernel in a private network namespace."""
import itertools
import json
import os
import select
import socket
import struct
import sys
import time
import unittest

import support

PEER_MAC = "02:00:00:00:00:aa"

WORLD = f"""
link add u0 type veth peer name p0
link add u1 type veth peer name p1
link set u0 address 02:00:00:00:00:01
link set u0 up
link set u1 up
link set p0 up
link set p1 up
addr add 10.0.0.1/24 dev u0
addr add 10.1.0.1/24 dev u1
addr add fd00::1/64 dev u0 nodad
addr add fd00:1::1/64 dev u1 nodad
neigh add 10.0.0.2 lladdr {PEER_MAC} dev u0
neigh add fd00::2 lladdr {PEER_MAC} dev u0
route add default via 10.0.0.2
-6 route add default via fd00::2
route add 20.0.0.0/24 nexthop via 10.0.0.9 weight 2 nexthop via 10.1.0.9
-6 route add 2001:db8::/32 nexthop via fd00::9 weight 2 nexthop via fd00:1::9
route add unreachable 30.0.0.0/24
route add prohibit 30.0.1.0/24
route add blackhole 30.0.2.0/24
-6 route add unreachable 2001:dead::/32
route add 31.0.0.0/24 via inet6 fd00::7 dev u0
route add 32.0.0.0/24 via 10.1.0.3 mtu 1300
-6 route add 2600:1::/32 via fd00:1::3 mtu 1400 src fd00:1::1
route add 33.0.0.0/24 via 10.1.0.3 table 100
route add 35.0.0.0/24 via 10.1.0.4 src 10.0.0.1 table 101
route add 36.0.0.0/24 via 10.1.0.5 tos 0x10
route add 239.7.0.0/16 dev u1
route add 239.8.0.0/16 via 10.1.0.99 metric 9
route add multicast 239.9.0.0/16 dev u0
rule add fwmark 7 lookup 100
rule add from 10.1.0.1 lookup 101
rule add to 34.0.0.0/24 prohibit
rule add uidrange 4000-4000 lookup 100
rule add to 35.0.0.0/24 ipproto udp dport 5000 lookup 101
"""

QUERIES = """
8.8.8.8
8.8.8.8 from 10.0.0.1
8.8.8.8 oif u1
8.8.8.8 mark 9
8.8.8.8 uid 4000
33.0.0.1
33.0.0.1 mark 7
33.0.0.1 mark 0x7 from 10.1.0.1
33.0.0.1 uid 4000
35.0.0.9 from 10.1.0.1
35.0.0.9 ipproto udp dport 5000
35.0.0.9 ipproto udp sport 5 dport 5001
36.0.0.1
36.0.0.1 tos 0x10
31.0.0.1
32.0.0.1
10.0.0.1
10.1.0.1
127.0.0.1
10.0.0.255
10.1.0.77
2600::1
2600::1 oif u0
2600:1::5
fd00::1
fd00:1::5
::1
""".split(
    "\n"
)

REFUSED = ["30.0.0.1", "30.0.1.1", "30.0.2.1", "34.0.0.1", "2001:dead::1"]

ASK_KERNEL = """
import errno, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
try:
    socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (sys.argv[1], 9))
    print("sent")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


class RouteTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.need_root()
        cls.world = support.World("routes")
        cls.addClassCleanup(cls.world.close)
        for command in filter(None, WORLD.split("\n")):
            cls.world.ip("routes", command)
        cls.world.settle("routes")

    def cowire(self, *words, **options):
        return self.world.cowire("routes", *words, **options)

    def get(self, query, check=0):
        answer = json.loads(self.cowire("route", "get", *query.split(), "-j", check=check).stdout)
        self.assertEqual(len(answer), 1)
        return answer[0]


class Get(RouteTest):
    def test_answers_in_the_keys_and_values_of_ip(self):
        for query in filter(None, QUERIES):
            with self.subTest(query):
                expected = self.world.ip_json("routes", f"route get {query}")[0]
                answer = self.get(query)
                self.assertIn("cowire", answer)
                self.assertEqual({key: answer[key] for key in answer if key != "cowire"}, expected)

    def test_a_refusal_is_the_errno_of_a_sendto(self):
        for destination in REFUSED:
            with self.subTest(destination):
                errno_name = self.world.exec(
                    "routes", sys.executable, "-c", ASK_KERNEL, destination, check=0
                ).stdout.strip()
                self.assertEqual(
                    self.get(destination, check=2), {"dst": destination, "error": errno_name}
                )

    def test_a_multipath_answer_lists_all_members_with_their_weights(self):
        for destination, gateways in (
            ("20.0.0.5", {"10.0.0.9": 2, "10.1.0.9": 1}),
            ("2001:db8::5", {"fd00::9": 2, "fd00:1::9": 1}),
        ):
            with self.subTest(destination):
                answer = self.get(destination)
                self.assertEqual(
                    {hop["gateway"]: hop["weight"] for hop in answer["nexthops"]}, gateways
                )
                self.assertIn(answer["gateway"], gateways)
                chosen = [
                    hop["dev"] for hop in answer["nexthops"] if hop["gateway"] == answer["gateway"]
                ]
                self.assertEqual(chosen, [answer["dev"]])

    def test_the_fast_path_shows_the_frame_it_would_send(self):
        answer = self.get("8.8.8.8")["cowire"]
        self.assertEqual(answer["egress"], "u0")
        self.assertEqual(answer["destination_mac"], PEER_MAC)
        header = bytes.fromhex(answer["header_template"])
        self.assertEqual(answer["payload_offset"], 14 + 20 + 8)
        self.assertEqual(len(header), answer["payload_offset"])
        self.assertEqual(header[:14].hex(), "0200000000aa0200000000010800")
        self.assertEqual(header[14], 0x45)
        self.assertEqual(socket.inet_ntoa(header[26:30]), "10.0.0.1")
        six = self.get("2600::1")["cowire"]
        self.assertEqual(six["payload_offset"], 14 + 40 + 8)
        self.assertEqual(
            struct.unpack("!H", bytes.fromhex(six["header_template"])[12:14]), (0x86DD,)
        )

    def test_what_the_fast_path_cannot_do_is_named(self):
        for destination, reason in (
            ("10.0.0.1", "local_destination"),
            ("10.0.0.255", "broadcast_destination"),
            ("10.1.0.77", "neighbour_unresolved"),
        ):
            with self.subTest(destination):
                answer = self.get(destination)["cowire"]
                self.assertEqual(answer["divert"], reason)
                self.assertTrue(answer["text"])

    def test_a_group_is_sent_to_at_its_own_address_unless_this_host_gets_a_copy(self):
        for query, mac, hops in (
            ("239.1.130.7", "01:00:5e:01:82:07", 1),
            ("239.1.130.7 multicast_ttl 9", "01:00:5e:01:82:07", 9),
            ("224.0.0.1 multicast_loop 0", "01:00:5e:00:00:01", 1),
            ("ff3e::1:2 multicast_interface u0", "33:33:00:01:00:02", 1),
        ):
            with self.subTest(query):
                answer = self.get(query)["cowire"]
                self.assertEqual(answer["egress"], "u0")
                self.assertEqual(answer["destination_mac"], mac)
                at = 22 if query[0] == "2" else 21
                self.assertEqual(bytes.fromhex(answer["header_template"])[at], hops)
        named = self.get("239.1.2.3 multicast_interface u1")
        self.assertEqual((named["dev"], named["cowire"]["egress"]), ("u1", "u1"))
        # All hosts are members.
        self.assertEqual(self.get("224.0.0.1")["cowire"]["divert"], "multicast_member")
        for words, what in (
            ("multicast_ttl 256", "256"),
            ("multicast_loop 2", "2"),
            ("multicast_interface nosuch", "nosuch"),
        ):
            refused = self.cowire("route", "get", "239.1.2.3", *words.split(), check=2)
            self.assertIn(what, refused.stderr)

    def test_text_has_the_answer_of_ip_and_a_line_of_ours(self):
        text = self.cowire("route", "get", "8.8.8.8", check=0).stdout.splitlines()
        self.assertEqual(text[0], "8.8.8.8 via 10.0.0.2 dev u0 src 10.0.0.1 uid 0")
        self.assertIn(PEER_MAC, text[-1])

    def test_text_has_marks_as_ip_prints_them(self):
        for mark in ("9", "15", "16", "0x12c", "0xffffffff"):
            query = ["route", "get", "8.8.8.8", "mark", mark]
            theirs = self.world.exec("routes", "ip", *query, check=0).stdout.splitlines()[0]
            mine = self.cowire(*query, check=0).stdout.splitlines()[0]
            self.assertEqual(mine.split(), theirs.split())

    def test_an_ipv4_mapped_destination_is_the_ipv4_host(self):
        for mapped, plain in (
            ("::ffff:8.8.8.8", "8.8.8.8"),
            ("::ffff:33.0.0.1 mark 7", "33.0.0.1 mark 7"),
            ("::ffff:35.0.0.9 from ::ffff:10.1.0.1", "35.0.0.9 from 10.1.0.1"),
        ):
            self.assertEqual(self.get(mapped), self.get(plain))

    def test_a_zone_is_the_device_of_the_look_up(self):
        for device in ("u0", "u1"):
            answer = self.get(f"fe80::2%{device}")
            self.assertEqual(answer, self.get(f"fe80::2 oif {device}"))
            self.assertEqual(answer["dev"], device)
            # As udpv6_sendmsg has it: the scope id goes before the bound device.
            self.assertEqual(answer, self.get(f"fe80::2%{device} oif u0"))

    def test_a_socket_that_the_control_group_binds_and_marks_is_asked_for(self):
        group = support.BindingControlGroup(self.world.names["routes"], "u1", mark=7)
        self.addCleanup(group.close)

        def inside(query):
            return json.loads(group.cowire("route", "get", *query.split(), "-j").stdout)[0]

        self.assertEqual(inside("8.8.8.8"), self.get("8.8.8.8 oif u1 mark 7"))
        self.assertEqual(inside("8.8.8.8")["dev"], "u1")
        self.assertEqual(inside("8.8.8.8 oif u0 mark 9"), self.get("8.8.8.8 oif u0 mark 9"))


class OutputPath(RouteTest):
    def setUp(self):
        super().setUp()
        support.need_nft()

    def nft(self, command):
        self.world.exec("routes", "nft", command, check=0)

    def test_names_the_rule_that_keeps_a_flow_from_the_fast_path(self):
        self.assertEqual(self.get("8.8.8.8")["cowire"]["output"], "untouched")
        self.nft("add table inet guard")
        self.addCleanup(self.nft, "flush ruleset")
        self.nft("add chain inet guard out { type filter hook output priority 0; }")
        self.nft("add rule inet guard out oifname u1 drop")
        self.nft("add rule inet guard out udp sport 9000 drop")
        self.assertEqual(self.get("8.8.8.8 sport 8001")["cowire"]["output"], "untouched")
        answer = self.get("8.8.8.8 sport 9000")["cowire"]
        self.assertEqual(answer["divert"], "netfilter")
        self.assertRegex(
            answer["obstacle"], r"^table inet guard, chain out, rule [0-9]+: drop$"
        )
        text = self.cowire("route", "get", "8.8.8.8", "sport", "9000", check=0).stdout
        self.assertIn(answer["obstacle"], text)

    def test_tells_that_a_flow_needs_an_entry_of_connection_tracking(self):
        self.nft("add table ip guard")
        self.addCleanup(self.nft, "flush ruleset")
        self.nft("add chain ip guard in { type filter hook input priority 0; }")
        self.nft("add rule ip guard in ct state invalid drop")
        answer = self.get("8.8.8.8")["cowire"]
        self.assertEqual(answer["output"], "tracked")
        self.assertEqual(answer["egress"], "u0")

    def test_tells_destinations_and_ports_apart_as_rules_do(self):
        self.nft("add table inet guard")
        self.addCleanup(self.nft, "flush ruleset")
        self.nft("add chain inet guard out { type filter hook output priority 0; }")
        self.nft("add set inet guard some { type ipv4_addr; flags interval; }")
        self.nft("add element inet guard some { 8.8.8.8, 8.8.9.0/24 }")
        self.nft("add rule inet guard out ip daddr @some drop")
        self.nft("add rule inet guard out ip daddr 8.8.10.1 udp dport 53 drop")
        for destination in ("8.8.8.8", "8.8.9.200", "8.8.10.1 ipproto udp dport 53"):
            answer = self.get(destination)["cowire"]
            self.assertEqual(answer["divert"], "netfilter", destination)
            self.assertRegex(answer["obstacle"], r"chain out, rule [0-9]+: drop$")
        for destination in ("8.8.8.7", "8.8.10.0", "8.8.10.1 ipproto udp dport 54"):
            self.assertEqual(self.get(destination)["cowire"].get("output"), "untouched", destination)
        answer = self.get("8.8.10.1")["cowire"]
        self.assertEqual(answer["divert"], "netfilter")
        self.assertEqual(answer["diverted_ports"], ["53"])


class Batch(RouteTest):
    def test_gives_one_array_a_query_in_order(self):
        queries = ["8.8.8.8", "# a comment", "", "route get 33.0.0.1 mark 7", "30.0.0.1"]
        path = support.scratch_file(self, "\n".join(queries) + "\n")
        lines = self.cowire("route", "get", "-b", path, "-j", check=0).stdout.splitlines()
        answers = [json.loads(line)[0] for line in lines]
        self.assertEqual([answer["dst"] for answer in answers], ["8.8.8.8", "33.0.0.1", "30.0.0.1"])
        self.assertEqual(answers[0], self.get("8.8.8.8"))
        self.assertEqual(answers[2]["error"], "EHOSTUNREACH")

    def test_reads_standard_input_and_goes_on_after_a_bad_line(self):
        done = self.cowire(
            "route", "get", "-b", "-", "-j", stdin="8.8.8.8\nnonsense\n10.0.0.1\n", check=2
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([len(answer) for answer in answers], [1, 0, 1])
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertIn("2: destination 'nonsense'", done.stderr)


class Show(RouteTest):
    def test_lists_the_routes_of_main_as_ip_does(self):
        mine = json.loads(self.cowire("route", "show", "-j", check=0).stdout)
        self.assertTrue(all("fast" in route.pop("cowire") for route in mine))
        theirs = self.world.ip_json("routes", "route show") + self.world.ip_json(
            "routes", "-6 route show"
        )

        def order(route):
            return json.dumps(route, sort_keys=True)

        self.assertEqual(sorted(mine, key=order), sorted(theirs, key=order))

    def test_takes_a_table_by_number_or_name(self):
        mine = json.loads(self.cowire("route", "show", "table", "100", "-j", check=0).stdout)
        self.assertEqual([route["dst"] for route in mine], ["33.0.0.0/24"])
        local = json.loads(self.cowire("route", "show", "table", "local", "-j", check=0).stdout)
        self.assertIn("10.0.0.1", [route["dst"] for route in local])

    def test_tells_which_routes_the_fast_path_serves(self):
        routes = {
            route["dst"]: route["cowire"]
            for route in json.loads(self.cowire("route", "show", "-j").stdout)
        }
        self.assertEqual(
            routes["10.0.0.0/24"], {"fast": True, "egress": ["u0"], "audit": "agrees"}
        )
        self.assertEqual(routes["30.0.0.0/24"]["divert"], "rejected")
        self.assertEqual(routes["32.0.0.0/24"]["divert"], "neighbour_unresolved")
        # Routes of groups: nobody asks the kernel about those.
        self.assertEqual(routes["239.7.0.0/16"], {"fast": True, "egress": ["u1"]})
        self.assertEqual(routes["239.8.0.0/16"]["divert"], "neighbour_unresolved")
        self.assertEqual(routes["239.9.0.0/16"], {"fast": True, "egress": ["u0"]})


class Monitor(unittest.TestCase):
    def setUp(self):
        support.need_root()
        self.world = support.World("watch")
        self.addCleanup(self.world.close)
        self.gateway = 2
        self.pending = b""  # What the monitor has told and nobody has read.
        for command in (
            "link add u0 type veth peer name p0",
            "link set u0 up",
            "link set p0 up",
            "addr add 10.0.0.1/24 dev u0",
            "route add 50.0.0.0/24 via 10.0.0.2",
        ):
            self.world.ip("watch", command)

    def change_until_seen(self, monitor):
        """The monitor does not say when it is ready: changes the route again until it tells."""
        end = time.monotonic() + support.DEADLINE_S
        while time.monotonic() < end:
            self.gateway = self.gateway % 200 + 3
            self.world.ip("watch", f"route replace 50.0.0.0/24 via 10.0.0.{self.gateway}")
            while line := self.read_line(monitor, 0.3):
                change = json.loads(line)
                if change["event"] == "route" and change.get("dst") == "50.0.0.0/24":
                    return change
        raise AssertionError("no line about the replaced route")

    def read_line(self, process, wait_s):
        """Empty where none comes in time; several that come at once are all read."""
        while b"\n" not in self.pending:
            ready, _, _ = select.select([process.stdout], [], [], wait_s)
            part = os.read(process.stdout.fileno(), 65536) if ready else b""
            if not part:
                return ""
            self.pending += part
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode()

    def test_a_replaced_route_is_a_line_with_both_time_stamps(self):
        with support.ended(
            self.world.start("watch", support.COWIRE, "route", "monitor", "-j")
        ) as monitor:
            change = self.change_until_seen(monitor)
            self.assertTrue(change["gateway"].startswith("10.0.0."))
            self.assertEqual(change["dev"], "u0")
            self.assertGreater(change["version"], 0)
            self.assertGreaterEqual(change["publish_time_ns"], change["event_time_ns"])
            self.assertLess(abs(change["publish_time_ns"] / 1e9 - time.time()), support.DEADLINE_S)
            _, errors = support.interrupt(monitor)
            self.assertEqual((monitor.returncode, errors), (0, ""))

    def next_output(self, monitor, layer):
        """The next line that tells what a layer of the output path has come to. (While a ruleset is
        read that was replaced, one says so.)"""
        end = time.monotonic() + support.DEADLINE_S
        while time.monotonic() < end:
            line = self.read_line(monitor, 0.3)
            change = json.loads(line) if line else {}
            told = change.get("event") == "output" and change["layer"] == layer
            if told and "is being read" not in change["detail"]:
                return change
        raise AssertionError(f"no line about {layer}")

    def test_each_layer_of_the_output_path_that_changes_is_a_line(self):
        support.need_nft()
        with support.ended(
            self.world.start("watch", support.COWIRE, "route", "monitor", "-j")
        ) as monitor:
            version = self.change_until_seen(monitor)["version"]
            self.world.ip("watch", "xfrm policy add dst 192.0.2.0/24 dir out action block")
            change = self.next_output(monitor, "ipsec")
            self.assertEqual(change["detail"], "1 output policy")
            self.assertEqual(change["action"], "changed")
            self.assertGreater(change["version"], version)
            self.assertGreaterEqual(change["publish_time_ns"], change["event_time_ns"])
            self.assertLess(abs(change["publish_time_ns"] / 1e9 - time.time()), support.DEADLINE_S)
            self.world.ip("watch", "xfrm policy setdefault out block")
            self.assertIn("blocked", self.next_output(monitor, "ipsec")["detail"])

            rules = (
                "table ip t { chain in { type filter hook input priority 0; ct state new accept; }\n"
                "chain out { type filter hook output priority 0; udp dport 9 drop; }\n}\n"
            )
            self.world.exec("watch", "nft", "-f", "-", stdin=rules, check=0)
            detail = self.next_output(monitor, "netfilter")["detail"]
            self.assertIn("1 table, 2 rules, generation ", detail)
            self.assertEqual(self.next_output(monitor, "conntrack")["detail"], "IPv4 tracked")
            self.world.exec("watch", "nft", "flush", "ruleset", check=0)
            detail = self.next_output(monitor, "netfilter")["detail"]
            self.assertIn("0 tables, 0 rules, generation ", detail)
            detail = self.next_output(monitor, "conntrack")["detail"]
            self.assertEqual(detail, "no connection is tracked")

            # What is not announced is looked for.
            self.world.ip("watch", "link add v0 type veth peer name v1")
            devices = {self.next_output(monitor, "traffic_control")["dev"] for _ in range(2)}
            self.assertEqual(devices, {"v0", "v1"})
            tbf = "qdisc replace dev u0 root tbf rate 1mbit burst 10kb latency 10ms"
            if self.world.exec("watch", "tc", *tbf.split()).returncode == 0:
                change = self.next_output(monitor, "traffic_control")
                self.assertEqual(change["dev"], "u0")
                self.assertIn("tbf", change["detail"])

    def test_a_line_for_readers_names_the_layer_too(self):
        with support.ended(
            self.world.start("watch", support.COWIRE, "route", "monitor")
        ) as monitor:
            text, verbs = "", itertools.cycle(("add", "delete"))
            end = time.monotonic() + support.DEADLINE_S
            while "output ipsec" not in text and time.monotonic() < end:
                action = " action block" if (verb := next(verbs)) == "add" else ""
                self.world.ip("watch", f"xfrm policy {verb} dst 192.0.2.0/24 dir out{action}")
                while "output ipsec" not in text and (text := self.read_line(monitor, 0.3)):
                    continue
            self.assertRegex(
                text,
                r"^\S+ \+ output ipsec [01] output polic(y|ies), "
                r"published after \d+ us as version \d+$",
            )


if __name__ == "__main__":
    unittest.main()
