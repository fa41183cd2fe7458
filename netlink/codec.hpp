// SPDX-License-Identifier: Apache-2.0
/// Bytes of rtnetlink to the structs of message.hpp and back.
///
/// Nothing here does I/O, keeps state or trusts its input: a length that lies, an attribute of the
/// wrong size or a missing key is an error code, never a crash or a read past the end. Input needs
/// no alignment. All functions may be called from any thread.
///
/// Not for talking to the kernel: request_socket.hpp (blocking) or monitor.hpp (without I/O) do.
#pragma once

#include <cowire/netlink/message.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace cowire::netlink {

/// One netlink message of a datagram, its header taken apart, its content not looked at.
struct envelope {
  std::uint16_t type = 0;            ///< RTM_* or NLMSG_*.
  std::uint16_t flags = 0;           ///< NLM_F_*.
  std::uint32_t sequence = 0;        ///< Of the request that this answers; often 0 on events.
  std::uint32_t port_id = 0;         ///< Of the socket that asked; 0 = the kernel by itself.
  std::span<const std::byte> bytes;  ///< The whole message with its header.

  /// NLM_F_DUMP_INTR: what is dumped changed meanwhile; the dump is worth nothing.
  [[nodiscard]] bool dump_interrupted() const noexcept;
};

/// Takes the next message off the front of `datagram`. Empty at the end (no error), and when the
/// rest is not a netlink message: error::truncated or error::malformed. A valid envelope's bytes
/// point into the datagram.
[[nodiscard]] std::optional<envelope> next_envelope(std::span<const std::byte>& datagram,
                                                    std::error_code& ec) noexcept;

/// What NLMSG_DONE or NLMSG_ERROR report.
struct completion {
  int error_number = 0;    ///< Positive errno; 0 = success.
  std::string diagnostic;  ///< The kernel's extended acknowledgement, often empty.
};

/// Empty for messages of other types, and with `ec` set for malformed ones.
[[nodiscard]] std::optional<completion> decode_completion(const envelope& answer,
                                                          std::error_code& ec);

/// Decodes one message, header included; bytes after its own length are not looked at.
///
/// Empty without error: a message that is none of ours (another type, another address family,
/// a bridge port's or wireless extension's view of a link). Empty with `ec`: error::truncated where
/// the bytes end too early, error::malformed where they contradict themselves or the format.
[[nodiscard]] std::optional<message> decode(std::span<const std::byte> bytes, std::error_code& ec);

/// The message as the kernel would send it: decode(encode(m)) == m for every m that the kernel
/// could have sent. With NLM_F_REQUEST it is also the request that makes or removes the object
/// (request_socket::execute adds that flag). Fields in `unknown` are not encoded.
[[nodiscard]] std::vector<std::byte> encode(const message& m);

}  // namespace cowire::netlink
