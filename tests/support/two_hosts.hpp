// SPDX-License-Identifier: Apache-2.0
/// Fixtures: host A (where the test's thread is) and host B, joined by a veth pair a0 - b0, or by a
/// second one, a1 - b1, too.
#pragma once

#include <cowire/cowire.hpp>
#include <cowire/xdp/device.hpp>
#include <cowire/xdp/socket.hpp>
#include <cowire/xdp/umem.hpp>

#include <tests/support/netns.hpp>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace cowire::test {

using namespace std::chrono_literals;

inline endpoint to(const std::string& text) {
  const auto parsed = endpoint::parse(text);
  if (!parsed) throw std::runtime_error("bad endpoint " + text);
  return *parsed;
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string summary(const transmitter_stats& s) {
  std::string out = "submitted " + std::to_string(s.submitted) + " kernel_path " +
                    std::to_string(s.kernel_path) + " lost " + std::to_string(s.lost_in_device);
  const auto add = [&](const char* what, const auto& counts) {
    for (const auto& [name, count] : counts)
      out += std::string(" ") + what + ":" + name + "=" + std::to_string(count);
  };
  add("transmitted", s.transmitted);
  add("refused", s.refused);
  add("diverted", s.diverted);
  for (const core_stats& core : s.cores)
    out += " core:" + std::to_string(core.taken) + "=" + std::to_string(core.transmitted) + "+" +
           std::to_string(core.diverted) + "+" + std::to_string(core.lost_in_device);
  for (const auto& i : s.interfaces)
    out += " [" + i.name + " " + std::string(name(i.mode)) + " " + i.reason + "]";
  return out;
}

/// What left through an interface.
inline std::uint64_t by(const transmitter& tx, const std::string& interface) {
  const auto stats = tx.stats();
  const auto found = stats.transmitted.find(interface);
  return found == stats.transmitted.end() ? 0 : found->second;
}

/// The descriptors of this process's AF_XDP sockets, which go on as they are for whoever mapped
/// their rings.
inline std::vector<int> xdp_descriptors() {
  std::vector<int> out;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    int domain = 0;
    socklen_t size = sizeof domain;
    if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_XDP)
      out.push_back(fd);
  }
  return out;
}

/// Until their sockets are opened anew, kicks by these descriptors reach another socket.
inline void lead_kicks_to(int other, const std::vector<int>& descriptors) {
  ASSERT_FALSE(descriptors.empty());
  for (const int fd : descriptors) ASSERT_EQ(fd, ::dup3(other, fd, O_CLOEXEC));
}

/// The devices of this process's AF_XDP sockets complete nothing from now on, until their sockets
/// are opened anew, which takes a second of silence: kicks succeed, and reach a socket of the
/// loopback device that has nothing to send. All frames fit in the rings, so that none is diverted.
inline void hold_devices_up() {
  const auto held = xdp_descriptors();
  umem scratch({.frame_count = slice_granularity, .huge_pages = false});
  std::unique_ptr<xdp_socket> idle;
  std::string why;
  device_facts loopback = read_device("lo");
  loopback.ethernet = true;  // Its frames have such headers: the kernel does not mind.
  // The kernel may still hold the one of the last time.
  const bool opened = eventually([&] {
    auto one = open_egress(scratch, loopback,
                           {.mode = send_mode::copy, .tx_ring_size = 64, .busy_deadline = 0ms});
    why = one.explain();
    idle = std::move(one.socket);
    return idle != nullptr;
  });
  ASSERT_TRUE(opened) << why;
  lead_kicks_to(idle->fd(), held);
}

/// Those devices take nothing any more, and say so (ENXIO): what comes goes to the kernel path.
inline void have_devices_refuse() {
  const auto refusing = xdp_descriptors();
  const unique_fd unbound(::socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(unbound);
  lead_kicks_to(unbound.get(), refusing);
}

/// Stops a transmitter's control thread where it next has something to log, until it is opened
/// again: before a device that is held up is given a new socket. Outlives the transmitter.
class log_gate {
 public:
  [[nodiscard]] log_callback log() {
    return [this](log_severity, std::string_view) {
      EXPECT_TRUE(eventually([this] { return open_.load(); }));
    };
  }
  void close() { open_ = false; }
  void open() { open_ = true; }

 private:
  std::atomic<bool> open_{true};
};

/// Sends about one datagram in 200 us, to each of its destinations in turn, on a thread of its own
/// until told to stop.
struct stream {
  stream(transmitter& tx, const endpoint& destination, const std::string& text = "stream")
      : stream(tx, std::vector<endpoint>{destination}, text) {}
  stream(transmitter& tx, std::vector<endpoint> destinations, const std::string& text = "stream")
      : thread([this, &tx, destinations = std::move(destinations), text] {
          auto s = tx.make_sender();
          while (!done) {
            if (s.try_send(bytes_of(text), destinations[sent % destinations.size()])) ++sent;
            std::this_thread::sleep_for(200us);
          }
          ended = true;
          ended.notify_one();
          counted.wait(false);
          std::vector<payload> all;
          while (payload one = s.try_acquire()) all.push_back(std::move(one));
          free = all.size();
        }) {}
  ~stream() {
    stop();
    static_cast<void>(free_frames());
  }
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;

  void stop() {
    done = true;
    ended.wait(false);
  }
  /// Ends the thread; how many frames of its producer nobody has. After stop().
  std::size_t free_frames() {
    counted = true;
    counted.notify_one();
    if (thread.joinable()) thread.join();
    return free;
  }

  std::atomic<bool> done{false}, ended{false}, counted{false};
  std::atomic<std::size_t> sent{0};
  std::size_t free = 0;
  std::thread thread;  ///< Last: it uses the others.
};

/// A handler whose results are waited for: as_tuple(use_future), which Asio 1.22 cannot.
template <class... Results>
struct outcome {
  outcome() : future(promise->get_future()) {}
  auto handler() {
    return [promise = promise](Results... r) { promise->set_value({std::move(r)...}); };
  }
  std::shared_ptr<std::promise<std::tuple<Results...>>> promise =
      std::make_shared<std::promise<std::tuple<Results...>>>();
  std::future<std::tuple<Results...>> future;
};

/// An endpoint as the system calls take it.
struct raw_address {
  raw_address(const endpoint& from) : size(to_sockaddr(from, storage)) {}
  [[nodiscard]] const sockaddr* name() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr_storage storage;
  socklen_t size;
};

class two_hosts : public ::testing::Test {
 protected:
  void SetUp() override {
    NETNS_OR_SKIP();
    ::alarm(240);  // A lost wake-up shall be a failure, not a hang.
    a = std::make_unique<netns>();
    b = std::make_unique<netns>();
    connect(*a, "a0", *b, "b0", 1);
    let_all_wait("a0");
    inside = std::make_unique<netns::scope>(*a);
  }
  void TearDown() override {
    inside.reset();
    a.reset();
    b.reset();
    ::alarm(0);
  }

  static void answer(const udp_sink& from, const endpoint& whom, std::string_view text = "!") {
    const raw_address back(whom);
    ASSERT_EQ(static_cast<ssize_t>(text.size()),
              ::sendto(from.fd(), text.data(), text.size(), 0, back.name(), back.size));
  }
  /// A socket of the test's own that senders adopt, so that it hears the answers.
  static unique_fd own_socket(std::uint16_t port, ip_family family = ip_family::v4) {
    const raw_address name({ip_address::any(family), port});
    unique_fd fd(::socket(name.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(0, ::bind(fd.get(), name.name(), name.size));
    return fd;
  }
  static bool hears(int fd, std::chrono::milliseconds within = 5s) {
    pollfd readable{fd, POLLIN, 0};
    char bytes[64];
    return ::poll(&readable, 1, static_cast<int>(within.count())) > 0 &&
           ::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0;
  }

  /// Small: many tests run one after the other, on machines without much memory.
  static transmitter_config small() {
    transmitter_config config;
    config.frames_per_producer = 1024;
    config.max_producers = 4;
    config.huge_pages = false;
    return config;
  }
  /// Lets any number of datagrams wait for a neighbour: what a full queue drops is the kernel's own
  /// loss.
  void let_all_wait(const std::string& device) {
    (*a)("sysctl -qw net.ipv4.neigh." + device + ".unres_qlen_bytes=268435456");
  }
  /// Has the kernel resolve the way to an address, so that the fast path serves it at once: sends
  /// to a closed port and waits for the answer that says so.
  static void resolve(const std::string& address) {
    const raw_address there({*ip_address::parse(address), 7});
    const unique_fd fd(::socket(there.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(0, ::connect(fd.get(), there.name(), there.size));
    const bool answered = eventually([&] {
      pollfd refused{fd.get(), POLLIN, 0};
      return ::send(fd.get(), "?", 1, 0) < 0 || ::poll(&refused, 1, 200) > 0;
    });
    ASSERT_TRUE(answered) << address;
  }
  /// What the kernel answers a socket of the test's own that hears of errors. 0 or an errno.
  static int plain_send(const endpoint& destination, const std::string& text = "plain") {
    const raw_address there(destination);
    const bool v4 = destination.address.is_v4();
    const unique_fd fd(::socket(there.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const int yes = 1;
    EXPECT_EQ(0, v4 ? ::setsockopt(fd.get(), IPPROTO_IP, IP_RECVERR, &yes, sizeof yes)
                    : ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_RECVERR, &yes, sizeof yes));
    return ::sendto(fd.get(), text.data(), text.size(), 0, there.name(), there.size) >= 0 ? 0
                                                                                          : errno;
  }
  /// Deletes A's neighbour entry of B's address on a link ("a0", "10.77.1.2") under traffic. It is
  /// resolved first, and deleted once: with an entry go the datagrams that wait for it, uncounted
  /// (neigh_invalidate in net/core/neighbour.c), and `ip neigh flush` deletes until none is left.
  void forget_neighbour(const std::string& device, const std::string& address) {
    const std::string entry = address + " dev " + device;
    (*a)("ip neigh replace " + entry + " nud reachable lladdr " + mac_of("b" + device.substr(1)) +
         " && ip neigh del " + entry);
  }
  std::string mac_of(const std::string& device_of_b) {
    std::string mac = (*b)("cat /sys/class/net/" + device_of_b + "/address");
    mac.resize(mac.find('\n'));
    return mac;
  }
  /// What the kernel was given for a device of A and dropped, because it was down for instance.
  /// sysfs shows the namespace in which it was mounted: asked in a process of A's.
  std::uint64_t dropped_by(const std::string& device) {
    return std::stoull((*a)("cat /sys/class/net/" + device + "/statistics/tx_dropped"));
  }
  static bool drained(const transmitter& tx) {
    return eventually([&] { return tx.stats().on_the_way() == 0; });
  }

  std::unique_ptr<netns> a, b;
  std::unique_ptr<netns::scope> inside;
};

/// 10.78.0.0/16 is B's; A has no route to it yet.
class two_links : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    connect(*a, "a1", *b, "b1", 2);
    let_all_wait("a1");
    (*b)("ip route add local 10.78.0.0/16 dev lo");
    (*b)(
        "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.b0.rp_filter=0 "
        "net.ipv4.conf.b1.rp_filter=0");
  }
};

/// For comparing bytes with those of a kernel's socket: nothing that the kernel keeps secret goes
/// into them, A has second addresses (10.77.1.7, fd77:1::7), B takes what comes to port 9000.
template <class Hosts>
class comparable : public Hosts {
 protected:
  void SetUp() override {
    Hosts::SetUp();
    if (this->IsSkipped()) return;
    // Labels are a hash with a secret of the kernel's.
    (*this->a)("sysctl -qw net.ipv6.auto_flowlabels=0");
    (*this->a)("ip addr add 10.77.1.7/24 dev a0");
    (*this->a)("ip addr add fd77:1::7/64 dev a0 nodad");
    this->resolve("10.77.1.2");
    this->resolve("fd77:1::2");
    sinks[0] = std::make_unique<udp_sink>(*this->b, to("0.0.0.0:9000"));
    sinks[1] = std::make_unique<udp_sink>(*this->b, to("[::]:9000"));
  }
  void TearDown() override {
    for (auto& sink : sinks) sink.reset();
    Hosts::TearDown();
  }

  std::unique_ptr<udp_sink> sinks[2];  ///< By ip_family.
};

}  // namespace cowire::test
