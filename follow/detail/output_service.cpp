// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/signals_blocked.hpp>
#include <cowire/follow/detail/output_reader.hpp>
#include <cowire/follow/detail/output_service.hpp>
#include <cowire/netlink/nft_codec.hpp>
#include <cowire/netlink/tc_codec.hpp>
#include <cowire/netlink/xfrm_codec.hpp>

#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace cowire::detail {
namespace {

/// How long what announces nothing may go unnoticed.
constexpr int poll_period_ms = 1000;
/// Snapshots that nobody has taken yet; when full the newest is offered again.
constexpr std::size_t changes_ahead = 4;

unique_fd make_event() {
  unique_fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) throw_error(errno_code(errno), "eventfd");
  return fd;
}

/// Empty where the kernel refuses: then the poll alone notices.
unique_fd listen_to(int protocol, int group) {
  unique_fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
  sockaddr_nl any{};
  any.nl_family = AF_NETLINK;
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
      ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
    return {};
  return fd;
}

}  // namespace

output_service::output_service(ring_context& ring, const output_layers& obeyed)
    : obeyed_(obeyed),
      stop_fd_(make_event()),
      rules_fd_(obeyed.netfilter ? listen_to(NETLINK_NETFILTER, netlink::nft::notification_group)
                                 : unique_fd()),
      policies_fd_(obeyed.ipsec ? listen_to(NETLINK_XFRM, netlink::xfrm_policy_group)
                                : unique_fd()),
      traffic_fd_(obeyed.traffic_control ? listen_to(NETLINK_ROUTE, netlink::tc_group)
                                         : unique_fd()),
      changes_(std::make_shared<event_queue<snapshot>>(ring.get_executor(), changes_ahead)),
      first_(std::make_shared<output_snapshot>(output_reader(obeyed).read())) {
  const signals_blocked during_creation;
  thread_ = std::thread([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(), "cowire-output");
}

output_service::~output_service() {
  stop();
  thread_.join();
}

void output_service::stop() noexcept {
  if (stopping_.exchange(true, std::memory_order_acq_rel)) return;
  const std::uint64_t one = 1;
  const auto written = ::write(stop_fd_.get(), &one, sizeof one);
  COWIRE_ASSERT(written == sizeof one);  // An eventfd write of 1 is never short.
  changes_->close();
}

void output_service::run() {
  output_reader reader(obeyed_);
  snapshot last = first_;
  while (!stopping_.load(std::memory_order_acquire)) {  // Pairs with the exchange in stop().
    pollfd waiting[] = {{stop_fd_.get(), POLLIN, 0},
                        {rules_fd_.get(), POLLIN, 0},
                        {policies_fd_.get(), POLLIN, 0},
                        {traffic_fd_.get(), POLLIN, 0}};
    ::poll(waiting, std::size(waiting), poll_period_ms);
    if (stopping_.load(std::memory_order_acquire)) return;
    drain();  // Before reading: what is announced from now on is read again.
    auto now = std::make_shared<const output_snapshot>(reader.read(last.get()));
    if (*now != *last && changes_->push(now)) last = std::move(now);
  }
}

/// What the announcements say does not matter, nor whether some were lost.
void output_service::drain() const noexcept {
  char announced[8192];
  for (const unique_fd* fd : {&rules_fd_, &policies_fd_, &traffic_fd_}) {
    if (!*fd) continue;
    while (::recv(fd->get(), announced, sizeof announced, MSG_DONTWAIT | MSG_TRUNC) >= 0 ||
           errno == ENOBUFS || errno == EINTR)
      continue;
  }
}

}  // namespace cowire::detail
