// SPDX-License-Identifier: Apache-2.0
// The routes of tunnels' outer datagrams, where the mirror is wrong about them: the truth audit
// asks about them as it does about those of senders.
#include <cowire/base/checksum.hpp>

#include <tests/async/frame_capture.hpp>
#include <tests/async/lost_notifications.hpp>
#include <tests/async/numbered_stream.hpp>
#include <tests/support/two_hosts.hpp>

#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include <array>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

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

  /// Through a tunnel that a router behind B tells of a path MTU of 1400 for.
  template <class Tell>
  void learns_path_mtu(const char* inside_of_it, Tell&& tell) {
    transmitter tx(audited());
    auto out = tx.make_sender();
    const endpoint there = to(inside_of_it);
    const std::vector<std::byte> longer(1400);
    ASSERT_TRUE(eventually([&] { return out.try_send(longer, there) && by(tx, "a0") > 10; }))
        << summary(tx.stats());
    ASSERT_TRUE(drained(tx));
    const auto before = tx.stats().kernel_path;
    tell();
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

/// The same over IPv6, where the kernel looks for the tunnel by the addresses and GRE's flags.
void be_too_big(const netns& in, std::uint16_t mtu, const char* remote) {
  const netns::scope inside(in);
  const unique_fd raw(::socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6));
  const ip_address own = *ip_address::parse("fd77:1::1");
  std::array<std::byte, 8 + 40 + 8> message{};  // Less is not looked at.
  const auto put16 = [&](std::size_t at, std::uint16_t value) {
    const be16 wire = be16::from_host(value);
    std::memcpy(&message[at], &wire, sizeof wire);
  };
  put16(0, 2 << 8);  // Packet too big.
  put16(6, mtu);
  put16(8, 0x6000);
  put16(12, 1400);  // What follows the header.
  put16(14, IPPROTO_GRE << 8 | 64);
  std::memcpy(&message[16], own.bytes().data(), 16);
  std::memcpy(&message[32], ip_address::parse(remote)->bytes().data(), 16);
  put16(50, 0x0800);  // GRE without anything, around IPv4.
  const raw_address at({own, 0});
  ASSERT_EQ(static_cast<ssize_t>(message.size()),
            ::sendto(raw.get(), message.data(), message.size(), 0, at.name(), at.size));
}

TEST_F(outer_routes, a_path_mtu_of_one_is_learnt) {
  // Fits into 1476 and not into 1376.
  learns_path_mtu("10.200.1.2:9000", [&] { need_fragmentation(*b, 1400); });
}

TEST_F(outer_routes, a_path_mtu_of_one_over_ipv6_is_learnt) {
  if (std::system("ip link add t6 type ip6gre local fd77:1::1 remote fd78::9 encaplimit none "
                  "2>/dev/null") != 0)
    GTEST_SKIP() << "the kernel has no ip6_gre";
  (*b)("sysctl -qw net.ipv6.conf.all.forwarding=0");  // Nor does it answer what it has not.
  (*a)(
      "ip addr add 10.200.6.1/24 dev t6 && ip link set t6 up && "
      "ip -6 route add fd78::/16 via fd77:1::2");
  resolve("fd77:1::2");
  // Fits into 1456 and not into 1356.
  learns_path_mtu("10.200.6.2:9000", [&] { be_too_big(*b, 1400, "fd78::9"); });
}

/// Tunnels over IPv6 to remote addresses that both links lead to, 10.201.N.2 through each.
class divided_outer_routes : public comparable<two_links> {
 protected:
  static constexpr int tunnels = 8;

  void SetUp() override {
    comparable::SetUp();
    if (IsSkipped()) return;
    for (const char* probe : {"ip link add probe type ip6gre remote fd01::1 && ip link del probe",
                              "sysctl net.ipv4.fib_multipath_hash_seed"})
      if (std::system((std::string(probe) + " >/dev/null 2>&1").c_str()) != 0)
        GTEST_SKIP() << "this kernel refuses " << probe;
    (*a)(
        "sysctl -qw net.ipv4.fib_multipath_hash_seed=7 net.ipv6.conf.all.forwarding=1 "
        "net.ipv6.conf.default.addr_gen_mode=1 && "
        "ip -6 route add fd98::/32 nexthop via fd77:1::2 nexthop via fd77:2::2");
    (*b)("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    for (const std::string n : {"0", "1"})
      (*a)("ip neigh replace fd77:" + std::to_string(std::stoi(n) + 1) + "::2 dev a" + n +
           " lladdr " + mac_of("b" + n) + " nud permanent");
    for (int i = 0; i < tunnels; ++i) {
      const std::string n = std::to_string(i), remote = " local fd77:1::1 remote fd98::" + n;
      const char* const kinds[] = {"ip6gre", "ip6gre tclass inherit", "ip6tnl mode ipip6",
                                   "ip6gre key 9"};
      std::string kind = kinds[i % 4];
      const auto space = kind.find(' ');
      const std::string more = space == std::string::npos ? "" : kind.substr(space);
      (*a)("ip link add m" + n + " type " + kind.substr(0, space) + remote + more +
           " && ip addr add 10.201." + n + ".1/24 dev m" + n + " && ip link set m" + n + " up");
    }
    wires_[0] = std::make_unique<capture>(*b, "b0");
    wires_[1] = std::make_unique<capture>(*b, "b1");
  }
  void TearDown() override {
    for (auto& wire : wires_) wire.reset();
    comparable::TearDown();
  }
  static endpoint through(int i) { return to("10.201." + std::to_string(i) + ".2:9000"); }
  /// The link that a datagram comes out of, and its frame.
  std::pair<int, std::string> next() {
    std::pair<int, std::string> seen{-1, {}};
    eventually([&] {
      for (int link = 0; link < 2; ++link)
        if (auto frame = wires_[link]->next(1ms); !frame.empty()) seen = {link, std::move(frame)};
      return seen.first >= 0;
    });
    return seen;
  }

 private:
  std::unique_ptr<capture> wires_[2];
};

TEST_F(divided_outer_routes, each_tunnel_takes_the_member_that_the_kernel_takes) {
  std::vector<std::pair<int, std::string>> kernel;
  std::set<int> links;
  for (int i = 0; i < tunnels; ++i) {
    kernel_sender(ip_family::v4, {}).send(through(i), patterned(100));
    kernel.push_back(next());
    links.insert(kernel.back().first);
  }
  EXPECT_EQ((std::set<int>{0, 1}), links);
  transmitter tx(small());
  auto out = tx.make_sender({.source_port = 8001});
  for (int i = 0; i < tunnels; ++i) {
    ASSERT_TRUE(out.try_send(bytes_of(patterned(100)), through(i)));
    const auto seen = next();
    const auto& [link, frame] = kernel[static_cast<std::size_t>(i)];
    EXPECT_EQ(link, seen.first) << i;
    EXPECT_EQ(hex(frame), hex(seen.second)) << i;
  }
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
}

TEST_F(divided_outer_routes, what_is_not_certain_is_left_to_the_kernel) {
  (*a)(
      "sysctl -qw net.ipv6.conf.all.forwarding=0");  // A gateway that had failed may be remembered.
  transmitter tx(small());
  auto out = tx.make_sender({.source_port = 8001});
  ASSERT_TRUE(out.try_send(bytes_of("x"), through(0)));
  ASSERT_TRUE(out.try_send(bytes_of("x"), through(1)));  // Asks each time.
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().diverted.at("tunnel_multipath")) << summary(tx.stats());
  EXPECT_EQ(1u, tx.stats().kernel_path) << summary(tx.stats());
}

}  // namespace
}  // namespace cowire::test
