// SPDX-License-Identifier: Apache-2.0
// What path_events and async_resolve() say of a destination is what the kernel does with a plain
// socket's datagram to it, and what becomes of ours.
#include <cowire/netlink/request_socket.hpp>

#include <tests/async/output_hosts.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/io_context.hpp>

#include <net/if.h>
#include <netinet/in.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace cowire::test {
namespace {

/// 10.78.0.0/16 is B's, over a0 at first; a1 is a way there, too.
class paths : public two_links {
 protected:
  void SetUp() override {
    two_links::SetUp();
    if (IsSkipped()) return;
    (*a)("ip route add 10.78.0.0/16 via 10.77.1.2");
    resolve("10.77.1.2");
    resolve("10.77.2.2");
  }
  static path_state next(path_events& ways) {
    outcome<std::error_code, path_state> told;
    ways.async_next(told.handler());
    if (told.future.wait_for(patience) != std::future_status::ready) {
      ADD_FAILURE() << "nothing was told";
      return {};
    }
    auto [ec, state] = told.future.get();
    EXPECT_FALSE(ec) << ec.message();
    return state;
  }
  /// Reads until a state is as wanted. What is told in a row differs.
  static path_state until(path_events& ways, const std::function<bool(const path_state&)>& wanted) {
    path_state before;
    for (int i = 0; i < 100; ++i) {
      path_state now = next(ways);
      const bool in_a_row = before.number != 0 && now.number == before.number + 1;
      EXPECT_FALSE(in_a_row && now.same_way(before)) << to_string(now);
      if (::testing::Test::HasFailure() || wanted(now)) return now;
      before = now;
    }
    ADD_FAILURE() << "never: at last " << to_string(before);
    return before;
  }
  static path_state until(path_events& ways, divert_reason wanted) {
    return until(ways, [&](const path_state& now) { return now.reason == wanted; });
  }
  static path_state until_fast(path_events& ways) {
    return until(ways, [](const path_state& now) { return now.service == path_service::fast; });
  }
  static outcome<std::error_code, path_state> resolving(sender& s, const endpoint& destination,
                                                        const datagram_options& options = {}) {
    outcome<std::error_code, path_state> told;
    s.async_resolve(destination, options, told.handler());
    return told;
  }
  static path_state resolved(sender& s, const endpoint& destination,
                             const datagram_options& options = {}) {
    return answer_of(resolving(s, destination, options), destination);
  }
  static path_state answer_of(outcome<std::error_code, path_state> told,
                              const endpoint& destination) {
    if (told.future.wait_for(patience) != std::future_status::ready) {
      ADD_FAILURE() << "not resolved: " << destination.to_string();
      return {};
    }
    auto [ec, state] = told.future.get();
    EXPECT_FALSE(ec) << ec.message();
    return state;
  }
  /// As a plain socket, and RTM_GETROUTE, are told.
  static void expect_as_kernel(const path_state& state, const endpoint& destination,
                               std::uint32_t mark = 0) {
    SCOPED_TRACE(to_string(state));
    const raw_address there(destination);
    const bool v4 = destination.address.is_v4();
    const unique_fd fd(::socket(there.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_TRUE(mark == 0 || ::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) == 0);
    if (::connect(fd.get(), there.name(), there.size) != 0) {
      EXPECT_EQ(path_service::refused, state.service);
      EXPECT_EQ(errno_code(errno), state.refusal);
      return;
    }
    ASSERT_FALSE(state.refusal) << state.refusal.message();
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    ASSERT_EQ(0, ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &size));
    EXPECT_EQ(to_endpoint(own)->address, state.source);
    int mtu = 0;
    size = sizeof mtu;
    ASSERT_EQ(0, ::getsockopt(fd.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MTU : IPV6_MTU,
                              &mtu, &size));
    EXPECT_EQ(static_cast<std::uint32_t>(mtu), state.mtu);
    netlink::request_socket kernel;
    netlink::route_query question;
    question.destination = destination.address;
    question.mark = mark;
    const auto answer = kernel.get_route(question);
    ASSERT_EQ(1u, answer.route.next_hops.size());
    EXPECT_EQ(answer.route.next_hops[0].index, state.interface_index);
    EXPECT_EQ(answer.route.next_hops[0].gateway, state.gateway);
    char name[IF_NAMESIZE];
    EXPECT_EQ(::if_indextoname(answer.route.next_hops[0].index, name), state.device);
  }
  /// The next datagram goes past the kernel, by the interface that the state names.
  static void expect_fast(transmitter& tx, sender& s, const path_state& state,
                          const endpoint& destination, const datagram_options& options = {}) {
    ASSERT_EQ(path_service::fast, state.service) << to_string(state);
    const auto before = tx.stats();
    std::error_code ec;
    s.try_send(bytes_of("x"), destination, options, ec);
    ASSERT_FALSE(ec) << ec.message();
    ASSERT_TRUE(drained(tx));
    const auto after = tx.stats();
    EXPECT_EQ(before.kernel_path, after.kernel_path) << summary(after);
    EXPECT_EQ(before.transmitted_total() + 1, after.transmitted_total()) << summary(after);
    const auto was = before.transmitted.find(state.egress);
    EXPECT_EQ((was == before.transmitted.end() ? 0 : was->second) + 1, by(tx, state.egress));
  }
  const endpoint place = to("10.78.0.1:9000");
};

// ---- what is told
// ----------------------------------------------------------------------------------------

TEST_F(paths, are_told_at_once_and_after_each_change_of_the_route) {
  transmitter tx(small());
  auto s = tx.make_sender();
  auto ways = s.watch_path(place);
  path_state now = next(ways);
  EXPECT_EQ(1u, now.number);
  EXPECT_EQ(mac_of("b0"), now.destination_mac->to_string());
  EXPECT_EQ(1472u, now.max_payload);
  EXPECT_EQ("fast via 10.77.1.2 dev a0 src 10.77.1.1 mtu 1500 egress a0 mac " + mac_of("b0"),
            to_string(now));
  expect_as_kernel(now, place);
  expect_fast(tx, s, now, place);
  for (int i = 0; i < 6; ++i) {
    const std::string link = i % 2 == 0 ? "2" : "1";
    (*a)("ip route replace 10.78.0.0/16 via 10.77." + link + ".2");
    const path_state moved = next(ways);
    EXPECT_EQ(now.number + 1, moved.number);
    EXPECT_GT(moved.version, now.version);
    EXPECT_GT(moved.publish_time_ns, 0);
    EXPECT_EQ(i % 2 == 0 ? "a1" : "a0", moved.egress);
    expect_as_kernel(moved, place);
    expect_fast(tx, s, moved, place);
    now = moved;
  }
  (*a)("ip route replace 10.78.0.0/16 via 10.77.1.2 src 10.77.2.1 mtu 1400");
  now = next(ways);
  EXPECT_EQ(1372u, now.max_payload);
  expect_as_kernel(now, place);
  (*a)("ip route replace unreachable 10.78.0.1");
  now = next(ways);
  EXPECT_EQ(divert_reason::rejected, now.reason);
  expect_as_kernel(now, place);
  (*a)("ip route del unreachable 10.78.0.1");
  EXPECT_TRUE(next(ways).is_fast());
  (*a)("ip route del 10.78.0.0/16");
  now = next(ways);
  EXPECT_EQ(divert_reason::no_route, now.reason);
  EXPECT_EQ(ENETUNREACH, now.refusal.value());
  expect_as_kernel(now, place);
}

TEST_F(paths, are_told_for_ipv6_and_for_this_host) {
  (*a)("ip -6 route add fd78::/64 via fd77:1::2");
  resolve("fd77:1::2");
  transmitter tx(small());
  auto s = tx.make_sender();
  const endpoint six = to("[fd78::1]:9000");
  auto ways = s.watch_path(six);
  path_state now = next(ways);
  expect_as_kernel(now, six);
  expect_fast(tx, s, now, six);
  (*a)("ip -6 route replace fd78::/64 dev a1 mtu 1300");
  now = until(ways, [](const path_state& one) { return one.device == "a1"; });
  EXPECT_EQ(divert_reason::neighbour_unresolved, now.reason);
  expect_as_kernel(now, six);
  auto own = s.watch_path(to("10.77.1.1:9000"));
  now = next(own);
  EXPECT_EQ(divert_reason::local_destination, now.reason);
  EXPECT_EQ("lo", now.device);
  EXPECT_EQ(ip_address::parse("10.77.1.1"), now.source);
  auto mapped = s.watch_path(to("[::ffff:10.78.0.1]:9000"));
  expect_as_kernel(next(mapped), place);
}

TEST_F(paths, change_for_their_destination_or_are_not_told) {
  transmitter tx(small());
  auto s = tx.make_sender();
  auto ways = s.watch_path(place);
  EXPECT_EQ(1u, next(ways).number);
  const auto before = tx.stats().routes.publications;
  for (int i = 0; i < 100; ++i)
    (*a)("ip route replace 10.79." + std::to_string(i) + ".0/24 via 10.77.2.2");
  (*a)("ip route replace 10.78.1.0/24 via 10.77.2.2");
  (*a)("ip rule add to 10.80.0.0/16 lookup 100");   // Everything is decided anew.
  (*a)("ip route add 10.78.0.0/24 via 10.77.1.2");  // As before, by a longer prefix.
  (*a)("ip link add d0 type veth peer name d1 && ip link set d0 up && ip link del d0");
  EXPECT_TRUE(eventually([&] { return tx.stats().routes.publications > before + 50; }));
  (*a)("ip route replace 10.78.0.0/24 via 10.77.2.2");
  const path_state now = next(ways);
  EXPECT_EQ(2u, now.number) << to_string(now);
  EXPECT_EQ("a1", now.egress);
}

TEST_F(paths, are_told_newest_to_a_slow_reader) {
  transmitter tx(small());
  auto s = tx.make_sender();
  auto ways = s.watch_path(place), witness = s.watch_path(place);
  for (int i = 0; i < 10; ++i) {
    (*a)("ip route replace 10.78.0.0/16 via 10.77." + std::string(i % 2 == 0 ? "2" : "1") + ".2");
    until(witness, [&](const path_state& now) { return now.egress == (i % 2 == 0 ? "a1" : "a0"); });
  }
  // The witness may have been told first.
  const path_state now =
      until(ways, [](const path_state& one) { return one.number == 11 && one.egress == "a0"; });
  expect_as_kernel(now, place);
}

TEST_F(paths, follow_neighbours) {
  transmitter tx(small());
  auto s = tx.make_sender();
  auto ways = s.watch_path(place);
  EXPECT_TRUE(next(ways).is_fast());
  forget_neighbour("a0", "10.77.1.2");
  path_state now = until(ways, divert_reason::neighbour_unresolved);
  EXPECT_EQ(path_service::kernel_path, now.service);
  expect_as_kernel(now, place);
  resolve("10.77.1.2");
  now = until_fast(ways);
  expect_as_kernel(now, place);
  expect_fast(tx, s, now, place);
  (*a)("ip neigh replace 10.77.1.2 dev a0 lladdr 02:00:00:00:00:09 nud permanent");
  now = until(ways, [](const path_state& one) {
    return one.destination_mac == mac_address::parse("02:00:00:00:00:09");
  });
  EXPECT_TRUE(now.is_fast());
}

TEST_F(paths, follow_rules_by_the_class_of_their_sender) {
  (*a)("ip route add 10.78.0.0/16 via 10.77.2.2 table 100");
  transmitter tx(small());
  auto plain = tx.make_sender(), marked = tx.make_sender({.mark = 7});
  auto plain_ways = plain.watch_path(place), marked_ways = marked.watch_path(place);
  auto chosen_ways = plain.watch_path(place, {.mark = 7});
  EXPECT_EQ("a0", next(plain_ways).egress);
  EXPECT_EQ("a0", next(marked_ways).egress);
  EXPECT_EQ("a0", until_fast(chosen_ways).egress);
  (*a)("ip rule add fwmark 7 lookup 100");
  for (auto* ways : {&marked_ways, &chosen_ways}) {
    const path_state now = next(*ways);
    EXPECT_EQ("a1", now.egress);
    expect_as_kernel(now, place, 7);
  }
  expect_fast(tx, plain, resolved(plain, place, {.mark = 7}), place, {.mark = 7});
  (*a)("ip rule add to 10.78.0.1 prohibit");
  path_state now = next(plain_ways);
  EXPECT_EQ(2u, now.number);
  expect_as_kernel(now, place);
  (*a)("ip rule del to 10.78.0.1 prohibit");
  now = next(plain_ways);
  expect_as_kernel(now, place);
  expect_fast(tx, plain, now, place);
}

TEST_F(paths, follow_firewalls) {
  NFT_OR_SKIP();
  transmitter tx(small());
  auto s = tx.make_sender();
  auto ways = s.watch_path(place), other = s.watch_path(to("10.78.0.1:9001"));
  EXPECT_TRUE(next(ways).is_fast());
  EXPECT_TRUE(next(other).is_fast());
  (*a)("nft add table ip t");
  (*a)("nft 'add chain ip t c { type filter hook output priority 0; }'");
  (*a)("nft add rule ip t c udp dport 9000 drop");
  // Told once, perhaps because the ruleset is being read; the rule is in its place without a word.
  until(ways, divert_reason::netfilter);
  path_state closed;
  EXPECT_TRUE(eventually([&] {
    closed = resolved(s, place);
    return closed.obstacle.find("chain") != std::string::npos;
  })) << to_string(closed);
  EXPECT_EQ(EPERM, plain_send(place));
  EXPECT_EQ(path_service::kernel_path, closed.service);
  EXPECT_EQ("a0", closed.device);
  EXPECT_EQ(0, plain_send(to("10.78.0.1:9001")));
  (*a)("nft flush chain ip t c");
  const path_state open = until_fast(ways);
  EXPECT_EQ(0, plain_send(place));
  expect_fast(tx, s, open, place);
  expect_fast(tx, s, resolved(s, to("10.78.0.1:9001")), to("10.78.0.1:9001"));
}

TEST_F(paths, follow_the_kernel_where_it_has_the_datagrams) {
  auto config = small();
  config.mode = send_mode::kernel;
  transmitter tx(config);
  auto s = tx.make_sender();
  auto ways = s.watch_path(place);
  path_state now = next(ways);
  EXPECT_EQ("a0", now.device);
  expect_as_kernel(now, place);
  for (const char* change :
       {"ip route add 10.78.0.0/24 via 10.77.2.2", "ip route add 10.78.0.1 via 10.77.1.2 mtu 1400",
        "ip route replace 10.78.0.1 nhid 5", "ip nexthop replace id 5 via 10.77.1.2 dev a0",
        "ip link set a0 mtu 1300", "ip link set a0 down"}) {
    SCOPED_TRACE(change);
    if (std::string(change).find("nhid") != std::string::npos)
      (*a)("ip nexthop add id 5 via 10.77.2.2 dev a1");
    (*a)(change);
    const path_state then = next(ways);
    EXPECT_EQ(now.number + 1, then.number);
    EXPECT_TRUE(then.refusal || then.reason == divert_reason::forced_kernel) << to_string(then);
    expect_as_kernel(then, place);
    now = then;
  }
}

TEST_F(paths, follow_links) {
  (*a)("ip route add 10.78.0.0/16 via 10.77.2.2 metric 100");
  transmitter tx(small());
  auto s = tx.make_sender();
  auto ways = s.watch_path(place);
  EXPECT_EQ("a0", next(ways).egress);
  (*a)("ip link set a0 down");
  path_state now = until(ways, [](const path_state& one) { return one.egress == "a1"; });
  expect_as_kernel(now, place);
  expect_fast(tx, s, now, place);
  (*a)("ip link set a1 down");
  now = until(ways, divert_reason::no_route);
  expect_as_kernel(now, place);
  (*a)("ip link set a1 up && ip route replace 10.78.0.0/16 via 10.77.2.2 metric 100");
  resolve("10.77.2.2");
  now = until_fast(ways);
  expect_as_kernel(now, place);
  expect_fast(tx, s, now, place);
  (*a)("ip link del a1");
  now = until(ways, divert_reason::no_route);
  expect_as_kernel(now, place);
}

TEST_F(paths, follow_the_underlay_of_tunnels) {
  if (std::system("ip link add t1 type gre local 10.77.1.1 remote 10.78.9.9 ttl 64 2>/dev/null"))
    GTEST_SKIP() << "the kernel has no ip_gre";
  (*a)("ip addr add 10.200.1.1/24 dev t1 && ip link set t1 up");
  const endpoint inside_it = to("10.200.1.2:9000");
  transmitter tx(small());
  auto s = tx.make_sender();
  auto ways = s.watch_path(inside_it);
  path_state now = until_fast(ways);
  EXPECT_TRUE(now.tunnel);
  EXPECT_EQ("t1", now.device);
  EXPECT_EQ("a0", now.egress);
  expect_as_kernel(now, inside_it);
  expect_fast(tx, s, now, inside_it);
  (*a)("ip route replace 10.78.0.0/16 via 10.77.2.2");
  now = until(ways, [](const path_state& one) { return one.egress == "a1"; });
  expect_as_kernel(now, inside_it);
  expect_fast(tx, s, now, inside_it);
  forget_neighbour("a1", "10.77.2.2");
  until(ways, divert_reason::neighbour_unresolved);
  now = resolved(s, inside_it);  // Of the neighbour on the way to the remote address.
  EXPECT_EQ("a1", now.egress);
  expect_fast(tx, s, now, inside_it);
}

TEST_F(paths, can_be_watched_by_the_thousand) {
  constexpr unsigned count = 3000;
  transmitter tx(small());
  auto s = tx.make_sender();
  std::vector<path_events> all;
  for (unsigned i = 0; i < count; ++i)
    all.push_back(s.watch_path({ip_address::v4(0x0a4e0000 + 256 * (i / 200) + i % 200 + 1), 9000}));
  for (path_events& one : all) ASSERT_EQ("a0", next(one).egress);
  (*a)("ip route add 10.78.3.0/24 via 10.77.2.2");
  for (unsigned i = 600; i < 800; ++i) ASSERT_EQ("a1", next(all[i]).egress);
  (*a)("ip route replace 10.78.0.0/16 via 10.77.2.2");
  for (unsigned i = 0; i < count; ++i) {
    if (i / 200 == 3) continue;  // They have a longer prefix.
    ASSERT_EQ(2u, next(all[i]).number);
  }
}

TEST_F(paths, end_with_their_sender_and_their_transmitter) {
  transmitter tx(small());
  auto s = tx.make_sender();
  auto shared = std::make_unique<shared_sender>(tx.make_shared_sender());
  auto of_sender = s.watch_path(place), of_shared = shared->watch_path(place);
  auto stopped = tx.make_sender();
  auto last = stopped.watch_path(place);
  for (auto* ways : {&of_sender, &of_shared, &last}) EXPECT_TRUE(next(*ways).is_fast());
  outcome<std::error_code, path_state> one, two, three, resolving_for_ever;
  of_sender.async_next(one.handler());
  of_shared.async_next(two.handler());
  last.async_next(three.handler());
  stopped.async_resolve(to("10.77.1.77:9000"), resolving_for_ever.handler());
  s = sender();
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(one.future.get()));
  shared.reset();
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(two.future.get()));
  tx.stop();
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(three.future.get()));
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(resolving_for_ever.future.get()));
  std::error_code ec;
  static_cast<void>(stopped.watch_path(place, {}, ec));
  EXPECT_EQ(make_error_code(error::closed), ec);
  EXPECT_THROW(static_cast<void>(stopped.watch_path(place)), std::system_error);
}

TEST_F(paths, are_refused_where_a_datagram_would_be) {
  transmitter tx(small());
  auto s = tx.make_sender();
  std::error_code ec;
  static_cast<void>(s.watch_path(place, {.source = ip_address::parse("fd77:1::1")}, ec));
  EXPECT_EQ(make_error_code(error::family_mismatch), ec);
  static_cast<void>(s.watch_path(place, {.dscp = 64}, ec));
  EXPECT_EQ(make_error_code(error::invalid_argument), ec);
  auto told = resolving(s, place, {.dscp = 64});
  EXPECT_EQ(make_error_code(error::invalid_argument), std::get<0>(told.future.get()));
}

// ---- resolving
// -------------------------------------------------------------------------------------------

TEST_F(paths, are_resolved_before_the_first_datagram) {
  constexpr int hosts = 50;
  for (int i = 0; i < hosts; ++i)
    (*b)("ip addr add 10.77.1." + std::to_string(100 + i) + "/24 dev b0");
  (*b)("ip addr add fd77:1::100/64 dev b0 nodad");
  transmitter tx(small());
  auto s = tx.make_sender();
  std::vector<endpoint> all{to("[fd77:1::100]:9000")};
  for (int i = 0; i < hosts; ++i) all.push_back(to("10.77.1." + std::to_string(100 + i) + ":9000"));
  std::vector<outcome<std::error_code, path_state>> told(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) s.async_resolve(all[i], told[i].handler());
  for (std::size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(std::future_status::ready, told[i].future.wait_for(patience)) << i;
    const auto [ec, state] = told[i].future.get();
    ASSERT_FALSE(ec) << ec.message();
    expect_as_kernel(state, all[i]);
    expect_fast(tx, s, state, all[i]);
  }
  EXPECT_EQ(all.size(), tx.stats().submitted);
}

TEST_F(paths, are_resolved_for_a_shared_sender) {
  (*b)("ip addr add 10.77.1.100/24 dev b0");
  transmitter tx(small());
  const auto s = tx.make_shared_sender();
  outcome<std::error_code, path_state> told;
  s.async_resolve(to("10.77.1.100:9000"), {.dscp = 46}, told.handler());
  ASSERT_EQ(std::future_status::ready, told.future.wait_for(patience));
  EXPECT_EQ(path_service::fast, std::get<1>(told.future.get()).service);
  std::error_code ec;
  s.try_send(bytes_of("x"), to("10.77.1.100:9000"), {.dscp = 46}, ec);
  ASSERT_FALSE(ec);
  ASSERT_TRUE(drained(tx));
  EXPECT_EQ(1u, by(tx, "a0")) << summary(tx.stats());
}

TEST_F(paths, wait_for_a_neighbour_that_comes_late) {
  const endpoint late = to("10.77.1.100:9000");
  transmitter tx(small());
  auto s = tx.make_sender();
  auto told = resolving(s, late);
  auto ways = s.watch_path(late);
  EXPECT_EQ(divert_reason::neighbour_unresolved, next(ways).reason);
  // The kernel has given up, and is asked again.
  ASSERT_TRUE(eventually(
      [&] { return (*a)("ip neigh show 10.77.1.100").find("FAILED") != std::string::npos; }));
  EXPECT_EQ(std::future_status::timeout, told.future.wait_for(0s));
  (*b)("ip addr add 10.77.1.100/24 dev b0");
  ASSERT_EQ(std::future_status::ready, told.future.wait_for(patience));
  const auto [ec, state] = told.future.get();
  EXPECT_FALSE(ec);
  expect_fast(tx, s, state, late);
  EXPECT_TRUE(until_fast(ways).same_way(state));
}

TEST_F(paths, that_stay_with_the_kernel_are_told_at_once_with_the_reason) {
  transmitter tx(small());
  auto s = tx.make_sender();
  EXPECT_EQ(divert_reason::no_route, resolved(s, to("192.0.2.1:9")).reason);
  EXPECT_EQ(divert_reason::local_destination, resolved(s, to("10.77.1.1:9")).reason);
  EXPECT_EQ(divert_reason::broadcast_destination, resolved(s, to("10.77.1.255:9")).reason);
  const auto a1 = ::if_nametoindex("a1");
  endpoint scoped = to("[fe80::1]:9");
  scoped.scope_id = a1;
  EXPECT_EQ(divert_reason::scoped_destination, resolved(s, scoped).reason);
  auto config = small();
  config.mode = send_mode::kernel;
  transmitter none(config);
  auto through_kernel = none.make_sender();
  EXPECT_EQ(divert_reason::forced_kernel, resolved(through_kernel, place).reason);
}

TEST_F(paths, of_new_combinations_are_resolved_when_their_class_is_compiled) {
  transmitter tx(small());
  auto s = tx.make_sender();
  std::vector<datagram_options> all;
  std::vector<outcome<std::error_code, path_state>> told;
  for (int i = 0; i < static_cast<int>(chosen_classes_max); ++i) {
    const datagram_options options{.dscp = static_cast<std::uint8_t>(i % 63),
                                   .ttl = i < 63 ? std::uint8_t{0} : std::uint8_t{9}};
    if (!options.chooses_class()) continue;
    all.push_back(options);
    told.push_back(resolving(s, place, options));
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    const path_state state = answer_of(std::move(told[i]), place);
    expect_fast(tx, s, state, place, all[i]);
  }
  const datagram_options one_more{.ttl = 77};
  EXPECT_EQ(divert_reason::flow_class_limit, resolved(s, place, one_more).reason);
}

TEST_F(paths, of_probes_are_fast_if_they_fit) {
  transmitter tx(small());
  auto s = tx.make_sender();
  for (const datagram_options& options : {datagram_options{.path_mtu_probe = true},
                                          datagram_options{.dscp = 33, .path_mtu_probe = true}})
    expect_fast(tx, s, resolved(s, place, options), place, options);
  auto ways = s.watch_path(place, {.ttl = 9, .path_mtu_probe = true});
  expect_fast(tx, s, until_fast(ways), place, {.ttl = 9, .path_mtu_probe = true});
}

/// A large ruleset is replaced by another; neither concerns the destination.
TEST_F(paths, wait_for_a_ruleset_that_is_being_read) {
  NFT_OR_SKIP();
  transmitter tx(small());
  auto s = tx.make_sender();
  const std::string file = run("mktemp");
  const std::string name = file.substr(0, file.size() - 1);
  {
    std::ofstream rules(name);
    rules << "add table ip t\ndelete table ip t\ntable ip t {\n set s { type ipv4_addr\n elements "
             "= {";
    for (int i = 0; i < 10'000; ++i)
      rules << (i == 0 ? " " : ", ") << "10.9." << i / 250 << '.' << i % 250 + 1;
    rules << " }\n }\n chain c { type filter hook output priority 0; ip daddr @s drop; }\n}\n";
  }
  for (int i = 0; i < 10; ++i) {
    (*a)("nft -f " + name);
    EXPECT_EQ(path_service::fast, resolved(s, place).service);
  }
  std::filesystem::remove(name);
}

TEST_F(paths, of_tracked_flows_are_the_kernels_for_one_datagram) {
  NFT_OR_SKIP();
  (*a)("nft add table ip t");
  (*a)("nft 'add chain ip t c { type filter hook input priority 0; }'");
  (*a)("nft add rule ip t c ct state established accept");
  transmitter tx(small());
  auto s = tx.make_sender();
  const path_state state = resolved(s, place);
  EXPECT_EQ(path_service::tracked, state.service) << to_string(state);
  EXPECT_TRUE(state.is_fast());
  expect_as_kernel(state, place);
  EXPECT_TRUE(s.try_send(bytes_of("first"), place));
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().kernel_path);
  EXPECT_EQ(1u, tx.stats().diverted["conntrack_new"]) << summary(tx.stats());
  EXPECT_TRUE(eventually([&] {
    return s.try_send(bytes_of("then"), place) && drained(tx) && by(tx, state.egress) > 0;
  }));
  EXPECT_EQ(path_service::tracked, resolved(s, place).service);
}

TEST_F(paths, need_not_be_waited_for) {
  transmitter tx(small());
  auto s = tx.make_sender();
  asio::io_context app{1};
  std::vector<std::error_code> results;
  const auto note = [&](std::error_code ec, const path_state&) { results.push_back(ec); };
  for (const auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                          asio::cancellation_type::total}) {
    asio::cancellation_signal signal;
    s.async_resolve(to("10.77.1.77:9000"),
                    asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(app, note)));
    app.poll();
    app.restart();
    signal.emit(type);
    app.run();
    app.restart();
  }
  EXPECT_EQ(std::vector(3, operation_aborted()), results);
  // A state that comes meanwhile is nobody's loss.
  auto ways = s.watch_path(place);
  EXPECT_EQ(1u, next(ways).number);
  asio::cancellation_signal signal;
  ways.async_next(asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(app, note)));
  signal.emit(asio::cancellation_type::total);
  app.run();
  EXPECT_EQ(operation_aborted(), results.back());
  (*a)("ip route replace 10.78.0.0/16 via 10.77.2.2");
  EXPECT_EQ(2u, next(ways).number);
}

}  // namespace
}  // namespace cowire::test
