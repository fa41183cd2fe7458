// SPDX-License-Identifier: Apache-2.0
/// What a compiler publishes, as a reader sees it, beside what the resolver says.
#pragma once

#include <cowire/route/compiler.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace cowire::testing {

/// A compiler on a mirror, and what a reader would see.
class compiled {
 public:
  explicit compiled(const mirror& state) : made_(state, epoch_, published_) {}

  void add(const flow_class& cls) { classes_.emplace_back(made_.add_class(cls), cls); }
  /// Sends what leaves through any of the devices, under whatever name, to a slot.
  void publish(const mirror& state) {
    for (const auto& [index, device] : state.devices())
      if (index != 1) made_.set_egress(index, static_cast<egress_slot>(index));
    static_cast<void>(made_.publish());
  }
  void note(mirror_changes&& changes) { made_.note(std::move(changes)); }

  /// Empty = a reader finds for this class and destination what the resolver says.
  [[nodiscard]] std::string disagreement(std::size_t which, const ip_address& to,
                                         std::uint16_t port) const;
  /// Where a reader sends a datagram of a class's.
  [[nodiscard]] hop hop_for(std::size_t which, const flow& of) const {
    return made_.published_hop(classes_[which].first, of);
  }
  /// Empty = both lead to the same bytes by the same shares.
  [[nodiscard]] std::string difference(const compiled& other, const ip_address& to) const;

 private:
  [[nodiscard]] const path_list& path_of(flow_class_id id, const ip_address& to) const {
    const auto& tries = published_.current()->table_of(id);
    return published_.current()->path_list_of(to.is_v4() ? tries.v4.lookup(to_key4(to))
                                                         : tries.v6.lookup(to_key6(to)));
  }
  /// A member of what a path list leads to, or what chooses among the members that follow.
  struct choice {
    hop_group_member member;
    bool is_rule = false;
  };
  [[nodiscard]] std::vector<choice> choices_of(const path_list& path) const;
  void add_slaves(std::vector<choice>& to, std::uint32_t group, std::size_t count) const;
  [[nodiscard]] const hop& hop_of(std::uint32_t id) const { return published_.current()->hops[id]; }

  epoch_domain epoch_;
  publisher published_;
  compiler made_;
  std::vector<std::pair<flow_class_id, flow_class>> classes_;
};

/// Both ends of every prefix that anything names and their neighbours: between two of them no
/// table can change its mind.
[[nodiscard]] std::vector<ip_address> boundaries(const mirror& state);

}  // namespace cowire::testing
