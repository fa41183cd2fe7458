// SPDX-License-Identifier: Apache-2.0
/// Asks the output path about flow classes on their way through devices, for the compiler, and
/// tells which destinations it treats alike.
///
/// A question is what a class sends through one kind of hop; its answer says it of every
/// destination. Answers are kept until the mirror's devices change; a new snapshot is asked the
/// same questions at once.
///
/// The control thread only.
#pragma once

#include <cowire/route/detail/destination_verdicts.hpp>
#include <cowire/route/detail/header_template.hpp>
#include <cowire/route/detail/judge_destinations.hpp>
#include <cowire/route/detail/output_sets.hpp>
#include <cowire/route/detail/ruleset_difference.hpp>
#include <cowire/route/detail/zone_map.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/output_path.hpp>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace cowire::detail {

class output_judge {
 public:
  explicit output_judge(const mirror& state) : state_(state) {}

  /// Unset: nothing is known and nothing is asked. Where single rules, elements or policies are all
  /// that is different, only destinations that they concern are asked about again. False: zones()
  /// says everything that may be decided otherwise.
  bool set(std::shared_ptr<const output_snapshot> snapshot);
  /// Devices have changed.
  void forget();
  /// Whether the outer datagrams of some tunnel that was asked about leave otherwise by now.
  [[nodiscard]] bool outer_routes_differ() const;
  /// Whether answers may differ between flows at all.
  [[nodiscard]] bool has_something_to_say() const noexcept { return snapshot_ && !empty_; }

  /// What may not take the fast path of all that this hop of a class's sends to some destinations.
  struct answer {
    std::optional<divert_reason> reason;  ///< Unset: everything may.
    /// The destination ports that may; unset: none, or too many to tell.
    std::optional<port_filter> ports;
    bool tracked = false;  ///< What may, must be tracked (output_verdict::tracked),
    /// but what goes to these ports. Only where everything may, and ranges are few.
    std::optional<port_filter> untracked_ports;
  };
  /// Of destinations in `where`, the outer datagrams of a tunnel included. A question that is new
  /// may divide zones, unless it is `only_to_explain`.
  [[nodiscard]] answer judge(const flow_class& cls, const hop_key& hop, const ip_prefix& where,
                             bool only_to_explain = false);
  /// In words, for datagrams to this port; 0: to any. Divides nothing.
  [[nodiscard]] output_verdict explain(const flow_class& cls, const hop_key& hop,
                                       const ip_prefix& where, std::uint16_t port);

  /// As prefixes_of(). Until the next call of anything else.
  [[nodiscard]] const std::vector<zone_prefix>& zones(ip_family family);
  /// Counts changes of zones().
  [[nodiscard]] std::uint64_t zones_version(ip_family family);
  /// One destination of a zone stands for all; of zone 0 the whole address space does.
  [[nodiscard]] ip_prefix example_of(ip_family family, zone_id zone);

 private:
  struct question {
    flow_class cls;
    std::uint32_t interface_index = 0;
    ip_address source;
    std::uint8_t tos = 0, hop_limit = 0;
    bool multicast = false;
    [[nodiscard]] ip_family family() const noexcept { return source.family(); }
    friend bool operator==(const question&, const question&) = default;
  };
  /// Where a tunnel's outer datagrams leave, and from which address.
  struct outer_route {
    std::uint32_t interface_index = 0;
    ip_address source;
    friend bool operator==(const outer_route&, const outer_route&) = default;
  };
  struct asked {
    question about;
    std::vector<port_verdicts> answers;
    /// Of a tunnel, as the answers know it; unset: not a tunnel, or no such route.
    std::optional<outer_route> outer;
    std::vector<output_verdict> outer_verdicts;  ///< Of its outer datagrams: ask_all_outer().
    bool divides = false;                        ///< The compiler asked.
  };
  struct family_zones {
    bool stale = false;
    std::uint64_t version = 0;
    std::vector<zone_prefix> prefixes;
    /// By what each question's answer is there for each range of ports (0 = untouched, 255 = but
    /// tracked, else 1 + the reason), and the number of questions.
    std::map<std::vector<std::uint16_t>, zone_id> ids;
    std::vector<ip_prefix> examples;  ///< By id, from 1 on; those of old ids stay.
  };
  [[nodiscard]] asked& ask(const flow_class& cls, const hop_key& hop);
  void answer_anew(asked& one) const;
  [[nodiscard]] output_flow region_of(const question& about) const;
  void leave_by(std::uint32_t interface_index, output_flow& region) const;
  [[nodiscard]] std::optional<outer_route> outer_route_of(const question& about) const;
  [[nodiscard]] output_verdict ask_outer(const netlink::link& tunnel, ip_family carried,
                                         const output_flow& inner,
                                         const std::optional<outer_route>& route) const;
  [[nodiscard]] std::vector<output_verdict> ask_all_outer(const asked& one,
                                                          const output_flow& region) const;
  [[nodiscard]] bool local_table_comes_first(ip_family family) const;
  [[nodiscard]] bool is_told_apart();
  [[nodiscard]] bool follow(const output_snapshot& before, output_sets& sets_before);
  [[nodiscard]] address_set concerned_by(const ruleset_difference& difference,
                                         const output_flow& region, output_sets& sets_before);
  [[nodiscard]] address_set concerned_by_elements(const ruleset_difference& difference,
                                                  const output_flow& region, output_sets& sets);
  [[nodiscard]] bool judge_again(asked& one, const output_flow& region, const address_set& which);
  [[nodiscard]] std::vector<zone_piece> overlay(ip_family family,
                                                const address_set::interval& where);
  void refresh(ip_family family);
  void follow_zones(ip_family family, const address_set& where);
  [[nodiscard]] bool renew_examples(family_zones& zones, const address_set& where);
  [[nodiscard]] family_zones& zones_of(ip_family family) noexcept {
    return zones_[static_cast<std::size_t>(family)];
  }

  const mirror& state_;
  std::shared_ptr<const output_snapshot> snapshot_;
  std::unique_ptr<output_sets> sets_;  ///< Of the snapshot's rules.
  bool empty_ = true;
  std::deque<asked> asked_;  ///< Elements stay where they are.
  family_zones zones_[2];
};

}  // namespace cowire::detail
