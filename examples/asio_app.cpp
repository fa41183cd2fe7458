// SPDX-License-Identifier: Apache-2.0
// An application with its own io_context (Asio's reactor, timers, sockets) that co_awaits cowire:
// receives on an ordinary UDP socket and sends from the same port: asio_app ADDRESS:PORT [COUNT]
#include <cowire/cowire.hpp>

#include <asio/io_context.hpp>
#include <asio/ip/udp.hpp>
#include <asio/steady_timer.hpp>

#include <cstdio>
#include <cstdlib>

using namespace cowire;
using asio::ip::udp;

static awaitable<void> ping(transmitter& tx, udp::socket& socket, endpoint peer, int count) {
  auto sender = tx.make_sender({.adopt_socket = socket.native_handle()});
  asio::steady_timer timer(socket.get_executor());
  for (int i = 0; i < count; ++i) {
    co_await sender.async_send(std::as_bytes(std::span("ping", 4)), peer, use_awaitable);
    char answer[64];
    timer.expires_after(std::chrono::milliseconds(500));
    using namespace awaitable_operators;
    const auto got =
        co_await (socket.async_receive(asio::buffer(answer), as_tuple(use_awaitable)) ||
                  timer.async_wait(as_tuple(use_awaitable)));
    std::printf("%d: %s\n", i, got.index() == 0 ? "answer" : "no answer");
  }
}

int main(int argc, char** argv) try {
  const auto peer = endpoint::parse(argc > 1 ? argv[1] : "");
  if (!peer) return std::fprintf(stderr, "usage: asio_app ADDRESS:PORT [COUNT]\n"), 2;
  asio::io_context application(1);
  udp::socket socket(application, {peer->address.is_v4() ? udp::v4() : udp::v6(), 0});
  transmitter tx;
  co_spawn(application, ping(tx, socket, *peer, argc > 2 ? std::atoi(argv[2]) : 3),
           [](std::exception_ptr error) {
             if (error) std::rethrow_exception(error);
           });
  application.run();
  return 0;
} catch (const std::exception& e) {
  return std::fprintf(stderr, "asio_app: %s\n", e.what()), 1;
}
