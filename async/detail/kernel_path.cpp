// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/kernel_path.hpp>
#include <cowire/base/assert.hpp>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

namespace cowire::detail {
namespace {

using namespace std::chrono_literals;

/// Each of these takes an error off the socket's queue that the kernel gave out as this datagram's;
/// more at a time than a queue of the default size holds would be a flood.
constexpr int pending_errors_max = 256;

/// A queue that is full for a moment has room after the first; of one that is full for longer, the
/// kernel's own senders lose datagrams, too.
constexpr std::array pauses{1ms, 4ms};
/// For so long after a refusal, datagrams to that destination are tried once.
constexpr auto trouble_lasts = 1s;
/// Of all sockets. Beyond, datagrams are refused as the kernel says.
constexpr std::size_t troubles_max = 1024;
/// Error-queue entries read between two looks at everything else.
constexpr int errors_per_turn = 256;

unique_fd make_epoll() {
  unique_fd fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!fd) throw_error(errno_code(errno), "kernel path: epoll_create1");
  return fd;
}

/// Whether the kernel would take another datagram from this socket.
bool has_room(int fd) noexcept {
  pollfd socket{fd, POLLOUT, 0};
  return ::poll(&socket, 1, 0) > 0 && (socket.revents & POLLOUT) != 0;
}

}  // namespace

kernel_path::kernel_path(ring_context& ring, const frame_memory& memory, std::size_t frames,
                         flow_tracker& tracker, path_mtu_callback learnt)
    : memory_(memory),
      frames_(frames),
      tracker_(tracker),
      learnt_(std::move(learnt)),
      epoll_(make_epoll()),
      ready_(ring, epoll_.get()),
      timer_(ring) {}

kernel_path::~kernel_path() = default;

void kernel_path::start() { watch(); }

void kernel_path::stop() {
  stopped_ = true;
  ready_.cancel();
  timer_.cancel();
  for (auto& [key, on] : lanes_) {
    for (auto& [flow, with] : on->troubles)
      while (!with.jobs.empty()) finish(take_first(*on, with.jobs), ECANCELED);
    while (!on->jobs.empty()) finish(take_first(*on, on->jobs), ECANCELED);
  }
}

kernel_path::flow_key kernel_path::key_of(const tx_request& request) noexcept {
  return {endpoint_of(request), request.flow_class};
}

void kernel_path::watch() {
  ready_.async_wait([this](std::error_code ec) {
    if (ec || stopped_) return;
    on_ready();
    watch();
  });
}

void kernel_path::add_sender(std::shared_ptr<sender_state> sender) {
  for (const auto family : ip_families) {
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
  for (const auto family : ip_families) {
    const auto entry = lanes_.find({sender->socket.get(), family});
    if (entry == lanes_.end() || --entry->second->senders != 0) continue;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, sender->socket->fd(family), nullptr);
    COWIRE_ASSERT(entry->second->waiting == 0);  // Their frames came back.
    troubles_ -= entry->second->troubles.size();
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
  const auto sender = senders_.find(sender_id(diverted.request));
  COWIRE_ASSERT(sender != senders_.end());  // It is retired after its last frame came back.
  const auto entry = lanes_.find({sender->second->socket.get(), diverted.request.family});
  COWIRE_ASSERT(entry != lanes_.end());  // Families without a socket are refused at the sender.
  lane& on = *entry->second;
  job what{sender->second, diverted.request, diverted.tracked, diverted.way,
           diverted.tracked ? tracker_.rules() : 0};
  if (stopped_) return finish(what, ECANCELED);
  if (on.full) return wait(on, on.jobs, std::move(what));
  if (attempt(on, what)) return;
  watch_room(on, true);
  wait(on, on.jobs, std::move(what));
}

void kernel_path::run(lane& on) {
  while (!on.jobs.empty()) {
    job next = take_first(on, on.jobs);
    if (attempt(on, next)) continue;
    ++on.waiting;
    ++waiting_[next.sender->via];
    on.jobs.push_front(std::move(next));
    return watch_room(on, true);
  }
  watch_room(on, false);
}

bool kernel_path::attempt(lane& on, job& what) {
  const auto known = on.troubles.find(key_of(what.request));
  if (known != on.troubles.end() && !known->second.jobs.empty()) {
    wait(on, known->second.jobs, std::move(what));
    return true;
  }
  const answer said = send_now(on, what);
  if (said.what_next == answer::socket_full) return false;
  if (said.what_next == answer::trouble && wait_out(on, what)) return true;
  if (said.what_next == answer::final && known != on.troubles.end()) {
    on.troubles.erase(known);
    --troubles_;
  }
  finish(what, said.number);
  return true;
}

bool kernel_path::wait_out(lane& on, job& what) {
  const auto now = clock::now();
  const auto key = key_of(what.request);
  auto known = on.troubles.find(key);
  if (known != on.troubles.end() && known->second.given_up && now < known->second.due) return false;
  if (!may_wait(on, what)) return false;
  if (known == on.troubles.end()) {
    if (troubles_ == troubles_max) return false;
    known = on.troubles.emplace(key, trouble{}).first;
    ++troubles_;
  }
  trouble& with = known->second;
  with.tries = 1;
  with.given_up = false;
  with.due = now + pauses[0];
  wait(on, with.jobs, std::move(what));
  wake_at(with.due);
  return true;
}

void kernel_path::retry(lane& on, trouble& with) {
  while (!with.jobs.empty()) {
    const answer said = send_now(on, with.jobs.front());
    const bool dropped = said.what_next == answer::trouble;
    if (said.what_next == answer::socket_full) {
      watch_room(on, true);
      with.due = clock::now() + pauses.back();
      return;
    }
    if (dropped && !with.given_up && ++with.tries <= pauses.size()) {
      with.due = clock::now() + pauses[with.tries - 1];
      return;
    }
    with.given_up = dropped;
    with.tries = 0;
    finish(take_first(on, with.jobs), said.number);
  }
  with.due = clock::now() + (with.given_up ? trouble_lasts : 0s);
}

void kernel_path::serve_troubles() {
  const auto now = clock::now();
  auto next = clock::time_point::max();
  for (auto& [key, on] : lanes_) {
    for (auto at = on->troubles.begin(); at != on->troubles.end();) {
      trouble& with = at->second;
      if (with.due <= now && !with.jobs.empty()) retry(*on, with);
      if (with.due <= now && with.jobs.empty()) {
        at = on->troubles.erase(at);
        --troubles_;
      } else {
        next = std::min(next, with.due);
        ++at;
      }
    }
  }
  if (next != clock::time_point::max()) wake_at(next);
}

void kernel_path::wake_at(clock::time_point due) {
  if (due >= wakes_at_ || stopped_) return;
  wakes_at_ = due;
  timer_.expires_at(due);
  timer_.async_wait([this](std::error_code ec) {
    if (ec || stopped_) return;  // A new expiry has a wait of its own.
    wakes_at_ = clock::time_point::max();
    serve_troubles();
  });
}

void kernel_path::wait(lane& on, std::deque<job>& queue, job what) {
  if (!may_wait(on, what)) return finish(what, EAGAIN);
  ++on.waiting;
  ++waiting_[what.sender->via];
  queue.push_back(std::move(what));
}

bool kernel_path::may_wait(const lane& on, const job& what) const {
  const auto all = waiting_.find(what.sender->via);
  return on.waiting < frames_ - (all == waiting_.end() ? 0 : all->second);
}

kernel_path::job kernel_path::take_first(lane& on, std::deque<job>& queue) {
  job first = std::move(queue.front());
  queue.pop_front();
  --on.waiting;
  const auto all = waiting_.find(first.sender->via);
  if (--all->second == 0) waiting_.erase(all);
  return first;
}

kernel_path::answer kernel_path::send_now(lane& on, const job& what) {
  const datagram_options* const chosen = chosen_by(what);
  const bool probe = chosen != nullptr && chosen->path_mtu_probe;
  for (int pending = 0;;) {
    const int before = probe ? on.socket->begin_probe(on.family) : 0;
    const int number = call_sendmsg(on, what);
    if (probe) on.socket->end_probe(on.family, before);
    if (number == 0) {
      on.unanswered.reset();
      return {0, answer::final};
    }
    if (number == ENOBUFS) return {number, answer::trouble};
    if (number == EAGAIN) {
      // A security association that is being negotiated, say, is not about the socket.
      if (has_room(on.socket->fd(on.family))) return {number, answer::trouble};
      if (on.socket->enlarge(on.family)) continue;
      return {number, answer::socket_full};
    }
    on.probing = probe;
    const bool of_earlier = ++pending <= pending_errors_max && was_pending(on, number);
    on.probing = false;
    if (!of_earlier) return {number, answer::final};
  }
}

const datagram_options* kernel_path::chosen_by(const job& what) noexcept {
  const bool any = (what.request.sender & chosen_bit) != 0;
  return any ? &what.sender->via->options_of(what.request.frame) : nullptr;
}

datagram_control kernel_path::control_of(const job& what, bool to_group) noexcept {
  const auto family = static_cast<std::size_t>(what.request.family);
  datagram_options options;
  if (const auto* chosen = chosen_by(what))
    options = *chosen;
  else if (has_ecn(what.request))
    options.ecn = static_cast<ecn_codepoint>(ecn_of(what.request));
  const auto& of_sender = to_group ? what.sender->group_control : what.sender->control;
  return datagram_control::from(of_sender[family], what.request.family, what.sender->tos[family],
                                options);
}

int kernel_path::call_sendmsg(const lane& on, const job& what) const noexcept {
  const auto& request = what.request;
  const endpoint destination = endpoint_of(request);
  datagram_control control = control_of(what, destination.address.is_multicast());
  auto to = socket_address::from(destination, what.sender->scope);
  iovec part{memory_.payload(request.frame), payload_size(request)};
  msghdr message{};
  message.msg_name = &to.storage;
  message.msg_namelen = to.size;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (control.size != 0) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = control.size;
  }
  for (;;) {
    if (::sendmsg(on.socket->fd(on.family), &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

/// An error that comes back for an earlier datagram is put in the error queue, and takes the place
/// of what the next sendmsg() would have answered. Errors of the local kernel are not.
bool kernel_path::was_pending(lane& on, int number) {
  read_errors(on);
  const auto index = std::min<std::size_t>(static_cast<std::size_t>(number), errno_limit - 1);
  return std::exchange(on.unanswered, {}).test(index);
}

void kernel_path::finish(const job& done, int number) {
  if (number == 0) {
    sent_.add(1);
  } else {
    const auto index = std::min<std::size_t>(static_cast<std::size_t>(number), errno_limit - 1);
    refused_[index].add(1);
    done.sender->errors->push({.destination = endpoint_of(done.request),
                               .code = errno_code(number),
                               .mtu = 0,
                               .from = send_error::origin::local});
  }
  if (done.tracked) tracker_.tell(done.request, done.way, number, done.rules);
  done.sender->via->return_by_kernel(done.request.frame, number);
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
  int left = errors_per_turn;
  while (left != 0 && on.socket->next_error(on.family, error)) {
    --left;
    // A group has no path of its own, and nobody may ask the kernel about it (route/agreement.hpp).
    // What a probe is refused for is the device's MTU.
    const bool of_probe = on.probing && !error.from_network;
    const bool teaches = error.number == EMSGSIZE && error.mtu != 0 && !of_probe &&
                         !error.destination.address.is_multicast();
    // What sendmsg answered is reported where it was called.
    std::function<void()> report = error.from_network ? report_of(on, error) : [] {};
    if (error.from_network) {
      from_network_.add(1);
      on.unanswered.set(
          std::min<std::size_t>(static_cast<std::size_t>(error.number), errno_limit - 1));
    }
    // Who hears of a path MTU may rely on it.
    if (teaches)
      learnt_(error.destination.address, error.mtu, std::move(report));
    else
      report();
  }
  if (left == 0) watch_room(on, on.full);  // Has epoll tell once more.
}

/// Tells all senders of the socket.
std::function<void()> kernel_path::report_of(const lane& on, const queued_error& error) const {
  std::vector<std::shared_ptr<event_queue<send_error>>> whom;
  for (const auto& [id, sender] : senders_)
    if (sender->socket == on.socket && sender->hears_network) whom.push_back(sender->errors);
  const send_error what{.destination = error.destination,
                        .code = errno_code(error.number),
                        .mtu = error.mtu,
                        .from = send_error::origin::network};
  return [what, whom = std::move(whom)] {
    for (const auto& errors : whom) errors->push(what);
  };
}

}  // namespace cowire::detail
