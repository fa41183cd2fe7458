// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/umem.hpp>

#include <gtest/gtest.h>

#include <cowire/base/error.hpp>

namespace cowire {
namespace {

TEST(umem, gives_at_least_the_frames_asked_for_and_says_which_pages) {
  const umem memory({.frame_size = 2048, .frame_count = 1000});
  EXPECT_GE(memory.memory().frame_count, 1000u);
  EXPECT_EQ(memory.size(), std::size_t{2048} * memory.memory().frame_count);
  EXPECT_EQ(memory.pages() == page_kind::huge_2mib, memory.pages_reason().empty())
      << memory.pages_reason();
}

TEST(umem, says_that_ordinary_pages_were_asked_for) {
  const umem memory({.frame_count = 64, .huge_pages = false});
  EXPECT_EQ(memory.pages(), page_kind::ordinary);
  EXPECT_EQ(memory.pages_reason(), "huge pages were not asked for");
}

TEST(umem, starts_payloads_on_cache_lines_behind_the_headers) {
  const umem memory({.frame_size = 4096, .frame_count = 64, .huge_pages = false});
  for (const frame_index frame : {0u, 1u, 63u}) {
    const std::byte* const payload = memory.memory().payload(frame);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(payload) % 64, 0u);
    EXPECT_EQ(memory.memory().frame_at(memory.memory().payload_address(frame) - 1), frame);
    EXPECT_EQ(memory.memory().frame_at(memory.memory().payload_address(frame) +
                                       memory.memory().payload_capacity() - 1),
              frame);
  }
  EXPECT_EQ(memory.memory().payload_capacity(), 4096 - payload_offset);
}

TEST(umem, lends_slices_and_takes_them_back) {
  umem memory({.frame_count = 1024, .huge_pages = false});
  const std::uint32_t total = memory.free_frames();
  const auto a = memory.allocate_slice(100);
  const auto b = memory.allocate_slice(64);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->count, 128u);
  EXPECT_EQ(b->first, 128u);
  EXPECT_EQ(memory.free_frames(), total - 192);
  EXPECT_FALSE(memory.allocate_slice(total));
  memory.release_slice(*a);
  const auto c = memory.allocate_slice(65);
  ASSERT_TRUE(c);
  EXPECT_EQ(c->first, 0u);
  memory.release_slice(*b);
  memory.release_slice(*c);
  EXPECT_EQ(memory.free_frames(), total);
}

TEST(umem, refuses_sizes_that_af_xdp_does_not_take) {
  for (const umem_options& bad :
       {umem_options{.frame_size = 1024}, umem_options{.frame_size = 3000},
        umem_options{.frame_count = 0}, umem_options{.frame_count = (1u << 24) + 1}}) {
    std::error_code ec;
    const umem memory(bad, ec);
    EXPECT_EQ(ec, error::invalid_argument);
    EXPECT_THROW(umem{bad}, std::system_error);
  }
}

}  // namespace
}  // namespace cowire
