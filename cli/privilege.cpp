// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/parse.hpp>
#include <cowire/cli/privilege.hpp>

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <string>

namespace cowire::cli {

bool has_capability(unsigned capability) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) return false;
  return (data[capability / 32].effective >> capability % 32 & 1) != 0;
}

void require_privilege(const transmit_plan& plan) {
  if (plan.config.mode == send_mode::kernel || has_capability(CAP_NET_RAW)) return;
  throw usage_error(
      "CAP_NET_RAW is missing, without which there are no AF_XDP sockets; run as root, or " +
      std::string(setcap_remedy) + ", or send with --mode kernel");
}

void require_mode(const transmit_plan& plan, const std::vector<interface_stats>& interfaces) {
  const auto wanted = plan.config.mode;
  if (!wanted || *wanted == send_mode::kernel) return;
  std::string reasons;
  for (const auto& one : interfaces) {
    if (one.mode == *wanted) return;
    reasons += (reasons.empty() ? "" : "; ") + one.name + ": " + one.reason;
  }
  throw usage_error("mode " + std::string(name(*wanted)) + ": no interface has it (" +
                    (reasons.empty() ? "none is up" : reasons) + "); use --mode auto");
}

}  // namespace cowire::cli
