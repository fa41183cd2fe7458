// SPDX-License-Identifier: Apache-2.0
/// Follows a ruleset by what the kernel announces of each transaction, where that is single rules
/// and elements, so that one element more of a hundred thousand need not be read with all others.
///
/// Without I/O: datagrams of a socket in notification_group go in. A transaction is followed only
/// if its generation is the next one, all of it was heard, and it is understood; otherwise the
/// ruleset has to be read anew (nft_reader.hpp). Nothing is announced of what packets do to sets.
///
/// One thread at a time. Source: net/netfilter/nf_tables_api.c, nf_tables_rule_notify() and its
/// neighbours.
#pragma once

#include <cowire/netlink/nft_codec.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace cowire::netlink::nft {

class follower {
 public:
  void on_datagram(std::span<const std::byte> datagram);
  /// An announcement was lost: the transaction that is going on is not known whole.
  void on_loss();

  enum class outcome : std::uint8_t {
    unchanged,    ///< No transaction has ended.
    elements,     ///< `rules` has other elements now.
    rules,        ///< And rules, or sets.
    must_be_read  ///< `rules` is as it was, and out of date.
  };
  /// Applies all transactions that have ended, and forgets them.
  [[nodiscard]] outcome follow(ruleset& rules);
  /// Whether there are any.
  [[nodiscard]] bool has_ended() const noexcept { return !ended_.empty(); }

  /// Changes of one transaction that are remembered; with more it is read.
  static constexpr std::size_t changes_max = 4096;

 private:
  struct transaction {
    std::uint32_t generation = 0;
    std::vector<change> changes;
    bool understood = true;
  };
  void keep(const envelope& one);

  std::vector<transaction> ended_;
  transaction open_;
};

}  // namespace cowire::netlink::nft
