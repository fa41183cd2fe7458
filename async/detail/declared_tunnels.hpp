// SPDX-License-Identifier: Apache-2.0
/// The tunnels that a transmitter's configuration declares: made at start, removed at stop.
///
/// One that exists already is somebody else's: it must be as declared, is used as it is and stays.
/// But those of a process that was killed (tunnel_owner.hpp) are taken over where they are as
/// declared, and removed where they are not, or not declared any more.
///
/// One thread at a time; calls block for a few milliseconds a tunnel, and for two seconds where an
/// IPv6 address is looked for on the other side first.
#pragma once

#include <cowire/async/detail/tunnel_owner.hpp>
#include <cowire/async/tunnel.hpp>

#include <cstdint>
#include <vector>

namespace cowire::detail {

class declared_tunnels {
 public:
  /// Makes them in order, so that one may be bound to one before it. Throws as create_tunnel(), and
  /// error::invalid_argument where an existing device differs; then none that was made stays.
  explicit declared_tunnels(const std::vector<tunnel_declaration>& wanted);
  declared_tunnels(const declared_tunnels&) = delete;
  declared_tunnels& operator=(const declared_tunnels&) = delete;
  /// Removes what it made, the last first. A device of the name that was made by somebody else
  /// meanwhile stays.
  ~declared_tunnels();

 private:
  void clear_away(const std::vector<tunnel_declaration>& wanted);
  void make(const tunnel_declaration& wanted);
  /// Until no socket is refused an IPv6 address of it because the kernel still looks for another
  /// owner (tunnels that carry Ethernet).
  void await_addresses(std::uint32_t index);
  void remove() noexcept;

  netlink::request_socket kernel_;
  tunnel_owner owner_;
  std::vector<netlink::link> made_;
};

}  // namespace cowire::detail
