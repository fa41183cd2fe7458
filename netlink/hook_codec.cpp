// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/detail/request_builder.hpp>
#include <cowire/netlink/hook_codec.hpp>

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_hook.h>
#include <sys/socket.h>

namespace cowire::netlink {

using namespace detail;

std::vector<std::byte> hook_request(ip_family family, std::uint32_t hook, std::uint32_t sequence) {
  request_builder out(NFNL_SUBSYS_HOOK << 8 | NFNL_MSG_HOOK_GET, NLM_F_DUMP, sequence);
  nfgenmsg generic{};
  generic.nfgen_family = family == ip_family::v4 ? AF_INET : AF_INET6;
  generic.version = NFNETLINK_V0;
  out.header(generic);
  out.attribute(NFNLA_HOOK_HOOKNUM, be32::from_host(hook));
  return out.finish();
}

std::optional<hook_function> decode_hook(const envelope& answer, std::error_code& ec) {
  if (answer.type != (NFNL_SUBSYS_HOOK << 8 | NFNL_MSG_HOOK_GET)) return std::nullopt;
  byte_span rest = answer.bytes.subspan(sizeof(nlmsghdr));
  nfgenmsg generic{};
  if (!take(rest, generic, ec)) return std::nullopt;
  hook_function out;
  for_each_attribute(rest, ec, [&](const attribute& a) {
    if (a.type == NFNLA_HOOK_FUNCTION_NAME) read(a, out.name, ec);
    if (a.type == NFNLA_HOOK_PRIORITY) {
      be32 priority;
      read(a, priority, ec);
      out.priority = static_cast<std::int32_t>(priority.host());
    }
  });
  if (ec) return std::nullopt;
  return out;
}

}  // namespace cowire::netlink
