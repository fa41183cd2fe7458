// SPDX-License-Identifier: Apache-2.0
/// A network namespace as the oracle of route decisions: it runs what an inventor wrote, and is
/// mirrored twice, by dumps and, separately, by the notifications that all this caused.
///
/// What the kernel learns from ICMP no message tells: those destinations of which the world has
/// spoken are asked about as a transmitter would (follow/detail/path_exceptions.hpp), on a clock of
/// the world's own that jumps over the waits.
///
/// One thread at a time, the one whose namespace it is.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/follow/detail/bond_reader.hpp>
#include <cowire/follow/detail/device_order.hpp>
#include <cowire/follow/detail/path_exceptions.hpp>
#include <cowire/follow/detail/rule_question.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/route/mirror.hpp>

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "testbed/private_namespace.hpp"

namespace cowire::testing {

using line_list = std::vector<std::string>;

/// A namespace of this thread's own, what was done in it, and two mirrors of it. The thread is
/// inside as long as the world lives. They nest.
class kernel_world {
 public:
  /// Throws where there can be no namespace.
  kernel_world();
  kernel_world(const kernel_world&) = delete;
  kernel_world& operator=(const kernel_world&) = delete;

  /// Lines as for a shell: `ip ...`, `ip -6 ...`, `sysctl -w name=value`, or `sleep 0.2`, which
  /// waits until nothing moves any more; `join DEVICE GROUP` and `leave DEVICE GROUP`, which
  /// sockets of the world's do; or hearsay.
  void run(const line_list& lines);
  /// Dumped when nothing moves any more: the kernel finishes carrier changes and IPv6 addresses in
  /// the background.
  [[nodiscard]] mirror settled();
  /// Of whose flows exceptions are known from the next follow() or learn_exceptions() on.
  /// Where none is known, the next follow() asks, as a truth audit of the new classes' flows would:
  /// over a next hop that no class took before nobody has asked.
  void use_classes(std::vector<flow_class> classes);
  /// The mirror that has only seen notifications since the namespace was empty, as it is now; what
  /// has changed goes to `note`.
  template <class Note>
  const mirror& follow(Note&& note) {
    note(take_in_events());
    note(ask_about_exceptions(exceptions_));
    return followed_;
  }
  const mirror& follow() {
    return follow([](mirror_changes&&) {});
  }
  /// As it was.
  [[nodiscard]] const mirror& followed() const noexcept { return followed_; }
  /// What `followed` becomes by the re-dumps that it may be advised to make.
  [[nodiscard]] mirror refreshed(mirror followed);
  /// For a mirror that was dumped.
  void learn_exceptions(mirror& state);
  /// That the kernel has learned an exception which nobody in this world spread, for these classes
  /// too: known from the next follow() or learn_exceptions() on.
  void note_exception(const ip_address& about, const std::vector<flow_class>& classes);
  /// Of these destinations the kernel may have learned something.
  [[nodiscard]] const std::set<ip_address>& told_about() const noexcept { return told_about_; }
  [[nodiscard]] netlink::route_answer ask(const netlink::route_query& asked) {
    return socket_.get_route(asked);
  }

 private:
  [[nodiscard]] mirror dumped();
  void settle_what_is_hidden(mirror& state, mirror_changes& changes);
  void refresh(mirror& state, const netlink::dump_scope& scope, mirror_changes& changes);
  [[nodiscard]] mirror_changes take_in_events();
  [[nodiscard]] mirror_changes ask_about_exceptions(detail::path_exceptions& of);
  void spread(const std::string& line);
  void join(const std::string& line);

  test::private_namespace namespace_;  ///< First: the sockets are of it.
  netlink::request_socket socket_;
  detail::bond_reader bonds_;
  unique_fd events_, questions_;
  std::map<std::string, unique_fd> members_;  ///< By "DEVICE GROUP".
  std::vector<flow_class> classes_;
  std::set<ip_address> told_about_, unheard_;
  mirror followed_;
  detail::path_exceptions exceptions_;
  std::chrono::steady_clock::time_point clock_;
};

}  // namespace cowire::testing
