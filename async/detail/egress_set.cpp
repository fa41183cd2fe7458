// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/egress_set.hpp>
#include <cowire/base/assert.hpp>
#include <cowire/follow/route_service.hpp>
#include <cowire/route/compiler.hpp>
#include <cowire/xdp/known_trouble.hpp>

#include <net/if.h>
#include <net/if_arp.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <thread>
#include <utility>

namespace cowire::detail {
namespace {

using namespace std::chrono_literals;

/// How long frames in a device may take to complete when its socket is closed.
constexpr auto completion_grace = 50ms;
/// How long readers may take to leave the table that named a socket: a batch, usually.
constexpr auto reader_grace = 1s;
/// Longer than between two of the occasions at which neighbours are kept fresh.
constexpr auto activity_lasts = 3s;
/// A second of the route service's ticks: an order above what pause frames and resets take on
/// devices that recover, and above the TX core's own deadline, which diverts what waits meanwhile.
constexpr unsigned silent_ticks_max = 4;

/// Between two trials of what is not possible yet: doubling, from the first to the last.
constexpr std::chrono::milliseconds first_retrial = 1s, last_retrial = 30s;

/// Why no AF_XDP socket can be bound to a queue now; "" = one can. It is bound for a moment, to
/// memory of its own, as it takes long to register a large one, and without attaching a program.
std::string taken_queue(const device_facts& facts, std::uint32_t queue) {
  umem scratch({.frame_count = slice_granularity, .huge_pages = false});
  const auto tried = open_egress(
      scratch, facts,
      {.mode = send_mode::copy, .queue = queue, .tx_ring_size = 64, .busy_deadline = 0ms});
  return tried.socket ? "" : tried.rejected.back().reason;
}

send_mode next_lower(send_mode mode) noexcept {
  return mode == send_mode::zero_copy ? send_mode::copy : send_mode::kernel;
}

/// The best rung that a device declares; of one that declares nothing the ladder finds out. What is
/// known not to work does not count.
send_mode best_rung(const device_facts& facts) {
  if (!facts.ethernet) return send_mode::kernel;
  if (!facts.features) return send_mode::generic;
  if (facts.features->zero_copy && trouble_to_avoid(facts, send_mode::zero_copy).empty())
    return send_mode::zero_copy;
  return facts.features->native ? send_mode::copy : send_mode::generic;
}

/// Whether an interface ended below what it was to have, and so is slower than its operator thinks.
bool ended_lower(const transmitter_config& config, const device_facts& facts, send_mode got) {
  static_assert(send_mode::zero_copy < send_mode::copy && send_mode::copy < send_mode::generic &&
                send_mode::generic < send_mode::kernel);
  return got > config.mode.value_or(best_rung(facts));
}

/// Kinds that lead to another device, which gets the socket instead.
bool is_end_of_the_line(const netlink::link& link) noexcept {
  return (link.kind.empty() || link.kind == "veth" || link.kind == "tun") &&
         link.slave_kind != "bridge";
}

}  // namespace

egress_set::egress_set(const transmitter_config& config, umem& memory, core_set& cores,
                       route_service& routes, epoch_domain& epochs)
    : config_(config), memory_(memory), cores_(cores), routes_(routes), epochs_(epochs) {}

egress_set::~egress_set() = default;

bool egress_set::wanted(const mirror::device& device) const {
  if (!device.up()) return false;
  const netlink::link& link = device.link;
  if (!config_.interfaces.empty())
    return std::ranges::find(config_.interfaces, link.name) != config_.interfaces.end();
  return link.hardware_type == ARPHRD_ETHER && (link.flags & IFF_LOOPBACK) == 0 &&
         is_end_of_the_line(link);
}

void egress_set::reconcile() {
  for (auto& [name, on] : interfaces_) {
    const auto* device = routes_.state().find_device(name);
    const bool keep = device && device->link.index == on.index && wanted(*device);
    if (keep) {
      const auto soon = std::chrono::steady_clock::now() + first_retrial;
      if (on.again.pause.count() != 0) on.again.due = std::min(on.again.due, soon);
      continue;
    }
    on.tried = false;
    on.again = {};
    if (on.slot != divert_slot && !on.closing) begin_close(on);
    {
      const std::lock_guard lock(mutex_);
      on.reason = why_unserved(name, on);
    }
    say_rung(name, on, {});
  }
  poll();
  for (const auto& [index, device] : routes_.state().devices()) {
    if (!wanted(device)) continue;
    std::unique_lock lock(mutex_);
    const auto [entry, is_new] = interfaces_.try_emplace(device.link.name);
    interface& on = entry->second;
    if (on.slot != divert_slot) continue;  // Open, or closing: then poll() comes back here.
    if (!is_new && on.index == index && on.tried) continue;  // It has no rung; it may after a down.
    if (on.index != index) {
      on.at_most.reset();
      on.at_most_reason.clear();
      on.busy_poll_failed = false;
    }
    on.index = index;
    on.tried = true;
    lock.unlock();
    open(device.link.name, on);
  }
  routes_.publish();
}

egress_slot egress_set::free_slot() const {
  std::array<bool, max_egress_slots> used{};
  for (const auto& [name, on] : interfaces_) used[on.slot] = true;
  for (egress_slot slot = 1; slot < max_egress_slots; ++slot)
    if (!used[slot]) return slot;
  return divert_slot;
}

void egress_set::open(const std::string& name, interface& on) {
  std::error_code ec;
  const auto facts = read_device(name, ec);
  opening opened;
  std::string reason;
  const egress_slot slot = free_slot();
  if (config_.mode == send_mode::kernel) {
    reason = "kernel mode was asked for";
  } else if (ec) {
    reason = "cannot read the device: " + ec.message();
    opened.in_the_way = obstacle::passing;
  } else if (!facts.ethernet) {
    reason = "not an Ethernet device";
  } else if (slot == divert_slot) {
    reason = "all " + std::to_string(max_egress_slots - 1) + " slots are in use";
    opened.in_the_way = obstacle::passing;
  } else if (on.at_most != send_mode::kernel) {
    opened = open_ports(facts, on, reason);
    if (on.at_most) reason = on.at_most_reason + (reason.empty() ? "" : "; " + reason);
  } else {
    reason = on.at_most_reason;
  }
  bool more_may_come = opened.in_the_way == obstacle::passing;
  if (!opened.ports.empty()) {
    auto more = open_more(facts, on, opened, true);
    std::ranges::move(more.ports, std::back_inserter(opened.ports));
    opened.too_few_reason = std::move(more.too_few_reason);
    more_may_come = more_may_come || more.may_pass;
  }
  plan_retrial(on, more_may_come);
  const bool lower = ec || ended_lower(config_, facts, opened.mode);
  {
    const std::lock_guard lock(mutex_);
    on.reason = std::move(reason);
    on.open = std::move(opened);
    if (!on.open.ports.empty()) {
      on.slot = slot;
      add_ports(on, 0);
    }
  }
  say_rung(name, on, lower || on.open.in_the_way ? log_severity::warning : log_severity::info);
  if (on.slot == divert_slot) return;
  use_cores();
  routes_.compiler().set_egress(on.index, slot);
}

void egress_set::say_rung(const std::string& name, interface& on,
                          std::optional<log_severity> otherwise) {
  const bool served = on.slot != divert_slot && !on.closing;
  const send_mode rung = served ? on.open.mode : send_mode::kernel;
  const bool changed = std::exchange(on.said, rung).value_or(rung) != rung;
  if (changed) otherwise = log_severity::warning;
  if (config_.log && otherwise)
    config_.log(*otherwise, name + ": " + std::string(cowire::name(rung)) +
                                (on.reason.empty() ? "" : " (" + on.reason + ")"));
}

/// The ports from `first` on begin to serve their cores. With the lock.
void egress_set::add_ports(interface& on, std::size_t first) {
  for (std::size_t i = first; i < on.open.ports.size(); ++i) {
    port& one = on.open.ports[i];
    one.before = cores_[i].snapshot().slots[on.slot];
    one.seen = one.before.completed;
    cores_[i].add_port(on.slot, on.index, one.socket->queue());
  }
}

std::string egress_set::why_unserved(const std::string& name, const interface& on) const {
  const auto& devices = routes_.state().devices();
  const auto* device = routes_.state().find_device(name);
  if (!device) {
    const auto same = devices.find(on.index);
    if (same == devices.end()) return "there is no such interface any more";
    return "it is called " + same->second.link.name + " now";
  }
  if (!device->up()) return "it is down: ip link set " + name + " up";
  if (device->link.slave_kind == "bridge") {
    const auto bridge = devices.find(device->link.master);
    return "it is a port of " +
           (bridge == devices.end() ? "a bridge" : "the bridge " + bridge->second.link.name) +
           ", whose datagrams take the kernel path";
  }
  return "it is not an Ethernet device that ends here";
}

socket_options egress_set::options_for(const interface& on, const opening& have) const {
  socket_options options;
  options.mode = !have.ports.empty() ? have.mode : on.at_most ? on.at_most : config_.mode;
  options.queue = queue_of(config_, have.ports.size());
  options.sibling = have.ports.empty() ? nullptr : have.ports[0].socket.get();
  options.tx_ring_size = config_.ring_capacity;
  if (!on.busy_poll_failed) options.busy_poll = config_.busy_poll;
  options.busy_poll_budget = config_.busy_poll_budget;
  return options;
}

egress_set::opening egress_set::open_ports(const device_facts& facts, const interface& on,
                                           std::string& reason) {
  auto first = open_egress(memory_, facts, options_for(on, {}));
  opening out;
  out.mode = first.mode;
  for (const auto& rung : first.rejected) {
    reason +=
        (reason.empty() ? "" : "; ") + std::string(cowire::name(rung.mode)) + ": " + rung.reason;
    if (rung.kind != obstacle::device)
      out.in_the_way = std::max(out.in_the_way, std::optional(rung.kind));
  }
  if (first.socket) out.ports.push_back({std::move(first.socket), {}});
  return out;
}

egress_set::more_ports egress_set::open_more(const device_facts& facts, const interface& on,
                                             const opening& have, bool for_real) {
  more_ports out;
  auto options = options_for(on, have);
  std::uint32_t wanted = 0;
  for (std::uint32_t core = 0; core < cores_.size(); ++core)
    wanted = std::max(wanted, queue_of(config_, core) + 1);
  for (std::size_t core = have.ports.size(); core < cores_.size(); ++core) {
    options.queue = queue_of(config_, core);
    if (options.queue >= facts.queues.tx) {
      out.too_few_reason = facts.name + " has transmit queues for " + std::to_string(core) + ": " +
                           more_queues(facts, wanted);
      out.may_pass = options.queue < facts.queues.tx_max;
      return out;
    }
    if (!for_real) {
      const std::string taken = taken_queue(facts, options.queue);
      out.seems_free = taken.empty();
      out.too_few_reason = facts.name + ": " +
                           (out.seems_free ? "queue " + std::to_string(options.queue) +
                                                 " has become free, and is taken in a second"
                                           : taken);
      out.may_pass = true;
      return out;
    }
    auto next = open_egress(memory_, facts, options);
    if (!next.socket) {
      out.too_few_reason = facts.name + ": " + next.rejected.back().reason;
      out.may_pass = next.rejected.back().kind == obstacle::passing;
      return out;
    }
    out.ports.push_back({std::move(next.socket), {}});
  }
  return out;
}

void egress_set::plan_retrial(interface& on, bool wanted) {
  if (!wanted) {
    on.again = {};
    return;
  }
  on.again.pause = std::clamp(2 * on.again.pause, first_retrial, last_retrial);
  on.again.due = std::chrono::steady_clock::now() + on.again.pause;
}

void egress_set::plan_opening(interface& on) {
  on.again = {};
  plan_retrial(on, true);
  on.again.seems_free = true;
}

void egress_set::try_again() {
  const auto now = std::chrono::steady_clock::now();
  bool free = false;
  for (auto& [name, on] : interfaces_) {
    if (on.again.due > now || on.closing || final_) continue;
    plan_retrial(on, true);
    if (on.slot == divert_slot) {
      if (std::exchange(on.again.seems_free, false)) {
        on.tried = false;
        free = true;
      } else if (way_is_free(name, on)) {
        plan_opening(on);
      }
    } else if (on.open.in_the_way == obstacle::passing && way_is_free(name, on)) {
      begin_close(on);  // poll() opens it anew.
    } else {
      extend(name, on);
    }
  }
  if (free) reconcile();
}

bool egress_set::way_is_free(const std::string& name, const interface& on) const {
  std::error_code ec;
  const auto facts = read_device(name, ec);
  if (ec || facts.index != on.index) return false;
  const bool needs_program = on.slot != divert_slot || config_.mode == send_mode::zero_copy;
  if (needs_program && facts.attached != xdp_attachment::none) return false;
  return on.slot != divert_slot || taken_queue(facts, queue_of(config_, 0)).empty();
}

void egress_set::extend(const std::string& name, interface& on) {
  std::error_code ec;
  const auto facts = read_device(name, ec);
  if (ec || facts.index != on.index) return;
  auto more = open_more(facts, on, on.open, std::exchange(on.again.seems_free, false));
  {
    const std::lock_guard lock(mutex_);
    const std::size_t before = on.open.ports.size();
    std::ranges::move(more.ports, std::back_inserter(on.open.ports));
    on.open.too_few_reason = std::move(more.too_few_reason);
    add_ports(on, before);
  }
  if (more.seems_free)
    plan_opening(on);
  else if (!more.may_pass && on.open.in_the_way != obstacle::passing)
    plan_retrial(on, false);
  use_cores();
}

/// As many as every interface served has sockets for.
void egress_set::use_cores() {
  std::uint32_t count = cores_.size();
  for (const auto& [name, on] : interfaces_)
    if (on.slot != divert_slot)
      count = std::min(count, static_cast<std::uint32_t>(on.open.ports.size()));
  if (count == cores_.in_use()) return;
  cores_.use(count);
  if (config_.log)
    config_.log(count < cores_.size() ? log_severity::warning : log_severity::info,
                std::to_string(count) + " of " + std::to_string(cores_.size()) +
                    " TX cores are used" + (count < cores_.size() ? "; " + cores_reason() : ""));
}

std::string egress_set::cores_reason() const {
  const std::lock_guard lock(mutex_);
  const interface* narrowest = nullptr;
  for (const auto& [name, on] : interfaces_) {
    if (on.slot == divert_slot || on.open.too_few_reason.empty()) continue;
    if (!narrowest || on.open.ports.size() < narrowest->open.ports.size()) narrowest = &on;
  }
  return narrowest ? narrowest->open.too_few_reason : "";
}

void egress_set::begin_close(interface& on) {
  routes_.compiler().clear_egress(on.index);
  routes_.publish();
  // Who reads the old table still may use the slot; the core diverts from a slot that is closing,
  // so that running out of patience here costs nothing.
  static_cast<void>(epochs_.synchronize(std::chrono::steady_clock::now() + reader_grace));
  awaits_cores_.store(true, std::memory_order_relaxed);  // Before any of them can ring.
  for (std::size_t i = 0; i < on.open.ports.size(); ++i)
    cores_[i].begin_remove_port(on.slot, completion_grace);
  const std::lock_guard lock(mutex_);
  on.closing = true;
}

bool egress_set::finish_close(interface& on) {
  if (!on.closing) return false;
  for (std::size_t i = 0; i < on.open.ports.size(); ++i)
    if (!cores_[i].port_removed(on.slot)) return false;
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < on.open.ports.size(); ++i) {
      const auto counted = cores_[i].snapshot().slots[on.slot];
      const auto& before = on.open.ports[i].before;
      on.transmitted_before += counted.completed - before.completed;
      on.lost_before += counted.lost_in_device - before.lost_in_device;
    }
    // After the end stats() still tells which rung served; an interface that is down has none.
    const send_mode rung = final_ ? on.open.mode : send_mode::kernel;
    on.open = {};
    on.open.mode = rung;
    on.slot = divert_slot;
    on.closing = on.tried = false;
  }
  use_cores();
  return true;
}

bool egress_set::never_sent(const interface& on) const {
  for (std::size_t i = 0; i < on.open.ports.size(); ++i) {
    const auto now = cores_[i].snapshot().slots[on.slot];
    const auto& before = on.open.ports[i].before;
    if (now.completed == before.completed && now.stalls != before.stalls) return true;
  }
  return false;
}

void egress_set::poll() {
  bool again = false;
  for (auto& [name, on] : interfaces_) {
    if (finish_close(on)) {
      again = true;
    } else if (on.slot != divert_slot && !on.closing && on.open.mode == send_mode::zero_copy &&
               never_sent(on) && step_down(on)) {
      // igb, for one, binds zero-copy without complaint and may then never send.
      begin_close(on);
    }
  }
  const auto closing = [](const auto& entry) { return entry.second.closing; };
  awaits_cores_.store(std::ranges::any_of(interfaces_, closing), std::memory_order_relaxed);
  if (again) reconcile();
}

bool egress_set::step_down(interface& on) {
  const std::lock_guard lock(mutex_);
  if (on.open.ports[0].socket->busy_polling()) return on.busy_poll_failed = true;
  if (config_.mode) return false;
  on.at_most_reason =
      std::string(cowire::name(on.open.mode)) + ": bound, but no frame ever completed";
  on.at_most = next_lower(on.open.mode);
  return true;
}

void egress_set::rebuild(const std::string& name, interface& on, std::size_t silent) {
  const auto now = cores_[silent].snapshot().slots[on.slot];
  if (config_.log)
    config_.log(log_severity::warning, name + ": queue " + std::to_string(silent) +
                                           " completed nothing for a second with " +
                                           std::to_string(now.outstanding) +
                                           " frames in the device; it is opened anew");
  if (on.open.ports[silent].socket->busy_polling() ||
      now.completed == on.open.ports[silent].before.completed)
    static_cast<void>(step_down(on));
  {
    const std::lock_guard lock(mutex_);
    ++on.rebuilt;
  }
  begin_close(on);
}

void egress_set::close_all() {
  final_ = true;
  for (auto& [name, on] : interfaces_) {
    if (on.slot == divert_slot) continue;
    if (!on.closing) begin_close(on);
    while (!finish_close(on)) std::this_thread::sleep_for(1ms);  // Bounded by the grace.
  }
}

void egress_set::note_activity() {
  const auto counters = cores_.snapshots();
  const auto now = std::chrono::steady_clock::now();
  for (auto& [name, on] : interfaces_) {
    std::optional<std::size_t> silent;
    for (std::size_t i = 0; i < on.open.ports.size(); ++i) {
      port& one = on.open.ports[i];
      const auto& slot = counters[i].slots[on.slot];
      const bool progress = slot.completed != std::exchange(one.seen, slot.completed);
      if (progress) on.completed_at = now;
      one.silent_ticks = progress || slot.outstanding == 0 ? 0 : one.silent_ticks + 1;
      if (one.silent_ticks >= silent_ticks_max) silent = i;
    }
    if (silent && !on.closing) rebuild(name, on, *silent);
  }
  try_again();
}

bool egress_set::active(std::uint32_t interface_index) const {
  const auto recently = std::chrono::steady_clock::now() - activity_lasts;
  return std::ranges::any_of(interfaces_, [&](const auto& entry) {
    return entry.second.index == interface_index && entry.second.completed_at > recently;
  });
}

std::vector<interface_stats> egress_set::stats(std::span<const tx_snapshot> counters) const {
  std::vector<interface_stats> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [name, on] : interfaces_) {
    interface_stats one{.name = name,
                        .index = on.index,
                        .mode = on.open.mode,
                        .reason = on.reason,
                        .transmitted = on.transmitted_before,
                        .lost_in_device = on.lost_before,
                        .rebuilt = on.rebuilt,
                        .sockets = static_cast<std::uint32_t>(on.open.ports.size())};
    if (!on.open.ports.empty()) {
      const auto refused = on.open.ports[0].socket->refused_options();
      one.refused_options.assign(refused.begin(), refused.end());
    }
    if (on.busy_poll_failed)
      one.refused_options.push_back("busy polling: the device completed nothing for a second");
    for (std::size_t i = 0; i < on.open.ports.size(); ++i) {
      const auto& slot = counters[i].slots[on.slot];
      const auto& before = on.open.ports[i].before;
      one.transmitted += slot.completed - before.completed;
      one.lost_in_device += slot.lost_in_device - before.lost_in_device;
    }
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace cowire::detail
