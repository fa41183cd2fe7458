// SPDX-License-Identifier: Apache-2.0
/// What the TX core reads: one immutable version of every decision, made by the compiler, published
/// by the publisher.
///
///     flow class --> LPM trie --> path list --> hop (header template) --> egress slot
///                    (per class)   (shared by all prefixes with the same next hops)
///
/// Everything reachable from a forwarding_table is immutable and shared between versions; it is
/// freed through the epoch domain after the last reader left. Readers: any thread that is inside
/// the epoch, without locks, waits or retries. The three levels give prefix-independent
/// convergence: a new MAC address replaces a hop and the path lists that name it, never a trie
/// node.
///
/// A decision that the fast path does not serve is a hop too: the first divert_reason_count hop
/// ids, and the path list ids of the same numbers, mean "divert for this reason". So a trie without
/// a match (value 0) is the path list of divert_reason::no_route, and nothing in the hot loop asks
/// whether there was a route.
#pragma once

#include <cowire/base/reason.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/lpm.hpp>
#include <cowire/route/multipath_hash.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace cowire {

/// Bytes reserved in front of every payload for headers; a template is copied whole, so this is
/// also its size.
inline constexpr std::size_t header_capacity = 128;
/// The UDP header always ends at the payload.
inline constexpr std::size_t udp_header_offset = header_capacity - 8;
/// The 16 bytes that end at the UDP header: all of an IPv6 destination, or an IPv4 destination in
/// the last four.
inline constexpr std::size_t destination_offset = udp_header_offset - 16;

/// Index of an AF_XDP socket in a TX core. Slot 0 is the kernel path.
using egress_slot = std::uint16_t;
inline constexpr egress_slot divert_slot = 0;

/// So many tunnels inside each other have a place in a template.
inline constexpr std::size_t outer_headers_max = 2;

/// A resolved next hop as a header template, right-aligned: the frame starts at
/// header[header_capacity - header_length] and the payload follows header[header_capacity].
///
/// The writer copies all of `header`, ORs the destination into its (zero) place, and patches the
/// fields below. A field that this hop lacks has an offset below the frame's start: the store lands
/// in dead bytes and nobody branches. Sums are ones' complement sums of native 16-bit loads, not
/// folded (base/checksum.hpp).
struct alignas(64) hop {
  std::byte header[header_capacity];

  // The writer loads each of these two groups as one vector, a lane for each header that has such
  // a field: keep their order.
  std::uint32_t ip_sum;   ///< IPv4 header without total length, destination and checksum.
  std::uint32_t udp_sum;  ///< Pseudo header without destination and length (source, protocol).
  std::uint32_t outer_sum[outer_headers_max];  ///< IPv4: as ip_sum, the destination included.
  std::uint16_t
      length_base;  ///< Host order; 28 for IPv4 (total length), 8 for IPv6 (payload length).
  std::uint16_t udp_length_base = 8;                   ///< Likewise for the UDP header.
  std::uint16_t outer_length_base[outer_headers_max];  ///< Likewise; the payload is added to it.

  std::uint16_t max_payload;     ///< Longer payloads are diverted as exceeds_mtu.
  egress_slot egress;            ///< divert_slot, or the socket that sends it.
  std::uint8_t header_length;    ///< Bytes in front of the payload; at most header_capacity.
  std::uint8_t length_offset;    ///< Where the IP length goes (be16).
  std::uint8_t checksum_offset;  ///< Where the IPv4 header checksum goes.
  // Those of the outer IP headers of a tunnelled datagram, from the inside out.
  std::uint8_t outer_length_offset[outer_headers_max];
  std::uint8_t outer_checksum_offset[outer_headers_max];
  divert_reason reason;           ///< Why, where egress is divert_slot.
  std::uint32_t interface_index;  ///< Egress ifindex, for accounting; 0 for diverts.
};
static_assert(sizeof(hop) == 192);

/// A hop group, or one hop: `count` members. With one, `index` is its hop id; with several, the
/// index of a hop_group.
struct path_list {
  std::uint32_t index = 0;
  std::uint32_t count = 1;
  friend bool operator==(const path_list&, const path_list&) noexcept = default;
};

/// ECMP by hash threshold as the kernel does it: the first member whose bound is not below the
/// 31-bit flow hash; dead members are not listed. Bounds rise; the last one is 0x7fffffff.
struct hop_group_member {
  std::uint32_t bound = 0;
  std::uint32_t hop = 0;
};

/// One version. Trivially destructible; the compiler owns what the pointers lead to.
struct forwarding_table {
  static constexpr std::uint32_t path_list_chunk = 256;

  /// One compiled overlay of all tables that a flow class can reach.
  struct class_table {
    lpm_view<lpm_key4> v4;
    lpm_view<lpm_key6> v6;
    /// As the class asks for them, zero where the kernel chooses: what the multipath hash sees.
    std::array<std::uint8_t, 4> source_v4{};
    std::array<std::uint8_t, 16> source_v6{};
  };

  std::uint64_t version = 0;
  const class_table* class_tables = nullptr;  ///< Indexed by class_index[flow_class_id].
  const std::uint16_t* class_index =
      nullptr;                    ///< Classes that no rule tells apart share a class_table.
  std::uint32_t class_count = 0;  ///< Entries of class_index.
  const path_list* const* path_list_chunks = nullptr;
  const hop* hops = nullptr;  ///< Stable base: a hop id keeps its address while in use.
  const hop_group_member* const* groups =
      nullptr;  ///< Group index -> members; path_list::count says how many.
  multipath_hash hash_v4, hash_v6;

  [[nodiscard]] const class_table& table_of(flow_class_id id) const noexcept {
    return class_tables[class_index[id]];
  }
  [[nodiscard]] const path_list& path_list_of(std::uint32_t id) const noexcept {
    return path_list_chunks[id / path_list_chunk][id % path_list_chunk];
  }
};

/// The member of a group for a 31-bit flow hash.
[[nodiscard]] inline std::uint32_t select_member(const hop_group_member* members,
                                                 std::uint32_t count,
                                                 std::uint32_t hash31) noexcept {
  std::uint32_t i = 0;
  while (i + 1 < count && members[i].bound < hash31) ++i;
  return members[i].hop;
}

}  // namespace cowire
