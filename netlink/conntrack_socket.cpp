// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/conntrack_socket.hpp>

#include <linux/netlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace cowire::netlink {
namespace {

/// An answer takes about 300 bytes; a page is what the kernel allocates for one.
constexpr std::size_t answer_size_max = 4096;
/// Answers read with one system call.
constexpr std::size_t read_max = 16;
/// Of batch_max answers, with what the kernel counts for each, and more.
constexpr int receive_buffer_size = 1 << 20;

/// One datagram of answers.
void hand_on(std::span<const std::byte> datagram,
             const std::function<void(const conntrack_answer&)>& visit, std::error_code& ec) {
  while (const auto one = next_envelope(datagram, ec)) {
    conntrack_answer answer{one->sequence, 0, std::nullopt};
    if (const auto end = decode_completion(*one, ec))
      answer.error_number = end->error_number;
    else if (!ec)
      answer.entry = decode_conntrack(*one, ec);
    if (ec) return;
    visit(answer);
  }
}

}  // namespace

conntrack_socket::conntrack_socket(std::error_code& ec) noexcept
    : fd_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER)) {
  sockaddr_nl any{};
  any.nl_family = AF_NETLINK;
  if (!fd_ || ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0) {
    ec = errno_code(errno);
    fd_.reset();
    return;
  }
  const int room = receive_buffer_size, yes = 1;
  if (::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) != 0)
    static_cast<void>(::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &room, sizeof room));
  // Errors without the request that they are about.
  static_cast<void>(::setsockopt(fd_.get(), SOL_NETLINK, NETLINK_CAP_ACK, &yes, sizeof yes));
}

void conntrack_socket::exchange(const conntrack_batch& batch,
                                const std::function<void(const conntrack_answer&)>& visit,
                                std::error_code& ec) {
  if (batch.empty()) return;
  const auto request = batch.bytes();
  if (::send(fd_.get(), request.data(), request.size(), 0) < 0) {
    ec = errno_code(errno);
    return;
  }
  buffer_.resize(read_max * answer_size_max);
  std::array<iovec, read_max> places;
  std::array<mmsghdr, read_max> messages{};
  for (std::size_t i = 0; i < read_max; ++i) {
    places[i] = {buffer_.data() + i * answer_size_max, answer_size_max};
    messages[i].msg_hdr.msg_iov = &places[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  for (;;) {
    const int count = ::recvmmsg(fd_.get(), messages.data(), read_max, MSG_DONTWAIT, nullptr);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == ENOBUFS) ec = errno_code(ENOBUFS);
    if (count < 0 && errno == ENOBUFS) continue;  // The rest is still there.
    if (count < 0) return;
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      std::error_code broken;
      if ((messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0)
        broken = error::truncated;
      else
        hand_on({buffer_.data() + i * answer_size_max, messages[i].msg_len}, visit, broken);
      if (broken) ec = broken;
    }
  }
}

}  // namespace cowire::netlink
