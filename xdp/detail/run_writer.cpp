// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/detail/run_writer.hpp>

#include <cowire/xdp/frame_writer.hpp>

#include <bit>
#include <cstddef>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cowire::detail {
namespace {

/// Of a hop, from the top: what its second pass is for, its egress, how long a payload may be.
[[nodiscard, gnu::always_inline]] inline std::uint32_t terms_of(const hop& via) noexcept {
  static_assert(offsetof(hop, egress) == offsetof(hop, max_payload) + 2 &&
                offsetof(hop, second_pass) == offsetof(hop, max_payload) + 3 &&
                std::endian::native == std::endian::little);
  return load<std::uint32_t>(&via.max_payload);
}
/// Not zero above the length: not as expected. A payload that is too long borrows from the egress,
/// and an ECN codepoint (with_ecn()) leaves the uppermost byte other than zero whatever is borrowed
/// from it: 0 to 7, less 0x80 to 0x84.
[[nodiscard, gnu::always_inline]] inline std::uint32_t differences(
    const hop& via, const tx_request& request, std::uint32_t expected) noexcept {
  return (terms_of(via) - request.length) ^ expected;
}
[[nodiscard, gnu::always_inline]] inline std::uint32_t terms_at(egress_slot egress) noexcept {
  return std::uint32_t{egress} << 16;
}

[[nodiscard]] run_terms write_run_portably(const request_run& run) noexcept {
  const std::uint32_t expected = terms_at(run.egress);
  std::uint32_t terms = 0;
  for (std::uint32_t i = 0; i < run.size; ++i) {
    const tx_request& request = run.requests[i];
    const hop& via = *run.hops[i];
#if defined(__aarch64__)
    write_headers_neon(run.memory + request.address, via, request);
#else
    write_headers(run.memory + request.address, via, request);
#endif
    run.descriptors[i] = descriptor_of(via, request);
    terms |= differences(via, request, expected);
  }
  return run_terms(terms);
}

// As in the look-up (route/lpm.cpp): once more for newer processors than the build is for.
#if defined(__x86_64__)
#define COWIRE_NEWER_PROCESSOR __attribute__((target("avx2,bmi,bmi2")))
const bool newer_processor = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");

[[nodiscard]] COWIRE_NEWER_PROCESSOR run_terms write_run_newer(const request_run& run) noexcept {
  // Copies, which stores into frames cannot change.
  std::byte* const memory = run.memory;
  const tx_request* request = run.requests;
  const tx_request* const end = request + run.size;
  const hop* const* hops = run.hops;
  tx_descriptor* descriptor = run.descriptors;
  const std::uint32_t expected = terms_at(run.egress);
  std::uint32_t terms = 0;
#pragma GCC unroll 2  // What is left of the loop itself is one instruction in sixteen.
  for (; request != end; ++request, ++hops, ++descriptor) {
    const hop& via = **hops;
    write_headers_avx2(memory + request->address, via, *request);
    describe_avx2(descriptor, via, *request);
    terms |= differences(via, *request, expected);
  }
  return run_terms(terms);
}
#endif

}  // namespace

run_terms write_run(const request_run& run) noexcept {
#if defined(__x86_64__)
  if (newer_processor) return write_run_newer(run);
#endif
  return write_run_portably(run);
}

}  // namespace cowire::detail
