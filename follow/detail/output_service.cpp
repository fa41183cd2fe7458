// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/base/signals_blocked.hpp>
#include <cowire/follow/detail/output_reader.hpp>
#include <cowire/follow/detail/output_service.hpp>
#include <cowire/netlink/nft_codec.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/netlink/tc_codec.hpp>
#include <cowire/netlink/xfrm_codec.hpp>

#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>

namespace cowire::detail {
namespace {

/// How long what announces nothing may go unnoticed.
constexpr int poll_period_ms = 1000;
/// Snapshots that nobody has taken yet; when full the newest is offered again.
constexpr std::size_t changes_ahead = 8;

/// Empty where the kernel refuses: then the poll alone notices.
unique_fd listen_to(int protocol, int group) {
  constexpr int room = 1 << 20;
  unique_fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
  sockaddr_nl any{};
  any.nl_family = AF_NETLINK;
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
      ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
    return {};
  static_cast<void>(::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room));
  return fd;
}

/// What the announcements say does not matter, nor whether some were lost.
void drain(const unique_fd& fd) noexcept {
  char announced[8192];
  while (fd && (::recv(fd.get(), announced, sizeof announced, MSG_DONTWAIT | MSG_TRUNC) >= 0 ||
                errno == ENOBUFS || errno == EINTR))
    continue;
}

}  // namespace

output_service::output_service(ring_context& ring, const output_layers& obeyed)
    : obeyed_(obeyed),
      new_group_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      rules_fd_(obeyed.netfilter ? listen_to(NETLINK_NETFILTER, netlink::nft::notification_group)
                                 : unique_fd()),
      policies_fd_(obeyed.ipsec ? listen_to(NETLINK_XFRM, netlink::xfrm_policy_group)
                                : unique_fd()),
      traffic_fd_(obeyed.traffic_control ? listen_to(NETLINK_ROUTE, netlink::tc_group)
                                         : unique_fd()),
      changes_(std::make_shared<event_queue<change>>(ring.get_executor(), changes_ahead)),
      buffer_(netlink::datagram_size_max) {
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
  stop_event_.set();
  changes_->close();
}

socket_groups::membership output_service::look_at_group_of(int fd) {
  if (!obeyed_.control_groups) return nullptr;
  const auto id = control_group_of(fd);
  if (!id) return nullptr;
  auto [held, is_new] = groups_.join(*id);
  const std::uint64_t one = 1;
  // Where it cannot be told it is looked for once a second.
  if (is_new) static_cast<void>(::write(new_group_.get(), &one, sizeof one));
  return held;
}

void output_service::run() {
  output_reader reader(obeyed_);
  snapshot last = std::make_shared<output_snapshot>(reader.read());
  ipsec_ = last->ipsec;
  first_read_.set_value(last);
  clock::time_point all_read_at{};
  while (!stopping_.load(std::memory_order_acquire)) {  // Pairs with the exchange in stop().
    pollfd waiting[] = {{stop_event_.fd(), POLLIN, 0},
                        {rules_fd_.get(), POLLIN, 0},
                        {policies_fd_.get(), POLLIN, 0},
                        {traffic_fd_.get(), POLLIN, 0},
                        {new_group_.get(), POLLIN, 0}};
    const int ready = ::poll(waiting, std::size(waiting), poll_period_ms);
    if (stopping_.load(std::memory_order_acquire)) return;
    news what;
    what.heard_at = clock::now();
    // Before reading: what is announced from now on is read again.
    hear(rules_fd_, rules_follower_);
    hear(policies_fd_, policies_follower_);
    drain(traffic_fd_);
    what.policies = waiting[2].revents != 0;
    what.traffic = waiting[3].revents != 0;
    std::uint64_t groups = 0;
    const bool other_groups = ::read(new_group_.get(), &groups, sizeof groups) == sizeof groups;
    reader.look_at_groups(groups_.ids());
    what.all = ready == 0 || other_groups ||
               what.heard_at - all_read_at >= std::chrono::milliseconds(poll_period_ms);
    auto now = next_after(last, reader, what);
    if (what.all) all_read_at = clock::now();
    if (now != last && *now != *last && changes_->push({now, what.heard_at})) last = std::move(now);
  }
}

void output_service::divert_while_read(snapshot& last, clock::time_point heard_at) {
  if (last->netfilter.rules_unreadable) return;
  auto meanwhile = std::make_shared<output_snapshot>(*last);
  meanwhile->netfilter.rules_unreadable = "it was replaced just now, and is being read";
  if (changes_->push({meanwhile, heard_at})) last = std::move(meanwhile);
}

output_service::snapshot output_service::next_after(snapshot& last, output_reader& reader,
                                                    const news& what) {
  using outcome = netlink::nft::follower::outcome;
  shared_ruleset rules = last->netfilter.rules;
  const auto followed = follow_rules(rules);
  const bool known = !last->netfilter.rules_unreadable && followed != outcome::must_be_read;
  const auto divert = [&] { divert_while_read(last, what.heard_at); };
  if (followed == outcome::must_be_read) divert();
  if (obeyed_.ipsec && (what.policies || what.all)) follow_policies(reader);
  const bool silent = !what.all && !what.policies && !what.traffic;
  if (silent && known && followed == outcome::unchanged) return last;
  auto next = std::make_shared<output_snapshot>(*last);
  next->ipsec = ipsec_;
  if (known) next->netfilter.rules = std::move(rules);
  if (what.all || !known) {
    do {
      *next = reader.read(next.get(), divert);
      ipsec_ = next->ipsec;
    } while (was_replaced_meanwhile(*next, reader, divert));
    return next;
  }
  // A rule may have connections tracked, or be the last that does.
  if (followed == outcome::rules) {
    next->netfilter.hooks.reset();
    reader.read_hooks(next->netfilter);
  }
  if (what.traffic) reader.read_devices(*next);
  return next;
}

netlink::nft::follower::outcome output_service::follow_rules(shared_ruleset& rules) {
  using outcome = netlink::nft::follower::outcome;
  if (!rules_follower_.has_ended()) return outcome::unchanged;
  netlink::nft::ruleset now = *rules;
  const auto followed = rules_follower_.follow(now);
  if (followed != outcome::unchanged && followed != outcome::must_be_read) rules = std::move(now);
  return followed;
}

bool output_service::was_replaced_meanwhile(output_snapshot& read, output_reader& reader,
                                            const std::function<void()>& divert) {
  using outcome = netlink::nft::follower::outcome;
  hear(rules_fd_, rules_follower_);
  const auto followed = follow_rules(read.netfilter.rules);
  if (followed == outcome::unchanged) return false;
  if (followed == outcome::must_be_read || read.netfilter.rules_unreadable) {
    divert();
    return !stopping_.load(std::memory_order_acquire);  // Pairs with the exchange in stop().
  }
  if (followed == outcome::rules) {
    read.netfilter.hooks.reset();
    reader.read_hooks(read.netfilter);
  }
  return false;
}

void output_service::follow_policies(output_reader& reader) {
  if (!policies_follower_.follow(ipsec_.policies) || !policies_fd_)
    return reader.read_ipsec(ipsec_);
  pollfd more{policies_fd_.get(), POLLIN, 0};
  reader.refresh_ipsec(ipsec_, ::poll(&more, 1, 0) == 1);
}

/// Whether some were lost does not matter but to the follower.
template <class Follower>
void output_service::hear(const unique_fd& fd, Follower& to) {
  if (!fd) return;
  for (;;) {
    const auto size = ::recv(fd.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT | MSG_TRUNC);
    if (size >= 0 && static_cast<std::size_t>(size) <= buffer_.size())
      to.on_datagram(std::span(buffer_).first(static_cast<std::size_t>(size)));
    else if (size >= 0 || errno == ENOBUFS)
      to.on_loss();
    else if (errno != EINTR)
      return;
  }
}

}  // namespace cowire::detail
