// SPDX-License-Identifier: Apache-2.0
// What the kernel learns from ICMP about one destination, and tells nobody: redirects and path
// MTUs. A plain socket of the same host shows what the kernel makes of it.
#include <cowire/netlink/request_socket.hpp>

#include <tests/async/frame_capture.hpp>

#include <netinet/in.h>

namespace cowire::test {
namespace {

std::string bytes_of_mac(const std::string& text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); at += 3)
    out += static_cast<char>(std::stoi(text.substr(at, 2), nullptr, 16));
  return out;
}

struct family_setup {
  ip_family family;
  std::string route, gateway, others;  ///< Gateways but for their last digits.
  endpoint destination, own;
  std::string lifetime;  ///< The sysctl of learned path MTUs.
};

const family_setup v4_setup{ip_family::v4,
                            "10.78.0.0/16",
                            "10.77.1.2",
                            "10.77.1.",
                            to("10.78.3.1:9000"),
                            to("10.77.1.1:8001"),
                            "net.ipv4.route.mtu_expires"},
    v6_setup{ip_family::v6,
             "2001:db8:78::/48",
             "fe80::2",
             "fe80::",
             to("[2001:db8:78::1]:9000"),
             to("[fd77:1::1]:8001"),
             "net.ipv6.route.mtu_expires"};

/// A's datagrams to `destination` go through B; .33 and .44 are other routers on the link, whose
/// frames B sees as well.
class path_exceptions : public two_hosts, public ::testing::WithParamInterface<family_setup> {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    (*b)("ip addr add fe80::2/64 dev b0 nodad");
    (*a)("ip addr add fe80::1/64 dev a0 nodad");
    const std::string neighbour = "ip neigh replace dev a0 router nud permanent ";
    for (const char* last : {"33", "44"})
      (*a)(neighbour + with().others + last + " lladdr 02:00:00:00:00:" + last);
    (*a)(neighbour + with().gateway + " lladdr " + mac_of("b0"));
    (*a)("ip route add " + with().route + " via " + with().gateway + " dev a0");
    router = bytes_of_mac(mac_of("b0").substr(0, 17));
    wire.emplace(*b, "b0");
    tx.emplace(small());
    ours = tx->make_sender({.source_port = with().own.port});
    plain.emplace(with().family, sending_options{.port = 8002});
  }
  void TearDown() override {
    ours = {};
    tx.reset();
    plain.reset();
    wire.reset();
    two_hosts::TearDown();
  }
  static const family_setup& with() { return GetParam(); }

  /// The MAC address that the kernel sends to.
  std::string by_kernel(const endpoint& destination) {
    plain->send(destination, "kernel");
    return wire->next().substr(0, 6);
  }
  /// The MAC address that the fast path sends to; "" = the kernel path took it.
  std::string by_fast_path(const endpoint& destination) {
    const auto before = tx->stats().transmitted_total();
    EXPECT_TRUE(ours.try_send(bytes_of("cowire"), destination));
    std::string frame = wire->next();
    EXPECT_TRUE(drained(*tx));
    return tx->stats().transmitted_total() > before ? frame.substr(0, 6) : "";
  }
  void expect_both(const std::string& mac, const endpoint& destination) {
    EXPECT_TRUE(eventually([&] { return by_kernel(destination) == mac; }));
    EXPECT_TRUE(eventually([&] { return by_fast_path(destination) == mac; }))
        << hex(by_fast_path(destination)) << " " << summary(tx->stats());
  }

  /// B sends A an ICMP message from the gateway's address.
  void tell(std::string message);
  void redirect(const endpoint& destination, const std::string& last_of_gateway);
  void need_shorter(const endpoint& destination, std::uint16_t mtu);
  /// The start of what A has sent there: IP and UDP headers.
  std::string sent_to(const endpoint& destination) const;

  std::string router;
  std::optional<capture> wire;
  std::optional<transmitter> tx;
  sender ours;
  std::optional<kernel_sender> plain;
};

std::string text_of(const ip_address& address) {
  return {reinterpret_cast<const char*>(address.bytes().data()), address.size()};
}

std::string text_of(std::uint32_t value, int size) {
  std::string out;
  for (int shift = 8 * (size - 1); shift >= 0; shift -= 8)
    out += static_cast<char>(value >> shift & 0xff);
  return out;
}

std::string path_exceptions::sent_to(const endpoint& destination) const {
  const ip_address &from = with().own.address, &there = destination.address;
  const std::string udp =
      text_of(with().own.port, 2) + text_of(destination.port, 2) + text_of(1000, 2) + text_of(0, 2);
  if (there.is_v4())
    return text_of(0x4500, 2) + text_of(1020, 2) + text_of(0x00004000, 4) + text_of(0x4011, 2) +
           text_of(0, 2) + text_of(from) + text_of(there) + udp;
  return text_of(0x60000000, 4) + text_of(1000, 2) + text_of(0x1140, 2) + text_of(from) +
         text_of(there) + udp;
}

void path_exceptions::tell(std::string message) {
  const netns::scope in_b(*b);
  const bool v4 = with().family == ip_family::v4;
  const unique_fd raw(::socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC,
                               v4 ? static_cast<int>(IPPROTO_ICMP) : IPPROTO_ICMPV6));
  if (v4) {
    const std::uint16_t sum = finish_sum(sum_bytes(bytes_of(message)));
    std::memcpy(&message[2], &sum, sizeof sum);
  } else {
    const int hops = 255;  // RFC 4861, 8.1.
    ASSERT_EQ(0, ::setsockopt(raw.get(), IPPROTO_IPV6, IPV6_UNICAST_HOPS, &hops, sizeof hops));
    const raw_address from({*ip_address::parse(with().gateway), 0, ::if_nametoindex("b0")});
    ASSERT_EQ(0, ::bind(raw.get(), from.name(), from.size));
  }
  const raw_address there({with().own.address, 0});
  ASSERT_EQ(static_cast<ssize_t>(message.size()),
            ::sendto(raw.get(), message.data(), message.size(), 0, there.name(), there.size))
      << errno_name(errno);
}

void path_exceptions::redirect(const endpoint& destination, const std::string& last) {
  const ip_address gateway = *ip_address::parse(with().others + last);
  if (gateway.is_v4())
    tell(text_of(5 << 24 | 1 << 16, 4) + text_of(gateway) + sent_to(destination));
  else
    tell(text_of(137u << 24, 4) + text_of(0, 4) + text_of(gateway) + text_of(destination.address));
}

void path_exceptions::need_shorter(const endpoint& destination, std::uint16_t mtu) {
  const std::uint32_t type = with().family == ip_family::v4 ? 3 << 24 | 4 << 16 : 2 << 24;
  tell(text_of(type, 4) + text_of(mtu, 4) + sent_to(destination));
}

const std::string other_router("\x02\0\0\0\0\x33", 6), third_router("\x02\0\0\0\0\x44", 6);

TEST_P(path_exceptions, a_redirect_is_followed_for_its_destination_until_it_ends) {
  const endpoint& destination = with().destination;
  expect_both(router, destination);
  redirect(destination, "33");
  expect_both(other_router, destination);
  endpoint neighbour = destination;
  auto bytes = destination.address.bytes();
  ++bytes[destination.address.size() - 1];
  neighbour.address = ip_address::from_bytes(with().family, bytes.data());
  expect_both(router, neighbour);
  // From the route's own router, which is not asked any more: to IPv6 it still has a say.
  redirect(destination, "44");
  expect_both(with().family == ip_family::v4 ? other_router : third_router, destination);
  // The kernel drops what it has learned without a word.
  (*a)(with().family == ip_family::v4 ? "ip route flush cache" : "ip -6 route flush cache");
  expect_both(router, destination);
}

TEST_P(path_exceptions, a_redirect_ends_with_its_route) {
  const endpoint& destination = with().destination;
  expect_both(router, destination);
  redirect(destination, "33");
  expect_both(other_router, destination);
  (*a)("ip route replace " + with().route + " via " + with().others + "44 dev a0");
  expect_both(third_router, destination);
  (*a)("ip route replace " + with().route + " via " + with().gateway + " dev a0");
  expect_both(router, destination);
}

TEST_P(path_exceptions, a_redirect_that_the_kernel_refuses_changes_nothing) {
  const endpoint& destination = with().destination;
  const std::string name = with().family == ip_family::v4 ? "ipv4" : "ipv6";
  for (const char* device : {"all", "a0"})
    (*a)("sysctl -qw net." + name + ".conf." + device + ".accept_redirects=0");
  expect_both(router, destination);
  redirect(destination, "33");
  for (int i = 0; i < 100; ++i) ASSERT_EQ(router, by_fast_path(destination));
  expect_both(router, destination);
}

TEST_P(path_exceptions, a_path_mtu_lives_as_long_as_the_kernel_says) {
  const endpoint& destination = with().destination;
  (*a)("sysctl -qw " + with().lifetime + "=2");
  expect_both(router, destination);
  netlink::request_socket kernel;
  const auto kernels_mtu = [&] {
    netlink::route_query query;
    query.destination = destination.address;
    return kernel.get_route(query).route.metrics.mtu;
  };
  const auto transmits_1380 = [&] {
    const auto before = tx->stats().transmitted_total();
    EXPECT_TRUE(ours.try_send(std::vector<std::byte>(1380), destination));
    EXPECT_TRUE(drained(*tx));
    return tx->stats().transmitted_total() > before;
  };
  EXPECT_TRUE(transmits_1380());
  need_shorter(destination, 1300);
  ASSERT_TRUE(eventually([&] { return kernels_mtu() == 1300; }));
  EXPECT_TRUE(eventually([&] { return !transmits_1380(); })) << summary(tx->stats());
  // What the kernel tells ends within the two seconds; with a constant of ours it would not.
  EXPECT_TRUE(eventually([&] { return kernels_mtu() == 0; }));
  EXPECT_TRUE(eventually(transmits_1380)) << summary(tx->stats());
}

INSTANTIATE_TEST_SUITE_P(families, path_exceptions, ::testing::Values(v4_setup, v6_setup),
                         [](const auto& one) {
                           return std::string(one.param.family == ip_family::v4 ? "v4" : "v6");
                         });

}  // namespace
}  // namespace cowire::test
