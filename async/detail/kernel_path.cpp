// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/kernel_path.hpp>
#include <cowire/base/assert.hpp>

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace cowire::detail {
namespace {

/// An error that came back for an earlier datagram makes the next send fail in its place, and is
/// gone once reported; the same answer this often is about the datagram itself.
constexpr int attempts = 4;

unique_fd make_epoll() {
  unique_fd fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!fd) throw_error(errno_code(errno), "kernel path: epoll_create1");
  return fd;
}

}  // namespace

kernel_path::kernel_path(ring_context& ring, const frame_memory& memory, std::size_t waiting_max,
                         path_mtu_callback learnt)
    : memory_(memory),
      waiting_max_(waiting_max),
      learnt_(std::move(learnt)),
      epoll_(make_epoll()),
      ready_(ring, epoll_.get()) {}

kernel_path::~kernel_path() = default;

void kernel_path::start() { watch(); }

void kernel_path::stop() {
  stopped_ = true;
  ready_.cancel();
  for (auto& [key, on] : lanes_) {
    for (const job& waiting : on->jobs) finish(waiting, ECANCELED);
    on->jobs.clear();
  }
}

void kernel_path::watch() {
  ready_.async_wait([this](std::error_code ec) {
    if (ec || stopped_) return;
    on_ready();
    watch();
  });
}

void kernel_path::add_sender(std::shared_ptr<sender_state> sender) {
  for (const auto family : {ip_family::v4, ip_family::v6}) {
    const int fd = sender->socket->fd(family);
    if (fd < 0) continue;
    auto& entry = lanes_[{sender->socket.get(), family}];
    if (!entry) {
      entry = std::make_unique<lane>();
      entry->socket = sender->socket;
      entry->family = family;
      epoll_event event{};
      event.events = EPOLLET;  // Errors are always reported.
      event.data.ptr = entry.get();
      const int added = ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
      COWIRE_ASSERT(added == 0);
    }
    ++entry->senders;
  }
  const auto id = sender->id;
  senders_.emplace(id, std::move(sender));
}

void kernel_path::remove_sender(std::uint32_t id) {
  const auto found = senders_.find(id);
  if (found == senders_.end()) return;
  const auto sender = std::move(found->second);
  senders_.erase(found);
  for (const auto family : {ip_family::v4, ip_family::v6}) {
    const auto entry = lanes_.find({sender->socket.get(), family});
    if (entry == lanes_.end() || --entry->second->senders != 0) continue;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, sender->socket->fd(family), nullptr);
    lanes_.erase(entry);
  }
}

void kernel_path::remove_all_senders() {
  while (!senders_.empty()) {
    senders_.begin()->second->errors->close();  // While somebody runs the handlers.
    remove_sender(senders_.begin()->first);
  }
}

void kernel_path::send(const diverted_request& diverted) {
  const auto sender = senders_.find(diverted.request.sender);
  COWIRE_ASSERT(sender != senders_.end());  // It is retired after its last frame came back.
  const auto entry = lanes_.find({sender->second->socket.get(), diverted.request.family});
  COWIRE_ASSERT(entry != lanes_.end());  // Families without a socket are refused at the sender.
  lane& on = *entry->second;
  on.jobs.push_back({sender->second, diverted.request});
  if (stopped_ || on.jobs.size() > waiting_max_) {
    finish(on.jobs.back(), stopped_ ? ECANCELED : EAGAIN);
    on.jobs.pop_back();
  } else if (!on.full) {
    run(on);
  }
}

void kernel_path::run(lane& on) {
  while (!on.jobs.empty()) {
    const job& next = on.jobs.front();
    int number = send_now(on, next);
    for (int i = 1; number != 0 && number != EAGAIN && i < attempts; ++i) {
      read_errors(on);
      number = send_now(on, next);
    }
    if (number == EAGAIN || number == ENOBUFS) return watch_room(on, true);
    finish(next, number);
    on.jobs.pop_front();
  }
  if (on.full) watch_room(on, false);
}

int kernel_path::send_now(const lane& on, const job& what) const noexcept {
  const auto& request = what.request;
  const auto& control = what.sender->control[static_cast<std::size_t>(request.family)];
  auto to = socket_address::from({destination_of(request), request.destination_port.host()},
                                 what.sender->scope);
  iovec part{memory_.payload(request.frame), request.length};
  msghdr message{};
  message.msg_name = &to.storage;
  message.msg_namelen = to.size;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (control.size != 0) {
    message.msg_control = const_cast<std::byte*>(control.bytes.data());
    message.msg_controllen = control.size;
  }
  for (;;) {
    if (::sendmsg(on.socket->fd(on.family), &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

void kernel_path::finish(const job& done, int number) {
  if (number == 0) {
    sent_.add(1);
  } else {
    const auto index = std::min<std::size_t>(static_cast<std::size_t>(number), errno_limit - 1);
    refused_[index].add(1);
    done.sender->errors->push(
        {.destination = {destination_of(done.request), done.request.destination_port.host()},
         .code = errno_code(number),
         .mtu = 0,
         .from = send_error::origin::local});
  }
  done.sender->via->return_by_kernel(done.request.frame);
}

void kernel_path::watch_room(lane& on, bool wanted) {
  on.full = wanted;
  epoll_event event{};
  event.events = EPOLLET | (wanted ? EPOLLOUT : 0u);
  event.data.ptr = &on;
  const int changed = ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, on.socket->fd(on.family), &event);
  COWIRE_ASSERT(changed == 0);
}

void kernel_path::on_ready() {
  std::array<epoll_event, 64> events;
  int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (; count > 0; --count) {
    const auto& event = events[static_cast<std::size_t>(count - 1)];
    lane& on = *static_cast<lane*>(event.data.ptr);
    if ((event.events & EPOLLERR) != 0) read_errors(on);
    if (on.full && (event.events & EPOLLOUT) != 0) run(on);
  }
}

void kernel_path::read_errors(lane& on) {
  queued_error error;
  while (on.socket->next_error(on.family, error)) {
    if (error.number == EMSGSIZE && error.mtu != 0) learnt_(error.destination.address, error.mtu);
    if (!error.from_network) continue;  // What sendmsg answered is reported where it was called.
    from_network_.add(1);
    for (const auto& [id, sender] : senders_)
      if (sender->socket == on.socket)
        sender->errors->push({.destination = error.destination,
                              .code = errno_code(error.number),
                              .mtu = error.mtu,
                              .from = send_error::origin::network});
  }
}

}  // namespace cowire::detail
