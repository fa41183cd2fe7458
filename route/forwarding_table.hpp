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
#include <cowire/route/port_ranges.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

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
using egress_slot = std::uint8_t;
inline constexpr egress_slot divert_slot = 0;
/// Added to the slot of hops whose datagrams may leave only while the kernel's connection tracking
/// has an entry for their flow, and for its outer headers where those are tracked, of which the TX
/// core knows (xdp/tracked_flows.hpp). Above all
/// slots: where nobody looks for it there is no socket of that number.
inline constexpr egress_slot tracked_egress = 64;

/// So many tunnels inside each other have a place in a template.
inline constexpr std::size_t outer_headers_max = 2;

/// Marks a byte of a template to which no field is added.
inline constexpr std::uint8_t no_field = 0x80;

/// The checksum of a GRE header, which covers the datagram inside. Because the sums of an IPv4
/// header and of a UDP datagram with its pseudo header are zero, it depends on no byte of the
/// payload; on its length where an IPv6 header is between the two.
struct gre_checksum {
  std::uint32_t sum;    ///< Ones' complement sum, not folded, of what is the same for all.
  std::uint8_t offset;  ///< In the header template.
  /// The destination and the UDP length are to be taken away from `sum`: the pseudo header's.
  bool without_pseudo_header;
  bool with_length;   ///< The payload's length is to be added: of a tunnel over IPv6 inside.
  std::uint8_t zero;  ///< Always: what has no name is not copied by all compilers.
  friend bool operator==(const gre_checksum&, const gre_checksum&) noexcept = default;
};

/// A resolved next hop as a header template, right-aligned: the frame starts at
/// header[header_capacity - header_length] and the payload follows header[header_capacity].
///
/// What differs from datagram to datagram is zero in `header`. The writer computes the *fields*
/// of a datagram, four pairs of a length and a checksum, for whatever headers the hop may have, and
/// `field_at` says where each of their bytes goes. A field that this hop lacks goes nowhere, and
/// nobody branches.
struct alignas(64) hop {
  /// The headers that have a length and a checksum of their own, in order of their pairs.
  enum field_pair : std::uint8_t { ip_pair, udp_pair, outer_pair };
  static constexpr std::size_t pair_count = outer_pair + outer_headers_max;

  std::byte header[header_capacity];
  /// For each byte of `header`: the number of the byte of the fields that is added, or no_field.
  /// Pair i has its length in bytes 4 * i and 4 * i + 1, its checksum in the next two.
  std::uint8_t field_at[header_capacity];

  /// By pair, ones' complement sums of native 16-bit loads, not folded (base/checksum.hpp). IP: the
  /// IPv4 header without total length, destination and checksum. UDP: the pseudo header without
  /// destination and length (source, protocol), and 1, for which frame_writer.hpp has the reason.
  /// Outer: the IPv4 header without total length and checksum.
  std::uint32_t sum[pair_count];
  /// By pair, host order: what the length is where the payload has none.
  std::uint16_t length_base[pair_count];

  std::uint16_t max_payload;   ///< Longer payloads are diverted as exceeds_mtu.
  egress_slot egress;          ///< divert_slot, or the socket that sends it, maybe tracked_egress.
  std::uint8_t second_pass;    ///< What is rare, and written in a second pass: second_passes.
  std::uint8_t header_length;  ///< Bytes in front of the payload; at most header_capacity.
  union {
    divert_reason reason;     ///< Why, where egress is divert_slot.
    std::uint8_t outer_flow;  ///< Of a tracked hop: what else is (outer_flows::number).
  };
  /// Of a hop that diverts some destination ports only, or of a tracked one that need not be so for
  /// all: as `egress`, for those that `ports` passes, whose frames are written like any other's.
  /// divert_slot: all are alike. So nobody looks at a port but on the way to the kernel path, or to
  /// the flows that are tracked.
  egress_slot egress_of_ports;
  bool ports_inside;              ///< port_filter::inside of `ports`.
  std::uint32_t interface_index;  ///< Egress ifindex, for accounting; 0 for diverts.
  /// What the headers add to the address, and to the length, of a descriptor of the payload alone.
  std::int32_t descriptor_shift[2];
  union {  // Both are rare, and there is room for one.
    gre_checksum gre_checksums[outer_headers_max];
    port_ranges ports;  ///< Where egress_of_ports is not divert_slot.
  };
  std::uint8_t gre_checksum_count;  ///< Of `gre_checksums`.
  /// Where in `header` the MAC address is that each multicast group has of its own, the last four
  /// bytes of which are the datagram's; 0 = it is complete.
  std::uint8_t group_mac_at;
  /// Outer IP headers whose ECN bits follow those of the datagram, from the inside, by their places
  /// in `header`; 0 = no more. With ecn_copied all codepoints do, without it a congestion mark
  /// starts anew outside (RFC 6040, 4.1). The first is ecn_by_kernel where more than that depends
  /// on the codepoint: only datagrams with that of the class take this hop.
  std::uint8_t ecn_at[outer_headers_max];
  static constexpr std::uint8_t ecn_copied = 0x80, ecn_by_kernel = 0x7f;
  static_assert(header_capacity == ecn_copied);

  /// Flags of `second_pass`.
  enum second_passes : std::uint8_t {
    long_headers = 1,
    with_gre_checksums = 2,
    with_group_mac = 4
  };
  /// Longer headers are rare: an IPv4 datagram in two GRE tunnels has 90 bytes of them.
  static constexpr std::size_t near_capacity = 96;

  /// Says all that follows from the headers' length, gre_checksum_count and group_mac_at. Call it
  /// last.
  void set_header_length(std::size_t length) noexcept {
    header_length = static_cast<std::uint8_t>(length);
    descriptor_shift[0] = -static_cast<std::int32_t>(length);
    descriptor_shift[1] = static_cast<std::int32_t>(length);
    second_pass = static_cast<std::uint8_t>((length > near_capacity ? long_headers : 0) |
                                            (gre_checksum_count != 0 ? with_gre_checksums : 0) |
                                            (group_mac_at != 0 ? with_group_mac : 0));
  }
  /// Nothing is added anywhere. Call it first.
  void clear_fields() noexcept { std::memset(field_at, no_field, sizeof field_at); }
  /// The place of a pair's length, or of its checksum, in `header`.
  void place_length(std::size_t pair, std::size_t offset) noexcept { place(4 * pair, offset); }
  void place_checksum(std::size_t pair, std::size_t offset) noexcept {
    place(4 * pair + 2, offset);
  }

  [[nodiscard]] bool is_tracked() const noexcept { return egress >= tracked_egress; }

  [[nodiscard]] bool diverts_all_ports() const noexcept {
    return egress == divert_slot && egress_of_ports == divert_slot;
  }
  /// Where datagrams to this port (host order) go; divert_slot = to the kernel path.
  [[nodiscard]] egress_slot egress_for(std::uint16_t port) const noexcept {
    const bool passes =
        egress_of_ports != divert_slot && port_filter{ports, ports_inside}.passes(port);
    return passes ? egress_of_ports : egress;
  }

  /// The same, for datagrams to this port alone: no ports are told apart any more.
  [[nodiscard]] hop for_port(std::uint16_t port) const noexcept {
    if (egress_of_ports == divert_slot) return *this;
    hop one = *this;
    one.egress = egress_for(port);
    one.egress_of_ports = divert_slot;
    for (gre_checksum& unused : one.gre_checksums) unused = {};
    one.ports_inside = false;
    return one;
  }

  friend bool operator==(const hop& a, const hop& b) noexcept {
    // Unused bytes and the union's other side are zero, and copied with the rest.
    // NOLINTNEXTLINE(bugprone-suspicious-memory-comparison)
    return std::memcmp(&a, &b, sizeof(hop)) == 0;
  }

 private:
  void place(std::size_t field, std::size_t offset) noexcept {
    field_at[offset] = static_cast<std::uint8_t>(field);
    field_at[offset + 1] = static_cast<std::uint8_t>(field + 1);
  }
};
static_assert(sizeof(hop) == 320);
// Of its unions' sides each byte has a name; so have all others.
static_assert(std::has_unique_object_representations_v<gre_checksum> &&
              std::has_unique_object_representations_v<port_ranges> &&
              offsetof(hop, ecn_at) + sizeof(hop::ecn_at) == sizeof(hop));

/// How a group's member is chosen.
enum class group_kind : std::uint8_t { by_threshold, by_bucket, by_slave };

/// A group of hops, or one hop: `count` members. With one, `index` is its hop id; with several, the
/// place of its members in forwarding_table::groups.
struct path_list {
  /// The kernel counts members and buckets in 16 bits, too.
  static constexpr std::uint32_t count_max = 0xffff;

  std::uint32_t index = 0;
  std::uint16_t count = 1;
  group_kind kind = group_kind::by_threshold;
  friend bool operator==(const path_list&, const path_list&) noexcept = default;
};

/// ECMP as the kernel does it. By hash threshold: the first member whose bound is not below the
/// 31-bit flow hash; dead members are not listed; bounds rise, the last one is 0x7fffffff. By
/// bucket (resilient groups): the hash modulo the number of buckets is the member's place, and its
/// bound. By slave (a bond): the first member is a slave_rule, the others are one hop for each
/// slave that is usable, in the bond's order.
///
/// A member of the former two may itself be a group by slave: `hop` is its place in
/// forwarding_table::groups then, with slave_group set.
struct hop_group_member {
  static constexpr std::uint32_t slave_group = 0x80000000u;
  std::uint32_t bound = 0;
  std::uint32_t hop = 0;
};

/// Addresses and ports as bonding hashes them: 32-bit words as they lie, exclusive-ored.
[[nodiscard]] inline std::uint32_t fold_address(std::span<const std::byte> network_order) noexcept {
  std::uint32_t folded = 0;
  for (std::size_t i = 0; i < network_order.size(); i += 4) {
    std::uint32_t word;
    std::memcpy(&word, network_order.data() + i, sizeof word);
    folded ^= word;
  }
  return folded;
}

[[nodiscard]] inline std::uint32_t fold_address(const ip_address& address) noexcept {
  return fold_address(std::as_bytes(std::span(address.bytes().data(), address.size())));
}

/// Of a datagram, what the choice of a slave looks at.
struct slave_terms {
  std::uint32_t destination = 0;  ///< fold_address() of it.
  std::uint32_t ports = 0;        ///< Source, then destination, as they lie in the UDP header.
  std::uint8_t last_byte = 0;     ///< Of the destination; a group's MAC address ends with it, too.
};

/// slave_terms::ports of two ports.
[[nodiscard]] inline std::uint32_t ports_word(be16 source, be16 destination) noexcept {
  const be16 both[2] = {source, destination};
  std::uint32_t word;
  std::memcpy(&word, both, sizeof word);
  return word;
}

[[nodiscard]] inline slave_terms slave_terms_of(const ip_address& destination, be16 from_port,
                                                be16 to_port) noexcept {
  return {fold_address(destination), ports_word(from_port, to_port),
          destination.bytes()[destination.size() - 1]};
}

/// Which slave of a bond a datagram takes: `constant` stands for all of the frame that is the same
/// for all datagrams (drivers/net/bonding/bond_main.c: bond_xmit_hash, bond_ip_hash).
struct slave_rule {
  std::uint32_t constant = 0;
  bool mixed = false;
  bool by_destination = false;
  bool by_ports = false;
  bool without_lowest_bit = false;
  bool by_last_byte = false;

  [[nodiscard]] std::uint32_t hash(const slave_terms& of) const noexcept {
    std::uint32_t value = constant;
    if (by_destination) value ^= of.destination;
    if (by_ports) value ^= of.ports;
    if (by_last_byte) value ^= of.last_byte;
    if (mixed) {
      value ^= value >> 16;
      value ^= value >> 8;
    }
    return without_lowest_bit ? value >> 1 : value;
  }
  /// Whether every datagram takes the same slave.
  [[nodiscard]] bool is_fixed() const noexcept {
    return !by_destination && !by_ports && !by_last_byte;
  }

  [[nodiscard]] hop_group_member as_member() const noexcept {
    return {constant, std::uint32_t{mixed} | std::uint32_t{by_destination} << 1 |
                          std::uint32_t{by_ports} << 2 | std::uint32_t{without_lowest_bit} << 3 |
                          std::uint32_t{by_last_byte} << 4};
  }
  [[nodiscard]] static slave_rule from(const hop_group_member& member) noexcept {
    return {member.bound,          (member.hop & 1) != 0, (member.hop & 2) != 0,
            (member.hop & 4) != 0, (member.hop & 8) != 0, (member.hop & 16) != 0};
  }
  friend bool operator==(const slave_rule&, const slave_rule&) noexcept = default;
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
  /// Tells it from all other tables of its publisher, past ones whose memory it may have included:
  /// what readers remember of a table is right as long as this is the same. From 1.
  std::uint64_t publication = 0;
  const class_table* class_tables = nullptr;  ///< Indexed by class_index[flow_class_id].
  const std::uint16_t* class_index =
      nullptr;                    ///< Classes that no rule tells apart share a class_table.
  std::uint32_t class_count = 0;  ///< Entries of class_index.
  const path_list* const* path_list_chunks = nullptr;
  const hop* hops = nullptr;  ///< Stable base: a hop id keeps its address while in use.
  const hop_group_member* const* groups =
      nullptr;  ///< Group index -> members; path_list::count says how many.
  const std::uint16_t* group_sizes = nullptr;  ///< As many.
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
                                                 const path_list& list,
                                                 std::uint32_t hash31) noexcept {
  if (list.kind == group_kind::by_bucket) return members[hash31 % list.count].hop;
  std::uint32_t i = 0;
  while (i + 1u < list.count && members[i].bound < hash31) ++i;
  return members[i].hop;
}

/// The hop of a group by slave; `count` as in path_list.
[[nodiscard]] inline std::uint32_t select_slave(const hop_group_member* group, std::uint32_t count,
                                                const slave_terms& terms) noexcept {
  return group[1 + slave_rule::from(group[0]).hash(terms) % (count - 1)].hop;
}

/// The hop id of a flow that a path list has several members for.
/// `terms` gives its slave_terms, `hash31` its multipath hash; each is only called where that
/// matters.
template <class Terms, class Hash>
[[nodiscard]] std::uint32_t select_hop(const forwarding_table& table, const path_list& list,
                                       Terms&& terms, Hash&& hash31) noexcept {
  if (list.kind == group_kind::by_slave)
    return select_slave(table.groups[list.index], list.count, terms());
  const std::uint32_t chosen = select_member(table.groups[list.index], list, hash31());
  if ((chosen & hop_group_member::slave_group) == 0) return chosen;
  const std::uint32_t group = chosen & ~hop_group_member::slave_group;
  return select_slave(table.groups[group], table.group_sizes[group], terms());
}

}  // namespace cowire
