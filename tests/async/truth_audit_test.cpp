// SPDX-License-Identifier: Apache-2.0
// What happens when the mirror is wrong: notifications are lost without a word, on purpose.
#include <cowire/base/checksum.hpp>

#include <tests/async/lost_notifications.hpp>
#include <tests/async/numbered_stream.hpp>
#include <tests/support/two_hosts.hpp>

#include <linux/rtnetlink.h>
#include <netinet/in.h>

namespace cowire::test {
namespace {

/// 10.78.0.0/16 can be reached over both links; what arrives tells over which.
class wrong_mirror : public two_links {
 protected:
  void SetUp() override {
    two_links::SetUp();
    if (IsSkipped()) return;
    (*a)("ip route add 10.78.0.0/16 via 10.77.1.2");
    resolve("10.77.1.2");
    resolve("10.77.2.2");
  }
  /// Runs a command of which the transmitters in this process do not hear.
  void in_secret(std::uint16_t type, const std::string& command) {
    const lost_notifications lost(type);
    ASSERT_NE(0, lost.attached());
    (*a)(command);
  }
  static truth_audit_stats truth(const transmitter& tx) { return tx.stats().routes.truth; }
  static std::string text_of(const truth_audit_stats& s) {
    return "audited " + std::to_string(s.audited) + " mismatched " + std::to_string(s.mismatched) +
           " quarantined " + std::to_string(s.quarantined) + " repaired " +
           std::to_string(s.repaired) + " " + s.last_mismatch;
  }
  /// Only the truth audit finds anything.
  static transmitter_config audited() {
    auto config = small();
    config.update_interval = 0ms;
    return config;
  }
  /// A change of a route that nobody was told of, while datagrams flow: all that are sent after the
  /// audit has noticed arrive over link 1, and all arrive.
  void expect_found_diverted_and_repaired(const std::string& secret_change);
};

void wrong_mirror::expect_found_diverted_and_repaired(const std::string& secret_change) {
  numbered_sink wrong(*b, to("0.0.0.0:9000"), "b0"), right(*b, to("0.0.0.0:9000"), "b1");
  transmitter tx(audited());
  numbered_stream stream(tx, {to("10.78.3.1:9000")}, 200us);
  ASSERT_TRUE(eventually([&] { return wrong.arrived() > 10; })) << summary(tx.stats());

  in_secret(RTM_NEWROUTE, secret_change);
  ASSERT_TRUE(eventually([&] { return truth(tx).mismatched != 0; })) << text_of(truth(tx));
  const auto detected_at = stream.sent();
  ASSERT_TRUE(eventually([&] { return truth(tx).repaired != 0; })) << text_of(truth(tx));
  const auto fast = tx.stats().transmitted["a1"];
  EXPECT_TRUE(eventually([&] { return tx.stats().transmitted["a1"] > fast + 10; }))
      << summary(tx.stats());
  stream.stop();
  EXPECT_TRUE(drained(tx));
  right.stop();
  wrong.stop();

  const auto stats = tx.stats();
  EXPECT_EQ(1u, stats.routes.truth.mismatched) << text_of(stats.routes.truth);
  EXPECT_EQ(0u, stats.routes.truth.quarantined);
  EXPECT_EQ(1u, stats.routes.truth.repaired);
  EXPECT_NE(std::string::npos, stats.routes.truth.last_mismatch.find("10.78.3.1"));
  EXPECT_NE(std::string::npos, stats.routes.truth.last_mismatch.find("10.77.2.2"));
  EXPECT_GT(stats.diverted.at("audit_quarantine"), 0u) << summary(stats);
  EXPECT_EQ(stream.sent(), wrong.arrived() + right.arrived());
  // The one being sent at the moment of that look may have been submitted before.
  for (auto number = detected_at + 1; number < stream.sent(); ++number)
    ASSERT_EQ(0u, wrong.times(number)) << number << " after detection at " << detected_at;
}

TEST_F(wrong_mirror, a_replaced_route_is_found_diverted_and_repaired) {
  expect_found_diverted_and_repaired("ip route replace 10.78.0.0/16 via 10.77.2.2");
}

TEST_F(wrong_mirror, a_longer_route_that_nobody_told_of_is_found_diverted_and_repaired) {
  expect_found_diverted_and_repaired("ip route add 10.78.3.0/24 via 10.77.2.2");
}

/// B tells A that its datagrams from `source` to `destination` have to be shorter, as a router on
/// the way would.
void need_fragmentation(const netns& in, const endpoint& source, const endpoint& destination,
                        std::uint16_t mtu) {
  const netns::scope inside(in);
  const unique_fd raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP));
  const raw_address at({source.address, 0});
  const auto put16 = [](std::byte* to, std::uint16_t value) {
    const be16 wire = be16::from_host(value);
    std::memcpy(to, &wire, sizeof wire);
  };
  std::array<std::byte, 8 + 20 + 8> message{};
  message[0] = std::byte{3};  // Destination unreachable
  message[1] = std::byte{4};  // because of DF.
  put16(&message[6], mtu);
  std::byte* const ip = &message[8];
  ip[0] = std::byte{0x45};
  put16(ip + 2, 1500);
  put16(ip + 6, 0x4000);
  ip[9] = std::byte{17};
  std::memcpy(ip + 12, source.address.bytes().data(), 4);
  std::memcpy(ip + 16, destination.address.bytes().data(), 4);
  put16(ip + 20, source.port);
  put16(ip + 22, destination.port);
  const std::uint16_t sum = static_cast<std::uint16_t>(~fold_sum(sum_bytes(message)));
  std::memcpy(&message[2], &sum, sizeof sum);
  ASSERT_EQ(static_cast<ssize_t>(message.size()),
            ::sendto(raw.get(), message.data(), message.size(), 0, at.name(), at.size));
}

TEST_F(wrong_mirror, a_path_mtu_that_only_the_kernel_knows_is_learnt) {
  numbered_sink sink(*b, to("0.0.0.0:9000"));
  const udp_sink other_program(*a, to("10.77.1.1:7000"));
  transmitter tx(audited());
  numbered_stream stream(tx, {to("10.78.3.1:9000")}, 1ms);
  ASSERT_TRUE(eventually([&] { return sink.arrived() > 10; })) << summary(tx.stats());
  need_fragmentation(*b, to("10.77.1.1:7000"), to("10.78.3.1:9000"), 1400);
  ASSERT_TRUE(eventually([&] { return truth(tx).mismatched != 0; })) << text_of(truth(tx));
  auto out = tx.make_sender();
  ASSERT_TRUE(out.try_send(std::vector<std::byte>(1380), to("10.78.3.1:9001")));
  EXPECT_TRUE(eventually([&] { return tx.stats().diverted["exceeds_mtu"] == 1; }))
      << summary(tx.stats());
  EXPECT_EQ(0u, truth(tx).quarantined) << text_of(truth(tx));
  EXPECT_EQ(1u, truth(tx).repaired) << text_of(truth(tx));
}

TEST_F(wrong_mirror, a_removed_rule_is_found_diverted_and_repaired) {
  (*a)("ip route add 10.78.0.0/16 via 10.77.2.2 table 100");
  (*a)("ip rule add to 10.78.0.0/16 lookup 100");
  numbered_sink sink(*b, to("0.0.0.0:9000"));
  transmitter tx(audited());
  numbered_stream stream(tx, {to("10.78.3.1:9000"), to("10.78.200.1:9000")}, 200us);
  ASSERT_TRUE(eventually([&] { return tx.stats().transmitted["a1"] > 10; }));
  in_secret(RTM_DELRULE, "ip rule del to 10.78.0.0/16 lookup 100");
  ASSERT_TRUE(eventually([&] {
    const auto now = truth(tx);
    return now.mismatched != 0 && now.quarantined == 0;
  })) << text_of(truth(tx));
  const auto fast = tx.stats().transmitted["a0"];
  EXPECT_TRUE(eventually([&] { return tx.stats().transmitted["a0"] > fast + 10; }));
  stream.stop();
  EXPECT_TRUE(drained(tx));
  sink.stop();
  EXPECT_EQ(stream.sent(), sink.arrived());
}

TEST_F(wrong_mirror, without_a_rate_nobody_asks) {
  auto config = audited();
  config.audit_rate = 0;
  transmitter tx(config);
  numbered_stream stream(tx, {to("10.78.3.1:9000")}, 200us);
  EXPECT_TRUE(eventually([&] { return stream.sent() > 1000; }));
  EXPECT_EQ(0u, truth(tx).audited);
}

TEST_F(wrong_mirror, the_periodic_audit_finds_what_no_notification_told_and_counts_it) {
  auto config = small();
  config.update_interval = 300ms;
  config.audit_rate = 0;
  std::mutex mutex;
  std::string told;
  config.log = [&](log_severity, std::string_view line) {
    const std::lock_guard lock(mutex);
    told += std::string(line) + "\n";
  };
  transmitter tx(config);
  ASSERT_TRUE(eventually([&] { return tx.stats().routes.redump_checks >= 2; }));
  EXPECT_EQ(0u, tx.stats().routes.redump_differences) << told;
  auto routes = tx.watch_routes();

  in_secret(RTM_NEWROUTE, "ip route add 10.78.3.0/24 via 10.77.2.2");
  ASSERT_TRUE(eventually([&] { return tx.stats().routes.redump_differences != 0; }));
  EXPECT_EQ(1u, tx.stats().routes.redump_differences);
  outcome<std::error_code, route_change> next;
  routes.async_next(next.handler());
  ASSERT_EQ(std::future_status::ready, next.future.wait_for(patience));
  EXPECT_TRUE(std::get<1>(next.future.get()).resynced());

  // From here on it agrees again, and what is published does not change any more.
  const auto checks = tx.stats().routes.redump_checks;
  EXPECT_TRUE(eventually([&] { return tx.stats().routes.redump_checks >= checks + 2; }));
  EXPECT_EQ(1u, tx.stats().routes.redump_differences);
  tx.stop();
  const std::lock_guard lock(mutex);
  EXPECT_NE(std::string::npos, told.find("10.78.3.0/24")) << told;
}

/// Nothing is kept secret: no audit has anything to find.
class unchanged_kernel : public wrong_mirror {
 protected:
  /// While datagrams flow to all of them.
  static void expect_no_finding(transmitter& tx, const std::vector<endpoint>& destinations) {
    numbered_stream stream(tx, destinations, 200us);
    EXPECT_TRUE(eventually([&] { return truth(tx).audited > 300; })) << text_of(truth(tx));
    EXPECT_EQ(0u, truth(tx).mismatched) << text_of(truth(tx));
    stream.stop();
    EXPECT_TRUE(drained(tx));
  }
};

TEST_F(unchanged_kernel, a_nexthop_object_that_routes_of_two_tables_share_is_no_finding) {
  (*a)("ip nexthop add id 7 via fd77:1::2 dev a0");
  (*a)("ip -6 route add 2001:db8:1::/48 nhid 7");
  (*a)("ip -6 rule add to 2001:db8:2::/48 table 100 pref 1000");
  (*a)("ip -6 route add 2001:db8:2::/48 nhid 7 table 100");
  resolve("fd77:1::2");
  transmitter tx(audited());
  const auto kernel_path = tx.stats().kernel_path;
  expect_no_finding(tx, {to("[2001:db8:1::1]:9000"), to("[2001:db8:2::1]:9000")});
  EXPECT_EQ(kernel_path, tx.stats().kernel_path) << summary(tx.stats());
}

// The kernel passes over a member whose neighbour it is still looking for, and says nothing.
TEST_F(unchanged_kernel, a_member_that_is_being_resolved_is_no_finding) {
  (*a)("sysctl -qw net.ipv4.fib_multipath_hash_seed=1 net.ipv4.fib_multipath_hash_policy=1");
  (*a)("sysctl -qw net.ipv4.fib_multipath_use_neigh=1");
  (*a)("ip route replace 10.78.0.0/16 nexthop via 10.77.1.2 nexthop via 10.77.2.99");
  transmitter tx(audited());
  std::vector<endpoint> destinations;
  for (int i = 1; i < 100; ++i)
    destinations.push_back(to("10.78.3." + std::to_string(i) + ":9000"));
  expect_no_finding(tx, destinations);
}

TEST_F(unchanged_kernel, the_periodic_audit_finds_nothing) {
  auto config = small();
  config.update_interval = 200ms;
  config.audit_rate = 0;
  std::mutex mutex;
  std::string told;
  config.log = [&](log_severity, std::string_view line) {
    const std::lock_guard lock(mutex);
    told += std::string(line) + "\n";
  };
  transmitter tx(config);
  const auto expect_nothing_found = [&](const std::string& after) {
    const auto checks = tx.stats().routes.redump_checks;
    EXPECT_TRUE(eventually([&] { return tx.stats().routes.redump_checks >= checks + 2; }));
    const std::lock_guard lock(mutex);
    EXPECT_EQ(0u, tx.stats().routes.redump_differences) << after << "\n" << told;
  };
  expect_nothing_found("nothing");
  (*a)("sysctl -qw net.ipv6.conf.a0.accept_dad=1 net.ipv6.conf.a0.dad_transmits=2");
  for (const std::string change :
       {"ip -6 route add default via fd77:1::9",
        "ip -6 route add default from 2001:db8:100::/64 via fd77:2::9",
        "sysctl -qw net.ipv4.conf.default.ignore_routes_with_linkdown=1",
        "ip addr add fd77:1::70/64 dev a0",  // Detected for two seconds or three.
        "ip addr add fd77:1::71/64 dev a0 nodad",
        "ip -6 route append 2001:db8::/32 via fd77:1::2 mtu 1300",
        "ip -6 route append 2001:db8::/32 via fd77:2::2 mtu 1400",
        "ip -6 route del 2001:db8::/32 via fd77:1::2", "ip link set a1 mtu 1350"}) {
    (*a)(change);
    expect_nothing_found(change);
  }
  const auto tentative = [&] { return (*a)("ip -6 addr show dev a0 tentative").empty(); };
  EXPECT_TRUE(eventually(tentative));
  expect_nothing_found("detection");
}

/// The TTL of the next datagram, or -1.
int next_ttl(int socket) {
  char byte, control[64];
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  pollfd readable{socket, POLLIN, 0};
  if (::poll(&readable, 1, 2000) <= 0 || ::recvmsg(socket, &message, 0) < 0) return -1;
  int ttl = -1;
  if (const cmsghdr* first = CMSG_FIRSTHDR(&message))
    std::memcpy(&ttl, CMSG_DATA(first), sizeof ttl);
  return ttl;
}

TEST_F(wrong_mirror, a_sysctl_that_nobody_announces_is_noticed) {
  udp_sink sink(*b, to("0.0.0.0:9000"));
  const int yes = 1;
  ASSERT_EQ(0, ::setsockopt(sink.fd(), IPPROTO_IP, IP_RECVTTL, &yes, sizeof yes));
  transmitter tx(audited());
  auto out = tx.make_sender();
  ASSERT_TRUE(out.try_send(bytes_of("x"), to("10.78.3.1:9000")));
  EXPECT_EQ(64, next_ttl(sink.fd()));
  (*a)("sysctl -qw net.ipv4.ip_default_ttl=77");
  EXPECT_TRUE(eventually([&] {
    return out.try_send(bytes_of("x"), to("10.78.3.1:9000")) && next_ttl(sink.fd()) == 77;
  }));
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
}

}  // namespace
}  // namespace cowire::test
