// SPDX-License-Identifier: Apache-2.0
/// From a kernel event to the published forwarding table, with a large table loaded: the mirror
/// takes the message, the compiler publishes, the old version is reclaimed.
///
/// The time of an iteration is the median of many events, each timed alone; the counter `p99_us`
/// tells the tail. Nobody else keeps such a table outside the kernel, so there is no peer here; the
/// cost of a look-up and of a bare trie change are in bench_lpm.
///
/// bench_convergence [--table FILE] [Google Benchmark options]; FILE replaces the synthetic table.
#include <cowire/base/assert.hpp>
#include <cowire/route/compiler.hpp>

#include <benchmark/benchmark.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_arp.h>
#include <linux/if_bonding.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <malloc.h>

#include "bench/bench_options.hpp"
#include "bench/route_table.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <utility>

namespace cowire::bench {
namespace {

using routes = std::vector<table_route>;
using clock = std::chrono::steady_clock;

constexpr std::uint32_t loopback_index = 1, uplink = 2, other_uplink = 3;
/// Of the uplink, where it is a bond.
constexpr std::uint32_t slaves[] = {4, 5};
constexpr unsigned next_hops = 40;

std::size_t allocated_bytes() {
  const auto info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

netlink::link device(std::uint32_t index, const char* name) {
  netlink::link link;
  link.index = index;
  link.name = name;
  link.flags = IFF_UP | IFF_RUNNING | netlink::lower_up;
  link.mtu = 1500;
  if (index == loopback_index) {
    link.hardware_type = ARPHRD_LOOPBACK;
    link.flags |= IFF_LOOPBACK;
    return link;
  }
  link.hardware_type = ARPHRD_ETHER;
  link.address = {2, 0, 0, 0, 0, static_cast<std::uint8_t>(index)};
  return link;
}

/// The uplink as a bond that hashes addresses and ports.
netlink::link bonded_uplink() {
  netlink::link link = device(uplink, "uplink");
  link.kind = "bond";
  link.info = netlink::bond_info{.mode = BOND_MODE_XOR,
                                 .active_slave = 0,
                                 .xmit_hash_policy = BOND_XMIT_POLICY_LAYER34,
                                 .aggregator_id = 0};
  return link;
}

netlink::link slave(std::uint32_t index) {
  netlink::link link = device(index, index == slaves[0] ? "slave0" : "slave1");
  link.master = uplink;
  link.bond_slave = netlink::bond_slave_info{};
  return link;
}

/// Without carrier every other time.
netlink::link flapping(netlink::link link, std::size_t time) {
  link.carrier = time % 2 != 0;
  if (!link.carrier) link.flags &= ~(IFF_RUNNING | netlink::lower_up);
  return link;
}

ip_address on_uplink(std::uint32_t index, std::uint32_t host) {
  return ip_address::v4(0x0a000000 + (index << 16) + host);
}

netlink::address own_address(std::uint32_t index, std::uint32_t host, std::uint8_t length) {
  netlink::address made;
  made.index = index;
  made.local = made.peer = on_uplink(index, host);
  made.prefix_length = length;
  made.flags = IFA_F_PERMANENT;
  return made;
}

netlink::rule rule_to(std::uint32_t priority, std::uint32_t table) {
  netlink::rule made;
  made.priority = priority;
  made.table = table;
  made.kind = 1;  // FR_ACT_TO_TBL
  return made;
}

netlink::neighbour neighbour(std::uint32_t index, std::uint32_t host, std::uint8_t mac) {
  netlink::neighbour made;
  made.index = index;
  made.destination = on_uplink(index, host);
  made.state = NUD_REACHABLE;
  made.link_address = {
      2, 1, 0, mac, static_cast<std::uint8_t>(index), static_cast<std::uint8_t>(host)};
  made.type = RTN_UNICAST;
  return made;
}

netlink::route route_to(const ip_prefix& destination, std::uint32_t index, std::uint8_t type) {
  netlink::route made;
  made.destination = destination;
  made.source = ip_prefix::all(ip_family::v4);
  made.table = type == RTN_LOCAL ? RT_TABLE_LOCAL : RT_TABLE_MAIN;
  made.protocol = RTPROT_BIRD;
  made.type = type;
  made.scope = type == RTN_LOCAL ? RT_SCOPE_HOST : RT_SCOPE_LINK;
  made.next_hops.push_back({index, std::nullopt, 1, 0, false});
  return made;
}

/// Over the gateway with number `hop`.
netlink::route route_via(const ip_prefix& destination, std::uint32_t hop, std::uint32_t index) {
  netlink::route made = route_to(destination, index, RTN_UNICAST);
  made.scope = RT_SCOPE_UNIVERSE;
  made.next_hops.front().gateway = on_uplink(index, 1 + hop);
  return made;
}

netlink::route replacing(netlink::route made) {
  made.placement.replace = made.placement.create = true;
  return made;
}

netlink::nexthop_object object(std::uint32_t id, std::uint32_t host) {
  netlink::nexthop_object made;
  made.id = id;
  made.index = uplink;
  made.gateway = on_uplink(uplink, host);
  return made;
}

ip_prefix prefix_of(const table_route& route) {
  return {ip_address::v4(route.prefix), route.length};
}

/// How the large table names its next hops.
enum class naming { gateways, objects, gateways_over_bond };

/// A kernel with two uplinks and a large table, mirrored, and the compiler on it.
class world {
 public:
  world(const routes& table, naming by) {
    for (const auto& link :
         {device(loopback_index, "lo"), device(uplink, "uplink"), device(other_uplink, "other")})
      dump(link);
    if (by == naming::gateways_over_bond) make_bond();
    dump(rule_to(0, RT_TABLE_LOCAL));
    dump(rule_to(32766, RT_TABLE_MAIN));
    dump(rule_to(32767, RT_TABLE_DEFAULT));
    for (const std::uint32_t index : {uplink, other_uplink}) {
      dump(own_address(index, 1, 16));
      own_routes_.emplace_back(route_to({on_uplink(index, 1), 32}, index, RTN_LOCAL));
      own_routes_.emplace_back(route_to({on_uplink(index, 0), 16}, index, RTN_UNICAST));
      for (std::uint32_t host = 2; host < 100; ++host) dump(neighbour(index, host, 0));
    }
    for (const netlink::message& route : own_routes_) dump(route);
    if (by == naming::objects)
      for (std::uint32_t id = 1; id <= next_hops; ++id) dump(object(id, 1 + id));
    const std::size_t before = allocated_bytes();
    const auto start = clock::now();
    for (const table_route& route : table) dump(as_dumped(route, by));
    mirror_time_ = clock::now() - start;
    mirror_bytes_ = allocated_bytes() - before;
  }

  static netlink::route as_dumped(const table_route& route, naming by) {
    const std::uint32_t hop = 1 + (route.value - 1) % next_hops;
    netlink::route made = route_via(prefix_of(route), hop, device_of(hop));
    if (by == naming::objects) {
      made = route_via(prefix_of(route), hop, uplink);
      made.nexthop_id = hop;
    }
    return made;
  }
  static std::uint32_t device_of(std::uint32_t hop) { return hop % 2 != 0 ? uplink : other_uplink; }

  /// The compiler from nothing to its first version.
  std::chrono::duration<double> compile() {
    compiled_.reset();
    const std::size_t before = allocated_bytes();
    compiled_ = std::make_unique<stage>(state_);
    const auto start = clock::now();
    static_cast<void>(compiled_->made.publish());
    const auto taken = clock::now() - start;
    compiler_bytes_ = allocated_bytes() - before;
    return taken;
  }

  /// From the decoded message to the published version.
  double seconds_of(const netlink::message& message) {
    const auto start = clock::now();
    mirror_changes changes;
    state_.apply(message, changes, message_origin::notification);
    compiled_->made.note(std::move(changes));
    static_cast<void>(compiled_->made.publish());
    return std::chrono::duration<double>(clock::now() - start).count();
  }

  /// From the decoded message to the first version in which nothing leaves over the device. The
  /// mirror hears nothing of it.
  double seconds_to_divert(const netlink::link& farewell) {
    const auto start = clock::now();
    COWIRE_ASSERT(compiled_->made.divert_before(farewell));
    const double seconds = std::chrono::duration<double>(clock::now() - start).count();
    static_cast<void>(compiled_->made.publish());
    return seconds;
  }

  /// Likewise for many at once, in one version.
  double seconds_of(const std::vector<netlink::message>& messages) {
    const auto start = clock::now();
    for (const netlink::message& message : messages) {
      mirror_changes changes;
      state_.apply(message, changes, message_origin::notification);
      compiled_->made.note(std::move(changes));
    }
    static_cast<void>(compiled_->made.publish());
    return std::chrono::duration<double>(clock::now() - start).count();
  }

  /// Everything is read again and nothing has changed; without making the messages.
  double seconds_of_refresh(const routes& table) {
    clock::duration taken{0};
    const auto timed = [&](auto&& work) {
      const auto start = clock::now();
      work();
      taken += clock::now() - start;
    };
    const auto confirm = [&](std::vector<netlink::message>& part) {
      timed([&] {
        for (const netlink::message& message : part) COWIRE_ASSERT(state_.confirm(message));
      });
      part.clear();
    };
    mirror_changes changes;
    state_.begin_refresh(object_kind::route);
    std::vector<netlink::message> part = own_routes_;
    for (const table_route& route : table) {
      part.emplace_back(as_dumped(route, naming::gateways));
      if (part.size() == 128) confirm(part);
    }
    confirm(part);
    timed([&] { state_.end_refresh(object_kind::route, changes); });
    COWIRE_ASSERT(changes.empty());
    return std::chrono::duration<double>(taken).count();
  }

  [[nodiscard]] double mirror_seconds() const { return mirror_time_.count(); }
  [[nodiscard]] std::size_t mirror_bytes() const { return mirror_bytes_; }
  /// On the heap; the tries have memory of their own.
  [[nodiscard]] std::size_t compiler_bytes() const { return compiler_bytes_; }

 private:
  struct stage {
    explicit stage(const mirror& state) : made(state, epoch, published) {
      made.add_class({});
      made.set_egress(uplink, 1);
      made.set_egress(other_uplink, 2);
      for (const std::uint32_t index : slaves)
        made.set_egress(index, static_cast<egress_slot>(index));
    }
    epoch_domain epoch;
    publisher published;
    compiler made;
  };

  void make_bond() {
    dump(bonded_uplink());
    bond_reading read;
    for (const std::uint32_t index : slaves) {
      dump(slave(index));
      read.slaves.push_back({index, 0});
    }
    mirror_changes ignored;
    state_.settle_bond(uplink, read, ignored);
  }
  void dump(const netlink::message& message) {
    mirror_changes ignored;
    state_.apply(message, ignored, message_origin::dump);
  }

  mirror state_;
  std::vector<netlink::message> own_routes_;
  std::unique_ptr<stage> compiled_;
  std::chrono::duration<double> mirror_time_{};
  std::size_t mirror_bytes_ = 0, compiler_bytes_ = 0;
};

/// Builds one world at a time: each takes some hundred megabytes.
class worlds {
 public:
  explicit worlds(routes table) : table_(std::move(table)) {}
  [[nodiscard]] const routes& table() const { return table_; }
  world& get(naming by) {
    if (!current_ || by_ != by) {
      current_.reset();
      current_ = std::make_unique<world>(table_, by);
      static_cast<void>(current_->compile());
      by_ = by;
    }
    return *current_;
  }
  void spoil() { current_.reset(); }

 private:
  routes table_;
  std::unique_ptr<world> current_;
  naming by_ = naming::gateways;
};

using event = std::function<netlink::message(std::size_t)>;

void report(benchmark::State& state, std::vector<double>& seconds) {
  std::ranges::sort(seconds);
  state.SetIterationTime(seconds[seconds.size() / 2]);
  state.counters["p99_us"] = seconds[seconds.size() * 99 / 100] * 1e6;
  state.counters["max_us"] = seconds.back() * 1e6;
}

void measure(benchmark::State& state, world& in, std::size_t samples, const event& make) {
  static std::size_t next = 0;  // Goes on: the same changes again would be none.
  std::vector<double> seconds(samples);
  for (auto _ : state) {
    for (double& one : seconds) one = in.seconds_of(make(next++));
    report(state, seconds);
  }
}

void add(const std::string& name, const std::shared_ptr<worlds>& all, naming by,
         std::size_t samples, const event& make) {
  benchmark::RegisterBenchmark(
      ("convergence_" + name + "/cowire").c_str(),
      [=](benchmark::State& state) { measure(state, all->get(by), samples, make); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
}

/// A message and its opposite in turn.
template <class Message>
event alternating(Message message) {
  return [message](std::size_t i) {
    Message made = message;
    if (i % 2 != 0) made.action = netlink::action::remove;
    return netlink::message(made);
  };
}

void add_events(const std::shared_ptr<worlds>& all) {
  const ip_prefix everything = ip_prefix::all(ip_family::v4);
  add("route_change", all, naming::gateways, 20'000, [all](std::size_t i) {
    const table_route& changed = all->table()[i * 7919 % all->table().size()];
    const auto hop = static_cast<std::uint32_t>(1 + (changed.value + i) % next_hops);
    return replacing(route_via(prefix_of(changed), hop, world::device_of(hop)));
  });
  add("route_add_remove", all, naming::gateways, 20'000, [all](std::size_t i) {
    const table_route& near = all->table()[i / 2 * 7919 % all->table().size()];
    netlink::route made = route_via({ip_address::v4(near.prefix), 32}, 7, world::device_of(7));
    if (i % 2 != 0) made.action = netlink::action::remove;
    return made;
  });
  add("default_route", all, naming::gateways, 200, [everything](std::size_t i) {
    const auto hop = static_cast<std::uint32_t>(1 + i % next_hops);
    return replacing(route_via(everything, hop, world::device_of(hop)));
  });
  add("neighbour_mac", all, naming::gateways, 2'000,
      [](std::size_t i) { return neighbour(uplink, 2, static_cast<std::uint8_t>(i + 1)); });
  add("address", all, naming::gateways, 20, alternating(own_address(uplink, 200, 24)));
  add("rule", all, naming::gateways, 20, alternating(rule_to(100, 100)));
  add("carrier", all, naming::gateways, 20,
      [](std::size_t i) { return flapping(device(uplink, "uplink"), i); });
  add("nexthop_object", all, naming::objects, 200, [](std::size_t i) {
    auto made = object(1, static_cast<std::uint32_t>(50 + i % 40));
    made.replace = true;
    return made;
  });
  add("bond_slave_carrier", all, naming::gateways_over_bond, 200,
      [](std::size_t i) { return flapping(slave(slaves[0]), i); });
}

/// What follows a link's change of state, without reading and decoding the dump.
void refresh(benchmark::State& state, worlds& all) {
  all.spoil();  // The events before have moved routes.
  for (auto _ : state)
    state.SetIterationTime(all.get(naming::gateways).seconds_of_refresh(all.table()));
}

/// Routes all over the table get another next hop; so many changes make one version.
void work_off_backlog(benchmark::State& state, worlds& all) {
  world& in = all.get(naming::gateways);
  constexpr std::size_t changes = 1 << 17;
  const auto at_once = static_cast<std::size_t>(state.range(0));
  static std::size_t next = 0;
  for (auto _ : state) {
    double seconds = 0;
    for (std::size_t done = 0; done < changes; done += at_once) {
      std::vector<netlink::message> batch;
      for (std::size_t i = 0; i < at_once; ++i, ++next) {
        const table_route& moved = all.table()[next * 7919 % all.table().size()];
        const auto hop = static_cast<std::uint32_t>(1 + (moved.value + next / changes) % next_hops);
        batch.push_back(replacing(route_via(prefix_of(moved), hop, world::device_of(hop))));
      }
      seconds += in.seconds_of(batch);
    }
    state.SetIterationTime(seconds);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(changes));
}

netlink::link uplink_down() {
  netlink::link down = device(uplink, "uplink");
  down.flags &= ~(IFF_UP | IFF_RUNNING | netlink::lower_up);
  return down;
}

/// Before the routes of the uplink are looked for.
void divert_first(benchmark::State& state, worlds& all) {
  world& in = all.get(naming::gateways);
  std::vector<double> seconds(200);
  for (auto _ : state) {
    for (double& one : seconds) one = in.seconds_to_divert(uplink_down());
    report(state, seconds);
  }
}

/// Every route of one uplink vanishes with it.
void take_link_down(benchmark::State& state, worlds& all) {
  for (auto _ : state) {
    state.SetIterationTime(all.get(naming::gateways).seconds_of(uplink_down()));
    all.spoil();
  }
}

void build(benchmark::State& state, worlds& all) {
  world& in = all.get(naming::gateways);
  for (auto _ : state) {
    state.SetIterationTime(in.compile().count());
    state.counters["compiler_bytes"] = static_cast<double>(in.compiler_bytes());
    state.counters["mirror_bytes"] = static_cast<double>(in.mirror_bytes());
    state.counters["mirror_ms"] = in.mirror_seconds() * 1e3;
  }
}

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) {
  using namespace cowire::bench;
  const std::string path = take_table_option(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const auto all = std::make_shared<worlds>(path.empty() ? synthetic_table(1'200'000, next_hops)
                                                         : read_table(path));
  benchmark::RegisterBenchmark("convergence_full_build/cowire",
                               [all](benchmark::State& state) { build(state, *all); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
  add_events(all);
  benchmark::RegisterBenchmark("convergence_refresh/cowire",
                               [all](benchmark::State& state) { refresh(state, *all); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("convergence_backlog/cowire",
                               [all](benchmark::State& state) { work_off_backlog(state, *all); })
      ->Arg(64)
      ->Arg(1024)
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("convergence_link_down_first/cowire",
                               [all](benchmark::State& state) { divert_first(state, *all); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
  benchmark::RegisterBenchmark("convergence_link_down/cowire",
                               [all](benchmark::State& state) { take_link_down(state, *all); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
