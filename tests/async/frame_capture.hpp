// SPDX-License-Identifier: Apache-2.0
/// Frames on a link, made comparable: the same payload through a kernel UDP socket and through
/// cowire has to give the same bytes, IP identifications aside, which the kernel picks at random.
#pragma once

#include <tests/support/frame_reader.hpp>
#include <tests/support/two_hosts.hpp>

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>

#include <algorithm>
#include <string>

namespace cowire::test {

inline constexpr std::uint16_t captured_port = 9000;

/// What arrives at an interface for UDP port captured_port, in tunnels or not.
class capture {
 public:
  capture(const netns& in, const char* device) {
    const netns::scope inside(in);
    fd_.reset(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    const int room = 64 << 20;
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    const int yes = 1;
    ::setsockopt(fd_.get(), SOL_PACKET, PACKET_AUXDATA, &yes, sizeof yes);
    sockaddr_ll name{};
    name.sll_family = AF_PACKET;
    name.sll_protocol = htons(ETH_P_ALL);
    name.sll_ifindex = static_cast<int>(::if_nametoindex(device));
    if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0)
      throw_error(errno_code(errno), "capture");
  }
  /// The next frame in comparable form; empty when none came.
  std::string next(std::chrono::milliseconds timeout = patience) {
    for (;;) {
      pollfd readable{fd_.get(), POLLIN, 0};
      if (::poll(&readable, 1, static_cast<int>(timeout.count())) <= 0) return {};
      std::string frame = read();
      if (frame.empty()) continue;
      if (frame_reader(frame).udp_port() == captured_port) return frame;
    }
  }
  /// The next frame as it is, whatever it is; empty when none came.
  std::string any(std::chrono::milliseconds timeout) {
    for (;;) {
      pollfd readable{fd_.get(), POLLIN, 0};
      if (::poll(&readable, 1, static_cast<int>(timeout.count())) <= 0) return {};
      if (std::string frame = read(); !frame.empty()) return frame;
    }
  }

 private:
  /// Empty for what leaves the interface. The kernel has taken a VLAN tag out; it is put back.
  std::string read() {
    sockaddr_ll from{};
    char bytes[4096], control[256];
    iovec room{bytes, sizeof bytes};
    msghdr message{&from, sizeof from, &room, 1, control, sizeof control, 0};
    const auto n = ::recvmsg(fd_.get(), &message, 0);
    if (n <= 0 || from.sll_pkttype == PACKET_OUTGOING) return {};
    std::string frame(bytes, static_cast<std::size_t>(n));
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) continue;
      tpacket_auxdata told{};
      std::memcpy(&told, CMSG_DATA(c), sizeof told);
      put_tag_back(frame, told);
    }
    return frame;
  }

  unique_fd fd_;
};

/// A payload whose bytes differ from place to place and from size to size.
inline std::string patterned(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 37 + size);
  return text;
}

struct sending_options {
  int tos = 0, ttl = 0;
  std::string source{};
  std::uint16_t port = 8001;
  std::string device{};  ///< Bound to it; "" = to none.
};

/// A UDP socket with these options, as an application has it.
class kernel_sender {
 public:
  kernel_sender(ip_family family, const sending_options& o) {
    const bool v4 = family == ip_family::v4;
    fd_.reset(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const auto from = o.source.empty() ? ip_address::any(family) : *ip_address::parse(o.source);
    const auto set = [&](int level, int name, int value) {
      EXPECT_EQ(0, ::setsockopt(fd_.get(), level, name, &value, sizeof value));
    };
    if (o.tos != 0) set(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, o.tos);
    if (o.ttl != 0) set(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TTL : IPV6_UNICAST_HOPS, o.ttl);
    if (!v4) set(IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (!o.device.empty()) {
      EXPECT_EQ(0, ::setsockopt(fd_.get(), SOL_SOCKET, SO_BINDTODEVICE, o.device.c_str(),
                                static_cast<socklen_t>(o.device.size())));
    }
    const raw_address bind_to({from, o.port});
    EXPECT_EQ(0, ::bind(fd_.get(), bind_to.name(), bind_to.size));
  }
  /// Errors of earlier datagrams come up here; they are not this one's.
  void send(const endpoint& destination, const std::string& text) const {
    const raw_address there(destination);
    for (int attempt = 0; attempt < 3; ++attempt)
      if (::sendto(fd_.get(), text.data(), text.size(), 0, there.name(), there.size) ==
          static_cast<ssize_t>(text.size()))
        return;
    ADD_FAILURE() << "sendto " << destination.to_string() << ": " << errno_name(errno);
  }

 private:
  unique_fd fd_;
};

inline sender_options as_sender(const sending_options& o) {
  sender_options wanted{.source_port = o.port,
                        .tos = static_cast<std::uint8_t>(o.tos),
                        .ttl = static_cast<std::uint8_t>(o.ttl)};
  wanted.bound_device = o.device;
  if (!o.source.empty()) {
    const auto source = *ip_address::parse(o.source);
    (source.is_v4() ? wanted.source_v4 : wanted.source_v6) = source;
  }
  return wanted;
}

}  // namespace cowire::test
