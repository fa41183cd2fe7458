// SPDX-License-Identifier: Apache-2.0
/// Which member of an ECMP group a request takes.
#pragma once

#include <cowire/xdp/tx_request.hpp>

#include <cstdint>
#include <cstring>

namespace cowire {

/// 31 bits that are the same for all datagrams of a flow class to one destination, as under the
/// kernel's default policy (addresses only). The kernel's own seed is secret, so its choice cannot
/// be repeated, only its constancy.
[[nodiscard]] inline std::uint32_t flow_hash31(const tx_request& request) noexcept {
  std::uint64_t words[2];
  std::memcpy(words, request.destination.data(), sizeof words);
  // Multiply and mix: the finalizer of MurmurHash3 over the folded words.
  std::uint64_t hash =
      words[1] ^ (words[0] * 0x9e3779b97f4a7c15u) ^ (std::uint64_t{request.flow_class} << 1);
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccdu;
  hash ^= hash >> 33;
  hash *= 0xc4ceb9fe1a85ec53u;
  return static_cast<std::uint32_t>(hash >> 33);
}

}  // namespace cowire
