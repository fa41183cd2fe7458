// SPDX-License-Identifier: Apache-2.0
#include "world.hpp"

#include <cowire/base/assert.hpp>

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_arp.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>

namespace cowire::testing {

ip_address ip(const char* text) {
  const auto parsed = ip_address::parse(text);
  COWIRE_ASSERT(parsed);
  return *parsed;
}

ip_prefix net(const char* text) {
  const auto parsed = ip_prefix::parse(text);
  COWIRE_ASSERT(parsed);
  return *parsed;
}

netlink::link ethernet(std::uint32_t index, const std::string& name) {
  netlink::link link;
  link.index = index;
  link.name = name;
  link.hardware_type = ARPHRD_ETHER;
  link.flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST | netlink::lower_up;
  link.mtu = 1500;
  link.address = {2, 0, 0, 0, 0, static_cast<std::uint8_t>(index)};
  link.kind = "veth";
  return link;
}

netlink::link loopback() {
  netlink::link link;
  link.index = 1;
  link.name = "lo";
  link.hardware_type = ARPHRD_LOOPBACK;
  link.flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK | netlink::lower_up;
  link.mtu = 65536;
  link.address = {0, 0, 0, 0, 0, 0};
  return link;
}

netlink::address address(std::uint32_t index, const char* local, unsigned length) {
  netlink::address made;
  made.index = index;
  made.local = made.peer = ip(local);
  made.prefix_length = static_cast<std::uint8_t>(length);
  made.flags = IFA_F_PERMANENT;
  if (made.local.is_link_local_v6()) made.scope = RT_SCOPE_LINK;
  if (made.local.is_loopback()) made.scope = RT_SCOPE_HOST;
  return made;
}

netlink::neighbour neighbour(std::uint32_t index, const ip_address& destination,
                             std::uint16_t state) {
  netlink::neighbour made;
  made.index = index;
  made.destination = destination;
  made.state = state;
  if ((state & (NUD_FAILED | NUD_INCOMPLETE)) == 0)
    made.link_address = {
        2, 1, 0, 0, static_cast<std::uint8_t>(index), destination.bytes()[destination.size() - 1]};
  made.type = RTN_UNICAST;
  return made;
}

netlink::route route_via(const ip_prefix& destination, const char* gateway, std::uint32_t index,
                         std::uint32_t table) {
  netlink::route made = route_on(destination, index, table);
  made.scope = RT_SCOPE_UNIVERSE;
  made.next_hops.front().gateway = ip(gateway);
  return made;
}

netlink::route route_on(const ip_prefix& destination, std::uint32_t index, std::uint32_t table) {
  netlink::route made;
  made.destination = destination;
  made.source = ip_prefix::all(destination.family());
  made.table = table;
  made.protocol = RTPROT_STATIC;
  made.type = RTN_UNICAST;
  made.scope = destination.family() == ip_family::v4 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  made.priority = destination.family() == ip_family::v4 ? 0 : 1024;
  made.next_hops.push_back({index, std::nullopt, 1, 0, false});
  return made;
}

netlink::route local_route(const ip_address& own, std::uint32_t index) {
  netlink::route made = route_on(ip_prefix(own, own.bits()), index, RT_TABLE_LOCAL);
  made.type = RTN_LOCAL;
  made.scope = own.is_v4() ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
  made.protocol = RTPROT_KERNEL;
  made.priority = 0;
  if (own.is_v4()) made.preferred_source = own;
  return made;
}

netlink::rule rule_to_table(ip_family family, std::uint32_t priority, std::uint32_t table) {
  netlink::rule made;
  made.family = family;
  made.priority = priority;
  made.table = table;
  made.kind = 1;
  return made;
}

netlink::route added(netlink::route route) {
  route.placement = {.replace = false, .create = true, .exclusive = true, .append = false};
  return route;
}
netlink::route appended(netlink::route route) {
  route.placement = {.replace = false, .create = true, .exclusive = false, .append = true};
  return route;
}
netlink::route replacing(netlink::route route) {
  route.placement = {.replace = true, .create = false, .exclusive = false, .append = false};
  return route;
}

mirror small_world() {
  mirror state;
  mirror_changes changes;
  const auto apply = [&](const netlink::message& message) {
    state.apply(message, changes, message_origin::dump);
  };
  apply(loopback());
  apply(address(1, "127.0.0.1", 8));
  apply(address(1, "::1", 128));
  netlink::route own = local_route(ip("127.0.0.0"), 1);
  own.destination = net("127.0.0.0/8");
  apply(own);
  apply(local_route(ip("127.0.0.1"), 1));
  apply(local_route(ip("::1"), 1));
  for (const ip_family family : ip_families) {
    apply(rule_to_table(family, 0, RT_TABLE_LOCAL));
    apply(rule_to_table(family, 32766, RT_TABLE_MAIN));
  }
  apply(rule_to_table(ip_family::v4, 32767, RT_TABLE_DEFAULT));
  for (std::uint32_t index = 2; index <= 4; ++index) {
    const std::string n = std::to_string(index);
    apply(ethernet(index, "u" + n));
    const std::string v4 = "10." + n + ".0.1", v6 = "fd00:" + n + "::1";
    apply(address(index, v4.c_str(), 24));
    apply(address(index, v6.c_str(), 64));
    apply(local_route(ip(v4.c_str()), index));
    apply(local_route(ip(v6.c_str()), index));
    netlink::route broadcast = local_route(ip(("10." + n + ".0.255").c_str()), index);
    broadcast.type = RTN_BROADCAST;
    broadcast.scope = RT_SCOPE_LINK;
    broadcast.preferred_source = ip(v4.c_str());
    apply(broadcast);
    netlink::route connected = route_on(net(("10." + n + ".0.0/24").c_str()), index);
    connected.preferred_source = ip(v4.c_str());
    connected.protocol = RTPROT_KERNEL;
    apply(connected);
    netlink::route connected_v6 = route_on(net(("fd00:" + n + "::/64").c_str()), index);
    connected_v6.protocol = RTPROT_KERNEL;
    connected_v6.priority = 256;
    apply(connected_v6);
  }
  return state;
}

// ------------------------------------------------------------------------------------------------
// random worlds

random_world::random_world(std::uint64_t seed) : random_(seed), state_(small_world()) {
  mirror_changes changes;
  for (const std::uint32_t index : {2u, 3u, 4u})
    state_.apply(neighbour(index, random_gateway(ip_family::v4, index)), changes,
                 message_origin::notification);
}

ip_address random_world::random_address(ip_family family) {
  // A small space, so that prefixes nest and addresses hit.
  const std::uint32_t bits = below(1u << 16);
  if (family == ip_family::v4) {
    static constexpr std::uint32_t bases[] = {0x14000000, 0x14010000, 0x0a020000,
                                              0x0a030000, 0xe0000000, 0x7f000000};
    return ip_address::v4(bases[below(6)] | (below(3) == 0 ? bits : bits & 0x01ff));
  }
  auto bytes = ip("2001:db8::").bytes();
  static constexpr std::uint8_t heads[][2] = {
      {0x20, 0x01}, {0xfd, 0x00}, {0xfe, 0x80}, {0xff, 0x02}};
  const auto& head = heads[below(8) < 6 ? below(2) : 2 + below(2)];
  bytes[0] = head[0];
  bytes[1] = head[1];
  if (head[0] == 0xfd) bytes[2] = 0, bytes[3] = static_cast<std::uint8_t>(2 + below(3));
  bytes[5] = static_cast<std::uint8_t>(bits >> 14);
  bytes[7] = static_cast<std::uint8_t>(bits >> 12 & 3);
  bytes[15] = static_cast<std::uint8_t>(bits & 0x0f);
  return ip_address::v6(bytes);
}

ip_prefix random_world::random_prefix(ip_family family) {
  if (below(10) == 0) return ip_prefix::all(family);
  static constexpr unsigned lengths_v4[] = {8, 15, 16, 20, 23, 24, 25, 30, 32};
  static constexpr unsigned lengths_v6[] = {16, 32, 47, 48, 62, 64, 120, 126, 128};
  return {random_address(family),
          family == ip_family::v4 ? lengths_v4[below(9)] : lengths_v6[below(9)]};
}

ip_address random_world::random_gateway(ip_family family, std::uint32_t index) {
  const std::string n = std::to_string(index), last = std::to_string(2 + below(3));
  return family == ip_family::v4 ? ip(("10." + n + ".0." + last).c_str())
                                 : ip(("fd00:" + n + "::" + last).c_str());
}

netlink::route random_world::random_route() {
  const ip_family kind = family();
  const auto device = [&] { return 2 + below(3); };
  netlink::route made = route_on(random_prefix(kind), device());
  static constexpr std::uint32_t tables[] = {254, 254, 254, 253, 100, 101, 102};
  made.table = tables[below(7)];
  if (below(3) == 0) made.priority = 10 + below(3);
  const std::uint32_t what = below(12);
  if (what == 0) {
    static constexpr std::uint8_t rejects[] = {RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT,
                                               RTN_THROW};
    made.type = rejects[below(4)];
    made.next_hops.clear();
    if (kind == ip_family::v6) made.next_hops.push_back({1, std::nullopt, 1, 0, false});
    return made;
  }
  if (what == 1) {
    for (const std::uint32_t id : {1 + below(4), 10 + below(2)})
      if (state_.find_nexthop(id) != nullptr) made.nexthop_id = id;
    if (made.nexthop_id != 0) {
      made.scope = RT_SCOPE_UNIVERSE;
      made.next_hops.clear();
    }
  }
  if (what > 2) {
    made.scope = RT_SCOPE_UNIVERSE;
    made.next_hops.front().gateway = random_gateway(kind, made.next_hops.front().index);
  }
  if (what > 8) {
    for (std::uint32_t i = below(3); i > 0; --i) {
      const std::uint32_t index = device();
      made.next_hops.push_back({index, random_gateway(kind, index), 1 + below(4), 0, false});
    }
  }
  if (below(5) == 0) {
    const std::string n = std::to_string(device());
    made.preferred_source =
        ip((kind == ip_family::v4 ? "10." + n + ".0.1" : "fd00:" + n + "::1").c_str());
  }
  if (below(6) == 0) made.metrics.mtu = 1280 + below(220);
  if (below(8) == 0) made.metrics.hop_limit = 1 + below(255);
  if (kind == ip_family::v4 && below(8) == 0) made.tos = 0x10;
  if (below(25) == 0) made.unknown.push_back(200);
  return made;
}

netlink::rule random_world::random_rule() {
  const ip_family kind = family();
  static constexpr std::uint32_t tables[] = {254, 100, 101, 102};
  netlink::rule made = rule_to_table(kind, 100 + below(20), tables[below(4)]);
  if (below(3) == 0) made.to = random_prefix(kind);
  if (below(4) == 0) made.from = random_prefix(kind);
  if (below(4) == 0) made.mark = below(3), made.mark_mask = 0xffffffff;
  if (below(5) == 0) made.tos = 0x10;
  if (below(6) == 0) made.uid = {{below(3), 2}};
  if (below(6) == 0) made.ip_protocol = below(2) == 0 ? 17 : 6;
  if (below(8) == 0) made.source_port = {{7000, 8000}};
  if (below(10) == 0) made.destination_port = {{9000, 9100}};
  if (below(8) == 0) made.suppress_prefix_length = below(24);
  if (below(10) == 0) made.suppress_group = 0;
  if (below(8) == 0) made.invert = true;
  if (below(10) == 0) made.output_interface = "u" + std::to_string(2 + below(3));
  if (below(30) == 0) made.unknown.push_back(99);
  const std::uint32_t what = below(10);
  if (what == 0) made.kind = static_cast<std::uint8_t>(6 + below(3));
  if (what == 1) made.kind = 2, made.goto_target = made.priority + 1 + below(10);
  return made;
}

void random_world::add_route(mirror_changes& changes) {
  netlink::route made = random_route();
  const std::uint32_t how = below(3);
  made = how == 0 ? added(made) : how == 1 ? appended(made) : replacing(made);
  log_.push_back("route " + made.destination.to_string() + " table " + std::to_string(made.table));
  state_.apply(made, changes, message_origin::notification);
}

void random_world::remove_route(mirror_changes& changes) {
  std::vector<netlink::route> all;
  for (const ip_family kind : ip_families)
    for (const auto& [id, table] : state_.tables(kind))
      if (id != RT_TABLE_LOCAL)
        for (const auto& [prefix, entries] : table)
          for (const route_entry& entry : entries) all.push_back(entry.route_to(prefix));
  if (all.empty()) return;
  const netlink::route gone = removal(all[below(static_cast<std::uint32_t>(all.size()))]);
  log_.push_back("del " + gone.destination.to_string() + " table " + std::to_string(gone.table));
  state_.apply(gone, changes, message_origin::notification);
}

void random_world::change_rule(mirror_changes& changes) {
  const ip_family kind = family();
  const auto& rules = state_.rules(kind);
  std::vector<netlink::rule> removable;
  for (const netlink::rule& rule : rules)
    if (rule.priority >= 100 && rule.priority < 200) removable.push_back(rule);
  if (removable.size() > 4 || (!removable.empty() && below(2) == 0)) {
    log_.push_back("rule del");
    state_.apply(removal(removable[below(static_cast<std::uint32_t>(removable.size()))]), changes,
                 message_origin::notification);
    return;
  }
  log_.push_back("rule add");
  state_.apply(random_rule(), changes, message_origin::notification);
}

void random_world::change_neighbour(mirror_changes& changes) {
  const std::uint32_t index = 2 + below(3);
  const ip_family kind = family();
  const ip_address destination = below(2) == 0 ? random_gateway(kind, index) : random_address(kind);
  static constexpr std::uint16_t states[] = {NUD_REACHABLE, NUD_STALE, NUD_FAILED, NUD_PERMANENT};
  netlink::neighbour made = neighbour(index, destination, states[below(4)]);
  if (below(4) == 0 && !made.link_address.empty()) made.link_address[0] = 6;
  if (below(4) == 0) made.action = netlink::action::remove;
  log_.push_back("neighbour " + destination.to_string() + " state " + std::to_string(made.state));
  state_.apply(made, changes, message_origin::notification);
}

void random_world::change_link(mirror_changes& changes) {
  const std::uint32_t index = 2 + below(3);
  netlink::link link = state_.find_device(index)->link;
  const std::uint32_t what = below(4);
  if (what == 0) link.mtu = 1400 + below(100);
  if (what == 1) link.address[1] = static_cast<std::uint8_t>(below(8));
  if (what == 2) link.flags ^= IFF_UP;
  if (what == 3) link.carrier = !link.carrier;
  log_.push_back("link " + std::to_string(index) + " change " + std::to_string(what));
  state_.apply(link, changes, message_origin::notification);
}

void random_world::change_address(mirror_changes& changes) {
  const std::uint32_t index = 2 + below(3);
  const std::string n = std::to_string(index), last = std::to_string(10 + below(3));
  netlink::address made =
      below(2) == 0
          ? address(index, ("10." + n + ".0." + last).c_str(), below(2) == 0 ? 24 : 32)
          : address(index, ((below(2) == 0 ? "2001:db8:0:" : "fd00:") + n + "::" + last).c_str(),
                    64);
  if (below(2) == 0) made.action = netlink::action::remove;
  log_.push_back("address " + made.local.to_string());
  state_.apply(made, changes, message_origin::notification);
}

void random_world::change_path_mtu(mirror_changes& changes) {
  const ip_address destination = random_address(family());
  log_.push_back("path MTU " + destination.to_string());
  state_.set_path_mtu(destination, below(3) == 0 ? 0 : 1280 + below(100),
                      std::chrono::steady_clock::time_point::max(), changes);
}

/// Single objects have the ids 1 to 4, groups of them 10 and 11. All are IPv4: IPv6 routes over
/// them are as good for comparing.
void random_world::change_nexthop(mirror_changes& changes) {
  netlink::nexthop_object made;
  made.id = below(3) == 0 ? 10 + below(2) : 1 + below(4);
  log_.push_back("nexthop " + std::to_string(made.id));
  if (below(6) == 0) {
    made.action = netlink::action::remove;
    state_.apply(made, changes, message_origin::notification);
    return;
  }
  if (made.id >= 10) {
    made.family_unspecified = true;
    for (std::uint32_t id = 1; id <= 4; ++id)
      if (state_.find_nexthop(id) != nullptr && below(2) == 0)
        made.group.push_back({id, 1 + below(3)});
    if (made.group.empty()) return;
    if (below(4) == 0) {
      made.group_type = 1;
      made.resilient_buckets = static_cast<std::uint16_t>(1 + below(9));
    }
  } else {
    made.index = 2 + below(3);
    if (below(4) != 0) made.gateway = random_gateway(family(), made.index);
    if (below(5) == 0) made.flags = RTNH_F_DEAD;
    if (below(10) == 0) made.blackhole = true;
  }
  state_.apply(made, changes, message_origin::notification);
}

/// One of a group that may not be resilient, for a member that it may not have.
void random_world::change_bucket(mirror_changes& changes) {
  const netlink::nexthop_bucket made{.group = 10 + below(2),
                                     .index = static_cast<std::uint16_t>(below(9)),
                                     .member = 1 + below(4)};
  log_.push_back("bucket " + std::to_string(made.index) + " of " + std::to_string(made.group));
  state_.apply(made, changes, message_origin::notification);
}

void random_world::change_linkdown_setting(mirror_changes& changes) {
  netlink::netconf made;
  made.family = family();
  made.index = static_cast<std::int32_t>(2 + below(3));
  made.ignore_routes_with_linkdown = below(2) == 0;
  log_.push_back("ignore_routes_with_linkdown");
  state_.apply(made, changes, message_origin::notification);
}

mirror_changes random_world::step() {
  mirror_changes changes;
  const std::uint32_t what = below(26);
  if (what < 9)
    add_route(changes);
  else if (what < 12)
    remove_route(changes);
  else if (what < 14)
    change_rule(changes);
  else if (what < 17)
    change_neighbour(changes);
  else if (what < 18)
    change_link(changes);
  else if (what < 19)
    change_address(changes);
  else if (what < 20)
    change_path_mtu(changes);
  else if (what < 23)
    change_nexthop(changes);
  else if (what < 25)
    change_bucket(changes);
  else
    change_linkdown_setting(changes);
  return changes;
}

flow_class random_world::random_class() {
  flow_class cls;
  cls.mark = below(3);
  cls.tos = below(3) == 0 ? 0x10 : 0;
  cls.ttl = below(4) == 0 ? 9 : 0;
  cls.uid = below(3);
  cls.source_port = below(2) == 0 ? 7500 : 9;
  if (below(4) == 0) cls.output_interface = 2 + below(3);
  if (below(3) == 0) cls.source_v4 = ip(("10." + std::to_string(2 + below(3)) + ".0.1").c_str());
  if (below(3) == 0) cls.source_v6 = ip(("fd00:" + std::to_string(2 + below(3)) + "::1").c_str());
  return cls;
}

ip_address random_world::random_destination() {
  const ip_family kind = family();
  if (below(2) == 0) return random_address(kind);
  std::vector<ip_prefix> known;
  for (const auto& [id, table] : state_.tables(kind))
    for (const auto& [prefix, entries] : table) known.push_back(prefix);
  const ip_prefix& near = known[below(static_cast<std::uint32_t>(known.size()))];
  ip_address at = below(2) == 0 ? near.address() : near.last();
  if (below(2) == 0) return at;
  // One before or behind.
  auto bytes = at.bytes();
  bytes[at.size() - 1] =
      static_cast<std::uint8_t>(bytes[at.size() - 1] + (below(2) == 0 ? 1 : 255));
  return ip_address::from_bytes(kind, bytes.data());
}

}  // namespace cowire::testing
