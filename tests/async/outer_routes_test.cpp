// SPDX-License-Identifier: Apache-2.0
// The routes of tunnels' outer datagrams, where the mirror is wrong about them: the truth audit
// asks about them as it does about those of senders.
#include <cowire/base/checksum.hpp>

#include <tests/async/lost_notifications.hpp>
#include <tests/async/numbered_stream.hpp>
#include <tests/support/two_hosts.hpp>

#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include <array>
#include <mutex>
#include <string>

namespace cowire::test {
namespace {

/// A tunnel to 10.78.9.9, which both links lead to; who sends into it sends to 10.200.1.2.
class outer_routes : public two_links {
 protected:
  void SetUp() override {
    two_links::SetUp();
    if (IsSkipped()) return;
    if (std::system("ip link add t1 type gre local 10.77.1.1 remote 10.78.9.9 ttl 64 "
                    "2>/dev/null") != 0)
      GTEST_SKIP() << "the kernel has no ip_gre";
    (*a)(
        "ip addr add 10.200.1.1/24 dev t1 && ip link set t1 up && "
        "ip route add 10.78.0.0/16 via 10.77.1.2");
    resolve("10.77.1.2");
    resolve("10.77.2.2");
  }
  /// Only the truth audit finds anything.
  transmitter_config audited() {
    auto config = small();
    config.update_interval = 0ms;
    config.log = [this](log_severity, std::string_view text) {
      const std::lock_guard lock(mutex_);
      told_ += std::string(text) + "\n";
    };
    return config;
  }
  bool was_told(std::string_view text) {
    const std::lock_guard lock(mutex_);
    return told_.find(text) != std::string::npos;
  }
  static truth_audit_stats truth(const transmitter& tx) { return tx.stats().routes.truth; }

 private:
  std::mutex mutex_;
  std::string told_;
};

TEST_F(outer_routes, one_that_was_replaced_in_secret_is_found) {
  transmitter tx(audited());
  stream into(tx, to("10.200.1.2:9000"));
  ASSERT_TRUE(eventually([&] { return by(tx, "a0") > 10; })) << summary(tx.stats());
  {
    const lost_notifications lost(RTM_NEWROUTE);
    ASSERT_NE(0, lost.attached());
    (*a)("ip route replace 10.78.0.0/16 via 10.77.2.2");
  }
  EXPECT_TRUE(eventually([&] { return truth(tx).mismatched != 0; })) << summary(tx.stats());
  EXPECT_TRUE(eventually([&] { return truth(tx).repaired != 0; })) << summary(tx.stats());
  EXPECT_TRUE(eventually([&] { return by(tx, "a1") > 10; })) << summary(tx.stats());
  into.stop();
  EXPECT_TRUE(drained(tx));
  const auto stats = tx.stats();
  EXPECT_EQ(0u, stats.routes.truth.quarantined);
  EXPECT_TRUE(was_told("10.78.9.9 from 10.77.1.1"));
  EXPECT_GT(stats.diverted.at("audit_quarantine"), 0u) << summary(stats);
}

/// A router behind B finds datagrams of the tunnel too long.
void need_fragmentation(const netns& in, std::uint16_t mtu) {
  const netns::scope inside(in);
  const unique_fd raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP));
  const raw_address at({*ip_address::parse("10.77.1.1"), 0});
  const auto put16 = [](std::byte* where, std::uint16_t value) {
    const be16 wire = be16::from_host(value);
    std::memcpy(where, &wire, sizeof wire);
  };
  std::array<std::byte, 8 + 20 + 8> message{};
  put16(&message[0], 0x0304);  // Destination unreachable because of DF.
  put16(&message[6], mtu);
  std::byte* const ip = &message[8];
  put16(ip, 0x4500);
  put16(ip + 2, 1500);
  put16(ip + 6, 0x4000);
  put16(ip + 8, 64 << 8 | IPPROTO_GRE);
  std::memcpy(ip + 12, ip_address::parse("10.77.1.1")->bytes().data(), 4);
  std::memcpy(ip + 16, ip_address::parse("10.78.9.9")->bytes().data(), 4);
  const std::uint16_t of_ip = finish_sum(sum_bytes(std::span(ip, 20)));
  std::memcpy(ip + 10, &of_ip, sizeof of_ip);
  put16(ip + 22, 0x0800);  // A GRE header without anything, around IPv4.
  const std::uint16_t sum = finish_sum(sum_bytes(message));
  std::memcpy(&message[2], &sum, sizeof sum);
  ASSERT_EQ(static_cast<ssize_t>(message.size()),
            ::sendto(raw.get(), message.data(), message.size(), 0, at.name(), at.size));
}

TEST_F(outer_routes, a_path_mtu_of_one_is_learnt) {
  transmitter tx(audited());
  auto out = tx.make_sender();
  const endpoint there = to("10.200.1.2:9000");
  // Fits into 1476 and not into 1376.
  const std::vector<std::byte> longer(1400);
  ASSERT_TRUE(eventually([&] { return out.try_send(longer, there) && by(tx, "a0") > 10; }))
      << summary(tx.stats());
  ASSERT_TRUE(drained(tx));
  const auto before = tx.stats().kernel_path;
  need_fragmentation(*b, 1400);
  // What the kernel is not asked for it would be told by the kernel path alone.
  EXPECT_TRUE(eventually([&] {
    return out.try_send(longer, there) && tx.stats().diverted["exceeds_mtu"] != 0;
  })) << summary(tx.stats());
  EXPECT_TRUE(eventually([&] { return truth(tx).mismatched != 0; })) << summary(tx.stats());
  EXPECT_TRUE(drained(tx));
  const auto stats = tx.stats();
  EXPECT_EQ(before + stats.diverted.at("exceeds_mtu"), stats.kernel_path) << summary(stats);
  EXPECT_EQ(0u, stats.routes.truth.quarantined);
  const auto fast = by(tx, "a0");
  EXPECT_TRUE(eventually([&] {
    return out.try_send(bytes_of("short"), there) && by(tx, "a0") > fast;
  })) << summary(tx.stats());
}

}  // namespace
}  // namespace cowire::test
