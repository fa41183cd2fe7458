// SPDX-License-Identifier: Apache-2.0
/// Longest-prefix match: cowire's trie, DPDK's rte_fib (DIR24_8), rte_fib6 and, for the small
/// table, rte_lpm if present, and a std::map of address ranges. One iteration is one lookup (or one
/// change).
///
/// bench_lpm [--table FILE] [Google Benchmark options]; FILE replaces the synthetic large table.
#include <cowire/route/epoch.hpp>
#include <cowire/route/lpm.hpp>

#include <benchmark/benchmark.h>

#include "bench/bench_options.hpp"
#include "bench/lpm_bench.hpp"
#include "bench/route_table.hpp"

#include <functional>
#include <iterator>
#include <memory>
#include <utility>

namespace cowire::bench {
namespace {

using routes = std::vector<table_route>;
constexpr std::size_t batch = 64;
/// It would take minutes to fill a larger one.
[[maybe_unused]] constexpr std::size_t rte_lpm_routes_max = 10'000;

lpm_trie<lpm_key4> build(const routes& table) {
  std::vector<lpm_trie<lpm_key4>::route> sorted;
  sorted.reserve(table.size());
  for (const table_route& r : table) sorted.push_back({r.prefix, r.length, r.value});
  lpm_trie<lpm_key4> trie;
  trie.assign_sorted(sorted);
  trie.commit();
  return trie;
}

/// The table as ranges: first address -> value up to the next one.
std::map<std::uint32_t, std::uint32_t> build_ranges(const routes& table) {
  std::map<std::uint32_t, std::uint32_t> ranges{{0, 0}};
  std::vector<std::pair<std::uint64_t, std::uint32_t>> open{{std::uint64_t{1} << 32, 0}};
  const auto close_until = [&](std::uint64_t address) {
    while (open.back().first <= address) {
      const std::uint64_t end = open.back().first;
      open.pop_back();
      if (open.empty()) return;
      ranges[static_cast<std::uint32_t>(end)] = open.back().second;
    }
  };
  for (const table_route& r : table) {  // Sorted: outer prefixes come before what they contain.
    close_until(r.prefix);
    ranges[r.prefix] = r.value;
    open.push_back({r.prefix + (std::uint64_t{1} << (32 - r.length)), r.value});
  }
  close_until((std::uint64_t{1} << 32) - 1);
  return ranges;
}

class cowire_table final : public lookup_table {
 public:
  explicit cowire_table(const routes& table) : trie_(build(table)), view_(trie_.view()) {}
  void lookup_batch(const std::uint32_t* keys, std::uint32_t* values, std::size_t count) override {
    view_.lookup_batch(keys, values, count);
  }
  std::uint32_t lookup(std::uint32_t key) override { return view_.lookup(key); }
  std::size_t bytes() override { return trie_.memory().bytes_live; }

 private:
  lpm_trie<lpm_key4> trie_;
  lpm_view<lpm_key4> view_;
};

class map_table final : public lookup_table {
 public:
  explicit map_table(const routes& table) : ranges_(build_ranges(table)) {}
  void lookup_batch(const std::uint32_t* keys, std::uint32_t* values, std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) values[i] = lookup(keys[i]);
  }
  std::uint32_t lookup(std::uint32_t key) override {
    return std::prev(ranges_.upper_bound(key))->second;
  }
  std::size_t bytes() override { return ranges_.size() * 48; }  // A red-black node with 8 bytes.

 private:
  std::map<std::uint32_t, std::uint32_t> ranges_;
};

/// Destinations to look up: uniform over unicast space, or over some addresses inside of routes.
std::vector<std::uint32_t> uniform_keys() {
  std::mt19937_64 random(1);
  std::vector<std::uint32_t> keys(1 << 20);
  for (auto& key : keys) key = (1u << 24) + static_cast<std::uint32_t>(random() % (223u << 24));
  return keys;
}
std::vector<std::uint32_t> hot_keys(const routes& table, std::size_t distinct) {
  std::mt19937_64 random(2);
  std::vector<std::uint32_t> hot(distinct), keys(1 << 16);
  for (auto& key : hot) {
    const table_route& r = table[random() % table.size()];
    key = r.prefix | (static_cast<std::uint32_t>(random()) & host_bits(r.length));
  }
  for (auto& key : keys) key = hot[random() % distinct];
  return keys;
}

void look_up_batches(benchmark::State& state, lookup_table& table,
                     const std::vector<std::uint32_t>& keys) {
  std::size_t at = 0;
  std::uint32_t values[batch];
  while (state.KeepRunningBatch(batch)) {
    table.lookup_batch(keys.data() + at, values, batch);
    benchmark::DoNotOptimize(values);
    at = (at + batch) & (keys.size() - 1);
  }
  state.counters["table_bytes"] = static_cast<double>(table.bytes());
}

/// Each key depends on the value before, so that nothing overlaps: the latency of one lookup.
void look_up_chain(benchmark::State& state, lookup_table& table,
                   const std::vector<std::uint32_t>& keys) {
  std::size_t at = 0;
  std::uint32_t value = 0;
  for (auto _ : state) {
    value = table.lookup(keys[at] ^ (value >> 31));  // Values are small: the key stays itself.
    at = (at + 1) & (keys.size() - 1);
  }
  benchmark::DoNotOptimize(value);
}

/// One route changes, the version is published, the old one reclaimed.
void change_one(benchmark::State& state, const routes& table) {
  lpm_trie<lpm_key4> trie = build(table);
  epoch_domain domain;
  std::mt19937_64 random(3);
  for (auto _ : state) {
    const table_route& r = table[random() % table.size()];
    trie.assign(r.prefix, r.length, 1 + static_cast<std::uint32_t>(random() % 1000));
    benchmark::DoNotOptimize(trie.commit());
    domain.retire(std::make_unique<lpm_garbage>(trie.take_garbage()));
    domain.reclaim();
  }
}
void change_map(benchmark::State& state, const routes& table) {
  std::map<std::pair<std::uint32_t, unsigned>, std::uint32_t> map;
  for (const table_route& r : table) map[{r.prefix, r.length}] = r.value;
  std::mt19937_64 random(3);
  for (auto _ : state) {
    const table_route& r = table[random() % table.size()];
    map[{r.prefix, r.length}] = 1 + static_cast<std::uint32_t>(random() % 1000);
  }
}

using maker = std::function<std::unique_ptr<lookup_table>(const routes&)>;

/// Built at first use and kept: a table of a million routes takes a while.
class shared_table {
 public:
  shared_table(maker make, std::shared_ptr<const routes> table)
      : make_(std::move(make)), routes_(std::move(table)) {}
  lookup_table& get() {
    if (!table_) table_ = make_(*routes_);
    return *table_;
  }

 private:
  maker make_;
  std::shared_ptr<const routes> routes_;
  std::unique_ptr<lookup_table> table_;
};

void add_lookups(const std::string& name, std::shared_ptr<const routes> table) {
  std::vector<std::pair<const char*, maker>> peers = {
    {"cowire", [](const routes& t) { return std::make_unique<cowire_table>(t); }},
#if defined(COWIRE_BENCH_DPDK)
    {"rte_fib", make_rte_fib},
#endif
    {"std_map", [](const routes& t) { return std::make_unique<map_table>(t); }},
  };
#if defined(COWIRE_BENCH_DPDK)
  if (table->size() <= rte_lpm_routes_max) peers.emplace_back("rte_lpm", make_rte_lpm);
#endif
  const std::pair<const char*, std::shared_ptr<std::vector<std::uint32_t>>> loads[] = {
      {"uniform", std::make_shared<std::vector<std::uint32_t>>(uniform_keys())},
      {"hot5000", std::make_shared<std::vector<std::uint32_t>>(hot_keys(*table, 5000))},
  };
  for (const auto& [peer, make] : peers) {
    auto shared = std::make_shared<shared_table>(make, table);
    for (const auto& [load, keys] : loads) {
      const std::string group = "lpm_" + name + "_" + load;
      benchmark::RegisterBenchmark((group + "_batch64/" + peer).c_str(),
                                   [shared, keys = keys](benchmark::State& state) {
                                     look_up_batches(state, shared->get(), *keys);
                                   });
      benchmark::RegisterBenchmark((group + "_dependent/" + peer).c_str(),
                                   [shared, keys = keys](benchmark::State& state) {
                                     look_up_chain(state, shared->get(), *keys);
                                   });
    }
  }
}

class cowire_table6 final : public lookup_table6 {
 public:
  explicit cowire_table6(const std::vector<table_route6>& table) {
    // What every host has besides.
    trie_.assign({0, 1}, 128, 1);
    trie_.assign({0xfe80ull << 48, 0}, 64, 1);
    trie_.assign({0xffull << 56, 0}, 8, 1);
    for (const table_route6& r : table) trie_.assign({r.prefix, 0}, r.length, r.value);
    view_ = trie_.commit();
  }
  void lookup_batch(const raw_address6* raw, std::uint32_t* values, std::size_t count) override {
    lpm_key6 keys[batch];
    for (std::size_t i = 0; i < count; ++i) {
      std::uint64_t words[2];
      std::memcpy(words, raw[i].data(), sizeof words);
      keys[i] = {__builtin_bswap64(words[0]), __builtin_bswap64(words[1])};
    }
    view_.lookup_batch(keys, values, count);
  }

 private:
  lpm_trie<lpm_key6> trie_;
  lpm_view<lpm_key6> view_;
};

/// Addresses inside of routes.
std::vector<raw_address6> keys_inside(const std::vector<table_route6>& table, std::size_t count,
                                      std::size_t distinct) {
  std::mt19937_64 random(4);
  std::vector<raw_address6> some(distinct), keys(count);
  for (auto& key : some) {
    const table_route6& r = table[random() % table.size()];
    key = raw_address(r.prefix | random() >> r.length);
    const std::uint64_t host = random();
    std::memcpy(key.data() + 8, &host, sizeof host);
  }
  for (auto& key : keys) key = some[random() % distinct];
  return keys;
}

using maker6 = std::function<std::unique_ptr<lookup_table6>(const std::vector<table_route6>&)>;

void look_up_batches6(benchmark::State& state, lookup_table6* table,
                      const std::vector<raw_address6>& keys) {
  if (table == nullptr) return state.SkipWithError("this processor has no AVX-512");
  std::size_t at = 0;
  std::uint32_t values[batch];
  while (state.KeepRunningBatch(batch)) {
    table->lookup_batch(keys.data() + at, values, batch);
    benchmark::DoNotOptimize(values);
    at = (at + batch) & (keys.size() - 1);
  }
}

void add_lookups6(const std::string& name, const std::vector<table_route6>& table) {
  const auto shared = std::make_shared<const std::vector<table_route6>>(table);
  const std::pair<const char*, maker6> peers[] = {
    {"cowire", [](const auto& t) { return std::make_unique<cowire_table6>(t); }},
#if defined(COWIRE_BENCH_DPDK)
    {"rte_fib6", [](const auto& t) { return make_rte_fib6(t, false); }},
    {"rte_fib6_avx512", [](const auto& t) { return make_rte_fib6(t, true); }},
#endif
  };
  const std::pair<const char*, std::shared_ptr<const std::vector<raw_address6>>> loads[] = {
      {"inside", std::make_shared<std::vector<raw_address6>>(keys_inside(table, 1 << 20, 1 << 20))},
      {"hot5000", std::make_shared<std::vector<raw_address6>>(keys_inside(table, 1 << 16, 5000))},
  };
  for (const auto& [peer, make] : peers) {
    auto kept = std::make_shared<std::unique_ptr<lookup_table6>>();
    for (const auto& [load, keys] : loads)
      benchmark::RegisterBenchmark(
          ("lpm6_" + name + "_" + load + "_batch64/" + peer).c_str(),
          [kept, shared, make = make, keys = keys](benchmark::State& state) {
            if (*kept == nullptr) *kept = make(*shared);
            look_up_batches6(state, kept->get(), *keys);
          });
  }
}

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) {
  using namespace cowire::bench;
  const std::string path = take_table_option(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const auto large = std::make_shared<const routes>(path.empty() ? synthetic_table(1'200'000, 40)
                                                                 : read_table(path));
  add_lookups("large", large);
  add_lookups("1000", std::make_shared<const routes>(synthetic_table(1000, 4)));
  add_lookups6("global", synthetic_table6(220'000, 40));
  benchmark::RegisterBenchmark("lpm_large_build/cowire", [large](benchmark::State& state) {
    for (auto _ : state) benchmark::DoNotOptimize(build(*large));
  })->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("lpm_large_build/std_map", [large](benchmark::State& state) {
    for (auto _ : state) benchmark::DoNotOptimize(build_ranges(*large));
  })->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("lpm_large_change/cowire",
                               [large](benchmark::State& state) { change_one(state, *large); });
  benchmark::RegisterBenchmark("lpm_large_change/std_map",
                               [large](benchmark::State& state) { change_map(state, *large); });
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
