// SPDX-License-Identifier: Apache-2.0
/// What the tests of this folder share: a network namespace of their own, and iproute2 in it.
#pragma once

#include <cowire/base/unique_fd.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace cowire::test {

/// Puts the calling thread into a new, empty network namespace, and back when destroyed. The
/// namespace has no name: it vanishes with its last user.
class private_namespace {
 public:
  private_namespace() : home_(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    entered_ = home_ && ::unshare(CLONE_NEWNET) == 0;
  }
  ~private_namespace() {
    if (entered_) {
      EXPECT_EQ(::setns(home_.get(), CLONE_NEWNET), 0);
    }
  }
  private_namespace(const private_namespace&) = delete;
  private_namespace& operator=(const private_namespace&) = delete;

  [[nodiscard]] bool entered() const noexcept { return entered_; }

 private:
  unique_fd home_;
  bool entered_ = false;
};

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
