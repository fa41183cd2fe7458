// SPDX-License-Identifier: Apache-2.0
/// Private network namespaces: made with unique names, always removed again.
///
///     test::netns a, b;
///     test::connect(a, "a0", b, "b0", 1);        // 10.77.1.1 and .2, fd77:1::1 and ::2
///     test::netns::scope inside(a);              // this thread is in `a` from here on
///
/// Threads started inside a scope stay in that namespace. Commands run through the shell; a failing
/// one throws with its text. Needs root and iproute2: netns_unavailable() tells.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/socket_address.hpp>
#include <cowire/base/unique_fd.hpp>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "testbed/eventually.hpp"

namespace cowire::test {

/// Runs a shell command; throws with its output when it fails. Returns its output.
inline std::string run(const std::string& command) {
  std::string out;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (!pipe) throw std::runtime_error("popen: " + command);
  char chunk[512];
  while (const auto n = std::fread(chunk, 1, sizeof chunk, pipe)) out.append(chunk, n);
  if (const int status = ::pclose(pipe); status != 0)
    throw std::runtime_error(command + ": status " + std::to_string(status) + ": " + out);
  return out;
}

/// "" where namespaces can be made, or why not.
[[nodiscard]] inline std::string netns_unavailable() {
  if (::geteuid() != 0) return "needs root to make network namespaces";
  if (std::system("ip netns list >/dev/null 2>&1") != 0) return "needs ip netns";
  return {};
}

class netns {
 public:
  netns() {
    static std::atomic<unsigned> counter{0};
    name_ = "cowire-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
    test::run("ip netns add " + name_);
    (*this)("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
    (*this)("ip link set lo up");
  }
  netns(const netns&) = delete;
  netns& operator=(const netns&) = delete;
  ~netns() {
    if (std::system(("ip netns del " + name_).c_str()) != 0)
      std::fprintf(stderr, "cannot remove namespace %s\n", name_.c_str());
  }

  [[nodiscard]] const std::string& name() const { return name_; }
  /// Runs a command inside.
  std::string operator()(const std::string& command) const {
    return test::run("ip netns exec " + name_ + " " + command);
  }

  /// The calling thread is inside as long as this lives. Nests.
  class scope {
   public:
    explicit scope(const netns& in)
        : before_(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
      const unique_fd target(::open(("/run/netns/" + in.name()).c_str(), O_RDONLY | O_CLOEXEC));
      if (!before_ || !target || ::setns(target.get(), CLONE_NEWNET) != 0)
        throw_error(errno_code(errno), "entering " + in.name());
    }
    scope(const scope&) = delete;
    scope& operator=(const scope&) = delete;
    ~scope() {
      if (::setns(before_.get(), CLONE_NEWNET) != 0) std::abort();
    }

   private:
    unique_fd before_;
  };

 private:
  std::string name_;
};

/// A veth pair between two namespaces, up, without checksum offload, with 10.77.N.1 and fd77:N::1
/// on the first end and .2, ::2 on the second. With so many queues each way, where that is given.
inline void connect(const netns& a, const std::string& a_name, const netns& b,
                    const std::string& b_name, unsigned n, unsigned queues = 0) {
  const std::string number = std::to_string(n), count = std::to_string(queues);
  const std::string with = queues == 0 ? "" : " numtxqueues " + count + " numrxqueues " + count;
  a("ip link add " + a_name + with + " type veth peer name " + b_name + with + " netns " +
    b.name());
  const auto configure = [&](const netns& in, const std::string& device, const char* host) {
    in("ip addr add 10.77." + number + "." + host + "/24 dev " + device);
    in("ip addr add fd77:" + number + "::" + host + "/64 dev " + device + " nodad");
    in("ip link set " + device + " up");
    in("ethtool -K " + device + " tx off >/dev/null");
  };
  configure(a, a_name, "1");
  configure(b, b_name, "2");
}

/// A bound UDP socket in a namespace, with a large receive buffer.
class udp_sink {
 public:
  struct received {
    std::string bytes;
    endpoint from;
  };

  /// Only what arrives on `device` where that is given.
  udp_sink(const netns& in, const endpoint& bind_to, const std::string& device = "") {
    const netns::scope inside(in);
    const bool v4 = bind_to.address.is_v4();
    fd_.reset(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const int room = 64 << 20, yes = 1;
    if (!v4) ::setsockopt(fd_.get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (!device.empty() && ::setsockopt(fd_.get(), SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
                                        static_cast<socklen_t>(device.size())) != 0)
      throw_error(errno_code(errno), "binding to " + device);
    sockaddr_storage name;
    const socklen_t size = to_sockaddr(bind_to, name);
    if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&name), size) != 0)
      throw_error(errno_code(errno), "binding " + bind_to.to_string());
  }

  [[nodiscard]] int fd() const { return fd_.get(); }

  std::optional<received> next(std::chrono::milliseconds timeout = patience) {
    pollfd readable{fd_.get(), POLLIN, 0};
    if (::poll(&readable, 1, static_cast<int>(timeout.count())) <= 0) return std::nullopt;
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    char room[65536];
    const auto n =
        ::recvfrom(fd_.get(), room, sizeof room, 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (n < 0) return std::nullopt;
    received out{{room, static_cast<std::size_t>(n)}, {}};
    // Without a scope id, whatever the link.
    if (const auto sender = to_endpoint(from)) out.from = {sender->address, sender->port};
    return out;
  }

  /// Reads until nothing came for `quiet`; how many.
  std::size_t drain(std::chrono::milliseconds quiet = std::chrono::milliseconds(300)) {
    std::size_t count = 0;
    while (next(quiet)) ++count;
    return count;
  }

 private:
  unique_fd fd_;
};

}  // namespace cowire::test
