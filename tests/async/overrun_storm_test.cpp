// SPDX-License-Identifier: Apache-2.0
// More changes than the kernel can announce: its queue for us overflows again and again.
#include <testbed/route_writer.hpp>
#include <tests/async/lost_notifications.hpp>
#include <tests/async/numbered_stream.hpp>
#include <tests/support/two_hosts.hpp>

#include <net/if.h>

#include <cstdio>
#include <random>
#include <thread>

namespace cowire::test {
namespace {

constexpr int changes = 200'000;
constexpr std::uint32_t prefixes = 30'000;
/// How long the machine may be too busy with the storm itself to deliver anything.
constexpr auto look_period = 500ms;
/// Room for a handful of notifications.
constexpr int tiny_buffer_bytes = 4096;

class overrun_storm : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    (*b)("ip route add local 10.78.0.0/16 dev lo");
    (*a)("ip route add 10.78.0.0/16 via 10.77.1.2");
    resolve("10.77.1.2");
  }
  static std::size_t kernel_routes() {
    netlink::request_socket socket;
    return socket.dump(netlink::object_kind::route).size();
  }
};

TEST_F(overrun_storm, the_mirror_ends_equal_and_unchanged_destinations_notice_nothing) {
  numbered_sink sink(*b, to("0.0.0.0:9000"));
  auto config = small();
  config.update_interval = 1000ms;
  config.log = [](log_severity, std::string_view text) {  // Which differences, if there are any.
    if (text.starts_with("re-dump check"))
      std::printf("%.*s\n", static_cast<int>(text.size()), text.data());
  };
  transmitter tx(config);
  for (const int fd : event_sockets())
    ASSERT_EQ(0, ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &tiny_buffer_bytes,
                              sizeof tiny_buffer_bytes));
  numbered_stream stream(tx, {to("10.78.3.1:9000")}, 200us);
  ASSERT_TRUE(eventually([&] { return sink.arrived() > 100; })) << summary(tx.stats());

  // However fast it reads otherwise, the control thread sleeps through the beginning.
  auto watched = tx.watch_routes();
  watched.async_next(
      [](std::error_code, const route_change&) { std::this_thread::sleep_for(100ms); });

  const std::uint32_t device = ::if_nametoindex("a0");
  route_writer routes;
  std::mt19937 random(1);
  const auto start = std::chrono::steady_clock::now();
  auto arrived = sink.arrived();
  auto look_at = start + look_period;
  for (int i = 0; i < changes; ++i) {
    const ip_prefix prefix(
        ip_address::v4(0x14000000 + (static_cast<std::uint32_t>(random()) % prefixes << 8)), 24);
    if (random() % 4 == 0)
      routes.remove(prefix);
    else
      routes.replace(prefix, *ip_address::parse(i % 2 == 0 ? "10.77.1.2" : "10.77.1.3"), device);
    const auto now = std::chrono::steady_clock::now();
    if (now < look_at) continue;
    look_at = now + look_period;
    EXPECT_GT(sink.arrived(), arrived) << "after " << i << " changes";
    arrived = sink.arrived();
  }
  routes.flush();
  const auto storm = std::chrono::steady_clock::now() - start;

  // It calms down by itself, and then two re-dump checks in a row find nothing.
  const auto expected = kernel_routes();
  EXPECT_TRUE(eventually([&] { return tx.stats().routes.routes == expected; }));
  const auto checks = tx.stats().routes.redump_checks;
  EXPECT_TRUE(eventually([&] { return tx.stats().routes.redump_checks >= checks + 2; }));
  stream.stop();
  EXPECT_TRUE(drained(tx));
  sink.stop();

  const auto stats = tx.stats();
  std::printf("storm of %.1f s: %llu overruns, %llu re-syncs, %llu routes\n",
              std::chrono::duration<double>(storm).count(),
              static_cast<unsigned long long>(stats.routes.overruns),
              static_cast<unsigned long long>(stats.routes.resyncs),
              static_cast<unsigned long long>(stats.routes.routes));
  EXPECT_EQ(expected, stats.routes.routes);
  EXPECT_EQ(0u, stats.routes.redump_differences);
  EXPECT_GT(stats.routes.overruns, 0u) << "no storm at all";
  // The back-off doubles from 50 ms to 5 s: about seven attempts, then one in five seconds.
  EXPECT_LE(stats.routes.resyncs, 10u + static_cast<unsigned>(storm / 5s));
  EXPECT_EQ("", sink.missing(stream.sent()));
  EXPECT_EQ(stats.transmitted_total(), stats.submitted) << summary(stats);
  EXPECT_EQ(0u, stats.routes.truth.mismatched) << stats.routes.truth.last_mismatch;
}

}  // namespace
}  // namespace cowire::test
