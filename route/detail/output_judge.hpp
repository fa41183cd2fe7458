// SPDX-License-Identifier: Apache-2.0
/// Asks the output path about flow classes on their way through devices, for the compiler, and
/// tells which destinations it treats alike.
///
/// A question is what a class sends through one kind of hop; its answer says it of every
/// destination. Answers are kept until the mirror's devices change, or what else they hang on
/// (circumstances); a new snapshot is asked the same questions at once.
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

#include <cstddef>
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
  /// that is different, only destinations that they concern are asked about again; what else there
  /// is to do is done when the next question is asked. False: zones() says everything that may be
  /// decided otherwise.
  bool set(std::shared_ptr<const output_snapshot> snapshot);
  /// Set while a ruleset is being read that has replaced a known one: nothing may be fast, and what
  /// is answered is still of the known one.
  [[nodiscard]] std::optional<divert_reason> held() const noexcept {
    return held_ ? std::optional(divert_reason::netfilter) : std::nullopt;
  }
  /// Why everything has to be asked anew when the next question is asked; unset: it need not. How
  /// many rules, elements, policies and prefixes that concerns says size_of_change().
  [[nodiscard]] std::optional<divert_reason> must_ask_anew() const noexcept { return anew_; }
  [[nodiscard]] std::size_t size_of_change() const;
  /// Devices have changed, or circumstances differ.
  void forget();
  /// Whether routes, rules or addresses have changed so that something that was asked about might
  /// be answered otherwise now: where a tunnel's outer datagrams leave, or what it says of a
  /// destination's type that it is sent at all.
  [[nodiscard]] bool circumstances_differ() const;
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
    /// The same of the outer headers. Ports are not told apart then: a hop has no room for both.
    bool outer_tracked = false;
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
  /// What an answer hangs on beside the question, the snapshot and the mirror's devices.
  struct circumstances {
    /// Of a tunnel; unset: not a tunnel, or no such route.
    std::optional<outer_route> outer;
    bool local_table_comes_first = false;  ///< Of IPv4: IPv6 makes nothing of it.
    friend bool operator==(const circumstances&, const circumstances&) = default;
  };
  struct asked {
    question about;
    std::vector<port_verdicts> answers;          ///< Without closing rules (closing_rules.hpp).
    std::vector<port_verdicts> closing;          ///< By those alone, whatever the destination.
    circumstances known;                         ///< By the answers.
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
  static void track_outer(answer& told);
  void take_rules();
  void settle();
  [[nodiscard]] asked& ask(const flow_class& cls, const hop_key& hop);
  void answer_anew(asked& one);
  [[nodiscard]] std::vector<port_verdicts> closing_of(const output_flow& region) const;
  [[nodiscard]] bool close_again();
  template <class Visit>
  static void for_each_part(const asked& one, const Visit& visit);
  [[nodiscard]] output_flow region_of(const question& about) const;
  void leave_by(std::uint32_t interface_index, output_flow& region) const;
  [[nodiscard]] std::optional<outer_route> outer_route_of(const question& about) const;
  [[nodiscard]] circumstances circumstances_of(const question& about) const;
  [[nodiscard]] output_verdict ask_outer(const netlink::link& tunnel, ip_family carried,
                                         const output_flow& inner,
                                         const std::optional<outer_route>& route);
  [[nodiscard]] std::vector<output_verdict> ask_all_outer(const asked& one,
                                                          const output_flow& region);
  [[nodiscard]] bool local_table_comes_first(ip_family family) const;
  [[nodiscard]] std::optional<std::uint32_t> type_of_what_is_sent(ip_family family,
                                                                  std::uint32_t bound_to) const;
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

  /// Rules with their sets made ready.
  struct ruled {
    std::shared_ptr<const output_snapshot> snapshot;
    std::unique_ptr<output_sets> sets;
    explicit operator bool() const noexcept { return snapshot != nullptr; }
    void take(std::shared_ptr<const output_snapshot> state);
  };

  const mirror& state_;
  std::shared_ptr<const output_snapshot> snapshot_;
  ruled others_;   ///< All of the snapshot but its closing rules.
  ruled closing_;  ///< Those, and no other layer. Unset: there are none.
  ruled all_;      ///< The snapshot as it is; made when first needed.
  bool empty_ = true;
  std::optional<divert_reason> anew_;
  /// Why nothing may be fast; unset: it may.
  unreadable held_;
  std::deque<asked> asked_;  ///< Elements stay where they are.
  family_zones zones_[2];
};

}  // namespace cowire::detail
