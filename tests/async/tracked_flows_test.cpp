// SPDX-License-Identifier: Apache-2.0
// Where the kernel tracks connections: the first datagram of a flow makes the entry, the rest is
// fast, and the entry lives as if the kernel had sent them all.
//
// COWIRE_TRACKED_SECONDS: how long the peers of a stateful firewall are watched (20), from 300 on
// with the kernel's own timeouts; scripts/rules-soak does so for ten minutes.
#include <cowire/async/detail/flow_tracker.hpp>
#include <cowire/netlink/conntrack_socket.hpp>

#include <tests/support/two_hosts.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <random>
#include <set>

namespace cowire::test {
namespace {

#define NFT_OR_SKIP() \
  if (std::system("nft --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs nft"

/// A socket as any application has it.
class kernel_like {
 public:
  explicit kernel_like(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    const raw_address name({ip_address::any(ip_family::v4), port});
    EXPECT_EQ(0, ::bind(fd_.get(), name.name(), name.size));
  }
  void send(const endpoint& where) const {
    const raw_address there(where);
    EXPECT_EQ(1, ::sendto(fd_.get(), "x", 1, 0, there.name(), there.size));
  }
  [[nodiscard]] const unique_fd& fd() const { return fd_; }

 private:
  unique_fd fd_;
};

/// A tracker without a transmitter, and the datagram of a flow from 10.77.1.1:8001.
struct lone_tracker {
  explicit lone_tracker(const endpoint& where)
      : request(
            make_request({}, 0, 0, be16::from_host(8001), request_destination::from(where), 0)) {}
  ~lone_tracker() { tracker.stop(); }
  ring_context ring;
  epoch_domain epochs;
  const outer_flows numbers;
  detail::flow_tracker tracker{ring, epochs, numbers, 16, {}};
  const tx_request request;
  const tracked_way way{source_bytes{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 77, 1, 1}};
};

class tracked_flows_end_to_end : public two_hosts {
 protected:
  static constexpr const char* place = "10.77.1.2:9000";
  static constexpr const char* place_v6 = "[fd77:1::2]:9000";
  static constexpr const char* stateful = R"(table inet t {
  chain in {
    type filter hook input priority 0; policy drop;
    iif lo accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    ct state established,related accept
  }
}
)";

  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    NFT_OR_SKIP();
    resolve("10.77.1.2");
    resolve("fd77:1::2");
  }
  static void load(const netns& in, const std::string& text) {
    const std::string file = "/tmp/" + in.name() + ".nft";
    ASSERT_TRUE(std::ofstream(file) << text << std::flush);
    in("nft -f " + file);
    ::unlink(file.c_str());
  }
  void set_timeouts(int unreplied_s, int replied_s) {
    (*a)("sysctl -qw net.netfilter.nf_conntrack_udp_timeout=" + std::to_string(unreplied_s) +
         " net.netfilter.nf_conntrack_udp_timeout_stream=" + std::to_string(replied_s));
  }
  static std::uint64_t diverted(const transmitter& tx, const std::string& reason) {
    const auto stats = tx.stats();
    const auto found = stats.diverted.find(reason);
    return found == stats.diverted.end() ? 0 : found->second;
  }
  static void send(transmitter& tx, sender& s, int count, const std::string& where = place) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(s.try_send(bytes_of("x"), to(where)));
    ASSERT_TRUE(drained(tx));
  }
  /// The kernel is asked about a flow after its datagram was counted.
  static bool are_fast(const transmitter& tx, std::uint32_t flows) {
    return eventually([&] { return tx.stats().tracking.fast >= flows; });
  }
  /// Sends one at a time, at least `count`, until the flow is diverted for its entry, about which
  /// the kernel is asked meanwhile; where they came from.
  static std::set<std::string> origins_until_refused(transmitter& tx, sender& s, udp_sink& sink,
                                                     int count) {
    std::set<std::string> seen;
    int sent = 0;
    EXPECT_TRUE(eventually(
        [&] {
          send(tx, s, 1);
          const auto got = sink.next();
          seen.insert(got ? got->from.to_string() : "nowhere");
          return !got || (++sent >= count && diverted(tx, "nat") > 0);
        },
        30s))
        << describe(tx);
    return seen;
  }
  /// Sends until one leaves by AF_XDP; how many were sent.
  static int comes_to_transmit(transmitter& tx, sender& s, const std::string& where = place) {
    int sent = 0;
    const bool did = eventually(
        [&] {
          const auto before = by(tx, "a0");
          send(tx, s, 1, where);
          ++sent;
          return by(tx, "a0") > before;
        },
        30s);
    EXPECT_TRUE(did) << describe(tx);
    return sent;
  }
  static std::string describe(const transmitter& tx) {
    const auto& t = tx.stats().tracking;
    return summary(tx.stats()) + " flows=" + std::to_string(t.flows) +
           " fast=" + std::to_string(t.fast) + " asked=" + std::to_string(t.asked) +
           " checked=" + std::to_string(t.checked) + " refreshed=" + std::to_string(t.refreshed) +
           " anew=" + std::to_string(t.begun_anew) + " refused=" + std::to_string(t.refused);
  }
  /// What the kernel has for the flow of A's port to B's, in A.
  static std::optional<netlink::conntrack_entry> entry_of(std::uint16_t port,
                                                          const std::string& where = place) {
    std::error_code ec;
    netlink::conntrack_socket kernel(ec);
    EXPECT_FALSE(ec) << ec.message();
    netlink::conntrack_batch batch;
    const endpoint there = to(where);
    const auto own = *ip_address::parse(there.address.is_v4() ? "10.77.1.1" : "fd77:1::1");
    batch.get({own, there.address, port, there.port}, 7);
    std::optional<netlink::conntrack_entry> found;
    kernel.exchange(
        batch, [&](const auto& answer) { found = answer.entry; }, ec);
    EXPECT_FALSE(ec) << ec.message();
    return found;
  }
  /// A sender of port 8001 and a plain socket of 8002, which send the same to `place`.
  struct beside_a_plain_one {
    transmitter tx{small()};
    sender ours = tx.make_sender({.source_port = 8001});
    kernel_like plain{8002};
    void operator()() {
      send(tx, ours, 1);
      plain.send(to(place));
    }
  };
  static void flush_entries() {
    std::error_code ec;
    netlink::conntrack_socket kernel(ec);
    netlink::conntrack_batch batch;
    batch.flush(1);
    kernel.exchange(
        batch, [&](const auto& answer) { EXPECT_EQ(answer.error_number, 0); }, ec);
    ASSERT_FALSE(ec) << ec.message();
  }
};

TEST_F(tracked_flows_end_to_end, the_first_datagram_makes_the_entry_and_the_rest_is_fast) {
  load(*a, stateful);
  udp_sink v4(*b, to(place)), v6(*b, to(place_v6));
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  std::uint64_t slow = 0;
  for (const char* where : {place, place_v6}) {
    send(tx, s, 1, where);
    EXPECT_TRUE(entry_of(8001, where)) << describe(tx);
    EXPECT_EQ(++slow, diverted(tx, "conntrack_new")) << describe(tx);
    EXPECT_TRUE(are_fast(tx, static_cast<std::uint32_t>(slow))) << describe(tx);
    const auto before = by(tx, "a0");
    send(tx, s, 500, where);
    EXPECT_EQ(before + 500, by(tx, "a0")) << describe(tx);
    EXPECT_EQ(slow, diverted(tx, "conntrack_new"));
    EXPECT_EQ(501u, (where == place ? v4 : v6).drain());
  }
  // Another port is another flow, of the peer's as well as of ours.
  auto other = tx.make_sender({.source_port = 8002});
  send(tx, other, 1);
  EXPECT_EQ(slow + 1, diverted(tx, "conntrack_new"));
  send(tx, s, 1, "10.77.1.2:9001");
  EXPECT_EQ(slow + 2, diverted(tx, "conntrack_new"));
  EXPECT_TRUE(are_fast(tx, 4)) << describe(tx);
}

/// A plain socket beside: what is left of its entry's time is what must be left of ours.
TEST_F(tracked_flows_end_to_end, entries_live_as_long_as_a_plain_sockets) {
  set_timeouts(12, 24);
  load(*a, stateful);
  udp_sink sink(*b, to(place));
  beside_a_plain_one both;
  const transmitter& tx = both.tx;
  const auto alike = [&](const char* when) {
    // Ours is brought up to date once a tick.
    EXPECT_TRUE(eventually([&] {
      const auto ours = entry_of(8001), theirs = entry_of(8002);
      return ours && theirs && ours->timeout_s && theirs->timeout_s &&
             *ours->timeout_s + 1 >= *theirs->timeout_s &&
             *theirs->timeout_s + 1 >= *ours->timeout_s;
    })) << when
        << ": " << describe(tx);
  };
  both();
  alike("after the first");
  EXPECT_TRUE(are_fast(tx, 1)) << describe(tx);
  for (int i = 0; i < 40; ++i) {
    both();
    std::this_thread::sleep_for(100ms);
  }
  alike("after four seconds without an answer");
  EXPECT_EQ(1u, diverted(tx, "conntrack_new")) << describe(tx);
  EXPECT_EQ(40u, by(tx, "a0")) << describe(tx);
  // An answer, and two seconds: a stream.
  answer(sink, to("10.77.1.1:8001"));
  answer(sink, to("10.77.1.1:8002"));
  std::this_thread::sleep_for(2500ms);
  both();
  alike("once it is a stream");
  ASSERT_TRUE(entry_of(8001));
  EXPECT_GT(entry_of(8001)->timeout_s.value_or(0), 12u);
  EXPECT_EQ(1u, diverted(tx, "conntrack_new")) << describe(tx);
  EXPECT_GT(tx.stats().tracking.refreshed, 0u);
}

/// The kernel takes a flow for a stream by the age of its entry, which other rules leave alone.
TEST_F(tracked_flows_end_to_end, a_flow_that_begins_anew_is_as_old_as_its_entry) {
  set_timeouts(8, 40);
  load(*a, stateful);
  udp_sink sink(*b, to(place));
  beside_a_plain_one both;
  const transmitter& tx = both.tx;
  both();
  EXPECT_TRUE(are_fast(tx, 1)) << describe(tx);
  std::this_thread::sleep_for(3s);
  (*a)("nft add rule inet t in udp dport 20000 accept");
  EXPECT_TRUE(eventually([&] { return tx.stats().tracking.fast == 0; })) << describe(tx);
  both();
  EXPECT_TRUE(are_fast(tx, 1)) << describe(tx);
  answer(sink, to("10.77.1.1:8001"));
  answer(sink, to("10.77.1.1:8002"));
  EXPECT_TRUE(eventually([&] {
    const auto ours = entry_of(8001);
    return ours && (ours->status & netlink::conntrack_status::seen_reply) != 0;
  }));
  const auto before = by(tx, "a0");
  both();
  EXPECT_EQ(before + 1, by(tx, "a0")) << describe(tx);
  EXPECT_TRUE(eventually([&] { return entry_of(8002)->timeout_s.value_or(0) > 8; }));
  EXPECT_TRUE(eventually([&] { return entry_of(8001)->timeout_s.value_or(0) > 8; }, 5s))
      << describe(tx);
}

/// With many flows each is looked at every few seconds; neither other rules nor the end come before
/// the entry has heard of what was sent.
TEST_F(tracked_flows_end_to_end, what_left_fast_is_told_to_the_entry_whatever_follows) {
  constexpr std::uint32_t flows = 16'000;
  constexpr std::uint32_t life_s = 60;
  set_timeouts(life_s, life_s);
  load(*a, stateful);
  const auto port = [](std::uint32_t number) {
    return "10.77.1.2:" + std::to_string(10'000 + number);
  };
  constexpr auto idle = 6s;  // So much older is an entry that nobody has looked after.
  const auto fresh = [&](std::uint32_t number) {
    const auto entry = entry_of(8001, port(number));
    return entry && entry->timeout_s.value_or(0) + 3 >= life_s;
  };
  std::optional<transmitter> tx(small());
  auto s = tx->make_sender({.source_port = 8001});
  const auto all_become_fast = [&] {
    for (std::uint32_t number = 0; number < flows; ++number)
      while (!s.try_send(bytes_of("x"), to(port(number)))) EXPECT_TRUE(drained(*tx));
    return eventually([&] { return tx->stats().tracking.fast == flows; }, 20s);
  };
  // Where a datagram was not told of (flow_tracker::tell), the flow's next one is.
  int rounds = 0;
  while (!all_become_fast()) ASSERT_LT(++rounds, 5) << describe(*tx);
  std::this_thread::sleep_for(idle);
  EXPECT_FALSE(fresh(1));
  const auto before = by(*tx, "a0");
  send(*tx, s, 1, port(1));
  (*a)("nft add rule inet t in udp dport 20000 accept");
  EXPECT_EQ(before + 1, by(*tx, "a0")) << describe(*tx);
  EXPECT_TRUE(eventually([&] { return fresh(1); }, 10s)) << describe(*tx);

  send(*tx, s, 1, port(2));
  EXPECT_TRUE(are_fast(*tx, 1)) << describe(*tx);
  std::this_thread::sleep_for(idle);
  EXPECT_FALSE(fresh(2));
  send(*tx, s, 1, port(2));
  tx.reset();
  EXPECT_TRUE(fresh(2));
}

/// Longer on the fast path than an entry lives by itself; then the answer, as late as it may be.
TEST_F(tracked_flows_end_to_end, a_late_answer_to_a_fast_datagram_is_let_in) {
  set_timeouts(8, 16);
  load(*a, stateful);
  udp_sink sink(*b, to(place));
  const unique_fd own = own_socket(8001);
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = own.get()});
  for (int attempt = 0;; ++attempt) {
    std::chrono::steady_clock::time_point last;
    for (const auto begin = std::chrono::steady_clock::now(); last < begin + 10s;) {
      send(tx, s, 1);
      last = std::chrono::steady_clock::now();
      std::this_thread::sleep_for(500ms);
    }
    std::this_thread::sleep_until(last + 5s);
    answer(sink, to("10.77.1.1:8001"));
    const bool heard = hears(own.get(), 1s);
    // A machine that slept for three seconds says nothing.
    if (std::chrono::steady_clock::now() > last + 7500ms && !heard && attempt < 5) continue;
    EXPECT_TRUE(heard) << describe(tx);
    break;
  }
  EXPECT_GT(tx.stats().tracking.refreshed, 0u) << describe(tx);
}

/// A flow is good on its own word for no longer than its entry is there: nobody looks after it
/// here.
TEST_F(tracked_flows_end_to_end, no_flow_is_good_for_longer_than_its_entry_lives) {
  set_timeouts(4, 8);
  load(*a, stateful);
  const kernel_like plain(8001);
  plain.send(to(place));
  lone_tracker alone(to(place));
  alone.tracker.on_kernel_datagram(alone.request, alone.way, 0);
  alone.tracker.settle();
  const auto good = [&] {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    const tracked_flows& flows = alone.tracker.flows();
    const auto key = tracked_key::of(alone.request, alone.way);
    return !flows.use(flows.find_line(key, flows.hash_of(key)),
                      std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
  };
  ASSERT_TRUE(good());
  for (int i = 0; i < 300; ++i) {
    const bool was_good = good();
    EXPECT_TRUE(entry_of(8001) || !was_good) << i;
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_FALSE(good());
}

/// The kernel path tells of a datagram later than the kernel had it.
TEST_F(tracked_flows_end_to_end, what_passed_an_earlier_ruleset_is_not_believed) {
  load(*a, stateful);
  const kernel_like plain(8001);
  plain.send(to(place));
  lone_tracker alone(to(place));
  const auto fast_after_telling = [&](std::uint32_t rules) {
    alone.tracker.tell(alone.request, alone.way, 0, rules);
    alone.ring.restart();
    asio::post(alone.ring.get_executor(), [&] { alone.ring.stop(); });
    alone.ring.run();
    return alone.tracker.stats().fast;
  };
  const std::uint32_t earlier = alone.tracker.rules();
  alone.tracker.begin_anew();
  EXPECT_EQ(0u, fast_after_telling(earlier));
  EXPECT_EQ(1u, fast_after_telling(alone.tracker.rules()));
}

/// Bursts with pauses around the timeout: each datagram that is answered at once has its answer.
TEST_F(tracked_flows_end_to_end, every_answer_is_heard_whatever_the_pauses) {
  set_timeouts(2, 3);
  load(*a, stateful);
  udp_sink sink(*b, to(place));
  const unique_fd own = own_socket(8001);
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = own.get()});
  int sent = 0;
  for (const auto pause : {0ms, 500ms, 1000ms, 1400ms, 1700ms, 1900ms, 2000ms, 2100ms, 2600ms,
                           2900ms, 3000ms, 3100ms, 1000ms, 1000ms}) {
    std::this_thread::sleep_for(pause);
    for (int i = 0; i < 5; ++i, ++sent) {
      send(tx, s, 1);
      ASSERT_TRUE(sink.next()) << describe(tx);
      answer(sink, to("10.77.1.1:8001"));
      EXPECT_TRUE(hears(own.get())) << "datagram " << sent << " after a pause of " << pause.count()
                                    << " ms: " << describe(tx);
    }
  }
  EXPECT_GT(by(tx, "a0"), 0u) << describe(tx);
}

TEST_F(tracked_flows_end_to_end, entries_that_are_flushed_under_traffic_are_made_again) {
  load(*a, stateful);
  udp_sink sink(*b, to(place));
  const unique_fd own = own_socket(8001);
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = own.get()});
  std::uint64_t sent = 0;
  for (int round = 0; round < 3; ++round) {
    sent += static_cast<std::uint64_t>(comes_to_transmit(tx, s));
    flush_entries();
    EXPECT_TRUE(eventually(
        [&] {
          send(tx, s, 1);
          ++sent;
          return entry_of(8001).has_value();
        },
        30s))
        << describe(tx);
    answer(sink, to("10.77.1.1:8001"));
    EXPECT_TRUE(hears(own.get())) << describe(tx);
  }
  EXPECT_GE(tx.stats().tracking.begun_anew, 3u) << describe(tx);
  EXPECT_EQ(sent, sink.drain());
}

TEST_F(tracked_flows_end_to_end, other_rules_begin_every_flow_anew) {
  load(*a, stateful);
  udp_sink sink(*b, to(place));
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  comes_to_transmit(tx, s);
  const auto before = diverted(tx, "conntrack_new");
  (*a)("nft add rule inet t in udp dport 53 accept");
  EXPECT_TRUE(eventually(
      [&] {
        send(tx, s, 1);
        return diverted(tx, "conntrack_new") > before;
      },
      30s))
      << describe(tx);
  comes_to_transmit(tx, s);
  // Off: nothing to look up. On again: the flow shows itself first.
  (*a)("nft flush ruleset");
  const auto asked = [&] { return tx.stats().tracking.asked; };
  // The tracker hears of other rules before the cores have a table by which nothing is tracked, and
  // its last question may still be out: only a run that began afterwards shows the new table.
  std::uint64_t then = 0;
  ASSERT_TRUE(eventually([&] {
    const bool heard = tx.stats().tracking.fast == 0;
    const auto so_far = diverted(tx, "conntrack_new");
    then = asked();
    send(tx, s, 50);
    return heard && tx.stats().tracking.fast == 0 && diverted(tx, "conntrack_new") == so_far &&
           asked() == then;
  })) << describe(tx);
  load(*a, stateful);
  EXPECT_TRUE(eventually(
      [&] {
        send(tx, s, 1);
        return asked() > then;
      },
      30s))
      << describe(tx);
  comes_to_transmit(tx, s);
}

/// A hop that diverts some ports only, and tracks the others.
TEST_F(tracked_flows_end_to_end, ports_that_a_rule_drops_stay_away_while_others_are_fast) {
  load(*a, stateful);
  (*a)("nft 'add chain inet t out { type filter hook output priority 0; }'");
  (*a)("nft add rule inet t out udp dport 9005 drop");
  udp_sink open(*b, to(place)), closed(*b, to("10.77.1.2:9005"));
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  const auto first = static_cast<std::uint64_t>(comes_to_transmit(tx, s));
  const auto before = by(tx, "a0");
  for (int i = 0; i < 50; ++i) {
    send(tx, s, 1);
    send(tx, s, 1, "10.77.1.2:9005");
  }
  EXPECT_EQ(before + 50, by(tx, "a0")) << describe(tx);
  EXPECT_EQ(50u, diverted(tx, "netfilter")) << describe(tx);
  EXPECT_EQ(first + 50, open.drain());
  EXPECT_EQ(0u, closed.drain());
}

/// A hop that tracks some ports only.
TEST_F(tracked_flows_end_to_end, ports_that_pass_a_notrack_rule_are_fast_at_once) {
  load(*a, stateful);
  (*a)("nft 'add chain inet t raw { type filter hook output priority -300; }'");
  (*a)("nft add rule inet t raw udp dport 9005 notrack");
  const std::string untracked = "10.77.1.2:9005";
  udp_sink one(*b, to(place)), other(*b, to(untracked));
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 20, untracked);
  EXPECT_EQ(20u, by(tx, "a0")) << describe(tx);
  EXPECT_FALSE(entry_of(8001, untracked));
  const auto first = static_cast<std::uint64_t>(comes_to_transmit(tx, s));
  EXPECT_TRUE(entry_of(8001));
  const auto before = by(tx, "a0");
  for (int i = 0; i < 20; ++i) {
    send(tx, s, 1);
    send(tx, s, 1, untracked);
  }
  EXPECT_EQ(before + 40, by(tx, "a0")) << describe(tx);
  EXPECT_FALSE(entry_of(8001, untracked));
  EXPECT_EQ(first + 20, one.drain());
  EXPECT_EQ(40u, other.drain());
}

/// A container's masqueraded flow has the port that is ours, too: the kernel gives ours another
/// one, and nobody may pass that by.
TEST_F(tracked_flows_end_to_end, a_flow_whose_own_port_the_kernel_rewrites_is_never_fast) {
  netns c;
  (*a)("ip link add c0 type veth peer name eth0 netns " + c.name());
  (*a)("ip addr add 172.17.0.1/16 dev c0");
  (*a)("ip link set c0 up");
  c("ip addr add 172.17.0.2/16 dev eth0");
  c("ip link set eth0 up");
  c("ip route add default via 172.17.0.1");
  (*a)("sysctl -qw net.ipv4.ip_forward=1");
  load(*a, R"(table ip nat {
  chain post {
    type nat hook postrouting priority srcnat;
    ip saddr 172.17.0.0/16 oifname != "c0" masquerade
  }
}
)");
  udp_sink sink(*b, to(place));
  {
    const netns::scope there(c);
    const kernel_like contained(5062);
    contained.send(to(place));
    const auto got = sink.next();
    ASSERT_TRUE(got);
    ASSERT_EQ("10.77.1.1:5062", got->from.to_string());
  }
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 5062});
  const auto seen = origins_until_refused(tx, s, sink, 50);
  EXPECT_EQ(1u, seen.size());
  EXPECT_FALSE(seen.contains("10.77.1.1:5062"));
  EXPECT_EQ(0u, by(tx, "a0")) << describe(tx);
  // One with a port to itself is fast beside it.
  auto free = tx.make_sender({.source_port = 5063});
  comes_to_transmit(tx, free);
}

/// The peer spoke first, to a port that leads to ours: our answers leave as from that port.
TEST_F(tracked_flows_end_to_end, a_flow_in_the_entry_of_a_translated_peer_is_never_fast) {
  load(*a, R"(table ip nat {
  chain pre {
    type nat hook prerouting priority dstnat;
    iifname "a0" udp dport 80 redirect to :8001
  }
}
)");
  udp_sink sink(*b, to(place));
  const unique_fd own = own_socket(8001);
  answer(sink, to("10.77.1.1:80"), "?");
  ASSERT_TRUE(hears(own.get()));
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = own.get()});
  EXPECT_EQ((std::set<std::string>{"10.77.1.1:80"}), origins_until_refused(tx, s, sink, 20));
  EXPECT_EQ(0u, by(tx, "a0")) << describe(tx);
}

/// One that spoke first without translation has made an entry that is as good as ours.
TEST_F(tracked_flows_end_to_end, a_flow_in_a_peers_entry_is_fast) {
  load(*a,
       "table ip t {\n chain in {\n type filter hook input priority 0\n ct state new accept\n"
       "}\n}\n");
  udp_sink sink(*b, to(place));
  const unique_fd own = own_socket(8001);
  answer(sink, to("10.77.1.1:8001"), "?");
  ASSERT_TRUE(hears(own.get()));
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = own.get()});
  send(tx, s, 1);
  EXPECT_TRUE(are_fast(tx, 1)) << describe(tx);
  send(tx, s, 20);
  EXPECT_EQ(20u, by(tx, "a0")) << describe(tx);
  ASSERT_TRUE(entry_of(8001));
  EXPECT_EQ(entry_of(8001)->original.source_port, 9000);
}

/// Behind a router the path is narrower. Its errors are `related` where there is an entry.
TEST_F(tracked_flows_end_to_end, errors_about_the_path_mtu_come_through_a_stateful_firewall) {
  netns c;
  connect(*b, "b1", c, "c0", 2);
  (*b)("sysctl -qw net.ipv4.ip_forward=1");
  (*b)("ip link set b1 mtu 1000");
  c("ip route add 10.77.1.0/24 via 10.77.2.1");
  (*a)("ip route add 10.77.2.0/24 via 10.77.1.2");
  load(*a, stateful);
  const std::string far = "10.77.2.2:9000";
  udp_sink sink(c, to(far));
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 1, far);
  ASSERT_TRUE(sink.next()) << describe(tx);
  comes_to_transmit(tx, s, far);
  const std::string longer(1400, 'x');
  const auto before = by(tx, "a0");
  ASSERT_TRUE(s.try_send(bytes_of(longer), to(far)));
  ASSERT_TRUE(drained(tx));
  EXPECT_EQ(before + 1, by(tx, "a0")) << describe(tx);
  EXPECT_TRUE(eventually([&] { return tx.stats().errors_from_network > 0; })) << describe(tx);
  // From now on the kernel makes fragments of what is too long.
  sink.drain();
  EXPECT_TRUE(eventually([&] {
    static_cast<void>(s.try_send(bytes_of(longer), to(far)));
    return drained(tx) && sink.next(200ms).has_value();
  })) << describe(tx);
  EXPECT_GT(diverted(tx, "exceeds_mtu"), 0u) << describe(tx);
}

TEST_F(tracked_flows_end_to_end, a_full_table_diverts_under_its_own_reason_and_loses_nothing) {
  load(*a, stateful);
  udp_sink sink(*b, to(place));
  auto config = small();
  config.tracked_flows = 4;
  transmitter tx(config);
  std::vector<sender> all;
  for (std::uint16_t port = 8001; port <= 8010; ++port)
    all.push_back(tx.make_sender({.source_port = port}));
  for (int round = 0; round < 3; ++round) {
    for (sender& s : all) send(tx, s, 1);
    EXPECT_TRUE(are_fast(tx, 4)) << describe(tx);
  }
  EXPECT_EQ(4u, tx.stats().tracking.fast) << describe(tx);
  EXPECT_EQ(8u, by(tx, "a0")) << describe(tx);
  EXPECT_GE(diverted(tx, "conntrack_full"), 12u) << describe(tx);
  EXPECT_GT(tx.stats().tracking.without_room, 0u);
  EXPECT_EQ(30u, sink.drain());
}

/// As Docker and ufw leave it (the parts that a datagram of this host's own meets).
TEST_F(tracked_flows_end_to_end, nearly_all_is_fast_beside_docker_and_ufw) {
  load(*a, R"(table ip docker {
  chain published {
  }
  chain nat-output {
    type nat hook output priority -100;
    ip daddr != 127.0.0.0/8 fib daddr type local counter jump published
  }
  chain nat-postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade
  }
}
table inet ufw {
  chain before-output {
    oifname lo counter accept
    ct state related,established counter accept
  }
  chain track-output {
    meta l4proto tcp ct state new counter accept
    meta l4proto udp ct state new counter accept
  }
  chain output {
    type filter hook output priority 0; policy accept;
    counter jump before-output
    counter jump track-output
  }
  chain input {
    type filter hook input priority 0; policy drop;
    iifname lo counter accept
    ct state related,established counter accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } counter accept
  }
}
)");
  udp_sink sink(*b, to(place));
  transmitter tx(small());
  std::vector<sender> all;
  for (std::uint16_t port = 8001; port <= 8004; ++port)
    all.push_back(tx.make_sender({.source_port = port}));
  constexpr int peers = 10, each = 100;
  const auto everyone = [&] {
    for (sender& s : all)
      for (int peer = 0; peer < peers; ++peer)
        ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:" + std::to_string(9000 + peer))));
    ASSERT_TRUE(drained(tx));
  };
  everyone();
  EXPECT_TRUE(are_fast(tx, 4 * peers)) << describe(tx);
  const auto before = by(tx, "a0");
  for (int i = 0; i < each; ++i) everyone();
  const auto fast = by(tx, "a0") - before;
  EXPECT_GE(fast, std::uint64_t{99} * 4 * peers * each / 100) << describe(tx);
  EXPECT_EQ(4u * (each + 1), sink.drain()) << describe(tx);
}

/// Sockets of the kernel's own beside, with the same datagrams, pauses and answers: whatever they
/// hear, ours hear, and nothing much later than they would.
TEST_F(tracked_flows_end_to_end, hears_what_plain_sockets_hear_whatever_happens) {
  constexpr int life_s = 4, stream_s = 6, flows = 5;
  set_timeouts(life_s, stream_s);
  load(*a, stateful);
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  udp_sink sink(*b, to(place));
  struct pair {
    unique_fd own;
    sender ours;
    std::unique_ptr<kernel_like> plain;
    std::chrono::steady_clock::time_point active{};
    bool certain = false;  ///< Ours has an entry, as far as anybody may rely on it.
  };
  transmitter tx(small());
  std::vector<pair> all;
  for (std::uint16_t i = 0; i < flows; ++i) {
    unique_fd own = own_socket(static_cast<std::uint16_t>(8001 + i));
    sender ours = tx.make_sender({.adopt_socket = own.get()});
    all.push_back({std::move(own), std::move(ours),
                   std::make_unique<kernel_like>(static_cast<std::uint16_t>(8101 + i))});
  }
  const auto answer_to = [&](std::size_t number, int base) {
    answer(sink, to("10.77.1.1:" + std::to_string(base + static_cast<int>(number))));
  };
  int heard = 0, unheard = 0;
  for (int step = 0; step < 70; ++step) {
    const std::size_t number = random() % flows;
    pair& one = all[number];
    const auto what = random() % 20;
    if (what < 9) {
      for (auto left = 1 + random() % 4; left > 0; --left) {
        one.plain->send(to(place));
        send(tx, one.ours, 1);
      }
      one.active = std::chrono::steady_clock::now();
      one.certain |= entry_of(static_cast<std::uint16_t>(8001 + number)).has_value();
    } else if (what < 14) {
      answer_to(number, 8001);
      answer_to(number, 8101);
      const bool theirs = hears(one.plain->fd().get(), 300ms), ours = hears(one.own.get(), 300ms);
      const auto since = std::chrono::steady_clock::now() - one.active;
      ++(theirs ? heard : unheard);
      if (theirs && one.certain) {
        EXPECT_TRUE(ours) << "step " << step << ": " << describe(tx);
      } else if (since > std::chrono::seconds(stream_s) + 2500ms) {
        EXPECT_FALSE(ours && !theirs) << "step " << step << ": " << describe(tx);
      }
      if (theirs) one.active = std::chrono::steady_clock::now();
    } else if (what < 18) {
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 2000));
    } else if (what == 18) {
      (*a)("nft add rule inet t in udp dport " + std::to_string(20'000 + step) + " accept");
    } else {
      flush_entries();
      for (pair& each : all) each.certain = false;
    }
  }
  EXPECT_GT(heard, 0);
  EXPECT_GT(by(tx, "a0"), 0u) << describe(tx);
}

/// Peers with whom all goes on at once, each on a thread of its own with a socket of its own.
class tracked_peers : public tracked_flows_end_to_end {
 protected:
  using clock = std::chrono::steady_clock;

  void SetUp() override {
    tracked_flows_end_to_end::SetUp();
    if (IsSkipped()) return;
    ::alarm(static_cast<unsigned>(duration_.count()) + 400);
    if (duration_ < 300s)
      set_timeouts(8, 16);
    else
      set_timeouts(30, 120);
    load(*a, stateful);
  }
  [[nodiscard]] std::chrono::seconds life() const { return duration_ < 300s ? 8s : 30s; }
  [[nodiscard]] std::chrono::seconds stream_life() const { return duration_ < 300s ? 16s : 120s; }
  [[nodiscard]] bool goes_on() const { return clock::now() < begin_ + duration_; }

  struct peer {
    std::uint16_t port, other;  ///< A's and B's.
    unique_fd own;
    udp_sink sink;
    int answered = 0;
  };
  peer make_peer(std::uint16_t port, std::uint16_t other) {
    const std::string where = "10.77.1.2:" + std::to_string(other);
    return {port, other, own_socket(port), udp_sink(*b, to(where))};
  }
  /// Sends one, which is answered at once; the answer must come.
  void exchange(sender& s, peer& with, const std::string& when) {
    ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:" + std::to_string(with.other))));
    ASSERT_TRUE(with.sink.next()) << when;
    answer(with.sink, to("10.77.1.1:" + std::to_string(with.port)));
    ++with.answered;
    EXPECT_TRUE(hears(with.own.get())) << "answer " << with.answered << " " << when;
  }
  void steady(transmitter& tx, peer& with) {
    auto s = tx.make_sender({.adopt_socket = with.own.get()});
    for (; goes_on() && !HasFatalFailure(); std::this_thread::sleep_for(1s))
      exchange(s, with, "at one a second");
  }
  void bursts(transmitter& tx, peer& with) {
    auto s = tx.make_sender({.adopt_socket = with.own.get()});
    for (std::size_t i = 0; goes_on() && !HasFatalFailure(); ++i) {
      constexpr std::array shares{0.03, 0.5, 0.9, 0.97, 1.0, 1.03, 1.1, 0.75};
      const auto whole = i / shares.size() % 2 == 0 ? life() : stream_life();
      const std::chrono::duration<double> pause = shares[i % shares.size()] * whole;
      std::this_thread::sleep_for(pause);
      for (int n = 0; n < 5; ++n)
        exchange(s, with, "after a pause of " + std::to_string(pause.count()) + " s");
    }
  }
  void late(transmitter& tx, std::uint16_t port, std::uint16_t other, int& heard);
  void narrower(transmitter& tx, udp_sink& sink, netns& router, int& lost, int& arrived);

  const std::chrono::seconds duration_{[] {
    const char* text = std::getenv("COWIRE_TRACKED_SECONDS");
    return text != nullptr ? std::strtol(text, nullptr, 10) : 20;
  }()};
  std::atomic<int> slept_{0};  ///< Answers that came too late, because the machine slept.
  const clock::time_point begin_ = clock::now();
};

/// A flow nobody has answered is fast for longer than its entry lives by itself; then the answer
/// comes as late as it may. Each time another flow.
void tracked_peers::late(transmitter& tx, std::uint16_t port, std::uint16_t other, int& heard) {
  for (; goes_on() && !HasFatalFailure(); ++port) {
    peer with = make_peer(port, other);
    auto s = tx.make_sender({.adopt_socket = with.own.get()});
    const auto where = to("10.77.1.2:" + std::to_string(other));
    clock::time_point last;
    for (const auto since = clock::now(); last < since + life() * 6 / 5;) {
      ASSERT_TRUE(s.try_send(bytes_of("x"), where));
      last = clock::now();
      std::this_thread::sleep_for(500ms);
    }
    std::this_thread::sleep_until(last + life() * 3 / 4);
    answer(with.sink, to("10.77.1.1:" + std::to_string(port)));
    const bool did = hears(with.own.get(), 500ms);
    // A machine that slept says nothing.
    if (!did && clock::now() > last + life() * 9 / 10) {
      ++slept_;
      continue;
    }
    EXPECT_TRUE(did) << "from port " << port;
    heard += did;
  }
}

/// The path behind the router becomes narrower again and again. What does not fit is told about;
/// what is sent then arrives, in fragments.
void tracked_peers::narrower(transmitter& tx, udp_sink& sink, netns& router, int& lost,
                             int& arrived) {
  auto s = tx.make_sender({.source_port = 8004});
  const auto far = to("10.77.2.2:9004");
  for (std::size_t mtu = 1400; goes_on() && mtu > 600 && !HasFatalFailure(); mtu -= 50) {
    router("ip link set b1 mtu " + std::to_string(mtu));
    const std::string longer(mtu, 'x');
    for (int left = 10; left > 0 && goes_on();) {
      const auto errors = tx.stats().errors_from_network;
      ASSERT_TRUE(s.try_send(bytes_of(longer), far));
      bool told = false, came = false;
      ASSERT_TRUE(eventually([&] {
        came = came || sink.next(5ms).has_value();
        told = told || tx.stats().errors_from_network > errors;
        return came || told;
      })) << "lost in silence, of "
          << mtu << " bytes: " << describe(tx);
      lost += !came;
      arrived += came;
      if (came) --left;
      std::this_thread::sleep_for(std::chrono::duration<double>(duration_) / 250);
    }
  }
}

TEST_F(tracked_peers, all_hear_every_answer_and_nothing_is_lost_in_silence) {
  netns c;
  connect(*b, "b1", c, "c0", 2);
  (*b)("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0");
  c("ip route add 10.77.1.0/24 via 10.77.2.1");
  (*a)("ip route add 10.77.2.0/24 via 10.77.1.2");
  udp_sink far(c, to("10.77.2.2:9004"));
  auto config = small();
  config.max_producers = 8;
  transmitter tx(config);
  peer slow = make_peer(8001, 9001), erratic = make_peer(8002, 9002);
  int late_heard = 0, lost = 0, arrived = 0;
  {
    std::vector<std::jthread> all;
    all.emplace_back([&] { steady(tx, slow); });
    all.emplace_back([&] { bursts(tx, erratic); });
    all.emplace_back([&] { late(tx, 8100, 9003, late_heard); });
    all.emplace_back([&] { narrower(tx, far, *b, lost, arrived); });
  }
  ASSERT_TRUE(drained(tx)) << describe(tx);
  std::cout << duration_.count() << " s: answers at one a second " << slow.answered
            << ", in bursts " << erratic.answered << ", late ones " << late_heard
            << "; over a narrowing path " << arrived << " arrived, " << lost
            << " were told to be too long; " << by(tx, "a0") << " by AF_XDP of "
            << tx.stats().submitted << "\n";
  EXPECT_GT(late_heard + slept_, 0);
  EXPECT_GT(lost, 0) << describe(tx);
  EXPECT_GT(by(tx, "a0"), 0u) << describe(tx);
}

}  // namespace
}  // namespace cowire::test
