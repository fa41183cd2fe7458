// SPDX-License-Identifier: Apache-2.0
#include "tests/netlink/random_nft_message.hpp"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include <cstring>

namespace cowire::test {
namespace {

using bytes_of = std::vector<std::byte>;

void append(bytes_of& to, const void* from, std::size_t size) {
  const auto at = to.size();
  to.resize(at + (size + 3) / 4 * 4);
  if (size != 0) std::memcpy(to.data() + at, from, size);
}

bytes_of random_bytes(std::mt19937_64& random, std::size_t size) {
  bytes_of out(size);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

std::uint32_t below(std::mt19937_64& random, std::uint32_t limit) {
  return static_cast<std::uint32_t>(random() % limit);
}

nft_attributes value_of(std::mt19937_64& random, std::size_t size) {
  return nft_attributes().put(NFTA_DATA_VALUE, random_bytes(random, size));
}

nft_attributes verdict_of(std::mt19937_64& random) {
  nft_attributes inner;
  inner.put32(NFTA_VERDICT_CODE, static_cast<std::uint32_t>(-static_cast<int>(below(random, 7))));
  inner.text(NFTA_VERDICT_CHAIN, "c" + std::to_string(below(random, 4)));
  return nft_attributes().nest(NFTA_DATA_VERDICT, inner);
}

nft_attributes expression_data(std::mt19937_64& random, const std::string& name) {
  const std::uint32_t reg = below(random, 2) == 0 ? 1 + below(random, 3) : 8 + below(random, 12);
  const std::uint32_t size = 1 + below(random, 8);
  nft_attributes out;
  if (name == "immediate") {
    const bool decides = below(random, 2) == 0;
    out.put32(NFTA_IMMEDIATE_DREG, decides ? 0 : reg);
    return out.nest(NFTA_IMMEDIATE_DATA, decides ? verdict_of(random) : value_of(random, size));
  }
  if (name == "cmp")
    return out.put32(NFTA_CMP_SREG, reg)
        .put32(NFTA_CMP_OP, below(random, 6))
        .nest(NFTA_CMP_DATA, value_of(random, size));
  if (name == "bitwise")
    return out.put32(NFTA_BITWISE_SREG, reg)
        .put32(NFTA_BITWISE_DREG, reg)
        .put32(NFTA_BITWISE_LEN, size)
        .nest(NFTA_BITWISE_MASK, value_of(random, size))
        .nest(NFTA_BITWISE_XOR, value_of(random, size));
  if (name == "range")
    return out.put32(NFTA_RANGE_SREG, reg)
        .put32(NFTA_RANGE_OP, below(random, 2))
        .nest(NFTA_RANGE_FROM_DATA, value_of(random, size))
        .nest(NFTA_RANGE_TO_DATA, value_of(random, size));
  if (name == "lookup") {
    out.text(NFTA_LOOKUP_SET, "s" + std::to_string(below(random, 3))).put32(NFTA_LOOKUP_SREG, reg);
    return below(random, 2) == 0 ? out : out.put32(NFTA_LOOKUP_DREG, 0);
  }
  if (name == "payload")
    return out.put32(NFTA_PAYLOAD_DREG, reg)
        .put32(NFTA_PAYLOAD_BASE, below(random, 4))
        .put32(NFTA_PAYLOAD_OFFSET, below(random, 40))
        .put32(NFTA_PAYLOAD_LEN, size);
  if (name == "meta")
    return out.put32(NFTA_META_KEY, below(random, 24))
        .put32(below(random, 3) == 0 ? NFTA_META_SREG : NFTA_META_DREG, reg);
  if (name == "ct") return out.put32(NFTA_CT_KEY, below(random, 4)).put32(NFTA_CT_DREG, reg);
  if (name == "match")
    return out.text(NFTA_MATCH_NAME, "owner")
        .put32(NFTA_MATCH_REV, 1)
        .put(NFTA_MATCH_INFO, random_bytes(random, 24));
  if (name == "dynset") return out.text(NFTA_DYNSET_SET_NAME, "s0").put32(NFTA_DYNSET_SREG_KEY, 1);
  return out;
}

nft_attributes random_expression(std::mt19937_64& random) {
  static const char* const names[] = {"immediate", "cmp", "bitwise", "range",  "lookup",  "payload",
                                      "meta",      "ct",  "match",   "dynset", "counter", "limit"};
  const std::string name = names[below(random, std::size(names))];
  return nft_attributes()
      .text(NFTA_EXPR_NAME, name)
      .nest(NFTA_EXPR_DATA, expression_data(random, name));
}

nft_attributes random_chain(std::mt19937_64& random) {
  nft_attributes out;
  out.text(NFTA_CHAIN_TABLE, "t").text(NFTA_CHAIN_NAME, "c" + std::to_string(below(random, 4)));
  if (below(random, 2) == 0) return out;
  nft_attributes hook;
  hook.put32(NFTA_HOOK_HOOKNUM, 3 + below(random, 2)).put32(NFTA_HOOK_PRIORITY, below(random, 300));
  return out.nest(NFTA_CHAIN_HOOK, hook)
      .put32(NFTA_CHAIN_POLICY, below(random, 2))
      .text(NFTA_CHAIN_TYPE, "filter");
}

nft_attributes random_rule(std::mt19937_64& random) {
  nft_attributes out, list;
  out.text(NFTA_RULE_TABLE, "t").text(NFTA_RULE_CHAIN, "c" + std::to_string(below(random, 4)));
  out.put(NFTA_RULE_HANDLE, random_bytes(random, 8));
  for (auto n = below(random, 5); n > 0; --n) list.nest(NFTA_LIST_ELEM, random_expression(random));
  return out.nest(NFTA_RULE_EXPRESSIONS, list);
}

nft_attributes random_set(std::mt19937_64& random) {
  nft_attributes out;
  out.text(NFTA_SET_TABLE, "t").text(NFTA_SET_NAME, "s" + std::to_string(below(random, 3)));
  return out.put32(NFTA_SET_FLAGS, below(random, 0x200)).put32(NFTA_SET_KEY_LEN, 4);
}

nft_attributes random_elements(std::mt19937_64& random) {
  nft_attributes out, list;
  out.text(NFTA_SET_ELEM_LIST_TABLE, "t")
      .text(NFTA_SET_ELEM_LIST_SET, "s" + std::to_string(below(random, 3)));
  for (auto n = below(random, 5); n > 0; --n) {
    nft_attributes one;
    one.nest(NFTA_SET_ELEM_KEY, value_of(random, 4)).put32(NFTA_SET_ELEM_FLAGS, below(random, 2));
    if (below(random, 3) == 0) one.nest(NFTA_SET_ELEM_DATA, verdict_of(random));
    list.nest(NFTA_LIST_ELEM, one);
  }
  return out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, list);
}

}  // namespace

nft_attributes& nft_attributes::put(std::uint16_t type, const std::vector<std::byte>& value) {
  const nlattr header{static_cast<std::uint16_t>(sizeof(nlattr) + value.size()), type};
  append(bytes_, &header, sizeof header);
  append(bytes_, value.data(), value.size());
  return *this;
}

nft_attributes& nft_attributes::put32(std::uint16_t type, std::uint32_t value) {
  const std::uint32_t swapped = __builtin_bswap32(value);
  const auto* raw = reinterpret_cast<const std::byte*>(&swapped);
  return put(type, {raw, raw + sizeof swapped});
}

nft_attributes& nft_attributes::text(std::uint16_t type, const std::string& value) {
  const auto* raw = reinterpret_cast<const std::byte*>(value.c_str());
  return put(type, {raw, raw + value.size() + 1});
}

nft_attributes& nft_attributes::nest(std::uint16_t type, const nft_attributes& inner) {
  return put(static_cast<std::uint16_t>(type | NLA_F_NESTED), inner.bytes());
}

std::vector<std::byte> nft_message(std::uint8_t type, std::uint8_t family,
                                   std::uint16_t generation_low, std::uint32_t sequence,
                                   const nft_attributes& content) {
  std::vector<std::byte> out;
  nlmsghdr header{};
  header.nlmsg_len =
      static_cast<std::uint32_t>(sizeof header + sizeof(nfgenmsg) + content.bytes().size());
  header.nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type);
  header.nlmsg_seq = sequence;
  const nfgenmsg generic{family, NFNETLINK_V0, __builtin_bswap16(generation_low)};
  append(out, &header, sizeof header);
  append(out, &generic, sizeof generic);
  append(out, content.bytes().data(), content.bytes().size());
  return out;
}

std::vector<std::byte> random_nft_message(std::mt19937_64& random, std::uint32_t sequence) {
  const auto make = [&](std::uint8_t type, const nft_attributes& content) {
    return nft_message(type, 1, 7, sequence, content);
  };
  switch (below(random, 7)) {
    case 0:
      return make(NFT_MSG_NEWTABLE, nft_attributes().text(NFTA_TABLE_NAME, "t"));
    case 1:
      return make(NFT_MSG_NEWCHAIN, random_chain(random));
    case 2:
      return make(NFT_MSG_NEWRULE, random_rule(random));
    case 3:
      return make(NFT_MSG_NEWSET, random_set(random));
    case 4:
      return make(NFT_MSG_NEWSETELEM, random_elements(random));
    case 5:
      return make(NFT_MSG_NEWOBJ, nft_attributes()
                                      .text(NFTA_OBJ_TABLE, "t")
                                      .text(NFTA_OBJ_NAME, "o")
                                      .put32(NFTA_OBJ_TYPE, 1 + below(random, 10)));
    default:
      return make(NFT_MSG_NEWGEN, nft_attributes().put32(NFTA_GEN_ID, 7));
  }
}

}  // namespace cowire::test
