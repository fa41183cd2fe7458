// SPDX-License-Identifier: Apache-2.0
/// Whose the frames are that an intake's producers have on the way, so that a client's flush waits
/// for the client's own datagrams and for nobody else's, and what the kernel refuses is counted as
/// the client's.
///
/// A flush ends a batch of its client's: it is answered when that one and all before it have
/// nothing on the way, in the order in which they were asked for. A client costs something only
/// while it has frames on the way. The intake's thread.
#pragma once

#include <cowire/async/detail/producer.hpp>
#include <cowire/async/intake.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace cowire::detail {

class frames_by_client final : public frame_ledger {
 public:
  /// A question of a client's, and what is answered: totals of when it was asked, to which is added
  /// what is refused of all that it waits for.
  struct flush {
    std::uint64_t token = 0;
    intake_totals totals;
    bool all_totals = false;  ///< As intake_all_totals.
  };
  using answer_callback = std::function<void(const std::string& client, const flush& asked)>;
  using refused_callback = std::function<void(const std::string& client)>;

  /// Flushes of one client that may wait.
  static constexpr std::size_t flushes_max = 1024;

  /// Of the frames of these. `refused`: the kernel refused one of the client's. Neither may come
  /// back here.
  frames_by_client(const std::vector<frame_slice>& slices, answer_callback answer,
                   refused_callback refused);

  /// Whose the frames are that are submitted from now on.
  void take_turn(const std::string& client) { client_ = client; }
  void note_submitted(std::span<const tx_request> requests) override;
  void note_submitted(frame_index frame);
  /// May answer.
  void note_returned(frame_index frame, int number) noexcept override;

  /// Answers now, or when all that the client has on the way came back. False where too many wait.
  [[nodiscard]] bool ask(const std::string& client, const flush& what);
  [[nodiscard]] bool anyone_waits() const noexcept { return waiting_ != 0; }

 private:
  /// What a client submitted between two flushes.
  struct batch {
    std::uint32_t on_the_way = 0;
    flush asked;
  };
  struct account {
    std::uint32_t newest_on_the_way = 0;  ///< Of the batch that no flush has ended yet.
    std::deque<batch> ended;              ///< Whose flushes wait, the oldest first.
    std::uint64_t over = 0;               ///< Batches before those.
  };
  using accounts = std::map<std::string, account>;
  struct owner {
    accounts::value_type* whose = nullptr;  ///< Null: nobody's that is known here.
    std::uint64_t batch = 0;
  };
  struct owners {
    frame_index first = 0;
    std::vector<owner> by_frame;
  };

  [[nodiscard]] owner& owner_of(frame_index frame) noexcept;
  void note_submitted(accounts::value_type& whose, frame_index frame) noexcept;

  const answer_callback answer_;
  const refused_callback refused_;
  std::vector<owners> owners_;  ///< By slice.
  accounts accounts_;
  std::string client_;
  std::size_t waiting_ = 0;  ///< Flushes, of all clients.
};

}  // namespace cowire::detail
