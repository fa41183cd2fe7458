// SPDX-License-Identifier: Apache-2.0
#include <tests/async/frame_capture.hpp>

namespace cowire::test {
namespace {

class fidelity : public comparable<two_hosts> {
 protected:
  void compare(const endpoint& destination, const sending_options& o) {
    const std::vector<std::size_t> sizes = {0,  1,  2,   3,   17,   18,   63,
                                            64, 65, 511, 512, 1231, 1232, 1452};
    capture wire(*b, "b0");
    std::vector<std::string> kernel;
    {
      const kernel_sender s(destination.address.family(), o);
      for (const std::size_t size : sizes) {
        s.send(destination, patterned(size));
        kernel.push_back(wire.next());
      }
    }
    transmitter tx(small());
    auto s = tx.make_sender(as_sender(o));
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      ASSERT_TRUE(s.try_send(bytes_of(patterned(sizes[i])), destination));
      const auto ours = wire.next();
      ASSERT_FALSE(ours.empty());
      EXPECT_EQ(kernel[i], ours) << sizes[i] << " bytes\nkernel " << hex(kernel[i]) << "\ncowire "
                                 << hex(ours);
    }
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
  }
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
