// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/declared_tunnels.hpp>
#include <cowire/base/error.hpp>

#include <linux/if_addr.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <variant>

namespace cowire::detail {
namespace {

/// Two probes a second apart after a random delay (RFC 4862, 5.4), if somebody changed nothing.
constexpr std::chrono::seconds detection_max{5};
constexpr std::chrono::milliseconds detection_poll{20};

}  // namespace

declared_tunnels::declared_tunnels(const std::vector<tunnel_declaration>& wanted) {
  try {
    clear_away(wanted);
    for (const auto& one : wanted) make(one);
  } catch (...) {
    remove();
    throw;
  }
}

declared_tunnels::~declared_tunnels() { remove(); }

void declared_tunnels::clear_away(const std::vector<tunnel_declaration>& wanted) {
  for (const auto& one : kernel_.dump(netlink::object_kind::link)) {
    const auto& device = std::get<netlink::link>(one);
    if (!owner_.takes_over(device)) continue;
    const auto same = std::ranges::find(wanted, device.name, &tunnel_declaration::name);
    if (same == wanted.end() || !difference(kernel_, *same, device).empty())
      remove_tunnel(kernel_, device);
  }
}

void declared_tunnels::make(const tunnel_declaration& wanted) {
  if (auto existing = find_link(kernel_, wanted.name)) {
    const auto differs = difference(kernel_, wanted, *existing);
    const bool own = owner_.takes_over(*existing);
    if (differs.empty() && own) made_.push_back(std::move(*existing));
    if (differs.empty()) return;
    if (!own)
      throw_error(error::invalid_argument,
                  "tunnel " + wanted.name + " exists and is not as declared: declared " + differs +
                      "; change the declaration, or remove the tunnel");
    remove_tunnel(kernel_, *existing);  // What it is bound to was made anew.
  }
  netlink::link made;
  made.index = create_tunnel(kernel_, wanted);
  made.name = wanted.name;
  made_.push_back(std::move(made));
  // Without it, after a crash, it is somebody else's.
  std::error_code ignored;
  if (!owner_.mark().empty())
    kernel_.execute(netlink::set_alias(made_.back().index, owner_.mark(), 0), ignored);
  await_addresses(made_.back().index);
}

void declared_tunnels::await_addresses(std::uint32_t index) {
  netlink::dump_filter of_it;
  of_it.interface = index;
  const auto is_tentative = [&](const netlink::message& one) {
    const auto& address = std::get<netlink::address>(one);
    return address.index == index &&
           (address.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) == IFA_F_TENTATIVE;
  };
  const auto end = std::chrono::steady_clock::now() + detection_max;
  while (std::ranges::any_of(kernel_.dump(netlink::object_kind::address, of_it), is_tentative) &&
         std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(detection_poll);
}

void declared_tunnels::remove() noexcept {
  for (; !made_.empty(); made_.pop_back()) {
    const netlink::link& own = made_.back();
    try {
      const auto found = find_link(kernel_, own.name);
      if (found && found->index == own.index) remove_tunnel(kernel_, own);
    } catch (const std::system_error&) {
      // Nobody is left to tell; the next start finds it as declared.
    }
  }
}

}  // namespace cowire::detail
