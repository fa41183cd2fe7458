// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/follow/detail/output_reader.hpp>
#include <cowire/follow/detail/proc_file.hpp>
#include <cowire/follow/detail/unlisted_hooks.hpp>
#include <cowire/netlink/hook_codec.hpp>
#include <cowire/netlink/nft_reader.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/netlink/tc_codec.hpp>
#include <cowire/netlink/xfrm_codec.hpp>

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <sstream>
#include <string_view>
#include <utility>

namespace cowire::detail {
namespace {

constexpr int answer_deadline_s = 5;

// linux/bpf.h: what build headers of 6.1 lack, and those of the kinds asked for.
constexpr std::uint32_t attach_inet_egress = 1, attach_udp4_sendmsg = 14, attach_udp6_sendmsg = 15,
                        attach_tcx_egress = 47;

unique_fd open_netlink(int protocol) {
  unique_fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  const timeval limit{answer_deadline_s, 0};
  if (fd) static_cast<void>(::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
  return fd;
}

/// Adds the ids of those in force, the first 64 at least, to what is known; 0 or an errno.
int read_program_ids(std::uint32_t target, std::uint32_t type, std::uint32_t flags,
                     std::vector<std::uint32_t>& into) {
  std::array<std::uint32_t, 64> ids{};
  bpf_attr query{};
  query.query.target_fd = target;  // For tcx: an ifindex, in the same place.
  query.query.attach_type = type;
  query.query.query_flags = flags;
  query.query.prog_ids = reinterpret_cast<std::uintptr_t>(ids.data());
  query.query.prog_cnt = ids.size();
  // ENOSPC: there are more, and these have been told (__cgroup_bpf_query() in kernel/bpf/cgroup.c,
  // bpf_mprog_query() in kernel/bpf/mprog.c).
  if (::syscall(SYS_bpf, BPF_PROG_QUERY, &query, sizeof query) != 0 && errno != ENOSPC)
    return errno;
  const auto told = std::min<std::size_t>(query.query.prog_cnt, ids.size());
  for (const std::uint32_t id : std::span(ids).first(told))
    if (std::ranges::find(into, id) == into.end()) into.push_back(id);
  return 0;
}

/// Whether a kernel that answers ENOSYS has no BPF. A filter of system calls (seccomp) answers
/// the same of one whose programs are in force.
bool lacks_bpf() {
  // Of kernel/bpf/syscall.c; the other one is of every kernel.
  return ::access("/proc/sys/kernel/unprivileged_bpf_disabled", F_OK) != 0 && errno == ENOENT &&
         ::access("/proc/sys/kernel/osrelease", F_OK) == 0;
}

/// Whether a kernel that refuses so to tell of a kind of programs has none of that kind.
bool means_no_programs(int error) { return error == EINVAL || (error == ENOSYS && lacks_bpf()); }

/// Whether a discipline of a kind that need not does something to datagrams that find it empty.
/// Source: the enqueue functions of net/sched/sch_fifo.c, sch_fq.c, sch_fq_codel.c, sch_codel.c,
/// sch_pie.c and sch_fq_pie.c.
bool touches_when_idle(const netlink::queueing_discipline& one) {
  constexpr std::uint32_t unlimited = ~std::uint32_t{0};
  // More than the largest datagram with its headers, whatever the device's MTU is or becomes; of
  // memory four times that, with what the kernel adds.
  constexpr std::uint32_t bytes_min = (64 << 10) + 256, memory_min = 4 * bytes_min;
  // A datagram that finds the queue empty leaves it sooner.
  constexpr std::uint32_t marked_after_us_min = 100;
  constexpr std::string_view limited[] = {"pfifo", "bfifo", "fq",    "fq_codel",
                                          "codel", "pie",   "fq_pie"};
  if (one.kind == "fq" && one.fq_flow_max_rate.value_or(0) != unlimited) return true;
  if (one.kind == "bfifo" && (one.has_size_table || one.limit.value_or(0) < bytes_min)) return true;
  return (std::ranges::find(limited, std::string_view(one.kind)) != std::end(limited) &&
          one.limit.value_or(0) == 0) ||
         one.memory_limit.value_or(unlimited) < memory_min ||
         one.ce_threshold_us.value_or(unlimited) < marked_after_us_min;
}

/// Whether a queue of mq, or a band of multiq, has lost its discipline, and drops everything: then
/// nothing is told of it (dev_graft_qdisc() in net/sched/sch_generic.c, multiq_graft()). Of mq the
/// last ones may also be such that the device does not use.
bool has_queue_without_discipline(const device_output_state& device,
                                  const netlink::queueing_discipline& parent) {
  constexpr std::uint32_t major = 0xffff0000;  // TC_H_MAJ_MASK
  if (parent.kind != "mq" && parent.kind != "multiq") return false;
  std::uint32_t found = 0, last = parent.bands.value_or(1);
  for (const auto& child : device.disciplines) {
    if ((child.parent & major) != (parent.handle & major) || child.parent == parent.handle)
      continue;
    ++found;
    last = std::max(last, child.parent & ~major);
  }
  return found < last;
}

/// A hierarchy of version 2 control groups that is mounted nowhere else; empty with errno where
/// that is not permitted. `ip netns exec`, for one, hides the mounts below /sys.
unique_fd mount_cgroups() {
  const unique_fd context(::fsopen("cgroup2", FSOPEN_CLOEXEC));
  if (!context || ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return {};
  return unique_fd(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
}

/// Where a version 2 hierarchy is mounted whose root is that of this process's; empty = nowhere, as
/// far as can be seen.
std::string cgroup_mount() {
  const proc_file mounts = read_proc("mountinfo");
  for (const std::string& line : mounts.lines) {
    if (line.find(" - cgroup2 ") == std::string::npos) continue;
    std::istringstream words(line);
    std::string skipped, root, at;
    words >> skipped >> skipped >> skipped >> root >> at;
    if (root == "/") return at;
  }
  return {};
}

/// The folder of this thread's version 2 control group; empty where the kernel has none of them
/// or no such hierarchy was ever mounted, and so no program attached (proc_cgroup_show() in
/// kernel/cgroup/cgroup.c). `why` is set where it cannot be known or cannot be opened.
unique_fd open_cgroup(unreadable& why) {
  const proc_file groups = read_proc("cgroup");
  why = groups.unreadable_because;
  const auto own =
      std::ranges::find_if(groups.lines, [](const auto& g) { return g.starts_with("0::"); });
  if (why || own == groups.lines.end()) return {};
  const std::string path = own->substr(3);
  constexpr int as_folder = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  unique_fd folder;
  if (const std::string at = cgroup_mount(); !at.empty())
    folder.reset(::open((at + path).c_str(), as_folder));
  if (!folder)
    if (const unique_fd root = mount_cgroups())
      folder.reset(::openat(root.get(), ("." + path).c_str(), as_folder));
  if (!folder) why = "control group " + path + ": " + errno_code(errno).message();
  return folder;
}

/// By id, for CAP_DAC_READ_SEARCH; empty with errno. Source: kernfs_fh_to_dentry() in
/// fs/kernfs/mount.c.
unique_fd open_cgroup(std::uint64_t id) {
  constexpr int kernfs = 0xfe;  // FILEID_KERNFS
  alignas(file_handle) std::byte handle[sizeof(file_handle) + sizeof id];
  const file_handle fixed{sizeof id, kernfs, {}};
  std::memcpy(handle, &fixed, sizeof fixed);
  std::memcpy(handle + sizeof fixed, &id, sizeof id);
  const auto open_in = [&](const unique_fd& root) {
    return unique_fd(::open_by_handle_at(root.get(), reinterpret_cast<file_handle*>(handle),
                                         O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  };
  if (const std::string at = cgroup_mount(); !at.empty())
    return open_in(unique_fd(::open(at.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  const unique_fd mounted = mount_cgroups();
  return open_in(unique_fd(::openat(mounted.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
}

/// What is in force in a group.
void add_programs(const unique_fd& group, cgroup_state& into) {
  const auto add = [&](std::uint32_t type, std::vector<std::uint32_t>& to) {
    const int error =
        read_program_ids(static_cast<std::uint32_t>(group.get()), type, BPF_F_QUERY_EFFECTIVE, to);
    if (error != 0 && !means_no_programs(error))
      into.unreadable_because = errno_code(error).message();
  };
  add(attach_inet_egress, into.egress);
  add(attach_udp4_sendmsg, into.sendmsg_v4);
  add(attach_udp6_sendmsg, into.sendmsg_v6);
}

}  // namespace

output_reader::output_reader(const output_layers& obeyed)
    : obeyed_(obeyed),
      netfilter_(obeyed.netfilter ? open_netlink(NETLINK_NETFILTER) : unique_fd()),
      ipsec_(obeyed.ipsec ? open_netlink(NETLINK_XFRM) : unique_fd()),
      ipsec_error_(ipsec_ ? 0 : errno),
      route_(obeyed.traffic_control ? open_netlink(NETLINK_ROUTE) : unique_fd()),
      buffer_(netlink::datagram_size_max) {}

int output_reader::ask(const unique_fd& socket, std::span<const std::byte> request, bool dump,
                       const visitor& visit, const std::function<bool()>& enough) {
  nlmsghdr header;
  std::memcpy(&header, request.data(), sizeof header);
  if (::send(socket.get(), request.data(), request.size(), 0) < 0) return errno;
  for (bool interrupted = false;;) {
    const auto size = ::recv(socket.get(), buffer_.data(), buffer_.size(), MSG_TRUNC);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
    if (static_cast<std::size_t>(size) > buffer_.size()) return EMSGSIZE;
    std::span<const std::byte> rest(buffer_.data(), static_cast<std::size_t>(size));
    std::error_code ec;
    while (const auto answer = netlink::next_envelope(rest, ec)) {
      if (answer->sequence != header.nlmsg_seq) continue;
      interrupted |= answer->dump_interrupted();
      if (const auto end = netlink::decode_completion(*answer, ec))
        return interrupted ? EINTR : end->error_number;
      visit(*answer);
      if (!dump) return 0;
    }
    if (ec) return EBADMSG;
    if (enough && enough()) return 0;
  }
}

output_snapshot output_reader::read(const output_snapshot* before,
                                    const std::function<void()>& on_other_rules) {
  output_snapshot out;
  out.obeyed = obeyed_;
  if (obeyed_.netfilter) {
    read_rules(out.netfilter, before, on_other_rules);
    read_hooks(out.netfilter);
    if (!out.netfilter.hooks) out.netfilter.unlisted_hooks = unlisted_hooks();
    read_legacy(out.netfilter);
  }
  if (obeyed_.ipsec && before != nullptr) {
    out.ipsec = before->ipsec;
    refresh_ipsec(out.ipsec);
  } else if (obeyed_.ipsec) {
    read_ipsec(out.ipsec);
  }
  if (obeyed_.control_groups) read_cgroup(out.cgroup);
  if (obeyed_.traffic_control) read_devices(out);
  return out;
}

// ---- netfilter ----------------------------------------------------------------------------------

void output_reader::read_rules(netfilter_state& into, const output_snapshot* before,
                               const std::function<void()>& on_other_rules) {
  if (before != nullptr && !before->netfilter.rules_unreadable) {
    std::uint32_t generation = 0;
    const int error =
        ask(netfilter_, netlink::nft::generation_request(++sequence_), false,
            [&](const netlink::envelope& answer) {
              std::error_code ec;
              const auto one = netlink::nft::decode(answer.bytes, ec);
              if (!one || ec) return;
              if (const auto* g = std::get_if<netlink::nft::generation>(&one->message))
                generation = g->id;
            });
    if (error == 0 && generation != 0 && generation == before->netfilter.rules->generation) {
      into.rules = before->netfilter.rules;
      return;
    }
    if (error == 0 && generation != 0 && on_other_rules) on_other_rules();
  }
  std::error_code ec;
  into.rules = netlink::nft::read_ruleset(ec);
  if (ec) into.rules_unreadable = ec.message();
}

void output_reader::read_hooks(netfilter_state& into) {
  constexpr std::uint32_t local_out = 3, post_routing = 4;  // NF_INET_*
  std::vector<output_hook> found;
  for (const ip_family family : ip_families)
    for (const std::uint32_t hook : {local_out, post_routing}) {
      bool broken = false;
      const int error = ask(netfilter_, netlink::hook_request(family, hook, ++sequence_), true,
                            [&](const netlink::envelope& answer) {
                              std::error_code ec;
                              if (auto one = netlink::decode_hook(answer, ec))
                                found.push_back({family, std::move(one->name)});
                              broken |= static_cast<bool>(ec);
                            });
      if (error == EINVAL || error == EOPNOTSUPP) return;  // The kernel cannot list them.
      // A function without a name is an obstacle.
      if (error != 0 || broken) found.push_back({family, {}});
    }
  into.hooks = std::move(found);
}

/// These files exist once a module of legacy tables is there; to look creates nothing.
void output_reader::read_legacy(netfilter_state& into) {
  const auto look = [&](const char* name, std::vector<std::string>& tables) {
    proc_file told = read_proc(name);
    tables = std::move(told.lines);
    if (told.unreadable_because) into.legacy_unreadable = std::move(told.unreadable_because);
  };
  look("net/ip_tables_names", into.legacy_tables_v4);
  look("net/ip6_tables_names", into.legacy_tables_v6);
}

// ---- IPsec --------------------------------------------------------------------------------------

/// False: there is none, or it cannot be asked.
bool output_reader::has_ipsec(ipsec_state& into) {
  if (ipsec_) return true;
  // Without the module nobody made policies by netlink; an older interface would show here.
  const proc_file pf_key = read_proc("net/pfkey");
  into.unreadable_because = pf_key.unreadable_because;
  if (ipsec_error_ != EPROTONOSUPPORT || pf_key.exists)
    into.unreadable_because = errno_code(ipsec_error_).message();
  return false;
}

void output_reader::read_ipsec(ipsec_state& into) {
  into = {};
  if (!has_ipsec(into)) return;
  read_policies(into);
  read_default(into);
}

void output_reader::refresh_ipsec(ipsec_state& state, bool may_wait) {
  using namespace std::chrono_literals;
  if (state.unreadable_because || !ipsec_) return read_ipsec(state);
  std::optional<netlink::xfrm_policy_counts> counts;
  const int error = ask(ipsec_, netlink::xfrm_counts_request(++sequence_), false,
                        [&](const netlink::envelope& answer) {
                          std::error_code ec;
                          counts = netlink::decode_xfrm_counts(answer, ec);
                        });
  const bool told = error == 0 && counts;
  const auto of_sockets = static_cast<std::size_t>(
      std::ranges::count_if(state.policies, &netlink::xfrm_policy::of_a_socket));
  const bool right = told && counts->of_sockets == of_sockets &&
                     counts->output == state.policies.size() - of_sockets;
  // Nothing is announced of those of sockets.
  const auto reading_lasts = of_sockets != 0 ? 900ms : 30s;
  const bool recent = std::chrono::steady_clock::now() - policies_read_at_ < reading_lasts;
  if (!(told && may_wait) && !(right && recent)) return read_ipsec(state);
  read_default(state);
}

void output_reader::read_policies(ipsec_state& into) {
  policies_read_at_ = std::chrono::steady_clock::now();
  std::vector<netlink::xfrm_policy> found;
  bool broken = false;
  const int error = ask(ipsec_, netlink::xfrm_policies_request(++sequence_), true,
                        [&](const netlink::envelope& answer) {
                          std::error_code ec;
                          const auto one = netlink::decode_xfrm_change(answer, ec);
                          broken |= ec || !one;
                          if (one && one->output) found.push_back(one->policy);
                        });
  // Not one is told of as if something were missing.
  if ((error != 0 && error != ENOENT) || broken)
    into.unreadable_because = errno_code(error != 0 ? error : EBADMSG).message();
  std::ranges::sort(found, {}, &netlink::xfrm_policy::index);
  for (const netlink::xfrm_policy& one : found) into.policies.push_back(one);
}

void output_reader::read_default(ipsec_state& into) {
  std::optional<bool> blocks;
  int error = ask(ipsec_, netlink::xfrm_default_request(++sequence_), false,
                  [&](const netlink::envelope& answer) {
                    std::error_code ec;
                    blocks = netlink::decode_xfrm_default_blocks(answer, ec);
                  });
  if (error == EINVAL) return;  // Before 5.15 there is no default.
  if (error == 0 && !blocks) error = EBADMSG;
  if (error != 0) into.unreadable_because = errno_code(error).message();
  into.blocks_by_default = blocks.value_or(true);
}

// ---- traffic control ----------------------------------------------------------------------------

void output_reader::read_devices(output_snapshot& into) {
  into.devices.clear();
  into.devices_unreadable.reset();
  std::vector<netlink::queueing_discipline> found;
  bool broken = false;
  int error = EINTR;
  for (int attempt = 0; error == EINTR && attempt < 16; ++attempt) {
    found.clear();
    error = ask(route_, netlink::disciplines_request(++sequence_), true,
                [&](const netlink::envelope& answer) {
                  std::error_code ec;
                  auto one = netlink::decode_discipline(answer, ec);
                  broken |= static_cast<bool>(ec);
                  if (one) found.push_back(std::move(*one));
                });
  }
  if (error != 0 || broken) {
    into.devices_unreadable = errno_code(error != 0 ? error : EBADMSG).message();
    return;
  }
  for (const netlink::queueing_discipline& one : found)
    into.devices[one.interface_index].disciplines.push_back(
        {one.kind, one.handle, one.parent, touches_when_idle(one)});
  for (const netlink::queueing_discipline& parent : found) {
    device_output_state& device = into.devices[parent.interface_index];
    if (!has_queue_without_discipline(device, parent)) continue;
    for (auto& one : device.disciplines)
      one.shapes |= one.kind == parent.kind && one.handle == parent.handle;
  }
  struct if_nameindex* const names = ::if_nameindex();
  for (auto* one = names; one != nullptr && one->if_index != 0; ++one) {
    into.devices[one->if_index].name = one->if_name;
    read_programs(into.devices[one->if_index], one->if_index);
  }
  if (names != nullptr)
    ::if_freenameindex(names);
  else
    into.devices_unreadable = "list of devices: " + errno_code(errno).message();
  for (auto& [index, device] : into.devices) read_filters(device, index);
}

void output_reader::read_filters(device_output_state& into, std::uint32_t device) {
  if (into.disciplines.empty()) return;
  // One is as much of an obstacle as hundreds, which take long to tell of: the rest of the dump
  // ends with a socket of the device's own.
  const unique_fd socket = open_netlink(NETLINK_ROUTE);
  const auto count = [&](std::uint32_t parent) {
    if (!into.filter.empty()) return;
    const int error = ask(
        socket, netlink::filters_request(device, parent, ++sequence_), true,
        [&](const netlink::envelope& answer) {
          if (into.filter.empty()) into.filter = netlink::filter_text(answer);
        },
        [&] { return !into.filter.empty(); });
    // Kinds that take no filters, and what has just gone, have an empty dump (tc_dump_tfilter() in
    // net/sched/cls_api.c); a kernel without classifiers has none at all.
    if (error != 0 && error != EOPNOTSUPP)
      into.unreadable_because = "filters: " + errno_code(error).message();
  };
  for (const auto& one : into.disciplines) {
    if (one.kind == "clsact")
      count(netlink::clsact_egress);
    else if (one.kind != "ingress" && one.handle != 0)
      count(one.handle);
  }
}

void output_reader::read_programs(device_output_state& into, std::uint32_t device) {
  const int error = read_program_ids(device, attach_tcx_egress, 0, into.programs);
  if (error != 0 && error != ENODEV && error != ENOENT && !means_no_programs(error))
    into.unreadable_because = "tcx programs: " + errno_code(error).message();
}

// ---- control groups -----------------------------------------------------------------------------

void output_reader::read_cgroup(cgroup_state& into) const {
  const unique_fd own = open_cgroup(into.unreadable_because);
  struct stat status {};
  if (!own || ::fstat(own.get(), &status) != 0) return;
  add_programs(own, into);
  for (const std::uint64_t id : groups_) {
    if (id == status.st_ino) continue;
    if (const unique_fd other = open_cgroup(id))
      add_programs(other, into);
    else
      into.unreadable_because = "control group of id " + std::to_string(id) +
                                ", in which a socket was made: " + errno_code(errno).message();
  }
}

}  // namespace cowire::detail
