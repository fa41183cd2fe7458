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
/// Not zero above the length: not as expected. A payload that is too long borrows from the egress.
[[nodiscard, gnu::always_inline]] inline std::uint32_t differences(
    const hop& via, const tx_request& request, std::uint32_t expected) noexcept {
  return (terms_of(via) - request.length) ^ expected;
}
[[nodiscard, gnu::always_inline]] inline std::uint32_t terms_at(egress_slot egress) noexcept {
  return std::uint32_t{egress} << 16;
}

[[nodiscard]] const hop& hop_at(const hop* first_hop, std::uint32_t offset) noexcept {
  return *reinterpret_cast<const hop*>(reinterpret_cast<const std::byte*>(first_hop) + offset);
}

[[gnu::always_inline]] inline void write_one(std::byte* memory, const hop& via,
                                             const tx_request& request,
                                             tx_descriptor& descriptor) noexcept {
  write_headers(memory + request.address, via, request);
  descriptor = descriptor_of(via, request);
}

[[nodiscard]] run_terms write_run_portably(const request_run& run) noexcept {
  const std::uint32_t expected = terms_at(run.egress);
  std::uint32_t terms = 0;
  for (std::uint32_t i = 0; i < run.size; ++i) {
    write_one(run.memory, *run.hops[i], run.requests[i], run.descriptors[i]);
    terms |= differences(*run.hops[i], run.requests[i], expected);
  }
  return run_terms(terms);
}

[[nodiscard]] run_terms write_some_portably(const request_run& run,
                                            const unknown_requests& some) noexcept {
  const std::uint32_t expected = terms_at(run.egress);
  std::uint32_t terms = 0;
  for (std::uint32_t j = 0; j < some.count; ++j) {
    const std::uint8_t i = some.at[j];
    write_one(run.memory, *run.hops[i], run.requests[i], run.descriptors[i]);
    terms |= differences(*run.hops[i], run.requests[i], expected);
  }
  return run_terms(terms);
}

[[nodiscard]] run_terms write_known_portably(const request_run& run, const flow_cache::view& cache,
                                             const hop* first_hop,
                                             unknown_requests& unknown) noexcept {
  const std::uint32_t expected = terms_at(run.egress);
  std::uint32_t terms = 0;
  for (std::uint32_t i = 0; i < run.size; ++i) {
    const tx_request& request = run.requests[i];
    const flow_cache::entry* const known = cache.find(request);
    if (known == nullptr) {
      unknown.at[unknown.count++] = static_cast<std::uint8_t>(i);
      continue;
    }
    const hop& via = hop_at(first_hop, known->hop_offset);
    run.hops[i] = &via;
    write_one(run.memory, via, request, run.descriptors[i]);
    terms |= differences(via, request, expected);
  }
  return run_terms(terms);
}

// As in the look-up (route/lpm.cpp): once more for newer processors than the build is for.
#if defined(__x86_64__)
#define COWIRE_NEWER_PROCESSOR __attribute__((target("avx2,bmi,bmi2")))
const bool newer_processor = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");

__attribute__((always_inline, target("avx2,bmi,bmi2"))) inline void write_one_newer(
    std::byte* memory, const hop& via, const tx_request& request,
    tx_descriptor* descriptor) noexcept {
  write_headers_avx2(memory + request.address, via, request);
  describe_avx2(descriptor, via, request);
}

[[nodiscard]] COWIRE_NEWER_PROCESSOR run_terms write_run_newer(const request_run& run) noexcept {
  const request_run r = run;  // A copy, which stores into frames cannot change.
  const std::uint32_t expected = terms_at(r.egress);
  std::uint32_t terms = 0;
  for (std::uint32_t i = 0; i < r.size; ++i) {
    write_one_newer(r.memory, *r.hops[i], r.requests[i], r.descriptors + i);
    terms |= differences(*r.hops[i], r.requests[i], expected);
  }
  return run_terms(terms);
}

[[nodiscard]] COWIRE_NEWER_PROCESSOR run_terms
write_some_newer(const request_run& run, const unknown_requests& some) noexcept {
  const request_run r = run;  // A copy, which stores into frames cannot change.
  const std::uint32_t expected = terms_at(r.egress);
  std::uint32_t terms = 0;
  for (std::uint32_t j = 0; j < some.count; ++j) {
    const std::uint8_t i = some.at[j];
    write_one_newer(r.memory, *r.hops[i], r.requests[i], r.descriptors + i);
    terms |= differences(*r.hops[i], r.requests[i], expected);
  }
  return run_terms(terms);
}

/// Where a flow is in the cache, if anywhere; null: not known.
[[nodiscard]] __attribute__((always_inline, target("avx2,bmi,bmi2"))) inline const std::byte* find(
    const std::byte* tag_sets, const std::byte* entry_sets, std::uint64_t tags_mask,
    const __m256i& generation, const tx_request& request) noexcept {
  const std::uint64_t offset = request.flow_hash & tags_mask;
  const __m256i tag = _mm256_set1_epi32(static_cast<int>(request.flow_tag));
  const __m256i same = _mm256_cmpeq_epi32(tag, block_at(tag_sets + offset));
  const auto ways = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(same)));
  if (ways == 0) [[unlikely]]
    return nullptr;
  const std::uint64_t way = _tzcnt_u32(ways);
  const std::byte* const entry = entry_sets + 8 * (offset + sizeof(std::uint32_t) * way);
  // All but the entry's last word.
  const __m256i key = _mm256_blend_epi32(generation, block_at(&request.frame), 0x7e);
  const __m256i key_part = _mm256_set_epi32(0, -1, -1, -1, -1, -1, -1, -1);
  const __m256i different = _mm256_xor_si256(key, block_at(entry));
  return _mm256_testz_si256(different, key_part) != 0 ? entry : nullptr;
}

[[nodiscard]] COWIRE_NEWER_PROCESSOR run_terms
write_known_newer(const request_run& run, const flow_cache::view& cache, const hop* first_hop,
                  unknown_requests& unknown) noexcept {
  // Copies, which stores into frames cannot change, and pointers that advance: with indices there
  // are too few registers.
  std::byte* const memory = run.memory;
  const tx_request* request = run.requests;
  const tx_request* const end = request + run.size;
  const hop** hop_of_it = run.hops;
  tx_descriptor* descriptor = run.descriptors;
  const std::byte* const tag_sets = cache.tag_sets;
  const std::byte* const entry_sets = cache.entry_sets;
  const std::uint64_t tags_mask = cache.tags_mask;
  const __m256i generation = _mm256_set1_epi32(static_cast<int>(cache.generation));
  const std::uint32_t expected = terms_at(run.egress);
  std::uint32_t terms = 0;
  for (; request != end; ++request, ++hop_of_it, ++descriptor) {
    const std::byte* const known = find(tag_sets, entry_sets, tags_mask, generation, *request);
    if (known == nullptr) [[unlikely]] {
      unknown.at[unknown.count++] = static_cast<std::uint8_t>(request - run.requests);
      continue;
    }
    const hop& via =
        hop_at(first_hop, load<std::uint32_t>(known + offsetof(flow_cache::entry, hop_offset)));
    *hop_of_it = &via;
    write_one_newer(memory, via, *request, descriptor);
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

run_terms write_some(const request_run& run, const unknown_requests& some) noexcept {
#if defined(__x86_64__)
  if (newer_processor) return write_some_newer(run, some);
#endif
  return write_some_portably(run, some);
}

run_terms write_known(const request_run& run, const flow_cache::view& cache, const hop* first_hop,
                      unknown_requests& unknown) noexcept {
  unknown.count = 0;
#if defined(__x86_64__)
  if (newer_processor) return write_known_newer(run, cache, first_hop, unknown);
#endif
  return write_known_portably(run, cache, first_hop, unknown);
}

}  // namespace cowire::detail
