// SPDX-License-Identifier: Apache-2.0
#include "inventor.hpp"

#include "hearsay.hpp"

#include <cowire/route/agreement.hpp>
#include <cowire/route/resolve.hpp>

#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include <sstream>

namespace cowire::testing {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace

std::string inventor::settings() {
  std::string out;
  if (below(3) != 0 || shows_all_)
    out += "sysctl -w net.ipv4.fib_multipath_hash_seed=" +
           std::to_string(static_cast<std::uint32_t>(random_() | 1)) + "\n";
  const std::string policy = std::to_string(below(3));
  for (const char* family : {"ipv4", "ipv6"})
    out += "sysctl -w net." + std::string(family) + ".fib_multipath_hash_policy=" + policy + "\n";
  // Routers take no redirects of IPv6.
  if (below(4) == 0 && !shows_all_) out += "sysctl -w net.ipv6.conf.all.forwarding=1\n";
  if (below(6) == 0) out += "sysctl -w net.ipv4.fib_multipath_use_neigh=1\n";
  // Addresses are detected in some hundredths of a second.
  out += "sysctl -w net.ipv6.conf.default.router_solicitation_delay=0\n";
  out += "sysctl -w net.ipv6.neigh.default.retrans_time_ms=10\n";
  // The label is a hash with a secret, where there is any.
  out += "sysctl -w net.ipv6.auto_flowlabels=0\n";
  // Each half minute, which is no time where CPUs are emulated, the kernel forgets redirects to a
  // neighbour that is not flagged as router, as permanent ones are not (rt6_age_examine_exception()
  // in net/ipv6/route.c), or that were not used for a minute.
  out += "sysctl -w net.ipv6.route.gc_interval=3600\nsysctl -w net.ipv6.route.gc_timeout=3600\n";
  if (below(6) == 0)
    out += "sysctl -w net.ipv4.conf." + pick({"all", "default"}) + ".route_localnet=1\n";
  return out;
}

std::string inventor::quiet_change() {
  const std::string n = std::to_string(below(4)), u = "u" + n;
  const std::string on_off = "=" + pick({"0", "1"}) + "\n";
  switch (below(7)) {
    case 0:
      return "sysctl -w net.ipv4.conf." + pick({"default", "default", "all"}) +
             ".ignore_routes_with_linkdown" + on_off;
    case 1:
      return "ip link set " + u + " mtu " + pick({"1290", "1350", "1500"}) + "\n";
    case 2:  // The first one is announced last.
      return "ip addr add 2001:db8:" + n + "::" + std::to_string(2 + below(3)) + "/64 dev " + u +
             "\nip addr add 2001:db8:" + n + "::" + std::to_string(5 + below(3)) + "/64 dev " + u +
             " nodad\n";
    case 3:
      return "sysctl -w net.ipv6.conf." + u + ".keep_addr_on_down" + on_off;
    case 4: {  // Siblings of which only one shows what it has, and then there is one less.
      const std::string prefix = random_prefix(false), table = pick({"main", "100", "101"});
      const auto route = [&](const std::string& what, const std::string& gateway,
                             const std::string& tail) {
        return "ip -6 route " + what + " " + prefix + " via " + gateway + tail + " table " + table +
               "\n";
      };
      const std::string first = gateway(false, below(4)), second = gateway(false, below(4));
      return route("append", first, " mtu 1300") + route("append", second, " mtu 1400 pref high") +
             route("del", below(2) == 0 ? first : second, "");
    }
    default: {
      const bool v4 = below(2) == 0;
      return std::string(v4 ? "ip " : "ip -6 ") + "route del " + random_prefix(v4) + " table " +
             pick({"main", "main", "100", "101", "102"}) + "\n";
    }
  }
}

/// At run time: what notifications tell of, what they do not, and what changes notifications.
std::string inventor::changed_setting(const std::string& device) {
  const std::string value = "=" + pick({"0", "1"}) + "\n",
                    linkdown = ".ignore_routes_with_linkdown";
  switch (below(7)) {
    // The shares of multipath routes follow with the next carrier event only.
    case 0:
      return plain_ ? "" : "sysctl -w net.ipv4.conf." + device + linkdown + value;
    case 1:
      return plain_ ? "" : "sysctl -w net.ipv6.conf." + device + linkdown + value;
    case 2:
      return "sysctl -w net.ipv6.conf.all.forwarding" + value;
    case 3:
      return "sysctl -w net.ipv4.fib_multipath_use_neigh" + value;
    case 4:
      return "sysctl -w net.ipv4.nexthop_compat_mode" + value;
    case 5:
      return "sysctl -w net.ipv6.route.skip_notify_on_dev_down" + value;
    default:
      return "sysctl -w net." + pick({"ipv4", "ipv6"}) + ".fib_multipath_hash_policy" + value;
  }
}

namespace {

/// A device whose other end is up.
std::string wire(const std::string& name, const std::string& other_end) {
  return "ip link add " + name + " type veth peer name " + other_end + "\nip link set " + name +
         " addrgenmode none\nip link set " + other_end + " addrgenmode none\nip link set " +
         other_end + " up\n";
}

}  // namespace

/// Of one to three wires, enslaved in any order; not up yet.
std::string inventor::bond(const std::string& name, const std::string& n) {
  std::vector<std::string> slaves;
  std::string out;
  const std::string mode = pick({"active-backup", "balance-xor", "balance-xor", "802.3ad"});
  const bool hashes = mode != "active-backup";
  const std::uint32_t count = hashes ? 2 + below(2) : 1;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::string slave = std::data({"w", "x", "y"})[i] + n;
    out += wire(slave, std::data({"p", "q", "r"})[i] + n);
    slaves.insert(slaves.begin() + below(i + 1), slave);
  }
  out += "ip link add " + name + " type bond mode " + mode + " miimon 50" +
         (hashes ? " xmit_hash_policy " + hash_policy() : "") + "\nip link set " + name +
         " addrgenmode none\n";
  for (const std::string& slave : slaves) {
    out.append("ip link set ").append(slave).append(" master ").append(name).append("\n");
    if (hashes) slaves_.push_back({slave, name});
  }
  return out;
}

std::string inventor::hash_policy() {
  return pick(
      {"layer2", "layer2+3", "layer3+4", "layer3+4", "encap2+3", "encap3+4", "vlan+srcmac"});
}

/// What another device may be put above: up.
std::string inventor::lower(const std::string& n, std::string& name) {
  const bool bonded = below(2) == 0;
  name = (bonded ? "b" : "w") + n;
  return (bonded ? bond(name, n) : wire(name, "p" + n)) + "ip link set " + name + " up\n";
}

std::string inventor::vlan(const std::string& name, const std::string& above) {
  return "ip link add link " + above + " name " + name + " type vlan proto " +
         pick({"802.1q", "802.1ad"}) + " id 5\n";
}

/// What a tunnel's outer datagrams are meant to leave by, with addresses, and a known way to the
/// tunnel's other end.
std::string inventor::underlay(const std::string& n, std::string& name) {
  std::string out = lower(n, name);
  if (below(3) == 0) {
    out += vlan("l" + n, name);
    name = "l" + n;
    out += "ip link set " + name + " addrgenmode none\nip link set " + name + " up\n";
  }
  const std::string on = " dev " + name, v4 = "10.250." + n, v6 = "fd50:" + n;
  if (has_vrfs_ && below(2) == 0) {
    out += "ip link set " + name + " master vrf0\n";
    // Whoever asks outside of the VRF is led astray.
    if (n != "0" && below(2) == 0)
      out += "ip route add " + v4 + ".0/24 via " + gateway(true, 0) + " dev u0\nip -6 route add " +
             v6 + "::/64 via " + gateway(false, 0) + " dev u0\n";
  }
  return out + "ip addr add " + v4 + ".1/24" + on + "\nip addr add " + v6 + "::1/64" + on +
         " nodad\n" + known_neighbour(*ip_address::parse(v4 + ".2"), name) +
         known_neighbour(*ip_address::parse(v6 + "::2"), name);
}

std::string inventor::tunnel(const std::string& n) {
  std::string under;
  std::string out = underlay(n, under);
  const std::string kind = pick({"ip6gre", "gre", "gre", "gretap", "gre ttl 64 nopmtudisc"});
  const std::string net = kind == "ip6gre" ? "fd50:" + n + "::" : "10.250." + n + ".";
  out += "ip link add u" + n + " type " + kind + " local " + net + "1 remote " + net + "2";
  // In which VRF the outer datagrams are routed the device tells.
  if (below(2) == 0) out += " dev " + (has_vrfs_ && below(3) == 0 ? "vrf0" : under);
  return out + "\n";
}

std::string inventor::device(const std::string& n) {
  const std::string u = "u" + n, p = "p" + n;
  const bool shown = shows_all_ && n != "3";
  const std::uint32_t what = devices_ && !shown ? below(12) : 0;
  if (what < 2)
    return "ip link add " + u + " address " +
           link_address_of(static_cast<std::uint32_t>(n[0] - '0')) + " type veth peer name " + p +
           "\n";
  if (what == 2) return wire("w" + n, p) + "ip link add " + u + " type dummy\n";
  if (what < 5) return bond(u, n);
  if (what >= 8) return tunnel(n);
  std::string below_it;
  const std::string out = lower(n, below_it);
  if (what < 7) return out + vlan(u, below_it);
  return out + "ip link add link " + below_it + " name " + u + " type macvlan mode " +
         pick({"private", "bridge"}) + "\n";
}

std::string inventor::addresses(const std::string& n) {
  const std::string u = "u" + n;
  std::string out;
  out += "ip addr add 10." + n + ".0.1/24 dev " + u + "\n";
  out += "ip addr add fd00:" + n + "::1/64 dev " + u + " nodad\n";
  if (below(3) == 0)
    out += "ip addr add 10." + n + ".8.1/" + pick({"16", "24", "32"}) + " dev " + u + "\n";
  if (below(3) == 0) out += "ip addr add 10." + n + ".0.7/24 dev " + u + "\n";
  if (below(4) == 0) out += "ip addr add 10." + n + ".9.1/24 dev " + u + " scope link\n";
  if (below(4) == 0)
    out += "ip addr add 10." + n + ".7.1/" + pick({"32", "24"}) + " dev " + u + " scope host\n";
  if (below(3) == 0)
    out +=
        "ip addr add 2001:db8:" + n + "::1/" + pick({"64", "48", "128"}) + " dev " + u + " nodad\n";
  if (below(2) == 0) out += "ip addr add fe80::" + n + "/64 dev " + u + " nodad\n";
  return out;
}

std::string inventor::links() {
  std::string out = "ip link set lo up\n";
  has_vrfs_ = devices_ && below(4) != 0;
  if (has_vrfs_) out += "ip link add vrf0 type vrf table 102\nip link set vrf0 up\n";
  for (std::uint32_t i = 0; i < 4; ++i) {
    const std::string n = std::to_string(i), u = "u" + n, p = "p" + n;
    out += device(n);
    out += "ip link set " + u + " addrgenmode none\nip link set " + p + " addrgenmode none\n";
    if (below(4) == 0) out += "ip link set " + u + " group 7\n";
    out += "ip link set " + p + " up\nip link set " + u + " up\n";
    out += addresses(n);
  }
  if (below(2) == 0)
    out += "ip addr add 192.0.2.1/32 dev lo\nip addr add 2001:db8:ff::1/128 dev lo\n";
  if (has_vrfs_) out += vrfs();
  return out;
}

/// vrf0 and perhaps another one, with and without addresses of their own. Table 102, which is
/// vrf0's, is one that random routes go to.
std::string inventor::vrfs() {
  std::string out;
  if (below(3) != 0)
    out += "ip addr add 10.255.0.1/32 dev vrf0\nip addr add fd55::1/128 dev vrf0 nodad\n";
  if (below(4) == 0) out += "ip addr add 127.0.0.1/8 dev vrf0\n";
  // What is not known there is not looked up elsewhere.
  if (below(4) == 0)
    for (const char* const ip : {"ip ", "ip -6 "})
      out += ip + std::string("route add unreachable default metric 4278198272 table 102\n");
  out += "ip link set u" + std::to_string(shows_all_ ? 3 : below(4)) + " master vrf0\n";
  if (shows_all_) return out;
  if (below(2) == 0) out += "ip link set u" + std::to_string(below(4)) + " master vrf0\n";
  if (below(3) == 0)
    out += "ip link add vrf1 type vrf table 103\nip link set vrf1 up\nip link set u" +
           std::to_string(below(4)) + " master vrf1\n";
  return out;
}

std::string inventor::gateway(bool v4, std::uint32_t device) {
  const std::string n = std::to_string(device), last = std::to_string(2 + below(4));
  if (v4) return "10." + n + ".0." + last;
  // Only who has a link-local address may redirect.
  return below(2) == 0 ? "fe80::" + n + ":" + last : "fd00:" + n + "::" + last;
}

std::string inventor::random_prefix(bool v4) {
  if (below(9) == 0) return "default";
  if (v4)
    return pick({"20.0.0.0", "20.0.1.0", "20.1.0.0", "20.1.2.0", "10.0.0.0", "10.1.0.0",
                 "239.0.0.0", "30.0.0.0"}) +
           "/" + pick({"8", "15", "16", "20", "24", "28", "32"});
  return pick({"2001:db8::", "2001:db8:1::", "2600::", "2600:1::", "fd00:1::", "fd00:9::",
               "fc00::"}) +
         "/" + pick({"8", "16", "32", "47", "48", "64", "128"});
}

std::string inventor::random_route(bool v4) {
  const std::uint32_t what = below(14);
  const std::string prefix = random_prefix(v4);
  // Equal routes: the kernel walks several defaults by memory, and IPv6 siblings hide what they
  // differ in.
  const bool alone = plain_ && (!v4 || prefix == "default");
  std::string line =
      std::string(v4 ? "ip " : "ip -6 ") + "route " +
      (alone ? pick({"add", "replace"}) : pick({"add", "add", "append", "replace", "prepend"})) +
      " ";
  const std::string type =
      what == 0 ? pick({"blackhole ", "unreachable ", "prohibit ", "throw "}) : std::string();
  line += type + prefix;
  if (!v4 && !plain_ && below(5) == 0)
    line += " from " + pick({"fd00:1::/64", "fd00::/32", "fd00:2::1/128", "::/1"});
  if (v4 && below(8) == 0 && !alone)
    line += " tos " + pick({"0x10", "0x04", "0xb8"});
  else if (v4 && !alone && prefix == "default" && below(2) == 0)
    line += " tos 0x10";
  const std::uint32_t device = below(4);
  // Another VRF's device asks there once more.
  const std::string dev =
      devices_ && what == 1 && below(4) == 0 ? " dev vrf0" : " dev u" + std::to_string(device);
  std::string tail;
  if (below(3) == 0) tail += " metric " + pick({"5", "10", "20"});
  if (below(6) == 0) tail += " mtu " + pick({"1300", "1400", "lock 1350"});
  if (below(8) == 0) tail += " hoplimit " + pick({"5", "77"});
  if (below(6) == 0)
    tail += " src " + (v4 ? "10." + std::to_string(below(4)) + ".0.1"
                          : "fd00:" + std::to_string(below(4)) + "::1");
  if (!v4 && below(6) == 0) tail += " pref " + pick({"low", "medium", "high"});
  // Routes over one nexthop object share what the kernel caches of them.
  if (plain_ && what == 3) tail.clear();
  tail += " table " + (devices_ ? pick({"main", "main", "100", "101", "102", "102", "103"})
                                : pick({"main", "main", "main", "100", "101", "102"}));
  if (what == 0) return line + tail + "\n";
  if (what <= 2) return line + dev + tail + "\n";
  if (what == 3)
    return line + " nhid " +
           (v4       ? pick({"1", "2", "3", "10", "11", "12"})
            : plain_ ? pick({"21", "31"})
                     : pick({"21", "22", "23", "30", "31", "32", "32"})) +
           tail + "\n";
  if (what <= 6) {
    line += tail;
    for (std::uint32_t i = 2 + below(2); i > 0; --i) {
      const std::uint32_t hop = below(4);
      line += " nexthop via " + gateway(v4, hop) + " dev u" + std::to_string(hop) + " weight " +
              pick({"1", "2", "5"});
    }
    return line + "\n";
  }
  // A gateway that is this host's own is none.
  if (v4 && !plain_ && below(12) == 0)
    return line + " via 10." + std::to_string(device) + pick({".0.1", ".8.1", ".0.7"}) + dev +
           tail + "\n";
  if (v4 && what == 7) return line + " via inet6 " + gateway(false, device) + dev + tail + "\n";
  return line + " via " + gateway(v4, device) + dev + tail + "\n";
}

std::string inventor::random_rule(bool v4) {
  std::string line =
      std::string(v4 ? "ip " : "ip -6 ") + "rule add pref " + std::to_string(100 + below(12));
  if (below(8) == 0) line += " not";
  if (below(4) == 0)
    line += " from " + (v4 ? pick({"10.0.0.0/16", "10.1.0.1", "0.0.0.0/1"})
                           : pick({"fd00:1::/64", "fd00:2::1"}));
  if (below(3) == 0)
    line += " to " + (v4 ? pick({"20.0.0.0/8", "20.1.0.0/16", "10.0.0.0/15"})
                         : pick({"2001:db8::/32", "2600::/16"}));
  if (below(4) == 0) line += " fwmark " + pick({"1", "2", "0x1/0x3", "0/0x2"});
  if (below(6) == 0) line += " tos 0x10";
  if (below(8) == 0)
    line += devices_ && below(2) == 0 ? " oif vrf0" : " oif u" + std::to_string(below(4));
  if (below(10) == 0) line += " iif lo";
  if (below(6) == 0) line += " ipproto " + pick({"udp", "tcp"});
  if (below(6) == 0) line += " uidrange " + pick({"0-0", "0-1000", "1000-2000"});
  if (below(8) == 0) line += " sport 7000-7500";
  if (below(8) == 0) line += " dport " + pick({"9000", "9000-9100"});
  const std::uint32_t what = below(10);
  if (what == 0) return line + " " + pick({"blackhole", "unreachable", "prohibit"}) + "\n";
  if (what == 1) return line + " goto " + std::to_string(105 + below(8)) + "\n";
  if (what == 2) return line + " nop\n";
  if (devices_ && what == 3) return line + " l3mdev\n";
  line += " lookup " + pick({"main", "100", "101", "102", "103"});
  // IPv6 measures what a nexthop object has cached.
  const bool measured = below(6) == 0 && (v4 || !plain_);
  if (measured) line += " suppress_prefixlength " + pick({"0", "8", "16"});
  if (!plain_ && below(8) == 0) line += " suppress_ifgroup 7";
  return line + "\n";
}

std::string inventor::known_neighbour(const ip_address& of, const std::string& device) {
  return "ip neigh replace " + of.to_string() + " dev " + device + " lladdr 02:00:00:00:00:0" +
         pick({"7", "8"}) + " nud permanent\n";
}

std::string inventor::random_neighbour() {
  const std::uint32_t device = below(4);
  const ip_address of = *ip_address::parse(gateway(below(2) == 0, device));
  const std::string known = known_neighbour(of, "u" + std::to_string(device));
  // The kernel tells of FAILED only where the entry was valid before.
  return below(3) == 0 ? known + "ip neigh replace " + of.to_string() + " dev u" +
                             std::to_string(device) + " nud failed\n"
                       : known;
}

std::vector<std::string> inventor::known_gateways() {
  std::string out;
  for (int i = 0; i < 60; ++i) {
    const std::uint32_t device = below(4);
    out += known_neighbour(*ip_address::parse(gateway(below(2) == 0, device)),
                           "u" + std::to_string(device));
  }
  return lines_of(out);
}

std::string inventor::showcase() const {
  // Objects of their own: what others share, the kernel may have cached for others.
  std::string out =
      "ip nexthop add id 51 via 10.0.0.2 dev u0\nip nexthop add id 52 via 10.1.0.2 dev u1\n"
      "ip nexthop add id 53 group 51/52\n"
      "ip nexthop add id 54 via 10.0.0.3 dev u0\nip nexthop add id 55 via 10.1.0.3 dev u1\n"
      "ip nexthop add id 56 group 54/55 type resilient buckets 8\n"
      "ip -6 nexthop add id 61 via fd00:0::2 dev u0\nip -6 nexthop add id 62 via fd00:1::2 dev u1\n"
      "ip nexthop add id 63 group 61/62\n"
      "ip -6 nexthop add id 64 via fd00:0::3 dev u0\nip -6 nexthop add id 65 via fd00:1::3 dev u1\n"
      "ip nexthop add id 66 group 64/65 type resilient buckets 8\n"
      "ip route add 40.1.0.0/16 nexthop via 10.0.0.2 dev u0 nexthop via 10.1.0.2 dev u1\n"
      "ip route add 40.2.0.0/16 nhid 53\n"
      "ip route add 40.3.0.0/16 nhid 56\n"
      "ip route add blackhole 40.4.0.0/16\n"
      "ip route add 40.5.0.0/16 via 10.0.0.2 dev u0 table 100\n"
      "ip rule add pref 90 to 40.5.0.0/16 lookup 100\n"
      "ip -6 route add 2a40:1::/32 nexthop via fd00:0::2 dev u0 nexthop via fd00:1::2 dev u1\n"
      "ip -6 route add 2a40:2::/32 nhid 63\n"
      "ip -6 route add prohibit 2a40:4::/32\n"
      "ip route add 40.6.0.0/16 via 10.0.0.2 dev u0\n"
      "ip -6 route add 2a40:6::/32 via fe80::2 dev u0\n";
  if (!plain_)
    out +=
        "ip -6 route add 2a40:3::/32 nhid 66\n"
        "ip -6 route add 2a40:5::/32 from fd00::/16 via fd00:0::2 dev u0\n"
        "ip neigh replace 10.0.0.3 dev u0 lladdr 02:00:00:00:00:07 nud permanent\n"
        "ip neigh replace fe80::3 dev u0 lladdr 02:00:00:00:00:07 nud permanent\n"
        "icmp 0 10.0.0.2 10.0.0.1 40.6.0.1 redirect 10.0.0.3\n"
        "icmp 0 10.0.0.2 10.0.0.1 40.6.0.2 mtu 1300\n"
        "icmp 0 fe80::2 fd00:0::1 2a40:6::1 redirect fe80::3\n"
        "icmp 0 fe80::2 fd00:0::1 2a40:6::2 mtu 1300\n";
  return out;
}

std::vector<std::string> inventor::build() {
  std::string out = settings() + links();
  for (std::uint32_t i = 0; i < 3; ++i) {
    const std::string n = std::to_string(i + 1), d = " dev u" + std::to_string(i);
    const bool own = !plain_ && !shows_all_ && below(12) == 0;
    out += "ip nexthop add id " + n + " via " +
           (own ? "10." + std::to_string(i) + ".0.1" : gateway(true, i)) + d + "\n";
    out += "ip -6 nexthop add id 2" + n + " via " + gateway(false, i) + d + "\n";
  }
  out += "ip nexthop add id 10 group 1/2\nip nexthop add id 11 group 1,3/3,1\n";
  out += "ip nexthop add id 30 group 21/22\nip nexthop add id 31 group 21,1/23,4\n";
  out +=
      "ip nexthop add id 12 group 1,2/3,1 type resilient buckets " + pick({"4", "7", "32"}) + "\n";
  out += "ip nexthop add id 32 group 22/23 type resilient buckets " + pick({"2", "9"}) + "\n";
  const std::uint32_t routes_v4 = 5 + below(25), routes_v6 = 5 + below(25);
  for (std::uint32_t i = 0; i < routes_v4; ++i) out += random_route(true);
  for (std::uint32_t i = 0; i < routes_v6; ++i) out += random_route(false);
  if (shows_all_) {
    out += showcase();
    if (!plain_)
      for (const char* about : {"40.6.0.1", "40.6.0.2", "2a40:6::1", "2a40:6::2"})
        told_about_.push_back(*ip_address::parse(about));
  } else if (below(3) != 0) {
    for (std::uint32_t i = below(5); i > 0; --i) out += random_rule(true);
    for (std::uint32_t i = below(5); i > 0; --i) out += random_rule(false);
  }
  for (std::uint32_t i = below(10); i > 0; --i) out += random_neighbour();
  for (std::uint32_t i = below(7); i > 0; --i) out += changed_members();
  return lines_of(out);
}

std::string inventor::changed_vrf() {
  const std::string u = "u" + std::to_string(below(4));
  switch (below(7)) {
    case 0:
      return "ip link set vrf0 down\n";
    case 1:
      return "ip link set vrf0 down\nip link set vrf0 up\n";
    case 2:
      return "ip link set " + u + " nomaster\n";
    case 3:
      return "ip link del " + pick({"vrf0", "vrf1"}) + "\n";
    case 4:
      return "ip addr " + pick({"add", "del"}) + " 10.255.0.1/32 dev vrf0\nip addr " +
             pick({"add", "del"}) + " fd55::1/128 dev vrf0 nodad\n";
    case 5:
      return "ip link add vrf1 type vrf table 103\nip link set vrf1 up\nip link set " + u +
             " master vrf1\n";
    default:
      return "ip link set " + u + " master " + pick({"vrf0", "vrf1"}) + "\n";
  }
}

/// Of one that hashes frames.
std::string inventor::changed_bond() {
  const auto& [slave, bond] = slaves_[below(static_cast<std::uint32_t>(slaves_.size()))];
  const std::string set = "ip link set " + slave, n = slave.substr(1);
  const std::string other_end = std::string(1, static_cast<char>(slave[0] - 'w' + 'p')) + n;
  switch (below(6)) {
    case 0:
      return set + " down\n";
    case 1:
      return set + " down\n" + set + " up\n";
    case 2:
      return "ip link set " + other_end + " down\n";
    case 3:
      return "ip link set " + other_end + " up\n";
    case 4:  // It becomes the last one.
      return set + " nomaster\n" + set + " down\n" + set + " master " + bond + "\n";
    default:
      return "ip link set " + bond + " type bond xmit_hash_policy " + hash_policy() + "\n";
  }
}

std::string inventor::changed_link() {
  if (devices_ && below(3) == 0) return changed_vrf();
  if (!slaves_.empty() && below(2) == 0) return changed_bond();
  const std::string u = "u" + std::to_string(below(4)), n = std::to_string(below(4));
  switch (below(6)) {
    case 0:
      return "ip link set " + u + " down\n";
    case 1:
      return "ip link set " + u + " down\nip link set " + u + " up\n";
    case 2:
      return "ip link set p" + n + " down\n";
    case 3:
      return "ip link set p" + n + " down\nip link set p" + n + " up\n";
    case 4:
      return "ip link del " + u + "\n";
    default:
      return "ip link set " + u + " name v" + n + "\n";
  }
}

std::string inventor::changed_addresses() {
  const std::string u = "u" + std::to_string(below(4)), n = std::to_string(below(4));
  switch (below(3)) {
    case 0:
      // Which source a next hop has cached is not told.
      return plain_ ? "" : "ip addr del 10." + n + ".0.1/24 dev u" + n + "\n";
    case 1:
      return "ip addr add 10." + n + ".0.1/24 dev u" + n + "\n";
    default:
      // What next hops have cached is void once an address has come.
      return "sysctl -w net.ipv4.conf." + pick({"all", u.c_str()}) +
             ".route_localnet=" + pick({"0", "1"}) + "\nip addr add 192.0.2." +
             std::to_string(below(250)) + "/32 dev lo\nip addr del 192.0.2.1/32 dev lo\n";
  }
}

std::string inventor::changed_rules() {
  const std::string ip = below(2) == 0 ? "ip " : "ip -6 ";
  switch (below(3)) {
    case 0:
      return random_rule(below(2) == 0);
    case 1:
      return ip + "rule del pref " + std::to_string(100 + below(12)) + "\n";
    default:
      // Counts, or not, by whether any was added; in vain where one was.
      return plain_ ? "" : ip + "rule del pref " + pick({"0", "32766", "32767"}) + "\n";
  }
}

std::string inventor::changed_objects() {
  if (below(2) == 0) return "ip nexthop del id " + pick({"1", "2", "21", "22"}) + "\n";
  // Which buckets were asked for decides which may move.
  return "ip nexthop replace id " +
         pick({"12 group 1/3", "12 group 2", "12 group 1,1/2,5/3,1", "32 group 21/22/23",
               "32 group 22,1/23,7"}) +
         " type resilient\n";
}

ip_address inventor::random_group(bool v4) {
  return *ip_address::parse(
      v4 ? pick({"239.1.2.3", "239.1.2.4", "239.77.0.1", "224.0.0.5", "224.0.0.1", "232.1.1.1"})
         : pick({"ff0e::1", "ff1e::7", "ff02::5", "ff02::1", "ff05::2", "ff3e::8000:1"}));
}

/// Joined, or left again.
std::string inventor::changed_members() {
  if (!joined_.empty() && below(3) == 0) {
    const auto at = joined_.begin() + below(static_cast<std::uint32_t>(joined_.size()));
    const std::string left = *at;
    joined_.erase(at);
    return "leave " + left + "\n";
  }
  joined_.push_back("u" + std::to_string(below(4)) + " " + random_group(below(2) == 0).to_string());
  return "join " + joined_.back() + "\n";
}

std::string inventor::rumour(const mirror& state) {
  if (below(8) == 0) return below(2) == 0 ? "ip route flush cache\n" : "ip -6 route flush cache\n";
  const bool v4 = below(2) == 0;
  hearsay made;
  flow about;
  about.destination = random_destination(v4, state);
  about.cls.ip_protocol = static_cast<std::uint8_t>(v4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6});
  made.about = about.destination;
  const resolution now = resolve(state, about, route_question::get_route);
  if (now.error != 0 || now.type != RTN_UNICAST || now.members.empty() || !now.source) return {};
  const path_member& through = now.members[now.chosen];
  const mirror::device* const device = state.find_device(through.interface_index);
  if (device == nullptr || device->link.address.size() != 6 || device->link.address[1] != 0xaa)
    return {};
  made.device = device->link.address.back();
  made.own = *now.source;
  made.from = through.gateway.value_or(*ip_address::parse(v4 ? "10.9.9.9" : "fe80::9"));
  told_about_.push_back(made.about);
  if (!through.gateway || through.gateway->family() != made.about.family() || below(3) == 0) {
    made.mtu = 1280 + below(300);
    return made.to_string() + "\n";
  }
  const std::string n = std::to_string(made.device), last = std::to_string(2 + below(4));
  made.gateway = *ip_address::parse(v4 ? "10." + n + ".0." + last : "fe80::" + n + ":" + last);
  if (!v4 && below(4) == 0) made.gateway = made.about;
  // The kernel takes a gateway only once it knows the way to it.
  return known_neighbour(*made.gateway, device->link.name) + made.to_string() + "\n";
}

std::vector<std::string> inventor::disturb(const mirror& state) {
  std::string out = "sleep 0.2\n";
  // As long as devices have the names that the mirror knows.
  for (std::uint32_t i = below(6); !plain_ && i > 0; --i) out += rumour(state);
  for (std::uint32_t i = below(4); !plain_ && i > 0; --i) out += quiet_change();
  for (std::uint32_t i = below(4); i > 0; --i) out += changed_members();
  for (std::uint32_t i = 2 + below(6); i > 0; --i) {
    const std::uint32_t what = below(18);
    if (what < 6)
      out += changed_link();
    else if (what < 9)
      out += changed_addresses();
    else if (what < 12)
      out += changed_rules();
    else if (what < 14)
      out += changed_objects();
    else if (what == 14)
      out += random_neighbour();
    else if (what == 15)
      out += changed_setting("u" + std::to_string(below(4)));
    else
      out += random_route(below(2) == 0);
  }
  return lines_of(out);
}

ip_address inventor::random_destination(bool v4, const mirror& state) {
  const ip_family family = v4 ? ip_family::v4 : ip_family::v6;
  if (shows_all_ && below(4) == 0) {
    const std::string which = std::to_string(1 + below(6)), host = std::to_string(1 + below(99));
    return *ip_address::parse(v4 ? "40." + which + ".0." + host : "2a40:" + which + "::" + host);
  }
  if (below(5) == 0 && !told_about_.empty()) {
    const ip_address& told = told_about_[below(static_cast<std::uint32_t>(told_about_.size()))];
    if (told.is_v4() == v4) return told;
  }
  std::vector<ip_prefix> known;
  for (const auto& [id, table] : state.tables(family))
    for (const auto& [prefix, entries] : table) known.push_back(prefix);
  if (below(10) < 6 && !known.empty()) {
    const ip_prefix& near = known[below(static_cast<std::uint32_t>(known.size()))];
    auto bytes = (below(2) == 0 ? near.address() : near.last()).bytes();
    const std::size_t last = v4 ? 3 : 15;
    bytes[last] = static_cast<std::uint8_t>(bytes[last] + pick({"\x01", "\xff", "\x02"})[0]);
    return ip_address::from_bytes(family, bytes.data());
  }
  return *ip_address::parse(
      v4 ? pick({"20.0.0.5", "20.1.2.3", "10.0.0.9", "10.1.0.1", "10.2.0.255", "8.8.8.8",
                 "239.1.2.3", "224.0.0.5", "255.255.255.255", "0.0.0.0", "127.0.0.1", "0.1.2.3"})
         : pick({"2001:db8::5", "2600:1::9", "fd00:1::1", "fd00:2::77", "2a00::1", "ff02::1",
                 "ff0e::1", "fe80::99", "fe80::1:3", "fe80::77", "::1", "2001:db8:1::"}));
}

/// A VRF as often as one of its slaves; 0 where there is none.
std::uint32_t inventor::vrf_device(const mirror& state) {
  std::vector<std::uint32_t> masters, slaves;
  for (const auto& [index, device] : state.devices()) {
    if (device.link.kind == "vrf") masters.push_back(index);
    if (device.link.slave_kind == "vrf") slaves.push_back(index);
  }
  const auto& from = slaves.empty() || below(2) == 0 ? masters : slaves;
  return from.empty() ? 0 : from[below(static_cast<std::uint32_t>(from.size()))];
}

asked_flow inventor::question(const mirror& state) {
  asked_flow made;
  flow_class& cls = made.question.cls;
  const bool v4 = below(2) == 0;
  made.question.destination = random_destination(v4, state);
  if (below(3) == 0) {
    const std::string n = std::to_string(below(4));
    const std::string text =
        v4 ? (below(8) == 0 ? "9.9.9.9" : "10." + n + ".0.1") : "fd00:" + n + "::1";
    (v4 ? cls.source_v4 : cls.source_v6) =
        *ip_address::parse(devices_ && below(6) == 0 ? (v4 ? "10.255.0.1" : "fd55::1") : text);
  }
  if (below(3) == 0) cls.mark = below(4);
  if (below(4) == 0) cls.tos = static_cast<std::uint8_t>(below(2) == 0 ? 0x10 : below(8) * 4);
  if (below(4) == 0) cls.output_interface = 1 + below(10);
  if (devices_ && below(3) == 0) cls.output_interface = vrf_device(state);
  cls.ip_protocol = below(3) == 0 ? 6 : 17;
  cls.source_port =
      static_cast<std::uint16_t>(below(2) == 0 ? 7000 + below(600) : 1 + below(60000));
  made.question.destination_port =
      static_cast<std::uint16_t>(below(2) == 0 ? 9000 + below(120) : 1 + below(60000));
  cls.uid = below(2) == 0 ? 0 : 1500;

  made.asked = query_of(made.question);
  made.as_written = written_form(made.question);
  return made;
}

flow inventor::group_question(const mirror& state) {
  const bool v4 = below(2) == 0;
  flow made = question(state).question;
  made.destination = random_group(v4);
  if (!joined_.empty() && below(2) == 0) {
    const std::string& member = joined_[below(static_cast<std::uint32_t>(joined_.size()))];
    made.destination = *ip_address::parse(member.substr(member.find(' ') + 1));
  }
  made.destination_port = 9000;
  flow_class& cls = made.cls;
  cls.ip_protocol = IPPROTO_UDP;
  // What the socket has of the other family matters to nobody.
  (made.destination.is_v4() ? cls.source_v6 : cls.source_v4).reset();
  if (below(2) == 0) cls.multicast_interface = 1 + below(10);
  if (below(3) == 0) cls.multicast_loop = false;
  if (below(3) == 0) cls.multicast_ttl = static_cast<std::uint8_t>(1 + below(255));
  return made;
}

endpoint inventor::written_form(const flow& question) {
  endpoint out{question.destination, question.destination_port, 0};
  if (out.address.is_v4()) out.address = *ip_address::parse("::ffff:" + out.address.to_string());
  // Often the device that the socket is bound to: to another one it refuses to write.
  if (below(2) == 0) out.scope_id = below(2) == 0 ? question.cls.output_interface : 1 + below(10);
  return out;
}

}  // namespace cowire::testing
