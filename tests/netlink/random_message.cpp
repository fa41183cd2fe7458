// SPDX-License-Identifier: Apache-2.0
#include "tests/netlink/random_message.hpp"

#include <linux/rtnetlink.h>

#include <array>
#include <limits>

namespace cowire::test {
namespace {

using namespace netlink;

class generator {
 public:
  explicit generator(std::mt19937_64& random) : random_(random) {}

  message any() {
    switch (below(9)) {
      case 0:
        return make_link();
      case 1:
        return make_address();
      case 2:
        return make_route();
      case 3:
        return make_rule();
      case 4:
        return make_neighbour();
      case 5:
        return make_nexthop();
      case 6:
        return make_nexthop_bucket();
      case 7:
        return make_netconf();
      default:
        return make_membership();
    }
  }

  // What the kernel tells of a kind, and no more.
  tunnel_info make_tunnel(const std::string& kind) {
    const bool gre = kind.find("gre") != std::string::npos || kind == "erspan";
    const bool v6 = kind.starts_with("ip6");
    tunnel_info t;
    t.link = number<std::uint32_t>();
    if (gre) {
      t.input_flags = number<std::uint16_t>();
      t.output_flags = number<std::uint16_t>();
      t.input_key.raw = number<std::uint32_t>();
      t.output_key.raw = number<std::uint32_t>();
    } else {
      t.protocol = number<std::uint8_t>();
    }
    t.local = address_of(v6 ? ip_family::v6 : ip_family::v4);
    t.remote = address_of(v6 ? ip_family::v6 : ip_family::v4);
    t.ttl = number<std::uint8_t>();
    if (v6) {
      t.encap_limit = number<std::uint8_t>();
      t.flow_info.raw = number<std::uint32_t>();
      t.flags = number<std::uint32_t>();
    } else {
      t.tos = number<std::uint8_t>();
      t.pmtu_discovery = coin();
      t.ignore_df = gre && coin();
      if (kind == "sit") t.flags = number<std::uint16_t>();
    }
    t.fwmark = number<std::uint32_t>();
    t.encapsulation_type = number<std::uint16_t>();
    t.encapsulation_flags = number<std::uint16_t>();
    t.encapsulation_source_port.raw = number<std::uint16_t>();
    t.encapsulation_destination_port.raw = number<std::uint16_t>();
    t.collect_metadata = coin();
    return t;
  }

 private:
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  bool coin() { return below(2) == 0; }
  template <class T>
  T number() {
    return coin() ? static_cast<T>(below(4)) : static_cast<T>(random_());
  }
  std::uint32_t index() { return static_cast<std::uint32_t>(1 + below(0x7fffffff)); }
  action what() { return coin() ? action::add : action::remove; }
  ip_family family() { return coin() ? ip_family::v4 : ip_family::v6; }
  ip_address address_of(ip_family f) {
    std::array<std::uint8_t, 16> bytes{};
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random_());
    return ip_address::from_bytes(f, bytes.data());
  }
  ip_prefix prefix_of(ip_family f, unsigned shortest) {
    const unsigned bits = ip_address::any(f).bits();
    return {address_of(f), shortest + static_cast<unsigned>(below(bits - shortest + 1))};
  }
  std::string text() {
    std::string s(1 + below(15), 'a');
    for (char& c : s) c = static_cast<char>('a' + below(26));
    return s;
  }
  std::vector<std::uint8_t> hardware_address() {
    std::vector<std::uint8_t> bytes(coin() ? 6 : below(33));
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random_());
    return bytes;
  }
  template <class T>
  std::optional<T> maybe(T value) {
    return coin() ? std::optional<T>(value) : std::nullopt;
  }

  void set_kind(link& l) {
    switch (below(7)) {
      case 0:
        l.kind = "vlan";
        l.info = vlan_info{
            number<std::uint16_t>(), {number<std::uint16_t>()}, number<std::uint32_t>(), coin()};
        return;
      case 1:
        l.kind = "vrf";
        l.info = vrf_info{number<std::uint32_t>()};
        return;
      case 2:
        l.kind = "bond";
        l.info = bond_info{number<std::uint8_t>(), number<std::uint32_t>(), number<std::uint8_t>()};
        return;
      case 3:
        l.kind = "macvlan";
        l.info = macvlan_info{number<std::uint32_t>()};
        return;
      case 4:
        l.kind = tunnel_kinds[below(tunnel_kinds.size())];
        l.info = make_tunnel(l.kind);
        return;
      case 5:
        l.kind = "veth";
        return;
      default:
        return;
    }
  }

  link make_link() {
    link l;
    l.action = what();
    l.index = index();
    l.hardware_type = number<std::uint16_t>();
    l.flags = number<std::uint32_t>();
    l.name = text();
    l.alias = text();
    l.mtu = number<std::uint32_t>();
    l.address = hardware_address();
    l.broadcast = hardware_address();
    l.master = number<std::uint32_t>();
    l.lower = number<std::uint32_t>();
    l.lower_in_other_namespace = coin();
    l.group = number<std::uint32_t>();
    l.transmit_queues = number<std::uint32_t>();
    l.operational_state = number<std::uint8_t>();
    l.carrier = coin();
    set_kind(l);
    if (coin()) {
      l.slave_kind = "bond";
      l.bond_slave =
          bond_slave_info{number<std::uint8_t>(), number<std::uint8_t>(), number<std::uint16_t>()};
    }
    return l;
  }

  address make_address() {
    address a;
    const ip_family f = family();
    a.action = what();
    a.index = index();
    a.local = address_of(f);
    a.peer = coin() ? a.local : address_of(f);
    a.prefix_length = static_cast<std::uint8_t>(below(a.local.bits() + 1));
    a.flags = number<std::uint32_t>();
    a.scope = number<std::uint8_t>();
    a.preferred_s = number<std::uint32_t>();
    a.valid_s = number<std::uint32_t>();
    if (coin()) a.label = text();
    return a;
  }

  next_hop make_hop(ip_family f) {
    next_hop h;
    h.index = index();
    if (coin()) h.gateway = address_of(f == ip_family::v4 ? family() : f);
    h.weight = 1 + static_cast<std::uint32_t>(below(256));
    h.flags = number<std::uint8_t>();
    h.encapsulated = coin();
    return h;
  }

  void set_hops(route& r, ip_family f) {
    if (r.nexthop_id != 0 && coin()) return;
    const auto count = 1 + below(4);
    for (std::uint64_t i = 0; i < count; ++i) r.next_hops.push_back(make_hop(f));
    if (count > 1 || coin()) return;
    r.next_hops[0].weight = 1;  // As a route without RTA_MULTIPATH has it.
    r.next_hops[0].flags = r.flags & 0xff;
  }

  route make_route() {
    route r;
    const ip_family f = family();
    r.action = what();
    if (r.action == action::add) r.placement = {coin(), coin(), coin(), coin()};
    r.destination = prefix_of(f, 0);
    r.source = coin() ? prefix_of(f, 0) : ip_prefix::all(f);
    r.table = number<std::uint32_t>();
    r.tos = number<std::uint8_t>();
    r.protocol = number<std::uint8_t>();
    r.scope = number<std::uint8_t>();
    r.type = number<std::uint8_t>();
    r.flags = number<std::uint32_t>();
    r.priority = number<std::uint32_t>();
    r.preferred_source = maybe(address_of(f));
    r.nexthop_id = number<std::uint32_t>();
    set_hops(r, f);
    r.metrics = {number<std::uint32_t>(), number<std::uint32_t>(), number<std::uint32_t>(),
                 number<std::uint32_t>(), number<std::uint32_t>()};
    r.preference = number<std::uint8_t>();
    r.expires_s = maybe(static_cast<std::uint32_t>(below(std::numeric_limits<int>::max() / 100)));
    r.mark = number<std::uint32_t>();
    r.uid = maybe(number<std::uint32_t>());
    return r;
  }

  void set_ports(rule& r) {
    if (coin()) r.source_port = {number<std::uint16_t>(), number<std::uint16_t>()};
    if (coin()) r.destination_port = {number<std::uint16_t>(), number<std::uint16_t>()};
    if (coin()) r.source_port_mask = number<std::uint16_t>();
    if (coin()) r.destination_port_mask = number<std::uint16_t>();
  }

  rule make_rule() {
    rule r;
    r.action = what();
    r.family = family();
    r.priority = number<std::uint32_t>();
    r.table = number<std::uint32_t>();
    r.kind = number<std::uint8_t>();
    r.invert = coin();
    r.find_source = coin();
    r.from = maybe(prefix_of(r.family, 1));
    r.to = maybe(prefix_of(r.family, 1));
    r.tos = number<std::uint8_t>();
    r.dscp = maybe(number<std::uint8_t>());
    r.dscp_mask = number<std::uint8_t>();
    if (coin()) r.input_interface = text();
    if (coin()) r.output_interface = text();
    r.input_detached = coin();
    r.output_detached = coin();
    r.mark = number<std::uint32_t>();
    r.mark_mask = number<std::uint32_t>();
    r.tunnel_id = number<std::uint64_t>();
    r.l3mdev = coin();
    r.uid = maybe(range<std::uint32_t>{number<std::uint32_t>(), number<std::uint32_t>()});
    r.ip_protocol = number<std::uint8_t>();
    set_ports(r);
    r.flow_label = maybe(number<std::uint32_t>());
    r.flow_label_mask = number<std::uint32_t>();
    r.goto_target = number<std::uint32_t>();
    r.suppress_prefix_length = maybe(static_cast<std::uint32_t>(below(129)));
    r.suppress_group = maybe(static_cast<std::uint32_t>(below(1000)));
    r.protocol = number<std::uint8_t>();
    return r;
  }

  neighbour make_neighbour() {
    neighbour n;
    n.action = what();
    n.index = index();
    n.destination = address_of(family());
    n.state = number<std::uint16_t>();
    n.flags = number<std::uint8_t>();
    n.extended_flags = number<std::uint32_t>();
    n.link_address = hardware_address();
    n.type = number<std::uint8_t>();
    return n;
  }

  nexthop_object make_nexthop() {
    nexthop_object n;
    n.action = what();
    n.replace = n.action == action::add && coin();
    n.id = index();
    n.flags = number<std::uint32_t>();
    n.scope = number<std::uint8_t>();
    n.protocol = number<std::uint8_t>();
    n.fdb = coin();
    if (coin()) {
      n.family_unspecified = true;
      n.group_type = number<std::uint16_t>();
      n.resilient_buckets = number<std::uint16_t>();
      for (auto left = 1 + below(8); left > 0; --left)
        n.group.push_back({index(), 1 + static_cast<std::uint32_t>(below(65536))});
      return n;
    }
    n.family = family();
    n.index = number<std::uint32_t>();
    n.gateway = maybe(address_of(n.family));
    n.blackhole = coin();
    n.encapsulated = coin();
    return n;
  }

  nexthop_bucket make_nexthop_bucket() {
    nexthop_bucket b;
    b.action = what();
    b.group = index();
    b.index = number<std::uint16_t>();
    b.member = index();
    return b;
  }

  netconf make_netconf() {
    netconf n;
    n.action = what();
    n.family = family();
    n.index = number<std::int32_t>();
    n.forwarding = maybe(coin());
    n.ignore_routes_with_linkdown = maybe(coin());
    n.multicast_forwarding = maybe(coin());
    return n;
  }

  membership make_membership() {
    membership m;
    m.action = what();
    m.index = number<std::uint32_t>();
    m.group = address_of(family());
    return m;
  }

  std::mt19937_64& random_;
};

}  // namespace

netlink::message random_message(std::mt19937_64& random) { return generator(random).any(); }

netlink::tunnel_info random_tunnel(std::mt19937_64& random, const std::string& kind) {
  return generator(random).make_tunnel(kind);
}

}  // namespace cowire::test
