// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/bond_reader.hpp>
#include <cowire/follow/detail/device_order.hpp>
#include <cowire/follow/detail/output_reader.hpp>
#include <cowire/follow/detail/rule_question.hpp>
#include <cowire/follow/detail/sysctls.hpp>
#include <cowire/follow/kernel_snapshot.hpp>
#include <cowire/netlink/dump_plan.hpp>
#include <cowire/netlink/request_socket.hpp>

#include <chrono>

namespace cowire {

mirror read_mirror() {
  netlink::request_socket socket;
  mirror state;
  mirror_changes changes;
  for (const netlink::dump_scope& scope : netlink::dump_plan)
    for (const netlink::message& message : socket.dump(scope.kind, scope.filter))
      state.apply(message, changes, message_origin::dump);
  detail::bond_reader().settle(state, changes);
  detail::device_order_reader().settle(state, std::chrono::steady_clock::now(), changes);
  state.set_settings(detail::read_mirror_settings(state), changes);
  detail::rule_question rules;
  for (int twice = 0; twice < 2; ++twice) rules.settle(state, changes);
  return state;
}

output_snapshot read_output_path() { return detail::output_reader().read(); }

}  // namespace cowire
