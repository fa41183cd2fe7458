// SPDX-License-Identifier: Apache-2.0
/// A fixed number of datagrams for callgrind to count the instructions that the caller spends on
/// them (scripts/lib/instructions.py).
///
/// bench_sender_instructions sender|shared|payload BATCHES [BYTES]: by a sender of the thread's
/// own, by a shared_sender, or by the former from frames in which the bytes are already, as if
/// written there in place. What is to be counted is in counted_run(); between the batches all
/// frames come home. The datagrams go to a closed port of this host, by the kernel path.
#include <cowire/async/transmitter.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <thread>

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
  // A core that sleeps, or yields, would have the caller do its work. While a thread waits in
  // io_uring, valgrind 3.19 lets no other run.
  transmitter tx({.mode = send_mode::kernel,
                  .max_producers = 1,
                  .idle = idle_policy::spin,
                  .backend = ring_context::backend_choice::epoll});
  auto own = tx.make_sender();
  const auto shared = tx.make_shared_sender();
  const long batches = std::strtol(argv[2], nullptr, 10);
  const std::string_view how = argv[1];
  const auto by_copy = [&](const auto& bytes, const auto& to) { return own.try_send(bytes, to); };
  const auto by_shared = [&](const auto& bytes, const auto& to) {
    return shared.try_send(bytes, to);
  };
  const auto in_place = [&](const auto&, const auto& to) { return send_in_place(own, to); };
  const bool all = how == "shared"    ? run(tx, by_shared, batches)
                   : how == "payload" ? run(tx, in_place, batches)
                                      : run(tx, by_copy, batches);
  return all ? 0 : 1;
} catch (const std::exception& failed) {
  std::fprintf(stderr, "%s\n", failed.what());
  return 77;
}
