// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/transmitter_stats.hpp>

#include <numeric>

namespace cowire {
namespace {

std::uint64_t sum(const std::map<std::string, std::uint64_t>& parts) noexcept {
  return std::accumulate(parts.begin(), parts.end(), std::uint64_t{0},
                         [](std::uint64_t so_far, const auto& p) { return so_far + p.second; });
}

}  // namespace

std::uint64_t transmitter_stats::transmitted_total() const noexcept { return sum(transmitted); }
std::uint64_t transmitter_stats::refused_total() const noexcept { return sum(refused); }
std::uint64_t transmitter_stats::accounted() const noexcept {
  return transmitted_total() + kernel_path + refused_total() + lost_in_device + shed;
}
std::uint64_t transmitter_stats::on_the_way() const noexcept {
  const auto ended = accounted();
  return submitted > ended ? submitted - ended : 0;
}

}  // namespace cowire
