// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/intake.hpp>

#include <tests/async/two_hosts.hpp>

#include <sys/stat.h>
#include <sys/un.h>

#include <set>

namespace cowire::test {
namespace {

class intake_server : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    sink = std::make_unique<udp_sink>(*b, to("10.77.1.2:9000"));
    resolve("10.77.1.2");
    path = "/tmp/cowire-intake-" + std::to_string(::getpid());
    ::unlink(path.c_str());
  }
  void TearDown() override {
    sink.reset();
    two_hosts::TearDown();
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
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  ASSERT_EQ(0, ::connect(raw.get(), reinterpret_cast<sockaddr*>(&address), sizeof address));
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

TEST_F(intake_server, replaces_a_stale_path_but_not_one_that_is_served) {
  transmitter tx(small());
  {
    const unique_fd stale(::socket(AF_UNIX, SOCK_DGRAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(0, ::bind(stale.get(), reinterpret_cast<sockaddr*>(&address), sizeof address));
  }
  {
    const intake server(tx, path);
    struct stat status {};
    ASSERT_EQ(0, ::stat(path.c_str(), &status));
    EXPECT_EQ(0660u, status.st_mode & 0777u);
    EXPECT_THROW(intake(tx, path), std::system_error);
  }
  EXPECT_NE(0, ::access(path.c_str(), F_OK));
  EXPECT_THROW(intake_client{path}, std::system_error);
}

}  // namespace
}  // namespace cowire::test
