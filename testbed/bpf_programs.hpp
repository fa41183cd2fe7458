// SPDX-License-Identifier: Apache-2.0
/// BPF programs of the output path: at control groups' egress and sendmsg hooks, and at devices.
#pragma once

#include <cowire/base/unique_fd.hpp>

#include <arpa/inet.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace cowire::test {

/// Empty where the kernel refuses it; errno says why.
inline unique_fd load_program(bpf_prog_type type, std::uint32_t attach_type,
                              std::span<const bpf_insn> instructions) {
  bpf_attr load{};
  load.prog_type = type;
  load.expected_attach_type = attach_type;
  load.insn_cnt = static_cast<std::uint32_t>(instructions.size());
  load.insns = reinterpret_cast<std::uintptr_t>(instructions.data());
  load.license = reinterpret_cast<std::uintptr_t>("GPL");
  return unique_fd(static_cast<int>(::syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load)));
}

/// Whose every answer is this number.
inline unique_fd load_answering(bpf_prog_type type, std::uint32_t attach_type,
                                std::int32_t answer) {
  const bpf_insn instructions[] = {{BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, answer},
                                   {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  return load_program(type, attach_type, instructions);
}

/// For a control group's egress: lets everything pass, or nothing.
inline unique_fd load_egress_program(bool lets_pass) {
  return load_answering(BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS, lets_pass);
}

/// For BPF_CGROUP_UDP4_SENDMSG or its twin of IPv6: refuses everything.
inline unique_fd load_refusing_sendmsg_program(std::uint32_t attach_type) {
  return load_answering(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach_type, 0);
}

/// The same, but it sends everything to another port.
inline unique_fd load_rewriting_sendmsg_program(std::uint32_t attach_type, std::uint16_t port) {
  const bpf_insn instructions[] = {
      {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, htons(port)},
      {BPF_STX | BPF_MEM | BPF_W, BPF_REG_1, BPF_REG_2, offsetof(bpf_sock_addr, user_port), 0},
      {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 1},
      {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  return load_program(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach_type, instructions);
}

/// At a device's egress by tcx, of this network namespace: drops everything until the descriptor is
/// closed. Empty where the kernel has no tcx (before 6.6).
inline unique_fd drop_by_tcx(std::uint32_t interface_index) {
  constexpr std::uint32_t tcx_egress = 47;  // BPF_TCX_EGRESS, which build headers of 6.1 lack.
  const unique_fd program = load_answering(BPF_PROG_TYPE_SCHED_CLS, 0, 2);  // TC_ACT_SHOT
  bpf_attr link{};
  link.link_create.prog_fd = static_cast<std::uint32_t>(program.get());
  link.link_create.target_fd = interface_index;
  link.link_create.attach_type = tcx_egress;
  if (!program) return {};
  return unique_fd(static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &link, sizeof link)));
}

}  // namespace cowire::test
