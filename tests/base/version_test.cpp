// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/version.hpp>

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace cowire {
namespace {

TEST(version, the_text_and_the_number_are_the_same_version) {
  int major = -1, minor = -1, patch = -1, end = 0;
  const std::string text(version());
  ASSERT_EQ(std::sscanf(text.c_str(), "%d.%d.%d%n", &major, &minor, &patch, &end), 3) << text;
  EXPECT_EQ(static_cast<std::size_t>(end), text.size());
  EXPECT_EQ(major * 10000 + minor * 100 + patch, COWIRE_VERSION);
}

TEST(version, is_that_of_the_package) { EXPECT_EQ(version(), COWIRE_PACKAGE_VERSION); }

}  // namespace
}  // namespace cowire
