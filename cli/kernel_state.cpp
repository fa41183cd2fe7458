// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/kernel_state.hpp>
#include <cowire/follow/kernel_snapshot.hpp>

#include <linux/if_arp.h>

#include <memory>
#include <utility>

namespace cowire::cli {

kernel_state::kernel_state()
    : mirror_(read_mirror()),
      compiler_(mirror_, epoch_, publisher_, {.numbers = &outer_flows_}),
      output_(std::make_shared<output_snapshot>(read_output_path())) {
  egress_slot slot = divert_slot;
  for (const auto& [index, device] : mirror_.devices())
    if (device.link.hardware_type == ARPHRD_ETHER && device.up())
      compiler_.set_egress(index, ++slot);
  mirror_changes of_queues;
  mirror_.set_queues(devices_with_queue(*output_), of_queues);
  compiler_.note(std::move(of_queues));
  compiler_.set_output(output_);
}

}  // namespace cowire::cli
