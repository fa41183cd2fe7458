// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/transmitter_config.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/cli/doctor.hpp>
#include <cowire/cli/privilege.hpp>
#include <cowire/xdp/locked_memory.hpp>

#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <fstream>

namespace cowire::cli {
namespace {

std::string first_line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

finding kernel() {
  utsname system{};
  ::uname(&system);
  unsigned major = 0, minor = 0;
  std::sscanf(system.release, "%u.%u", &major, &minor);
  finding f{"kernel", health::ok, system.release, "has all that cowire uses", ""};
  if (major < 6) {
    f.status = health::warn;
    f.meaning =
        "multishot receives and some routing messages need Linux 6.0; slower or less precise "
        "without";
    f.remedy = "run Linux 6.1 or newer";
  }
  return f;
}

struct capability {
  const char* name;
  unsigned bit;
  health without;
  const char* use;
  const char* lack;
};

constexpr std::array capabilities{
    capability{"cap_net_raw", CAP_NET_RAW, health::fail, "AF_XDP sockets can be opened",
               "AF_XDP sockets cannot be opened; only --mode kernel sends"},
    capability{
        "cap_net_admin", CAP_NET_ADMIN, health::warn,
        "XDP programs can be attached, --mark be used",
        "XDP programs cannot be attached, so some drivers get a lower rung; --mark is refused"},
    capability{"cap_bpf", CAP_BPF, health::warn, "XDP programs can be loaded",
               "XDP programs cannot be loaded, so some drivers get a lower rung"},
    // /proc/net/ip_tables_names has mode 0440.
    capability{"cap_dac_read_search", CAP_DAC_READ_SEARCH, health::warn,
               "legacy iptables tables can be seen",
               "where the kernel does not list its netfilter hooks, legacy iptables tables cannot "
               "be seen, and the kernel path sends"},
};

void examine_capabilities(std::vector<finding>& out) {
  // CAP_SYS_ADMIN has stood for CAP_BPF since before there was one.
  const bool administrator = has_capability(CAP_SYS_ADMIN);
  for (const auto& c : capabilities) {
    const bool held = has_capability(c.bit) || (c.bit == CAP_BPF && administrator);
    out.push_back(held ? finding{c.name, health::ok, "effective", c.use, ""}
                       : finding{c.name, c.without, "missing", c.lack,
                                 "run as root, or: " + std::string(setcap_remedy)});
  }
}

/// Each socket registers all frames for itself.
finding memlock(std::size_t sockets) {
  const locked_memory may = read_locked_memory();
  const std::uint64_t each = umem_bytes({}), all = each * sockets;
  finding f{"memlock", health::ok, may.to_string(),
            "the frames can be locked in memory: " + std::to_string(all >> 10) + " KiB for " +
                std::to_string(sockets) + " AF_XDP sockets",
            ""};
  if (may.exempt) f.meaning += " (this process has cap_ipc_lock)";
  if (may.allows(all)) return f;
  f.status = may.allows(each) ? health::warn : health::fail;
  f.meaning = std::to_string(all >> 10) + " KiB of frames are to be locked, " +
              std::to_string(each >> 10) + " for each AF_XDP socket: " +
              (may.allows(each) ? "not every interface gets one"
                                : "no interface gets one, all goes the kernel path");
  f.remedy = locked_memory_remedy(all);
  return f;
}

finding huge_pages() {
  const std::string folder = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
  const auto free = first_line_of(folder + "free_hugepages"),
             total = first_line_of(folder + "nr_hugepages");
  if (total.empty())
    return {"huge_pages", health::warn, "none",
            "this kernel has no 2 MiB pages; frames lie in ordinary pages",
            "use a kernel with CONFIG_HUGETLBFS"};
  finding f{"huge_pages", health::ok, free + " free of " + total + " (2 MiB)",
            "frames lie in huge pages: fewer TLB misses", ""};
  if (free == "0") {
    f.status = health::warn;
    f.meaning = "frames fall back to ordinary pages: a little slower";
    f.remedy = "sysctl vm.nr_hugepages=64";
  }
  return f;
}

finding ring() {
  const auto disabled = first_line_of("/proc/sys/kernel/io_uring_disabled");
  const std::string state = disabled.empty() ? "no sysctl" : "kernel.io_uring_disabled=" + disabled;
  io_uring_params parameters{};
  const unique_fd fd{static_cast<int>(::syscall(__NR_io_uring_setup, 8, &parameters))};
  if (fd)
    return {"io_uring", health::ok, "works (" + state + ")",
            "asynchronous operations run on io_uring", ""};
  return {"io_uring", health::warn, errno_name(errno) + " (" + state + ")",
          "refused: asynchronous operations fall back to epoll, more system calls a datagram on "
          "the kernel path",
          "sysctl kernel.io_uring_disabled=0, or allow io_uring_setup in the container's seccomp "
          "profile"};
}

finding xdp_sockets() {
  const unique_fd fd{::socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0)};
  if (fd) return {"af_xdp", health::ok, "works", "the kernel has AF_XDP sockets", ""};
  if (errno == EPERM)
    return {"af_xdp", health::fail, "EPERM", "opening an AF_XDP socket is not permitted",
            "give it CAP_NET_RAW"};
  return {"af_xdp", health::fail, errno_name(errno),
          "this kernel has no AF_XDP sockets; only --mode kernel sends",
          "use a kernel with CONFIG_XDP_SOCKETS"};
}

finding bpf() {
  // r0 = XDP_PASS; exit
  const std::array<bpf_insn, 2> program{
      {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, XDP_PASS}, {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}}};
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_XDP;
  attributes.insns = reinterpret_cast<std::uintptr_t>(program.data());
  attributes.insn_cnt = program.size();
  attributes.license = reinterpret_cast<std::uintptr_t>("GPL");
  const unique_fd fd{
      static_cast<int>(::syscall(__NR_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes))};
  const auto sysctl = first_line_of("/proc/sys/kernel/unprivileged_bpf_disabled");
  const std::string state = "kernel.unprivileged_bpf_disabled=" + (sysctl.empty() ? "?" : sysctl);
  if (fd)
    return {"bpf", health::ok, "works (" + state + ")",
            "the XDP program that some drivers need can be loaded", ""};
  return {"bpf", health::warn, errno_name(errno) + " (" + state + ")",
          "drivers that transmit only with an XDP program attached get a lower rung",
          "give it CAP_BPF and CAP_NET_ADMIN, and a kernel with CONFIG_BPF_SYSCALL"};
}

finding processors() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ::sched_getaffinity(0, sizeof allowed, &allowed);
  const int usable = CPU_COUNT(&allowed);
  const auto isolated = first_line_of("/sys/devices/system/cpu/isolated");
  finding f{"cpus", health::ok,
            std::to_string(usable) + " usable of " +
                std::to_string(::sysconf(_SC_NPROCESSORS_ONLN)) +
                ", isolated: " + (isolated.empty() ? "none" : isolated),
            "each TX core can have a CPU to itself (--cpu N,M)", ""};
  if (usable < 2) {
    f.status = health::warn;
    f.meaning = "the busy-polling TX core shares its only CPU with everything else";
    f.remedy = "give the process at least two CPUs";
  }
  return f;
}

}  // namespace

std::vector<finding> examine_host(std::size_t sockets) {
  std::vector<finding> out{kernel()};
  examine_capabilities(out);
  out.push_back(xdp_sockets());
  out.push_back(bpf());
  out.push_back(memlock(sockets));
  out.push_back(huge_pages());
  out.push_back(ring());
  out.push_back(processors());
  return out;
}

}  // namespace cowire::cli
