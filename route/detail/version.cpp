// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/version.hpp>
#include <cowire/route/multipath_hash.hpp>

#include <netinet/in.h>

#include <array>
#include <cstring>
#include <utility>

namespace cowire::detail {
namespace {

/// The source that a class asks for, of the family with addresses of this size; zero = none.
template <std::size_t Size>
std::array<std::uint8_t, Size> hashed_source(const flow_class& cls) {
  std::array<std::uint8_t, Size> bytes{};
  const auto& source = cls.source(Size == 4 ? ip_family::v4 : ip_family::v6);
  if (source) std::memcpy(bytes.data(), source->bytes().data(), Size);
  return bytes;
}

}  // namespace

std::size_t version_block::bytes() const noexcept {
  return sizeof(*this) + class_tables.size() * sizeof(class_tables[0]) +
         class_index.size() * sizeof(class_index[0]) +
         (directory.chunks.size() + directory.groups.size()) * sizeof(void*) +
         directory.group_sizes.size() * sizeof(std::uint16_t);
}

void version_store::publish(const mirror_settings& settings, class_set& classes,
                            std::shared_ptr<hop_store>& hops) {
  auto next = std::make_unique<version_block>();
  next->class_index = classes.index();
  next->directory = hops->commit();
  std::vector<lpm_garbage> blocks;
  for (class_set::table& one : classes.tables()) {
    next->class_tables.push_back({one.tries->v4.commit(), one.tries->v6.commit(),
                                  hashed_source<4>(one.cls), hashed_source<16>(one.cls)});
    blocks.push_back(one.tries->v4.take_garbage());
    blocks.push_back(one.tries->v6.take_garbage());
  }
  forwarding_table& table = next->table;
  table.version = ++number_;
  table.class_tables = next->class_tables.data();
  table.class_index = next->class_index.data();
  table.class_count = static_cast<std::uint32_t>(next->class_index.size());
  table.path_list_chunks = next->directory.chunks.data();
  table.hops = next->directory.hops;
  table.groups = next->directory.groups.data();
  table.group_sizes = next->directory.group_sizes.data();
  table.hash_v4 = multipath_hash_of(settings, ip_family::v4, IPPROTO_UDP);
  table.hash_v6 = multipath_hash_of(settings, ip_family::v6, IPPROTO_UDP);

  // Publish first, retire afterwards: the epoch domain counts from the retirement.
  static_cast<void>(publisher_.store(&table));
  if (current_) {
    const std::size_t bytes = current_->bytes();
    epoch_.retire(std::exchange(current_, nullptr), bytes);
  }
  current_ = std::move(next);
  for (lpm_garbage& garbage : blocks)
    if (!garbage.empty()) {
      const std::size_t bytes = garbage.bytes();
      epoch_.retire(std::make_unique<lpm_garbage>(std::move(garbage)), bytes);
    }
  for (auto& tries : classes.take_retired()) {
    const std::size_t bytes = tries->bytes();
    epoch_.retire(std::move(tries), bytes);
  }
  auto hops_garbage = hops->take_garbage(hops);
  const std::size_t hops_bytes = hops_garbage->bytes();
  epoch_.retire(std::move(hops_garbage), hops_bytes);
}

}  // namespace cowire::detail
