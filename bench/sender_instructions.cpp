// SPDX-License-Identifier: Apache-2.0
/// A fixed number of datagrams for callgrind to count the instructions that the caller spends on
/// them (scripts/lib/instructions.py).
///
/// bench_sender_instructions sender|shared|payload|awaited|await_frames|c BATCHES [BYTES]: by a
/// sender of the thread's own, by a shared_sender, by the former from frames in which the bytes are
/// already, as if written there in place, by a coroutine that awaits its async_send() with either
/// token, or by the C interface. What is to be counted is in counted_run(); between the batches all
/// frames come home. The datagrams go to a closed port of this host, by the kernel path.
///
/// The C interface does not let its transmitter's backend be chosen: `c` is for where io_uring is
/// refused (scripts/lib/without_io_uring.py). Its configuration has the core poll.
#include <cowire/async/await_frames.hpp>
#include <cowire/async/transmitter.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/use_awaitable.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <thread>

#ifdef COWIRE_BENCH_C
#include "bench/c_sender.hpp"
#endif

namespace {

using namespace cowire;

constexpr int batch_size = 64;
constexpr int warm_up_batches = 4;

/// Short, so that what is not the copy shows, unless asked for otherwise.
std::string text(64, 'x');

template <class Sender>
[[gnu::noinline]] int counted_run(const Sender& send, const endpoint& to) {
  int sent = 0;
  for (int i = 0; i < batch_size; ++i) sent += send(text, to) ? 1 : 0;
  return sent;
}

/// The coroutine's making is counted, too.
template <class Token>
[[gnu::noinline]] int counted_run(asio::io_context& app, sender& own, const endpoint& to,
                                  Token token) {
  int sent = 0;
  const auto all = [&]() -> asio::awaitable<void> {
    for (int i = 0; i < batch_size; ++i)
      sent += co_await own.async_send(text, to, token) == 1 ? 1 : 0;
  };
  app.restart();
  asio::co_spawn(app, all(), rethrow);
  app.run();
  return sent;
}

template <class Token>
bool run_awaited(const transmitter& tx, sender& own, long batches, Token token) {
  const endpoint to{*ip_address::parse("127.0.0.1"), 9};
  asio::io_context app{1};
  for (long i = 0; i < batches; ++i) {
    if (counted_run(app, own, to, token) != batch_size) return false;
    while (tx.stats().on_the_way() != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

bool run_c([[maybe_unused]] long batches) {
#ifdef COWIRE_BENCH_C
  const endpoint to{*ip_address::parse("127.0.0.1"), 9};
  const bench::c_sender by_c(0, text, to.port);
  const auto send = [&](const auto&, const auto&) { return by_c.send(); };
  for (long i = 0; i < batches + warm_up_batches; ++i) {
    const bool warm = i >= warm_up_batches;
    if (warm ? counted_run(send, to) != batch_size : !by_c.send()) return false;
    by_c.wait_until_home();
  }
  return true;
#else
  return false;
#endif
}

template <class Sender>
bool run(const transmitter& tx, const Sender& send, long batches) {
  const endpoint to{*ip_address::parse("127.0.0.1"), 9};
  for (long i = 0; i < batches + warm_up_batches; ++i) {
    const int sent =
        i < warm_up_batches ? (send(text, to) ? batch_size : 0) : counted_run(send, to);
    if (sent != batch_size) return false;
    while (tx.stats().on_the_way() != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

bool send_in_place(sender& own, const endpoint& to) {
  payload p = own.try_acquire();
  if (!p) return false;
  p.resize(text.size());
  std::error_code ec;
  own.send(std::move(p), to, ec);
  return !ec;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3 && argc != 4) return 2;
  if (argc == 4) text.resize(std::strtoul(argv[3], nullptr, 10), 'x');
  const long batches = std::strtol(argv[2], nullptr, 10);
  const std::string_view how = argv[1];
  if (how == "c") return run_c(batches) ? 0 : 1;
  // A core that sleeps, or yields, would have the caller do its work. While a thread waits in
  // io_uring, valgrind 3.19 lets no other run.
  transmitter tx({.mode = send_mode::kernel,
                  .max_producers = 1,
                  .idle = idle_policy::spin,
                  .backend = ring_context::backend_choice::epoll});
  auto own = tx.make_sender();
  const auto shared = tx.make_shared_sender();
  const auto by_copy = [&](const auto& bytes, const auto& to) { return own.try_send(bytes, to); };
  const auto by_shared = [&](const auto& bytes, const auto& to) {
    return shared.try_send(bytes, to);
  };
  const auto in_place = [&](const auto&, const auto& to) { return send_in_place(own, to); };
  const bool all = how == "shared"         ? run(tx, by_shared, batches)
                   : how == "payload"      ? run(tx, in_place, batches)
                   : how == "awaited"      ? run_awaited(tx, own, batches, asio::use_awaitable)
                   : how == "await_frames" ? run_awaited(tx, own, batches, await_frames)
                                           : run(tx, by_copy, batches);
  return all ? 0 : 1;
} catch (const std::exception& failed) {
  std::fprintf(stderr, "%s\n", failed.what());
  return 77;
}
