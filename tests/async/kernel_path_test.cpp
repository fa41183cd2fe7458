// SPDX-License-Identifier: Apache-2.0
// What the fast path does not serve: diverted, sent or refused by the kernel, reported to the
// sender.
#include <tests/async/two_hosts.hpp>

#include <algorithm>

namespace cowire::test {
namespace {

using kernel_path = two_hosts;

auto next_error(sender& s) {
  outcome<std::error_code, send_error> next;
  s.async_next_error(next.handler());
  return std::move(next.future);
}

TEST_F(kernel_path, an_unresolved_neighbour_is_resolved_by_the_kernel_and_then_served_fast) {
  udp_sink sink(*b, to("10.77.1.2:9000"));
  transmitter tx(small());
  auto s = tx.make_sender();
  ASSERT_TRUE(s.try_send(bytes_of("first"), to("10.77.1.2:9000")));
  EXPECT_TRUE(sink.next());
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().kernel_path) << summary(tx.stats());
  EXPECT_EQ(1u, tx.stats().diverted.at("neighbour_unresolved")) << summary(tx.stats());
  EXPECT_TRUE(eventually([&] {
    static_cast<void>(s.try_send(bytes_of("next"), to("10.77.1.2:9000")));
    return drained(tx) && tx.stats().transmitted_total() > 0;
  })) << summary(tx.stats());
}

TEST_F(kernel_path, what_exceeds_the_mtu_is_fragmented_by_the_kernel) {
  udp_sink sink(*b, to("10.77.1.2:9000"));
  resolve("10.77.1.2");
  transmitter tx(small());
  auto s = tx.make_sender();
  const std::string large(1600, 'x');
  ASSERT_TRUE(s.try_send(bytes_of(large), to("10.77.1.2:9000")));
  const auto got = sink.next();
  ASSERT_TRUE(got) << summary(tx.stats());
  EXPECT_EQ(large, got->bytes);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().diverted.at("exceeds_mtu")) << summary(tx.stats());
}

TEST_F(kernel_path, a_destination_without_a_route_is_refused_with_the_kernels_errno) {
  transmitter tx(small());
  auto s = tx.make_sender();
  auto other = tx.make_sender();
  auto said = next_error(s), said_to_other = next_error(other);
  ASSERT_TRUE(s.try_send(bytes_of("x"), to("192.0.2.1:9")));
  const auto [ec, error] = said.get();
  ASSERT_FALSE(ec);
  EXPECT_EQ(ENETUNREACH, error.code.value());
  EXPECT_EQ("192.0.2.1:9", error.destination.to_string());
  EXPECT_EQ(send_error::origin::local, error.from);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().refused.at("ENETUNREACH")) << summary(tx.stats());
  (*a)("ip route add prohibit 192.0.2.0/24");
  EXPECT_TRUE(eventually([&] {
    static_cast<void>(s.try_send(bytes_of("x"), to("192.0.2.1:9")));
    return drained(tx) && tx.stats().refused.contains("EACCES");
  })) << summary(tx.stats());
  // A refusal is the business of the sender that submitted.
  EXPECT_EQ(std::future_status::timeout, said_to_other.wait_for(50ms));
  other = {};
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(said_to_other.get()));
}

TEST_F(kernel_path, a_port_unreachable_answer_reaches_the_sender_although_the_fast_path_sent) {
  resolve("10.77.1.2");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  auto said = next_error(s);
  ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:9")));
  ASSERT_EQ(std::future_status::ready, said.wait_for(5s)) << summary(tx.stats());
  const auto [ec, error] = said.get();
  EXPECT_EQ(ECONNREFUSED, error.code.value());
  EXPECT_EQ("10.77.1.2:9", error.destination.to_string());
  EXPECT_EQ(send_error::origin::network, error.from);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().transmitted_total()) << summary(tx.stats());
  EXPECT_EQ(1u, tx.stats().errors_from_network);
  // The answer is not mistaken for one to the next datagram that the kernel path carries.
  udp_sink sink(*b, to("10.77.1.2:9000"));
  ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:9")));
  ASSERT_TRUE(s.try_send(bytes_of(std::string(1600, 'y')), to("10.77.1.2:9000")));
  EXPECT_TRUE(sink.next());
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(0u, tx.stats().refused_total()) << summary(tx.stats());
}

TEST_F(kernel_path, a_learnt_path_mtu_diverts_what_is_longer) {
  // B forwards to C over a link that takes no more than 1000 bytes, and says so.
  netns c;
  connect(*b, "b1", c, "c0", 2);
  (*b)("sysctl -qw net.ipv4.ip_forward=1");
  (*b)("ip link set b1 mtu 1000");
  c("ip link set c0 mtu 1000");
  c("ip route add default via 10.77.2.1");
  (*a)("ip route add 10.77.2.0/24 via 10.77.1.2");
  udp_sink sink(c, to("10.77.2.2:9000"));
  resolve("10.77.2.2");
  transmitter tx(small());
  auto s = tx.make_sender();
  auto said = next_error(s);
  const std::string text(1200, 'x');
  ASSERT_TRUE(s.try_send(bytes_of(text), to("10.77.2.2:9000")));  // Lost, as with the kernel.
  ASSERT_EQ(std::future_status::ready, said.wait_for(5s)) << summary(tx.stats());
  const auto [ec, error] = said.get();
  EXPECT_EQ(EMSGSIZE, error.code.value());
  EXPECT_EQ(1000u, error.mtu);
  ASSERT_TRUE(s.try_send(bytes_of(text), to("10.77.2.2:9000")));
  const auto got = sink.next();
  ASSERT_TRUE(got) << summary(tx.stats());
  EXPECT_EQ(text, got->bytes);
  EXPECT_EQ(1u, tx.stats().diverted.at("exceeds_mtu")) << summary(tx.stats());
  ASSERT_TRUE(s.try_send(bytes_of("short"), to("10.77.2.2:9000")));
  EXPECT_TRUE(sink.next());
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(2u, tx.stats().transmitted_total()) << summary(tx.stats());
}

TEST_F(kernel_path, a_dead_neighbour_does_not_take_all_frames) {
  transmitter tx(small());
  auto s = tx.make_sender();
  for (int i = 0; i < 1000; ++i)
    static_cast<void>(s.try_send(bytes_of(std::string(1000, 'x')), to("10.77.1.99:9000")));
  EXPECT_TRUE(eventually([&] { return static_cast<bool>(s.try_acquire()); }, 2s));
  tx.stop();  // Gives up what still waits.
  EXPECT_EQ(0u, tx.stats().on_the_way()) << summary(tx.stats());
}

using source_port = two_hosts;

TEST_F(source_port, one_that_somebody_else_holds_is_a_clear_error) {
  const udp_sink holder(*a, to("0.0.0.0:8001"));
  transmitter tx(small());
  std::error_code ec;
  static_cast<void>(tx.make_sender({.source_port = 8001}, ec));
  EXPECT_EQ(make_error_code(error::port_in_use), ec);
  try {
    static_cast<void>(tx.make_sender({.source_port = 8001}));
    FAIL();
  } catch (const std::system_error& e) {
    EXPECT_NE(std::string::npos, std::string(e.what()).find("8001")) << e.what();
    EXPECT_NE(std::string::npos, std::string(e.what()).find("adopt_socket")) << e.what();
  }
}

TEST_F(source_port, is_reserved_while_a_sender_uses_it_and_shared_by_senders_that_differ) {
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  auto again = tx.make_sender({.source_port = 8001, .tos = 8});
  EXPECT_EQ(8001, s.source_port());
  EXPECT_EQ(8001, again.source_port());
  EXPECT_THROW(udp_sink(*a, to("0.0.0.0:8001")), std::system_error);
  s = {};
  again = {};
  EXPECT_TRUE(eventually([&] {
    try {
      const udp_sink free(*a, to("0.0.0.0:8001"));
      return true;
    } catch (const std::system_error&) {
      return false;
    }
  }));
}

TEST_F(source_port, an_adopted_socket_gives_its_port_and_keeps_receiving) {
  udp_sink mine(*a, to("10.77.1.1:8001")), sink(*b, to("10.77.1.2:9000"));
  resolve("10.77.1.2");
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = mine.fd()});
  EXPECT_EQ("10.77.1.1:8001", s.local_endpoint(ip_family::v4).to_string());
  ASSERT_TRUE(s.try_send(bytes_of("ping"), to("10.77.1.2:9000")));
  const auto got = sink.next();
  ASSERT_TRUE(got);
  EXPECT_EQ("10.77.1.1:8001", got->from.to_string());
  const auto answer = detail::socket_address::from(got->from, 0);
  ASSERT_EQ(4, ::sendto(sink.fd(), "pong", 4, 0, reinterpret_cast<const sockaddr*>(&answer.storage),
                        answer.size));
  const auto back = mine.next();
  ASSERT_TRUE(back);
  EXPECT_EQ("pong", back->bytes);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().transmitted_total()) << summary(tx.stats());
  std::error_code ec;
  s.try_send(bytes_of("x"), to("[fd77:1::2]:9000"), ec);
  EXPECT_EQ(make_error_code(error::family_mismatch), ec);
}

}  // namespace
}  // namespace cowire::test
