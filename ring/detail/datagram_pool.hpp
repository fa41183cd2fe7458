// SPDX-License-Identifier: Apache-2.0
/// What leases on received datagrams share: the memory, and the way back.
///
/// Each buffer has a count of leases; the last one to end gives it back, on whatever thread. Leases
/// keep the pool, which may outlive whoever received into it, and the ring.
#pragma once

#include <cowire/base/assert.hpp>
#include <cowire/ring/datagram_source.hpp>
#include <cowire/ring/detail/backend.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

namespace cowire::detail {

class datagram_pool {
 public:
  explicit datagram_pool(const datagram_source::options& layout) noexcept
      : name_capacity_(layout.name_capacity),
        control_capacity_(layout.control_capacity),
        payload_offset_(layout.payload_offset()) {}
  datagram_pool(const datagram_pool&) = delete;
  datagram_pool& operator=(const datagram_pool&) = delete;
  virtual ~datagram_pool() = default;

  /// The first lease on a buffer, and further ones.
  void lease(std::uint16_t id) noexcept { leases(id).store(1, std::memory_order_relaxed); }
  void lease_again(std::uint16_t id) noexcept {
    leases(id).fetch_add(1, std::memory_order_relaxed);
  }
  [[nodiscard]] bool leased_once(std::uint16_t id) const noexcept {
    return leases(id).load(std::memory_order_acquire) == 1;
  }
  /// Any thread: a lease ends, and with the last one the buffer goes back.
  void end_lease(std::uint16_t id) noexcept {
    // Acquire pairs with the release of whoever ended another lease: its reads come before what the
    // kernel writes next.
    if (!leased_once(id) && leases(id).fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    give_back(id);
  }

  [[nodiscard]] receive_header header(std::uint16_t id) const noexcept {
    receive_header h;
    std::memcpy(&h, buffer(id).data(), sizeof h);
    return h;
  }
  [[nodiscard]] std::span<const std::byte> name(std::uint16_t id) const noexcept {
    const std::size_t size = std::min<std::size_t>(header(id).name_size, name_capacity_);
    return buffer(id).subspan(sizeof(receive_header), size);
  }
  [[nodiscard]] std::span<const std::byte> control(std::uint16_t id) const noexcept {
    const std::size_t size = std::min<std::size_t>(header(id).control_size, control_capacity_);
    return buffer(id).subspan(sizeof(receive_header) + name_capacity_, size);
  }
  [[nodiscard]] std::span<const std::byte> payload(std::uint16_t id, int result) const noexcept {
    COWIRE_ASSERT(result >= 0 && static_cast<std::size_t>(result) >= payload_offset_);
    return buffer(id).subspan(payload_offset_, static_cast<std::size_t>(result) - payload_offset_);
  }

  /// Any thread.
  virtual void give_back(std::uint16_t id) noexcept = 0;

 private:
  [[nodiscard]] virtual std::span<std::byte> buffer(std::uint16_t id) const noexcept = 0;
  [[nodiscard]] virtual std::atomic<std::uint32_t>& leases(std::uint16_t id) const noexcept = 0;

  const std::size_t name_capacity_, control_capacity_, payload_offset_;
};

}  // namespace cowire::detail
