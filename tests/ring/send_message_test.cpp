// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/send_message.hpp>

#include <cowire/ring/ring_timer.hpp>

#include "on_both_backends.hpp"

#include <netinet/in.h>
#include <asio/io_context.hpp>

#include <array>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace cowire {
namespace {

using test::bytes_of;
using test::on_both_backends;
using test::socket_pair;
using namespace std::chrono_literals;

class send_message_test : public on_both_backends {
 protected:
  /// Sends until the peer's queue is full.
  int fill() const {
    int sent = 0;
    while (::send(sockets_.far.get(), "x", 1, MSG_DONTWAIT) == 1) ++sent;
    EXPECT_EQ(EAGAIN, errno);
    return sent;
  }
  std::string read_one() const {
    std::array<char, 256> text{};
    const auto got = ::recv(sockets_.near.get(), text.data(), text.size(), MSG_DONTWAIT);
    return got < 0 ? "nothing" : std::string(text.data(), static_cast<std::size_t>(got));
  }
  socket_pair sockets_;
};

TEST_P(send_message_test, sends_the_payload) {
  std::optional<std::size_t> sent;
  async_send_message(ring(), sockets_.far.get(), {.payload = bytes_of("hello")},
                     [&](std::error_code ec, std::size_t n) {
                       EXPECT_FALSE(ec);
                       sent = n;
                     });
  EXPECT_FALSE(sent);
  run();
  EXPECT_EQ(5u, sent);
  EXPECT_EQ("hello", read_one());
}

TEST_P(send_message_test, waits_while_the_socket_is_full_each_in_its_turn) {
  const int before = fill();
  std::vector<std::error_code> results;
  const auto note = [&](std::error_code ec, std::size_t) { results.push_back(ec); };
  for (int i = 0; i < 3; ++i)
    async_send_message(ring(), sockets_.far.get(), {.payload = bytes_of("later")}, note);
  ring_timer later(ring(), 3ms);
  later.async_wait([&](std::error_code) {
    EXPECT_TRUE(results.empty());
    for (int i = 0; i < before; ++i) EXPECT_EQ("x", read_one());
  });
  run();
  EXPECT_EQ(std::vector(3, std::error_code()), results);
  for (int i = 0; i < 3; ++i) EXPECT_EQ("later", read_one());
  EXPECT_EQ("nothing", read_one());
}

TEST_P(send_message_test, cancelled_while_waiting_it_sends_nothing) {
  const int before = fill();
  std::optional<std::error_code> result;
  asio::cancellation_signal signal;
  async_send_message(ring(), sockets_.far.get(), {.payload = bytes_of("never")},
                     asio::bind_cancellation_slot(
                         signal.slot(), [&](std::error_code ec, std::size_t) { result = ec; }));
  ring_timer later(ring(), 3ms);
  later.async_wait([&](std::error_code) { signal.emit(asio::cancellation_type::terminal); });
  run();
  EXPECT_EQ(operation_aborted(), result);
  for (int i = 0; i < before; ++i) EXPECT_EQ("x", read_one());
  EXPECT_EQ("nothing", read_one());
}

TEST_P(send_message_test, an_error_of_the_socket_is_reported) {
  sockets_.near.reset();
  std::optional<std::error_code> result;
  async_send_message(ring(), sockets_.far.get(), {.payload = bytes_of("x")},
                     [&](std::error_code ec, std::size_t) { result = ec; });
  run();
  ASSERT_TRUE(result);
  EXPECT_EQ(std::errc::connection_refused, *result);
}

TEST_P(send_message_test, the_address_is_copied_and_control_messages_go_along) {
  const unique_fd receiver(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const unique_fd sender(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  auto address = std::make_unique<sockaddr_in>();
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* raw = reinterpret_cast<sockaddr*>(address.get());
  socklen_t size = sizeof *address;
  ASSERT_EQ(0, ::bind(receiver.get(), raw, size));
  ASSERT_EQ(0, ::getsockname(receiver.get(), raw, &size));
  const int on = 1;
  ASSERT_EQ(0, ::setsockopt(receiver.get(), IPPROTO_IP, IP_RECVTOS, &on, sizeof on));

  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr view{};
  view.msg_control = control.data();
  view.msg_controllen = control.size();
  cmsghdr* tos = CMSG_FIRSTHDR(&view);
  tos->cmsg_level = IPPROTO_IP;
  tos->cmsg_type = IP_TOS;
  tos->cmsg_len = CMSG_LEN(sizeof(int));
  const int value = 0xb8;
  std::memcpy(CMSG_DATA(tos), &value, sizeof value);

  std::error_code result = operation_aborted();
  async_send_message(ring(), sender.get(),
                     {.payload = bytes_of("udp"),
                      .address = std::as_bytes(std::span(address.get(), 1)),
                      .control = control},
                     [&](std::error_code ec, std::size_t) { result = ec; });
  address.reset();
  run();
  EXPECT_EQ(std::error_code(), result);

  std::array<std::byte, 64> got{}, got_control{};
  iovec part{got.data(), got.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = got_control.data();
  message.msg_controllen = got_control.size();
  ASSERT_EQ(3, ::recvmsg(receiver.get(), &message, MSG_DONTWAIT));
  ASSERT_NE(nullptr, CMSG_FIRSTHDR(&message));
  EXPECT_EQ(0xb8, *CMSG_DATA(CMSG_FIRSTHDR(&message)));
}

awaitable<int> send_many(ring_context& ring, int socket, int count) {
  int sent = 0;
  for (int i = 0; i < count; ++i) {
    const std::string text = std::to_string(i);
    const auto [ec, size] = co_await async_send_message(ring, socket, {.payload = bytes_of(text)},
                                                        as_tuple(use_awaitable));
    sent += !ec && size == text.size();
  }
  co_return sent;
}

TEST_P(send_message_test, a_coroutine_of_another_io_context_sends_at_the_readers_pace) {
  constexpr int count = 2000;
  auto work = std::make_unique<asio::any_io_executor>(
      asio::prefer(ring().get_executor(), asio::execution::outstanding_work.tracked));
  std::thread runner([&] { run(); });
  std::thread reader([&] {
    std::array<char, 64> text{};
    for (int i = 0; i < count; ++i) {
      const auto got = ::recv(sockets_.near.get(), text.data(), text.size(), 0);
      ASSERT_EQ(std::to_string(i), std::string(text.data(), static_cast<std::size_t>(got)));
    }
  });
  asio::io_context application(1);
  auto sent = co_spawn(application, send_many(ring(), sockets_.far.get(), count), use_future);
  application.run();
  EXPECT_EQ(count, sent.get());
  reader.join();
  work.reset();
  runner.join();
}

TEST_P(send_message_test, a_send_under_way_survives_the_end_of_run) {
  const int before = fill();
  std::optional<std::error_code> result;
  async_send_message(ring(), sockets_.far.get(), {.payload = bytes_of("after")},
                     [&](std::error_code ec, std::size_t) { result = ec; });
  ring_timer stopper(ring(), 3ms);
  stopper.async_wait([&](std::error_code) { ring().stop(); });
  run();
  EXPECT_FALSE(result);
  for (int i = 0; i < before; ++i) EXPECT_EQ("x", read_one());
  EXPECT_EQ("nothing", read_one());  // The kernel has nothing of ours now.
  std::thread([&] { run(); }).join();
  EXPECT_EQ(std::error_code(), result);
  EXPECT_EQ("after", read_one());
}

TEST_P(send_message_test, a_destroyed_ring_destroys_what_waits) {
  auto token = std::make_shared<int>(0);
  fill();
  async_send_message(ring(), sockets_.far.get(), {.payload = bytes_of("x")},
                     [token](std::error_code, std::size_t) { FAIL(); });
  auto stopper = std::make_unique<ring_timer>(ring(), 3ms);
  stopper->async_wait([&](std::error_code) { ring().stop(); });
  run();
  stopper.reset();
  EXPECT_EQ(2, token.use_count());
  ring_.reset();
  EXPECT_EQ(1, token.use_count());
}

COWIRE_ON_BOTH_BACKENDS(send_message_test);

}  // namespace
}  // namespace cowire
