// SPDX-License-Identifier: Apache-2.0
/// Datagrams from many threads to one: a shared_sender's way, and what one would put in front of a
/// thread that sends instead: a bounded queue of datagrams, boost's (if present) or Vyukov's ring
/// (Dmitry Vyukov, "Bounded MPMC queue"). One iteration is one datagram of 200 bytes, copied by the
/// thread that has it; the consumer takes it, and gives its place back.
///
/// The consumer of ours stands where a TX core does, and does nothing else of its work; those of
/// the queues would still have to write the frame.
///
/// bench_shared_sender [Google Benchmark options]
#include <cowire/async/detail/engine.hpp>
#include <cowire/async/detail/shared_producer.hpp>
#include <cowire/base/relax_cpu.hpp>

#include <benchmark/benchmark.h>

#if defined(COWIRE_BENCH_BOOST)
#include <boost/lockfree/queue.hpp>
#endif

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/bench_options.hpp"

namespace cowire::bench {
namespace {

constexpr std::size_t length = 200;
constexpr std::uint32_t capacity = 4096;  ///< Datagrams on the way, all threads together.

struct datagram {
  endpoint to;
  std::uint32_t size;
  std::array<std::byte, length> bytes;
};

transmitter_config config() {
  return {.mode = send_mode::kernel, .frames_per_producer = capacity, .max_producers = 1};
}

/// What is behind transmitter::make_shared_sender(), without threads of its own.
class cowire_way {
 public:
  cowire_way() {
    for (std::uint32_t i = 0; i < transmitter_config{}.shared_producers; ++i) {
      const auto slice = memory_.allocate_slice(capacity / transmitter_config{}.shared_producers);
      producers_.push_back(std::make_unique<detail::producer>(i, memory_.memory(), *slice, cores_));
      lent_.push_back(producers_.back().get());
    }
    shared_ = std::make_shared<detail::shared_producers>(engine_, lent_);
    shared_->begin();
    from_.family_served = {true, true};
  }
  bool push(std::span<const std::byte> bytes, const endpoint& to) {
    return !(*shared_)[shared_->mine()].try_send(from_, bytes, to);
  }
  std::size_t pop() {
    std::size_t all = 0;
    for (detail::producer* one : lent_) {
      std::array<tx_request, tx_batch> some;
      const std::size_t count = one->channel(0).requests.pop_some(some);
      std::array<frame_index, tx_batch> frames;
      for (std::size_t i = 0; i < count; ++i) frames[i] = some[i].frame;
      benchmark::DoNotOptimize(one->channel(0).returned.push_some({frames.data(), count}));
      all += count;
    }
    return all;
  }

 private:
  umem memory_{{.frame_count = capacity, .huge_pages = false}};
  epoch_domain epochs_;
  publisher tables_;
  doorbell bell_;
  tracked_flows flows_{64};
  detail::core_set cores_{config(), memory_.memory(), tables_, epochs_, bell_, flows_};
  std::shared_ptr<detail::engine> engine_ = std::make_shared<detail::engine>(config());
  std::vector<std::unique_ptr<detail::producer>> producers_;
  std::vector<detail::producer*> lent_;
  detail::sender_state from_;
  std::shared_ptr<detail::shared_producers> shared_;
};

template <class Queue>
class queue_way {
 public:
  bool push(std::span<const std::byte> bytes, const endpoint& to) {
    datagram one{.to = to, .size = static_cast<std::uint32_t>(bytes.size()), .bytes = {}};
    std::memcpy(one.bytes.data(), bytes.data(), bytes.size());
    return queue_.push(one);
  }
  std::size_t pop() {
    datagram one;
    std::size_t count = 0;
    for (; count < tx_batch && queue_.pop(one); ++count) benchmark::DoNotOptimize(one);
    return count;
  }

 private:
  Queue queue_{capacity};
};

class vyukov_ring {
 public:
  explicit vyukov_ring(std::size_t size) : cells_(size), mask_(size - 1) {
    for (std::size_t i = 0; i < size; ++i) cells_[i].turn.store(i, std::memory_order_relaxed);
  }
  bool push(const datagram& value) {
    std::size_t at = tail_.load(std::memory_order_relaxed);
    for (;;) {
      cell& here = cells_[at & mask_];
      const std::size_t turn = here.turn.load(std::memory_order_acquire);
      if (turn == at) {
        if (tail_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
          here.value = value;
          here.turn.store(at + 1, std::memory_order_release);
          return true;
        }
      } else if (turn < at) {
        return false;
      } else {
        at = tail_.load(std::memory_order_relaxed);
      }
    }
  }
  /// As for any number of consumers, which a queue of this kind is for.
  bool pop(datagram& value) {
    std::size_t at = head_.load(std::memory_order_relaxed);
    for (;;) {
      cell& here = cells_[at & mask_];
      const std::size_t turn = here.turn.load(std::memory_order_acquire);
      if (turn == at + 1) {
        if (head_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
          value = here.value;
          here.turn.store(at + mask_ + 1, std::memory_order_release);
          return true;
        }
      } else if (turn < at + 1) {
        return false;
      } else {
        at = head_.load(std::memory_order_relaxed);
      }
    }
  }

 private:
  struct alignas(64) cell {
    std::atomic<std::size_t> turn;
    datagram value;
  };
  std::vector<cell> cells_;
  const std::size_t mask_;
  alignas(128) std::atomic<std::size_t> tail_{0};
  alignas(128) std::atomic<std::size_t> head_{0};
};

/// state.range(0) threads send a number of datagrams each, to one that takes them all. What is told
/// is the time of one datagram, by which Google Benchmark cannot choose a number of iterations.
template <class Way>
void send_from_threads(benchmark::State& state) {
  const auto threads = static_cast<std::size_t>(state.range(0));
  const std::size_t all = 1u << 19, each = all / threads;
  const std::string text(length, 'x');
  const endpoint to{*ip_address::parse("192.0.2.1"), 9000};
  Way way;
  for (auto _ : state) {
    std::atomic<bool> go{false};
    std::vector<std::thread> senders;
    for (std::size_t t = 0; t < threads; ++t)
      senders.emplace_back([&] {
        go.wait(false);
        for (std::size_t i = 0; i < each; ++i)
          while (!way.push(std::as_bytes(std::span(text)), to)) std::this_thread::yield();
      });
    const auto begin = std::chrono::steady_clock::now();
    go = true;
    go.notify_all();
    for (std::size_t got = 0; got < each * threads;) {
      const std::size_t some = way.pop();
      if (some == 0) std::this_thread::yield();
      got += some;
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    state.SetIterationTime(taken.count() / static_cast<double>(all));
    for (auto& one : senders) one.join();
  }
}

void register_all() {
  const auto add = [](const char* name, auto* body) {
    benchmark::RegisterBenchmark(name, body)->Arg(64)->UseManualTime()->Iterations(1);
  };
  add("shared_sender/cowire", send_from_threads<cowire_way>);
  add("shared_sender/vyukov_ring", send_from_threads<queue_way<vyukov_ring>>);
#if defined(COWIRE_BENCH_BOOST)
  using boost_queue = boost::lockfree::queue<datagram, boost::lockfree::fixed_sized<true>>;
  add("shared_sender/boost_queue", send_from_threads<queue_way<boost_queue>>);
#endif
}

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) {
  cowire::bench::register_all();
  return cowire::bench::run(argc, argv);
}
