// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/detail/tx_engine.hpp>

#include <cowire/base/relax_cpu.hpp>
#include <cowire/xdp/frame_writer.hpp>

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

/// The path list of requests of a class that no table serves.
[[nodiscard]] std::uint32_t unknown_class(flow_class_id id) noexcept {
  return id_of(reason_without_table(id));
}

/// Requests with equal keys share a trie.
[[nodiscard]] std::uint32_t trie_key(const tx_request& request) noexcept {
  static_assert(offsetof(tx_request, family) == offsetof(tx_request, flow_class) + 2 &&
                offsetof(tx_request, zero) == offsetof(tx_request, flow_class) + 3);
  std::uint32_t key;
  std::memcpy(&key, &request.flow_class, sizeof key);
  return key;
}

template <class Key>
[[nodiscard]] Key key_of(const tx_request& request) noexcept;
template <>
[[nodiscard]] lpm_key4 key_of(const tx_request& request) noexcept {
  std::uint32_t raw;
  std::memcpy(&raw, request.destination.data() + 12, sizeof raw);
  return __builtin_bswap32(raw);
}

template <>
[[nodiscard]] lpm_key6 key_of(const tx_request& request) noexcept {
  std::uint64_t words[2];
  std::memcpy(words, request.destination.data(), sizeof words);
  return {__builtin_bswap64(words[0]), __builtin_bswap64(words[1])};
}

/// The zeros in front of an IPv4 address add nothing.
[[nodiscard]] slave_terms slave_terms_of(const tx_request& request) noexcept {
  return {fold_address(std::as_bytes(std::span(request.destination))),
          ports_word(request.source_port, request.destination_port), request.destination.back()};
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

/// What a path list gives to a request.
[[nodiscard]] const hop* hop_of(const forwarding_table& table, std::uint32_t path_list_id,
                                const tx_request& request) noexcept {
  const path_list paths = table.path_list_of(path_list_id);
  if (paths.count <= 1) return table.hops + paths.index;
  return table.hops + select_hop(
                          table, paths, [&] { return slave_terms_of(request); },
                          [&] { return flow_hash(table, request); });
}

/// The hop of a request, by itself: for check_remembered().
[[nodiscard, maybe_unused]] const hop* decide(const forwarding_table& table,
                                              const tx_request& request) noexcept {
  std::uint32_t id;
  if (request.flow_class >= table.class_count) {
    id = unknown_class(request.flow_class);
  } else if (request.family == ip_family::v4) {
    id = table.table_of(request.flow_class).v4.lookup(key_of<lpm_key4>(request));
  } else {
    id = table.table_of(request.flow_class).v6.lookup(key_of<lpm_key6>(request));
  }
  return hop_of(table, id, request);
}

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
                     doorbell& control, idle_policy idle, const tx_core_options& options)
    : memory_(memory),
      tables_(tables),
      control_bell_(control),
      idle_policy_(idle),
      stall_deadline_(options.stall_deadline),
      sample_interval_(options.sample_interval),
      tracked_(options.tracked),
      slot_of_frame_(memory.frame_count, 0),
      diverted_(memory.frame_count),
      samples_(samples_kept),
      work_bell_([](void* self) noexcept { return static_cast<tx_engine*>(self)->stand_in(); },
                 this),
      reader_(epochs.register_reader()),
      next_sample_(sample_interval_.count() != 0 ? clock::time_point::min()
                                                 : clock::time_point::max()),
      flows_(options.flow_cache_bytes.value_or(flow_cache::default_bytes())) {}

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
    const forwarding_table* const table = tables_.current();
    for (std::uint32_t i = 0; i < batch_.run_count; ++i) {
      if (table != nullptr) [[likely]] {
        forward(*table, batch_.runs[i].requests);
      } else {
        for (const tx_request& request : batch_.runs[i].requests)
          divert(request, divert_reason::no_table);
      }
    }
    drop_batch();
  } else {
    go_offline();
  }
  const std::uint32_t completed = serve_ports();
  publish_diverted();
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
  batch_.size = batch_.run_count = 0;
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
  const auto requests = channel.channel.requests.peek(channel.in_batch, room);
  if (requests.empty()) return;
  const auto count = static_cast<std::uint32_t>(requests.size());
  batch_.runs[batch_.run_count++] = {requests, &channel};
  batch_.size += count;
  channel.in_batch += count;
  channel.held += count;
}

/// Before frames of this batch can be back at their producers, be it from a device or from the
/// kernel path: the rings of requests have room for each frame once.
void tx_engine::drop_batch() noexcept {
  for (std::uint32_t i = 0; i < batch_.run_count; ++i) {
    tx_channel& channel = *batch_.runs[i].from;
    if (channel.in_batch == 0) continue;  // It had an earlier run, too.
    channel.channel.requests.drop(channel.in_batch);
    channel.in_batch = 0;
  }
  publish_diverted();
}

void tx_engine::take_sample() noexcept {
  next_sample_ = now_ + sample_interval_;
  // Spread over the batch, so that destinations in lockstep with the batches all have their turn.
  const std::uint64_t spread = counters_.batches.get() * 0x9e3779b97f4a7c15u;
  std::size_t at = (spread >> 32) % batch_.size;
  const request_span* run = batch_.runs.data();
  while (at >= run->requests.size()) at -= (run++)->requests.size();
  const tx_request& request = run->requests[at];
  if (request.flow_class >= first_without_table) return;  // Nothing was decided.
  static_cast<void>(
      samples_.try_push({destination_of(request), request.destination_port, request.flow_class}));
}

void tx_engine::forward(const forwarding_table& table,
                        std::span<const tx_request> requests) noexcept {
  const auto size = static_cast<std::uint32_t>(requests.size());
  request_run run{
      memory_.base, requests.data(), size, decided_.hops.data(), decided_.descriptors.data(),
      divert_slot};
  if (flows_.asks(table)) [[likely]] {
    remember(table, run);
  } else {
    look_up(table, run);
  }
  run.egress = run.hops[0]->egress;
  tx_port* const first = active_->port_of_slot[run.egress];
  // Straight into the ring of the first one's device, where nearly always all go. If not, each
  // descriptor is taken from there before its place is written again.
  tx_descriptor* const placed = first != nullptr ? first->place_for(size) : nullptr;
  if (placed != nullptr) [[likely]]
    run.descriptors = placed;
  const run_terms terms = write_run(run);
  if (terms.second_pass()) [[unlikely]]
    return forward_again(table, run, terms.alike() && placed != nullptr);
  if (terms.alike() && placed != nullptr) [[likely]]
    return first->submit_placed(requests);
  submit_apart(run);
}

/// The rest of it for runs with a second pass. `placed`: all that go are in the ring.
void tx_engine::forward_again(const forwarding_table& table, const request_run& run,
                              bool placed) noexcept {
  const bool all_stay = write_again(table, run);
  if (placed && all_stay)
    return active_->port_of_slot[run.egress]->submit_placed({run.requests, run.size});
  submit_apart(run);
}

void tx_engine::submit_apart(const request_run& run) noexcept {
  if (run.hops[0]->is_tracked()) return submit_tracked(run);
  for (std::uint32_t i = 0; i < run.size; ++i)
    submit_or_divert(run.requests[i], *run.hops[i], run.descriptors[i]);
}

/// What few datagrams have besides what the writer's loop gives to all. Whether none of them lost
/// its hop over that.
bool tx_engine::write_again(const forwarding_table& table, const request_run& run) const noexcept {
  bool all_stay = true;
  for (std::uint32_t i = 0; i < run.size; ++i) {
    const tx_request& request = run.requests[i];
    const hop& via = *run.hops[i];
    std::byte* const payload = memory_.base + request.address;
    if (via.second_pass != 0) write_second_pass(payload, via, request);
    if (!has_ecn(request)) continue;
    run.descriptors[i].length = via.header_length + payload_size(request);
    if (via.ecn_at[0] == hop::ecn_by_kernel) {
      run.hops[i] = table.hops + id_of(divert_reason::tunnel);
      all_stay = false;
    } else {
      write_ecn(payload, via, request);
    }
  }
  return all_stay;
}

/// Takes what is remembered, looks the rest up, and remembers that.
void tx_engine::remember(const forwarding_table& table, const request_run& run) noexcept {
  unknown_requests& unknown = decided_.unknown;
  flows_.find({run.requests, run.size}, table.hops, run.hops, unknown);
  check_remembered(table, run);
  const std::uint32_t found = run.size - unknown.count;
  counters_.flow_hits.add(found);
  if (unknown.count != 0) [[unlikely]] {
    counters_.flow_misses.add(unknown.count);
    look_up_unknown(table, run);
  }
  if (flows_.settle(found, unknown.count)) counters_.flow_pauses.add(1);
}

void tx_engine::look_up_unknown(const forwarding_table& table, const request_run& run) noexcept {
  const unknown_requests& unknown = decided_.unknown;
  if (unknown.count == run.size) {
    look_up(table, run);
  } else {
    find_paths_of(table, run, unknown);
    for (std::uint32_t j = 0; j < unknown.count; ++j) {
      const std::uint8_t i = unknown.at[j];
      choose(i, hop_of(table, decided_.path_lists[i], run.requests[i]));
    }
  }
  for (std::uint32_t j = 0; j < unknown.count; ++j) {
    const std::uint8_t i = unknown.at[j];
    flows_.remember(run.requests[i], run.hops[i], table.hops);
  }
}

void tx_engine::look_up(const forwarding_table& table, const request_run& run) noexcept {
  find_paths(table, run);
  select_hops(table, run);
}

/// A hit is what trie, path list and group would give, now.
void tx_engine::check_remembered([[maybe_unused]] const forwarding_table& table,
                                 [[maybe_unused]] const request_run& run) const noexcept {
#if defined(COWIRE_DEBUG_CHECKS)
  std::uint32_t passed = 0;
  for (std::uint32_t i = 0; i < run.size; ++i) {
    if (passed < decided_.unknown.count && decided_.unknown.at[passed] == i) {
      ++passed;
    } else {
      COWIRE_ASSERT(run.hops[i] == decide(table, run.requests[i]));
    }
  }
#endif
}

/// Nearly always the whole run shares a trie. Otherwise it is sorted into groups that do.
void tx_engine::find_paths(const forwarding_table& table, const request_run& run) noexcept {
  const tx_request& first = run.requests[0];
  if (first.flow_class < table.class_count) {
    const forwarding_table::class_table& tries = table.table_of(first.flow_class);
    if (first.family == ip_family::v4 ? find_paths_in(tries.v4, run) : find_paths_in(tries.v6, run))
      return;
  }
  unknown_requests all{run.size, {}};
  for (std::uint32_t i = 0; i < run.size; ++i) all.at[i] = static_cast<std::uint8_t>(i);
  find_paths_of(table, run, all);
}

/// Whether the whole run shares the trie of the first.
template <class Key>
bool tx_engine::find_paths_in(const lpm_view<Key>& trie, const request_run& run) noexcept {
  std::uint32_t different = 0;
  std::array<Key, tx_batch> keys;
  for (std::uint32_t i = 0; i < run.size; ++i) {
    different |= trie_key(run.requests[i]) ^ trie_key(run.requests[0]);
    keys[i] = key_of<Key>(run.requests[i]);
  }
  if (different != 0) return false;
  trie.lookup_batch(keys.data(), decided_.path_lists.data(), run.size);
  return true;
}

void tx_engine::find_paths_of(const forwarding_table& table, const request_run& run,
                              const unknown_requests& some) noexcept {
  const std::uint32_t first = trie_key(run.requests[some.at[0]]);
  std::uint32_t different = 0;
  for (std::uint32_t j = 0; j < some.count; ++j)
    different |= trie_key(run.requests[some.at[j]]) ^ first;
  if (different == 0)
    return find_paths_of_group(table, run, some.count,
                               [&some](std::uint32_t j) { return some.at[j]; });

  unknown_requests rest = some;
  std::array<std::uint8_t, tx_batch> members;
  while (rest.count != 0) {
    const std::uint32_t key = trie_key(run.requests[rest.at[0]]);
    std::uint32_t matching = 0, other = 0;
    for (std::uint32_t j = 0; j < rest.count; ++j) {
      const std::uint8_t i = rest.at[j];
      const bool match = trie_key(run.requests[i]) == key;
      members[matching] = i;
      rest.at[other] = i;
      matching += match;
      other += !match;
    }
    find_paths_of_group(table, run, matching, [&members](std::uint32_t j) { return members[j]; });
    rest.count = other;
  }
}

template <class At>
void tx_engine::find_paths_of_group(const forwarding_table& table, const request_run& run,
                                    std::uint32_t count, At at) noexcept {
  const tx_request& first = run.requests[at(0)];
  std::array<std::uint32_t, tx_batch> values;
  if (first.flow_class >= table.class_count) {
    values.fill(unknown_class(first.flow_class));
  } else if (first.family == ip_family::v4) {
    std::array<lpm_key4, tx_batch> keys;
    for (std::uint32_t j = 0; j < count; ++j) keys[j] = key_of<lpm_key4>(run.requests[at(j)]);
    table.table_of(first.flow_class).v4.lookup_batch(keys.data(), values.data(), count);
  } else {
    std::array<lpm_key6, tx_batch> keys;
    for (std::uint32_t j = 0; j < count; ++j) keys[j] = key_of<lpm_key6>(run.requests[at(j)]);
    table.table_of(first.flow_class).v6.lookup_batch(keys.data(), values.data(), count);
  }
  for (std::uint32_t j = 0; j < count; ++j) decided_.path_lists[at(j)] = values[j];
}

void tx_engine::select_hops(const forwarding_table& table, const request_run& run) noexcept {
  const hop* const hops = table.hops;
  std::uint32_t counts = 0;
  for (std::uint32_t i = 0; i < run.size; ++i) {
    const path_list paths = table.path_list_of(decided_.path_lists[i]);
    counts |= paths.count;
    choose(i, hops + paths.index);
  }
  if (counts > 1) select_members(table, run);
}

/// Those of the run that have several next hops are hashed.
void tx_engine::select_members(const forwarding_table& table, const request_run& run) noexcept {
  std::array<std::uint8_t, tx_batch> several;
  std::uint32_t several_count = 0;
  for (std::uint32_t i = 0; i < run.size; ++i) {
    several[several_count] = static_cast<std::uint8_t>(i);
    several_count += table.path_list_of(decided_.path_lists[i]).count > 1;
  }
  for (std::uint32_t j = 0; j < several_count; ++j) {
    const std::uint8_t i = several[j];
    decided_.hops[i] = hop_of(table, decided_.path_lists[i], run.requests[i]);
  }
}

void tx_engine::submit_or_divert(const tx_request& request, const hop& via,
                                 const tx_descriptor& descriptor) noexcept {
  COWIRE_DEBUG_ASSERT(via.egress < tracked_egress + max_egress_slots);
  tx_port* const port = active_->port_of_slot[via.egress];
  const bool too_long = payload_size(request) > via.max_payload;
  if (port != nullptr && !too_long) [[likely]] {
    return port->submit(request, descriptor);
  }
  pass_port_or_divert(request, via, descriptor);
}

/// What is tracked, or on its way to the kernel path. Rules that look at ports are paid for here
/// alone.
void tx_engine::pass_port_or_divert(const tx_request& request, const hop& via,
                                    const tx_descriptor& descriptor) noexcept {
  const bool too_long = payload_size(request) > via.max_payload;
  const egress_slot to = via.egress_for(request.destination_port.host());
  if (to >= tracked_egress && !too_long) {
    const tracked_key key = tracked_key::of(request, tracked_way::of(via, request.family));
    tracked_flows::line* const flow =
        tracked_ == nullptr ? nullptr : tracked_->find_line(key, tracked_->hash_of(key));
    return submit_if_known(request, via, to, descriptor, flow);
  }
  if (tx_port* const of_ports = active_->port_of_slot[to]; of_ports != nullptr && !too_long) {
    return of_ports->submit(request, descriptor);
  }
  divert(request, to == divert_slot   ? via.reason
                  : !too_long         ? divert_reason::no_egress_socket
                  : is_probe(request) ? divert_reason::path_mtu_probe
                                      : divert_reason::exceeds_mtu);
}

/// A run that begins with a tracked hop. Looks ahead, so that the memory of one flow is fetched
/// while another is looked at.
void tx_engine::submit_tracked(const request_run& run) noexcept {
  std::array<tracked_key, tx_batch> keys;
  std::array<std::uint32_t, tx_batch> hashes;
  std::array<tracked_flows::line*, tx_batch> flows{};
  const std::uint32_t looked_up = tracked_ == nullptr ? 0 : run.size;
  for (std::uint32_t i = 0; i < looked_up; ++i) {
    const tx_request& request = run.requests[i];
    keys[i] = tracked_key::of(request, tracked_way::of(*run.hops[i], request.family));
    hashes[i] = tracked_->hash_of(keys[i]);
    tracked_->prefetch(hashes[i]);
  }
  for (std::uint32_t i = 0; i < looked_up; ++i)
    if (run.hops[i]->is_tracked()) flows[i] = tracked_->find_line(keys[i], hashes[i]);
  for (std::uint32_t i = 0; i < run.size; ++i) {
    const hop& via = *run.hops[i];
    const tx_request& request = run.requests[i];
    const bool all_ports = via.egress_of_ports == divert_slot;
    if (via.is_tracked() && all_ports && payload_size(request) <= via.max_payload)
      submit_if_known(request, via, via.egress, run.descriptors[i], flows[i]);
    else
      submit_or_divert(request, via, run.descriptors[i]);
  }
}

void tx_engine::submit_if_known(const tx_request& request, const hop& via, egress_slot tracked,
                                const tx_descriptor& descriptor,
                                tracked_flows::line* flow) noexcept {
  tx_port* const port = active_->port_of_slot[tracked - tracked_egress];
  if (port == nullptr) return divert(request, divert_reason::no_egress_socket);
  const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(now_.time_since_epoch());
  const std::optional<divert_reason> obstacle =
      tracked_ == nullptr ? divert_reason::conntrack_new : tracked_->use(flow, now.count());
  if (obstacle) return divert({request, *obstacle, true, tracked_way::of(via, request.family)});
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

/// The kernel path sees it at publish_diverted().
void tx_engine::divert(const diverted_request& what) noexcept {
  if (batch_.diverted_count == batch_.diverted.size()) publish_diverted();
  batch_.diverted[batch_.diverted_count++] = what;
  --active_->channel_of_block[what.request.frame / slice_granularity]->held;
  --held_;
  counters_.diverted[id_of(what.reason)].add(1);
}

void tx_engine::publish_diverted() noexcept {
  if (batch_.diverted_count == 0) return;
  const std::size_t pushed = diverted_.push_some({batch_.diverted.data(), batch_.diverted_count});
  COWIRE_DEBUG_ASSERT(pushed == batch_.diverted_count);
  static_cast<void>(pushed);
  batch_.diverted_count = 0;
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
    relax_cpu();
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
