// SPDX-License-Identifier: Apache-2.0
// Bonds that hash frames: every frame of the fast path leaves by the slave that
// the kernel takes for the same bytes. COWIRE_BOND_FLOWS says how many flows
// each combination has, COWIRE_BOND_CHANGES how many carriers change under a
// stream.
#include <tests/async/frame_capture.hpp>

#include <linux/filter.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

namespace cowire::test {
namespace {

constexpr const char* policies[] = {"layer2",   "layer2+3", "layer3+4",
                                    "encap2+3", "encap3+4", "vlan+srcmac"};

std::size_t from_environment(const char* name, std::size_t otherwise) {
  const char* wanted = std::getenv(name);
  return wanted != nullptr ? std::strtoul(wanted, nullptr, 10) : otherwise;
}
std::size_t flow_count() { return from_environment("COWIRE_BOND_FLOWS", 24); }
std::size_t change_count() { return from_environment("COWIRE_BOND_CHANGES", 12); }

struct bonded_flow {
  std::size_t sender = 0;
  endpoint there;
};

/// How much of what is compared has to take the fast path.
enum class served { whole, partly, not_at_all };

/// Where a frame was seen, and its bytes.
struct sighting {
  int link = 0;
  std::string frame;
  friend bool operator==(const sighting&, const sighting&) = default;
};

/// Counts what comes to UDP port captured_port of a host, by any link and for
/// whatever address; what comes by slaves of its bond p1 there, and not once
/// more as the bond's.
class arrival_counter {
 public:
  explicit arrival_counter(const netns& in) {
    const netns::scope inside(in);
    fd_.reset(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    constexpr unsigned device = static_cast<unsigned>(SKF_AD_OFF + SKF_AD_IFINDEX);
    const unsigned bond = ::if_nametoindex("p1");
    sock_filter steps[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, device},
        {BPF_JMP | BPF_JEQ | BPF_K, 8, 0, bond},
        {BPF_LD | BPF_H | BPF_ABS, 0, 0, 12},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 2, ETH_P_IP},
        {BPF_LD | BPF_H | BPF_ABS, 0, 0, 14 + 20 + 2},
        {BPF_JMP | BPF_JEQ | BPF_K, 3, 4, captured_port},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, ETH_P_IPV6},
        {BPF_LD | BPF_H | BPF_ABS, 0, 0, 14 + 40 + 2},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, captured_port},
        {BPF_RET | BPF_K, 0, 0, 64},
        {BPF_RET | BPF_K, 0, 0, 0},
    };
    const sock_fprog filter{std::size(steps), steps};
    if (::setsockopt(fd_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) != 0)
      throw_error(errno_code(errno), "arrival_counter");
    static_cast<void>(count());  // What came before there was a filter.
    count_ = 0;
  }
  /// Nobody reads: what finds no room is counted all the same.
  std::uint64_t count() {
    tpacket_stats fresh{};
    socklen_t size = sizeof fresh;
    EXPECT_EQ(0, ::getsockopt(fd_.get(), SOL_PACKET, PACKET_STATISTICS, &fresh, &size));
    return count_ += fresh.tp_packets;  // Reading them sets them to 0.
  }

 private:
  unique_fd fd_;
  std::uint64_t count_ = 0;
};

/// How long changes of slaves take, from the reading of their message to the table that has them.
class followed_slaves {
 public:
  explicit followed_slaves(transmitter& tx) : seen_(std::make_shared<sightings>()) {
    seen_->events = tx.watch_routes();
    listen(seen_);
  }
  /// In microseconds, sorted.
  [[nodiscard]] std::vector<double> delays() const {
    const std::lock_guard lock(seen_->mutex);
    std::vector<double> out = seen_->delays_us;
    std::ranges::sort(out);
    return out;
  }

 private:
  struct sightings {
    std::mutex mutex;
    std::vector<double> delays_us;
    route_events events;
  };
  /// Until the transmitter ends.
  static void listen(const std::shared_ptr<sightings>& to) {
    to->events.async_next([to](std::error_code ec, const route_change& change) {
      if (ec) return;
      const bool slave = change.device == "a1" || change.device == "a2" || change.device == "a3";
      if (change.what == route_change::kind::link && slave) {
        const std::lock_guard lock(to->mutex);
        to->delays_us.push_back(static_cast<double>(change.publish_time_ns - change.event_time_ns) /
                                1000);
      }
      listen(to);
    });
  }

  std::shared_ptr<sightings> seen_;
};

class bonds : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    ::alarm(2400);
    if (std::system("ip link add probe type bond 2>/dev/null") != 0)
      GTEST_SKIP() << "the kernel has no bonding";
    (*a)("ip link del probe");
    (*a)(
        "sysctl -qw net.ipv6.auto_flowlabels=0 "
        "net.ipv6.conf.default.addr_gen_mode=1 "
        "net.ipv6.conf.default.router_solicitations=0");
    for (unsigned i = 1; i <= 3; ++i) {
      const std::string n = std::to_string(i);
      connect(*a, "a" + n, *b, "b" + n, 1 + i);
    }
  }

  /// Not in the order of their numbers.
  void make_bond(const std::string& parameters) {
    (*a)("ip link add t1 type bond miimon 20 " + parameters);
    for (const char* slave : {"a2", "a1", "a3"}) enslave(*a, "t1", slave);
    give_addresses("t1", 1);
  }
  static void enslave(const netns& host, const std::string& bond, const std::string& slave) {
    host("ip link set " + slave + " down");
    host("ip link set " + slave + " master " + bond);
  }
  /// Its own, and gateways of several MAC addresses to everywhere.
  void give_addresses(const std::string& device, int number) {
    const std::string n = std::to_string(number);
    const std::string on = " dev " + device;
    std::vector<std::string> lines{"addr add 10.200." + n + ".1/24" + on,
                                   "link set " + device + " up",
                                   "addr add fd20:" + n + "::1/64" + on + " nodad"};
    for (int i = 0; i < 8; ++i) {
      const std::string g = std::to_string(i + 2);
      const std::string gateways[] = {"10.200." + n + "." + g, "fd20:" + n + "::" + g};
      lines.push_back("route add 198.18." + std::to_string(32 * (number - 1) + 4 * i) +
                      ".0/22 via " + gateways[0] + on);
      lines.push_back("route add fd9" + n + ":" + g + "::/32 via " + gateways[1] + on);
      for (const std::string& gateway : gateways)
        lines.push_back("neigh replace " + gateway + on +
                        " lladdr 02:00:00:00:aa:" + std::to_string(10 + 7 * i) + " nud permanent");
    }
    ip_commands(lines);
  }
  /// Of a tunnel, and a gateway in it to 10.201.N.0/24 and fd21:N::/64.
  static void give_inner_addresses(const std::string& tunnel, const std::string& n, bool ethernet) {
    const std::string on = " dev " + tunnel;
    const std::string gateways[] = {"10.202." + n + ".2", "fd22:" + n + "::2"};
    std::vector<std::string> lines{"addr add 10.202." + n + ".1/24" + on,
                                   "link set " + tunnel + " up",
                                   "addr add fd22:" + n + "::1/64" + on + " nodad",
                                   "route add 10.201." + n + ".0/24 via " + gateways[0] + on,
                                   "route add fd21:" + n + "::/64 via " + gateways[1] + on};
    for (const std::string& gateway : gateways)
      if (ethernet)
        lines.push_back("neigh replace " + gateway + on +
                        " lladdr 02:00:00:00:bb:01 nud permanent");
    ip_commands(lines);
  }
  /// On A, by one process: to start one takes long where CPUs are emulated.
  static void ip_commands(const std::vector<std::string>& lines) {
    std::string words = "printf '%s\\n'";
    for (const std::string& line : lines) words += " '" + line + "'";
    run(words + " | ip -batch -");
  }

  std::vector<bonded_flow> flows(int number, std::size_t count) {
    std::vector<bonded_flow> out;
    const auto below = [&](unsigned limit) { return random_() % limit; };
    for (std::size_t i = 0; i < count; ++i) {
      const std::string v4 = "198.18." +
                             std::to_string(32 * (static_cast<unsigned>(number) - 1) + below(32)) +
                             "." + std::to_string(below(256));
      const std::string v6 = "[fd9" + std::to_string(number) + ":" + std::to_string(below(8) + 2) +
                             "::" + std::to_string(below(9999)) + "]";
      out.push_back(
          {below(static_cast<unsigned>(senders_.size())), to((below(2) != 0 ? v4 : v6) + ":9000")});
    }
    return out;
  }

  /// To groups of both families at MAC addresses of their own, from a device
  /// that senders_ name.
  std::vector<bonded_flow> group_flows(std::size_t count) {
    std::vector<bonded_flow> out;
    const auto below = [&](unsigned limit) { return random_() % limit; };
    for (std::size_t i = 0; i < count; ++i) {
      const std::string v4 = "239." + std::to_string(below(256)) + "." +
                             std::to_string(below(256)) + "." + std::to_string(below(256));
      const std::string v6 =
          "[ff3e::" + std::to_string(below(9999)) + ":" + std::to_string(below(9999)) + "]";
      out.push_back(
          {below(static_cast<unsigned>(senders_.size())), to((i % 2 != 0 ? v4 : v6) + ":9000")});
    }
    return out;
  }

  struct captures {
    explicit captures(const netns& host)
        : links{capture(host, "b1"), capture(host, "b2"), capture(host, "b3")} {}
    sighting next() {
      sighting seen;
      eventually(
          [&] {
            for (std::size_t i = 0; i < links.size(); ++i) {
              seen = {static_cast<int>(i + 1), links[i].next(0ms)};
              if (!seen.frame.empty()) return true;
            }
            seen = {};
            return false;
          },
          5s);
      return seen;
    }
    std::array<capture, 3> links;
  };

  /// All through the kernel, then all through cowire. Returns how many differ.
  std::size_t compare(const std::vector<bonded_flow>& all, transmitter_stats& told) {
    captures wire(*b);
    std::vector<sighting> kernel;
    {
      std::map<std::pair<std::size_t, ip_family>, kernel_sender> sockets;
      for (const bonded_flow& one : all) {
        const auto family = one.there.address.family();
        sockets.try_emplace({one.sender, family}, family, senders_[one.sender])
            .first->second.send(one.there, patterned(100));
        kernel.push_back(wire.next());
        EXPECT_NE(0, kernel.back().link) << "from the kernel: " << one.there.to_string();
      }
    }
    transmitter tx(small());
    std::vector<sender> ours;
    for (const sending_options& o : senders_) ours.push_back(tx.make_sender(as_sender(o)));
    std::size_t differences = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_TRUE(ours[all[i].sender].try_send(bytes_of(patterned(100)), all[i].there));
      const sighting seen = wire.next();
      if (seen == kernel[i]) continue;
      ++differences;
      if (differences > 3) continue;
      std::printf("%s: kernel b%d %s\n    cowire b%d %s\n", all[i].there.to_string().c_str(),
                  kernel[i].link, hex(kernel[i].frame).c_str(), seen.link, hex(seen.frame).c_str());
    }
    EXPECT_TRUE(drained(tx));
    told = tx.stats();
    return differences;
  }
  void expect_same(const std::vector<bonded_flow>& all, const std::string& what,
                   served by_fast_path = served::whole) {
    transmitter_stats stats;
    EXPECT_EQ(0u, compare(all, stats)) << what << ": " << summary(stats);
    const std::uint64_t fast = stats.submitted - stats.kernel_path;
    std::printf("%s: %zu flows, %llu of them by the fast path\n", what.c_str(), all.size(),
                static_cast<unsigned long long>(fast));
    if (by_fast_path != served::partly) {
      EXPECT_EQ(by_fast_path == served::whole ? all.size() : 0, fast)
          << what << ": " << summary(stats);
    }
  }
  /// Of plain datagrams: under encap3+4 IPv6 has a hash of its own.
  static served certain(const std::string& policy) {
    return policy == "encap3+4" ? served::partly : served::whole;
  }
  /// Sooner or later, as miimon and LACP take their time.
  void expect_same_in_the_end(const std::vector<bonded_flow>& all, const std::string& what) {
    transmitter_stats stats;
    EXPECT_TRUE(eventually([&] { return compare(all, stats) == 0; }, 60s))
        << what << ": " << summary(stats);
  }

  /// B answers LACP on all three links.
  void make_lacp_bonds() {
    (*b)("ip link add p1 type bond mode 802.3ad miimon 20 lacp_rate fast");
    (*b)("ip link set p1 up");
    for (const char* slave : {"b1", "b2", "b3"}) {
      enslave(*b, "p1", slave);
      (*b)(std::string("ip link set ") + slave + " up");
    }
    make_bond("mode 802.3ad lacp_rate fast xmit_hash_policy layer3+4");
    ASSERT_TRUE(settled_with(3)) << (*a)("ip -d link show master t1");
  }
  /// Waits until so many ports collect and distribute, and their partners have
  /// told of it.
  bool settled_with(std::size_t count) {
    return eventually(
        [&] {
          const std::string text = (*a)("ip -d link show master t1");
          std::size_t active = 0;
          constexpr std::string_view all = "ad_actor_oper_port_state 63 ";
          for (std::size_t at = 0; (at = text.find(all, at)) != std::string::npos; ++at) ++active;
          return active == count;
        },
        120s);
  }

  std::string aggregator_of(const std::string& slave) {
    const std::string text = (*a)("ip -d link show dev " + slave);
    constexpr std::string_view word = "ad_aggregator_id ";
    const std::size_t at = text.find(word);
    EXPECT_NE(std::string::npos, at) << text;
    return text.substr(at + word.size(), text.find(' ', at + word.size()) - at - word.size());
  }
  /// A hears no LACP by a link any more, whose carrier stays.
  void silence_partner(const std::string& port_of_b) {
    (*b)("tc qdisc add dev " + port_of_b + " clsact");
    (*b)("tc filter add dev " + port_of_b + " egress protocol 0x8809 matchall action drop");
  }
  void let_partner_talk(const std::string& port_of_b) {
    (*b)("tc qdisc del dev " + port_of_b + " clsact");
  }

  /// A stream to many destinations while `change` happens: nothing is refused,
  /// all slaves are used, and what does not arrive was dropped by a slave that
  /// was down.
  template <class Change>
  void keep_sending(Change&& change) {
    transmitter tx(small());
    std::vector<endpoint> destinations;
    for (const bonded_flow& one : flows(1, 32)) destinations.push_back(one.there);
    arrival_counter arrivals(*b);
    const followed_slaves followed(tx);
    const std::uint64_t dropped_before = dropped_by_slaves();
    stream sending(tx, destinations);
    change();
    sending.stop();
    EXPECT_TRUE(drained(tx));
    const auto stats = tx.stats();
    const std::uint64_t dropped = dropped_by_slaves() - dropped_before;
    EXPECT_TRUE(eventually([&] { return arrivals.count() + dropped >= sending.sent; }))
        << "lost elsewhere than in a slave that was down";
    std::printf("%zu sent, %llu arrived, %llu dropped by slaves: %s\n", sending.sent.load(),
                static_cast<unsigned long long>(arrivals.count()),
                static_cast<unsigned long long>(dropped), summary(stats).c_str());
    const auto delays = followed.delays();
    ASSERT_FALSE(delays.empty());
    std::printf("%zu messages of slaves published after %.0f us (median), %.0f us at most\n",
                delays.size(), delays[delays.size() / 2], delays.back());
    EXPECT_LE(arrivals.count(), sending.sent) << "some came twice";
    EXPECT_EQ(sending.sent, stats.submitted) << summary(stats);
    EXPECT_EQ(0u, stats.refused_total()) << summary(stats);
    for (const char* slave : {"a1", "a2", "a3"}) EXPECT_GT(by(tx, slave), 0u) << summary(stats);
  }
  std::uint64_t dropped_by_slaves() {
    std::uint64_t dropped = 0;
    for (const char* slave : {"a1", "a2", "a3"}) dropped += dropped_by(slave);
    return dropped;
  }

  std::mt19937 random_{1};
  std::vector<sending_options> senders_ = {{.port = 8001}, {.port = 8002}, {.port = 40003}};
};

TEST_F(bonds, each_policy_takes_the_kernels_slave) {
  make_bond("mode balance-xor");
  const auto all = flows(1, flow_count());
  for (const std::string policy : policies) {
    (*a)("ip link set t1 type bond xmit_hash_policy " + policy);
    expect_same(all, policy, certain(policy));
  }
}

TEST_F(bonds, a_vlan_above_takes_the_kernels_slave) {
  make_bond("mode balance-xor");
  (*a)("ip link add link t1 name v2 type vlan id 100");
  give_addresses("v2", 2);
  const auto all = flows(2, flow_count());
  for (const std::string policy : policies) {
    (*a)("ip link set t1 type bond xmit_hash_policy " + policy);
    expect_same(all, "vlan, " + policy, certain(policy));
  }
}

TEST_F(bonds, groups_take_the_kernels_slave) {
  make_bond("mode balance-xor");
  (*a)("ip link add link t1 name v2 type vlan id 100");
  give_addresses("v2", 2);
  const auto all = group_flows(flow_count());
  for (const std::string device : {"t1", "v2"}) {
    for (sending_options& one : senders_) one.device = device;
    for (const std::string policy : policies) {
      (*a)("ip link set t1 type bond xmit_hash_policy " + policy);
      expect_same(all, "groups, " + device + ", " + policy, certain(policy));
    }
  }
}

// What hashes frames on their way to the bond leaves that hash, made with a
// secret, to the bond.
TEST_F(bonds, what_is_hashed_above_is_left_to_the_kernel) {
  make_bond("mode balance-xor xmit_hash_policy encap3+4");
  (*a)("ip link add link t1 name v2 type vlan id 100");
  give_addresses("v2", 2);
  std::vector<bonded_flow> plain = flows(1, 2 * flow_count()), tagged = flows(2, 2 * flow_count());
  for (auto* all : {&plain, &tagged})
    std::erase_if(*all, [](const bonded_flow& one) { return one.there.address.is_v6(); });
  (*a)("tc qdisc add dev t1 root fq");
  expect_same(plain, "fq on the bond", served::not_at_all);
  expect_same(tagged, "fq on the bond, vlan", served::not_at_all);
  (*a)("tc qdisc del dev t1 root");
  expect_same(plain, "fq gone");
  (*a)("tc qdisc add dev v2 root fq");
  expect_same(tagged, "fq on the vlan", served::not_at_all);
  expect_same(plain, "fq on the vlan, beside it");
  (*a)(
      "ip link del v2 && ip link add link t1 name v2 numtxqueues 4 type vlan "
      "id 100");
  give_addresses("v2", 2);
  expect_same(tagged, "a vlan of several queues", served::not_at_all);
  // And nothing but encap3+4 looks at it.
  (*a)(
      "tc qdisc add dev v2 root fq && ip link set t1 type bond "
      "xmit_hash_policy layer3+4");
  expect_same(tagged, "layer3+4 below it");
}

/// GRE over both families, with and without Ethernet inside, over the bond and
/// over a VLAN on it; datagrams of both families inside.
TEST_F(bonds, tunnels_above_take_the_kernels_slave) {
  make_bond("mode balance-xor");
  (*a)("ip link add link t1 name v2 type vlan id 100");
  give_addresses("v2", 2);
  const std::pair<const char*, const char*> tunnels[] = {
      {"g0", "gre local 10.200.1.1 remote 198.18.1.1 ttl 64"},
      {"g1", "ip6gre local fd20:1::1 remote fd91:3::77"},
      {"g2", "gretap local 10.200.1.1 remote 198.18.9.1 ttl 64"},
      {"g3", "gre local 10.200.2.1 remote 198.18.33.1 ttl 64"},
      {"g4", "ip6gre local fd20:2::1 remote fd92:4::77"}};
  std::vector<bonded_flow> all;
  for (std::size_t n = 0; n < std::size(tunnels); ++n) {
    const auto& [name, type] = tunnels[n];
    if (std::system(("ip link add " + std::string(name) + " type " + type).c_str()) != 0)
      GTEST_SKIP() << "the kernel has no " << type;
    give_inner_addresses(name, std::to_string(n + 1), std::string(type).starts_with("gretap"));
    for (std::size_t i = 0; i < flow_count(); ++i) {
      const std::string host = std::to_string(2 + i % 250), number = std::to_string(n + 1);
      all.push_back(
          {(i + n) % senders_.size(), to(i % 2 != 0 ? "10.201." + number + "." + host + ":9000"
                                                    : "[fd21:" + number + "::" + host + "]:9000")});
    }
  }
  for (const std::string policy : policies) {
    (*a)("ip link set t1 type bond xmit_hash_policy " + policy);
    // Those of a tunnel have a hash that is made with a secret.
    expect_same(all, "tunnels, " + policy,
                policy == "encap3+4" ? served::not_at_all : served::whole);
  }
}

TEST_F(bonds, carriers_and_the_order_of_enslaving_are_followed) {
  make_bond("mode balance-xor xmit_hash_policy layer3+4");
  const auto all = flows(1, flow_count());
  expect_same(all, "three slaves");
  (*b)("ip link set b2 down");
  expect_same_in_the_end(all, "one without carrier");
  (*b)("ip link set b2 up");
  expect_same_in_the_end(all, "carrier back");
  (*a)("ip link set a2 nomaster");
  enslave(*a, "t1", "a2");
  expect_same_in_the_end(all, "released and enslaved again");
  (*a)("ip link set a1 down");
  expect_same_in_the_end(all, "one admin down");
}

TEST_F(bonds, lacp_partners_take_the_kernels_slave) {
  make_lacp_bonds();
  const auto all = flows(1, flow_count());
  for (const std::string policy : policies) {
    (*a)("ip link set t1 type bond xmit_hash_policy " + policy);
    expect_same(all, "802.3ad, " + policy, certain(policy));
  }
  (*a)("ip link set t1 type bond xmit_hash_policy layer3+4");
  (*b)("ip link set b3 down");
  ASSERT_TRUE(settled_with(2)) << (*a)("ip -d link show master t1");
  expect_same_in_the_end(all, "802.3ad, a port lost");
  (*b)("ip link set b3 up");
  ASSERT_TRUE(settled_with(3)) << (*a)("ip -d link show master t1");
  expect_same_in_the_end(all, "802.3ad, the port back");
  const std::string before = aggregator_of("a3");
  silence_partner("b3");
  ASSERT_TRUE(settled_with(2)) << (*a)("ip -d link show master t1");
  EXPECT_TRUE(eventually([&] { return aggregator_of("a3") != before; }));
  expect_same_in_the_end(all, "802.3ad, a partner silent");
  let_partner_talk("b3");
  ASSERT_TRUE(settled_with(3)) << (*a)("ip -d link show master t1");
  EXPECT_EQ(before, aggregator_of("a3"));
  expect_same_in_the_end(all, "802.3ad, the partner back");
}

/// The running fast path moves with its slaves; what was on the way of a downed
/// one is its loss.
TEST_F(bonds, a_stream_goes_on_while_slaves_come_and_go) {
  make_bond("mode balance-xor xmit_hash_policy layer3+4");
  keep_sending([&] {
    for (std::size_t i = 0; i < change_count() / 2; ++i) {
      const std::string victim = "b" + std::to_string(1 + i % 3);
      (*b)("ip link set " + victim + " down");
      std::this_thread::sleep_for(200ms);
      (*b)("ip link set " + victim + " up");
      std::this_thread::sleep_for(200ms);
    }
  });
}

TEST_F(bonds, a_stream_goes_on_while_lacp_partners_come_and_go) {
  make_lacp_bonds();
  keep_sending([&] {
    for (std::size_t i = 0; i < change_count() / 12 + 1; ++i) {
      const std::string victim = "b" + std::to_string(1 + i % 3);
      (*b)("ip link set " + victim + " down");
      EXPECT_TRUE(settled_with(2)) << (*a)("ip -d link show master t1");
      std::this_thread::sleep_for(100ms);
      (*b)("ip link set " + victim + " up");
      EXPECT_TRUE(settled_with(3)) << (*a)("ip -d link show master t1");
      std::this_thread::sleep_for(100ms);
    }
  });
}

/// A partner that says nothing any more makes its port leave the aggregator,
/// with its carrier.
TEST_F(bonds, a_stream_goes_on_while_a_partner_is_silent) {
  make_lacp_bonds();
  keep_sending([&] {
    const std::string before = aggregator_of("a3");
    silence_partner("b3");
    EXPECT_TRUE(settled_with(2)) << (*a)("ip -d link show master t1");
    EXPECT_TRUE(eventually([&] { return aggregator_of("a3") != before; }));
    std::this_thread::sleep_for(100ms);
    let_partner_talk("b3");
    EXPECT_TRUE(settled_with(3)) << (*a)("ip -d link show master t1");
    std::this_thread::sleep_for(100ms);
  });
}

}  // namespace
}  // namespace cowire::test
