#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`cowire send` and `cowire run`, end to end over a veth pair between two network namespaces."""
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import support

PORT = 9000
PEER_MAC = support.link_address(1, 2)

QUIET_S = 0.5

# Prints "ready", then a line for every datagram: length, first 16 bytes in hexadecimal, source
# address and port. Told to end (end of its standard input) it waits until nothing comes any more.
RECEIVER = f"""
import select, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
receiver = socket.socket(family, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
receiver.bind(socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), family)[0][4])
print("ready", flush=True)
ending = False
while True:
    sources, wait_s = ([receiver], {QUIET_S}) if ending else ([receiver, sys.stdin], None)
    ready, _, _ = select.select(sources, [], [], wait_s)
    if not ready:
        break
    if receiver in ready:
        data, source = receiver.recvfrom(65536)[:2]
        print(len(data), data[:16].hex(), source[0], source[1])
    else:
        ending = True
"""

# Sends one datagram as any program would.
PLAIN_SENDER = """
import socket, sys
to = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_DGRAM)[0]
socket.socket(*to[:3]).sendto(b"plain", to[4])
"""


class SendTest(unittest.TestCase):
    def setUp(self):
        support.need_root()
        self.world = support.World("a", "b")
        self.addCleanup(self.world.close)
        self.world.connect("a", "u0", "b", "u0", 1)

    def receiver(self, address="10.77.1.2", port=PORT):
        process = self.world.start(
            "b", sys.executable, "-c", RECEIVER, address, port, stdin=subprocess.PIPE
        )
        self.addCleanup(self.collect, process)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    @staticmethod
    def collect(process):
        """Ends a receiver; all that it got, as [length, prefix, source address, source port]."""
        if process.stdout.closed:
            return []
        output, _ = process.communicate(timeout=support.DEADLINE_S)
        return [line.split() for line in output.splitlines()]

    def start_sending(self, *words, prefix=()):
        process = self.world.start(
            *("a", *prefix, support.COWIRE, "send"),
            *("--to", f"10.77.1.2:{PORT}", "--rate", 1000, *words),
        )
        statistics = "/sys/class/net/u0/statistics/tx_packets"
        read = lambda: int(self.world.exec("a", "cat", statistics, check=0).stdout)
        start = read()
        support.wait_until(lambda: read() > start + 50, "datagrams on u0")
        return process

    def let_neighbours_never_fail(self):
        for name, value in (("mcast_solicit", 100000), ("unres_qlen_bytes", 1 << 30)):
            self.world.exec("a", "sysctl", "-qw", f"net.ipv4.neigh.u0.{name}={value}", check=0)

    def send(self, *words, check=0, **options):
        done = self.world.cowire("a", "send", *words, "-j", check=check, **options)
        return json.loads(done.stdout)

    def assert_totals(self, report, submitted):
        self.assertEqual(report["submitted"], submitted)
        accounted = (
            sum(report["transmitted"].values())
            + report["kernel_path"]
            + sum(report["refused"].values())
            + report["lost_in_device"]
            + report["shed"]
        )
        self.assertEqual(accounted, submitted, report)
        self.assertEqual(sum(core["taken"] for core in report["cores"]), submitted - report["shed"])
        for core in report["cores"]:
            self.assertLessEqual(core["flow_hits"] + core["flow_misses"], core["taken"])
        self.assertEqual(report["cores_in_use"], len(report["cores"]), report["cores_reason"])


class Send(SendTest):
    def test_flows_that_are_tracked_are_counted_and_fast_after_their_first_datagram(self):
        support.need_nft()
        self.world.ip("a", f"neigh add 10.77.1.2 lladdr {PEER_MAC} dev u0 nud permanent")
        rules = "table ip t {\nchain i { type filter hook input priority 0; ct state new drop; }\n}\n"
        self.world.exec("a", "nft", "-f", "-", stdin=rules, check=0)
        words = ("--to", f"10.77.1.2:{PORT}", "--count", 50, "--rate", 50)
        report = json.loads(self.world.cowire("a", "send", *words, "-j", check=0).stdout)
        self.assertEqual(report["refused"], {})
        self.assertGreaterEqual(report["tracking"]["asked"], 1)
        self.assertEqual(report["tracking"]["fast"], 1)
        self.assertEqual(list(report["diverted"]), ["conntrack_new"])
        self.assertGreater(report["transmitted"]["u0"], report["kernel_path"])
        text = self.world.cowire("a", "send", *words, check=0).stdout
        self.assertIn("tracked        1 of 1 flows fast", text)

    def test_flows_that_repeat_are_remembered_and_each_datagram_is_counted_as_known_or_not(self):
        self.world.ip("a", f"neigh add 10.77.1.2 lladdr {PEER_MAC} dev u0 nud permanent")
        report = self.send("--to", f"10.77.1.2:{PORT}", "--count", 500, "--rate", 5000)
        self.assert_totals(report, 500)
        for core in report["cores"]:
            self.assertGreater(core["flow_hits"], 0, core)
            self.assertEqual(core["flow_hits"] + core["flow_misses"], core["taken"], core)
            self.assertEqual(core["flow_pauses"], 0, core)

    def test_a_layer_that_the_file_ignores_is_passed_by_warned_of_and_reported(self):
        support.need_nft()
        self.world.ip("a", f"neigh add 10.77.1.2 lladdr {PEER_MAC} dev u0 nud permanent")
        rules = "table ip t {\nchain o { type filter hook output priority 0; policy drop; }\n}\n"
        self.world.exec("a", "nft", "-f", "-", stdin=rules, check=0)
        words = ("--to", f"10.77.1.2:{PORT}", "--count", 50, "-j")
        obeyed = self.world.cowire("a", "send", *words, check=1)
        report = json.loads(obeyed.stdout)
        self.assertEqual(report["refused"], {"EPERM": 50})
        self.assertEqual(report["output_ignored"], [])
        self.assertNotIn("output path", obeyed.stderr)

        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write('[output]\nnetfilter = "ignore"\n')
            file.flush()
            ignored = self.world.cowire("a", "send", *words, "--config", file.name, check=0)
        report = json.loads(ignored.stdout)
        self.assertEqual(report["transmitted"], {"u0": 50})
        self.assertEqual(report["output_ignored"], ["netfilter", "conntrack"])
        self.assertIn("ignored on the output path: netfilter (", ignored.stderr)

    def test_generated_payloads_arrive_numbered_stamped_and_counted(self):
        self.world.ip("a", f"neigh add 10.77.1.2 lladdr {PEER_MAC} dev u0 nud permanent")
        receiver = self.receiver()
        before = time.time_ns()
        report = self.send(
            "--to",
            f"10.77.1.2:{PORT}",
            "--count",
            500,
            "--rate",
            1000,
            "--size",
            100,
            "--source-port",
            7001,
        )
        self.assert_totals(report, 500)
        self.assertEqual(report["transmitted"], {"u0": 500})
        self.assertIn(report["mode"]["u0"]["mode"], ("copy", "generic"))
        self.assertTrue(report["mode"]["u0"]["reason"])
        self.assertGreater(report["elapsed_s"], 0.45)
        self.assertGreater(report["audit"]["audited"], 0)
        self.assertEqual(report["audit"]["mismatched"], 0, report["audit"])
        got = self.collect(receiver)
        self.assertEqual(
            {(length, source, port) for length, _, source, port in got},
            {("100", "10.77.1.1", "7001")},
        )
        prefixes = [struct.unpack("!QQ", bytes.fromhex(prefix)) for _, prefix, _, _ in got]
        self.assertEqual(sorted(number for number, _ in prefixes), list(range(500)))
        self.assertTrue(all(before <= stamp <= time.time_ns() for _, stamp in prefixes))

    def test_what_there_is_no_frame_for_is_counted_by_the_policy_asked_for(self):
        payloads, ports = 5000, range(PORT, PORT + 32)
        datagrams = payloads * len(ports)
        # The kernel path takes a system call for each datagram, submitting 32 of them takes none.
        flood = ["--count", payloads, "--size", 16, "--mode", "kernel"]
        for port in ports:
            flood += ["--to", f"10.77.1.2:{port}"]
        for policy, given_up in (("fail", "would_block"), ("shed-oldest", "shed")):
            report = self.send(*flood, "--when-full", policy)
            self.assert_totals(report, datagrams - report["would_block"])
            self.assertGreater(report[given_up], 0, policy)
            self.assertLess(report[given_up], datagrams, policy)
            other = "shed" if given_up == "would_block" else "would_block"
            self.assertEqual(report[other], 0, policy)

    def test_each_payload_goes_to_every_destination(self):
        receivers = [
            self.receiver(port=PORT),
            self.receiver(port=PORT + 1),
            self.receiver("fd77:1::2"),
        ]
        text = f"10.77.1.2:{PORT + 1}  # the second\n[fd77:1::2]:{PORT}\n"
        path = support.scratch_file(self, text)
        report = self.send(
            "--to", f"10.77.1.2:{PORT}", "--to-file", path, "--count", 20, "--rate", 3000
        )
        self.assert_totals(report, 60)
        for receiver in receivers:
            numbers = [int(prefix[:16], 16) for _, prefix, _, _ in self.collect(receiver)]
            self.assertEqual(sorted(numbers), list(range(20)))

    def test_a_given_payload_is_sent_once_as_it_is(self):
        receiver = self.receiver()
        report = self.send("--to", f"10.77.1.2:{PORT}", "--stdin", stdin="hello")
        self.assert_totals(report, 1)
        path = support.scratch_file(self, "payload")
        self.assert_totals(self.send("--to", f"10.77.1.2:{PORT}", "--payload-file", path), 1)
        self.assertEqual(
            [(length, bytes.fromhex(data)) for length, data, _, _ in self.collect(receiver)],
            [("5", b"hello"), ("7", b"payload")],
        )

    def test_the_rate_is_kept(self):
        """A busy machine may only make it slower; that it is no slower at rest, pacer_test shows."""
        words = ["--to", f"10.77.1.2:{PORT}", "--rate", 2000]
        report = self.send(*words, "--count", 4000)
        self.assertEqual(report["submitted"], 4000)
        self.assertGreater(report["elapsed_s"], 1.9)
        report = self.send(*words, "--duration", 1)
        self.assertGreaterEqual(report["elapsed_s"], 1)
        self.assertLess(report["submitted"], 2000 * report["elapsed_s"] + 200)

    def test_kernel_mode_sends_through_the_kernel_path(self):
        receiver = self.receiver()
        report = self.send(
            "--to", f"10.77.1.2:{PORT}", "--count", 50, "--rate", 2000, "--mode", "kernel"
        )
        self.assert_totals(report, 50)
        self.assertEqual((report["kernel_path"], report["transmitted"].get("u0", 0)), (50, 0))
        self.assertEqual(len(self.collect(receiver)), 50)

    def test_what_the_kernel_refuses_is_counted_by_its_errno(self):
        self.world.ip("a", "route add unreachable 30.0.0.0/24")
        report = self.send("--to", f"30.0.0.1:{PORT}", "--count", 10, "--rate", 1000, check=1)
        self.assert_totals(report, 10)
        self.assertEqual(report["refused"], {"EHOSTUNREACH": 10})

    def test_an_ipv4_mapped_destination_and_source_leave_as_ipv4(self):
        receiver = self.receiver()
        report = self.send(
            *("--to", f"[::ffff:10.77.1.2]:{PORT}", "--source", "::ffff:10.77.1.1"),
            *("--source-port", 7001, "--count", 3),
        )
        self.assert_totals(report, 3)
        got = {(source, port) for _, _, source, port in self.collect(receiver)}
        self.assertEqual(got, {("10.77.1.1", "7001")})

    # Prints "ready", then for each datagram to the group: its length and TTL.
    MEMBER = f"""
import socket, struct, sys
hearing = socket.socket(type=socket.SOCK_DGRAM)
hearing.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
hearing.bind(("239.1.2.3", {PORT}))
device = socket.if_nametoindex(sys.argv[1])
request = struct.pack("=4s4si", socket.inet_aton("239.1.2.3"), bytes(4), device)
hearing.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
print("ready", flush=True)
while True:
    data, [(_, _, ttl)], _, _ = hearing.recvmsg(2048, 64)
    print(len(data), int.from_bytes(ttl[:4], sys.byteorder), flush=True)
"""

    def member(self, host):
        process = self.world.start(host, sys.executable, "-c", self.MEMBER, "u0")
        self.enterContext(support.ended(process))
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def test_options_for_groups_are_those_of_a_socket(self):
        there = self.member("b")
        words = ("--to", f"239.1.2.3:{PORT}", "--count", 1, "--multicast-interface", "u0")
        report = self.send(*words)
        self.assertEqual(report["transmitted"], {"u0": 1})
        self.assertEqual(there.stdout.readline().split()[1], "1")
        report = self.send(*words, "--multicast-ttl", 7, "--ttl", 99)
        self.assertEqual(report["transmitted"], {"u0": 1})
        self.assertEqual(there.stdout.readline().split()[1], "7")
        # A member here hears a copy, which is the kernel's to make, unless the sender wants none.
        here = self.member("a")
        self.assertEqual(self.send(*words)["diverted"], {"multicast_member": 1})
        self.assertEqual(here.stdout.readline().split()[1], "1")
        self.assertEqual(there.stdout.readline().split()[1], "1")
        report = self.send(*words, "--no-multicast-loop", "--size", 100)
        self.assertEqual(report["transmitted"], {"u0": 1})
        self.assertEqual(there.stdout.readline().split()[0], "100")
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write('[multicast]\ninterface = "u0"\nttl = 3\nloop = false\n')
            file.flush()
            plain = ("--to", f"239.1.2.3:{PORT}", "--count", 1, "--config", file.name)
            self.assertEqual(self.send(*plain)["transmitted"], {"u0": 1})
            self.assertEqual(there.stdout.readline().split()[1], "3")
            report = self.send(*plain, "--multicast-ttl", 4)
            self.assertEqual(report["transmitted"], {"u0": 1})
            self.assertEqual(there.stdout.readline().split()[1], "4")
        # Of all these the member here has heard the one.
        self.assertEqual(self.send(*words)["diverted"], {"multicast_member": 1})
        self.assertNotEqual(here.stdout.readline().split()[0], "100")

    def test_broadcast_needs_to_be_permitted(self):
        words = ("--to", f"10.77.1.255:{PORT}", "--count", 1)
        self.assertEqual(self.send(*words, check=1)["refused"], {"EACCES": 1})
        receiver = self.receiver("0.0.0.0")
        self.assertEqual(self.send(*words, "--broadcast")["kernel_path"], 1)
        self.assertEqual(len(self.collect(receiver)), 1)

    def test_a_zone_or_a_device_leads_to_a_link_local_address(self):
        self.world.ip("b", "addr add fe80::77/64 dev u0 nodad")
        self.world.ip("a", f"neigh add fe80::77 lladdr {PEER_MAC} dev u0 nud permanent")
        self.world.settle("a")
        receiver = self.receiver("::")
        report = self.send("--to", f"[fe80::77%u0]:{PORT}", "--count", 2)
        self.assert_totals(report, 2)
        self.assertEqual(report["diverted"], {"scoped_destination": 2})
        for to in (f"[fe80::77%u0]:{PORT}", f"[fe80::77]:{PORT}"):
            report = self.send("--to", to, "--count", 2, "--device", "u0")
            self.assert_totals(report, 2)
            self.assertEqual(report["transmitted"], {"u0": 2}, report)
        self.assertEqual(len(self.collect(receiver)), 6)

    def test_a_long_payload_is_fragmented_by_the_kernel(self):
        receiver = self.receiver()
        report = self.send("--to", f"10.77.1.2:{PORT}", "--count", 5, "--rate", 100, "--size", 3000)
        self.assert_totals(report, 5)
        self.assertEqual(
            report["diverted"].get("exceeds_mtu", 0)
            + report["diverted"].get("neighbour_unresolved", 0),
            5,
        )
        self.assertEqual([length for length, *_ in self.collect(receiver)], ["3000"] * 5)

    def test_the_text_summary_names_the_interface(self):
        self.receiver()
        done = self.world.cowire("a", "send", "--to", f"10.77.1.2:{PORT}", "--count", 5, check=0)
        self.assertIn("submitted      5", done.stdout)
        self.assertIn("u0", done.stdout)
        self.assertEqual(done.stderr, "")

    def test_errors_from_the_network_are_counted_and_do_not_disturb_the_end(self):
        reports = [self.send("--to", f"10.77.1.2:{PORT}", "--count", 3) for _ in range(10)]
        for report in reports:
            self.assert_totals(report, 3)
        self.assertGreater(sum(report["errors_from_network"] for report in reports), 0)

    def test_a_progress_line_is_for_terminals_and_cleared_before_the_summary(self):
        # Read as text, a carriage return is a line's end.
        command = f"{support.COWIRE} send --to 10.77.1.2:{PORT} --duration 1.2 --rate 100"
        done = self.world.exec("a", "script", "-qec", command, "/dev/null", check=0)
        # A line a second, but for those in which it did not get a CPU.
        self.assertRegex(done.stdout, r"\n[1-9]\d* s  submitted \d+ \(\d+/s\)  u0 \d+")
        self.assertRegex(done.stdout, r"\n\x1b\[Ksubmitted      \d+ in")

    def test_a_port_that_somebody_holds_is_an_error_that_says_so(self):
        holder = self.world.start(
            "a", sys.executable, "-c", RECEIVER, "0.0.0.0", 7002, stdin=subprocess.PIPE
        )
        with support.ended(holder):
            self.assertEqual(holder.stdout.readline(), "ready\n")
            done = self.world.cowire(
                "a", "send", "--to", f"10.77.1.2:{PORT}", "--source-port", 7002, "--count", 1
            )
        self.assertEqual(done.returncode, 2, done)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn("7002", done.stderr)


class Signals(SendTest):
    def programs(self):
        return [
            link.get("xdp") for link in self.world.ip_json("a", "-d link show") if link.get("xdp")
        ]

    def test_an_interrupt_drains_prints_the_summary_and_exits_0(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number), support.ended(self.start_sending("-j")) as process:
                process.send_signal(number)
                output, errors = process.communicate(timeout=support.DEADLINE_S)
                self.assertEqual((process.returncode, errors), (0, ""))
                report = json.loads(output)
                self.assert_totals(report, report["submitted"])
                self.assertGreater(report["submitted"], 50)

    def test_a_hang_up_that_is_ignored_from_the_start_ends_nothing(self):
        prefix = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
        with support.ended(self.start_sending("-j", prefix=prefix)) as process:
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGUSR1)
            line = process.stderr.readline()  # It has had its turn, and goes on.
            self.assertIn("submitted", line)
            support.interrupt(process)
            self.assertEqual(process.returncode, 0)

    def test_totals_so_far_are_printed_when_asked_for(self):
        with support.ended(self.start_sending("-j")) as process:
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                process.send_signal(number)
                while not process.stderr.readline().startswith("submitted"):
                    self.assertIsNone(process.poll())
            output, _ = support.interrupt(process)
        self.assertEqual(process.returncode, 0)
        report = json.loads(output)
        self.assert_totals(report, report["submitted"])

    def test_an_interrupt_ends_what_waits_for_a_neighbour_that_never_answers(self):
        """More waits than the largest send buffer of a socket holds."""
        self.let_neighbours_never_fail()
        sending = self.world.start(
            "a", support.COWIRE, "send", "--to", f"10.77.1.99:{PORT}", "--size", 1400, "-j"
        )

        def full():
            shown = self.world.exec("a", "ss", "-uamn", check=0).stdout
            memory = re.findall(r",t([0-9]+),tb([0-9]+),", shown)
            return any(int(used) >= int(limit) >= 32 << 20 for used, limit in memory)

        with support.ended(sending):
            support.wait_until(lambda: sending.poll() is not None or full(), "a full socket")
            output, errors = support.interrupt(sending)
        self.assertEqual((sending.returncode, errors), (0, ""))
        report = json.loads(output)
        self.assert_totals(report, report["submitted"])
        self.assertGreater(report["refused"].get("ECANCELED", 0), 0, report)

    def test_the_end_does_not_wait_for_a_neighbour_that_never_answers(self):
        """Without a signal: the time is over, and more waits than a send buffer holds."""
        self.let_neighbours_never_fail()
        words = ["--to", f"10.77.1.99:{PORT}", "--size", 1400, "--duration", 5]
        done = self.world.cowire("a", "send", *words, "-j", check=0)
        self.assertRegex(done.stderr, "[0-9]+ datagrams were still on the way 1000 ms after")
        report = json.loads(done.stdout)
        self.assert_totals(report, report["submitted"])
        self.assertGreater(report["refused"].get("ECANCELED", 0), 0, report)

    def test_a_kill_leaves_no_program_and_a_working_interface(self):
        with support.ended(self.start_sending()) as process:
            process.kill()
            process.wait()
        support.wait_until(lambda: not self.programs(), "the XDP program to go away")
        receiver = self.receiver()
        report = self.send("--to", f"10.77.1.2:{PORT}", "--count", 20, "--rate", 1000)
        self.assert_totals(report, 20)
        self.assertEqual(len(self.collect(receiver)), 20)


# Hands datagrams of 1400 bytes in until it is told to end, then asks for a flush, prints "flushing"
# and waits for the reply.
FLOOD = """
import select, socket, struct, sys
path, host, port = sys.argv[1:]
header = struct.Struct("<IBBHHHIQII")
client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
client.bind("")  # To a name of the kernel's choice.
client.connect(path)
to = struct.pack("=H", 4) + struct.pack("!H", int(port)) + socket.inet_aton(host) + bytes(12)
message = header.pack(0x31775763, 1, 1, 0, 1, 0, 1400, 0, 0, 0) + bytes(1400) + to
while not select.select([sys.stdin], [], [], 0)[0]:
    client.send(message)
client.send(header.pack(0x31775763, 1, 2, 0, 0, 0, 0, 1, 0, 0))
print("flushing", flush=True)
client.recv(128)
"""


class Intake(SendTest):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "intake.sock")

    def serve(self, *words):
        process = self.world.start("a", support.COWIRE, "run", "--intake", self.path, "-j", *words)
        support.wait_until(
            lambda: os.path.exists(self.path) or process.poll() is not None, "the intake socket"
        )
        return process

    def test_an_ipv4_mapped_destination_of_a_client_leaves_as_ipv4(self):
        receiver = self.receiver()
        with support.ended(self.serve()) as server:
            self.world.cowire(
                *("a", "send", "--via", self.path, "--to", f"[::ffff:10.77.1.2]:{PORT}"),
                *("--count", 3),
                check=0,
            )
            output, _ = support.interrupt(server)
        self.assert_totals(json.loads(output), 3)
        self.assertEqual({source for _, _, source, _ in self.collect(receiver)}, {"10.77.1.1"})

    def test_a_client_prints_the_totals_so_far_when_asked_for(self):
        with support.ended(self.serve()) as server:
            with support.ended(self.start_sending("--via", self.path, "-j")) as client:
                for number in (signal.SIGUSR1, signal.SIGUSR2):
                    client.send_signal(number)
                    lines = [client.stderr.readline().split() for _ in range(4)]
                    self.assertEqual(
                        [line[0] for line in lines],
                        ["submitted", "failed", "refused", "kernel"],
                    )
                    so_far = int(lines[0][1])
                    self.assertGreater(so_far, 50)
                output, errors = support.interrupt(client)
            self.assertEqual((client.returncode, errors), (0, ""))
            self.assertGreaterEqual(json.loads(output)["submitted"], so_far)
            support.interrupt(server)

    def test_a_scope_id_of_a_client_names_the_link(self):
        """The same address behind two links: plain sockets and the intake's take the one named."""
        self.world.ip("a", f"link add u1 type veth peer name u1 netns {self.world.names['b']}")
        for host, last in (("a", 1), ("b", 2)):
            for link in ("u0", "u1"):
                self.world.ip(host, f"addr add fe80::{last}/64 dev {link} nodad")
                self.world.ip(host, f"link set {link} up")
        receivers = {link: self.receiver(f"fe80::2%{link}") for link in ("u0", "u1")}
        with support.ended(self.serve()) as server:
            for link, count in (("u0", 3), ("u1", 5)):
                self.world.exec(
                    *("a", sys.executable, "-c", PLAIN_SENDER, f"fe80::2%{link}", PORT), check=0
                )
                self.world.cowire(
                    *("a", "send", "--via", self.path, "--to", f"[fe80::2%{link}]:{PORT}"),
                    *("--count", count),
                    check=0,
                )
            output, _ = support.interrupt(server)
        self.assert_totals(json.loads(output), 8)
        for link, count in (("u0", 3), ("u1", 5)):
            got = self.collect(receivers[link])
            self.assertEqual(len(got), count + 1, link)
            self.assertEqual(len({source for _, _, source, _ in got}), 1, got)

    def test_datagrams_of_several_clients_are_sent_and_counted(self):
        receiver = self.receiver()
        with support.ended(self.serve()) as server:
            clients = [
                self.world.start(
                    "a",  # Replies to a client reach it in the server's own namespace only.
                    support.COWIRE,
                    "send",
                    "--via",
                    self.path,
                    "--to",
                    f"10.77.1.2:{PORT}",
                    "--count",
                    100,
                    "--rate",
                    1000,
                    "--source-port",
                    7010 + i,
                    "-j",
                )
                for i in range(3)
            ]
            for client in clients:
                output, errors = client.communicate(timeout=support.DEADLINE_S)
                self.assertEqual((client.returncode, errors), (0, ""))
                report = json.loads(output)
                self.assertEqual(
                    (report["submitted"], report["failed"], report["refused"]), (100, 0, 0)
                )
            output, errors = support.interrupt(server)
        self.assertEqual((server.returncode, errors), (0, ""))
        report = json.loads(output)
        self.assert_totals(report, 300)
        self.assertEqual(report["intake"]["submitted"], 300)
        self.assertFalse(os.path.exists(self.path))
        by_port = {}
        for _, prefix, _, port in self.collect(receiver):
            by_port.setdefault(port, []).append(int(prefix[:16], 16))
        self.assertEqual(
            {port: sorted(numbers) for port, numbers in by_port.items()},
            {str(7010 + i): list(range(100)) for i in range(3)},
        )

    def test_a_hang_up_ends_it_with_the_summary(self):
        for number in (signal.SIGHUP, signal.SIGTERM):
            with self.subTest(number), support.ended(self.serve()) as server:
                server.send_signal(signal.SIGUSR1)
                self.assertIn("submitted", server.stderr.readline())
                server.send_signal(number)
                output, _ = server.communicate(timeout=support.DEADLINE_S)
                self.assertEqual(server.returncode, 0)
                self.assertEqual(json.loads(output)["intake"]["messages"], 0)
                self.assertFalse(os.path.exists(self.path))

    def end_while_a_flush_waits(self, host, number):
        with support.ended(self.serve()) as server:
            flood = self.world.start(
                *("a", sys.executable, "-c", FLOOD, self.path, host, PORT), stdin=subprocess.PIPE
            )
            with support.ended(flood):
                support.wait_until(
                    lambda: flood.poll() is not None or self.refuses(server), "a full socket"
                )
                flood.stdin.write("end\n")
                flood.stdin.flush()
                self.assertEqual(flood.stdout.readline(), "flushing\n")
                support.wait_until(self.all_is_received, "the service to have the flush")
                server.send_signal(number)
                output, _ = server.communicate(timeout=support.DEADLINE_S)
                self.assertIsNone(flood.poll(), "It was answered.")
        self.assertEqual(server.returncode, 0)
        report = json.loads(output)
        self.assert_totals(report, report["submitted"])
        self.assertGreater(report["refused"].get("ECANCELED", 0), 0, report)
        self.assertFalse(os.path.exists(self.path))

    @staticmethod
    def refuses(server):
        """Whether as many datagrams wait for room in a socket as may."""
        server.send_signal(signal.SIGUSR1)
        seen = False
        for line in server.stderr:
            seen |= "EAGAIN" in line
            if line.startswith("mode"):  # All refusals come before.
                break
        return seen

    def all_is_received(self):
        shown = self.world.exec("a", "ss", "-xanH", check=0).stdout
        lines = [line.split() for line in shown.splitlines()]
        return [line[2] for line in lines if self.path in line] == ["0"]

    def test_a_signal_ends_it_while_a_flush_waits_for_a_neighbour_that_never_answers(self):
        self.let_neighbours_never_fail()
        for number in (signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                self.end_while_a_flush_waits("10.77.1.99", number)

    def test_a_signal_ends_it_while_a_flush_waits_for_a_slow_queue(self):
        self.world.ip("a", f"neigh add 10.77.1.2 lladdr {PEER_MAC} dev u0 nud permanent")
        slow = "tc qdisc add dev u0 root tbf rate 100kbit burst 3200 limit 200m"
        self.world.exec("a", *slow.split(), check=0)
        for number in (signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                self.end_while_a_flush_waits("10.77.1.2", number)

    def test_what_is_not_a_socket_stays(self):
        with open(self.path, "w") as file:
            file.write("precious")
        done = self.world.cowire("a", "run", "--intake", self.path, "--duration", 1)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done)
        self.assertIn(f"{self.path} is a regular file", done.stderr)
        with open(self.path) as file:
            self.assertEqual(file.read(), "precious")

    @unittest.skipUnless(shutil.which("nft"), "needs nft")
    def test_what_a_filter_drops_of_one_client_holds_up_no_other(self):
        for command in ("addr add 10.77.1.3/24 dev u0", "addr add fd77:1::3/64 dev u0 nodad"):
            self.world.ip("b", command)
        # What waits for one is dropped uncounted.
        for host in ("10.77.1.2", "10.77.1.3", "fd77:1::3"):
            self.world.ip("a", f"neigh replace {host} lladdr {PEER_MAC} dev u0 nud permanent")
        self.world.exec(
            "a",
            "nft",
            "table netdev t { chain c { type filter hook egress device u0 priority 0; "
            "ip daddr 10.77.1.3 drop; ip6 daddr fd77:1::3 drop; }; }",
            check=0,
        )
        receiver = self.receiver()
        # Without a socket for AF_XDP all of it goes through the kernel.
        with support.ended(self.serve("--mode", "kernel")) as server:
            send = [support.COWIRE, "send", "--via", self.path, "-j"]
            flood = ["--to", f"10.77.1.3:{PORT}", "--to", f"[fd77:1::3]:{PORT}", "--rate", 5000]
            dropped = self.world.start("a", *send, *flood, "--source-port", 7010)
            with support.ended(dropped):
                done = self.world.exec(
                    "a", *send, "--to", f"10.77.1.2:{PORT}", "--count", 200, "--rate", 1000
                )
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                support.interrupt(dropped)
            output, errors = support.interrupt(server)
        self.assertEqual((server.returncode, errors), (0, ""))
        report = json.loads(output)
        self.assert_totals(report, report["submitted"])
        self.assertEqual(list(report["refused"]), ["ENOBUFS"])
        self.assertEqual(report["kernel_path"], 200)
        self.assertEqual(len(self.collect(receiver)), 200)

    def test_a_client_without_a_server_gets_one_clear_line(self):
        done = support.cowire("send", "--via", self.path, "--to", f"10.77.1.2:{PORT}", "--count", 1)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done)
        self.assertIn(self.path, done.stderr)


if __name__ == "__main__":
    unittest.main()
