// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/detail/hop_store.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>

namespace cowire::detail {
namespace {

void append(std::vector<std::uint32_t>& to, const std::vector<std::uint32_t>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

hop_store::garbage::~garbage() {
  if (!store) return;
  append(store->free_hops_, hops);
  append(store->free_path_lists_, path_lists);
  append(store->free_groups_, groups);
}

hop_store::hop_store(std::uint32_t hop_capacity)
    : hop_capacity_(hop_capacity), garbage_(std::make_unique<garbage>()) {
  void* memory = ::mmap(nullptr, sizeof(hop) * hop_capacity, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    throw std::system_error(errno, std::system_category(),
                            "reserving address space for the hop table");
  hops_ = static_cast<hop*>(memory);
  // The divert hops, their adjacencies, and the path lists of the same numbers. Tries name none of
  // the latter but the one that they give where nothing matches.
  for (std::size_t reason = 0; reason < divert_reason_count; ++reason)
    new (&hops_[reason]) hop(divert_hop(static_cast<divert_reason>(reason)));
  next_hop_ = divert_reason_count;
  adjacencies_.resize(divert_adjacency_count);
  for (adjacency_id id = 0; id < divert_adjacency_count; ++id) {
    adjacencies_[id].hop = static_cast<std::uint32_t>(id % divert_reason_count);
    adjacencies_[id].references = 1;
  }
  path_lists_.resize(divert_reason_count);
  for (path_list_id reason = 0; reason < divert_reason_count; ++reason)
    writable(reason) = {reason, 1};
}

hop_store::~hop_store() { ::munmap(hops_, sizeof(hop) * hop_capacity_); }

// ------------------------------------------------------------------------------------------------
// hops

std::uint32_t hop_store::place(const hop& made) {
  if (made.diverts_all_ports()) return static_cast<std::uint32_t>(made.reason);
  std::uint32_t id;
  if (!free_hops_.empty()) {
    id = free_hops_.back();
    free_hops_.pop_back();
  } else if (next_hop_ < hop_capacity_) {
    id = next_hop_++;
  } else {
    return static_cast<std::uint32_t>(divert_reason::no_table);  // Correct, slower, and counted.
  }
  new (&hops_[id]) hop(made);
  return id;
}

std::uint32_t hop_store::place(const built_hop& made) {
  if (made.slaves.empty()) return place(made.only);
  const std::size_t count = made.slaves.size() + 1;
  auto members = std::make_unique<hop_group_member[]>(count);
  members[0] = made.rule.as_member();
  for (std::size_t i = 1; i < count; ++i) members[i].hop = place(made.slaves[i - 1]);
  return place_group(std::move(members), count) | hop_group_member::slave_group;
}

bool hop_store::is_at(std::uint32_t id, const hop& made) const noexcept {
  if (made.diverts_all_ports()) return id == static_cast<std::uint32_t>(made.reason);
  return made == hops_[id];
}

bool hop_store::is_at(std::uint32_t id, const built_hop& made) const noexcept {
  if ((id & hop_group_member::slave_group) == 0) return made.slaves.empty() && is_at(id, made.only);
  const std::uint32_t group = id & ~hop_group_member::slave_group;
  const hop_group_member* const members = groups_[group].get();
  if (group_sizes_[group] != made.slaves.size() + 1 || slave_rule::from(members[0]) != made.rule)
    return false;
  for (std::size_t i = 0; i < made.slaves.size(); ++i)
    if (!is_at(members[i + 1].hop, made.slaves[i])) return false;
  return true;
}

void hop_store::release_hop(std::uint32_t id) {
  if ((id & hop_group_member::slave_group) != 0) {
    const std::uint32_t group = id & ~hop_group_member::slave_group;
    for (std::size_t i = 1; i < group_sizes_[group]; ++i) release_hop(groups_[group][i].hop);
    release_group(group);
  } else if (id >= divert_reason_count) {
    garbage_->hops.push_back(id);
  }
}

void hop_store::rebuild(adjacency_id id) {
  adjacency& at = adjacencies_[id];
  const built_hop made = builder_(at.key);
  if (is_at(at.hop, made)) return;
  release_hop(at.hop);
  at.hop = place(made);
  for (const path_list_id user : at.path_lists) mark_dirty(user);
}

void hop_store::rebuild_neighbour(const neighbour_key& key) {
  const auto found = neighbours_.find({key.index, key.destination});
  if (found == neighbours_.end()) return;
  for (const adjacency_id id : found->second) rebuild(id);
}

// ------------------------------------------------------------------------------------------------
// adjacencies

adjacency_id hop_store::intern(const hop_key& key) {
  const auto [found, fresh] = adjacency_of_.try_emplace(key, 0);
  if (!fresh) return found->second;
  adjacency_id id;
  if (!free_adjacencies_.empty()) {
    id = free_adjacencies_.back();
    free_adjacencies_.pop_back();
  } else {
    id = static_cast<adjacency_id>(adjacencies_.size());
    adjacencies_.emplace_back();
  }
  found->second = id;
  adjacencies_[id] = {key, place(builder_(key)), 0, {}, true};
  if (key.next_hop) neighbours_[{key.interface_index, *key.next_hop}].push_back(id);
  idle_adjacencies_.push_back(id);
  return id;
}

void hop_store::release_adjacency(adjacency_id id) {
  adjacency& at = adjacencies_[id];
  release_hop(at.hop);
  if (at.key.next_hop) {
    const auto found = neighbours_.find({at.key.interface_index, *at.key.next_hop});
    std::erase(found->second, id);
    if (found->second.empty()) neighbours_.erase(found);
  }
  adjacency_of_.erase(at.key);
  at = {};
  free_adjacencies_.push_back(id);
}

// ------------------------------------------------------------------------------------------------
// path lists

path_list_id hop_store::intern(const path_list_key& key) {
  const auto [found, fresh] = path_list_of_.try_emplace(key, 0);
  if (!fresh) return found->second;
  path_list_id id;
  if (!free_path_lists_.empty()) {
    id = free_path_lists_.back();
    free_path_lists_.pop_back();
  } else {
    id = static_cast<path_list_id>(path_lists_.size());
    path_lists_.emplace_back();
  }
  found->second = id;
  path_lists_[id] = {};
  path_lists_[id].key = key;
  join(id);
  mark_dirty(id);
  path_lists_[id].idle = true;
  idle_path_lists_.push_back(id);
  return id;
}

void hop_store::redefine(path_list_id id, const path_list_key& key) {
  path_list_entry& at = path_lists_[id];
  if (at.key == key) return;
  leave(id);
  at.key = key;
  path_list_of_.try_emplace(key, id);
  join(id);
  mark_dirty(id);
}

/// Enters a path list with the adjacencies of its key.
void hop_store::join(path_list_id id) {
  for (const path_list_share& share : path_lists_[id].key) {
    adjacency& at = adjacencies_[share.adjacency];
    ++at.references;
    if (std::ranges::find(at.path_lists, id) == at.path_lists.end()) at.path_lists.push_back(id);
  }
}

void hop_store::leave(path_list_id id) {
  for (const path_list_share& share : path_lists_[id].key) {
    adjacency& via = adjacencies_[share.adjacency];
    std::erase(via.path_lists, id);
    if (--via.references == 0) idle_adjacencies_.push_back(share.adjacency);
  }
  const auto known = path_list_of_.find(path_lists_[id].key);
  if (known != path_list_of_.end() && known->second == id) path_list_of_.erase(known);
}

void hop_store::add_reference(path_list_id id) noexcept { ++path_lists_[id].references; }

void hop_store::drop_reference(path_list_id id) {
  path_list_entry& at = path_lists_[id];
  COWIRE_ASSERT(at.references > 0);
  if (--at.references > 0 || at.idle) return;
  at.idle = true;
  idle_path_lists_.push_back(id);
}

void hop_store::release_path_list(path_list_id id) {
  path_list_entry& at = path_lists_[id];
  if (at.group != no_group) release_group(at.group);
  leave(id);
  at = {};
  garbage_->path_lists.push_back(id);
}

std::uint32_t hop_store::place_group(std::unique_ptr<hop_group_member[]> members,
                                     std::size_t count) {
  COWIRE_ASSERT(count <= path_list::count_max);
  std::uint32_t id;
  if (!free_groups_.empty()) {
    id = free_groups_.back();
    free_groups_.pop_back();
  } else {
    id = static_cast<std::uint32_t>(groups_.size());
    groups_.emplace_back();
    group_sizes_.emplace_back();
  }
  groups_[id] = std::move(members);
  group_sizes_[id] = static_cast<std::uint16_t>(count);
  group_members_ += count;
  return id;
}

void hop_store::release_group(std::uint32_t id) {
  group_members_ -= group_sizes_[id];
  garbage_->groups.push_back(id);
  garbage_->members.push_back(std::move(groups_[id]));
}

void hop_store::mark_dirty(path_list_id id) {
  if (path_lists_[id].dirty) return;
  path_lists_[id].dirty = true;
  dirty_path_lists_.push_back(id);
}

path_list& hop_store::writable(path_list_id id) {
  const std::size_t chunk = id / forwarding_table::path_list_chunk;
  while (chunks_.size() <= chunk) {
    chunks_.push_back(std::make_unique<path_list[]>(forwarding_table::path_list_chunk));
    chunk_is_fresh_.push_back(true);
  }
  if (!chunk_is_fresh_[chunk]) {
    auto copy = std::make_unique<path_list[]>(forwarding_table::path_list_chunk);
    std::copy_n(chunks_[chunk].get(), forwarding_table::path_list_chunk, copy.get());
    garbage_->chunks.push_back(std::exchange(chunks_[chunk], std::move(copy)));
    chunk_is_fresh_[chunk] = true;
  }
  return chunks_[chunk][id % forwarding_table::path_list_chunk];
}

void hop_store::write_path_list(path_list_id id) {
  path_list_entry& at = path_lists_[id];
  at.dirty = false;
  if (at.group != no_group) release_group(std::exchange(at.group, no_group));
  const std::size_t count = at.key.size();
  if (count == 1) {
    const std::uint32_t hop = adjacencies_[at.key.front().adjacency].hop;
    if ((hop & hop_group_member::slave_group) == 0) {
      writable(id) = {hop, 1};
    } else {
      const std::uint32_t group = hop & ~hop_group_member::slave_group;
      writable(id) = {group, group_sizes_[group], group_kind::by_slave};
    }
    return;
  }
  auto members = std::make_unique<hop_group_member[]>(count);
  for (std::size_t i = 0; i < count; ++i)
    members[i] = {at.key[i].bound, adjacencies_[at.key[i].adjacency].hop};
  at.group = place_group(std::move(members), count);
  const bool by_bucket = at.key.back().bound != path_list_share{}.bound;
  writable(id) = {at.group, static_cast<std::uint16_t>(count),
                  by_bucket ? group_kind::by_bucket : group_kind::by_threshold};
}

// ------------------------------------------------------------------------------------------------
// versions

hop_store::directory hop_store::commit() {
  for (const path_list_id id : std::exchange(idle_path_lists_, {})) {
    path_lists_[id].idle = false;
    if (path_lists_[id].references == 0) release_path_list(id);
  }
  for (const adjacency_id id : std::exchange(idle_adjacencies_, {}))
    if (adjacencies_[id].live && adjacencies_[id].references == 0) release_adjacency(id);
  for (const path_list_id id : std::exchange(dirty_path_lists_, {}))
    if (path_lists_[id].dirty) write_path_list(id);

  directory shown;
  shown.hops = hops_;
  shown.chunks.reserve(chunks_.size());
  for (const auto& chunk : chunks_) shown.chunks.push_back(chunk.get());
  for (const auto& group : groups_) shown.groups.push_back(group.get());
  shown.group_sizes = group_sizes_;
  chunk_is_fresh_.assign(chunks_.size(), false);
  return shown;
}

std::size_t hop_store::bytes() const noexcept {
  constexpr std::size_t chunk_bytes = forwarding_table::path_list_chunk * sizeof(path_list);
  return (next_hop_ - free_hops_.size()) * sizeof(hop) + chunks_.size() * chunk_bytes +
         adjacencies_.capacity() * sizeof(adjacency) +
         path_lists_.capacity() * sizeof(path_list_entry) +
         group_members_ * sizeof(hop_group_member);
}

std::size_t hop_store::garbage::bytes() const noexcept {
  constexpr std::size_t chunk_bytes = forwarding_table::path_list_chunk * sizeof(path_list);
  return sizeof(*this) + hops.size() * sizeof(hop) + chunks.size() * chunk_bytes +
         (path_lists.size() + groups.size()) * sizeof(std::uint32_t) +
         members.size() * sizeof(hop_group_member);
}

std::unique_ptr<hop_store::garbage> hop_store::take_garbage(std::shared_ptr<hop_store> self) {
  COWIRE_ASSERT(self.get() == this);
  garbage_->store = std::move(self);
  return std::exchange(garbage_, std::make_unique<garbage>());
}

}  // namespace cowire::detail
