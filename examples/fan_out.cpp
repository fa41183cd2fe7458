// SPDX-License-Identifier: Apache-2.0
// Sends one payload to many destinations in one call: fan_out ADDRESS:PORT...
#include <cowire/cowire.hpp>

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <vector>

using namespace cowire;

static awaitable<void> send(transmitter& tx, const std::vector<endpoint>& destinations) {
  constexpr std::string_view text = "the same for everybody";
  auto sender = tx.make_sender();
  payload p = co_await sender.async_acquire(use_awaitable);
  std::ranges::copy(std::as_bytes(std::span(text)), p.bytes().begin());
  p.resize(text.size());
  const auto sent = co_await sender.async_send(std::move(p), destinations, use_awaitable);
  co_await sender.async_flush(use_awaitable);
  std::printf("sent to %zu destinations\n", sent);
}

int main(int argc, char** argv) try {
  std::vector<endpoint> destinations;
  for (int i = 1; i < argc; ++i) {
    const auto destination = endpoint::parse(argv[i]);
    if (!destination) return std::fprintf(stderr, "not ADDRESS:PORT: %s\n", argv[i]), 2;
    destinations.push_back(*destination);
  }
  transmitter tx;
  ring_context application;
  co_spawn(application, send(tx, destinations), [](std::exception_ptr error) {
    if (error) std::rethrow_exception(error);
  });
  application.run();
  return 0;
} catch (const std::exception& e) {
  return std::fprintf(stderr, "fan_out: %s\n", e.what()), 1;
}
