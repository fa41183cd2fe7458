// SPDX-License-Identifier: Apache-2.0
/// What a fuzz target defines: libFuzzer's entry, and inputs worth mutating.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

/// One input. Aborts on a broken promise; otherwise returns 0.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace cowire::test {

/// A valid input: where mutation begins, with libFuzzer (seeding_mutator.cpp) and without
/// (standalone_driver.cpp).
[[nodiscard]] std::vector<std::uint8_t> fuzz_seed(std::mt19937_64& random);

}  // namespace cowire::test
