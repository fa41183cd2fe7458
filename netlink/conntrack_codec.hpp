// SPDX-License-Identifier: Apache-2.0
/// Entries of the kernel's connection tracking as ctnetlink (NETLINK_NETFILTER) has them: questions
/// by tuple, what is answered, and how an entry's timer is set without a datagram.
///
/// As codec.hpp: no I/O, no state, no trust. Any thread. Source:
/// include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/codec.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cowire::netlink {

/// One direction of a connection. Both addresses are of one family; ports in host order, 0 where
/// the protocol has none.
struct conntrack_tuple {
  ip_address source, destination;
  std::uint16_t source_port = 0, destination_port = 0;
  std::uint8_t protocol = 17;

  /// What an answer to it looks like that nobody translates.
  [[nodiscard]] conntrack_tuple inverse() const noexcept {
    return {destination, source, destination_port, source_port, protocol};
  }
  friend bool operator==(const conntrack_tuple&, const conntrack_tuple&) noexcept = default;
};

/// Bits of conntrack_entry::status, IPS_* of linux/netfilter/nf_conntrack_common.h.
struct conntrack_status {
  static constexpr std::uint32_t seen_reply = 1u << 1, assured = 1u << 2, confirmed = 1u << 3,
                                 source_nat = 1u << 4, destination_nat = 1u << 5,
                                 source_nat_done = 1u << 7, destination_nat_done = 1u << 8;
};

struct conntrack_entry {
  conntrack_tuple original, reply;
  std::uint32_t status = 0;
  /// Whole seconds that it has left, rounded down; unset while a flow table keeps it.
  std::optional<std::uint32_t> timeout_s;
  std::uint32_t mark = 0;
  /// The same for as long as the entry lives; a later one may have it again. 0 = not told.
  std::uint32_t id = 0;
  std::uint16_t zone = 0;  ///< Of either direction.
  bool has_helper = false;
  friend bool operator==(const conntrack_entry&, const conntrack_entry&) noexcept = default;

  /// Whether datagrams of either direction leave with other addresses or ports than they came with.
  [[nodiscard]] bool is_translated() const noexcept {
    return reply != original.inverse() ||
           (status & (conntrack_status::source_nat | conntrack_status::destination_nat)) != 0;
  }
};

/// Requests one behind the other, as one call of send() takes them. Each names an entry by the
/// tuple of either of its directions, in zone 0.
class conntrack_batch {
 public:
  /// Asks for the entry. Answered by it, or by ENOENT.
  void get(const conntrack_tuple& tuple, std::uint32_t sequence);
  /// Sets the time that the entry has left, whatever its policy allows. Answered if it fails only:
  /// ENOENT (there is none), ETIME (it is dying), EPERM (its timeout is fixed).
  void refresh(const conntrack_tuple& tuple, std::uint32_t timeout_s, std::uint32_t sequence);
  /// Removes the entry. Answered if it fails only.
  void remove(const conntrack_tuple& tuple, std::uint32_t sequence);
  /// Removes all entries, of both families, as `conntrack -F` does.
  void flush(std::uint32_t sequence);

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {bytes_.data(), size_}; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  /// Keeps the memory.
  void clear() noexcept { size_ = 0; }

 private:
  void append(std::uint16_t type, ip_family family, const conntrack_tuple* tuple,
              const std::uint32_t* timeout_s, std::uint32_t sequence);
  std::vector<std::byte> bytes_;
  std::size_t size_ = 0;
};

/// Empty without error: another message. With: error::truncated, error::malformed (a tuple is
/// missing, or its addresses are of two families).
[[nodiscard]] std::optional<conntrack_entry> decode_conntrack(const envelope& answer,
                                                              std::error_code& ec);
/// As the kernel would send it, for tests.
[[nodiscard]] std::vector<std::byte> encode_conntrack(const conntrack_entry& entry,
                                                      std::uint32_t sequence);

}  // namespace cowire::netlink
