// SPDX-License-Identifier: Apache-2.0
/// Single-producer single-consumer rings between two threads: cowire's, boost::lockfree::spsc_queue
/// (if present), and a minimal ring with cached indices that moves one element at a time. One
/// iteration is one element of 64 bytes.
///
/// bench_spsc [Google Benchmark options]
#include <cowire/base/spsc_ring.hpp>

#include <benchmark/benchmark.h>

#if defined(COWIRE_BENCH_BOOST)
#include <boost/lockfree/spsc_queue.hpp>
#endif

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "bench/bench_options.hpp"

namespace cowire::bench {
namespace {

struct element {
  std::array<std::uint64_t, 8> words;
};
static_assert(sizeof(element) == 64);
constexpr std::size_t capacity = 1024;

class cowire_ring {
 public:
  std::size_t push(const element* from, std::size_t count) {
    return ring_.push_some({from, count});
  }
  std::size_t pop(element* to, std::size_t count) { return ring_.pop_some({to, count}); }
  bool push_one(const element& e) { return ring_.try_push(e); }
  bool pop_one(element& e) { return ring_.try_pop(e); }

 private:
  spsc_ring<element> ring_{capacity};
};

#if defined(COWIRE_BENCH_BOOST)
class boost_ring {
 public:
  std::size_t push(const element* from, std::size_t count) { return ring_.push(from, count); }
  std::size_t pop(element* to, std::size_t count) { return ring_.pop(to, count); }
  bool push_one(const element& e) { return ring_.push(e); }
  bool pop_one(element& e) { return ring_.pop(e); }

 private:
  boost::lockfree::spsc_queue<element> ring_{capacity};
};
#endif

/// Cached indices, one element a call: what rigtorp::SPSCQueue does.
class single_ring {
 public:
  bool push_one(const element& e) {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);
    const std::size_t next = tail + 1 == slots_.size() ? 0 : tail + 1;
    if (next == cached_head_) {
      cached_head_ = head_.load(std::memory_order_acquire);
      if (next == cached_head_) return false;
    }
    slots_[tail] = e;
    tail_.store(next, std::memory_order_release);
    return true;
  }
  bool pop_one(element& e) {
    const std::size_t head = head_.load(std::memory_order_relaxed);
    if (head == cached_tail_) {
      cached_tail_ = tail_.load(std::memory_order_acquire);
      if (head == cached_tail_) return false;
    }
    e = slots_[head];
    head_.store(head + 1 == slots_.size() ? 0 : head + 1, std::memory_order_release);
    return true;
  }
  std::size_t push(const element* from, std::size_t count) {
    std::size_t done = 0;
    while (done < count && push_one(from[done])) ++done;
    return done;
  }
  std::size_t pop(element* to, std::size_t count) {
    std::size_t done = 0;
    while (done < count && pop_one(to[done])) ++done;
    return done;
  }

 private:
  std::vector<element> slots_ = std::vector<element>(capacity + 1);
  alignas(128) std::atomic<std::size_t> head_{0};
  std::size_t cached_tail_ = 0;
  alignas(128) std::atomic<std::size_t> tail_{0};
  std::size_t cached_head_ = 0;
};

/// Between two attempts: spins, but lets the other side run where threads outnumber processors.
class patience {
 public:
  void wait() {
    if (++failures_ % 256 == 0) std::this_thread::yield();
  }

 private:
  unsigned failures_ = 0;
};

/// Another thread that repeats `work` until destroyed.
template <class Work>
class background {
 public:
  explicit background(Work work)
      : thread_([this, work]() mutable {
          while (!stop_.load(std::memory_order_relaxed)) work();
        }) {}
  ~background() {
    stop_.store(true);
    thread_.join();
  }
  background(const background&) = delete;
  background& operator=(const background&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// Producer on this thread, consumer on another, `Batch` elements a call.
template <class Ring, std::size_t Batch>
void stream(benchmark::State& state) {
  Ring ring;
  background consumer([&ring, waiting = patience()]() mutable {
    std::array<element, Batch> to;
    if (ring.pop(to.data(), Batch) == 0) waiting.wait();
    benchmark::DoNotOptimize(to);
  });
  std::array<element, Batch> from{};
  patience waiting;
  while (state.KeepRunningBatch(Batch)) {
    for (std::size_t done = 0; done < Batch;) {
      const std::size_t pushed = ring.push(from.data() + done, Batch - done);
      if (pushed == 0) waiting.wait();
      done += pushed;
    }
  }
}

/// One element a call, through the calls meant for that.
template <class Ring>
void stream_single(benchmark::State& state) {
  Ring ring;
  background consumer([&ring, waiting = patience()]() mutable {
    element e;
    if (!ring.pop_one(e)) waiting.wait();
    benchmark::DoNotOptimize(e);
  });
  const element e{};
  patience waiting;
  for (auto _ : state) {
    while (!ring.push_one(e)) waiting.wait();
  }
}

/// There and back again, one element in flight: the latency.
template <class Ring>
void round_trip(benchmark::State& state) {
  Ring there, back;
  background echo([&there, &back, waiting = patience()]() mutable {
    element e;
    if (there.pop_one(e)) {
      benchmark::DoNotOptimize(back.push_one(e));
    } else {
      waiting.wait();
    }
  });
  element e{};
  patience waiting;
  for (auto _ : state) {
    benchmark::DoNotOptimize(there.push_one(e));
    while (!back.pop_one(e)) waiting.wait();
  }
}

/// Both sides on one thread: the instructions alone, without the cache lines travelling.
template <class Ring>
void same_thread(benchmark::State& state) {
  constexpr std::size_t batch = 64;
  Ring ring;
  std::array<element, batch> buffer{};
  while (state.KeepRunningBatch(batch)) {
    benchmark::DoNotOptimize(ring.push(buffer.data(), batch));
    benchmark::DoNotOptimize(ring.pop(buffer.data(), batch));
    benchmark::DoNotOptimize(buffer);
  }
}

template <class Ring>
void add(const std::string& who) {
  const auto name = [&who](const char* group) { return group + ("/" + who); };
  benchmark::RegisterBenchmark(name("spsc_batch64").c_str(), stream<Ring, 64>)->UseRealTime();
  benchmark::RegisterBenchmark(name("spsc_batch64_same_thread").c_str(), same_thread<Ring>);
  benchmark::RegisterBenchmark(name("spsc_single").c_str(), stream_single<Ring>)->UseRealTime();
  benchmark::RegisterBenchmark(name("spsc_round_trip").c_str(), round_trip<Ring>)->UseRealTime();
}

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) {
  using namespace cowire::bench;
  add<cowire_ring>("cowire");
#if defined(COWIRE_BENCH_BOOST)
  add<boost_ring>("boost");
#endif
  add<single_ring>("cached_index");
  return run(argc, argv);
}
