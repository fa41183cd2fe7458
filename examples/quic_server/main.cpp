// SPDX-License-Identifier: Apache-2.0
/// An HTTP/3 server over cowire: QUIC by ngtcp2, TLS by GnuTLS, UDP by a port that sends past the
/// kernel. It serves one document, made up, of as many bytes as it is told:
///
///     quic_server [--port N] [--bytes N] [--sendmsg]
///
/// --sendmsg: with system calls of an Asio socket instead, for comparison; nothing else differs.
/// Says `listening on port N`, and when it is interrupted what it has served.
///
///     transport (port | sendmsg) --> dispatcher --> connection (ngtcp2) --> http3 --> document
#include "dispatcher.hpp"
#include "http3.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <thread>

namespace {

struct options {
  std::uint16_t port = 4433;
  std::uint64_t bytes = 1 << 20;
  bool sendmsg = false;
};

[[nodiscard]] options read_options(int argc, char** argv) {
  options out;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--sendmsg")
      out.sendmsg = true;
    else if (name == "--port" && i + 1 < argc)
      out.port = static_cast<std::uint16_t>(std::strtoul(argv[++i], nullptr, 10));
    else if (name == "--bytes" && i + 1 < argc)
      out.bytes = std::strtoull(argv[++i], nullptr, 10);
    else
      throw std::invalid_argument("usage: quic_server [--port N] [--bytes N] [--sendmsg]");
  }
  return out;
}

[[nodiscard]] std::unique_ptr<quic::transport> make_transport(const options& chosen) {
  if (chosen.sendmsg) return std::make_unique<quic::socket_transport>(chosen.port);
  return std::make_unique<quic::port_transport>(chosen.port);
}

/// Stops the transport at SIGINT or SIGTERM, which all threads block; at the latest with itself.
class interrupt_waiter {
 public:
  interrupt_waiter(const sigset_t& interrupts, quic::transport& whom)
      : thread_([interrupts, &whom] {
          int number = 0;
          sigwait(&interrupts, &number);
          whom.stop();
        }) {}
  interrupt_waiter(const interrupt_waiter&) = delete;
  interrupt_waiter& operator=(const interrupt_waiter&) = delete;
  ~interrupt_waiter() {
    pthread_kill(thread_.native_handle(), SIGTERM);
    thread_.join();
  }

 private:
  std::thread thread_;
};

}  // namespace

int main(int argc, char** argv) try {
  const options chosen = read_options(argc, argv);
  sigset_t interrupts;
  sigemptyset(&interrupts);
  sigaddset(&interrupts, SIGINT);
  sigaddset(&interrupts, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &interrupts, nullptr);  // Of all threads, which are made later.
  const auto transport = make_transport(chosen);
  const interrupt_waiter waiter(interrupts, *transport);

  const quic::tls_credentials tls(quic::tls_credentials::role::server);
  quic::http3_server http3(chosen.bytes);
  quic::dispatcher all(*transport, tls, http3);
  std::printf("listening on port %u\n", transport->number());
  std::fflush(stdout);
  transport->run(all.run());
  std::printf("%zu connections, %zu failed, %llu answers; %s\n", all.accepted(), all.failed(),
              static_cast<unsigned long long>(http3.answered()), transport->report().c_str());
} catch (const std::exception& failed) {
  std::fprintf(stderr, "quic_server: %s\n", failed.what());
  return 1;
}
