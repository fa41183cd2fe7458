// SPDX-License-Identifier: Apache-2.0
/// Asks the kernel's connection tracking, many questions at a time.
///
/// Never waits: nfnetlink does what a request says within send(), so that its answer is there when
/// the call returns. Network namespace: that of the thread that constructs it. One thread at a
/// time.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/netlink/conntrack_codec.hpp>

#include <cstddef>
#include <functional>
#include <system_error>
#include <vector>

namespace cowire::netlink {

struct conntrack_answer {
  std::uint32_t sequence = 0;
  int error_number = 0;  ///< Positive errno; 0: `entry` is the answer, or it was done.
  std::optional<conntrack_entry> entry;
};

class conntrack_socket {
 public:
  /// As many questions as their answers have room for in the socket's buffer, whatever they are.
  static constexpr std::size_t batch_max = 64;

  /// Without a socket, and with the reason, where the kernel gives none.
  explicit conntrack_socket(std::error_code& ec) noexcept;

  /// Sends up to batch_max requests and hands on what is answered. Errors: what send() answered
  /// (nothing was asked), ENOBUFS (some answers are lost), error::malformed.
  void exchange(const conntrack_batch& batch,
                const std::function<void(const conntrack_answer&)>& visit, std::error_code& ec);

 private:
  unique_fd fd_;
  std::vector<std::byte> buffer_;
};

}  // namespace cowire::netlink
