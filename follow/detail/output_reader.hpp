// SPDX-License-Identifier: Apache-2.0
/// Reads the state of the output path from the kernel: rulesets, hooks, legacy tables, IPsec
/// policies, traffic control, control-group programs.
///
/// Blocking, though the kernel answers at once; on a thread that nobody waits for. All of the
/// calling thread's network namespace: construct and use it on one thread. What cannot be read says
/// so in the snapshot and is an obstacle there; nothing throws.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/route/output_path.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace cowire::detail {

class output_reader {
 public:
  /// Of what is not obeyed nothing is read, not even a socket opened.
  explicit output_reader(const output_layers& obeyed = {});

  /// Control groups that count beside that of the calling thread, by id: those of sockets.
  void look_at_groups(std::vector<std::uint64_t> ids) { groups_ = std::move(ids); }
  /// Everything that is obeyed, as it is now. The ruleset is taken from `before` where its
  /// generation is the same, IPsec policies as refresh_ipsec() does.
  /// `on_other_rules`: called before a ruleset is read that has replaced the one of `before`.
  [[nodiscard]] output_snapshot read(const output_snapshot* before = nullptr,
                                     const std::function<void()>& on_other_rules = {});
  /// The default, and the policies unless `state` has them by what was announced until now: if
  /// their numbers are right and the last reading is not too long ago.
  /// `may_wait`: more has been announced, which may be why the number is another one.
  void refresh_ipsec(ipsec_state& state, bool may_wait = false);
  void read_ipsec(ipsec_state& into);
  /// What devices there are, with their disciplines, filters and programs.
  void read_devices(output_snapshot& into);
  /// The functions at hooks, where they are obeyed and the kernel lists them.
  void read_hooks(netfilter_state& into);

 private:
  /// Sends and hands on each answer, until the last, or until there have been enough: then the
  /// socket is good for nothing more. The errno that the kernel ended with.
  using visitor = std::function<void(const netlink::envelope&)>;
  [[nodiscard]] int ask(const unique_fd& socket, std::span<const std::byte> request, bool dump,
                        const visitor& visit, const std::function<bool()>& enough = {});
  void read_rules(netfilter_state& into, const output_snapshot* before,
                  const std::function<void()>& on_other_rules);
  static void read_legacy(netfilter_state& into);
  [[nodiscard]] bool has_ipsec(ipsec_state& into);
  void read_policies(ipsec_state& into);
  void read_default(ipsec_state& into);
  void read_filters(device_output_state& into, std::uint32_t device);
  void read_programs(device_output_state& into, std::uint32_t device);
  void read_cgroup(cgroup_state& into) const;

  const output_layers obeyed_;
  std::vector<std::uint64_t> groups_;
  unique_fd netfilter_, ipsec_;
  int ipsec_error_ = 0;
  unique_fd route_;
  std::chrono::steady_clock::time_point policies_read_at_{};
  std::uint32_t sequence_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace cowire::detail
