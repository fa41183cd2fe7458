// SPDX-License-Identifier: Apache-2.0
/// The least that a producer is: a slice of frames, a channel, and the habit of taking frames back.
#pragma once

#include <cowire/xdp/frame_pool.hpp>
#include <cowire/xdp/producer_channel.hpp>
#include <cowire/xdp/umem.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace cowire::test {

class test_producer {
 public:
  test_producer(umem& memory, std::uint32_t id, std::uint32_t frames)
      : slice(memory.allocate_slice(frames).value()),
        pool(memory.memory(), slice),
        channel(id, slice.first, slice.count),
        returned_by_kernel(slice.count) {}

  /// False: no free frame.
  bool send(std::span<const std::byte> payload, const request_destination& to,
            flow_class_id cls = 0, std::uint16_t source_port = 8001) {
    frame_index frame;
    if (!acquire(frame)) return false;
    const auto sum = fold_sum(copy_and_sum(pool.payload(frame).data(), payload));
    push(frame, payload.size(), sum, to, cls, source_port);
    return true;
  }

  /// With an ECN codepoint of its own.
  bool send_with_ecn(std::span<const std::byte> payload, const request_destination& to,
                     unsigned ecn) {
    frame_index frame;
    if (!acquire(frame)) return false;
    const auto sum = fold_sum(copy_and_sum(pool.payload(frame).data(), payload));
    push(frame, payload.size(), sum, to, 0, 8001, ecn);
    return true;
  }

  /// With what the frame holds already, whose sum is taken to be 0.
  bool send_in_place(std::size_t size, const request_destination& to) {
    frame_index frame;
    if (!acquire(frame)) return false;
    push(frame, size, 0, to, 0, 8001);
    return true;
  }

  void reclaim() {
    std::array<frame_index, 64> frames;
    for (auto* ring : {&channel.returned, &returned_by_kernel})
      while (const std::size_t n = ring->pop_some(frames)) pool.release({frames.data(), n});
  }

  frame_slice slice;
  frame_pool pool;
  producer_channel channel;
  spsc_ring<frame_index> returned_by_kernel;
  std::uint64_t sent = 0;

 private:
  bool acquire(frame_index& frame) {
    if (pool.free_count() == 0) reclaim();
    return pool.try_acquire(frame);
  }

  void push(frame_index frame, std::size_t size, std::uint16_t payload_sum,
            const request_destination& to, flow_class_id cls, std::uint16_t source_port,
            std::optional<unsigned> ecn = {}) {
    COWIRE_ASSERT(channel.requests.try_emplace([&] {
      tx_request request =
          make_request(pool.place(frame), size, payload_sum, be16::from_host(source_port), to, cls);
      if (ecn) with_ecn(request, *ecn);
      return request;
    }));
    ++sent;
  }
};

}  // namespace cowire::test
