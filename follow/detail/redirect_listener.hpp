// SPDX-License-Identifier: Apache-2.0
/// Hears of the ICMP redirects that this host receives, just before the kernel acts on them.
///
/// Ring thread. Network namespace: the one in which the socket was opened.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/datagram_source.hpp>
#include <cowire/ring/ring_context.hpp>

#include <functional>
#include <utility>

namespace cowire::detail {

/// A raw socket that hears of ICMP redirects and nothing else; none, and errno, without
/// CAP_NET_RAW.
[[nodiscard]] unique_fd open_redirects(ip_family family);

class redirect_listener {
 public:
  /// `fd` is open_redirects()'s, of that family.
  redirect_listener(ring_context& ring, ip_family family, unique_fd fd)
      : family_(family), fd_(std::move(fd)), redirects_(ring, fd_.get(), {.buffer_count = 32}) {}

  /// Waits for redirects; hands over the destinations that they are about, one by one. False when
  /// nothing more can be heard.
  [[nodiscard]] awaitable<bool> receive(std::function<void(const ip_address& destination)> take);
  /// A waiting receive() ends.
  void cancel() { redirects_.cancel(); }

 private:
  const ip_family family_;
  const unique_fd fd_;
  datagram_source redirects_;
};

}  // namespace cowire::detail
