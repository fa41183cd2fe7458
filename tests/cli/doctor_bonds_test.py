#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `cowire doctor` says of bonds, of each mode and each policy."""
import json
import unittest

import support

HASHING = ("balance-xor", "802.3ad")
OTHERS = ("balance-rr", "active-backup", "broadcast", "balance-tlb", "balance-alb")
POLICIES = ("layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4", "vlan+srcmac")


class Bonds(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.need_root()
        cls.world = support.World("a")
        cls.addClassCleanup(cls.world.close)
        added = cls.world.exec("a", *"ip link add probe type bond".split())
        if added.returncode != 0:
            raise unittest.SkipTest("the kernel has no bonding")
        cls.world.ip("a", "link del probe")
        cls.kinds = [(mode, None) for mode in OTHERS]
        cls.kinds += [(mode, policy) for mode in HASHING for policy in POLICIES]
        for n, (mode, policy) in enumerate(cls.kinds):
            more = f" xmit_hash_policy {policy}" if policy else ""
            cls.world.ip("a", f"link add b{n} type bond mode {mode}{more}")
        cls.checks = {
            check["name"]: check
            for check in json.loads(cls.world.cowire("a", "doctor", "-j").stdout)["checks"]
        }

    def test_each_mode_and_policy_is_named(self):
        for n, (mode, policy) in enumerate(self.kinds):
            with self.subTest(mode=mode, policy=policy):
                value = f"{mode}, {policy}" if policy else mode
                self.assertEqual(self.checks[f"bond b{n}"]["value"], value)

    def test_what_is_left_to_the_kernel_has_the_reason_and_a_remedy(self):
        for n, (mode, policy) in enumerate(self.kinds):
            with self.subTest(mode=mode, policy=policy):
                check = self.checks[f"bond b{n}"]
                certain = mode == "active-backup" or (policy and policy != "encap3+4")
                self.assertEqual(check["status"], "ok" if certain else "warn")
                self.assertEqual("(bond_policy)" in check["meaning"], not certain)
                self.assertEqual("xmit_hash_policy layer3+4" in check["fix"], not certain)

    def test_the_remedy_is_one(self):
        """It is carried out, and the check is content."""
        self.world.ip("a", "link add mended type bond mode balance-rr")
        self.addCleanup(self.world.ip, "a", "link del mended")
        for words in ("mode balance-xor xmit_hash_policy layer3+4", "mode 802.3ad"):
            self.world.ip("a", f"link set mended type bond {words}")
            report = json.loads(self.world.cowire("a", "doctor", "-j").stdout)
            [check] = [one for one in report["checks"] if one["name"] == "bond mended"]
            self.assertEqual(check["status"], "ok", check)

    def test_encap34_says_what_it_keeps_from_the_fast_path(self):
        n = self.kinds.index(("balance-xor", "encap3+4"))
        meaning = self.checks[f"bond b{n}"]["meaning"]
        for what in ("IPv6", "tunnels", "queueing discipline"):
            self.assertIn(what, meaning)


if __name__ == "__main__":
    unittest.main()
