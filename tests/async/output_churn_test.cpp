// SPDX-License-Identifier: Apache-2.0
// Rulesets, policies, filters and programs that change at random under traffic: what the kernel
// would drop stops leaving soon after the command returned, and what it would not goes on.
//
// COWIRE_CHANGES: how many (24). COWIRE_SEED: other ones. COWIRE_EXACT_TIMES: the documented
// figures hold (10 ms for what is announced, 1 s for what is polled); otherwise a busy machine may
// take its time. How late the last datagrams were is printed. scripts/rules-soak runs it for long.
#include <tests/support/two_hosts.hpp>

#include <linux/bpf.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "testbed/bpf_programs.hpp"
#include "testbed/own_cgroup.hpp"

namespace cowire::test {
namespace {

#define NFT_OR_SKIP() \
  if (std::system("nft --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs nft"

using clock = std::chrono::steady_clock;

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// Of one kind of change: how long after it the last datagram left that it forbids, "p50 0.0, p99
/// 2.1, most 3.8 ms of 170".
std::string distribution(std::vector<double> late_ms) {
  std::ranges::sort(late_ms);
  const auto at = [&](double share) {
    std::array<char, 32> text{};
    const auto last = static_cast<double>(late_ms.size() - 1);
    std::snprintf(text.data(), text.size(), "%.1f",
                  late_ms[static_cast<std::size_t>(share * last)]);
    return std::string(text.data());
  };
  return "p50 " + at(0.5) + ", p99 " + at(0.99) + ", most " + at(1) + " ms of " +
         std::to_string(late_ms.size());
}

/// Closes the way of datagrams of these families, or opens it again; false: it could not.
struct means {
  std::function<bool(bool)> set;
  bool v4 = true, v6 = true;
  bool polled = false;  ///< Nothing announces it.
};

/// From when on the kernel drops, by what, and until when at least.
struct closed_time {
  clock::time_point from, to = clock::time_point::max();
  std::string kind;
  means by;
};

class output_churn : public two_hosts {
 protected:
  /// Those with even numbers go to the first, the others to the second.
  static constexpr const char* places[] = {"10.77.1.2:9000", "[fd77:1::2]:9000"};

  bool tries(const std::string& command) const {
    return std::system(
               ("ip netns exec " + a->name() + " sh -c '" + command + "' 2>/dev/null").c_str()) ==
           0;
  }
  void find_means() {
    ASSERT_TRUE(
        tries("nft add table inet t; nft \"add set inet t s { type ipv4_addr; }\"; "
              "nft \"add set inet t z { type ipv6_addr; }\"; "
              "nft \"add chain inet t c { type filter hook output priority 0; }\"; "
              "nft \"add rule inet t c ip daddr @s drop; add rule inet t c ip6 daddr @z drop\"; "
              "ip rule add fwmark 8 table 8; ip route add unreachable default table 8; "
              "ip -6 rule add fwmark 8 table 8; ip -6 route add unreachable default table 8"));
    find_rules();
    for (const bool v4 : {true, false}) {
      const std::string of = v4 ? "" : " of IPv6", host = v4 ? "10.77.1.2" : "fd77:1::2";
      add_if_possible("policy" + of, "ip xfrm policy add dst " + host + " dir out action block",
                      "ip xfrm policy delete dst " + host + " dir out", v4, !v4);
      add_if_possible("policy that encrypts" + of,
                      "ip xfrm policy add dst " + host + " proto udp dir out tmpl proto esp",
                      "ip xfrm policy delete dst " + host + " proto udp dir out", v4, !v4);
    }
    add_if_possible(
        "filter", "tc qdisc add dev a0 clsact && tc filter add dev a0 egress matchall action drop",
        "tc qdisc del dev a0 clsact");
    add_if_possible("discipline", "tc qdisc add dev a0 root pfifo limit 0",
                    "tc qdisc del dev a0 root");
    add_if_possible("program", {[this](bool on) { return group_.deny(on); }, true, true, true});
    for (const bool v4 : {true, false}) {
      const std::uint32_t type = v4 ? BPF_CGROUP_UDP4_SENDMSG : BPF_CGROUP_UDP6_SENDMSG;
      const auto refuse =
          [this, type, program = std::make_shared<unique_fd>(load_refusing_sendmsg_program(type))](
              bool on) { return group_.set(type, *program, on); };
      add_if_possible(v4 ? "program at sendmsg" : "program at sendmsg of IPv6",
                      {refuse, v4, !v4, true});
    }
    const auto tcx = [this](bool on) {
      tcx_ = on ? drop_by_tcx(::if_nametoindex("a0")) : unique_fd();
      return !on || tcx_;
    };
    add_if_possible("program at the device", {tcx, true, true, true});
  }
  void find_rules() {
    add_if_possible("rule", "nft add rule inet t c udp dport 9000 drop",
                    "nft \"flush chain inet t c; add rule inet t c ip daddr @s drop; "
                    "add rule inet t c ip6 daddr @z drop\"");
    add_if_possible("element", "nft add element inet t s { 10.77.1.2 }",
                    "nft delete element inet t s { 10.77.1.2 }", true, false);
    add_if_possible("element of IPv6", "nft add element inet t z { fd77:1::2 }",
                    "nft delete element inet t z { fd77:1::2 }", false, true);
    add_if_possible("table",
                    "nft \"table ip u { chain c { type filter hook postrouting priority 5; "
                    "udp sport 8001 drop; }; }\"",
                    "nft delete table ip u", true, false);
    add_if_possible("table of a device",
                    "nft \"table netdev d { chain c { type filter hook egress device a0 "
                    "priority 0; policy drop; }; }\"",
                    "nft delete table netdev d");
    add_if_possible("mark",
                    "nft \"table inet m { chain c { type route hook output priority -150; "
                    "udp dport 9000 meta mark set 8; }; }\"",
                    "nft delete table inet m");
  }
  void add_if_possible(const std::string& kind, means what) {
    if (what.set(true) && what.set(false)) means_[kind] = std::move(what);
  }
  void add_if_possible(const std::string& kind, const std::string& close, const std::string& open,
                       bool v4 = true, bool v6 = true) {
    add_if_possible(
        kind, {[this, close, open](bool on) { return tries(on ? close : open); }, v4, v6, false});
  }

  /// One of them closed, a while, and open again; with pauses in which nothing is closed.
  void change(std::mt19937_64& random, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count && !HasFailure(); ++i) {
      auto one = means_.begin();
      std::advance(one, static_cast<std::ptrdiff_t>(random() % means_.size()));
      const bool polled = one->second.polled;
      ASSERT_TRUE(one->second.set(true)) << one->first;
      const auto from = clock::now();
      std::this_thread::sleep_for(allowed(polled) + std::chrono::milliseconds(random() % 40));
      const auto to = clock::now();
      {
        const std::lock_guard lock(mutex_);
        closed_.push_back({from, to, one->first, one->second});
      }
      // What still waits for the kernel path would leave as soon as it is open again.
      hold_ = true;
      held_.wait(false);
      const bool open = one->second.set(false);
      hold_ = false;
      hold_.notify_one();
      ASSERT_TRUE(open) << one->first;
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 60));
    }
  }
  [[nodiscard]] std::chrono::milliseconds allowed(bool polled) const {
    if (exact_) return polled ? 1100ms : 15ms;
    return polled ? 2500ms : 500ms;
  }

  /// Takes what arrived; each carries its number.
  void hear() {
    for (const auto& sink : sinks_) {
      std::uint32_t number = 0;
      for (ssize_t size; (size = ::recv(sink->fd(), &number, sizeof number, MSG_DONTWAIT)) > 0;)
        if (size == sizeof number) arrived_.push_back(number);
    }
  }
  /// Of each kind how long after each change the last datagram left that it forbids; how many did.
  std::size_t look_at_late_ones(std::uint64_t seed,
                                std::map<std::string, std::vector<double>>& late_ms) {
    std::size_t while_closed = 0;
    for (std::size_t i = 0; i < closed_.size(); ++i) {
      const closed_time& one = closed_[i];
      double last_ms = 0;
      std::size_t count = 0;
      for (const std::uint32_t number : arrived_) {
        const bool forbidden = number % 2 == 0 ? one.by.v4 : one.by.v6;
        if (!forbidden || sent_.at(number) < one.from || sent_.at(number) >= one.to) continue;
        ++count;
        last_ms = std::max(
            last_ms, std::chrono::duration<double, std::milli>(sent_[number] - one.from).count());
      }
      while_closed += count;
      late_ms[one.kind].push_back(last_ms);
      EXPECT_LE(last_ms, static_cast<double>(allowed(one.by.polled).count()))
          << "seed " << seed << ": change " << i << " of a " << one.kind << ", " << count
          << " datagrams left after it";
    }
    return while_closed;
  }

  const bool exact_ = std::getenv("COWIRE_EXACT_TIMES") != nullptr;
  own_cgroup group_;  ///< Before any socket.
  unique_fd tcx_;
  std::map<std::string, means> means_;
  std::mutex mutex_;
  std::atomic<bool> hold_{false}, held_{false};  ///< The traffic shall pause; it does.
  std::vector<closed_time> closed_;
  std::unique_ptr<udp_sink> sinks_[2];
  std::vector<clock::time_point> sent_;  ///< When each was handed over, by its number.
  std::vector<std::uint32_t> arrived_;
};

TEST_F(output_churn, nothing_leaves_that_the_kernel_would_have_dropped_for_a_while) {
  NFT_OR_SKIP();
  ::alarm(0);  // As long as there are changes.
  for (int i : {0, 1}) sinks_[i] = std::make_unique<udp_sink>(*b, to(places[i]));
  resolve("10.77.1.2");
  resolve("fd77:1::2");
  find_means();
  const auto seed = from_environment("COWIRE_SEED", 20261129);
  std::mt19937_64 random(seed);
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  std::atomic<bool> done{false};
  std::thread changes([&] {
    change(random, from_environment("COWIRE_CHANGES", 24));
    done = true;
  });
  const endpoint there[] = {to(places[0]), to(places[1])};
  while (!done) {
    const auto number = static_cast<std::uint32_t>(sent_.size());
    const auto now = clock::now();
    if (s.try_send(std::as_bytes(std::span(&number, 1)), there[number % 2])) sent_.push_back(now);
    hear();
    std::this_thread::sleep_for(200us);
    if (!hold_) continue;
    EXPECT_TRUE(drained(tx));
    held_ = true;
    held_.notify_one();
    hold_.wait(true);
    held_ = false;
  }
  changes.join();
  ASSERT_TRUE(drained(tx));
  for (const endpoint& each : there)
    EXPECT_TRUE(eventually([&] {
      hear();
      const auto before = by(tx, "a0");
      return s.try_send(bytes_of("p"), each) && drained(tx) && by(tx, "a0") > before;
    })) << summary(tx.stats());
  std::map<std::string, std::vector<double>> late_ms;
  const std::size_t while_closed = look_at_late_ones(seed, late_ms);
  std::cout << "seed " << seed << ": " << closed_.size() << " changes, " << sent_.size()
            << " datagrams, " << arrived_.size() << " arrived, " << by(tx, "a0") << " by AF_XDP, "
            << while_closed << " while closed; the last of them after:\n";
  for (const auto& [kind, times] : late_ms)
    std::cout << "  " << kind << ": " << distribution(times) << "\n";
  EXPECT_GT(by(tx, "a0"), 0u);
}

}  // namespace
}  // namespace cowire::test
