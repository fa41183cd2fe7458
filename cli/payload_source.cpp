// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/payload_source.hpp>

#include <algorithm>
#include <array>
#include <ctime>

namespace cowire::cli {
namespace {

void put_be64(std::byte* to, std::uint64_t value) noexcept {
  for (int i = 0; i < 8; ++i) to[i] = static_cast<std::byte>(value >> (56 - 8 * i));
}

}  // namespace

payload_source::payload_source(const payload_plan& plan)
    : generated_(plan.generated), bytes_(plan.bytes) {
  if (!generated_) return;
  bytes_.resize(plan.size);
  for (std::size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<std::byte>(i);
}

std::span<const std::byte> payload_source::next() noexcept {
  ++produced_;
  return again();
}

std::span<const std::byte> payload_source::again() noexcept {
  if (!generated_) return bytes_;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  std::array<std::byte, 16> prefix;
  put_be64(prefix.data(), produced_ - 1);
  put_be64(prefix.data() + 8, static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u +
                                  static_cast<std::uint64_t>(now.tv_nsec));
  std::copy_n(prefix.begin(), std::min(prefix.size(), bytes_.size()), bytes_.begin());
  return bytes_;
}

}  // namespace cowire::cli
