// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

namespace cowire {
namespace {

TEST(error, every_condition_has_its_own_text) {
  std::set<std::string> texts;
  const int last = static_cast<int>(error::no_producer);
  for (int value = 1; value <= last; ++value) {
    const std::string text = error_category().message(value);
    EXPECT_EQ(text.find("unknown"), std::string::npos) << value;
    EXPECT_TRUE(texts.insert(text).second) << text;
  }
  EXPECT_EQ(error_category().message(last + 1), "unknown cowire error " + std::to_string(last + 1));
}

TEST(error, converts_to_an_error_code_and_compares) {
  const std::error_code ec = error::closed;
  EXPECT_EQ(ec, error::closed);
  EXPECT_NE(ec, error::overrun);
  EXPECT_STREQ(ec.category().name(), "cowire");
}

TEST(error, errno_stays_in_the_system_category_and_has_a_name) {
  EXPECT_EQ(errno_code(ENETUNREACH), std::errc::network_unreachable);
  EXPECT_EQ(errno_name(ENETUNREACH), "ENETUNREACH");
  EXPECT_EQ(errno_name(99999), "errno 99999");
}

TEST(error, what_is_thrown_names_the_operation) {
  try {
    throw_error(errno_code(EPERM), "open thing");
    FAIL();
  } catch (const std::system_error& e) {
    EXPECT_EQ(e.code().value(), EPERM);
    EXPECT_NE(std::string(e.what()).find("open thing"), std::string::npos);
  }
}

}  // namespace
}  // namespace cowire
