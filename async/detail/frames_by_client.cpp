// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/frames_by_client.hpp>
#include <cowire/base/assert.hpp>

#include <algorithm>
#include <utility>

namespace cowire::detail {

frames_by_client::frames_by_client(const std::vector<frame_slice>& slices, answer_callback answer,
                                   refused_callback refused)
    : answer_(std::move(answer)), refused_(std::move(refused)) {
  for (const frame_slice& one : slices)
    owners_.push_back({one.first, std::vector<owner>(one.count)});
}

frames_by_client::owner& frames_by_client::owner_of(frame_index frame) noexcept {
  const auto has = [frame](const owners& of) {
    return frame >= of.first && frame - of.first < of.by_frame.size();
  };
  const auto of = std::ranges::find_if(owners_, has);
  COWIRE_ASSERT(of != owners_.end());
  return of->by_frame[frame - of->first];
}

void frames_by_client::note_submitted(std::span<const tx_request> requests) {
  auto& whose = *accounts_.try_emplace(client_).first;
  for (const tx_request& request : requests) note_submitted(whose, request.frame);
}

void frames_by_client::note_submitted(frame_index frame) {
  note_submitted(*accounts_.try_emplace(client_).first, frame);
}

void frames_by_client::note_submitted(accounts::value_type& whose, frame_index frame) noexcept {
  account& of = whose.second;
  owner_of(frame) = {&whose, of.over + of.ended.size()};
  ++of.newest_on_the_way;
}

void frames_by_client::note_returned(frame_index frame, int number) noexcept {
  const owner was = std::exchange(owner_of(frame), {});
  if (was.whose == nullptr) return;  // Submitted by whoever had the producer before.
  account& of = was.whose->second;
  const std::uint64_t index = was.batch - of.over;
  --(index == of.ended.size() ? of.newest_on_the_way : of.ended[index].on_the_way);
  if (number != 0) {
    refused_(was.whose->first);
    for (auto i = index; i < of.ended.size(); ++i) ++of.ended[i].asked.totals.kernel_refused;
  }
  for (; !of.ended.empty() && of.ended.front().on_the_way == 0; ++of.over) {
    --waiting_;
    answer_(was.whose->first, of.ended.front().asked);
    of.ended.pop_front();
  }
  if (of.newest_on_the_way == 0 && of.ended.empty()) accounts_.erase(was.whose->first);
}

bool frames_by_client::ask(const std::string& client, const flush& what) {
  const auto known = accounts_.find(client);
  if (known == accounts_.end()) {
    answer_(client, what);
    return true;
  }
  account& of = known->second;
  if (of.ended.size() == flushes_max) return false;
  of.ended.push_back({std::exchange(of.newest_on_the_way, 0), what});
  ++waiting_;
  return true;
}

}  // namespace cowire::detail
