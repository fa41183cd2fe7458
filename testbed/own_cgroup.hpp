// SPDX-License-Identifier: Apache-2.0
/// A control group of the process's own, whose egress can be closed, or have other programs.
#pragma once

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <string>

#include "testbed/bpf_programs.hpp"
#include "testbed/netns.hpp"

namespace cowire::test {

/// A version 2 control group that this process is in as long as this lives; none where the host has
/// no such thing.
class own_cgroup {
 public:
  own_cgroup() {
    std::string mount = run("findmnt -n -o TARGET -t cgroup2 | head -n1 | tr -d '\\n'");
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);)
      if (line.starts_with("0::")) before_ = mount + line.substr(3);
    if (mount.empty() || before_.empty()) return;
    folder_ = mount + "/cowire-churn-" + std::to_string(::getpid());
    if (::mkdir(folder_.c_str(), 0755) != 0 || !enter(folder_)) {
      ::rmdir(folder_.c_str());
      folder_.clear();
      return;
    }
    fd_.reset(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    program_ = load_egress_program(false);
  }
  ~own_cgroup() {
    if (folder_.empty()) return;
    static_cast<void>(enter(before_));
    ::rmdir(folder_.c_str());
  }
  own_cgroup(const own_cgroup&) = delete;
  own_cgroup& operator=(const own_cgroup&) = delete;

  /// The process leaves it, or comes back; sockets stay where they were made.
  [[nodiscard]] bool leave() const { return !folder_.empty() && enter(before_); }
  [[nodiscard]] bool come_back() const { return !folder_.empty() && enter(folder_); }
  /// Attaches the program that lets nothing pass, or detaches it. False: there are none here.
  [[nodiscard]] bool deny(bool on) const { return set(BPF_CGROUP_INET_EGRESS, program_, on); }
  /// Attaches a program, or detaches it; `type` is BPF_CGROUP_*. False as above.
  [[nodiscard]] bool set(std::uint32_t type, const unique_fd& program, bool on) const {
    if (!fd_ || !program) return false;
    bpf_attr attach{};
    attach.target_fd = static_cast<std::uint32_t>(fd_.get());
    attach.attach_bpf_fd = static_cast<std::uint32_t>(program.get());
    attach.attach_type = type;
    return ::syscall(SYS_bpf, on ? BPF_PROG_ATTACH : BPF_PROG_DETACH, &attach, sizeof attach) == 0;
  }

 private:
  static bool enter(const std::string& folder) {
    const unique_fd members(::open((folder + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
    return members && ::write(members.get(), "0", 1) == 1;
  }
  std::string folder_, before_;
  unique_fd fd_, program_;
};

}  // namespace cowire::test
