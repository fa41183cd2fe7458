// SPDX-License-Identifier: Apache-2.0
/// How much memory this process may lock: each AF_XDP socket registers the whole umem for itself
/// (docs/decisions.md), and every registration counts.
///
/// The kernel adds up what all processes of the user have registered, and answers ENOBUFS when that
/// goes over RLIMIT_MEMLOCK of the one that asks, unless it has CAP_IPC_LOCK
/// (xdp_umem_account_pages in net/xdp/xdp_umem.c). Any thread; reads the kernel each time.
#pragma once

#include <cstdint>
#include <string>

namespace cowire {

struct locked_memory {
  bool exempt = false;            ///< CAP_IPC_LOCK is effective: there is no limit.
  std::uint64_t limit_bytes = 0;  ///< RLIMIT_MEMLOCK, soft; the largest number = none.

  [[nodiscard]] bool allows(std::uint64_t bytes) const noexcept {
    return exempt || bytes <= limit_bytes;
  }
  /// "not limited", or "8192 KiB".
  [[nodiscard]] std::string to_string() const;
};

[[nodiscard]] locked_memory read_locked_memory() noexcept;

/// What to do so that `bytes` can be locked, in the words of shells and systemd.
[[nodiscard]] std::string locked_memory_remedy(std::uint64_t bytes);

}  // namespace cowire
