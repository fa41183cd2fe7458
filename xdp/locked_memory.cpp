// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/locked_memory.hpp>

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <limits>

namespace cowire {
namespace {

constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();

bool may_lock_any() noexcept {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) return false;
  return (data[CAP_IPC_LOCK / 32].effective >> CAP_IPC_LOCK % 32 & 1) != 0;
}

}  // namespace

std::string locked_memory::to_string() const {
  if (exempt || limit_bytes == no_limit) return "not limited";
  return std::to_string(limit_bytes >> 10) + " KiB";
}

locked_memory read_locked_memory() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) limit.rlim_cur = 0;
  return {.exempt = may_lock_any(),
          .limit_bytes = limit.rlim_cur == RLIM_INFINITY ? no_limit : limit.rlim_cur};
}

std::string locked_memory_remedy(std::uint64_t bytes) {
  const std::uint64_t kib = (bytes + 1023) >> 10;
  return "give it CAP_IPC_LOCK, or raise the limit: ulimit -l " + std::to_string(kib) +
         ", LimitMEMLOCK=" + std::to_string(kib) + "K in its systemd unit";
}

}  // namespace cowire
