// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/datagram_source.hpp>

#include <cowire/base/error.hpp>
#include <cowire/ring/ring_timer.hpp>

#include "on_both_backends.hpp"

#include <netinet/in.h>
#include <asio/io_context.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace cowire {
namespace {

using test::on_both_backends;
using test::socket_pair;
using test::text_of;
using namespace std::chrono_literals;

struct received {
  std::error_code ec;
  std::string text;
  bool truncated = false;
  friend bool operator==(const received&, const received&) = default;
};

class datagram_source_test : public on_both_backends {
 protected:
  /// One receive, run to its end.
  received receive(datagram_source& source) {
    std::optional<received> result;
    source.async_receive([&](std::error_code ec, datagram d) {
      result = received{ec, text_of(d.payload()), d && d.truncated()};
    });
    EXPECT_FALSE(result);
    run();
    return result.value_or(received{.ec = error::closed, .text = {}});
  }
  datagram_source::batch receive_some(datagram_source& source) {
    datagram_source::batch result;
    source.async_receive_some([&](std::error_code ec, datagram_source::batch b) {
      EXPECT_FALSE(ec) << ec.message();
      result = std::move(b);
    });
    run();
    return result;
  }
  socket_pair sockets_;
};

TEST_P(datagram_source_test, receives_in_order_one_by_one) {
  datagram_source source(ring(), sockets_.near.get());
  sockets_.send("one");
  sockets_.send("two");
  sockets_.send("");
  sockets_.send("four");
  for (const char* text : {"one", "two", "", "four"})
    EXPECT_EQ((received{{}, text}), receive(source));
  EXPECT_EQ(4u, source.count().received);
}

TEST_P(datagram_source_test, a_receive_waits_for_what_comes_later) {
  datagram_source source(ring(), sockets_.near.get());
  ring_timer later(ring(), 3ms);
  later.async_wait([&](std::error_code) { sockets_.send("late"); });
  EXPECT_EQ((received{{}, "late"}), receive(source));
}

TEST_P(datagram_source_test, receive_some_hands_over_all_that_is_there) {
  datagram_source source(ring(), sockets_.near.get());
  for (int i = 0; i < 5; ++i) sockets_.send(std::to_string(i));
  std::string all;
  for (const datagram& d : receive_some(source)) all += text_of(d.payload());
  EXPECT_EQ("01234", all);
}

TEST_P(datagram_source_test, the_callers_socket_may_be_closed) {
  datagram_source source(ring(), sockets_.near.get());
  sockets_.near.reset();
  sockets_.send("still here");
  EXPECT_EQ((received{{}, "still here"}), receive(source));
}

TEST_P(datagram_source_test, too_long_a_datagram_is_marked_truncated) {
  datagram_source source(ring(), sockets_.near.get(), {.buffer_count = 4, .payload_capacity = 8});
  sockets_.send("12345678");
  sockets_.send("123456789");
  sockets_.send("1");
  EXPECT_EQ((received{{}, "12345678", false}), receive(source));
  EXPECT_EQ((received{{}, "12345678", true}), receive(source));
  EXPECT_EQ((received{{}, "1", false}), receive(source));
  EXPECT_EQ(1u, source.count().truncated);
}

TEST_P(datagram_source_test, options_out_of_range_are_named) {
  const auto rejected = [&](const datagram_source::options& wanted) {
    try {
      datagram_source(ring(), sockets_.near.get(), wanted);
    } catch (const std::system_error& e) {
      return e.code() == error::invalid_argument;
    }
    return false;
  };
  EXPECT_TRUE(rejected({.buffer_count = 0}));
  EXPECT_TRUE(rejected({.buffer_count = 32769, .payload_capacity = 1}));
  EXPECT_TRUE(rejected({.name_capacity = 13}));
  EXPECT_TRUE(rejected({.payload_capacity = 0}));
  // Sums and products of these would be small again.
  EXPECT_TRUE(rejected({.payload_capacity = SIZE_MAX - 150}));
  EXPECT_TRUE(rejected({.buffer_count = 4, .payload_capacity = SIZE_MAX / 4}));
  EXPECT_TRUE(rejected({.buffer_count = SIZE_MAX / 64}));
  EXPECT_TRUE(rejected({.name_capacity = SIZE_MAX - 7}));
  EXPECT_TRUE(rejected({.control_capacity = SIZE_MAX - 7}));
  EXPECT_THROW(datagram_source(ring(), -1), std::system_error);
}

/// A UDP socket on the loopback address, and its own address.
struct udp_socket {
  udp_socket() : fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(0, ::bind(fd.get(), raw(), sizeof address));
    EXPECT_EQ(0, ::getsockname(fd.get(), raw(), &size));
  }
  sockaddr* raw() { return reinterpret_cast<sockaddr*>(&address); }
  unique_fd fd;
  sockaddr_in address{};
};

TEST_P(datagram_source_test, source_address_and_control_messages_of_udp) {
  udp_socket receiver, sender;
  const int on = 1;
  ASSERT_EQ(0, ::setsockopt(receiver.fd.get(), IPPROTO_IP, IP_PKTINFO, &on, sizeof on));
  ASSERT_EQ(0, ::setsockopt(receiver.fd.get(), IPPROTO_IP, IP_RECVTOS, &on, sizeof on));
  datagram_source source(ring(), receiver.fd.get(), {.control_capacity = 128});
  ASSERT_EQ(1, ::sendto(sender.fd.get(), "x", 1, 0, receiver.raw(), sizeof receiver.address));
  const auto batch = receive_some(source);
  ASSERT_EQ(1u, batch.size());
  sockaddr_in from{};
  ASSERT_EQ(sizeof from, batch[0].source().size());
  std::memcpy(&from, batch[0].source().data(), sizeof from);
  EXPECT_EQ(sender.address.sin_port, from.sin_port);
  EXPECT_EQ(sender.address.sin_addr.s_addr, from.sin_addr.s_addr);
  EXPECT_FALSE(batch[0].control_truncated());

  msghdr view{};
  view.msg_control = const_cast<std::byte*>(batch[0].control().data());
  view.msg_controllen = batch[0].control().size();
  std::set<int> types;
  for (cmsghdr* c = CMSG_FIRSTHDR(&view); c; c = CMSG_NXTHDR(&view, c)) {
    EXPECT_EQ(IPPROTO_IP, c->cmsg_level);
    types.insert(c->cmsg_type);
  }
  EXPECT_EQ((std::set{int{IP_PKTINFO}, int{IP_TOS}}), types);
}

TEST_P(datagram_source_test, control_messages_without_room_are_marked) {
  udp_socket receiver, sender;
  const int on = 1;
  ASSERT_EQ(0, ::setsockopt(receiver.fd.get(), IPPROTO_IP, IP_PKTINFO, &on, sizeof on));
  datagram_source source(ring(), receiver.fd.get(), {.control_capacity = 8});
  ASSERT_EQ(1, ::sendto(sender.fd.get(), "x", 1, 0, receiver.raw(), sizeof receiver.address));
  const auto batch = receive_some(source);
  ASSERT_EQ(1u, batch.size());
  EXPECT_TRUE(batch[0].control_truncated());
  EXPECT_EQ("x", text_of(batch[0].payload()));
}

TEST_P(datagram_source_test, an_error_of_the_socket_comes_in_band_and_receiving_goes_on) {
  udp_socket receiver;
  auto peer = std::make_unique<udp_socket>();
  sockaddr_in target = peer->address;
  ASSERT_EQ(0, ::connect(receiver.fd.get(), peer->raw(), sizeof target));
  peer.reset();
  datagram_source source(ring(), receiver.fd.get());
  ASSERT_EQ(1, ::send(receiver.fd.get(), "x", 1, 0));  // Answered by ICMP port unreachable.
  EXPECT_EQ((received{errno_code(ECONNREFUSED), ""}), receive(source));
  const unique_fd again(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(0, ::bind(again.get(), reinterpret_cast<sockaddr*>(&target), sizeof target));
  ASSERT_EQ(2, ::sendto(again.get(), "ok", 2, 0, receiver.raw(), sizeof receiver.address));
  EXPECT_EQ((received{{}, "ok"}), receive(source));
}

TEST_P(datagram_source_test, without_buffers_it_starves_and_goes_on_when_one_comes_back) {
  datagram_source source(ring(), sockets_.near.get(), {.buffer_count = 2});
  for (int round = 0; round < 3; ++round) {
    sockets_.send("a");
    sockets_.send("b");
    datagram_source::batch held;
    while (held.size() < 2)
      for (auto& d : receive_some(source)) held.push_back(std::move(d));
    sockets_.send("c");
    std::string third;
    source.async_receive([&](std::error_code, datagram d) { third = text_of(d.payload()); });
    ring_timer later(ring(), 3ms);
    later.async_wait([&](std::error_code) {
      EXPECT_EQ("", third);
      held.pop_back();
    });
    run();
    EXPECT_EQ("c", third);
  }
  EXPECT_GE(source.count().starved, 3u);
  EXPECT_EQ(9u, source.count().received);
  EXPECT_EQ(0u, source.count().overruns);
}

TEST_P(datagram_source_test, leases_given_back_by_another_thread_wake_a_starved_source) {
  datagram_source source(ring(), sockets_.near.get(), {.buffer_count = 4});
  int total = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) sockets_.send("x");
  while (total < 4) {
    auto batch = receive_some(source);
    total += static_cast<int>(batch.size());
    threads.emplace_back([held = std::move(batch)]() mutable {
      std::this_thread::sleep_for(2ms);
      held.clear();
    });
  }
  sockets_.send("y");
  EXPECT_EQ((received{{}, "y"}), receive(source));
  for (auto& t : threads) t.join();
}

TEST_P(datagram_source_test, a_lease_outlives_source_and_ring) {
  auto source = std::make_unique<datagram_source>(ring(), sockets_.near.get());
  sockets_.send("kept");
  const auto batch = receive_some(*source);
  source.reset();
  run();
  EXPECT_EQ("kept", text_of(batch.at(0).payload()));
  ring_.reset();
  EXPECT_EQ("kept", text_of(batch.at(0).payload()));
}

TEST_P(datagram_source_test, the_callers_memory_gets_the_payload_at_a_fixed_offset) {
  constexpr datagram_source::options layout{.name_capacity = 32, .control_capacity = 16};
  static_assert(layout.payload_offset() == 64);
  auto memory = std::make_shared<std::array<std::byte, 4 * 256>>();
  receive_memory frames;
  for (std::size_t i = 0; i < 4; ++i)
    frames.buffers.push_back(std::span(*memory).subspan(i * 256, 256));
  frames.keeper = memory;
  datagram_source source(ring(), sockets_.near.get(), std::move(frames), layout);
  sockets_.send("frame");
  sockets_.send("other");
  std::set<std::uint16_t> ids;
  while (ids.size() < 2)
    for (auto& d : receive_some(source)) {
      EXPECT_EQ(memory->data() + d.buffer_id() * 256u + 64, d.payload().data());
      ids.insert(d.release_buffer());
      EXPECT_FALSE(d);
    }
  // What was released is not used again until it is provided.
  std::set<std::uint16_t> rest;
  for (int i = 0; i < 6; ++i) {
    sockets_.send("more");
    for (auto& d : receive_some(source)) rest.insert(d.buffer_id());
  }
  for (const auto id : ids) EXPECT_FALSE(rest.contains(id));
  for (const auto id : ids) source.provide(id);
  std::vector<datagram> held;
  for (int i = 0; i < 4; ++i) sockets_.send("all");
  while (held.size() < 4)
    for (auto& d : receive_some(source)) held.push_back(std::move(d));
}

TEST_P(datagram_source_test, the_memory_lives_until_kernel_and_leases_let_go) {
  auto memory = std::make_shared<std::array<std::byte, 512>>();
  const std::weak_ptr<void> watch = memory;
  datagram lease;
  {
    datagram_source source(ring(), sockets_.near.get(),
                           {.buffers = {std::span(*memory)}, .keeper = std::move(memory)}, {});
    sockets_.send("x");
    source.async_receive([&](std::error_code, datagram d) { lease = std::move(d); });
    run();
  }
  run();
  EXPECT_FALSE(watch.expired());
  lease = {};
  EXPECT_TRUE(watch.expired());
}

TEST_P(datagram_source_test, slot_cancel_and_destruction_abort_and_lose_no_datagram) {
  std::vector<std::error_code> results;
  const auto note = [&](std::error_code ec, auto) { results.push_back(ec); };
  auto source = std::make_unique<datagram_source>(ring(), sockets_.near.get());
  asio::cancellation_signal signal;
  source->async_receive(asio::bind_cancellation_slot(signal.slot(), note));
  signal.emit(asio::cancellation_type::partial);
  source->async_receive_some(note);
  source->async_receive(note);
  source->cancel();
  run();
  EXPECT_EQ(std::vector(3, operation_aborted()), results);
  sockets_.send("kept");
  EXPECT_EQ((received{{}, "kept"}), receive(*source));
  source->async_receive(note);
  source.reset();
  run();
  EXPECT_EQ(std::vector(4, operation_aborted()), results);
}

awaitable<std::size_t> count_until_silent(datagram_source& source, ring_timer& timer) {
  using namespace awaitable_operators;
  std::size_t total = 0;
  for (;;) {
    timer.expires_after(200ms);
    auto first =
        co_await (source.async_receive_some(use_awaitable) || timer.async_wait(use_awaitable));
    if (first.index() == 1) co_return total;
    total += std::get<0>(first).size();
  }
}

TEST_P(datagram_source_test, a_coroutine_of_another_io_context_receives_with_a_time_limit) {
  constexpr std::size_t count = 5000;
  auto work = std::make_unique<asio::any_io_executor>(
      asio::prefer(ring().get_executor(), asio::execution::outstanding_work.tracked));
  std::thread runner([&] { run(); });
  asio::io_context application(1);
  datagram_source source(ring(), sockets_.near.get(), {.buffer_count = 16});
  ring_timer timer(ring());
  auto total = co_spawn(application, count_until_silent(source, timer), use_future);
  std::thread sender([&] {
    for (std::size_t i = 0; i < count; ++i) ::send(sockets_.far.get(), &i, sizeof i, 0);
  });
  application.run();
  sender.join();
  EXPECT_EQ(count, total.get());
  work.reset();
  runner.join();
}

TEST_P(datagram_source_test, receiving_goes_on_after_run_ended_and_in_another_thread) {
  datagram_source source(ring(), sockets_.near.get(), {.buffer_count = 4});
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 6; ++i) {
      sockets_.send(std::to_string(i));
      std::thread([&] { EXPECT_EQ((received{{}, std::to_string(i)}), receive(source)); }).join();
    }
  }
}

TEST_P(datagram_source_test, many_sources_come_and_go) {
  for (int round = 0; round < 200; ++round) {
    socket_pair pair;
    datagram_source source(ring(), pair.near.get(), {.buffer_count = 3, .payload_capacity = 64});
    pair.send("x");
    EXPECT_EQ((received{{}, "x"}), receive(source));
  }
}

TEST_P(datagram_source_test, more_sources_than_the_queue_is_deep) {
  ring_ = make_ring(2);
  std::vector<socket_pair> pairs(40);
  std::vector<datagram_source> sources;
  int seen = 0;
  for (auto& pair : pairs) {
    sources.emplace_back(ring(), pair.near.get(),
                         datagram_source::options{.buffer_count = 2, .payload_capacity = 64});
    sources.back().async_receive([&](std::error_code ec, datagram) { seen += !ec; });
  }
  ring_timer later(ring(), 5ms);
  later.async_wait([&](std::error_code) {
    for (auto& pair : pairs) pair.send("x");
  });
  run();
  EXPECT_EQ(40, seen);
}

TEST_P(datagram_source_test, parts_of_a_datagram_keep_its_buffer) {
  datagram_source source(ring(), sockets_.near.get(), {.buffer_count = 1});
  sockets_.send("firstsecond");
  auto whole = receive_some(source);
  datagram first = whole[0].part(0, 5), second = whole[0].part(5, 6);
  whole.clear();
  sockets_.send("next");
  std::string next;
  source.async_receive([&](std::error_code, datagram d) { next = text_of(d.payload()); });
  ring_timer later(ring(), 3ms);
  later.async_wait([&](std::error_code) {
    EXPECT_EQ("first", text_of(first.payload()));
    first = {};
  });
  ring_timer last(ring(), 6ms);
  last.async_wait([&](std::error_code) {
    EXPECT_EQ("second", text_of(second.payload()));
    EXPECT_EQ("", next);
    second = {};
  });
  run();
  EXPECT_EQ("next", next);
}

TEST_P(datagram_source_test, its_socket_is_closed_when_the_ring_has_run) {
  std::optional<udp_socket> receiver(std::in_place);
  udp_socket sender;
  const sockaddr_in address = receiver->address;
  std::optional<datagram_source> source(std::in_place, ring(), receiver->fd.get());
  ASSERT_EQ(1, ::sendto(sender.fd.get(), "x", 1, 0, receiver->raw(), sizeof address));
  EXPECT_EQ((received{{}, "x"}), receive(*source));
  receiver.reset();
  source.reset();
  run();
  const unique_fd again(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(0, ::bind(again.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
}

TEST_P(datagram_source_test, drops_of_a_full_socket_are_told) {
  udp_socket receiver, sender;
  const int small = 4096;
  ASSERT_EQ(0, ::setsockopt(receiver.fd.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small));
  datagram_source source(ring(), receiver.fd.get());
  EXPECT_EQ(0u, source.socket_drops());
  for (int i = 0; i < 100; ++i)
    ASSERT_EQ(1, ::sendto(sender.fd.get(), "x", 1, 0, receiver.raw(), sizeof receiver.address));
  std::size_t got = 0;
  while (got + source.socket_drops() < 100) got += receive_some(source).size();
  EXPECT_GT(source.socket_drops(), 0u);
  EXPECT_EQ(100u, got + source.socket_drops());
}

awaitable<void> receive_for_ever(ring_context& ring, int socket, std::shared_ptr<int> token) {
  datagram_source source(ring, socket);
  co_await source.async_receive(use_awaitable);
  ADD_FAILURE() << "resumed " << *token;
}

TEST_P(datagram_source_test, a_destroyed_ring_destroys_what_waits_while_armed) {
  auto token = std::make_shared<int>(0);
  co_spawn(ring(), receive_for_ever(ring(), sockets_.near.get(), token), detached);
  auto stopper = std::make_unique<ring_timer>(ring(), 3ms);
  stopper->async_wait([&](std::error_code) { ring().stop(); });
  run();
  stopper.reset();
  EXPECT_GT(token.use_count(), 1);
  ring_.reset();
  EXPECT_EQ(1, token.use_count());
}

COWIRE_ON_BOTH_BACKENDS(datagram_source_test);

}  // namespace
}  // namespace cowire
