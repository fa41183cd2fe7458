// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/bond_reader.hpp>
#include <cowire/follow/detail/ioctl_socket.hpp>

#include <net/if.h>  // Before the kernel's headers, which then leave out what it has.
#include <sys/ioctl.h>

#include <linux/if_bonding.h>
#include <linux/sockios.h>

#include <cerrno>
#include <variant>

namespace cowire::detail {
namespace {

ifreq request_for(const std::string& name) {
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

}  // namespace

bond_reader::bond_reader() : ioctl_socket_(open_ioctl_socket()) {}

void bond_reader::settle(mirror& state, mirror_changes& changes) {
  for (const std::uint32_t index : state.unsettled_bonds())
    if (const auto found = read(*state.find_device(index)))
      state.settle_bond(index, *found, changes);
}

std::optional<bond_reading> bond_reader::read(const mirrored_device& bond) {
  const auto order = read_order(bond.link.name);
  if (!order) return std::nullopt;
  bond_reading found;
  for (const std::uint32_t index : *order) found.slaves.push_back({index, 0});
  if (std::get<netlink::bond_info>(bond.link.info).mode != BOND_MODE_8023AD) return found;
  std::error_code ec;
  const auto now = links_.get_link(bond.link.index, ec);
  const auto* info = now ? std::get_if<netlink::bond_info>(&now->info) : nullptr;
  if (info == nullptr) return std::nullopt;
  found.aggregator_id = info->aggregator_id;
  for (bond_reading::slave& one : found.slaves) {
    const auto slave = links_.get_link(one.index, ec);
    if (!slave || !slave->bond_slave) return std::nullopt;
    one.aggregator_id = slave->bond_slave->aggregator_id;
  }
  return found;
}

std::optional<std::vector<std::uint32_t>> bond_reader::read_order(const std::string& name) const {
  std::vector<std::uint32_t> order;
  for (;;) {
    ifslave slave{};
    slave.slave_id = static_cast<__s32>(order.size());
    ifreq request = request_for(name);
    request.ifr_data = reinterpret_cast<char*>(&slave);
    if (::ioctl(ioctl_socket_.get(), SIOCBONDSLAVEINFOQUERY, &request) < 0) {
      if (errno == ENODEV && if_nametoindex(name.c_str()) != 0) return order;
      return std::nullopt;
    }
    const unsigned index = if_nametoindex(slave.slave_name);
    if (index == 0) return std::nullopt;  // Renamed or gone since: a message follows.
    order.push_back(index);
  }
}

}  // namespace cowire::detail
