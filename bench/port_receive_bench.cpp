// SPDX-License-Identifier: Apache-2.0
/// CPU time of a receiving thread for a datagram of 200 bytes over loopback: a port's whose ring is
/// the thread's own, one datagram at a time and up to 32, and a plain Asio receiver's on epoll; on
/// one UDP port, and on 1 000 at once. In turns, in a network namespace of its own. A sender on
/// another thread keeps a fixed number of datagrams on the way, so that nothing is dropped; what it
/// spends counts for nobody, nor does the beginning, when buffers are touched for the first time.
///
/// bench_port_receive [--datagrams N] [--rounds N] [--json]
#include <cowire/cowire.hpp>

#include <asio/io_context.hpp>
#include <asio/ip/udp.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/results.hpp"
#include "testbed/private_namespace.hpp"

namespace cowire::bench {
namespace {

constexpr std::size_t length = 200;
using asio::ip::udp;

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// What one thread counts, and another reads.
struct progress {
  void add(std::size_t more) {
    const std::size_t now = received.load(std::memory_order_relaxed) + more;
    received.store(now, std::memory_order_relaxed);
    if (begun == 0 && now >= warm) begun = cpu_seconds(), counted = now;
    if (now == last) ended = cpu_seconds();
  }
  [[nodiscard]] bool done() const { return received.load(std::memory_order_relaxed) == last; }
  std::size_t last, warm;
  std::atomic<std::size_t> received{0};
  double begun = 0, ended = 0;
  std::size_t counted = 0;  ///< Before `begun`.
};

/// Sends to each port in turn, `window` ahead of what was received.
void send_all(const std::vector<std::uint16_t>& ports, std::size_t window, const progress& far) {
  const unique_fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const std::string text(length, 'x');
  std::vector<sockaddr_storage> there(ports.size());
  for (std::size_t i = 0; i < ports.size(); ++i)
    to_sockaddr({ip_address::v4(0x7f000001), ports[i]}, there[i]);
  for (std::size_t sent = 0; sent < far.last;) {
    if (sent - far.received.load(std::memory_order_relaxed) >= window) {
      std::this_thread::yield();
      continue;
    }
    const auto* name = reinterpret_cast<const sockaddr*>(&there[sent % ports.size()]);
    if (::sendto(fd.get(), text.data(), length, 0, name, sizeof(sockaddr_in)) > 0) ++sent;
  }
}

class asio_way {
 public:
  explicit asio_way(std::size_t ports) {
    for (std::size_t i = 0; i < ports; ++i) all_.push_back(std::make_unique<one>(*this));
  }
  [[nodiscard]] std::uint16_t number(std::size_t i) const {
    return all_[i]->socket.local_endpoint().port();
  }
  void run(progress& counted) {
    progress_ = &counted;
    for (auto& each : all_) each->start();
    io_.run();
  }

 private:
  struct one {
    explicit one(asio_way& o)
        : owner(o), socket(o.io_, udp::endpoint(asio::ip::address_v4::loopback(), 0)) {}
    void start() {
      socket.async_receive_from(asio::buffer(room), from, [this](std::error_code ec, std::size_t) {
        if (!ec) owner.got(*this);
      });
    }
    asio_way& owner;
    udp::socket socket;
    udp::endpoint from;
    std::array<char, 2048> room;
  };
  void got(one& by) {
    progress_->add(1);
    progress_->done() ? io_.stop() : by.start();
  }

  asio::io_context io_{1};
  std::vector<std::unique_ptr<one>> all_;
  progress* progress_ = nullptr;
};

/// `several`: up to 32 at a time.
template <bool several>
class port_way {
 public:
  explicit port_way(std::size_t ports) {
    for (std::size_t i = 0; i < ports; ++i)
      all_.push_back(std::make_unique<one>(
          *this, tx_.make_port({.send = {.source_v4 = ip_address::v4(0x7f000001)},
                                .buffer_count = ports == 1 ? 512u : 16u,
                                .ring = &ring_})));
  }
  [[nodiscard]] std::uint16_t number(std::size_t i) const { return all_[i]->from.number(); }
  void run(progress& counted) {
    progress_ = &counted;
    for (auto& each : all_) each->start();
    ring_.run();
  }

 private:
  struct one {
    one(port_way& o, port p) : owner(o), from(std::move(p)) {}
    void start() {
      if constexpr (several)
        from.async_receive(some, [this](std::error_code ec, std::size_t count) {
          if (!ec) owner.got(*this, count);
        });
      else
        from.async_receive([this](std::error_code ec, const received_datagram&) {
          if (!ec) owner.got(*this, 1);
        });
    }
    port_way& owner;
    port from;
    std::array<received_datagram, 32> some;
  };
  void got(one& by, std::size_t count) {
    progress_->add(count);
    progress_->done() ? ring_.stop() : by.start();
  }

  ring_context ring_;
  transmitter tx_{{.mode = send_mode::kernel, .frames_per_producer = 256, .max_producers = 1}};
  std::vector<std::unique_ptr<one>> all_;
  progress* progress_ = nullptr;
};

template <class Way>
double nanoseconds(std::size_t ports, std::size_t count) {
  Way way(ports);
  std::vector<std::uint16_t> numbers;
  for (std::size_t i = 0; i < ports; ++i) numbers.push_back(way.number(i));
  progress counted{.last = count + 20 * ports, .warm = 20 * ports};
  std::thread sender([&] { send_all(numbers, std::max<std::size_t>(ports, 128), counted); });
  way.run(counted);
  const double spent = counted.ended - counted.begun;
  sender.join();
  return 1e9 * spent / static_cast<double>(counted.last - counted.counted);
}

int run(int argc, char** argv) {
  std::size_t count = 200'000, rounds = 5;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--json" || argument == "--benchmark_format=json") json = true;
    if (argument == "--datagrams" && i + 1 < argc) count = std::strtoul(argv[++i], nullptr, 10);
    if (argument == "--rounds" && i + 1 < argc) rounds = std::strtoul(argv[++i], nullptr, 10);
  }
  const test::private_namespace inside;
  if (!inside.entered()) return std::fprintf(stderr, "needs CAP_SYS_ADMIN\n"), 77;
  test::bring_up_loopback();
  std::vector<result> results;
  for (const std::size_t ports : {std::size_t{1}, std::size_t{1000}}) {
    std::vector<double> plain, single, several;
    for (std::size_t round = 0; round < rounds; ++round) {
      plain.push_back(nanoseconds<asio_way>(ports, count));
      single.push_back(nanoseconds<port_way<false>>(ports, count));
      several.push_back(nanoseconds<port_way<true>>(ports, count));
      const std::string number = "/" + std::to_string(ports);
      results.push_back({"port_receive/asio_epoll" + number, plain.back()});
      results.push_back({"port_receive/cowire" + number, single.back()});
      results.push_back({"port_receive/cowire_by_32" + number, several.back()});
    }
    if (!json)
      std::printf(
          "%4zu ports: datagrams per CPU second, port : Asio on epoll = %.2f (by 32: %.2f)\n",
          ports, median(plain) / median(single), median(plain) / median(several));
  }
  if (json)
    print_json(argv[0], results);
  else
    for (const result& r : results)
      std::printf("%-32s %8.1f ns of CPU a datagram\n", r.name.c_str(), r.nanoseconds);
  return 0;
}

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) try {
  return cowire::bench::run(argc, argv);
} catch (const std::exception& failed) {
  return std::fprintf(stderr, "bench_port_receive: %s\n", failed.what()), 1;
}
