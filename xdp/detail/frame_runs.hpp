// SPDX-License-Identifier: Apache-2.0
/// What the core does with long runs of frames, several at a time as the processor can. Pure
/// functions of their arguments.
#pragma once

#include <cowire/xdp/tx_queue.hpp>
#include <cowire/xdp/tx_request.hpp>

#include <cstdint>
#include <span>

namespace cowire::detail {

/// Copies the addresses of `count` descriptors.
void copy_addresses(const tx_descriptor* from, std::uint32_t count, std::uint64_t* to) noexcept;

/// Whether `count` addresses are those expected. Then `frames` are the frames they lie in, of
/// 2 ^ `shift` bytes each; otherwise what is in there is meaningless.
[[nodiscard]] bool frames_as_expected(const std::uint64_t* addresses, const std::uint64_t* expected,
                                      std::uint32_t count, unsigned shift,
                                      frame_index* frames) noexcept;

/// Whether all frames are in [first, last]. Frame numbers are below 2 ^ 31.
[[nodiscard]] bool all_within(std::span<const frame_index> frames, frame_index first,
                              frame_index last) noexcept;

}  // namespace cowire::detail
