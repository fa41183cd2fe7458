// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/core_links.hpp>
#include <cowire/async/detail/core_set.hpp>

#include <algorithm>

namespace cowire::detail {

core_links::core_links(std::uint32_t producer, const frame_slice& slice, core_set& cores)
    : by_kernel_(slice.count) {
  for (const auto& core : cores)
    links_.push_back(std::make_unique<link>(producer, slice, core->work_bell()));
}

bool core_links::anything_returned() const noexcept {
  return by_kernel_.size_approximate() != 0 || std::ranges::any_of(links_, [](const auto& one) {
           return one->channel.returned.size_approximate() != 0;
         });
}

std::uint64_t core_links::returned() const noexcept {
  std::uint64_t all = by_kernel_.pushed();
  for (const auto& one : links_) all += one->channel.returned.pushed();
  return all;
}

}  // namespace cowire::detail
