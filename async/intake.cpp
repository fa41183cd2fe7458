// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/engine.hpp>
#include <cowire/async/intake.hpp>
#include <cowire/base/assert.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/ring/datagram_source.hpp>
#include <cowire/ring/detail/signals_blocked.hpp>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace cowire {
namespace {

/// The receive header, a client's address and our header fill the headroom exactly, so that the
/// payload lands where it is sent from.
constexpr std::size_t client_name_capacity =
    payload_offset - datagram_source::header_size - sizeof(intake_header);
static_assert(client_name_capacity == 80);
constexpr std::size_t port_limit = 1024;

constexpr datagram_source::options layout() {
  datagram_source::options out;
  out.name_capacity = client_name_capacity;
  return out;
}

bool is_stale(const sockaddr_un& address) {
  const unique_fd probe(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto* to = reinterpret_cast<const sockaddr*>(&address);
  return probe && ::connect(probe.get(), to, sizeof address) != 0 && errno == ECONNREFUSED;
}

unique_fd serve_path(const std::string& path) {
  const std::string what = "intake socket " + path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    throw_error(error::invalid_argument, what + ": the path must have 1 to " +
                                             std::to_string(sizeof address.sun_path - 1) +
                                             " bytes");
  std::memcpy(address.sun_path, path.data(), path.size());
  unique_fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw_error(errno_code(errno), what);
  ::fchmod(fd.get(), 0660);  // The file never has more than this, and less by the umask ...
  const auto bind = [&] {
    return ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  };
  if (!bind()) {
    if (errno != EADDRINUSE) throw_error(errno_code(errno), what);
    if (!is_stale(address))
      throw_error(errno_code(EADDRINUSE), what + " is served by another process");
    ::unlink(path.c_str());
    if (!bind()) throw_error(errno_code(errno), what);
  }
  ::chmod(path.c_str(), 0660);  // ... which is not asked.
  return fd;
}

receive_memory frames_of(const frame_memory& memory, const frame_slice& slice,
                         std::shared_ptr<void> keeper) {
  receive_memory out;
  for (std::uint32_t i = 0; i < slice.count; ++i)
    out.buffers.emplace_back(memory.payload(slice.first + i) - payload_offset, memory.frame_size);
  out.keeper = std::move(keeper);
  return out;
}

}  // namespace

struct intake::impl {
  /// Frames that the kernel receives into belong to one producer, copies for a fan-out to another:
  /// with a single pool a server that waits for messages would hold every frame a copy needs.
  struct port_senders {
    sender received, copies;
  };
  struct client {
    intake_totals totals;
    std::list<std::string>::iterator age;
  };

  impl(transmitter& tx_, std::string path_, intake_options options_);
  ~impl();

  awaitable<void> serve();
  awaitable<void> take(datagram d);
  awaitable<void> refill();
  awaitable<void> answer(std::string to, std::uint64_t token, intake_totals totals);
  [[nodiscard]] port_senders* senders_for(std::uint16_t port);
  void count(const std::string& name, const intake_totals& more);
  [[nodiscard]] intake_totals totals_of(const std::string& name);

  const detail::fork_mark born;
  transmitter& tx;
  const std::string path;
  const intake_options options;
  ring_context ring;
  const std::shared_ptr<detail::producer> received, copies;
  const producer received_handle, copies_handle;
  const detail::parents_fd fd;
  datagram_source source;
  std::map<std::uint16_t, port_senders> ports;
  intake_message message;
  asio::cancellation_signal end_refill;
  bool stopping = false;
  std::thread thread;

  mutable std::mutex mutex;  ///< Guards what follows.
  intake_stats stats;
  std::map<std::string, client> clients;
  std::list<std::string> ages;  ///< Names, the one heard of longest ago first.
};

intake::impl::impl(transmitter& tx_, std::string path_, intake_options options_)
    : tx(tx_),
      path(std::move(path_)),
      options(std::move(options_)),
      ring(ring_context::options{.backend = tx.engine_->config().backend}),
      received(tx.engine_->new_producer()),
      copies(tx.engine_->new_producer()),
      received_handle(received),
      copies_handle(copies),
      fd(serve_path(path)),
      source(ring, fd.get(), frames_of(tx.engine_->memory(), received->slice(), received),
             layout()) {
  frame_index frame;
  while (received->take(frame)) continue;  // They are the source's now.
  if (!senders_for(options.sender.source_port))
    throw_error(error::port_in_use, "UDP port " + std::to_string(options.sender.source_port));
  co_spawn(ring.get_executor(), serve(), detached);
  co_spawn(ring.get_executor(), refill(),
           asio::bind_cancellation_slot(end_refill.slot(), detached));
  const detail::signals_blocked during_creation;
  thread = std::thread([this] { ring.run(); });
}

intake::impl::~impl() {
  asio::post(ring.get_executor(), [this] {
    stopping = true;
    source.cancel();
    end_refill.emit(asio::cancellation_type::terminal);
  });
  thread.join();
  ::unlink(path.c_str());
}

awaitable<void> intake::impl::serve() {
  while (!stopping) {
    auto [ec, batch] = co_await source.async_receive_some(as_tuple(use_awaitable));
    for (datagram& d : batch) co_await take(std::move(d));
    if (ec && ec != operation_aborted()) co_return;
  }
}

awaitable<void> intake::impl::take(datagram d) {
  // An address that fills its room may have been cut: such a client cannot be answered.
  const auto from = d.source();
  const bool named = from.size() > sizeof(sa_family_t) && from.size() < client_name_capacity;
  const std::string name(reinterpret_cast<const char*>(from.data()), named ? from.size() : 0);
  const auto bytes = d.payload();
  const auto header = bytes.first(std::min(bytes.size(), sizeof(intake_header)));
  std::error_code ec;
  if (d.truncated()) ec = error::too_long;
  if (!ec) parse_intake(header, bytes.subspan(header.size()), message, ec);
  if (ec) {
    count(name, {.refused = 1});
    co_return;
  }
  if (message.type == intake_type::flush) {
    if (named)
      co_spawn(ring.get_executor(), answer(name, message.token, totals_of(name)), detached);
    co_return;
  }
  const std::size_t wanted = message.destinations.size();
  port_senders* through = senders_for(message.source_port);
  if (!through) {
    count(name, {.messages = 1, .failed = wanted});
    co_return;
  }
  std::size_t sent = 0;
  if (wanted > 1) {
    const auto all_but_last = std::span<const endpoint>(message.destinations).first(wanted - 1);
    const auto [failed, copied] =
        co_await through->copies.async_send(message.payload, all_but_last, as_tuple(use_awaitable));
    sent = copied;
  }
  const std::size_t size = message.payload.size();
  const frame_index frame = received->slice().first + d.release_buffer();
  through->received.send(received->lease(frame, size), message.destinations.back(), ec);
  if (!ec) ++sent;
  count(name, {.messages = 1, .submitted = sent, .failed = wanted - sent});
}

awaitable<void> intake::impl::refill() {
  sender& any = senders_for(options.sender.source_port)->received;
  for (;;) {
    auto [ec, free] = co_await any.async_acquire(as_tuple(use_awaitable));
    if (ec) co_return;
    for (; free; free = any.try_acquire())
      source.provide(
          static_cast<std::uint16_t>(received->detach(std::move(free)) - received->slice().first));
  }
}

awaitable<void> intake::impl::answer(std::string to, std::uint64_t token, intake_totals totals) {
  port_senders& any = *senders_for(options.sender.source_port);
  co_await any.received.async_flush(as_tuple(use_awaitable));
  co_await any.copies.async_flush(as_tuple(use_awaitable));
  intake_reply reply;
  reply.header.type = intake_type::reply;
  reply.header.token = token;
  reply.totals = totals;
  const auto* address = reinterpret_cast<const sockaddr*>(to.data());
  if (::sendto(fd.get(), &reply, sizeof reply, MSG_DONTWAIT | MSG_NOSIGNAL, address,
               static_cast<socklen_t>(to.size())) < 0) {
    const std::lock_guard lock(mutex);
    ++stats.replies_lost;
  }
}

intake::impl::port_senders* intake::impl::senders_for(std::uint16_t port) {
  if (port == 0) port = options.sender.source_port;
  if (const auto known = ports.find(port); known != ports.end()) return &known->second;
  if (ports.size() == port_limit) return nullptr;
  sender_options wanted = options.sender;
  wanted.source_port = port;
  wanted.when_full = full_policy::wait;  // Back-pressure reaches the clients by their own socket.
  std::error_code ec;
  port_senders made;
  wanted.via = received_handle;
  made.received = tx.make_sender(wanted, ec);
  if (ec) return nullptr;
  wanted.via = copies_handle;
  made.copies = tx.make_sender(wanted, ec);
  if (ec) return nullptr;
  return &ports.emplace(port, std::move(made)).first->second;
}

void intake::impl::count(const std::string& name, const intake_totals& more) {
  const auto add = [&](intake_totals& to) {
    to.messages += more.messages;
    to.submitted += more.submitted;
    to.failed += more.failed;
    to.refused += more.refused;
  };
  const std::lock_guard lock(mutex);
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
    : impl_(std::make_unique<impl>(tx, std::move(path), std::move(options))) {}
intake::~intake() {
  if (impl_->born.inherited()) detail::leave_behind(std::move(impl_));
}

intake_stats intake::stats() const {
  if (impl_->born.inherited()) throw_error(make_error_code(error::forked), "intake");
  const std::lock_guard lock(impl_->mutex);
  return impl_->stats;
}

const std::string& intake::path() const noexcept { return impl_->path; }

}  // namespace cowire
