// SPDX-License-Identifier: Apache-2.0
/// Bytes of nfnetlink (nf_tables) to the structs of nft_message.hpp, and the requests.
///
/// As codec.hpp: no I/O, no state, no trust. A length that lies, a register that does not exist, a
/// missing name is an error code. Input needs no alignment. Any thread.
#pragma once

#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/nft_message.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace cowire::netlink::nft {

/// NFNLGRP_NFTABLES: the multicast group that hears of every transaction of user space.
inline constexpr int notification_group = 7;

enum class object_kind : std::uint8_t { table, chain, rule, set, set_elements, object };

/// A message and what its nfgenmsg said.
struct decoded {
  nft::message message;
  std::uint16_t generation_low = 0;  ///< Lower half of the generation that a dump shows.
  /// Of a rule: the handle of the one before it in its chain; 0 = it is the first.
  std::uint64_t position = 0;
};

/// Decodes one message, header included. Empty without error: none of ours (another subsystem, a
/// removal, a kind that is not modelled). Empty with `ec`: error::truncated or error::malformed.
[[nodiscard]] std::optional<decoded> decode(std::span<const std::byte> from, std::error_code& ec);

/// What a notification says of one object. Of removed sets and rules only names and handles are
/// there, of removed elements their keys.
struct change {
  bool removed = false;
  nft::message message;
  std::uint64_t position = 0;  ///< Of a rule: the handle of the one before it; 0 = not said.
  bool appended = false;       ///< Of a rule without a position: it is the last.
};
/// As decode(), for notifications; empty without error also for removals of other objects.
[[nodiscard]] std::optional<change> decode_change(std::span<const std::byte> from,
                                                  std::error_code& ec);

/// Whether a notification ends a transaction, that is whether the ruleset is another one now.
[[nodiscard]] bool ends_transaction(const envelope& notification) noexcept;

/// NFT_MSG_GETGEN; answered by one message.
[[nodiscard]] std::vector<std::byte> generation_request(std::uint32_t sequence);
/// A transaction of nothing. It changes nothing and is not answered, but when send() returns, no
/// transaction that began before it is under way any more (nf_tables_valid_genid() and
/// nf_tables_commit() in net/netfilter/nf_tables_api.c hold one lock).
[[nodiscard]] std::vector<std::byte> settle_request(std::uint32_t sequence);
/// A dump of all objects of a kind, of all families. For elements see the other.
[[nodiscard]] std::vector<std::byte> dump_request(object_kind kind, std::uint32_t sequence);
/// A dump of one set's elements.
[[nodiscard]] std::vector<std::byte> elements_request(const object_key& set,
                                                      std::uint32_t sequence);

}  // namespace cowire::netlink::nft
