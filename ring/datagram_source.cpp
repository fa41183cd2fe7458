// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/datagram_source.hpp>

#include <cowire/base/assert.hpp>
#include <cowire/base/checked_range.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/ring/detail/backend.hpp>
#include <cowire/ring/detail/datagram_pool.hpp>
#include <cowire/ring/detail/duplicate.hpp>
#include <cowire/ring/detail/socket_drops.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <string>

namespace cowire {

static_assert(sizeof(detail::receive_header) == datagram_source::header_size);

namespace detail {

/// The buffers of one source.
class source_pool final : public datagram_pool, public std::enable_shared_from_this<source_pool> {
 public:
  source_pool(event_loop& l, receive_memory memory, const datagram_source::options& layout)
      : datagram_pool(layout),
        loop_(l),
        memory_(std::move(memory)),
        leases_(std::make_unique<std::atomic<std::uint32_t>[]>(memory_.buffers.size())) {
    returned_.reserve(memory_.buffers.size());
  }

  void give_back(std::uint16_t id) noexcept override;
  /// Ring thread: puts back what other threads gave back. With `starved`, which says that there is
  /// no other buffer, the next one to come is announced. Returns whether there was any.
  bool collect(bool starved) noexcept;

  /// Ring thread: whom buffers go back to; nullptr when the source is closed.
  void set_owner(datagram_source::state* owner) noexcept {
    const std::lock_guard lock(mutex_);
    owner_ = owner;
  }

 private:
  std::span<std::byte> buffer(std::uint16_t id) const noexcept override {
    return memory_.buffers[id];
  }
  std::atomic<std::uint32_t>& leases(std::uint16_t id) const noexcept override {
    return leases_[id];
  }

  const fork_mark born_;
  event_loop& loop_;  // Valid as long as there is an owner.
  const receive_memory memory_;
  const std::unique_ptr<std::atomic<std::uint32_t>[]> leases_;  // By buffer.

  std::mutex mutex_;
  datagram_source::state* owner_ = nullptr;
  std::vector<std::uint16_t> returned_;  // By other threads, until collect() fetches them.
  bool starved_ = false;                 // The owner has none, and waits for them.
  bool announced_ = false;               // A collect() is on its way.
};

}  // namespace detail

namespace {

struct atomic_counters {
  std::atomic<std::uint64_t> received{0}, truncated{0}, overruns{0}, starved{0}, armed{0};
};

void increment(std::atomic<std::uint64_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

bool is_netlink(int socket) noexcept {
  int domain = 0;
  socklen_t size = sizeof domain;
  return ::getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_NETLINK;
}

[[noreturn]] void reject(const std::string& what) {
  throw_error(make_error_code(error::invalid_argument), "datagram_source: " + what);
}

/// Of the payload, of an address and of control messages: beyond what any socket has.
constexpr std::size_t capacity_max = 1u << 24;

void check_layout(const datagram_source::options& wanted) {
  check_range("datagram_source: name_capacity", wanted.name_capacity, 0, capacity_max);
  check_range("datagram_source: control_capacity", wanted.control_capacity, 0, capacity_max);
  if (wanted.name_capacity % 8 != 0 || wanted.control_capacity % 8 != 0)
    reject("name_capacity " + std::to_string(wanted.name_capacity) + " and control_capacity " +
           std::to_string(wanted.control_capacity) + " must be multiples of 8");
}

void check_count(std::size_t buffers) {
  check_range("datagram_source: buffer_count", buffers, 1, detail::buffer_group::count_max);
}

void check(const receive_memory& memory, const datagram_source::options& wanted) {
  check_layout(wanted);
  check_count(memory.buffers.size());
  for (const auto& buffer : memory.buffers)
    if (buffer.size() <= wanted.payload_offset())
      reject("a buffer of " + std::to_string(buffer.size()) + " bytes has no room behind the " +
             std::to_string(wanted.payload_offset()) + " before the payload");
}

receive_memory make_memory(const datagram_source::options& wanted) {
  check_layout(wanted);
  check_count(wanted.buffer_count);
  check_range("datagram_source: payload_capacity", wanted.payload_capacity, 1, capacity_max);
  constexpr std::size_t cache_line = 64;
  const std::size_t size = wanted.payload_offset() + wanted.payload_capacity;
  const std::size_t stride = (size + cache_line - 1) / cache_line * cache_line;
  // Not written to: pages that no datagram ever comes to lie in are never made.
  auto bytes = std::make_shared_for_overwrite<std::byte[]>(stride * wanted.buffer_count);
  receive_memory memory;
  for (std::size_t i = 0; i < wanted.buffer_count; ++i)
    memory.buffers.emplace_back(bytes.get() + i * stride, size);
  memory.keeper = std::move(bytes);
  return memory;
}

}  // namespace

/// Ring thread only, but for what is marked.
struct datagram_source::state final : public detail::ring_object, public detail::request {
  state(ring_context& ring, unique_fd socket, receive_memory memory, const options& wanted)
      : ring_object(loop_of(ring)),
        request(kind::receive, socket.get()),
        socket_(std::move(socket)),
        netlink_(is_netlink(socket_.get())),
        drops_(netlink_ ? detail::drops_of(socket_.get()) : 0),
        group_(loop().kernel().make_group(memory.buffers, memory.buffers.size())),
        pool_(std::make_shared<detail::source_pool>(loop(), std::move(memory), wanted)) {
    message.msg_namelen = static_cast<socklen_t>(wanted.name_capacity);
    message.msg_controllen = wanted.control_capacity;
    request::group = group_.get();
    for (std::size_t id = 0; id < group_->size(); ++id)
      group_->provide(static_cast<std::uint16_t>(id));
    pool_->set_owner(this);
  }
  ~state() override { pool_->set_owner(nullptr); }

  void start(detail::completion_ptr<std::error_code, datagram> c) {
    if (closed_) return c.release()->complete(operation_aborted(), {});
    singles_.push(std::move(c));
    serve_and_arm();
  }
  void start(detail::completion_ptr<std::error_code, batch> c) {
    if (closed_) return c.release()->complete(operation_aborted(), {});
    batches_.push(std::move(c));
    serve_and_arm();
  }
  void on_cancel(std::uint64_t id) override {
    if (auto* c = singles_.remove(id)) c->complete(operation_aborted(), {});
    if (auto* c = batches_.remove(id)) c->complete(operation_aborted(), {});
  }
  void cancel() {
    while (auto* c = singles_.pop()) c->complete(operation_aborted(), {});
    while (auto* c = batches_.pop()) c->complete(operation_aborted(), {});
  }
  void close() {
    cancel();
    let_go();
    if (!started()) return;
    // The ring runs on until the socket is closed.
    loop().work_started();
    ending_ = true;
    loop().kernel().cancel(*this);
  }

  /// A buffer is the source's again. Called by the pool, which keeps others out meanwhile.
  void provide(std::uint16_t id) {
    group_->provide(id);
    if (starved_) schedule_flush();
  }
  /// Any thread.
  [[nodiscard]] std::uint32_t socket_drops() const noexcept {
    return detail::drops_of(socket_.get());
  }

  void on_event(const detail::event& e) noexcept override;

  /// Any thread.
  [[nodiscard]] const std::shared_ptr<detail::source_pool>& pool() const noexcept { return pool_; }
  /// Any thread.
  [[nodiscard]] counters count() const noexcept {
    constexpr auto relaxed = std::memory_order_relaxed;
    return {.received = counters_.received.load(relaxed),
            .truncated = counters_.truncated.load(relaxed),
            .overruns = counters_.overruns.load(relaxed),
            .starved = counters_.starved.load(relaxed),
            .armed = counters_.armed.load(relaxed)};
  }

 private:
  /// A datagram, or an error in its place.
  struct entry {
    datagram received;
    std::error_code ec;
  };

  void receive(std::uint16_t id, int result);
  void conclude(int result);
  void serve();
  void arm();
  void serve_and_arm() {
    serve();
    if (!singles_.empty() || !batches_.empty()) arm();
  }
  void flush();
  void schedule_flush();
  void let_go();
  void on_shutdown() noexcept override {
    singles_.destroy_all();
    batches_.destroy_all();
    let_go();
  }

  const detail::parents_fd socket_;
  const bool netlink_;
  std::uint32_t drops_;  // As last seen.
  std::unique_ptr<detail::buffer_group> group_;
  std::shared_ptr<detail::source_pool> pool_;

  // Bounded by the buffers: each datagram holds one, no two overruns are adjacent, and as many at
  // most were handed out before ready_head_.
  std::vector<entry> ready_;
  std::size_t ready_head_ = 0;
  detail::wait_list<std::error_code, datagram> singles_;
  detail::wait_list<std::error_code, batch> batches_;

  bool closed_ = false;
  bool ending_ = false;   // Counts as work until the last event.
  bool starved_ = false;  // Not armed for want of buffers.
  bool rearm_ = false;    // Not armed, to be armed by flush().
  bool flush_scheduled_ = false;
  std::shared_ptr<ring_object> self_;  // While the backend holds the request.
  atomic_counters counters_;
};

namespace detail {

void source_pool::give_back(std::uint16_t id) noexcept {
  if (born_.inherited()) return;
  const std::lock_guard lock(mutex_);
  if (!owner_) return;
  if (loop_.running_in_this_thread()) return owner_->provide(id);
  returned_.push_back(id);
  // The ring thread fetches them whenever it has something to do; it is woken for this alone where
  // there may be too few until then.
  const bool scarce = starved_ || returned_.size() * 2 >= memory_.buffers.size();
  if (!scarce || announced_) return;
  announced_ = true;
  loop_.post_function([self = shared_from_this()] {
    {
      const std::lock_guard again(self->mutex_);
      self->announced_ = false;
    }
    static_cast<void>(self->collect(false));
  });
}

bool source_pool::collect(bool starved) noexcept {
  const std::lock_guard lock(mutex_);
  const bool any = !returned_.empty();
  for (const std::uint16_t id : returned_)
    if (owner_) owner_->provide(id);
  returned_.clear();
  starved_ = starved && !any;
  return any;
}

}  // namespace detail

// ---- the state --------------------------------------------------------------------------------

void datagram_source::state::arm() {
  if (closed_ || started()) return;
  rearm_ = false;
  if (!pool_->collect(group_->available() == 0) && group_->available() == 0) {
    if (!starved_) increment(counters_.starved);
    starved_ = true;
    return;
  }
  starved_ = false;
  self_ = shared_from_this();
  increment(counters_.armed);
  loop().kernel().start(*this);
}

void datagram_source::state::on_event(const detail::event& e) noexcept {
  // Released last: it may be all that keeps this object.
  const auto last = e.more ? nullptr : std::move(self_);
  if (!e.more && std::exchange(ending_, false)) loop().work_finished();
  if (closed_) {
    if (!e.more) group_.reset();
    return;
  }
  if (e.buffer && e.result >= 0)
    receive(*e.buffer, e.result);
  else if (e.buffer)
    group_->provide(*e.buffer);  // Spent on a receive that failed.
  if (!e.more) conclude(e.result);
  schedule_flush();
}

void datagram_source::state::receive(std::uint16_t id, int result) {
  pool_->lease(id);
  ready_.push_back({datagram(pool_, id, pool_->payload(id, result)), {}});
  increment(counters_.received);
  if (ready_.back().received.truncated()) increment(counters_.truncated);
}

/// The receive is no longer armed: decides what that means.
void datagram_source::state::conclude(int result) {
  if (result >= 0 || result == -ECANCELED) {
    rearm_ = true;
    return;
  }
  std::error_code ec = errno_code(-result);
  if (result == -ENOBUFS) {
    rearm_ = true;  // arm() finds out whether there are buffers.
    // Without a free buffer ENOBUFS is about that, unless the socket has dropped something, too:
    // its own error then stays pending, but the loss is known now. With free buffers it is the
    // socket's, whose counter may lag a moment behind its error.
    const std::uint32_t drops = netlink_ ? detail::drops_of(fd) : 0;
    const bool overrun = netlink_ && (group_->available() > 0 || drops != drops_);
    drops_ = drops;
    if (!overrun) return;
    ec = make_error_code(error::overrun);
    increment(counters_.overruns);
    if (!ready_.empty() && ready_.back().ec == ec) return;
  }
  ready_.push_back({{}, ec});
}

void datagram_source::state::serve() {
  const auto waiting = [this] { return !singles_.empty() || !batches_.empty(); };
  while (ready_head_ < ready_.size() && waiting()) {
    entry& first = ready_[ready_head_];
    if (auto* c = singles_.pop()) {
      ++ready_head_;
      c->complete(first.ec, std::move(first.received));
      continue;
    }
    batch all;
    if (first.ec) {
      ++ready_head_;
      batches_.pop()->complete(first.ec, {});
      continue;
    }
    all.reserve(ready_.size() - ready_head_);
    for (; ready_head_ < ready_.size() && !ready_[ready_head_].ec; ++ready_head_)
      all.push_back(std::move(ready_[ready_head_].received));
    batches_.pop()->complete({}, std::move(all));
  }
  // What was handed out is forgotten now and then, too, where something is always left.
  if (ready_head_ != ready_.size() && ready_head_ < group_->size()) return;
  ready_.erase(ready_.begin(), ready_.begin() + static_cast<std::ptrdiff_t>(ready_head_));
  ready_head_ = 0;
}

void datagram_source::state::flush() {
  flush_scheduled_ = false;
  if (closed_) return;
  serve();
  if (started())
    static_cast<void>(pool_->collect(false));
  else if (rearm_ || starved_)
    arm();
}

/// Once for all events of a round, so that a batch is a batch.
void datagram_source::state::schedule_flush() {
  if (std::exchange(flush_scheduled_, true)) return;
  loop().post_function([s = std::static_pointer_cast<state>(shared_from_this())] { s->flush(); });
}

void datagram_source::state::let_go() {
  closed_ = true;
  pool_->set_owner(nullptr);
  ready_.clear();
  if (!started()) group_.reset();
}

// ---- the lease --------------------------------------------------------------------------------

std::span<const std::byte> datagram::source() const noexcept { return pool_->name(id_); }

std::span<const std::byte> datagram::control() const noexcept { return pool_->control(id_); }

bool datagram::truncated() const noexcept { return (pool_->header(id_).flags & MSG_TRUNC) != 0; }

bool datagram::control_truncated() const noexcept {
  return (pool_->header(id_).flags & MSG_CTRUNC) != 0;
}

std::uint16_t datagram::release_buffer() noexcept {
  COWIRE_ASSERT(pool_ && pool_->leased_once(id_));
  pool_.reset();
  return id_;
}

datagram datagram::part(std::size_t offset, std::size_t size) const noexcept {
  COWIRE_ASSERT(pool_ && offset <= payload_.size() && size <= payload_.size() - offset);
  pool_->lease_again(id_);
  return {pool_, id_, payload_.subspan(offset, size)};
}

void datagram::reset() noexcept {
  if (const auto pool = std::move(pool_)) pool->end_lease(id_);
}

// ---- the source -------------------------------------------------------------------------------

datagram_source::datagram_source(ring_context& ring, int socket, const options& wanted)
    : datagram_source(ring, socket, make_memory(wanted), wanted) {}

datagram_source::datagram_source(ring_context& ring, int socket, receive_memory memory,
                                 const options& wanted)
    : ring_(&ring) {
  check(memory, wanted);
  state_ = std::make_shared<state>(ring, detail::duplicate(socket), std::move(memory), wanted);
}

datagram_source& datagram_source::operator=(datagram_source&& other) noexcept {
  if (this != &other) {
    close();
    ring_ = other.ring_;
    state_ = std::move(other.state_);
  }
  return *this;
}

datagram_source::~datagram_source() { close(); }

void datagram_source::close() noexcept {
  if (!state_) return;
  detail::event_loop& l = state_->loop();
  l.post_function([s = std::move(state_)] { s->close(); });
}

void datagram_source::provide(std::uint16_t id) noexcept { state_->pool()->give_back(id); }

void datagram_source::cancel() {
  state_->loop().post_function([s = state_] { s->cancel(); });
}

datagram_source::counters datagram_source::count() const noexcept { return state_->count(); }

std::uint32_t datagram_source::socket_drops() const noexcept { return state_->socket_drops(); }

void datagram_source::start(state& s, detail::completion_ptr<std::error_code, datagram> c) {
  s.start(std::move(c));
}

void datagram_source::start(state& s, detail::completion_ptr<std::error_code, batch> c) {
  s.start(std::move(c));
}

std::shared_ptr<detail::ring_object> datagram_source::object() const noexcept { return state_; }

}  // namespace cowire
