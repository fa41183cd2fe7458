// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/ring/detail/backend.hpp>
#include <cowire/ring/detail/event_loop.hpp>

#include <liburing.h>
#include <poll.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>

namespace cowire::detail {
namespace {

static_assert(sizeof(receive_header) == sizeof(io_uring_recvmsg_out));
static_assert(offsetof(receive_header, name_size) == offsetof(io_uring_recvmsg_out, namelen));
static_assert(offsetof(receive_header, control_size) == offsetof(io_uring_recvmsg_out, controllen));
static_assert(offsetof(receive_header, payload_size) == offsetof(io_uring_recvmsg_out, payloadlen));
static_assert(offsetof(receive_header, flags) == offsetof(io_uring_recvmsg_out, flags));

struct flag_set {
  unsigned flags;
  const char* text;
};

// The cheapest first; the kernel answers EINVAL to flags it does not know. Nothing plainer is
// tried: where SINGLE_ISSUER is unknown, multishot receive is, too.
constexpr flag_set flag_sets[] = {
    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
     "io_uring with SINGLE_ISSUER and DEFER_TASKRUN"},
    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
     "io_uring with SINGLE_ISSUER and COOP_TASKRUN (no DEFER_TASKRUN before Linux 6.1)"},
};

// Rings closed so far. liburing maps and unmaps by system calls of its own, which ThreadSanitizer
// does not see: where a new ring comes to lie in the memory of one that another thread closed, this
// says what the kernel guarantees, that all use of the old one came before.
std::atomic<std::uint64_t> closed_rings{0};

int open_ring(unsigned entries, io_uring& ring, io_uring_params& parameters) noexcept {
  const int failed = io_uring_queue_init_params(entries, &ring, &parameters);
  (void)closed_rings.load(std::memory_order_acquire);
  return failed;
}

void close_ring(io_uring* ring) noexcept {
  closed_rings.fetch_add(1, std::memory_order_release);
  io_uring_queue_exit(ring);
}

/// Page-aligned memory that a buffer ring's entries lie in, shared with the kernel.
class ring_memory {
 public:
  explicit ring_memory(unsigned entries) : size_(entries * sizeof(io_uring_buf)) {
    void* memory =
        ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    if (memory == MAP_FAILED) throw_error(errno_code(errno), "mmap of an io_uring buffer ring");
    ring_ = static_cast<io_uring_buf_ring*>(memory);
  }
  ring_memory(const ring_memory&) = delete;
  ring_memory& operator=(const ring_memory&) = delete;
  ~ring_memory() { ::munmap(ring_, size_); }
  [[nodiscard]] io_uring_buf_ring* get() const noexcept { return ring_; }

 private:
  std::size_t size_;
  io_uring_buf_ring* ring_;
};

int register_buffers(io_uring& ring, const ring_memory& memory, unsigned entries,
                     std::uint16_t group) noexcept {
  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<std::uintptr_t>(memory.get());
  registration.ring_entries = entries;
  registration.bgid = group;
  return io_uring_register_buf_ring(&ring, &registration, 0);
}

/// Whether the kernel carries out what datagram_source is built on. Tried for real, on a ring
/// thrown away at once: a version number would not know of back-ports and filters. 0 or a negative
/// errno.
int try_multishot_receive() {
  const ring_memory memory(1);
  std::array<std::byte, 64> buffer{};
  io_uring ring{};
  io_uring_params parameters{};
  if (const int failed = open_ring(4, ring, parameters); failed < 0) return failed;
  const std::unique_ptr<io_uring, decltype(&close_ring)> closer(&ring, &close_ring);
  if (const int failed = register_buffers(ring, memory, 1, 0); failed < 0) return failed;
  io_uring_buf_ring_add(memory.get(), buffer.data(), buffer.size(), 0, io_uring_buf_ring_mask(1),
                        0);
  io_uring_buf_ring_advance(memory.get(), 1);

  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
  const unique_fd reader(pair[0]), writer(pair[1]);
  if (::send(writer.get(), "", 1, 0) != 1) return -errno;
  msghdr message{};
  io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  io_uring_prep_recvmsg_multishot(sqe, reader.get(), &message, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = 0;
  __kernel_timespec limit{1, 0};
  io_uring_cqe* cqe = nullptr;
  const int waited = io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &limit, nullptr);
  if (!cqe) return waited < 0 ? waited : -ETIME;
  return cqe->res < 0 ? cqe->res : 0;
}

class uring_backend;

class uring_group final : public buffer_group {
 public:
  uring_group(uring_backend& owner, std::vector<std::span<std::byte>> buffers, std::size_t at_once)
      : buffer_group(std::move(buffers), at_once),
        owner_(owner),
        entries_(std::bit_ceil(static_cast<unsigned>(at_once))),
        memory_(entries_) {}
  ~uring_group() override;

  /// Makes the group known to the present ring. 0 or a negative errno.
  int ensure_registered() noexcept;
  [[nodiscard]] std::uint16_t number() const noexcept { return number_; }

 private:
  void add(std::uint16_t id) override {
    if (!registered()) return;  // ensure_registered() adds what is provided by then.
    add_at(id, 0);
    io_uring_buf_ring_advance(memory_.get(), 1);
  }
  void add_at(std::uint16_t id, unsigned offset) noexcept {
    const auto bytes = buffer(id);
    io_uring_buf_ring_add(memory_.get(), bytes.data(), static_cast<unsigned>(bytes.size()), id,
                          io_uring_buf_ring_mask(entries_), static_cast<int>(offset));
  }
  [[nodiscard]] bool registered() const noexcept;

  uring_backend& owner_;
  unsigned entries_;
  ring_memory memory_;
  std::uint16_t number_ = 0;
  std::uint64_t ring_generation_ = 0;  // Of the ring it is registered with; 0 = none.
};

class uring_backend final : public backend {
 public:
  /// Check open_error() before use.
  explicit uring_backend(unsigned queue_depth) : depth_(std::min(queue_depth, depth_max)) {
    open_error_ = open();
  }
  ~uring_backend() override {
    if (open_error_ == 0) close_ring(&ring_);
  }

  [[nodiscard]] int open_error() const noexcept { return open_error_; }
  [[nodiscard]] const char* flags_text() const noexcept { return flags_text_; }

  void wait(clock::time_point deadline) override;
  void attach() override;
  void detach() noexcept override;
  std::unique_ptr<buffer_group> make_group(std::vector<std::span<std::byte>> buffers,
                                           std::size_t at_once) override {
    return std::make_unique<uring_group>(*this, std::move(buffers), at_once);
  }

 private:
  friend class uring_group;

  static constexpr unsigned depth_max = 32768;  // The kernel's own limit.

  int open() noexcept;
  void withdraw(request& r) noexcept override { cancels_.push_back(user_data(r)); }
  io_uring_sqe* next_sqe() noexcept;
  void flush() noexcept;
  void prepare(io_uring_sqe& sqe, request& r) noexcept;
  void submit_and_wait(clock::time_point deadline);
  void reap() noexcept;
  void deliver(const io_uring_cqe& cqe) noexcept;

  static std::uint64_t user_data(const request& r) noexcept {
    return reinterpret_cast<std::uintptr_t>(&r);
  }

  io_uring ring_{};
  unsigned depth_;
  int open_error_ = 0;
  const char* flags_text_ = "";
  std::uint64_t issuer_ = 0;      // this_thread_number() of the thread the ring is bound to.
  std::uint64_t generation_ = 1;  // Counts rings: groups of an earlier one must register again.
  bool attached_ = false;
  bool detaching_ = false;
  std::uint64_t delivered_ = 0;
  // Of requests by address. Only ever compared by the kernel: the request may be gone by then. An
  // address in use again is safe, because a cancel is submitted before any later start.
  std::vector<std::uint64_t> cancels_;
  std::vector<std::uint16_t> free_numbers_;  // Of groups; those below next_number_ not in use.
  std::uint16_t next_number_ = 0;
};

// ---- buffers ----------------------------------------------------------------------------------

bool uring_group::registered() const noexcept { return ring_generation_ == owner_.generation_; }

int uring_group::ensure_registered() noexcept {
  if (registered()) return 0;
  std::uint16_t number = owner_.next_number_;
  if (!owner_.free_numbers_.empty()) number = owner_.free_numbers_.back();
  io_uring_buf_ring_init(memory_.get());
  if (const int failed = register_buffers(owner_.ring_, memory_, entries_, number); failed < 0)
    return failed;
  if (owner_.free_numbers_.empty())
    ++owner_.next_number_;
  else
    owner_.free_numbers_.pop_back();
  number_ = number;
  ring_generation_ = owner_.generation_;
  unsigned count = 0;
  for (unsigned id = 0; id < size(); ++id)
    if (provided(static_cast<std::uint16_t>(id))) add_at(static_cast<std::uint16_t>(id), count++);
  io_uring_buf_ring_advance(memory_.get(), static_cast<int>(count));
  return 0;
}

uring_group::~uring_group() {
  // Only the ring's own thread may unregister. Detached, the kernel uses no group, and the ring
  // takes the registration along when it is closed.
  if (!registered() || !owner_.attached_) return;
  if (io_uring_unregister_buf_ring(&owner_.ring_, number_) == 0)
    owner_.free_numbers_.push_back(number_);
}

// ---- the ring ---------------------------------------------------------------------------------

int uring_backend::open() noexcept {
  int failed = -EINVAL;
  for (const flag_set& set : flag_sets) {
    io_uring_params parameters{};
    // Disabled until attach(): the ring binds to the thread that enables it.
    parameters.flags = set.flags | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE |
                       IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP;
    parameters.cq_entries = depth_ * 8;  // Multishot requests complete many times.
    failed = open_ring(depth_, ring_, parameters);
    flags_text_ = set.text;
    if (failed != -EINVAL) break;
  }
  return failed;
}

void uring_backend::attach() {
  const std::uint64_t self = this_thread_number();
  if (issuer_ != self) {
    if (issuer_ != 0) {
      // Requests are bound to the thread that submits them: another thread gets another ring.
      if (open_error_ == 0) close_ring(&ring_);
      open_error_ = open();
      if (open_error_ < 0) throw_error(errno_code(-open_error_), "io_uring_setup for a new thread");
      ++generation_;
      next_number_ = 0;
      free_numbers_.clear();
    }
    const int failed = io_uring_register(static_cast<unsigned>(ring_.ring_fd),
                                         IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    if (failed < 0) throw_error(errno_code(-failed), "io_uring_register(ENABLE_RINGS)");
    issuer_ = self;
  }
  attached_ = true;
}

void uring_backend::detach() noexcept {
  detaching_ = true;
  // No deadline: memory of the requests belongs to the kernel until their completions are seen. All
  // of them are cancellable waits on sockets, so that one round is the rule.
  while (!active_.empty()) {
    if (io_uring_sqe* sqe = next_sqe()) {
      io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
      io_uring_sqe_set_data64(sqe, 0);
    }
    submit_and_wait(clock::now() + std::chrono::milliseconds(10));
    reap();
  }
  cancels_.clear();
  detaching_ = false;
  attached_ = false;
}

io_uring_sqe* uring_backend::next_sqe() noexcept {
  if (io_uring_sqe* sqe = io_uring_get_sqe(&ring_)) return sqe;
  io_uring_submit(&ring_);  // May be refused (completion queue full): the caller tries again later.
  return io_uring_get_sqe(&ring_);
}

void uring_backend::flush() noexcept {
  std::size_t cancelled = 0;
  for (; cancelled < cancels_.size(); ++cancelled) {
    io_uring_sqe* sqe = next_sqe();
    if (!sqe) break;
    io_uring_prep_cancel64(sqe, cancels_[cancelled], 0);
    io_uring_sqe_set_data64(sqe, 0);
  }
  cancels_.erase(cancels_.begin(), cancels_.begin() + static_cast<std::ptrdiff_t>(cancelled));
  if (!cancels_.empty()) return;
  while (request* r = queued_.front()) {
    int failed = is_cancelled(*r) ? -ECANCELED : 0;
    if (!failed && r->what == request::kind::receive)
      failed = static_cast<uring_group&>(*r->group).ensure_registered();
    if (failed) {
      ++delivered_;
      finish(*r, {.result = failed});
      continue;
    }
    io_uring_sqe* sqe = next_sqe();
    if (!sqe) return;
    prepare(*sqe, *r);
    activate(*r);
  }
}

void uring_backend::prepare(io_uring_sqe& sqe, request& r) noexcept {
  const auto flags = static_cast<unsigned>(r.flags);
  switch (r.what) {
    case request::kind::poll:
      io_uring_prep_poll_multishot(&sqe, r.fd, POLLIN);
      break;
    case request::kind::receive:
      io_uring_prep_recvmsg_multishot(&sqe, r.fd, &r.message, flags);
      sqe.flags |= IOSQE_BUFFER_SELECT;
      sqe.buf_group = static_cast<uring_group&>(*r.group).number();
      break;
    case request::kind::send:
      io_uring_prep_sendmsg(&sqe, r.fd, &r.message, flags);
      break;
  }
  io_uring_sqe_set_data64(&sqe, user_data(r));
}

void uring_backend::wait(clock::time_point deadline) {
  delivered_ = 0;
  flush();
  // What could not be submitted, or was delivered just now, must not wait behind a sleep.
  if (delivered_ > 0 || !queued_.empty() || !cancels_.empty()) deadline = clock::time_point::min();
  submit_and_wait(deadline);
  reap();
}

void uring_backend::submit_and_wait(clock::time_point deadline) {
  int result = 0;
  if (deadline == clock::time_point::min()) {
    if (io_uring_sq_ready(&ring_) > 0) result = io_uring_submit_and_get_events(&ring_);
  } else {
    io_uring_cqe* unused = nullptr;
    __kernel_timespec limit{};
    if (deadline != clock::time_point::max()) {
      const auto left = std::max(deadline - clock::now(), clock::duration::zero());
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
      limit.tv_sec = seconds.count();
      limit.tv_nsec = std::chrono::nanoseconds(left - seconds).count();
    }
    result = io_uring_submit_and_wait_timeout(
        &ring_, &unused, 1, deadline == clock::time_point::max() ? nullptr : &limit, nullptr);
  }
  // EAGAIN and EBUSY: nothing was lost, the entries are submitted next time.
  const bool passing =
      result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN || result == -EBUSY;
  if (!passing) throw_error(errno_code(-result), "io_uring_enter");
}

void uring_backend::reap() noexcept {
  std::array<io_uring_cqe*, 64> batch;
  // All that is there, before any handler runs: buffer_group::available() is exact in the order of
  // completions only. The bound is for a flood that never ends.
  for (unsigned seen = 0; seen < ring_.cq.ring_entries;) {
    const unsigned count = io_uring_peek_batch_cqe(&ring_, batch.data(), batch.size());
    if (count == 0) return;
    for (unsigned i = 0; i < count; ++i) deliver(*batch[i]);
    io_uring_cq_advance(&ring_, count);
    seen += count;
  }
}

void uring_backend::deliver(const io_uring_cqe& cqe) noexcept {
  if (cqe.user_data == 0) return;  // A cancel's own answer says nothing the request's does not.
  auto& r = *reinterpret_cast<request*>(static_cast<std::uintptr_t>(cqe.user_data));
  event e{.result = cqe.res, .more = (cqe.flags & IORING_CQE_F_MORE) != 0, .buffer = {}};
  if (cqe.flags & IORING_CQE_F_BUFFER) {
    e.buffer = static_cast<std::uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
    r.group->take(*e.buffer);
  }
  if (r.what == request::kind::poll && e.result > 0) e.result = 0;
  if (e.more) {
    r.on_event(e);
  } else if (detaching_ && !is_cancelled(r) && !e.buffer &&
             (e.result == -ECANCELED || e.result == -EINTR)) {
    requeue(r);
  } else {
    finish(r, e);
  }
}

}  // namespace

std::unique_ptr<backend> make_uring_backend(unsigned queue_depth, std::error_code& ec,
                                            std::string& reason) {
  auto made = std::make_unique<uring_backend>(queue_depth);
  int failed = made->open_error();
  std::string call = "io_uring_setup: ";
  if (failed == 0) {
    failed = try_multishot_receive();
    call = "io_uring multishot receive: ";
  }
  if (failed == 0) {
    ec.clear();
    reason = made->flags_text();
    return made;
  }
  ec = errno_code(-failed);
  reason = call + errno_name(-failed);
  if (failed == -EPERM) reason += " (sysctl kernel.io_uring_disabled or a seccomp filter)";
  if (failed == -ENOSYS) reason += " (kernel built without io_uring, or a seccomp filter)";
  if (failed == -EINVAL) reason += " (needs Linux 6.0)";
  if (failed == -ENOMEM) reason += " (RLIMIT_MEMLOCK too low)";
  return nullptr;
}

}  // namespace cowire::detail
