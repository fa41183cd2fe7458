// SPDX-License-Identifier: Apache-2.0
#include "socket_oracle.hpp"

#include <cowire/base/unique_fd.hpp>

#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace cowire::testing {
namespace {

/// MSG_PROBE of include/linux/socket.h, which no header for programs has.
constexpr int probe_only = 0x10;

sockaddr_in6 name_of(const endpoint& e) {
  sockaddr_in6 name{};
  name.sin6_family = AF_INET6;
  name.sin6_port = htons(e.port);
  name.sin6_scope_id = e.scope_id;
  std::memcpy(&name.sin6_addr, e.address.bytes().data(), sizeof name.sin6_addr);
  return name;
}

const sockaddr* raw(const sockaddr_in6& name) { return reinterpret_cast<const sockaddr*>(&name); }

bool set(int fd, int level, int option, std::uint32_t value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

/// With everything that `cls` says, for the family of the destination.
unique_fd open_socket(const flow_class& cls, bool v4) {
  unique_fd fd(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  endpoint own{ip_address::any(ip_family::v6), cls.source_port, cls.output_interface};
  if (const auto& source = cls.source(v4 ? ip_family::v4 : ip_family::v6))
    own.address = v4 ? *ip_address::parse("::ffff:" + source->to_string()) : *source;
  const sockaddr_in6 name = name_of(own);
  const bool made =
      fd && set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0) &&
      set(fd.get(), SOL_SOCKET, SO_BROADCAST, 1) && set(fd.get(), SOL_SOCKET, SO_MARK, cls.mark) &&
      set(fd.get(), SOL_SOCKET, SO_BINDTOIFINDEX, cls.output_interface) &&
      set(fd.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, cls.tos) &&
      // A socket is its inode's owner's (sockfs_setattr() in net/socket.c).
      ::fchown(fd.get(), cls.uid, static_cast<gid_t>(-1)) == 0 &&
      ::bind(fd.get(), raw(name), sizeof name) == 0;
  return made ? std::move(fd) : unique_fd();
}

}  // namespace

std::optional<socket_answer> ask_socket(const asked_flow& asked) {
  const sockaddr_in6 to = name_of(asked.as_written);
  const unique_fd fd = open_socket(asked.question.cls, asked.question.destination.is_v4());
  if (!fd) return std::nullopt;
  socket_answer answer;
  if (::sendto(fd.get(), "", 0, MSG_CONFIRM | probe_only, raw(to), sizeof to) != 0)
    answer.error = errno;
  sockaddr_in6 own{};
  socklen_t size = sizeof own;
  if (::connect(fd.get(), raw(to), sizeof to) == 0 &&
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &size) == 0)
    answer.source = ip_address::from_bytes(ip_family::v6, &own.sin6_addr).unmapped();
  // What is leaked out of a VRF without addresses leaves with none.
  if (answer.source && answer.source->is_unspecified()) answer.source.reset();
  return answer;
}

flow flow_of_socket(const asked_flow& asked) {
  flow made = asked.question;
  const endpoint to = asked.as_written.canonical();
  made.destination = to.address;
  if (to.scope_id != 0) made.cls.output_interface = to.scope_id;
  if (to.address == ip_address::any(ip_family::v6)) made.destination = *ip_address::parse("::1");
  return made;
}

namespace {

/// Whether the flow has no source. Which next hop it takes is not always known, and the others may
/// have one or none: then `heard` decides, the errno of the socket.
bool lacks_source(const resolution& ours, int heard) {
  if (ours.members.empty()) return !ours.source;
  if (ours.choice_known) return !ours.members[ours.chosen].source;
  const auto has_one = [&](const path_share& share) {
    return !share.is_known() || ours.members[share.member].source.has_value();
  };
  if (std::ranges::none_of(ours.shares, has_one)) return true;
  return !std::ranges::all_of(ours.shares, has_one) && heard == EADDRNOTAVAIL;
}

}  // namespace

std::string socket_disagreement(const asked_flow& asked, const resolution& ours,
                                const socket_answer& kernel) {
  const ip_address& to = asked.question.destination;
  int error = ours.error;
  // ip6_dst_lookup_tail() in net/ipv6/ip6_output.c; IPv4 leaves it to who sends.
  if (error == 0 && to.is_v6() && lacks_source(ours, kernel.error)) error = EADDRNOTAVAIL;
  if (error != kernel.error)
    return "errno " + std::to_string(error) + ", the socket's " + std::to_string(kernel.error);
  if (ours.error != 0 || ours.type != RTN_UNICAST || !kernel.source ||
      asked.question.cls.source(to.family()))
    return {};
  const auto is_it = [&](const path_share& share) {
    return share.is_known() && ours.members[share.member].source == kernel.source;
  };
  const bool same = ours.members.empty() ? ours.source == kernel.source
                    : ours.choice_known  ? ours.members[ours.chosen].source == kernel.source
                                         : std::ranges::any_of(ours.shares, is_it);
  if (same) return {};
  return "source " + (ours.source ? ours.source->to_string() : "-") + ", the socket's " +
         kernel.source->to_string();
}

}  // namespace cowire::testing
