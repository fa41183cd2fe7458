// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/lpm.hpp>

#include <cowire/base/assert.hpp>
#include <cowire/route/detail/lpm_pool.hpp>

#if defined(__x86_64__)
#pragma GCC diagnostic push
#if !defined(__clang__)  // gcc 12 takes what its header leaves undefined on purpose for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

namespace cowire {
namespace {

using detail::block_bit, detail::plain_bit, detail::place_mask, detail::header_words;
using detail::root_bits, detail::root_fan_out, detail::stride, detail::fan_out, detail::load_bitmap;

/// Keys that a batch descends together: as many as a word has bits.
constexpr unsigned group = 64;

// --- Looking up -------------------------------------------------------------------------------

/// The `stride` bits of a key from bit `offset` on (a multiple of the stride) are the lowest of the
/// result; zeros follow the key's last bit. Higher bits of the result are arbitrary.
[[nodiscard, gnu::always_inline]] inline std::uint64_t bits_at(lpm_key4 key,
                                                               unsigned offset) noexcept {
  return (std::uint64_t{key} << 32) >> (64 - stride - offset);
}
[[nodiscard, gnu::always_inline]] inline std::uint64_t bits_at(const lpm_key6& key,
                                                               unsigned offset) noexcept {
  if (offset <= 64 - stride) return key.high >> (64 - stride - offset);
  if (offset < 64) return key.high << 2 | key.low >> 62;  // 60: the one offset that straddles.
  if (offset <= 128 - stride) return key.low >> (128 - stride - offset);
  return key.low << 4;  // 126: the last two bits.
}
static_assert(stride == 6);

/// All that decides in the root and right below it lies in the first 64 bits of a key.
constexpr unsigned stem_bits_max = 42;
static_assert(stem_bits_max % stride == 0 && stem_bits_max + root_bits + stride <= 64);

/// The first bits of a word.
[[nodiscard]] constexpr std::uint64_t first_bits(unsigned count) noexcept {
  return count == 0 ? 0 : ~std::uint64_t{0} << (64 - count);
}

struct tables {
  explicit tables(const detail::lpm_roots& at) noexcept
      : pool(at.pool),
        root_place(static_cast<std::uint64_t>(at.root - at.pool)),
        stem_root_place(static_cast<std::uint64_t>(at.stem_root - at.pool)),
        stem_mask(first_bits(at.stem_bits)),
        stem(at.stem),
        stem_bits(at.stem_bits),
        default_value(at.default_value) {}
  const std::uint32_t* pool;
  std::uint64_t root_place, stem_root_place;
  std::uint64_t stem_mask, stem;
  unsigned stem_bits;
  std::uint32_t default_value;
};

/// Where a key enters: at the children that the `bits` behind the first `skipped` ones name.
struct way_in {
  std::uint64_t root_place;
  unsigned skipped;
  std::uint64_t bits;  ///< The key's first ones that are not skipped, left-aligned.
  [[nodiscard]] std::uint64_t root_index() const noexcept { return bits >> (64 - root_bits); }
  [[nodiscard]] std::uint32_t child_below() const noexcept {
    return static_cast<std::uint32_t>(bits >> (64 - root_bits - stride)) % fan_out;
  }
};
[[nodiscard, gnu::always_inline]] inline way_in way_of(const tables& t, lpm_key4 key) noexcept {
  return {t.root_place, 0, std::uint64_t{key} << 32};
}
/// Without a branch.
[[nodiscard, gnu::always_inline]] inline way_in way_of(const tables& t,
                                                       const lpm_key6& key) noexcept {
  const bool has_stem = (key.high & t.stem_mask) == t.stem;
  const unsigned skipped = has_stem ? t.stem_bits : 0;
  return {has_stem ? t.stem_root_place : t.root_place, skipped, key.high << skipped};
}

[[nodiscard, gnu::always_inline]] inline const std::uint32_t* block_of(
    const tables& t, std::uint32_t entry) noexcept {
  return t.pool + (entry & place_mask);
}

/// The entry for a child (its lowest 6 bits) of the packed block that `entry` names.
[[nodiscard, gnu::always_inline]] inline std::uint32_t descend(const tables& t, std::uint32_t entry,
                                                               std::uint64_t child) noexcept {
  const std::uint32_t* const block = block_of(t, entry);
  const std::uint64_t runs_up_to_child = load_bitmap(block) << (~child & 63);
  // Bit 0 is set in every block, so the count is at least 1.
  return block[header_words - 1 + static_cast<unsigned>(__builtin_popcountll(runs_up_to_child))];
}

template <class Key>
[[nodiscard, gnu::always_inline]] inline std::uint32_t find_one(const tables& t, Key key) noexcept {
  const way_in way = way_of(t, key);
  std::uint32_t entry = t.pool[way.root_place + way.root_index()];
  if ((entry & block_bit) != 0) entry = block_of(t, entry)[way.child_below()];
  for (unsigned offset = way.skipped + root_bits + stride; (entry & block_bit) != 0;
       offset += stride)
    entry = descend(t, entry, bits_at(key, offset));
  return entry != 0 ? entry : t.default_value;
}

/// As find_one() through root and plain block. Without a branch: where there is no block it reads
/// the root twice.
[[nodiscard, gnu::always_inline]] inline std::uint32_t enter(const tables& t,
                                                             const way_in& way) noexcept {
  const auto top = static_cast<std::uint32_t>(way.root_place + way.root_index());
  const std::uint32_t entry = t.pool[top];
  const std::uint32_t below = (entry & place_mask) + way.child_below();
  const std::uint32_t is_block = 0 - entry / block_bit;  // All ones or none.
  return t.pool[top ^ ((top ^ below) & is_block)];
}

/// enter() for the first keys, eight at a time; returns for how many. Bit i of `deeper` gets set
/// where values[i] names a packed block.
template <class Key>
unsigned enter_eights(const tables&, const Key*, std::uint32_t*, unsigned,
                      std::uint64_t&) noexcept {
  return 0;
}

/// One level: of the keys in `deeper`, whose values name packed blocks; returns which still do.
/// `child_of(key)` has the child in its lowest bits.
template <class Key, class Child>
[[nodiscard, gnu::always_inline]] inline std::uint64_t descend_all(const tables& t, const Key* keys,
                                                                   std::uint32_t* values,
                                                                   std::uint64_t deeper,
                                                                   Child child_of) noexcept {
  std::uint64_t still = 0;
  for (; deeper != 0; deeper &= deeper - 1) {
    const auto i = static_cast<unsigned>(__builtin_ctzll(deeper));
    values[i] = descend(t, values[i], child_of(keys[i]));
    still |= std::uint64_t{values[i] / block_bit} << i;
  }
  return still;
}

/// Level by level, so that the cache misses of all keys overlap, from bit `offset` on.
[[gnu::always_inline]] inline void find_deeper(const tables& t, const lpm_key4* keys,
                                               std::uint32_t* values, std::uint64_t deeper,
                                               unsigned offset) noexcept {
  for (; deeper != 0; offset += stride)
    deeper = descend_all(t, keys, values, deeper,
                         [offset](lpm_key4 key) { return bits_at(key, offset); });
}
[[gnu::always_inline]] inline void find_deeper(const tables& t, const lpm_key6* keys,
                                               std::uint32_t* values, std::uint64_t deeper,
                                               unsigned offset) noexcept {
  for (; deeper != 0 && offset <= 64 - stride; offset += stride)
    deeper = descend_all(t, keys, values, deeper, [offset](const lpm_key6& key) {
      return key.high >> (64 - stride - offset);
    });
  for (; deeper != 0; offset += stride)
    deeper = descend_all(t, keys, values, deeper,
                         [offset](const lpm_key6& key) { return bits_at(key, offset); });
}

/// Without a branch that depends on one key's depth.
template <bool Wide, class Key>
[[gnu::always_inline]] inline void find_group(const tables& t, const Key* keys,
                                              std::uint32_t* values, unsigned count) noexcept {
  std::uint64_t deeper = 0;  // Bit i: values[i] names a packed block.
  std::uint64_t other = 0;   // Bit i: keys[i] lacks the stem.
  unsigned i = 0;
  if constexpr (Wide) i = enter_eights(t, keys, values, count, deeper);
  for (; i < count; ++i) {
    const way_in way = way_of(t, keys[i]);
    values[i] = enter(t, way);
    deeper |= std::uint64_t{values[i] / block_bit} << i;
    other |= std::uint64_t{way.skipped != t.stem_bits} << i;
  }
  find_deeper(t, keys, values, deeper & ~other, t.stem_bits + root_bits + stride);
  find_deeper(t, keys, values, deeper & other, root_bits + stride);
  if (t.default_value == 0) return;
  for (i = 0; i < count; ++i) values[i] = values[i] != 0 ? values[i] : t.default_value;
}

template <bool Wide, class Key>
[[gnu::always_inline]] inline void find_many(const tables& t, const Key* keys,
                                             std::uint32_t* values, std::size_t count) noexcept {
  for (; count > group; keys += group, values += group, count -= group)
    find_group<Wide>(t, keys, values, group);
  find_group<Wide>(t, keys, values, static_cast<unsigned>(count));
}

// The build is for generic x86-64, where counting bits takes a dozen instructions. The same code is
// compiled once more for processors with POPCNT, BMI2 and AVX2 (all since 2015) and chosen at run
// time. Gathers bring the first two levels of eight IPv4 keys at once; packed blocks are left to
// the scalar code, as AVX2 cannot count bits. AVX-512 can since Ice Lake and Zen 4: there, whole
// groups of either family go down eight keys at a time.
#if defined(__x86_64__)
#define COWIRE_NEWER_PROCESSOR __attribute__((target("popcnt,bmi,bmi2,avx2")))
[[nodiscard]] detail::lpm_code best_code() noexcept {
  if (!__builtin_cpu_supports("popcnt") || !__builtin_cpu_supports("bmi2") ||
      !__builtin_cpu_supports("avx2"))
    return detail::lpm_code::portable;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vpopcntdq")
             ? detail::lpm_code::avx512
             : detail::lpm_code::avx2;
}
const detail::lpm_code processor = best_code();
const bool newer_processor = processor != detail::lpm_code::portable;

COWIRE_NEWER_PROCESSOR inline unsigned sign_bits(const __m256i& v) noexcept {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(v)));
}

template <>
COWIRE_NEWER_PROCESSOR unsigned enter_eights(const tables& t, const lpm_key4* keys,
                                             std::uint32_t* values, unsigned count,
                                             std::uint64_t& deeper) noexcept {
  const std::uint32_t* const root = t.pool + t.root_place;
  unsigned i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i key = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + i));
    __m256i entry = _mm256_i32gather_epi32(reinterpret_cast<const int*>(root),
                                           _mm256_srli_epi32(key, 32 - root_bits), sizeof *root);
    if (sign_bits(entry) != 0) {  // Some name a plain block: block_bit is the sign.
      const __m256i child = _mm256_and_si256(_mm256_srli_epi32(key, 32 - root_bits - stride),
                                             _mm256_set1_epi32(fan_out - 1));
      const __m256i place = _mm256_and_si256(entry, _mm256_set1_epi32(place_mask));
      entry = _mm256_mask_i32gather_epi32(entry, reinterpret_cast<const int*>(t.pool),
                                          _mm256_add_epi32(place, child), entry, sizeof *root);
      deeper |= std::uint64_t{sign_bits(entry)} << i;
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + i), entry);
  }
  return i;
}

template <class Key>
COWIRE_NEWER_PROCESSOR std::uint32_t find_one_newer(const tables& t, Key key) noexcept {
  return find_one(t, key);
}
template <class Key>
COWIRE_NEWER_PROCESSOR void find_many_newer(const tables& t, const Key* keys, std::uint32_t* values,
                                            std::size_t count) noexcept {
  find_many<true>(t, keys, values, count);
}

#define COWIRE_WIDE_PROCESSOR \
  __attribute__((target("popcnt,bmi,bmi2,avx2,avx512f,avx512dq,avx512vl,avx512vpopcntdq")))

/// Of eight keys: their first 64 bits, and all the other ones.
struct eight_keys {
  __m512i high, low;
};
COWIRE_WIDE_PROCESSOR inline eight_keys load_eight(const lpm_key4* keys) noexcept {
  const __m256i four_bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys));
  return {_mm512_slli_epi64(_mm512_cvtepu32_epi64(four_bytes), 32), _mm512_setzero_si512()};
}
COWIRE_WIDE_PROCESSOR inline eight_keys load_eight(const lpm_key6* keys) noexcept {
  const __m512i first = _mm512_loadu_si512(keys), second = _mm512_loadu_si512(keys + 4);
  const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  const __m512i odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
  return {_mm512_permutex2var_epi64(first, even, second),
          _mm512_permutex2var_epi64(first, odd, second)};
}

/// The entries at eight places of the pool, where `these` says so; elsewhere those in `others`.
COWIRE_WIDE_PROCESSOR inline __m256i entries_at(const tables& t, __m512i places, __mmask8 these,
                                                __m256i others) noexcept {
  return _mm512_mask_i64gather_epi32(others, these, places, t.pool, sizeof *t.pool);
}
COWIRE_WIDE_PROCESSOR inline __m512i places_in(__m256i entries) noexcept {
  return _mm512_cvtepu32_epi64(_mm256_and_si256(entries, _mm256_set1_epi32(place_mask)));
}

/// As enter(). `bits` gets what way_in::bits is, for all of the 64 bits; returns which of `values`
/// name a packed block; `other`: which keys lack the stem.
COWIRE_WIDE_PROCESSOR inline __mmask8 enter_eight(const tables& t, const eight_keys& keys,
                                                  __m512i& bits, __m256i& values,
                                                  __mmask8& other) noexcept {
  const __mmask8 stemmed = _mm512_cmpeq_epi64_mask(
      _mm512_and_si512(keys.high, _mm512_set1_epi64(static_cast<long long>(t.stem_mask))),
      _mm512_set1_epi64(static_cast<long long>(t.stem)));
  other = static_cast<__mmask8>(~stemmed);
  const __m512i skipped = _mm512_maskz_set1_epi64(stemmed, t.stem_bits);
  // A shift by 64 leaves nothing.
  const __m512i from_low =
      _mm512_srlv_epi64(keys.low, _mm512_sub_epi64(_mm512_set1_epi64(64), skipped));
  bits = _mm512_or_si512(_mm512_sllv_epi64(keys.high, skipped), from_low);
  const __m512i root =
      _mm512_mask_set1_epi64(_mm512_set1_epi64(static_cast<long long>(t.root_place)), stemmed,
                             static_cast<long long>(t.stem_root_place));
  const __m512i in_root = _mm512_add_epi64(root, _mm512_srli_epi64(bits, 64 - root_bits));
  const __m256i top = entries_at(t, in_root, 0xff, _mm256_setzero_si256());
  const __m512i child = _mm512_and_si512(_mm512_srli_epi64(bits, 64 - root_bits - stride),
                                         _mm512_set1_epi64(fan_out - 1));
  values = entries_at(t, _mm512_add_epi64(places_in(top), child), _mm256_movepi32_mask(top), top);
  return _mm256_movepi32_mask(values);
}

/// As descend(), for the keys in `deeper`: returns which still name a block.
COWIRE_WIDE_PROCESSOR inline __mmask8 descend_eight(const tables& t, __m512i bits, unsigned offset,
                                                    __mmask8 deeper, __m256i& values) noexcept {
  const __m512i places = places_in(values);
  const __m512i bitmaps =
      _mm512_mask_i64gather_epi64(_mm512_setzero_si512(), deeper, places, t.pool, sizeof *t.pool);
  const __m512i child =
      _mm512_srl_epi64(bits, _mm_cvtsi32_si128(static_cast<int>(64 - stride - offset)));
  const __m512i beyond = _mm512_andnot_si512(child, _mm512_set1_epi64(fan_out - 1));
  const __m512i runs = _mm512_popcnt_epi64(_mm512_sllv_epi64(bitmaps, beyond));
  const __m512i entry =
      _mm512_add_epi64(_mm512_add_epi64(places, runs), _mm512_set1_epi64(header_words - 1));
  values = entries_at(t, entry, deeper, values);
  return static_cast<__mmask8>(deeper & _mm256_movepi32_mask(values));
}

/// A whole group. Level by level, as find_group(), and eight keys at once.
template <class Key>
COWIRE_WIDE_PROCESSOR void find_group_wide(const tables& t, const Key* keys,
                                           std::uint32_t* values) noexcept {
  constexpr unsigned eights = group / 8;
  __m512i bits[eights];
  __m256i found[eights];
  __mmask8 deeper[eights];
  std::uint64_t other = 0;
  unsigned any = 0;
  for (unsigned i = 0; i < eights; ++i) {
    __mmask8 lacks;
    deeper[i] = enter_eight(t, load_eight(keys + 8 * i), bits[i], found[i], lacks);
    other |= std::uint64_t{lacks} << (8 * i);
    any |= deeper[i];
  }
  unsigned offset = root_bits + stride;
  for (; any != 0 && offset <= 64 - stride; offset += stride) {
    any = 0;
    for (unsigned i = 0; i < eights; ++i) {
      if (deeper[i] == 0) continue;
      deeper[i] = descend_eight(t, bits[i], offset, deeper[i], found[i]);
      any |= deeper[i];
    }
  }
  const __m256i fallback = _mm256_set1_epi32(static_cast<int>(t.default_value));
  std::uint64_t left = 0;
  for (unsigned i = 0; i < eights; ++i) {
    const __mmask8 without = _mm256_testn_epi32_mask(found[i], found[i]);
    found[i] = _mm256_mask_mov_epi32(found[i], without, fallback);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + 8 * i), found[i]);
    left |= std::uint64_t{deeper[i]} << (8 * i);
  }
  if (left == 0) return;
  find_deeper(t, keys, values, left & ~other, t.stem_bits + offset);
  find_deeper(t, keys, values, left & other, offset);
  for (; left != 0; left &= left - 1) {
    const auto i = static_cast<unsigned>(__builtin_ctzll(left));
    values[i] = values[i] != 0 ? values[i] : t.default_value;
  }
}

template <class Key>
COWIRE_WIDE_PROCESSOR void find_many_wide(const tables& t, const Key* keys, std::uint32_t* values,
                                          std::size_t count) noexcept {
  for (; count >= group; keys += group, values += group, count -= group)
    find_group_wide(t, keys, values);
  if (count != 0) find_group<true>(t, keys, values, static_cast<unsigned>(count));
}
#else
constexpr detail::lpm_code processor = detail::lpm_code::portable;
constexpr bool newer_processor = false;
template <class Key>
std::uint32_t find_one_newer(const tables& t, Key key) noexcept {
  return find_one(t, key);
}
template <class Key>
void find_many_newer(const tables& t, const Key* keys, std::uint32_t* values,
                     std::size_t count) noexcept {
  find_many<false>(t, keys, values, count);
}
template <class Key>
void find_many_wide(const tables& t, const Key* keys, std::uint32_t* values,
                    std::size_t count) noexcept {
  find_many<false>(t, keys, values, count);
}
#endif

}  // namespace

template <class Key>
std::uint32_t lpm_view<Key>::lookup(Key key) const noexcept {
  if (at_.root == nullptr) return at_.default_value;
  const tables t(at_);
  return newer_processor ? find_one_newer(t, key) : find_one(t, key);
}

template <class Key>
void lpm_view<Key>::lookup_batch(const Key* keys, std::uint32_t* values,
                                 std::size_t count) const noexcept {
  lookup_batch(processor, keys, values, count);
}

template <class Key>
void lpm_view<Key>::lookup_batch(detail::lpm_code code, const Key* keys, std::uint32_t* values,
                                 std::size_t count) const noexcept {
  if (at_.root == nullptr) {
    std::fill_n(values, count, at_.default_value);
    return;
  }
  const tables t(at_);
  switch (code) {
    case detail::lpm_code::portable:
      return find_many<false>(t, keys, values, count);
    case detail::lpm_code::avx2:
      return find_many_newer(t, keys, values, count);
    case detail::lpm_code::avx512:
      return find_many_wide(t, keys, values, count);
  }
}

detail::lpm_code detail::best_lpm_code() noexcept { return processor; }

// --- Memory -----------------------------------------------------------------------------------

lpm_garbage& lpm_garbage::operator=(lpm_garbage&& other) noexcept {
  if (this != &other) {
    free_blocks();
    pool_ = std::move(other.pool_);
    blocks_ = std::move(other.blocks_);
  }
  return *this;
}

lpm_garbage::~lpm_garbage() { free_blocks(); }

std::size_t lpm_garbage::bytes() const noexcept {
  std::size_t total = sizeof(*this) + blocks_.capacity() * sizeof(std::uint32_t);
  for (const std::uint32_t item : blocks_) total += pool_->bytes_of(item);
  return total;
}

void lpm_garbage::free_blocks() noexcept {
  for (const std::uint32_t item : blocks_) pool_->free(item);
  blocks_.clear();
}

// --- The writer's record ----------------------------------------------------------------------

namespace {

/// An array of as many elements as its owner's bitmap has bits.
template <class T>
class packed_array {
 public:
  [[nodiscard]] T& operator[](std::size_t i) noexcept { return items_[i]; }
  [[nodiscard]] const T& operator[](std::size_t i) const noexcept { return items_[i]; }
  void insert(std::size_t size, std::size_t at, T item) {
    if (size == 0 || size == room_of(size)) {
      std::unique_ptr<T[]> grown(new T[room_of(size + 1)]);
      std::move(items_.get(), items_.get() + size, grown.get());
      items_ = std::move(grown);
    }
    std::move_backward(items_.get() + at, items_.get() + size, items_.get() + size + 1);
    items_[at] = std::move(item);
  }
  /// Keeps the room: erasing does not fail.
  void erase(std::size_t size, std::size_t at) noexcept {
    std::move(items_.get() + at + 1, items_.get() + size, items_.get() + at);
    if (size == 1)
      items_.reset();
    else
      items_[size - 1] = T();
  }

 private:
  /// An array of `size` has room for at least so many: what malloc would give it anyhow.
  [[nodiscard]] static constexpr std::size_t room_of(std::size_t size) noexcept {
    return ((size * sizeof(T) + 7) / 16 * 16 + 8) / sizeof(T);
  }
  std::unique_ptr<T[]> items_;
};

/// The prefixes of 1 to 6 bits beyond a common stem of 0, 6, 12 ... bits, and the deeper nodes. A
/// prefix of l bits b beyond the stem has the number 1 << l | b: 2 to 127.
struct node {
  std::array<std::uint64_t, 2> prefixes{};
  std::uint64_t child_bits = 0;
  packed_array<std::uint32_t> values;            ///< One per bit of `prefixes`.
  packed_array<std::unique_ptr<node>> children;  ///< One per bit of `child_bits`.
  std::uint32_t built = 0;      ///< The entry that stands for this node in the newest version.
  std::uint32_t inherited = 0;  ///< The value of the covering prefix that `built` was made with.
  /// Since `built` was made: these children, or something in them, ...
  std::uint64_t changed_children = 0;
  bool changed = true;      ///< ... or the prefixes here, or which children there are.
  std::uint32_t total = 0;  ///< Prefixes here and in deeper nodes.

  [[nodiscard]] bool has(unsigned number) const noexcept {
    return (prefixes[number / 64] >> (number % 64) & 1) != 0;
  }
  [[nodiscard]] std::size_t value_index(unsigned number) const noexcept {
    const std::uint64_t below = (std::uint64_t{1} << (number % 64)) - 1;
    const int before = number < 64
                           ? std::popcount(prefixes[0] & below)
                           : std::popcount(prefixes[0]) + std::popcount(prefixes[1] & below);
    return static_cast<std::size_t>(before);
  }
  [[nodiscard]] std::size_t value_count() const noexcept {
    return static_cast<std::size_t>(std::popcount(prefixes[0]) + std::popcount(prefixes[1]));
  }
  [[nodiscard]] std::size_t child_index(unsigned which) const noexcept {
    return static_cast<std::size_t>(std::popcount(child_bits & ((std::uint64_t{1} << which) - 1)));
  }
  [[nodiscard]] std::size_t child_count() const noexcept {
    return static_cast<std::size_t>(std::popcount(child_bits));
  }
  [[nodiscard]] node* child(unsigned which) const noexcept {
    return (child_bits >> which & 1) != 0 ? children[child_index(which)].get() : nullptr;
  }
  /// The child that has at least so many prefixes.
  [[nodiscard]] std::optional<unsigned> child_with(std::size_t prefixes_least) const noexcept {
    for (std::uint64_t left = child_bits; left != 0; left &= left - 1) {
      const auto which = static_cast<unsigned>(std::countr_zero(left));
      if (child(which)->total >= prefixes_least) return which;
    }
    return {};
  }
  [[nodiscard]] bool empty() const noexcept {
    return (prefixes[0] | prefixes[1] | child_bits) == 0;
  }
  /// Whether `built` says what it would say inside such a prefix.
  [[nodiscard]] bool is_current(std::uint32_t would_inherit) const noexcept {
    return !changed && changed_children == 0 && inherited == would_inherit;
  }
};

/// What each of the 64 children gets from the prefixes of `n`, shorter ones first.
void expand(const node& n, std::uint32_t inherited, std::uint32_t* out) noexcept {
  std::fill_n(out, fan_out, inherited);
  std::size_t index = 0;
  for (std::uint64_t left = n.prefixes[0]; left != 0; left &= left - 1) {
    const auto number = static_cast<unsigned>(std::countr_zero(left));
    const auto length = static_cast<unsigned>(std::bit_width(number)) - 1;
    const unsigned first = (number - (1u << length)) << (stride - length);
    std::fill_n(out + first, fan_out >> length, n.values[index++]);
  }
  for (std::uint64_t left = n.prefixes[1]; left != 0; left &= left - 1)
    out[std::countr_zero(left)] = n.values[index++];
}

/// Where a prefix is kept: `depth` nodes below the top one, under `number`.
struct position {
  position(unsigned length) noexcept
      : depth((length - 1) / stride), beyond(length - depth * stride) {}
  unsigned depth;
  unsigned beyond;  ///< 1 to 6 bits.
  [[nodiscard]] unsigned number(unsigned next_six_bits) const noexcept {
    return 1u << beyond | next_six_bits >> (stride - beyond);
  }
};

template <class Key>
[[nodiscard]] unsigned child_of(const Key& prefix, unsigned depth) noexcept {
  return static_cast<unsigned>(bits_at(prefix, depth * stride)) % fan_out;
}

constexpr std::size_t deepest = (128 - 1) / stride;

/// The child through which the path to the node of a stem leaves the node at `depth`.
[[nodiscard]] unsigned stem_child_of(std::uint64_t stem, unsigned depth) noexcept {
  return static_cast<unsigned>(stem >> (64 - stride - depth * stride)) % fan_out;
}

/// Levels on which two keys take the same child.
[[nodiscard]] unsigned common_levels(lpm_key4 a, lpm_key4 b) noexcept {
  return static_cast<unsigned>(std::countl_zero(a ^ b)) / stride;
}
[[nodiscard]] unsigned common_levels(const lpm_key6& a, const lpm_key6& b) noexcept {
  const int high = std::countl_zero(a.high ^ b.high);
  return static_cast<unsigned>(high < 64 ? high : 64 + std::countl_zero(a.low ^ b.low)) / stride;
}

}  // namespace

template <class Key>
struct lpm_trie<Key>::impl {
  std::shared_ptr<detail::lpm_pool> pool = std::make_shared<detail::lpm_pool>();
  node top;
  std::size_t size = 0;
  std::size_t nodes = 0;  ///< Below `top`.
  std::uint32_t default_value = 0;
  lpm_view<Key> newest;
  detail::lpm_roots next;              ///< As `newest`, with the changes since.
  node* stem = &top;                   ///< The node of the second root; `top`: there is none.
  std::size_t judged = 0;              ///< Prefixes that there were when the stem was chosen.
  std::vector<std::uint32_t> dropped;  ///< Still part of `newest`, not of `next`.
  std::vector<std::uint32_t> garbage;  ///< Not part of `newest`.
  /// Where the last assign() since the last version came through: prefixes often come in order.
  Key trail_key{};
  unsigned trail_depth = 0;
  std::array<node*, deepest + 1> trail{&top};

  void drop(std::uint32_t entry) {
    if ((entry & block_bit) != 0) dropped.push_back(entry);
  }
  void drop_all_below(node& n) {
    for (std::size_t i = 0; i < n.child_count(); ++i) {
      drop_all_below(*n.children[i]);
      drop(n.children[i]->built);
    }
  }
  [[nodiscard]] std::uint32_t store_plain(const std::uint32_t* entries, std::uint32_t old);
  [[nodiscard]] std::uint32_t store_packed(const std::uint32_t* entries, std::uint32_t old);
  enum class format : std::uint8_t { plain, packed };
  [[nodiscard]] std::uint32_t rebuild(node& n, std::uint32_t inherited, format as);
  void load(std::uint32_t built, std::uint32_t* out) const noexcept;
  void refresh(node& n, std::uint32_t inherited, std::uint32_t* out, format below);
  [[nodiscard]] const std::uint32_t* rebuild_root(node& n, std::uint32_t inherited,
                                                  const std::uint32_t* old);
  void rebuild_stem(std::uint32_t inherited);
  void drop_root(const std::uint32_t* root) {
    if (root != nullptr) dropped.push_back(place_of(root));
  }
  [[nodiscard]] std::uint32_t place_of(const std::uint32_t* block) const noexcept {
    return static_cast<std::uint32_t>(block - next.pool);
  }
  [[nodiscard]] bool has_stem() const noexcept { return stem != &top; }
  void choose_stem();
  void lose_stem();
  void mark_path_to_stem() noexcept;
  void build_anew(node& n);
};

// An old block may have the other format: the node lay elsewhere then.

/// A block for 64 entries; the old one if it says the same; no block at all for 64 equal values.
template <class Key>
std::uint32_t lpm_trie<Key>::impl::store_plain(const std::uint32_t* entries, std::uint32_t old) {
  if ((old & block_bit) != 0) {
    if ((old & plain_bit) != 0 &&
        std::equal(entries, entries + fan_out, pool->at(old & place_mask)))
      return old;
    drop(old);
  }
  if ((entries[0] & block_bit) == 0 && std::equal(entries + 1, entries + fan_out, entries))
    return entries[0];
  const std::uint32_t place = pool->allocate_plain();
  std::copy_n(entries, fan_out, pool->at(place));
  return block_bit | plain_bit | place;
}

template <class Key>
std::uint32_t lpm_trie<Key>::impl::store_packed(const std::uint32_t* entries, std::uint32_t old) {
  std::array<std::uint32_t, fan_out> runs;
  std::uint64_t bitmap = 1;
  unsigned count = 1;
  runs[0] = entries[0];
  for (unsigned i = 1; i < fan_out; ++i) {
    const bool begins = entries[i] != entries[i - 1];
    bitmap |= std::uint64_t{begins} << i;
    runs[count - !begins] = entries[i];
    count += begins;
  }
  if ((old & block_bit) != 0) {
    const std::uint32_t* const block = pool->at(old & place_mask);
    if ((old & plain_bit) == 0 && load_bitmap(block) == bitmap &&
        std::equal(runs.begin(), runs.begin() + count, block + header_words))
      return old;
    drop(old);
  }
  if (count == 1) return runs[0];
  const std::uint32_t place = pool->allocate_packed(count);
  std::memcpy(pool->at(place), &bitmap, sizeof bitmap);
  std::copy_n(runs.begin(), count, pool->at(place) + header_words);
  return block_bit | place;
}

/// The entries of the version that `built` belongs to.
template <class Key>
void lpm_trie<Key>::impl::load(std::uint32_t built, std::uint32_t* out) const noexcept {
  const std::uint32_t* const block = pool->at(built & place_mask);
  if ((built & block_bit) == 0) {
    std::fill_n(out, fan_out, built);
  } else if ((built & plain_bit) != 0) {
    std::copy_n(block, fan_out, out);
  } else {
    const std::uint32_t* run = block + header_words - 1;
    for (std::uint64_t which = 0, bitmap = load_bitmap(block); which < fan_out;
         ++which, bitmap >>= 1)
      out[which] = *(run += bitmap & 1);
  }
}

/// What each child of a node has. `out` holds what it has in the newest version, if there is one:
/// where only children have changed, only they are looked at.
template <class Key>
void lpm_trie<Key>::impl::refresh(node& n, std::uint32_t inherited, std::uint32_t* out,
                                  format below) {
  const bool all = n.changed || n.inherited != inherited;
  if (all) expand(n, inherited, out);
  for (std::uint64_t left = all ? n.child_bits : n.changed_children; left != 0; left &= left - 1) {
    const auto which = static_cast<unsigned>(std::countr_zero(left));
    node& child = *n.child(which);
    out[which] = rebuild(child, all ? out[which] : child.inherited, below);
  }
  n.inherited = inherited;
  n.changed_children = 0;
  n.changed = false;
}

template <class Key>
std::uint32_t lpm_trie<Key>::impl::rebuild(node& n, std::uint32_t inherited, format as) {
  if (n.is_current(inherited)) return n.built;
  if (&n == stem) {
    rebuild_stem(inherited);
    return n.built = 0;  // Nobody comes by here.
  }
  std::array<std::uint32_t, fan_out> entries;
  if (!n.changed && n.inherited == inherited) load(n.built, entries.data());
  refresh(n, inherited, entries.data(), format::packed);
  n.built = as == format::plain ? store_plain(entries.data(), n.built)
                                : store_packed(entries.data(), n.built);
  return n.built;
}

/// The second level has no blocks: it is 64 children of the root.
template <class Key>
const std::uint32_t* lpm_trie<Key>::impl::rebuild_root(node& n, std::uint32_t inherited,
                                                       const std::uint32_t* old) {
  const std::uint32_t place = pool->allocate_root();
  std::uint32_t* const root = pool->at(place);
  const bool all = n.changed || n.inherited != inherited || old == nullptr;
  if (old != nullptr) std::copy_n(old, root_fan_out, root);
  std::array<std::uint32_t, fan_out> entries;
  expand(n, inherited, entries.data());
  for (std::uint64_t left = all ? ~std::uint64_t{0} : n.changed_children; left != 0;
       left &= left - 1) {
    const auto which = static_cast<unsigned>(std::countr_zero(left));
    std::uint32_t* const out = root + which * fan_out;
    node* const second = n.child(which);
    if (second == nullptr) {
      std::fill_n(out, fan_out, entries[which]);
    } else if (!second->is_current(entries[which])) {
      if (second == stem)
        std::fill_n(out, fan_out, rebuild(*second, entries[which], format::plain));
      else
        refresh(*second, entries[which], out, format::plain);
    }
  }
  n.inherited = inherited;
  n.changed_children = 0;
  n.changed = false;
  // Most changes are below the stem.
  if (has_stem() && old != nullptr && std::equal(root, root + root_fan_out, old)) {
    pool->set_aside(place);
    pool->free(place);
    return old;
  }
  drop_root(old);
  return root;
}

template <class Key>
void lpm_trie<Key>::impl::rebuild_stem(std::uint32_t inherited) {
  next.stem_root = rebuild_root(*stem, inherited, next.stem_root);
}

/// The stem node and two levels below it have other blocks in the next version, or none.
template <class Key>
void lpm_trie<Key>::impl::build_anew(node& n) {
  const auto forget = [this](node& some) {
    some.changed = true;
    drop(std::exchange(some.built, 0));
  };
  forget(n);
  for (std::size_t i = 0; i < n.child_count(); ++i) {
    node& second = *n.children[i];
    forget(second);
    for (std::size_t j = 0; j < second.child_count(); ++j) second.children[j]->changed = true;
  }
}

template <class Key>
void lpm_trie<Key>::impl::mark_path_to_stem() noexcept {
  node* n = &top;
  for (unsigned depth = 0; n != stem; ++depth) {
    const unsigned which = stem_child_of(next.stem, depth);
    n->changed_children |= std::uint64_t{1} << which;
    n = n->child(which);
  }
}

/// Its node is no more, or is about to be an ordinary one.
template <class Key>
void lpm_trie<Key>::impl::lose_stem() {
  drop_root(std::exchange(next.stem_root, nullptr));
  next.stem = next.stem_bits = 0;
  stem = &top;
}

/// The deepest node that has nearly all prefixes. Asked again when there are a quarter more or
/// fewer of them, so that it costs next to nothing.
template <class Key>
void lpm_trie<Key>::impl::choose_stem() {
  const std::size_t moved = top.total > judged ? top.total - judged : judged - top.total;
  if (moved <= judged / 4) return;
  judged = top.total;
  const std::size_t nearly_all = judged - judged / 16;
  node* n = &top;
  std::uint64_t bits = 0;
  unsigned depth = 0;
  for (; depth < stem_bits_max / stride; ++depth) {
    const std::optional<unsigned> which = n->child_with(nearly_all);
    if (!which) break;
    bits |= std::uint64_t{*which} << (64 - stride - depth * stride);
    n = n->child(*which);
  }
  if (n == stem) return;
  if (has_stem()) {
    mark_path_to_stem();
    build_anew(*stem);
    lose_stem();
  }
  if (n == &top) return;
  stem = n;
  next.stem = bits;
  next.stem_bits = depth * stride;
  mark_path_to_stem();
  build_anew(*stem);
}

template <class Key>
lpm_trie<Key>::lpm_trie() : impl_(std::make_unique<impl>()) {
  impl_->top.changed = false;
  impl_->newest.at_.pool = impl_->next.pool = impl_->pool->at(0);
}
template <class Key>
lpm_trie<Key>::lpm_trie(lpm_trie&&) noexcept = default;
template <class Key>
lpm_trie<Key>& lpm_trie<Key>::operator=(lpm_trie&&) noexcept = default;
template <class Key>
lpm_trie<Key>::~lpm_trie() = default;

template <class Key>
void lpm_trie<Key>::assign(Key prefix, unsigned length, std::uint32_t value) {
  COWIRE_ASSERT(length <= lpm_key_bits<Key> && value != 0 && value < block_bit);
  impl& s = *impl_;
  if (length == 0) {
    s.size += s.default_value == 0;
    s.default_value = value;
    return;
  }
  const position where(length);
  unsigned depth = std::min({common_levels(prefix, s.trail_key), s.trail_depth, where.depth});
  s.trail_key = prefix;
  s.trail_depth = depth;
  node* n = s.trail[depth];
  for (; depth < where.depth; ++depth) {
    const unsigned which = child_of(prefix, depth);
    if (n->child(which) == nullptr) {
      n->children.insert(n->child_count(), n->child_index(which), std::make_unique<node>());
      n->child_bits |= std::uint64_t{1} << which;
      n->changed = true;
      ++s.nodes;
    }
    n->changed_children |= std::uint64_t{1} << which;
    s.trail[depth + 1] = n = n->child(which);
  }
  s.trail_depth = where.depth;
  n->changed = true;
  const unsigned number = where.number(child_of(prefix, where.depth));
  const std::size_t index = n->value_index(number);
  if (n->has(number)) {
    n->values[index] = value;
    return;
  }
  n->values.insert(n->value_count(), index, value);
  n->prefixes[number / 64] |= std::uint64_t{1} << (number % 64);
  for (unsigned above = 0; above <= where.depth; ++above) ++s.trail[above]->total;
  ++s.size;
}

template <class Key>
void lpm_trie<Key>::assign_sorted(std::span<const route> routes) {
  clear();
  for (const route& r : routes) assign(r.prefix, r.length, r.value);
}

template <class Key>
bool lpm_trie<Key>::erase(Key prefix, unsigned length) {
  if (!exact(prefix, length)) return false;
  impl& s = *impl_;
  --s.size;
  s.trail_depth = 0;
  if (length == 0) {
    s.default_value = 0;
    return true;
  }
  const position where(length);
  std::array<node*, deepest + 1> path{&s.top};
  std::array<unsigned, deepest + 1> child_at{};
  for (unsigned depth = 0; depth < where.depth; ++depth) {
    child_at[depth] = child_of(prefix, depth);
    path[depth + 1] = path[depth]->child(child_at[depth]);
  }
  for (unsigned depth = 0; depth < where.depth; ++depth)
    path[depth]->changed_children |= std::uint64_t{1} << child_at[depth];
  for (unsigned depth = 0; depth <= where.depth; ++depth) --path[depth]->total;
  node& n = *path[where.depth];
  n.changed = true;
  const unsigned number = where.number(child_of(prefix, where.depth));
  n.values.erase(n.value_count(), n.value_index(number));
  n.prefixes[number / 64] &= ~(std::uint64_t{1} << (number % 64));
  for (unsigned depth = where.depth; depth > 0 && path[depth]->empty(); --depth) {
    if (path[depth] == s.stem) s.lose_stem();
    s.drop(path[depth]->built);
    node& parent = *path[depth - 1];
    const unsigned which = child_at[depth - 1];
    parent.children.erase(parent.child_count(), parent.child_index(which));
    parent.child_bits &= ~(std::uint64_t{1} << which);
    parent.changed_children &= ~(std::uint64_t{1} << which);
    parent.changed = true;
    --s.nodes;
  }
  return true;
}

template <class Key>
void lpm_trie<Key>::clear() {
  impl& s = *impl_;
  s.drop_all_below(s.top);
  if (s.has_stem()) s.lose_stem();
  s.top = node();
  s.trail_depth = 0;
  s.default_value = 0;
  s.size = s.nodes = 0;
}

template <class Key>
lpm_view<Key> lpm_trie<Key>::commit() {
  impl& s = *impl_;
  s.trail_depth = 0;
  if constexpr (std::is_same_v<Key, lpm_key6>) s.choose_stem();
  if (s.top.empty()) {
    s.drop_root(std::exchange(s.next.root, nullptr));
    s.top.changed_children = 0;
  } else if (s.top.changed || s.top.changed_children != 0) {
    s.next.root = s.rebuild_root(s.top, 0, s.next.root);
  }
  s.next.default_value = s.default_value;
  s.garbage.reserve(s.garbage.size() + s.dropped.size());
  for (const std::uint32_t item : s.dropped) s.pool->set_aside(item), s.garbage.push_back(item);
  s.dropped.clear();
  s.newest.at_ = s.next;
  if (!s.has_stem()) s.newest.at_.stem_root = s.next.root;
  return s.newest;
}

template <class Key>
lpm_view<Key> lpm_trie<Key>::view() const noexcept {
  return impl_->newest;
}

template <class Key>
lpm_garbage lpm_trie<Key>::take_garbage() noexcept {
  lpm_garbage taken;
  if (impl_->garbage.empty()) return taken;
  taken.pool_ = impl_->pool;
  taken.blocks_ = std::exchange(impl_->garbage, {});
  return taken;
}

template <class Key>
std::optional<std::uint32_t> lpm_trie<Key>::exact(Key prefix, unsigned length) const noexcept {
  COWIRE_ASSERT(length <= lpm_key_bits<Key>);
  if (length == 0)
    return impl_->default_value != 0 ? std::optional(impl_->default_value) : std::nullopt;
  const position where(length);
  const node* n = &impl_->top;
  for (unsigned depth = 0; depth < where.depth; ++depth) {
    n = n->child(child_of(prefix, depth));
    if (n == nullptr) return {};
  }
  const unsigned number = where.number(child_of(prefix, where.depth));
  if (!n->has(number)) return {};
  return n->values[n->value_index(number)];
}

template <class Key>
std::size_t lpm_trie<Key>::size() const noexcept {
  return impl_->size;
}

template <class Key>
lpm_memory lpm_trie<Key>::memory() const noexcept {
  const detail::lpm_pool& pool = *impl_->pool;
  return {pool.bytes_live(), pool.bytes_waiting(), pool.blocks_live(),
          impl_->nodes * (sizeof(node) + sizeof(void*)) + impl_->size * sizeof(std::uint32_t)};
}

template class lpm_view<lpm_key4>;
template class lpm_view<lpm_key6>;
template class lpm_trie<lpm_key4>;
template class lpm_trie<lpm_key6>;

}  // namespace cowire
