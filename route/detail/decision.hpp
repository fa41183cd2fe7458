// SPDX-License-Identifier: Apache-2.0
/// The kernel's output route decision, for one destination or for a whole region of them.
///
/// resolve() and the compiler share this code; they differ in how a table is searched (cover.hpp)
/// and in that the compiler asks for a region: a prefix without the longer prefixes that matter to
/// anybody, so that one answer holds for all of it.
///
/// The order of the steps follows net/ipv4/route.c and net/ipv6/route.c; where the kernel looks at
/// something that cannot be known, the decision gets a divert reason.
#pragma once

#include <cowire/route/detail/cover.hpp>
#include <cowire/route/resolve.hpp>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace cowire::detail {

struct decision_question {
  const flow_class* cls = nullptr;
  ip_prefix region;  ///< A host prefix for one destination.
  std::optional<std::uint16_t> destination_port;
  route_question as = route_question::send;
  bool ignore_exceptions = false;  ///< The path exceptions that are known to the mirror.

  [[nodiscard]] ip_family family() const noexcept { return region.family(); }
  /// Any address of the region stands for all.
  [[nodiscard]] const ip_address& destination() const noexcept { return region.address(); }
  [[nodiscard]] bool is_multicast() const noexcept {
    return region.length() >= (family() == ip_family::v4 ? 4u : 8u) && destination().is_multicast();
  }
  /// 255.255.255.255.
  [[nodiscard]] bool is_limited_broadcast() const noexcept {
    return region.is_host() && destination() == ip_address::v4(0xffffffff);
  }
  [[nodiscard]] bool is_unspecified() const noexcept {
    return region.is_host() && destination().is_unspecified();
  }
};

/// Whether the fast path knows multicast addresses of this kind: IPv4 ones, and those IPv6 ones
/// (RFC 4291, 2.7) whose scope is the same in the whole region and goes beyond the interface.
[[nodiscard]] bool is_known_multicast(const ip_prefix& region) noexcept;

/// The regions of IPv6 multicast addresses that is_known_multicast() is about, and their like.
[[nodiscard]] std::vector<ip_prefix> multicast_scopes_v6();

/// A neighbour whose state influenced a decision, and what was seen.
struct consulted_neighbour {
  neighbour_key key;
  enum class aspect : std::uint8_t { failed, good, alive_default } what = aspect::failed;
  bool seen = false;
};

struct decision {
  int error = 0;
  std::optional<divert_reason> divert;
  std::uint8_t type = 0;
  std::uint32_t table = 0;
  ip_prefix matched;
  const route_entry* entry = nullptr;  ///< Points into the mirror.
  std::uint32_t interface_index = 0;
  std::vector<path_member> members;
  std::vector<path_share> shares;
  std::optional<ip_address> source;
  std::vector<consulted_neighbour> consulted;

  /// Keeps the vectors' memory.
  void reset() noexcept;
};

/// What a neighbour's state means to the decision that looked at it.
[[nodiscard]] bool neighbour_aspect(const mirror& state, const neighbour_key& key,
                                    consulted_neighbour::aspect what);

/// What a search in a table may do at the entries of one prefix, whoever asks.
struct search_effect {
  bool ends = false;  ///< Never goes on to shorter prefixes.
  /// What comes next depends on more than entries and lengths: a nexthop object without usable hop
  /// passes over shorter prefixes of the same address, IPv6 source trees over some of their own.
  bool hides = false;
};

/// Re-usable working memory of decide().
class decider {
 public:
  /// `tables`: those that rules may lead to, null = all.
  decider(const mirror& state, cover_search search,
          const std::vector<std::uint32_t>* tables = nullptr)
      : state_(state), search_(std::move(search)), allowed_tables_(tables) {}

  /// For flows with an output device too, if `with_output_interface`.
  [[nodiscard]] search_effect effect_of(ip_family family, const route_entries::list& entries,
                                        bool with_output_interface) const;

  /// Valid until the next call or a change of the mirror.
  const decision& decide(const decision_question& question);

 private:
  /// again: go on with what comes next; leave: go on with the next rule, whatever else the table
  /// holds.
  enum class outcome : std::uint8_t { found, again, leave, error, divert };

  void decide_v4();
  [[nodiscard]] bool source_may_be_asked_for_v6() const;
  void decide_v6();
  void finish_v4();
  void finish_v6();
  void enter_vrf();
  [[nodiscard]] bool source_is_usable_v4();
  [[nodiscard]] bool answered_by_interface_v4();
  void answer_on_link_v4(std::uint8_t scope);
  void answer_local(std::uint8_t type);
  void answer_from_owner_of_source_v4();
  void choose_multicast_device();
  void divert_unless_only_copy();
  [[nodiscard]] std::optional<divert_reason> reason_of_copy(std::uint32_t index) const;

  [[nodiscard]] outcome walk_rules();
  [[nodiscard]] outcome walk(const std::vector<netlink::rule>& rules);
  [[nodiscard]] outcome walk_hidden_rules();
  [[nodiscard]] bool is_link_scoped() const;
  [[nodiscard]] outcome look_up_on_link_v6();
  void apply_exception();
  [[nodiscard]] outcome apply_rule(const netlink::rule& rule);
  [[nodiscard]] bool suppressed(const netlink::rule& rule);
  [[nodiscard]] outcome look_up(std::uint32_t table);
  void add_merged_main();
  [[nodiscard]] outcome look_up_v4(const route_table& table);
  [[nodiscard]] outcome take_entry_v4(const ip_prefix& prefix, const route_entry& entry,
                                      bool& usable);
  [[nodiscard]] bool main_is_longer_v4(unsigned length);
  [[nodiscard]] outcome look_up_v6(const route_table& table);
  /// The routes to one destination prefix that share a source prefix.
  struct node_v6 {
    const ip_prefix* destination;
    const route_entries* entries;
    ip_prefix source;
  };
  [[nodiscard]] bool list_nodes_v6(const route_table& table);
  [[nodiscard]] outcome select_in_node_v6(const node_v6& node, bool reachable);
  [[nodiscard]] int score_v6(const route_entry& entry, const path_member& member, bool reachable);

  [[nodiscard]] outcome reject(std::uint8_t type);
  [[nodiscard]] outcome fail(int error);
  outcome divert(divert_reason reason);
  /// Next hops of an entry, nexthop objects expanded; or why they cannot be told.
  [[nodiscard]] std::optional<divert_reason> list_members(const route_entry& entry,
                                                          std::vector<path_member>& out,
                                                          bool& blackhole) const;
  [[nodiscard]] bool hop_is_alive(const route_entry& entry, const path_member& member) const;
  [[nodiscard]] bool consult(const path_member& member, consulted_neighbour::aspect what);
  void divert_without_source();
  void share_v4();
  void share_v6();
  void share_by_bounds(const std::vector<bool>& good, std::uint32_t fallback);
  [[nodiscard]] bool share_by_buckets();
  void name_first_share();
  void select_default_v4();
  [[nodiscard]] std::optional<ip_address> device_source_v4(std::uint32_t index,
                                                           const std::optional<ip_address>& gateway,
                                                           std::uint8_t scope);
  [[nodiscard]] std::optional<ip_address> own_source_v4(const mirror::device& device,
                                                        const std::optional<ip_address>& gateway,
                                                        std::uint8_t scope, bool localnet) const;
  [[nodiscard]] bool leaves_vrf(std::uint32_t index) const;
  [[nodiscard]] bool leaks_source_v6(std::uint32_t index) const;
  [[nodiscard]] std::optional<ip_address> selected_source_v6(std::uint32_t index);

  const mirror& state_;
  cover_search search_;
  const std::vector<std::uint32_t>* allowed_tables_;
  decision_question question_;
  flow_class to_group_;  ///< The class as a socket asks about a group, where that is another.
  std::optional<ip_address> source_;  ///< As the rules see it.
  /// The device that was asked for, and the one that next hops must be over: the same, but that no
  /// next hop is over a VRF. 0 = any.
  std::uint32_t device_ = 0, oif_ = 0;
  std::uint32_t vrf_ = 0;           ///< That the flow is in, 0 = none.
  bool strict_ = false;             ///< IPv6: only routes over the asked device.
  bool borrowed_source_ = false;    ///< IPv4: device_source_v4() found it on another device.
  bool second_question_ = false;    ///< IPv6: answered for a source that the socket chose itself.
  std::uint32_t found_member_ = 0;  ///< The one that made the entry usable.
  decision result_;
  const route_entries* found_entries_ = nullptr;  ///< Of the matched IPv4 prefix.
  std::vector<cover> covers_;
  std::vector<node_v6> nodes_;  ///< In the order in which the kernel looks at them.
  std::vector<path_member> candidates_;
};

}  // namespace cowire::detail
