// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/detail/output_walk.hpp>
#include <cowire/route/detail/xt_match.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace cowire::detail {

namespace nft = netlink::nft;
namespace ex = netlink::nft::expressions;

namespace {

// NF_CT_STATE_*BIT of linux/netfilter/nf_conntrack_common.h.
constexpr std::uint32_t state_invalid = 1, state_established = 2, state_new = 8,
                        state_untracked = 64;
/// Where connection tracking looks at a datagram of this host (NF_IP_PRI_CONNTRACK).
constexpr std::int32_t conntrack_priority = -200;
constexpr std::size_t udp_header_size = 8;

std::span<const std::uint8_t> octets(const nft::bytes& from) {
  return {reinterpret_cast<const std::uint8_t*>(from.data()), from.size()};
}

/// Which bits of the TOS byte rules can be sure of, where it is known.
std::uint8_t known_of_tos(const output_flow& region) { return region.any_ecn ? 0xfc : 0xff; }

bool is_nat(std::string_view name) {
  constexpr std::string_view names[] = {"nat",
                                        "masq",
                                        "redir",
                                        "target:SNAT",
                                        "target:DNAT",
                                        "target:MASQUERADE",
                                        "target:REDIRECT",
                                        "target:NETMAP"};
  return std::ranges::find(names, name) != std::end(names);
}

}  // namespace

output_walk::output_walk(const nft::ruleset& rules, output_sets& sets, const output_flow& region,
                         tracking_state tracked, destination_verdicts& into, asked_ports* ports)
    : rules_(rules),
      region_(region),
      tracked_(tracked),
      family_(region.destination.family()),
      sets_(sets),
      into_(into),
      ports_(region.destination_port ? nullptr : ports) {
  build_headers();
}

// ---- the datagram -------------------------------------------------------------------------------

/// Version and length of the header are known, as plain datagrams have no options.
void output_walk::build_network_v4() {
  network_size_ = 20;
  network_.put(0, 0x45, 0xff);
  if (region_.tos) network_.put(1, *region_.tos, known_of_tos(region_));
  // Fragmentation comes after all hooks; whether DF is set depends on the socket.
  network_.put(6, 0, 0xbf);
  network_.put(7, 0, 0xff);
  if (region_.ttl) network_.put(8, *region_.ttl, 0xff);
  network_.put(9, region_.ip_protocol, 0xff);
}

void output_walk::build_network_v6() {
  network_size_ = 40;
  const std::uint8_t tos = region_.tos.value_or(0);
  const std::uint8_t known = region_.tos ? known_of_tos(region_) : 0;
  network_.put(0, static_cast<std::uint8_t>(0x60 | tos >> 4),
               static_cast<std::uint8_t>(0xf0 | known >> 4));
  network_.put(1, static_cast<std::uint8_t>(tos << 4),  // The flow label is not known.
               static_cast<std::uint8_t>(known << 4));
  // In front of what a tunnel carries there may be an extension header.
  if (region_.ip_protocol == 17) network_.put(6, region_.ip_protocol, 0xff);
  if (region_.ttl) network_.put(7, *region_.ttl, 0xff);
}

void output_walk::build_headers() {
  const bool v4 = family_ == ip_family::v4;
  v4 ? build_network_v4() : build_network_v6();
  const std::size_t size = v4 ? 4 : 16, source_at = v4 ? 12 : 8, destination_at = source_at + size;
  if (region_.source) network_.set(source_at, std::span(region_.source->bytes()).first(size));
  for (std::size_t i = 0; i < size; ++i) {
    const unsigned bits =
        region_.destination.length() -
        std::min<unsigned>(region_.destination.length(), static_cast<unsigned>(8 * i));
    const unsigned mask = bits >= 8 ? 0xff : 0xff00u >> bits;
    network_.put(destination_at + i, region_.destination.address().bytes()[i],
                 static_cast<std::uint8_t>(mask));
  }
  if (region_.ip_protocol != 17) return;
  const auto put_port = [&](std::size_t at, const std::optional<std::uint16_t>& port) {
    if (!port) return;
    transport_.put(at, static_cast<std::uint8_t>(*port >> 8), 0xff);
    transport_.put(at + 1, static_cast<std::uint8_t>(*port), 0xff);
  };
  put_port(0, region_.source_port);
  put_port(2, ports_ != nullptr && ports_->range.first == ports_->range.last
                  ? ports_->range.first
                  : region_.destination_port);
}

// ---- hooks and chains ---------------------------------------------------------------------------

bool output_walk::concerns(const chain_rules& one, std::uint32_t hook) const {
  if (!one.chain.hook || one.chain.hook->number != hook) return false;
  if (!is_one_of_ours(one.chain.family, family_)) return false;
  // A connection's first datagram alone is asked for translation.
  depends_on_tracking_ |= one.chain.type == "nat";
  if (one.chain.type == "nat" && tracked_ == tracking_state::established) return false;
  const auto table = rules_.tables.find({one.chain.family, one.chain.table, {}});
  return table == rules_.tables.end() || !table->second.is_dormant();
}

/// Untracked is what is so on both ways, or on the only one that there is.
void output_walk::packet_state::join(const packet_state& other) {
  mark.join(other.mark);
  maybe_untracked |= other.maybe_untracked;
  forked |= other.forked;
  if (!untracked.empty() || !other.untracked.empty()) {
    address_set here = untracked.intersection(destinations),
                there = other.untracked.intersection(other.destinations);
    address_set some = here, both = here.intersection(there);
    some.unite(there);
    here.remove(other.destinations);
    there.remove(destinations);
    both.unite(here);
    both.unite(there);
    maybe_untracked |= both != some;
    untracked = std::move(both);
  }
  destinations.unite(other.destinations);
}

void output_walk::merge(maybe_state& to, maybe_state from) {
  if (!from || from->destinations.empty()) return;
  if (to)
    to->join(*from);
  else
    to = std::move(from);
}

address_set output_walk::run() {
  packet_state state;
  state.mark = {region_.mark, ~std::uint32_t{0}};
  state.destinations = into_.untouched();
  run_hook(hook_local_out, state);
  if (!stopped()) run_hook(hook_post_routing, state);
  return std::move(state.untracked);
}

/// Base chains by ascending priority. Which of those with the same priority runs first depends on
/// when they were registered, so each of them sees what any of them may leave behind.
void output_walk::run_hook(std::uint32_t hook, packet_state& state) {
  hook_ = hook;
  std::vector<const chain_rules*> found;
  for (const auto& [key, one] : rules_.chains)
    if (concerns(one, hook)) found.push_back(&one);
  const auto priority = [](const chain_rules* c) { return c->chain.hook->priority; };
  std::ranges::sort(found, {}, priority);
  for (auto first = found.begin(); first != found.end();) {
    const auto last = std::find_if(
        first, found.end(), [&](const chain_rules* c) { return priority(c) != priority(*first); });
    // Alone, a chain leaves exactly what it leaves.
    state = last - first == 1 ? run_base_chain(**first, std::move(state))
                              : run_chains_alike({first, last}, std::move(state));
    if (stopped() || state.destinations.empty()) return;
    first = last;
  }
}

output_walk::packet_state output_walk::run_chains_alike(std::span<const chain_rules* const> chains,
                                                        packet_state state) {
  address_set untracked;
  for (packet_state before; before = state, true;) {
    untracked = {};
    for (const chain_rules* one : chains) {
      const packet_state after = run_base_chain(*one, state);
      // Whatever the order, each of them has its turn.
      untracked.unite(after.untracked.intersection(after.destinations));
      state.join(after);
      if (stopped()) return state;
    }
    if (state == before) break;
  }
  state.untracked.unite(untracked);
  return state;
}

/// What `ct state` finds where the walk is.
partial_u32 output_walk::tracking_in(const packet_state& state) const noexcept {
  constexpr std::uint32_t all = ~std::uint32_t{0};
  depends_on_tracking_ = true;
  if (!state.untracked.empty()) {
    address_set others = state.destinations;
    others.remove(state.untracked);
    if (others.empty()) return {state_untracked, all};
    if (others != state.destinations) return {0, 0};
  }
  if (state.maybe_untracked) return {0, 0};
  const std::int32_t priority = base_->chain.hook->priority;
  if (hook_ == hook_local_out && priority == conntrack_priority) return {0, 0};
  if (hook_ == hook_local_out && priority < conntrack_priority) return {state_invalid, all};
  return {tracked_ == tracking_state::fresh ? state_new : state_established, all};
}

output_walk::packet_state output_walk::run_base_chain(const chain_rules& one, packet_state state) {
  base_ = &one;
  // Nothing is translated but what is tracked.
  maybe_state passing;
  if (one.chain.type == "nat" && !state.untracked.empty()) {
    passing = state;
    passing->destinations = state.destinations.extract(state.untracked);
    if (state.destinations.empty()) return std::move(*passing);
  }
  ways out = run_chain(one, std::move(state), 0, 0);
  if (out.on && one.chain.policy != 1)
    stop(one, 0, *out.on, divert_reason::netfilter, "its policy, drop");
  else if (out.on && one.chain.policy_counts && sets_.strict_counters())
    stop(one, 0, *out.on, divert_reason::netfilter, "the counter of its policy");
  else
    merge(out.accepted, std::move(out.on));
  merge(out.accepted, std::move(passing));
  return out.accepted ? std::move(*out.accepted) : packet_state{};
}

output_walk::ways output_walk::run_chain(const chain_rules& one, packet_state state, unsigned depth,
                                         unsigned jumps) {
  ways out;
  const bool too_deep = depth > depth_max || jumps > jump_depth_max;
  if (too_deep || one.chain.not_understood) {
    stop(one, 0, state, divert_reason::netfilter,
         too_deep ? "more jumps than the kernel makes" : "a chain not understood");
    return out;
  }
  maybe_state here = std::move(state);
  for (const rule& each : one.rules) {
    if (!here || stopped()) break;
    ways after = run_rule(one, each, std::move(*here), depth, jumps);
    merge(out.accepted, std::move(after.accepted));
    merge(out.on, std::move(after.returned));
    here = std::move(after.on);
  }
  merge(out.on, std::move(here));
  return out;
}

output_walk::ways output_walk::run_rule(const chain_rules& chain, const rule& one,
                                        packet_state state, unsigned depth, unsigned jumps) {
  evaluation e;
  e.chain = &chain;
  e.current = &one;
  e.depth = depth;
  e.jumps = jumps;
  e.state = std::move(state);
  if (one.not_understood) touch(e, divert_reason::netfilter, "a rule not understood");
  for (const expression& x : one.expressions) {
    if (e.ended || stopped() || !spend(e)) break;
    std::visit([&](const auto& content) { on(e, x, content); }, x.content);
  }
  if (!e.ended) merge(e.out.on, std::move(e.state));
  return std::move(e.out);
}

void output_walk::run_verdict(evaluation& e, const nft::verdict& v, packet_state state) {
  const auto obstacle = [&](const std::string& what) {
    stop(*e.chain, e.current->handle, state, divert_reason::netfilter, what);
  };
  switch (v.code) {
    case nft::verdict::accept:
      return merge(e.out.accepted, std::move(state));
    case nft::verdict::proceed:
    case nft::verdict::leave_rule:
      return merge(e.out.on, std::move(state));
    case nft::verdict::return_to_caller:
      return merge(e.out.returned, std::move(state));
    case nft::verdict::drop:
      return obstacle("drop");
    case nft::verdict::jump:
    case nft::verdict::go_to:
      break;
    default:
      return obstacle("a verdict that is neither accept nor drop");
  }
  const bool jumps = v.code == nft::verdict::jump;
  const auto target = rules_.chains.find({e.chain->chain.family, e.chain->chain.table, v.chain});
  if (target == rules_.chains.end())
    return obstacle("a jump to '" + v.chain + "', which is not there");
  ways there =
      run_chain(target->second, std::move(state), e.depth + 1, jumps ? e.jumps + 1 : e.jumps);
  merge(e.out.accepted, std::move(there.accepted));
  // After a goto, the end of the other chain is the end of this one.
  merge(jumps ? e.out.on : e.out.returned, std::move(there.on));
}

// ---- expressions --------------------------------------------------------------------------------

void output_walk::on(evaluation& e, const expression& x, const ex::other&) {
  const auto reason = is_nat(x.name) ? divert_reason::nat : divert_reason::netfilter;
  touch(e, reason, x.name);
}

void output_walk::on(evaluation& e, const expression&, const ex::immediate& i) {
  if (const auto* value = std::get_if<nft::bytes>(&i.value)) return store(e, i.to, octets(*value));
  run_verdict(e, std::get<nft::verdict>(i.value), std::move(e.state));
  e.ended = true;
}

void output_walk::on(evaluation& e, const expression&, const ex::compare& c) {
  if (c.operation == ex::compare::equal || c.operation == ex::compare::not_equal) {
    const bool inverted = c.operation == ex::compare::not_equal;
    if (auto match = equal_to(e, c.from, c.value)) return apply(e, std::move(*match), inverted);
    const ternary equal = key_at(e, c.from, c.value.size()).equals(c.value);
    return e.apply(inverted ? negated(equal) : equal);
  }
  // All the others say on which side of a bound the value lies.
  const bool below = c.operation == ex::compare::less || c.operation == ex::compare::at_most;
  const bool with_bound =
      c.operation == ex::compare::at_most || c.operation == ex::compare::at_least;
  const nft::bytes least(c.value.size()), most(c.value.size(), std::byte{0xff});
  const bool upper_part = below != with_bound;  // What is outside begins, or ends, at the bound.
  const nft::bytes &first = upper_part ? c.value : least, &last = upper_part ? most : c.value;
  const bool inverted = c.operation == ex::compare::less || c.operation == ex::compare::greater;
  if (auto outside = between(e, c.from, first, last))
    return apply(e, {ternary::yes, std::move(*outside)}, inverted);
  if (const auto outside = port_match(e, c.from, first, last))
    return e.apply(inverted ? negated(*outside) : *outside);
  const partial_key key = key_at(e, c.from, c.value.size());
  const auto holds = [&](const std::array<std::uint8_t, 64>& value) {
    const int difference = partial_key::compare(value, c.value);
    return (with_bound && difference == 0) || (below ? difference < 0 : difference > 0);
  };
  const bool low = holds(key.lowest()), high = holds(key.highest());
  e.apply(low == high ? ternary_of(low) : ternary::maybe);
}

void output_walk::on(evaluation& e, const expression&, const ex::bitwise& b) {
  const partial_key from = key_at(e, b.from, b.length);
  const auto destination = e.destination_at;
  store_unknown(e, b.to, b.length);
  const auto mask = octets(b.mask), flip = octets(b.exclusive_or);
  for (std::size_t i = 0; i < b.length; ++i) {
    // A bit that is masked away is known whatever it was.
    const auto known = static_cast<std::uint8_t>(from.known[i] | ~mask[i]);
    e.registers.put(b.to + i, static_cast<std::uint8_t>((from.value[i] & mask[i]) ^ flip[i]),
                    known);
    if (b.from + i >= nft::register_bytes) continue;
    destination_byte byte = destination[b.from + i];
    byte.mask &= mask[i];
    byte.flip = static_cast<std::uint8_t>((byte.flip & mask[i]) ^ flip[i]);
    if (byte.index != destination_byte::none && byte.mask != 0) e.destination_at[b.to + i] = byte;
  }
}

void output_walk::on(evaluation& e, const expression&, const ex::bitwise_unknown& b) {
  store_unknown(e, b.to, b.length);
}

void output_walk::on(evaluation& e, const expression&, const ex::byteorder& b) {
  const partial_key from = key_at(e, b.from, b.length);
  const bool is_length = e.length_at == b.from && b.length == 4 && b.size == 4;
  store_unknown(e, b.to, b.length);
  if (is_length && std::endian::native == std::endian::little) e.ordered_length_at = b.to;
  if (b.length % b.size != 0) return;
  for (std::size_t i = 0; i < b.length; ++i) {
    const std::size_t group = i / b.size * b.size, within = i % b.size;
    const std::size_t source =
        std::endian::native == std::endian::little ? group + b.size - 1 - within : i;
    e.registers.put(b.to + i, from.value[source], from.known[source]);
  }
}

void output_walk::on(evaluation& e, const expression&, const ex::range& r) {
  if (auto where = between(e, r.from, r.low, r.high))
    return apply(e, {ternary::yes, std::move(*where)}, r.outside);
  if (const auto ports = port_match(e, r.from, r.low, r.high))
    return e.apply(r.outside ? negated(*ports) : *ports);
  const ternary inside = key_at(e, r.from, r.low.size()).within(r.low, r.high);
  e.apply(r.outside ? negated(inside) : inside);
}

void output_walk::on(evaluation& e, const expression&, const ex::lookup& l) {
  const nft::object_key name{e.chain->chain.family, e.chain->chain.table, l.set};
  const std::size_t length = sets_.key_length(name);
  if (length == 0 || l.key + length > nft::register_bytes)
    return touch(e, divert_reason::netfilter, "set '" + l.set + "', which is not understood");
  const output_sets::prepared* const set = sets_.find(name, length);
  if (set == nullptr)
    return touch(e, divert_reason::netfilter, "set '" + l.set + "', which is not understood");
  if (const auto answer = answer_for(e, l, *set)) return look_up_destination(e, l, *answer);
  std::size_t steps = 0;
  const auto answer = sets_.look_up(name, key_at(e, l.key, length), steps);
  if (spend(e, steps)) look_up(e, l, *answer);
}

void output_walk::look_up(evaluation& e, const ex::lookup& l, const set_answer& answer) {
  if (answer.has_side_effects)
    return touch(e, divert_reason::netfilter, "an element of set '" + l.set + "' that does more");
  const bool maps_to_verdict = l.to == ex::verdict_register;
  if (maps_to_verdict && answer.contents_unknown)
    return touch(e, divert_reason::netfilter, "map '" + l.set + "', which packets change");
  e.apply(l.inverted ? negated(answer.found) : answer.found);
  if (e.ended || !l.to) return;
  if (maps_to_verdict) return answer_verdicts(e, answer);
  // Only a single possible answer is known.
  const auto* value = answer.candidates.size() == 1 && !answer.contents_unknown
                          ? std::get_if<nft::bytes>(&answer.candidates.front()->value)
                          : nullptr;
  if (value == nullptr || *l.to + value->size() > nft::register_bytes)
    return store_unknown(e, *l.to, nft::register_bytes);
  store(e, *l.to, octets(*value));
}

void output_walk::answer_verdicts(evaluation& e, const set_answer& answer) {
  e.state.forked |= answer.candidates.size() > 1;
  for (const nft::element* one : answer.candidates) {
    if (stopped()) break;
    if (const auto* verdict = std::get_if<nft::verdict>(&one->value))
      run_verdict(e, *verdict, e.state);
    else
      touch(e, divert_reason::netfilter, "an element without a verdict");
  }
  e.ended = true;
}

void output_walk::on(evaluation& e, const expression&, const ex::payload_load& p) {
  store_unknown(e, p.to, p.length);
  const auto copy = [&](const auto& header) {
    for (std::size_t i = 0; i < p.length; ++i)
      if (p.offset + i < header.value.size())
        e.registers.put(p.to + i, header.value[p.offset + i], header.known[p.offset + i]);
  };
  const std::size_t size = family_ == ip_family::v4 ? 4 : 16,
                    destination = network_size_ - size;  // It ends the header.
  const std::uint64_t end = std::uint64_t{p.offset} + p.length;
  if (p.base == ex::payload_base::network && end <= network_size_) {
    for (std::size_t i = 0; i < p.length && p.to + i < nft::register_bytes; ++i)
      if (p.offset + i >= destination)
        e.destination_at[p.to + i].index = static_cast<std::uint8_t>(p.offset + i - destination);
    return copy(network_);
  }
  const bool udp = region_.ip_protocol == 17;
  if (p.base == ex::payload_base::transport && udp && end <= udp_header_size) {
    for (std::size_t i = 0; ports_ != nullptr && i < p.length; ++i)
      if (p.to + i < nft::register_bytes && (p.offset + i) / 2 == 1)
        e.port_at[p.to + i] = static_cast<std::uint8_t>(p.offset + i - 1);
    return copy(transport_);
  }
  e.fork();  // There may be no such byte, and no link header yet.
}

/// Harmless only where it writes what is there.
void output_walk::on(evaluation& e, const expression&, const ex::payload_write& p) {
  const partial_key from = key_at(e, p.from, p.length);
  bool same = p.base == ex::payload_base::network && from.all_known() &&
              std::uint64_t{p.offset} + p.length <= network_size_;
  for (std::size_t i = 0; same && i < p.length; ++i)
    same = network_.known[p.offset + i] == 0xff && network_.value[p.offset + i] == from.value[i];
  if (!same) touch(e, divert_reason::netfilter, "a change of the datagram");
}

void output_walk::on(evaluation& e, const expression&, const ex::meta_load& m) {
  if (load_meta(e, m)) return;
  store_unknown(e, m.to, 16);
  if (m.key == ex::meta_key::length) {
    e.length_at = m.to;
    return;
  }
  e.fork();
}

/// False: not known, or perhaps not there at all.
bool output_walk::load_meta(evaluation& e, const ex::meta_load& m) {
  const auto number = [&](const std::optional<std::uint32_t>& value) {
    if (value) store_u32(e, m.to, {*value, ~std::uint32_t{0}});
    return value.has_value();
  };
  const auto octet = [&](std::uint8_t value) {
    store(e, m.to, {&value, 1});
    return true;
  };
  const auto text = [&](const std::string& value) {
    std::array<std::uint8_t, 16> padded{};
    if (!value.empty())
      std::memcpy(padded.data(), value.data(), std::min<std::size_t>(value.size(), 15));
    if (m.to + padded.size() > nft::register_bytes) return false;
    store(e, m.to, padded);
    return true;
  };
  const bool v4 = family_ == ip_family::v4;
  const bool from_nowhere =
      hook_ == hook_local_out || (region_.ip_protocol == 17 && !region_.passes_vrf);
  switch (m.key) {
    case ex::meta_key::mark:
      store_u32(e, m.to, e.state.mark);
      return true;
    case ex::meta_key::priority:
      return number(region_.priority);
    case ex::meta_key::skuid:
      return number(region_.uid);
    case ex::meta_key::skgid:
      return number(region_.gid);
    case ex::meta_key::oif:
      return number(region_.output_interface);
    case ex::meta_key::oifname:
      return region_.output_name && text(*region_.output_name);
    // Datagrams of this host come from no device; a tunnel's outer ones do, once routed.
    case ex::meta_key::iif:
      return from_nowhere && number(0);
    case ex::meta_key::iifname:
      return from_nowhere && text({});
    case ex::meta_key::nfproto:
      return octet(v4 ? 2 : 10);
    case ex::meta_key::l4proto:
      return octet(region_.ip_protocol);
    case ex::meta_key::protocol: {
      const std::array<std::uint8_t, 2> type{static_cast<std::uint8_t>(v4 ? 0x08 : 0x86),
                                             static_cast<std::uint8_t>(v4 ? 0x00 : 0xdd)};
      store(e, m.to, type);
      return true;
    }
    default:
      return false;
  }
}

void output_walk::on(evaluation& e, const expression&, const ex::meta_write& m) {
  if (m.key != ex::meta_key::mark)
    return touch(e, divert_reason::netfilter, "a change of the datagram's properties");
  partial_u32 written;
  const partial_key from = key_at(e, m.from, 4);
  std::memcpy(&written.value, from.value.data(), 4);
  std::memcpy(&written.known, from.known.data(), 4);
  const bool same = written == e.state.mark && written.known == ~std::uint32_t{0};
  if (same) return;
  // A chain of this type routes the datagram anew when its mark differs afterwards.
  if (base_->chain.type == "route")
    return touch(e, divert_reason::netfilter, "a mark in a chain of type route");
  if (region_.mark_matters_below) return touch(e, divert_reason::netfilter, "a change of the mark");
  e.state.mark = written;
}

void output_walk::on(evaluation& e, const expression&, const ex::ct_load& c) {
  store_unknown(e, c.to, 16);
  if (c.key == ex::ct_key_state) return store_u32(e, c.to, tracking_in(e.state));
  const partial_u32 state = tracking_in(e.state);
  if (state.known != 0 && state.value == state_untracked) return e.must_break();
  if (c.key == ex::ct_key_direction && state.value == state_new && state.known != 0) {
    const std::uint8_t original = 0;
    return store(e, c.to, {&original, 1});
  }
  store_unknown(e, c.to, nft::register_bytes);
  e.fork();
}

void output_walk::on(evaluation& e, const expression&, const ex::fib& f) {
  std::optional<std::uint32_t> type;
  if (f.result == ex::fib::result_type && f.flags == ex::fib::of_destination)
    type = region_.destination_type;
  if (type) return store_u32(e, f.to, {*type, ~std::uint32_t{0}});
  store_unknown(e, f.to, 16);
  e.fork();
}

/// What a compiler asks about has neither: sockets with options of their own are not fast. Options
/// of the other family are looked for only by some kernels, and before any of TCP's comes its
/// header. Source: net/netfilter/nft_exthdr.c, ipv6_find_hdr() in net/ipv6/exthdrs_core.c, which
/// finds the transport header like any other.
void output_walk::on(evaluation& e, const expression& x, const ex::option_load& o) {
  constexpr std::uint8_t headers[] = {0, 43, 44, 51, 60, 135};  // Those of IPv6, but ESP.
  const bool v4 = family_ == ip_family::v4, udp = region_.ip_protocol == 17;
  bool absent = o.of == ex::option_load::tcp && udp && !o.presence;
  absent |= o.of == ex::option_load::ipv4 && v4;
  absent |= o.of == ex::option_load::ipv6 && !v4 && udp &&
            std::ranges::find(headers, o.type) != std::end(headers);
  if (absent && o.presence) return store_u32(e, o.to, {0, ~std::uint32_t{0}});
  if (absent) return e.must_break();
  on(e, x, ex::unknown_load{});
}

void output_walk::on(evaluation& e, const expression&, const ex::unknown_load&) {
  store_unknown(e, 0, nft::register_bytes);
  e.fork();
}

void output_walk::on(evaluation& e, const expression& x, const ex::soft&) {
  if (sets_.strict_counters()) touch(e, divert_reason::netfilter, x.name);
}

/// Without effect on a datagram that is tracked already.
void output_walk::on(evaluation& e, const expression&, const ex::notrack&) {
  const bool in_time = hook_ == hook_local_out && base_->chain.hook->priority < conntrack_priority;
  if (in_time && ports_ != nullptr) ports_->meets_notrack = true;
  if (in_time)
    e.state.untracked = e.state.destinations;
  else
    e.state.maybe_untracked = true;
}

void output_walk::on(evaluation& e, const expression&, const ex::xt_match& m) {
  if (changes_state(m)) return touch(e, divert_reason::netfilter, "match " + m.name);
  const bool any_port = region_.ip_protocol == 17 && ports_ != nullptr;
  e.apply(any_port ? match_xt_ports(e, m) : match_xt(e, m, region_.destination_port));
}

/// What such a match looks at is not spelt out here, so it is asked about port after port.
ternary output_walk::match_xt_ports(const evaluation& e, const ex::xt_match& m) {
  constexpr unsigned scans_max = 32;
  const ternary whole = match_xt(e, m, std::nullopt);
  if (whole != ternary::maybe || ++port_scans_ > scans_max) return whole;
  const ternary first = match_xt(e, m, ports_->range.first);
  ternary last = first;
  bool divided = false;
  for (std::uint32_t port = ports_->range.first + 1u; port <= ports_->range.last; ++port) {
    const ternary here = match_xt(e, m, static_cast<std::uint16_t>(port));
    if (here == last) continue;
    ports_->divided_at.push_back(static_cast<std::uint16_t>(port));
    last = here;
    divided = true;
  }
  return divided ? ternary::maybe : first;
}

ternary output_walk::match_xt(const evaluation& e, const ex::xt_match& m,
                              std::optional<std::uint16_t> destination_port) const {
  xt_subject subject;
  subject.mark = {e.state.mark.value, e.state.mark.known};
  const partial_u32 tracking = tracking_in(e.state);
  subject.tracking = {tracking.value, tracking.known};
  subject.uid = region_.uid;
  subject.gid = region_.gid;
  if (region_.ip_protocol == 17) {
    subject.source_port = region_.source_port;
    subject.destination_port = destination_port;
  }
  subject.destination_type = region_.destination_type;
  return matches(m, subject);
}

// ---- registers ----------------------------------------------------------------------------------

partial_key output_walk::key_at(const evaluation& e, std::size_t at, std::size_t length) const {
  partial_key out;
  out.size = length;
  // A datagram has its headers, and at most what a length field can say.
  if (length == 4 && e.ordered_length_at == at)
    out.bounds.emplace(static_cast<std::uint32_t>(network_size_ + udp_header_size), 0x10000 + 40);
  for (std::size_t i = 0; i < length && at + i < nft::register_bytes; ++i) {
    out.value[i] = e.registers.value[at + i];
    out.known[i] = e.registers.known[at + i];
  }
  return out;
}

void output_walk::overwrite(evaluation& e, std::size_t at, std::size_t length) {
  const auto hit = [&](const std::optional<std::size_t>& held) {
    return held && at < *held + 4 && *held < at + length;
  };
  if (hit(e.length_at)) e.length_at.reset();
  if (hit(e.ordered_length_at)) e.ordered_length_at.reset();
  for (std::size_t i = at; i < std::min(nft::register_bytes, at + length); ++i)
    e.destination_at[i] = {}, e.port_at[i] = 0;
}

/// The rest of the last 32 bits is zeroed, as the kernel does.
void output_walk::store(evaluation& e, std::size_t at, std::span<const std::uint8_t> content) {
  overwrite(e, at, (content.size() + 3) & ~std::size_t{3});
  for (std::size_t i = 0; at + i < nft::register_bytes && i < ((content.size() + 3) & ~3ul); ++i)
    e.registers.put(at + i, i < content.size() ? content[i] : 0, 0xff);
}

void output_walk::store_unknown(evaluation& e, std::size_t at, std::size_t length) {
  overwrite(e, at, (length + 3) & ~std::size_t{3});
  e.registers.forget(at, (length + 3) & ~std::size_t{3});
}

void output_walk::store_u32(evaluation& e, std::size_t at, const partial_u32& number) {
  overwrite(e, at, 4);
  std::array<std::uint8_t, 4> value, known;
  std::memcpy(value.data(), &number.value, 4);
  std::memcpy(known.data(), &number.known, 4);
  for (std::size_t i = 0; i < 4 && at + i < nft::register_bytes; ++i)
    e.registers.put(at + i, value[i], known[i]);
}

// ---- the end ------------------------------------------------------------------------------------

/// Whatever has not met an obstacle by then, on whichever way, cannot be told any more.
bool output_walk::spend(const evaluation& e, std::size_t steps) {
  steps_ += steps;
  if (steps_ <= steps_max) return !stopped();
  packet_state all;
  all.forked = true;
  all.destinations = into_.untouched();
  stop(*e.chain, e.current->handle, all, divert_reason::netfilter,
       "a ruleset too large to be evaluated");
  return false;
}

void output_walk::touch(evaluation& e, divert_reason reason, const std::string& what) {
  stop(*e.chain, e.current->handle, e.state, reason, what);
  e.ended = true;
}

void output_walk::stop(const chain_rules& chain, std::uint64_t handle, const packet_state& state,
                       divert_reason reason, const std::string& what) {
  output_verdict verdict;
  verdict.reason = reason;
  // Without connection tracking the kernel does not consult chains that translate; a rule that
  // translates is what switches it on.
  const bool consulted = base_->chain.type != "nat" || reason == divert_reason::nat;
  verdict.certain = !state.forked && consulted && tracked_ == tracking_state::fresh;
  verdict.table = std::string(nft::name(chain.chain.family)) + " " + chain.chain.table;
  verdict.chain = chain.chain.name;
  verdict.rule = handle;
  verdict.obstacle = "table " + verdict.table + ", chain " + verdict.chain +
                     (handle != 0 ? ", rule " + std::to_string(handle) : "") + ": " + what;
  into_.touch(state.destinations, verdict);
}

}  // namespace cowire::detail
