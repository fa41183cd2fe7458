// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/compiler.hpp>
#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/header_template.hpp>
#include <cowire/route/detail/hop_store.hpp>
#include <cowire/route/detail/path_facts.hpp>
#include <cowire/route/detail/source_v6.hpp>

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace cowire {
namespace {

using detail::path_id;

constexpr std::uint8_t rule_to_table = 1;
constexpr std::size_t slot(ip_family family) noexcept { return static_cast<std::size_t>(family); }
constexpr ip_family families[] = {ip_family::v4, ip_family::v6};

ip_prefix host_prefix(const ip_address& address) { return {address, address.bits()}; }

/// `address` with bit `index` flipped.
ip_address flipped(const ip_address& address, unsigned index) {
  auto bytes = address.bytes();
  bytes[index / 8] ^= static_cast<std::uint8_t>(0x80 >> index % 8);
  return ip_address::from_bytes(address.family(), bytes.data());
}

/// The source that a class asks for, of the family with addresses of this size; zero = none.
template <std::size_t Size>
std::array<std::uint8_t, Size> hashed_source(const flow_class& cls) {
  std::array<std::uint8_t, Size> bytes{};
  const auto& source = cls.source(Size == 4 ? ip_family::v4 : ip_family::v6);
  if (source) std::memcpy(bytes.data(), source->bytes().data(), Size);
  return bytes;
}

/// The tries of one class table.
struct class_tries {
  lpm_trie<lpm_key4> v4;
  lpm_trie<lpm_key6> v6;

  void assign(const ip_prefix& prefix, path_id value) {
    if (prefix.family() == ip_family::v4)
      v4.assign(to_key4(prefix.address()), prefix.length(), value);
    else
      v6.assign(to_key6(prefix.address()), prefix.length(), value);
  }
  void erase(const ip_prefix& prefix) {
    if (prefix.family() == ip_family::v4)
      v4.erase(to_key4(prefix.address()), prefix.length());
    else
      v6.erase(to_key6(prefix.address()), prefix.length());
  }
};

/// What one publication points into.
struct version_block {
  forwarding_table table;
  std::vector<forwarding_table::class_table> class_tables;
  std::vector<std::uint16_t> class_index;
  detail::hop_store::directory directory;
};

}  // namespace

class compiler::implementation {
 public:
  implementation(const mirror& state, epoch_domain& epoch, publisher& publish_to,
                 compiler_options options);
  ~implementation();

  flow_class_id add_class(const flow_class& cls);
  void set_egress(std::uint32_t interface_index, egress_slot slot);
  void clear_egress(std::uint32_t interface_index);
  publication publish();
  [[nodiscard]] explanation explain(const flow& question) const;
  [[nodiscard]] compiler_statistics statistics() const noexcept;
  [[nodiscard]] bool pending() const noexcept {
    return !noted_.empty() || !quarantine_changes_.empty() || egress_changed_ || rebuild_;
  }

  const mirror& state_;
  std::vector<flow_class> classes_;
  std::set<ip_prefix> quarantined_;
  std::vector<ip_prefix> quarantine_changes_;
  mirror_changes noted_;

 private:
  /// A class_table in the making: the class that stands for all that share it.
  struct table_record {
    flow_class cls;
    std::unique_ptr<class_tries> tries;
  };
  /// One prefix of the union of all that matters, and its path in each class table.
  using region_values = std::vector<path_id>;
  using region_map = std::map<ip_prefix, region_values>;

  [[nodiscard]] flow_class distinguished(const flow_class& cls) const;
  [[nodiscard]] bool same_classes() const;
  void assign_classes();
  void rebuild_everything();
  void rebuild_family(ip_family family);
  void collect_static(ip_family family);
  void collect_source_boundaries(std::set<ip_prefix>& into) const;
  [[nodiscard]] bool wanted(const ip_prefix& prefix) const;
  void route_changed(const mirror_changes::prefix& change);
  void quarantine_changed(const ip_prefix& where);
  [[nodiscard]] bool ends_search(const route_table& table, const ip_prefix& prefix) const;
  void refresh_region(const ip_prefix& prefix);
  void drop_region(region_map::iterator at);
  void evaluate(const ip_prefix& prefix, region_values& values);
  [[nodiscard]] path_id path_of(const flow_class& cls, const ip_prefix& region);
  [[nodiscard]] path_id path_of(const detail::decision& decided, const flow_class& cls,
                                const ip_prefix& region);
  void incorporate();
  void store_version();

  epoch_domain& epoch_;
  publisher& publisher_;
  compiler_options options_;
  detail::decider decider_;
  std::shared_ptr<detail::hop_store> hops_;
  detail::egress_slots egress_;
  bool egress_changed_ = false;
  bool rebuild_ = true;

  std::vector<table_record> tables_;
  std::vector<std::uint16_t> class_index_;
  region_map regions_[2];
  std::set<ip_prefix>
      static_[2];  ///< Regions that do not come from routes, neighbours or path MTUs.
  std::set<std::uint32_t> reachable_[2];  ///< Tables that a rule names.
  bool any_output_interface_ = false;
  struct consulted {
    neighbour_key key;
    detail::consulted_neighbour::aspect what;
    auto operator<=>(const consulted& other) const noexcept {
      return std::tie(key.index, key.destination, what) <=>
             std::tie(other.key.index, other.key.destination, other.what);
    }
  };
  std::map<consulted, bool>
      consulted_[2];  ///< Neighbours that decisions of a family depend on, and what they saw.

  std::vector<std::unique_ptr<class_tries>> retired_tries_;
  std::unique_ptr<version_block> current_;
  std::uint64_t version_ = 0;
  std::size_t evaluated_ = 0;
};

compiler::implementation::implementation(const mirror& state, epoch_domain& epoch,
                                         publisher& publish_to, compiler_options options)
    : state_(state),
      epoch_(epoch),
      publisher_(publish_to),
      options_(options),
      decider_(state, options.performance_mode ? detail::covers_by_search : detail::covers_by_walk),
      hops_(std::make_shared<detail::hop_store>(options.hop_capacity)) {
  hops_->set_builder(
      [this](const detail::hop_key& key) { return detail::build_hop(state_, egress_, key); });
}

compiler::implementation::~implementation() { static_cast<void>(publisher_.store(nullptr)); }

// ------------------------------------------------------------------------------------------------
// classes

flow_class_id compiler::implementation::add_class(const flow_class& cls) {
  const auto known = std::ranges::find(classes_, cls);
  if (known != classes_.end()) return static_cast<flow_class_id>(known - classes_.begin());
  COWIRE_ASSERT(classes_.size() < std::numeric_limits<flow_class_id>::max());
  classes_.push_back(cls);
  rebuild_ = true;
  return static_cast<flow_class_id>(classes_.size() - 1);
}

/// The class without what no rule looks at.
flow_class compiler::implementation::distinguished(const flow_class& cls) const {
  flow_class plain = cls;
  plain.mark = 0;
  plain.uid = 0;
  plain.source_port = 0;
  plain.ip_protocol = 0;
  for (const ip_family family : families) {
    for (const netlink::rule& rule : state_.rules(family)) {
      if (rule.mark_mask != 0) plain.mark = cls.mark;
      if (rule.uid) plain.uid = cls.uid;
      if (rule.source_port) plain.source_port = cls.source_port;
      if (rule.ip_protocol != 0) plain.ip_protocol = cls.ip_protocol;
    }
  }
  return plain;
}

/// Which classes share a table; tables that no class needs any more, or that rules now tell apart,
/// are made anew.
void compiler::implementation::assign_classes() {
  std::vector<table_record> before = std::exchange(tables_, {});
  std::vector<flow_class> keys;
  class_index_.clear();
  any_output_interface_ = false;
  for (const flow_class& cls : classes_) {
    any_output_interface_ |= cls.output_interface != 0;
    const flow_class key = distinguished(cls);
    const auto known = std::ranges::find(keys, key);
    class_index_.push_back(static_cast<std::uint16_t>(known - keys.begin()));
    if (known != keys.end()) continue;
    keys.push_back(key);
    tables_.push_back({cls, std::make_unique<class_tries>()});
  }
  for (table_record& record : before) retired_tries_.push_back(std::move(record.tries));
}

/// Whether the rules still tell the same classes apart.
bool compiler::implementation::same_classes() const {
  for (std::size_t i = 0; i < classes_.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if ((class_index_[i] == class_index_[j]) !=
          (distinguished(classes_[i]) == distinguished(classes_[j])))
        return false;
  return true;
}

// ------------------------------------------------------------------------------------------------
// regions

void compiler::implementation::rebuild_everything() {
  for (region_map& regions : regions_) {
    for (const auto& [prefix, values] : regions)
      for (const path_id path : values) hops_->drop_reference(path);
    regions.clear();
  }
  assign_classes();
  for (const ip_family family : families) rebuild_family(family);
}

/// Boundaries at which the choice of an IPv6 source may change: a prefix and, for each of its bits,
/// the prefix that differs there. Together they divide the whole address space, so that inside each
/// region every destination has the same label, scope and number of bits in common with our
/// addresses.
void compiler::implementation::collect_source_boundaries(std::set<ip_prefix>& into) const {
  std::set<ip_prefix> boundaries(detail::source_policy_prefixes().begin(),
                                 detail::source_policy_prefixes().end());
  for (const auto& [index, device] : state_.devices())
    for (const netlink::address& own : device.v6) {
      boundaries.insert(ip_prefix(own.local, own.prefix_length));
      into.insert(host_prefix(own.local));  // An own address is the best source for itself.
    }
  for (const ip_prefix& boundary : boundaries) {
    into.insert(boundary);
    for (unsigned bit = 0; bit < boundary.length(); ++bit)
      into.insert(ip_prefix(flipped(boundary.address(), bit), bit + 1));
  }
}

void compiler::implementation::collect_static(ip_family family) {
  auto& into = static_[slot(family)];
  into.clear();
  reachable_[slot(family)].clear();
  if (family == ip_family::v4) {
    into.insert(ip_prefix(ip_address::v4(0xe0000000), 4));
    into.insert(ip_prefix(ip_address::v4(0xe0000000), 24));
    into.insert(host_prefix(ip_address::v4(0xffffffff)));
  } else {
    static constexpr std::array<std::uint8_t, 16> multicast{0xff},
        loopback{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    into.insert(ip_prefix(ip_address::v6(multicast), 8));
    into.insert(host_prefix(ip_address::v6(loopback)));
    collect_source_boundaries(into);
  }
  into.insert(host_prefix(ip_address::any(family)));
  into.insert(ip_prefix::all(family));
  for (const netlink::rule& rule : state_.rules(family)) {
    if (rule.to) into.insert(*rule.to);
    if (rule.kind == rule_to_table) reachable_[slot(family)].insert(rule.table);
  }
  for (const ip_prefix& prefix : quarantined_)
    if (prefix.family() == family) into.insert(prefix);
}

/// Evaluates every region of a family; the tries get what differs.
void compiler::implementation::rebuild_family(ip_family family) {
  collect_static(family);
  consulted_[slot(family)].clear();
  std::set<ip_prefix> all = static_[slot(family)];
  for (const std::uint32_t id : reachable_[slot(family)])
    if (const route_table* table = state_.find_table(family, id))
      for (const auto& [prefix, entries] : *table) all.insert(prefix);
  state_.for_each_neighbour([&](const netlink::neighbour& neighbour) {
    if (neighbour.destination.family() == family && !neighbour.destination.is_multicast())
      all.insert(host_prefix(neighbour.destination));
  });
  for (const ip_address& destination : state_.path_mtu_destinations())
    if (destination.family() == family) all.insert(host_prefix(destination));

  region_map& regions = regions_[slot(family)];
  for (auto at = regions.begin(); at != regions.end();) {
    const auto next = std::next(at);
    if (!all.contains(at->first)) drop_region(at);
    at = next;
  }
  for (const ip_prefix& prefix : all) evaluate(prefix, regions[prefix]);
}

bool compiler::implementation::wanted(const ip_prefix& prefix) const {
  const ip_family family = prefix.family();
  if (static_[slot(family)].contains(prefix)) return true;
  for (const std::uint32_t id : reachable_[slot(family)]) {
    const route_table* table = state_.find_table(family, id);
    if (table != nullptr && table->contains(prefix)) return true;
  }
  if (!prefix.is_host()) return false;
  if (state_.path_mtu(prefix.address()) != 0) return true;
  return std::ranges::any_of(state_.devices(), [&](const auto& item) {
    return state_.find_neighbour(item.first, prefix.address()) != nullptr;
  });
}

void compiler::implementation::drop_region(region_map::iterator at) {
  for (std::size_t i = 0; i < at->second.size(); ++i) {
    tables_[i].tries->erase(at->first);
    hops_->drop_reference(at->second[i]);
  }
  regions_[slot(at->first.family())].erase(at);
}

/// The decision for one prefix in every class table.
void compiler::implementation::evaluate(const ip_prefix& prefix, region_values& values) {
  const bool fresh = values.empty();
  values.resize(tables_.size(), 0);
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    const path_id path = path_of(tables_[i].cls, prefix);
    if (!fresh && values[i] == path) continue;
    hops_->add_reference(path);
    if (!fresh) hops_->drop_reference(values[i]);
    values[i] = path;
    tables_[i].tries->assign(prefix, path);
  }
}

void compiler::implementation::refresh_region(const ip_prefix& prefix) {
  region_map& regions = regions_[slot(prefix.family())];
  if (wanted(prefix)) {
    evaluate(prefix, regions[prefix]);
  } else if (const auto at = regions.find(prefix); at != regions.end()) {
    drop_region(at);
  }
}

// ------------------------------------------------------------------------------------------------
// decisions

path_id compiler::implementation::path_of(const flow_class& cls, const ip_prefix& region) {
  for (const ip_prefix& prefix : quarantined_)
    if (prefix.contains(region)) return detail::divert_path(divert_reason::audit_quarantine);
  ++evaluated_;
  detail::decision_question question;
  question.cls = &cls;
  question.region = region;
  const detail::decision& decided = decider_.decide(question);
  for (const detail::consulted_neighbour& seen : decided.consulted)
    consulted_[slot(region.family())][{seen.key, seen.what}] = seen.seen;
  return path_of(decided, cls, region);
}

path_id compiler::implementation::path_of(const detail::decision& decided, const flow_class& cls,
                                          const ip_prefix& region) {
  if (decided.error != 0)
    return detail::divert_path(decided.error == ENETUNREACH ? divert_reason::no_route
                                                            : divert_reason::rejected);
  if (decided.divert) return detail::divert_path(*decided.divert);
  detail::path_key key;
  for (const path_share& share : decided.shares) {
    const auto hop =
        detail::hop_key_of(state_, decided, decided.members[share.member], cls, region);
    if (!hop) return detail::divert_path(divert_reason::no_source_address);
    key.push_back({share.bound, hops_->intern(*hop)});
  }
  return hops_->intern(key);
}

// ------------------------------------------------------------------------------------------------
// changes

/// Whether every search in `table` for a region inside `prefix` ends at this prefix or a longer
/// one.
bool compiler::implementation::ends_search(const route_table& table,
                                           const ip_prefix& prefix) const {
  if (any_output_interface_) return false;
  const auto found = table.find(prefix);
  if (found == table.end() || found->second.size() != 1) return false;
  const route_entry& entry = found->second.front();
  const netlink::route& route = entry.route;
  if (route.tos != 0 || route.nexthop_id != 0 || route.source.length() != 0 ||
      route.next_hops.size() != 1)
    return false;
  const netlink::next_hop& hop = route.next_hops.front();
  const mirror::device* device = state_.find_device(hop.index);
  if ((hop.flags & RTNH_F_DEAD) != 0 || device == nullptr || !detail::has_carrier(device->link))
    return false;
  // An IPv6 gateway may turn FAILED, and then the search goes on.
  return prefix.family() == ip_family::v4 || !hop.gateway ||
         !detail::neighbour_aspect(state_, {hop.index, *hop.gateway},
                                   detail::consulted_neighbour::aspect::failed);
}

void compiler::implementation::route_changed(const mirror_changes::prefix& change) {
  const ip_prefix& prefix = change.destination;
  const ip_family family = prefix.family();
  if (!reachable_[slot(family)].contains(change.table)) return;
  refresh_region(prefix);
  static const route_table none;
  const route_table* known = state_.find_table(family, change.table);
  const route_table& table = known != nullptr ? *known : none;
  region_map& regions = regions_[slot(family)];
  for (auto at = regions.upper_bound(prefix); at != regions.end() && prefix.contains(at->first);) {
    if (ends_search(table, at->first)) {
      at = regions.upper_bound(host_prefix(at->first.last()));
      continue;
    }
    evaluate(at->first, at->second);
    ++at;
  }
}

void compiler::implementation::quarantine_changed(const ip_prefix& where) {
  collect_static(where.family());
  refresh_region(where);
  region_map& regions = regions_[slot(where.family())];
  for (auto at = regions.upper_bound(where); at != regions.end() && where.contains(at->first); ++at)
    evaluate(at->first, at->second);
}

void compiler::implementation::incorporate() {
  const mirror_changes changes = std::exchange(noted_, {});
  const std::vector<ip_prefix> quarantine_changes = std::exchange(quarantine_changes_, {});
  const bool everything = std::exchange(rebuild_, false) || !options_.performance_mode ||
                          ((changes.decisions_v4 || changes.decisions_v6) && !same_classes());
  const bool links = std::exchange(egress_changed_, false) || !changes.links.empty();
  if (links) hops_->rebuild_if([](const detail::hop_key&) { return true; });
  for (const neighbour_key& key : changes.neighbours) hops_->rebuild_neighbour(key);
  if (everything) {
    rebuild_everything();
    return;
  }
  bool redo[2] = {changes.decisions_v4, changes.decisions_v6};
  for (const ip_family family : families)
    redo[slot(family)] |= std::ranges::any_of(consulted_[slot(family)], [&](const auto& item) {
      return detail::neighbour_aspect(state_, item.first.key, item.first.what) != item.second;
    });
  for (const ip_family family : families)
    if (redo[slot(family)]) rebuild_family(family);
  for (const ip_prefix& where : quarantine_changes)
    if (!redo[slot(where.family())]) quarantine_changed(where);
  for (const auto& change : changes.routes)
    if (!redo[slot(change.destination.family())]) route_changed(change);
  for (const neighbour_key& key : changes.neighbours)
    if (!redo[slot(key.destination.family())] && !key.destination.is_multicast())
      refresh_region(host_prefix(key.destination));
  for (const ip_address& destination : changes.path_mtus)
    if (!redo[slot(destination.family())]) refresh_region(host_prefix(destination));
}

void compiler::implementation::set_egress(std::uint32_t interface_index, egress_slot slot) {
  COWIRE_ASSERT(slot != divert_slot);
  egress_[interface_index] = slot;
  egress_changed_ = true;
}

void compiler::implementation::clear_egress(std::uint32_t interface_index) {
  egress_.erase(interface_index);
  egress_changed_ = true;
}

// ------------------------------------------------------------------------------------------------
// publication

publication compiler::implementation::publish() {
  const auto start = std::chrono::steady_clock::now();
  publication done;
  done.changes = noted_.count();
  evaluated_ = 0;
  if (pending()) {
    incorporate();
    store_version();
  }
  epoch_.reclaim();
  done.version = version_;
  done.prefixes_evaluated = evaluated_;
  done.duration = std::chrono::steady_clock::now() - start;
  return done;
}

void compiler::implementation::store_version() {
  auto next = std::make_unique<version_block>();
  next->class_index = class_index_;
  next->directory = hops_->commit();
  std::vector<lpm_garbage> blocks;
  for (table_record& record : tables_) {
    next->class_tables.push_back({record.tries->v4.commit(), record.tries->v6.commit(),
                                  hashed_source<4>(record.cls), hashed_source<16>(record.cls)});
    blocks.push_back(record.tries->v4.take_garbage());
    blocks.push_back(record.tries->v6.take_garbage());
  }
  forwarding_table& table = next->table;
  table.version = ++version_;
  table.class_tables = next->class_tables.data();
  table.class_index = next->class_index.data();
  table.class_count = static_cast<std::uint32_t>(next->class_index.size());
  table.path_list_chunks = next->directory.chunks.data();
  table.hops = next->directory.hops;
  table.groups = next->directory.groups.data();
  table.hash_v4 = multipath_hash_of(state_.settings(), ip_family::v4, IPPROTO_UDP);
  table.hash_v6 = multipath_hash_of(state_.settings(), ip_family::v6, IPPROTO_UDP);

  // Publish first, retire afterwards: the epoch domain counts from the retirement.
  static_cast<void>(publisher_.store(&table));
  if (current_) epoch_.retire(std::exchange(current_, nullptr));
  current_ = std::move(next);
  for (lpm_garbage& garbage : blocks)
    if (!garbage.empty()) epoch_.retire(std::make_unique<lpm_garbage>(std::move(garbage)));
  for (auto& tries : std::exchange(retired_tries_, {})) epoch_.retire(std::move(tries));
  epoch_.retire(hops_->take_garbage(hops_));
}

// ------------------------------------------------------------------------------------------------
// questions

explanation compiler::implementation::explain(const flow& question) const {
  explanation told;
  told.decision = resolve(state_, question);
  told.template_hop = detail::divert_hop(divert_reason::no_route);
  const ip_prefix region = host_prefix(question.destination);
  const resolution& decision = told.decision;
  if (std::ranges::any_of(quarantined_,
                          [&](const ip_prefix& prefix) { return prefix.contains(region); })) {
    told.template_hop = detail::divert_hop(divert_reason::audit_quarantine);
  } else if (decision.error != 0) {
    told.template_hop = detail::divert_hop(decision.error == ENETUNREACH ? divert_reason::no_route
                                                                         : divert_reason::rejected);
  } else if (decision.divert) {
    told.template_hop = detail::divert_hop(*decision.divert);
  } else {
    detail::decider decider(state_, detail::covers_by_search);
    detail::decision_question asked;
    asked.cls = &question.cls;
    asked.region = region;
    asked.destination_port = question.destination_port;
    const detail::decision& decided = decider.decide(asked);
    const auto key =
        detail::hop_key_of(state_, decided, decided.members[decision.chosen], question.cls, region);
    told.template_hop = key ? detail::build_hop(state_, egress_, *key)
                            : detail::divert_hop(divert_reason::no_source_address);
  }
  const hop& shown = told.template_hop;
  if (shown.egress != divert_slot) {
    told.destination_mac.emplace();
    std::memcpy(told.destination_mac->bytes.data(),
                shown.header + header_capacity - shown.header_length, 6);
  }
  return told;
}

compiler_statistics compiler::implementation::statistics() const noexcept {
  compiler_statistics now;
  now.prefixes_v4 = regions_[slot(ip_family::v4)].size();
  now.prefixes_v6 = regions_[slot(ip_family::v6)].size();
  now.class_tables = tables_.size();
  now.path_lists = hops_->paths_in_use();
  now.hops = hops_->hops_in_use();
  return now;
}

// ------------------------------------------------------------------------------------------------
// public face

compiler::compiler(const mirror& state, epoch_domain& epoch, publisher& publish_to,
                   compiler_options options)
    : impl_(std::make_unique<implementation>(state, epoch, publish_to, options)) {}
compiler::~compiler() = default;

flow_class_id compiler::add_class(const flow_class& cls) { return impl_->add_class(cls); }
const flow_class& compiler::class_of(flow_class_id id) const { return impl_->classes_.at(id); }
void compiler::set_egress(std::uint32_t interface_index, egress_slot slot) {
  impl_->set_egress(interface_index, slot);
}
void compiler::clear_egress(std::uint32_t interface_index) { impl_->clear_egress(interface_index); }

void compiler::quarantine(const ip_prefix& where) {
  if (impl_->quarantined_.insert(where).second) impl_->quarantine_changes_.push_back(where);
}

void compiler::lift_quarantine(const ip_prefix& where) {
  if (impl_->quarantined_.erase(where) != 0) impl_->quarantine_changes_.push_back(where);
}

void compiler::note(mirror_changes&& changes) { impl_->noted_.merge(std::move(changes)); }
bool compiler::pending() const noexcept { return impl_->pending(); }
publication compiler::publish() { return impl_->publish(); }
explanation compiler::explain(const flow& question) const { return impl_->explain(question); }
compiler_statistics compiler::statistics() const noexcept { return impl_->statistics(); }

}  // namespace cowire
