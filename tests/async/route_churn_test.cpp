// SPDX-License-Identifier: Apache-2.0
/// A thousand random changes of routes, rules, next hops, neighbours, addresses and links while
/// datagrams flow. The kernel has a way to every destination all the time, so every datagram has to
/// arrive, once; only what a downed interface had been handed already may be missing, and the
/// kernel counts that. A failure prints the changes; COWIRE_SEED=N repeats a run.
#include <tests/async/numbered_stream.hpp>
#include <tests/support/two_hosts.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>

namespace cowire::test {
namespace {

constexpr int changes_per_run = 1000;
constexpr unsigned subnets = 8;  // 10.78.0.0/24 to 10.78.7.0/24, all of B.

/// `ip -batch` in a namespace, fed one command at a time: no process a change.
class ip_batch {
 public:
  explicit ip_batch(const netns& in)
      : pipe_(::popen(("ip -n " + in.name() + " -force -batch - >/dev/null 2>&1").c_str(), "w")) {
    if (pipe_ == nullptr) throw_error(errno_code(errno), "popen ip -batch");
    static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  }
  ~ip_batch() { static_cast<void>(::pclose(pipe_)); }
  ip_batch(const ip_batch&) = delete;
  ip_batch& operator=(const ip_batch&) = delete;

  void operator()(const std::string& line) {
    note(line);
    std::fputs((line + "\n").c_str(), pipe_);
    // Some of iproute2's refusals end it, -force or not: nothing of what it does so for is drawn.
    if (std::fflush(pipe_) != 0) throw_error(errno_code(errno), "ip -batch ended at: " + line);
  }
  [[nodiscard]] std::string log() const {
    const std::lock_guard lock(mutex_);
    return log_;
  }
  /// A line of the log that is no command. Any thread.
  void remark(const std::string& text) { note("# " + text); }

 private:
  void note(const std::string& line) {
    const std::lock_guard lock(mutex_);
    log_ += line + "\n";
  }

  FILE* pipe_;
  mutable std::mutex mutex_;
  std::string log_;
};

/// Draws changes that leave the kernel a way to every destination.
class world {
 public:
  world(ip_batch& ip, std::uint64_t seed, const std::string (&macs)[2], bool links_fail)
      : ip_(ip), random_(seed), macs_{macs[0], macs[1]}, links_fail_(links_fail) {
    for (const unsigned link : {0u, 1u}) restore(link);
  }

  void change() {
    const unsigned what = below(links_fail_ ? 24 : 22);
    if (what < 8) return change_route();
    if (what < 12) return change_rule();
    if (what < 16) return change_neighbour();
    if (what < 18) return change_nexthop();
    if (what < 20) return change_address();
    if (what < 22) return change_link();
    fail_or_restore_link();
  }
  void end() {
    for (const unsigned link : {0u, 1u})
      if (!up_[link]) bring_up(link);
  }

 private:
  unsigned below(unsigned bound) { return static_cast<unsigned>(random_() % bound); }
  std::string number(unsigned bound, unsigned from = 0) {
    return std::to_string(from + below(bound));
  }
  /// A link that is up.
  unsigned link() { return up_[0] && up_[1] ? below(2) : (up_[0] ? 0 : 1); }
  static std::string device(unsigned link) { return "a" + std::to_string(link); }
  static std::string gateway(unsigned link) { return "10.77." + std::to_string(link + 1) + ".2"; }
  static std::string via(unsigned link) { return " via " + gateway(link) + " dev " + device(link); }
  std::string subnet() { return "10.78." + number(subnets) + ".0/24"; }

  /// What the kernel took with the link: the ways of last resort, and the next hop objects.
  void restore(unsigned link) {
    const std::string id = std::to_string(link + 1);
    ip_("route replace 10.78.0.0/16" + via(link) + " metric 100" + id);
    ip_("nexthop replace id " + id + via(link));
    ip_(up_[0] && up_[1] ? "nexthop replace id 10 group 1/2" : "nexthop replace id 10 group " + id);
  }

  void change_route() {
    const std::string how = below(4) == 0 ? "append " : "replace ";
    const std::string table = below(2) == 0 ? "" : " table " + number(4, 101);
    switch (below(8)) {
      case 0:
        return ip_("route del " + subnet() + table);
      case 1:
        return ip_("route replace throw " + subnet() + " table " + number(4, 101));
      case 2:
        if (!up_[0] || !up_[1]) break;
        return ip_("route " + how + subnet() + table + " nexthop" + via(0) + " weight " +
                   number(5, 1) + " nexthop" + via(1) + " weight " + number(5, 1));
      case 3:
        return ip_("route replace " + subnet() + table + " nhid " +
                   (below(2) == 0 ? "10" : std::to_string(link() + 1)));
      case 4:
        return ip_("route replace 10.78.0.0/16" + via(link()) + " table " + number(4, 101));
      case 5:
        return ip_("route replace " + subnet() + table + via(link()) + " mtu " + number(200, 1300));
      case 6:
        return ip_("route replace 10.78." + number(subnets) + ".1/32" + via(link()) + table);
      default:
        break;
    }
    ip_("route " + how + subnet() + via(link()) + table + " metric " + number(3));
  }
  void change_rule() {
    const std::string preference = " pref " + number(10, 100);
    if (below(3) == 0) return ip_("rule del" + preference);
    const std::string to = below(3) == 0 ? "" : " to " + subnet();
    const std::string mark = below(3) == 0 ? " fwmark 7" : "";
    ip_("rule add" + preference + to + mark + " lookup " + number(4, 101));
  }
  void change_neighbour() {
    const unsigned on = link();
    if (below(3) == 0) {
      let_none_wait(on);
      return ip_("neigh del " + gateway(on) + " dev " + device(on));
    }
    const char* states[] = {"permanent", "reachable", "stale"};
    set_neighbour(on, states[below(3)]);
  }
  /// What waits for a neighbour goes with its entry, as two_hosts::forget_neighbour says: resolved,
  /// an entry may go.
  void let_none_wait(unsigned on) { set_neighbour(on, "reachable"); }
  void set_neighbour(unsigned on, const std::string& state) {
    ip_("neigh replace " + gateway(on) + " lladdr " + macs_[on] + " dev " + device(on) + " nud " +
        state);
  }
  void change_nexthop() {
    const unsigned on = link();
    ip_("nexthop replace id " + std::to_string(on + 1) + via(on));
  }
  void change_address() {
    const unsigned on = link();
    ip_(std::string("addr ") + (below(2) == 0 ? "add" : "del") + " 10.77." +
        std::to_string(on + 1) + "." + number(3, 100) + "/24 dev " + device(on));
  }
  void change_link() {
    const unsigned on = link();
    if (below(2) == 0) return ip_("link set " + device(on) + " mtu " + number(100, 1400));
    let_none_wait(on);  // A change of address takes all of its neighbours.
    ip_("link set " + device(on) + " address 02:00:00:00:01:0" + number(9));
  }

  void fail_or_restore_link() {
    for (const unsigned down : {0u, 1u})
      if (!up_[down]) return bring_up(down);
    const unsigned victim = below(2);
    for (const unsigned link : {0u, 1u}) let_none_wait(link);
    std::this_thread::sleep_for(20ms);
    ip_("link set " + device(victim) + " down");
    up_[victim] = false;
  }
  void bring_up(unsigned link) {
    ip_("link set " + device(link) + " up");
    std::this_thread::sleep_for(20ms);  // The other end gets its carrier back.
    up_[link] = true;
    restore(link);
  }

  ip_batch& ip_;
  std::mt19937_64 random_;
  std::string macs_[2];
  const bool links_fail_;
  bool up_[2] = {true, true};
};

class route_churn : public two_links, public ::testing::WithParamInterface<bool> {
 protected:
  std::uint64_t dropped_by_devices() { return dropped_by("a0") + dropped_by("a1"); }
};

INSTANTIATE_TEST_SUITE_P(links, route_churn, ::testing::Bool(),
                         [](const auto& links_fail) { return links_fail.param ? "fail" : "stay"; });

TEST_P(route_churn, loses_nothing_over_a_thousand_random_changes) {
  const char* chosen = std::getenv("COWIRE_SEED");
  const std::uint64_t seed = chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : 1;
  std::printf("COWIRE_SEED=%llu\n", static_cast<unsigned long long>(seed));
  ip_batch ip(*a);
  world changing(ip, seed, {mac_of("b0"), mac_of("b1")}, GetParam());
  for (const char* gateway : {"10.77.1.2", "10.77.2.2"}) resolve(gateway);

  numbered_sink sink(*b, to("0.0.0.0:9000")), marked_sink(*b, to("0.0.0.0:9001"));
  auto config = small();
  config.audit_rate = 2000;
  config.log = [&](log_severity, std::string_view line) { ip.remark(std::string(line)); };
  transmitter tx(config);
  std::vector<endpoint> plain, marked;
  for (unsigned i = 0; i < subnets; ++i) {
    plain.push_back(to("10.78." + std::to_string(i) + ".1:9000"));
    marked.push_back(to("10.78." + std::to_string(i) + ".2:9001"));
  }
  const auto dropped_before = dropped_by_devices();
  numbered_stream stream(tx, plain, 150us);
  sender_options with_mark;
  with_mark.mark = 7;
  numbered_stream marked_stream(tx, marked, 250us, with_mark);

  for (int i = 0; i < changes_per_run; ++i) {
    ip.remark(std::to_string(stream.sent()) + " and " + std::to_string(marked_stream.sent()) +
              " sent");
    changing.change();
    std::this_thread::sleep_for(4ms);
  }
  changing.end();
  std::this_thread::sleep_for(100ms);
  stream.stop();
  marked_stream.stop();
  EXPECT_TRUE(drained(tx));
  sink.stop();
  marked_sink.stop();

  const auto stats = tx.stats();
  const std::uint64_t sent = stream.sent() + marked_stream.sent();
  const std::uint64_t arrived = sink.arrived() + marked_sink.arrived();
  const std::uint64_t in_downed =
      stats.lost_in_device + stats.refused_total() + dropped_by_devices() - dropped_before;
  std::printf("%llu sent, %llu missing, %llu in downed interfaces; %s\n",
              static_cast<unsigned long long>(sent),
              static_cast<unsigned long long>(sent - arrived),
              static_cast<unsigned long long>(in_downed), summary(stats).c_str());
  EXPECT_EQ(sent, stats.submitted);
  EXPECT_EQ(0u, sink.duplicates() + marked_sink.duplicates());
  EXPECT_GT(stats.transmitted_total(), sent / 10) << "hardly anything took the fast path";
  EXPECT_LE(sent - arrived, GetParam() ? in_downed : 0);
  // Changes under way are no disagreements.
  EXPECT_GT(stats.routes.truth.audited, 0u);
  EXPECT_EQ(0u, stats.routes.truth.mismatched) << stats.routes.truth.last_mismatch;
  if (!HasFailure()) return;
  std::printf("missing: %s\nmissing of the marked: %s\nThe changes, made in namespace %s:\n%s",
              sink.missing(stream.sent()).c_str(),
              marked_sink.missing(marked_stream.sent()).c_str(), a->name().c_str(),
              ip.log().c_str());
}

}  // namespace
}  // namespace cowire::test
