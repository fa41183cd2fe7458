// SPDX-License-Identifier: Apache-2.0
/// The trie against a map of prefixes that is searched length by length.
#include <cowire/route/epoch.hpp>
#include <cowire/route/lpm.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <map>
#include <random>
#include <thread>
#include <tuple>
#include <vector>

namespace cowire {
namespace {

lpm_key4 masked(lpm_key4 key, unsigned length) {
  return length == 0 ? 0 : key >> (32 - length) << (32 - length);
}
lpm_key6 masked(lpm_key6 key, unsigned length) {
  const auto keep = [](unsigned bits) { return bits == 0 ? 0 : ~std::uint64_t{0} << (64 - bits); };
  return {key.high & keep(std::min(length, 64u)), key.low & keep(length > 64 ? length - 64 : 0)};
}

template <class Key>
class model {
 public:
  void assign(Key prefix, unsigned length, std::uint32_t value) {
    routes_[{length, masked(prefix, length)}] = value;
  }
  bool erase(Key prefix, unsigned length) {
    return routes_.erase({length, masked(prefix, length)}) != 0;
  }
  [[nodiscard]] std::uint32_t lookup(Key key) const {
    for (unsigned length = lpm_key_bits<Key>;; --length) {
      const auto found = routes_.find({length, masked(key, length)});
      if (found != routes_.end()) return found->second;
      if (length == 0) return 0;
    }
  }
  [[nodiscard]] const auto& routes() const { return routes_; }

 private:
  std::map<std::pair<unsigned, Key>, std::uint32_t> routes_;
};

/// Random prefixes and keys that share stems, so that they cover, split and miss one another.
template <class Key>
class generator {
 public:
  explicit generator(std::uint64_t seed) : random_(seed) {
    for (auto& stem : stems_) stem = {any_key(), below(lpm_key_bits<Key>)};
  }
  unsigned below(unsigned bound) { return static_cast<unsigned>(random_() % bound); }
  unsigned length() {
    switch (below(8)) {
      case 0:
        return lpm_key_bits<Key>;
      case 1:
        return below(3) == 0 ? 0 : below(13);
      default:
        return below(lpm_key_bits<Key> + 1);
    }
  }
  /// Mostly a stem and some free bits after it.
  Key key() {
    if (below(8) == 0) return any_key();
    const auto& [stem, length] = stems_[below(8)];
    return mix(stem, any_key(), std::min(length + below(16), lpm_key_bits<Key>));
  }
  /// Like `stem` in so many bits.
  Key with_stem(Key stem, unsigned bits) { return mix(stem, any_key(), bits); }

 private:
  Key any_key() {
    if constexpr (std::is_same_v<Key, lpm_key4>)
      return static_cast<lpm_key4>(random_());
    else
      return {random_(), random_()};
  }
  /// The first `length` bits of `a`, then those of `b`.
  static lpm_key4 mix(lpm_key4 a, lpm_key4 b, unsigned length) {
    return masked(a, length) | (b & ~masked(~lpm_key4{0}, length));
  }
  static lpm_key6 mix(lpm_key6 a, lpm_key6 b, unsigned length) {
    const lpm_key6 keep = masked(lpm_key6{~std::uint64_t{0}, ~std::uint64_t{0}}, length);
    return {(a.high & keep.high) | (b.high & ~keep.high), (a.low & keep.low) | (b.low & ~keep.low)};
  }

  std::mt19937_64 random_;
  std::array<std::pair<Key, unsigned>, 8> stems_;
};

/// The first and last address of every prefix and their neighbours: where mistakes show.
template <class Key>
std::vector<Key> edges(const model<Key>& m) {
  std::vector<Key> keys;
  for (const auto& [where, value] : m.routes()) {
    const Key first = where.second;
    if constexpr (std::is_same_v<Key, lpm_key4>) {
      const Key last = first | ~masked(~lpm_key4{0}, where.first);
      keys.insert(keys.end(), {first, last, first - 1, last + 1});
    } else {
      const lpm_key6 keep = masked(lpm_key6{~std::uint64_t{0}, ~std::uint64_t{0}}, where.first);
      const lpm_key6 last{first.high | ~keep.high, first.low | ~keep.low};
      keys.insert(keys.end(),
                  {first, last, lpm_key6{first.high - (first.low == 0), first.low - 1},
                   lpm_key6{last.high + (last.low == ~std::uint64_t{0}), last.low + 1}});
    }
  }
  return keys;
}

constexpr std::size_t edge_limit = 300;

using detail::lpm_code;

template <class Key>
void expect_same_in_batch(lpm_code code, const lpm_view<Key>& view, const std::vector<Key>& keys,
                          const std::vector<std::uint32_t>& right) {
  std::vector<std::uint32_t> values(keys.size(), 12345);
  view.lookup_batch(code, keys.data(), values.data(), keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i)
    ASSERT_EQ(values[i], right[i]) << "key " << i << " in a batch, code " << static_cast<int>(code);
}

/// By every code that this processor has; lpm_batches tells which it lacks.
template <class Key>
void expect_same(const lpm_view<Key>& view, const model<Key>& m, generator<Key>& g) {
  std::vector<Key> keys = edges(m);
  while (keys.size() > edge_limit) {  // A random part of many.
    std::swap(keys[g.below(static_cast<unsigned>(keys.size()))], keys.back());
    keys.pop_back();
  }
  for (int i = 0; i < 50; ++i) keys.push_back(g.key());
  std::vector<std::uint32_t> right;
  for (const Key key : keys) right.push_back(m.lookup(key));
  for (std::size_t i = 0; i < keys.size(); ++i)
    ASSERT_EQ(view.lookup(keys[i]), right[i]) << "key " << i;
  for (const auto code : {lpm_code::portable, lpm_code::avx2, lpm_code::avx512}) {
    if (code > detail::best_lpm_code()) break;
    expect_same_in_batch(code, view, keys, right);
  }
}

std::uint64_t fresh_seed() { return std::random_device{}(); }

template <class Key>
class lpm : public testing::Test {};
using key_types = testing::Types<lpm_key4, lpm_key6>;
TYPED_TEST_SUITE(lpm, key_types);

struct named_code {
  lpm_code code;
  const char* name;
  const char* missing;  ///< What a processor lacks that cannot run it.
};

/// The code that is tested, so that one which cannot be is seen to be left out.
class lpm_batches : public testing::TestWithParam<named_code> {
 protected:
  template <class Key>
  static void agree_with_the_model() {
    const std::uint64_t seed = fresh_seed();
    SCOPED_TRACE("seed " + std::to_string(seed));
    generator<Key> g(seed);
    lpm_trie<Key> trie;
    model<Key> m;
    for (int i = 0; i < 2000; ++i) {
      const Key prefix = g.key();
      const unsigned length = g.length();
      trie.assign(prefix, length, 1 + static_cast<std::uint32_t>(i));
      m.assign(prefix, length, 1 + static_cast<std::uint32_t>(i));
    }
    const lpm_view<Key> view = trie.commit();
    std::vector<Key> keys = edges(m);
    for (int i = 0; i < 2000; ++i) keys.push_back(g.key());
    std::vector<std::uint32_t> right;
    for (const Key key : keys) right.push_back(m.lookup(key));
    expect_same_in_batch(GetParam().code, view, keys, right);
  }
};

INSTANTIATE_TEST_SUITE_P(each, lpm_batches,
                         testing::Values(named_code{lpm_code::portable, "portable", ""},
                                         named_code{lpm_code::avx2, "avx2", "AVX2"},
                                         named_code{lpm_code::avx512, "avx512", "AVX-512"}),
                         [](const auto& of) { return std::string(of.param.name); });

TEST_P(lpm_batches, agree_with_the_model) {
  if (GetParam().code > detail::best_lpm_code())
    GTEST_SKIP() << "this processor has no " << GetParam().missing;
  agree_with_the_model<lpm_key4>();
  agree_with_the_model<lpm_key6>();
}

TYPED_TEST(lpm, empty_view_matches_nothing) {
  const lpm_view<TypeParam> none;
  EXPECT_EQ(none.lookup(TypeParam{}), 0u);
  lpm_trie<TypeParam> trie;
  EXPECT_EQ(trie.view(), trie.commit());
  EXPECT_EQ(trie.view().lookup(TypeParam{}), 0u);
  EXPECT_EQ(trie.size(), 0u);
  EXPECT_TRUE(trie.take_garbage().empty());
}

TYPED_TEST(lpm, every_length_alone_matches_exactly_its_addresses_twice) {
  generator<TypeParam> g(1);
  lpm_trie<TypeParam> trie;
  const std::size_t empty_bytes = trie.memory().bytes_live;
  for (int round = 0; round < 2; ++round) {
    for (unsigned length = 0; length <= lpm_key_bits<TypeParam>; ++length) {
      model<TypeParam> m;
      const TypeParam prefix = g.key();
      m.assign(prefix, length, length + 1);
      trie.assign(prefix, length, length + 1);
      expect_same(trie.commit(), m, g);
      EXPECT_EQ(trie.exact(prefix, length), length + 1);
      EXPECT_EQ(trie.size(), 1u);
      EXPECT_TRUE(trie.erase(prefix, length));
      EXPECT_FALSE(trie.erase(prefix, length));
      EXPECT_EQ(trie.exact(prefix, length), std::nullopt);
      expect_same(trie.commit(), model<TypeParam>(), g);
      static_cast<void>(trie.take_garbage());  // Frees it.
      EXPECT_EQ(trie.memory().bytes_live, empty_bytes);
      EXPECT_EQ(trie.memory().bytes_waiting, 0u);
      EXPECT_EQ(trie.memory().bytes_writer, 0u);
    }
  }
}

TYPED_TEST(lpm, nested_prefixes_come_back_as_longer_ones_go) {
  generator<TypeParam> g(2);
  lpm_trie<TypeParam> trie;
  model<TypeParam> m;
  const TypeParam key = g.key();
  for (unsigned length = 0; length <= lpm_key_bits<TypeParam>; ++length) {
    trie.assign(key, length, length + 1);
    m.assign(key, length, length + 1);
    expect_same(trie.commit(), m, g);
  }
  for (unsigned length = lpm_key_bits<TypeParam> + 1; length-- > 0;) {
    EXPECT_EQ(trie.view().lookup(key), length + 1);
    EXPECT_TRUE(trie.erase(key, length));
    m.erase(key, length);
    expect_same(trie.commit(), m, g);
  }
}

TYPED_TEST(lpm, random_changes_agree_with_the_model_and_leave_old_views_alone) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  generator<TypeParam> g(seed);
  lpm_trie<TypeParam> trie;
  model<TypeParam> m;
  struct version {
    lpm_view<TypeParam> view;
    model<TypeParam> contents;
    lpm_garbage replaced;  ///< Blocks that this version uses and the next one does not.
  };
  std::deque<version> history;
  for (int round = 0; round < 200; ++round) {
    const unsigned changes = g.below(4) == 0 ? g.below(60) : 1;
    for (unsigned i = 0; i < changes; ++i) {
      const TypeParam prefix = g.key();
      const unsigned length = g.length();
      if (g.below(3) != 0) {
        const std::uint32_t value = g.below(50) == 0 ? 0x7fffffff : 1 + g.below(4);
        trie.assign(prefix, length, value);
        m.assign(prefix, length, value);
      } else if (!m.routes().empty() && g.below(4) != 0) {
        const auto& [where, value] =
            *std::next(m.routes().begin(), g.below(static_cast<unsigned>(m.routes().size())));
        const auto [old_length, old_prefix] = where;
        EXPECT_EQ(trie.exact(old_prefix, old_length), value);
        EXPECT_TRUE(trie.erase(old_prefix, old_length));
        m.erase(old_prefix, old_length);
      } else {
        EXPECT_EQ(trie.erase(prefix, length), m.erase(prefix, length));
      }
    }
    if (g.below(100) == 0) {
      trie.clear();
      m = {};
    }
    const lpm_view<TypeParam> view = trie.commit();
    if (!history.empty()) history.back().replaced = trie.take_garbage();
    history.push_back({view, m, {}});
    if (history.size() > 4) history.pop_front();
    ASSERT_EQ(trie.size(), m.routes().size());
    for (const version& v : history) {
      expect_same(v.view, v.contents, g);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  trie.clear();
  trie.commit();
  static_cast<void>(trie.take_garbage());  // Frees it.
  history.clear();
  EXPECT_EQ(trie.memory().bytes_live + trie.memory().bytes_waiting, 0u);
  EXPECT_EQ(trie.memory().blocks, 0u);
}

TYPED_TEST(lpm, bulk_build_equals_single_assignments_twice) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  generator<TypeParam> g(seed);
  lpm_trie<TypeParam> bulk;
  for (int round = 0; round < 2; ++round) {
    model<TypeParam> m;
    std::vector<typename lpm_trie<TypeParam>::route> routes;
    for (int i = 0; i < 500; ++i) m.assign(g.key(), g.length(), 1 + g.below(5));
    for (const auto& [where, value] : m.routes())
      routes.push_back({where.second, where.first, value});
    std::sort(routes.begin(), routes.end(), [](const auto& a, const auto& b) {
      return std::tie(a.prefix, a.length) < std::tie(b.prefix, b.length);
    });
    bulk.assign_sorted(routes);
    expect_same(bulk.commit(), m, g);
    EXPECT_EQ(bulk.size(), m.routes().size());
  }
}

TYPED_TEST(lpm, erasing_everything_returns_to_the_empty_size) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  generator<TypeParam> g(seed);
  lpm_trie<TypeParam> trie;
  for (int round = 0; round < 2; ++round) {
    model<TypeParam> m;
    for (int i = 0; i < 1000; ++i) {
      const TypeParam prefix = g.key();
      const unsigned length = g.length();
      trie.assign(prefix, length, 1 + g.below(9));
      m.assign(prefix, length, 1);
      if (i % 100 == 0) trie.commit();
    }
    trie.commit();
    EXPECT_GT(trie.memory().bytes_live, 16384u);
    for (const auto& [where, value] : m.routes())
      EXPECT_TRUE(trie.erase(where.second, where.first));
    EXPECT_EQ(trie.size(), 0u);
    trie.commit();
    static_cast<void>(trie.take_garbage());  // Frees it.
    const lpm_memory memory = trie.memory();
    EXPECT_EQ(memory.bytes_live, 0u);
    EXPECT_EQ(memory.bytes_waiting, 0u);
    EXPECT_EQ(memory.blocks, 0u);
    EXPECT_EQ(memory.bytes_writer, 0u);
  }
}

TYPED_TEST(lpm, unchanged_contents_share_all_blocks) {
  generator<TypeParam> g(3);
  lpm_trie<TypeParam> trie;
  const TypeParam prefix = g.key();
  trie.assign(prefix, 24, 7);
  trie.assign(prefix, 20, 3);
  const lpm_view<TypeParam> before = trie.commit();
  EXPECT_EQ(trie.commit(), before);  // Nothing changed: the same version.
  trie.assign(prefix, 0, 9);         // Kept outside of the trie.
  trie.commit();
  EXPECT_TRUE(trie.take_garbage().empty());
  EXPECT_EQ(before.lookup(TypeParam{}), 0u);
  EXPECT_EQ(trie.view().lookup(TypeParam{}), 9u);
}

TYPED_TEST(lpm, neighbours_with_one_value_need_no_blocks) {
  lpm_trie<TypeParam> trie;
  constexpr unsigned shift = lpm_key_bits<lpm_key4> - 24;
  for (std::uint32_t i = 0; i < 4096; ++i) {
    if constexpr (std::is_same_v<TypeParam, lpm_key4>)
      trie.assign(i << shift, 24, 5);
    else
      trie.assign({std::uint64_t{i} << (32 + shift), 0}, 24, 5);
  }
  trie.commit();
  // The root, and for IPv6 that below what all have in common, 12 zeros.
  EXPECT_EQ(trie.memory().blocks, lpm_key_bits<TypeParam> == 128 ? 2u : 1u);
}

/// Prefixes nearly all of which begin alike: look-ups of IPv6 enter behind that. Others come and
/// go, and so do the many, until others are the many; short ones cover all of them.
TYPED_TEST(lpm, what_nearly_all_begin_with_may_change) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  generator<TypeParam> g(seed);
  lpm_trie<TypeParam> trie;
  struct version {
    lpm_view<TypeParam> view;
    model<TypeParam> contents;
    lpm_garbage replaced;
  };
  std::deque<version> history;
  model<TypeParam> m;
  std::vector<std::pair<TypeParam, unsigned>> many, few;
  const auto assign = [&](TypeParam prefix, unsigned length) {
    const std::uint32_t value = 1 + g.below(5);
    trie.assign(prefix, length, value);
    m.assign(prefix, length, value);
  };
  const auto erase = [&](std::vector<std::pair<TypeParam, unsigned>>& from) {
    for (const auto& [prefix, length] : from)
      EXPECT_EQ(trie.erase(prefix, length), m.erase(prefix, length));
    from.clear();
  };
  const auto commit = [&] {
    const lpm_view<TypeParam> view = trie.commit();
    EXPECT_EQ(view, trie.view());
    if (!history.empty()) history.back().replaced = trie.take_garbage();
    history.push_back({view, m, {}});
    if (history.size() > 4) history.pop_front();
    for (const version& v : history) expect_same(v.view, v.contents, g);
  };
  for (int round = 0; round < 60 && !testing::Test::HasFatalFailure(); ++round) {
    const TypeParam stem = g.key();
    const unsigned shared = g.below(56) % lpm_key_bits<TypeParam>;
    std::vector<std::pair<TypeParam, unsigned>> fresh;
    for (unsigned i = 20 + g.below(60); i > 0; --i) {
      const TypeParam below = g.with_stem(stem, shared);
      fresh.emplace_back(below, shared + g.below(lpm_key_bits<TypeParam> + 1 - shared));
      assign(fresh.back().first, fresh.back().second);
      if (g.below(20) == 0) commit();
    }
    few.emplace_back(g.key(), g.length());
    assign(few.back().first, few.back().second);
    commit();
    erase(many);  // Uncommitted versions of it are skipped, or not.
    EXPECT_EQ(trie.view(), history.back().view);
    if (g.below(2) == 0) commit();
    many = fresh;
    if (g.below(4) == 0) erase(many);
    if (g.below(4) == 0) erase(few);
    if (g.below(8) == 0) trie.clear(), m = {}, many.clear(), few.clear();
    commit();
  }
  trie.clear();
  trie.commit();
  static_cast<void>(trie.take_garbage());  // Frees it.
  history.clear();
  EXPECT_EQ(trie.memory().bytes_live + trie.memory().bytes_waiting, 0u);
  EXPECT_EQ(trie.memory().bytes_writer, 0u);
}

TYPED_TEST(lpm, garbage_may_outlive_its_trie_and_a_trie_may_move) {
  generator<TypeParam> g(4);
  lpm_garbage kept;
  {
    lpm_trie<TypeParam> first;
    const TypeParam prefix = g.key();
    first.assign(prefix, 30, 1);
    first.commit();
    lpm_trie<TypeParam> trie = std::move(first);
    trie.assign(prefix, 30, 2);
    EXPECT_EQ(trie.commit().lookup(prefix), 2u);
    kept = trie.take_garbage();
    EXPECT_FALSE(kept.empty());
  }
  kept = {};
}

/// A route that is always present moves between values; readers must always see one of them.
TYPED_TEST(lpm, readers_see_whole_versions_while_the_writer_changes_the_trie) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  constexpr std::uint32_t steady = 1000;
  generator<TypeParam> g(seed);
  epoch_domain domain;
  lpm_trie<TypeParam> trie;
  const TypeParam stable = g.key();
  trie.assign(stable, lpm_key_bits<TypeParam>, steady);
  std::atomic<const lpm_view<TypeParam>*> published{new lpm_view<TypeParam>(trie.commit())};
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> lookups{0};

  std::thread reading([&, own = domain.register_reader(), keys = g]() mutable {
    while (!stop.load(std::memory_order_relaxed)) {
      own.enter();
      const lpm_view<TypeParam> view = *published.load(std::memory_order_acquire);
      std::array<TypeParam, 16> batch;
      std::array<std::uint32_t, 16> values;
      for (auto& key : batch) key = keys.key();
      batch[7] = stable;
      view.lookup_batch(batch.data(), values.data(), batch.size());
      // The steady route changes to steady + n: a mix of versions would show another value.
      ASSERT_GE(values[7], steady);
      ASSERT_EQ(view.lookup(stable), values[7]);
      for (const std::uint32_t value : values) ASSERT_LT(value, steady + 10);
      lookups.fetch_add(1, std::memory_order_relaxed);
      if (keys.below(16) == 0) own.leave();
    }
  });
  struct replaced {
    std::unique_ptr<const lpm_view<TypeParam>> view;
    lpm_garbage blocks;
  };
  for (int round = 0; round < 1000 || lookups.load(std::memory_order_relaxed) < 300; ++round) {
    for (unsigned i = g.below(4); i > 0; --i) {
      if (g.below(2) == 0)
        trie.assign(g.key(), 1 + g.below(lpm_key_bits<TypeParam> - 1), 1 + g.below(9));
      else
        trie.erase(g.key(), 1 + g.below(lpm_key_bits<TypeParam> - 1));
    }
    trie.assign(stable, lpm_key_bits<TypeParam>, steady + g.below(10));
    auto old = std::make_unique<replaced>();
    const auto* fresh = new lpm_view<TypeParam>(trie.commit());
    old->view.reset(published.exchange(fresh, std::memory_order_acq_rel));
    old->blocks = trie.take_garbage();
    domain.retire(std::move(old));
    domain.reclaim();
    if (testing::Test::HasFailure()) break;
  }
  stop.store(true);
  reading.join();
  EXPECT_TRUE(domain.synchronize(std::chrono::steady_clock::now() + std::chrono::seconds(5)));
  EXPECT_EQ(trie.memory().bytes_waiting, 0u);
  delete published.load();
}

TEST(lpm_keys, come_from_addresses) {
  EXPECT_EQ(to_key4(*ip_address::parse("10.1.2.3")), 0x0a010203u);
  const lpm_key6 key = to_key6(*ip_address::parse("2001:db8::1:2"));
  EXPECT_EQ(key.high, 0x20010db800000000u);
  EXPECT_EQ(key.low, 0x10002u);
}

}  // namespace
}  // namespace cowire
