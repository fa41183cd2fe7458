// SPDX-License-Identifier: Apache-2.0
/// The words of `ip tunnel` as declarations of tunnels, for the command line and the configuration
/// file alike. Every function throws usage_error. No state; any thread.
#pragma once

#include <cowire/async/tunnel.hpp>

#include <span>
#include <string>
#include <vector>

namespace cowire::cli {

/// A tunnel of that mode ("gre", "gre/ip", "ip6ip6" ...) with the defaults of iproute2.
[[nodiscard]] tunnel_declaration tunnel_of_mode(const std::string& name, const std::string& mode);

/// Whether a value follows a word; a word that no mode has is an error.
[[nodiscard]] bool takes_value(const std::string& word);

/// Applies one word to a tunnel; `value` is "" for words without.
void apply_word(tunnel_declaration& tunnel, const std::string& word, const std::string& value);

/// Ends a declaration: what only all the words together tell. A multicast remote without a key gets
/// the group's address as its key, as iproute2 does it.
void complete_tunnel(tunnel_declaration& tunnel);

/// `NAME mode MODE [remote ADDR] ...`, in any order after the name.
[[nodiscard]] tunnel_declaration parse_tunnel(std::span<const std::string> words);

/// The words after the name of an existing tunnel: what they do not tell stays. The mode cannot
/// change.
void parse_tunnel_change(tunnel_declaration& tunnel, std::span<const std::string> words);

/// Whether the kernel takes it as the name of an interface.
[[nodiscard]] std::string parse_interface_name(const std::string& what, const std::string& text);

/// "169.254.0.1/31", an address with the length of its subnet's prefix; without one it is a host's.
[[nodiscard]] interface_address parse_interface_address(const std::string& what,
                                                        const std::string& text);

}  // namespace cowire::cli
