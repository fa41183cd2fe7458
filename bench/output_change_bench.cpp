// SPDX-License-Identifier: Apache-2.0
/// How long after a command has returned that closes the output path the last frame is on the wire
/// that the kernel would have dropped: with a set of 100 000 addresses and 10 000 rules loaded, for
/// a rule, an element, the whole ruleset replaced, an IPsec policy, a filter of traffic control and
/// a control group's program, in private network namespaces. Beside it the kernel's own sendto,
/// which is 0 but for the frame that was on its way.
///
/// One datagram in 500 us, as the kernel looks at 10 000 rules for each while the path is closed.
/// The time runs from the return of the command (nft, ip, tc: so from the kernel's answer on, and
/// what the command does after it) to the receive time stamp of the last frame.
///
/// Prints a table, or what Google Benchmark prints for --benchmark_format=json. --changes=N of each
/// kind in each of three repetitions (20). Needs root, nft, ip and tc.
#include <cowire/async/transmitter.hpp>

#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "bench/datagrams.hpp"
#include "bench/results.hpp"
#include "testbed/eventually.hpp"
#include "testbed/netns.hpp"
#include "testbed/own_cgroup.hpp"

namespace cowire {
namespace {

using namespace std::chrono_literals;

constexpr int repetitions = 3;
constexpr std::uint32_t elements_count = 100'000, rules_count = 10'000, first_address = 0x14000000;
constexpr auto datagram_period = 500us;
/// Between two changes, so that each finds everything at rest.
constexpr auto pause = 50ms;
constexpr std::uint16_t port = 9000;

/// What closes the path, and opens it again.
struct kind {
  std::string name;
  std::function<void(bool)> close;
  /// How long nothing has to come until nothing more will: more than what is polled takes.
  std::chrono::milliseconds quiet = 300ms;
  int share = 1;  ///< One of so many changes is made of it: they take long.
};

/// Two hosts and a large ruleset in A.
class world {
 public:
  world() {
    test::connect(a, "a0", b, "b0", 1);
    std::string mac = b("cat /sys/class/net/b0/address");
    mac.resize(mac.find('\n'));
    a("ip neigh replace 10.77.1.2 lladdr " + mac + " dev a0 nud permanent");
    write(file(false), false);
    write(file(true), true);
    a("nft -f " + file(false));
  }
  ~world() {
    ::unlink(file(false).c_str());
    ::unlink(file(true).c_str());
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;

  std::vector<kind> kinds(const test::own_cgroup& group) {
    const auto either = [this](std::string closing, std::string opening) {
      return [this, closing = std::move(closing), opening = std::move(opening)](bool on) {
        a(on ? closing : opening);
      };
    };
    std::vector<kind> out{
        {"rule", either("nft add rule inet t small ip daddr 10.77.1.2 drop",
                        "nft flush chain inet t small")},
        {"rule_for_a_port",
         either("nft add rule inet t small udp dport 9000 drop", "nft flush chain inet t small")},
        {"element", either("nft 'add element inet t s { 10.77.1.2 }'",
                           "nft 'delete element inet t s { 10.77.1.2 }'")},
        {"ruleset", either("nft -f " + file(true), "nft -f " + file(false)), 1s, 4},
        {"policy", either("ip xfrm policy add dst 10.77.1.2/32 dir out action block",
                          "ip xfrm policy delete dst 10.77.1.2/32 dir out")},
        {"filter",
         either("tc filter add dev a0 egress matchall action drop", "tc filter del dev a0 egress")},
        {"program",
         [&group](bool on) {
           if (!group.deny(on)) throw_error(errno_code(errno), "a control group's program");
         },
         2500ms, 2}};
    a("tc qdisc add dev a0 clsact");
    std::erase_if(out, [](const kind& one) { return !works(one); });
    return out;
  }

  test::netns a, b;

 private:
  static bool works(const kind& one) {
    try {
      one.close(true);
      one.close(false);
      return true;
    } catch (const std::exception& failed) {
      std::fprintf(stderr, "bench_output_change: without %s: %s\n", one.name.c_str(),
                   failed.what());
      return false;
    }
  }
  [[nodiscard]] std::string file(bool closed) const {
    return "/tmp/" + a.name() + (closed ? "-closed.nft" : "-open.nft");
  }
  static void write(const std::string& path, bool closed) {
    std::ofstream out(path);
    out << "flush ruleset\ntable inet t {\nset s { type ipv4_addr; elements = {";
    for (std::uint32_t i = 0; i < elements_count; ++i)
      out << (i == 0 ? " " : ", ") << ip_address::v4(first_address + 6 * i).to_string();
    out << " }; }\nchain small { type filter hook output priority 1;"
        << (closed ? " ip daddr 10.77.1.2 drop; " : "")
        << " }\nchain large {\ntype filter hook output priority 0\nip daddr @s drop\n";
    for (std::uint32_t i = 0; i < rules_count; ++i)
      out << "ip daddr " << ip_address::v4(first_address + 3 + 6 * i).to_string() << " drop\n";
    out << "}\n}\n";
  }
};

/// What arrives at B, and when the last of it did.
class stamped_sink {
 public:
  explicit stamped_sink(const test::netns& in)
      : socket_(in, {ip_address::any(ip_family::v4), port}) {
    const int yes = 1;
    ::setsockopt(socket_.fd(), SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes);
  }
  /// Reads until nothing has come for `quiet`; CLOCK_REALTIME of the last, 0 = none came.
  std::int64_t last(std::chrono::milliseconds quiet) {
    std::int64_t found = 0;
    pollfd readable{socket_.fd(), POLLIN, 0};
    std::byte bytes[64];
    while (::poll(&readable, 1, static_cast<int>(quiet.count())) > 0)
      found = bench::receive_stamped(socket_.fd(), bytes).value_or(found);
    return found;
  }
  bool hears_something() {
    pollfd readable{socket_.fd(), POLLIN, 0};
    std::byte bytes[64];
    return ::poll(&readable, 1, 10) > 0 && bench::receive_stamped(socket_.fd(), bytes).has_value();
  }

 private:
  test::udp_sink socket_;
};

/// Sends all the time, on a thread of its own in the caller's namespace.
class traffic {
 public:
  explicit traffic(std::function<void()> send)
      : thread_([this, send = std::move(send)] {
          ::prctl(PR_SET_TIMERSLACK, 1);
          while (!stopping_) {
            send();
            std::this_thread::sleep_for(datagram_period);
          }
        }) {}
  ~traffic() {
    stopping_ = true;
    thread_.join();
  }
  traffic(const traffic&) = delete;
  traffic& operator=(const traffic&) = delete;

 private:
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

/// Times of some changes, sorted. `is_open` waits until the next may come.
std::vector<std::int64_t> measure(const kind& one, int changes, stamped_sink& sink,
                                  const std::function<bool()>& is_open) {
  std::vector<std::int64_t> times;
  for (int i = 0; i < changes; ++i) {
    if (!test::eventually(is_open)) {
      std::fprintf(stderr, "bench_output_change: %s: nothing leaves any more\n", one.name.c_str());
      std::exit(1);
    }
    std::this_thread::sleep_for(pause);
    one.close(true);
    const auto closed = bench::now_ns(CLOCK_REALTIME);
    times.push_back(std::max<std::int64_t>(0, sink.last(one.quiet) - closed));
    one.close(false);
  }
  std::ranges::sort(times);
  return times;
}

std::vector<bench::result> run_all(int changes) {
  const test::own_cgroup group;  // Before any socket.
  world w;
  stamped_sink sink(w.b);
  const test::netns::scope inside(w.a);
  const std::vector<kind> kinds = w.kinds(group);
  std::vector<bench::result> results;
  const auto run = [&](const char* who, const std::function<bool()>& is_open) {
    for (const kind& one : kinds)
      for (int i = 0; i < repetitions; ++i) {
        const auto times = measure(one, std::max(1, changes / one.share), sink, is_open);
        for (const auto& [name, share] : {std::pair{"p50", 0.5}, {"p99", 0.99}, {"max", 1.0}})
          results.push_back(
              {"output_" + one.name + "/" + who + "/" + name, bench::percentile(times, share)});
      }
  };
  const char byte = 'x';
  const auto payload = std::as_bytes(std::span(&byte, 1));
  const endpoint destination = *endpoint::parse("10.77.1.2:9000");
  {
    transmitter tx({.interfaces = {"a0"}, .frames_per_producer = 1024, .max_producers = 1});
    auto out = tx.make_sender();
    const traffic sending([&] { static_cast<void>(out.try_send(payload, destination)); });
    // Fast, and nothing waits for the kernel path any more.
    run("cowire", [&, kernel_path = std::uint64_t{0}, fast = std::uint64_t{0}]() mutable {
      const auto stats = tx.stats();
      const auto found = stats.transmitted.find("a0");
      const auto left = found == stats.transmitted.end() ? 0 : found->second;
      const bool was_fast = std::exchange(fast, left) < left;
      const bool was_only_fast =
          std::exchange(kernel_path, stats.submitted - left - stats.on_the_way()) ==
          stats.submitted - left - stats.on_the_way();
      return was_fast && was_only_fast && sink.hears_something();
    });
  }
  const bench::kernel_sender plain(destination);
  const traffic sending([&] { static_cast<void>(plain.send(payload)); });
  run("sendto", [&] { return sink.hears_something(); });
  return results;
}

}  // namespace
}  // namespace cowire

int main(int argc, char** argv) {
  bool json = false;
  int changes = 20;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    json |= word == "--benchmark_format=json";
    if (word.starts_with("--changes=")) changes = std::atoi(argv[i] + 10);
  }
  if (::geteuid() != 0) {
    std::fprintf(stderr, "bench_output_change: needs root to make network namespaces\n");
    return 1;
  }
  try {
    const auto results = cowire::run_all(changes);
    if (json)
      cowire::bench::print_json(argv[0], results);
    else
      cowire::bench::print_lines(results);
  } catch (const std::exception& failed) {
    std::fprintf(stderr, "bench_output_change: %s\n", failed.what());
    return 1;
  }
  return 0;
}
