// SPDX-License-Identifier: Apache-2.0
/// Longest-prefix match for IPv4 and IPv6: one writer changes a trie and commits versions, any
/// number of threads look up in views of them.
///
/// A view reads an immutable multiway trie. Its root is indexed by the first 12 bits of the
/// address; below, each block decides 6 more bits. Directly below the root a block has one 32-bit
/// entry per child. A deeper one is packed: one bit per child, set where a run of equal ones
/// begins, and one entry per run; `popcount` turns the child into the entry. An entry is a value,
/// or the place of a deeper block. So neighbouring prefixes with the same value cost nothing, a
/// packed block is usually one cache line, and a change copies only the blocks on its path plus the
/// root (16 KiB): older versions stay whole and share the rest.
///
/// Nearly all prefixes of an IPv6 table may share their first bits, the stem, where little is
/// decided: then there is a second root, indexed by the 12 bits after the stem. Keys with the stem
/// enter there, all others at the first root.
///
/// The writer also keeps the prefixes themselves, which views do not need: what lies below an
/// erased prefix, and exact(), come from there.
///
/// Who owns what: a trie owns a memory pool, where the blocks of all its versions lie. commit()
/// puts the blocks that only older versions use aside; take_garbage() hands them out as an object
/// whose destruction gives the memory back to the pool. The owner publishes the new view first and
/// then retires the garbage (epoch_domain::retire), or keeps it as long as it uses old views.
///
/// Threads: a trie and its garbage belong to one writer at a time. A view may be copied and used by
/// any thread as long as the trie lives and the garbage that followed the view is not destroyed.
///
/// Not for tables that change with every lookup: a commit costs some microseconds.
#pragma once

#include <cowire/base/address.hpp>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace cowire {

/// An IPv4 address as a number in host order.
using lpm_key4 = std::uint32_t;

/// An IPv6 address as two numbers in host order.
struct lpm_key6 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend constexpr auto operator<=>(const lpm_key6&, const lpm_key6&) noexcept = default;
};

/// `address` is IPv4.
[[nodiscard]] inline lpm_key4 to_key4(const ip_address& address) noexcept {
  return address.v4_host();
}

/// `address` is IPv6.
[[nodiscard]] inline lpm_key6 to_key6(const ip_address& address) noexcept {
  std::uint64_t words[2];
  std::memcpy(words, address.bytes().data(), sizeof words);
  return {__builtin_bswap64(words[0]), __builtin_bswap64(words[1])};
}

template <class Key>
inline constexpr unsigned lpm_key_bits = sizeof(Key) * 8;

namespace detail {
class lpm_pool;

/// The instructions that a batch is looked up with.
enum class lpm_code : std::uint8_t { portable, avx2, avx512 };
/// The best that this processor has; it has those before it, too.
[[nodiscard]] lpm_code best_lpm_code() noexcept;

/// Where the look-ups of one version begin.
struct lpm_roots {
  const std::uint32_t* pool = nullptr;
  const std::uint32_t* root = nullptr;       ///< Null: there is nothing but the default value.
  const std::uint32_t* stem_root = nullptr;  ///< Without a stem: the root.
  std::uint64_t stem = 0;  ///< The first 64 bits of a key with the stem; zeros behind the stem.
  std::uint32_t stem_bits = 0;      ///< At most 42; 0 without a stem, as always for IPv4.
  std::uint32_t default_value = 0;  ///< Of the prefix of length 0, kept out of the trie.
  friend bool operator==(const lpm_roots&, const lpm_roots&) noexcept = default;
};
}  // namespace detail

/// One immutable version of a trie. Some pointers and numbers: copy it freely.
template <class Key>
class lpm_view {
 public:
  /// A view that matches nothing.
  constexpr lpm_view() noexcept = default;

  /// The value of the longest prefix that contains `key`; 0 if none does.
  [[nodiscard]] std::uint32_t lookup(Key key) const noexcept;

  /// values[i] = lookup(keys[i]) for i < count, overlapping the cache misses of the keys.
  void lookup_batch(const Key* keys, std::uint32_t* values, std::size_t count) const noexcept;
  /// For tests of what other processors do. This one has `code`.
  void lookup_batch(detail::lpm_code code, const Key* keys, std::uint32_t* values,
                    std::size_t count) const noexcept;

  friend bool operator==(const lpm_view&, const lpm_view&) noexcept = default;

 private:
  template <class>
  friend class lpm_trie;

  detail::lpm_roots at_;
};

/// Sizes in bytes.
struct lpm_memory {
  std::size_t bytes_live = 0;     ///< Blocks of the newest version: what lookups touch.
  std::size_t bytes_waiting = 0;  ///< Blocks of older versions whose garbage is not destroyed.
  std::size_t blocks = 0;         ///< Number of live blocks.
  std::size_t bytes_writer = 0;   ///< The writer's own record of the prefixes.
};

/// Blocks that newer versions do not use. Destroying it frees them: on the writer's thread, once no
/// reader uses a view older than the commit before take_garbage(). May outlive its trie.
class lpm_garbage {
 public:
  lpm_garbage() noexcept = default;
  lpm_garbage(lpm_garbage&&) noexcept = default;
  lpm_garbage& operator=(lpm_garbage&& other) noexcept;
  lpm_garbage(const lpm_garbage&) = delete;
  lpm_garbage& operator=(const lpm_garbage&) = delete;
  ~lpm_garbage();

  [[nodiscard]] bool empty() const noexcept { return blocks_.empty(); }
  /// What its destruction gives back to the pool.
  [[nodiscard]] std::size_t bytes() const noexcept;

 private:
  template <class>
  friend class lpm_trie;
  void free_blocks() noexcept;

  std::shared_ptr<detail::lpm_pool> pool_;
  std::vector<std::uint32_t> blocks_;
};

/// Values are 1 to 2^31 - 1. Host bits of a prefix are ignored. Lengths are at most lpm_key_bits
/// (asserted). Calls that allocate throw std::bad_alloc; only commit() leaves the trie unusable
/// then.
template <class Key>
class lpm_trie {
 public:
  struct route {
    Key prefix;
    unsigned length;
    std::uint32_t value;
  };

  lpm_trie();
  lpm_trie(lpm_trie&&) noexcept;
  lpm_trie& operator=(lpm_trie&&) noexcept;
  /// No reader may still use a view. To be sure, retire the whole trie.
  ~lpm_trie();

  /// Inserts a prefix or overwrites its value. Seen by views after the next commit().
  void assign(Key prefix, unsigned length, std::uint32_t value);
  /// Replaces all contents. Fastest if sorted by prefix, then length; any order is correct.
  void assign_sorted(std::span<const route> routes);
  /// Whether there was such a prefix. Seen by views after the next commit().
  bool erase(Key prefix, unsigned length);
  /// Erases every prefix. Seen by views after the next commit().
  void clear();

  /// Makes a version of all changes so far. The cost follows the changed paths, not the table's
  /// size; changing a short prefix visits everything below it that inherits its value.
  lpm_view<Key> commit();
  /// The version that commit() returned last.
  [[nodiscard]] lpm_view<Key> view() const noexcept;
  /// What commit() put aside since the last call. Publish the newest view before retiring it.
  [[nodiscard]] lpm_garbage take_garbage() noexcept;

  /// The value assigned to exactly this prefix, committed or not.
  [[nodiscard]] std::optional<std::uint32_t> exact(Key prefix, unsigned length) const noexcept;
  /// Number of prefixes.
  [[nodiscard]] std::size_t size() const noexcept;
  [[nodiscard]] lpm_memory memory() const noexcept;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

extern template class lpm_view<lpm_key4>;
extern template class lpm_view<lpm_key6>;
extern template class lpm_trie<lpm_key4>;
extern template class lpm_trie<lpm_key6>;

}  // namespace cowire
