// SPDX-License-Identifier: Apache-2.0
/// Tells who watches a destination, or waits until the fast path serves it, what becomes of its
/// datagrams (path_events.hpp).
///
///     route_service --on_published--> look each up in the new table --> same hop, not concerned
///                                                  | another hop, or its route may be another
///                                                  v
///                                     compiler::explain() --> same_way() --> told, or not
///
/// Two steps, because explaining takes a hundred times as long as looking up. A hop is all that a
/// frame depends on; what the kernel decides where it has the datagram itself depends on what
/// concerns() looks at.
///
/// Control thread, but add().
#pragma once

#include <cowire/async/detail/chosen_classes.hpp>
#include <cowire/async/path_events.hpp>
#include <cowire/ring/event_queue.hpp>
#include <cowire/route/compiler.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/forwarding_table.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace cowire::detail {

class route_service;

/// Datagrams of a sender to one destination, and how the TX cores get to know their class.
struct path_question {
  std::uint32_t sender = 0;  ///< Its id.
  flow asked;
  flow_class_id compiled = 0;  ///< Or what stands for one (tx_request.hpp).
  /// Of datagrams that choose for themselves: the class is this combination's, once it has one.
  std::shared_ptr<chosen_classes> chosen{};
  std::optional<std::size_t> number{};
  bool own_ecn = false;  ///< They choose an ECN codepoint.
};

class path_watches {
 public:
  using clock = std::chrono::steady_clock;
  using queue = event_queue<path_state>;

  /// `kernel_only`: no interface gets a socket, as that was asked for. `tracks`: the kernel can be
  /// asked for its entries of tracked flows.
  path_watches(route_service& routes, bool kernel_only, bool tracks)
      : routes_(routes), kernel_only_(kernel_only), tracks_(tracks) {}

  /// Any thread. Begins with the next begin_added(). The queue is told each state, as long as
  /// others keep it; or, `until_settled`, the first one that is not transient, as long as somebody
  /// reads.
  void add(path_question what, std::shared_ptr<queue> whom, bool until_settled);

  void begin_added();
  void on_published(const publication& done);
  /// Classes that datagrams have chosen were compiled, or never will be.
  void on_chosen();
  /// Now and then: asks for neighbours again, forgets what nobody wants to know any more.
  void on_tick(clock::time_point now);
  /// The sender is gone.
  void forget(std::uint32_t sender);
  void close();

 private:
  struct watch {
    path_question what;
    std::weak_ptr<queue> whom;
    std::shared_ptr<queue> kept;  ///< Until settled; otherwise null.
    hop seen{};                   ///< When it was looked at last.
    bool several = false;         ///< Its route has several next hops.
    bool rules_being_read = false;
    bool ended = false;
    std::optional<neighbour_key> unresolved{};
    std::optional<path_state> told{};
  };
  using watches = std::vector<std::unique_ptr<watch>>;

  /// Whether the kernel's decision may be another after these changes.
  [[nodiscard]] static bool concerns(const mirror_changes& changes, const watch& one);
  /// As a TX core finds it.
  [[nodiscard]] hop hop_of(const path_question& what) const;
  [[nodiscard]] path_state describe(watch& one) const;
  void set_service(path_state& out, const watch& one, const explanation& told) const;
  [[nodiscard]] std::string name_of(std::uint32_t interface_index) const;
  [[nodiscard]] bool is_settled(const watch& one, const path_state& state) const;
  /// Tells it what has changed. Whether that was all it wants to know.
  [[nodiscard]] bool examine(watch& one);
  void examine_if(bool (*concerned)(const mirror_changes&, const watch&),
                  const mirror_changes& changes);
  void erase_ended() noexcept;
  [[nodiscard]] static bool is_unwanted(const watch& one);

  route_service& routes_;
  const bool kernel_only_, tracks_;
  /// Of whom neighbours were asked for last: they take turns.
  std::pair<std::uint32_t, ip_address> asked_last_{};
  watches all_;
  std::uint64_t version_ = 0;
  std::int64_t published_ns_ = 0;
  clock::time_point next_asking_{};

  std::mutex mutex_;  ///< Guards the two below.
  watches added_;
  bool closed_ = false;
};

}  // namespace cowire::detail
