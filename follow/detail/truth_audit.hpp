// SPDX-License-Identifier: Apache-2.0
/// Asks the kernel whether the mirror's answers are its own, for flows that are in use: the state
/// machine, without any I/O.
///
/// Each flow is one RTM_GETROUTE question. An answer that differs from resolve()'s is a suspicion,
/// not a finding: a change may be on its way. The mirror is given time to apply everything that had
/// been announced before the answer, then judged; where it still differs the kernel is asked again.
/// It is a finding when both have stood by their answers for some rounds. Then a last question
/// (which route matched?) tells the prefix concerned:
///
///                +--------- asked again, until neither has moved for some rounds
///                v                        |
///     ask() -> asked --differs--> settling --differs--> matching --> finding
///                |                        |
///                +--- agrees: audited     +--- agrees: it was a race
///
/// A finding diverts its prefix until the kernel is seen to agree again: on_resynced() asks about
/// all that is diverted, once the mirror is new. A path exception (path MTU, redirect) that only
/// one side knows is told at once, for its owner to ask about: only where they still differ when
/// that must have been done it is a finding.
///
/// The outer datagrams of tunnels are flows like others; what is found about their remote addresses
/// concerns all tunnels that lead there.
///
/// What the fast path does not serve (resolve() diverts or refuses it, or its neighbour is not
/// resolved) is not asked about: there the kernel decides anyhow.
///
/// One thread at a time.
#pragma once

#include <cowire/follow/route_events.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/resolve.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cowire::detail {

/// What an answer to RTM_GETROUTE says; empty where it is none, or cannot be understood.
[[nodiscard]] std::optional<netlink::route_answer> read_route_answer(
    const netlink::envelope& reply);

class truth_audit {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  /// What is to be done about a prefix.
  struct finding {
    enum class kind : std::uint8_t {
      divert,     ///< The kernel decides otherwise.
      lift,       ///< It agrees again.
      exception,  ///< What it has learnt about this one destination is not what we know.
    } what = kind::divert;
    ip_prefix where;
    std::uint32_t path_mtu = 0;  ///< exception: 0 = it has not learnt any.
    std::string text;            ///< Both answers, for people.
  };

  /// `state` outlives the audit; it is the live mirror.
  explicit truth_audit(const mirror& state) : state_(state) {}

  /// Begins with a flow; ignored while as many as can be are being asked about, or this one is.
  void ask(const flow& about);
  /// Begins with the outer datagrams of the tunnels that a flow goes through, one inside another.
  void ask_below(const flow& about);
  /// Bytes to write on the question socket, as one datagram; empty = nothing to ask now.
  [[nodiscard]] std::optional<std::vector<std::byte>> next_request(time_point now);
  /// One whole datagram of that socket; the owner has checked that the kernel sent it.
  void on_answer_datagram(std::span<const std::byte> datagram, time_point now);
  /// Call about every settle_time. `settled`: the mirror follows the kernel, nothing is being
  /// re-read, and every notification that had arrived is applied. Nobody is judged otherwise.
  void on_timer(time_point now, bool settled);
  /// The mirror was read anew: asks again about all that is diverted.
  void on_resynced();
  /// The mirror is known to be doubtful: suspicions against it prove nothing.
  void forget_suspicions();
  [[nodiscard]] std::optional<finding> next_finding();

  /// Whether anything is diverted, so that reading the mirror anew makes sense.
  [[nodiscard]] bool any_diverted() const noexcept { return !diverted_.empty(); }
  [[nodiscard]] const truth_audit_stats& stats() const noexcept { return stats_; }

  /// Flows being asked about, and prefixes diverted one by one; beyond, the whole family is.
  static constexpr std::size_t questions_max = 128, diverted_max = 256;
  /// How long a notification may take from the kernel to the mirror before anybody is judged.
  static constexpr std::chrono::milliseconds settle_time{50};
  /// A question without an answer for so long counts as not asked.
  static constexpr std::chrono::seconds answer_timeout{1};

 private:
  enum class step : std::uint8_t { asked, settling, matching, recheck };
  struct question {
    flow about;
    step at = step::asked;
    bool to_send = true;
    std::uint32_t sequence = 0;
    time_point due;    ///< Of the next step; where an answer is awaited: when that is given up.
    int rounds = 0;    ///< Answers so far.
    int standing = 0;  ///< Judgements in a row in which neither side had moved.
    netlink::route_answer answer;  ///< The kernel's latest about the flow.
    bool repeated = false;         ///< It is the one before it, too.
    std::string text;              ///< The latest judgement.
    ip_prefix where;               ///< recheck: what is diverted for it.
  };

  [[nodiscard]] static bool is_awaiting(const question& q) noexcept {
    return !q.to_send && q.at != step::settling;
  }
  /// These return false when done with the question.
  [[nodiscard]] bool on_answer(question& q, netlink::route_answer&& answer, time_point now);
  [[nodiscard]] bool on_flow_answer(question& q, netlink::route_answer&& answer, time_point now);
  [[nodiscard]] bool judge(question& q);
  void find(const question& q, const netlink::route_answer& matched);
  void lift(const ip_prefix& where);
  [[nodiscard]] std::string compare(const flow& about, const netlink::route_answer& kernel) const;
  void divert(const ip_prefix& where, const flow& about, const std::string& text);
  void tell_exception(const flow& about, const netlink::route_answer& kernel,
                      const std::string& text);

  const mirror& state_;
  std::vector<question> questions_;
  std::map<ip_prefix, flow> diverted_;  ///< With the flow that told.
  std::deque<finding> findings_;
  std::uint32_t sequence_ = 0;
  truth_audit_stats stats_;
};

}  // namespace cowire::detail
