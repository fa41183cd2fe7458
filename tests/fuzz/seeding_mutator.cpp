// SPDX-License-Identifier: Apache-2.0
// Gives libFuzzer valid inputs to start from, so that it gets anywhere without a corpus.
#include "tests/fuzz/fuzz_target.hpp"

#include <algorithm>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  std::mt19937_64 random(seed);
  if (random() % 16 != 0) return LLVMFuzzerMutate(data, size, max_size);
  const auto fresh = cowire::test::fuzz_seed(random);
  const auto length = std::min(fresh.size(), max_size);
  std::copy_n(fresh.begin(), length, data);
  return length;
}
