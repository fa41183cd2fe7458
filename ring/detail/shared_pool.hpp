// SPDX-License-Identifier: Apache-2.0
/// The buffers that all sources of a ring with one layout fill (ring/shared_source.hpp).
///
///     shared_source  (one a socket)  at most buffer_count leases each
///     shared_pool    free buffers, the warmest on top
///          |   few at once
///     kernel         (one group of provided buffers)
///
/// With a thousand sockets of which each gets a datagram now and then, buffers of its own are cold
/// whenever one comes: what lies in them, what says which are free, and the kernel's list of them.
/// Here all fill the same few as long as nobody keeps what is in them.
#pragma once

#include <cowire/base/forked.hpp>
#include <cowire/ring/datagram_source.hpp>
#include <cowire/ring/detail/backend.hpp>
#include <cowire/ring/detail/datagram_pool.hpp>
#include <cowire/ring/detail/event_loop.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace cowire::detail {

class shared_source;

/// Ring thread, but for what is marked.
class shared_pool final : public datagram_pool, public std::enable_shared_from_this<shared_pool> {
 public:
  /// Reserves layout.buffer_count leases. Throws std::bad_alloc.
  [[nodiscard]] static std::shared_ptr<shared_pool> join(event_loop& loop,
                                                         const datagram_source::options& layout);
  shared_pool(event_loop& l, const datagram_source::options& layout);

  /// Of a source that is in the kernel no more, and has so many leases left.
  void leave(shared_source& source, std::size_t reserved, std::size_t held) noexcept;
  [[nodiscard]] buffer_group& group() noexcept { return *group_; }
  [[nodiscard]] std::span<std::byte> buffer(std::uint16_t id) const noexcept override;

  /// A filled buffer gets its first lease, which is one of `whom`.
  void hand_to(shared_source& whom, std::uint16_t id) noexcept;
  /// A filled buffer that nobody leases.
  void put_back(std::uint16_t id) noexcept;
  /// A free one: there is, for a source that has not all its leases.
  [[nodiscard]] std::uint16_t pop() noexcept;
  /// The kernel has run out of buffers: from now on it gets more at once.
  void deepen();
  /// Fetches what other threads gave back.
  void collect() noexcept;
  /// How many sources wait for what other threads give back, and want to be told at once.
  void add_waiting(int change) noexcept;

  /// Any thread.
  void give_back(std::uint16_t id) noexcept override;

 private:
  static constexpr std::size_t chunk_size = 64, id_count = 65536;
  /// In the kernel's hands at first, and at most. Fewer and it runs out while the ring thread takes
  /// a batch; more and they are cold again when their turn comes.
  static constexpr std::size_t depth_first = 64, depth_max = 1024;

  struct chunk {
    std::unique_ptr<std::byte[]> bytes;
    std::array<std::atomic<std::uint32_t>, chunk_size> leases{};
    std::array<shared_source*, chunk_size> holders{};
  };

  [[nodiscard]] std::atomic<std::uint32_t>& leases(std::uint16_t id) const noexcept override {
    return chunks_[id / chunk_size]->leases[id % chunk_size];
  }
  [[nodiscard]] shared_source*& holder(std::uint16_t id) noexcept {
    return chunks_[id / chunk_size]->holders[id % chunk_size];
  }
  [[nodiscard]] bool serves(const datagram_source::options& layout) const noexcept;
  void reserve(std::size_t count);
  void grow();
  void refill() noexcept;
  void returned(std::uint16_t id) noexcept;

  const fork_mark born_;
  event_loop& loop_;  // Valid as long as not closed_.
  const datagram_source::options layout_;
  const std::size_t size_, stride_;  // Of a buffer.
  std::unique_ptr<buffer_group> group_;
  std::vector<std::uint16_t> free_;
  std::size_t depth_ = depth_first;
  std::size_t sources_ = 0;
  std::size_t reserved_ = 0;  // Leases that there may be.
  std::size_t capacity_ = 0;  // Buffers; depth_ more than that at least.

  std::mutex mutex_;
  bool closed_ = false;  // The last source has left.
  int waiting_ = 0;
  bool announced_ = false;               // A collect() is on its way.
  std::vector<std::uint16_t> returned_;  // By other threads, until collect() fetches them.

  // An element does not change once there is a lease on any of its buffers: any thread.
  std::array<std::unique_ptr<chunk>, id_count / chunk_size> chunks_;
};

}  // namespace cowire::detail
