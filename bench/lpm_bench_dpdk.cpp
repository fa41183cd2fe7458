// SPDX-License-Identifier: Apache-2.0
/// rte_fib, rte_fib6 and rte_lpm as contenders. DPDK runs without huge pages, devices or files.
// Does not say by itself that it is C.
extern "C" {
#include <rte_vect.h>
}
#include <rte_eal.h>
#include <rte_fib.h>
#include <rte_fib6.h>
#include <rte_lpm.h>
#include <sched.h>

#include <cstdio>
#include <cstdlib>

#include "bench/lpm_bench.hpp"

namespace cowire::bench {
namespace {

void start_dpdk_once() {
  static const bool started = [] {
    cpu_set_t before;
    ::sched_getaffinity(0, sizeof before, &before);
    const char* words[] = {"bench_lpm", "--no-huge",      "--no-pci",    "-m",
                           "2048",      "--no-telemetry", "--no-shconf", "--log-level=1"};
    const bool ok =
        ::rte_eal_init(static_cast<int>(std::size(words)), const_cast<char**>(words)) >= 0;
    ::sched_setaffinity(0, sizeof before, &before);  // It pins its caller.
    return ok;
  }();
  if (!started) {
    std::fputs("bench_lpm: DPDK did not start; its tables cannot be measured\n", stderr);
    std::exit(1);
  }
}

class rte_fib_table final : public lookup_table {
 public:
  explicit rte_fib_table(const std::vector<table_route>& table) {
    start_dpdk_once();
    rte_fib_conf config{};
    config.type = RTE_FIB_DIR24_8;
    config.max_routes = static_cast<int>(table.size() + 1024);
    config.dir24_8.nh_sz = RTE_FIB_DIR24_8_4B;
    config.dir24_8.num_tbl8 = num_tbl8;
    static int serial = 0;
    char name[16];
    std::snprintf(name, sizeof name, "fib%d", serial++);
    fib_ = ::rte_fib_create(name, 0, &config);
    if (fib_ == nullptr) std::fputs("bench_lpm: rte_fib_create failed\n", stderr), std::exit(1);
    for (const table_route& r : table) {
      if (::rte_fib_add(fib_, r.prefix, static_cast<std::uint8_t>(r.length), r.value) != 0)
        std::fputs("bench_lpm: rte_fib_add failed\n", stderr), std::exit(1);
    }
  }
  ~rte_fib_table() override { ::rte_fib_free(fib_); }
  rte_fib_table(const rte_fib_table&) = delete;
  rte_fib_table& operator=(const rte_fib_table&) = delete;

  void lookup_batch(const std::uint32_t* keys, std::uint32_t* values, std::size_t count) override {
    std::uint64_t wide[64];
    ::rte_fib_lookup_bulk(fib_, const_cast<std::uint32_t*>(keys), wide, static_cast<int>(count));
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<std::uint32_t>(wide[i]);
  }
  std::uint32_t lookup(std::uint32_t key) override {
    std::uint32_t value;
    lookup_batch(&key, &value, 1);
    return value;
  }
  std::size_t bytes() override { return (std::size_t{1} << 26) + num_tbl8 * 256 * 4; }

 private:
  static constexpr std::uint32_t num_tbl8 = 1 << 15;
  rte_fib* fib_ = nullptr;
};

class rte_fib6_table final : public lookup_table6 {
 public:
  explicit rte_fib6_table(const std::vector<table_route6>& table) {
    start_dpdk_once();
    rte_fib6_conf config{};
    config.type = RTE_FIB6_TRIE;
    config.max_routes = static_cast<int>(table.size() + 1024);
    config.trie.nh_sz = RTE_FIB6_TRIE_4B;
    config.trie.num_tbl8 = 1 << 18;
    static int serial = 0;
    char name[16];
    std::snprintf(name, sizeof name, "fib6%d", serial++);
    fib_ = ::rte_fib6_create(name, 0, &config);
    if (fib_ == nullptr) std::fputs("bench_lpm: rte_fib6_create failed\n", stderr), std::exit(1);
    for (const table_route6& r : table) {
      const raw_address6 prefix = raw_address(r.prefix);
      if (::rte_fib6_add(fib_, prefix.data(), static_cast<std::uint8_t>(r.length), r.value) != 0)
        std::fputs("bench_lpm: rte_fib6_add failed\n", stderr), std::exit(1);
    }
  }
  ~rte_fib6_table() override { ::rte_fib6_free(fib_); }
  rte_fib6_table(const rte_fib6_table&) = delete;
  rte_fib6_table& operator=(const rte_fib6_table&) = delete;

  [[nodiscard]] bool go_wide() {
    // Only for as long as it chooses, so that the other tables keep what they have by default.
    const std::uint16_t before = ::rte_vect_get_max_simd_bitwidth();
    static_cast<void>(::rte_vect_set_max_simd_bitwidth(RTE_VECT_SIMD_512));
    const bool done = ::rte_fib6_select_lookup(fib_, RTE_FIB6_LOOKUP_TRIE_VECTOR_AVX512) == 0;
    static_cast<void>(::rte_vect_set_max_simd_bitwidth(before));
    return done;
  }
  void lookup_batch(const raw_address6* keys, std::uint32_t* values, std::size_t count) override {
    std::uint64_t wide[64];
    auto* const raw =
        reinterpret_cast<std::uint8_t(*)[RTE_FIB6_IPV6_ADDR_SIZE]>(const_cast<raw_address6*>(keys));
    ::rte_fib6_lookup_bulk(fib_, raw, wide, static_cast<int>(count));
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<std::uint32_t>(wide[i]);
  }

 private:
  rte_fib6* fib_ = nullptr;
};

class rte_lpm_table final : public lookup_table {
 public:
  explicit rte_lpm_table(const std::vector<table_route>& table) {
    start_dpdk_once();
    const rte_lpm_config config{static_cast<std::uint32_t>(table.size()), num_tbl8, 0};
    lpm_ = ::rte_lpm_create("lpm", 0, &config);
    if (lpm_ == nullptr) std::fputs("bench_lpm: rte_lpm_create failed\n", stderr), std::exit(1);
    for (const table_route& r : table) {
      if (::rte_lpm_add(lpm_, r.prefix, static_cast<std::uint8_t>(r.length), r.value) != 0)
        std::fputs("bench_lpm: rte_lpm_add failed\n", stderr), std::exit(1);
    }
  }
  ~rte_lpm_table() override { ::rte_lpm_free(lpm_); }
  rte_lpm_table(const rte_lpm_table&) = delete;
  rte_lpm_table& operator=(const rte_lpm_table&) = delete;

  void lookup_batch(const std::uint32_t* keys, std::uint32_t* values, std::size_t count) override {
    ::rte_lpm_lookup_bulk_func(lpm_, keys, values, static_cast<unsigned>(count));
    // It tells success by a bit besides the value.
    for (std::size_t i = 0; i < count; ++i)
      values[i] = (values[i] & RTE_LPM_LOOKUP_SUCCESS) != 0 ? values[i] & 0xffffff : 0;
  }
  std::uint32_t lookup(std::uint32_t key) override {
    std::uint32_t value = 0;
    return ::rte_lpm_lookup(lpm_, key, &value) == 0 ? value : 0;
  }
  std::size_t bytes() override { return (std::size_t{1} << 26) + num_tbl8 * 256 * 4; }

 private:
  static constexpr std::uint32_t num_tbl8 = 1 << 12;
  rte_lpm* lpm_ = nullptr;
};

}  // namespace

std::unique_ptr<lookup_table> make_rte_lpm(const std::vector<table_route>& table) {
  return std::make_unique<rte_lpm_table>(table);
}

std::unique_ptr<lookup_table6> make_rte_fib6(const std::vector<table_route6>& table, bool wide) {
  auto made = std::make_unique<rte_fib6_table>(table);
  if (wide && !made->go_wide()) return nullptr;
  return made;
}

std::unique_ptr<lookup_table> make_rte_fib(const std::vector<table_route>& table) {
  return std::make_unique<rte_fib_table>(table);
}

}  // namespace cowire::bench
