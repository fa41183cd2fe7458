// SPDX-License-Identifier: Apache-2.0
// Hundreds of flows over a multipath route, through a bound kernel UDP socket and through cowire:
// with a known seed each leaves over the same member.
#include <cowire/netlink/request_socket.hpp>

#include <tests/support/two_hosts.hpp>

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <vector>

namespace cowire::test {
namespace {

constexpr std::uint16_t source_port = 8001;
constexpr std::size_t flow_count = 600;

/// Which interface of a host a flow arrived at.
using arrivals = std::map<endpoint, int>;

class capture {
 public:
  explicit capture(const netns& in) {
    const netns::scope inside(in);
    fd_.reset(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    const int room = 16 << 20;
    if (::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) != 0)
      throw_error(errno_code(errno), "capture");
  }

  /// Collects until all flows were seen, or nothing comes any more.
  arrivals take(std::size_t flows) {
    arrivals seen;
    pollfd readable{fd_.get(), POLLIN, 0};
    while (seen.size() < flows && ::poll(&readable, 1, 2000) > 0) {
      sockaddr_ll from{};
      socklen_t size = sizeof from;
      std::array<std::uint8_t, 2048> frame{};
      const auto n = ::recvfrom(fd_.get(), frame.data(), frame.size(), 0,
                                reinterpret_cast<sockaddr*>(&from), &size);
      if (n < 62 || from.sll_pkttype == PACKET_OUTGOING) continue;
      if (const auto to = destination_of(frame)) seen[*to] = from.sll_ifindex;
    }
    return seen;
  }

 private:
  /// Of a UDP datagram from our source port.
  static std::optional<endpoint> destination_of(const std::array<std::uint8_t, 2048>& frame) {
    const bool v4 = frame[12] == 0x08 && frame[13] == 0x00;
    const bool v6 = frame[12] == 0x86 && frame[13] == 0xdd;
    if (!v4 && !v6) return std::nullopt;
    const std::size_t udp = v4 ? 34 : 54;
    const auto port = [&](std::size_t at) {
      return static_cast<std::uint16_t>(frame[at] << 8 | frame[at + 1]);
    };
    if (frame[v4 ? 23 : 20] != IPPROTO_UDP || port(udp) != source_port) return std::nullopt;
    const auto family = v4 ? ip_family::v4 : ip_family::v6;
    return endpoint{ip_address::from_bytes(family, frame.data() + (v4 ? 30 : 38)), port(udp + 2)};
  }
  unique_fd fd_;
};

class multipath : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    connect(*a, "a1", *b, "b1", 2);
    connect(*a, "a2", *b, "b2", 3);
    (*a)("ip addr add 192.0.2.1/32 dev lo");
    (*a)("ip addr add 2001:db8:ff::1/128 dev lo");
    const std::string hops_v4 =
        " nexthop via 10.77.1.2 weight 1 nexthop via 10.77.2.2 weight 2 nexthop via 10.77.3.2 "
        "weight 5";
    const std::string hops_v6 =
        " nexthop via fd77:1::2 weight 1 nexthop via fd77:2::2 weight 2 nexthop via fd77:3::2 "
        "weight 5";
    (*a)("ip route add 20.0.0.0/8" + hops_v4);
    (*a)("ip -6 route add 2001:db8::/32" + hops_v6);
    for (const char* n : {"1", "2", "3"}) {
      resolve("10.77." + std::string(n) + ".2");
      resolve("fd77:" + std::string(n) + "::2");
    }
  }

  /// B's interface that faces a1.
  [[nodiscard]] int second_member() const {
    const netns::scope there(*b);
    return static_cast<int>(::if_nametoindex("b1"));
  }

  void set_hash(const std::string& seed, const std::string& policy) {
    (*a)("sysctl -qw net.ipv4.fib_multipath_hash_seed=" + seed);
    (*a)("sysctl -qw net.ipv4.fib_multipath_hash_policy=" + policy);
    (*a)("sysctl -qw net.ipv6.fib_multipath_hash_policy=" + policy);
  }

  /// Few destinations and many ports, so that policies differ.
  static std::vector<endpoint> flows(ip_family family) {
    std::vector<endpoint> all;
    for (std::size_t i = 0; i < flow_count; ++i) {
      const auto host = std::to_string(i % 60);
      const std::string address = family == ip_family::v4 ? "20.1.7." + host : "2001:db8::" + host;
      all.push_back({*ip_address::parse(address), static_cast<std::uint16_t>(9000 + i)});
    }
    return all;
  }

  static unique_fd bound_socket(const ip_address& source) {
    unique_fd fd(::socket(source.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const raw_address from({source, source_port});
    EXPECT_EQ(0, ::bind(fd.get(), from.name(), from.size));
    return fd;
  }

  static void send_through_kernel(const std::vector<endpoint>& all, const unique_fd& fd) {
    const std::string text(20, 'k');
    for (const endpoint& each : all) {
      const raw_address there(each);
      // An error that the network has told of is reported instead of the next datagram.
      ASSERT_TRUE(eventually([&] {
        return ::sendto(fd.get(), text.data(), text.size(), 0, there.name(), there.size) == 20;
      }));
    }
  }

  static void send_through_cowire(const std::vector<endpoint>& all,
                                  const std::optional<ip_address>& source) {
    transmitter tx(small());
    sender_options wanted{.source_port = source_port};
    if (source) (source->is_v4() ? wanted.source_v4 : wanted.source_v6) = source;
    auto s = tx.make_sender(wanted);
    const std::string text(20, 'c');
    for (const endpoint& each : all)
      ASSERT_TRUE(eventually([&] { return s.try_send(bytes_of(text), each); }));
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
  }

  /// How often the two took different members; both shall have used at least `members`.
  std::size_t differing(ip_family family, const std::optional<ip_address>& source,
                        std::size_t members) {
    const auto all = flows(family);
    capture kernel_wire(*b);
    send_through_kernel(all, bound_socket(source.value_or(ip_address::any(family))));
    const arrivals kernel = kernel_wire.take(all.size());
    capture wire(*b);
    send_through_cowire(all, source);
    const arrivals ours = wire.take(all.size());
    EXPECT_EQ(flow_count, kernel.size());
    EXPECT_EQ(flow_count, ours.size());
    std::map<int, std::size_t> used;
    std::size_t count = 0;
    for (const auto& [to, index] : ours) {
      ++used[index];
      const auto same = kernel.find(to);
      count += same == kernel.end() || same->second != index;
    }
    EXPECT_EQ(members, used.size());
    return count;
  }

  /// All flows of a family, through one transmitter that stays, and through its backing socket.
  class live_flows {
   public:
    live_flows(const netns& there, ip_family family, const transmitter_config& config = small())
        : there_(there),
          all_(flows(family)),
          fd_(bound_socket(ip_address::any(family))),
          tx_(config),
          sender_(tx_.make_sender({.adopt_socket = fd_.get()})) {}

    [[nodiscard]] arrivals ours() {
      capture wire(there_);
      for (const endpoint& each : all_)
        EXPECT_TRUE(
            eventually([&] { return sender_.try_send(bytes_of("twenty bytes of text"), each); }));
      return wire.take(all_.size());
    }
    [[nodiscard]] arrivals kernels() {
      capture wire(there_);
      send_through_kernel(all_, fd_);
      return wire.take(all_.size());
    }
    /// Waits until ours arrive where the kernel's did, and none is left to it.
    void expect_followed(const arrivals& kernel) {
      const auto same = [&] {
        const auto before = tx_.stats().kernel_path;
        return ours() == kernel && drained(tx_) && tx_.stats().kernel_path == before;
      };
      EXPECT_TRUE(eventually(same))
          << summary(tx_.stats())
          << (kernels() == kernel ? "" : "; by now the kernel's take other members, too");
    }

   private:
    const netns& there_;
    const std::vector<endpoint> all_;
    const unique_fd fd_;
    transmitter tx_;
    sender sender_;
  };

  void compare_all(std::size_t members) {
    for (const char* policy : {"0", "1", "2", "3"}) {
      SCOPED_TRACE(std::string("policy ") + policy);
      set_hash("305419896", policy);
      EXPECT_EQ(0u, differing(ip_family::v4, std::nullopt, members));
      EXPECT_EQ(0u, differing(ip_family::v6, std::nullopt, members));
      EXPECT_EQ(0u, differing(ip_family::v4, ip_address::parse("192.0.2.1"), members));
      EXPECT_EQ(0u, differing(ip_family::v6, ip_address::parse("2001:db8:ff::1"), members));
    }
  }
};

TEST_F(multipath, every_flow_takes_the_members_that_the_kernel_takes) { compare_all(3); }

TEST_F(multipath, the_share_of_a_dead_member_moves_as_the_kernels_does) {
  (*a)("ip link set a1 down");
  compare_all(2);
}

TEST_F(multipath, settings_that_change_are_followed) {
  for (const ip_family family : ip_families) {
    SCOPED_TRACE(family == ip_family::v4 ? "IPv4" : "IPv6");
    set_hash("1", "0");
    live_flows live(*b, family);
    arrivals before = live.kernels();
    live.expect_followed(before);
    const std::string own = family == ip_family::v4 ? "net.ipv4." : "net.ipv6.";
    for (const std::string& setting :
         {own + "fib_multipath_hash_policy=1", std::string("net.ipv4.fib_multipath_hash_seed=77"),
          own + "fib_multipath_hash_policy=3", own + "fib_multipath_hash_fields=0x20"}) {
      SCOPED_TRACE(setting);
      (*a)("sysctl -qw " + setting);
      const arrivals now = live.kernels();
      EXPECT_NE(before, now);
      live.expect_followed(now);
      before = now;
    }
  }
}

TEST_F(multipath, whether_neighbours_count_is_followed) {
  set_hash("1", "1");
  (*a)(
      "ip route replace 20.0.0.0/8 nexthop via 10.77.1.2 nexthop via 10.77.2.2 nexthop via "
      "10.77.3.99");
  live_flows live(*b, ip_family::v4);
  EXPECT_GT(flow_count, live.kernels().size());  // Nobody has the third address.
  (*a)("sysctl -qw net.ipv4.fib_multipath_use_neigh=1");
  const arrivals now = live.kernels();
  EXPECT_EQ(flow_count, now.size());
  live.expect_followed(now);
}

/// With HZ=100. A bucket that is first used in the very jiffy in which it was dealt counts as never
/// used (nh_res_bucket_idle_point() in net/ipv4/nexthop.c): then the next change of the group may
/// move it.
constexpr auto longest_jiffy = 10ms;

class resilient_multipath : public multipath {
 protected:
  void SetUp() override {
    multipath::SetUp();
    if (IsSkipped()) return;
    set_hash("305419896", "1");
    for (const char* n : {"1", "2", "3"}) {
      const std::string number = n, device = " dev a" + std::to_string(number[0] - '1');
      (*a)("ip nexthop add id " + number + " via 10.77." + number + ".2" + device);
      (*a)("ip -6 nexthop add id 6" + number + " via fd77:" + number + "::2" + device);
    }
    const std::string kind = " type resilient buckets 64 idle_timer 600";
    (*a)("ip nexthop add id 10 group 1,1/2,2/3,5" + kind);
    (*a)("ip nexthop add id 60 group 61,1/62,2/63,5" + kind);
    (*a)("ip route replace 20.0.0.0/8 nhid 10");
    (*a)("ip -6 route flush exact 2001:db8::/32");
    (*a)("ip -6 route add 2001:db8::/32 nhid 60");
  }
};

TEST_F(resilient_multipath, every_flow_takes_the_buckets_that_the_kernel_takes) {
  for (const char* policy : {"0", "1"}) {
    SCOPED_TRACE(std::string("policy ") + policy);
    set_hash("305419896", policy);
    EXPECT_EQ(0u, differing(ip_family::v4, std::nullopt, 3));
    EXPECT_EQ(0u, differing(ip_family::v6, std::nullopt, 3));
    EXPECT_EQ(0u, differing(ip_family::v4, ip_address::parse("192.0.2.1"), 3));
  }
}

// Seen by one transmitter that goes on sending: only the flows of a dead member move, and for one
// that is added none does, as every bucket is in use.
TEST_F(resilient_multipath, flows_of_other_members_stay_where_they_are) {
  live_flows live(*b, ip_family::v4);
  const arrivals first = live.kernels();
  ASSERT_EQ(flow_count, first.size());
  live.expect_followed(first);

  std::set<int> used;
  for (const auto& [to, index] : first) used.insert(index);
  ASSERT_EQ(3u, used.size());
  (*a)("ip nexthop del id 2");
  std::this_thread::sleep_for(longest_jiffy);
  const arrivals second = live.kernels();
  live.expect_followed(second);
  const int dead = second_member();
  std::size_t moved = 0;
  for (const auto& [to, index] : first) {
    if (index == dead) {
      EXPECT_NE(dead, second.at(to));
      ++moved;
    } else {
      EXPECT_EQ(index, second.at(to));
    }
  }
  EXPECT_GT(moved, flow_count / 8);

  (*a)("ip nexthop add id 2 via 10.77.2.2 dev a1");
  (*a)("ip nexthop replace id 10 group 1,1/2,2/3,5 type resilient");
  EXPECT_EQ(second, live.kernels());
  live.expect_followed(second);
}

// The kernel does not see what takes the fast path. To it, buckets that it has dealt anew and that
// nobody asked for since are idle at once, whatever the timer says.
TEST_F(resilient_multipath, buckets_that_move_as_nobody_used_them_are_followed) {
  auto config = small();
  config.audit_rate = 0;
  live_flows live(*b, ip_family::v4, config);
  live.expect_followed(live.kernels());
  (*a)("ip nexthop del id 2");
  (*a)("ip nexthop add id 2 via 10.77.2.2 dev a1");
  (*a)("ip nexthop replace id 10 group 1,1/2,2/3,5 type resilient");
  const arrivals now = live.kernels();
  const auto over_second = std::ranges::count(now, second_member(), &arrivals::value_type::second);
  EXPECT_GT(over_second, static_cast<std::ptrdiff_t>(flow_count / 8));
  live.expect_followed(now);
}

// What the truth audit asks about is in use to the kernel, though it sees none of the datagrams.
TEST_F(resilient_multipath, a_bucket_in_use_does_not_become_idle) {
  (*a)("ip nexthop add id 20 group 1,255/3,1 type resilient buckets 8 idle_timer 4");
  (*a)("ip route add 30.0.0.0/8 nhid 20");
  netlink::request_socket kernel;
  const auto buckets_of = [&](std::uint32_t member) {
    return std::ranges::count_if(kernel.dump(netlink::object_kind::nexthop_bucket),
                                 [&](const netlink::message& m) {
                                   const auto& bucket = std::get<netlink::nexthop_bucket>(m);
                                   return bucket.group == 20 && bucket.member == member;
                                 });
  };
  ASSERT_EQ(8, buckets_of(1));
  transmitter tx(small());
  stream traffic(tx, to("30.0.0.1:9000"));
  const auto audited = [&] { return tx.stats().routes.truth.audited; };
  ASSERT_TRUE(eventually([&] { return audited() > 10; })) << summary(tx.stats());
  (*a)("ip nexthop replace id 20 group 1,1/3,255 type resilient");
  ASSERT_TRUE(eventually([&] { return buckets_of(3) == 7; }));
  const auto kernel_path = tx.stats().kernel_path;
  for (int i = 0; i < 90; ++i) {
    std::this_thread::sleep_for(100ms);
    ASSERT_EQ(1, buckets_of(1)) << "after " << i << " tenths of a second";
  }
  EXPECT_EQ(kernel_path, tx.stats().kernel_path);
  traffic.stop();
  EXPECT_TRUE(eventually([&] { return buckets_of(3) == 8; }));
}

TEST_F(multipath, an_unknown_seed_still_gives_every_flow_one_member) {
  set_hash("0", "1");
  const auto all = flows(ip_family::v4);
  arrivals first;
  for (int round = 0; round < 2; ++round) {
    capture wire(*b);
    send_through_cowire(all, std::nullopt);
    const arrivals seen = wire.take(all.size());
    ASSERT_EQ(flow_count, seen.size());
    if (round == 0) first = seen;
    EXPECT_EQ(first, seen);
  }
}

}  // namespace
}  // namespace cowire::test
