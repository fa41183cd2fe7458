// SPDX-License-Identifier: Apache-2.0
// One socket for IPv4 and IPv6: to it, IPv4 addresses are IPv4-mapped ones.
#include "transport.hpp"

#include <cowire/base/socket_address.hpp>

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace quic {
namespace {

using cowire::ip_address;
using cowire::ip_family;

[[nodiscard]] ip_address mapped(const ip_address& address) {
  if (!address.is_v4()) return address;
  std::array<std::uint8_t, 16> bytes{};
  bytes[10] = bytes[11] = 0xff;
  std::memcpy(bytes.data() + 12, address.bytes().data(), 4);
  return ip_address::v6(bytes);
}

/// Room for the control messages of one datagram.
union control_room {
  cmsghdr aligned;
  std::byte bytes[128];
};

template <class Value>
void add_control(msghdr& header, int level, int type, const Value& value) {
  auto* const bytes = static_cast<std::byte*>(header.msg_control) + header.msg_controllen;
  const cmsghdr next{CMSG_LEN(sizeof value), level, type};
  std::memcpy(bytes, &next, sizeof next);
  std::memcpy(bytes + CMSG_LEN(0), &value, sizeof value);
  header.msg_controllen += CMSG_SPACE(sizeof value);
}

void read_control(msghdr& header, arrival& into) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info;
      std::memcpy(&info, CMSG_DATA(c), sizeof info);
      into.destination = ip_address::from_bytes(ip_family::v6, &info.ipi6_addr).unmapped();
    } else if ((c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) ||
               (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS)) {
      into.ecn = *CMSG_DATA(c) & 3;  // The first byte of an int, or all of it.
    }
  }
}

}  // namespace

socket_transport::socket_transport(std::uint16_t number) {
  socket_.open(asio::ip::udp::v6());
  const auto set = [&](int level, int name, int value) {
    if (::setsockopt(socket_.native_handle(), level, name, &value, sizeof value) != 0)
      throw std::system_error(errno, std::system_category(), "setsockopt");
  };
  set(IPPROTO_IPV6, IPV6_V6ONLY, 0);
  set(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  set(IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
  set(IPPROTO_IP, IP_RECVTOS, 1);
  // Never fragmented, and as long as the device takes: what path_mtu_probe is to cowire.
  set(IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
  set(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
  set(SOL_SOCKET, SO_RCVBUFFORCE, socket_buffer);
  socket_.bind({asio::ip::udp::v6(), number});
  socket_.non_blocking(true);
}

std::size_t socket_transport::read() {
  std::size_t count = 0;
  for (; count < arrivals_max; ++count) {
    sockaddr_storage from;
    control_room control;
    iovec room{buffers_[count].data(), buffers_[count].size()};
    msghdr header{&from, sizeof from, &room, 1, &control, sizeof control, 0};
    const auto size = ::recvmsg(socket_.native_handle(), &header, 0);
    if (size < 0) break;
    arrival& got = arrivals_[count] = {};
    got.bytes = std::span(buffers_[count]).first(static_cast<std::size_t>(size));
    got.source = cowire::to_endpoint(from).value().canonical();
    read_control(header, got);
  }
  return count;
}

asio::awaitable<std::span<const arrival>> socket_transport::receive(clock::time_point deadline) {
  std::size_t count = read();
  if (count == 0) {
    alarm_.set(deadline, [this] { socket_.cancel(); });
    co_await socket_.async_wait(socket_.wait_read, cowire::as_tuple(asio::use_awaitable));
    count = read();
  }
  co_return std::span(arrivals_).first(count);
}

bool socket_transport::write(const cowire::message& what) {
  sockaddr_storage to;
  const bool v4 = what.destination.address.is_v4();
  const auto size = cowire::to_sockaddr(
      {mapped(what.destination.address), what.destination.port, what.destination.scope_id}, to);
  const auto bytes = what.bytes.span();
  control_room control;
  iovec data{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr header{&to, size, &data, 1, &control, 0, 0};
  if (what.options.ecn)
    add_control(header, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS,
                static_cast<int>(*what.options.ecn));
  if (what.options.source) {
    in6_pktinfo info{};
    std::memcpy(&info.ipi6_addr, mapped(*what.options.source).bytes().data(), 16);
    add_control(header, IPPROTO_IPV6, IPV6_PKTINFO, info);
  }
  return ::sendmsg(socket_.native_handle(), &header, 0) >= 0 || errno != EAGAIN;
}

asio::awaitable<void> socket_transport::send(std::span<const cowire::message> messages) {
  for (const cowire::message& each : messages)
    while (!write(each))
      co_await socket_.async_wait(socket_.wait_write, cowire::as_tuple(asio::use_awaitable));
}

void socket_transport::run(asio::awaitable<void> what) {
  asio::co_spawn(io_, std::move(what), [this](std::exception_ptr failed) {
    io_.stop();
    if (failed) std::rethrow_exception(failed);  // Out of run().
  });
  io_.run();
}

}  // namespace quic
