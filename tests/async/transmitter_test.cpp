// SPDX-License-Identifier: Apache-2.0
#include <tests/support/two_hosts.hpp>

#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <iterator>

namespace cowire::test {
namespace {

class transmitter_end_to_end : public two_hosts,
                               public ::testing::WithParamInterface<ring_context::backend_choice> {
};

INSTANTIATE_TEST_SUITE_P(backends, transmitter_end_to_end,
                         ::testing::Values(ring_context::backend_choice::io_uring,
                                           ring_context::backend_choice::epoll),
                         [](const auto& backend) {
                           return backend.param == ring_context::backend_choice::epoll ? "epoll"
                                                                                       : "io_uring";
                         });

TEST_P(transmitter_end_to_end, datagrams_reach_an_ordinary_socket_on_the_other_host) {
  udp_sink v4(*b, to("10.77.1.2:9000")), v6(*b, to("[fd77:1::2]:9000"));
  resolve("10.77.1.2");
  resolve("fd77:1::2");
  auto config = small();
  config.backend = GetParam();
  transmitter tx(config);
  auto s = tx.make_sender({.source_port = 8001});
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(s.try_send(bytes_of("four " + std::to_string(i)), to("10.77.1.2:9000")));
    ASSERT_TRUE(s.try_send(bytes_of("six " + std::to_string(i)), to("[fd77:1::2]:9000")));
  }
  for (int i = 0; i < 100; ++i) {
    const auto four = v4.next(), six = v6.next();
    ASSERT_TRUE(four && six) << i << " " << summary(tx.stats());
    EXPECT_EQ("four " + std::to_string(i), four->bytes);
    EXPECT_EQ("10.77.1.1:8001", four->from.to_string());
    EXPECT_EQ("six " + std::to_string(i), six->bytes);
    EXPECT_EQ("[fd77:1::1]:8001", six->from.to_string());
  }
  EXPECT_TRUE(drained(tx));
  const auto stats = tx.stats();
  EXPECT_EQ(200u, stats.submitted);
  EXPECT_EQ(200u, stats.transmitted.at("a0")) << summary(stats);
  EXPECT_EQ(0u, stats.kernel_path);
}

TEST_P(transmitter_end_to_end, kernel_mode_sends_everything_through_the_backing_socket) {
  udp_sink sink(*b, to("10.77.1.2:9000"));
  auto config = small();
  config.backend = GetParam();
  config.mode = send_mode::kernel;
  transmitter tx(config);
  auto s = tx.make_sender({.source_port = 8001});
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:9000")));
  EXPECT_EQ(50u, sink.drain());
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(50u, tx.stats().kernel_path) << summary(tx.stats());
  EXPECT_EQ(50u, tx.stats().diverted.at("forced_kernel"));
}

using transmitter_set_up = two_hosts;

TEST_P(transmitter_end_to_end, closes_every_descriptor_once_its_handles_are_gone) {
  const auto open_descriptors = [] {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  const auto before = open_descriptors();
  auto config = small();
  config.backend = GetParam();
  {
    transmitter tx(config);
    auto s = tx.make_sender({.source_port = 8001});
    ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:9000")));
    EXPECT_GT(open_descriptors(), before);
  }
  EXPECT_EQ(before, open_descriptors());
}

TEST_F(transmitter_set_up, names_an_unknown_interface) {
  auto config = small();
  config.interfaces = {"nosuch0"};
  try {
    const transmitter tx(config);
    FAIL();
  } catch (const std::system_error& e) {
    EXPECT_NE(std::string::npos, std::string(e.what()).find("nosuch0")) << e.what();
  }
}

TEST_F(transmitter_set_up, a_mode_that_was_asked_for_and_is_not_there_is_an_error_with_its_reason) {
  auto config = small();
  config.interfaces = {"a0"};
  config.mode = send_mode::zero_copy;
  try {
    const transmitter tx(config);
    FAIL();
  } catch (const std::system_error& e) {
    EXPECT_NE(std::string::npos, std::string(e.what()).find("a0: mode zero-copy")) << e.what();
  }
}

TEST_F(transmitter_set_up, says_which_rung_each_interface_got_and_why) {
  const transmitter tx(small());
  const auto stats = tx.stats();
  ASSERT_EQ(1u, stats.interfaces.size());
  EXPECT_EQ("a0", stats.interfaces[0].name);
  EXPECT_EQ(send_mode::copy, stats.interfaces[0].mode) << summary(stats);
  EXPECT_NE(std::string::npos, stats.interfaces[0].reason.find("zero-copy")) << summary(stats);
  EXPECT_GT(stats.routes.routes, 0u);
  EXPECT_GT(stats.routes.publications, 0u);
}

TEST_F(transmitter_set_up, a_second_one_in_a_process_says_aloud_that_the_queues_are_taken) {
  udp_sink sink(*b, to("10.77.1.2:9000"));
  resolve("10.77.1.2");
  auto config = small();
  transmitter first(config);
  ASSERT_EQ(send_mode::copy, first.stats().interfaces[0].mode);
  std::string warned;
  config.log = [&](log_severity severity, std::string_view text) {
    if (severity >= log_severity::warning) warned += std::string(text) + "\n";
  };
  {
    transmitter second(config);
    const auto taken = second.stats().interfaces.at(0);
    EXPECT_EQ(send_mode::kernel, taken.mode);
    EXPECT_NE(std::string::npos, taken.reason.find("another AF_XDP socket")) << taken.reason;
    EXPECT_NE(std::string::npos, warned.find("a0: kernel")) << warned;
    EXPECT_NE(std::string::npos, warned.find(taken.reason)) << warned;
    // It sends nevertheless, and does not harm the first.
    auto s = second.make_sender(), before = first.make_sender();
    EXPECT_TRUE(s.try_send(bytes_of("second"), to("10.77.1.2:9000")));
    EXPECT_TRUE(drained(second));
    EXPECT_EQ(1u, second.stats().diverted.at("no_egress_socket")) << summary(second.stats());
    EXPECT_TRUE(before.try_send(bytes_of("first"), to("10.77.1.2:9000")));
    EXPECT_TRUE(drained(first));
    EXPECT_EQ(1u, by(first, "a0")) << summary(first.stats());
    EXPECT_TRUE(sink.next() && sink.next());
  }
  config.mode = send_mode::copy;
  config.interfaces = {"a0"};
  try {
    const transmitter insists(config);
    FAIL();
  } catch (const std::system_error& refused) {
    EXPECT_NE(std::string::npos, std::string(refused.what()).find("another AF_XDP socket"))
        << refused.what();
  }
}

TEST_F(transmitter_set_up, runs_twice_in_a_row_and_stops_twice) {
  for (int i = 0; i < 2; ++i) {
    transmitter tx(small());
    auto s = tx.make_sender();
    static_cast<void>(s.try_send(bytes_of("x"), to("10.77.1.2:9000")));
    tx.stop();
    tx.stop();
    std::error_code ec;
    s.try_send(bytes_of("x"), to("10.77.1.2:9000"), ec);
    EXPECT_EQ(make_error_code(error::closed), ec);
    EXPECT_EQ(0u, tx.stats().on_the_way()) << summary(tx.stats());
  }
}

TEST_F(transmitter_set_up, a_sender_and_a_payload_may_outlive_their_transmitter) {
  sender s;
  payload p;
  {
    transmitter tx(small());
    s = tx.make_sender();
    p = s.try_acquire();
    ASSERT_TRUE(p);
  }
  p.bytes()[0] = std::byte{1};
  p.reset();
  EXPECT_FALSE(s.try_acquire());
}

TEST_F(transmitter_set_up, without_any_privilege_everything_goes_through_the_kernel) {
  udp_sink sink(*b, to("10.77.1.2:9000"));
  std::thread([&] {
    // This thread alone (and those it starts) loses its capabilities.
    ASSERT_EQ(0, ::syscall(SYS_setresuid, -1, 65534, -1));
    transmitter tx(small());
    auto s = tx.make_sender();
    ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:9000")));
    EXPECT_TRUE(sink.next());
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(1u, tx.stats().kernel_path) << summary(tx.stats());
    ASSERT_EQ(0, ::syscall(SYS_setresuid, -1, 0, -1));
  }).join();
}

}  // namespace
}  // namespace cowire::test
