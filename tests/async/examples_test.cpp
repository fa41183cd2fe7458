// SPDX-License-Identifier: Apache-2.0
// Each example does what its first lines say. EXAMPLES_DIR is set by the build.
#include <tests/support/child.hpp>
#include <tests/support/two_hosts.hpp>

namespace cowire::test {
namespace {

const std::string directory = EXAMPLES_DIR "/";

using examples = two_hosts;

TEST_F(examples, async_sender) {
  udp_sink sink(*b, to("10.77.1.2:9000"));
  resolve("10.77.1.2");  // Or the fast path overtakes what the kernel path resolves it with.
  const auto out = run(directory + "async_sender 10.77.1.2:9000 20");
  EXPECT_NE(std::string::npos, out.find("submitted 20")) << out;
  for (int i = 0; i < 20; ++i) {
    const auto got = sink.next();
    ASSERT_TRUE(got) << i;
    EXPECT_EQ("datagram " + std::to_string(i), got->bytes);
  }
}

TEST_F(examples, fan_out) {
  udp_sink four(*b, to("10.77.1.2:9000")), six(*b, to("[fd77:1::2]:9001"));
  const auto out = run(directory + "fan_out 10.77.1.2:9000 [fd77:1::2]:9001");
  EXPECT_EQ("sent to 2 destinations\n", out);
  EXPECT_TRUE(four.next());
  EXPECT_TRUE(six.next());
}

TEST_F(examples, route_watch) {
  running_command watch(directory + "route_watch 1");
  std::string line = watch.line();
  EXPECT_EQ(0u, line.find("watching ")) << line;
  (*a)("ip route add 10.78.0.0/16 via 10.77.1.2");
  line = watch.line();
  EXPECT_NE(std::string::npos, line.find("route 10.78.0.0/16 via 10.77.1.2 dev a0 table main"))
      << line;
  EXPECT_EQ(0, watch.wait());
}

TEST_F(examples, route_watch_of_one_destination) {
  (*a)("ip route add 10.78.0.0/16 via 10.77.1.2");
  resolve("10.77.1.2");
  running_command watch(directory + "route_watch to 10.78.0.1:9000 2");
  EXPECT_EQ("fast via 10.77.1.2 dev a0 src 10.77.1.1 mtu 1500 egress a0 mac " + mac_of("b0") + "\n",
            watch.line());
  (*a)("ip route replace prohibit 10.78.0.1");
  const std::string line = watch.line();
  EXPECT_EQ(0u, line.find("refused error EACCES divert rejected")) << line;
  EXPECT_EQ(0, watch.wait());
}

TEST_F(examples, asio_app) {
  udp_sink echo(*b, to("10.77.1.2:9000"));
  std::thread peer([&] {
    for (int i = 0; i < 3; ++i) {
      const auto got = echo.next();
      ASSERT_TRUE(got);
      const raw_address back(got->from);
      ::sendto(echo.fd(), "pong", 4, 0, back.name(), back.size);
    }
  });
  const auto out = run(directory + "asio_app 10.77.1.2:9000 3");
  peer.join();
  EXPECT_EQ("0: answer\n1: answer\n2: answer\n", out);
}

// Also the README's second one.
TEST_F(examples, echo_server) {
  const running_command server(directory + "echo_server");
  udp_sink client(*b, to("10.77.1.2:7000"));
  const raw_address there(to("10.77.1.1:9000"));
  const auto answered = [&](const std::string& text, std::chrono::milliseconds limit) {
    ::sendto(client.fd(), text.data(), text.size(), 0, there.name(), there.size);
    auto got = client.next(limit);
    while (got && got->bytes == "ready?" && text != "ready?") got = client.next(limit);
    return got && got->bytes == text && got->from == to("10.77.1.1:9000");
  };
  EXPECT_TRUE(eventually([&] { return answered("ready?", 100ms); }));
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(answered(std::to_string(i), patience)) << i;
}

TEST_F(examples, paced_sender) {
  running_command sender(directory + "paced_sender 500 10.77.1.2:9000 10.77.1.2:9001");
  // Nobody is at the other port, and the network says so.
  udp_sink sink(*b, to("10.77.1.2:9000"));
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(sink.next()) << i;
  sender.signal(SIGINT);
  const std::string out = sender.rest();
  EXPECT_NE(std::string::npos, out.find("10.77.1.2:9001: Connection refused (the network)\n"))
      << out;
  EXPECT_NE(std::string::npos, out.find(", on the way 0\n")) << out;
  EXPECT_EQ(0, sender.wait());
}

}  // namespace
}  // namespace cowire::test
