// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/truth_auditor.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>

namespace cowire::detail {
namespace {

using namespace std::chrono_literals;

/// Questions asked in a row. The kernel answers while it is asked, taking its routing lock each
/// time: more would keep changes waiting that have to be published.
constexpr std::size_t questions_per_turn = 16;
/// Sampled flows of which one is asked about the tunnel that it goes through, if any.
constexpr std::uint32_t flows_per_tunnel = 4;
/// Between two re-dumps because the kernel goes on to disagree: doubles from the first.
constexpr auto repair_delay_min = 1s, repair_delay_max = 60s;

}  // namespace

truth_auditor::truth_auditor(ring_context& ring, const mirror& state, follower& owner,
                             std::uint32_t rate)
    : ring_(ring), owner_(owner), rate_(rate), questions_(ring), timer_(ring), audit_(state) {}

void truth_auditor::start() {
  co_spawn(ring_.get_executor(), follow_answers(), rethrow);
  co_spawn(ring_.get_executor(), keep_auditing(), rethrow);
}

void truth_auditor::stop() {
  stopped_ = true;
  questions_.cancel();
  timer_.cancel();
}

awaitable<void> truth_auditor::follow_answers() {
  // What an overrun lost is given up in time.
  while (!stopped_)
    co_await questions_.receive([this](std::span<const std::byte> answer) {
      if (!stopped_) audit_.on_answer_datagram(answer, clock::now());
    });
}

awaitable<void> truth_auditor::keep_auditing() {
  const auto turns_apart = std::chrono::nanoseconds(1s) * questions_per_turn / rate_;
  const auto period = std::clamp<clock::duration>(turns_apart, std::chrono::milliseconds(1),
                                                  truth_audit::settle_time);
  while (!stopped_) {
    timer_.expires_after(period);
    co_await timer_.async_wait(as_tuple(use_awaitable));
    co_await owner_.let_others_run();
    if (stopped_) co_return;
    take_turn(clock::now());
  }
}

void truth_auditor::take_turn(clock::time_point now) {
  flow in_use;
  for (std::size_t i = 0; i < questions_per_turn && owner_.next_flow(in_use); ++i) {
    if (!owner_.is_followed()) continue;
    audit_.ask(in_use);
    // There are fewer tunnels than destinations.
    if (++sampled_ % flows_per_tunnel == 0) audit_.ask_below(in_use);
  }
  audit_.on_timer(now, owner_.is_settled());
  while (const auto finding = audit_.next_finding()) act_on(*finding, now);
  if (audit_.any_diverted() && now >= next_repair_) {
    next_repair_ = now + repair_delay_;
    repair_delay_ = std::min<clock::duration>(repair_delay_ * 2, repair_delay_max);
    owner_.read_anew();
  }
  send_questions(now);
  owner_.on_audited(audit_.stats());
}

void truth_auditor::act_on(const truth_audit::finding& finding, clock::time_point now) {
  owner_.act_on(finding);
  if (finding.what != truth_audit::finding::kind::divert) return;
  next_repair_ = now;
  repair_delay_ = repair_delay_min;
}

void truth_auditor::send_questions(clock::time_point now) {
  for (std::size_t i = 0; i < questions_per_turn; ++i) {
    const auto question = audit_.next_request(now);
    // One that cannot be sent is given up in time, as one that is not answered.
    if (!question || !questions_.send(*question)) return;
  }
}

}  // namespace cowire::detail
