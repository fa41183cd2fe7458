// SPDX-License-Identifier: Apache-2.0
// What no message tells and one question settles: the order of devices, what devices prefer as a
// source, whether rules count. A mirror that was read anew has to decide as a plain socket does.
#include <cowire/follow/kernel_snapshot.hpp>
#include <cowire/route/resolve.hpp>

#include <tests/support/netns.hpp>

#include <cowire/base/socket_address.hpp>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace cowire::test {
namespace {

ip_address ip(const std::string& text) { return *ip_address::parse(text); }

/// The source that a connected socket gets, or an errno.
std::string source_of_socket(const ip_address& to) {
  sockaddr_storage there{};
  const socklen_t size = to_sockaddr({to, 9, 0}, there);
  const unique_fd fd(::socket(there.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&there), size) != 0)
    return errno_name(errno);
  sockaddr_storage own{};
  socklen_t room = sizeof own;
  EXPECT_EQ(0, ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &room));
  return to_endpoint(own)->address.to_string();
}

std::string source_of_mirror(const mirror& state, const ip_address& to) {
  flow about;
  about.destination = to;
  const resolution answer = resolve(state, about);
  if (answer.divert) return "left to the kernel: " + std::string(name(*answer.divert));
  if (answer.error != 0) return errno_name(answer.error);
  return answer.source ? answer.source->to_string() : "none";
}

class read_facts : public ::testing::Test {
 protected:
  void SetUp() override { NETNS_OR_SKIP(); }

  /// Brings up the loopback and a device u0, and does more.
  static void set_up(const netns& host, const std::string& more) {
    host(
        "ip link set lo up && ip link add u0 type veth peer name p0 && ip link set p0 up && "
        "ip link set u0 up && " +
        more);
  }
  static void expect_agreement(const mirror& state, const std::string& to) {
    EXPECT_EQ(source_of_socket(ip(to)), source_of_mirror(state, ip(to))) << "to " << to;
  }
};

/// Devices whose numbers say nothing about when they were made, some with addresses that are
/// equally good.
TEST_F(read_facts, devices_in_the_order_of_their_registration_lend_their_addresses) {
  std::mt19937 random(7);
  std::size_t not_by_index = 0;
  for (int round = 0; round < 12; ++round) {
    const netns host;
    const netns::scope inside(host);
    host("ip link set lo up && sysctl -qw net.ipv6.conf.default.addr_gen_mode=1");
    std::vector<int> numbers(6);
    std::iota(numbers.begin(), numbers.end(), 1);
    std::ranges::shuffle(numbers, random);
    for (const int i : numbers) {
      const std::string n = std::to_string(i), at = std::to_string(100 + 10 * i);
      host("ip link add u" + n + " index " + at + " type veth peer name p" + n + " index " +
           std::to_string(105 + 10 * i) + " && ip link set p" + n + " up && ip link set u" + n +
           " up");
      if (i == 1 || random() % 4 == 0) continue;
      const std::string label = i == 3 ? " label u3:x" : "";
      host("ip addr add 10.0." + n + ".1/24 dev u" + n + label);
      host("ip addr add 2001:db8:" + n + "::1/64 dev u" + n + " nodad");
    }
    host("ip route add 203.0.113.0/24 dev u1 && ip -6 route add 2600::/16 dev u1");
    const mirror state = read_mirror();
    expect_agreement(state, "203.0.113.1");
    expect_agreement(state, "2600::1");
    const auto first = std::ranges::find_if(
        numbers, [&](int i) { return !state.find_device("u" + std::to_string(i))->v4.empty(); });
    not_by_index += first != numbers.end() && std::any_of(first, numbers.end(), [&](int i) {
                      return i < *first && !state.find_device("u" + std::to_string(i))->v4.empty();
                    });
  }
  EXPECT_GT(not_by_index, 0u);
}

TEST_F(read_facts, temporary_addresses_are_taken_where_their_device_prefers_them) {
  const netns host;
  const netns::scope inside(host);
  host(
      "ip link set lo up && ip link add u0 type veth peer name p0 && "
      "sysctl -qw net.ipv6.conf.u0.use_tempaddr=2 net.ipv6.conf.u0.addr_gen_mode=1 && "
      "ip link set p0 up && ip link set u0 up && "
      "ip addr add 2001:db8:1::1/64 dev u0 nodad mngtmpaddr && ip -6 route add 2600::/16 dev u0");
  const auto any_temporary = [](const mirror& state) {
    return std::ranges::any_of(state.find_device("u0")->v6, [](const netlink::address& own) {
      constexpr std::uint32_t temporary = 0x01, tentative = 0x40;
      return (own.flags & temporary) != 0 && (own.flags & tentative) == 0;
    });
  };
  ASSERT_TRUE(eventually([&] { return any_temporary(read_mirror()); }));
  std::vector<std::string> taken;
  for (const char* preference : {"2", "1", "0"}) {
    host(std::string("sysctl -qw net.ipv6.conf.u0.use_tempaddr=") + preference);
    const mirror state = read_mirror();
    if (any_temporary(state)) taken.push_back(source_of_mirror(state, ip("2600::1")));
    expect_agreement(state, "2600::1");
  }
  ASSERT_GE(taken.size(), 2u);
  EXPECT_NE(taken[0], taken[1]);
}

/// Both states look the same in a dump: an initial rule is missing, and nothing else is there.
TEST_F(read_facts, rules_count_once_any_was_added) {
  for (const bool was_added : {false, true}) {
    const netns host;
    const netns::scope inside(host);
    set_up(host, "ip addr add 2001:db8:1::1/64 dev u0 nodad && ip -6 route add 2600::/16 dev u0");
    if (was_added) host("ip -6 rule add pref 9 lookup 99 && ip -6 rule del pref 9");
    host("ip -6 rule del pref 32766");
    const mirror state = read_mirror();
    EXPECT_EQ(was_added, state.rules_configured(ip_family::v6).value_or(!was_added));
    if (was_added) {
      EXPECT_EQ("ENETUNREACH", source_of_socket(ip("2600::1")));
      EXPECT_EQ("ENETUNREACH", source_of_mirror(state, ip("2600::1")));
    } else {
      expect_agreement(state, "2600::1");
    }
  }
}

/// On a router the first address of a link's prefix is its own, whatever rules there are.
TEST_F(read_facts, rules_are_asked_about_where_they_matter) {
  const netns host;
  const netns::scope inside(host);
  host(
      "ip link set lo up && ip link add u0 type veth peer name p0 && ip link set p0 up && "
      "sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.u0.addr_gen_mode=1 && "
      "ip link set u0 up && ip addr add 2001:db8:1::1/64 dev u0 nodad && "
      "ip -6 rule del pref 32766");
  const mirror state = read_mirror();
  EXPECT_EQ(false, state.rules_configured(ip_family::v6).value_or(true));
  expect_agreement(state, "2001:db8:1::77");
}

/// The same dump again; table local's prefix hides what is in table main only once rules count.
TEST_F(read_facts, tables_local_and_main_are_one_until_a_rule_was_added) {
  for (const bool was_added : {false, true}) {
    const netns host;
    const netns::scope inside(host);
    set_up(host,
           "ip addr add 10.0.0.1/24 dev u0 && ip route add local 198.18.0.0/16 dev lo && "
           "ip route add 198.18.7.0/24 via 10.0.0.2");
    if (was_added) host("ip rule add pref 9 lookup 99 && ip rule del pref 9");
    const mirror state = read_mirror();
    EXPECT_EQ(was_added, state.rules_configured(ip_family::v4).value_or(!was_added));
    EXPECT_EQ(was_added ? "198.18.7.1" : "10.0.0.1", source_of_socket(ip("198.18.7.1")));
    EXPECT_EQ(was_added ? "left to the kernel: local_destination" : "10.0.0.1",
              source_of_mirror(state, ip("198.18.7.1")));
  }
}

/// Up to Linux 7.1 to delete an initial rule of IPv4 counts as any change of the rules does, from
/// 7.2 on only once any was added. Table local is consulted, or nobody asks it any more.
TEST_F(read_facts, what_a_deleted_rule_zero_means_is_seen) {
  for (const bool was_added : {false, true}) {
    const netns host;
    const netns::scope inside(host);
    set_up(host,
           "ip addr add 10.0.0.1/24 dev u0 && ip route add local 198.18.0.0/16 dev lo && "
           "ip route add 198.18.7.0/24 via 10.0.0.2 && ip route add 203.0.113.0/24 via 10.0.0.2");
    if (was_added) host("ip rule add pref 9 lookup 99 && ip rule del pref 9");
    host("ip rule del pref 0");
    const mirror state = read_mirror();
    const std::string local = source_of_socket(ip("198.18.1.1"));
    const bool counts = local != "198.18.1.1";
    EXPECT_TRUE(counts || !was_added);
    EXPECT_EQ(counts, state.rules_configured(ip_family::v4).value_or(!counts));
    EXPECT_EQ(counts ? local : "left to the kernel: local_destination",
              source_of_mirror(state, ip("198.18.1.1")));
    // Table main has a route within table local's: the tables are one there until they are parted.
    expect_agreement(state, "198.18.7.1");
    expect_agreement(state, "203.0.113.1");
  }
}

}  // namespace
}  // namespace cowire::test
