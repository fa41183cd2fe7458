// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/follow/detail/question_socket.hpp>
#include <cowire/netlink/request_socket.hpp>

#include <linux/netlink.h>
#include <sys/socket.h>

#include <cstring>

namespace cowire::detail {
namespace {

constexpr int answer_buffer_bytes = 4 << 20;

}  // namespace

unique_fd open_questions() {
  std::error_code ec;
  auto fd = netlink::open_request_socket(
      {.non_blocking = true, .receive_buffer_bytes = answer_buffer_bytes}, ec);
  if (ec) throw_error(ec, "netlink request socket");
  return fd;
}

datagram_source::options netlink_buffers(std::size_t count) {
  datagram_source::options out;
  out.buffer_count = count;
  out.payload_capacity = netlink::datagram_size_max;
  out.name_capacity = 16;  // sockaddr_nl has 12 bytes.
  return out;
}

bool from_kernel(const datagram& d) noexcept {
  sockaddr_nl from{};
  if (d.source().size() < sizeof from) return false;
  std::memcpy(&from, d.source().data(), sizeof from);
  return from.nl_pid == 0;
}

question_socket::question_socket(ring_context& ring)
    : fd_(open_questions()), answers_(ring, fd_.get(), netlink_buffers(16)) {}

bool question_socket::send(std::span<const std::byte> question) noexcept {
  return ::send(fd_.get(), question.data(), question.size(), MSG_DONTWAIT) >= 0;
}

awaitable<void> question_socket::receive(
    std::function<void(std::span<const std::byte> answer)> take) {
  auto [ec, batch] = co_await answers_.async_receive_some(as_tuple(use_awaitable));
  for (const datagram& d : batch)
    if (!d.truncated() && from_kernel(d)) take(d.payload());
}

}  // namespace cowire::detail
