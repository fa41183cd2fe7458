// SPDX-License-Identifier: Apache-2.0
/// What datagrams choose for themselves, and a kernel's socket that is told the same.
#pragma once

#include <tests/async/frame_capture.hpp>

#include <cstring>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

namespace cowire::test {

/// A UDP socket whose datagrams choose by control messages.
class choosing_socket {
 public:
  choosing_socket(ip_family family, std::uint16_t port, int tos = 0, int ttl = 0)
      : v4_(family == ip_family::v4), tos_(tos) {
    fd_.reset(::socket(v4_ ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!v4_) set(IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (tos != 0) set(level(), v4_ ? IP_TOS : IPV6_TCLASS, tos);
    if (ttl != 0) set(level(), v4_ ? IP_TTL : IPV6_UNICAST_HOPS, ttl);
    const raw_address own({ip_address::any(family), port});
    EXPECT_EQ(0, ::bind(fd_.get(), own.name(), own.size));
  }
  void use_for_groups(std::uint32_t interface_index) {
    ip_mreqn request{};
    request.imr_ifindex = static_cast<int>(interface_index);
    if (v4_)
      EXPECT_EQ(0, ::setsockopt(fd_.get(), IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request));
    else
      set(IPPROTO_IPV6, IPV6_MULTICAST_IF, static_cast<int>(interface_index));
  }
  /// 0 or an errno.
  [[nodiscard]] int send(const endpoint& destination, const std::string& text,
                         const datagram_options& o) {
    used_ = 0;
    if (o.mark) add(SOL_SOCKET, SO_MARK, *o.mark);
    if (o.dscp || o.ecn) {
      int tos = tos_;
      if (o.dscp) tos = (tos & 3) | *o.dscp << 2;
      if (o.ecn) tos = (tos & 0xfc) | static_cast<int>(*o.ecn);
      add(level(), v4_ ? IP_TOS : IPV6_TCLASS, tos);
    }
    if (o.ttl != 0) add(level(), v4_ ? IP_TTL : IPV6_HOPLIMIT, int{o.ttl});
    if (o.source && v4_) {
      in_pktinfo info{};
      std::memcpy(&info.ipi_spec_dst, o.source->bytes().data(), 4);
      add(level(), IP_PKTINFO, info);
    } else if (o.source) {
      in6_pktinfo info{};
      std::memcpy(&info.ipi6_addr, o.source->bytes().data(), 16);
      add(level(), IPV6_PKTINFO, info);
    }
    const int probe = v4_ ? IP_PMTUDISC_PROBE : IPV6_PMTUDISC_PROBE;
    const int want = v4_ ? IP_PMTUDISC_WANT : IPV6_PMTUDISC_WANT;
    set(level(), v4_ ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, o.path_mtu_probe ? probe : want);
    return send_with_control(destination, text);
  }

 private:
  [[nodiscard]] int level() const { return v4_ ? IPPROTO_IP : IPPROTO_IPV6; }
  void set(int at, int name, int value) {
    EXPECT_EQ(0, ::setsockopt(fd_.get(), at, name, &value, sizeof value));
  }
  template <class Value>
  void add(int at, int type, const Value& value) {
    cmsghdr header{};
    header.cmsg_level = at;
    header.cmsg_type = type;
    header.cmsg_len = CMSG_LEN(sizeof value);
    std::memcpy(control_ + used_, &header, sizeof header);
    std::memcpy(control_ + used_ + CMSG_LEN(0), &value, sizeof value);
    used_ += CMSG_SPACE(sizeof value);
  }
  [[nodiscard]] int send_with_control(const endpoint& destination, const std::string& text) {
    raw_address there(destination);
    iovec part{const_cast<char*>(text.data()), text.size()};
    msghdr message{};
    message.msg_name = &there.storage;
    message.msg_namelen = there.size;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (used_ != 0) {
      message.msg_control = control_;
      message.msg_controllen = used_;
    }
    return ::sendmsg(fd_.get(), &message, 0) >= 0 ? 0 : errno;
  }

  const bool v4_;
  const int tos_;
  unique_fd fd_;
  alignas(cmsghdr) char control_[256] = {};
  std::size_t used_ = 0;
};

inline std::string described(const datagram_options& o) {
  std::string text;
  if (o.source) text += " source " + o.source->to_string();
  if (o.dscp) text += " dscp " + std::to_string(*o.dscp);
  if (o.ecn) text += " ecn " + std::to_string(static_cast<int>(*o.ecn));
  if (o.ttl != 0) text += " ttl " + std::to_string(o.ttl);
  if (o.mark) text += " mark " + std::to_string(*o.mark);
  if (o.path_mtu_probe) text += " probe";
  return text.empty() ? " nothing" : text;
}

inline std::vector<std::optional<ecn_codepoint>> all_ecn() {
  return {std::nullopt, ecn_codepoint::not_ect, ecn_codepoint::ect_1, ecn_codepoint::ect_0,
          ecn_codepoint::ce};
}

/// All combinations, with this second address of the host.
inline std::vector<datagram_options> all_options(const std::string& second) {
  std::vector<datagram_options> all;
  for (const bool with_source : {false, true})
    for (const auto& dscp : {std::optional<std::uint8_t>(), std::optional<std::uint8_t>(0),
                             std::optional<std::uint8_t>(46)})
      for (const auto& ecn : all_ecn())
        for (const std::uint8_t ttl : std::initializer_list<std::uint8_t>{0, 7})
          for (const auto& mark : {std::optional<std::uint32_t>(), std::optional<std::uint32_t>(5)})
            for (const bool probe : {false, true}) {
              datagram_options o{
                  .dscp = dscp, .ecn = ecn, .ttl = ttl, .mark = mark, .path_mtu_probe = probe};
              if (with_source) o.source = *ip_address::parse(second);
              all.push_back(o);
            }
  return all;
}

}  // namespace cowire::test
