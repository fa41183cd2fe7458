// SPDX-License-Identifier: Apache-2.0
/// Tunnel devices as their owner declares them, and the kernel's devices of such a declaration.
///
/// A transmitter makes those of its configuration at start and removes them at stop
/// (transmitter_config::tunnels); `cowire tunnel` makes, changes and removes single ones. What is
/// declared is sent to the kernel in full: the defaults are those of iproute2.
///
/// Plain values and blocking calls on a socket of the caller's; any thread. Not for following what
/// becomes of tunnels: the route service does that with everything else.
#pragma once

#include <cowire/async/tunnel_declaration.hpp>
#include <cowire/netlink/message.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/netlink/tunnel_kind.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cowire {

/// A kind of tunnel that can be declared: one that is `whole`. Null for every other kind of device.
[[nodiscard]] const netlink::tunnel_kind* declarable_kind(std::string_view name) noexcept;

/// A declaration of a kind (one that declarable_kind() knows) with the defaults of iproute2: no
/// end points, path MTU discovery; TTL inherited over IPv4; over IPv6 64, encapsulation limit 4.
[[nodiscard]] tunnel_declaration default_tunnel(std::string name, std::string_view kind);

/// What a device with a tunnel_info is declared as; `device` is the name of the interface that it
/// is bound to. Addresses are not a link's and stay empty.
[[nodiscard]] tunnel_declaration declaration_of(const netlink::link& tunnel, std::string device);

/// A word of `ip tunnel` and what follows it, "" where nothing does.
struct tunnel_word {
  std::string word, value;  ///< As typed.
  friend bool operator==(const tunnel_word&, const tunnel_word&) = default;
};
/// The declaration in the words of `ip tunnel`, `mode` first, without what is at rest (no key, no
/// fwmark). Addresses and the MTU come last; an MTU of 0 is left out.
[[nodiscard]] std::vector<tunnel_word> words_of(const tunnel_declaration& tunnel);

/// Why the kernel keeps this tunnel for itself, whatever its routes: the fallback device of a
/// module, or a tunnel whose headers are made from each route. Empty where it does not.
[[nodiscard]] std::string left_to_kernel(const netlink::link& tunnel);

/// The device of that name; empty where there is none. Throws std::system_error when the kernel
/// cannot be asked.
[[nodiscard]] std::optional<netlink::link> find_link(netlink::request_socket& kernel,
                                                     std::string_view name);

/// Makes it with its addresses, and returns its index; what fails half-way leaves nothing behind.
///
/// This and the next two throw std::system_error that names the tunnel, what is in the way and the
/// remedy: no such device to bind to, no such kind in this kernel (error::unsupported), a name or
/// end points that are taken (EEXIST).
std::uint32_t create_tunnel(netlink::request_socket& kernel, const tunnel_declaration& tunnel);
/// Gives an existing device, found by name, everything that is declared but addresses and the up
/// flag.
void change_tunnel(netlink::request_socket& kernel, const tunnel_declaration& tunnel);
/// Deletes the device, found by its index.
void remove_tunnel(netlink::request_socket& kernel, const netlink::link& tunnel);

/// What of a declaration an existing device does not have: "ttl 64, is ttl inherit". Empty when it
/// is as declared; an MTU that is not declared may be any.
[[nodiscard]] std::string difference(netlink::request_socket& kernel,
                                     const tunnel_declaration& declared,
                                     const netlink::link& existing);

}  // namespace cowire
