// SPDX-License-Identifier: Apache-2.0
/// The flow classes in use, and one trie for all those that nothing tells apart.
///
/// The compiler's thread only.
#pragma once

#include <cowire/route/detail/hop_store.hpp>
#include <cowire/route/detail/output_judge.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/lpm.hpp>
#include <cowire/route/mirror.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace cowire::detail {

/// The tries of one class table.
struct class_tries {
  lpm_trie<lpm_key4> v4;
  lpm_trie<lpm_key6> v6;

  void assign(const ip_prefix& prefix, path_list_id value);
  void erase(const ip_prefix& prefix);
  [[nodiscard]] std::size_t bytes() const noexcept {
    return v4.memory().bytes_live + v6.memory().bytes_live;
  }
};

class class_set {
 public:
  /// Both outlive it.
  class_set(const mirror& state, const output_judge& output) : state_(state), output_(output) {}

  /// A class table in the making.
  struct table {
    flow_class cls;  ///< Stands for all that share it.
    std::unique_ptr<class_tries> tries;
  };
  struct added {
    flow_class_id id = 0;
    enum class outcome : std::uint8_t {
      known,   ///< Nothing is new.
      shared,  ///< It has the table of another class.
      apart,   ///< It needs a table of its own: assign().
    } how = outcome::known;
  };
  /// `assigned`: the tables are those of the classes there are, so that one may be shared.
  [[nodiscard]] added add(const flow_class& cls, bool assigned);
  void release(flow_class_id id);
  [[nodiscard]] const flow_class& at(flow_class_id id) const { return classes_.at(id); }
  [[nodiscard]] bool empty() const noexcept { return classes_.empty(); }

  /// Deals the classes to new, empty tables; those there were wait in take_retired().
  void assign();
  /// Whether assign() would deal them as they are.
  [[nodiscard]] bool is_current() const;

  [[nodiscard]] std::vector<table>& tables() noexcept { return class_tables_; }
  [[nodiscard]] const std::vector<table>& tables() const noexcept { return class_tables_; }
  /// Table of each class, by flow_class_id.
  [[nodiscard]] const std::vector<std::uint16_t>& index() const noexcept { return class_index_; }
  /// Whether any class, of the last assign(), is bound to a device.
  [[nodiscard]] bool any_is_bound_to_a_device() const noexcept { return any_output_interface_; }
  [[nodiscard]] std::vector<std::unique_ptr<class_tries>> take_retired() noexcept {
    return std::exchange(retired_tries_, {});
  }

 private:
  [[nodiscard]] flow_class distinguished(const flow_class& cls) const;

  const mirror& state_;
  const output_judge& output_;
  std::vector<flow_class> classes_;        ///< By flow_class_id.
  std::vector<std::uint32_t> class_uses_;  ///< By flow_class_id; 0 = free for another.
  std::vector<std::uint16_t> class_index_;
  std::vector<table> class_tables_;
  std::vector<std::unique_ptr<class_tries>> retired_tries_;
  bool any_output_interface_ = false;
};

}  // namespace cowire::detail
