// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/core_set.hpp>
#include <cowire/async/detail/engine.hpp>
#include <cowire/async/detail/producer.hpp>
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
      returned_by_kernel_(slice.count),
      pool_(memory, slice),
      generation_of_(slice.count) {
  for (const auto& core : cores)
    links_.push_back(std::make_unique<core_link>(id, slice, core->work_bell()));
}

producer::~producer() = default;

// Leasing and sending
// -------------------------------------------------------------------------------

bool producer::take(frame_index& frame) noexcept {
  if (pool_.try_acquire(frame) || (collect() && pool_.try_acquire(frame))) return true;
  ask_for_completions();
  return false;
}

void producer::ask_for_completions() noexcept {
  for (const auto& link : links_) link->bell.ring();
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
  const bool free = waiters_.empty() && take(frame);
  if (!free && !take_from_oldest(for_whom, frame)) return {};
  return lease(frame, 0);
}

void producer::release(frame_index frame) noexcept {
  if (inherited()) return;
  pool_.release(frame);
  // Whoever waits for frames is served as if the frame had come back from the wire.
  if (!waiters_.empty()) wake();
}

tx_request producer::request_from(const sender_state& from, frame_index frame, std::size_t length,
                                  std::uint16_t sum, const endpoint& to) const noexcept {
  const auto destination = request_destination::from(to);
  tx_request request = make_request(pool_.place(frame), length, sum, from.source_port, destination,
                                    from.flow_class[static_cast<std::size_t>(destination.family)]);
  request.sender = from.id;
  // To a socket the scope id is the output device of this one datagram (udpv6_sendmsg in
  // net/ipv6/udp.c); our classes know the bound device only.
  if (to.scope_id != 0 && to.scope_id != from.scope && to.address.needs_scope_id()) [[unlikely]]
    leave_to_kernel(request, to.scope_id);
  return request;
}

void producer::note_submitted(frame_index frame) noexcept {
  generation_of_[frame - pool_.slice().first] = newest_generation_;
  ++newest_outstanding_;
}

std::uint32_t producer::core_for(const endpoint& to) const noexcept {
  const std::uint32_t cores = cores_.in_use();
  return cores == 1 ? 0 : core_of(to.canonical(), cores);
}

void producer::submit_one(const sender_state& from, frame_index frame, std::size_t length,
                          std::uint16_t sum, const endpoint& to) noexcept {
  note_submitted(frame);
  submitted_.add(1);
  const std::uint32_t core = core_for(to);
  if (sheds_.load(std::memory_order_relaxed)) [[unlikely]]
    return submit_guarded(from, core, request_from(from, frame, length, sum, to));
  core_link& link = *links_[core];
  const bool pushed =
      link.channel.requests.try_emplace([&] { return request_from(from, frame, length, sum, to); });
  COWIRE_ASSERT(pushed);  // The ring holds every frame of the slice.
  link.bell.ring();
}

/// `to` holds the destinations of the requests.
void producer::submit(const sender_state& from, std::span<const tx_request> requests,
                      const endpoint* to) noexcept {
  for (const tx_request& request : requests) note_submitted(request.frame);
  submitted_.add(requests.size());
  if (sheds_.load(std::memory_order_relaxed)) [[unlikely]] {
    for (const tx_request& request : requests) submit_guarded(from, core_for(*to++), request);
    return;
  }
  if (cores_.in_use() == 1) {
    const auto pushed = links_[0]->channel.requests.push_some(requests);
    COWIRE_ASSERT(pushed == requests.size());  // As above.
    return links_[0]->bell.ring();
  }
  static_assert(tx_cores_max <= 64);
  std::uint64_t given = 0;  // One bit for each core that got any.
  for (const tx_request& request : requests) {
    const std::uint32_t core = core_for(*to++);
    const bool pushed = links_[core]->channel.requests.try_push(request);
    COWIRE_ASSERT(pushed);  // As above.
    given |= std::uint64_t{1} << core;
  }
  for (; given != 0; given &= given - 1)
    links_[static_cast<std::size_t>(std::countr_zero(given))]->bell.ring();
}

std::error_code producer::try_send(const sender_state& from, std::span<const std::byte> bytes,
                                   const endpoint& to) noexcept {
  if (inherited()) [[unlikely]]
    return error::forked;
  if (stopped()) return error::closed;
  if (bytes.size() > pool_.payload_capacity()) return error::too_long;
  if (!from.serves(to)) return error::family_mismatch;
  frame_index frame;
  const bool free = waiters_.empty() && take(frame);
  if (!free && !take_from_oldest(from, frame)) return error::would_block;
  const auto sum = fold_sum(copy_and_sum(pool_.payload(frame).data(), bytes));
  submit_one(from, frame, bytes.size(), sum, to);
  return {};
}

std::error_code producer::send(const sender_state& from, payload&& what,
                               const endpoint& to) noexcept {
  if (inherited()) [[unlikely]]
    return error::forked;
  if (stopped()) return error::closed;
  COWIRE_ASSERT(what.owner_.get() == this);
  if (!from.serves(to)) return error::family_mismatch;
  const auto sum = fold_sum(sum_bytes(what.content()));
  what.owner_.reset();  // The frame is the TX core's now.
  submit_one(from, what.frame_, what.size(), sum, to);
  return {};
}

std::error_code producer::check(const send_operation& op) const noexcept {
  if (stopped()) return error::closed;
  if (op.destinations().empty()) return error::no_destination;
  if (op.bytes.size() > pool_.payload_capacity()) return error::too_long;
  for (const endpoint& to : op.destinations())
    if (!op.from->serves(to)) return error::family_mismatch;
  return {};
}

bool producer::advance(send_operation& op) noexcept {
  COWIRE_ASSERT(!op.own || op.own.owner_.get() == this);
  const auto to = op.destinations();
  const auto content = op.own ? op.own.content() : op.bytes;
  const auto sum = fold_sum(sum_bytes(content));
  std::array<tx_request, batch> requests;
  while (op.sent < to.size()) {
    std::size_t count = 0;
    for (; count < batch && op.sent + count < to.size(); ++count) {
      const endpoint& destination = to[op.sent + count];
      frame_index frame;
      // The payload's own frame goes last: until then it is what the copies are made from.
      if (op.own && op.sent + count + 1 == to.size()) {
        frame = op.own.frame_;
        op.own.owner_.reset();
      } else if (take(frame) || take_from_oldest(*op.from, frame)) {
        std::ranges::copy(content, pool_.payload(frame).begin());
      } else {
        break;
      }
      requests[count] = request_from(*op.from, frame, content.size(), sum, destination);
    }
    if (count == 0) return false;
    submit(*op.from, {requests.data(), count}, &to[op.sent]);
    op.sent += count;
  }
  return true;
}

// Waiting
// -------------------------------------------------------------------------------------------

void producer::acquire(const sender_state& for_whom,
                       direct_completion<std::error_code, payload> done) {
  if (stopped()) return done.complete(error::closed, payload{});
  if (payload now = try_acquire(for_whom)) return done.complete({}, std::move(now));
  if (for_whom.when_full == full_policy::fail) return done.complete(error::would_block, payload{});
  done.begin_wait(self(), ++ticket_);
  waiters_.push_back({ticket_, std::move(done), {}, {}, {}, self()});
  ask_for_wake();
}

void producer::send_all(send_operation op) {
  if (const auto ec = check(op)) return op.done.complete(ec, std::size_t{0});
  if (waiters_.empty() && advance(op)) return op.done.complete({}, std::size_t{op.sent});
  if (op.from->when_full == full_policy::fail)
    return op.done.complete(error::would_block, std::size_t{op.sent});
  op.done.begin_wait(self(), ++ticket_);
  waiters_.push_back({ticket_, {}, std::move(op), {}, {}, self()});
  ask_for_wake();
}

void producer::flush(direct_completion<std::error_code> done) {
  collect();
  const std::uint64_t generation = close_generation();
  if (generation < oldest_generation()) return done.complete({});
  done.begin_wait(self(), ++ticket_);
  drains_.push_back({ticket_, generation, std::move(done), {}, self()});
  ask_for_wake();
}

void producer::when_drained(std::function<void()> then) {
  collect();
  const std::uint64_t generation = close_generation();
  if (generation < oldest_generation()) return then();
  retirements_.push_back({generation, std::move(then)});
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

/// The newest generation that holds all that was submitted so far.
std::uint64_t producer::close_generation() {
  if (newest_outstanding_ == 0) return newest_generation_ - 1;
  older_outstanding_.push_back(std::exchange(newest_outstanding_, 0));
  return newest_generation_++;
}

void producer::came_back(frame_index frame) noexcept {
  const auto generation = generation_of_[frame - pool_.slice().first];
  if (generation == newest_generation_)
    --newest_outstanding_;
  else
    --older_outstanding_[generation - oldest_generation()];
  pool_.release(frame);
}

bool producer::anything_returned() const noexcept {
  return returned_by_kernel_.size_approximate() != 0 ||
         std::ranges::any_of(links_, [](const auto& link) {
           return link->channel.returned.size_approximate() != 0;
         });
}

bool producer::collect() noexcept {
  std::array<frame_index, batch> frames;
  bool any = false;
  const auto take_home = [&](spsc_ring<frame_index>& ring) {
    while (const auto count = ring.pop_some(frames)) {
      any = true;
      for (std::size_t i = 0; i < count; ++i) came_back(frames[i]);
    }
  };
  for (const auto& link : links_) take_home(link->channel.returned);
  take_home(returned_by_kernel_);
  settle_generations();
  // Not only serve() collects: those who waited for just these frames would wait for ever.
  const bool drained = !drains_.empty() && drains_.front().generation < oldest_generation();
  if (any && (!waiters_.empty() || drained)) wake();
  return any;
}

void producer::settle_generations() noexcept {
  while (!older_outstanding_.empty() && older_outstanding_.front() == 0)
    older_outstanding_.pop_front();
  while (!retirements_.empty() && retirements_.front().generation < oldest_generation()) {
    retirements_.front().then();
    retirements_.pop_front();
  }
}

void producer::ask_for_wake() {
  if (waiters_.empty() && drains_.empty()) return nobody_waits();
  // Something may be due already: the serve() that was to see to it went with its context.
  const bool due = waiters_.empty() ? drains_.front().generation < oldest_generation()
                                    : stopped() || pool_.free_count() != 0;
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
  for (const auto& link : links_) link->channel.waiting.store(true, std::memory_order_relaxed);
  // From here on serve() may run, on another thread if that is where the first waiter's executor
  // runs: nothing but atomics is looked at. The fence pairs with that of whoever returned frames:
  // either it sees `waiting`, or we see the frames.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (due || anything_returned()) return wake();
  ask_for_completions();
}

void producer::nobody_waits() noexcept {
  somebody_waits_.store(false, std::memory_order_relaxed);
  // Where something may be held back the cores go on telling of frames.
  if (!sheds_.load(std::memory_order_relaxed))
    for (const auto& link : links_) link->channel.waiting.store(false, std::memory_order_relaxed);
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
  for (const auto& link : links_) link->channel.waiting.store(false, std::memory_order_relaxed);
  feed();  // Sets them again where something stays held back.
  if (!somebody_waits_.exchange(false, std::memory_order_acq_rel)) return;
  std::shared_ptr<producer> alive;  // Released after the lock, which its deleter takes.
  // Under the lock, so that the executor may go away once nobody waits.
  const std::lock_guard lock(wake_mutex_);
  alive = self_.lock();
  if (!alive || !wake_place_) return;
  std::unique_ptr<deferred_call> call = std::make_unique<serve_call>(alive);
  // Where its context is going away, context_gone() comes after us and asks anew.
  if (!wake_place_->post(call)) static_cast<serve_call&>(*call).forget();
}

bool producer::has_news() noexcept {
  if (somebody_waits_.load(std::memory_order_relaxed) && anything_returned()) return true;
  if (!sheds_.load(std::memory_order_acquire)) return false;
  const std::lock_guard lock(guard_);
  return held_back_->readable() != 0 && may_hand_over();
}

void producer::on_news() {
  if (anything_returned()) wake();
  feed();
}

void producer::return_by_kernel(frame_index frame) {
  const bool pushed = returned_by_kernel_.try_push(frame);
  COWIRE_ASSERT(pushed);  // The ring holds every frame of the slice.
  // Pairs with the fence in ask_for_wake(): it sees the frame, or we see that it waits.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (somebody_waits_.load(std::memory_order_relaxed)) wake();
  feed();
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
    } else if (!advance(first.send)) {
      return;
    }
    out.frames.splice(out.frames.end(), waiters_, waiters_.begin());
  }
}

void producer::serve_drains(deliveries& out) {
  while (!drains_.empty()) {
    const bool drained = drains_.front().generation < oldest_generation();
    if (!drained && !owner_->closed()) return;
    if (!drained) drains_.front().result = error::closed;
    out.drains.splice(out.drains.end(), drains_, drains_.begin());
  }
}

void producer::retire(const sender_state& sender) {
  if (!inherited()) owner_->retire(sender);
}

// Shedding
// ------------------------------------------------------------------------------------------

void producer::allow_shedding() {
  const std::lock_guard lock(guard_);
  if (!held_back_) held_back_ = std::make_unique<spsc_ring<held_request>>(pool_.slice().count);
  sheds_.store(true, std::memory_order_release);  // Pairs with the acquires in feed(), has_news().
}

void producer::submit_guarded(const sender_state& from, std::uint32_t core,
                              const tx_request& request) noexcept {
  const std::lock_guard lock(guard_);
  if (from.when_full != full_policy::shed_oldest) return push(core, request);
  const bool held = held_back_->try_push({core, request});
  COWIRE_ASSERT(held);  // It holds every frame of the slice.
  hand_over();
}

bool producer::take_from_oldest(const sender_state& for_whom, frame_index& frame) noexcept {
  if (for_whom.when_full != full_policy::shed_oldest) return false;
  held_request oldest;
  {
    std::unique_lock lock(guard_);
    if (!held_back_->try_pop(oldest)) {
      // All were handed over just now, then, because others had come back.
      lock.unlock();
      return waiters_.empty() && take(frame);
    }
    shed_.add(1);
  }
  came_back(oldest.request.frame);
  settle_generations();
  if (!drains_.empty() && drains_.front().generation < oldest_generation()) wake();
  return pool_.try_acquire(frame);
}

void producer::push(std::uint32_t core, const tx_request& request) noexcept {
  const bool pushed = links_[core]->channel.requests.try_push(request);
  COWIRE_ASSERT(pushed);  // The ring holds every frame of the slice.
  links_[core]->bell.ring();
}

bool producer::may_hand_over() noexcept {
  std::uint64_t returned = returned_by_kernel_.pushed();
  for (const auto& link : links_) returned += link->channel.returned.pushed();
  // On another thread than the producer's it may be one too many: then the producer is about to
  // come here itself.
  const std::uint64_t on_the_way =
      submitted_.get() - shed_.get() - held_back_->readable() - returned;
  return on_the_way < pool_.slice().count / 2;
}

void producer::feed() noexcept {
  if (!sheds_.load(std::memory_order_acquire)) return;  // Pairs with allow_shedding().
  const std::lock_guard lock(guard_);
  hand_over();
}

void producer::hand_over() noexcept {
  held_request next;
  do {
    while (may_hand_over() && held_back_->try_pop(next)) push(next.core, next.request);
    if (held_back_->readable() == 0) return;
    // As in ask_for_wake(): either we see that frames came back, or who returns them sees this.
    for (const auto& link : links_) link->channel.waiting.store(true, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    ask_for_completions();
  } while (may_hand_over());
}

// Lending
// -------------------------------------------------------------------------------------------

bool producer::stopped() const noexcept { return owner_->stopping(); }

producer::executor_type producer::fallback() const { return owner_->control_executor(); }

void producer::lend(std::shared_ptr<engine> owner, const std::shared_ptr<producer>& handle) {
  owner_ = std::move(owner);
  {
    // The last owner's senders may have shed; this one's shall not pay for it.
    const std::lock_guard lock(guard_);
    if (held_back_ && held_back_->readable() == 0) sheds_.store(false, std::memory_order_relaxed);
  }
  const std::lock_guard lock(wake_mutex_);
  self_ = handle;
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
