// SPDX-License-Identifier: Apache-2.0
#include <asio/io_context.hpp>
#include <cowire/cowire.hpp>
#include <cstdio>
#include <cstring>
#include <exception>

asio::awaitable<void> greet(cowire::transmitter& tx, cowire::endpoint destination) {
  cowire::sender sender = tx.make_sender();
  for (int i = 0; i < 1000; ++i) {
    cowire::payload hello = co_await sender.async_acquire(asio::use_awaitable);
    std::memcpy(hello.bytes().data(), "hello", 5);  // Straight into the memory the NIC reads.
    hello.resize(5);
    co_await sender.async_send(std::move(hello), destination, asio::use_awaitable);
  }
  co_await sender.async_flush(asio::use_awaitable);
}

int main() try {
  asio::io_context io;
  cowire::transmitter tx;  // Follows the kernel's routes and serves every interface.
  asio::co_spawn(io, greet(tx, *cowire::endpoint::parse("127.0.0.1:9000")),
                 [](std::exception_ptr failed) {
                   if (failed) std::rethrow_exception(failed);  // Out of run().
                 });
  io.run();
  std::printf("%ju datagrams sent\n", std::uintmax_t{tx.stats().submitted});
} catch (const std::exception& failed) {
  std::fprintf(stderr, "greet: %s\n", failed.what());
  return 1;
}
