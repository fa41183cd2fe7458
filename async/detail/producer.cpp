// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/core_set.hpp>
#include <cowire/async/detail/engine.hpp>
#include <cowire/async/detail/producer.hpp>
#include <cowire/async/detail/shared_producer.hpp>
#include <cowire/base/assert.hpp>
#include <cowire/base/checksum.hpp>

#include <algorithm>
#include <bit>
#include <utility>

namespace cowire {

void payload::resize(std::size_t size) noexcept {
  COWIRE_ASSERT(size <= capacity_);
  size_ = static_cast<std::uint32_t>(size);
}

void payload::reset() noexcept {
  if (!owner_) return;
  owner_->release(frame_);
  owner_.reset();
  data_ = nullptr;
  size_ = capacity_ = 0;
}

namespace detail {
namespace {

constexpr std::size_t batch = tx_batch;

}  // namespace

struct producer::deliveries {
  std::list<waiter> frames;
  std::list<drain_waiter> drains;

  void run() {
    for (waiter& w : frames) {
      if (w.acquires())
        w.acquire.complete(w.result, std::move(w.got));
      else
        w.send.done.complete(w.result, w.send.sent);
    }
    for (drain_waiter& w : drains) w.done.complete(w.result);
  }
};

producer::producer(std::uint32_t id, const frame_memory& memory, const frame_slice& slice,
                   core_set& cores)
    : cores_(cores),
      pool_(memory, slice),
      links_(id, slice, cores),
      held_back_(links_, slice.count, submitted_),
      flushes_(slice) {}

producer::~producer() = default;

// Leasing and sending
// -------------------------------------------------------------------------------

bool producer::take(frame_index& frame) noexcept {
  if (pool_.try_acquire(frame) || (collect() && pool_.try_acquire(frame))) return true;
  links_.ask_for_completions();
  return false;
}

payload producer::lease(frame_index frame, std::size_t size) noexcept {
  payload out(self(), frame, pool_.payload(frame).data(), pool_.payload_capacity());
  out.resize(size);
  return out;
}

frame_index producer::detach(payload&& what) noexcept {
  COWIRE_ASSERT(what.owner_.get() == this);
  what.owner_.reset();
  return what.frame_;
}

payload producer::try_acquire(const sender_state& for_whom) noexcept {
  frame_index frame;
  if (inherited() || stopped()) return {};
  const bool free = in_turn() && take(frame);
  if (!free && !take_from_oldest(for_whom, frame)) return {};
  return lease(frame, 0);
}

void producer::release(frame_index frame) noexcept {
  if (inherited()) return;
  if (sharer_ != nullptr) return sharer_->release(frame);
  pool_.release(frame);
  // Whoever waits for frames is served as if the frame had come back from the wire.
  if (!waiters_.empty()) wake();
}

namespace {

/// As a socket: the scope id is the output device of this one datagram (udpv6_sendmsg in
/// net/ipv6/udp.c); our classes know the bound device only.
[[nodiscard]] bool names_other_scope(const sender_state& from, const endpoint& to) noexcept {
  return to.scope_id != 0 && to.scope_id != from.scope && to.address.needs_scope_id();
}

/// Why a datagram cannot choose this.
[[nodiscard]] std::error_code refusal_of_choices(const sender_state& from, const endpoint& to,
                                                 const datagram_options& options) noexcept {
  if (options.dscp && *options.dscp > 63) return error::invalid_argument;
  if (options.ecn && *options.ecn > ecn_codepoint::ce) return error::invalid_argument;
  if (options.source) {
    if (options.source->is_unspecified()) return error::invalid_argument;
    if (options.source->unmapped().family() != to.address.unmapped().family())
      return error::family_mismatch;
  }
  if (options.path_mtu_probe && from.adopted) return error::unsupported;
  return {};
}

}  // namespace

tx_request producer::request_from(const sender_state& from, frame_index frame, std::size_t length,
                                  std::uint16_t sum, const endpoint& to) const noexcept {
  const auto destination = request_destination::from(to);
  tx_request request = make_request(pool_.place(frame), length, sum, from.source_port, destination,
                                    from.flow_class[static_cast<std::size_t>(destination.family)]);
  request.sender = from.id;
  if (names_other_scope(from, to)) [[unlikely]]
    leave_to_kernel(request, to.scope_id);
  return request;
}

tx_request producer::request_from(const sender_state& from, frame_index frame, std::size_t length,
                                  std::uint16_t sum, const endpoint& to,
                                  const datagram_options& options) noexcept {
  const auto destination = request_destination::from(to);
  const flow_class_id cls = class_for(from, destination.family, options);
  tx_request request =
      make_request(pool_.place(frame), length, sum, from.source_port, destination, cls);
  request.sender = from.id;
  if (options.ecn) with_ecn(request, static_cast<unsigned>(*options.ecn));
  if (options.chooses_class() || options.path_mtu_probe) {
    if (!options_) options_ = std::make_unique<datagram_options[]>(pool_.slice().count);
    options_[frame - pool_.slice().first] = options;
    request.sender |= options.path_mtu_probe ? chosen_bit | probe_bit : chosen_bit;
  }
  if (names_other_scope(from, to)) leave_to_kernel(request, to.scope_id);
  return request;
}

flow_class_id producer::class_for(const sender_state& from, ip_family family,
                                  const datagram_options& options) noexcept {
  if (!options.chooses_class()) return from.flow_class[static_cast<std::size_t>(family)];
  return chosen_for(from, family, options).id;
}

chosen_classes::found producer::chosen_for(const sender_state& from, ip_family family,
                                           const datagram_options& options) noexcept {
  const auto found = from.chosen->find(family, options);
  if (found.fresh) owner_->compile_chosen(from.chosen, *found.number);
  return found;
}

std::uint32_t producer::core_for(const endpoint& to) const noexcept {
  const std::uint32_t cores = cores_.in_use();
  return cores == 1 ? 0 : core_of(to.canonical(), cores);
}

void producer::submit_one(const sender_state& from, frame_index frame, std::size_t length,
                          std::uint16_t sum, const endpoint& to) noexcept {
  flushes_.note_submitted(frame);
  submitted_.add(1);
  const std::uint32_t core = core_for(to);
  if (held_back_.allowed()) [[unlikely]]
    return submit_guarded(from, core, request_from(from, frame, length, sum, to));
  links_.emplace(core, [&] { return request_from(from, frame, length, sum, to); });
  links_.ring(core);
}

void producer::submit_one(const sender_state& from, const endpoint& to,
                          const tx_request& request) noexcept {
  flushes_.note_submitted(request.frame);
  submitted_.add(1);
  const std::uint32_t core = core_for(to);
  if (held_back_.allowed()) return submit_guarded(from, core, request);
  links_.emplace(core, [&] { return request; });
  links_.ring(core);
}

void producer::submit_guarded(const sender_state& from, std::uint32_t core,
                              const tx_request& request) noexcept {
  if (from.when_full == full_policy::shed_oldest)
    held_back_.hold(core, request);
  else
    held_back_.pass(core, request);
}

void producer::submit(const send_operation& op, std::span<const tx_request> requests) noexcept {
  std::size_t next = op.sent;
  for (const tx_request& request : requests) flushes_.note_submitted(request.frame);
  if (ledger_ != nullptr) [[unlikely]]
    ledger_->note_submitted(requests);
  submitted_.add(requests.size());
  if (held_back_.allowed()) [[unlikely]] {
    for (const tx_request& request : requests)
      submit_guarded(*op.from, core_for(op.destination(next++)), request);
    return;
  }
  if (cores_.in_use() == 1) {
    links_.push_all(0, requests);
    return links_.ring(0);
  }
  static_assert(tx_cores_max <= 64);
  std::uint64_t given = 0;  // One bit for each core that got any.
  for (const tx_request& request : requests) {
    const std::uint32_t core = core_for(op.destination(next++));
    links_.push(core, request);
    given |= std::uint64_t{1} << core;
  }
  for (; given != 0; given &= given - 1)
    links_.ring(static_cast<std::uint32_t>(std::countr_zero(given)));
}

inline std::error_code producer::refusal_of(const sender_state& from, std::size_t size,
                                            const endpoint& to) const noexcept {
  if (inherited()) [[unlikely]]
    return error::forked;
  if (stopped()) return error::closed;
  if (size > pool_.payload_capacity()) return error::too_long;
  if (!from.serves(to)) return error::family_mismatch;
  return {};
}

std::error_code producer::try_send(const sender_state& from, std::span<const std::byte> bytes,
                                   const endpoint& to) noexcept {
  if (const auto ec = refusal_of(from, bytes.size(), to)) return ec;
  frame_index frame;
  const bool free = in_turn() && take(frame);
  if (!free && !take_from_oldest(from, frame)) return error::would_block;
  const auto sum = fold_sum(copy_and_sum(pool_.payload(frame).data(), bytes));
  submit_one(from, frame, bytes.size(), sum, to);
  return {};
}

std::error_code producer::send(const sender_state& from, payload&& what,
                               const endpoint& to) noexcept {
  if (const auto ec = refusal_of(from, what.size(), to)) return ec;
  COWIRE_ASSERT(what.owner_.get() == this);
  const auto sum = fold_sum(sum_bytes(what.content()));
  what.owner_.reset();  // The frame is the TX core's now.
  submit_one(from, what.frame_, what.size(), sum, to);
  return {};
}

std::error_code producer::try_send(const sender_state& from, std::span<const std::byte> bytes,
                                   const endpoint& to, const datagram_options& options) noexcept {
  if (!options.any()) return try_send(from, bytes, to);
  if (const auto ec = refusal_of(from, bytes.size(), to)) return ec;
  if (const auto ec = refusal_of_choices(from, to, options)) return ec;
  frame_index frame;
  const bool free = in_turn() && take(frame);
  if (!free && !take_from_oldest(from, frame)) return error::would_block;
  const auto sum = fold_sum(copy_and_sum(pool_.payload(frame).data(), bytes));
  submit_one(from, to, request_from(from, frame, bytes.size(), sum, to, options));
  return {};
}

std::error_code producer::send(const sender_state& from, payload&& what, const endpoint& to,
                               const datagram_options& options) noexcept {
  if (!options.any()) return send(from, std::move(what), to);
  if (const auto ec = refusal_of(from, what.size(), to)) return ec;
  COWIRE_ASSERT(what.owner_.get() == this);
  if (const auto ec = refusal_of_choices(from, to, options)) return ec;
  const auto sum = fold_sum(sum_bytes(what.content()));
  what.owner_.reset();  // The frame is the TX core's now.
  submit_one(from, to, request_from(from, what.frame_, what.size(), sum, to, options));
  return {};
}

std::error_code producer::ask_about(const sender_state& from, const endpoint& to,
                                    const datagram_options& options, path_question& out) {
  if (const auto ec = refusal_of(from, 0, to)) return ec;
  if (const auto ec = refusal_of_choices(from, to, options)) return ec;
  const ip_address address = to.address.unmapped();
  const ip_family family = address.family();
  out.sender = from.id;
  out.asked = {from.chosen->class_with(family, options), address, to.port};
  out.own_ecn = options.ecn.has_value();
  if (options.chooses_class()) {
    const auto found = chosen_for(from, family, options);
    out.compiled = found.id;
    out.chosen = from.chosen;
    out.number = found.number;
  } else {
    out.compiled = class_for(from, family, options);
  }
  if (!names_other_scope(from, to)) return {};
  out.compiled = kernel_scope_class;
  out.number.reset();
  out.asked.cls.output_interface = to.scope_id;
  return {};
}

path_events producer::watch_path(path_question what) { return owner_->watch_path(std::move(what)); }

void producer::resolve_path(path_question what,
                            direct_completion<std::error_code, path_state> done) {
  owner_->resolve_path(std::move(what), std::move(done));
}

std::error_code producer::check(send_operation& op) const noexcept {
  if (inherited()) [[unlikely]]
    return error::forked;
  if (stopped()) return error::closed;
  if (op.count() == 0) return error::no_destination;
  // Segments have one destination, and none is longer than the first.
  const std::size_t different = op.batch.empty() && op.one ? 1 : op.count();
  for (std::size_t i = 0; i < different; ++i) {
    std::error_code ec;
    if (op.content(i).size() > pool_.payload_capacity())
      ec = error::too_long;
    else if (!op.from->serves(op.destination(i)))
      ec = error::family_mismatch;
    else if (ec = refusal_of_choices(*op.from, op.destination(i), op.options_of(i)); !ec)
      continue;
    if (op.batch.empty() || i == 0) return ec;
    op.batch = op.batch.first(i);
    op.then = ec;
    break;
  }
  return {};
}

bool producer::advance(send_operation& op) noexcept {
  COWIRE_ASSERT(!op.own || op.own.owner_.get() == this);
  const std::size_t all = op.count();
  return all == 1 ? advance_by<1>(op, all) : advance_by<batch>(op, all);
}

template <std::size_t batch>
bool producer::advance_by(send_operation& op, std::size_t all) noexcept {
  const bool alike = op.alike();
  std::array<tx_request, batch> requests;
  while (op.sent < all) {
    std::size_t count = 0;
    for (; count < batch && op.sent + count < all; ++count) {
      const std::size_t number = op.sent + count;
      const auto content = op.content(number);
      frame_index frame;
      // The payload's own frame goes last: until then it is what the copies are made from.
      if (op.own && number + 1 == all) {
        if (!op.sum) op.sum = fold_sum(sum_bytes(content));
        frame = op.own.frame_;
        op.own.owner_.reset();
      } else if (take(frame) || take_from_oldest(*op.from, frame)) {
        const auto room = pool_.payload(frame);
        if (alike && op.sum)
          std::ranges::copy(content, room.begin());
        else
          op.sum = fold_sum(copy_and_sum(room.data(), content));
      } else {
        break;
      }
      const endpoint& to = op.destination(number);
      const datagram_options& options = op.options_of(number);
      requests[count] = options.any()
                            ? request_from(*op.from, frame, content.size(), *op.sum, to, options)
                            : request_from(*op.from, frame, content.size(), *op.sum, to);
    }
    if (count == 0) return false;
    submit(op, {requests.data(), count});
    op.sent += count;
  }
  return true;
}

std::error_code producer::try_send(send_operation& op) noexcept {
  if (const auto ec = check(op)) return ec;
  return in_turn() && advance(op) ? op.then : error::would_block;
}

// Waiting
// -------------------------------------------------------------------------------------------

void producer::begin_acquire(const sender_state& for_whom,
                             direct_completion<std::error_code, payload> done) {
  if (inherited()) return done.refuse_in_child(error::forked, payload{});
  if (stopped()) return done.complete(error::closed, payload{});
  if (payload now = try_acquire(for_whom)) return done.complete({}, std::move(now));
  if (for_whom.when_full == full_policy::fail) return done.complete(error::would_block, payload{});
  done.begin_wait(self(), ++ticket_);
  waiters_.push_back({ticket_, std::move(done), {}, {}, {}, self()});
  ask_for_wake();
}

void producer::begin_send(send_operation op) {
  if (inherited()) return op.done.refuse_in_child(error::forked, std::size_t{0});
  if (const auto ec = check(op)) return op.done.complete(ec, std::size_t{0});
  if (waiters_.empty() && advance(op)) return op.done.complete(op.then, std::size_t{op.sent});
  if (op.from->when_full == full_policy::fail)
    return op.done.complete(error::would_block, std::size_t{op.sent});
  op.done.begin_wait(self(), ++ticket_);
  waiters_.push_back({ticket_, {}, std::move(op), {}, {}, self()});
  ask_for_wake();
}

void producer::begin_flush(direct_completion<std::error_code> done) {
  if (inherited()) return done.refuse_in_child(error::forked);
  collect();
  const std::uint64_t generation = flushes_.close();
  if (flushes_.is_over(generation)) return done.complete({});
  done.begin_wait(self(), ++ticket_);
  drains_.push_back({ticket_, generation, std::move(done), {}, self()});
  ask_for_wake();
}

void producer::when_drained(std::function<void()> then) {
  collect();
  flushes_.when_over(std::move(then));
}

void producer::cancel(std::uint64_t ticket) {
  const auto same = [ticket](const auto& w) { return w.ticket == ticket; };
  deliveries out;
  if (const auto w = std::ranges::find_if(waiters_, same); w != waiters_.end()) {
    w->result = operation_aborted();
    out.frames.splice(out.frames.end(), waiters_, w);
  } else if (const auto d = std::ranges::find_if(drains_, same); d != drains_.end()) {
    d->result = operation_aborted();
    out.drains.splice(out.drains.end(), drains_, d);
  }
  ask_for_wake();  // The next in line may have another executor.
  out.run();
}

void producer::context_gone(std::uint64_t ticket) {
  const auto same = [ticket](const auto& w) { return w.ticket == ticket; };
  deliveries gone;  // Destroyed last: the handles that they hold may be the last ones.
  if (const auto w = std::ranges::find_if(waiters_, same); w != waiters_.end())
    gone.frames.splice(gone.frames.end(), waiters_, w);
  else if (const auto d = std::ranges::find_if(drains_, same); d != drains_.end())
    gone.drains.splice(gone.drains.end(), drains_, d);
  ask_for_wake();
}

void producer::came_back(frame_index frame) noexcept {
  flushes_.note_returned(frame);
  pool_.release(frame);
}

bool producer::collect() noexcept {
  const auto take = [this](frame_index frame, int) { came_back(frame); };
  const auto take_and_tell = [this](frame_index frame, int number) {
    ledger_->note_returned(frame, number);
    came_back(frame);
  };
  const bool any = ledger_ == nullptr ? links_.take_home(take) : links_.take_home(take_and_tell);
  flushes_.settle();
  // Not only serve() collects: those who waited for just these frames would wait for ever.
  if (any && (!waiters_.empty() || drain_is_due())) wake();
  return any;
}

void producer::ask_for_wake() {
  if (waiters_.empty() && drains_.empty()) return nobody_waits();
  // Something may be due already: the serve() that was to see to it went with its context.
  const bool due = waiters_.empty() ? drain_is_due() : stopped() || pool_.free_count() != 0;
  {
    const std::lock_guard lock(wake_mutex_);
    if (waiters_.empty())
      wake_place_ = drains_.front().done.place();
    else if (const waiter& first = waiters_.front(); first.acquires())
      wake_place_ = first.acquire.place();
    else
      wake_place_ = first.send.done.place();
  }
  const auto owner = owner_;
  somebody_waits_.store(true, std::memory_order_release);  // Pairs with the exchange in wake().
  links_.set_waiting(true);
  // From here on serve() may run, on another thread if that is where the first waiter's executor
  // runs: nothing but atomics is looked at. The fence pairs with that of whoever returned frames:
  // either it sees `waiting`, or we see the frames.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (due || links_.anything_returned()) return wake();
  links_.ask_for_completions();
}

void producer::nobody_waits() noexcept {
  somebody_waits_.store(false, std::memory_order_relaxed);
  // Where something may be held back the cores go on telling of frames.
  if (!held_back_.allowed()) links_.set_waiting(false);
  const std::lock_guard lock(wake_mutex_);
  wake_place_.reset();
}

/// Where the context goes before it has run this, others may wait who are elsewhere.
class producer::serve_call final : public deferred_call {
 public:
  explicit serve_call(std::shared_ptr<producer> whom) noexcept : whom_(std::move(whom)) {}
  ~serve_call() override {
    if (whom_ && !whom_->inherited()) whom_->ask_for_wake();
  }
  void run() override { std::exchange(whom_, nullptr)->serve(); }
  void forget() noexcept { whom_.reset(); }

 private:
  std::shared_ptr<producer> whom_;
};

void producer::wake() {
  // Before the exchange: a producer that stores all of these meanwhile is served below, or finds
  // its frames itself.
  links_.set_waiting(false);
  held_back_.feed();  // Sets them again where something stays held back.
  if (!somebody_waits_.exchange(false, std::memory_order_acq_rel)) return;
  std::shared_ptr<producer> alive;  // Released after the lock, which its deleter takes.
  // Under the lock, so that the executor may go away once nobody waits.
  std::unique_lock lock(wake_mutex_);
  alive = self_.lock();
  if (alive && sharer_ != nullptr) {
    lock.unlock();  // Its lock comes before ours.
    return sharer_->serve();
  }
  if (!alive || !wake_place_) return;
  std::unique_ptr<deferred_call> call = std::make_unique<serve_call>(alive);
  // Where its context is going away, context_gone() comes after us and asks anew.
  if (!wake_place_->post(call)) static_cast<serve_call&>(*call).forget();
}

bool producer::has_news() noexcept {
  if (somebody_waits_.load(std::memory_order_relaxed) && links_.anything_returned()) return true;
  return held_back_.may_feed();
}

void producer::on_news() {
  if (links_.anything_returned()) wake();
  held_back_.feed();
}

void producer::return_by_kernel(frame_index frame, int number) {
  links_.return_by_kernel(frame, number);
  // Pairs with the fence in ask_for_wake(): it sees the frame, or we see that it waits.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (somebody_waits_.load(std::memory_order_relaxed)) wake();
  held_back_.feed();
}

void producer::serve() {
  deliveries out;
  collect();
  serve_frames(out);
  serve_drains(out);
  ask_for_wake();
  out.run();  // Last: a handler may use this producer on another thread at once.
}

void producer::serve_frames(deliveries& out) {
  while (!waiters_.empty()) {
    waiter& first = waiters_.front();
    if (stopped()) {
      first.result = error::closed;
    } else if (first.acquires()) {
      frame_index frame;
      if (!pool_.try_acquire(frame)) return;
      first.got = lease(frame, 0);
    } else if (advance(first.send)) {
      first.result = first.send.then;
    } else {
      return;
    }
    out.frames.splice(out.frames.end(), waiters_, waiters_.begin());
  }
}

void producer::serve_drains(deliveries& out) {
  while (!drains_.empty()) {
    const bool drained = drain_is_due();
    if (!drained && !owner_->closed()) return;
    if (!drained) drains_.front().result = error::closed;
    out.drains.splice(out.drains.end(), drains_, drains_.begin());
  }
}

void producer::retire(const sender_state& sender) {
  if (!inherited()) owner_->retire(sender);
}

// Sharing
// -------------------------------------------------------------------------------------------

shared_producer* producer::sharer_of(const payload& what) noexcept {
  return what.owner_ ? what.owner_->sharer_ : nullptr;
}

void producer::set_sharer(shared_producer* sharer) {
  const std::lock_guard lock(wake_mutex_);
  sharer_ = sharer;
}

bool producer::take_for(payload& first) noexcept {
  frame_index frame;
  if (!pool_.try_acquire(frame)) return false;
  first = lease(frame, 0);
  return true;
}

bool producer::ask_for_frames() noexcept {
  somebody_waits_.store(true, std::memory_order_release);  // Pairs with the exchange in wake().
  links_.set_waiting(true);
  // As in ask_for_wake(): either who returns frames sees `waiting`, or we see the frames.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (links_.anything_returned()) return true;
  links_.ask_for_completions();
  return false;
}

// Shedding
// ------------------------------------------------------------------------------------------

void producer::allow_shedding() { held_back_.allow(); }

bool producer::take_from_oldest(const sender_state& for_whom, frame_index& frame) noexcept {
  if (for_whom.when_full != full_policy::shed_oldest) return false;
  frame_index oldest;
  // Where there is none all were handed over just now, then, because others had come back.
  if (!held_back_.shed_oldest(oldest)) return in_turn() && take(frame);
  came_back(oldest);
  flushes_.settle();
  if (drain_is_due()) wake();
  return pool_.try_acquire(frame);
}

// Lending
// -------------------------------------------------------------------------------------------

bool producer::stopped() const noexcept { return owner_->stopping(); }

producer::executor_type producer::fallback() const { return owner_->control_executor(); }

void producer::lend(std::shared_ptr<engine> owner, const std::shared_ptr<producer>& self) {
  owner_ = std::move(owner);
  held_back_.forbid_if_empty();  // The last owner's senders may have shed.
  const std::lock_guard lock(wake_mutex_);
  self_ = self;
}

void producer::take_back() {
  COWIRE_ASSERT(waiters_.empty() && drains_.empty());  // Each of them holds a handle.
  nobody_waits();
  {
    const std::lock_guard lock(wake_mutex_);
    self_.reset();
  }
  owner_.reset();  // Last: it may be what keeps the engine, and so this object.
}

}  // namespace detail
}  // namespace cowire
