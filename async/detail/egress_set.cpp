// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/egress_set.hpp>
#include <cowire/base/assert.hpp>

#include <net/if.h>
#include <net/if_arp.h>

#include <algorithm>
#include <array>
#include <thread>

namespace cowire::detail {
namespace {

using namespace std::chrono_literals;

/// How long frames in a device may take to complete when its socket is closed.
constexpr auto completion_grace = 50ms;
/// How long readers may take to leave the table that named a socket: a batch, usually.
constexpr auto reader_grace = 1s;
/// A second of the route service's ticks: an order above what pause frames and resets take on
/// devices that recover, and above the TX core's own deadline, which diverts what waits meanwhile.
constexpr unsigned silent_ticks_max = 4;

send_mode next_lower(send_mode mode) noexcept {
  return mode == send_mode::zero_copy ? send_mode::copy : send_mode::kernel;
}

/// Kinds that lead to another device, which gets the socket instead.
bool is_end_of_the_line(const netlink::link& link) noexcept {
  return (link.kind.empty() || link.kind == "veth" || link.kind == "tun") &&
         link.slave_kind != "bridge";
}

}  // namespace

egress_set::egress_set(const transmitter_config& config, umem& memory, tx_core& core,
                       route_service& routes, epoch_domain& epochs)
    : config_(config), memory_(memory), core_(core), routes_(routes), epochs_(epochs) {}

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
    if (!keep) on.tried = false;
    if (!keep && on.slot != divert_slot && !on.closing) begin_close(on);
  }
  poll();
  for (const auto& [index, device] : routes_.state().devices()) {
    if (!wanted(device)) continue;
    std::unique_lock lock(mutex_);
    const auto [entry, is_new] = interfaces_.try_emplace(device.link.name);
    interface& on = entry->second;
    if (on.slot != divert_slot) continue;  // Open, or closing: then poll() comes back here.
    if (!is_new && on.index == index && on.tried) continue;  // It has no rung; it may after a down.
    if (on.index != index) on.at_most.reset();
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
  opened_egress opened;
  std::string reason;
  const egress_slot slot = free_slot();
  if (config_.mode == send_mode::kernel) {
    reason = "kernel mode was asked for";
  } else if (ec) {
    reason = "cannot read the device: " + ec.message();
  } else if (!facts.ethernet) {
    reason = "not an Ethernet device";
  } else if (slot == divert_slot) {
    reason = "all " + std::to_string(max_egress_slots - 1) + " sockets are in use";
  } else if (on.at_most != send_mode::kernel) {
    socket_options options;
    options.mode = on.at_most ? on.at_most : config_.mode;
    options.tx_ring_size = config_.ring_capacity;
    opened = open_egress(memory_, facts, options);
    for (const auto& rung : opened.rejected)
      reason +=
          (reason.empty() ? "" : "; ") + std::string(cowire::name(rung.mode)) + ": " + rung.reason;
    if (on.at_most) reason = on.reason + (reason.empty() ? "" : "; " + reason);
  } else {
    reason = on.reason;
  }
  if (config_.log)
    config_.log(log_severity::info, name + ": " + std::string(cowire::name(opened.mode)) +
                                        (reason.empty() ? "" : " (" + reason + ")"));
  const std::lock_guard lock(mutex_);
  on.reason = std::move(reason);
  on.egress = std::move(opened);
  if (!on.egress.socket) return;
  on.slot = slot;
  on.slot_before = core_.snapshot().slots[slot];
  core_.add_port(slot, on.index, on.egress.socket->queue());
  routes_.compiler().set_egress(on.index, slot);
}

void egress_set::begin_close(interface& on) {
  routes_.compiler().clear_egress(on.index);
  routes_.publish();
  // Who reads the old table still may use the slot; the core diverts from a slot that is closing,
  // so that running out of patience here costs nothing.
  static_cast<void>(epochs_.synchronize(std::chrono::steady_clock::now() + reader_grace));
  core_.begin_remove_port(on.slot, completion_grace);
  const std::lock_guard lock(mutex_);
  on.closing = true;
}

bool egress_set::finish_close(interface& on) {
  if (!on.closing || !core_.port_removed(on.slot)) return false;
  const auto counted = core_.snapshot().slots[on.slot];
  const std::lock_guard lock(mutex_);
  on.transmitted_before += counted.completed - on.slot_before.completed;
  on.lost_before += counted.lost_in_device - on.slot_before.lost_in_device;
  // After the end stats() still tells which rung served; an interface that is down has none.
  const send_mode rung = final_ ? on.egress.mode : send_mode::kernel;
  on.egress = {};
  on.egress.mode = rung;
  on.slot = divert_slot;
  on.closing = on.tried = false;
  on.seen = 0;
  return true;
}

void egress_set::poll() {
  bool again = false;
  for (auto& [name, on] : interfaces_) {
    if (finish_close(on)) {
      again = true;
    } else if (on.slot != divert_slot && !on.closing && on.egress.mode == send_mode::zero_copy &&
               !config_.mode) {
      // igb, for one, binds zero-copy without complaint and may then never send.
      const auto now = core_.snapshot().slots[on.slot];
      if (now.completed == on.slot_before.completed && now.stalls != on.slot_before.stalls) {
        step_down(on);
        begin_close(on);
      }
    }
  }
  if (again) reconcile();
}

void egress_set::step_down(interface& on) {
  const std::lock_guard lock(mutex_);
  on.reason = std::string(cowire::name(on.egress.mode)) + ": bound, but no frame ever completed";
  on.at_most = next_lower(on.egress.mode);
}

void egress_set::rebuild(const std::string& name, interface& on) {
  const auto now = core_.snapshot().slots[on.slot];
  if (config_.log)
    config_.log(log_severity::warning, name + ": completed nothing for a second with " +
                                           std::to_string(now.outstanding) +
                                           " frames in the device; its socket is opened anew");
  if (now.completed == on.slot_before.completed && !config_.mode) step_down(on);
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
  const auto counters = core_.snapshot();
  for (auto& [name, on] : interfaces_) {
    const bool open = on.slot != divert_slot && !on.closing;
    const auto& slot = counters.slots[on.slot];
    const auto completed = on.slot == divert_slot ? 0 : slot.completed;
    on.active = on.slot != divert_slot && completed != on.seen;
    const bool silent = open && completed == on.seen && slot.outstanding != 0;
    on.silent_ticks = silent ? on.silent_ticks + 1 : 0;
    on.seen = completed;
    if (on.silent_ticks >= silent_ticks_max) rebuild(name, on);
  }
}

bool egress_set::active(std::uint32_t interface_index) const {
  return std::ranges::any_of(interfaces_, [&](const auto& entry) {
    return entry.second.index == interface_index && entry.second.active;
  });
}

std::vector<interface_stats> egress_set::stats(const tx_snapshot& counters) const {
  std::vector<interface_stats> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [name, on] : interfaces_) {
    interface_stats one{name,           on.index,  on.egress.mode, on.reason, on.transmitted_before,
                        on.lost_before, on.rebuilt};
    if (on.slot != divert_slot) {
      const auto& slot = counters.slots[on.slot];
      one.transmitted += slot.completed - on.slot_before.completed;
      one.lost_in_device += slot.lost_in_device - on.slot_before.lost_in_device;
    }
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace cowire::detail
