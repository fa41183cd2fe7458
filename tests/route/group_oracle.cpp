// SPDX-License-Identifier: Apache-2.0
#include "group_oracle.hpp"

#include "class_socket.hpp"

#include <cowire/base/socket_address.hpp>

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

namespace cowire::testing {
namespace {

constexpr std::uint16_t group_port = 9000;  // That rules look at, too.

/// Number and device of the next datagram that a socket of this host has heard.
std::optional<std::pair<std::uint32_t, std::uint32_t>> next_heard(int fd) {
  std::uint32_t number = 0;
  iovec part{&number, sizeof number};
  alignas(cmsghdr) char control[128];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (::recvmsg(fd, &message, 0) != sizeof number) return std::nullopt;
  std::uint32_t device = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    in_pktinfo v4{};
    in6_pktinfo v6{};
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      std::memcpy(&v4, CMSG_DATA(c), sizeof v4);
      device = static_cast<std::uint32_t>(v4.ipi_ifindex);
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
      std::memcpy(&v6, CMSG_DATA(c), sizeof v6);
      device = v6.ipi6_ifindex;
    }
  }
  return std::pair(number, device);
}

struct sighting {
  std::uint32_t number = 0;
  group_oracle::answer::frame frame;
};

/// Of a packet without link header.
std::optional<sighting> seen_in(std::span<const std::uint8_t> packet) {
  constexpr std::size_t udp = 8;
  if (packet.size() < 20) return std::nullopt;
  const bool v4 = packet[0] >> 4 == 4;
  const std::size_t headers = v4 ? 4u * (packet[0] & 15u) : 40;
  if (packet.size() < headers + udp + sizeof(std::uint32_t) || packet[v4 ? 9 : 6] != IPPROTO_UDP)
    return std::nullopt;
  if ((packet[headers + 2] << 8 | packet[headers + 3]) != group_port) return std::nullopt;
  sighting seen;
  std::memcpy(&seen.number, &packet[headers + udp], sizeof seen.number);
  seen.frame.source =
      ip_address::from_bytes(v4 ? ip_family::v4 : ip_family::v6, &packet[v4 ? 12 : 8]);
  seen.frame.hop_limit = packet[v4 ? 8 : 7];
  return seen;
}

}  // namespace

group_oracle::group_oracle() {
  for (const ip_family family : ip_families) {
    const bool v4 = family == ip_family::v4;
    unique_fd& fd = ears_[static_cast<std::size_t>(family)];
    fd.reset(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!v4) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
    set_option(fd.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_PKTINFO : IPV6_RECVPKTINFO, 1);
    static_cast<void>(bind_to(fd.get(), {ip_address::any(family), group_port, 0}));
  }
  packets_.reset(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL)));
  set_option(packets_.get(), SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20);
}

std::vector<std::optional<group_oracle::answer>> group_oracle::ask(
    const std::vector<flow>& questions) {
  std::vector<std::optional<answer>> answers(questions.size());
  // Whatever else has come meanwhile is none of ours.
  char room[2048];
  for (const int fd : {ears_[0].get(), ears_[1].get(), packets_.get()})
    while (::recv(fd, room, sizeof room, 0) >= 0) continue;
  for (std::uint32_t number = 0; number < questions.size(); ++number) {
    const flow& question = questions[number];
    const unique_fd fd = open_socket(question.cls, question.destination.family());
    if (!fd) continue;
    answer& one = answers[number].emplace();
    sockaddr_storage name{};
    const socklen_t size = to_sockaddr({question.destination, group_port, 0}, name);
    if (::sendto(fd.get(), &number, sizeof number, 0, reinterpret_cast<const sockaddr*>(&name),
                 size) < 0)
      one.error = errno;
  }
  collect(answers);
  return answers;
}

/// Until nothing comes any more. Copies and frames are there when sendto() returns, but where the
/// kernel puts such work off, for which there is some patience.
void group_oracle::collect(std::vector<std::optional<answer>>& answers) {
  constexpr int patience_ms = 20;
  const auto of = [&](std::uint32_t number) -> answer* {
    return number < answers.size() && answers[number] ? &*answers[number] : nullptr;
  };
  std::uint8_t room[2048];
  for (;;) {
    pollfd waiting[] = {
        {ears_[0].get(), POLLIN, 0}, {ears_[1].get(), POLLIN, 0}, {packets_.get(), POLLIN, 0}};
    if (::poll(waiting, std::size(waiting), patience_ms) <= 0) return;
    for (const unique_fd& ear : ears_)
      while (const auto heard = next_heard(ear.get()))
        if (answer* one = of(heard->first)) one->heard.insert(heard->second);
    sockaddr_ll from{};
    socklen_t size = sizeof from;
    for (ssize_t got; (got = ::recvfrom(packets_.get(), room, sizeof room, 0,
                                        reinterpret_cast<sockaddr*>(&from), &size)) >= 0;) {
      if (from.sll_pkttype != PACKET_OUTGOING) continue;
      const auto seen = seen_in({room, static_cast<std::size_t>(got)});
      if (answer* one = seen ? of(seen->number) : nullptr)
        one->left[static_cast<std::uint32_t>(from.sll_ifindex)] = seen->frame;
    }
  }
}

bool is_comparable(const resolution& ours) {
  const bool told = !ours.divert || *ours.divert == divert_reason::multicast_member ||
                    *ours.divert == divert_reason::no_source_address;
  if (!told) return false;
  if (ours.error != 0) return true;
  return ours.type == RTN_MULTICAST && ours.members.size() == 1 && !ours.members.front().gateway;
}

namespace {

/// Whether what is looped back would be heard: it is routed anew, and an IPv6 route that is not to
/// groups has it forwarded (ip6_rt_init_dst() in net/ipv6/route.c), as where no rule leads to the
/// local table.
bool would_be_heard(const resolution& ours) {
  return !ours.route || ours.route->destination.address().is_v4() ||
         ours.route->destination.address().is_multicast();
}

/// A copy for this host is received on the device that it would leave by. A bond takes over what
/// its slaves receive, or drops it (bond_handle_frame() in drivers/net/bonding/bond_main.c).
std::string copy_disagreement(const mirror& state, const resolution& ours,
                              const group_oracle::answer& kernel) {
  const bool copy = ours.divert == divert_reason::multicast_member;
  const mirror::device* device = state.find_device(ours.interface_index);
  const bool enslaved = device != nullptr && device->link.master != 0;
  const bool heard = enslaved ? !kernel.heard.empty() : kernel.heard.contains(ours.interface_index);
  if (copy && (enslaved || (!heard && !would_be_heard(ours)))) return {};
  // Nobody hears anything on a device that is down, and nothing leaves there.
  if (copy == heard || (!heard && kernel.left.empty())) return {};
  return std::string("copy ") + (copy ? "" : "not ") + "expected, and the socket's was " +
         (copy ? "not " : "") + "heard";
}

}  // namespace

std::string group_disagreement(const mirror& state, const flow& question, const resolution& ours,
                               const group_oracle::answer& kernel) {
  int error = ours.error;
  if (error == 0 && !ours.source && question.destination.is_v6()) error = EADDRNOTAVAIL;
  if (error != kernel.error)
    return "errno " + std::to_string(error) + ", the socket's " + std::to_string(kernel.error);
  if (error != 0) return {};
  if (std::string differs = copy_disagreement(state, ours, kernel); !differs.empty())
    return differs;
  if (kernel.left.empty()) return {};  // The device has no carrier.
  const auto at = kernel.left.find(ours.interface_index);
  if (at == kernel.left.end())
    return "device " + std::to_string(ours.interface_index) + ", the socket's " +
           std::to_string(kernel.left.begin()->first);
  if (ours.source && at->second.source != *ours.source)
    return "source " + ours.source->to_string() + ", the socket's " + at->second.source.to_string();
  // IPv4 groups with a route of their own may share the kernel's answer about another destination.
  const bool shared =
      question.destination.is_v4() && ours.route && ours.route->destination.length() >= 4;
  if (!shared && at->second.hop_limit != ours.hop_limit)
    return "ttl " + std::to_string(ours.hop_limit) + ", the socket's " +
           std::to_string(at->second.hop_limit);
  return {};
}

}  // namespace cowire::testing
