// SPDX-License-Identifier: Apache-2.0
// What the fast path does not serve: diverted, sent or refused by the kernel, reported to the
// sender.
#include <tests/support/two_hosts.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace cowire::test {
namespace {

using kernel_path = two_hosts;

auto next_error(sender& s) {
  outcome<std::error_code, send_error> next;
  s.async_next_error(next.handler());
  return std::move(next.future);
}

TEST_F(kernel_path, an_unresolved_neighbour_is_resolved_by_the_kernel_and_then_served_fast) {
  udp_sink sink(*b, to("10.77.1.2:9000"));
  transmitter tx(small());
  auto s = tx.make_sender();
  ASSERT_TRUE(s.try_send(bytes_of("first"), to("10.77.1.2:9000")));
  EXPECT_TRUE(sink.next());
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().kernel_path) << summary(tx.stats());
  EXPECT_EQ(1u, tx.stats().diverted.at("neighbour_unresolved")) << summary(tx.stats());
  EXPECT_TRUE(eventually([&] {
    static_cast<void>(s.try_send(bytes_of("next"), to("10.77.1.2:9000")));
    return drained(tx) && tx.stats().transmitted_total() > 0;
  })) << summary(tx.stats());
}

/// A handler without an executor of its own holds it up here, as compiling many routes would.
TEST_F(kernel_path, what_is_diverted_does_not_wait_for_the_control_thread) {
  udp_sink sink(*b, to("10.77.1.2:9000"));
  transmitter tx(small());
  auto s = tx.make_sender();
  auto routes = tx.watch_routes();
  std::promise<void> held, released;
  routes.async_next([&, end = released.get_future()](std::error_code, const route_change&) mutable {
    held.set_value();
    end.wait();
  });
  (*a)("ip route add 10.79.0.0/16 via 10.77.1.2");
  EXPECT_EQ(std::future_status::ready, held.get_future().wait_for(patience));
  // So many that their frames have to come back, too.
  const std::string fragmented(1600, 'x');
  const auto send = [&] {
    return static_cast<bool>(s.try_send(bytes_of(fragmented), to("10.77.1.2:9000")));
  };
  for (int i = 0; i < 3000 && !HasFailure(); ++i) EXPECT_TRUE(eventually(send)) << i;
  EXPECT_TRUE(sink.next()) << summary(tx.stats());
  EXPECT_TRUE(drained(tx)) << summary(tx.stats());
  EXPECT_EQ(3000u, tx.stats().kernel_path) << summary(tx.stats());
  released.set_value();
}

TEST_F(kernel_path, what_exceeds_the_mtu_is_fragmented_by_the_kernel) {
  udp_sink sink(*b, to("10.77.1.2:9000"));
  resolve("10.77.1.2");
  transmitter tx(small());
  auto s = tx.make_sender();
  const std::string large(1600, 'x');
  ASSERT_TRUE(s.try_send(bytes_of(large), to("10.77.1.2:9000")));
  const auto got = sink.next();
  ASSERT_TRUE(got) << summary(tx.stats());
  EXPECT_EQ(large, got->bytes);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().diverted.at("exceeds_mtu")) << summary(tx.stats());
}

TEST_F(kernel_path, a_destination_without_a_route_is_refused_with_the_kernels_errno) {
  transmitter tx(small());
  auto s = tx.make_sender();
  auto other = tx.make_sender();
  auto said = next_error(s), said_to_other = next_error(other);
  ASSERT_TRUE(s.try_send(bytes_of("x"), to("192.0.2.1:9")));
  const auto [ec, error] = said.get();
  ASSERT_FALSE(ec);
  EXPECT_EQ(ENETUNREACH, error.code.value());
  EXPECT_EQ("192.0.2.1:9", error.destination.to_string());
  EXPECT_EQ(send_error::origin::local, error.from);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().refused.at("ENETUNREACH")) << summary(tx.stats());
  (*a)("ip route add prohibit 192.0.2.0/24");
  EXPECT_TRUE(eventually([&] {
    static_cast<void>(s.try_send(bytes_of("x"), to("192.0.2.1:9")));
    return drained(tx) && tx.stats().refused.contains("EACCES");
  })) << summary(tx.stats());
  // A refusal is the business of the sender that submitted.
  EXPECT_EQ(std::future_status::timeout, said_to_other.wait_for(50ms));
  other = {};
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(said_to_other.get()));
}

TEST_F(kernel_path, a_port_unreachable_answer_reaches_the_sender_although_the_fast_path_sent) {
  resolve("10.77.1.2");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  auto said = next_error(s);
  ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:9")));
  ASSERT_EQ(std::future_status::ready, said.wait_for(patience)) << summary(tx.stats());
  const auto [ec, error] = said.get();
  EXPECT_EQ(ECONNREFUSED, error.code.value());
  EXPECT_EQ("10.77.1.2:9", error.destination.to_string());
  EXPECT_EQ(send_error::origin::network, error.from);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().transmitted_total()) << summary(tx.stats());
  EXPECT_EQ(1u, tx.stats().errors_from_network);
  // The answer is not mistaken for one to the next datagram that the kernel path carries.
  udp_sink sink(*b, to("10.77.1.2:9000"));
  ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:9")));
  ASSERT_TRUE(s.try_send(bytes_of(std::string(1600, 'y')), to("10.77.1.2:9000")));
  EXPECT_TRUE(sink.next());
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(0u, tx.stats().refused_total()) << summary(tx.stats());
}

TEST_F(kernel_path, a_learnt_path_mtu_diverts_what_is_longer) {
  // B forwards to C over a link that takes no more than 1000 bytes, and says so.
  netns c;
  connect(*b, "b1", c, "c0", 2);
  (*b)("sysctl -qw net.ipv4.ip_forward=1");
  (*b)("ip link set b1 mtu 1000");
  c("ip link set c0 mtu 1000");
  c("ip route add default via 10.77.2.1");
  (*a)("ip route add 10.77.2.0/24 via 10.77.1.2");
  udp_sink sink(c, to("10.77.2.2:9000"));
  resolve("10.77.2.2");
  transmitter tx(small());
  auto s = tx.make_sender();
  auto said = next_error(s);
  const std::string text(1200, 'x');
  ASSERT_TRUE(s.try_send(bytes_of(text), to("10.77.2.2:9000")));  // Lost, as with the kernel.
  ASSERT_EQ(std::future_status::ready, said.wait_for(patience)) << summary(tx.stats());
  const auto [ec, error] = said.get();
  EXPECT_EQ(EMSGSIZE, error.code.value());
  EXPECT_EQ(1000u, error.mtu);
  ASSERT_TRUE(s.try_send(bytes_of(text), to("10.77.2.2:9000")));
  const auto got = sink.next();
  ASSERT_TRUE(got) << summary(tx.stats());
  EXPECT_EQ(text, got->bytes);
  EXPECT_EQ(1u, tx.stats().diverted.at("exceeds_mtu")) << summary(tx.stats());
  ASSERT_TRUE(s.try_send(bytes_of("short"), to("10.77.2.2:9000")));
  EXPECT_TRUE(sink.next());
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(2u, tx.stats().transmitted_total()) << summary(tx.stats());
}

TEST_F(kernel_path, a_dead_neighbour_does_not_take_all_frames) {
  transmitter tx(small());
  auto s = tx.make_sender();
  for (int i = 0; i < 1000; ++i)
    static_cast<void>(s.try_send(bytes_of(std::string(1000, 'x')), to("10.77.1.99:9000")));
  EXPECT_TRUE(eventually([&] { return static_cast<bool>(s.try_acquire()); }));
  tx.stop();  // Gives up what still waits.
  EXPECT_EQ(0u, tx.stats().on_the_way()) << summary(tx.stats());
}

/// Everything takes the kernel path. B has a second address, whose datagrams the tests stop.
class kernel_path_in_trouble : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    (*b)("ip addr add 10.77.1.3/24 dev b0");
    (*b)("ip addr add fd77:1::3/64 dev b0 nodad");
    for (const char* address : {"10.77.1.2", "10.77.1.3", "fd77:1::2", "fd77:1::3"})
      resolve(address);
  }
  static transmitter_config by_kernel() {
    auto config = small();
    config.mode = send_mode::kernel;
    return config;
  }
  void rule(const std::string& text) { (*a)("nft 'table " + text + "'"); }
  /// What A's rules have counted.
  std::uint64_t counted() {
    const std::string text = (*a)("nft list ruleset");
    constexpr std::string_view before = "counter packets ";
    std::uint64_t sum = 0;
    for (auto at = text.find(before); at != std::string::npos; at = text.find(before, at + 1))
      sum += std::stoull(text.substr(at + before.size()));
    return sum;
  }
  static bool has_nft() { return std::system("nft --version >/dev/null 2>&1") == 0; }
  /// What a0 has dropped of what it was to send.
  static std::uint64_t dropped_by_device() {
    std::ifstream devices("/proc/thread-self/net/dev");
    std::string line;
    while (std::getline(devices, line) && line.find(" a0:") == std::string::npos) continue;
    std::istringstream columns(line.substr(line.find(':') + 1));
    std::uint64_t value = 0;
    for (int column = 0; column < 12; ++column) columns >> value;  // Eight are what it received.
    return value;
  }
  /// A neighbour that never answers and is never given up, with room for all that waits for it.
  void keep_asking(const std::string& family) {
    const std::string device = " net." + family + ".neigh.a0.";
    (*a)("sysctl -qw" + device + "mcast_solicit=1000" + device + "unres_qlen_bytes=268435456");
  }
};

struct stopped_and_open {
  const char *stopped, *open, *rule;
};
constexpr stopped_and_open families[] = {
    {"10.77.1.3:9000", "10.77.1.2:9000", "ip daddr 10.77.1.3"},
    {"[fd77:1::3]:9000", "[fd77:1::2]:9000", "ip6 daddr fd77:1::3"}};

TEST_F(kernel_path_in_trouble, what_an_egress_filter_drops_is_refused_and_holds_nobody_up) {
  if (!has_nft()) GTEST_SKIP() << "needs nft";
  constexpr unsigned count = 40;
  for (const auto& [stopped, open, match] : families) {
    rule("netdev t { chain c { type filter hook egress device \"a0\" priority 0; " +
         std::string(match) + " counter drop; }; }");
    EXPECT_EQ(ENOBUFS, plain_send(to(stopped)));
    const auto before = counted();
    udp_sink sink(*b, to(open));
    transmitter tx(by_kernel());
    auto s = tx.make_sender(), other = tx.make_sender();
    for (unsigned i = 0; i < count; ++i)
      for (const char* destination : {stopped, open}) {
        ASSERT_TRUE(s.try_send(bytes_of("one"), to(destination)));
        ASSERT_TRUE(other.try_send(bytes_of("two"), to(destination)));
      }
    EXPECT_TRUE(eventually([&] { return tx.stats().on_the_way() == 0; })) << summary(tx.stats());
    EXPECT_EQ(2 * count, sink.drain());
    const auto stats = tx.stats();
    EXPECT_EQ(2 * count, stats.kernel_path) << summary(stats);
    EXPECT_EQ(2 * count, stats.refused.at("ENOBUFS")) << summary(stats);
    // None was tried more than three times.
    EXPECT_GE(counted() - before, 2 * count);
    EXPECT_LE(counted() - before, 3 * 2 * count);
    (*a)("nft delete table netdev t");
    // The trouble is over once the filter is gone.
    ASSERT_TRUE(s.try_send(bytes_of("one"), to(stopped)));
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(2 * count + 1, tx.stats().kernel_path) << summary(tx.stats());
  }
}

TEST_F(kernel_path_in_trouble, what_a_routes_mtu_permits_and_its_device_drops_is_refused) {
  constexpr unsigned count = 40;
  const std::string large(1800, 'x');
  for (const auto& [stopped, open, match] : families) {
    const endpoint there = to(stopped);
    (*a)(std::string(there.address.is_v4() ? "ip" : "ip -6") + " route add " +
         there.address.to_string() + " dev a0 mtu 9000");
    EXPECT_EQ(ENOBUFS, plain_send(there, large));
    const auto before = dropped_by_device();
    udp_sink sink(*b, to(open));
    transmitter tx(by_kernel());
    auto s = tx.make_sender(), other = tx.make_sender();
    for (unsigned i = 0; i < count; ++i) {
      ASSERT_TRUE(s.try_send(bytes_of(large), there));
      ASSERT_TRUE(other.try_send(bytes_of("x"), to(open)));
    }
    EXPECT_TRUE(eventually([&] { return tx.stats().on_the_way() == 0; })) << summary(tx.stats());
    EXPECT_EQ(count, sink.drain());
    const auto stats = tx.stats();
    EXPECT_EQ(count, stats.kernel_path) << summary(stats);
    EXPECT_EQ(count, stats.refused.at("ENOBUFS")) << summary(stats);
    EXPECT_GE(dropped_by_device() - before, count);
    EXPECT_LE(dropped_by_device() - before, 3 * count);
    // What the device takes goes there.
    udp_sink at_stopped(*b, there);
    ASSERT_TRUE(s.try_send(bytes_of("short"), there));
    EXPECT_TRUE(at_stopped.next()) << summary(tx.stats());
  }
}

/// A limit of the whole host's, which the first network namespace sets: in the guest's alone.
class neighbour_limit {
 public:
  neighbour_limit(std::string family, const std::string& most) : family_(std::move(family)) {
    set(most, most, most);
  }
  neighbour_limit(const neighbour_limit&) = delete;
  neighbour_limit& operator=(const neighbour_limit&) = delete;
  ~neighbour_limit() { set("128", "512", "1024"); }

 private:
  void set(const std::string& first, const std::string& second, const std::string& third) const {
    const std::string key = " net." + family_ + ".neigh.default.gc_thresh";
    const std::string command = "nsenter --net=/proc/1/ns/net sysctl -qw" + key + "1=" + first +
                                key + "2=" + second + key + "3=" + third;
    EXPECT_EQ(0, std::system(command.c_str())) << command;
  }
  const std::string family_;
};

TEST_F(kernel_path_in_trouble, an_overfull_neighbour_table_refuses_and_holds_nobody_up) {
  if (std::getenv("COWIRE_LAB") == nullptr)
    GTEST_SKIP() << "the table is the whole host's, so it is filled in the lab only";
  constexpr unsigned count = 40;
  for (const std::string family : {"ipv4", "ipv6"}) {
    SCOPED_TRACE(family);
    const bool v4 = family == "ipv4";
    const endpoint open = to(families[v4 ? 0 : 1].open);
    const auto neighbour = [&](int number) {
      return to((v4 ? "10.77.1." : "[fd77:1::") + std::to_string(number) + (v4 ? ":9" : "]:9"));
    };
    keep_asking(family);
    udp_sink sink(*b, open);
    const neighbour_limit few(family, "16");
    // Those that are being asked for stay. ENOBUFS, of IPv6 EINVAL (ip6_finish_output2()).
    int refusal = 0;
    for (int i = 100; i < 200 && refusal == 0; ++i) refusal = plain_send(neighbour(i));
    ASSERT_NE(0, refusal);
    EXPECT_EQ(refusal, plain_send(neighbour(250)));
    transmitter tx(by_kernel());
    auto s = tx.make_sender(), other = tx.make_sender();
    for (unsigned i = 0; i < count; ++i) {
      ASSERT_TRUE(s.try_send(bytes_of("x"), neighbour(250)));
      ASSERT_TRUE(other.try_send(bytes_of("x"), open));
    }
    EXPECT_TRUE(eventually([&] { return tx.stats().on_the_way() == 0; })) << summary(tx.stats());
    EXPECT_EQ(count, sink.drain());
    const auto stats = tx.stats();
    EXPECT_EQ(count, stats.kernel_path) << summary(stats);
    EXPECT_EQ(count, stats.refused.at(errno_name(refusal))) << summary(stats);
  }
}

TEST_F(kernel_path_in_trouble, what_a_firewall_refuses_is_tried_once) {
  if (!has_nft()) GTEST_SKIP() << "needs nft";
  constexpr unsigned count = 50;
  for (const auto& [stopped, open, match] : families) {
    rule("inet t { chain c { type filter hook output priority 0; " + std::string(match) +
         " counter drop; }; }");
    EXPECT_EQ(EPERM, plain_send(to(stopped)));
    EXPECT_EQ(1u, counted());
    transmitter tx(by_kernel());
    auto s = tx.make_sender();
    // Nobody is at the open one: answers come back in between, and are not taken for others'.
    for (unsigned i = 0; i < count; ++i) {
      ASSERT_TRUE(s.try_send(bytes_of("x"), to(open)));
      ASSERT_TRUE(s.try_send(bytes_of("x"), to(stopped)));
      if (i % 8 == 0) {
        EXPECT_TRUE(drained(tx));
      }
    }
    EXPECT_TRUE(drained(tx));
    const auto stats = tx.stats();
    EXPECT_EQ(count, stats.refused.at("EPERM")) << summary(stats);
    EXPECT_EQ(count, stats.refused_total()) << summary(stats);
    EXPECT_EQ(count, stats.kernel_path) << summary(stats);
    EXPECT_GT(stats.errors_from_network, 0u);
    EXPECT_EQ(1u + count, counted());
    (*a)("nft delete table inet t");
  }
}

TEST_F(kernel_path_in_trouble, a_dead_neighbour_leaves_the_socket_to_others) {
  keep_asking("ipv4");
  keep_asking("ipv6");
  for (const auto& [dead, open] : {std::pair{"10.77.1.99:9000", "10.77.1.2:9000"},
                                   std::pair{"[fd77:1::99]:9000", "[fd77:1::2]:9000"}}) {
    udp_sink sink(*b, to(open));
    auto config = by_kernel();
    config.drain_timeout = 100ms;
    transmitter tx(config);
    auto s = tx.make_sender();
    // More than the default send buffer holds.
    const std::string large(1000, 'x');
    for (unsigned i = 0; i < 400; ++i)
      EXPECT_TRUE(eventually([&] { return s.try_send(bytes_of(large), to(dead)); }));
    ASSERT_TRUE(s.try_send(bytes_of("x"), to(open)));
    EXPECT_TRUE(sink.next(60s)) << summary(tx.stats());
    tx.stop();
    EXPECT_EQ(0u, tx.stats().on_the_way()) << summary(tx.stats());
  }
}

TEST_F(kernel_path_in_trouble, a_full_socket_holds_back_itself_alone_and_stop_gives_it_up) {
  keep_asking("ipv4");
  udp_sink full(*a, to("0.0.0.0:8001")), sink(*b, to("10.77.1.2:9000"));
  auto config = by_kernel();
  config.drain_timeout = 100ms;
  transmitter tx(config);
  // The application's own send buffer stays as it is.
  auto s = tx.make_sender({.adopt_socket = full.fd()}), other = tx.make_sender();
  const std::string large(1000, 'x');
  EXPECT_TRUE(eventually([&] {
    static_cast<void>(s.try_send(bytes_of(large), to("10.77.1.99:9000")));
    return tx.stats().refused.contains("EAGAIN");
  })) << summary(tx.stats());
  ASSERT_TRUE(eventually([&] { return other.try_send(bytes_of("x"), to("10.77.1.2:9000")); }));
  EXPECT_TRUE(sink.next(60s)) << summary(tx.stats());
  EXPECT_NE(0u, tx.stats().on_the_way());
  tx.stop();
  EXPECT_EQ(0u, tx.stats().on_the_way()) << summary(tx.stats());
  EXPECT_TRUE(tx.stats().refused.contains("ECANCELED")) << summary(tx.stats());
}

using source_port = two_hosts;

TEST_F(source_port, one_that_somebody_else_holds_is_a_clear_error) {
  const udp_sink holder(*a, to("0.0.0.0:8001"));
  transmitter tx(small());
  std::error_code ec;
  static_cast<void>(tx.make_sender({.source_port = 8001}, ec));
  EXPECT_EQ(make_error_code(error::port_in_use), ec);
  try {
    static_cast<void>(tx.make_sender({.source_port = 8001}));
    FAIL();
  } catch (const std::system_error& e) {
    EXPECT_NE(std::string::npos, std::string(e.what()).find("8001")) << e.what();
    EXPECT_NE(std::string::npos, std::string(e.what()).find("adopt_socket")) << e.what();
  }
}

TEST_F(source_port, is_reserved_while_a_sender_uses_it_and_shared_by_senders_that_differ) {
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  auto again = tx.make_sender({.source_port = 8001, .tos = 8});
  EXPECT_EQ(8001, s.source_port());
  EXPECT_EQ(8001, again.source_port());
  EXPECT_THROW(udp_sink(*a, to("0.0.0.0:8001")), std::system_error);
  s = {};
  again = {};
  EXPECT_TRUE(eventually([&] {
    try {
      const udp_sink free(*a, to("0.0.0.0:8001"));
      return true;
    } catch (const std::system_error&) {
      return false;
    }
  }));
}

TEST_F(source_port, an_adopted_socket_gives_its_port_and_keeps_receiving) {
  udp_sink mine(*a, to("10.77.1.1:8001")), sink(*b, to("10.77.1.2:9000"));
  resolve("10.77.1.2");
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = mine.fd()});
  EXPECT_EQ("10.77.1.1:8001", s.local_endpoint(ip_family::v4).to_string());
  ASSERT_TRUE(s.try_send(bytes_of("ping"), to("10.77.1.2:9000")));
  const auto got = sink.next();
  ASSERT_TRUE(got);
  EXPECT_EQ("10.77.1.1:8001", got->from.to_string());
  const raw_address answer(got->from);
  ASSERT_EQ(4, ::sendto(sink.fd(), "pong", 4, 0, answer.name(), answer.size));
  const auto back = mine.next();
  ASSERT_TRUE(back);
  EXPECT_EQ("pong", back->bytes);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().transmitted_total()) << summary(tx.stats());
  std::error_code ec;
  s.try_send(bytes_of("x"), to("[fd77:1::2]:9000"), ec);
  EXPECT_EQ(make_error_code(error::family_mismatch), ec);
}

}  // namespace
}  // namespace cowire::test
