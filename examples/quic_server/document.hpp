// SPDX-License-Identifier: Apache-2.0
/// The document that is served, of any length: made up, and known to everybody who checks it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

namespace quic {

/// It repeats itself after a prime number of bytes, so that no piece can be taken for another whose
/// place differs by what buffers and windows are multiples of.
inline constexpr std::size_t document_period = 1'048'573;

/// The bytes from `offset` on, as many as lie in one piece: at least one. They never change.
[[nodiscard]] inline std::span<const std::byte> document_at(std::uint64_t offset) {
  static const std::vector<std::byte> period = [] {
    std::vector<std::byte> bytes(document_period);
    std::mt19937 numbers(1);
    for (std::byte& b : bytes) b = static_cast<std::byte>(numbers());
    return bytes;
  }();
  return std::span(period).subspan(offset % document_period);
}

/// Whether `bytes` are the document's from `offset` on.
[[nodiscard]] inline bool is_document(std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const auto expected = document_at(offset);
    const std::size_t size = std::min(expected.size(), bytes.size());
    if (std::memcmp(expected.data(), bytes.data(), size) != 0) return false;
    bytes = bytes.subspan(size);
    offset += size;
  }
  return true;
}

}  // namespace quic
