// SPDX-License-Identifier: Apache-2.0
// The kernel hears nothing of what the fast path sends, and would let the neighbours that it sends
// to grow stale for ever. A peer whose MAC address changes without a word is found nevertheless, by
// the kernel's own probes, however slow the stream and whatever the device.
#include <tests/support/two_hosts.hpp>

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <poll.h>

#include <array>
#include <cstring>

namespace cowire::test {
namespace {

/// Everything that arrives at a host, on all its devices.
class wire {
 public:
  explicit wire(const netns& in) {
    const netns::scope inside(in);
    fd_.reset(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL)));
    EXPECT_TRUE(fd_);
  }
  /// Whether anything has come since the last call that begins with this MAC address and ends with
  /// this text.
  bool shows(const std::array<std::uint8_t, 6>& mac, std::string_view text) {
    bool seen = false;
    std::array<std::uint8_t, 2048> frame;
    for (ssize_t n; (n = ::recv(fd_.get(), frame.data(), frame.size(), 0)) > 0;) {
      const auto size = static_cast<std::size_t>(n);
      seen |= size > text.size() && std::memcmp(frame.data(), mac.data(), mac.size()) == 0 &&
              std::memcmp(frame.data() + size - text.size(), text.data(), text.size()) == 0;
    }
    return seen;
  }

 private:
  unique_fd fd_;
};

struct scenario {
  const char* name;
  const char* device;          ///< On either host.
  const char* on_a = nullptr;  ///< Makes it, unless it is the veth itself.
  const char* on_b = nullptr;
};

constexpr scenario scenarios[] = {
    {"veth", nullptr},
    {"vlan", "up0", "ip link add link a0 name up0 type vlan id 5",
     "ip link add link b0 name up0 type vlan id 5"},
    {"macvlan", "up0", "ip link add link a0 name up0 type macvlan mode private",
     "ip link add link b0 name up0 type macvlan mode private"},
    {"gretap", "up0", "ip link add up0 type gretap local 10.77.1.1 remote 10.77.1.2",
     "ip link add up0 type gretap local 10.77.1.2 remote 10.77.1.1"},
};

class neighbour_upkeep : public two_hosts, public ::testing::WithParamInterface<scenario> {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    const scenario& what = GetParam();
    device_ = what.device != nullptr ? what.device : "a0";
    peer_ = what.device != nullptr ? what.device : "b0";
    // Else B answers for the address of one device with the MAC of another.
    (*b)("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    if (what.device != nullptr) {
      if (std::system((std::string(what.on_a) + " 2>/dev/null && ip link del up0").c_str()) != 0)
        GTEST_SKIP() << "the kernel has no such devices";
      for (const auto& [in, make, host] :
           {std::tuple{a.get(), what.on_a, "1"}, std::tuple{b.get(), what.on_b, "2"}}) {
        (*in)(make);
        (*in)("ip link set up0 addrgenmode none");
        (*in)("ip link set up0 up");
        (*in)(std::string("ip addr add 10.99.0.") + host + "/24 dev up0");
        (*in)(std::string("ip addr add fd99::") + host + "/64 dev up0 nodad");
      }
    }
    for (const char* family : {"ipv4", "ipv6"}) {
      const std::string start = "sysctl -qw net." + std::string(family) + ".neigh." + device_ + ".";
      // Longer than the delay, or the kernel keeps probing by itself.
      (*a)(start + "base_reachable_time_ms=2500");
      (*a)(start + "delay_first_probe_time=1");
      (*a)(start + "retrans_time_ms=200");
    }
  }

  /// One datagram a second, first to a peer that is known, then to one that has moved.
  void expect_found(const std::string& v4, const std::string& v6, ip_family family) {
    const std::string address = family == ip_family::v4 ? v4 : v6;
    const endpoint there{*ip_address::parse(address), 9000};
    const udp_sink sink(*b, there);  // Nothing that it gets has it answer.
    const std::string text = "a datagram of one slow stream";
    wire seen(*b);
    transmitter tx(small());
    auto s = tx.make_sender({.source_port = 8001});
    const auto sent_fast = [&] {
      const auto before = tx.stats().kernel_path;
      EXPECT_TRUE(eventually([&] { return s.try_send(bytes_of(text), there); }));
      EXPECT_TRUE(drained(tx));
      return tx.stats().kernel_path == before;
    };
    ASSERT_TRUE(eventually(sent_fast)) << summary(tx.stats());

    const std::array<std::uint8_t, 6> moved{2, 0, 0x5e, 0x77, 0, 1};
    (*b)("ip link set " + peer_ + " address 02:00:5e:77:00:01");
    const bool found = eventually([&] {
      std::this_thread::sleep_for(1s);
      return sent_fast() && eventually([&] { return seen.shows(moved, text); }, 100ms);
    });
    EXPECT_TRUE(found) << (*a)("ip neigh show") << summary(tx.stats());
    EXPECT_GT(tx.stats().routes.neighbour_pokes, 0u);
  }
  void expect_found(ip_family family) {
    if (GetParam().device == nullptr)
      expect_found("10.77.1.2", "fd77:1::2", family);
    else
      expect_found("10.99.0.2", "fd99::2", family);
  }

  std::string device_, peer_;
};

TEST_P(neighbour_upkeep, finds_a_moved_ipv4_peer) { expect_found(ip_family::v4); }
TEST_P(neighbour_upkeep, finds_a_moved_ipv6_peer) { expect_found(ip_family::v6); }

INSTANTIATE_TEST_SUITE_P(devices, neighbour_upkeep, ::testing::ValuesIn(scenarios),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace cowire::test
