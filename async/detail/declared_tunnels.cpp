// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/declared_tunnels.hpp>
#include <cowire/base/error.hpp>

namespace cowire::detail {

declared_tunnels::declared_tunnels(const std::vector<tunnel_declaration>& wanted) {
  try {
    for (const auto& one : wanted) make(one);
  } catch (...) {
    remove();
    throw;
  }
}

declared_tunnels::~declared_tunnels() { remove(); }

void declared_tunnels::make(const tunnel_declaration& wanted) {
  if (const auto existing = find_link(kernel_, wanted.name)) {
    if (const auto differs = difference(kernel_, wanted, *existing); !differs.empty())
      throw_error(error::invalid_argument,
                  "tunnel " + wanted.name + " exists and is not as declared: declared " + differs +
                      "; change the declaration, or remove the tunnel");
    return;
  }
  netlink::link made;
  made.index = create_tunnel(kernel_, wanted);
  made.name = wanted.name;
  made_.push_back(std::move(made));
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
