// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/engine.hpp>
#include <cowire/async/detail/fair_queue.hpp>
#include <cowire/async/detail/frames_by_client.hpp>
#include <cowire/async/detail/intake_ports.hpp>
#include <cowire/async/detail/served_path.hpp>
#include <cowire/async/intake.hpp>
#include <cowire/base/checked_interval.hpp>
#include <cowire/base/checked_range.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/base/signals_blocked.hpp>
#include <cowire/ring/datagram_source.hpp>
#include <cowire/ring/ring_timer.hpp>

#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <future>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace cowire {
namespace {

/// The receive header, a client's address, its credentials and our header fill the headroom
/// exactly, so that the payload lands where it is sent from. Descriptors that a client passes are
/// not received: there is no room for them behind the credentials (scm_max_fds() in
/// net/core/scm.c).
constexpr std::size_t credentials_capacity = CMSG_SPACE(sizeof(ucred));
constexpr std::size_t client_name_capacity =
    payload_offset - datagram_source::header_size - credentials_capacity - sizeof(intake_header);
static_assert(client_name_capacity == intake_address_capacity + 1);
/// Datagrams submitted between two looks at what else has arrived.
constexpr std::size_t turn_datagrams = 64;
constexpr auto upkeep_interval = std::chrono::seconds(1);

constexpr datagram_source::options layout() {
  datagram_source::options out;
  out.name_capacity = client_name_capacity;
  out.control_capacity = credentials_capacity;
  return out;
}

/// The sender's address; empty without one. One that fills its room may have been cut.
std::string name_of(const datagram& d) {
  const auto from = d.source();
  const bool named = from.size() > sizeof(sa_family_t) && from.size() <= intake_address_capacity;
  return {reinterpret_cast<const char*>(from.data()), named ? from.size() : 0};
}

/// Nothing if the kernel did not say, which SO_PASSCRED excludes.
std::optional<detail::intake_peer> peer_of(const datagram& d) {
  const auto control = d.control();
  cmsghdr header;
  ucred who;
  if (control.size() < CMSG_LEN(sizeof who)) return std::nullopt;
  std::memcpy(&header, control.data(), sizeof header);
  if (header.cmsg_level != SOL_SOCKET || header.cmsg_type != SCM_CREDENTIALS ||
      header.cmsg_len < CMSG_LEN(sizeof who))
    return std::nullopt;
  std::memcpy(&who, control.data() + CMSG_LEN(0), sizeof who);
  return detail::intake_peer{who.uid, who.pid};
}

receive_memory frames_of(const frame_memory& memory, const frame_slice& slice,
                         std::shared_ptr<void> keeper) {
  receive_memory out;
  for (std::uint32_t i = 0; i < slice.count; ++i)
    out.buffers.emplace_back(memory.payload(slice.first + i) - payload_offset, memory.frame_size);
  out.keeper = std::move(keeper);
  return out;
}

auto async_acquire(const std::shared_ptr<detail::producer>& of, const detail::sender_state& by) {
  auto token = as_tuple(use_awaitable);
  return asio::async_initiate<decltype(token), sender::acquire_signature>(
      [&of, &by](auto handler) {
        of->begin_acquire(by, {std::move(handler), of->fallback()});
      },
      token);
}

auto async_flush(const std::shared_ptr<detail::producer>& of, asio::cancellation_slot slot) {
  auto token = asio::bind_cancellation_slot(slot, as_tuple(use_awaitable));
  return asio::async_initiate<decltype(token), sender::flush_signature>(
      [&of](auto handler) {
        of->begin_flush({std::move(handler), of->fallback()});
      },
      token);
}

intake_options checked(intake_options wanted) {
  check_range("client_limit", wanted.client_limit, 1, intake_options::limit_max);
  check_range("ports_per_client", wanted.ports_per_client, 1, intake_options::limit_max);
  check_range("port_limit", wanted.port_limit, 1, intake_options::limit_max);
  check_interval("port_idle", wanted.port_idle);
  return wanted;
}

/// Throws what the options' sockets are refused with; they are opened when a client needs them.
void check_sender(const sender_options& wanted) {
  std::error_code ec;
  const auto opened = detail::backing_socket::open(
      {.port = wanted.source_port,
       .v4 = wanted.source_v4,
       .v6 = wanted.source_v6,
       .device = wanted.bound_device,
       .groups = {.ttl = wanted.multicast_ttl,
                  .loop = wanted.multicast_loop,
                  .broadcast = wanted.broadcast,
                  .interface_index = ::if_nametoindex(wanted.multicast_interface.c_str())}},
      ec);
  if (ec) throw_error(ec, "UDP port " + std::to_string(wanted.source_port));
}

}  // namespace

struct intake::impl {
  struct client {
    intake_totals totals;
    std::list<std::string>::iterator age;
  };
  struct received_message {
    detail::intake_peer from;
    std::string name;
    datagram received;
  };
  /// Frames of one producer that come back while a client waits for any.
  struct returns {
    std::shared_ptr<detail::producer> of;
    bool followed = false, again = false;
    asio::cancellation_signal end{};
  };
  /// Clients without an address are told apart by their process.
  using client_key = std::pair<std::int32_t, std::string>;

  impl(std::shared_ptr<detail::engine> engine_, std::string path_, intake_options options_);
  ~impl();
  [[nodiscard]] detail::intake_ports::sender_maker sender_maker() const;

  awaitable<void> gather();
  void admit(datagram d);
  awaitable<void> serve();
  awaitable<std::size_t> take(received_message what);
  awaitable<void> refill();
  awaitable<void> upkeep();
  void flush(const std::string& name);
  void follow_returns();
  awaitable<void> follow(returns& which);
  void answer(const std::string& to, const detail::frames_by_client::flush& asked);
  void end_if_done();
  void give_up();
  void count(const std::string& name, const intake_totals& more);
  [[nodiscard]] intake_totals totals_of(const std::string& name);

  const detail::fork_mark born;
  /// Outlives the transmitter where the end takes longer (~intake()).
  const std::shared_ptr<detail::engine> engine;
  const intake_options options;
  ring_context ring;
  const std::shared_ptr<detail::producer> received, copies;
  const detail::served_path socket;
  datagram_source source;
  detail::intake_ports ports;
  detail::fair_queue<received_message, client_key> waiting;
  intake_message message;
  detail::frames_by_client frames;
  std::array<returns, 2> both;
  ring_timer tick;
  asio::cancellation_signal end_refill, end_copies;
  bool serving = false, stopping = false, given_up = false;
  std::promise<void> over;  ///< Nothing runs on the ring any more.
  std::thread thread;

  mutable std::mutex mutex;  ///< Guards what follows.
  intake_stats stats;
  std::map<std::string, client> clients;
  std::list<std::string> ages;  ///< Names, the one heard of longest ago first.
};

intake::impl::impl(std::shared_ptr<detail::engine> engine_, std::string path_,
                   intake_options options_)
    : engine(std::move(engine_)),
      options(checked(std::move(options_))),
      ring(ring_context::options{.backend = engine->config().backend}),
      received(engine->new_producer()),
      copies(engine->new_producer()),
      socket(std::move(path_), options.group),
      source(ring, socket.fd(), frames_of(engine->memory(), received->slice(), received), layout()),
      ports(sender_maker(), options, producer(received), producer(copies), engine->config().log),
      frames(
          {received->slice(), copies->slice()},
          [this](const std::string& to, const auto& asked) { answer(to, asked); },
          [this](const std::string& whose) { count(whose, {.kernel_refused = 1}); }),
      both{returns{received}, returns{copies}},
      tick(ring) {
  check_sender(options.sender);
  frame_index frame;
  while (received->take(frame)) continue;  // They are the source's now.
  for (returns& one : both) one.of->keep_ledger(&frames);
  co_spawn(ring.get_executor(), gather(), detached);
  co_spawn(ring.get_executor(), upkeep(), detached);
  co_spawn(ring.get_executor(), refill(),
           asio::bind_cancellation_slot(end_refill.slot(), detached));
  const signals_blocked during_creation;
  thread = std::thread([this] {
    ring.run();
    over.set_value();
  });
}

detail::intake_ports::sender_maker intake::impl::sender_maker() const {
  return [to = engine](const sender_options& wanted, std::error_code& ec) -> sender {
    try {
      auto state = to->make_sender(wanted, *wanted.via.state_, ec);
      return ec ? sender() : sender(wanted.via.state_, std::move(state));
    } catch (const std::system_error& failed) {
      ec = failed.code();
      return {};
    }
  };
}

intake::impl::~impl() {
  asio::post(ring.get_executor(), [this] {
    stopping = true;
    source.cancel();
    tick.cancel();
    end_refill.emit(asio::cancellation_type::terminal);
    end_if_done();
  });
  if (over.get_future().wait_for(engine->config().drain_timeout) != std::future_status::ready)
    asio::post(ring.get_executor(), [this] { give_up(); });
  thread.join();
  for (returns& one : both) one.of->keep_ledger(nullptr);
}

void intake::impl::end_if_done() {
  if (!stopping || serving || frames.anyone_waits()) return;
  for (returns& one : both) one.end.emit(asio::cancellation_type::terminal);
}

/// What waits for frames that may never come back waits no more.
void intake::impl::give_up() {
  given_up = true;
  end_copies.emit(asio::cancellation_type::terminal);
  for (returns& one : both) one.end.emit(asio::cancellation_type::terminal);
}

awaitable<void> intake::impl::gather() {
  while (!stopping) {
    auto [ec, batch] = co_await source.async_receive_some(as_tuple(use_awaitable));
    for (datagram& d : batch) admit(std::move(d));
    if (ec && ec != operation_aborted()) co_return;
  }
}

void intake::impl::admit(datagram d) {
  std::string name = name_of(d);
  const auto from = peer_of(d);
  if (!from) return count(name, {.refused = 1});
  const client_key whose{name.empty() ? from->pid : 0, name};
  waiting.push(from->uid, whose, {*from, std::move(name), std::move(d)});
  if (!std::exchange(serving, true)) co_spawn(ring.get_executor(), serve(), detached);
}

awaitable<void> intake::impl::serve() {
  std::size_t since_look = 0;
  while (!waiting.empty()) {
    since_look += 1 + co_await take(waiting.pop());
    if (since_look < turn_datagrams) continue;
    since_look = 0;
    co_await asio::post(ring.get_executor(), use_awaitable);
  }
  serving = false;
  end_if_done();
}

/// How many datagrams the message became.
awaitable<std::size_t> intake::impl::take(received_message what) {
  datagram& d = what.received;
  const auto bytes = d.payload();
  const auto header = bytes.first(std::min(bytes.size(), sizeof(intake_header)));
  std::error_code ec;
  if (d.truncated()) ec = error::too_long;
  if (!ec) parse_intake(header, bytes.subspan(header.size()), message, ec);
  if (ec) {
    count(what.name, {.refused = 1});
    co_return 0;
  }
  if (message.type == intake_type::flush) {
    flush(what.name);
    co_return 0;
  }
  const std::size_t wanted = message.destinations.size();
  const auto through = given_up ? nullptr : ports.use(what.from, message.source_port);
  if (!through) {
    count(what.name, {.messages = 1, .failed = wanted});
    co_return 0;
  }
  frames.take_turn(what.name);
  std::size_t sent = 0;
  if (wanted > 1) {
    const auto all_but_last = std::span<const endpoint>(message.destinations).first(wanted - 1);
    const auto [failed, copied] = co_await through->copies.async_send(
        message.payload, all_but_last,
        asio::bind_cancellation_slot(end_copies.slot(), as_tuple(use_awaitable)));
    sent = copied;
  }
  const std::size_t size = message.payload.size();
  const frame_index frame = received->slice().first + d.release_buffer();
  through->received.send(received->lease(frame, size), message.destinations.back(), ec);
  if (!ec) {
    frames.note_submitted(frame);
    ++sent;
  }
  count(what.name, {.messages = 1, .submitted = sent, .failed = wanted - sent});
  co_return sent;
}

/// Frames that come back are received into again.
awaitable<void> intake::impl::refill() {
  const detail::sender_state whoever;
  for (;;) {
    auto [ec, free] = co_await async_acquire(received, whoever);
    if (ec) co_return;
    for (; free; free = received->try_acquire(whoever))
      source.provide(
          static_cast<std::uint16_t>(received->detach(std::move(free)) - received->slice().first));
  }
}

awaitable<void> intake::impl::upkeep() {
  while (!stopping) {
    tick.expires_after(upkeep_interval);
    const auto [ec] = co_await tick.async_wait(as_tuple(use_awaitable));
    if (ec) co_return;
    ports.close_idle();
    // What was sent from ports closed before may be out by now, and nobody else asks.
    received->settle();
    copies->settle();
    const std::lock_guard lock(mutex);
    stats.ports = ports.size();
  }
}

void intake::impl::flush(const std::string& name) {
  if (name.empty() || given_up) return;
  const bool all_totals = message.source_port == intake_all_totals;
  if (!frames.ask(name, {message.token, totals_of(name), all_totals}))
    return count(name, {.refused = 1});
  if (frames.anyone_waits()) follow_returns();
}

/// Nobody else may be there to take home what comes back.
void intake::impl::follow_returns() {
  for (returns& one : both) {
    one.again = true;
    if (!std::exchange(one.followed, true)) co_spawn(ring.get_executor(), follow(one), detached);
  }
}

/// Until all that was on the way when a client last asked is back.
awaitable<void> intake::impl::follow(returns& which) {
  while (std::exchange(which.again, false) && frames.anyone_waits() && !given_up)
    co_await async_flush(which.of, which.end.slot());
  which.followed = false;
}

void intake::impl::answer(const std::string& to, const detail::frames_by_client::flush& asked) {
  intake_reply reply;
  reply.header.type = intake_type::reply;
  reply.header.token = asked.token;
  reply.totals = asked.totals;
  const auto* address = reinterpret_cast<const sockaddr*>(to.data());
  const std::size_t size = asked.all_totals ? sizeof reply : intake_short_reply_size;
  if (::sendto(socket.fd(), &reply, size, MSG_DONTWAIT | MSG_NOSIGNAL, address,
               static_cast<socklen_t>(to.size())) < 0) {
    const std::lock_guard lock(mutex);
    ++stats.replies_lost;
  }
  // Not here: frames are on their way into the pool.
  if (stopping) asio::post(ring.get_executor(), [this] { end_if_done(); });
}

void intake::impl::count(const std::string& name, const intake_totals& more) {
  const auto add = [&](intake_totals& to) {
    to.messages += more.messages;
    to.submitted += more.submitted;
    to.failed += more.failed;
    to.refused += more.refused;
    to.kernel_refused += more.kernel_refused;
  };
  const std::lock_guard lock(mutex);
  stats.ports = ports.size();
  add(stats.totals);
  if (name.empty()) return;
  auto [entry, is_new] = clients.try_emplace(name);
  if (is_new)
    entry->second.age = ages.insert(ages.end(), name);
  else
    ages.splice(ages.end(), ages, entry->second.age);
  add(entry->second.totals);
  if (clients.size() > options.client_limit) {
    clients.erase(ages.front());
    ages.pop_front();
  }
  stats.clients = clients.size();
}

intake_totals intake::impl::totals_of(const std::string& name) {
  const std::lock_guard lock(mutex);
  const auto found = clients.find(name);
  return found == clients.end() ? intake_totals{} : found->second.totals;
}

intake::intake(transmitter& tx, std::string path, intake_options options)
    : impl_(std::make_unique<impl>(tx.engine_, std::move(path), std::move(options))) {}

intake::~intake() {
  if (impl_->born.inherited()) {
    detail::leave_behind(std::move(impl_));
    return;
  }
  if (!impl_->engine->in_control_thread()) return;
  // Its thread may be waiting for this one, for a sender that a client needs.
  impl* const last = impl_.release();
  const signals_blocked during_creation;
  try {
    std::thread([last] { delete last; }).detach();
  } catch (const std::system_error&) {
    // It goes on serving: better than to wait for ever.
    detail::leave_behind(std::shared_ptr<impl>(last));
  }
}

intake_stats intake::stats() const {
  if (impl_->born.inherited()) throw_error(make_error_code(error::forked), "intake");
  const std::lock_guard lock(impl_->mutex);
  return impl_->stats;
}

const std::string& intake::path() const noexcept { return impl_->socket.path(); }

}  // namespace cowire
