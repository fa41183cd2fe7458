// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/ring/detail/backend.hpp>

#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <unordered_map>

namespace cowire::detail {
namespace {

/// Free buffers as a stack: the one used last is the warmest.
class epoll_group final : public buffer_group {
 public:
  epoll_group(std::vector<std::span<std::byte>> buffers, std::size_t at_once)
      : buffer_group(std::move(buffers), at_once) {
    free_.reserve(at_once);
  }
  /// The buffer to fill next; pop() once it is filled.
  [[nodiscard]] std::uint16_t top() const { return free_.back(); }
  void pop() { free_.pop_back(); }

 private:
  void add(std::uint16_t id) override { free_.push_back(id); }
  std::vector<std::uint16_t> free_;
};

/// epoll_pwait2(), or epoll_wait() with a limit that is rounded up where something between us and
/// the kernel does not know it (valgrind 3.19). `limit`: null = none.
int wait_for_events(int epoll, std::span<epoll_event> into, const timespec* limit) {
  const int room = static_cast<int>(into.size());
  const int count = ::epoll_pwait2(epoll, into.data(), room, limit, nullptr);
  if (count >= 0 || errno != ENOSYS) return count;
  constexpr std::int64_t ns_per_ms = 1'000'000, longest_ms = 3'600'000;
  std::int64_t limit_ms = -1;
  if (limit != nullptr)
    limit_ms =
        std::min(limit->tv_sec * std::int64_t{1000} + (limit->tv_nsec + ns_per_ms - 1) / ns_per_ms,
                 longest_ms);
  return ::epoll_wait(epoll, into.data(), room, static_cast<int>(limit_ms));
}

/// Queued requests are tried without blocking, then wait as active ones for an edge of their
/// descriptor, which queues them again.
class epoll_backend final : public backend {
 public:
  epoll_backend() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll_) throw_error(errno_code(errno), "epoll_create1");
  }

  void wait(clock::time_point deadline) override;
  // Nothing of ours is ever inside the kernel: there is nothing to bind or to take back.
  void attach() override {}
  void detach() noexcept override {}
  std::unique_ptr<buffer_group> make_group(std::vector<std::span<std::byte>> buffers,
                                           std::size_t at_once) override {
    return std::make_unique<epoll_group>(std::move(buffers), at_once);
  }

 private:
  // Bounds what one socket may do before the others have their turn.
  static constexpr int receive_batch = 64;

  struct interest {
    unsigned readers = 0, writers = 0;
    std::uint32_t mask = 0;
  };

  void withdraw(request& r) noexcept override { requeue(r); }
  void flush() noexcept;
  void attempt(request& r) noexcept;
  void attempt_poll(request& r) noexcept;
  void attempt_receive(request& r) noexcept;
  void attempt_send(request& r) noexcept;
  void conclude(request& r, int result) noexcept;
  int watch(request& r) noexcept;
  void unwatch(request& r) noexcept;
  int update(int fd, interest& i) noexcept;
  void sleep(clock::time_point deadline);

  unique_fd epoll_;
  std::unordered_map<int, interest> interests_;
  bool delivered_ = false;
};

int epoll_backend::update(int fd, interest& i) noexcept {
  std::uint32_t mask =
      (i.readers ? std::uint32_t{EPOLLIN} : 0u) | (i.writers ? std::uint32_t{EPOLLOUT} : 0u);
  if (mask == i.mask) return 0;
  const int operation = mask == 0 ? EPOLL_CTL_DEL : i.mask == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  epoll_event wanted{};
  wanted.events = mask | EPOLLET;
  wanted.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), operation, fd, &wanted) < 0) return -errno;
  i.mask = mask;
  return 0;
}

/// An edge after this call queues the request again; epoll reports readiness found while adding.
int epoll_backend::watch(request& r) noexcept {
  if (watched(r)) return 0;
  interest& i = interests_[r.fd];
  ++(r.what == request::kind::send ? i.writers : i.readers);
  watched(r) = true;
  return update(r.fd, i);
}

void epoll_backend::unwatch(request& r) noexcept {
  if (!std::exchange(watched(r), false)) return;
  const auto found = interests_.find(r.fd);
  interest& i = found->second;
  --(r.what == request::kind::send ? i.writers : i.readers);
  update(r.fd, i);
  if (i.readers + i.writers == 0) interests_.erase(found);
}

void epoll_backend::conclude(request& r, int result) noexcept {
  delivered_ = true;
  unwatch(r);
  finish(r, {.result = result});
}

void epoll_backend::attempt_poll(request& r) noexcept {
  pollfd probe{.fd = r.fd, .events = POLLIN, .revents = 0};
  if (::poll(&probe, 1, 0) <= 0) return;
  delivered_ = true;
  r.on_event({.result = 0, .more = true});
}

void epoll_backend::attempt_receive(request& r) noexcept {
  auto& group = static_cast<epoll_group&>(*r.group);
  const std::size_t name_room = r.message.msg_namelen;
  const std::size_t offset = sizeof(receive_header) + name_room + r.message.msg_controllen;
  for (int i = 0; i < receive_batch; ++i) {
    if (group.available() == 0) return conclude(r, -ENOBUFS);
    const std::uint16_t id = group.top();
    const auto buffer = group.buffer(id);
    iovec part{buffer.data() + offset, buffer.size() - offset};
    msghdr message = r.message;
    message.msg_name = buffer.data() + sizeof(receive_header);
    message.msg_control = buffer.data() + sizeof(receive_header) + name_room;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const auto got = ::recvmsg(r.fd, &message, r.flags | MSG_DONTWAIT);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) conclude(r, -errno);
      return;
    }
    const receive_header header{.name_size = message.msg_namelen,
                                .control_size = static_cast<std::uint32_t>(message.msg_controllen),
                                .payload_size = static_cast<std::uint32_t>(got),
                                .flags = static_cast<std::uint32_t>(message.msg_flags)};
    std::memcpy(buffer.data(), &header, sizeof header);
    group.pop();
    group.take(id);
    delivered_ = true;
    r.on_event(
        {.result = static_cast<int>(offset) + static_cast<int>(got), .more = true, .buffer = id});
    if (!is_active(r)) return;  // Cancelled by its owner.
  }
  requeue(r);  // There may be more, and no edge will say so.
}

void epoll_backend::attempt_send(request& r) noexcept {
  ssize_t sent;
  do {
    sent = ::sendmsg(r.fd, &r.message, r.flags | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return conclude(r, static_cast<int>(sent));
  if (errno != EAGAIN) return conclude(r, -errno);
  if (const int failed = watch(r); failed < 0) return conclude(r, failed);
}

void epoll_backend::attempt(request& r) noexcept {
  if (is_cancelled(r)) return conclude(r, -ECANCELED);
  activate(r);
  if (r.what == request::kind::send) return attempt_send(r);
  // Watched first, tried then: no edge can fall between.
  if (const int failed = watch(r); failed < 0) return conclude(r, failed);
  if (r.what == request::kind::poll)
    attempt_poll(r);
  else
    attempt_receive(r);
}

void epoll_backend::flush() noexcept {
  // Each request once: what is queued meanwhile has its turn in the next wait().
  std::size_t count = 0;
  for (request* r = queued_.front(); r; r = request_list::after(*r)) ++count;
  for (; count > 0 && !queued_.empty(); --count) attempt(*queued_.front());
}

void epoll_backend::sleep(clock::time_point deadline) {
  std::array<epoll_event, 64> events;
  timespec limit{};
  if (deadline != clock::time_point::max() && deadline != clock::time_point::min()) {
    const auto left = std::max(deadline - clock::now(), clock::duration::zero());
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    limit.tv_sec = seconds.count();
    limit.tv_nsec = std::chrono::nanoseconds(left - seconds).count();
  }
  const int count = wait_for_events(epoll_.get(), events,
                                    deadline == clock::time_point::max() ? nullptr : &limit);
  if (count < 0 && errno != EINTR) throw_error(errno_code(errno), "waiting for events");
  for (int i = 0; i < count; ++i) {
    const epoll_event& e = events[static_cast<std::size_t>(i)];
    const bool both = (e.events & (EPOLLERR | EPOLLHUP)) != 0;
    for (request* r = active_.front(); r;) {
      request* next = request_list::after(*r);
      const auto wanted = r->what == request::kind::send ? EPOLLOUT : EPOLLIN;
      if (r->fd == e.data.fd && (both || (e.events & wanted))) requeue(*r);
      r = next;
    }
  }
}

void epoll_backend::wait(clock::time_point deadline) {
  delivered_ = false;
  flush();
  if (delivered_ || !queued_.empty()) deadline = clock::time_point::min();
  sleep(deadline);
  flush();
}

}  // namespace

std::unique_ptr<backend> make_epoll_backend() { return std::make_unique<epoll_backend>(); }

}  // namespace cowire::detail
