// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/compiler.hpp>
#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/header_template.hpp>
#include <cowire/route/detail/hop_store.hpp>
#include <cowire/route/detail/output_judge.hpp>
#include <cowire/route/detail/path_facts.hpp>
#include <cowire/route/detail/region_map.hpp>
#include <cowire/route/detail/situation.hpp>
#include <cowire/route/detail/source_v6.hpp>
#include <cowire/route/detail/tunnel.hpp>
#include <cowire/route/rules.hpp>

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace cowire {
namespace {

using detail::path_id;
using detail::region;
using detail::situation_id;

constexpr std::uint8_t rule_to_table = 1;
constexpr std::size_t slot(ip_family family) noexcept { return static_cast<std::size_t>(family); }
constexpr ip_family families[] = {ip_family::v4, ip_family::v6};

ip_prefix host_prefix(const ip_address& address) { return {address, address.bits()}; }

/// Left to the kernel whatever the routes say: regions do not tell apart the scopes of multicast
/// addresses, which steer the choice of a source.
bool is_multicast_v6(const ip_prefix& region) {
  return region.family() == ip_family::v6 && region.length() >= 8 &&
         region.address().is_multicast();
}

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

/// Boundaries at which the choice of an IPv6 source may change: a prefix and, for each of its bits,
/// the prefix that differs there. Together they divide the whole address space, so that inside each
/// region every destination has the same label, scope and number of bits in common with our
/// addresses.
void collect_source_boundaries(const mirror& state, std::set<ip_prefix>& into) {
  std::set<ip_prefix> boundaries(detail::source_policy_prefixes().begin(),
                                 detail::source_policy_prefixes().end());
  for (const auto& [index, device] : state.devices())
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
  [[nodiscard]] std::size_t bytes() const noexcept {
    return v4.memory().bytes_live + v6.memory().bytes_live;
  }
};

/// What one publication points into.
struct version_block {
  forwarding_table table;
  std::vector<forwarding_table::class_table> class_tables;
  std::vector<std::uint16_t> class_index;
  detail::hop_store::directory directory;

  [[nodiscard]] std::size_t bytes() const noexcept {
    return sizeof(*this) + class_tables.size() * sizeof(class_tables[0]) +
           class_index.size() * sizeof(class_index[0]) +
           (directory.chunks.size() + directory.groups.size()) * sizeof(void*);
  }
};

}  // namespace

class compiler::implementation {
 public:
  implementation(const mirror& state, epoch_domain& epoch, publisher& publish_to,
                 compiler_options options);
  ~implementation();

  flow_class_id add_class(const flow_class& cls);
  void release_class(flow_class_id id);
  void set_egress(std::uint32_t interface_index, egress_slot slot);
  void clear_egress(std::uint32_t interface_index);
  void set_output(std::shared_ptr<const output_snapshot> state);
  publication publish();
  [[nodiscard]] explanation explain(const flow& question) const;
  [[nodiscard]] std::vector<flow_class> distinct_classes() const;
  [[nodiscard]] compiler_statistics statistics() const noexcept;
  [[nodiscard]] bool pending() const noexcept {
    return !noted_.empty() || egress_changed_ || class_added_ ||
           (rebuild_ && (current_ == nullptr || !classes_.empty()));
  }

  std::vector<flow_class> classes_;
  std::vector<std::uint32_t> class_uses_;  ///< By flow_class_id; 0 = free for another.
  std::set<ip_prefix> quarantined_;
  mirror_changes noted_;

 private:
  /// A class_table in the making: the class that stands for all that share it.
  struct table_record {
    flow_class cls;
    std::unique_ptr<class_tries> tries;
  };
  /// One path for each class table.
  using path_ids = std::vector<path_id>;
  struct verdict {
    path_ids paths;  ///< Empty: not asked yet.
    /// A member sends straight to the destination: a host has a hop, hence paths, of its own.
    bool on_link = false;
  };
  struct consulted_key {
    neighbour_key key;
    detail::consulted_neighbour::aspect what;
    auto operator<=>(const consulted_key& other) const noexcept {
      return std::tie(key.index, key.destination, what) <=>
             std::tie(other.key.index, other.key.destination, other.what);
    }
  };
  struct frame {
    ip_prefix prefix;
    situation_id situation;
  };
  /// The regions of one address family.
  struct family_state {
    explicit family_state(ip_family family) : situations(family) {}
    detail::region_map regions;
    detail::situation_store situations;
    std::vector<verdict> verdicts;  ///< By situation.
    std::unordered_map<ip_prefix, path_ids> individual_paths;
    /// Situations cannot tell everything, so every region is asked for itself.
    bool all_individual = false;
    std::vector<ip_prefix> contexts;          ///< Sorted: regions that rules and ranges tell apart.
    std::vector<std::uint32_t> reachable;     ///< Sorted: tables that a rule names.
    std::map<consulted_key, bool> consulted;  ///< Neighbours that decisions saw, and how.
  };
  /// The paths that somebody shall have instead of `from`.
  struct wish {
    path_id from = 0;
    detail::path_key key;
    path_id* place = nullptr;
    std::size_t weight = 1;  ///< Regions that follow.
    situation_id situation = detail::no_situation;
    const ip_prefix* individual = nullptr;
    std::size_t table = 0;
  };

  [[nodiscard]] flow_class distinguished(const flow_class& cls) const;
  [[nodiscard]] bool same_classes() const;
  void assign_classes();

  [[nodiscard]] family_state& of(ip_family family) { return families_[slot(family)]; }
  [[nodiscard]] std::vector<ip_prefix> list_contexts(ip_family family) const;
  [[nodiscard]] std::vector<std::uint32_t> list_reachable(ip_family family) const;
  [[nodiscard]] bool exact_lengths_count(ip_family family) const;
  [[nodiscard]] bool has_context(const ip_prefix& prefix) const;
  [[nodiscard]] detail::leaf_id leaf_at(const ip_prefix& prefix);
  [[nodiscard]] bool matters_to_hosts(const ip_prefix& prefix) const;

  void rebuild_everything();
  void list_tunnels();
  [[nodiscard]] bool tunnels_may_move(const mirror_changes& changes) const;
  void build_family(ip_family family);
  [[nodiscard]] std::vector<region> list_regions(ip_family family);
  void derive_all(ip_family family);
  void refresh_region(const ip_prefix& prefix, bool reconsider);
  void derive_inside(const frame& outer, std::uint64_t changed_tables);
  void derive_one(family_state& family, region& one, std::vector<frame>& around);
  void list_ancestors(family_state& family, const frame& outermost, const ip_prefix& of,
                      std::vector<frame>& around);
  void settle(family_state& family, region& one, situation_id next);
  void drop_region(family_state& family, region& one);
  void assign_paths(const ip_prefix& prefix, const path_ids* before, const path_ids& now);

  [[nodiscard]] const verdict& verdict_of(family_state& family, situation_id situation);
  [[nodiscard]] std::vector<detail::path_key> judge(family_state& family, situation_id situation,
                                                    bool& on_link);
  [[nodiscard]] std::vector<detail::path_key> judge_alone(family_state& family,
                                                          const ip_prefix& region);
  [[nodiscard]] path_ids intern(const std::vector<detail::path_key>& keys);
  [[nodiscard]] detail::path_key key_of(family_state& family, detail::decider& decider,
                                        const flow_class& cls, const ip_prefix& region,
                                        bool& on_link);
  [[nodiscard]] bool quarantines(const ip_prefix& region) const;
  [[nodiscard]] bool is_outside(const ip_prefix& region) const;
  [[nodiscard]] hop build(const detail::hop_key& key) const;
  [[nodiscard]] hop hop_of(const flow& question, const resolution& resolved,
                           output_verdict& output) const;
  [[nodiscard]] const std::vector<std::uint32_t>* mirrored_tables() const noexcept {
    const auto& tables = options_.restrictions.routing_tables;
    return tables ? &*tables : nullptr;
  }
  void forget_situation(family_state& family, situation_id situation);
  void purge(family_state& family);

  void incorporate();
  void change_family(ip_family family, const mirror_changes& changes, bool state_changed);
  [[nodiscard]] std::vector<ip_prefix> list_touched(ip_family family, const mirror_changes& changes,
                                                    bool rules_changed);
  [[nodiscard]] bool reconsider_all(ip_family family);
  void grant(family_state& family, std::vector<wish>& wishes);
  [[nodiscard]] bool neighbours_look_different(const family_state& family,
                                               const mirror_changes& changes) const;
  void store_version();

  const mirror& state_;
  epoch_domain& epoch_;
  publisher& publisher_;
  compiler_options options_;
  detail::decider individual_decider_;  ///< Searches the mirror.
  detail::decider situation_decider_;   ///< Searches what a situation says.
  std::vector<std::pair<const route_table*, std::vector<detail::cover>>> situation_covers_;
  std::shared_ptr<detail::hop_store> hops_;
  detail::egress_slots egress_;
  bool egress_changed_ = false;
  bool class_added_ = false;  ///< One that shares its table with another.
  bool rebuild_ = true;
  std::map<std::uint32_t, ip_address> tunnels_;  ///< Remote address by ifindex.
  mutable detail::output_judge output_;

  std::vector<table_record> tables_;
  std::vector<std::uint16_t> class_index_;
  family_state families_[2] = {family_state(ip_family::v4), family_state(ip_family::v6)};
  bool any_output_interface_ = false;

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
      options_(std::move(options)),
      individual_decider_(
          state, options_.performance_mode ? detail::covers_by_search : detail::covers_by_walk,
          mirrored_tables()),
      situation_decider_(
          state,
          [this](const route_table& table, const ip_prefix&, std::vector<detail::cover>& out) {
            out.clear();
            for (const auto& [known, covers] : situation_covers_)
              if (known == &table) out = covers;
          },
          mirrored_tables()),
      hops_(std::make_shared<detail::hop_store>(options_.hop_capacity)),
      output_(state) {
  hops_->set_builder([this](const detail::hop_key& key) { return build(key); });
  for (const ip_family family : families)
    of(family).situations.set_effect_of([this, family](const route_entries::list& entries) {
      return individual_decider_.effect_of(family, entries, any_output_interface_);
    });
}

compiler::implementation::~implementation() { static_cast<void>(publisher_.store(nullptr)); }

// ------------------------------------------------------------------------------------------------
// classes

flow_class_id compiler::implementation::add_class(const flow_class& cls) {
  const auto known = std::ranges::find(classes_, cls);
  if (known != classes_.end()) {
    const auto id = static_cast<flow_class_id>(known - classes_.begin());
    ++class_uses_[id];
    return id;
  }
  const auto alike = std::ranges::find_if(classes_, [&](const flow_class& other) {
    return distinguished(other) == distinguished(cls);
  });
  const bool shares = !rebuild_ && alike != classes_.end();
  const std::uint16_t shared =
      shares ? class_index_[static_cast<std::size_t>(alike - classes_.begin())] : std::uint16_t{0};
  const auto id =
      static_cast<std::size_t>(std::ranges::find(class_uses_, 0u) - class_uses_.begin());
  if (id == classes_.size()) {
    COWIRE_ASSERT(classes_.size() < std::numeric_limits<flow_class_id>::max());
    classes_.emplace_back();
    class_uses_.push_back(0);
    if (shares) class_index_.push_back(0);
  }
  classes_[id] = cls;
  class_uses_[id] = 1;
  if (shares)
    class_index_[id] = shared;
  else
    rebuild_ = true;
  class_added_ = class_added_ || shares;
  return static_cast<flow_class_id>(id);
}

/// What was built for it stays until another class takes its place, or everything is built anew.
void compiler::implementation::release_class(flow_class_id id) {
  COWIRE_ASSERT(id < class_uses_.size() && class_uses_[id] != 0);
  --class_uses_[id];
}

/// The class without what no rule looks at.
flow_class compiler::implementation::distinguished(const flow_class& cls) const {
  if (output_.has_something_to_say()) return cls;  // Firewalls look at anything.
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
// what there is

std::vector<ip_prefix> compiler::implementation::list_contexts(ip_family family) const {
  std::set<ip_prefix> all;
  if (family == ip_family::v4) {
    all.insert(ip_prefix(ip_address::v4(0xe0000000), 4));
    all.insert(ip_prefix(ip_address::v4(0xe0000000), 24));
    all.insert(host_prefix(ip_address::v4(0xffffffff)));
  } else {
    static constexpr std::array<std::uint8_t, 16> multicast{0xff},
        loopback{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    all.insert(ip_prefix(ip_address::v6(multicast), 8));
    all.insert(host_prefix(ip_address::v6(loopback)));
    collect_source_boundaries(state_, all);
  }
  all.insert(host_prefix(ip_address::any(family)));
  all.insert(ip_prefix::all(family));
  for (const netlink::rule& rule : state_.rules(family))
    if (rule.to) all.insert(*rule.to);
  for (const ip_prefix& prefix : quarantined_)
    if (prefix.family() == family) all.insert(prefix);
  if (const auto& prefixes = options_.restrictions.tunnel_prefixes)
    for (const ip_prefix& prefix : *prefixes)
      if (prefix.family() == family) all.insert(prefix);
  return {all.begin(), all.end()};
}

std::vector<std::uint32_t> compiler::implementation::list_reachable(ip_family family) const {
  std::set<std::uint32_t> all;
  for (const netlink::rule& rule : state_.rules(family))
    if (rule.kind == rule_to_table) all.insert(rule.table);
  if (state_.initial_rules_may_count(family))
    for (const netlink::rule& rule : initial_rules(family)) all.insert(rule.table);
  return {all.begin(), all.end()};
}

bool compiler::implementation::exact_lengths_count(ip_family family) const {
  return std::ranges::any_of(state_.rules(family), [](const netlink::rule& rule) {
    return rule.suppress_prefix_length.has_value();
  });
}

bool compiler::implementation::has_context(const ip_prefix& prefix) const {
  return std::ranges::binary_search(families_[slot(prefix.family())].contexts, prefix);
}

/// What context and tables say of exactly this prefix.
detail::leaf_id compiler::implementation::leaf_at(const ip_prefix& prefix) {
  family_state& family = of(prefix.family());
  std::vector<detail::situation_store::part> parts;
  for (const std::uint32_t id : family.reachable) {
    const route_table* table = state_.find_table(prefix.family(), id);
    if (table == nullptr) continue;
    if (const route_entries* const found = table->find(prefix))
      parts.push_back({id, family.situations.shape_of(*found)});
  }
  return family.situations.leaf_of(has_context(prefix) ? &prefix : nullptr, std::move(parts));
}

/// Whether a host is a region without any route: it has a neighbour entry or a path exception.
bool compiler::implementation::matters_to_hosts(const ip_prefix& prefix) const {
  if (!prefix.is_host()) return false;
  if (state_.find_path_exception(prefix.address()) != nullptr) return true;
  if (prefix.address().is_multicast()) return false;
  return std::ranges::any_of(state_.devices(), [&](const auto& item) {
    return state_.find_neighbour(item.first, prefix.address()) != nullptr;
  });
}

// ------------------------------------------------------------------------------------------------
// building a family

void compiler::implementation::rebuild_everything() {
  for (family_state& family : families_) {
    for (const auto& [prefix, paths] : family.individual_paths)
      for (const path_id path : paths) hops_->drop_reference(path);
    family.individual_paths.clear();
    for (situation_id id = 0; id < family.verdicts.size(); ++id) forget_situation(family, id);
    family.verdicts.clear();
    family.regions.clear();
    family.situations.clear();
  }
  assign_classes();
  for (const ip_family family : families) build_family(family);
}

/// All regions with their leaves, in order, as the mirror says.
std::vector<region> compiler::implementation::list_regions(ip_family family) {
  family_state& state = of(family);
  struct found {
    ip_prefix prefix;
    std::uint32_t table;
    detail::shape_id shape;
  };
  constexpr std::uint32_t no_table = 0;  // RT_TABLE_UNSPEC
  std::vector<found> all;
  const auto by_prefix = [](const found& a, const found& b) { return a.prefix < b.prefix; };
  // Each source is in order already; so is what a merge makes of two.
  const auto merge_from = [&](std::size_t middle) {
    const auto at = all.begin() + static_cast<std::ptrdiff_t>(middle);
    if (at == all.begin() || at == all.end() || !by_prefix(*at, *(at - 1))) return;
    std::vector<found> both;
    both.reserve(all.size());
    std::merge(all.begin(), at, at, all.end(), std::back_inserter(both), by_prefix);
    all.swap(both);
  };
  for (const ip_prefix& prefix : state.contexts) all.push_back({prefix, no_table, 0});
  state_.for_each_neighbour([&](const netlink::neighbour& neighbour) {
    if (neighbour.destination.family() == family && !neighbour.destination.is_multicast())
      all.push_back({host_prefix(neighbour.destination), no_table, 0});
  });
  for (const ip_address& destination : state_.path_exception_destinations())
    if (destination.family() == family) all.push_back({host_prefix(destination), no_table, 0});
  std::ranges::sort(all, by_prefix);
  std::vector<const route_table*> tables;
  for (const std::uint32_t id : state.reachable) tables.push_back(state_.find_table(family, id));
  std::vector<std::size_t> order(tables.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::erase_if(order, [&](std::size_t i) { return tables[i] == nullptr; });
  std::ranges::sort(order, {}, [&](std::size_t i) { return tables[i]->size(); });
  for (const std::size_t i : order) {
    const std::size_t middle = all.size();
    all.reserve(middle + tables[i]->size());
    for (const auto& [prefix, entries] : *tables[i])
      all.push_back({prefix, state.reachable[i], state.situations.shape_of(entries)});
    merge_from(middle);
  }

  std::vector<region> regions;
  regions.reserve(all.size());
  std::vector<detail::situation_store::part> parts;
  struct known_leaf {
    std::uint32_t table = no_table;
    detail::leaf_id leaf = 0;
  };
  std::vector<known_leaf> by_shape;  // Of prefixes that one table alone knows: nearly all.
  for (std::size_t i = 0, next = 0; i < all.size(); i = next) {
    parts.clear();
    for (next = i; next < all.size() && all[next].prefix == all[i].prefix; ++next)
      if (all[next].table != no_table) parts.push_back({all[next].table, all[next].shape});
    region made;
    made.prefix = all[i].prefix;
    const bool context = next - i > parts.size() && has_context(made.prefix);
    const bool plain = next - i == 1 && parts.size() == 1;
    if (plain && by_shape.size() <= parts.front().shape) by_shape.resize(parts.front().shape + 1);
    known_leaf* const known = plain ? &by_shape[parts.front().shape] : nullptr;
    if (known == nullptr) {
      made.leaf = state.situations.leaf_of(context ? &made.prefix : nullptr, parts);
    } else {
      if (known->table != parts.front().table)
        *known = {parts.front().table, state.situations.leaf_of(nullptr, parts)};
      made.leaf = known->leaf;
    }
    regions.push_back(made);
  }
  return regions;
}

void compiler::implementation::build_family(ip_family family) {
  family_state& state = of(family);
  state.contexts = list_contexts(family);
  state.reachable = list_reachable(family);
  static_cast<void>(state.situations.set_exact_lengths(exact_lengths_count(family)));
  std::vector<region> next = list_regions(family);

  // What stays keeps its situation and paths; derive_all() changes those that differ.
  auto at = next.begin();
  state.regions.for_each([&](region& known) {
    at = std::lower_bound(at, next.end(), known.prefix,
                          [](const region& one, const ip_prefix& p) { return one.prefix < p; });
    if (at == next.end() || at->prefix != known.prefix) {
      drop_region(state, known);
      return;
    }
    at->situation = known.situation;
    at->individual = known.individual;
    state.situations.leaves().drop_reference(known.leaf);
  });
  for (const region& one : next) state.situations.leaves().add_reference(one.leaf);
  state.regions.assign(next);
  derive_all(family);
}

// ------------------------------------------------------------------------------------------------
// situations of regions

/// Derives the situation of every region from those around it.
void compiler::implementation::derive_all(ip_family family) {
  family_state& state = of(family);
  state.all_individual = !options_.performance_mode || state.situations.anything_hides();
  state.regions.forget_summaries();
  std::vector<frame> around;
  state.regions.for_each([&](region& one) { derive_one(state, one, around); });
}

/// `around` holds the regions that contain the one before this in order; it gets this one.
void compiler::implementation::derive_one(family_state& family, region& one,
                                          std::vector<frame>& around) {
  while (!around.empty() && !around.back().prefix.contains(one.prefix)) around.pop_back();
  const situation_id outer = around.empty() ? detail::no_situation : around.back().situation;
  settle(family, one, family.situations.inside(outer, one.leaf, one.prefix.length()));
  if (!one.prefix.is_host()) around.push_back({one.prefix, one.situation});
}

/// The regions around `of` from `outermost` inwards, which is there or stands for those around it.
void compiler::implementation::list_ancestors(family_state& family, const frame& outermost,
                                              const ip_prefix& of, std::vector<frame>& around) {
  around.clear();
  for (region* at = family.regions.parent(of);
       at != nullptr && at->prefix.length() > outermost.prefix.length();
       at = family.regions.parent(at->prefix))
    around.push_back({at->prefix, at->situation});
  around.push_back(outermost);
  std::ranges::reverse(around);
}

/// Derives anew what lies inside `outer` after what these tables hold at `outer` has changed. Where
/// every search in them ends before it would come to `outer`, nothing can be different: chunks of
/// only such regions are passed over.
void compiler::implementation::derive_inside(const frame& outer, std::uint64_t changed_tables) {
  family_state& family = of(outer.prefix.family());
  auto& chunks = family.regions.chunks();
  std::vector<frame> around{outer};
  bool landed = false;
  auto at = family.regions.upper_bound(outer.prefix);
  while (!family.regions.is_end(at) && outer.prefix.contains(family.regions.at(at).prefix)) {
    auto& chunk = chunks[at.chunk];
    if (at.index == 0 && !family.all_individual &&
        outer.prefix.contains(chunk.items.back().prefix)) {
      if (!chunk.summary) {
        chunk.summary = ~std::uint64_t{0};
        for (const region& one : chunk.items)
          *chunk.summary &= family.situations.ending_tables(one.leaf);
      }
      if ((*chunk.summary & changed_tables) == changed_tables) {
        at = {at.chunk + 1, 0};
        landed = true;
        continue;
      }
    }
    region& one = family.regions.at(at);
    if (std::exchange(landed, false)) list_ancestors(family, outer, one.prefix, around);
    derive_one(family, one, around);
    at = family.regions.next(at);
  }
}

/// Makes a region, or lets it go, or gives it its new leaf, as the mirror says, and follows the
/// consequences inside. `reconsider`: a host's own paths may differ although nothing else does.
void compiler::implementation::refresh_region(const ip_prefix& prefix, bool reconsider) {
  family_state& family = of(prefix.family());
  const detail::leaf_id leaf = leaf_at(prefix);
  const bool wanted = leaf != 0 || matters_to_hosts(prefix);
  region* known = family.regions.find(prefix);
  if (known == nullptr && !wanted) return;
  const detail::leaf_id before = known != nullptr ? known->leaf : 0;
  if (known != nullptr && wanted && before == leaf && !reconsider) return;
  const std::uint64_t changed = family.situations.differing_tables(before, leaf);
  const region* outer = family.regions.parent(prefix);
  frame inside{prefix, outer != nullptr ? outer->situation : detail::no_situation};
  if (!wanted) {
    drop_region(family, *known);
    family.regions.erase(prefix);
  } else {
    region& one = known != nullptr ? *known : family.regions.insert(prefix);
    family.situations.leaves().add_reference(leaf);
    if (known != nullptr) family.situations.leaves().drop_reference(before);
    if (one.leaf != leaf) {
      one.leaf = leaf;
      family.regions.chunk_with(prefix).summary.reset();
    }
    settle(family, one, family.situations.inside(inside.situation, leaf, prefix.length()));
    inside.situation = one.situation;
  }
  if (changed != 0 && !prefix.is_host()) derive_inside(inside, changed);
}

/// Gives a region its situation and the tries the paths that follow from it.
void compiler::implementation::settle(family_state& family, region& one, situation_id next) {
  const bool fresh = one.situation == detail::no_situation;
  const bool alone = family.all_individual ||
                     (one.prefix.is_host() && (verdict_of(family, next).on_link ||
                                               family.situations.has_context(one.leaf) ||
                                               state_.find_path_exception(one.prefix.address())));
  if (one.situation == next && !one.individual && !alone) return;
  const path_ids* before = nullptr;
  path_ids own_before;
  if (one.individual) {
    own_before = std::move(family.individual_paths[one.prefix]);
    before = &own_before;
  } else if (!fresh) {
    before = &family.verdicts[one.situation].paths;
  }
  family.situations.situations().add_reference(next);
  if (alone) {
    path_ids own = intern(judge_alone(family, one.prefix));
    assign_paths(one.prefix, before, own);
    family.individual_paths[one.prefix] = std::move(own);
  } else {
    const path_ids& now = verdict_of(family, next).paths;
    if (!fresh && !one.individual) before = &family.verdicts[one.situation].paths;
    assign_paths(one.prefix, before, now);
    if (one.individual) family.individual_paths.erase(one.prefix);
  }
  for (const path_id path : own_before) hops_->drop_reference(path);
  if (!fresh) family.situations.situations().drop_reference(one.situation);
  one.situation = next;
  one.individual = alone;
}

void compiler::implementation::assign_paths(const ip_prefix& prefix, const path_ids* before,
                                            const path_ids& now) {
  for (std::size_t i = 0; i < tables_.size(); ++i)
    if (before == nullptr || (*before)[i] != now[i]) tables_[i].tries->assign(prefix, now[i]);
}

void compiler::implementation::drop_region(family_state& family, region& one) {
  for (table_record& record : tables_) record.tries->erase(one.prefix);
  if (one.individual) {
    const auto own = family.individual_paths.find(one.prefix);
    for (const path_id path : own->second) hops_->drop_reference(path);
    family.individual_paths.erase(own);
  }
  family.situations.situations().drop_reference(one.situation);
  family.situations.leaves().drop_reference(one.leaf);
}

// ------------------------------------------------------------------------------------------------
// decisions

bool compiler::implementation::quarantines(const ip_prefix& region) const {
  return std::ranges::any_of(quarantined_,
                             [&](const ip_prefix& prefix) { return prefix.contains(region); });
}

/// Whether the user keeps tunnels from a region that no listed prefix divides.
bool compiler::implementation::is_outside(const ip_prefix& region) const {
  const auto& prefixes = options_.restrictions.tunnel_prefixes;
  return prefixes && std::ranges::none_of(*prefixes, [&](const ip_prefix& prefix) {
           return prefix.contains(region);
         });
}

hop compiler::implementation::build(const detail::hop_key& key) const {
  const mirror::device* device = state_.find_device(key.interface_index);
  if (device != nullptr && detail::is_tunnel_kind(device->link.kind)) {
    const auto& listed = options_.restrictions.tunnel_interfaces;
    if (listed && std::ranges::find(*listed, device->link.name) == listed->end())
      return detail::divert_hop(divert_reason::tunnel_not_listed);
    if (key.outside_prefixes) return detail::divert_hop(divert_reason::outside_prefixes);
  }
  return detail::build_hop(state_, egress_, key);
}

/// The shares that a class has in a region. `on_link` is set where they depend on the host.
detail::path_key compiler::implementation::key_of(family_state& family, detail::decider& decider,
                                                  const flow_class& cls, const ip_prefix& region,
                                                  bool& on_link) {
  const auto divert = [&](divert_reason reason) {
    return detail::path_key{{0x7fffffff, detail::divert_adjacency(region.family(), reason)}};
  };
  if (quarantines(region)) return divert(divert_reason::audit_quarantine);
  if (is_multicast_v6(region)) return divert(divert_reason::multicast_destination);
  ++evaluated_;
  detail::decision_question question;
  question.cls = &cls;
  question.region = region;
  const detail::decision& decided = decider.decide(question);
  for (const detail::consulted_neighbour& seen : decided.consulted)
    family.consulted[{seen.key, seen.what}] = seen.seen;
  if (decided.error != 0)
    return divert(decided.error == ENETUNREACH ? divert_reason::no_route : divert_reason::rejected);
  if (decided.divert) return divert(*decided.divert);
  detail::path_key key;
  for (const path_share& share : decided.shares) {
    if (!share.is_known()) {
      key.push_back(
          {share.bound, detail::divert_adjacency(region.family(), divert_reason::resilient_group)});
      continue;
    }
    const path_member& member = decided.members[share.member];
    on_link |= !member.gateway;
    auto hop = detail::hop_key_of(state_, decided, member, cls, region);
    if (!hop) return divert(divert_reason::no_source_address);
    if (const auto reason = output_.judge(cls, *hop).reason) {
      key.push_back({share.bound, detail::divert_adjacency(region.family(), *reason)});
      continue;
    }
    hop->outside_prefixes = is_outside(region);
    key.push_back({share.bound, hops_->intern(*hop)});
  }
  return key;
}

std::vector<detail::path_key> compiler::implementation::judge_alone(family_state& family,
                                                                    const ip_prefix& region) {
  std::vector<detail::path_key> keys;
  bool ignored = false;
  for (const table_record& record : tables_)
    keys.push_back(key_of(family, individual_decider_, record.cls, region, ignored));
  return keys;
}

std::vector<detail::path_key> compiler::implementation::judge(family_state& family,
                                                              situation_id situation,
                                                              bool& on_link) {
  const ip_prefix& context = family.situations.context_of(situation);
  situation_covers_.clear();
  family.situations.steps(situation, [&](std::uint32_t table, detail::cover step) {
    const route_table* key = state_.find_table(context.family(), table);
    if (situation_covers_.empty() || situation_covers_.back().first != key)
      situation_covers_.push_back({key, {}});
    situation_covers_.back().second.push_back(step);
  });
  std::vector<detail::path_key> keys;
  on_link = false;
  for (const table_record& record : tables_)
    keys.push_back(key_of(family, situation_decider_, record.cls, context, on_link));
  return keys;
}

compiler::implementation::path_ids compiler::implementation::intern(
    const std::vector<detail::path_key>& keys) {
  path_ids paths;
  for (const detail::path_key& key : keys) {
    paths.push_back(hops_->intern(key));
    hops_->add_reference(paths.back());
  }
  return paths;
}

const compiler::implementation::verdict& compiler::implementation::verdict_of(
    family_state& family, situation_id situation) {
  if (situation >= family.verdicts.size()) family.verdicts.resize(situation + 1);
  verdict& known = family.verdicts[situation];
  if (known.paths.empty() && !tables_.empty())
    known.paths = intern(judge(family, situation, known.on_link));
  return known;
}

void compiler::implementation::forget_situation(family_state& family, situation_id situation) {
  if (situation >= family.verdicts.size()) return;
  for (const path_id path : family.verdicts[situation].paths) hops_->drop_reference(path);
  family.verdicts[situation] = {};
}

void compiler::implementation::purge(family_state& family) {
  family.situations.purge([&](situation_id id) { forget_situation(family, id); });
}

// ------------------------------------------------------------------------------------------------
// when decisions themselves may differ

/// Decides every situation again, and every region that has paths of its own. Whoever shared a path
/// usually wants the same new one, so the path is redefined and no trie changes, however many
/// prefixes there are. True: hosts may need paths of their own now, derive all anew.
bool compiler::implementation::reconsider_all(ip_family family_name) {
  family_state& family = of(family_name);
  purge(family);
  family.consulted.clear();
  std::vector<wish> wishes;
  bool hosts_differ = false;
  const auto add = [&](const std::vector<detail::path_key>& keys, path_ids& paths, wish base) {
    for (std::size_t i = 0; i < paths.size(); ++i) {
      base.from = paths[i];
      base.key = keys[i];
      base.place = &paths[i];
      base.table = i;
      wishes.push_back(base);
    }
  };
  for (situation_id id = 0; id < family.verdicts.size(); ++id) {
    verdict& known = family.verdicts[id];
    if (known.paths.empty()) continue;
    wish base;
    base.situation = id;
    base.weight = family.situations.situations().references(id);
    const bool was_on_link = known.on_link;
    const auto keys = judge(family, id, known.on_link);
    hosts_differ |= known.on_link != was_on_link;
    add(keys, known.paths, base);
  }
  for (auto& [prefix, paths] : family.individual_paths) {
    wish base;
    base.individual = &prefix;
    const auto keys = judge_alone(family, prefix);
    add(keys, paths, base);
  }
  grant(family, wishes);
  return hosts_differ;
}

void compiler::implementation::grant(family_state& family, std::vector<wish>& wishes) {
  std::ranges::sort(wishes, [](const wish& a, const wish& b) {
    return std::tie(a.from, a.key) < std::tie(b.from, b.key);
  });
  for (auto first = wishes.begin(); first != wishes.end();) {
    const auto last =
        std::find_if(first, wishes.end(), [&](const wish& one) { return one.from != first->from; });
    // The path follows those with the most regions; the others get another one.
    auto heaviest = first;
    std::size_t most = 0, sum = 0;
    for (auto at = first; at != last; ++at) {
      sum = at != first && at->key == (at - 1)->key ? sum + at->weight : at->weight;
      if (sum <= most) continue;
      most = sum;
      heaviest = at;
    }
    hops_->redefine(first->from, heaviest->key);
    first = last;
  }
  // Only now that every path means what it will mean, others can be looked for.
  std::vector<bool> moved(family.verdicts.size());
  bool any_moved = false;
  for (const wish& one : wishes) {
    if (hops_->key_of(one.from) == one.key) continue;
    const path_id other = hops_->intern(one.key);
    hops_->add_reference(other);
    hops_->drop_reference(one.from);
    *one.place = other;
    if (one.individual != nullptr) {
      tables_[one.table].tries->assign(*one.individual, other);
    } else {
      moved[one.situation] = any_moved = true;
    }
  }
  if (!any_moved) return;
  family.regions.for_each([&](const region& one) {
    if (!one.individual && moved[one.situation])
      assign_paths(one.prefix, nullptr, family.verdicts[one.situation].paths);
  });
}

// ------------------------------------------------------------------------------------------------
// changes

bool compiler::implementation::neighbours_look_different(const family_state& family,
                                                         const mirror_changes& changes) const {
  using aspect = detail::consulted_neighbour::aspect;
  return std::ranges::any_of(changes.neighbours, [&](const neighbour_key& key) {
    return std::ranges::any_of(std::array{aspect::failed, aspect::good, aspect::alive_default},
                               [&](aspect what) {
                                 const auto seen = family.consulted.find({key, what});
                                 return seen != family.consulted.end() &&
                                        detail::neighbour_aspect(state_, key, what) != seen->second;
                               });
  });
}

/// The prefixes whose leaves may differ, sorted.
std::vector<ip_prefix> compiler::implementation::list_touched(ip_family family,
                                                              const mirror_changes& changes,
                                                              bool rules_changed) {
  family_state& state = of(family);
  std::vector<ip_prefix> touched;
  std::vector<std::uint32_t> concerned = state.reachable;
  if (rules_changed) {
    std::vector<ip_prefix> contexts = list_contexts(family);
    std::ranges::set_symmetric_difference(contexts, state.contexts, std::back_inserter(touched));
    state.contexts = std::move(contexts);
    std::vector<std::uint32_t> reachable = list_reachable(family), differing;
    std::ranges::set_symmetric_difference(reachable, state.reachable,
                                          std::back_inserter(differing));
    state.reachable = std::move(reachable);
    concerned.insert(concerned.end(), differing.begin(), differing.end());
    for (const std::uint32_t id : differing)
      if (const route_table* table = state_.find_table(family, id))
        for (const auto& [prefix, entries] : *table) touched.push_back(prefix);
  }
  for (const auto& change : changes.routes)
    if (change.destination.family() == family &&
        std::ranges::find(concerned, change.table) != concerned.end())
      touched.push_back(change.destination);
  for (const neighbour_key& key : changes.neighbours)
    if (key.destination.family() == family && !key.destination.is_multicast())
      touched.push_back(host_prefix(key.destination));
  if (touched.size() > 1) {
    std::ranges::sort(touched);
    touched.erase(std::ranges::unique(touched).begin(), touched.end());
  }
  return touched;
}

void compiler::implementation::change_family(ip_family family, const mirror_changes& changes,
                                             bool state_changed) {
  family_state& state = of(family);
  bool derive = false;
  // Where a search ends depends on IPv6 neighbours, asked for or not.
  if (state_changed || (family == ip_family::v6 && !changes.neighbours.empty()))
    derive = state.situations.refresh_effects();
  if (state_changed) {
    derive |= reconsider_all(family);
    derive |= state.situations.set_exact_lengths(exact_lengths_count(family));
  }
  const bool noted = family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6;
  const std::vector<ip_prefix> touched = list_touched(family, changes, noted);
  if (touched.size() > 1000 + state.regions.size() / 4) {
    build_family(family);
    return;
  }
  for (const ip_prefix& prefix : touched) refresh_region(prefix, false);
  for (const ip_address& destination : changes.path_mtus)
    if (destination.family() == family) refresh_region(host_prefix(destination), true);
  // An IPv6 source tree depends on whether longer prefixes exist.
  derive |= family == ip_family::v6 && state.all_individual && !touched.empty();
  if (derive ||
      (options_.performance_mode && state.all_individual != state.situations.anything_hides()))
    derive_all(family);
}

void compiler::implementation::incorporate() {
  mirror_changes changes = std::exchange(noted_, {});
  if (!changes.links.empty() && output_.has_something_to_say()) {
    output_.forget();  // Rules name devices.
    changes.decisions_v4 = changes.decisions_v6 = true;
  }
  const bool links = std::exchange(egress_changed_, false) || !changes.links.empty();
  class_added_ = false;
  if (classes_.empty()) return;  // Nobody asks yet; the first class has everything built.
  const bool everything = std::exchange(rebuild_, false) || !options_.performance_mode ||
                          ((changes.decisions_v4 || changes.decisions_v6) && !same_classes());
  if (links) hops_->rebuild_if([](const detail::hop_key&) { return true; });
  for (const neighbour_key& key : changes.neighbours) hops_->rebuild_neighbour(key);
  if (everything || !changes.links.empty()) list_tunnels();
  if (!links && (everything || tunnels_may_move(changes)))
    hops_->rebuild_if(
        [this](const detail::hop_key& key) { return tunnels_.contains(key.interface_index); });
  if (everything) {
    rebuild_everything();
    return;
  }
  const bool noted[2] = {changes.decisions_v4, changes.decisions_v6};
  for (const ip_family family : families)
    change_family(family, changes,
                  noted[slot(family)] ||
                      (!changes.nexthops.empty() && of(family).situations.names_nexthops()) ||
                      neighbours_look_different(of(family), changes));
  for (family_state& family : families_)
    if (family.situations.wants_purge()) purge(family);
}

void compiler::implementation::list_tunnels() {
  tunnels_.clear();
  for (const auto& [index, device] : state_.devices())
    if (const auto* info = std::get_if<netlink::tunnel_info>(&device.link.info))
      tunnels_.emplace(index, info->remote);
}

/// Whether the outer route of some tunnel, or its next hop's MAC address, may be another one now.
bool compiler::implementation::tunnels_may_move(const mirror_changes& changes) const {
  if (tunnels_.empty()) return false;
  if (changes.decisions_v4 || changes.decisions_v6 || !changes.nexthops.empty() ||
      !changes.neighbours.empty())
    return true;
  return std::ranges::any_of(tunnels_, [&](const auto& tunnel) {
    const ip_address& remote = tunnel.second;
    return std::ranges::any_of(changes.routes,
                               [&](const auto& route) {
                                 return route.destination.contains(host_prefix(remote));
                               }) ||
           std::ranges::find(changes.path_mtus, remote) != changes.path_mtus.end();
  });
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

void compiler::implementation::set_output(std::shared_ptr<const output_snapshot> state) {
  const bool said_something = output_.has_something_to_say();
  output_.set(std::move(state));
  if (said_something || output_.has_something_to_say())
    noted_.decisions_v4 = noted_.decisions_v6 = true;
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
  if (current_) {
    const std::size_t bytes = current_->bytes();
    epoch_.retire(std::exchange(current_, nullptr), bytes);
  }
  current_ = std::move(next);
  for (lpm_garbage& garbage : blocks)
    if (!garbage.empty()) {
      const std::size_t bytes = garbage.bytes();
      epoch_.retire(std::make_unique<lpm_garbage>(std::move(garbage)), bytes);
    }
  for (auto& tries : std::exchange(retired_tries_, {})) {
    const std::size_t bytes = tries->bytes();
    epoch_.retire(std::move(tries), bytes);
  }
  auto hops_garbage = hops_->take_garbage(hops_);
  const std::size_t hops_bytes = hops_garbage->bytes();
  epoch_.retire(std::move(hops_garbage), hops_bytes);
}

// ------------------------------------------------------------------------------------------------
// questions

/// Over the member that was chosen for this one flow.
hop compiler::implementation::hop_of(const flow& question, const resolution& resolved,
                                     output_verdict& output) const {
  const ip_prefix region = host_prefix(question.destination);
  if (quarantines(region)) return detail::divert_hop(divert_reason::audit_quarantine);
  if (is_multicast_v6(region)) return detail::divert_hop(divert_reason::multicast_destination);
  detail::decider decider(state_, detail::covers_by_search, mirrored_tables());
  detail::decision_question asked;
  asked.cls = &question.cls;
  asked.region = region;
  asked.destination_port = question.destination_port;
  const detail::decision& decided = decider.decide(asked);
  if (decided.error != 0)
    return detail::divert_hop(decided.error == ENETUNREACH ? divert_reason::no_route
                                                           : divert_reason::rejected);
  if (decided.divert) return detail::divert_hop(*decided.divert);
  if (resolved.divert) return detail::divert_hop(*resolved.divert);  // Its bucket is not known.
  auto key =
      detail::hop_key_of(state_, decided, decided.members[resolved.chosen], question.cls, region);
  if (!key) return detail::divert_hop(divert_reason::no_source_address);
  output = output_.judge(question.cls, *key);
  if (output.reason) return detail::divert_hop(*output.reason);
  key->outside_prefixes = is_outside(region);
  return build(*key);
}

explanation compiler::implementation::explain(const flow& question) const {
  explanation told;
  told.decision = resolve(state_, question);
  told.template_hop = hop_of(question, told.decision, told.output);
  const hop& shown = told.template_hop;
  if (shown.egress != divert_slot) {
    told.destination_mac.emplace();
    std::memcpy(told.destination_mac->bytes.data(),
                shown.header + header_capacity - shown.header_length, 6);
  }
  return told;
}

std::vector<flow_class> compiler::implementation::distinct_classes() const {
  std::vector<flow_class> all;
  for (const table_record& record : tables_) all.push_back(record.cls);
  return all;
}

compiler_statistics compiler::implementation::statistics() const noexcept {
  compiler_statistics now;
  now.prefixes_v4 = families_[slot(ip_family::v4)].regions.size();
  now.prefixes_v6 = families_[slot(ip_family::v6)].regions.size();
  now.class_tables = tables_.size();
  now.path_lists = hops_->paths_in_use();
  now.hops = hops_->hops_in_use();
  now.bytes_live = hops_->bytes() + (current_ != nullptr ? current_->bytes() : 0);
  for (const table_record& record : tables_) {
    now.bytes_live += record.tries->bytes();
    now.bytes_writer +=
        record.tries->v4.memory().bytes_writer + record.tries->v6.memory().bytes_writer;
  }
  for (const family_state& family : families_) {
    now.situations += family.situations.situations().referenced();
    now.bytes_writer += family.regions.bytes();
  }
  now.bytes_waiting = epoch_.statistics().bytes_waiting;
  return now;
}

// ------------------------------------------------------------------------------------------------
// public face

compiler::compiler(const mirror& state, epoch_domain& epoch, publisher& publish_to,
                   compiler_options options)
    : impl_(std::make_unique<implementation>(state, epoch, publish_to, std::move(options))) {}
compiler::~compiler() = default;

flow_class_id compiler::add_class(const flow_class& cls) { return impl_->add_class(cls); }
void compiler::release_class(flow_class_id id) { impl_->release_class(id); }
const flow_class& compiler::class_of(flow_class_id id) const { return impl_->classes_.at(id); }
void compiler::set_egress(std::uint32_t interface_index, egress_slot slot) {
  impl_->set_egress(interface_index, slot);
}
void compiler::clear_egress(std::uint32_t interface_index) { impl_->clear_egress(interface_index); }

void compiler::set_output(std::shared_ptr<const output_snapshot> state) {
  impl_->set_output(std::move(state));
}

void compiler::quarantine(const ip_prefix& where) {
  impl_->quarantined_.insert(where);
  (where.family() == ip_family::v4 ? impl_->noted_.decisions_v4 : impl_->noted_.decisions_v6) =
      true;
}

void compiler::lift_quarantine(const ip_prefix& where) {
  if (impl_->quarantined_.erase(where) == 0) return;
  (where.family() == ip_family::v4 ? impl_->noted_.decisions_v4 : impl_->noted_.decisions_v6) =
      true;
}

void compiler::note(mirror_changes&& changes) { impl_->noted_.merge(std::move(changes)); }
bool compiler::pending() const noexcept { return impl_->pending(); }
std::vector<flow_class> compiler::distinct_classes() const { return impl_->distinct_classes(); }
publication compiler::publish() { return impl_->publish(); }
explanation compiler::explain(const flow& question) const { return impl_->explain(question); }
compiler_statistics compiler::statistics() const noexcept { return impl_->statistics(); }

}  // namespace cowire
