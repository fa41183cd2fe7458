// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/program.hpp>

#include <cowire/base/error.hpp>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>

#include <cerrno>
#include <iterator>

namespace cowire {
namespace {

/// r0 = XDP_PASS; exit.
constexpr bpf_insn pass_instructions[] = {
    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = XDP_PASS},
    {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
};

[[nodiscard]] std::error_code attach(std::uint32_t interface_index, xdp_program_mode mode,
                                     detail::parents_fd& link) {
  const unique_fd program(::bpf_prog_load(BPF_PROG_TYPE_XDP, "cowire_pass", "Dual BSD/GPL",
                                          pass_instructions, std::size(pass_instructions),
                                          nullptr));
  if (!program) return errno_code(errno);
  bpf_link_create_opts options{};
  options.sz = sizeof options;
  options.flags = mode == xdp_program_mode::native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
  link = unique_fd(
      ::bpf_link_create(program.get(), static_cast<int>(interface_index), BPF_XDP, &options));
  return link ? std::error_code{} : errno_code(errno);
}

[[nodiscard]] std::string describe_failure(std::uint32_t interface_index,
                                           const std::error_code& ec) {
  char name[IF_NAMESIZE] = "?";
  static_cast<void>(::if_indextoname(interface_index, name));
  std::string text = std::string("attach an XDP program to ") + name;
  bpf_xdp_query_opts query{};
  query.sz = sizeof query;
  const bool taken = ec == std::errc::device_or_resource_busy || ec == std::errc::file_exists;
  if (taken && ::bpf_xdp_query(static_cast<int>(interface_index), 0, &query) == 0 &&
      query.prog_id != 0) {
    text += ": program " + std::to_string(query.prog_id) + " is there already (see `ip link show " +
            name + "`); it is not replaced";
  } else if (ec == std::errc::operation_not_permitted) {
    text += ": needs CAP_BPF and CAP_NET_ADMIN";
  }
  return text;
}

}  // namespace

xdp_pass_program::xdp_pass_program(std::uint32_t interface_index, xdp_program_mode mode)
    : mode_(mode) {
  if (const std::error_code ec = attach(interface_index, mode, link_))
    throw_error(ec, describe_failure(interface_index, ec));
}

xdp_pass_program::xdp_pass_program(std::uint32_t interface_index, xdp_program_mode mode,
                                   std::error_code& ec)
    : mode_(mode) {
  ec = attach(interface_index, mode, link_);
}

}  // namespace cowire
