// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/reason.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace cowire {
namespace {

TEST(reason, every_one_has_a_unique_name_fit_for_json_and_a_text) {
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < divert_reason_count; ++i) {
    const auto reason = static_cast<divert_reason>(i);
    EXPECT_TRUE(names.insert(name(reason)).second) << name(reason);
    EXPECT_TRUE(std::all_of(name(reason).begin(), name(reason).end(), [](char c) {
      return c == '_' || (c >= 'a' && c <= 'z');
    })) << name(reason);
    EXPECT_FALSE(describe(reason).empty());
  }
  EXPECT_EQ(name(divert_reason::forced_kernel), "forced_kernel");
}

}  // namespace
}  // namespace cowire
