// SPDX-License-Identifier: Apache-2.0
// What no message tells, and a question to the kernel settles, under traffic: it is asked once,
// what leaves is then what a plain socket sends, and a change has it asked again or known anew.
#include <tests/async/frame_capture.hpp>

namespace cowire::test {
namespace {

/// a0 has no address of its own: u0 to u2 lend theirs, in the order in which they were made. Their
/// numbers say otherwise.
class hidden_facts : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    (*a)(
        "sysctl -qw net.ipv6.auto_flowlabels=0 net.ipv6.conf.default.addr_gen_mode=1 "
        "net.ipv6.conf.default.router_solicitations=0");
    (*a)("ip addr del 10.77.1.1/24 dev a0");
    (*a)("ip addr del fd77:1::1/64 dev a0");
    for (const char* gateway : {"10.77.1.2", "fd77:1::2"})
      (*a)(std::string("ip neigh replace ") + gateway + " dev a0 lladdr " + mac_of("b0") +
           " nud permanent");
    (*a)("ip route add 203.0.113.0/24 via 10.77.1.2 dev a0 onlink");
    (*a)("ip -6 route add 2600::/16 via fd77:1::2 dev a0 onlink");
    for (int i = 0; i < 3; ++i) {
      const std::string n = std::to_string(i);
      (*a)("ip link add u" + n + " index " + std::to_string(600 - 100 * i) +
           " type veth peer name p" + n);
      (*a)("ip link set u" + n + " up");
      if (i != 0) give_addresses(n);
    }
    wire_ = std::make_unique<capture>(*b, "b0");
  }
  void TearDown() override {
    wire_.reset();
    two_hosts::TearDown();
  }
  void give_addresses(const std::string& n) {
    (*a)("ip addr add 10.0." + n + ".1/24 dev u" + n);
    (*a)("ip addr add 2001:db8:" + n + "::1/64 dev u" + n + " nodad");
  }

  /// Both send; whether it is the same, and cowire's by the fast path.
  bool sends_the_same(transmitter& tx, const endpoint& there) {
    const sending_options options{.port = port_++};  // A closed sender keeps its for a moment.
    kernel_sender(there.address.family(), options).send(there, patterned(100));
    const std::string kernels = wire_->next();
    EXPECT_FALSE(kernels.empty()) << there.to_string();
    const std::uint64_t before = tx.stats().kernel_path;
    {
      auto s = tx.make_sender(as_sender(options));
      EXPECT_TRUE(s.try_send(bytes_of(patterned(100)), there));
      EXPECT_TRUE(drained(tx));
    }
    const std::string ours = wire_->next();
    last_ = there.to_string() + "\nkernel " + hex(kernels) + "\ncowire " + hex(ours);
    return ours == kernels && tx.stats().kernel_path == before;
  }
  /// At once: it was settled before the first table was published.
  void expect_same(transmitter& tx) {
    for (const char* there : {"203.0.113.1:9000", "[2600::1]:9000"})
      EXPECT_TRUE(sends_the_same(tx, to(there))) << last_ << "\n" << summary(tx.stats());
  }
  void expect_same_soon(transmitter& tx) {
    for (const char* there : {"203.0.113.1:9000", "[2600::1]:9000"})
      EXPECT_TRUE(eventually([&] { return sends_the_same(tx, to(there)); })) << last_ << "\n"
                                                                             << summary(tx.stats());
  }

  std::unique_ptr<capture> wire_;
  std::string last_;
  std::uint16_t port_ = 8001;
};

TEST_F(hidden_facts, the_order_of_devices_is_read_once_and_again_for_new_addresses) {
  transmitter tx(small());
  expect_same(tx);
  EXPECT_EQ(2u, tx.stats().routes.settling_questions);  // One for each family.
  give_addresses("0");                                  // Of the first device: it lends now.
  expect_same_soon(tx);
  EXPECT_EQ(3u, tx.stats().routes.settling_questions);  // IPv6 had named the device before.
  (*a)("ip link del u0");
  expect_same_soon(tx);
  (*a)("ip link add u0 index 50 type veth peer name p0");  // The last from now on.
  (*a)("ip link set u0 up");
  give_addresses("0");
  expect_same_soon(tx);
  EXPECT_EQ(3u, tx.stats().routes.settling_questions);
}

TEST_F(hidden_facts, whether_rules_count_is_asked_and_changes_with_a_rule) {
  (*a)("ip -6 rule del pref 32766");
  const endpoint there = to("[2600::1]:9000");
  transmitter tx(small());
  EXPECT_TRUE(eventually([&] { return sends_the_same(tx, there); })) << last_ << "\n"
                                                                     << summary(tx.stats());
  const auto stats = tx.stats();
  EXPECT_LE(4u, stats.routes.settling_questions);  // Two of them about rules.
  (*a)("ip -6 rule add pref 9 lookup 99");         // From now on the list counts.
  EXPECT_EQ(ENETUNREACH, plain_send(there));
  EXPECT_TRUE(eventually([&] {
    auto s = tx.make_sender();
    return s.try_send(bytes_of("x"), there) && drained(tx) &&
           tx.stats().refused.contains("ENETUNREACH");
  })) << summary(tx.stats());
}

}  // namespace
}  // namespace cowire::test
