// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/backing_socket.hpp>
#include <cowire/async/intake.hpp>

#include <tests/support/two_hosts.hpp>

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <fstream>
#include <mutex>
#include <set>

namespace cowire::test {
namespace {

/// Runs `work` on a thread with credentials of its own, changed by `become` (each thread has its
/// own to the kernel; it is the C library that changes all of them at once).
void with_credentials(const std::function<bool()>& become, const std::function<void()>& work) {
  std::thread([&] {
    ASSERT_TRUE(become());
    ::prctl(PR_SET_DUMPABLE, 1);  // The process was not any more; sanitizers look into it.
    work();
  }).join();
}

void as_user(uid_t user, const std::function<void()>& work) {
  with_credentials([&] { return ::syscall(SYS_setresuid, user, user, user) == 0; }, work);
}

bool drop_capability(unsigned which) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) return false;
  data[which / 32].effective &= ~(1u << which % 32);
  data[which / 32].permitted &= ~(1u << which % 32);
  return ::syscall(SYS_capset, &header, data.data()) == 0;
}

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

/// A socket file that this process serves as long as it lives.
unique_fd bound_to(const std::string& path) {
  unique_fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto address = unix_address(path);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw_error(errno_code(errno), path);
  return fd;
}

struct log_lines {
  log_callback callback() {
    return [this](log_severity, std::string_view line) {
      const std::lock_guard lock(mutex);
      all += std::string(line) + "\n";
    };
  }
  bool contain(const std::string& text) {
    const std::lock_guard lock(mutex);
    return all.find(text) != std::string::npos;
  }
  std::mutex mutex;
  std::string all;
};

class intake_server : public two_links {
 protected:
  void SetUp() override {
    two_links::SetUp();
    if (IsSkipped()) return;
    sink = std::make_unique<udp_sink>(*b, to("10.77.1.2:9000"));
    resolve("10.77.1.2");
    path = "/tmp/cowire-intake-" + std::to_string(::getpid());
    std::filesystem::remove_all(path);
  }
  /// Hands in one datagram for each port; this client's totals.
  intake_totals send_from(std::uint16_t first, std::size_t count) {
    intake_client client(path);
    std::error_code ec;
    for (std::size_t i = 0; i < count; ++i) {
      client.send(bytes_of("x"), std::vector{to("10.77.1.2:9000")},
                  static_cast<std::uint16_t>(first + i), ec);
      EXPECT_FALSE(ec) << ec.message();
    }
    const auto totals = client.flush(30s, ec);
    EXPECT_FALSE(ec) << ec.message();
    return totals;
  }
  void TearDown() override {
    sink.reset();
    two_links::TearDown();
  }
  std::unique_ptr<udp_sink> sink;
  std::string path;
};

TEST_F(intake_server, sends_what_several_clients_hand_in_from_the_ports_they_name) {
  transmitter tx(small());
  const intake server(tx, path);
  constexpr int clients = 4, each = 500;
  const std::vector<endpoint> one = {to("10.77.1.2:9000")};
  std::vector<std::thread> threads;
  for (int c = 0; c < clients; ++c)
    threads.emplace_back([&, c] {
      intake_client client(path);
      std::error_code ec;
      for (int i = 0; i < each; ++i) {
        const auto text = std::to_string(c) + "/" + std::to_string(i);
        client.send(bytes_of(text), one, static_cast<std::uint16_t>(8001 + c), ec);
        ASSERT_FALSE(ec) << ec.message();
      }
      const auto totals = client.flush(10s, ec);
      EXPECT_FALSE(ec) << ec.message();
      EXPECT_EQ((intake_totals{.messages = each, .submitted = each}), totals);
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(0u, tx.stats().on_the_way()) << summary(tx.stats());
  std::vector<int> next(clients);
  for (int i = 0; i < clients * each; ++i) {
    const auto got = sink->next();
    ASSERT_TRUE(got) << i << " " << summary(tx.stats());
    const auto c = static_cast<std::size_t>(got->bytes[0] - '0');
    EXPECT_EQ(8001 + c, got->from.port);
    EXPECT_EQ(std::to_string(c) + "/" + std::to_string(next[c]++), got->bytes);
  }
  EXPECT_EQ(static_cast<std::uint64_t>(clients * each), server.stats().totals.submitted);
  EXPECT_EQ(static_cast<std::size_t>(clients), server.stats().clients);
}

/// With names of 20 bits, as the kernel picks them, two of so many have the same.
TEST_F(intake_server, a_client_does_not_inherit_the_totals_of_one_that_has_gone) {
  transmitter tx(small());
  const intake server(tx, path, {.client_limit = 4096});
  for (int c = 0; c < 3000; ++c) {
    intake_client client(path);
    std::error_code ec;
    client.send(bytes_of("x"), std::vector{to("10.77.1.2:9000")}, 8001, ec);
    ASSERT_FALSE(ec) << ec.message();
    ASSERT_EQ(1u, client.flush(20s, ec).submitted) << c;
  }
}

TEST_F(intake_server, a_fan_out_of_any_size_is_split_and_sent) {
  transmitter tx(small());
  const intake server(tx, path);
  intake_client client(path);
  const std::vector<endpoint> many(3000, to("10.77.1.2:9000"));
  std::error_code ec;
  const std::string text(600, 'x');
  client.send(bytes_of(text), many, 0, ec);
  ASSERT_FALSE(ec);
  EXPECT_EQ(3000u, client.flush(10s, ec).submitted);
  EXPECT_FALSE(ec) << ec.message();
  for (int i = 0; i < 3000; ++i) {
    const auto got = sink->next();
    ASSERT_TRUE(got);
    ASSERT_EQ(text, got->bytes);
  }
}

TEST_F(intake_server, malformed_messages_are_counted_and_harm_nobody) {
  transmitter tx(small());
  const intake server(tx, path);
  const unique_fd raw(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto address = unix_address(path);
  ASSERT_EQ(0, ::connect(raw.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  const std::string garbage(3000, 'g');  // The longer ones do not fit a frame.
  for (std::size_t size : {1u, 31u, 32u, 33u, 2000u, 3000u})
    ASSERT_EQ(static_cast<ssize_t>(size), ::send(raw.get(), garbage.data(), size, 0));
  intake_client client(path);
  std::error_code ec;
  const std::vector<endpoint> one = {to("10.77.1.2:9000")};
  client.send(bytes_of("good"), one, 0, ec);
  EXPECT_EQ(1u, client.flush(10s, ec).submitted);
  EXPECT_EQ(6u, server.stats().totals.refused);
  EXPECT_TRUE(sink->next());
}

TEST_F(intake_server, options_out_of_their_ranges_are_refused_by_name) {
  transmitter tx(small());
  const auto expect_refused = [&](const std::string& option, const intake_options& wanted) {
    try {
      const intake server(tx, path, wanted);
      ADD_FAILURE() << option << " not refused";
    } catch (const std::system_error& refused) {
      EXPECT_EQ(make_error_code(error::invalid_argument), refused.code()) << refused.what();
      EXPECT_EQ(0u, std::string(refused.what()).find(option)) << refused.what();
    }
    EXPECT_FALSE(std::filesystem::exists(path));
  };
  for (const std::size_t wrong : {std::size_t{0}, intake_options::limit_max + 1, SIZE_MAX}) {
    expect_refused("client_limit", {.client_limit = wrong});
    expect_refused("ports_per_client", {.ports_per_client = wrong});
    expect_refused("port_limit", {.port_limit = wrong});
  }
  for (const auto wrong :
       {-1ms, std::chrono::milliseconds::min(), std::chrono::milliseconds::max()})
    expect_refused("port_idle", {.port_idle = wrong});
  const intake server(
      tx, path,
      {.client_limit = 1, .ports_per_client = 1, .port_limit = 1, .port_idle = interval_max});
  EXPECT_EQ(1u, send_from(8001, 1).submitted);
}

TEST_F(intake_server, replaces_a_stale_path_but_not_one_that_is_served) {
  transmitter tx(small());
  for (int round = 0; round < 2; ++round) {
    bound_to(path).reset();
    const intake server(tx, path);
    struct stat status {};
    ASSERT_EQ(0, ::stat(path.c_str(), &status));
    EXPECT_EQ(0660u, status.st_mode & 0777u);
    EXPECT_THROW(intake(tx, path), std::system_error);
    EXPECT_EQ(1u, send_from(0, 1).submitted) << "the one that was refused left the other alone";
  }
  EXPECT_NE(0, ::access(path.c_str(), F_OK));
  EXPECT_THROW(intake_client{path}, std::system_error);
}

TEST_F(intake_server, leaves_alone_what_is_not_a_socket) {
  transmitter tx(small());
  const std::string other = path + "-other";
  std::ofstream(other) << "precious";
  const auto refuse = [&](const char* text) {
    try {
      const intake server(tx, path);
      ADD_FAILURE() << "it served " << text;
    } catch (const std::system_error& e) {
      EXPECT_NE(std::string::npos, std::string(e.what()).find(text)) << e.what();
      EXPECT_EQ(EEXIST, e.code().value());
    }
    EXPECT_TRUE(std::filesystem::exists(std::filesystem::symlink_status(path))) << text;
    std::filesystem::remove_all(path);
  };
  std::ofstream(path) << "precious";
  refuse("a regular file");
  std::filesystem::create_symlink(other, path);
  refuse("a symbolic link");
  std::filesystem::create_symlink(path + "-nowhere", path);
  refuse("a symbolic link");
  bound_to(other + "-stale").reset();
  std::filesystem::create_symlink(other + "-stale", path);
  refuse("a symbolic link");
  std::filesystem::create_directory(path);
  refuse("a directory");
  ASSERT_EQ(0, ::mkfifo(path.c_str(), 0600));
  refuse("not a socket");
  std::string text;
  std::getline(std::ifstream(other), text);
  EXPECT_EQ("precious", text);
  EXPECT_TRUE(std::filesystem::is_socket(other + "-stale"));
  std::filesystem::remove(other);
  std::filesystem::remove(other + "-stale");
}

TEST_F(intake_server, removes_at_its_end_only_what_is_its_own) {
  transmitter tx(small());
  unique_fd others;
  {
    const intake server(tx, path);
    ASSERT_EQ(0, ::unlink(path.c_str()));
    others = bound_to(path);
  }
  EXPECT_TRUE(std::filesystem::is_socket(path)) << "another process's socket";
  others.reset();
  {
    const intake server(tx, path);
    std::filesystem::remove(path);
    std::ofstream(path) << "precious";
  }
  EXPECT_TRUE(std::filesystem::is_regular_file(path));
  std::filesystem::remove(path);
}

/// A plain socket finds the port taken while it is used, and free a while after.
TEST_F(intake_server, a_port_that_nobody_uses_any_more_is_closed) {
  transmitter tx(small());
  const intake server(tx, path, {.port_idle = 3s});
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(1u, send_from(8001, 1).submitted);
    EXPECT_TRUE(eventually([&] {
      try {
        const udp_sink plain(*a, to("0.0.0.0:8001"));
        return true;
      } catch (const std::system_error&) {
        return false;
      }
    }));
    EXPECT_EQ(0u, server.stats().ports);
  }
}

TEST_F(intake_server, a_client_has_no_more_ports_than_it_may) {
  log_lines log;
  auto config = small();
  config.log = log.callback();
  transmitter tx(config);
  const intake server(tx, path, {.ports_per_client = 4});
  const auto totals = send_from(8001, 50);
  EXPECT_EQ(50u, totals.submitted + totals.failed);
  EXPECT_LE(4u, totals.submitted);
  EXPECT_GE(4u, server.stats().ports);
  // On a machine that is busy enough none is refused: all are old when the next is wanted.
  if (totals.failed != 0) {
    EXPECT_TRUE(log.contain("uses 4 source ports")) << log.all;
  }
}

TEST_F(intake_server, a_user_that_hoards_ports_denies_them_to_nobody) {
  transmitter tx(small());
  const intake server(tx, path, {.ports_per_client = 64, .port_limit = 12});
  ASSERT_EQ(0, ::chmod(path.c_str(), 0666));
  for (int round = 0; round < 2; ++round) {
    // In the second round the other has 5 of the 12.
    as_user(1001, [&] { EXPECT_LE(round == 0 ? 12u : 7u, send_from(8001, 30).submitted); });
    as_user(1002, [&] { EXPECT_EQ(5u, send_from(9001, 5).submitted); });
    EXPECT_GE(12u, server.stats().ports);
  }
}

/// As with plain sockets of two users.
TEST_F(intake_server, a_port_is_one_users_at_a_time) {
  log_lines log;
  auto config = small();
  config.log = log.callback();
  transmitter tx(config);
  const intake server(tx, path);
  ASSERT_EQ(0, ::chmod(path.c_str(), 0666));
  as_user(1001, [&] { EXPECT_EQ(1u, send_from(8001, 1).submitted); });
  as_user(1002, [&] {
    EXPECT_EQ(1u, send_from(8001, 1).failed);
    EXPECT_EQ(1u, send_from(8002, 1).submitted);
  });
  EXPECT_TRUE(log.contain("user 1002")) << log.all;
  as_user(1001, [&] { EXPECT_EQ(1u, send_from(8001, 1).submitted); });
}

TEST_F(intake_server, without_privilege_nothing_is_sent_for_other_users) {
  log_lines log;
  auto config = small();
  config.log = log.callback();
  transmitter tx(config);
  std::optional<intake> server;
  with_credentials([] { return drop_capability(CAP_SETUID); },  // Its thread inherits that.
                   [&] { server.emplace(tx, path); });
  ASSERT_EQ(0, ::chmod(path.c_str(), 0666));
  EXPECT_EQ(1u, send_from(0, 1).submitted);
  as_user(1001, [&] { EXPECT_EQ((intake_totals{.messages = 1, .failed = 1}), send_from(0, 1)); });
  EXPECT_TRUE(log.contain("CAP_SETUID")) << log.all;
}

/// Descriptors would be the server's then, until it has no more.
TEST_F(intake_server, descriptors_that_a_client_passes_are_not_taken) {
  transmitter tx(small());
  const intake server(tx, path);
  EXPECT_EQ(1u, send_from(0, 1).submitted);
  const auto descriptors = [] {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  const unique_fd raw(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto address = unix_address(path);
  ASSERT_EQ(0, ::connect(raw.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  const auto before = descriptors();
  for (int i = 0; i < 50; ++i) {
    detail::send_control control;
    const int passed = raw.get();
    control.add(SOL_SOCKET, SCM_RIGHTS, &passed, sizeof passed);
    char byte = 'x';
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes.data();
    message.msg_controllen = control.size;
    ASSERT_EQ(1, ::sendmsg(raw.get(), &message, 0));
  }
  EXPECT_TRUE(eventually([&] { return server.stats().totals.refused == 50; }));
  EXPECT_EQ(before, descriptors());
}

/// What the server has received already of one client does not go first: with one queue for all,
/// nothing that was handed in before the other's datagram leaves after it.
TEST_F(intake_server, a_flood_does_not_go_before_others) {
  const udp_sink copies(*b, to("10.77.1.2:9002"));  // Never read.
  transmitter tx(small());
  const intake server(tx, path);
  std::atomic<bool> done{false};
  std::atomic<int> flooded{0};
  std::thread flood([&] {
    intake_client client(path);
    std::vector<endpoint> many(60, to("10.77.1.2:9002"));
    many.push_back(to("10.77.1.2:9000"));
    std::error_code ec;
    for (; !done && !ec; ++flooded) client.send(bytes_of(std::to_string(flooded)), many, 8001, ec);
  });
  const auto waiting = [&] {
    return flooded - static_cast<int>(server.stats().totals.messages) >= 200;
  };
  intake_client other(path);
  std::error_code ec;
  int overtaken = 0;
  // One attempt is enough, but when this thread sleeps for long in the middle of it.
  for (int attempt = 0; attempt < 20 && overtaken == 0; ++attempt) {
    ASSERT_TRUE(eventually(waiting));
    const int before = flooded;
    other.send(bytes_of("other"), std::vector{to("10.77.1.2:9000")}, 8002, ec);
    other.flush(60s, ec);
    ASSERT_FALSE(ec) << ec.message();
    bool passed = false;
    for (int last = -1; !passed || last < before;) {
      const auto got = sink->next(30s);
      ASSERT_TRUE(got);
      if (got->bytes == "other") {
        passed = true;
        continue;
      }
      last = std::stoi(got->bytes);
      overtaken += passed && last < before;
    }
  }
  EXPECT_GT(overtaken, 0);
  done = true;
  flood.join();
}

TEST_F(intake_server, what_the_kernel_refuses_counts_as_its_clients) {
  (*a)("ip route add unreachable 30.0.0.0/24");
  transmitter tx(small());
  const intake server(tx, path);
  intake_client refused(path), other(path);
  std::error_code ec;
  const std::vector<endpoint> several{to("30.0.0.1:9000"), to("10.77.1.2:9000"),
                                      to("30.0.0.2:9000")};
  for (std::uint64_t round = 1; round <= 2; ++round) {
    refused.send(bytes_of("x"), several, 8001, ec);
    other.send(bytes_of("x"), std::vector{to("10.77.1.2:9000")}, 8001, ec);
    EXPECT_EQ(
        (intake_totals{.messages = round, .submitted = 3 * round, .kernel_refused = 2 * round}),
        refused.flush(30s, ec));
    EXPECT_EQ((intake_totals{.messages = round, .submitted = round}), other.flush(30s, ec));
    ASSERT_FALSE(ec) << ec.message();
  }
  EXPECT_EQ(4u, server.stats().totals.kernel_refused);
  EXPECT_EQ(4u, tx.stats().refused["EHOSTUNREACH"]);
}

/// As clients of the first version ask, with any source port but one.
TEST_F(intake_server, a_client_that_knows_the_short_reply_gets_it) {
  transmitter tx(small());
  const intake server(tx, path);
  const unique_fd raw = bound_to(path + "-client");
  const auto address = unix_address(path);
  ASSERT_EQ(0, ::connect(raw.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  for (const std::uint16_t port : std::array<std::uint16_t, 3>{0, 8001, 2}) {
    intake_header asked;
    asked.type = intake_type::flush;
    asked.token = 7;
    asked.source_port = port;
    ASSERT_EQ(32, ::send(raw.get(), &asked, sizeof asked, 0));
    std::array<char, 128> reply{};
    EXPECT_EQ(port == intake_all_totals ? 72 : 64,
              ::recv(raw.get(), reply.data(), reply.size(), 0));
    std::memcpy(&asked, reply.data(), sizeof asked);
    EXPECT_EQ(intake_type::reply, asked.type);
    EXPECT_EQ(intake_version, asked.version);
    EXPECT_EQ(7u, asked.token);
  }
  std::filesystem::remove(path + "-client");
}

TEST_F(intake_server, a_client_understands_a_server_that_gives_short_replies) {
  const unique_fd server = bound_to(path);
  std::thread serving([&] {
    intake_reply reply;
    sockaddr_un from{};
    socklen_t size = sizeof from;
    auto* const address = reinterpret_cast<sockaddr*>(&from);
    EXPECT_EQ(32, ::recvfrom(server.get(), &reply, sizeof reply, 0, address, &size));
    reply.header.type = intake_type::reply;
    reply.totals.submitted = 3;
    reply.totals.kernel_refused = 5;  // Behind the short reply.
    EXPECT_EQ(64, ::sendto(server.get(), &reply, intake_short_reply_size, 0, address, size));
  });
  intake_client client(path);
  std::error_code ec;
  EXPECT_EQ(intake_totals{.submitted = 3}, client.flush(30s, ec));
  EXPECT_FALSE(ec) << ec.message();
  serving.join();
  std::filesystem::remove(path);
}

/// Of either producer: what is received, and the copies of a fan-out.
TEST_F(intake_server, a_flush_does_not_wait_for_what_stays_of_other_clients) {
  for (const char* name : {"mcast_solicit=100000", "unres_qlen_bytes=1073741824"})
    (*a)(std::string("sysctl -qw net.ipv4.neigh.a0.") + name);
  transmitter tx(small());
  const intake server(tx, path);
  intake_client stuck(path);
  std::error_code ec;
  const std::vector<endpoint> many(50, to("10.77.1.99:9000"));  // It never answers.
  const std::string text(800, 'x');
  const auto a_socket_is_full = [&] {
    for (int i = 0; i < 50 && !ec; ++i) stuck.send(bytes_of(text), many, 8001, ec);
    return ec || tx.stats().refused["EAGAIN"] != 0;
  };
  ASSERT_TRUE(eventually(a_socket_is_full));
  ASSERT_FALSE(ec) << ec.message();
  const std::vector<endpoint> here(3, to("10.77.1.2:9000"));
  for (int round = 0; round < 2; ++round) {
    stuck.flush(100ms, ec);
    EXPECT_EQ(std::errc::timed_out, ec) << "its own stay";
    intake_client other(path);
    for (int i = 0; i < 5; ++i) other.send(bytes_of("y"), here, 7001, ec);
    EXPECT_EQ((intake_totals{.messages = 5, .submitted = 15}), other.flush(30s, ec));
    ASSERT_FALSE(ec) << ec.message() << summary(tx.stats());
    for (int i = 0; i < 15; ++i) ASSERT_TRUE(sink->next()) << i << summary(tx.stats());
  }
}

/// The same address in both families, behind either link, by the uid of who sends.
class intake_users : public intake_server {
 protected:
  void SetUp() override {
    intake_server::SetUp();
    if (IsSkipped()) return;
    (*b)("ip -6 route add local fd78::/64 dev lo");
    (*b)("sysctl -qw net.ipv6.ip_nonlocal_bind=1");
    for (const char* family : {"-4", "-6"}) {
      const bool v4 = std::string(family) == "-4";
      const std::string where = v4 ? "10.78.0.0/16" : "fd78::/64";
      const std::string ip = std::string("ip ") + family;
      (*a)(ip + " route add " + where + " via " + (v4 ? "10.77.1.2" : "fd77:1::2"));
      (*a)(ip + " route add " + where + " table 100 via " + (v4 ? "10.77.2.2" : "fd77:2::2"));
      (*a)(ip + " rule add uidrange 1001-1001 lookup 100");
    }
    resolve("10.77.2.2");
    resolve("fd77:1::2");
    resolve("fd77:2::2");
  }
  static void send_plainly(const endpoint& destination, const std::string& text) {
    const raw_address there(destination);
    const unique_fd fd(::socket(there.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(static_cast<ssize_t>(text.size()),
              ::sendto(fd.get(), text.data(), text.size(), 0, there.name(), there.size));
  }
};

class intake_users_by_mode : public intake_users,
                             public ::testing::WithParamInterface<const char*> {};

TEST_P(intake_users_by_mode, datagrams_take_the_way_of_a_plain_socket_of_their_user) {
  auto config = small();
  if (GetParam() == std::string("kernel")) config.mode = send_mode::kernel;
  transmitter tx(config);
  const intake server(tx, path);
  ASSERT_EQ(0, ::chmod(path.c_str(), 0666));
  for (const std::string address : {"10.78.0.1", "[fd78::1]"}) {
    udp_sink left(*b, to(address + ":9000"), "b0"), right(*b, to(address + ":9000"), "b1");
    for (int round = 0; round < 2; ++round)
      for (const uid_t user : {0u, 1001u, 1002u}) {
        SCOPED_TRACE(address + " user " + std::to_string(user));
        as_user(user, [&] {
          send_plainly(to(address + ":9000"), "plain");
          intake_client client(path);
          std::error_code ec;
          client.send(bytes_of("handed in"), std::vector{to(address + ":9000")}, 0, ec);
          EXPECT_EQ(1u, client.flush(30s, ec).submitted);
          EXPECT_FALSE(ec) << ec.message();
        });
        udp_sink& expected = user == 1001 ? right : left;
        std::set<std::string> got;
        for (int i = 0; i < 2; ++i)
          if (const auto one = expected.next(30s)) got.insert(one->bytes);
        EXPECT_EQ((std::set<std::string>{"plain", "handed in"}), got) << summary(tx.stats());
      }
  }
  EXPECT_EQ(12u, tx.stats().submitted);
  if (GetParam() == std::string("kernel")) {
    EXPECT_EQ(12u, tx.stats().kernel_path);
  } else {
    EXPECT_LT(0u, by(tx, "a0")) << summary(tx.stats());
    EXPECT_LT(0u, by(tx, "a1")) << summary(tx.stats());
  }
}

/// Firewalls look at the open file of a socket, rules at its inode.
TEST_F(intake_users, firewalls_take_them_for_their_users_own) {
  if (std::system("nft --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs nft";
  (*a)("nft add table inet t");
  (*a)("nft 'add chain inet t out { type filter hook output priority 0; }'");
  (*a)("nft add rule inet t out udp dport 9000 meta skuid 1001 counter");
  auto config = small();
  config.mode = send_mode::kernel;
  transmitter tx(config);
  const intake server(tx, path);
  ASSERT_EQ(0, ::chmod(path.c_str(), 0666));
  for (const uid_t user : {0u, 1001u, 1002u})
    as_user(user, [&] {
      send_plainly(to("10.77.1.2:9000"), "plain");
      EXPECT_EQ(1u, send_from(0, 1).submitted);
    });
  const std::string rules = (*a)("nft list table inet t");
  EXPECT_NE(std::string::npos, rules.find("packets 2 ")) << rules;
}

INSTANTIATE_TEST_SUITE_P(, intake_users_by_mode, ::testing::Values("fast", "kernel"),
                         [](const auto& one) { return std::string(one.param); });

/// Whether any UDP socket of the calling thread's network namespace has this port.
bool is_bound(std::uint16_t port) {
  char end[8];
  std::snprintf(end, sizeof end, ":%04X ", port);
  std::ifstream file("/proc/thread-self/net/udp");
  return std::string(std::istreambuf_iterator<char>(file), {}).find(end) != std::string::npos;
}

TEST_F(intake_server, ends_on_the_control_thread_while_its_own_waits_for_that_one) {
  transmitter tx(small());
  auto server = std::make_unique<intake>(tx, path);
  const auto control = tx.make_sender();
  std::promise<void> over;
  asio::post(control.get_executor(), [&] {
    intake_client client(path);
    std::error_code ec;
    client.send(bytes_of("last"), std::vector{to("10.77.1.2:9000")}, 8001, ec);
    EXPECT_FALSE(ec) << ec.message();
    // A sender is made of the port next, on the control thread: here.
    EXPECT_TRUE(eventually([] { return is_bound(8001); }));
    server.reset();
    over.set_value();
  });
  ASSERT_EQ(std::future_status::ready, over.get_future().wait_for(patience));
  const auto got = sink->next();
  ASSERT_TRUE(got) << summary(tx.stats());
  EXPECT_EQ("last", got->bytes);
  EXPECT_TRUE(eventually([&] { return !std::filesystem::exists(path); }));
}

TEST_F(intake_server, takes_messages_of_the_members_of_its_files_group) {
  constexpr gid_t group = 4321, other = 4322;
  transmitter tx(small());
  const intake server(tx, path, {.group = group});
  struct stat file {};
  ASSERT_EQ(0, ::stat(path.c_str(), &file));
  EXPECT_EQ(group, file.st_gid);
  EXPECT_EQ(0660u, file.st_mode & 07777);
  const auto as_member_of = [](gid_t of, const std::function<void()>& work) {
    with_credentials(
        [&] {
          return ::syscall(SYS_setgroups, 0, nullptr) == 0 &&
                 ::syscall(SYS_setresgid, of, of, of) == 0 &&
                 ::syscall(SYS_setresuid, 4321, 4321, 4321) == 0;
        },
        work);
  };
  as_member_of(group, [&] { EXPECT_NO_THROW(intake_client{path}); });
  as_member_of(other, [&] {
    try {
      intake_client{path};
      ADD_FAILURE() << "not refused";
    } catch (const std::system_error& refused) {
      EXPECT_EQ(EACCES, refused.code().value()) << refused.what();
    }
  });
}

/// Somebody's socket that takes the name just now, when the file cannot be given to the group.
TEST_F(intake_server, a_start_that_fails_leaves_alone_what_took_the_name) {
  transmitter tx(small());
  as_user(4321, [&] {
    path += "-of-4321";
    int taken = 0;
    for (int round = 0; round < 5000 && taken < 20; ++round) {
      const std::string other = path + "-other";
      const unique_fd others = bound_to(other);
      std::atomic<bool> over{false};
      std::thread takes([&] {
        while (!over && ::access(path.c_str(), F_OK) != 0) continue;
        taken += !over && ::rename(other.c_str(), path.c_str()) == 0;
      });
      EXPECT_THROW(intake(tx, path, {.group = 4322}), std::system_error);
      over = true;
      takes.join();
      if (std::filesystem::remove(other)) continue;
      ASSERT_TRUE(std::filesystem::remove(path)) << "what another process serves is gone";
    }
    EXPECT_LT(0, taken);
  });
}

TEST_F(intake_server, a_path_without_a_name_is_refused) {
  transmitter tx(small());
  std::filesystem::create_directory(path);
  for (const char* end : {"/", "/.", "/.."}) try {
      const intake server(tx, path + end);
      ADD_FAILURE() << "it served " << path << end;
    } catch (const std::system_error& refused) {
      EXPECT_EQ(make_error_code(error::invalid_argument), refused.code()) << refused.what();
      EXPECT_NE(std::string::npos, std::string(refused.what()).find("is a directory"));
    }
  EXPECT_TRUE(std::filesystem::remove(path));
}

TEST_F(intake_server, says_what_a_foreign_group_takes) {
  transmitter tx(small());
  as_user(4321, [&] {
    path += "-of-4321";
    try {
      const intake server(tx, path, {.group = 4322});
      ADD_FAILURE() << "not refused";
    } catch (const std::system_error& refused) {
      EXPECT_NE(std::string::npos, std::string(refused.what()).find("CAP_CHOWN")) << refused.what();
    }
    EXPECT_FALSE(std::filesystem::exists(path));
  });
}

}  // namespace
}  // namespace cowire::test
