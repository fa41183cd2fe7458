// SPDX-License-Identifier: Apache-2.0
/// What large rulesets cost the compiler: a set of 100 000 addresses, 10 000 rules for an address
/// each, both one after the other, as many IPsec policies: CPU time of the thread that compiles,
/// compiled whole, one more or one less, beside them a rule that drops what goes to a port, in
/// front of all or behind them, and one that accepts it, and the memory. Of a change the median of
/// many and the most until nothing is decided any longer by what was before, and the median until
/// all is compiled.
///
/// Prints a table, or what Google Benchmark prints for --benchmark_format=json.
#include <cowire/netlink/nft_message.hpp>
#include <cowire/route/compiler.hpp>

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_arp.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "bench/results.hpp"

namespace cowire {
namespace {

namespace nft = netlink::nft;
namespace ex = netlink::nft::expressions;

constexpr std::uint32_t elements_count = 100'000, rules_count = 10'000, policies_count = 10'000,
                        first_address = 0x14000000;
constexpr int changes_count = 200;

nft::bytes bytes_of(std::uint32_t address) {
  nft::bytes out(4);
  for (int i = 0; i < 4; ++i) out[static_cast<std::size_t>(i)] = std::byte(address >> (24 - 8 * i));
  return out;
}

nft::rule make_rule(std::uint64_t handle, nft::expression match) {
  const nft::expression load{"payload", ex::payload_load{0, ex::payload_base::network, 16, 4}, {}};
  const nft::expression drop{
      "immediate", ex::immediate{ex::verdict_register, nft::verdict{nft::verdict::drop, {}}}, {}};
  return {nft::family::ipv4, "t", "o", handle, {load, std::move(match), drop}, false};
}

nft::ruleset empty_chain() {
  nft::ruleset out;
  out.tables[{nft::family::ipv4, "t", {}}] = {nft::family::ipv4, "t", 0};
  auto& chain = out.chains[{nft::family::ipv4, "t", "o"}].chain;
  chain.family = nft::family::ipv4;
  chain.table = "t";
  chain.name = "o";
  chain.type = "filter";
  chain.hook = nft::chain_hook{3, 0, {}};
  return out;
}

nft::rule rule_for_port(std::uint64_t handle, std::uint16_t port) {
  const nft::expression load{"payload", ex::payload_load{0, ex::payload_base::transport, 2, 2}, {}};
  nft::rule made = make_rule(
      handle, {"cmp",
               ex::compare{0, ex::compare::equal, {std::byte(port >> 8), std::byte(port & 0xff)}},
               {}});
  made.expressions.front() = load;
  return made;
}

void drop_to(nft::ruleset& in, std::uint64_t handle, std::uint32_t address) {
  in.chains.begin()->second.rules.push_back(
      make_rule(handle, {"cmp", ex::compare{0, ex::compare::equal, bytes_of(address)}, {}}));
}

nft::element element_of(std::uint32_t address) {
  nft::element one;
  one.key = bytes_of(address);
  return one;
}

/// A default route over one device, whose gateway is known.
mirror small_world() {
  constexpr std::uint32_t device = 2;
  const auto own = ip_address::v4(0x0a000001), gateway = ip_address::v4(0x0a000002);
  mirror state;
  mirror_changes ignored;
  const auto tell = [&](const netlink::message& m) {
    state.apply(m, ignored, message_origin::dump);
  };
  netlink::link link;
  link.index = device;
  link.name = "eth0";
  link.flags = IFF_UP | IFF_RUNNING | netlink::lower_up;
  link.mtu = 1500;
  link.hardware_type = ARPHRD_ETHER;
  link.address = {2, 0, 0, 0, 0, 1};
  tell(link);
  for (const auto& [priority, table] :
       {std::pair{0u, RT_TABLE_LOCAL}, {32766u, RT_TABLE_MAIN}, {32767u, RT_TABLE_DEFAULT}}) {
    netlink::rule rule;
    rule.priority = priority;
    rule.table = static_cast<std::uint32_t>(table);
    rule.kind = 1;  // FR_ACT_TO_TBL
    tell(rule);
  }
  netlink::address address;
  address.index = device;
  address.local = address.peer = own;
  address.prefix_length = 24;
  address.flags = IFA_F_PERMANENT;
  tell(address);
  const auto route = [&](const ip_prefix& destination, std::uint8_t type) {
    netlink::route made;
    made.destination = destination;
    made.source = ip_prefix::all(ip_family::v4);
    made.table = type == RTN_LOCAL ? RT_TABLE_LOCAL : RT_TABLE_MAIN;
    made.protocol = RTPROT_KERNEL;
    made.type = type;
    made.scope = type == RTN_LOCAL ? RT_SCOPE_HOST : RT_SCOPE_LINK;
    made.next_hops.push_back({device, std::nullopt, 1, 0, false});
    return made;
  };
  tell(route({own, 32}, RTN_LOCAL));
  tell(route({own, 24}, RTN_UNICAST));
  netlink::route outside = route(ip_prefix::all(ip_family::v4), RTN_UNICAST);
  outside.scope = RT_SCOPE_UNIVERSE;
  outside.next_hops.front().gateway = gateway;
  tell(outside);
  netlink::neighbour neighbour;
  neighbour.index = device;
  neighbour.destination = gateway;
  neighbour.state = NUD_REACHABLE;
  neighbour.link_address = {2, 1, 0, 0, 0, 1};
  neighbour.type = RTN_UNICAST;
  tell(neighbour);
  return state;
}

/// What the calling thread, which compiles, has used of a CPU: others may be busy.
double cpu_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

/// A compiler that follows a ruleset.
class ruled {
 public:
  ruled() : state_(small_world()), made_(state_, epoch_, published_) {
    static_cast<void>(made_.add_class({}));
    made_.set_egress(2, 1);
    static_cast<void>(made_.publish());
  }
  struct times {
    double safe_ms = 0;   ///< Until nothing is decided by what was before.
    double whole_ms = 0;  ///< Until all is compiled.
  };
  times obey(const nft::ruleset& rules) {
    return obey([&](output_snapshot& into) { into.netfilter.rules = rules; });
  }
  times obey(const netlink::xfrm_policies& policies) {
    return obey([&](output_snapshot& into) { into.ipsec.policies = policies; });
  }
  [[nodiscard]] compiler_statistics statistics() const { return made_.statistics(); }

 private:
  template <class Fill>
  times obey(const Fill& fill) {
    const double start = cpu_ms();
    auto made = std::make_shared<output_snapshot>();
    fill(*made);
    made->netfilter.hooks.emplace();
    made_.set_output(std::move(made));
    const bool diverted = made_.divert_until_compiled();
    times took;
    took.safe_ms = cpu_ms() - start;
    static_cast<void>(made_.publish());
    took.whole_ms = cpu_ms() - start;
    if (!diverted) took.safe_ms = took.whole_ms;
    return took;
  }

  mirror state_;
  epoch_domain epoch_;
  publisher published_;
  compiler made_;
};

/// Until nothing is decided by what was before, and until all is compiled.
struct spread {
  double median_ms = 0, most_ms = 0, whole_median_ms = 0;
};
struct figures {
  double whole_ms = 0;
  /// The last three: 0 where there are no rules.
  spread change, port_in_front, port_behind, port_accepted;
  compiler_statistics memory;
};

template <class State, class Change>
spread measure_changes(ruled& one, State& rules, int count, const Change& change) {
  std::vector<double> safe, whole;
  for (int i = 0; i < count; ++i) {
    change(rules, i);
    const auto took = one.obey(rules);
    safe.push_back(took.safe_ms);
    whole.push_back(took.whole_ms);
  }
  std::ranges::sort(safe);
  std::ranges::sort(whole);
  return {safe[safe.size() / 2], safe.back(), whole[whole.size() / 2]};
}

void change_port_in_front(nft::ruleset& in, int i) {
  auto& chain = in.chains.begin()->second.rules;
  if (i % 2 == 0)
    chain.insert(chain.begin(), rule_for_port(1'000'000, static_cast<std::uint16_t>(9000 + i)));
  else
    static_cast<void>(chain.erase(chain.begin()));
}

void change_port_behind(nft::ruleset& in, int i) {
  auto& chain = in.chains.begin()->second.rules;
  if (i % 2 == 0)
    chain.push_back(rule_for_port(1'000'000, static_cast<std::uint16_t>(9000 + i)));
  else
    static_cast<void>(chain.erase(std::prev(chain.end())));
}

/// What lets datagrams leave the chain: then all is compiled anew.
void change_port_accepted(nft::ruleset& in, int i) {
  auto& chain = in.chains.begin()->second.rules;
  if (i % 2 != 0) {
    static_cast<void>(chain.erase(chain.begin()));
    return;
  }
  nft::rule made = rule_for_port(1'000'000, static_cast<std::uint16_t>(9000 + i));
  std::get<nft::verdict>(std::get<ex::immediate>(made.expressions.back().content).value).code =
      nft::verdict::accept;
  chain.insert(chain.begin(), std::move(made));
}

template <class State, class Change>
figures measure(State rules, const Change& change) {
  constexpr int port_changes_count = 20;
  ruled one;
  figures out;
  out.whole_ms = one.obey(rules).whole_ms;
  out.memory = one.statistics();
  out.change = measure_changes(one, rules, changes_count, change);
  if constexpr (std::is_same_v<State, nft::ruleset>) {
    out.port_in_front = measure_changes(one, rules, port_changes_count, change_port_in_front);
    out.port_behind = measure_changes(one, rules, port_changes_count, change_port_behind);
    out.port_accepted = measure_changes(one, rules, port_changes_count, change_port_accepted);
  }
  return out;
}

/// The set, and a rule that drops what is in it.
void drop_elements(nft::ruleset& rules) {
  auto& set = rules.sets[{nft::family::ipv4, "t", "s"}];
  set.set = {nft::family::ipv4, "t", "s", 0, 4, false, {}, false};
  std::vector<nft::element> all;
  for (std::uint32_t i = 0; i < elements_count; ++i)
    all.push_back(element_of(first_address + 6 * i));
  set.elements = nft::element_list(std::move(all));
  rules.chains.begin()->second.rules.push_back(
      make_rule(1, {"lookup", ex::lookup{"s", 0, {}, false}, {}}));
}

void change_element(nft::ruleset& in, int i) {
  auto& elements = in.sets.begin()->second.elements;
  const nft::element one =
      element_of(first_address + 3 + 6 * 997 * static_cast<std::uint32_t>(i / 2));
  if (i % 2 == 0)
    elements.add(one);
  else
    static_cast<void>(elements.remove(one));
}

figures measure_elements() {
  nft::ruleset rules = empty_chain();
  drop_elements(rules);
  return measure(std::move(rules), change_element);
}

/// What the set has left over is cut up by the rules.
figures measure_both() {
  nft::ruleset rules = empty_chain();
  drop_elements(rules);
  for (std::uint32_t i = 0; i < rules_count; ++i) drop_to(rules, i + 2, first_address + 1 + 6 * i);
  return measure(std::move(rules), change_element);
}

figures measure_rules() {
  nft::ruleset rules = empty_chain();
  for (std::uint32_t i = 0; i < rules_count; ++i) drop_to(rules, i + 1, first_address + 6 * i);
  return measure(std::move(rules), [](nft::ruleset& in, int i) {
    auto& chain = in.chains.begin()->second.rules;
    if (i % 2 == 0)
      drop_to(in, rules_count + 1, first_address + 3 + 6 * static_cast<std::uint32_t>(i));
    else
      static_cast<void>(chain.erase(std::prev(chain.end())));
  });
}

netlink::xfrm_policy policy_of(std::uint32_t index, std::uint32_t address) {
  netlink::xfrm_policy one;
  one.index = index;
  one.blocks = true;
  one.source = ip_prefix::all(ip_family::v4);
  one.destination = {ip_address::v4(address), 32};
  return one;
}

figures measure_policies() {
  netlink::xfrm_policies all;
  for (std::uint32_t i = 0; i < policies_count; ++i)
    all.push_back(policy_of(8 * i + 1, first_address + 6 * i));
  return measure(std::move(all), [](netlink::xfrm_policies& in, int i) {
    const auto address = first_address + 3 + 6 * static_cast<std::uint32_t>(i);
    if (i % 2 == 0)
      in.push_back(policy_of(8 * policies_count + 1, address));
    else
      static_cast<void>(in.erase(std::prev(in.end())));
  });
}

int run(bool json, const char* program) {
  const std::pair<const char*, figures> all[] = {
      {"100000_elements", measure_elements()},
      {"10000_rules", measure_rules()},
      {"100000_elements_and_10000_rules", measure_both()},
      {"10000_policies", measure_policies()}};
  std::vector<bench::result> results;
  for (const auto& [name, told] : all) {
    const std::string group = std::string("output_rules/") + name;
    results.push_back({group + "/whole", told.whole_ms * 1e6});
    for (const auto& [change, took] : {std::pair{"/one_change", told.change},
                                       {"/port_rule_in_front", told.port_in_front},
                                       {"/port_rule_behind", told.port_behind},
                                       {"/port_accepted", told.port_accepted}}) {
      if (took.most_ms == 0) continue;
      results.push_back({group + change + "_median", took.median_ms * 1e6});
      results.push_back({group + change + "_most", took.most_ms * 1e6});
      results.push_back({group + change + "_compiled", took.whole_median_ms * 1e6});
    }
  }
  if (json) {
    bench::print_json(program, results);
    return 0;
  }
  bench::print_lines(results);
  for (const auto& [name, told] : all)
    std::printf("%-48s %12zu KiB read by cores, %zu KiB of the compiler's\n", name,
                told.memory.bytes_live / 1024, told.memory.bytes_writer / 1024);
  return 0;
}

}  // namespace
}  // namespace cowire

int main(int argc, char** argv) {
  const bool json = argc > 1 && std::string_view(argv[1]) == "--benchmark_format=json";
  return cowire::run(json, argv[0]);
}
