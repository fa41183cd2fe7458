// SPDX-License-Identifier: Apache-2.0
// A child of fork() has the memory of a transmitter and nothing else of it.
#include <cowire/async/intake.hpp>

#include <tests/support/child.hpp>
#include <tests/support/two_hosts.hpp>

#include <asio/io_context.hpp>

#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace cowire::test {
namespace {

/// In a child: says what is wrong, where the test's own output goes, and ends it.
#define CHILD_EXPECT(condition)                                                   \
  do {                                                                            \
    if (!(condition)) {                                                           \
      std::fprintf(stderr, "child: %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      ::_exit(1);                                                                 \
    }                                                                             \
  } while (false)

template <class Call>
bool throws_forked(Call&& call) {
  try {
    call();
  } catch (const std::system_error& refused) {
    return refused.code() == error::forked;
  }
  return false;
}

/// Runs `act` in a child, which ends with 0 if it returns.
template <class Act>
pid_t in_child(Act&& act) {
  const pid_t child = fork_for_allocating();
  if (child != 0) return child;
  ::alarm(60);  // A hang is a failure.
  act();
  ::_exit(0);
}

void expect_success(pid_t child) {
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(0, WEXITSTATUS(status));
}

/// Its end to read from, and that to write to.
std::pair<unique_fd, unique_fd> new_pipe() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(0, ::pipe2(ends, O_CLOEXEC));
  return {unique_fd(ends[0]), unique_fd(ends[1])};
}

unsigned open_xdp_sockets() {
  unsigned count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    int domain = 0;
    socklen_t size = sizeof domain;
    const int fd = std::stoi(entry.path().filename());
    if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_XDP) ++count;
  }
  return count;
}

class forked : public two_hosts,
               public ::testing::WithParamInterface<ring_context::backend_choice> {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    sink = std::make_unique<udp_sink>(*b, to("10.77.1.2:9000"));
    resolve("10.77.1.2");
  }
  void TearDown() override {
    sink.reset();
    two_hosts::TearDown();
  }
  static transmitter_config config() {
    auto out = small();
    out.backend = GetParam();
    return out;
  }
  void send(sender& s, int count) {
    for (int i = 0; i < count; ++i)
      ASSERT_TRUE(eventually([&] { return s.try_send(bytes_of("parent"), destination); }));
  }
  void expect_to_arrive(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto got = sink->next();
      ASSERT_TRUE(got) << i;
      ASSERT_EQ("parent", got->bytes);
    }
  }

  const endpoint destination = to("10.77.1.2:9000");
  std::unique_ptr<udp_sink> sink;
};

INSTANTIATE_TEST_SUITE_P(backends, forked,
                         ::testing::Values(ring_context::backend_choice::io_uring,
                                           ring_context::backend_choice::epoll),
                         [](const auto& backend) {
                           return backend.param == ring_context::backend_choice::epoll ? "epoll"
                                                                                       : "io_uring";
                         });

void expect_calls_to_be_refused(transmitter& tx, sender& s, payload& p, const endpoint& to) {
  std::error_code ec;
  s.try_send(bytes_of("child!"), to, ec);
  CHILD_EXPECT(ec == error::forked);
  CHILD_EXPECT(!s.try_send(bytes_of("child!"), to));
  CHILD_EXPECT(!s.try_acquire());
  s.send(std::move(p), to, ec);
  CHILD_EXPECT(ec == error::forked);
  CHILD_EXPECT(throws_forked([&] { static_cast<void>(tx.make_sender()); }));
  static_cast<void>(tx.make_sender({}, ec));
  CHILD_EXPECT(ec == error::forked);
  CHILD_EXPECT(throws_forked([&] { static_cast<void>(tx.make_producer()); }));
  CHILD_EXPECT(throws_forked([&] { static_cast<void>(tx.watch_routes()); }));
  CHILD_EXPECT(throws_forked([&] { static_cast<void>(s.watch_path(to)); }));
  CHILD_EXPECT(throws_forked([&] { static_cast<void>(tx.stats()); }));
}

void expect_operations_to_be_refused(sender& s, const endpoint& to) {
  asio::io_context own{1};
  int refused = 0;
  const auto count = [&](std::error_code ec, const auto&...) { refused += ec == error::forked; };
  s.async_send(bytes_of("child!"), to, asio::bind_executor(own, count));
  s.async_acquire(asio::bind_executor(own, count));
  s.async_flush(asio::bind_executor(own, count));
  s.async_next_error(asio::bind_executor(own, count));
  s.async_resolve(to, asio::bind_executor(own, count));
  CHILD_EXPECT(refused == 0);
  own.run();
  CHILD_EXPECT(refused == 5);
  CHILD_EXPECT(throws_forked([&] { s.async_flush([](std::error_code) {}); }));
}

TEST_P(forked, a_child_is_refused_and_disturbs_nothing) {
  ring_context inherited({.backend = GetParam()});
  auto tx = std::make_unique<transmitter>(config());
  auto s = std::make_unique<sender>(tx->make_sender({.source_port = 8001}));
  payload p = s->try_acquire();
  ASSERT_TRUE(p);
  asio::io_context app{1};
  bool ended = false;
  s->async_next_error(
      asio::bind_executor(app, [&](std::error_code, const send_error&) { ended = true; }));
  send(*s, 20);
  const pid_t child = in_child([&] {
    expect_calls_to_be_refused(*tx, *s, p, destination);
    expect_operations_to_be_refused(*s, destination);
    CHILD_EXPECT(open_xdp_sockets() == 0);
    CHILD_EXPECT(throws_forked([&] { inherited.run(); }));
    tx->stop();
    p.reset();
    s.reset();
    tx.reset();
    ring_context own({.backend = GetParam()});
    bool ran = false;
    asio::post(own, [&] { ran = true; });
    own.run();
    CHILD_EXPECT(ran);
  });
  send(*s, 20);
  expect_success(child);
  send(*s, 20);
  expect_to_arrive(60);
  EXPECT_TRUE(drained(*tx));
  const auto stats = tx->stats();
  EXPECT_EQ(60u, stats.submitted);
  EXPECT_EQ(60u, stats.accounted()) << summary(stats);
  EXPECT_EQ(0u, sink->drain(100ms));
  EXPECT_EQ(60u, by(*tx, "a0")) << summary(stats);
  s.reset();
  app.run();
  EXPECT_TRUE(ended);
}

// What a child holds the kernel keeps: queues would be busy and ports in use.
TEST_P(forked, a_child_that_lives_on_holds_neither_queues_nor_ports) {
  auto needed = config();
  needed.interfaces = {"a0"};
  needed.mode = send_mode::copy;
  auto tx = std::make_unique<transmitter>(needed);
  auto s = tx->make_sender({.source_port = 8001});
  send(s, 1);
  auto [reader, writer] = new_pipe();
  const pid_t child = in_child([&] {
    writer.reset();
    char nothing;
    CHILD_EXPECT(::read(reader.get(), &nothing, 1) == 0);
  });
  s = sender();
  tx.reset();
  try {
    tx = std::make_unique<transmitter>(needed);  // Throws where the queue is busy.
    s = tx->make_sender({.source_port = 8001});
    send(s, 1);
    expect_to_arrive(2);
  } catch (const std::system_error& failed) {
    ADD_FAILURE() << failed.what();
  }
  writer.reset();
  expect_success(child);
}

TEST_P(forked, a_child_receives_nothing_on_a_port_and_does_not_hold_it) {
  ring_context own({.backend = GetParam()});
  for (ring_context* reads : {static_cast<ring_context*>(nullptr), &own}) {
    SCOPED_TRACE(reads == nullptr ? "control thread" : "own ring");
    auto tx = std::make_unique<transmitter>(config());
    auto p = std::make_unique<port>(tx->make_port({.send = {.source_port = 8002}, .ring = reads}));
    asio::io_context app{1};
    received_datagram lease;
    const auto receive = [&] {
      p->async_receive(asio::bind_executor(app, [&](std::error_code ec, received_datagram d) {
        EXPECT_FALSE(ec) << ec.message();
        lease = std::move(d);
      }));
      const raw_address there(to("10.77.1.1:8002"));
      EXPECT_EQ(1, ::sendto(sink->fd(), "x", 1, 0, there.name(), there.size));
      own.restart();
      own.run();
      app.restart();
      app.run();
      EXPECT_EQ(1u, lease.bytes().size());
    };
    receive();
    auto [reader, writer] = new_pipe();
    const pid_t child = in_child([&] {
      writer.reset();
      asio::io_context mine{1};
      int refused = 0;
      const auto count = [&](std::error_code ec, auto&&) { refused += ec == error::forked; };
      std::array<received_datagram, 2> into;
      p->async_receive(asio::bind_executor(mine, count));
      p->async_receive(into, asio::bind_executor(mine, count));
      mine.run();
      CHILD_EXPECT(refused == 2);
      CHILD_EXPECT(throws_forked([&] { p->async_receive([](std::error_code, auto&&) {}); }));
      CHILD_EXPECT(throws_forked([&] { static_cast<void>(tx->make_port()); }));
      lease = {};
      p.reset();
      tx.reset();
      char nothing;
      CHILD_EXPECT(::read(reader.get(), &nothing, 1) == 0);
    });
    receive();
    lease = {};
    p.reset();
    tx.reset();
    own.restart();
    own.run();
    const raw_address name(to("0.0.0.0:8002"));
    const unique_fd next(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_TRUE(eventually([&] { return ::bind(next.get(), name.name(), name.size) == 0; }, 10s));
    writer.reset();
    expect_success(child);
  }
}

TEST_P(forked, a_child_neither_serves_nor_ends_an_intake) {
  const std::string path = "/tmp/cowire-forked-intake-" + std::to_string(::getpid());
  auto tx = std::make_unique<transmitter>(config());
  auto server = std::make_unique<intake>(*tx, path);
  intake_client client(path);
  const auto hand_in = [&] {
    std::error_code ec;
    client.send(bytes_of("parent"), std::vector{destination}, 8003, ec);
    EXPECT_FALSE(ec) << ec.message();
    return client.flush(patience, ec).submitted;
  };
  EXPECT_EQ(1u, hand_in());
  auto [reader, writer] = new_pipe();
  auto [gone, ended_in_child] = new_pipe();
  const pid_t child = in_child([&] {
    writer.reset();
    CHILD_EXPECT(throws_forked([&] { static_cast<void>(server->stats()); }));
    CHILD_EXPECT(throws_forked([&] { static_cast<void>(intake(*tx, path + "-own")); }));
    server.reset();
    tx.reset();
    CHILD_EXPECT(std::filesystem::is_socket(path));
    CHILD_EXPECT(::write(ended_in_child.get(), "x", 1) == 1);
    char nothing;
    CHILD_EXPECT(::read(reader.get(), &nothing, 1) == 0);
  });
  char x;
  EXPECT_EQ(1, ::read(gone.get(), &x, 1));
  EXPECT_EQ(2u, hand_in());
  EXPECT_EQ(2u, server->stats().totals.submitted);
  expect_to_arrive(2);
  server.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
  // Nobody has the socket any more, the child that lives on neither.
  std::error_code ec;
  client.send(bytes_of("late"), std::vector{destination}, 8003, ec);
  EXPECT_EQ(std::errc::connection_refused, ec) << ec.message();
  writer.reset();
  expect_success(child);
}

TEST_P(forked, a_child_may_exec) {
  transmitter tx(config());
  auto s = tx.make_sender();
  send(s, 5);
  expect_success(in_child([] {
    ::execl("/bin/true", "true", nullptr);
    const bool returned_from_exec = true;
    CHILD_EXPECT(!returned_from_exec);
  }));
  EXPECT_EQ(0,
            std::system("exit 0"));  // NOLINT: vfork() or posix_spawn(), as the C library has it.
  send(s, 5);
  expect_to_arrive(10);
  EXPECT_TRUE(drained(tx));
}

TEST_P(forked, a_child_may_have_a_transmitter_of_its_own) {
#if defined(COWIRE_THREAD_SANITIZER)
  GTEST_SKIP() << "ThreadSanitizer cannot follow new threads of a child whose parent had several";
#endif
  transmitter tx(config());
  auto s = tx.make_sender();
  send(s, 5);
  auto own_config = config();
  own_config.mode = send_mode::kernel;  // The queue is the parent's.
  expect_success(in_child([&] {
    transmitter own(own_config);
    auto mine = own.make_sender();
    for (int i = 0; i < 5; ++i) CHILD_EXPECT(mine.try_send(bytes_of("parent"), destination));
    CHILD_EXPECT(drained(own));
    CHILD_EXPECT(own.stats().kernel_path == 5);
  }));
  send(s, 5);
  expect_to_arrive(15);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(10u, tx.stats().submitted);
}

TEST_P(forked, forks_beside_a_stream_neither_lose_nor_double_anything) {
  transmitter tx(config());
  auto s = tx.make_sender();
  stream beside(tx, destination, "parent");
  for (int round = 0; round < 10; ++round) {
    send(s, 10);
    expect_success(in_child([&] {
      for (int i = 0; i < 2000; ++i) CHILD_EXPECT(!s.try_send(bytes_of("child!"), destination));
    }));
  }
  beside.stop();
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1024u, beside.free_frames());
  const auto stats = tx.stats();
  EXPECT_EQ(100u + beside.sent, stats.submitted);
  EXPECT_EQ(stats.submitted, stats.accounted()) << summary(stats);
  expect_to_arrive(stats.submitted);
  EXPECT_EQ(0u, sink->drain(100ms));
}

class forked_watcher : public two_hosts {};

TEST_F(forked_watcher, a_child_is_refused_and_the_parent_goes_on_hearing) {
  auto watcher = std::make_unique<route_watcher>();
  auto changes = std::make_unique<route_events>(watcher->watch());
  outcome<std::error_code, route_change> heard;
  changes->async_next(heard.handler());
  expect_success(in_child([&] {
    CHILD_EXPECT(throws_forked([&] { static_cast<void>(watcher->stats()); }));
    CHILD_EXPECT(throws_forked([&] { static_cast<void>(watcher->watch()); }));
    asio::io_context own{1};
    bool refused = false;
    changes->async_next(asio::bind_executor(
        own, [&](std::error_code ec, const route_change&) { refused = ec == error::forked; }));
    own.run();
    CHILD_EXPECT(refused);
    changes.reset();
    watcher.reset();
  }));
  (*a)("ip route add 10.99.0.0/16 via 10.77.1.2");
  for (std::string about; about != "10.99.0.0/16";) {
    ASSERT_EQ(std::future_status::ready, heard.future.wait_for(patience));
    const auto [ec, change] = heard.future.get();
    ASSERT_FALSE(ec) << ec.message();
    about = change.destination;
    heard = {};
    changes->async_next(heard.handler());
  }
  EXPECT_LT(0u, watcher->stats().version);
}

}  // namespace
}  // namespace cowire::test
