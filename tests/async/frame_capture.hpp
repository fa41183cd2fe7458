// SPDX-License-Identifier: Apache-2.0
/// Frames on a link, made comparable: the same payload through a kernel UDP socket and through
/// cowire has to give the same bytes, IP identifications aside, which the kernel picks at random.
#pragma once

#include <cowire/base/checksum.hpp>
#include <cowire/gre/header.hpp>

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
/// Datagrams to this port carry GRE (FOU).
inline constexpr std::uint16_t gre_in_udp_port = 5556;

/// Walks through link, IP, tunnel and UDP headers. Zeroes the identification and the checksum of
/// each IPv4 header after checking the latter.
class frame_reader {
 public:
  explicit frame_reader(std::string& frame) : frame_(frame) {}

  /// The destination port of the innermost UDP header, 0 where there is none.
  std::uint16_t udp_port() {
    std::size_t at = 12;
    while (word(at) == 0x8100 || word(at) == 0x88a8) at += 4;
    return after_type(word(at), at + 2);
  }

 private:
  [[nodiscard]] unsigned byte(std::size_t at) const {
    return at < frame_.size() ? static_cast<unsigned char>(frame_[at]) : 0u;
  }
  [[nodiscard]] unsigned word(std::size_t at) const { return byte(at) << 8 | byte(at + 1); }

  std::uint16_t after_type(unsigned type, std::size_t at) {
    const std::size_t length = 4 * (byte(at) & 15);  // IGMP comes with an option.
    if (type == gre::protocol_ipv4 && length >= 20 && at + length <= frame_.size()) {
      const auto header = std::as_bytes(std::span(frame_).subspan(at, length));
      EXPECT_EQ(0, finish_sum(sum_bytes(header))) << "IPv4 header checksum";
      for (const std::size_t i : {4u, 5u, 10u, 11u}) frame_[at + i] = 0;
      if ((word(at + 6) & 0x3fff) != 0) return 0;  // A fragment.
      return after_protocol(byte(at + 9), at + length);
    }
    if (type == gre::protocol_ipv6 && at + 40 <= frame_.size())
      return after_protocol(byte(at + 6), at + 40);
    if (type == gre::protocol_ethernet) return after_type(word(at + 12), at + 14);
    return 0;
  }

  std::uint16_t after_protocol(unsigned protocol, std::size_t at) {
    switch (protocol) {
      case IPPROTO_UDP:
        if (word(at + 2) == gre_in_udp_port) return after_protocol(IPPROTO_GRE, at + 8);
        return static_cast<std::uint16_t>(word(at + 2));
      case IPPROTO_IPIP:
        return after_type(gre::protocol_ipv4, at);
      case IPPROTO_IPV6:
        return after_type(gre::protocol_ipv6, at);
      case IPPROTO_DSTOPTS:
        return after_protocol(byte(at), at + 8 * (byte(at + 1) + 1));
      case IPPROTO_GRE: {
        std::error_code ec;
        const auto decoded =
            gre::decode(std::as_bytes(std::span(frame_).subspan(std::min(at, frame_.size()))), ec);
        return decoded ? after_type(decoded->value.protocol, at + decoded->size) : std::uint16_t{0};
      }
      default:
        return 0;
    }
  }

  std::string& frame_;
};

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
      if ((told.tp_status & TP_STATUS_VLAN_VALID) == 0) continue;
      const be16 tag[2] = {be16::from_host(told.tp_vlan_tpid), be16::from_host(told.tp_vlan_tci)};
      frame.insert(12, reinterpret_cast<const char*>(tag), sizeof tag);
    }
    return frame;
  }

  unique_fd fd_;
};

inline std::string hex(const std::string& bytes) {
  std::string out;
  char two[3];
  for (std::size_t i = 0; i < std::min<std::size_t>(bytes.size(), 160); ++i) {
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(bytes[i]));
    out += two;
  }
  return out;
}

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
