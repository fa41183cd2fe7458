// SPDX-License-Identifier: Apache-2.0
#include <cowire/cowire.hpp>
#include <cstdio>
#include <exception>

asio::awaitable<void> echo(cowire::port& port) {
  for (;;) {  // What it receives is a lease on the buffer that the kernel wrote.
    cowire::received_datagram got = co_await port.async_receive(asio::use_awaitable);
    co_await port.sender().async_send(got.bytes(), got.source(), asio::use_awaitable);
  }
}

int main() try {
  cowire::ring_context ring;  // Reads, and runs the coroutine.
  cowire::transmitter tx;
  cowire::port port = tx.make_port({.send = {.source_port = 9000}, .ring = &ring});
  asio::co_spawn(ring, echo(port), [](std::exception_ptr failed) {
    if (failed) std::rethrow_exception(failed);  // Out of run().
  });
  ring.run();
} catch (const std::exception& failed) {
  std::fprintf(stderr, "echo: %s\n", failed.what());
  return 1;
}
