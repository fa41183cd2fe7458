// SPDX-License-Identifier: Apache-2.0
/// Writes the headers and descriptors of a run of requests, as fast as the processor can.
///
/// The loops that all datagrams go through are here, each once for every processor and once for
/// newer ones, which is chosen at run time.
#pragma once

#include <cowire/route/forwarding_table.hpp>
#include <cowire/xdp/detail/flow_cache.hpp>
#include <cowire/xdp/tx_core.hpp>
#include <cowire/xdp/tx_queue.hpp>
#include <cowire/xdp/tx_request.hpp>

#include <array>
#include <cstdint>

namespace cowire::detail {

/// At most tx_batch requests and what becomes of them.
struct request_run {
  std::byte* memory;           ///< frame_memory::base.
  const tx_request* requests;  ///< They may lie in a ring: nothing is written to them.
  std::uint32_t size;
  const hop** hops;
  tx_descriptor* descriptors;
  egress_slot egress;  ///< Where they are expected to go.
};

/// In what the requests of a run, together, are not as expected.
class run_terms {
 public:
  explicit run_terms(std::uint32_t bits = 0) noexcept : bits_(bits) {}
  /// All go to the expected egress, and none is too long for its hop.
  [[nodiscard]] bool alike() const noexcept { return (bits_ & 0xff'0000) == 0; }
  /// Some of their hops may need hop::second_pass.
  [[nodiscard]] bool second_pass() const noexcept { return bits_ >> 24 != 0; }
  run_terms& operator|=(const run_terms& other) noexcept {
    bits_ |= other.bits_;
    return *this;
  }

 private:
  std::uint32_t bits_;
};

/// Those of a run that the flow cache does not know, by their places in it.
struct unknown_requests {
  std::uint32_t count = 0;
  std::array<std::uint8_t, tx_batch> at;
};
static_assert(tx_batch <= 256);

/// Writes headers and descriptors of all requests, whose hops are known. Without the second pass.
[[nodiscard]] run_terms write_run(const request_run& run) noexcept;

/// The same for some of them.
[[nodiscard]] run_terms write_some(const request_run& run, const unknown_requests& some) noexcept;

/// Looks each request's hop up in the cache, and writes those that are known.
[[nodiscard]] run_terms write_known(const request_run& run, const flow_cache::view& cache,
                                    const hop* first_hop, unknown_requests& unknown) noexcept;

}  // namespace cowire::detail
