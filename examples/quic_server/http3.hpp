// SPDX-License-Identifier: Apache-2.0
/// As much of HTTP/3 (RFC 9114) as a server needs that has one document, and gives it to whoever
/// asks for anything: it reads no request, and says 200.
#pragma once

#include "connection.hpp"

#include <cstdint>
#include <vector>

namespace quic {

/// Frame types, and the type of a control stream.
inline constexpr std::uint8_t h3_data = 0, h3_headers = 1, h3_settings = 4, h3_control = 0;

/// A number as QUIC writes it (RFC 9000, 16).
inline void append_varint(std::vector<std::byte>& to, std::uint64_t number) {
  const int power = number < 64 ? 0 : number < 16'384 ? 1 : number < 1 << 30 ? 2 : 3;
  for (int i = (1 << power) - 1; i >= 0; --i)
    to.push_back(static_cast<std::byte>(number >> 8 * i & 0xff));
  to[to.size() - (std::size_t{1} << power)] |= static_cast<std::byte>(power << 6);
}

/// Opens the control stream, with settings as they are without: no dynamic table of QPACK.
inline void send_settings(connection& on) {
  on.send(on.open(false), {std::byte{h3_control}, std::byte{h3_settings}, std::byte{0}}, 0, false);
}

class http3_server final : public protocol {
 public:
  explicit http3_server(std::uint64_t bytes) : bytes_(bytes) {}

  void established(connection& on) override { send_settings(on); }
  void received(connection& on, std::int64_t stream, std::span<const std::byte>,
                bool last) override {
    if (!last || ngtcp2_is_bidi_stream(stream) == 0) return;
    // HEADERS of three bytes: no dynamic table, and entry 25 of the static one, `:status: 200`
    // (RFC 9204, 4.5.1, 4.5.2 and appendix A). Then DATA.
    std::vector<std::byte> head = {std::byte{h3_headers}, std::byte{3},         std::byte{0},
                                   std::byte{0},          std::byte{0xc0 | 25}, std::byte{h3_data}};
    append_varint(head, bytes_);
    on.send(stream, std::move(head), bytes_, true);
    ++answered_;
  }
  [[nodiscard]] std::uint64_t answered() const noexcept { return answered_; }

 private:
  std::uint64_t bytes_, answered_ = 0;
};

}  // namespace quic
