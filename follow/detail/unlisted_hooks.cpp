// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/unique_fd.hpp>
#include <cowire/follow/detail/proc_file.hpp>
#include <cowire/follow/detail/unlisted_hooks.hpp>

#include <linux/bpf.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <string>
#include <string_view>

namespace cowire::detail {
namespace {

/// struct bpf_link_info of linux/bpf.h since 6.4, which build headers of 6.1 lack.
struct link_info {
  std::uint32_t type = 0, id = 0, program = 0, padding = 0;
  std::uint32_t family = 0, hook = 0;
  std::int32_t priority = 0;
  std::uint32_t flags = 0;
};
constexpr std::uint32_t link_type_netfilter = 10;  // BPF_LINK_TYPE_NETFILTER
static_assert(offsetof(bpf_link_info, raw_tracepoint) == offsetof(link_info, family));

bool read_link(std::uint32_t id, link_info& into) {
  bpf_attr open{};
  open.link_id = id;
  const unique_fd link(
      static_cast<int>(::syscall(SYS_bpf, BPF_LINK_GET_FD_BY_ID, &open, sizeof open)));
  bpf_attr ask{};
  ask.info.bpf_fd = static_cast<std::uint32_t>(link.get());
  ask.info.info_len = sizeof into;
  ask.info.info = reinterpret_cast<std::uintptr_t>(&into);
  return link && ::syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &ask, sizeof ask) == 0;
}

/// Security modules make their file systems known where they are in use (init_sel_fs() in
/// security/selinux/selinuxfs.c, init_smk_fs() in security/smack/smackfs.c).
bool has_file_system(std::string_view name) {
  std::ifstream known("/proc/filesystems");
  for (std::string line; std::getline(known, line);)
    if (line.ends_with(name)) return true;
  return false;
}

/// SELinux does nothing before it has a policy; until then everything is of the kernel's label.
bool has_selinux_policy() {
  const proc_file label = read_proc("attr/current");
  return label.lines.size() != 1 || std::string_view(label.lines.front().c_str()) != "kernel";
}

}  // namespace

std::vector<netfilter_link> netfilter_links() {
  std::vector<netfilter_link> found;
  for (std::uint32_t id = 0;;) {
    bpf_attr next{};
    next.start_id = id;
    if (::syscall(SYS_bpf, BPF_LINK_GET_NEXT_ID, &next, sizeof next) != 0) return found;
    id = next.next_id;
    link_info info;
    if (read_link(id, info) && info.type == link_type_netfilter)
      found.push_back({info.id, info.family, info.hook});
  }
}

std::vector<output_hook> unlisted_hooks() {
  constexpr std::uint32_t local_out = 3, post_routing = 4;  // NF_INET_*
  std::vector<output_hook> found;
  const auto of_both = [&](const std::string& what) {
    for (const ip_family family : ip_families) found.push_back({family, what});
  };
  constexpr std::size_t headings = 3;
  const proc_file services = read_proc("net/ip_vs");
  if (services.unreadable_because)
    of_both("of IPVS, perhaps: " + *services.unreadable_because);
  else if (services.lines.size() > headings)
    of_both("of IPVS, which has services");
  if (has_file_system("selinuxfs") && has_selinux_policy()) of_both("of SELinux");
  if (has_file_system("smackfs")) of_both("of Smack");
  for (const netfilter_link& link : netfilter_links()) {
    if (link.hook != local_out && link.hook != post_routing) continue;
    found.push_back({link.family == AF_INET ? ip_family::v4 : ip_family::v6,
                     "of a BPF program (link " + std::to_string(link.id) +
                         "), of this network namespace or another"});
  }
  return found;
}

}  // namespace cowire::detail
