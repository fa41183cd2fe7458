// SPDX-License-Identifier: Apache-2.0
/// What the core remembers of flows: the hop that trie, path list and group gave to the last
/// datagram with the same class, family, destination and ports.
///
/// The key is all that a decision depends on, as it lies in a request, so a hit is the very hop
/// that a look-up would give. It holds for one published table only: entries carry the number of
/// the table's generation, a number of the core's own that rises with each publication, so nothing
/// is cleared and nothing of another table is found. Diverts are hops like any others.
///
/// Where nearly every flow is new, remembering is work for nothing: a miss costs about as much as a
/// hit saves. So a miss takes one of a credit, a hit gives one back, and without credit 15 of 16
/// batches do without the cache. The credit suffices to fill the cache once: after a publication
/// all flows in use are learnt again, unless publications come faster than they pay.
///
/// Eight entries of 32 bytes make a set, whose tags lie elsewhere and are compared at once: which
/// of them is right would be a branch that nobody predicts. Belongs to the core thread.
#pragma once

#include <cowire/route/forwarding_table.hpp>
#include <cowire/xdp/tx_core.hpp>
#include <cowire/xdp/tx_request.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace cowire::detail {

/// Those of a run of requests that are not known, by their places in it.
struct unknown_requests {
  std::uint32_t count = 0;
  std::array<std::uint8_t, tx_batch> at;
};
static_assert(tx_batch <= 256);

class flow_cache {
 public:
  /// As a request from `frame` on, which gives way to the generation, and so does `sender` to the
  /// hop.
  struct alignas(32) entry {
    std::uint32_t generation;  ///< Of the table; 0 is none's.
    std::uint32_t trie_key;    ///< Flow class and family.
    std::byte flow[20];        ///< Destination and ports.
    std::uint32_t hop_offset;  ///< In bytes, from forwarding_table::hops.

    [[nodiscard]] bool is_of(std::uint32_t at_generation,
                             const tx_request& request) const noexcept {
      return generation == at_generation &&
             std::memcmp(&trie_key, &request.flow_class, sizeof trie_key + sizeof flow) == 0;
    }
  };
  static_assert(sizeof(entry) == 32);
  static constexpr std::size_t ways = 8;
  /// The tags of the flows in a set; no more than a hint which entry to look at.
  struct alignas(32) tags {
    std::uint32_t of[ways];
  };

  static_assert(sizeof(entry) == 8 * sizeof(std::uint32_t));

  /// At most so many bytes of entries, a power of two of sets; fewer than one set: nothing is
  /// remembered. Tags come on top, an eighth.
  /// `generation`: the one before the first, for tests of what follows the last number.
  explicit flow_cache(std::size_t bytes, std::uint32_t generation = 0);

  /// Half of the processor's second-level cache, the other half being for headers, hops and rings;
  /// within bounds.
  [[nodiscard]] static std::size_t default_bytes() noexcept;

  /// Whether the next batch, under this table, is to be looked for.
  [[nodiscard]] bool asks(const forwarding_table& table) noexcept {
    if (table.publication != publication_) [[unlikely]]
      begin(table.publication);
    if (pause_ == 0) [[likely]]
      return true;
    if (pause_ != for_ever) --pause_;
    return false;
  }
  /// Of a batch that was: how many were not found. Returns whether a pause begins.
  [[nodiscard]] bool settle(std::uint32_t found, std::uint32_t missing) noexcept;

  /// The hops of those of at most tx_batch requests whose flow is known under the table that asks()
  /// was told; the others are `unknown`.
  void find(std::span<const tx_request> requests, const hop* first_hop, const hop** hops,
            unknown_requests& unknown) const noexcept;
  /// In place of what it knew of the flow, of something that is not of this table, or of any other
  /// flow of the set.
  void remember(const tx_request& request, const hop* via, const hop* hops) noexcept;

 private:
  static constexpr std::size_t credit_limit = std::size_t{1} << 20;
  static constexpr std::uint32_t pause_batches = 15;
  static constexpr std::uint32_t for_ever = 0xffffffff;

  void begin(std::uint64_t publication) noexcept;
  [[nodiscard]] const entry* find_one(const tx_request& request) const noexcept;
  void find_portably(std::span<const tx_request> requests, const hop* first_hop, const hop** hops,
                     unknown_requests& unknown) const noexcept;
  void find_newer(std::span<const tx_request> requests, const hop* first_hop, const hop** hops,
                  unknown_requests& unknown) const noexcept;

  std::vector<tags> tags_;
  std::vector<entry> entries_;
  std::uint64_t tags_mask_ = 0;  ///< Of a flow hash: the offset of its set's tags.
  std::uint32_t turn_ = 0;       ///< Whose entry gives way.
  std::uint64_t publication_ = 0;
  std::uint32_t generation_ = 0;
  std::uint32_t pause_ = 0;  ///< Batches that do without.
  std::int32_t credit_max_;
  std::int32_t credit_;
};

static_assert(offsetof(flow_cache::entry, trie_key) ==
                  offsetof(tx_request, flow_class) - offsetof(tx_request, frame) &&
              offsetof(flow_cache::entry, flow) ==
                  offsetof(tx_request, destination) - offsetof(tx_request, frame) &&
              offsetof(flow_cache::entry, hop_offset) ==
                  offsetof(tx_request, sender) - offsetof(tx_request, frame));

}  // namespace cowire::detail
