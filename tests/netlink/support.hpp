// SPDX-License-Identifier: Apache-2.0
/// What the tests of this folder share: a network namespace of their own, and iproute2 in it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "testbed/private_namespace.hpp"

namespace cowire::test {

/// Runs a shell command in the calling thread's namespace; a failure is a test failure.
inline void run(const std::string& command) {
  EXPECT_EQ(std::system(("set -e; " + command).c_str()), 0) << command;  // NOLINT(cert-env33-c)
}

/// A fixture in a private namespace with two veth pairs, u0-p0 and u1-p1, up and with addresses.
class namespace_test : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!namespace_.entered()) GTEST_SKIP() << "needs root: unshare(CLONE_NEWNET) was refused";
    // Not while an address is being looked for: it is in dumps, and announced a second later.
    run("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; "
        "ip link set lo up; "
        "ip link add u0 type veth peer name p0; ip link add u1 type veth peer name p1; "
        "for i in 0 1; do ip link set u$i up; ip link set p$i up; "
        "  ip addr add 10.$i.0.1/24 dev u$i; ip addr add fd00:$i::1/64 dev u$i nodad; done");
  }

 private:
  private_namespace namespace_;
};

}  // namespace cowire::test
