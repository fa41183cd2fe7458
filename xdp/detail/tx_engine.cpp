// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/detail/tx_engine.hpp>

#include <cowire/xdp/frame_writer.hpp>

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace cowire::detail {
namespace {

/// Each round costs about 50 ns: some 50 us of polling, then about as much of offering the CPU to
/// others, before a sleep. Too small: a system call per datagram at moderate rates. Too large: a
/// busy CPU at low rates.
constexpr unsigned spin_rounds = 1000;
constexpr unsigned yield_rounds = 1200;

/// Requests that follow each other closer than this are a stream, for which a sleeping core is
/// woken: about as long as it then goes on polling. Longer: it would wake for each of them.
constexpr auto stream_gap_max = std::chrono::microseconds(50);

/// How long a producer that waits may be left waiting for more frames than one.
constexpr auto announce_delay_max = std::chrono::microseconds(200);

/// While a device holds frames nobody rings when they complete.
constexpr timespec completion_poll{.tv_sec = 0, .tv_nsec = 200'000};
/// Otherwise producers ring. The limit is no more than a heartbeat for the counters.
constexpr timespec heartbeat{.tv_sec = 0, .tv_nsec = 100'000'000};

/// The auditor takes fewer at a time; more would only be older when it comes to them.
constexpr std::size_t samples_kept = 64;

/// Copy mode may move no more than 32 descriptors a kick on older kernels, so a batch can take
/// three.
constexpr int kicks_per_batch = 4;

[[nodiscard]] constexpr std::uint32_t id_of(divert_reason reason) noexcept {
  return static_cast<std::uint32_t>(reason);
}

/// Requests with equal keys share a trie.
[[nodiscard]] std::uint32_t trie_key(const tx_request& request) noexcept {
  static_assert(offsetof(tx_request, family) == offsetof(tx_request, flow_class) + 2 &&
                offsetof(tx_request, zero) == offsetof(tx_request, flow_class) + 3);
  std::uint32_t key;
  std::memcpy(&key, &request.flow_class, sizeof key);
  return key;
}

[[nodiscard]] lpm_key4 key4_of(const tx_request& request) noexcept {
  std::uint32_t raw;
  std::memcpy(&raw, request.destination.data() + 12, sizeof raw);
  return __builtin_bswap32(raw);
}

[[nodiscard]] lpm_key6 key6_of(const tx_request& request) noexcept {
  std::uint64_t words[2];
  std::memcpy(words, request.destination.data(), sizeof words);
  return {__builtin_bswap64(words[0]), __builtin_bswap64(words[1])};
}

/// The requested source, not the chosen one, is what the kernel hashes.
[[nodiscard]] std::uint32_t flow_hash(const forwarding_table& table,
                                      const tx_request& request) noexcept {
  const auto& cls = table.table_of(request.flow_class);
  if (request.family == ip_family::v6)
    return table.hash_v6(cls.source_v6, request.destination, request.source_port,
                         request.destination_port);
  std::array<std::uint8_t, 4> destination;
  std::memcpy(destination.data(), request.destination.data() + 12, 4);
  return table.hash_v4(cls.source_v4, destination, request.source_port, request.destination_port);
}

/// Of a hop, from the top: what its second pass is for, its egress, how long a payload may be.
[[nodiscard, gnu::always_inline]] inline std::uint32_t terms_of(const hop& via) noexcept {
  static_assert(offsetof(hop, egress) == offsetof(hop, max_payload) + 2 &&
                offsetof(hop, second_pass) == offsetof(hop, max_payload) + 3 &&
                std::endian::native == std::endian::little);
  return load<std::uint32_t>(&via.max_payload);
}

/// Writes the headers of a batch and says where each frame begins and ends. Returns whether that is
/// all: they go to the egress of the first, none is too long, none needs a second pass.
[[nodiscard]] bool prepare(const frame_memory& memory, const tx_request* requests,
                           const hop* const* hops, std::uint32_t size,
                           tx_descriptor* descriptors) noexcept {
  const std::uint32_t first_egress = std::uint32_t{hops[0]->egress} << 16;
  std::uint32_t differences = 0;
  for (std::uint32_t i = 0; i < size; ++i) {
    const hop& via = *hops[i];
    write_headers(memory.payload(requests[i].frame), via, requests[i]);
    descriptors[i] = descriptor_of(via, requests[i]);
    differences |= (terms_of(via) - requests[i].length) ^ first_egress;
  }
  return differences >> 16 == 0;
}

// As in the look-up (route/lpm.cpp): compiled once more for newer processors than the build is for.
#if defined(__x86_64__)
const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");

[[nodiscard]] __attribute__((target("avx2,bmi,bmi2"))) bool prepare_avx2(
    const frame_memory& memory, const tx_request* requests, const hop* const* hops,
    std::uint32_t size, tx_descriptor* descriptors) noexcept {
  // Copies, which stores into frames cannot change.
  std::byte* const base = memory.base;
  const std::uint32_t first_egress = std::uint32_t{hops[0]->egress} << 16;
  std::uint32_t differences = 0;
  for (std::uint32_t i = 0; i < size; ++i) {
    const tx_request& request = requests[i];
    const hop& via = *hops[i];
    write_headers_avx2(base + request.address, via, request);
    describe_avx2(descriptors + i, via, request);
    differences |= (terms_of(via) - request.length) ^ first_egress;
  }
  return differences >> 16 == 0;
}
#endif

}  // namespace

void tx_configuration::index() {
  std::fill(channel_of_block.begin(), channel_of_block.end(), nullptr);
  for (const channel_entry& entry : channels) {
    const producer_channel& channel = entry.state->channel;
    const std::uint32_t first = channel.first_frame / slice_granularity;
    for (std::uint32_t i = 0; i < channel.frame_count / slice_granularity; ++i) {
      COWIRE_ASSERT(channel_of_block.at(first + i) == nullptr);
      channel_of_block[first + i] = entry.state;
    }
  }
  port_of_slot.fill(nullptr);
  for (const port_entry& entry : ports)
    if (!entry.closing_grace) port_of_slot[entry.port->slot()] = entry.port;
}

tx_engine::tx_engine(const frame_memory& memory, const publisher& tables, epoch_domain& epochs,
                     doorbell& control, idle_policy idle, std::chrono::milliseconds stall_deadline,
                     std::chrono::nanoseconds sample_interval, const tracked_flows* tracked)
    : memory_(memory),
      tables_(tables),
      control_bell_(control),
      idle_policy_(idle),
      stall_deadline_(stall_deadline),
      sample_interval_(sample_interval),
      tracked_(tracked),
      slot_of_frame_(memory.frame_count, 0),
      diverted_(memory.frame_count),
      samples_(samples_kept),
      work_bell_([](void* self) noexcept { return static_cast<tx_engine*>(self)->stand_in(); },
                 this),
      reader_(epochs.register_reader()),
      next_sample_(sample_interval.count() != 0 ? clock::time_point::min()
                                                : clock::time_point::max()) {}

void tx_engine::configure(const tx_configuration& next) noexcept {
  wanted_.store(&next, std::memory_order_release);  // Pairs with apply_configuration().
  work_bell_.ring();
}

void tx_engine::request_stop() noexcept {
  stop_.store(true, std::memory_order_release);  // Pairs with the acquire in run().
  work_bell_.ring();
}

void tx_engine::apply_configuration() noexcept {
  // Pairs with the release in configure(): the configuration is complete.
  active_ = wanted_.load(std::memory_order_acquire);
  // Pairs with the acquire in uses(): the former one is not used any more.
  applied_.store(active_, std::memory_order_release);
}

void tx_engine::run() noexcept {
  unsigned idle_rounds = 0;
  while (!stop_.load(std::memory_order_acquire)) {  // Pairs with request_stop().
    if (run_once()) {
      idle_rounds = 0;
    } else {
      idle_rounds = idle(idle_rounds);
    }
  }
  stop_.store(false, std::memory_order_relaxed);
  go_offline();
}

void tx_engine::go_offline() noexcept {
  if (online_) reader_.leave();
  online_ = false;
}

bool tx_engine::run_once() noexcept {
  if (wanted_.load(std::memory_order_relaxed) != active_) apply_configuration();
  now_ = clock::now();

  gather();
  const std::uint32_t taken = batch_.size;
  if (taken != 0) {
    if (now_ >= next_sample_) take_sample();
    reader_.enter();
    online_ = true;
    if (const forwarding_table* const table = tables_.current()) {
      forward(*table);
    } else {
      for (std::uint32_t i = 0; i < taken; ++i) divert(batch_.requests[i], divert_reason::no_table);
    }
  } else {
    go_offline();
  }
  const std::uint32_t completed = serve_ports();
  const bool busy = taken != 0 || completed != 0;
  finish_channels(busy);
  if (ring_control_) {
    ring_control_ = false;
    control_bell_.ring();
  }
  counters_.held.set(held_);
  check_conservation();
  return busy;
}

/// Each channel gets its share of the batch first; what is left over goes to whoever has more.
void tx_engine::gather() noexcept {
  batch_.size = 0;
  const auto& channels = active_->channels;
  if (channels.empty()) return;
  const std::size_t count = channels.size();
  const std::size_t share = std::max<std::size_t>(1, tx_batch / count);
  std::size_t at = next_channel_ % count;
  for (std::size_t seen = 0; seen < count && batch_.size < tx_batch; ++seen) {
    take_from(*channels[at].state, share);
    at = at + 1 == count ? 0 : at + 1;
  }
  // With more channels than places the next batch goes on where this one ended.
  next_channel_ = count > tx_batch ? at : next_channel_ + 1;
  if (batch_.size == 0) return;
  at = next_channel_ % count;
  for (std::size_t seen = 0; seen < count && batch_.size < tx_batch; ++seen) {
    take_from(*channels[at].state, tx_batch);
    at = at + 1 == count ? 0 : at + 1;
  }
  held_ += batch_.size;
  counters_.taken.add(batch_.size);
  counters_.batches.add(1);
}

void tx_engine::take_from(tx_channel& channel, std::size_t limit) noexcept {
  const std::size_t room = std::min(limit, tx_batch - batch_.size);
  const std::size_t count =
      channel.channel.requests.pop_some({batch_.requests.data() + batch_.size, room});
  batch_.size += static_cast<std::uint32_t>(count);
  channel.held += static_cast<std::uint32_t>(count);
}

void tx_engine::take_sample() noexcept {
  next_sample_ = now_ + sample_interval_;
  // Spread over the batch, so that destinations in lockstep with the batches all have their turn.
  const std::uint64_t spread = counters_.batches.get() * 0x9e3779b97f4a7c15u;
  const tx_request& request = batch_.requests[(spread >> 32) % batch_.size];
  if (request.flow_class == kernel_scope_class) return;  // Nothing was decided.
  static_cast<void>(
      samples_.try_push({destination_of(request), request.destination_port, request.flow_class}));
}

void tx_engine::forward(const forwarding_table& table) noexcept {
  look_up(table);
  select_hops(table);
  write_and_submit();
}

/// Nearly always the whole batch shares a trie. Otherwise it is sorted into groups that do.
void tx_engine::look_up(const forwarding_table& table) noexcept {
  const tx_request& first = batch_.requests[0];
  std::uint32_t different = 0;
  std::array<lpm_key4, tx_batch> keys;
  for (std::uint32_t i = 0; i < batch_.size; ++i) {
    different |= trie_key(batch_.requests[i]) ^ trie_key(first);
    keys[i] = key4_of(batch_.requests[i]);
  }
  if (different == 0 && first.family == ip_family::v4 && first.flow_class < table.class_count) {
    const auto& v4 = table.table_of(first.flow_class).v4;
    return v4.lookup_batch(keys.data(), batch_.path_lists.data(), batch_.size);
  }
  if (different == 0) return look_up_group(table, batch_.size, [](std::uint32_t j) { return j; });

  std::array<std::uint8_t, tx_batch> members, rest;
  std::uint32_t left = batch_.size;
  for (std::uint32_t i = 0; i < left; ++i) rest[i] = static_cast<std::uint8_t>(i);
  while (left != 0) {
    const std::uint32_t key = trie_key(batch_.requests[rest[0]]);
    std::uint32_t matching = 0, other = 0;
    for (std::uint32_t j = 0; j < left; ++j) {
      const std::uint8_t i = rest[j];
      const bool match = trie_key(batch_.requests[i]) == key;
      members[matching] = i;
      rest[other] = i;
      matching += match;
      other += !match;
    }
    look_up_group(table, matching, [&members](std::uint32_t j) { return members[j]; });
    left = other;
  }
}

template <class At>
void tx_engine::look_up_group(const forwarding_table& table, std::uint32_t count, At at) noexcept {
  const tx_request& first = batch_.requests[at(0)];
  std::array<std::uint32_t, tx_batch> values;
  if (first.flow_class >= table.class_count) {
    values.fill(id_of(first.flow_class == kernel_scope_class ? divert_reason::scoped_destination
                                                             : divert_reason::no_table));
  } else if (first.family == ip_family::v4) {
    std::array<lpm_key4, tx_batch> keys;
    for (std::uint32_t j = 0; j < count; ++j) keys[j] = key4_of(batch_.requests[at(j)]);
    table.table_of(first.flow_class).v4.lookup_batch(keys.data(), values.data(), count);
  } else {
    std::array<lpm_key6, tx_batch> keys;
    for (std::uint32_t j = 0; j < count; ++j) keys[j] = key6_of(batch_.requests[at(j)]);
    table.table_of(first.flow_class).v6.lookup_batch(keys.data(), values.data(), count);
  }
  for (std::uint32_t j = 0; j < count; ++j) batch_.path_lists[at(j)] = values[j];
}

void tx_engine::select_hops(const forwarding_table& table) noexcept {
  const hop* const hops = table.hops;
  std::uint32_t counts = 0;
  for (std::uint32_t i = 0; i < batch_.size; ++i) {
    const path_list paths = table.path_list_of(batch_.path_lists[i]);
    counts |= paths.count;
    choose(i, hops + paths.index);
  }
  if (counts > 1) select_members(table);
}

/// Those of the batch that have several next hops are hashed.
void tx_engine::select_members(const forwarding_table& table) noexcept {
  std::array<std::uint8_t, tx_batch> several;
  std::uint32_t several_count = 0;
  for (std::uint32_t i = 0; i < batch_.size; ++i) {
    several[several_count] = static_cast<std::uint8_t>(i);
    several_count += table.path_list_of(batch_.path_lists[i]).count > 1;
  }
  for (std::uint32_t j = 0; j < several_count; ++j) {
    const std::uint8_t i = several[j];
    const path_list paths = table.path_list_of(batch_.path_lists[i]);
    batch_.hops[i] = table.hops + select_member(table.groups[paths.index], paths,
                                                flow_hash(table, batch_.requests[i]));
  }
}

void tx_engine::write_and_submit() noexcept {
  const std::uint32_t size = batch_.size;
#if defined(__x86_64__)
  const auto write = has_avx2 ? prepare_avx2 : prepare;
#else
  const auto write = prepare;
#endif
  const tx_request* const requests = batch_.requests.data();
  tx_descriptor* const descriptors = batch_.descriptors.data();
  const bool alike = write(memory_, requests, batch_.hops.data(), size, descriptors);
  tx_port* const first = active_->port_of_slot[batch_.hops[0]->egress];
  if (first != nullptr) [[likely]] {
    if (alike && first->submit_all({requests, size}, descriptors)) return;
  } else if (batch_.hops[0]->is_tracked()) {
    return submit_tracked();
  }
  for (std::uint32_t i = 0; i < size; ++i)
    submit_or_divert(requests[i], *batch_.hops[i], descriptors[i]);
}

void tx_engine::submit_or_divert(const tx_request& request, const hop& via,
                                 const tx_descriptor& descriptor) noexcept {
  COWIRE_DEBUG_ASSERT(via.egress < tracked_egress + max_egress_slots);
  tx_port* const port = active_->port_of_slot[via.egress];
  const bool too_long = request.length > via.max_payload;
  if (port != nullptr && !too_long) [[likely]] {
    if (via.second_pass != 0) write_second_pass(memory_.payload(request.frame), via, request);
    return port->submit(request, descriptor);
  }
  if (via.is_tracked() && !too_long) {
    const tracked_key key = tracked_key::of(request, source_of(via, request.family));
    tracked_flows::line* const flow =
        tracked_ == nullptr ? nullptr : tracked_->find_line(key, tracked_->hash_of(key));
    return submit_if_known(request, via, descriptor, flow);
  }
  divert(request, via.egress == divert_slot ? via.reason
                  : too_long                ? divert_reason::exceeds_mtu
                                            : divert_reason::no_egress_socket);
}

/// A batch that begins with a tracked hop. Looks ahead, so that the memory of one flow is fetched
/// while another is looked at.
void tx_engine::submit_tracked() noexcept {
  std::array<tracked_key, tx_batch> keys;
  std::array<std::uint32_t, tx_batch> hashes;
  std::array<tracked_flows::line*, tx_batch> flows{};
  const std::uint32_t looked_up = tracked_ == nullptr ? 0 : batch_.size;
  for (std::uint32_t i = 0; i < looked_up; ++i) {
    const tx_request& request = batch_.requests[i];
    keys[i] = tracked_key::of(request, source_of(*batch_.hops[i], request.family));
    hashes[i] = tracked_->hash_of(keys[i]);
    tracked_->prefetch(hashes[i]);
  }
  for (std::uint32_t i = 0; i < looked_up; ++i)
    if (batch_.hops[i]->is_tracked()) flows[i] = tracked_->find_line(keys[i], hashes[i]);
  for (std::uint32_t i = 0; i < batch_.size; ++i) {
    const hop& via = *batch_.hops[i];
    const tx_request& request = batch_.requests[i];
    if (via.is_tracked() && request.length <= via.max_payload)
      submit_if_known(request, via, batch_.descriptors[i], flows[i]);
    else
      submit_or_divert(request, via, batch_.descriptors[i]);
  }
}

void tx_engine::submit_if_known(const tx_request& request, const hop& via,
                                const tx_descriptor& descriptor,
                                tracked_flows::line* flow) noexcept {
  tx_port* const port = active_->port_of_slot[via.egress - tracked_egress];
  if (port == nullptr) return divert(request, divert_reason::no_egress_socket);
  const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(now_.time_since_epoch());
  const std::optional<divert_reason> obstacle =
      tracked_ == nullptr ? divert_reason::conntrack_new : tracked_->use(flow, now.count());
  if (obstacle) return divert({request, *obstacle, true, source_of(via, request.family)});
  if (via.second_pass != 0) write_second_pass(memory_.payload(request.frame), via, request);
  port->submit(request, descriptor);
}

std::uint32_t tx_engine::serve_ports() noexcept {
  collected_ = 0;
  for (const auto& entry : active_->ports) {
    tx_port& port = *entry.port;
    if (entry.closing_grace) {
      serve_closing_port(port, *entry.closing_grace);
      continue;
    }
    collect(port);
    port.advance_waiting();
    port.commit(now_);
    if (port.watch(now_, stall_deadline_)) divert_waiting(port, divert_reason::device_busy);
    kick(port);
    port.update_gauges();
  }
  return collected_;
}

void tx_engine::serve_closing_port(tx_port& port, std::chrono::milliseconds grace) noexcept {
  if (port.removed.load(std::memory_order_relaxed)) return;  // The queue may be gone already.
  if (port.removal_deadline == clock::time_point::max()) port.removal_deadline = now_ + grace;
  divert_waiting(port, divert_reason::no_egress_socket);
  collect(port);
  static_cast<void>(port.watch(now_, stall_deadline_));
  kick(port);
  if (port.outstanding() != 0 && now_ >= port.removal_deadline)
    port.abandon([this](frame_index frame) { give_back_one(frame); });
  port.update_gauges();
  if (port.outstanding() != 0) return;
  port.removed.store(true, std::memory_order_release);  // Pairs with port_removed().
  ring_control_ = true;
}

void tx_engine::kick(tx_port& port) noexcept {
  for (int i = 0; port.wants_kick() && i < kicks_per_batch; ++i) {
    // "Later" may mean that the completion ring is full.
    if (!port.kick()) collect(port);
  }
}

void tx_engine::collect(tx_port& port) noexcept {
  std::array<frame_index, tx_batch> frames;
  tx_port::collected got;
  do {
    got = port.collect(now_, frames);
    if (got.home != 0) give_back({frames.data(), got.home});
    collected_ += got.count;
  } while (got.count == frames.size());
}

void tx_engine::divert_waiting(tx_port& port, divert_reason reason) noexcept {
  while (port.waiting() != 0) divert(port.take_waiting(), reason);
}

void tx_engine::divert(const diverted_request& what) noexcept {
  const bool pushed = diverted_.try_push(what);
  COWIRE_DEBUG_ASSERT(pushed);
  static_cast<void>(pushed);
  --active_->channel_of_block[what.request.frame / slice_granularity]->held;
  --held_;
  counters_.diverted[id_of(what.reason)].add(1);
  ring_control_ = true;
}

/// Frames of one channel come in long runs: those go home as they are.
void tx_engine::give_back(std::span<const frame_index> frames) noexcept {
  tx_channel& channel = *active_->channel_of_block[frames[0] / slice_granularity];
  const frame_index first = channel.channel.first_frame;
  const frame_index last = first + channel.channel.frame_count - 1;
  if (all_within(frames, first, last)) return return_to(channel, frames);
  for (const frame_index frame : frames) give_back_one(frame);
}

void tx_engine::give_back_one(frame_index frame) noexcept {
  tx_channel& channel = *active_->channel_of_block[frame / slice_granularity];
  if (channel.staged_count == channel.staged.size()) flush_returned(channel);
  channel.staged[channel.staged_count++] = frame;
}

void tx_engine::flush_returned(tx_channel& channel) noexcept {
  return_to(channel, {channel.staged.data(), channel.staged_count});
  channel.staged_count = 0;
}

void tx_engine::return_to(tx_channel& channel, std::span<const frame_index> frames) noexcept {
  const auto count = static_cast<std::uint32_t>(frames.size());
  const std::size_t pushed = channel.channel.returned.push_some(frames);
  COWIRE_DEBUG_ASSERT(pushed == count);
  static_cast<void>(pushed);
  if (channel.unannounced == 0) channel.unannounced_since = now_;
  channel.unannounced += count;
  channel.held -= count;
  held_ -= count;
}

/// Returns the staged frames, and makes known which producers need not wait any more. While the
/// core is busy that is put off until a waiting producer has a fair number of frames: a wake-up per
/// frame would cost more than the frame.
void tx_engine::finish_channels(bool busy) noexcept {
  bool fenced = false;
  for (const auto& entry : active_->channels) {
    tx_channel& state = *entry.state;
    if (state.staged_count != 0) flush_returned(state);
    if (state.unannounced != 0) {
      // Pairs with the producer's fence between setting `waiting` and its last look at the rings.
      if (!fenced) std::atomic_thread_fence(std::memory_order_seq_cst);
      fenced = true;
      const bool waiting = state.channel.waiting.load(std::memory_order_relaxed);
      const std::uint32_t enough = std::min<std::uint32_t>(tx_batch, state.channel.frame_count / 4);
      const bool due = !busy || state.held == 0 || state.unannounced >= enough ||
                       now_ - state.unannounced_since >= announce_delay_max;
      const bool announce = waiting && due;
      if (announce) ring_control_ = true;
      if (announce || !waiting) state.unannounced = 0;
    }
    if (entry.draining && state.held == 0 && state.channel.requests.readable() == 0 &&
        !state.drained.load(std::memory_order_relaxed)) {
      state.drained.store(true, std::memory_order_release);  // Pairs with detached().
      ring_control_ = true;
    }
  }
}

/// held == in devices + waiting, for each channel and in all.
void tx_engine::check_conservation() const noexcept {
#if defined(COWIRE_DEBUG_CHECKS)
  std::uint64_t in_ports = 0, in_channels = 0;
  for (const auto& entry : active_->ports)
    in_ports += entry.port->outstanding() + entry.port->waiting();
  for (const auto& entry : active_->channels) in_channels += entry.state->held;
  COWIRE_ASSERT(in_ports == held_ && in_channels == held_);
#endif
}

unsigned tx_engine::idle(unsigned round) noexcept {
  if (idle_policy_ == idle_policy::spin ||
      (idle_policy_ == idle_policy::adaptive && round < spin_rounds)) {
    _mm_pause();
  } else if (idle_policy_ == idle_policy::yield || round < yield_rounds) {
    work_bell_.yield();
  } else {
    return sleep() ? 0 : round;
  }
  return round + 1;
}

/// Looks once more between arming the bell and waiting (base/doorbell.hpp says why that is enough).
bool tx_engine::sleep() noexcept {
  work_bell_.arm();
  bool needed = has_work();
  if (!needed) {
    counters_.idle_sleeps.add(1);
    needed = work_bell_.wait(held_ == 0 ? heartbeat : completion_poll);
  }
  work_bell_.disarm();
  return needed;
}

bool tx_engine::stand_in() noexcept {
  const clock::time_point before = now_;
  static_cast<void>(run_once());
  if (held_ != 0) static_cast<void>(run_once());  // What it sent may be complete by now.
  go_offline();
  return now_ - before >= stream_gap_max && !has_work() && can_wait();
}

bool tx_engine::can_wait() const noexcept {
  for (const auto& entry : active_->ports)
    if (entry.closing_grace ? entry.port->outstanding() != 0 : !entry.port->handed_over())
      return false;
  for (const auto& entry : active_->channels)
    if (entry.draining ||
        (entry.state->held != 0 && entry.state->channel.waiting.load(std::memory_order_relaxed)))
      return false;
  return true;
}

bool tx_engine::has_work() noexcept {
  if (stop_.load(std::memory_order_acquire)) return true;
  if (wanted_.load(std::memory_order_relaxed) != active_) return true;
  for (const auto& entry : active_->channels)
    if (entry.state->channel.requests.readable() != 0) return true;
  return false;
}

}  // namespace cowire::detail
