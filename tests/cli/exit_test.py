#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Exit statuses are as `cowire --help` has them, and nothing fails without a word."""
import json
import os
import re
import signal
import subprocess
import unittest

import support

CAPABILITIES = ["net_raw", "net_admin", "bpf", "dac_read_search"]
SMALL_LIMIT_BYTES = 8 << 20


class ExitTest(unittest.TestCase):
    def setUp(self):
        support.need_root()
        self.world = support.World("a", "b")
        self.addCleanup(self.world.close)
        self.world.connect("a", "u0", "b", "u0", 1, resolved=True)

    def status(self, expected, *words):
        done = self.world.cowire("a", *words)
        self.assertEqual(done.returncode, expected, done)
        return done


class Send(ExitTest):
    def test_what_left_the_host_ends_with_0_whatever_became_of_the_rest(self):
        self.status(0, "send", "--to", "10.77.1.2:9000", "--count", 3)
        self.status(0, "send", "--to", "10.77.1.2:9000", "--to", "192.0.2.1:9000", "--count", 3)

    def test_nothing_that_left_the_host_ends_with_1_and_the_reason(self):
        for mode in ("auto", "kernel"):
            done = self.status(
                1, "send", "--to", "192.0.2.1:9000", "--count", 3, "--mode", mode, "-j"
            )
            self.assertIn("none of 3 datagrams", done.stderr)
            self.assertIn("ENETUNREACH", done.stderr)
            self.assertEqual(json.loads(done.stdout)["refused"], {"ENETUNREACH": 3})

    def test_a_mode_that_no_interface_has_ends_with_2_and_the_reason(self):
        done = self.status(
            2, "send", "--to", "10.77.1.2:9000", "--count", 1, "--mode", "zero-copy"
        )
        self.assertEqual(done.stdout, "")
        for needle in ("zero-copy", "u0", "veth", "--mode auto"):
            self.assertIn(needle, done.stderr)
        self.world.ip("a", "link set u0 down")
        done = self.status(2, "send", "--to", "10.77.1.2:9000", "--count", 1, "--mode", "copy")
        self.assertIn("none is up", done.stderr)

    def test_the_rate_is_that_of_all_destinations_together(self):
        destinations = []
        for port in range(9000, 9050):
            destinations += ["--to", f"10.77.1.2:{port}"]
        done = self.status(0, "send", *destinations, "--rate", 20, "--duration", 1, "-j")
        report = json.loads(done.stdout)
        # However late the sender may be: never ahead of its rate.
        self.assertGreater(report["submitted"], 0)
        self.assertLessEqual(report["submitted"], 20 * report["elapsed_s"] + 2)

    def test_the_rate_holds_through_an_intake_too(self):
        path = f"/tmp/cowire-exit-{os.getpid()}.sock"
        service = self.world.start("a", support.COWIRE, "run", "--intake", path)
        with support.ended(service):
            support.wait_until(lambda: os.path.exists(path), "the intake")
            destinations = []
            for port in range(9000, 9050):
                destinations += ["--to", f"10.77.1.2:{port}"]
            done = self.status(
                0, "send", "--via", path, *destinations, "--rate", 20, "--duration", 1, "-j"
            )
            report = json.loads(done.stdout)
            self.assertGreater(report["submitted"], 0)
            self.assertLessEqual(report["submitted"], 20 * report["elapsed_s"] + 2)
            # Nor does it sleep beyond its duration, which is eleven days shorter than its pause.
            done = self.status(
                0,
                *("send", "--via", path, "--to", "10.77.1.2:9000"),
                *("--rate", "1e-6", "--count", 3, "--duration", 0.2, "-j"),
            )
            self.assertEqual(json.loads(done.stdout)["submitted"], 1)
            support.interrupt(service)

    def test_a_service_of_which_nothing_left_the_host_ends_with_1(self):
        with support.ended(self.serve()) as service:
            words = ("send", "--via", self.path, "--to", "192.0.2.1:9000", "--count", 3)
            done = self.status(1, *words, "-j")
            self.assertIn("none of 3 datagrams left this host", done.stderr)
            report = json.loads(done.stdout)
            self.assertEqual((report["submitted"], report["kernel_refused"]), (3, 3))
            done = self.status(1, *words)
            self.assertIn("kernel refused 3\n", done.stdout)
            done = self.status(0, *words, "--to", "10.77.1.2:9000", "-j")
            report = json.loads(done.stdout)
            self.assertEqual((report["submitted"], report["kernel_refused"]), (6, 3))
            self.assertEqual(done.stderr, "")
            support.interrupt(service)

    def serve(self):
        self.path = f"/tmp/cowire-exit-{os.getpid()}.sock"
        service = self.world.start("a", support.COWIRE, "run", "--intake", self.path)
        support.wait_until(lambda: os.path.exists(self.path), "the intake")
        return service

    def test_a_service_that_ends_meanwhile_ends_with_1_and_a_summary(self):
        for form in ([], ["-j"]):
            with self.subTest(form), support.ended(self.serve()) as service:
                words = ("send", "--via", self.path, "--to", "10.77.1.2:9000", "--rate", 1000)
                client = self.world.start("a", support.COWIRE, *words, *form)
                with support.ended(client):
                    statistics = "/sys/class/net/u0/statistics/tx_packets"
                    sent = lambda: int(self.world.exec("a", "cat", statistics, check=0).stdout)
                    start = sent()
                    support.wait_until(lambda: sent() > start + 50, "datagrams on u0")
                    support.interrupt(service)
                    self.check_unknown_totals(client, form, "Connection refused")

    def test_a_flush_without_an_answer_ends_with_1_and_a_summary(self):
        for form in ([], ["-j"]):
            with self.subTest(form), support.ended(self.serve()) as service:
                service.send_signal(signal.SIGSTOP)
                words = ("send", "--via", self.path, "--to", "10.77.1.2:9000", "--count", 1)
                client = self.world.start("a", support.COWIRE, *words, *form)
                with support.ended(client):
                    self.check_unknown_totals(client, form, "flush: Connection timed out")
                service.send_signal(signal.SIGCONT)
                support.interrupt(service)

    def check_unknown_totals(self, client, form, why):
        output, errors = client.communicate(timeout=support.DEADLINE_S)
        self.assertEqual(client.returncode, 1, errors)
        self.assertEqual(errors, f"cowire: --via {self.path}: {why}\n")
        self.assertEqual(output.count("\n"), 1, output)
        if form:
            self.assertGreater(json.loads(output)["handed_over"], 0)
        else:
            self.assertRegex(output, r"^handed over    [1-9]\d* to ")

    def test_a_service_that_takes_nothing_ends_with_2(self):
        with support.ended(self.serve()) as service:
            support.interrupt(service)
        done = self.status(
            2, "send", "--via", self.path, "--to", "10.77.1.2:9000", "--count", 1, "-j"
        )
        self.assertEqual(done.stdout, "")

    def test_a_tiny_rate_sends_one_and_waits(self):
        done = self.status(
            0, *"send --to 10.77.1.2:9000 --rate 1e-6 --count 3 --duration 0.2 -j".split()
        )
        self.assertEqual(json.loads(done.stdout)["submitted"], 1)


class RouteGet(ExitTest):
    def test_ends_as_ip_does(self):
        self.world.ip("a", "route add prohibit 198.51.100.0/25")
        self.world.ip("a", "route add blackhole 198.51.100.128/25")
        self.world.ip("a", "-6 route add unreachable 2001:db8::/64")
        for destination in (
            "10.77.1.2 10.77.1.1 127.0.0.1 fd77:1::2 ::1 192.0.2.1 198.51.100.1 198.51.100.129 "
            "2001:db8::1 2001:db8:1::1"
        ).split():
            with self.subTest(destination):
                theirs = self.world.exec(
                    "a", "ip", "-6" if ":" in destination else "-4", "route", "get", destination
                )
                self.assertIn(theirs.returncode, (0, 2), theirs)
                for form in ([], ["-j"]):
                    ours = self.status(theirs.returncode, "route", "get", destination, *form)
                    self.assertTrue(ours.stdout)

    def test_in_a_batch_a_refusal_is_an_answer(self):
        done = self.world.cowire("a", "route", "get", "-b", "-", stdin="192.0.2.1\n10.77.1.2\n")
        self.assertEqual(done.returncode, 0, done)
        done = self.world.cowire("a", "route", "get", "-b", "-", stdin="here\n10.77.1.2\n")
        self.assertEqual(done.returncode, 2, done)
        self.assertIn("10.77.1.2 dev u0", done.stdout)


COMMANDS_THAT_PRINT = (
    "send --to 10.77.1.2:9000 --count 1",
    "send --to 10.77.1.2:9000 --count 1 -j",
    "route get 10.77.1.2",
    "route get 10.77.1.2 -j",
    "route show table all",
    "tunnel show -j",
    "doctor u0 -j",
    "--help",
    "--version",
)


class Output(ExitTest):
    def into(self, descriptor, command, **options):
        return subprocess.run(
            ["ip", "netns", "exec", self.world.names["a"], support.COWIRE, *command.split()],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.PIPE,
            text=True,
            timeout=support.DEADLINE_S,
            **options,
        )

    def test_that_cannot_be_written_ends_with_1_and_the_reason(self):
        for command in COMMANDS_THAT_PRINT:
            with self.subTest(command), open("/dev/full", "w") as full:
                done = self.into(full, command)
                self.assertEqual(done.returncode, 1, done)
                self.assertIn("standard output: No space left on device", done.stderr)

    def test_that_was_closed_ends_with_1_and_goes_into_no_socket(self):
        for command in COMMANDS_THAT_PRINT:
            with self.subTest(command):
                done = self.into(None, command, preexec_fn=lambda: os.close(1))
                self.assertEqual(done.returncode, 1, done)
                self.assertIn("standard output: Bad file descriptor", done.stderr)

    def test_of_a_monitor_that_nobody_can_read_ends_it(self):
        with open("/dev/full", "w") as full:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.world.names["a"]]
                + [support.COWIRE, "route", "monitor"],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
            with support.ended(process):

                def ended_after_a_change():
                    self.world.ip("a", "route replace 192.0.2.0/24 via 10.77.1.2")
                    self.world.ip("a", "route del 192.0.2.0/24")
                    return process.poll() is not None

                support.wait_until(ended_after_a_change, "the monitor's end")
                self.assertEqual(process.returncode, 1)


class Names(ExitTest):
    """The kernel lets an interface have any name without white space, '/' and ':'."""

    def test_of_interfaces_are_text_to_a_terminal_and_valid_json(self):
        for name in ("u\x1b[31m", os.fsdecode(b"u\xff\x9b1m")):
            with self.subTest(ascii(name)):
                self.world.ip("a", f"link add {name} type veth peer name p0")
                self.world.ip("a", f"addr add 10.0.9.1/24 dev {name}")
                self.world.ip("a", f"link set {name} up")
                self.world.ip("a", "link set p0 up")
                for command in (
                    "route show table all",
                    "route get 10.0.9.2",
                    f"doctor {name}",
                    "send --to 10.0.9.2:9000 --count 1 -v",
                ):
                    text = self.status_of_any(command)
                    for character in text.stdout + text.stderr:
                        self.assertTrue(character.isprintable() or character in "\n\t", text)
                    self.assertIn("u\\x", text.stdout, text)
                    json.loads(self.status_of_any(command + " -j").stdout)
                self.world.ip("a", "link del p0")

    def status_of_any(self, command):
        done = self.world.cowire("a", *command.split())
        self.assertIn(done.returncode, (0, 1), done)
        return done


class WithoutRoot(ExitTest):
    def run_as(self, capabilities, limit_bytes, command):
        return support.with_capabilities(
            capabilities, limit_bytes, *command.split(), netns=self.world.names["a"]
        )

    def test_a_limit_on_locked_memory_is_told_by_all_with_the_remedy(self):
        send = "send --to 10.77.1.2:9000 --count 3 -j"
        done = self.run_as(CAPABILITIES, SMALL_LIMIT_BYTES, send)
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(json.loads(done.stdout)["kernel_path"], 3)
        for needle in ("warning", "u0: kernel", "8192 KiB", "CAP_IPC_LOCK", "ulimit -l"):
            self.assertIn(needle, done.stderr)
        for words in ("doctor", "doctor u0"):
            done = self.run_as(CAPABILITIES, SMALL_LIMIT_BYTES, words + " -j")
            self.assertEqual(done.returncode, 1, done)
            checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
            self.assertEqual(checks["memlock"]["status"], "fail")
            self.assertIn("CAP_IPC_LOCK", checks["memlock"]["fix"])

    def test_the_limit_that_it_names_is_enough(self):
        done = self.run_as(CAPABILITIES, SMALL_LIMIT_BYTES, "doctor u0 -j")
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        kib = int(re.search(r"ulimit -l (\d+)", checks["memlock"]["fix"])[1])
        raised = support.run("prlimit", f"--memlock={kib << 10}:{kib << 10}", "true")
        if raised.returncode != 0:
            self.skipTest(f"nobody here may raise the limit to {kib} KiB: {raised.stderr}")
        self.check_fast(CAPABILITIES, kib << 10)

    def test_the_capability_that_it_names_is_enough(self):
        self.check_fast([*CAPABILITIES, "ipc_lock"], SMALL_LIMIT_BYTES)

    def check_fast(self, capabilities, limit_bytes):
        done = self.run_as(capabilities, limit_bytes, "send --to 10.77.1.2:9000 --count 3 -j")
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(json.loads(done.stdout)["transmitted"], {"u0": 3}, done)
        self.assertEqual(done.stderr, "")
        done = self.run_as(capabilities, limit_bytes, "doctor u0 -j")
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        self.assertEqual(checks["memlock"]["status"], "ok", done)

    def test_the_capabilities_that_doctor_names_are_those_that_are_enough(self):
        done = support.unprivileged("doctor", "-j")
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        named = re.search(r"setcap (\S+)\+ep", checks["cap_net_raw"]["fix"])[1].split(",")
        self.check_fast([name.removeprefix("cap_") for name in named], SMALL_LIMIT_BYTES)


class Help(unittest.TestCase):
    def test_tells_the_exit_statuses(self):
        text = support.cowire("--help", check=0).stdout
        self.assertIn("Exit status:", text)
        for number in (0, 1, 2):
            self.assertRegex(text, rf"(?m)^  {number}  ")


if __name__ == "__main__":
    unittest.main()
