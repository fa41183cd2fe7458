// SPDX-License-Identifier: Apache-2.0
/// IFLA_LINKINFO by kind of device: read as the kernel writes it, written as the kernel takes it.
///
/// A tunnel's attributes are always all there, which a change needs: the kernel takes what is
/// absent for its default, not for "as it was". The one exception are end points that are not set:
/// some kinds refuse an explicit 0.0.0.0. Any thread.
#pragma once

#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/detail/message_builder.hpp>
#include <cowire/netlink/message.hpp>

namespace cowire::netlink::detail {

/// Fills kind, slave kind and what they know from the payload of IFLA_LINKINFO.
void read_link_info(byte_span bytes, link& to, std::error_code& ec);

/// Nothing where `from` has neither a kind nor a master's kind.
void put_link_info(message_builder& to, const link& from);

}  // namespace cowire::netlink::detail
