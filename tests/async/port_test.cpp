// SPDX-License-Identifier: Apache-2.0
// What a port receives, with a plain socket beside it as the oracle: on both backends, read by the
// transmitter's control thread or by a ring of the application's.
#include <cowire/base/socket_address.hpp>

#include <tests/support/two_hosts.hpp>

#include <asio/io_context.hpp>

#include <dlfcn.h>
#include <linux/in6.h>
#include <net/if.h>
#include <netinet/udp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

/// How long closing a UDP socket takes: another thread may do it, and be interrupted.
static std::atomic<std::chrono::milliseconds> closing_takes{};

/// Instead of the C library's.
extern "C" int close(int fd) {
  static const auto real = reinterpret_cast<int (*)(int)>(::dlsym(RTLD_NEXT, "close"));
  const auto time = closing_takes.load();
  int protocol = 0;
  socklen_t size = sizeof protocol;
  if (time.count() > 0 && ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
      protocol == IPPROTO_UDP)
    std::this_thread::sleep_for(time);
  return real(fd);
}

namespace cowire::test {
namespace {

using namespace std::literals;
using real_time = std::chrono::sys_time<std::chrono::nanoseconds>;

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// What is said of a datagram.
struct facts {
  std::string bytes;
  endpoint source;
  ip_address destination;
  std::uint32_t interface_index = 0;
  unsigned traffic_class = 0;
  real_time time{};
};

facts facts_of(const received_datagram& d) {
  return {text_of(d.bytes()),  d.source(),        d.destination(),
          d.interface_index(), d.traffic_class(), d.time()};
}

void expect_same(const facts& ours, const facts& plain, const std::string& what) {
  EXPECT_EQ(plain.bytes, ours.bytes) << what;
  EXPECT_EQ(plain.source.to_string(), ours.source.to_string()) << what;
  EXPECT_EQ(plain.destination.to_string(), ours.destination.to_string()) << what;
  EXPECT_EQ(plain.interface_index, ours.interface_index) << what;
  EXPECT_EQ(plain.traffic_class, ours.traffic_class) << what;
}

/// A socket of the calling thread's namespace; `v6only` is for AF_INET6.
unique_fd bound_socket(const endpoint& at, bool v6only = true) {
  const raw_address name(at);
  unique_fd fd(::socket(name.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const int only = v6only;
  if (at.address.is_v6())
    static_cast<void>(::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only));
  EXPECT_EQ(0, ::bind(fd.get(), name.name(), name.size)) << at.to_string();
  return fd;
}

void switch_on(int fd, int level, int name) {
  const int yes = 1;
  ASSERT_EQ(0, ::setsockopt(fd, level, name, &yes, sizeof yes)) << level << " " << name;
}

/// The oracle: the same control messages, asked for and read as the manual pages have it.
class plain_receiver {
 public:
  explicit plain_receiver(const endpoint& at) : fd_(bound_socket(at)) {
    const bool v4 = at.address.is_v4();
    switch_on(fd_.get(), SOL_SOCKET, SO_TIMESTAMPNS);
    switch_on(fd_.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_PKTINFO : IPV6_RECVPKTINFO);
    switch_on(fd_.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVTOS : IPV6_RECVTCLASS);
  }
  [[nodiscard]] int fd() const { return fd_.get(); }

  facts next() {
    pollfd readable{fd_.get(), POLLIN, 0};
    EXPECT_EQ(1,
              ::poll(&readable, 1, static_cast<int>(std::chrono::milliseconds(patience).count())));
    sockaddr_storage from{};
    std::array<char, 2048> room;
    iovec part{room.data(), room.size()};
    alignas(cmsghdr) std::array<char, 512> control;
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const auto size = ::recvmsg(fd_.get(), &message, 0);
    facts out;
    if (size < 0) return out;
    out.bytes = {room.data(), static_cast<std::size_t>(size)};
    out.source = to_endpoint(from)->canonical();
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) add(*c, out);
    return out;
  }

 private:
  static void add(const cmsghdr& c, facts& out) {
    const void* value = CMSG_DATA(&c);
    if (c.cmsg_level == SOL_SOCKET && c.cmsg_type == SO_TIMESTAMPNS) {
      timespec time;
      std::memcpy(&time, value, sizeof time);
      out.time =
          real_time(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
    } else if (c.cmsg_level == IPPROTO_IP && c.cmsg_type == IP_PKTINFO) {
      in_pktinfo info;
      std::memcpy(&info, value, sizeof info);
      out.destination = ip_address::from_bytes(ip_family::v4, &info.ipi_addr);
      out.interface_index = static_cast<std::uint32_t>(info.ipi_ifindex);
    } else if (c.cmsg_level == IPPROTO_IPV6 && c.cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info;
      std::memcpy(&info, value, sizeof info);
      out.destination = ip_address::from_bytes(ip_family::v6, &info.ipi6_addr);
      out.interface_index = info.ipi6_ifindex;
    } else if (c.cmsg_type == IP_TOS || c.cmsg_type == IPV6_TCLASS) {
      out.traffic_class = *static_cast<const unsigned char*>(value);
    }
  }

  unique_fd fd_;
};

/// Sends from a socket of B's.
class peer {
 public:
  explicit peer(const netns& in, const endpoint& from) {
    const netns::scope inside(in);
    fd_ = bound_socket(from);
    switch_on(fd_.get(), SOL_SOCKET, SO_BROADCAST);
    const int room = 64 << 20;
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  }
  [[nodiscard]] int fd() const { return fd_.get(); }
  void send(const endpoint& destination, std::string_view text, int traffic_class = 0) const {
    const bool v4 = destination.address.is_v4();
    EXPECT_EQ(0, ::setsockopt(fd_.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS,
                              &traffic_class, sizeof traffic_class));
    const raw_address there(destination);
    EXPECT_EQ(static_cast<ssize_t>(text.size()),
              ::sendto(fd_.get(), text.data(), text.size(), 0, there.name(), there.size))
        << destination.to_string() << ": " << errno_name(errno);
  }
  /// "" when nothing comes.
  [[nodiscard]] std::string next() const {
    pollfd readable{fd_.get(), POLLIN, 0};
    if (::poll(&readable, 1, static_cast<int>(std::chrono::milliseconds(patience).count())) <= 0)
      return {};
    std::array<char, 2048> room;
    const auto size = ::recv(fd_.get(), room.data(), room.size(), 0);
    return size < 0 ? "" : std::string(room.data(), static_cast<std::size_t>(size));
  }

 private:
  unique_fd fd_;
};

enum class reader { control_thread, own_ring };
using variant = std::tuple<ring_context::backend_choice, reader>;

class ports : public two_hosts, public ::testing::WithParamInterface<variant> {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    resolve("10.77.1.2");
    resolve("fd77:1::2");
    auto config = small();
    config.backend = std::get<0>(GetParam());
    tx = std::make_unique<transmitter>(config);
    if (std::get<1>(GetParam()) == reader::own_ring)
      own = std::make_unique<ring_context>(ring_context::options{.backend = config.backend});
  }
  void TearDown() override {
    tx.reset();
    own.reset();
    two_hosts::TearDown();
  }
  port make(port_options options = {}) {
    options.ring = own.get();
    return tx->make_port(options);
  }
  /// Where the application's handlers run.
  asio::any_io_executor executor() {
    if (own) return own->get_executor();
    return app.get_executor();
  }
  /// Until nothing is left to do.
  void run() {
    if (own) {
      own->restart();
      own->run();
    } else {
      app.restart();
      app.run();
    }
  }
  void run(awaitable<void> what) {
    co_spawn(executor(), std::move(what), rethrow);
    run();
  }
  received_datagram next(port& from) {
    received_datagram out;
    run([](port& p, received_datagram& to) -> awaitable<void> {
      to = co_await p.async_receive(use_awaitable);
    }(from, out));
    return out;
  }
  std::vector<received_datagram> next(port& from, std::size_t at_most) {
    std::vector<received_datagram> out(at_most);
    run([](port& p, std::vector<received_datagram>& to) -> awaitable<void> {
      to.resize(co_await p.async_receive(to, use_awaitable));
    }(from, out));
    return out;
  }
  /// Until so many have come, by any number at a time.
  std::vector<std::string> texts_of(port& from, std::size_t count) {
    std::vector<std::string> out;
    while (out.size() < count)
      for (const auto& d : next(from, 7)) out.push_back(text_of(d.bytes()));
    return out;
  }

  asio::io_context app{1};
  std::unique_ptr<ring_context> own;
  std::unique_ptr<transmitter> tx;
};

INSTANTIATE_TEST_SUITE_P(
    backends, ports,
    ::testing::Combine(::testing::Values(ring_context::backend_choice::io_uring,
                                         ring_context::backend_choice::epoll),
                       ::testing::Values(reader::control_thread, reader::own_ring)),
    [](const auto& which) {
      const bool epoll = std::get<0>(which.param) == ring_context::backend_choice::epoll;
      const bool own = std::get<1>(which.param) == reader::own_ring;
      return std::string(epoll ? "epoll" : "io_uring") + (own ? "_own_ring" : "_control_thread");
    });

// ---- what is said of a datagram
// ------------------------------------------------------------------

TEST_P(ports, say_of_ipv4_what_a_plain_socket_is_told) {
  (*a)("ip addr add 10.77.1.7/24 dev a0");
  auto p = make({.send = {.source_port = 9000}});
  plain_receiver plain(to("0.0.0.0:9001"));
  ip_mreqn group{};
  group.imr_multiaddr.s_addr = htonl(0xef010101);
  group.imr_ifindex = static_cast<int>(::if_nametoindex("a0"));
  ASSERT_EQ(0, ::setsockopt(plain.fd(), IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
  const peer from(*b, to("10.77.1.2:7000"));
  int n = 0;
  for (const char* address : {"10.77.1.1", "10.77.1.7", "239.1.1.1", "10.77.1.255"}) {
    for (const int tos : {0, 1, 2, 3, 0xb8, 0xbb}) {
      const std::string text = "datagram " + std::to_string(++n);
      const auto before = std::chrono::system_clock::now();
      from.send({*ip_address::parse(address), 9000}, text, tos);
      from.send({*ip_address::parse(address), 9001}, text, tos);
      const auto got = next(p);
      ASSERT_TRUE(got);
      const auto oracle = plain.next();
      expect_same(facts_of(got), oracle, address);
      EXPECT_EQ(address, got.destination().to_string());
      EXPECT_EQ(tos & 3, got.ecn());
      EXPECT_LE(before, got.time());
      EXPECT_LE(got.time(), std::chrono::system_clock::now());
      EXPECT_FALSE(got.truncated());
      EXPECT_EQ(0u, got.dropped_before());
    }
  }
  EXPECT_EQ(24u, p.stats().received);
  EXPECT_EQ(0u, p.stats().dropped);
}

TEST_P(ports, say_of_ipv6_what_a_plain_socket_is_told) {
  (*a)("ip addr add fd77:1::7/64 dev a0 nodad");
  (*a)("ip addr add fe80::1/64 dev a0 nodad");
  (*b)("ip addr add fe80::2/64 dev b0 nodad");
  auto p = make({.send = {.source_port = 9000}});
  plain_receiver plain(to("[::]:9001"));
  const peer from(*b, to("[::]:7000"));
  const auto link = [&] {
    const netns::scope there(*b);
    return ::if_nametoindex("b0");
  }();
  for (const char* address : {"fd77:1::1", "fd77:1::7", "fe80::1", "ff02::1"}) {
    for (const int tos : {0, 1, 2, 3, 0xb8, 0xbb}) {
      const ip_address there = *ip_address::parse(address);
      const std::uint32_t scope = there.needs_scope_id() ? link : 0;
      from.send({there, 9000, scope}, address, tos);
      from.send({there, 9001, scope}, address, tos);
      const auto got = next(p);
      ASSERT_TRUE(got);
      const auto oracle = plain.next();
      expect_same(facts_of(got), oracle, address);
      EXPECT_EQ(oracle.source.scope_id, got.source().scope_id);
      EXPECT_EQ(tos & 3, got.ecn());
      EXPECT_NE(real_time{}, got.time());
    }
  }
}

TEST_P(ports, adopt_sockets_of_either_family_and_of_both) {
  struct kind {
    const char* bound;
    bool v6only;
    std::vector<std::string> from, to;
  };
  const kind kinds[] = {
      {"0.0.0.0:9100", true, {"10.77.1.2"}, {"10.77.1.1"}},
      {"10.77.1.1:9200", true, {"10.77.1.2"}, {"10.77.1.1"}},
      {"[::]:9300", true, {"fd77:1::2"}, {"fd77:1::1"}},
      {"[::]:9400", false, {"10.77.1.2", "fd77:1::2"}, {"10.77.1.1", "fd77:1::1"}},
  };
  for (const kind& one : kinds) {
    SCOPED_TRACE(one.bound);
    auto fd = bound_socket(to(one.bound), one.v6only);
    // The application's own wishes leave room for ours.
    switch_on(fd.get(), IPPROTO_IP, IP_RECVTTL);
    auto p = make({.send = {.adopt_socket = fd.get()}});
    fd.reset();
    EXPECT_EQ(to(one.bound).port, p.number());
    for (std::size_t i = 0; i < one.from.size(); ++i) {
      const peer from(*b, {*ip_address::parse(one.from[i]), 7000});
      const bool v4 = ip_address::parse(one.from[i])->is_v4();
      plain_receiver plain({ip_address::any(v4 ? ip_family::v4 : ip_family::v6), 9001});
      from.send({*ip_address::parse(one.to[i]), p.number()}, "adopted", 0xba);
      from.send({*ip_address::parse(one.to[i]), 9001}, "adopted", 0xba);
      const auto got = next(p);
      expect_same(facts_of(got), plain.next(), one.from[i]);
      // And answers from the same port.
      ASSERT_TRUE(eventually([&] { return p.sender().try_send("answer"sv, got.source()); }));
      EXPECT_EQ("answer", from.next());
    }
  }
}

TEST_P(ports, split_what_the_kernel_has_merged) {
  auto p = make({.send = {.source_port = 9000}, .gro = true});
  for (const bool v4 : {true, false}) {
    const auto here = v4 ? to("127.0.0.1:9000") : to("[::1]:9000");
    const auto from = bound_socket({here.address, 7000});
    const int size = 100;
    ASSERT_EQ(0, ::setsockopt(from.get(), IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size));
    std::string text;
    for (int i = 0; i < 1037; ++i) text += static_cast<char>('a' + i % 23);
    const raw_address there(here);
    ASSERT_EQ(1037, ::sendto(from.get(), text.data(), text.size(), 0, there.name(), there.size));
    ASSERT_EQ(1000, ::sendto(from.get(), text.data(), 1000, 0, there.name(), there.size));
    std::vector<received_datagram> all;
    while (all.size() < 21)
      for (auto& d : next(p, 3)) all.push_back(std::move(d));
    ASSERT_EQ(21u, all.size());
    std::ranges::rotate(all, all.begin() + 5);  // Leases end in any order.
    std::ranges::rotate(all, all.end() - 5);
    for (std::size_t i = 0; i < 21; ++i) {
      const std::size_t offset = i % 11 * 100;
      EXPECT_EQ(text.substr(offset, 100), text_of(all[i].bytes())) << i;
      EXPECT_EQ(here.address, all[i].destination());
      EXPECT_EQ(7000, all[i].source().port);
    }
  }
  EXPECT_EQ(42u, p.stats().received);
  EXPECT_EQ(4u, p.stats().merged);
  // Without it, the kernel splits them.
  auto split = make({.send = {.source_port = 9001}});
  const auto from = bound_socket(to("127.0.0.1:7001"));
  const int size = 100;
  ASSERT_EQ(0, ::setsockopt(from.get(), IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size));
  const raw_address there(to("127.0.0.1:9001"));
  ASSERT_EQ(300,
            ::sendto(from.get(), std::string(300, 'x').data(), 300, 0, there.name(), there.size));
  EXPECT_EQ(std::vector(3, std::string(100, 'x')), texts_of(split, 3));
  EXPECT_EQ(0u, split.stats().merged);
}

TEST_P(ports, truncate_what_is_too_long_and_take_what_is_empty) {
  auto p = make({.send = {.source_port = 9000}, .payload_capacity = 8});
  const peer from(*b, to("10.77.1.2:7000"));
  from.send(to("10.77.1.1:9000"), "12345678");
  from.send(to("10.77.1.1:9000"), "123456789");
  from.send(to("10.77.1.1:9000"), "");
  const auto whole = next(p), cut = next(p), empty = next(p);
  EXPECT_EQ("12345678", text_of(whole.bytes()));
  EXPECT_FALSE(whole.truncated());
  EXPECT_EQ("12345678", text_of(cut.bytes()));
  EXPECT_TRUE(cut.truncated());
  EXPECT_TRUE(empty);
  EXPECT_EQ("", text_of(empty.bytes()));
  EXPECT_EQ(1u, p.stats().truncated);
}

// ---- bounds
// --------------------------------------------------------------------------------------

TEST_P(ports, hand_out_at_most_as_many_as_are_asked_for_in_order) {
  auto p = make({.send = {.source_port = 9000}});
  const peer from(*b, to("10.77.1.2:7000"));
  std::vector<std::string> sent, got;
  for (int i = 0; i < 40; ++i) sent.push_back(std::to_string(i));
  for (const auto& text : sent) from.send(to("10.77.1.1:9000"), text);
  std::vector<received_datagram> into(3);
  while (got.size() < sent.size()) {
    into = next(p, 3);
    ASSERT_GE(into.size(), 1u);
    for (const auto& d : into) got.push_back(text_of(d.bytes()));
  }
  EXPECT_EQ(sent, got);
  EXPECT_TRUE(next(p, 0).empty());
}

TEST_P(ports, count_what_the_socket_drops) {
  constexpr std::size_t count = 500;
  auto p = make({.send = {.source_port = 9000}, .buffer_count = 8, .socket_buffer = 4096});
  const peer from(*b, to("10.77.1.2:7000"));
  const std::string text(200, 'x');
  for (std::size_t i = 0; i < count; ++i) from.send(to("10.77.1.1:9000"), text);
  // The last ones may be on their way to a full queue yet: so no receive waits for long.
  std::atomic<bool> done{false};
  std::thread hurrying([&] {
    for (; !done; std::this_thread::sleep_for(10ms)) p.cancel();
  });
  std::size_t got = 0;
  std::array<received_datagram, 16> some;
  while (got + p.stats().dropped < count) {
    p.async_receive(
        some, asio::bind_executor(executor(), [&](std::error_code, std::size_t n) { got += n; }));
    run();
  }
  done = true;
  hurrying.join();
  EXPECT_EQ(count, got + p.stats().dropped);
  EXPECT_EQ(got, p.stats().received);
  const auto dropped = p.stats().dropped;
  EXPECT_GT(dropped, 0u);
  from.send(to("10.77.1.1:9000"), "after");
  const auto after = next(p);
  EXPECT_EQ("after", text_of(after.bytes()));
  EXPECT_EQ(dropped, after.dropped_before());
}

TEST_P(ports, read_no_more_than_there_are_buffers_and_go_on_when_one_comes_back) {
  auto p = make({.send = {.source_port = 9000}, .buffer_count = 2});
  const peer from(*b, to("10.77.1.2:7000"));
  for (int round = 0; round < 20; ++round) {
    from.send(to("10.77.1.1:9000"), "one");
    from.send(to("10.77.1.1:9000"), "two");
    std::vector<received_datagram> held;
    held.push_back(next(p));
    held.push_back(next(p));
    from.send(to("10.77.1.1:9000"), "three");
    ASSERT_TRUE(eventually([&] {
      // Asked for anew, as nothing else has it look for buffers.
      return own || p.stats().starved > 0;
    }));
    // From another thread, while the ring sleeps or runs.
    std::thread other([&] { held.erase(held.begin()); });
    EXPECT_EQ("three", text_of(next(p).bytes())) << round;
    other.join();
  }
  EXPECT_EQ(60u, p.stats().received);
  EXPECT_EQ(0u, p.stats().dropped);
  EXPECT_GT(p.stats().starved, 0u);
}

TEST_P(ports, leases_outlive_port_transmitter_and_ring) {
  auto p = make({.send = {.source_port = 9000}});
  const peer from(*b, to("10.77.1.2:7000"));
  from.send(to("10.77.1.1:9000"), "kept");
  const auto kept = next(p);
  p = port();
  EXPECT_EQ("kept", text_of(kept.bytes()));
  tx.reset();
  own.reset();
  EXPECT_EQ("kept", text_of(kept.bytes()));
}

// ---- contracts
// -----------------------------------------------------------------------------------

TEST_P(ports, handlers_never_run_inside_the_call) {
  auto p = make({.send = {.source_port = 9000}});
  const peer from(*b, to("10.77.1.2:7000"));
  for (int i = 0; i < 3; ++i) from.send(to("10.77.1.1:9000"), "x");
  bool first = false, second = false;
  p.async_receive(asio::bind_executor(executor(), [&](std::error_code ec, received_datagram d) {
    EXPECT_FALSE(ec);
    EXPECT_TRUE(d);
    first = true;
    p.async_receive(asio::bind_executor(
        executor(), [&](std::error_code, received_datagram) { second = true; }));
    EXPECT_FALSE(second);
  }));
  EXPECT_FALSE(first);
  run();
  EXPECT_TRUE(first && second);
}

template <class T>
struct counting_allocator {
  using value_type = T;
  explicit counting_allocator(std::atomic<int>& c) : count(&c) {}
  template <class U>
  counting_allocator(const counting_allocator<U>& other) : count(other.count) {}
  T* allocate(std::size_t n) {
    ++*count;
    return std::allocator<T>().allocate(n);
  }
  void deallocate(T* p, std::size_t n) {
    --*count;
    std::allocator<T>().deallocate(p, n);
  }
  template <class U>
  bool operator==(const counting_allocator<U>& other) const {
    return count == other.count;
  }
  std::atomic<int>* count;
};

/// With an executor and an allocator of its own.
struct particular_handler {
  using executor_type = asio::any_io_executor;
  using allocator_type = counting_allocator<void>;
  [[nodiscard]] executor_type get_executor() const noexcept { return on; }
  [[nodiscard]] allocator_type get_allocator() const noexcept { return allocator_type(*count); }
  void operator()(std::error_code ec, const received_datagram& d) const {
    *right = !ec && d && *started;
  }
  executor_type on;
  std::atomic<int>* count;
  std::atomic<bool>*started, *right;
};

TEST_P(ports, executor_and_allocator_of_the_handler_are_used) {
  auto p = make({.send = {.source_port = 9000}});
  const peer from(*b, to("10.77.1.2:7000"));
  asio::io_context other(1);
  std::atomic<int> count{0};
  std::atomic<bool> started{false}, right{false};
  p.async_receive(particular_handler{other.get_executor(), &count, &started, &right});
  EXPECT_GT(count, 0);
  from.send(to("10.77.1.1:9000"), "x");
  std::thread reading([&] {
    if (own) own->run();  // Reads while somebody waits, whoever that is.
  });
  started = true;
  other.run();
  reading.join();
  EXPECT_TRUE(right);
  EXPECT_EQ(0, count);
}

TEST_P(ports, any_token_will_do) {
  auto p = use_awaitable.as_default_on(make({.send = {.source_port = 9000}}));
  const peer from(*b, to("10.77.1.2:7000"));
  for (int i = 0; i < 4; ++i) from.send(to("10.77.1.1:9000"), "x");
  auto promised = static_cast<port&>(p).async_receive(use_future);
  outcome<std::error_code, received_datagram> bare;  // Runs on the ring that reads.
  static_cast<port&>(p).async_receive(bare.handler());
  run([&]() -> awaitable<void> {
    EXPECT_TRUE(co_await p.async_receive());
    std::array<received_datagram, 4> some;
    EXPECT_EQ(1u, co_await p.async_receive(some));
    EXPECT_TRUE(some[0]);
  }());
  EXPECT_TRUE(promised.get());
  EXPECT_TRUE(std::get<1>(bare.future.get()));
}

TEST_P(ports, a_cancelled_receive_loses_no_datagram) {
  auto p = make({.send = {.source_port = 9000}, .socket_buffer = 4 << 20});
  const peer from(*b, to("10.77.1.2:7000"));
  std::vector<std::error_code> results;
  const auto note = [&](std::error_code ec, auto&&) { results.push_back(ec); };
  for (const auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                          asio::cancellation_type::total}) {
    asio::cancellation_signal signal;
    p.async_receive(
        asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(executor(), note)));
    signal.emit(type);
    run();  // Ends, as nobody waits.
  }
  EXPECT_EQ(std::vector(3, operation_aborted()), results);
  std::array<received_datagram, 2> into;
  p.async_receive(asio::bind_executor(executor(), note));
  p.async_receive(into, asio::bind_executor(executor(), note));
  p.cancel();
  run();
  EXPECT_EQ(std::vector(5, operation_aborted()), results);
  from.send(to("10.77.1.1:9000"), "kept");
  EXPECT_EQ("kept", text_of(next(p).bytes()));
  // Cancelled at any moment while datagrams come, each is somebody's.
  std::size_t got = 0;
  const auto count = [&](std::error_code ec, const received_datagram& d) {
    if (ec) return;
    EXPECT_EQ(std::to_string(got), text_of(d.bytes()));
    ++got;
  };
  for (int sent = 0; sent < 500; ++sent) {
    asio::cancellation_signal signal;
    p.async_receive(
        asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(executor(), count)));
    from.send(to("10.77.1.1:9000"), std::to_string(sent));
    signal.emit(asio::cancellation_type::total);
    run();
  }
  while (got < 500) {
    p.async_receive(asio::bind_executor(executor(), count));
    run();
  }
}

TEST_P(ports, may_be_moved_while_a_receive_waits) {
  auto p = make({.send = {.source_port = 9000}});
  const peer from(*b, to("10.77.1.2:7000"));
  std::string got;
  p.async_receive(asio::bind_executor(
      executor(), [&](std::error_code, const received_datagram& d) { got = text_of(d.bytes()); }));
  port moved = std::move(p);
  EXPECT_FALSE(p);  // NOLINT(bugprone-use-after-move): what is left of it.
  from.send(to("10.77.1.1:9000"), "moved");
  run();
  EXPECT_EQ("moved", got);
  from.send(to("10.77.1.1:9000"), "again");
  EXPECT_EQ("again", text_of(next(moved).bytes()));
}

TEST_P(ports, end_receives_when_they_go_and_their_number_is_free_at_once) {
  closing_takes = 5ms;
  const struct ended {
    ~ended() { closing_takes = 0ms; }
  } when_done;
  for (int round = 0; round < 20; ++round) {
    auto p = make({.send = {.source_port = 9000}});
    std::vector<std::error_code> results;
    std::array<received_datagram, 2> into;
    const auto note = [&](std::error_code ec, auto&&) { results.push_back(ec); };
    p.async_receive(asio::bind_executor(executor(), note));
    p.async_receive(into, asio::bind_executor(executor(), note));
    // Then the kernel path's thread may be its last owner, and close it at any time.
    ASSERT_TRUE(p.sender().try_send(bytes_of("x"), to("10.77.1.77:9000")));
    p = port();
    run();
    EXPECT_EQ(std::vector(2, make_error_code(error::closed)), results);
    std::this_thread::sleep_for(round * 1ms);
  }
}

TEST_P(ports, stop_ends_their_receives) {
  auto p = make({.send = {.source_port = 9000}});
  std::error_code result;
  int called = 0;
  const auto note = [&](std::error_code ec, auto&&) { result = ec, ++called; };
  p.async_receive(asio::bind_executor(executor(), note));
  tx->stop();
  run();
  EXPECT_EQ(make_error_code(error::closed), result);
  p.async_receive(asio::bind_executor(executor(), note));
  run();
  EXPECT_EQ(2, called);
  EXPECT_EQ(make_error_code(error::closed), result);
  std::error_code ec;
  EXPECT_FALSE(tx->make_port({.ring = own.get()}, ec));
  EXPECT_EQ(make_error_code(error::closed), ec);
  tx.reset();
  EXPECT_EQ(0u, p.stats().received);
}

TEST_P(ports, a_receive_goes_with_its_context_and_the_next_is_served) {
  auto p = make({.send = {.source_port = 9000}});
  const peer from(*b, to("10.77.1.2:7000"));
  auto first = std::make_unique<asio::io_context>(1);
  p.async_receive(asio::bind_executor(
      *first, [](std::error_code, const received_datagram&) { FAIL() << "its context is gone"; }));
  std::string got;
  p.async_receive(asio::bind_executor(
      executor(), [&](std::error_code, const received_datagram& d) { got = text_of(d.bytes()); }));
  first.reset();
  from.send(to("10.77.1.1:9000"), "for the second");
  run();
  EXPECT_EQ("for the second", got);
}

TEST_P(ports, one_alone_receives_on_a_socket) {
  auto p = make({.send = {.source_port = 9000}});
  std::error_code ec;
  EXPECT_FALSE(tx->make_port({.send = {.source_port = 9000}, .ring = own.get()}, ec));
  EXPECT_EQ(make_error_code(error::port_in_use), ec);
  // A sender on the same port is no matter.
  EXPECT_NO_THROW(static_cast<void>(tx->make_sender({.source_port = 9000})));
  const peer from(*b, to("10.77.1.2:7000"));
  from.send(to("10.77.1.1:9000"), "first");
  EXPECT_EQ("first", text_of(next(p).bytes()));
  EXPECT_FALSE(tx->make_port({.buffer_count = 0}, ec));
  EXPECT_EQ(make_error_code(error::invalid_argument), ec);
  EXPECT_FALSE(tx->make_port({.payload_capacity = 0}, ec));
  EXPECT_EQ(make_error_code(error::invalid_argument), ec);
  EXPECT_FALSE(tx->make_port({.socket_buffer = (1u << 30) + 1}, ec));
  EXPECT_EQ(make_error_code(error::invalid_argument), ec);
}

TEST_P(ports, errors_about_what_was_sent_are_the_senders) {
  auto p = make({.send = {.source_port = 9000}});
  const peer from(*b, to("10.77.1.2:7000"));
  std::string got;
  p.async_receive(asio::bind_executor(executor(), [&](std::error_code ec, received_datagram d) {
    EXPECT_FALSE(ec) << ec.message();
    got = text_of(d.bytes());
  }));
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(eventually([&] { return p.sender().try_send("nobody"sv, to("10.77.1.2:7")); }));
    outcome<std::error_code, send_error> refused;
    p.sender().async_next_error(refused.handler());
    const auto report = std::get<1>(refused.future.get());
    EXPECT_EQ(errno_code(ECONNREFUSED), report.code);
  }
  from.send(to("10.77.1.1:9000"), "somebody");
  run();
  EXPECT_EQ("somebody", got);
}

// ---- at work
// -------------------------------------------------------------------------------------

/// Until there are none left to come; both of them together.
awaitable<void> echo(port& p, std::size_t& left) {
  for (;;) {
    const auto [ec, got] = co_await p.async_receive(as_tuple(use_awaitable));
    if (ec) co_return;
    co_await p.sender().async_send(got.bytes(), got.source(), use_awaitable);
    if (--left == 0) co_return p.cancel();
  }
}

awaitable<void> echo_some(port& p, std::size_t& left) {
  std::vector<received_datagram> some(32);
  for (;;) {
    const auto [ec, count] = co_await p.async_receive(some, as_tuple(use_awaitable));
    if (ec) co_return;
    for (const auto& got : std::span(some).first(count))
      co_await p.sender().async_send(got.bytes(), got.source(), use_awaitable);
    left -= count;
    if (left == 0) co_return p.cancel();
  }
}

TEST_P(ports, ten_thousand_datagrams_come_back) {
  constexpr std::size_t count = 10'000, window = 64;
  auto p = make({.send = {.source_port = 9000}});
  std::vector<std::thread> asking;
  for (const bool v4 : {true, false})
    asking.emplace_back([&, v4] {
      const peer from(*b, v4 ? to("10.77.1.2:7000") : to("[fd77:1::2]:7000"));
      const auto there = v4 ? to("10.77.1.1:9000") : to("[fd77:1::1]:9000");
      // Two coroutines answer, so that order is nobody's promise.
      std::vector<int> seen(count);
      std::size_t back = 0;
      for (std::size_t sent = 0; back < count; ++back) {
        for (; sent < count && sent < back + window; ++sent) from.send(there, std::to_string(sent));
        const std::string got = from.next();
        if (got.empty()) break;
        ++seen.at(std::stoul(got));
      }
      EXPECT_EQ(count, back);
      EXPECT_EQ(std::vector(count, 1), seen);
      if (back < count) p.cancel();  // Or all wait for what was lost.
    });
  std::size_t left = 2 * count;
  co_spawn(executor(), echo(p, left), detached);
  co_spawn(executor(), echo_some(p, left), detached);
  run();
  for (auto& one : asking) one.join();
  EXPECT_TRUE(drained(*tx));
  EXPECT_EQ(2 * count, p.stats().received);
  EXPECT_EQ(0u, p.stats().dropped);
  const auto stats = tx->stats();
  EXPECT_EQ(2 * count, stats.submitted) << summary(stats);
  EXPECT_GT(stats.transmitted_total(), stats.kernel_path) << summary(stats);
}

TEST_P(ports, a_hundred_of_them_at_once) {
  constexpr std::size_t many = 100, each = 20;
  std::vector<port> all;
  for (std::size_t i = 0; i < many; ++i) all.push_back(make({.buffer_count = 16}));
  std::size_t got = 0;
  const auto receive = [&](port& p) -> awaitable<void> {
    for (std::size_t i = 0; i < each; ++i) {
      const auto d = co_await p.async_receive(use_awaitable);
      EXPECT_EQ(std::to_string(p.number()), text_of(d.bytes()));
      ++got;
    }
  };
  const peer from(*b, to("10.77.1.2:7000"));
  for (std::size_t i = 0; i < each / 2; ++i)
    for (port& p : all)
      from.send({to("10.77.1.1:1").address, p.number()}, std::to_string(p.number()));
  for (port& p : all) co_spawn(executor(), receive(p), detached);
  std::thread later([&] {
    for (std::size_t i = 0; i < each / 2; ++i)
      for (port& p : all)
        from.send({to("10.77.1.1:1").address, p.number()}, std::to_string(p.number()));
  });
  run();
  later.join();
  EXPECT_EQ(many * each, got);
}

awaitable<void> receive_until_closed(port& p, std::atomic<std::size_t>& got) {
  for (;;) {
    const auto [ec, d] = co_await p.async_receive(as_tuple(use_awaitable));
    if (ec) co_return;
    ++got;
  }
}

TEST_P(ports, several_threads_receive_on_one) {
  if (own) return;  // Its ring is one thread's; the callers may be others all the same.
  constexpr std::size_t count = 2000, window = 50;
  auto p = make({.send = {.source_port = 9000}});
  const peer from(*b, to("10.77.1.2:7000"));
  std::atomic<std::size_t> got{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      asio::io_context mine(1);
      co_spawn(mine, receive_until_closed(p, got), detached);
      mine.run();
    });
  for (std::size_t sent = 0; sent < count; ++sent) {
    ASSERT_TRUE(eventually([&] { return sent < got + window; }));
    from.send(to("10.77.1.1:9000"), "x");
  }
  ASSERT_TRUE(eventually([&] { return got == count; }));
  tx->stop();
  for (auto& one : threads) one.join();
  EXPECT_EQ(count, p.stats().received);
}

}  // namespace
}  // namespace cowire::test
