#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input is answered by exit status 2 and one line that names the thing and the remedy."""
import os
import unittest

import support

# (arguments, what the line must contain)
BAD_INPUT = [
    (["send"], ["destination", "--to"]),
    (["send", "--to", "10.0.0.1"], ["--to", "10.0.0.1", "ADDR:PORT"]),
    (["send", "--to", "10.0.0.1:0"], ["10.0.0.1:0", "1 to 65535"]),
    (["send", "--to", "10.0.0.1:65536"], ["10.0.0.1:65536", "1 to 65535"]),
    (["send", "--to", "10.0.0.256:80"], ["10.0.0.256:80"]),
    (["send", "--to", "fd00::1:80"], ["fd00::1:80", "[2001:db8::1]:8001"]),
    (["send", "--to", "10.0.0.1:80", "--size", "100000"], ["--size", "100000", "3968"]),
    (["send", "--to", "10.0.0.1:80", "--size", "-1"], ["--size", "-1", "0 to 3968"]),
    (["send", "--to", "10.0.0.1:80", "--size", "12x"], ["--size", "12x"]),
    (["send", "--to", "10.0.0.1:80", "--count", "0"], ["--count", "'0'"]),
    (["send", "--to", "10.0.0.1:80", "--rate", "0"], ["--rate", "'0'", "above zero"]),
    (["send", "--to", "10.0.0.1:80", "--rate", "fast"], ["--rate", "fast"]),
    (["send", "--to", "10.0.0.1:80", "--rate", "1e100"], ["--rate", "1e100", "1e-06 to 1e+09"]),
    (["send", "--to", "10.0.0.1:80", "--rate", "1e-12"], ["--rate", "1e-12", "1e-06 to 1e+09"]),
    (["send", "--to", "10.0.0.1:80", "--rate", "inf"], ["--rate", "inf", "1e-06 to 1e+09"]),
    (["send", "--to", "10.0.0.1:80", "--rate", "nan"], ["--rate", "nan", "above zero"]),
    (["send", "--to", "10.0.0.1:80", "--duration", "-5"], ["--duration", "-5"]),
    (["send", "--to", "10.0.0.1:80", "--duration", "1e300"], ["--duration", "at most 1e+09"]),
    (["send", "--to", "[fe80::1%nosuch0]:80"], ["--to", "fe80::1%nosuch0", "ip link"]),
    (["send", "--to", "[fd00::1%lo]:80"], ["--to", "fd00::1%lo", "link-local"]),
    (["send", "--to", "[fe80::1%lo]"], ["--to", "fe80::1%lo", "ADDR:PORT"]),
    (["send", "--to", "[fe80::1]:80", "--source", "fe80::1"], ["--source", "--device"]),
    (["send", "--to", "10.0.0.1:80", "--device", "nosuch0"], ["--device", "nosuch0", "ip link"]),
    (
        ["send", "--to", "10.0.0.1:80", "--via", "/tmp/s", "--device", "lo"],
        ["--device", "--via", "cowire run"],
    ),
    (["send", "--to-file", "/dev/zero"], ["/dev/zero:1", "longer than 4096", "..."]),
    (["send", "--to-file", "/"], ["--to-file", "'/'"]),
    (["send", "--to", "10.0.0.1:80", "--payload-file", "/dev/zero"], ["/dev/zero", "3968"]),
    (["send", "--to", "10.0.0.1:80", "--config", "/dev/zero"], ["/dev/zero", "1048576"]),
    (["route", "get", "-b", "/dev/zero"], ["/dev/zero:1", "longer than 4096"]),
    (["route", "get", "fe80::1%nosuch0"], ["fe80::1%nosuch0", "ip link"]),
    (["route", "get", "10.0.0.1%lo"], ["10.0.0.1%lo", "link-local"]),
    (["send", "--to", "10.0.0.1:80", "--tos", "256"], ["--tos", "256", "0 to 255"]),
    (["send", "--to", "10.0.0.1:80", "--ttl", "0"], ["--ttl", "1 to 255"]),
    (["send", "--to", "10.0.0.1:80", "--mark", "0x100000000"], ["--mark", "0x100000000"]),
    (
        ["send", "--to", "10.0.0.1:80", "--source-port", "70000"],
        ["--source-port", "70000", "65535"],
    ),
    (["send", "--to", "10.0.0.1:80", "--source", "here"], ["--source", "here"]),
    (
        ["send", "--to", "10.0.0.1:80", "--source", "192.0.2.99"],
        ["--source", "192.0.2.99", "ip address"],
    ),
    (
        ["send", "--to", "[fd00::1]:80", "--source", "127.0.0.1"],
        ["--source", "[fd00::1]:80", "family"],
    ),
    (
        ["send", "--to", "10.0.0.1:80", "--interface", "nosuch0"],
        ["--interface", "nosuch0", "ip link"],
    ),
    (["send", "--to", "10.0.0.1:80", "--mode", "warp"], ["--mode", "warp", "zero-copy"]),
    (["send", "--to", "10.0.0.1:80", "--cpu", "4096"], ["--cpu", "4096"]),
    (["send", "--to", "10.0.0.1:80", "--cpu", "0,0"], ["--cpu", "'0'", "twice"]),
    (["send", "--to", "10.0.0.1:80", "--queue", "65536"], ["--queue", "65536"]),
    (["send", "--to", "10.0.0.1:80", "--queue", "3,3"], ["--queue", "'3'", "twice"]),
    (
        ["send", "--to", "10.0.0.1:80", "--cpu", "0", "--queue", "3,4"],
        ["--queue", "2 for 1", "--cpu"],
    ),
    (
        ["send", "--to", "10.0.0.1:80", "--payload-file", "/nonexistent/p"],
        ["--payload-file", "/nonexistent/p"],
    ),
    (["send", "--to", "10.0.0.1:80", "--size", "1", "--stdin"], ["--size", "--stdin", "exclude"]),
    (["send", "--to-file", "/nonexistent/f"], ["--to-file", "/nonexistent/f", "No such file"]),
    (
        ["send", "--to", "10.0.0.1:80", "--via", "/nonexistent/s", "--count", "1"],
        ["/nonexistent/s"],
    ),
    (
        ["send", "--to", "10.0.0.1:80", "--via", "/tmp/s", "--mark", "1"],
        ["--mark", "--via", "cowire run"],
    ),
    (
        ["send", "--to", "10.0.0.1:80", "--when-full", "drop"],
        ["--when-full", "drop", "wait, fail or shed-oldest"],
    ),
    (
        ["send", "--to", "10.0.0.1:80", "--via", "/tmp/s", "--when-full", "fail"],
        ["--when-full", "--via", "cowire run"],
    ),
    (
        ["send", "--to", "10.0.0.1:80", "--config", "/nonexistent/c"],
        ["--config", "/nonexistent/c"],
    ),
    (
        ["send", "--to", "10.0.0.1:80", "--via", "/tmp/s", "--config", "/dev/null"],
        ["--config", "--via", "cowire run"],
    ),
    (["send", "--no-such-option"], ["--no-such-option", "cowire send --help"]),
    (["run"], ["--intake"]),
    (["run", "--intake", "/nonexistent/folder/s", "--mode", "kernel"], ["/nonexistent/folder/s"]),
    (["route", "get"], ["destination"]),
    (["route", "get", "10.0.0"], ["10.0.0"]),
    (["route", "get", "10.0.0.1", "mark"], ["mark", "value"]),
    (["route", "get", "10.0.0.1", "mark", "seven"], ["mark", "seven"]),
    (["route", "get", "10.0.0.1", "oif", "nosuch0"], ["oif", "nosuch0"]),
    (["route", "get", "10.0.0.1", "from", "fd00::1"], ["fd00::1", "family"]),
    (["route", "get", "10.0.0.1", "ipproto", "sctp"], ["ipproto", "sctp", "udp"]),
    (["route", "get", "10.0.0.1", "frm", "10.0.0.2"], ["frm", "from"]),
    (["route", "get", "-b", "/nonexistent/q"], ["/nonexistent/q"]),
    (["route", "show", "table", "nosuch"], ["nosuch", "rt_tables"]),
    (["route", "show", "tabel", "main"], ["tabel", "table"]),
    (["route"], ["cowire route --help"]),
    (["doctor", "nosuch0"], ["nosuch0", "ip link"]),
    (["nonsense"], ["nonsense", "cowire --help"]),
    ([], ["cowire --help"]),
]


class BadInput(unittest.TestCase):
    def assert_one_line(self, arguments, needles):
        done = support.cowire_alone(*arguments)
        self.assertEqual(done.returncode, 2, done)
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("cowire: "), done.stderr)
        for needle in needles:
            self.assertIn(needle, done.stderr)

    def test_each_is_one_line_that_names_the_thing_and_the_remedy(self):
        for arguments, needles in BAD_INPUT:
            with self.subTest(" ".join(arguments)):
                self.assert_one_line(arguments, needles)

    def test_a_bad_line_of_a_destination_file_is_named_by_its_number(self):
        path = support.scratch_file(self, "# peers\n10.0.0.1:80\n\n10.0.0.2 # no port\n")
        self.assert_one_line(["send", "--to-file", path], [f"{path}:4", "10.0.0.2"])

    def test_what_a_file_or_a_word_holds_reaches_the_terminal_as_text(self):
        nasty = "\x1b[2J\x9b1m\x07\x7f"
        path = support.scratch_file(self, nasty + "\n")
        for arguments in (
            ["send", "--to-file", path],
            ["send", "--to", nasty],
            ["send", "--to", "10.0.0.1:80", "--interface", nasty],
            ["route", "get", nasty],
            ["route", "get", "-b", path],
            ["route", "show", "table", nasty],
            ["tunnel", "show", nasty],
            ["doctor", nasty],
            [nasty],
        ):
            with self.subTest(" ".join(arguments)):
                done = support.cowire(*arguments)
                self.assertEqual(done.returncode, 2, done)
                self.assertIn("\\x1b[2J", done.stderr)
                for character in done.stdout + done.stderr:
                    self.assertTrue(character.isprintable() or character in "\n\t", done)

    def test_a_destination_file_without_end_is_refused_with_the_limit(self):
        path = support.scratch_file(self, "\n" * 1_000_001)
        self.assert_one_line(["send", "--to-file", path], [path, "1000000 lines"])

    def test_a_destination_file_without_destinations_is_refused(self):
        path = support.scratch_file(self, "# nobody\n")
        self.assert_one_line(["send", "--to-file", path], [path, "no destinations"])

    def test_a_bad_configuration_file_is_named_with_line_and_column(self):
        path = support.scratch_file(self, "[xdp]\nzero_copi = true\n")
        for command in (["send", "--to", "10.0.0.1:80"], ["run", "--intake", "/tmp/s"]):
            self.assert_one_line(
                [*command, "--config", path], [f"{path}:2:1:", "zero_copi", "zero_copy"]
            )

    def test_a_payload_file_that_is_too_long_is_refused_with_the_limit(self):
        path = support.scratch_file(self, "x" * 4000)
        self.assert_one_line(
            ["send", "--to", "10.0.0.1:80", "--payload-file", path], [path, "3968"]
        )

    def test_standard_input_that_is_too_long_is_refused_with_the_limit(self):
        done = support.cowire("send", "--to", "10.0.0.1:80", "--stdin", stdin="x" * 4000)
        self.assertEqual(done.returncode, 2)
        self.assertIn("3968", done.stderr)


class Help(unittest.TestCase):
    def test_version_names_the_program(self):
        done = support.cowire("--version", check=0)
        self.assertRegex(done.stdout, r"^cowire \d+\.\d+\.\d+\n")

    def test_version_tells_what_a_report_needs(self):
        lines = support.cowire("--version", check=0).stdout.splitlines()[1:]
        number = r"\d+\.\d+\S*"
        libraries = ", ".join(
            f"{name} {number}" for name in ("Asio", "liburing", "libbpf", "libxdp", "libmnl")
        )
        self.assertRegex(lines[0], rf"^built with (gcc|clang) .*, {libraries}$")
        self.assertRegex(lines[1], rf"^runs with libbpf {number}$")
        self.assertEqual(lines[2], f"kernel Linux {os.uname().release} {os.uname().machine}")

    def test_help_of_every_command_shows_an_example(self):
        for words in ([], ["send"], ["run"], ["route", "get"], ["tunnel", "add"]):
            with self.subTest(" ".join(words)):
                self.assertIn("Example", support.cowire(*words, "--help", check=0).stdout)


@unittest.skipUnless(os.geteuid() == 0, "needs root to give privileges up")
class Unprivileged(unittest.TestCase):
    def test_sending_without_capabilities_says_what_is_missing(self):
        done = support.unprivileged("send", "--to", "127.0.0.1:9", "--count", "1")
        self.assertEqual(done.returncode, 2, done)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn("CAP_NET_RAW", done.stderr)

    def test_route_questions_need_no_privilege(self):
        done = support.unprivileged("route", "get", "127.0.0.1", "-j")
        self.assertEqual(done.returncode, 0, done)


if __name__ == "__main__":
    unittest.main()
