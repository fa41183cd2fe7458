// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/backing_socket.hpp>
#include <cowire/async/intake.hpp>

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace cowire {
namespace {

using clock = std::chrono::steady_clock;

constexpr ssize_t name_bytes = 8;

std::string remedy(int number, const std::string& path) {
  const std::string what = "intake socket " + path;
  if (number == ENOENT) return what + ": no such path; is `cowire run --intake` running?";
  if (number == ECONNREFUSED)
    return what + ": nobody serves it any more; start `cowire run --intake`";
  if (number == EACCES) return what + ": no permission to write to it";
  return what;
}

/// Copies to `at`; where the next piece goes.
std::byte* put(std::byte* at, const void* from, std::size_t size) {
  if (size != 0) std::memcpy(at, from, size);
  return at + size;
}

/// An abstract name of 64 random bits, the address that flush is answered to. The kernel's own
/// choice has 20 bits: the name of a client that has gone, and its totals, soon come again.
sockaddr_un random_name() {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (::getrandom(name.sun_path + 1, name_bytes, 0) != name_bytes)
    throw_error(errno_code(errno), "intake client: getrandom");
  return name;
}

}  // namespace

intake_client::intake_client(const std::string& path)
    : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  if (!fd_) throw_error(errno_code(errno), "intake client: socket");
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof to.sun_path)
    throw_error(error::invalid_argument, "intake socket path must have 1 to " +
                                             std::to_string(sizeof to.sun_path - 1) +
                                             " bytes: " + path);
  std::memcpy(to.sun_path, path.data(), path.size());
  const sockaddr_un name = random_name();
  if (::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&name),
             offsetof(sockaddr_un, sun_path) + 1 + name_bytes) != 0)
    throw_error(errno_code(errno), "intake client: bind");
  if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0)
    throw_error(errno_code(errno), remedy(errno, path));
  if (::geteuid() != ::getuid()) effective_uid_ = ::geteuid();
}

void intake_client::send(std::span<const std::byte> payload, std::span<const endpoint> destinations,
                         std::uint16_t source_port, std::error_code& ec) {
  ec.clear();
  if (destinations.empty()) {
    ec = error::no_destination;
    return;
  }
  const std::size_t capacity = intake_message_capacity();
  if (payload.size() + sizeof(intake_destination) > capacity) {
    ec = error::too_long;
    return;
  }
  const std::size_t at_most = (capacity - payload.size()) / sizeof(intake_destination);
  while (!destinations.empty()) {
    intake_header header;
    const std::size_t alike = intake_alike(destinations, header.scope_id);
    const auto now = destinations.first(std::min(at_most, alike));
    destinations = destinations.subspan(now.size());
    header.destination_count = static_cast<std::uint16_t>(now.size());
    header.source_port = source_port;
    header.payload_length = static_cast<std::uint32_t>(payload.size());
    buffer_.resize(sizeof header + payload.size() + now.size() * sizeof(intake_destination));
    std::byte* at = put(buffer_.data(), &header, sizeof header);
    at = put(at, payload.data(), payload.size());
    for (const endpoint& to : now) {
      const auto raw = intake_destination::from(to);
      at = put(at, &raw, sizeof raw);
    }
    if ((ec = send_message(buffer_, 0))) return;
  }
}

/// As a socket of this process's is its effective user's, so are its messages; the kernel allows
/// that one to be named (scm_check_creds() in net/core/scm.c).
std::error_code intake_client::send_message(std::span<const std::byte> bytes, int flags) const {
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  detail::send_control control;
  if (effective_uid_) {
    const ucred who{::getpid(), *effective_uid_, ::getegid()};
    control.add(SOL_SOCKET, SCM_CREDENTIALS, &who, sizeof who);
    message.msg_control = control.bytes.data();
    message.msg_controllen = control.size;
  }
  const auto sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | flags);
  return sent < 0 ? errno_code(errno) : std::error_code{};
}

std::error_code intake_client::wait_for(short events, clock::time_point deadline) const {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - clock::now()).count();
    pollfd ready{fd_.get(), events, 0};
    const int count = ::poll(&ready, 1, static_cast<int>(std::clamp<long>(left, 0, 1'000'000)));
    if (count > 0) return {};
    if (count == 0 && left <= 0) return errno_code(ETIMEDOUT);
    if (count < 0 && errno != EINTR) return errno_code(errno);
  }
}

intake_totals intake_client::flush(std::chrono::milliseconds timeout, std::error_code& ec) {
  ec.clear();
  intake_header header;
  header.type = intake_type::flush;
  header.token = ++token_;
  header.source_port = intake_all_totals;
  const auto deadline = clock::now() + timeout;
  const auto bytes = std::as_bytes(std::span(&header, 1));
  while ((ec = send_message(bytes, MSG_DONTWAIT)) == std::errc::resource_unavailable_try_again ||
         ec == std::errc::interrupted)
    if ((ec = wait_for(POLLOUT, deadline))) return {};
  if (ec) return {};
  for (;;) {
    if ((ec = wait_for(POLLIN, deadline))) return {};
    intake_reply reply;
    const auto size = ::recv(fd_.get(), &reply, sizeof reply, MSG_DONTWAIT);
    if (size < 0 && errno != EINTR && errno != EAGAIN) {
      ec = errno_code(errno);
      return {};
    }
    // An answer to an earlier flush that timed out is passed over.
    const bool known = size == sizeof reply || size == ssize_t{intake_short_reply_size};
    if (known && reply.header.magic == intake_magic && reply.header.type == intake_type::reply &&
        reply.header.token == token_)
      return reply.totals;
  }
}

}  // namespace cowire
