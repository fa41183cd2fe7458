// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/port_state.hpp>
#include <cowire/base/assert.hpp>
#include <cowire/base/socket_address.hpp>

#include <linux/in6.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace cowire::detail {
namespace {

/// What UDP can carry, and what the kernel merges at most (skb_gro_receive() in net/core/gro.c).
constexpr std::size_t merged_capacity = 65535;
/// Time, drops, GRO, packet information and traffic class of both families take some 200 bytes; an
/// adopted socket may have been told to say more.
constexpr std::size_t control_capacity = 256, adopted_control_capacity = 512;

/// Arrivals that were handed out are forgotten as soon as there are none left, or so many.
constexpr std::size_t compact_from = 64;

datagram_source::options source_options(const port_options& wanted, bool adopted) {
  datagram_source::options out;
  out.buffer_count = wanted.buffer_count;
  out.payload_capacity =
      wanted.gro ? merged_capacity : std::min(wanted.payload_capacity, merged_capacity);
  out.name_capacity = (sizeof(sockaddr_in6) + 7) / 8 * 8;
  out.control_capacity = adopted ? adopted_control_capacity : control_capacity;
  return out;
}

/// What ICMP tells of datagrams that were sent (icmp_err_convert in net/ipv4/icmp.c,
/// tab_unreach in net/ipv6/icmp.c) stands in the socket's error queue as well, which the kernel
/// path reads.
bool is_about_sending(const std::error_code& ec) noexcept {
  constexpr int numbers[] = {ENETUNREACH, EHOSTUNREACH, ENOPROTOOPT, ECONNREFUSED, EMSGSIZE, ENONET,
                             EOPNOTSUPP,  EHOSTDOWN,    EPROTO,      EACCES,       EINTR};
  return ec.category() == std::system_category() &&
         std::ranges::find(numbers, ec.value()) != std::end(numbers);
}

/// The value of a control message, unless it is shorter.
template <class Value>
bool read(const cmsghdr& message, Value& value) noexcept {
  if (message.cmsg_len < CMSG_LEN(sizeof value)) return false;
  std::memcpy(&value, CMSG_DATA(&message), sizeof value);
  return true;
}

void read_packet_information(const cmsghdr& message, arrival_facts& to) noexcept {
  if (message.cmsg_level == IPPROTO_IP) {
    in_pktinfo info;
    if (!read(message, info)) return;
    to.destination = ip_address::from_bytes(ip_family::v4, &info.ipi_addr);
    to.interface_index = static_cast<std::uint32_t>(info.ipi_ifindex);
  } else {
    in6_pktinfo info;
    if (!read(message, info)) return;
    to.destination = ip_address::from_bytes(ip_family::v6, &info.ipi6_addr).unmapped();
    to.interface_index = info.ipi6_ifindex;
  }
}

void read_message(const cmsghdr& message, arrival_facts& to, std::size_t& segment_size) noexcept {
  const int type = message.cmsg_type;
  switch (message.cmsg_level) {
    case SOL_SOCKET: {
      timespec time{};
      if (type == SO_RXQ_OVFL) static_cast<void>(read(message, to.dropped_before));
      if (type == SCM_TIMESTAMPNS && read(message, time))
        to.time = std::chrono::sys_time<std::chrono::nanoseconds>(
            std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
      return;
    }
    case IPPROTO_IP:
      if (type == IP_PKTINFO) read_packet_information(message, to);
      if (type == IP_TOS) static_cast<void>(read(message, to.traffic_class));  // One byte.
      return;
    case IPPROTO_IPV6: {
      int traffic_class = 0;
      if (type == IPV6_PKTINFO) read_packet_information(message, to);
      if (type == IPV6_TCLASS && read(message, traffic_class))
        to.traffic_class = static_cast<std::uint8_t>(traffic_class);
      return;
    }
    case IPPROTO_UDP: {
      int size = 0;
      if (type == UDP_GRO && read(message, size) && size > 0)
        segment_size = static_cast<std::size_t>(size);
      return;
    }
    default:
      return;
  }
}

}  // namespace

arrival_facts facts_of(const datagram& from, std::size_t& segment_size) noexcept {
  arrival_facts out;
  segment_size = 0;
  const auto name = from.source();
  sockaddr_storage address{};
  std::memcpy(&address, name.data(), std::min(name.size(), sizeof address));
  if (const auto source = to_endpoint(reinterpret_cast<const sockaddr*>(&address),
                                      static_cast<socklen_t>(name.size())))
    out.source = source->canonical();
  out.truncated = from.truncated();
  const auto control = from.control();
  msghdr view{};
  view.msg_control = const_cast<std::byte*>(control.data());
  view.msg_controllen = control.size();
  for (cmsghdr* c = CMSG_FIRSTHDR(&view); c; c = CMSG_NXTHDR(&view, c))
    read_message(*c, out, segment_size);
  return out;
}

port_state::port_state(ring_context& ring, std::shared_ptr<backing_socket> socket,
                       const port_options& options)
    : ring_(ring), socket_(std::move(socket)) {
  const bool single = socket_->adopted() && socket_->fd(ip_family::v4) >= 0;
  const auto layout = source_options(options, socket_->adopted());
  for (const auto family : ip_families) {
    const int fd = socket_->fd(family);
    if (fd < 0 || (single && family == ip_family::v6)) continue;
    channel& made = channels_[static_cast<std::size_t>(family)];
    made.owner = this;
    made.source = std::make_shared<shared_source>(ring, fd, layout, socket_);
    made.first_drops = made.last_drops = made.source->socket_drops();
  }
  if (const auto ec = socket_->begin_receiving(options.gro, options.socket_buffer))
    throw_error(ec,
                "receiving on UDP port " + std::to_string(socket_->port()) +
                    (ec == error::port_in_use ? " (another port of this transmitter does)" : ""));
}

port_state::~port_state() {
  for (channel& one : channels_)
    if (one.source && born_.inherited()) leave_behind(std::move(one.source));
}

// ---- receives ----------------------------------------------------------------------------------

void port_state::begin(single_receive done) {
  if (born_.inherited()) return done.refuse_in_child(error::forked, received_datagram{});
  waiter next;
  next.single = std::move(done);
  begin(std::move(next));
}

void port_state::begin(std::span<received_datagram> into, several_receive done) {
  if (born_.inherited()) return done.refuse_in_child(error::forked, 0);
  for (received_datagram& old : into) old = {};
  if (into.empty()) return done.complete({}, 0);
  waiter next;
  next.several = std::move(done);
  next.into = into;
  begin(std::move(next));
}

void port_state::begin(waiter next) {
  served now;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) {
      now.ec = error::closed;
      now.whom = std::move(next);
    } else if (anything() && waiters_.empty()) {  // Else take() is about to serve those before.
      now.whom = std::move(next);
      serve(now);
    } else {
      wait(std::move(next));
      return listen();
    }
  }
  now.complete();
}

void port_state::wait(waiter next) {
  next.ticket = ++ticket_;
  const auto begin = [&](auto& completion) {
    if (completion.begin_wait_on_fallback(weak_from_this(), next.ticket)) return;
    next.busy.emplace(
        asio::prefer(ring_.get_executor(), asio::execution::outstanding_work.tracked));
    completion.begin_wait(weak_from_this(), next.ticket);
  };
  if (next.single.armed())
    begin(next.single);
  else
    begin(next.several);
  waiters_.push_back(std::move(next));
}

void port_state::waiters::push_back(waiter&& next) {
  if (empty())
    first_ = std::move(next);
  else
    more_.push_back(std::move(next));
}

port_state::waiter port_state::waiters::pop_front() {
  waiter out = std::exchange(first_, {});
  if (more_.empty()) return out;
  first_ = std::move(more_.front());
  more_.pop_front();
  return out;
}

port_state::waiter port_state::waiters::remove(std::uint64_t ticket) {
  if (empty()) return {};
  if (first_.ticket == ticket) return pop_front();
  const auto found = std::ranges::find(more_, ticket, &waiter::ticket);
  if (found == more_.end()) return {};
  waiter out = std::move(*found);
  more_.erase(found);
  return out;
}

void port_state::served::complete() {
  if (whom.single.armed())
    whom.single.complete(ec, std::move(got));
  else
    whom.several.complete(ec, count);
}

void port_state::listen() {
  for (channel& one : channels_) {
    if (!one.source || one.listening) continue;
    one.listening = true;
    one.source->deliver_to(std::shared_ptr<datagram_sink>(shared_from_this(), &one));
  }
}

void port_state::cancel(std::uint64_t ticket) {
  if (born_.inherited()) return;
  waiter gone;
  {
    const std::lock_guard lock(mutex_);
    gone = waiters_.remove(ticket);
  }
  if (gone.armed()) gone.fail(operation_aborted());
}

void port_state::context_gone(std::uint64_t ticket) {
  if (born_.inherited()) return;
  waiter gone;
  const std::lock_guard lock(mutex_);
  gone = waiters_.remove(ticket);
}

void port_state::fail_all(const std::error_code& ec) {
  if (born_.inherited()) return;
  waiters all;
  {
    const std::lock_guard lock(mutex_);
    all = std::exchange(waiters_, {});
  }
  while (!all.empty())
    if (waiter one = all.pop_front(); one.armed()) one.fail(ec);
}

void port_state::ring_gone() noexcept {
  waiters all;
  std::vector<arrival> dropped;
  // Destroyed outside of it: a handler may own the port.
  const std::lock_guard lock(mutex_);
  all = std::exchange(waiters_, {});
  dropped.swap(arrivals_);
  first_ = 0;
}

void port_state::close() noexcept {
  if (born_.inherited()) return;
  std::vector<arrival> dropped;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    read_counters();  // Nobody can later.
    closed_ = true;
    dropped.swap(arrivals_);
    first_ = 0;
    for (channel& one : channels_)
      if (const auto source = std::move(one.source)) source->close();
    socket_->end_receiving();
  }
  fail_all(error::closed);
}

// ---- datagrams ---------------------------------------------------------------------------------

bool port_state::take(channel& from, source_entry& arrived) noexcept {
  if (arrived.ec && is_about_sending(arrived.ec)) return true;
  arrival next = describe(from, arrived);
  waiter whom;
  bool go_on = true;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return false;
    count(next);
    // An error is one waiter's: for the next ones it is tried again.
    const bool at_once = !anything() && next.segment_size == 0 && waiters_.front().single.armed();
    if (!at_once) {
      from.listening = !next.ec || !waiters_.empty();
      keep(std::move(next));
      return from.listening;
    }
    whom = waiters_.pop_front();
    go_on = from.listening = !next.ec || !waiters_.empty();
  }
  received_datagram got(std::move(next.lease), next.facts);
  if (!whom.single.try_complete(next.ec, got)) {
    // Its context has just gone: the next one's.
    next.lease = std::move(got.lease_);
    const std::lock_guard lock(mutex_);
    if (closed_) return false;
    keep(std::move(next));
  }
  return go_on;
}

/// Ring thread: gives those that wait what has arrived.
void port_state::serve_all() {
  for (;;) {
    served now;
    {
      const std::lock_guard lock(mutex_);
      if (closed_ || waiters_.empty() || !anything()) return;
      now.whom = waiters_.pop_front();
      if (!now.whom.armed()) continue;  // Went with its context.
      serve(now);
    }
    now.complete();
  }
}

port_state::arrival port_state::describe(const channel& from, source_entry& entry) noexcept {
  arrival next;
  next.ec = entry.ec;
  if (entry.ec) return next;
  next.facts = facts_of(entry.received, next.segment_size);
  // Not said where there was none; less than at first of what was queued before there was a port.
  const std::uint32_t drops = next.facts.dropped_before - from.first_drops;
  next.facts.dropped_before = static_cast<std::int32_t>(drops) < 0 ? 0 : drops;
  if (next.segment_size >= entry.received.payload().size()) next.segment_size = 0;
  next.lease = std::move(entry.received);
  return next;
}

void port_state::count(const arrival& what) noexcept {
  if (what.ec) return;
  const std::size_t size = what.lease.payload().size();
  const std::size_t datagrams =
      what.segment_size == 0 ? 1 : (size + what.segment_size - 1) / what.segment_size;
  stats_.received += datagrams;
  stats_.merged += datagrams > 1;
  stats_.truncated += what.facts.truncated;
}

void port_state::keep(arrival&& what) {
  if (first_ >= compact_from && first_ * 2 >= arrivals_.size()) {
    arrivals_.erase(arrivals_.begin(), arrivals_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
  arrivals_.push_back(std::move(what));
  if (!waiters_.empty() && !serve_.queued()) serve_.post(loop_of(ring_), shared_from_this());
}

received_datagram port_state::next_datagram() {
  arrival& from = arrivals_[first_];
  const std::size_t left = from.lease.payload().size() - from.offset;
  if (from.segment_size == 0 || left <= from.segment_size) {
    auto last = from.offset == 0 ? std::move(from.lease) : from.lease.part(from.offset, left);
    from.lease = {};
    ++first_;
    return {std::move(last), from.facts};
  }
  received_datagram out(from.lease.part(from.offset, from.segment_size), from.facts);
  from.offset += from.segment_size;
  return out;
}

void port_state::serve(served& out) {
  if (arrivals_[first_].ec) {
    out.ec = arrivals_[first_++].ec;
  } else if (out.whom.single.armed()) {
    out.got = next_datagram();
  } else {
    while (out.count < out.whom.into.size() && anything() && !arrivals_[first_].ec)
      out.whom.into[out.count++] = next_datagram();
  }
  if (anything()) return;
  arrivals_.clear();
  first_ = 0;
}

void port_state::read_counters() const noexcept {
  std::uint64_t starved = 0;
  for (const channel& one : channels_) {
    if (!one.source) continue;
    const std::uint32_t drops = one.source->socket_drops();
    stats_.dropped += drops - std::exchange(one.last_drops, drops);  // Wraps around.
    starved += one.source->starved();
  }
  stats_.starved = starved;
}

port_stats port_state::stats() const {
  if (born_.inherited()) return {};
  const std::lock_guard lock(mutex_);
  if (!closed_) read_counters();
  return stats_;
}

}  // namespace cowire::detail
