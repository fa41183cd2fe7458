// SPDX-License-Identifier: Apache-2.0
/// What a routing table holds, with everything that many prefixes have in common kept once.
///
/// A million prefixes know a few dozen next hops. So a table is an ordered map from a prefix to a
/// *shared list*: the immutable entries that the prefix has, without the prefix itself. Prefixes
/// with equal entries share one list, which the mirror's pool finds by content. A prefix costs some
/// fifty bytes, and what is derived from a list can be remembered by its identity.
///
/// The mirror alone changes tables; everybody else reads them like a std::map. Changes of a table
/// invalidate its iterators and pointers; a list lives as long as somebody holds it.
///
/// One thread at a time. Allocates.
#pragma once

#include <cowire/netlink/message.hpp>
#include <cowire/route/detail/prefix_map.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

namespace cowire {
namespace detail {
class route_store;
}  // namespace detail

/// Whether routes of this RTN_ type answer by themselves, without a next hop.
[[nodiscard]] bool is_reject(std::uint8_t route_type) noexcept;

/// One route of a table: an alias in IPv4, an entry or a whole set of siblings in IPv6.
struct route_entry {
  /// As the kernel described it, but its destination is the whole address space: see route_to().
  /// Flags of its next hops are kept current by derivation.
  netlink::route route;
  /// A gateway that was this host's own address when the route was made is not used (the route
  /// behaves as on-link) and stays so; a dump does not tell which it was.
  enum class gateway_use : std::uint8_t {
    forward,
    on_link,
    unknown
  } gateway = gateway_use::forward;
  /// IPv6 siblings whose source, metrics or preference no message attributes to a member.
  bool mixed_siblings = false;
  std::optional<std::chrono::steady_clock::time_point> expires;

  /// The route as the kernel describes it, at the prefix that the entry was found at.
  [[nodiscard]] netlink::route route_to(const ip_prefix& destination) const {
    netlink::route whole = route;
    whole.destination = destination;
    return whole;
  }
  friend bool operator==(const route_entry&, const route_entry&) = default;
};

/// Whether a dump may have left this entry out of the entries of its prefix: the kernel goes from
/// the first IPv6 sibling to the last, past what stands between (net/ipv6/ip6_fib.c,
/// fib6_dump_node()).
[[nodiscard]] bool may_be_left_out(const route_entry& entry,
                                   const std::vector<route_entry>& beside) noexcept;

/// The entries of a prefix in kernel order (IPv4: TOS descending, metric, insertion; IPv6: source
/// prefix, metric, insertion): a handle on a shared list.
class route_entries {
 public:
  using list = std::vector<route_entry>;

  /// No entries.
  route_entries() noexcept = default;

  [[nodiscard]] const list& get() const noexcept { return list_ ? *list_ : none(); }
  [[nodiscard]] auto begin() const noexcept { return get().begin(); }
  [[nodiscard]] auto end() const noexcept { return get().end(); }
  [[nodiscard]] std::size_t size() const noexcept { return get().size(); }
  [[nodiscard]] bool empty() const noexcept { return get().empty(); }
  [[nodiscard]] const route_entry& front() const noexcept { return get().front(); }
  [[nodiscard]] const route_entry& operator[](std::size_t i) const noexcept { return get()[i]; }
  /// Equal for two handles on the same list. Means nothing once no handle on the list is left.
  [[nodiscard]] const void* identity() const noexcept { return list_.get(); }

 private:
  friend class detail::route_store;
  friend class route_entries_pool;
  static const list& none() noexcept;

  std::shared_ptr<const list> list_;
  std::uint32_t generation_ = 0;  ///< Of the last message that named the prefix: mark and sweep.
};

/// Prefix -> entries.
class route_table {
 public:
  struct value_type {
    ip_prefix first;
    route_entries second;
  };

 private:
  using map = detail::prefix_map<value_type, &value_type::first>;

 public:
  class const_iterator {
   public:
    using iterator_category = std::bidirectional_iterator_tag;
    using value_type = route_table::value_type;
    using difference_type = std::ptrdiff_t;
    using pointer = const value_type*;
    using reference = const value_type&;

    const_iterator() noexcept = default;
    reference operator*() const noexcept { return in_->at(where_); }
    pointer operator->() const noexcept { return &in_->at(where_); }
    const_iterator& operator++() noexcept { return where_ = in_->next(where_), *this; }
    const_iterator& operator--() noexcept { return where_ = in_->previous(where_), *this; }
    const_iterator operator++(int) noexcept { return std::exchange(*this, std::next(*this)); }
    const_iterator operator--(int) noexcept { return std::exchange(*this, std::prev(*this)); }
    friend bool operator==(const const_iterator&, const const_iterator&) noexcept = default;

   private:
    friend class route_table;
    const_iterator(const map& in, map::position where) noexcept : in_(&in), where_(where) {}
    const map* in_ = nullptr;
    map::position where_;
  };

  [[nodiscard]] const_iterator begin() const noexcept { return {items_, {}}; }
  [[nodiscard]] const_iterator end() const noexcept { return {items_, items_.end()}; }
  [[nodiscard]] const_iterator upper_bound(const ip_prefix& prefix) const noexcept {
    return {items_, items_.upper_bound(prefix)};
  }
  /// Null: there is no such prefix.
  [[nodiscard]] const route_entries* find(const ip_prefix& prefix) const noexcept {
    const value_type* const found = items_.find(prefix);
    return found != nullptr ? &found->second : nullptr;
  }
  [[nodiscard]] bool contains(const ip_prefix& prefix) const noexcept {
    return items_.find(prefix) != nullptr;
  }
  /// Number of prefixes.
  [[nodiscard]] std::size_t size() const noexcept { return items_.size(); }
  [[nodiscard]] bool empty() const noexcept { return items_.size() == 0; }

 private:
  friend class detail::route_store;
  map items_;
};

/// Finds lists by their content. Copies share the lists.
class route_entries_pool {
 public:
  /// The list with these entries.
  [[nodiscard]] route_entries intern(route_entries::list&& entries);
  /// Whether some list, perhaps one that no prefix has any more, has an entry with pred(entry).
  template <class Predicate>
  [[nodiscard]] bool any_of(Predicate&& pred) const {
    return std::ranges::any_of(
        known_, [&](const auto& item) { return std::ranges::any_of(*item.second, pred); });
  }

 private:
  using shared_list = std::shared_ptr<const route_entries::list>;
  void forget_unused();

  std::unordered_multimap<std::size_t, shared_list> known_;  ///< By a hash of the content.
  shared_list last_;                                         ///< Neighbours are often alike.
  std::size_t forget_at_ = 1024;  ///< Lists: then those that nobody holds are looked for.
};

}  // namespace cowire
