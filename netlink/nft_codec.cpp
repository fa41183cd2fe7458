// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/nft_codec.hpp>

#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

namespace cowire::netlink::nft {
namespace {

using detail::attribute;
using detail::byte_span;
using detail::for_each_attribute;

static_assert(notification_group == NFNLGRP_NFTABLES);

// Attributes that the kernel has and the oldest supported build headers (6.1) lack: nf_tables.h.
constexpr std::uint16_t set_count_attribute = 20;
constexpr std::uint16_t bitwise_second_register = 8;
constexpr std::uint16_t device_name_attribute = 1, device_prefix_attribute = 2;

void read_u32(const attribute& from, std::uint32_t& to, std::error_code& ec) {
  be32 value;
  detail::read(from, value, ec);
  to = value.host();
}

std::uint32_t u32(const attribute& from, std::error_code& ec) {
  std::uint32_t value = 0;
  read_u32(from, value, ec);
  return value;
}

bytes copy(const attribute& from) { return {from.payload.begin(), from.payload.end()}; }

std::string text(const attribute& from, std::error_code& ec) {
  std::string value;
  detail::read(from, value, ec);
  return value;
}

/// Names come without a terminating zero in some messages of some kernels.
std::string name_of(const attribute& from) {
  if (from.payload.empty()) return {};
  const auto* begin = reinterpret_cast<const char*>(from.payload.data());
  return {begin, ::strnlen(begin, from.payload.size())};
}

/// nft_parse_register() and nft_validate_register_*(): a number to where `length` bytes lie.
register_offset register_of(const attribute& from, std::error_code& ec) {
  const std::uint32_t number = u32(from, ec);
  if (ec) return 0;
  if (number == NFT_REG_VERDICT) return expressions::verdict_register;
  if (number >= NFT_REG_1 && number <= NFT_REG_4)
    return static_cast<register_offset>((number - NFT_REG_1) * NFT_REG_SIZE);
  if (number >= NFT_REG32_00 && number <= NFT_REG32_15)
    return static_cast<register_offset>((number - NFT_REG32_00) * NFT_REG32_SIZE);
  ec = error::malformed;
  return 0;
}

/// Whether `length` bytes from a register on exist at all.
void check_span(register_offset at, std::size_t length, std::error_code& ec) {
  if (ec) return;
  if (at == expressions::verdict_register || length == 0 || length > register_bytes ||
      at + length > register_bytes)
    ec = error::malformed;
}

nft::verdict read_verdict(byte_span from, std::error_code& ec) {
  nft::verdict out;
  bool coded = false;
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type == NFTA_VERDICT_CODE) {
      out.code = static_cast<std::int32_t>(u32(a, ec));
      coded = true;
    } else if (a.type == NFTA_VERDICT_CHAIN) {
      out.chain = name_of(a);
    }
  });
  const bool names_chain = out.code == verdict::jump || out.code == verdict::go_to;
  if (!ec && (!coded || (names_chain && out.chain.empty()))) ec = error::malformed;
  return out;
}

/// NFTA_DATA_VALUE or NFTA_DATA_VERDICT.
std::variant<bytes, nft::verdict> read_data(byte_span from, std::error_code& ec) {
  std::variant<bytes, nft::verdict> out;
  bool found = false;
  for_each_attribute(from, ec, [&](const attribute& a) {
    found = true;
    if (a.type == NFTA_DATA_VALUE)
      out = copy(a);
    else if (a.type == NFTA_DATA_VERDICT)
      out = read_verdict(a.payload, ec);
    else
      ec = error::malformed;
  });
  if (!ec && !found) ec = error::malformed;
  return out;
}

bytes read_value(const attribute& from, std::error_code& ec) {
  auto data = read_data(from.payload, ec);
  if (auto* value = std::get_if<bytes>(&data)) return std::move(*value);
  if (!ec) ec = error::malformed;
  return {};
}

// ---- expressions --------------------------------------------------------------------------------

/// The attributes of one expression by number; `known` is false where there is one beyond.
template <std::size_t Limit>
struct fields {
  std::array<std::optional<attribute>, Limit + 1> by_number;
  bool known = true;

  fields(byte_span from, std::error_code& ec) {
    for_each_attribute(from, ec, [&](const attribute& a) {
      if (a.type > Limit)
        known = false;
      else
        by_number[a.type] = a;
    });
  }
  [[nodiscard]] bool has(std::size_t number) const { return by_number[number].has_value(); }
  [[nodiscard]] const attribute& at(std::size_t number, std::error_code& ec) const {
    static const attribute nothing{};
    if (has(number)) return *by_number[number];
    if (!ec) ec = error::malformed;
    return nothing;
  }
  [[nodiscard]] std::uint32_t number(std::size_t which, std::error_code& ec) const {
    return has(which) ? u32(*by_number[which], ec) : 0;
  }
};

using content = decltype(expression::content);

content read_immediate(byte_span from, std::error_code& ec) {
  const fields<NFTA_IMMEDIATE_MAX> f(from, ec);
  expressions::immediate out;
  out.to = register_of(f.at(NFTA_IMMEDIATE_DREG, ec), ec);
  out.value = read_data(f.at(NFTA_IMMEDIATE_DATA, ec).payload, ec);
  if (ec || !f.known) return expressions::other{};
  const auto* value = std::get_if<bytes>(&out.value);
  if (value != nullptr)
    check_span(out.to, value->size(), ec);
  else if (out.to != expressions::verdict_register)
    ec = error::malformed;
  return out;
}

content read_compare(byte_span from, std::error_code& ec) {
  const fields<NFTA_CMP_MAX> f(from, ec);
  expressions::compare out;
  out.from = register_of(f.at(NFTA_CMP_SREG, ec), ec);
  out.operation = u32(f.at(NFTA_CMP_OP, ec), ec);
  out.value = read_value(f.at(NFTA_CMP_DATA, ec), ec);
  check_span(out.from, out.value.size(), ec);
  if (!f.known || out.operation > expressions::compare::at_least) return expressions::other{};
  return out;
}

content read_bitwise(byte_span from, std::error_code& ec) {
  const fields<bitwise_second_register> f(from, ec);
  expressions::bitwise out;
  out.from = register_of(f.at(NFTA_BITWISE_SREG, ec), ec);
  out.to = register_of(f.at(NFTA_BITWISE_DREG, ec), ec);
  out.length = u32(f.at(NFTA_BITWISE_LEN, ec), ec);
  check_span(out.from, out.length, ec);
  check_span(out.to, out.length, ec);
  if (ec || !f.known) return expressions::other{};
  if (f.number(NFTA_BITWISE_OP, ec) != NFT_BITWISE_BOOL)
    return expressions::bitwise_unknown{out.to, out.length};
  out.mask = read_value(f.at(NFTA_BITWISE_MASK, ec), ec);
  out.exclusive_or = read_value(f.at(NFTA_BITWISE_XOR, ec), ec);
  if (!ec && (out.mask.size() != out.length || out.exclusive_or.size() != out.length))
    ec = error::malformed;
  return out;
}

content read_byteorder(byte_span from, std::error_code& ec) {
  const fields<NFTA_BYTEORDER_MAX> f(from, ec);
  expressions::byteorder out;
  out.from = register_of(f.at(NFTA_BYTEORDER_SREG, ec), ec);
  out.to = register_of(f.at(NFTA_BYTEORDER_DREG, ec), ec);
  out.length = u32(f.at(NFTA_BYTEORDER_LEN, ec), ec);
  out.size = u32(f.at(NFTA_BYTEORDER_SIZE, ec), ec);
  check_span(out.from, out.length, ec);
  check_span(out.to, out.length, ec);
  const bool sized = out.size == 2 || out.size == 4 || out.size == 8;
  if (!f.known || !sized) return expressions::other{};
  return out;
}

content read_range(byte_span from, std::error_code& ec) {
  const fields<NFTA_RANGE_MAX> f(from, ec);
  expressions::range out;
  out.from = register_of(f.at(NFTA_RANGE_SREG, ec), ec);
  const std::uint32_t operation = u32(f.at(NFTA_RANGE_OP, ec), ec);
  out.outside = operation == NFT_RANGE_NEQ;
  out.low = read_value(f.at(NFTA_RANGE_FROM_DATA, ec), ec);
  out.high = read_value(f.at(NFTA_RANGE_TO_DATA, ec), ec);
  check_span(out.from, out.low.size(), ec);
  if (!ec && out.low.size() != out.high.size()) ec = error::malformed;
  if (!f.known || operation > NFT_RANGE_NEQ) return expressions::other{};
  return out;
}

content read_lookup(byte_span from, std::error_code& ec) {
  const fields<NFTA_LOOKUP_MAX> f(from, ec);
  expressions::lookup out;
  out.set = name_of(f.at(NFTA_LOOKUP_SET, ec));
  out.key = register_of(f.at(NFTA_LOOKUP_SREG, ec), ec);
  if (f.has(NFTA_LOOKUP_DREG)) out.to = register_of(f.at(NFTA_LOOKUP_DREG, ec), ec);
  const std::uint32_t flags = f.number(NFTA_LOOKUP_FLAGS, ec);
  out.inverted = (flags & NFT_LOOKUP_F_INV) != 0;
  check_span(out.key, 1, ec);
  if (!f.known || (flags & ~std::uint32_t{NFT_LOOKUP_F_INV}) != 0) return expressions::other{};
  return out;
}

content read_payload(byte_span from, std::error_code& ec) {
  const fields<NFTA_PAYLOAD_MAX> f(from, ec);
  const auto base = static_cast<expressions::payload_base>(u32(f.at(NFTA_PAYLOAD_BASE, ec), ec));
  const std::uint32_t offset = u32(f.at(NFTA_PAYLOAD_OFFSET, ec), ec);
  const std::uint32_t length = u32(f.at(NFTA_PAYLOAD_LEN, ec), ec);
  const bool writes = f.has(NFTA_PAYLOAD_SREG);
  const register_offset where =
      register_of(f.at(writes ? NFTA_PAYLOAD_SREG : NFTA_PAYLOAD_DREG, ec), ec);
  check_span(where, length, ec);
  if (!f.known) return expressions::other{};
  if (writes) return expressions::payload_write{where, base, offset, length};
  return expressions::payload_load{where, base, offset, length};
}

content read_meta(byte_span from, std::error_code& ec) {
  const fields<NFTA_META_MAX> f(from, ec);
  const auto key = static_cast<expressions::meta_key>(u32(f.at(NFTA_META_KEY, ec), ec));
  const bool writes = f.has(NFTA_META_SREG);
  const register_offset where = register_of(f.at(writes ? NFTA_META_SREG : NFTA_META_DREG, ec), ec);
  check_span(where, 1, ec);
  if (!f.known) return expressions::other{};
  if (writes) return expressions::meta_write{where, key};
  return expressions::meta_load{where, key};
}

content read_ct(byte_span from, std::error_code& ec) {
  const fields<NFTA_CT_MAX> f(from, ec);
  if (ec || !f.known || f.has(NFTA_CT_SREG)) return expressions::other{};
  expressions::ct_load out;
  out.to = register_of(f.at(NFTA_CT_DREG, ec), ec);
  out.key = u32(f.at(NFTA_CT_KEY, ec), ec);
  check_span(out.to, 1, ec);
  return out;
}

content read_fib(byte_span from, std::error_code& ec) {
  const fields<NFTA_FIB_MAX> f(from, ec);
  expressions::fib out;
  out.to = register_of(f.at(NFTA_FIB_DREG, ec), ec);
  out.result = f.number(NFTA_FIB_RESULT, ec);
  out.flags = f.number(NFTA_FIB_FLAGS, ec);
  check_span(out.to, 4, ec);
  if (!f.known) return expressions::other{};
  return out;
}

/// A load that has no source register of a write.
content read_exthdr(byte_span from, std::error_code& ec) {
  const fields<NFTA_EXTHDR_MAX> f(from, ec);
  if (!f.known || f.has(NFTA_EXTHDR_SREG) || !f.has(NFTA_EXTHDR_DREG)) return expressions::other{};
  expressions::option_load out;
  out.to = register_of(f.at(NFTA_EXTHDR_DREG, ec), ec);
  out.of = f.number(NFTA_EXTHDR_OP, ec);
  const std::uint32_t flags = f.number(NFTA_EXTHDR_FLAGS, ec);
  out.presence = (flags & NFT_EXTHDR_F_PRESENT) != 0;
  check_span(out.to, 4, ec);
  const auto type = f.has(NFTA_EXTHDR_TYPE) ? f.by_number[NFTA_EXTHDR_TYPE]->payload : byte_span{};
  if ((flags & ~std::uint32_t{NFT_EXTHDR_F_PRESENT}) != 0 || type.size() != 1)
    return expressions::unknown_load{};
  out.type = std::to_integer<std::uint8_t>(type.front());
  return out;
}

/// A named counter only counts.
content read_object_reference(byte_span from, std::error_code& ec) {
  const fields<NFTA_OBJREF_MAX> f(from, ec);
  const bool counts = f.known && f.number(NFTA_OBJREF_IMM_TYPE, ec) == NFT_OBJECT_COUNTER &&
                      !f.has(NFTA_OBJREF_SET_NAME);
  if (counts) return expressions::soft{};
  return expressions::other{};
}

content read_match(byte_span from, std::error_code& ec) {
  const fields<NFTA_MATCH_MAX> f(from, ec);
  expressions::xt_match out;
  out.name = name_of(f.at(NFTA_MATCH_NAME, ec));
  out.revision = f.number(NFTA_MATCH_REV, ec);
  out.info = copy(f.at(NFTA_MATCH_INFO, ec));
  if (!f.known) return expressions::other{};
  return out;
}

/// XT_CT_NOTRACK of linux/netfilter/xt_CT.h, in the first 16 bits of every revision; NOTRACK is
/// what the target was called before.
content read_target(const std::string& name, const fields<NFTA_TARGET_MAX>& f,
                    std::error_code& ec) {
  constexpr std::uint16_t no_tracking = 1;
  if (name == "NOTRACK") return expressions::notrack{};
  std::uint16_t flags = 0;
  if (name != "CT" || !f.has(NFTA_TARGET_INFO)) return expressions::other{};
  const auto info = copy(f.at(NFTA_TARGET_INFO, ec));
  if (ec || info.size() < sizeof flags) return expressions::other{};
  std::memcpy(&flags, info.data(), sizeof flags);
  if ((flags & no_tracking) != 0) return expressions::notrack{};
  return expressions::other{};
}

struct reader_of {
  std::string_view name;
  content (*read)(byte_span, std::error_code&);
};

template <class T>
content nothing_but(byte_span, std::error_code&) {
  return T{};
}

constexpr reader_of readers[] = {
    {"immediate", read_immediate},
    {"cmp", read_compare},
    {"bitwise", read_bitwise},
    {"byteorder", read_byteorder},
    {"range", read_range},
    {"lookup", read_lookup},
    {"payload", read_payload},
    {"meta", read_meta},
    {"ct", read_ct},
    {"fib", read_fib},
    {"exthdr", read_exthdr},
    {"match", read_match},
    {"objref", read_object_reference},
    {"counter", nothing_but<expressions::soft>},
    {"last", nothing_but<expressions::soft>},
    {"notrack", nothing_but<expressions::notrack>},
    // They read into a register, whatever their attributes are, and change nothing.
    {"rt", nothing_but<expressions::unknown_load>},
    {"socket", nothing_but<expressions::unknown_load>},
    {"hash", nothing_but<expressions::unknown_load>},
    {"xfrm", nothing_but<expressions::unknown_load>},
    {"tunnel", nothing_but<expressions::unknown_load>},
};

expression read_expression(byte_span from, std::error_code& ec) {
  expression out;
  byte_span data;
  bool known = true;
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type == NFTA_EXPR_NAME)
      out.name = name_of(a);
    else if (a.type == NFTA_EXPR_DATA)
      data = a.payload;
    else
      known = false;
  });
  if (!ec && out.name.empty()) ec = error::malformed;
  if (ec || !known) return out;
  const auto* found = std::ranges::find(readers, std::string_view(out.name), &reader_of::name);
  if (found != std::end(readers)) {
    out.content = found->read(data, ec);
  } else if (out.name == "target") {
    const fields<NFTA_TARGET_MAX> f(data, ec);
    if (f.has(NFTA_TARGET_NAME)) {
      const std::string target = name_of(*f.by_number[NFTA_TARGET_NAME]);
      out.name += ":" + target;
      if (f.known) out.content = read_target(target, f, ec);
    }
  } else if (out.name == "dynset") {
    const fields<NFTA_DYNSET_EXPRESSIONS> f(data, ec);
    out.filled_set = name_of(f.at(NFTA_DYNSET_SET_NAME, ec));
  }
  return out;
}

std::vector<expression> read_expressions(byte_span from, std::error_code& ec) {
  std::vector<expression> out;
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type == NFTA_LIST_ELEM) return out.push_back(read_expression(a.payload, ec));
    ec = error::malformed;
  });
  return out;
}

// ---- objects ------------------------------------------------------------------------------------

void require(bool condition, std::error_code& ec) {
  if (!ec && !condition) ec = error::malformed;
}

table read_table(nft::family family, byte_span from, std::error_code& ec) {
  table out;
  out.family = family;
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type == NFTA_TABLE_NAME) out.name = text(a, ec);
    if (a.type == NFTA_TABLE_FLAGS) read_u32(a, out.flags, ec);
  });
  require(!out.name.empty(), ec);
  return out;
}

chain_hook read_hook(byte_span from, bool& not_understood, std::error_code& ec) {
  chain_hook out;
  for_each_attribute(from, ec, [&](const attribute& a) {
    switch (a.type) {
      case NFTA_HOOK_HOOKNUM:
        return read_u32(a, out.number, ec);
      case NFTA_HOOK_PRIORITY:
        out.priority = static_cast<std::int32_t>(u32(a, ec));
        return;
      case NFTA_HOOK_DEV:
        return;  // Told among NFTA_HOOK_DEVS too.
      case NFTA_HOOK_DEVS:
        return for_each_attribute(a.payload, ec, [&](const attribute& device) {
          if (device.type == device_name_attribute)
            out.devices.push_back(name_of(device));
          else if (device.type == device_prefix_attribute)
            out.devices.push_back(name_of(device) + "*");
          else
            not_understood = true;
        });
      default:
        not_understood = true;
        return;
    }
  });
  return out;
}

chain read_chain(nft::family family, byte_span from, std::error_code& ec) {
  chain out;
  out.family = family;
  for_each_attribute(from, ec, [&](const attribute& a) {
    switch (a.type) {
      case NFTA_CHAIN_TABLE:
        out.table = text(a, ec);
        return;
      case NFTA_CHAIN_NAME:
        out.name = text(a, ec);
        return;
      case NFTA_CHAIN_HOOK:
        out.hook = read_hook(a.payload, out.not_understood, ec);
        return;
      case NFTA_CHAIN_POLICY:
        return read_u32(a, out.policy, ec);
      case NFTA_CHAIN_TYPE:
        out.type = text(a, ec);
        return;
      case NFTA_CHAIN_COUNTERS:
        out.policy_counts = true;
        return;
      default:
        out.not_understood |= a.type > NFTA_CHAIN_USERDATA;
        return;
    }
  });
  require(!out.table.empty() && !out.name.empty(), ec);
  return out;
}

rule read_rule(nft::family family, byte_span from, std::error_code& ec) {
  rule out;
  out.family = family;
  for_each_attribute(from, ec, [&](const attribute& a) {
    switch (a.type) {
      case NFTA_RULE_TABLE:
        out.table = text(a, ec);
        return;
      case NFTA_RULE_CHAIN:
        out.chain = text(a, ec);
        return;
      case NFTA_RULE_HANDLE: {
        std::uint64_t handle = 0;
        detail::read(a, handle, ec);
        out.handle = __builtin_bswap64(handle);
        return;
      }
      case NFTA_RULE_EXPRESSIONS:
        out.expressions = read_expressions(a.payload, ec);
        return;
      default:
        out.not_understood |= a.type > NFTA_RULE_CHAIN_ID;
        return;
    }
  });
  require(!out.table.empty() && !out.chain.empty(), ec);
  return out;
}

/// NFTA_RULE_POSITION of a rule, 0 of all else.
std::uint64_t read_position(const message& of, byte_span from, std::error_code& ec) {
  std::uint64_t position = 0;
  if (std::holds_alternative<rule>(of))
    for_each_attribute(from, ec, [&](const attribute& a) {
      if (a.type == NFTA_RULE_POSITION) detail::read(a, position, ec);
    });
  return __builtin_bswap64(position);
}

/// NFTA_SET_DESC: the fields of a concatenation, whose lengths are in bytes (their documentation in
/// the uapi header says bits, net/netfilter/nf_tables_api.c says otherwise).
void read_description(byte_span from, set& to, std::error_code& ec) {
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type != NFTA_SET_DESC_CONCAT) return;
    for_each_attribute(a.payload, ec, [&](const attribute& one) {
      for_each_attribute(one.payload, ec, [&](const attribute& field) {
        if (field.type == NFTA_SET_FIELD_LEN) to.fields.push_back(u32(field, ec));
      });
    });
  });
  std::size_t total = 0;
  for (const std::uint32_t length : to.fields) {
    require(length != 0 && length <= register_bytes, ec);
    total += detail::aligned(length);
  }
  require(total <= register_bytes, ec);
}

set read_set(nft::family family, byte_span from, std::error_code& ec) {
  set out;
  out.family = family;
  for_each_attribute(from, ec, [&](const attribute& a) {
    switch (a.type) {
      case NFTA_SET_TABLE:
        out.table = text(a, ec);
        return;
      case NFTA_SET_NAME:
        out.name = text(a, ec);
        return;
      case NFTA_SET_FLAGS:
        return read_u32(a, out.flags, ec);
      case NFTA_SET_KEY_LEN:
        return read_u32(a, out.key_length, ec);
      case NFTA_SET_DATA_TYPE:
        out.maps_to_verdict = u32(a, ec) == NFT_DATA_VERDICT;
        return;
      case NFTA_SET_DESC:
        return read_description(a.payload, out, ec);
      default:
        out.not_understood |= a.type > set_count_attribute;
        return;
    }
  });
  require(!out.table.empty() && !out.name.empty(), ec);
  require(out.key_length != 0 && out.key_length <= register_bytes, ec);
  return out;
}

set read_set_name(nft::family family, byte_span from, std::error_code& ec) {
  set out;
  out.family = family;
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type == NFTA_SET_TABLE) out.table = text(a, ec);
    if (a.type == NFTA_SET_NAME) out.name = text(a, ec);
  });
  require(!out.table.empty() && !out.name.empty(), ec);
  return out;
}

void add_to(element& one, const expression& e) {
  const bool counter = std::holds_alternative<expressions::soft>(e.content);
  (counter ? one.counts : one.not_understood) = true;
}

element read_element(byte_span from, std::error_code& ec) {
  element out;
  std::uint32_t flags = 0;
  for_each_attribute(from, ec, [&](const attribute& a) {
    switch (a.type) {
      case NFTA_SET_ELEM_KEY:
        out.key = read_value(a, ec);
        return;
      case NFTA_SET_ELEM_KEY_END:
        out.key_end = read_value(a, ec);
        return;
      case NFTA_SET_ELEM_DATA: {
        auto data = read_data(a.payload, ec);
        if (auto* value = std::get_if<bytes>(&data))
          out.value = std::move(*value);
        else
          out.value = std::get<nft::verdict>(std::move(data));
        return;
      }
      case NFTA_SET_ELEM_FLAGS:
        return read_u32(a, flags, ec);
      case NFTA_SET_ELEM_EXPR:
        return add_to(out, read_expression(a.payload, ec));
      case NFTA_SET_ELEM_EXPRESSIONS:
        for (const expression& e : read_expressions(a.payload, ec)) add_to(out, e);
        return;
      case NFTA_SET_ELEM_TIMEOUT:
      case NFTA_SET_ELEM_EXPIRATION:
      case NFTA_SET_ELEM_USERDATA:
      case NFTA_SET_ELEM_PAD:
      case NFTA_SET_ELEM_OBJREF:
        return;
      default:
        out.not_understood = true;
        return;
    }
  });
  out.ends_interval = (flags & NFT_SET_ELEM_INTERVAL_END) != 0;
  out.is_catch_all = (flags & NFT_SET_ELEM_CATCHALL) != 0;
  out.not_understood |= (flags & ~3u) != 0;
  require(out.is_catch_all || !out.key.empty(), ec);
  require(
      out.key.size() <= register_bytes && (!out.key_end || out.key_end->size() == out.key.size()),
      ec);
  return out;
}

set_elements read_elements(nft::family family, byte_span from, std::error_code& ec) {
  set_elements out;
  out.family = family;
  for_each_attribute(from, ec, [&](const attribute& a) {
    switch (a.type) {
      case NFTA_SET_ELEM_LIST_TABLE:
        out.table = text(a, ec);
        return;
      case NFTA_SET_ELEM_LIST_SET:
        out.set = text(a, ec);
        return;
      case NFTA_SET_ELEM_LIST_ELEMENTS:
        return for_each_attribute(a.payload, ec, [&](const attribute& one) {
          out.elements.push_back(read_element(one.payload, ec));
        });
      default:
        return;
    }
  });
  require(!out.table.empty() && !out.set.empty(), ec);
  return out;
}

object read_object(nft::family family, byte_span from, std::error_code& ec) {
  object out;
  out.family = family;
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type == NFTA_OBJ_TABLE) out.table = text(a, ec);
    if (a.type == NFTA_OBJ_NAME) out.name = text(a, ec);
    if (a.type == NFTA_OBJ_TYPE) read_u32(a, out.type, ec);
  });
  require(!out.table.empty() && !out.name.empty() && out.type != 0, ec);
  return out;
}

generation read_generation(byte_span from, std::error_code& ec) {
  generation out;
  bool numbered = false;
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type == NFTA_GEN_ID) {
      read_u32(a, out.id, ec);
      numbered = true;
    } else if (a.type == NFTA_GEN_PROC_NAME) {
      out.process = name_of(a);
    }
  });
  require(numbered, ec);
  return out;
}

std::optional<message> read_message(unsigned type, nft::family family, byte_span from,
                                    std::error_code& ec) {
  switch (type) {
    case NFT_MSG_NEWTABLE:
      return read_table(family, from, ec);
    case NFT_MSG_NEWCHAIN:
      return read_chain(family, from, ec);
    case NFT_MSG_NEWRULE:
      return read_rule(family, from, ec);
    case NFT_MSG_NEWSET:
      return read_set(family, from, ec);
    case NFT_MSG_NEWSETELEM:
      return read_elements(family, from, ec);
    case NFT_MSG_NEWOBJ:
      return read_object(family, from, ec);
    case NFT_MSG_NEWGEN:
      return read_generation(from, ec);
    default:
      return std::nullopt;
  }
}

constexpr bool is_nf_tables(std::uint16_t type) { return type >> 8 == NFNL_SUBSYS_NFTABLES; }

// ---- requests -----------------------------------------------------------------------------------

/// A request under construction; libmnl does the arithmetic of lengths.
class request {
 public:
  request(unsigned type, unsigned family, std::uint16_t flags, std::uint32_t sequence)
      : header_(mnl_nlmsg_put_header(buffer_.data())) {
    header_->nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type);
    header_->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    header_->nlmsg_seq = sequence;
    auto* generic = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(header_, sizeof(nfgenmsg)));
    generic->nfgen_family = static_cast<std::uint8_t>(family);
    generic->version = NFNETLINK_V0;
  }
  void put(std::uint16_t type, const std::string& value) {
    mnl_attr_put_strz(header_, type, value.c_str());
  }
  [[nodiscard]] std::vector<std::byte> finish() const {
    return {buffer_.begin(), buffer_.begin() + header_->nlmsg_len};
  }

 private:
  alignas(nlmsghdr) std::array<std::byte, 1024> buffer_{};  // Two names of at most 256 bytes fit.
  nlmsghdr* header_;
};

}  // namespace

const char* name(family which) noexcept {
  switch (which) {
    case family::inet:
      return "inet";
    case family::ipv4:
      return "ip";
    case family::arp:
      return "arp";
    case family::netdev:
      return "netdev";
    case family::bridge:
      return "bridge";
    case family::ipv6:
      return "ip6";
  }
  return "?";
}

// ---- elements -----------------------------------------------------------------------------------

bool element_list::is_before(const element& a, const element& b) noexcept {
  const std::size_t common = std::min(a.key.size(), b.key.size());
  const int order = common == 0 ? 0 : std::memcmp(a.key.data(), b.key.data(), common);
  if (order != 0) return order < 0;
  if (a.key.size() != b.key.size()) return a.key.size() < b.key.size();
  return a.ends_interval && !b.ends_interval;
}

element_list::element_list(std::vector<element> all) {
  if (!std::ranges::is_sorted(all, is_before)) std::ranges::sort(all, is_before);
  for (element& one : all) {
    note_size(one);
    push_back(std::move(one));
  }
}

void element_list::note_size(const element& one) noexcept {
  if (one.is_catch_all) return;
  if (key_size_ == 0) key_size_ = one.key.size();
  mixed_ |= one.key.size() != key_size_ || (one.key_end && one.key_end->size() != key_size_);
}

void element_list::add(element one) {
  note_size(one);
  const auto at = partition_point([&](const element& e) { return is_before(e, one); });
  const bool known = at != end() && !is_before(one, *at);
  const auto before = known ? erase(at) : at;
  insert(before, std::move(one));
}

bool element_list::remove(const element& like) {
  const auto at = partition_point([&](const element& e) { return is_before(e, like); });
  if (at == end() || is_before(like, *at)) return false;
  static_cast<void>(erase(at));
  return true;
}

std::size_t ruleset::rule_count() const noexcept {
  std::size_t count = 0;
  for (const auto& [key, one] : chains) count += one.rules.size();
  return count;
}

std::optional<decoded> decode(std::span<const std::byte> from, std::error_code& ec) {
  ec.clear();
  const auto one = next_envelope(from, ec);
  if (!one || !is_nf_tables(one->type)) return std::nullopt;
  byte_span rest = one->bytes.subspan(sizeof(nlmsghdr));
  nfgenmsg generic{};
  if (!detail::take(rest, generic, ec)) return std::nullopt;
  const auto family = static_cast<nft::family>(generic.nfgen_family);
  auto found = read_message(one->type & 0xffu, family, rest, ec);
  if (!found || ec) return std::nullopt;
  const std::uint64_t position = read_position(*found, rest, ec);
  if (ec) return std::nullopt;
  return decoded{std::move(*found), be16{generic.res_id}.host(), position};
}

std::optional<change> decode_change(std::span<const std::byte> from, std::error_code& ec) {
  ec.clear();
  const auto one = next_envelope(from, ec);
  if (!one || !is_nf_tables(one->type)) return std::nullopt;
  byte_span rest = one->bytes.subspan(sizeof(nlmsghdr));
  nfgenmsg generic{};
  nlmsghdr header;
  std::memcpy(&header, one->bytes.data(), sizeof header);
  if (!detail::take(rest, generic, ec)) return std::nullopt;
  const auto family = static_cast<nft::family>(generic.nfgen_family);
  change out;
  std::optional<nft::message> found;
  switch (one->type & 0xffu) {
    case NFT_MSG_DELRULE:
      out.removed = true;
      found = read_rule(family, rest, ec);
      break;
    case NFT_MSG_DELSETELEM:
      out.removed = true;
      found = read_elements(family, rest, ec);
      break;
    case NFT_MSG_DELSET:
      out.removed = true;
      found = read_set_name(family, rest, ec);
      break;
    default:
      found = read_message(one->type & 0xffu, family, rest, ec);
  }
  if (!found || ec) return std::nullopt;
  out.message = std::move(*found);
  out.appended = (header.nlmsg_flags & NLM_F_APPEND) != 0;
  out.position = read_position(out.message, rest, ec);
  if (ec) return std::nullopt;
  return out;
}

bool ends_transaction(const envelope& notification) noexcept {
  return notification.type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN);
}

std::vector<std::byte> generation_request(std::uint32_t sequence) {
  return request(NFT_MSG_GETGEN, AF_UNSPEC, 0, sequence).finish();
}

std::vector<std::byte> settle_request(std::uint32_t sequence) {
  std::vector<std::byte> out;
  for (const int type : {NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END}) {
    struct {
      nlmsghdr header;
      nfgenmsg generic;
    } one{};
    one.header = {sizeof one, static_cast<std::uint16_t>(type), NLM_F_REQUEST, sequence, 0};
    one.generic = {AF_UNSPEC, NFNETLINK_V0, htons(NFNL_SUBSYS_NFTABLES)};
    const auto raw = std::as_bytes(std::span(&one, 1));
    out.insert(out.end(), raw.begin(), raw.end());
  }
  return out;
}

std::vector<std::byte> dump_request(object_kind kind, std::uint32_t sequence) {
  constexpr unsigned types[] = {NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN,   NFT_MSG_GETRULE,
                                NFT_MSG_GETSET,   NFT_MSG_GETSETELEM, NFT_MSG_GETOBJ};
  return request(types[static_cast<std::size_t>(kind)], AF_UNSPEC, NLM_F_DUMP, sequence).finish();
}

std::vector<std::byte> elements_request(const object_key& set, std::uint32_t sequence) {
  request out(NFT_MSG_GETSETELEM, static_cast<unsigned>(set.family), NLM_F_DUMP, sequence);
  out.put(NFTA_SET_ELEM_LIST_TABLE, set.table);
  out.put(NFTA_SET_ELEM_LIST_SET, set.name);
  return out.finish();
}

}  // namespace cowire::netlink::nft
