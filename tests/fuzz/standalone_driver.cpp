// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target without libFuzzer: ITERATIONS inputs, each a valid one, mutated, all from
// SEED.
#include "tests/fuzz/fuzz_target.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

using input = std::vector<std::uint8_t>;

void mutate(input& bytes, std::mt19937_64& random) {
  if (bytes.empty()) return;
  const std::size_t at = random() % bytes.size();
  const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  switch (random() % 6) {
    case 0:
      bytes[at] = static_cast<std::uint8_t>(random());
      return;
    case 1:
      bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ (1u << random() % 8));
      return;
    case 2:
      bytes[at] = static_cast<std::uint8_t>(bytes[at] + (random() % 2 == 0 ? 1 : -1));
      return;
    case 3:  // Cuts the end off.
      bytes.resize(at);
      return;
    case 4:  // Takes some out.
      bytes.erase(begin, begin + static_cast<std::ptrdiff_t>(
                                     std::min(bytes.size() - at, 1 + random() % 8)));
      return;
    default:  // Says something twice.
      const input piece(begin, begin + static_cast<std::ptrdiff_t>(
                                           std::min(bytes.size() - at, 1 + random() % 32)));
      bytes.insert(begin, piece.begin(), piece.end());
      return;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s ITERATIONS SEED\n", argv[0]);
    return 2;
  }
  const auto iterations = std::stoull(argv[1]);
  std::mt19937_64 random(std::stoull(argv[2]));
  for (unsigned long long i = 0; i < iterations; ++i) {
    input bytes = cowire::test::fuzz_seed(random);
    for (auto mutations = random() % 8; mutations > 0; --mutations) mutate(bytes, random);
    bytes.shrink_to_fit();  // So that a sanitizer sees a read past the end.
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%llu inputs\n", iterations);
  return EXIT_SUCCESS;
}
