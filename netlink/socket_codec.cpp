// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/detail/request_builder.hpp>
#include <cowire/netlink/socket_codec.hpp>

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>

#include <cstring>

namespace cowire::netlink {

using namespace detail;

std::vector<std::byte> udp_sockets_request(int domain, be16 port, std::uint32_t sequence) {
  request_builder out(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, sequence);
  inet_diag_req_v2 which{};
  which.sdiag_family = static_cast<std::uint8_t>(domain);
  which.sdiag_protocol = IPPROTO_UDP;
  which.idiag_states = ~0u;
  std::memcpy(&which.id.idiag_sport, &port, sizeof port);
  out.header(which);
  return out.finish();
}

std::optional<udp_socket> decode_udp_socket(const envelope& answer, std::error_code& ec) {
  if (answer.type != SOCK_DIAG_BY_FAMILY) return std::nullopt;
  byte_span rest = answer.bytes.subspan(sizeof(nlmsghdr));
  inet_diag_msg fixed{};
  if (!take(rest, fixed, ec)) return std::nullopt;
  udp_socket out;
  out.cookie = std::uint64_t{fixed.id.idiag_cookie[1]} << 32 | fixed.id.idiag_cookie[0];
  for_each_attribute(rest, ec, [&](const attribute& a) {
    if (a.type == INET_DIAG_CGROUP_ID) read(a, out.control_group, ec);
  });
  if (ec) return std::nullopt;
  return out;
}

}  // namespace cowire::netlink
