// SPDX-License-Identifier: Apache-2.0
// The same payload through a kernel UDP socket and through cowire: the same bytes on the wire, the
// IP identification aside, which the kernel picks at random.
#include <cowire/base/checksum.hpp>

#include <tests/async/two_hosts.hpp>

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>

namespace cowire::test {
namespace {

constexpr std::uint16_t source_port = 8001, destination_port = 9000;

struct options {
  int tos = 0, ttl = 0;
  std::string source{};
};

/// Frames that arrive at an interface, for UDP port 9000 alone.
class capture {
 public:
  capture(const netns& in, const char* device) {
    const netns::scope inside(in);
    fd_.reset(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    sockaddr_ll name{};
    name.sll_family = AF_PACKET;
    name.sll_protocol = htons(ETH_P_ALL);
    name.sll_ifindex = static_cast<int>(::if_nametoindex(device));
    if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0)
      throw_error(errno_code(errno), "capture");
  }
  std::string next() {
    for (;;) {
      pollfd readable{fd_.get(), POLLIN, 0};
      if (::poll(&readable, 1, 5000) <= 0) return {};
      sockaddr_ll from{};
      socklen_t size = sizeof from;
      char bytes[4096];
      const auto n =
          ::recvfrom(fd_.get(), bytes, sizeof bytes, 0, reinterpret_cast<sockaddr*>(&from), &size);
      if (n <= 0 || from.sll_pkttype == PACKET_OUTGOING) continue;
      std::string frame(bytes, static_cast<std::size_t>(n));
      if (is_ours(frame)) return frame;
    }
  }

 private:
  static std::uint8_t byte(const std::string& s, std::size_t i) {
    return i < s.size() ? static_cast<std::uint8_t>(s[i]) : std::uint8_t{0};
  }
  static bool is_ours(const std::string& f) {
    const bool v4 = byte(f, 12) == 0x08 && byte(f, 13) == 0x00 && byte(f, 23) == 17;
    const bool v6 = byte(f, 12) == 0x86 && byte(f, 13) == 0xdd && byte(f, 20) == 17;
    const std::size_t udp = v4 ? 34 : 54;
    return (v4 || v6) && (byte(f, udp + 2) << 8 | byte(f, udp + 3)) == destination_port;
  }
  unique_fd fd_;
};

/// Zeroes the identification after checking that the IPv4 header checksum is right.
std::string comparable(std::string frame) {
  if (frame.size() < 34 || frame[12] != 0x08) return frame;
  const auto header = std::as_bytes(std::span(frame).subspan(14, 20));
  EXPECT_EQ(0, finish_sum(sum_bytes(header))) << "IPv4 header checksum";
  for (const std::size_t i : {18u, 19u, 24u, 25u}) frame[i] = 0;
  return frame;
}

std::string hex(const std::string& bytes) {
  std::string out;
  char two[3];
  for (std::size_t i = 0; i < std::min<std::size_t>(bytes.size(), 80); ++i) {
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(bytes[i]));
    out += two;
  }
  return out;
}

void send_through_kernel(const endpoint& destination, const std::string& text, const options& o) {
  const bool v4 = destination.address.is_v4();
  const unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto from = o.source.empty() ? ip_address::any(destination.address.family())
                                     : *ip_address::parse(o.source);
  const auto set = [&](int level, int name, int value) {
    ASSERT_EQ(0, ::setsockopt(fd.get(), level, name, &value, sizeof value));
  };
  if (o.tos != 0) set(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, o.tos);
  if (o.ttl != 0) set(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TTL : IPV6_UNICAST_HOPS, o.ttl);
  const auto bind_to = detail::socket_address::from({from, source_port}, 0);
  const auto send_to = detail::socket_address::from(destination, 0);
  ASSERT_EQ(0, ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&bind_to.storage), bind_to.size));
  ASSERT_EQ(static_cast<ssize_t>(text.size()),
            ::sendto(fd.get(), text.data(), text.size(), 0,
                     reinterpret_cast<const sockaddr*>(&send_to.storage), send_to.size));
}

class fidelity : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    // Labels are a hash with a secret of the kernel's.
    (*a)("sysctl -qw net.ipv6.auto_flowlabels=0");
    (*a)("ip addr add 10.77.1.7/24 dev a0");
    (*a)("ip addr add fd77:1::7/64 dev a0 nodad");
    resolve("10.77.1.2");
    resolve("fd77:1::2");
    sinks[0] = std::make_unique<udp_sink>(*b, to("0.0.0.0:9000"));
    sinks[1] = std::make_unique<udp_sink>(*b, to("[::]:9000"));
  }
  void TearDown() override {
    for (auto& sink : sinks) sink.reset();
    two_hosts::TearDown();
  }

  void compare(const endpoint& destination, const options& o) {
    const std::vector<std::size_t> sizes = {0,  1,  2,   3,   17,   18,   63,
                                            64, 65, 511, 512, 1231, 1232, 1452};
    capture wire(*b, "b0");
    std::vector<std::string> texts, kernel;
    for (const std::size_t size : sizes) {
      std::string text(size, '\0');
      for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 37 + size);
      texts.push_back(text);
      send_through_kernel(destination, text, o);
      kernel.push_back(comparable(wire.next()));
    }
    sender_options wanted{.source_port = source_port,
                          .tos = static_cast<std::uint8_t>(o.tos),
                          .ttl = static_cast<std::uint8_t>(o.ttl)};
    if (!o.source.empty())
      (destination.address.is_v4() ? wanted.source_v4 : wanted.source_v6) =
          ip_address::parse(o.source);
    transmitter tx(small());
    auto s = tx.make_sender(wanted);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      ASSERT_TRUE(s.try_send(bytes_of(texts[i]), destination));
      const auto ours = comparable(wire.next());
      ASSERT_FALSE(ours.empty());
      EXPECT_EQ(kernel[i], ours) << sizes[i] << " bytes\nkernel " << hex(kernel[i]) << "\ncowire "
                                 << hex(ours);
    }
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
  }

  std::unique_ptr<udp_sink> sinks[2];
};

TEST_F(fidelity, plain_ipv4) { compare(to("10.77.1.2:9000"), {}); }
TEST_F(fidelity, plain_ipv6) { compare(to("[fd77:1::2]:9000"), {}); }
TEST_F(fidelity, ipv4_with_tos_ttl_and_source) {
  compare(to("10.77.1.2:9000"), {.tos = 0xb8, .ttl = 7, .source = "10.77.1.7"});
}
TEST_F(fidelity, ipv6_with_traffic_class_hop_limit_and_source) {
  compare(to("[fd77:1::2]:9000"), {.tos = 0xb8, .ttl = 7, .source = "fd77:1::7"});
}
TEST_F(fidelity, through_a_gateway_with_the_preferred_source_of_the_route) {
  (*b)("ip route add local 10.78.0.0/16 dev lo");
  (*a)("ip route add 10.78.0.0/16 via 10.77.1.2 src 10.77.1.7");
  compare(to("10.78.3.4:9000"), {});
}

}  // namespace
}  // namespace cowire::test
