// SPDX-License-Identifier: Apache-2.0
/// Changes routes, or anything else, faster than iproute2 can: many requests in one write, nobody
/// waits for answers.
#pragma once

#include <cowire/base/error.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/request_socket.hpp>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace cowire::test {

/// In the network namespace of the thread that makes it. The kernel carries requests out while they
/// are written, so that all is done when flush() returns.
class route_writer {
 public:
  route_writer() {
    std::error_code ec;
    socket_ = netlink::open_request_socket({.receive_buffer_bytes = 1 << 20}, ec);
    if (ec) throw_error(ec, "route writer");
  }

  /// As `ip route replace PREFIX via GATEWAY dev IF table TABLE`.
  void replace(const ip_prefix& prefix, const ip_address& gateway, std::uint32_t interface_index,
               std::uint32_t table = RT_TABLE_MAIN) {
    netlink::route made = route_to(prefix, table);
    made.placement.replace = made.placement.create = true;
    made.next_hops.push_back({interface_index, gateway});
    write(made);
  }
  /// As `ip route del PREFIX table TABLE`.
  void remove(const ip_prefix& prefix, std::uint32_t table = RT_TABLE_MAIN) {
    netlink::route gone = route_to(prefix, table);
    gone.action = netlink::action::remove;
    gone.scope = RT_SCOPE_NOWHERE;
    gone.protocol = RTPROT_UNSPEC;
    write(gone);
  }
  /// Any change, as it would be announced.
  void write(const netlink::message& change) {
    auto bytes = netlink::encode(change);
    nlmsghdr header;
    std::memcpy(&header, bytes.data(), sizeof header);
    header.nlmsg_flags = static_cast<std::uint16_t>(header.nlmsg_flags | NLM_F_REQUEST);
    std::memcpy(bytes.data(), &header, sizeof header);
    bytes.resize(NLMSG_ALIGN(bytes.size()));
    batch_.insert(batch_.end(), bytes.begin(), bytes.end());
    if (batch_.size() >= batch_bytes) flush();
  }
  void flush() {
    if (batch_.empty()) return;
    if (::send(socket_.get(), batch_.data(), batch_.size(), 0) < 0)
      throw_error(errno_code(errno), "route writer");
    batch_.clear();
    char refusals[16384];  // Of routes to remove that are not there, for instance.
    while (::recv(socket_.get(), refusals, sizeof refusals, MSG_DONTWAIT) > 0) continue;
  }

 private:
  static netlink::route route_to(const ip_prefix& prefix, std::uint32_t table) {
    netlink::route made;
    made.destination = prefix;
    made.table = table;
    made.type = RTN_UNICAST;
    made.protocol = RTPROT_STATIC;
    made.scope = RT_SCOPE_UNIVERSE;
    return made;
  }
  static constexpr std::size_t batch_bytes = 16384;
  unique_fd socket_;
  std::vector<std::byte> batch_;
};

}  // namespace cowire::test
