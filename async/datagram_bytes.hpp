// SPDX-License-Identifier: Apache-2.0
/// Bytes to send, as whoever has them holds them: a span or container of std::byte, an
/// asio::const_buffer or asio::mutable_buffer, a std::string_view or std::string (without a NUL at
/// its end).
///
/// A parameter type: it refers to the bytes and does not own them; who takes it copies them once
/// (sender.hpp, "Bytes"). Of a reference-counted buffer pass what it holds: `*shared`. An array of
/// char is refused, because nobody can tell whether all of it or a string in it is meant.
#pragma once

#include <asio/buffer.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace cowire {

class datagram_bytes {
 public:
  datagram_bytes() noexcept = default;  ///< None: an empty datagram.
  template <class Bytes>
  requires std::convertible_to<const Bytes&, std::span<const std::byte>> datagram_bytes(
      const Bytes& bytes)
  noexcept : bytes_(bytes) {}
  datagram_bytes(std::string_view text) noexcept : bytes_(std::as_bytes(std::span(text))) {}
  datagram_bytes(const std::string& text) noexcept : datagram_bytes(std::string_view(text)) {}
  datagram_bytes(const asio::const_buffer& buffer) noexcept
      : bytes_(static_cast<const std::byte*>(buffer.data()), buffer.size()) {}
  datagram_bytes(const asio::mutable_buffer& buffer) noexcept
      : datagram_bytes(asio::const_buffer(buffer)) {}
  datagram_bytes(const char*) = delete;

  /// All of them; valid as long as what it was made of.
  [[nodiscard]] std::span<const std::byte> span() const noexcept { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace cowire
