# SPDX-License-Identifier: Apache-2.0
"""The crates of bindings/rust: their tests, and the example, between two hosts."""
import contextlib
import os
import pathlib
import platform
import shutil
import socket
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))
import support

PEERS, FIRST_PORT, SHREDS = 200, 20000, 5
SO_RCVBUFFORCE = 33  # Python has no name for it.


class Rust(unittest.TestCase):
    def setUp(self):
        support.need_root()
        if shutil.which("cargo") is None:
            self.skipTest("needs cargo")
        self.world = support.World("a", "b")
        self.addCleanup(self.world.close)
        self.world.connect("a", "a0", "b", "b0", 1, resolved=True)

    def cargo(self, *words):
        """In the first host; what it prints goes to ours."""
        environment = dict(
            os.environ,
            LD_LIBRARY_PATH=os.environ["COWIRE_LIB_DIR"],
            COWIRE_TEST_PEER=f"/run/netns/{self.world.names['b']}",
        )
        if runner := os.environ.get("COWIRE_TEST_RUNNER"):
            target = f"{platform.machine()}_UNKNOWN_LINUX_GNU".upper()
            environment[f"CARGO_TARGET_{target}_RUNNER"] = runner
        done = subprocess.run(
            ["ip", "netns", "exec", self.world.names["a"], "cargo", *words],
            cwd=ROOT / "bindings/rust",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(done.stdout, flush=True)
        self.assertEqual(0, done.returncode, words)
        return done.stdout

    def test_the_crates_own_tests(self):
        # One at a time: each has a transmitter, and a queue has one of them.
        self.cargo("test", "--offline", "--locked", "--", "--include-ignored", "--test-threads=1")

    def test_the_example_reaches_two_hundred_addresses(self):
        with contextlib.ExitStack() as stack:
            sockets = []
            for port in range(FIRST_PORT, FIRST_PORT + PEERS):
                sockets.append(stack.enter_context(self.peer_socket(port)))
            out = self.cargo(
                *("run", "--offline", "--locked", "--example", "block_propagation", "--"),
                *("10.77.1.2", str(FIRST_PORT), str(SHREDS)),
            )
            self.assertIn(f"submitted {PEERS * SHREDS}\n", out)
            self.assertIn(f"transmitted {PEERS * SHREDS}\n", out)
            for one in sockets:
                got = sorted(one.recv(2048)[:8] for _ in range(SHREDS))
                self.assertEqual([number.to_bytes(8, "big") for number in range(SHREDS)], got)

    def peer_socket(self, port):
        """A socket of the second host: it stays there when its maker has gone home."""
        with open("/proc/self/ns/net") as home, open(
            f"/run/netns/{self.world.names['b']}"
        ) as away:
            support.set_network_namespace(away)
            try:
                one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            finally:
                support.set_network_namespace(home)
        one.settimeout(support.DEADLINE_S)
        one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        one.bind(("10.77.1.2", port))
        return one


if __name__ == "__main__":
    unittest.main()
