// SPDX-License-Identifier: Apache-2.0
/// The XDP program that some drivers need before they send from AF_XDP with zero-copy: it passes
/// every packet.
///
/// It is attached through a bpf_link, which the kernel takes away with the last file descriptor:
/// whatever ends the process (SIGKILL included) leaves the interface without a program. Somebody
/// else's program is never replaced.
#pragma once

#include <cowire/base/forked.hpp>

#include <cstdint>
#include <string>
#include <system_error>

namespace cowire {

enum class xdp_program_mode : std::uint8_t { native, generic };

/// Owns the attachment. Any thread, one at a time.
class xdp_pass_program {
 public:
  /// Loads and attaches. Throws std::system_error naming the interface: EBUSY or EEXIST with the id
  /// of the program that is there already, EPERM without CAP_BPF and CAP_NET_ADMIN, EOPNOTSUPP
  /// where the driver has no native XDP.
  xdp_pass_program(std::uint32_t interface_index, xdp_program_mode mode);
  /// The same; on failure `ec` is set and nothing is attached.
  xdp_pass_program(std::uint32_t interface_index, xdp_program_mode mode, std::error_code& ec);
  /// Detaches.
  ~xdp_pass_program() = default;
  xdp_pass_program(xdp_pass_program&&) noexcept = default;
  xdp_pass_program& operator=(xdp_pass_program&&) noexcept = default;

  [[nodiscard]] xdp_program_mode mode() const noexcept { return mode_; }

 private:
  detail::parents_fd link_;
  xdp_program_mode mode_;
};

}  // namespace cowire
