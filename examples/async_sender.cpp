// SPDX-License-Identifier: Apache-2.0
// Sends numbered datagrams from a coroutine: async_sender ADDRESS:PORT [COUNT]
#include <cowire/cowire.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

using namespace cowire;

static awaitable<void> stream(transmitter& tx, endpoint destination, int count) {
  auto sender = tx.make_sender();
  for (int i = 0; i < count; ++i) {
    payload p = co_await sender.async_acquire(use_awaitable);  // A frame to write into.
    auto* text = reinterpret_cast<char*>(p.bytes().data());
    p.resize(static_cast<std::size_t>(std::snprintf(text, p.capacity(), "datagram %d", i)));
    co_await sender.async_send(std::move(p), destination, use_awaitable);
  }
  co_await sender.async_flush(use_awaitable);  // Everything left the host, or was counted.
}

int main(int argc, char** argv) try {
  const auto destination = endpoint::parse(argc > 1 ? argv[1] : "");
  if (!destination) return std::fprintf(stderr, "usage: async_sender ADDRESS:PORT [COUNT]\n"), 2;
  transmitter tx;
  ring_context application;
  co_spawn(application, stream(tx, *destination, argc > 2 ? std::atoi(argv[2]) : 10),
           [](std::exception_ptr error) {
             if (error) std::rethrow_exception(error);
           });
  application.run();
  const auto stats = tx.stats();
  std::printf("submitted %ju, transmitted %ju, kernel path %ju, refused %ju\n", stats.submitted,
              stats.transmitted_total(), stats.kernel_path, stats.refused_total());
  return stats.on_the_way() == 0 ? 0 : 1;
} catch (const std::exception& e) {
  return std::fprintf(stderr, "async_sender: %s\n", e.what()), 1;
}
