// SPDX-License-Identifier: Apache-2.0
/// The namespaces of testbed/netns.hpp, for tests: skipped where they cannot be made.
#pragma once

#include <gtest/gtest.h>

#include "testbed/netns.hpp"

#define NETNS_OR_SKIP() \
  if (const std::string why = cowire::test::netns_unavailable(); !why.empty()) GTEST_SKIP() << why
