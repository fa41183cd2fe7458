// SPDX-License-Identifier: Apache-2.0
/// The AF_XDP sockets of one transmitter: one for each interface that is to have one and can, and
/// each TX core (on a queue of its own), kept in step with the interfaces as they come, go, and
/// come back under another ifindex.
///
/// What stood in the way of a better rung, or of a socket for every core, may pass: a queue that
/// somebody else uses, somebody else's XDP program, too few queues. Then it is looked at again with
/// growing pauses, and with each change of a link: a small trial socket is bound, and if it could
/// be, the real ones at the next occasion, since a queue stays busy for a while after the trial.
/// Each change of an interface's rung is a warning in the log.
///
/// Order of opening: sockets, ports of the TX cores, number of cores in use, egress of the
/// compiler, publication. Order of closing: the reverse, each step after no reader can be using the
/// one before.
///
/// Control thread; stats() from any thread.
#pragma once

#include <cowire/async/detail/core_set.hpp>
#include <cowire/async/transmitter_config.hpp>
#include <cowire/async/transmitter_stats.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/xdp/socket.hpp>
#include <cowire/xdp/tx_core.hpp>
#include <cowire/xdp/umem.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cowire::detail {

class route_service;

class egress_set {
 public:
  egress_set(const transmitter_config& config, umem& memory, core_set& cores, route_service& routes,
             epoch_domain& epochs);
  ~egress_set();
  egress_set(const egress_set&) = delete;
  egress_set& operator=(const egress_set&) = delete;

  /// Opens and closes what the mirror's devices call for.
  void reconcile();
  /// Finishes closings, and steps down from a rung that has proved not to send. Cheap.
  void poll();
  /// Any thread: whether it waits for the cores to be done with sockets, so that poll() is due when
  /// one of them rings.
  [[nodiscard]] bool awaits_cores() const noexcept {
    return awaits_cores_.load(std::memory_order_relaxed);
  }
  /// Closes everything, waiting.
  void close_all();

  /// Whether frames left through an interface within the last seconds, as note_activity() saw.
  [[nodiscard]] bool active(std::uint32_t interface_index) const;
  /// Also opens the socket anew of a device that has completed nothing of what it holds for too
  /// many calls, and tries what is due to be tried again.
  void note_activity();

  /// Any thread. One element for each interface that is or was served, in order of name.
  [[nodiscard]] std::vector<interface_stats> stats(std::span<const tx_snapshot> counters) const;
  /// Any thread. Which interface keeps cores from being used, and what to do; "" = none.
  [[nodiscard]] std::string cores_reason() const;

 private:
  /// One core's socket on an interface.
  struct port {
    std::unique_ptr<xdp_socket> socket;
    /// What the core's present slot had counted for others.
    tx_snapshot::slot before;
    std::uint64_t seen = 0;     ///< Completed at the last note_activity().
    unsigned silent_ticks = 0;  ///< Calls of note_activity() since it last completed anything.
  };
  /// What is open on an interface.
  struct opening {
    send_mode mode = send_mode::kernel;
    std::vector<port> ports;     ///< By core.
    std::string too_few_reason;  ///< Where some cores have none: why, and what to do.
    /// The worst in the way of better rungs; none = nothing but the device itself.
    std::optional<obstacle> in_the_way;
  };
  struct more_ports {
    std::vector<port> ports;
    std::string too_few_reason;
    bool may_pass = false;    ///< That reason.
    bool seems_free = false;  ///< A trial socket could be bound; that is the reason.
  };
  /// When to try again what was not possible, but may come to be.
  struct retrial {
    std::chrono::steady_clock::time_point due = std::chrono::steady_clock::time_point::max();
    std::chrono::milliseconds pause{0};  ///< The one until then.
    bool seems_free = false;             ///< A trial socket could be bound: it is for real then.
  };
  struct interface {
    std::uint32_t index = 0;
    egress_slot slot = divert_slot;  ///< divert_slot = no socket.
    bool closing = false;
    bool tried = false;  ///< The ladder was climbed for this device; there may have been no rung.
    opening open;
    std::optional<send_mode> at_most;  ///< Better rungs have proved not to send.
    std::string at_most_reason;        ///< How.
    bool busy_poll_failed = false;     ///< So has busy polling.
    std::string reason;
    std::optional<send_mode> said;  ///< The rung that the log knows.
    retrial again;
    /// What its slots counted before this use of the present one.
    std::uint64_t transmitted_before = 0, lost_before = 0;
    std::chrono::steady_clock::time_point completed_at;  ///< The latest; about.
    std::uint64_t rebuilt = 0;
  };

  [[nodiscard]] bool wanted(const mirror::device& device) const;
  /// Why an interface is not served (any more): it is not wanted() or not there.
  [[nodiscard]] std::string why_unserved(const std::string& name, const interface& on) const;
  void open(const std::string& name, interface& on);
  /// A change is a warning. Otherwise, with the severity given, or not at all.
  void say_rung(const std::string& name, interface& on, std::optional<log_severity> otherwise);
  /// Climbs the ladder on the first core's queue. `reason` gets why no better rung was to be had.
  [[nodiscard]] opening open_ports(const device_facts& facts, const interface& on,
                                   std::string& reason);
  /// Opens sockets, on the rung of `have`, for the cores that have none yet there. Not `for_real`:
  /// at most a trial socket, for the first of them.
  [[nodiscard]] more_ports open_more(const device_facts& facts, const interface& on,
                                     const opening& have, bool for_real);
  [[nodiscard]] socket_options options_for(const interface& on, const opening& have) const;
  void add_ports(interface& on, std::size_t first);
  void try_again();
  /// Whether it is worth trying for a better rung than the present one.
  [[nodiscard]] bool way_is_free(const std::string& name, const interface& on) const;
  /// To cores that have no socket there.
  void extend(const std::string& name, interface& on);
  static void plan_retrial(interface& on, bool wanted);
  /// Soon, and for real.
  static void plan_opening(interface& on);
  void use_cores();
  void begin_close(interface& on);
  void rebuild(const std::string& name, interface& on, std::size_t silent);
  /// Whether a core's device has stalled and completed nothing before.
  [[nodiscard]] bool never_sent(const interface& on) const;
  /// To a way of sending that has not failed yet; false where the configuration allows none.
  [[nodiscard]] bool step_down(interface& on);
  [[nodiscard]] bool finish_close(interface& on);
  [[nodiscard]] egress_slot free_slot() const;

  const transmitter_config& config_;
  umem& memory_;
  core_set& cores_;
  route_service& routes_;
  epoch_domain& epochs_;
  mutable std::mutex mutex_;  ///< Guards interfaces_ against stats(); the control thread writes.
  std::map<std::string, interface> interfaces_;
  bool final_ = false;  ///< close_all() was called.
  std::atomic<bool> awaits_cores_{false};
};

}  // namespace cowire::detail
