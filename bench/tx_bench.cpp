// SPDX-License-Identifier: Apache-2.0
/// User-side cost of one 1232-byte datagram to one of 5 000 destinations, on rings in plain memory.
///
/// Every variant runs on one thread and includes the same instant device, which completes each
/// descriptor at once.
/// - tx_in_place: the payload lies in the frame already. cowire: request, look-up, headers with
///   checksums, descriptor, completion, frame back at the producer. bare_loop: descriptor and
///   completion, nothing else: the floor that any AF_XDP sender stands on.
/// - tx_with_copy: the payload is copied first. cowire sums it while copying; memcpy_loop copies
///   payload and a ready-made header and leaves the UDP checksum out.
#include <benchmark/benchmark.h>
#include <cowire/xdp/tx_core.hpp>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "bench/bench_options.hpp"
#include "tests/xdp/hand_made_table.hpp"
#include "tests/xdp/test_producer.hpp"

namespace cowire {
namespace {

constexpr std::size_t payload_size = 1232;
constexpr std::size_t destination_count = 5000;
constexpr std::uint32_t frame_count = 8192;

/// Completes whatever is in the ring.
class instant_device {
 public:
  [[nodiscard]] tx_queue queue() noexcept {
    tx_queue q;
    q.producer = &producer_;
    q.consumer = &consumer_;
    q.flags = &flags_;
    q.descriptors = descriptors_.data();
    q.size = static_cast<std::uint32_t>(descriptors_.size());
    q.completion_producer = &completion_producer_;
    q.completion_consumer = &completion_consumer_;
    q.completions = completions_.data();
    q.completion_size = static_cast<std::uint32_t>(completions_.size());
    q.kick = [](void*) noexcept { return 0; };
    return q;
  }
  void run() noexcept {
    const std::uint32_t ready = std::atomic_ref(producer_).load(std::memory_order_acquire);
    for (; consumer_ != ready; ++consumer_)
      completions_[completion_producer_++ % ring] = descriptors_[consumer_ % ring].address;
  }

 private:
  static constexpr std::uint32_t ring = 2048;
  std::uint32_t producer_ = 0, consumer_ = 0, flags_ = 0;
  std::uint32_t completion_producer_ = 0, completion_consumer_ = 0;
  std::vector<tx_descriptor> descriptors_ = std::vector<tx_descriptor>(ring);
  std::vector<std::uint64_t> completions_ = std::vector<std::uint64_t>(ring);
};

/// 5 000 random destinations behind 16 next hops, in a table of 1 000 random prefixes and a default
/// route.
struct world {
  world() {
    std::mt19937 random(1);
    test::hop_spec spec;
    spec.source = ip_address::v4(0x0a000001);
    std::vector<std::uint32_t> paths;
    for (std::uint8_t i = 0; i < 16; ++i) {
      spec.destination_mac.bytes[5] = i;
      paths.push_back(table.add_hop(test::make_hop(spec)));
    }
    table.route("0.0.0.0/0", paths[0]);
    for (int i = 0; i < 1000; ++i) {
      const ip_prefix prefix(ip_address::v4(static_cast<std::uint32_t>(random())),
                             16 + static_cast<unsigned>(random() % 9));
      table.route(prefix.to_string().c_str(), paths[random() % paths.size()]);
    }
    tables.store(&table.finish());
    for (std::size_t i = 0; i < destination_count; ++i)
      destinations.push_back(
          request_destination::from({ip_address::v4(static_cast<std::uint32_t>(random())), 8000}));
    core.attach(producer.channel);
    core.add_port(1, 1, device.queue());
  }

  [[nodiscard]] const request_destination& next() noexcept {
    at = at + 1 == destinations.size() ? 0 : at + 1;
    return destinations[at];
  }

  umem memory{{.frame_count = frame_count}};
  publisher tables;
  epoch_domain epochs;
  doorbell control;
  test::hand_made_table table;
  std::vector<request_destination> destinations;
  std::size_t at = 0;
  instant_device device;
  test::test_producer producer{memory, 0, frame_count};
  tx_core core{memory.memory(), tables, epochs, control};
};

void core_in_place(benchmark::State& state) {
  world w;
  std::vector<tx_request> requests(tx_batch);
  while (state.KeepRunningBatch(tx_batch)) {
    w.producer.reclaim();
    for (tx_request& request : requests) {
      const request_destination& to = w.next();
      static_cast<void>(w.producer.pool.try_acquire(request.frame));
      request.destination = to.bytes;
      request.destination_sum = to.sum;
      request.destination_port = to.port;
      request.length = payload_size;
    }
    static_cast<void>(w.producer.channel.requests.push_some(requests));
    static_cast<void>(w.core.run_once());
    w.device.run();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

void core_with_copy(benchmark::State& state) {
  world w;
  const std::vector<std::byte> payload(payload_size, std::byte{0x5a});
  while (state.KeepRunningBatch(tx_batch)) {
    w.producer.reclaim();
    for (std::size_t i = 0; i < tx_batch; ++i)
      static_cast<void>(w.producer.send(payload, w.next()));
    static_cast<void>(w.core.run_once());
    w.device.run();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

/// What every AF_XDP sender does at least: take a free frame, fill it, describe it, take it back.
template <class Fill>
void bare(benchmark::State& state, Fill fill) {
  umem memory({.frame_count = frame_count});
  instant_device device;
  const tx_queue q = device.queue();
  std::vector<std::uint64_t> free;
  for (std::uint32_t i = frame_count; i-- > 0;) free.push_back(std::uint64_t{i} * 2048);
  std::uint32_t producer = 0, completed = 0;
  while (state.KeepRunningBatch(tx_batch)) {
    for (std::size_t i = 0; i < tx_batch; ++i) {
      const std::uint64_t address = free.back();
      free.pop_back();
      fill(memory.memory().base + address);
      q.descriptors[producer++ % q.size] = {address, payload_size + 42, 0};
    }
    std::atomic_ref(*q.producer).store(producer, std::memory_order_release);
    device.run();
    const std::uint32_t ready =
        std::atomic_ref(*q.completion_producer).load(std::memory_order_acquire);
    while (completed != ready) free.push_back(q.completions[completed++ % q.completion_size]);
    std::atomic_ref(*q.completion_consumer).store(completed, std::memory_order_release);
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

void bare_in_place(benchmark::State& state) {
  bare(state, [](std::byte*) {});
}

void bare_with_memcpy(benchmark::State& state) {
  const std::vector<std::byte> payload(payload_size, std::byte{0x5a}), header(42);
  bare(state, [&](std::byte* frame) {
    std::memcpy(frame, header.data(), 42);
    std::memcpy(frame + 42, payload.data(), payload_size);
  });
}

BENCHMARK(core_in_place)->Name("tx_in_place/cowire");
BENCHMARK(bare_in_place)->Name("tx_in_place/bare_loop");
BENCHMARK(core_with_copy)->Name("tx_with_copy/cowire");
BENCHMARK(bare_with_memcpy)->Name("tx_with_copy/memcpy_loop");

}  // namespace
}  // namespace cowire

int main(int argc, char** argv) { return cowire::bench::run(argc, argv); }
