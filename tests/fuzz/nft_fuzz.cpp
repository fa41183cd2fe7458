// SPDX-License-Identifier: Apache-2.0
// An input is what a kernel answers to a reader of rulesets: pieces of one byte how, two bytes
// length (little endian) and as many bytes of netlink. Each message is also decoded on its own.
#include "tests/fuzz/fuzz_target.hpp"

#include "tests/netlink/random_nft_message.hpp"

#include <cowire/base/assert.hpp>
#include <cowire/netlink/hook_codec.hpp>
#include <cowire/netlink/nft_reader.hpp>
#include <cowire/netlink/socket_codec.hpp>
#include <cowire/netlink/tc_codec.hpp>
#include <cowire/netlink/xfrm_codec.hpp>

#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/xfrm.h>

#include <algorithm>
#include <cstring>
#include <span>

namespace {

using namespace cowire;
using namespace cowire::netlink;
using bytes_of = std::vector<std::byte>;

/// What else the output path is read from, whatever type the message says it has.
void check_others(envelope e) {
  static constexpr std::uint16_t types[] = {
      NFNL_SUBSYS_HOOK << 8, XFRM_MSG_NEWSPDINFO, 0x28,           XFRM_MSG_NEWPOLICY,
      XFRM_MSG_DELPOLICY,    RTM_NEWQDISC,        RTM_NEWTFILTER, SOCK_DIAG_BY_FAMILY};
  for (const std::uint16_t type : types) {
    e.type = type;
    std::error_code ec;
    const bool any = decode_hook(e, ec) || decode_xfrm_counts(e, ec) ||
                     decode_xfrm_default_blocks(e, ec) || decode_xfrm_change(e, ec) ||
                     decode_discipline(e, ec) || !filter_text(e).empty() ||
                     decode_udp_socket(e, ec);
    COWIRE_ASSERT(!(any && ec));
  }
}

void check_decode(std::span<const std::byte> datagram) {
  std::error_code ec;
  while (const auto e = next_envelope(datagram, ec)) {
    const auto one = nft::decode(e->bytes, ec);
    COWIRE_ASSERT(!(one && ec));
    check_others(*e);
  }
}

/// A reader, and what it asked last.
class conversation {
 public:
  conversation() { reader_.start(); }
  void answer(std::uint8_t how, bytes_of content) {
    if (const auto request = reader_.next_request()) {
      nlmsghdr header;
      std::memcpy(&header, request->data(), sizeof header);
      sequence_ = header.nlmsg_seq;
    }
    if (how % 8 == 7) reader_.on_loss();
    if (how % 4 != 3) make_it_fit(content);
    reader_.on_datagram(content);
    if (how % 2 == 0 && reader_.waits()) {
      const nlmsghdr done{sizeof done, NLMSG_DONE, NLM_F_MULTI, sequence_, 0};
      reader_.on_datagram(std::as_bytes(std::span(&done, 1)));
    }
    // Either there is something to wait for, or something to ask, or it ended.
    COWIRE_ASSERT(!reader_.done() || !reader_.waits());
    COWIRE_ASSERT(!reader_.error() || reader_.result().empty());
  }

 private:
  void make_it_fit(bytes_of& content) const {
    std::span<const std::byte> rest = content;
    std::error_code ec;
    while (const auto e = next_envelope(rest, ec)) {
      const auto at = static_cast<std::size_t>(e->bytes.data() - content.data());
      std::memcpy(content.data() + at + offsetof(nlmsghdr, nlmsg_seq), &sequence_,
                  sizeof sequence_);
    }
  }
  nft::reader reader_;
  std::uint32_t sequence_ = 0;
};

}  // namespace

std::vector<std::uint8_t> cowire::test::fuzz_seed(std::mt19937_64& random) {
  std::vector<std::uint8_t> input;
  for (auto pieces = 1 + random() % 10; pieces > 0; --pieces) {
    bytes_of content;
    for (auto messages = random() % 4; messages > 0; --messages) {
      const bytes_of one = random_nft_message(random);
      content.insert(content.end(), one.begin(), one.end());
    }
    const auto size = content.size();
    input.insert(input.end(), {static_cast<std::uint8_t>(random()), static_cast<std::uint8_t>(size),
                               static_cast<std::uint8_t>(size >> 8)});
    for (const std::byte b : content) input.push_back(static_cast<std::uint8_t>(b));
  }
  return input;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::span<const std::byte> rest = std::as_bytes(std::span(data, size));
  conversation talk;
  while (rest.size() >= 3) {
    const auto how = static_cast<std::uint8_t>(rest[0]);
    const auto length = static_cast<std::size_t>(rest[1]) | static_cast<std::size_t>(rest[2]) << 8;
    rest = rest.subspan(3);
    const auto content = rest.first(std::min(length, rest.size()));
    rest = rest.subspan(content.size());
    // A copy of its own, so that a sanitizer sees a read past its end.
    const bytes_of copy(content.begin(), content.end());
    check_decode(copy);
    talk.answer(how, copy);
  }
  return 0;
}
