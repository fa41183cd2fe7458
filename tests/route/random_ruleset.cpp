// SPDX-License-Identifier: Apache-2.0
#include "tests/route/random_ruleset.hpp"

#include <algorithm>
#include <initializer_list>
#include <span>

namespace cowire::test {
namespace {

class maker {
 public:
  maker(std::mt19937_64& random, const ruleset_world& world)
      : random_(random), world_(world), v4_(world.family == ip_family::v4) {}

  random_ruleset make() {
    random_ruleset out;
    out.sets = sets();
    std::vector<std::string> bases = {"filter hook output",   "filter hook postrouting",
                                      "route hook output",    "filter hook output",
                                      "nat hook postrouting", "nat hook output"};
    std::ranges::shuffle(bases, random_);
    bases.resize(1 + below(3));
    // Some of them in a table of their own.
    const std::size_t first = chance(60) ? 1 + below(bases.size()) : bases.size();
    add_table(out, std::span(bases).first(first));
    if (first < bases.size()) add_table(out, std::span(bases).subspan(first));
    return out;
  }

 private:
  void add_table(random_ruleset& out, std::span<const std::string> bases) {
    const std::size_t table = out.families.size();
    out.families.push_back(pick({std::string(v4_ ? "ip" : "ip6"), std::string("inet")}));
    inet_ = out.families.back() == "inet";
    const std::size_t side_chains = below(4);
    for (std::size_t i = 0; i < side_chains; ++i) {
      random_ruleset::chain c{"chain c" + std::to_string(i) + " {", {}, table};
      for (auto n = 1 + below(3); n > 0; --n) c.rules.push_back(rule(i));
      out.chains.push_back(std::move(c));
    }
    for (std::size_t i = 0; i < bases.size(); ++i) {
      out.chains.push_back(base(bases[i], i, side_chains));
      out.chains.back().table = table;
    }
  }
  std::size_t below(std::size_t limit) { return random_() % limit; }
  bool chance(unsigned percent) { return below(100) < percent; }
  std::string pick(std::vector<std::string> from) { return from[below(from.size())]; }
  std::string ne() { return pick({"", "", "!= "}); }
  std::string host() { return pick(world_.destinations); }
  std::string port() { return std::to_string(world_.ports[below(world_.ports.size())]); }
  std::string ports() {
    return pick({port(), port(), "8000-8020", "1024-65535", "9001-9100", "7000", "1-1023"});
  }
  std::string ip() { return v4_ ? "ip" : "ip6"; }
  std::string type() { return v4_ ? "ipv4_addr" : "ipv6_addr"; }
  std::string prefix() {
    return v4_ ? pick({"10.0.0.0/30", "10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16",
                       "10.0.0.3-10.0.0.8", "192.168.0.0/16", "11.0.0.0/8"})
               : pick({"fd00::/126", "fd00::/64", "fd00:0:0:1::/64", "fd00::/16", "fd00::3-fd00::8",
                       "fd01::/16", "2001:db8::/32"});
  }
  std::string address() { return chance(50) ? host() : prefix(); }

  std::vector<std::string> sets() {
    std::vector<std::string> intervals =
        v4_ ? std::vector<std::string>{"10.0.0.2", "10.0.0.4/31",    "10.0.1.0/24",
                                       "10.0.0.9", "192.168.0.0/16", "255.0.0.0/8"}
            : std::vector<std::string>{"fd00::2", "fd00::4/127", "fd00:0:0:1::/64",
                                       "fd00::9", "fd01::/16",   "ff00::/8"};
    std::ranges::shuffle(intervals, random_);
    std::vector<std::string> some = world_.destinations;
    std::ranges::shuffle(some, random_);
    const std::string key = type() + " . inet_proto . inet_service";
    const std::string low = v4_ ? "10.0.0.0/29" : "fd00::/125",
                      other = v4_ ? "10.0.1.0/24" : "fd00:0:0:1::/64";
    return {
        "set iv { type " + type() + "; flags interval; elements = { " + intervals[0] + ", " +
            intervals[1] + ", " + intervals[2] + " } }",
        "set pl { type " + type() + "; elements = { " + some[0] + ", " + some[1] + " } }",
        "set pt { type inet_service; flags interval; elements = { " +
            pick({"53, 8000-8100", "9000, 20000-65535", "9000-9001"}) + " } }",
        "set cc { type " + key + "; elements = { " + host() + " . udp . 9000, " + host() +
            " . tcp . 53 } }",
        "set cr { type " + key + "; flags interval; elements = { " + low + " . udp . 9000-9001, " +
            other + " . udp . 53 } }",
        "map vm { type " + key + " : verdict; elements = { " + some[2] + " . udp . 9000 : drop, " +
            some[3] + " . udp . 53 : accept } }",
        "map mm { type " + type() + " : mark; elements = { " + some[0] + " : 5, " + some[4] +
            " : 0 } }",
        "counter cn { }",
    };
  }

  std::string match() {
    switch (below(25)) {
      case 0:
      case 1:
        return ip() + " daddr " + ne() + address();
      case 2:
        return "udp dport " + ne() + ports();
      case 3:
        return "udp sport " + ne() + ports();
      case 4:
        return ip() + " saddr " + ne() + (chance(50) ? world_.source : prefix());
      case 5:
        return "oifname " + ne() + pick({world_.device, "\"a*\"", "docker0", "lo", "{ lo, eth7 }"});
      case 6:
        return "meta mark " + pick({"0", "5", "& 0xff == 4", "& 0x4000 == 0", "!= 0", "1-4"});
      case 7:
        return "meta skuid " + pick({"0", "1000", "!= 0", "500-2000", "< 10"});
      case 8:
        return "ct state " + pick({"new", "established,related", "{ established, related }",
                                   "!= new", "invalid", "untracked"});
      case 9:
        return ip() + " daddr " + pick({"@iv", "@pl", "!= @iv", "!= @pl"});
      case 10:
        return ip() + " daddr . meta l4proto . udp dport " + pick({"@cc", "@cr", "!= @cr"});
      case 11:
        return "fib daddr type " + pick({"local", "unicast", "!= local", "{ local, broadcast }"});
      case 12:
        return "meta l4proto " + pick({"udp", "tcp", "{ tcp, udp }", "!= udp"});
      case 13:
        return "udp dport " + pick({"@pt", "{ 53, 8000-8100 }", "!= { 9000, 9001 }", "!= @pt"});
      case 14:
        return "meta length " + pick({"> 10", "> 1000", "< 20"});
      case 15:
        return ip() + " dscp " + pick({"cs0", "cs1", "!= cs0"});
      case 16:
        return v4_ ? "ip ttl " + pick({"64", "< 10", "!= 64"})
                   : "ip6 hoplimit " + pick({"64", "< 10", "!= 64"});
      case 17:
        return v4_ ? "@nh,128,16 " + pick({"0x0a00", "0x0a01", "!= 0x0a00"})
                   : "@nh,192,16 " + pick({"0xfd00", "0xfd01", "!= 0xfd00"});
      case 18:
        return "th dport " + pick({"9000", "< 1024", ">= 9000", "53"});
      case 19:
        return "meta nfproto " + pick({"ipv4", "ipv6"});
      case 20:
        return "iifname " + pick({"\"\"", "lo", "!= eth0"});
      case 21:
        return "meta protocol " + pick({"ip", "ip6"});
      case 22:
        return "ct direction " + pick({"original", "reply"});
      case 23:
        return v4_ ? "ip option " + pick({"lsrr exists", "ra missing", "rr ptr 4", "ra value != 0"})
                   : pick({"exthdr frag exists", "exthdr hbh missing", "rt type 0",
                           "hbh nexthdr udp", "frag more-fragments != 1"});
      default:
        return ip() + " daddr & " + (v4_ ? "255.255.0.255 == 10.0.0.2" : "ffff::ff == fd00::2");
    }
  }

  std::string verdict(std::size_t side_chains) {
    const std::string side = side_chains == 0 ? "" : "c" + std::to_string(below(side_chains));
    switch (below(25)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
        return "accept";
      case 6:
      case 7:
      case 8:
        return "drop";
      case 9:
      case 10:
        return "return";
      case 11:
      case 12:
      case 13:
        return side.empty() ? "accept" : "jump " + side;
      case 14:
        return side.empty() ? "counter" : "goto " + side;
      case 15:
        return pick({"counter", "counter name cn", "continue"});
      case 16:
        return "reject";
      case 17:
        return "meta mark set " + pick({"0", "5", "0x4000", ip() + " daddr map @mm"});
      case 18:
        return pick({ip() + " dscp set cs1", ip() + " dscp set cs0",
                     ip() + (v4_ ? " ttl" : " hoplimit") + " set 9"});
      case 19:
        return pick({"limit rate 1/second accept", "limit rate over 1/hour burst 1 packets drop",
                     "quota over 100 mbytes drop"});
      case 20:
        return side.empty()
                   ? "udp dport vmap { 9000 : drop }"
                   : ip() + " daddr vmap { " + world_.destinations[0] + " : accept, " +
                         world_.destinations[2] + " : drop, " +
                         (v4_ ? "10.0.1.0/24" : "fd00:0:0:1::/64") + " : jump " + side + " }";
      case 21:
        return ip() + " daddr . meta l4proto . udp dport vmap @vm";
      case 22:
        return "udp dport vmap { 53 : drop, 9000-9001 : return }";
      case 23:
        return "notrack";
      default:
        return pick({"numgen inc mod 2 0 drop", "meta priority set 0", "ct mark set 1"});
    }
  }

  std::string translation(bool of_source) {
    if (of_source && (inet_ || chance(50))) return "masquerade";
    if (of_source) return "snat to " + world_.source + (v4_ ? ":6000-6001" : "");
    if (chance(30)) return "meta l4proto udp redirect to :9001";
    const std::string to = inet_ ? "dnat " + ip() + " to " : "dnat to ";
    if (chance(50)) return to + host();
    return "meta l4proto udp " + to + (v4_ ? host() : "[" + host() + "]") + ":" + port();
  }

  /// `nat`: where the chain's statements may translate, "source", "destination"; empty: nowhere.
  std::string rule(std::size_t side_chains, const std::string& nat = {}) {
    std::string out;
    for (auto n = below(6); n > 2; --n) out += match() + " ";
    if (chance(40)) out += match() + " ";
    if (chance(30)) out += "counter ";
    if (nat.empty() || !chance(35)) return out + verdict(side_chains);
    return out + translation(nat == "source");
  }

  random_ruleset::chain base(const std::string& kind, std::size_t number, std::size_t side_chains) {
    const bool nat = kind.starts_with("nat");
    const bool drops = !nat && chance(12);
    random_ruleset::chain c;
    c.head = "chain b" + std::to_string(number) + " { type " + kind + " priority " +
             pick(nat ? std::vector<std::string>{"-150", "-100", "0", "100"}
                      : std::vector<std::string>{"-300", "-150", "-10", "0", "0", "100"}) +
             "; policy " + (drops ? "drop" : "accept") + ";";
    const std::string translated = !nat ? "" : kind.ends_with("output") ? "destination" : "source";
    for (auto n = below(5); n > 0; --n) c.rules.push_back(rule(nat ? 0 : side_chains, translated));
    return c;
  }

  std::mt19937_64& random_;
  const ruleset_world& world_;
  const bool v4_;
  bool inet_ = false;
};

}  // namespace

std::string random_ruleset::text() const {
  std::string out = "flush ruleset\n";
  for (std::size_t table = 0; table < families.size(); ++table) {
    out += "table " + families[table] + " z" + std::to_string(table) + " {\n";
    for (const std::string& set : sets) out += " " + set + "\n";
    for (const chain& c : chains) {
      if (c.table != table) continue;
      out += " " + c.head + "\n";
      for (const std::string& r : c.rules) out += "  " + r + "\n";
      out += " }\n";
    }
    out += "}\n";
  }
  return out;
}

std::size_t random_ruleset::rule_count() const {
  std::size_t count = 0;
  for (const chain& c : chains) count += c.rules.size();
  return count;
}

random_ruleset make_ruleset(std::mt19937_64& random, const ruleset_world& world) {
  return maker(random, world).make();
}

}  // namespace cowire::test
