// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/describe_output.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cowire::detail {
namespace {

std::string count(std::size_t number, std::string_view one, std::string_view several) {
  return std::to_string(number) + " " + std::string(number == 1 ? one : several);
}

std::string unreadable_text(const std::string& why) { return "cannot be read: " + why; }

std::string describe(const netfilter_state& state) {
  if (state.rules_unreadable) return unreadable_text(*state.rules_unreadable);
  std::string out = count(state.rules->tables.size(), "table", "tables") + ", " +
                    count(state.rules->rule_count(), "rule", "rules") + ", generation " +
                    std::to_string(state.rules->generation);
  if (state.hooks) out += ", " + count(state.hooks->size(), "hook function", "hook functions");
  std::set<std::string> legacy(state.legacy_tables_v4.begin(), state.legacy_tables_v4.end());
  legacy.insert(state.legacy_tables_v6.begin(), state.legacy_tables_v6.end());
  for (const std::string& table : legacy) out += ", legacy table " + table;
  if (!state.hooks && state.legacy_unreadable)
    out += ", legacy tables " + unreadable_text(*state.legacy_unreadable);
  std::set<std::string> unlisted;
  for (const output_hook& hook : state.unlisted_hooks) unlisted.insert(hook.function);
  for (const std::string& hook : unlisted) out += ", a hook " + hook;
  return out;
}

std::string describe_tracking(const netfilter_state& state) {
  if (state.rules_unreadable) return unreadable_text(*state.rules_unreadable);
  const bool v4 = tracks_connections(state, ip_family::v4);
  const bool v6 = tracks_connections(state, ip_family::v6);
  if (!v4 && !v6) return "no connection is tracked";
  return std::string(v4 && v6 ? "IPv4 and IPv6" : v4 ? "IPv4" : "IPv6") + " tracked";
}

std::string describe(const ipsec_state& state) {
  if (state.unreadable_because) return unreadable_text(*state.unreadable_because);
  return count(state.policies.size(), "output policy", "output policies") +
         (state.blocks_by_default ? ", without one datagrams are blocked" : "");
}

std::string describe_programs(const std::vector<std::uint32_t>& ids) {
  std::string out = ids.size() == 1 ? "program of id" : "programs of ids";
  for (const std::uint32_t id : ids)
    out += (id == ids.front() ? " " : " and ") + std::to_string(id);
  return out;
}

/// A name is not what is in force.
bool differ(device_output_state before, const device_output_state& now) {
  before.name = now.name;
  return before != now;
}

std::string describe(const device_output_state& state) {
  if (state.unreadable_because) return unreadable_text(*state.unreadable_because);
  std::string out;
  for (const auto& one : state.disciplines) out += (out.empty() ? "" : ", ") + one.kind;
  if (out.empty()) out = "no queueing discipline";
  if (!state.filter.empty()) out += ", filter " + state.filter;
  if (!state.programs.empty()) out += ", " + describe_programs(state.programs);
  return out;
}

std::string describe(const cgroup_state& state) {
  if (state.unreadable_because) return unreadable_text(*state.unreadable_because);
  const std::pair<const char*, const std::vector<std::uint32_t>*> hooks[] = {
      {"egress: ", &state.egress},
      {"sendmsg of IPv4: ", &state.sendmsg_v4},
      {"sendmsg of IPv6: ", &state.sendmsg_v6}};
  std::string out;
  for (const auto& [name, programs] : hooks)
    if (!programs->empty())
      out += (out.empty() ? "" : ", ") + std::string(name) + describe_programs(*programs);
  return out.empty() ? "no program" : out;
}

/// Gathers what changed.
struct output_describer {
  const output_snapshot &before, &after;
  const mirror& state;
  std::vector<route_change> out;

  route_change& add(const char* layer, std::string detail) {
    route_change one;
    one.what = route_change::kind::output;
    one.layer = layer;
    one.detail = std::move(detail);
    return out.emplace_back(std::move(one));
  }

  /// What stands at no device any more is one that has gone.
  void devices() {
    if (before.devices_unreadable != after.devices_unreadable)
      add("traffic_control",
          after.devices_unreadable ? unreadable_text(*after.devices_unreadable) : "can be read");
    std::set<std::uint32_t> known;
    for (const auto* each : {&before.devices, &after.devices})
      for (const auto& [index, device] : *each) known.insert(index);
    for (const std::uint32_t index : known) {
      const auto then = before.devices.find(index), now = after.devices.find(index);
      const bool gone = now == after.devices.end();
      if (!gone && then != before.devices.end() && !differ(then->second, now->second)) continue;
      route_change& one =
          add("traffic_control", gone ? "the device has gone" : describe(now->second));
      const auto* device = state.find_device(index);
      one.device = device != nullptr ? device->link.name : "if" + std::to_string(index);
      one.removed = gone;
    }
  }
};

}  // namespace

std::vector<route_change> describe_output(const output_snapshot& before,
                                          const output_snapshot& after, const mirror& state) {
  output_describer told{before, after, state, {}};
  if (before.netfilter != after.netfilter) {
    told.add("netfilter", describe(after.netfilter));
    const std::string tracking = describe_tracking(after.netfilter);
    if (after.obeyed.conntrack && describe_tracking(before.netfilter) != tracking)
      told.add("conntrack", tracking);
  }
  if (before.ipsec != after.ipsec) told.add("ipsec", describe(after.ipsec));
  told.devices();
  if (before.cgroup != after.cgroup) told.add("control_groups", describe(after.cgroup));
  return std::move(told.out);
}

}  // namespace cowire::detail
