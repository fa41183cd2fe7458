// SPDX-License-Identifier: Apache-2.0
#include "tests/netlink/random_nft_message.hpp"

#include <cowire/base/error.hpp>
#include <cowire/netlink/nft_reader.hpp>

#include <gtest/gtest.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include <cstring>
#include <functional>

namespace cowire::netlink::nft {
namespace {

using test::nft_attributes;
using test::nft_message;

std::optional<decoded> decode_whole(const std::vector<std::byte>& from, std::error_code& ec) {
  return decode(from, ec);
}

/// A rule with one expression.
std::vector<std::byte> rule_with(const std::string& name, const nft_attributes& data) {
  nft_attributes list, rule;
  list.nest(NFTA_LIST_ELEM, nft_attributes().text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data));
  rule.text(NFTA_RULE_TABLE, "t").text(NFTA_RULE_CHAIN, "c").nest(NFTA_RULE_EXPRESSIONS, list);
  return nft_message(NFT_MSG_NEWRULE, 2, 1, 0, rule);
}

expression only_expression(const std::vector<std::byte>& from) {
  std::error_code ec;
  auto one = decode_whole(from, ec);
  EXPECT_FALSE(ec) << ec.message();
  return std::get<rule>(one.value().message).expressions.at(0);
}

std::error_code error_of(const std::vector<std::byte>& from) {
  std::error_code ec;
  EXPECT_FALSE(decode_whole(from, ec));
  return ec;
}

nft_attributes four_bytes() {
  return nft_attributes().put(NFTA_DATA_VALUE, std::vector<std::byte>(4));
}

TEST(nft_codec, a_message_cut_anywhere_is_an_error_or_less_but_never_another_message) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 300; ++i) {
    const auto whole = test::random_nft_message(random);
    for (std::size_t length = 0; length < whole.size(); ++length) {
      const std::vector<std::byte> part(whole.begin(),
                                        whole.begin() + static_cast<std::ptrdiff_t>(length));
      std::error_code ec;
      EXPECT_FALSE(decode(part, ec));
      EXPECT_EQ(ec == error::truncated, length != 0);
    }
  }
}

TEST(nft_codec, both_ways_of_numbering_registers_mean_the_same_bytes) {
  const auto compared = [](std::uint32_t number) {
    nft_attributes data;
    data.put32(NFTA_CMP_SREG, number).put32(NFTA_CMP_OP, 0).nest(NFTA_CMP_DATA, four_bytes());
    return std::get<expressions::compare>(only_expression(rule_with("cmp", data)).content).from;
  };
  EXPECT_EQ(compared(NFT_REG_1), 0);
  EXPECT_EQ(compared(NFT_REG_2), 16);
  EXPECT_EQ(compared(NFT_REG32_00), 0);
  EXPECT_EQ(compared(NFT_REG32_04), 16);
  EXPECT_EQ(compared(NFT_REG32_15), 60);
}

TEST(nft_codec, a_register_that_does_not_exist_or_ends_too_early_is_malformed) {
  const auto with = [](std::uint32_t number, std::size_t size) {
    nft_attributes data, value;
    value.put(NFTA_DATA_VALUE, std::vector<std::byte>(size));
    data.put32(NFTA_CMP_SREG, number).put32(NFTA_CMP_OP, 0).nest(NFTA_CMP_DATA, value);
    return rule_with("cmp", data);
  };
  EXPECT_EQ(error_of(with(5, 4)), error::malformed);
  EXPECT_EQ(error_of(with(24, 4)), error::malformed);
  EXPECT_EQ(error_of(with(NFT_REG32_15, 8)), error::malformed);
  EXPECT_EQ(error_of(with(NFT_REG_VERDICT, 4)), error::malformed);
  EXPECT_EQ(error_of(with(NFT_REG_1, 0)), error::malformed);
}

TEST(nft_codec, an_attribute_that_is_not_known_makes_the_expression_one_not_understood) {
  nft_attributes data;
  data.put32(NFTA_CMP_SREG, 1).put32(NFTA_CMP_OP, 0).nest(NFTA_CMP_DATA, four_bytes());
  data.put32(77, 1);
  const auto found = only_expression(rule_with("cmp", data));
  EXPECT_EQ(found.name, "cmp");
  EXPECT_TRUE(std::holds_alternative<expressions::other>(found.content));
}

TEST(nft_codec, a_rule_chain_or_set_with_an_attribute_that_is_not_known_says_so) {
  std::error_code ec;
  nft_attributes rule_attributes, chain_attributes, set_attributes;
  rule_attributes.text(NFTA_RULE_TABLE, "t").text(NFTA_RULE_CHAIN, "c").put32(99, 1);
  chain_attributes.text(NFTA_CHAIN_TABLE, "t").text(NFTA_CHAIN_NAME, "c").put32(99, 1);
  set_attributes.text(NFTA_SET_TABLE, "t").text(NFTA_SET_NAME, "s").put32(NFTA_SET_KEY_LEN, 4);
  set_attributes.put32(99, 1);
  EXPECT_TRUE(
      std::get<rule>(
          decode_whole(nft_message(NFT_MSG_NEWRULE, 1, 1, 0, rule_attributes), ec).value().message)
          .not_understood);
  EXPECT_TRUE(
      std::get<chain>(decode_whole(nft_message(NFT_MSG_NEWCHAIN, 1, 1, 0, chain_attributes), ec)
                          .value()
                          .message)
          .not_understood);
  EXPECT_TRUE(
      std::get<set>(
          decode_whole(nft_message(NFT_MSG_NEWSET, 1, 1, 0, set_attributes), ec).value().message)
          .not_understood);
}

TEST(nft_codec, what_has_no_name_is_malformed) {
  for (const int type : {NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
                         NFT_MSG_NEWSETELEM, NFT_MSG_NEWGEN})
    EXPECT_EQ(error_of(nft_message(static_cast<std::uint8_t>(type), 1, 1, 0, {})), error::malformed)
        << type;
}

TEST(nft_codec, a_rule_whose_position_is_cut_is_an_error_and_no_message) {
  nft_attributes cut;
  cut.text(NFTA_RULE_TABLE, "t").text(NFTA_RULE_CHAIN, "c").put32(NFTA_RULE_POSITION, 1);
  const auto told = nft_message(NFT_MSG_NEWRULE, 1, 1, 0, cut);
  EXPECT_TRUE(error_of(told));
  std::error_code ec;
  EXPECT_FALSE(decode_change(told, ec));
  EXPECT_TRUE(ec);
}

TEST(nft_codec, messages_of_other_subsystems_and_removals_are_none_of_ours) {
  std::error_code ec;
  EXPECT_FALSE(decode_whole(nft_message(NFT_MSG_DELTABLE, 1, 1, 0, {}), ec));
  EXPECT_FALSE(ec);
}

// ---- the reader ---------------------------------------------------------------------------------

/// A rule's handle, and that of the one before it.
struct told_rule {
  std::uint64_t handle = 0, position = 0;
};
using told_rules = std::vector<told_rule>;

std::vector<std::byte> be64(std::uint64_t value) {
  std::vector<std::byte> out(sizeof value);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = std::byte(value >> (56 - 8 * i));
  return out;
}

/// Answers a reader's requests as a kernel with one table would, at a generation.
class kernel {
 public:
  std::uint32_t generation = 7;
  std::uint16_t dump_flags = 0;
  int chains_seen = 0, rules_seen = 0, settled = 0;
  /// What its chain has, as one dump of rules after the other tells; the last tells so for ever.
  std::vector<told_rules> dumps{{}};
  /// Elements that its set has, as each dump tells, if it has a set; and the set's flags.
  std::function<std::uint32_t()> element;
  std::uint32_t set_flags = 0;

  void answer(reader& to, const std::vector<std::byte>& request) {
    nlmsghdr header;
    std::memcpy(&header, request.data(), sizeof header);
    if (header.nlmsg_type == NFNL_MSG_BATCH_BEGIN) {
      EXPECT_FALSE(to.waits());
      ++settled;
      return;
    }
    const int type = header.nlmsg_type & 0xff;
    const auto low = static_cast<std::uint16_t>(generation);
    const auto send = [&](std::uint8_t kind, const nft_attributes& content) {
      to.on_datagram(nft_message(kind, 1, low, header.nlmsg_seq, content));
    };
    if (type == NFT_MSG_GETGEN)
      return send(NFT_MSG_NEWGEN, nft_attributes().put32(NFTA_GEN_ID, generation));
    if (type == NFT_MSG_GETTABLE) {
      EXPECT_GT(settled, chains_seen);  // What was under way had ended before.
      send(NFT_MSG_NEWTABLE, nft_attributes().text(NFTA_TABLE_NAME, "t"));
    }
    if (type == NFT_MSG_GETCHAIN) {
      ++chains_seen;
      send(NFT_MSG_NEWCHAIN,
           nft_attributes().text(NFTA_CHAIN_TABLE, "t").text(NFTA_CHAIN_NAME, "c"));
    }
    if (type == NFT_MSG_GETRULE) {
      const auto which = std::min(static_cast<std::size_t>(rules_seen++), dumps.size() - 1);
      for (const told_rule& one : dumps[which]) {
        nft_attributes rule;
        rule.text(NFTA_RULE_TABLE, "t").text(NFTA_RULE_CHAIN, "c");
        rule.put(NFTA_RULE_HANDLE, be64(one.handle));
        if (one.position != 0) rule.put(NFTA_RULE_POSITION, be64(one.position));
        send(NFT_MSG_NEWRULE, rule);
      }
    }
    if (type == NFT_MSG_GETSET && element)
      send(NFT_MSG_NEWSET, nft_attributes()
                               .text(NFTA_SET_TABLE, "t")
                               .text(NFTA_SET_NAME, "s")
                               .put32(NFTA_SET_KEY_LEN, 4)
                               .put32(NFTA_SET_FLAGS, set_flags));
    if (type == NFT_MSG_GETSETELEM) {
      const auto key = nft_attributes().put32(NFTA_DATA_VALUE, element());
      const auto one = nft_attributes().nest(NFTA_SET_ELEM_KEY, key);
      send(NFT_MSG_NEWSETELEM,
           nft_attributes()
               .text(NFTA_SET_ELEM_LIST_TABLE, "t")
               .text(NFTA_SET_ELEM_LIST_SET, "s")
               .nest(NFTA_SET_ELEM_LIST_ELEMENTS, nft_attributes().nest(NFTA_LIST_ELEM, one)));
    }
    const nlmsghdr end{sizeof end, NLMSG_DONE, dump_flags, header.nlmsg_seq, 0};
    to.on_datagram(std::as_bytes(std::span(&end, 1)));
  }
};

TEST(nft_reader, reads_all_again_when_the_generation_moved) {
  kernel peer;
  reader reading;
  reading.start();
  bool moved = false;
  while (const auto request = reading.next_request()) {
    peer.answer(reading, *request);
    if (peer.chains_seen == 1 && !std::exchange(moved, true)) ++peer.generation;
  }
  EXPECT_TRUE(reading.done());
  EXPECT_FALSE(reading.error()) << reading.error().message();
  EXPECT_EQ(reading.result().generation, 8u);
  EXPECT_EQ(reading.result().tables.size(), 1u);
  EXPECT_EQ(peer.chains_seen, 3);  // The last two told the same.
}

/// Reads to the end, without error.
ruleset read_all(kernel& peer) {
  reader reading;
  reading.start();
  while (const auto request = reading.next_request()) peer.answer(reading, *request);
  EXPECT_FALSE(reading.error()) << reading.error().message();
  return reading.result();
}

std::vector<std::uint64_t> handles_in(const ruleset& in) {
  std::vector<std::uint64_t> out;
  for (const rule& one : in.chains.at({family::inet, "t", "c"}).rules) out.push_back(one.handle);
  return out;
}

// As dumps come out that go on by counting while a transaction is undone: its rules were linked
// before, and are not any more, or the other way round.
TEST(nft_reader, reads_again_where_a_rule_does_not_follow_the_one_before_it) {
  const told_rules whole{{1, 0}, {2, 1}, {3, 2}};
  for (const told_rules& wrong : {told_rules{{1, 0}, {3, 2}}, told_rules{{2, 1}, {3, 2}},
                                  told_rules{{1, 0}, {2, 1}, {2, 1}, {3, 2}},
                                  told_rules{{1, 0}, {2, 1}, {3, 2}, {1, 0}, {2, 1}, {3, 2}}}) {
    kernel peer;
    peer.dumps = {wrong, wrong, whole};
    EXPECT_EQ(handles_in(read_all(peer)), (std::vector<std::uint64_t>{1, 2, 3}));
    EXPECT_EQ(peer.rules_seen, 4);
  }
}

TEST(nft_reader, reads_again_where_the_end_of_a_chain_was_left_out) {
  const told_rules whole{{1, 0}, {2, 1}, {3, 2}};
  kernel peer;
  peer.dumps = {{{1, 0}, {2, 1}}, whole};
  EXPECT_EQ(handles_in(read_all(peer)), (std::vector<std::uint64_t>{1, 2, 3}));
  EXPECT_EQ(peer.rules_seen, 3);
}

TEST(nft_reader, reads_again_where_elements_differ_but_of_sets_that_change_by_themselves) {
  std::uint32_t dumps = 0;
  for (const std::uint32_t flags : {0u, std::uint32_t{set_timeout}, std::uint32_t{set_eval}}) {
    kernel peer;
    dumps = 0;
    peer.set_flags = flags;
    peer.element = [&] { return std::min(++dumps, 5u); };
    static_cast<void>(read_all(peer));
    EXPECT_EQ(dumps, flags == 0 ? 6u : 2u);
  }
}

TEST(nft_reader, gives_up_on_a_ruleset_that_never_keeps_still) {
  kernel peer;
  reader reading;
  reading.start();
  while (const auto request = reading.next_request()) {
    ++peer.generation;
    peer.answer(reading, *request);
  }
  EXPECT_EQ(reading.error(), error::interrupted_dump);
  EXPECT_TRUE(reading.result().empty());
}

TEST(nft_reader, an_interrupted_dump_is_read_again) {
  kernel peer;
  peer.dump_flags = NLM_F_DUMP_INTR;
  reader reading;
  reading.start();
  for (int i = 0; i < 3; ++i) peer.answer(reading, reading.next_request().value());
  peer.dump_flags = 0;
  while (const auto request = reading.next_request()) peer.answer(reading, *request);
  EXPECT_FALSE(reading.error());
  EXPECT_EQ(reading.result().tables.size(), 1u);
}

TEST(nft_reader, what_lies_ends_it_with_an_error_and_without_a_ruleset) {
  kernel peer;
  reader reading;
  reading.start();
  for (int i = 0; i < 2; ++i) peer.answer(reading, reading.next_request().value());
  const auto request = reading.next_request().value();
  nlmsghdr header;
  std::memcpy(&header, request.data(), sizeof header);
  reading.on_datagram(nft_message(NFT_MSG_NEWTABLE, 1, 7, header.nlmsg_seq, {}));
  EXPECT_TRUE(reading.done());
  EXPECT_EQ(reading.error(), error::malformed);
  EXPECT_TRUE(reading.result().empty());
}

}  // namespace
}  // namespace cowire::netlink::nft
