// SPDX-License-Identifier: Apache-2.0
// What a ruleset says of destinations: comparisons and sets that divide them.
#include <cowire/route/detail/output_walk.hpp>
#include <cowire/route/detail/xt_match.hpp>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>
#include <variant>

namespace cowire::detail {

namespace nft = netlink::nft;
namespace ex = netlink::nft::expressions;

namespace {

constexpr std::size_t size_of(ip_family family) noexcept {
  return family == ip_family::v4 ? 4 : 16;
}

/// The first bytes of an address, and all others `filler`.
address_number number_from(ip_family family, std::span<const std::byte> bytes,
                           std::uint8_t filler) {
  address_number number = 0;
  for (std::size_t i = 0; i < size_of(family); ++i)
    number = number << 8 | (i < bytes.size() ? std::to_integer<std::uint8_t>(bytes[i]) : filler);
  return number;
}

/// The number of leading ones, where no other bit is set.
std::optional<unsigned> prefix_length(std::span<const std::uint8_t> mask) {
  unsigned length = 0;
  bool ended = false;
  for (const std::uint8_t byte : mask)
    for (int bit = 7; bit >= 0; --bit) {
      const bool set = (byte >> bit & 1) != 0;
      if (set && ended) return std::nullopt;
      ended |= !set;
      length += set;
    }
  return length;
}

/// The port before this one, or the last one there is.
std::array<std::byte, 2> number_before(std::span<const std::byte> port) {
  unsigned number = 0x10000;
  if (!port.empty())
    number = std::to_integer<unsigned>(port[0]) << 8 | std::to_integer<unsigned>(port[1]);
  if (number == 0) number = 0x10000;
  --number;
  return {std::byte(number >> 8), std::byte(number & 0xff)};
}

}  // namespace

/// Collects what elements say, those together that answer the same.
class output_walk::answer_builder {
 public:
  explicit answer_builder(const output_sets& sets) : sets_(sets) {}
  void add(const nft::element& one, const address_set::interval& where, bool sure) {
    group& into = group_of(one);
    into.possible.push_back(where);
    if (sure)
      into.sure.push_back(where);
    else
      into.exact = false;
    if (sets_.has_side_effects(one)) side_effects_.push_back(where);
  }

  [[nodiscard]] destination_answer finish(const output_sets::prepared& set, ip_family family) {
    destination_answer out;
    const bool may_lose = output_sets::may_lose(set);
    out.contents_unknown = output_sets::may_gain(set);
    const address_set all(ip_prefix::all(family));
    for (auto& [value, g] : groups_) {
      destination_answer::group& made = out.groups.emplace_back();
      made.one = g.one;
      made.possible = address_set(std::move(g.possible));
      out.possible.unite(made.possible);
      if (may_lose || out.contents_unknown) continue;  // Then nothing is sure.
      made.sure = g.exact ? made.possible : address_set(std::move(g.sure));
      out.sure.unite(made.sure);
    }
    out.has_side_effects = address_set(std::move(side_effects_));
    if (set.catch_all != nullptr) add_catch_all(out, *set.catch_all, all);
    if (out.contents_unknown) out.possible = all;
    if (may_lose || out.contents_unknown) out.sure = {};
    if (out.sure == out.possible) out.sure = out.possible;  // One list: told apart at a glance.
    return out;
  }

 private:
  struct group {
    const nft::element* one = nullptr;
    std::vector<address_set::interval> possible, sure;
    bool exact = true;
  };
  using group_key = std::tuple<std::size_t, std::int32_t, std::string, nft::bytes>;

  group& group_of(const nft::element& one) {
    if (last_ != nullptr && last_->one->value == one.value) return *last_;
    group_key key{one.value.index(), 0, {}, {}};
    if (const auto* verdict = std::get_if<nft::verdict>(&one.value)) {
      std::get<1>(key) = verdict->code;
      std::get<2>(key) = verdict->chain;
    } else if (const auto* bytes = std::get_if<nft::bytes>(&one.value)) {
      std::get<3>(key) = *bytes;
    }
    group& found = groups_[std::move(key)];
    if (found.one == nullptr) found.one = &one;
    last_ = &found;
    return found;
  }

  void add_catch_all(destination_answer& out, const nft::element& one,
                     const address_set& all) const {
    destination_answer::group& made = out.groups.emplace_back();
    made.one = &one;
    made.possible = all;
    made.possible.remove(out.sure);
    made.sure = all;
    made.sure.remove(out.possible);
    if (sets_.has_side_effects(one)) out.has_side_effects.unite(made.possible);
    out.possible = out.sure = all;
  }

  const output_sets& sets_;
  std::map<group_key, group> groups_;
  std::vector<address_set::interval> side_effects_;
  group* last_ = nullptr;
};

std::optional<output_walk::destination_match> output_walk::equal_to(
    const evaluation& e, std::size_t at, std::span<const std::byte> value) {
  std::array<std::uint8_t, 16> mask{}, wanted{};
  destination_match match;
  bool concerned = false;
  for (std::size_t i = 0; i < value.size() && at + i < nft::register_bytes; ++i) {
    const auto byte = std::to_integer<std::uint8_t>(value[i]);
    const destination_byte& here = e.destination_at[at + i];
    if (here.index != destination_byte::none) {
      const auto bits = static_cast<std::uint8_t>(byte ^ here.flip);
      // Masked away, a bit is 0; and a byte that is there twice is not gone into.
      if ((bits & ~here.mask) != 0) match.rest = ternary::no;
      if (mask[here.index] != 0) return std::nullopt;
      concerned = true;
      mask[here.index] = here.mask;
      wanted[here.index] = static_cast<std::uint8_t>(bits & here.mask);
    } else if (has_port_at(e, at + i) && i + 1 < value.size()) {
      concerned = true;
      const std::span port = value.subspan(i++, 2);
      if (match.rest == ternary::no) continue;
      const ternary same = ports_between(port, port);
      if (same != ternary::yes) match.rest = same;
    } else if (((e.registers.value[at + i] ^ byte) & e.registers.known[at + i]) != 0) {
      match.rest = ternary::no;
    } else if (e.registers.known[at + i] != 0xff && match.rest == ternary::yes) {
      match.rest = ternary::maybe;
    }
  }
  const auto length = prefix_length(std::span(mask).first(size_of(family_)));
  if (!concerned || !length) return std::nullopt;
  match.where = address_set(ip_prefix(ip_address::from_bytes(family_, wanted.data()), *length));
  return match;
}

std::optional<address_set> output_walk::between(const evaluation& e, std::size_t at,
                                                std::span<const std::byte> low,
                                                std::span<const std::byte> high) const {
  if (low.empty() || low.size() != high.size() || low.size() > size_of(family_) ||
      at + low.size() > nft::register_bytes)
    return std::nullopt;
  for (std::size_t i = 0; i < low.size(); ++i)
    if (!e.destination_at[at + i].is_plain(i)) return std::nullopt;
  const address_number first = number_from(family_, low, 0),
                       last = number_from(family_, high, 0xff);
  return first <= last ? address_set(address_set::interval{first, last}) : address_set();
}

ternary output_walk::ports_between(std::uint16_t low, std::uint16_t high) {
  const port_range& asked = ports_->range;
  if (low > high || asked.last < low || asked.first > high) return ternary::no;
  if (low <= asked.first && asked.last <= high) return ternary::yes;
  if (low > asked.first) ports_->divided_at.push_back(low);
  if (high < asked.last) ports_->divided_at.push_back(static_cast<std::uint16_t>(high + 1));
  return ternary::maybe;
}

ternary output_walk::ports_between(std::span<const std::byte> low,
                                   std::span<const std::byte> high) {
  const auto number = [](std::span<const std::byte> from) {
    return static_cast<std::uint16_t>(std::to_integer<unsigned>(from[0]) << 8 |
                                      std::to_integer<unsigned>(from[1]));
  };
  return ports_between(number(low), number(high));
}

std::optional<ternary> output_walk::port_match(const evaluation& e, std::size_t at,
                                               std::span<const std::byte> low,
                                               std::span<const std::byte> high) {
  if (low.size() != 2 || high.size() != 2 || !has_port_at(e, at)) return std::nullopt;
  return ports_between(low, high);
}

/// Of a key that is the destination, what elements say of destinations in `within`.
void output_walk::answer_plainly(const output_sets::prepared& set, const address_set& within,
                                 answer_builder& builder, std::size_t& steps) const {
  const auto number = [&](const nft::bytes& key) { return number_from(family_, key, 0); };
  for (const address_set::interval& part : within.intervals()) {
    if (set.has_intervals) {
      output_sets::for_intervals(
          set.elements(), [&](const nft::bytes& k) { return number(k) <= part.first; },
          [&](const nft::bytes& k) { return number(k) <= part.last; },
          [&](const nft::element& first, const nft::bytes* end) {
            ++steps;
            const address_number behind = end == nullptr ? 0 : number(*end);
            const address_number last = behind == 0 ? highest_number(family_) : behind - 1;
            builder.add(first, {number(first.key), last}, true);
          });
      continue;
    }
    auto at = set.elements().partition_point(
        [&](const nft::element& one) { return one.is_catch_all || number(one.key) < part.first; });
    for (; at != set.elements().end() && number(at->key) <= part.last; ++at, ++steps)
      builder.add(*at, {number(at->key), number(at->key)}, true);
  }
}

/// Fields of a concatenation each for itself; all other keys as a whole.
std::optional<destination_answer> output_walk::answer_for(const evaluation& e, const ex::lookup& l,
                                                          const output_sets::prepared& set) {
  constexpr std::size_t parts_max = 8;  // Of few destinations only their elements are looked at.
  const std::size_t length = set.contents->set.key_length;
  const auto is_destination = [&](std::size_t at) {
    return e.destination_at[l.key + at].index != destination_byte::none;
  };
  bool concerned = false, plain = length == size_of(family_) && set.contents->set.fields.empty();
  for (std::size_t i = 0; i < length; ++i) {
    concerned |= is_destination(i) || has_port_at(e, l.key + i);
    plain &= e.destination_at[l.key + i].is_plain(i);
  }
  if (!concerned) return std::nullopt;
  answer_builder builder(sets_);
  std::size_t steps = 0;
  if (plain) {
    auto& remembered = set.by_destination[static_cast<std::size_t>(family_)];
    if (remembered) return remembered;
    const address_set all(ip_prefix::all(family_));
    const bool few = e.state.destinations.size() <= parts_max && e.state.destinations != all;
    answer_plainly(set, few ? e.state.destinations : all, builder, steps);
    if (!spend(e, steps)) return destination_answer{};
    destination_answer made = builder.finish(set, family_);
    if (!few) remembered = made;
    return made;
  }
  if (!spend(e, set.elements().size())) return destination_answer{};
  if (set.has_intervals) {
    if (length != 2 || !has_port_at(e, l.key)) return std::nullopt;
    answer_ports(set, builder);
  } else if (!answer_fields(e, l, set, builder)) {
    return std::nullopt;
  }
  return builder.finish(set, family_);
}

/// Intervals of destination ports.
void output_walk::answer_ports(const output_sets::prepared& set, answer_builder& builder) {
  const address_set::interval all{0, highest_number(family_)};
  const auto any = [](const nft::bytes&) { return true; };
  const auto none = [](const nft::bytes&) { return false; };
  output_sets::for_intervals(
      set.elements(), none, any, [&](const nft::element& first, const nft::bytes* end) {
        const auto last = end == nullptr ? number_before({}) : number_before(*end);
        const ternary inside = ports_between(std::span<const std::byte>(first.key), last);
        if (inside != ternary::no) builder.add(first, all, inside == ternary::yes);
      });
}

/// False: the destination is in the keys in a way that intervals cannot express.
bool output_walk::answer_fields(const evaluation& e, const ex::lookup& l,
                                const output_sets::prepared& set, answer_builder& builder) {
  const partial_key key = key_at(e, l.key, set.contents->set.key_length);
  for (const nft::element& one : set.elements()) {
    if (one.is_catch_all) continue;
    const auto match = match_element(e, l.key, set, key, one);
    if (!match) return false;
    if (match->rest == ternary::no || match->where.empty()) continue;
    builder.add(one, match->where.intervals().front(), match->rest == ternary::yes);
  }
  return true;
}

/// Of a set without intervals, or with fields. Unset as in equal_to().
std::optional<output_walk::destination_match> output_walk::match_element(
    const evaluation& e, std::size_t key_at, const output_sets::prepared& set,
    const partial_key& key, const nft::element& one) {
  const auto& fields = set.contents->set.fields;
  if (fields.empty()) return equal_to(e, key_at, one.key);
  const nft::bytes& end = one.key_end ? *one.key_end : one.key;
  std::optional<destination_match> match = destination_match{};
  match->where = address_set(ip_prefix::all(family_));
  for (std::size_t i = 0, at = 0; match && i < fields.size();
       at += (fields[i++] + 3) & ~std::size_t{3})
    match = also_within(e, key_at, at, std::span(one.key).subspan(at, fields[i]),
                        std::span(end).subspan(at, fields[i]), key, std::move(*match));
  return match;
}

/// A match that holds only if one more field lies between these two. Unset as in equal_to().
std::optional<output_walk::destination_match> output_walk::also_within(
    const evaluation& e, std::size_t key_at, std::size_t at, std::span<const std::byte> low,
    std::span<const std::byte> high, const partial_key& key, destination_match match) {
  if (match.rest == ternary::no) return match;
  if (auto where = between(e, key_at + at, low, high)) {
    match.where = match.where.intersection(*where);
    return match;
  }
  for (std::size_t i = 0; i < low.size(); ++i)
    if (e.destination_at[key_at + at + i].index != destination_byte::none) return std::nullopt;
  const auto ports = port_match(e, key_at + at, low, high);
  const ternary part = ports ? *ports : key.within(low, high, at);
  if (part == ternary::no || match.rest == ternary::no)
    match.rest = ternary::no;
  else if (part == ternary::maybe)
    match.rest = ternary::maybe;
  return match;
}

void output_walk::divide(evaluation& e, const address_set& possible, const address_set& sure,
                         bool inverted) {
  address_set all = std::exchange(e.state.destinations, {}), matching, breaking;
  const bool exact = possible == sure;
  if (exact) {
    matching = all.extract(possible);
    breaking = std::move(all);
    if (inverted) std::swap(matching, breaking);
  } else {
    matching = all.intersection(possible);
    breaking = std::move(all);
    breaking.remove(sure);
    if (inverted) std::swap(matching, breaking);
    e.state.forked |= !matching.empty() && !breaking.empty();
  }
  packet_state broken = e.state;
  broken.destinations = std::move(breaking);
  merge(e.out.on, std::move(broken));
  e.state.destinations = std::move(matching);
  e.ended = e.state.destinations.empty();
}

void output_walk::apply(evaluation& e, destination_match match, bool inverted) {
  if (match.rest == ternary::no) return e.apply(ternary_of(inverted));
  divide(e, match.where, match.rest == ternary::yes ? match.where : address_set(), inverted);
}

void output_walk::look_up_destination(evaluation& e, const ex::lookup& l,
                                      const destination_answer& answer) {
  if (stopped()) return;
  const auto cost = (answer.possible.size() + e.state.destinations.size()) / 8;
  if (!spend(e, cost)) return;
  if (!answer.has_side_effects.empty()) {
    packet_state touched = e.state;
    touched.destinations = e.state.destinations.extract(answer.has_side_effects);
    stop(*e.chain, e.current->handle, touched, divert_reason::netfilter,
         "an element of set '" + l.set + "' that does more");
  }
  const bool maps_to_verdict = l.to == ex::verdict_register;
  if (maps_to_verdict && answer.contents_unknown)
    return touch(e, divert_reason::netfilter, "map '" + l.set + "', which packets change");
  divide(e, answer.possible, answer.sure, l.inverted);
  if (e.ended || !l.to) return;
  if (!maps_to_verdict) {
    const auto* value = answer.groups.size() == 1 && !answer.contents_unknown
                            ? std::get_if<nft::bytes>(&answer.groups.front().one->value)
                            : nullptr;
    if (value == nullptr || *l.to + value->size() > nft::register_bytes)
      return store_unknown(e, *l.to, nft::register_bytes);
    const auto* octets = reinterpret_cast<const std::uint8_t*>(value->data());
    return store(e, *l.to, {octets, value->size()});
  }
  for (const destination_answer::group& one : answer.groups) {
    packet_state state = e.state;
    state.destinations = e.state.destinations.intersection(one.possible);
    state.forked |= !(one.possible == one.sure);
    if (state.destinations.empty() || stopped()) continue;
    if (const auto* verdict = std::get_if<nft::verdict>(&one.one->value))
      run_verdict(e, *verdict, std::move(state));
    else
      stop(*e.chain, e.current->handle, state, divert_reason::netfilter,
           "an element without a verdict");
  }
  e.ended = true;
}

// ---- what a change concerns ---------------------------------------------------------------------

namespace {

/// Whether it only decides whether the rule goes on.
bool is_match(const nft::expression& x) {
  if (const auto* i = std::get_if<ex::immediate>(&x.content))
    return std::holds_alternative<nft::bytes>(i->value);
  if (const auto* l = std::get_if<ex::lookup>(&x.content)) return l->to != ex::verdict_register;
  if (const auto* m = std::get_if<ex::xt_match>(&x.content)) return !changes_state(*m);
  return !std::holds_alternative<ex::other>(x.content) &&
         !std::holds_alternative<ex::payload_write>(x.content) &&
         !std::holds_alternative<ex::meta_write>(x.content) &&
         !std::holds_alternative<ex::notrack>(x.content);
}

}  // namespace

/// As if any rules had been passed: of the mark and of connection tracking nothing is known.
output_walk::evaluation output_walk::begin_anywhere(const chain_rules& chain, const rule& one) {
  hook_ = hook_post_routing;
  base_ = &chain;
  evaluation e;
  e.chain = &chain;
  e.current = &one;
  e.state.mark = {0, 0};
  e.state.maybe_untracked = true;
  e.state.destinations = address_set(ip_prefix::all(family_));
  return e;
}

/// Up to the first expression that is none.
void output_walk::run_matches(evaluation& e) {
  for (const expression& x : e.current->expressions) {
    if (e.ended || stopped() || !is_match(x)) return;
    std::visit([&](const auto& content) { on(e, x, content); }, x.content);
  }
}

address_set output_walk::with_obstacles(address_set found) const {
  address_set others(ip_prefix::all(family_));
  others.remove(into_.untouched());
  found.unite(others);
  return found;
}

address_set output_walk::that_may_match(const chain_rules& chain, const rule& one) {
  if (!is_one_of_ours(chain.chain.family, family_)) return {};
  evaluation e = begin_anywhere(chain, one);
  if (one.not_understood) return std::move(e.state.destinations);
  run_matches(e);
  return with_obstacles(e.ended ? address_set() : std::move(e.state.destinations));
}

bool output_walk::may_match_new(const chain_rules& chain, const rule& one) {
  if (!is_one_of_ours(chain.chain.family, family_)) return false;
  for (const bool untracked : {false, true}) {
    evaluation e = begin_anywhere(chain, one);
    hook_ = chain.chain.hook ? chain.chain.hook->number : hook_;
    e.state.maybe_untracked = false;
    if (untracked) e.state.untracked = e.state.destinations;
    run_matches(e);
    if (!e.ended) return true;
  }
  return false;
}

address_set output_walk::that_may_find(const chain_rules& chain, const rule& one,
                                       const nft::object_key& set,
                                       std::span<const nft::element* const> elements) {
  if (!is_one_of_ours(chain.chain.family, family_)) return {};
  evaluation e = begin_anywhere(chain, one);
  address_set found;
  for (const expression& x : one.expressions) {
    if (e.ended || stopped()) break;
    const auto* l = std::get_if<ex::lookup>(&x.content);
    const bool asks = l != nullptr && l->set == set.name;
    if (!asks && !is_match(x)) {
      // Whatever it does, it does to those that have come so far; they may go on.
      store_unknown(e, 0, nft::register_bytes);
      continue;
    }
    if (!asks) {
      std::visit([&](const auto& content) { on(e, x, content); }, x.content);
      continue;
    }
    const auto* prepared = sets_.find(set, sets_.key_length(set));
    if (prepared == nullptr || l->key + sets_.key_length(set) > nft::register_bytes)
      return address_set(ip_prefix::all(family_));
    found.unite(that_find(e, *l, *prepared, elements).intersection(e.state.destinations));
    if (l->to) store_unknown(e, 0, nft::register_bytes);
  }
  return with_obstacles(std::move(found));
}

/// What a bound of an interval says it says up to the next bound.
address_set output_walk::that_find(const evaluation& e, const ex::lookup& l,
                                   const output_sets::prepared& set,
                                   std::span<const nft::element* const> elements) {
  const address_set all(ip_prefix::all(family_));
  const std::size_t length = set.contents->set.key_length;
  const partial_key key = key_at(e, l.key, length);
  bool plain = length == size_of(family_);
  for (std::size_t i = 0; i < length; ++i) plain &= e.destination_at[l.key + i].is_plain(i);
  address_set found;
  for (const nft::element* one : elements) {
    if (one->is_catch_all || one->key.size() != length ||
        (one->key_end && one->key_end->size() != length))
      return all;
    if (!set.has_intervals) {
      const auto match = match_element(e, l.key, set, key, *one);
      if (!match) return all;
      if (match->rest != ternary::no) found.unite(match->where);
      continue;
    }
    if (!plain) return all;
    auto next = set.elements().partition_point(
        [&](const nft::element& other) { return other.is_catch_all || other.key <= one->key; });
    const address_number behind =
        next == set.elements().end() ? 0 : number_from(family_, next->key, 0);
    found.unite(address_set(address_set::interval{
        number_from(family_, one->key, 0), behind == 0 ? highest_number(family_) : behind - 1}));
  }
  return found;
}

}  // namespace cowire::detail
