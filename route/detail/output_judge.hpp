// SPDX-License-Identifier: Apache-2.0
/// Asks the output path about a flow class on its way through one device, for the compiler.
///
/// Coarse: of the destination nothing but its family is told, so a rule for one destination is an
/// obstacle for all. Answers are kept until the mirror's devices or the snapshot change.
///
/// The control thread only.
#pragma once

#include <cowire/route/detail/header_template.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/output_path.hpp>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

namespace cowire::detail {

class output_judge {
 public:
  explicit output_judge(const mirror& state) : state_(state) {}

  /// Unset: nothing is known and nothing is asked.
  void set(std::shared_ptr<const output_snapshot> snapshot);
  /// Devices have changed.
  void forget() { answers_.clear(); }
  /// Whether answers may differ between flows at all.
  [[nodiscard]] bool has_something_to_say() const noexcept { return snapshot_ && !empty_; }

  /// Of the datagrams that this hop of the class's sends, the outer ones of a tunnel included.
  [[nodiscard]] const output_verdict& judge(const flow_class& cls, const hop_key& hop);

 private:
  struct answer {
    flow_class cls;
    std::uint32_t interface_index = 0;
    ip_address source;
    std::uint8_t tos = 0, hop_limit = 0;
    output_verdict verdict;
  };
  [[nodiscard]] output_verdict ask(const flow_class& cls, const hop_key& hop) const;
  [[nodiscard]] output_flow region_of(const flow_class& cls, const hop_key& hop) const;
  [[nodiscard]] output_verdict ask_outer(const netlink::tunnel_info& tunnel,
                                         const output_flow& inner) const;

  const mirror& state_;
  std::shared_ptr<const output_snapshot> snapshot_;
  bool empty_ = true;
  std::deque<answer> answers_;  ///< Answers stay where they are.
  const output_verdict nothing_{};
};

}  // namespace cowire::detail
