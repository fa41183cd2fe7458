// SPDX-License-Identifier: Apache-2.0
// Codec, request socket and monitor against the running kernel, in a network namespace of its own.
#include "tests/netlink/support.hpp"
#include "tests/netlink/world.hpp"

#include <cowire/base/error.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/dump_plan.hpp>
#include <cowire/netlink/monitor.hpp>
#include <cowire/netlink/request_socket.hpp>

#include <gtest/gtest.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <random>
#include <set>

namespace cowire {
namespace {

using namespace netlink;
using namespace std::chrono_literals;
using test::namespace_test;
using test::run;

// What is dumped here is what the monitor dumps, so the plan has to be whole.
constexpr bool is_dumped_once(object_kind kind, ip_family family) {
  return 1 == std::ranges::count_if(dump_plan, [&](const dump_scope& scope) {
           const dump_filter& filter = scope.filter;
           return scope.kind == kind && filter.family.value_or(family) == family &&
                  filter.table == 0 && filter.interface == 0;
         });
}

constexpr bool is_whole() {
  for (std::size_t kind = 0; kind < object_kind_count; ++kind)
    for (const ip_family family : ip_families)
      if (!is_dumped_once(static_cast<object_kind>(kind), family)) return false;
  return true;
}
static_assert(is_whole());

std::uint32_t index_of(const char* name) { return ::if_nametoindex(name); }
ip_address ip(const char* text) { return ip_address::parse(text).value(); }
ip_prefix prefix(const char* text) { return ip_prefix::parse(text).value(); }

template <class T, class Predicate>
T find(const std::vector<message>& all, Predicate&& wanted) {
  for (const message& m : all)
    if (const auto* object = std::get_if<T>(&m); object && wanted(*object)) return *object;
  ADD_FAILURE() << "not found";
  return {};
}

// One of everything that iproute2 can make here.
void populate() {
  run("ip route add 20.0.0.0/24 via 10.0.0.9 metric 7 mtu lock 1400 advmss 1000 src 10.1.0.1; "
      "ip route add 20.1.0.0/24 nexthop via 10.0.0.9 weight 3 nexthop via 10.1.0.9 dev u1 onlink; "
      "ip route add 20.2.0.0/24 via inet6 fd00::9 dev u0; "
      "ip route add 20.3.0.0/24 tos 0x10 dev u1 scope link proto static; "
      "ip route add unreachable 20.4.0.0/24; ip route add blackhole 20.5.0.0/24 table 1000; "
      "ip route add 20.6.0.0/24 via 10.0.0.9 realms 4/5; "
      "ip -6 route add 2001:1::/32 via fd00::9 metric 9 pref high expires 1000; "
      "ip -6 route add 2001:2::/32 nexthop via fd00::9 nexthop via fd00:1::9 weight 5; "
      "ip -6 route add 2001:3::/32 from fd00::/64 via fd00:1::9 hoplimit 3; "
      "ip nexthop add id 1 via 10.0.0.9 dev u0; ip nexthop add id 2 via 10.1.0.9 dev u1; "
      "ip nexthop add id 3 blackhole; ip nexthop add id 100 group 1,10/2,200; "
      "ip nexthop add id 101 group 1/2 type resilient buckets 32; "
      "ip -6 nexthop add id 6 via fd00::9 dev u0; "
      "ip route add 21.0.0.0/24 nhid 100; ip -6 route add 2001:4::/32 nhid 6; "
      "ip neigh add 10.0.0.9 dev u0 lladdr 02:00:00:00:00:09 nud permanent; "
      "ip neigh add fd00:1::9 dev u1 lladdr 02:00:00:00:00:19 nud reachable; "
      "ip addr add 10.9.0.1 peer 10.9.0.2/32 dev u1; "
      "ip rule add prio 10 from 10.0.0.0/8 to 20.0.0.0/8 fwmark 0x5/0xff lookup 1000; "
      "ip rule add prio 11 not iif u0 oif u1 tos 0x10 lookup 1001 suppress_prefixlength 8; "
      "ip rule add prio 12 uidrange 5-9 ipproto udp sport 10-20 dport 53 prohibit; "
      "ip rule add prio 13 goto 32766; ip rule add prio 14 lookup 5 suppress_ifgroup 3; "
      "ip rule add prio 15 iif nonesuch unreachable; ip rule add prio 16 tun_id 7 blackhole; "
      "ip -6 rule add prio 17 from fd00::/16 lookup 1000; ip -6 rule add prio 18 l3mdev");
}

class kernel_test : public namespace_test {
 protected:
  request_socket& socket() {
    if (!socket_) socket_.emplace();  // In SetUp's namespace, not the one of the constructor.
    return *socket_;
  }
  std::vector<message> dump(object_kind kind, const dump_filter& filter = {}) {
    return socket().dump(kind, filter);
  }
  std::optional<request_socket> socket_;
};

TEST_F(kernel_test, nothing_that_the_kernel_says_is_unknown) {
  populate();
  for (const dump_scope& scope : dump_plan) {
    const auto all = dump(scope.kind, scope.filter);
    EXPECT_FALSE(all.empty()) << static_cast<int>(scope.kind);
    for (const message& m : all)
      std::visit(
          [](const auto& object) {
            if constexpr (requires { object.unknown; }) {
              EXPECT_EQ(object.unknown, std::vector<std::uint16_t>{});
            }
          },
          m);
  }
}

// Whole datagrams of every dump, as the kernel wrote them.
std::vector<std::vector<std::byte>> recorded_messages() {
  std::error_code ec;
  const unique_fd fd = open_request_socket({}, ec);
  EXPECT_FALSE(ec) << ec.message();
  std::vector<std::vector<std::byte>> all;
  std::vector<std::byte> buffer(datagram_size_max);
  std::uint32_t sequence = 0;
  for (const dump_scope& scope : dump_plan) {
    const auto request = dump_request(scope.kind, scope.filter, ++sequence);
    EXPECT_GT(::send(fd.get(), request.data(), request.size(), 0), 0);
    for (bool done = false; !done;) {
      const auto size = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
      if (size <= 0) return ADD_FAILURE() << "recv", all;
      std::span<const std::byte> rest(buffer.data(), static_cast<std::size_t>(size));
      while (const auto e = next_envelope(rest, ec)) {
        all.emplace_back(e->bytes.begin(), e->bytes.end());
        done |= e->type == NLMSG_DONE || e->type == NLMSG_ERROR;
      }
    }
  }
  return all;
}

TEST_F(kernel_test, every_truncation_and_corruption_of_recorded_messages_is_survived) {
  populate();
  std::size_t tried = 0;
  for (const auto& recorded : recorded_messages()) {
    for (std::uint32_t size = sizeof(nlmsghdr); size < recorded.size(); ++size, ++tried) {
      std::vector<std::byte> cut(recorded.begin(),
                                 recorded.begin() + static_cast<std::ptrdiff_t>(size));
      std::error_code ec;
      const auto lying = decode(cut, ec);
      ASSERT_FALSE(lying);
      ASSERT_EQ(ec, error::truncated);
      std::memcpy(cut.data(), &size, sizeof size);
      const auto agreeing = decode(cut, ec);
      ASSERT_FALSE(agreeing && ec);
    }
    std::vector<std::byte> corrupt = recorded;
    for (std::byte& victim : corrupt) {
      const std::byte original = victim;
      for (const unsigned value : {0x00u, 0x01u, 0x04u, 0x7fu, 0x80u, 0xffu}) {
        victim = static_cast<std::byte>(value);
        std::error_code ec;
        const auto m = decode(corrupt, ec);
        ASSERT_FALSE(m && ec);
        ++tried;
      }
      victim = original;
    }
  }
  EXPECT_GT(tried, 10000u);
}

// encode() leaves out what is known and ignored; what it writes says the same.
TEST_F(kernel_test, what_the_kernel_says_survives_a_round_trip) {
  populate();
  for (const dump_scope& scope : dump_plan)
    for (const message& m : dump(scope.kind, scope.filter)) {
      std::error_code ec;
      const auto copy = decode(encode(m), ec);
      ASSERT_TRUE(copy) << ec.message();
      EXPECT_EQ(*copy, m) << static_cast<int>(scope.kind);
    }
}

TEST_F(kernel_test, reads_links_and_addresses) {
  populate();
  const auto links = dump(object_kind::link);
  const auto u0 = find<link>(links, [](const link& l) { return l.name == "u0"; });
  EXPECT_EQ(u0.index, index_of("u0"));
  EXPECT_EQ(u0.kind, "veth");
  EXPECT_EQ(u0.lower, index_of("p0"));
  EXPECT_EQ(u0.mtu, 1500u);
  EXPECT_EQ(u0.address.size(), 6u);
  EXPECT_TRUE(u0.carrier);
  EXPECT_EQ(u0.operational_state, 6);  // IF_OPER_UP
  EXPECT_NE(u0.flags & IFF_UP, 0u);

  const auto addresses = dump(object_kind::address);
  const auto plain =
      find<address>(addresses, [](const address& a) { return a.local == ip("10.0.0.1"); });
  EXPECT_EQ(plain.peer, plain.local);
  EXPECT_EQ(plain.prefix_length, 24);
  EXPECT_EQ(plain.label, "u0");
  EXPECT_NE(plain.flags & IFA_F_PERMANENT, 0u);
  const auto ptp =
      find<address>(addresses, [](const address& a) { return a.local == ip("10.9.0.1"); });
  EXPECT_EQ(ptp.peer, ip("10.9.0.2"));
  const auto v6 =
      find<address>(addresses, [](const address& a) { return a.local == ip("fd00::1"); });
  EXPECT_EQ(v6.peer, v6.local);
  EXPECT_EQ(v6.valid_s, 0xffffffffu);
}

TEST_F(kernel_test, reads_routes) {
  populate();
  const auto routes = dump(object_kind::route);
  const auto to = [&](const char* text) {
    return find<route>(routes, [&](const route& r) { return r.destination == prefix(text); });
  };
  const auto full = to("20.0.0.0/24");
  EXPECT_EQ(full.table, unsigned{RT_TABLE_MAIN});
  EXPECT_EQ(full.priority, 7u);
  EXPECT_EQ(full.metrics.mtu, 1400u);
  EXPECT_EQ(full.metrics.advmss, 1000u);
  EXPECT_EQ(full.metrics.lock, 1u << RTAX_MTU);
  EXPECT_EQ(full.preferred_source, ip("10.1.0.1"));
  EXPECT_EQ(full.next_hops, (std::vector<next_hop>{{index_of("u0"), ip("10.0.0.9"), 1, 0, false}}));
  EXPECT_EQ(to("20.1.0.0/24").next_hops,
            (std::vector<next_hop>{{index_of("u0"), ip("10.0.0.9"), 3, 0, false},
                                   {index_of("u1"), ip("10.1.0.9"), 1, RTNH_F_ONLINK, false}}));
  EXPECT_EQ(to("20.2.0.0/24").next_hops[0].gateway, ip("fd00::9"));
  EXPECT_EQ(to("20.3.0.0/24").tos, 0x10);
  EXPECT_EQ(to("20.3.0.0/24").scope, unsigned{RT_SCOPE_LINK});
  EXPECT_EQ(to("20.4.0.0/24").type, unsigned{RTN_UNREACHABLE});
  EXPECT_EQ(to("20.5.0.0/24").table, 1000u);
  EXPECT_EQ(to("2001:1::/32").preference, 1);
  EXPECT_NEAR(to("2001:1::/32").expires_s.value_or(0), 1000, 5);
  EXPECT_EQ(to("2001:2::/32").next_hops.size(), 2u);
  EXPECT_EQ(to("2001:2::/32").next_hops[1].weight, 5u);
  EXPECT_EQ(to("2001:3::/32").source, prefix("fd00::/64"));
  EXPECT_EQ(to("2001:3::/32").metrics.hop_limit, 3u);
  EXPECT_EQ(to("21.0.0.0/24").nexthop_id, 100u);
  EXPECT_EQ(to("21.0.0.0/24").next_hops.size(), 2u);
}

TEST_F(kernel_test, reads_rules) {
  populate();
  auto rules = dump(object_kind::rule, {ip_family::v4, 0, 0});
  const auto of = [&](std::uint32_t priority) {
    return find<rule>(rules, [&](const rule& r) { return r.priority == priority; });
  };
  EXPECT_EQ(of(10).from, prefix("10.0.0.0/8"));
  EXPECT_EQ(of(10).to, prefix("20.0.0.0/8"));
  EXPECT_EQ(of(10).mark, 5u);
  EXPECT_EQ(of(10).mark_mask, 0xffu);
  EXPECT_EQ(of(10).table, 1000u);
  EXPECT_EQ(of(10).kind, unsigned{FR_ACT_TO_TBL});
  EXPECT_FALSE(of(10).suppress_prefix_length);
  EXPECT_TRUE(of(11).invert);
  EXPECT_EQ(of(11).input_interface, "u0");
  EXPECT_EQ(of(11).output_interface, "u1");
  EXPECT_EQ(of(11).tos, 0x10);
  EXPECT_EQ(of(11).suppress_prefix_length, 8u);
  EXPECT_EQ(of(12).uid, (range<std::uint32_t>{5, 9}));
  EXPECT_EQ(of(12).ip_protocol, 17);
  EXPECT_EQ(of(12).source_port, (range<std::uint16_t>{10, 20}));
  EXPECT_EQ(of(12).destination_port, (range<std::uint16_t>{53, 53}));
  EXPECT_EQ(of(12).destination_port_mask, 0xffff);
  EXPECT_EQ(of(12).kind, unsigned{FR_ACT_PROHIBIT});
  EXPECT_EQ(of(13).goto_target, 32766u);
  EXPECT_EQ(of(14).suppress_group, 3u);
  EXPECT_TRUE(of(15).input_detached);
  EXPECT_EQ(of(16).tunnel_id, 7u);
  EXPECT_FALSE(of(0).from);
  EXPECT_EQ(of(0).table, unsigned{RT_TABLE_LOCAL});
  rules = dump(object_kind::rule, {ip_family::v6, 0, 0});
  EXPECT_EQ(of(17).from, prefix("fd00::/16"));
  EXPECT_TRUE(of(18).l3mdev);
}

// iproute2 may be older than these selectors; the codec's own requests are not.
TEST_F(kernel_test, makes_and_reads_rules_of_newer_kernels) {
  rule r;
  r.priority = 77;
  r.table = 100;
  r.kind = FR_ACT_TO_TBL;
  r.dscp = std::uint8_t{0};
  std::error_code ec;
  socket().execute(encode(r), ec);
  if (ec) GTEST_SKIP() << "kernel without FRA_DSCP (before 6.12): " << socket().diagnostic();
  r.priority = 78;
  r.source_port = range<std::uint16_t>{0x1200, 0x1200};
  r.source_port_mask = 0xff00;
  r.dscp_mask = 0x30;
  socket().execute(encode(r), ec);
  if (ec) GTEST_SKIP() << "kernel without rule masks (before 6.15): " << socket().diagnostic();
  const auto rules = dump(object_kind::rule, {ip_family::v4, 0, 0});
  const auto found = find<rule>(rules, [](const rule& x) { return x.priority == 78; });
  EXPECT_EQ(found.dscp, 0);
  EXPECT_EQ(found.dscp_mask, 0x30);
  EXPECT_EQ(found.source_port_mask, 0xff00);
  r.family = ip_family::v6;
  r.flow_label = 0x12345;
  r.flow_label_mask = 0xfffff;
  socket().execute(encode(r));
  const auto v6 = dump(object_kind::rule, {ip_family::v6, 0, 0});
  EXPECT_EQ(find<rule>(v6, [](const rule& x) { return x.priority == 78; }).flow_label, 0x12345u);
}

TEST_F(kernel_test, reads_neighbours_nexthops_and_netconf) {
  populate();
  const auto n = find<neighbour>(dump(object_kind::neighbour), [](const neighbour& x) {
    return x.destination == ip("10.0.0.9");
  });
  EXPECT_EQ(n.link_address, (std::vector<std::uint8_t>{2, 0, 0, 0, 0, 9}));
  EXPECT_EQ(n.state, NUD_PERMANENT);
  EXPECT_EQ(n.index, index_of("u0"));

  const auto nexthops = dump(object_kind::nexthop);
  const auto of = [&](std::uint32_t id) {
    return find<nexthop_object>(nexthops, [&](const nexthop_object& x) { return x.id == id; });
  };
  EXPECT_EQ(of(1).gateway, ip("10.0.0.9"));
  EXPECT_EQ(of(1).index, index_of("u0"));
  EXPECT_TRUE(of(3).blackhole);
  EXPECT_EQ(of(100).group, (std::vector<nexthop_object::member>{{1, 10}, {2, 200}}));
  EXPECT_TRUE(of(100).family_unspecified);
  EXPECT_EQ(of(101).group_type, 1);
  EXPECT_EQ(of(101).resilient_buckets, 32);
  EXPECT_EQ(of(6).family, ip_family::v6);

  std::map<std::uint32_t, std::size_t> buckets_of_member;
  std::set<std::uint16_t> indices;
  for (const message& m : dump(object_kind::nexthop_bucket)) {
    const auto& bucket = std::get<nexthop_bucket>(m);
    EXPECT_EQ(bucket.group, 101u);
    ++buckets_of_member[bucket.member];
    indices.insert(bucket.index);
  }
  EXPECT_EQ(buckets_of_member, (std::map<std::uint32_t, std::size_t>{{1, 16}, {2, 16}}));
  EXPECT_EQ(indices.size(), 32u);
  EXPECT_EQ(*indices.rbegin(), 31u);

  run("sysctl -qw net.ipv4.conf.u0.ignore_routes_with_linkdown=1");
  const auto c = find<netconf>(
      dump(object_kind::netconf, {ip_family::v4, 0, 0}),
      [](const auto& x) { return x.index == static_cast<std::int32_t>(index_of("u0")); });
  EXPECT_EQ(c.ignore_routes_with_linkdown, true);
  EXPECT_EQ(c.forwarding, false);
}

TEST_F(kernel_test, dumps_only_what_the_filter_selects) {
  populate();
  const auto table = dump(object_kind::route, {ip_family::v4, 1000, 0});
  ASSERT_EQ(table.size(), 1u);
  EXPECT_EQ(std::get<route>(table[0]).destination, prefix("20.5.0.0/24"));
  for (const message& m : dump(object_kind::route, {ip_family::v4, 0, index_of("u1")}))
    EXPECT_TRUE(std::ranges::any_of(std::get<route>(m).next_hops, [](const next_hop& hop) {
      return hop.index == index_of("u1");
    }));
  EXPECT_EQ(dump(object_kind::nexthop, {{}, 0, index_of("u1")}).size(), 1u);
  EXPECT_EQ(dump(object_kind::neighbour, {ip_family::v4, 0, index_of("u0")}).size(), 1u);
  EXPECT_TRUE(dump(object_kind::route, {ip_family::v4, 4711, 0}).empty());    // No such table.
  EXPECT_TRUE(dump(object_kind::route, {ip_family::v4, 0, 999999}).empty());  // No such device.
}

TEST_F(kernel_test, asks_the_kernel_for_a_route) {
  populate();
  route_query query;
  query.destination = ip("20.0.0.77");
  const auto answer = socket().get_route(query);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer.route.destination, prefix("20.0.0.77/32"));
  EXPECT_EQ(answer.route.preferred_source, ip("10.1.0.1"));
  EXPECT_EQ(answer.route.table, unsigned{RT_TABLE_MAIN});
  EXPECT_EQ(answer.route.next_hops[0].gateway, ip("10.0.0.9"));
  EXPECT_TRUE(answer.route.uid);
  query.fib_match = true;
  EXPECT_EQ(socket().get_route(query).route.destination, prefix("20.0.0.0/24"));

  query.destination = ip("20.4.0.1");
  EXPECT_EQ(socket().get_route(query).error_number, EHOSTUNREACH);
  query.destination = ip("99.0.0.1");
  EXPECT_EQ(socket().get_route(query).error_number, ENETUNREACH);
}

TEST_F(kernel_test, asks_with_everything_that_rules_can_see) {
  run("ip route add 50.0.0.0/24 dev u0 table 100; ip route add 50.0.0.0/24 dev u1; "
      "ip rule add prio 5 fwmark 0x9 uidrange 7-7 ipproto tcp sport 5 dport 6 tos 0x10 "
      "  from 10.1.0.1 lookup 100");
  route_query query;
  query.destination = ip("50.0.0.1");
  query.source = ip("10.1.0.1");
  query.mark = 9;
  query.uid = 7;
  query.ip_protocol = std::uint8_t{6};
  query.source_port = std::uint16_t{5};
  query.destination_port = std::uint16_t{6};
  query.tos = 0x10;
  const auto matching = socket().get_route(query);
  EXPECT_EQ(matching.route.table, 100u);
  EXPECT_EQ(matching.route.mark, 9u);
  EXPECT_EQ(matching.route.uid, 7u);
  query.uid = 8;
  EXPECT_EQ(socket().get_route(query).route.table, unsigned{RT_TABLE_MAIN});
  query = {};
  query.destination = ip("fd00:1::5");
  query.output_interface = index_of("u1");
  const auto v6 = socket().get_route(query);
  ASSERT_TRUE(v6) << errno_name(v6.error_number) << socket().diagnostic();
  EXPECT_EQ(v6.route.next_hops[0].index, index_of("u1"));
  EXPECT_EQ(v6.route.preferred_source, ip("fd00:1::1"));
}

TEST_F(kernel_test, pokes_a_neighbour) {
  run("ip neigh add 10.0.0.6 dev u0 lladdr 02:00:00:00:00:06 nud stale; "
      "ip neigh add 10.0.0.7 dev u0 lladdr 02:00:00:00:00:07 nud stale extern_learn");
  const auto entry = [&](const char* address) {
    return find<neighbour>(dump(object_kind::neighbour),
                           [&](const neighbour& n) { return n.destination == ip(address); });
  };
  neighbour unknown;
  unknown.index = index_of("u0");
  unknown.destination = ip("10.0.0.5");
  for (const neighbour& known : {unknown, entry("10.0.0.6"), entry("10.0.0.7")}) {
    std::error_code ec;
    socket().execute(neighbour_poke(known, 0), ec);
    EXPECT_FALSE(ec) << ec.message();
  }
  EXPECT_EQ(entry("10.0.0.5").state, NUD_INCOMPLETE);
  EXPECT_EQ(entry("10.0.0.6").state, NUD_DELAY);
  EXPECT_EQ(entry("10.0.0.6").flags, 0);
  EXPECT_EQ(entry("10.0.0.7").state, NUD_DELAY);
  EXPECT_EQ(entry("10.0.0.7").flags, NTF_EXT_LEARNED);
}

TEST_F(kernel_test, reports_what_the_kernel_refuses_in_its_words) {
  route r;
  r.destination = prefix("60.0.0.0/24");
  r.source = ip_prefix::all(ip_family::v4);
  r.table = RT_TABLE_MAIN;
  r.type = RTN_UNICAST;
  r.placement = {false, true, true, false};
  r.next_hops = {{index_of("u0"), ip("77.0.0.1"), 1, 0, false}};
  std::error_code ec;
  socket().execute(encode(r), ec);
  EXPECT_EQ(ec, errno_code(ENETUNREACH));
  EXPECT_EQ(socket().diagnostic(), "Nexthop has invalid gateway");
  EXPECT_THROW(socket().execute(encode(r)), std::system_error);
  r.next_hops[0].gateway = ip("10.0.0.9");
  socket().execute(encode(r));
  r.action = action::remove;
  r.placement = {};
  socket().execute(encode(r));
}

// The monitor's owner, as simple as can be: blocking, both sockets in one poll.
class driver {
 public:
  explicit driver(int receive_buffer_bytes = 1 << 20) {
    std::error_code ec;
    events_ = open_event_socket({true, receive_buffer_bytes}, ec);
    EXPECT_FALSE(ec) << ec.message();
    requests_ = open_request_socket({true, 0}, ec);
    EXPECT_FALSE(ec) << ec.message();
    monitor_.start();
  }

  // Until nothing has come for `quiet` and nothing is awaited.
  void run_until_quiet(std::chrono::milliseconds quiet = 150ms) {
    auto last = now();
    while (monitor_.deadline() || now() - last < quiet) {
      if (step(10)) last = now();
      ASSERT_TRUE(consumer_.drain(monitor_)) << consumer_.history();
    }
  }
  bool step(int timeout_ms) {
    while (const auto request = monitor_.next_request(now()))
      EXPECT_GT(::send(requests_.get(), request->data(), request->size(), 0), 0);
    std::array<pollfd, 2> fds{{{events_.get(), POLLIN, 0}, {requests_.get(), POLLIN, 0}}};
    const int ready = ::poll(fds.data(), fds.size(), timeout_ms);
    if (fds[0].revents != 0) receive(events_.get(), true);
    if (fds[1].revents != 0) receive(requests_.get(), false);
    monitor_.on_timer(now());
    return ready > 0;
  }
  netlink::monitor& monitor() { return monitor_; }
  test::consumer& consumer() { return consumer_; }

 private:
  static std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }
  void receive(int fd, bool is_event) {
    const auto size = ::recv(fd, buffer_.data(), buffer_.size(), MSG_TRUNC);
    if (size < 0) {
      EXPECT_EQ(errno, ENOBUFS);
      is_event ? monitor_.on_overrun(now()) : monitor_.on_reply_loss();
      return;
    }
    const std::span<const std::byte> datagram(buffer_.data(), static_cast<std::size_t>(size));
    is_event ? monitor_.on_event_datagram(datagram, now())
             : monitor_.on_reply_datagram(datagram, now());
  }

  unique_fd events_, requests_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(datagram_size_max);
  netlink::monitor monitor_;
  test::consumer consumer_;
};

class kernel_monitor_test : public kernel_test {
 protected:
  test::world kernel_world() {
    test::world w;
    for (const dump_scope& scope : dump_plan)
      for (const message& m : dump(scope.kind, scope.filter)) w.apply(m);
    return announced(w);
  }
  // Without what the kernel makes silently: the NOARP entries of multicast neighbours.
  static test::world announced(const test::world& all) {
    test::world w;
    for (const auto& [key, m] : all.objects())
      if (const auto* n = std::get_if<neighbour>(&m); !n || !n->destination.is_multicast())
        w.apply(m);
    return w;
  }
  std::string difference_to_kernel(driver& d) {
    return test::difference(announced(d.consumer().live()), kernel_world());
  }
  // How a change of a group has dealt its buckets is not told.
  static void read_buckets(driver& d) {
    d.monitor().request_refresh({object_kind::nexthop_bucket, {}});
    d.run_until_quiet();
  }
  void expect_equal(driver& d) { EXPECT_EQ(difference_to_kernel(d), ""); }
  // A route that neither expires nor changes by itself.
  static void settle() {
    run("sysctl -qw net.ipv6.conf.all.router_solicitations=0; "
        "ip -6 route del 2001:1::/32 2>/dev/null || true");
  }
};

TEST_F(kernel_monitor_test, knows_what_the_kernel_knows_after_the_first_sync) {
  populate();
  settle();
  driver d;
  d.run_until_quiet();
  EXPECT_TRUE(d.monitor().in_sync());
  EXPECT_GT(d.consumer().live().objects().size(), 60u);
  expect_equal(d);
}

TEST_F(kernel_monitor_test, follows_additions_and_removals) {
  settle();
  driver d;
  d.run_until_quiet();
  populate();
  settle();
  read_buckets(d);
  expect_equal(d);
  run("ip route replace 20.0.0.0/24 via 10.1.0.9 metric 7; ip route del 20.1.0.0/24; "
      "ip -6 route del 2001:3::/32 from fd00::/64; ip rule del prio 10; ip -6 rule del prio 17; "
      "ip neigh del 10.0.0.9 dev u0; ip addr del 10.9.0.1 peer 10.9.0.2/32 dev u1; "
      "ip link set u0 mtu 1400; ip link add u9 type veth peer name p9; "
      "ip link set p9 mtu 1400; ip nexthop del id 101; "
      "sysctl -qw net.ipv4.conf.u0.forwarding=1");
  read_buckets(d);
  expect_equal(d);
  EXPECT_EQ(d.monitor().counters().syncs_started, 1u);
}

// A question is a use of its bucket, as a packet is. What is idle for the timer's time moves.
TEST_F(kernel_monitor_test, follows_buckets_that_move_once_they_are_idle) {
  run("ip nexthop add id 1 via 10.0.0.9 dev u0; ip nexthop add id 2 via 10.1.0.9 dev u1; "
      "ip nexthop add id 9 group 1,255/2,1 type resilient buckets 8 idle_timer 4; "
      "ip route add 21.0.0.0/24 nhid 9");
  driver d;
  d.run_until_quiet();
  const auto of_member = [&](std::uint32_t member) {
    return std::ranges::count_if(d.consumer().live().objects(), [&](const auto& entry) {
      const auto* bucket = std::get_if<nexthop_bucket>(&entry.second);
      return bucket != nullptr && bucket->member == member;
    });
  };
  EXPECT_EQ(of_member(1), 8);
  for (std::uint32_t host = 1; host < 250; ++host) {
    route_query about;
    about.destination = ip_address::v4(0x15000000 + host);
    EXPECT_TRUE(socket().get_route(about));
  }
  run("ip nexthop replace id 9 group 1,1/2,255 type resilient");
  read_buckets(d);
  EXPECT_EQ(of_member(1), 8);
  expect_equal(d);
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (of_member(2) != 8 && std::chrono::steady_clock::now() < deadline) d.run_until_quiet();
  EXPECT_EQ(of_member(2), 8);
  expect_equal(d);
}

TEST_F(kernel_monitor_test, follows_a_long_random_churn) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  settle();
  driver d;
  for (int round = 0; round < 2000; ++round) {
    route r;
    const auto number = static_cast<std::uint32_t>(random() % 50);
    r.destination = {ip_address::v4(0x1e000000 + (number << 8)), 24};
    r.source = ip_prefix::all(ip_family::v4);
    r.table = random() % 2 == 0 ? std::uint32_t{RT_TABLE_MAIN} : 1000u;
    r.type = RTN_UNICAST;
    r.protocol = RTPROT_STATIC;
    r.next_hops = {{index_of(random() % 2 == 0 ? "u0" : "u1"), std::nullopt, 1, 0, false}};
    r.scope = RT_SCOPE_LINK;
    if (random() % 3 == 0)
      r.action = action::remove;
    else
      r.placement = {true, true, false, false};
    std::error_code ec;  // Removing what is not there is refused; so be it.
    socket().execute(encode(r), ec);
    if (round == 1000) d.monitor().request_sync();
    d.step(0);
    ASSERT_TRUE(d.consumer().drain(d.monitor()));
  }
  d.run_until_quiet();
  expect_equal(d);
  EXPECT_EQ(d.monitor().counters().malformed, 0u);
}

TEST_F(kernel_monitor_test, recovers_from_an_overrun) {
  settle();
  driver d(4096);
  d.run_until_quiet();
  // More events than the small receive buffer holds, and nobody reads.
  run("for i in $(seq 0 255); do echo route add 30.0.$i.0/24 dev u0; done | ip -batch -");
  d.run_until_quiet();
  EXPECT_GE(d.monitor().counters().overruns, 1u);
  EXPECT_TRUE(d.monitor().in_sync());
  expect_equal(d);
}

// The kernel removes IPv4 routes and nexthop objects of a link that goes down without a word.
TEST_F(kernel_monitor_test, finds_silent_removals_by_refresh) {
  populate();
  settle();
  driver d;
  d.run_until_quiet();
  run("ip link set u1 down");
  d.run_until_quiet();
  EXPECT_NE(difference_to_kernel(d), "");
  d.monitor().request_refresh({object_kind::nexthop, {}});
  d.monitor().request_refresh({object_kind::nexthop_bucket, {}});
  d.monitor().request_refresh({object_kind::route, {}});  // Both families in one dump.
  d.run_until_quiet();
  expect_equal(d);
  EXPECT_EQ(d.monitor().counters().refreshes_completed, 3u);
}

}  // namespace
}  // namespace cowire
