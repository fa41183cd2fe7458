// SPDX-License-Identifier: Apache-2.0
/// Writes the payloads of `cowire send`.
///
/// A generated payload is: sequence number from 0 (8 bytes, big-endian), CLOCK_REALTIME in
/// nanoseconds when it was submitted (8 bytes, big-endian), then bytes that count up from 16 modulo
/// 256. A payload shorter than 16 bytes is the beginning of that. A given payload (file, standard
/// input) is sent as it is.
#pragma once

#include <cowire/cli/arguments.hpp>

#include <cstdint>
#include <span>

namespace cowire::cli {

class payload_source {
 public:
  explicit payload_source(const payload_plan& plan);

  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
  /// The next payload; valid until the next call.
  [[nodiscard]] std::span<const std::byte> next() noexcept;
  /// The same payload as it is to be sent now: a generated one with the present time.
  [[nodiscard]] std::span<const std::byte> again() noexcept;
  /// How often next() was called.
  [[nodiscard]] std::uint64_t produced() const noexcept { return produced_; }

 private:
  bool generated_;
  std::vector<std::byte> bytes_;
  std::uint64_t produced_ = 0;
};

}  // namespace cowire::cli
