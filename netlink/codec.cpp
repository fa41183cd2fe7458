// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/detail/constants.hpp>
#include <cowire/netlink/detail/objects.hpp>

#include <linux/rtnetlink.h>

namespace cowire::netlink {

using namespace detail;

bool envelope::dump_interrupted() const noexcept { return (flags & NLM_F_DUMP_INTR) != 0; }

std::optional<envelope> next_envelope(std::span<const std::byte>& datagram,
                                      std::error_code& ec) noexcept {
  ec.clear();
  if (datagram.empty()) return std::nullopt;
  nlmsghdr header;
  byte_span rest = datagram;
  if (!take(rest, header, ec)) return std::nullopt;
  if (header.nlmsg_len < sizeof header) {
    ec = error::malformed;
    return std::nullopt;
  }
  if (header.nlmsg_len > datagram.size()) {
    ec = error::truncated;
    return std::nullopt;
  }
  const envelope result{header.nlmsg_type, header.nlmsg_flags, header.nlmsg_seq, header.nlmsg_pid,
                        datagram.first(header.nlmsg_len)};
  datagram = after(datagram, header.nlmsg_len);
  return result;
}

std::optional<completion> decode_completion(const envelope& answer, std::error_code& ec) {
  ec.clear();
  if (answer.type != NLMSG_DONE && answer.type != NLMSG_ERROR) return std::nullopt;
  byte_span rest = after(answer.bytes, sizeof(nlmsghdr));
  std::int32_t negative_errno = 0;
  // An old kernel's NLMSG_DONE may lack its number.
  if (!(answer.type == NLMSG_DONE && rest.empty()) && !take(rest, negative_errno, ec))
    return std::nullopt;
  if (negative_errno > 0 || negative_errno < -4095) {  // The kernel's MAX_ERRNO.
    ec = error::malformed;
    return std::nullopt;
  }
  completion result{-negative_errno, {}};
  if ((answer.flags & NLM_F_ACK_TLVS) == 0) return result;
  if (answer.type == NLMSG_ERROR) {
    nlmsghdr refused;  // The request comes back, whole unless NETLINK_CAP_ACK or success cut it.
    if (!take(rest, refused, ec)) return std::nullopt;
    if ((answer.flags & NLM_F_CAPPED) == 0 && refused.nlmsg_len > sizeof refused)
      rest = after(rest, refused.nlmsg_len - sizeof refused);
  }
  for_each_attribute(rest, ec, [&](const attribute& a) {
    if (a.type == NLMSGERR_ATTR_MSG) read(a, result.diagnostic, ec);
  });
  if (ec) return std::nullopt;
  return result;
}

std::optional<message> decode(std::span<const std::byte> bytes, std::error_code& ec) {
  const auto whole = next_envelope(bytes, ec);
  if (!whole) {
    if (!ec) ec = error::truncated;
    return std::nullopt;
  }
  const body in{whole->type, whole->flags, whole->bytes.subspan(sizeof(nlmsghdr))};
  switch (in.type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      return decode_link(in, ec);
    case RTM_NEWADDR:
    case RTM_DELADDR:
      return decode_address(in, ec);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      return decode_route(in, ec);
    case RTM_NEWRULE:
    case RTM_DELRULE:
      return decode_rule(in, ec);
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      return decode_neighbour(in, ec);
    case RTM_NEWNEXTHOP:
    case RTM_DELNEXTHOP:
      return decode_nexthop(in, ec);
    case RTM_NEWNEXTHOPBUCKET:
    case RTM_DELNEXTHOPBUCKET:
      return decode_nexthop_bucket(in, ec);
    case RTM_NEWNETCONF:
    case RTM_DELNETCONF:
      return decode_netconf(in, ec);
    case rtm_newmulticast:
    case rtm_delmulticast:
    case RTM_GETMULTICAST:  // What dumps of IPv6 are made of.
      return decode_membership(in, ec);
    default:
      return std::nullopt;
  }
}

std::vector<std::byte> encode(const message& m) {
  return std::visit([](const auto& object) { return encode_object(object); }, m);
}

}  // namespace cowire::netlink
