// SPDX-License-Identifier: Apache-2.0
/// The requests that cowire sends to rtnetlink, as bytes ready to write.
///
/// Pure functions, no I/O. Every request carries the sequence number by which its answer is known.
#pragma once

#include <cowire/netlink/message.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace cowire::netlink {

/// What can be dumped. In the order of `message`'s alternatives.
enum class object_kind : std::uint8_t {
  link,
  address,
  route,
  rule,
  neighbour,
  nexthop,
  nexthop_bucket,
  netconf,
  membership
};
inline constexpr std::size_t object_kind_count = std::variant_size_v<message>;

[[nodiscard]] object_kind kind_of(const message& m) noexcept;
[[nodiscard]] std::optional<ip_family> family_of(const message& m) noexcept;

/// Which objects of a kind. Defaults select all.
struct dump_filter {
  std::optional<ip_family>
      family;  ///< Required for netconf and memberships; meaningless for links, nexthops and their
               ///< buckets.
  std::uint32_t table = 0;      ///< Routes of this table only.
  std::uint32_t interface = 0;  ///< Addresses, neighbours, nexthops, routes of this ifindex.
  friend bool operator==(const dump_filter&, const dump_filter&) = default;
};

/// A kind of object and which of them.
struct dump_scope {
  object_kind kind = object_kind::link;
  dump_filter filter;
  friend bool operator==(const dump_scope&, const dump_scope&) = default;
};

/// Whether a message would pass the filter. Kernels without strict checking dump more than asked,
/// so whoever reads a filtered dump checks again.
[[nodiscard]] bool matches(const dump_filter& filter, const message& m) noexcept;

/// False for what shares a message type with forwarding state and is none: cache entries cloned
/// from a route (RTM_F_CLONED), neighbours that this host answers for (NTF_PROXY).
[[nodiscard]] bool is_forwarding_state(const message& m) noexcept;

/// Whether a dump that ends with this errno selected nothing the kernel has: no such interface or
/// table, or a kind or family that it was built without.
[[nodiscard]] bool means_none(int error_number) noexcept;

/// RTM_GET* with NLM_F_DUMP. The kernel honours table and interface only on a socket with
/// NETLINK_GET_STRICT_CHK.
[[nodiscard]] std::vector<std::byte> dump_request(object_kind kind, const dump_filter& filter,
                                                  std::uint32_t sequence);

/// A question to RTM_GETROUTE: "how would you send this?"
struct route_query {
  ip_address destination;
  std::optional<ip_address> source;
  std::uint32_t output_interface = 0;
  std::uint32_t mark = 0;
  std::uint8_t tos = 0;
  std::optional<std::uint8_t> ip_protocol;  ///< IPv4: absent means UDP to the kernel.
  std::optional<std::uint16_t> source_port, destination_port;
  std::optional<std::uint32_t> uid;  ///< Absent = the asking process's effective uid.
  bool fib_match = false;    ///< Answer the matching route itself, not the cloned host entry.
  bool lookup_table = true;  ///< Answer the table of the match; else always main.
};

[[nodiscard]] std::vector<std::byte> route_request(const route_query& query,
                                                   std::uint32_t sequence);

/// RTM_GETLINK of one device.
[[nodiscard]] std::vector<std::byte> link_request(std::uint32_t index, std::uint32_t sequence);

/// RTM_NEWNEIGH with NTF_USE: has the kernel resolve or re-validate `known`'s address, as a packet
/// sent to it would. It stays externally learned if it was. Never for a PERMANENT or managed entry:
/// the poke strips it of that state.
[[nodiscard]] std::vector<std::byte> neighbour_poke(const neighbour& known, std::uint32_t sequence);

/// RTM_NEWLINK that makes a device of `wanted`'s kind with its name and `info`, its MTU unless that
/// is 0, up if its flags have IFF_UP; nothing else is looked at. The kernel answers EEXIST where
/// the name is taken, or another tunnel of the type has the same end points, device and input key.
[[nodiscard]] std::vector<std::byte> create_link(const link& wanted, std::uint32_t sequence);

/// RTM_NEWLINK that gives the existing device of index and kind `wanted` its `info`, and its MTU
/// unless that is 0. All of a tunnel's attributes are sent: the kernel starts from zero.
[[nodiscard]] std::vector<std::byte> change_link(const link& wanted, std::uint32_t sequence);

/// RTM_NEWLINK that gives a device an alias, and changes nothing else.
[[nodiscard]] std::vector<std::byte> set_alias(std::uint32_t index, const std::string& alias,
                                               std::uint32_t sequence);

/// RTM_DELLINK of one device.
[[nodiscard]] std::vector<std::byte> remove_link(std::uint32_t index, std::uint32_t sequence);

}  // namespace cowire::netlink
