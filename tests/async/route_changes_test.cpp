// SPDX-License-Identifier: Apache-2.0
// The world changes while datagrams flow.
#include <cowire/xdp/tx_core.hpp>
#include <testbed/route_writer.hpp>
#include <tests/support/two_hosts.hpp>

#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <optional>

namespace cowire::test {
namespace {

/// As many as take a while to compile, and less than the time for a first dump to read.
#if defined(__SANITIZE_THREAD__)
constexpr std::uint32_t many_routes = 20'000;
#else
constexpr std::uint32_t many_routes = 100'000;
#endif

/// 10.78.0.0/16 can be reached over both links.
class route_changes : public two_links {
 protected:
  void SetUp() override {
    two_links::SetUp();
    if (IsSkipped()) return;
    (*a)("ip route add 10.78.0.0/16 via 10.77.1.2");
    sink = std::make_unique<udp_sink>(*b, to("0.0.0.0:9000"));
    resolve("10.77.1.2");
    resolve("10.77.2.2");
  }
  void TearDown() override {
    sink.reset();
    two_links::TearDown();
  }
  struct outcome_of_stream {
    std::uint64_t sent = 0, arrived = 0;
    transmitter_stats stats;
  };
  /// A stream by a0, which goes down under way, until a1 has taken it over.
  outcome_of_stream take_link_down() {
    (*a)("ip route add 10.78.0.0/16 via 10.77.2.2 metric 100");
    transmitter tx(small());
    stream flow(tx, to("10.78.0.1:9000"));
    EXPECT_TRUE(eventually([&] { return by(tx, "a0") > 5; }));
    (*a)("ip link set a0 down");
    const auto before = by(tx, "a1");
    EXPECT_TRUE(eventually([&] { return by(tx, "a1") > before + 5; })) << summary(tx.stats());
    flow.stop();
    EXPECT_TRUE(drained(tx)) << summary(tx.stats());
    return {flow.sent, sink->drain(), tx.stats()};
  }
  std::unique_ptr<udp_sink> sink;
};

auto next_change(route_events& routes) {
  outcome<std::error_code, route_change> next;
  routes.async_next(next.handler());
  return std::move(next.future);
}

/// When the kernel received the next datagram of a socket with SO_TIMESTAMPNS: Unix time in ns.
std::optional<std::int64_t> arrival_of_next(const udp_sink& sink) {
  pollfd readable{sink.fd(), POLLIN, 0};
  const auto timeout = static_cast<int>(std::chrono::milliseconds(patience).count());
  if (::poll(&readable, 1, timeout) <= 0) return std::nullopt;
  alignas(cmsghdr) std::array<char, 64> control;
  msghdr message{};
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (::recvmsg(sink.fd(), &message, 0) < 0) return std::nullopt;
  const cmsghdr* const stamp = CMSG_FIRSTHDR(&message);
  if (stamp == nullptr || stamp->cmsg_type != SCM_TIMESTAMPNS) return std::nullopt;
  timespec at{};
  std::memcpy(&at, CMSG_DATA(stamp), sizeof at);
  return at.tv_sec * 1'000'000'000 + at.tv_nsec;
}

TEST_F(route_changes, a_replaced_route_moves_the_traffic_and_loses_nothing) {
  transmitter tx(small());
  stream flow(tx, to("10.78.0.1:9000"));
  for (int i = 0; i < 10; ++i) {
    const std::string gateway = i % 2 == 0 ? "10.77.2.2" : "10.77.1.2";
    const std::string interface = i % 2 == 0 ? "a1" : "a0";
    const auto before = by(tx, interface);
    (*a)("ip route replace 10.78.0.0/16 via " + gateway);
    EXPECT_TRUE(eventually([&] { return by(tx, interface) > before + 5; }))
        << i << " " << summary(tx.stats());
  }
  flow.stop();
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(flow.sent, sink->drain()) << summary(tx.stats());
  EXPECT_EQ(0u, tx.stats().kernel_path + tx.stats().refused_total()) << summary(tx.stats());
}

TEST_F(route_changes, a_rule_to_another_table_moves_the_traffic) {
  transmitter tx(small());
  stream flow(tx, to("10.78.0.1:9000"));
  EXPECT_TRUE(eventually([&] { return by(tx, "a0") > 5; }));
  (*a)("ip route add 10.78.0.0/16 via 10.77.2.2 table 100");
  (*a)("ip rule add to 10.78.0.0/16 lookup 100");
  EXPECT_TRUE(eventually([&] { return by(tx, "a1") > 5; })) << summary(tx.stats());
  const auto before = by(tx, "a0");
  (*a)("ip rule del to 10.78.0.0/16 lookup 100");
  EXPECT_TRUE(eventually([&] { return by(tx, "a0") > before + 5; })) << summary(tx.stats());
  flow.stop();
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(flow.sent, sink->drain()) << summary(tx.stats());
}

TEST_F(route_changes, an_interface_that_goes_away_and_comes_back_gets_a_socket_again) {
  transmitter tx(small());
  auto s = tx.make_sender();
  for (int i = 0; i < 3; ++i) {
    (*a)("ip link del a0");
    EXPECT_TRUE(eventually([&] {
      const auto stats = tx.stats();
      return stats.interfaces[0].mode == send_mode::kernel;
    })) << summary(tx.stats());
    connect(*a, "a0", *b, "b0", 1);
    (*a)("ip route replace 10.78.0.0/16 via 10.77.1.2");
    resolve("10.77.1.2");
    const auto before = by(tx, "a0");
    EXPECT_TRUE(eventually([&] {
      static_cast<void>(s.try_send(bytes_of("x"), to("10.78.0.1:9000")));
      return by(tx, "a0") > before;
    })) << i
        << " " << summary(tx.stats());
  }
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(2u, tx.stats().interfaces.size()) << summary(tx.stats());
}

TEST_F(route_changes, a_link_taken_down_leaves_only_what_was_already_handed_to_it_in_doubt) {
  const auto [sent, arrived, stats] = take_link_down();
  // What the kernel took from the ring may have met the device on its way down.
  EXPECT_LE(sent - arrived, stats.lost_in_device + dropped_by("a0")) << summary(stats);
  EXPECT_EQ(sent, stats.submitted);
}

/// So many routes go with it that it takes a while to find them all.
TEST_F(route_changes, a_link_taken_down_with_many_routes_loses_a_batch_at_most) {
  std::FILE* const pipe = ::popen(("ip -n " + a->name() + " -batch -").c_str(), "w");
  ASSERT_NE(nullptr, pipe);
  for (std::uint32_t i = 0; i < 50'000; ++i)
    std::fprintf(pipe, "route add %s/30 via 10.77.1.2\n",
                 ip_address::v4((100u << 24) + 4 * i).to_string().c_str());
  ASSERT_EQ(0, ::pclose(pipe));
  const auto [sent, arrived, stats] = take_link_down();
  // Beside what the kernel itself took and dropped, as it does with a socket's.
  EXPECT_LE(stats.lost_in_device, tx_batch + dropped_by("a0")) << summary(stats);
  EXPECT_LE(sent - arrived, stats.lost_in_device + dropped_by("a0")) << summary(stats);
  EXPECT_EQ(sent, stats.submitted);
}

/// Over a1 nothing goes by the fast path before that: what arrives there was diverted, and sent
/// by the kernel while the control thread compiled.
TEST_F(route_changes, what_a_dying_link_diverts_arrives_before_what_is_left_is_published) {
  route_writer routes;
  for (std::uint32_t i = 0; i < many_routes; ++i)
    routes.replace({ip_address::v4((100u << 24) + 4 * i), 30}, *ip_address::parse("10.77.1.2"),
                   ::if_nametoindex("a0"));
  routes.flush();
  (*a)("ip route add 10.78.0.0/16 via 10.77.2.2 metric 100");
  sink.reset();
  const udp_sink over_a0(*b, to("0.0.0.0:9000"), "b0"), over_a1(*b, to("0.0.0.0:9000"), "b1");
  const int yes = 1;
  ASSERT_EQ(0, ::setsockopt(over_a1.fd(), SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes));
  transmitter tx(small());
  auto changes = tx.watch_routes();
  stream flow(tx, to("10.78.0.1:9000"));
  EXPECT_TRUE(eventually([&] { return by(tx, "a0") > 5; }));
  (*a)("ip link set a0 down");
  route_change farewell;
  do {
    auto next = next_change(changes);
    ASSERT_EQ(std::future_status::ready, next.wait_for(patience));
    farewell = std::get<1>(next.get());
  } while (farewell.what != route_change::kind::link || farewell.device != "a0");
  flow.stop();
  // Of what the device refused the kernel may have had some before we heard of it.
  auto first = arrival_of_next(over_a1);
  while (first && *first < farewell.event_time_ns) first = arrival_of_next(over_a1);
  ASSERT_TRUE(first) << summary(tx.stats());
  EXPECT_GT(farewell.publish_time_ns, *first) << summary(tx.stats());
}

TEST_F(route_changes, a_deleted_neighbour_diverts_and_loses_nothing) {
  transmitter tx(small());
  stream flow(tx, to("10.78.0.1:9000"));
  for (int i = 0; i < 5; ++i) {
    const auto before = by(tx, "a0");
    EXPECT_TRUE(eventually([&] { return by(tx, "a0") > before + 5; })) << summary(tx.stats());
    forget_neighbour("a0", "10.77.1.2");
  }
  flow.stop();
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(flow.sent, sink->drain()) << summary(tx.stats());
  EXPECT_EQ(0u, tx.stats().refused_total()) << summary(tx.stats());
}

TEST_F(route_changes, are_told_in_order_with_their_times_and_versions) {
  transmitter tx(small());
  auto routes = tx.watch_routes();
  (*a)("ip route replace 10.78.0.0/16 via 10.77.2.2");
  route_change change;
  do {
    auto next = next_change(routes);
    ASSERT_EQ(std::future_status::ready, next.wait_for(patience));
    std::error_code ec;
    std::tie(ec, change) = next.get();
    ASSERT_FALSE(ec);
  } while (change.what != route_change::kind::route);
  EXPECT_EQ("10.78.0.0/16", change.destination);
  EXPECT_EQ("10.77.2.2", change.gateway);
  EXPECT_EQ("a1", change.device);
  EXPECT_EQ("main", change.table);
  EXPECT_FALSE(change.removed);
  EXPECT_GT(change.version, 0u);
  EXPECT_LE(change.event_time_ns, change.publish_time_ns);
  auto last = next_change(routes);
  tx.stop();
  if (!std::get<0>(last.get())) return;  // A neighbour's change came in between.
}

TEST_F(route_changes, can_be_watched_without_a_transmitter) {
  route_watcher watcher;
  auto routes = watcher.watch(4);
  for (int i = 0; i < 20; ++i)
    (*a)("ip route replace 10.79." + std::to_string(i) + ".0/24 via 10.77.1.2");
  EXPECT_TRUE(eventually([&] { return watcher.stats().publications > 5; }));
  std::this_thread::sleep_for(50ms);
  // The queue of four was too small: one item stands for what was dropped.
  bool resynced = false;
  for (int i = 0; i < 4 && !resynced; ++i) {
    auto next = next_change(routes);
    if (next.wait_for(patience) != std::future_status::ready) break;
    resynced = std::get<1>(next.get()).resynced();
  }
  EXPECT_TRUE(resynced);
}

}  // namespace
}  // namespace cowire::test
