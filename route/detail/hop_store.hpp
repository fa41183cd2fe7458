// SPDX-License-Identifier: Apache-2.0
/// Hops, path lists and hop groups: what trie values lead to, and which versions may still use
/// what.
///
/// Three levels, so that a change stays where it belongs. An *adjacency* is a hop_key with its
/// current hop; when a MAC address, a device or a socket changes, it gets a new hop (hops are never
/// written twice while readers may see them). A *path list* is adjacencies with shares; it keeps
/// its id, its content follows the adjacencies or is redefined. Equal content is usually shared,
/// everything is counted.
///
/// begin() .. commit() encloses one version's changes. What older versions may still use is handed
/// out by commit() as one garbage object; ids become free again when it is destroyed, after the
/// grace period.
///
/// The compiler's thread only.
#pragma once

#include <cowire/route/detail/header_template.hpp>
#include <cowire/route/forwarding_table.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

namespace cowire::detail {

using path_list_id = std::uint32_t;
using adjacency_id = std::uint32_t;

/// Adjacencies of these numbers are no hops but "divert for this reason". Each family has its own,
/// so that no path list serves both.
inline constexpr adjacency_id divert_adjacency_count = 2 * divert_reason_count;
[[nodiscard]] constexpr adjacency_id divert_adjacency(ip_family family,
                                                      divert_reason reason) noexcept {
  return static_cast<adjacency_id>(static_cast<std::size_t>(family) * divert_reason_count +
                                   static_cast<std::size_t>(reason));
}

/// One share of a path list: flow hashes up to `bound` take `adjacency`, or those of bucket `bound`
/// (path_share).
struct path_list_share {
  std::uint32_t bound = 0x7fffffff;
  adjacency_id adjacency = 0;
  friend auto operator<=>(const path_list_share&, const path_list_share&) = default;
};
using path_list_key = std::vector<path_list_share>;

class hop_store {
 public:
  explicit hop_store(std::uint32_t hop_capacity);
  ~hop_store();
  hop_store(const hop_store&) = delete;
  hop_store& operator=(const hop_store&) = delete;

  using hop_builder = std::function<built_hop(const hop_key&)>;
  /// Where bytes come from; called within intern() and rebuild().
  void set_builder(hop_builder builder) { builder_ = std::move(builder); }

  /// The adjacency of a key; made if new. It lives as long as a path list names it, or until the
  /// next commit().
  [[nodiscard]] adjacency_id intern(const hop_key& key);
  /// The path list with exactly these shares; made if new. It lives as long as it is referenced, or
  /// until the next commit().
  [[nodiscard]] path_list_id intern(const path_list_key& key);
  void add_reference(path_list_id id) noexcept;
  void drop_reference(path_list_id id);
  [[nodiscard]] const path_list_key& key_of(path_list_id id) const noexcept {
    return path_lists_[id].key;
  }
  /// Gives a path list other shares: everything that leads to it follows with the next version.
  /// Another one may have the same ones.
  void redefine(path_list_id id, const path_list_key& key);

  /// Builds the hops again of all adjacencies for which `concerned(key)` holds; path lists follow
  /// those that changed.
  template <class Predicate>
  void rebuild_if(Predicate&& concerned) {
    for (adjacency_id id = 0; id < adjacencies_.size(); ++id)
      if (adjacencies_[id].live && concerned(adjacencies_[id].key)) rebuild(id);
  }
  void rebuild_neighbour(const neighbour_key& key);

  /// What one version shows to readers. The vectors belong to that version.
  struct directory {
    std::vector<const path_list*> chunks;
    std::vector<const hop_group_member*> groups;
    std::vector<std::uint16_t> group_sizes;  ///< Members of each.
    const hop* hops = nullptr;
  };
  /// Ids and memory that older versions may still use. Destroy on the compiler's thread after the
  /// grace period; may outlive nothing but the store's owner: it keeps the store alive.
  struct garbage {
    std::shared_ptr<hop_store> store;
    std::vector<std::uint32_t> hops;
    std::vector<path_list_id> path_lists;
    std::vector<std::uint32_t> groups;
    std::vector<std::unique_ptr<path_list[]>> chunks;
    std::vector<std::unique_ptr<hop_group_member[]>> members;
    garbage() = default;
    garbage(const garbage&) = delete;
    garbage& operator=(const garbage&) = delete;
    ~garbage();
    [[nodiscard]] std::size_t bytes() const noexcept;
  };

  /// Ends the changes of one version: drops what nothing references, writes what changed.
  [[nodiscard]] directory commit();
  [[nodiscard]] std::unique_ptr<garbage> take_garbage(std::shared_ptr<hop_store> self);
  /// Whether anything changed since the last commit().
  [[nodiscard]] bool changed() const noexcept {
    return !dirty_path_lists_.empty() || !idle_path_lists_.empty() || !garbage_->hops.empty();
  }

  [[nodiscard]] std::size_t bytes() const noexcept;
  [[nodiscard]] std::size_t hops_in_use() const noexcept { return next_hop_ - free_hops_.size(); }
  [[nodiscard]] std::size_t path_lists_in_use() const noexcept {
    return path_lists_.size() - free_path_lists_.size();
  }

 private:
  struct adjacency {
    hop_key key;
    std::uint32_t hop = 0;  ///< Of a bond's slaves: their group, and hop_group_member::slave_group.
    std::uint32_t references = 0;
    std::vector<path_list_id> path_lists;  ///< That name it.
    bool live = false;
  };
  struct path_list_entry {
    path_list_key key;
    std::uint32_t references = 0;
    std::uint32_t group = no_group;
    bool dirty = false;
    bool idle = false;  ///< Listed in idle_path_lists_.
  };
  static constexpr std::uint32_t no_group = 0xffffffff;

  void rebuild(adjacency_id id);
  [[nodiscard]] std::uint32_t place(const hop& made);
  [[nodiscard]] std::uint32_t place(const built_hop& made);
  [[nodiscard]] bool is_at(std::uint32_t id, const hop& made) const noexcept;
  [[nodiscard]] bool is_at(std::uint32_t id, const built_hop& made) const noexcept;
  void release_hop(std::uint32_t id);
  void release_path_list(path_list_id id);
  void release_adjacency(adjacency_id id);
  void mark_dirty(path_list_id id);
  void write_path_list(path_list_id id);
  [[nodiscard]] path_list& writable(path_list_id id);
  [[nodiscard]] std::uint32_t place_group(std::unique_ptr<hop_group_member[]> members,
                                          std::size_t count);
  void release_group(std::uint32_t id);
  void join(path_list_id id);
  void leave(path_list_id id);

  hop_builder builder_;
  std::uint32_t hop_capacity_;
  hop* hops_ = nullptr;  ///< Address space for hop_capacity_, at a stable address.
  std::uint32_t next_hop_ = 0;
  std::vector<std::uint32_t> free_hops_;

  std::vector<adjacency> adjacencies_;
  std::vector<adjacency_id> free_adjacencies_;
  std::vector<adjacency_id> idle_adjacencies_;
  std::map<hop_key, adjacency_id> adjacency_of_;
  std::map<std::pair<std::uint32_t, ip_address>, std::vector<adjacency_id>> neighbours_;

  std::vector<path_list_entry> path_lists_;
  std::vector<path_list_id> free_path_lists_, idle_path_lists_, dirty_path_lists_;
  std::map<path_list_key, path_list_id> path_list_of_;

  std::vector<std::unique_ptr<path_list[]>> chunks_;
  std::vector<bool> chunk_is_fresh_;  ///< Not yet seen by readers.
  std::vector<std::unique_ptr<hop_group_member[]>> groups_;
  std::vector<std::uint16_t> group_sizes_;  ///< As many.
  std::vector<std::uint32_t> free_groups_;
  std::size_t group_members_ = 0;  ///< Of all live groups.
  std::unique_ptr<garbage> garbage_;
};

}  // namespace cowire::detail
