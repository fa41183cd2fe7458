// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/base/signals_blocked.hpp>
#include <cowire/follow/detail/dump_reader.hpp>

#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>

namespace cowire::detail {
namespace {

/// The kernel fills a dump's datagrams up to what the reader has room for, and no further than
/// this.
constexpr std::size_t part_size = 32768;
/// So that neither side waits for the other's thread to be run at every part.
constexpr std::ptrdiff_t parts_ahead = 8;

}  // namespace

dump_reader::dump_reader(ring_context& ring, int socket)
    : socket_(socket),
      room_(parts_ahead),
      parts_(std::make_shared<event_queue<part>>(ring.get_executor(), parts_ahead)) {
  const signals_blocked during_creation;
  thread_ = std::thread([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(), "cowire-dump");
}

dump_reader::~dump_reader() {
  stop();
  thread_.join();
}

void dump_reader::stop() noexcept {
  if (stopping_.exchange(true, std::memory_order_acq_rel)) return;
  stop_event_.set();
  room_.release();
  parts_->close();
}

void dump_reader::run() {
  for (;;) {
    room_.acquire();
    part next = receive();
    if (stopping_.load(std::memory_order_acquire)) return;  // Pairs with the exchange in stop().
    const bool taken = parts_->push(std::move(next));
    COWIRE_DEBUG_ASSERT(taken || stopping_);
    static_cast<void>(taken);
  }
}

/// The next datagram of the kernel's; empty if something was lost, or at the end.
dump_reader::part dump_reader::receive() {
  part bytes(part_size);
  while (!stopping_.load(std::memory_order_acquire)) {
    sockaddr_nl from{};
    iovec room{bytes.data(), bytes.size()};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &room;
    message.msg_iovlen = 1;
    const auto size = ::recvmsg(socket_, &message, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
      wait();
      continue;
    }
    // Nothing is lost: who reads the last part while the call that asked for the dump is still in
    // the kernel has it go on with a dump that has ended (netlink_recvmsg and netlink_dump in
    // net/netlink/af_netlink.c). Seen after one in a thousand short dumps on Linux 6.18.
    if (size < 0 && errno == EINVAL) continue;
    if (size >= 0 && (message.msg_namelen < sizeof from || from.nl_pid != 0)) continue;
    const bool lost = size < 0 || (message.msg_flags & MSG_TRUNC) != 0;
    bytes.resize(lost ? 0 : static_cast<std::size_t>(size));
    return bytes;
  }
  return {};
}

void dump_reader::wait() noexcept {
  pollfd either[] = {{.fd = socket_, .events = POLLIN, .revents = 0},
                     {.fd = stop_event_.fd(), .events = POLLIN, .revents = 0}};
  ::poll(either, 2, -1);  // No deadline: the monitor has one for each answer.
}

}  // namespace cowire::detail
