// SPDX-License-Identifier: Apache-2.0
/// A BPF program for the egress hook of a control group.
#pragma once

#include <cowire/base/unique_fd.hpp>

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <iterator>

namespace cowire::test {

/// One that lets everything pass, or nothing. Empty where the kernel refuses it; errno says why.
inline unique_fd load_egress_program(bool lets_pass) {
  const bpf_insn instructions[] = {{BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, lets_pass},
                                   {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  bpf_attr load{};
  load.prog_type = BPF_PROG_TYPE_CGROUP_SKB;
  load.expected_attach_type = BPF_CGROUP_INET_EGRESS;
  load.insn_cnt = std::size(instructions);
  load.insns = reinterpret_cast<std::uintptr_t>(instructions);
  load.license = reinterpret_cast<std::uintptr_t>("GPL");
  return unique_fd(static_cast<int>(::syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load)));
}

}  // namespace cowire::test
