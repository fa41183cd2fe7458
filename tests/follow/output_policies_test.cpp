// SPDX-License-Identifier: Apache-2.0
// IPsec policies of a namespace, read, followed and judged; the kernel says what they do.
#include <cowire/follow/detail/output_reader.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/netlink/xfrm_follower.hpp>

#include <tests/follow/followed_output.hpp>
#include <tests/support/netns.hpp>

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace cowire::test {
namespace {

using netlink::xfrm_policies;
using netlink::xfrm_policy;

class output_policies : public ::testing::Test {
 protected:
  void set_up() {
    host_.emplace();
    peer_.emplace();
    connect(*host_, "eth0", *peer_, "eth0", 1);
  }
  /// Lines of `ip -batch`; what the kernel refuses changes nothing.
  void tell(const std::string& lines) const {
    const std::string file = "/tmp/" + host_->name() + ".batch";
    std::ofstream(file) << lines;
    (*host_)("ip -force -batch " + file + " >/dev/null 2>&1 || true");
    ::unlink(file.c_str());
  }
  [[nodiscard]] ipsec_state read() const {
    const netns::scope inside(*host_);
    ipsec_state found = detail::output_reader(
                            {.netfilter = false, .traffic_control = false, .control_groups = false})
                            .read()
                            .ipsec;
    EXPECT_FALSE(found.unreadable_because) << *found.unreadable_because;
    return found;
  }

  std::optional<netns> host_, peer_;
};

TEST_F(output_policies, are_read_with_all_that_they_are_for) {
  NETNS_OR_SKIP();
  set_up();
  tell(
      "xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 proto udp sport 7 dport 9 dir out"
      " mark 0x5 mask 0xff action block\n"
      "xfrm policy add src fd00::/16 dst fd00:2::/32 dir out if_id 3"
      " tmpl src fd00::1 dst fd00::2 proto esp mode tunnel\n"
      "xfrm policy add src 0.0.0.0/0 dst 10.9.0.0/16 dir out\n"
      "xfrm policy add src 0.0.0.0/0 dst 10.8.0.0/16 dir in action block\n");
  const xfrm_policies found = read().policies;
  ASSERT_EQ(found.size(), 3u);
  const auto to = [&](const char* destination) {
    const auto at =
        std::ranges::find(found, *ip_prefix::parse(destination), &xfrm_policy::destination);
    return at == found.end() ? xfrm_policy{} : *at;
  };
  const xfrm_policy one = to("10.2.0.0/16"), two = to("fd00:2::/32"), three = to("10.9.0.0/16");
  xfrm_policy wanted;
  wanted.index = one.index;
  wanted.blocks = true;
  wanted.source = *ip_prefix::parse("10.1.0.0/16");
  wanted.destination = *ip_prefix::parse("10.2.0.0/16");
  wanted.source_port = 7;
  wanted.destination_port = 9;
  wanted.source_port_mask = wanted.destination_port_mask = 0xffff;
  wanted.protocol = 17;
  wanted.mark = 5;
  wanted.mark_mask = 0xff;
  EXPECT_EQ(one, wanted);
  EXPECT_FALSE(two.blocks || two.harmless);
  EXPECT_EQ(two.if_id, 3u);
  EXPECT_TRUE(three.harmless);
}

/// Of one socket of this process.
bool set_policy(int fd, int level, int option, std::uint16_t family, std::uint8_t action) {
  xfrm_userpolicy_info info{};
  info.sel.family = family;
  info.dir = XFRM_POLICY_OUT;
  info.action = action;
  info.lft.soft_byte_limit = info.lft.hard_byte_limit = XFRM_INF;
  info.lft.soft_packet_limit = info.lft.hard_packet_limit = XFRM_INF;
  return ::setsockopt(fd, level, option, &info, sizeof info) == 0;
}

TEST_F(output_policies, of_sockets_are_obstacles_unless_they_let_everything_pass) {
  NETNS_OR_SKIP();
  set_up();
  unique_fd fd;
  {
    const netns::scope inside(*host_);
    fd.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  }
  output_snapshot state;
  output_flow region;
  region.destination = ip_prefix::all(ip_family::v4);
  if (!set_policy(fd.get(), IPPROTO_IP, 17, AF_INET, XFRM_POLICY_ALLOW))  // IP_XFRM_POLICY
    GTEST_SKIP() << "sockets cannot have policies";
  state.ipsec = read();
  ASSERT_EQ(state.ipsec.policies.size(), 1u);
  EXPECT_TRUE(state.ipsec.policies.front().of_a_socket);
  EXPECT_TRUE(judge_output(state, region).untouched());
  ASSERT_TRUE(set_policy(fd.get(), IPPROTO_IP, 17, AF_INET, XFRM_POLICY_BLOCK));
  state.ipsec = read();
  EXPECT_EQ(judge_output(state, region).reason, divert_reason::ipsec);
  region.destination = ip_prefix::all(ip_family::v6);
  EXPECT_TRUE(judge_output(state, region).untouched());
}

/// One that names its addresses, ports, mark and so on, or some of them, at random.
class random_policy {
 public:
  explicit random_policy(std::mt19937_64& random) : random_(random), v4_(random() % 2) {
    const std::string network = v4_ ? "10.77.1." : "fd77:1::";
    const unsigned bits = v4_ ? 32 : 128;
    const auto prefix = [&](unsigned low) {
      return network + std::to_string(low) + "/" + std::to_string(bits - pick(5));
    };
    who_ = " src " + (pick(3) ? std::string(v4_ ? "0.0.0.0/0" : "::/0") : prefix(1));
    who_ += " dst " + (pick(8) ? prefix(2 + pick(30)) : std::string(v4_ ? "0.0.0.0/0" : "::/0"));
    if (pick(2)) {
      who_ += " proto udp";
      if (pick(2)) who_ += " sport " + std::to_string(7000 + pick(2));
      if (pick(2)) who_ += " dport " + std::to_string(9000 + pick(3));
    }
    who_ += pick(8) ? " dir out" : " dir in";
    if (pick(3) == 0) who_ += " mark " + std::to_string(pick(3)) + " mask 3";
    if (pick(8) == 0) who_ += " if_id 3";
  }
  [[nodiscard]] const std::string& who() const { return who_; }
  /// Without templates, whose effect a sender does not see.
  [[nodiscard]] std::string words() {
    return who_ + " priority " + std::to_string(pick(4)) +
           (pick(3) ? " action block" : " action allow");
  }

 private:
  unsigned pick(unsigned below) { return static_cast<unsigned>(random_() % below); }
  std::mt19937_64& random_;
  bool v4_;
  std::string who_;
};

TEST_F(output_policies, that_are_followed_are_those_that_would_be_read) {
  NETNS_OR_SKIP();
  set_up();
  unique_fd fd;
  {
    const netns::scope inside(*host_);
    fd.reset(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_XFRM));
    sockaddr_nl any{};
    any.nl_family = AF_NETLINK;
    ASSERT_EQ(0, ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any));
    const int group = netlink::xfrm_policy_group;
    ASSERT_EQ(0, ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group));
  }
  std::mt19937_64 random(20261129);
  std::vector<std::string> made;
  netlink::xfrm_follower following;
  xfrm_policies known;
  std::vector<std::byte> buffer(netlink::datagram_size_max);
  unsigned followed = 0;
  for (int step = 0; step < 150; ++step) {
    std::string lines;
    for (auto n = 1 + random() % 3; n > 0; --n) {
      random_policy one(random);
      const auto kind = random() % 8;
      if (kind < 4 || made.empty()) {
        lines += "xfrm policy add" + one.words() + "\n";
        made.push_back(one.who());
      } else if (kind < 6) {
        lines += "xfrm policy delete" + made[random() % made.size()] + "\n";
      } else if (kind == 6) {
        lines += "xfrm policy update" + made[random() % made.size()] + " priority " +
                 std::to_string(random() % 4) + " action block\n";
      } else if (!known.empty()) {
        lines += "xfrm policy delete dir out index " +
                 std::to_string(known[random() % known.size()].index) + "\n";
      }
    }
    if (step % 40 == 39) lines += "xfrm policy flush\n";
    if (step % 40 == 19) lines += "xfrm policy setdefault in accept\n";
    tell(lines);
    for (ssize_t size; (size = ::recv(fd.get(), buffer.data(), buffer.size(), 0)) > 0;)
      following.on_datagram(std::span(buffer).first(static_cast<std::size_t>(size)));
    const xfrm_policies now = read().policies;
    const bool understood = following.follow(known);
    EXPECT_TRUE(understood || step % 40 == 39) << "step " << step;  // A flush of something.
    if (!understood) known = now;
    followed += understood;
    ASSERT_TRUE(known == now) << "step " << step << ": " << known.size() << " followed, "
                              << now.size() << " read\n"
                              << lines;
  }
  EXPECT_GT(followed, 100u);
  EXPECT_LT(followed, 150u);
  following.on_loss();
  EXPECT_FALSE(following.follow(known));
}

/// What the kernel says of a datagram.
int send_errno(const endpoint& from, const endpoint& to, std::uint32_t mark) {
  const bool v4 = to.address.is_v4();
  const unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark);
  sockaddr_storage own, other;
  const socklen_t own_size = to_sockaddr(from, own), size = to_sockaddr(to, other);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), own_size) != 0) return errno;
  const auto sent = ::sendto(fd.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&other), size);
  return sent == 1 ? 0 : errno;
}

TEST_F(output_policies, at_random_block_nothing_that_is_judged_untouched) {
  NETNS_OR_SKIP();
  set_up();
  const netns::scope inside(*host_);
  const std::uint64_t seed = 20261129;
  std::mt19937_64 random(seed);
  unsigned passed = 0, recognised = 0, blocked = 0;
  for (int step = 0; step < 40; ++step) {
    std::string lines = "xfrm policy flush\n";
    for (auto n = 1 + random() % 6; n > 0; --n)
      lines += "xfrm policy add" + random_policy(random).words() + "\n";
    tell(lines);
    output_snapshot state;
    state.ipsec = read();
    for (int i = 0; i < 40; ++i) {
      const bool v4 = random() % 2;
      const std::string network = v4 ? "10.77.1." : "fd77:1::";
      const endpoint from{*ip_address::parse(network + "1"),
                          static_cast<std::uint16_t>(7000 + random() % 2)};
      const endpoint to{*ip_address::parse(network + std::to_string(2 + random() % 32)),
                        static_cast<std::uint16_t>(9000 + random() % 3)};
      const auto mark = static_cast<std::uint32_t>(random() % 4);
      output_flow flow;
      flow.destination = {to.address, to.address.bits()};
      flow.source = from.address;
      flow.source_port = from.port;
      flow.destination_port = to.port;
      flow.mark = mark;
      const auto verdict = judge_output(state, flow);
      const int error = send_errno(from, to, mark);
      ASSERT_TRUE(error == 0 || error == EPERM) << error;
      ASSERT_TRUE(error == 0 || !verdict.untouched())
          << "seed " << seed << " step " << step << ", to " << to.address.to_string() << " port "
          << to.port << " from port " << from.port << " mark " << mark << "\n"
          << lines;
      blocked += error != 0;
      passed += error == 0;
      recognised += error == 0 && verdict.untouched();
    }
  }
  std::printf("%u blocked, %u passed, %u of these judged untouched\n", blocked, passed, recognised);
  EXPECT_GT(blocked, 100u);
  EXPECT_GT(recognised, passed / 2);
}

TEST_F(output_policies, of_a_service_are_those_of_the_namespace) {
  NETNS_OR_SKIP();
  set_up();
  std::string many;
  for (int i = 0; i < 2000; ++i)
    many += "xfrm policy add dst 10.1." + std::to_string(i / 250) + "." + std::to_string(i % 250) +
            "/32 dir out action block\n";
  tell(many);
  followed_output output(*host_);
  EXPECT_EQ(output.first().ipsec.policies.size(), 2000u);
  const auto is_read = [&](const output_snapshot& s) {
    return s.ipsec.policies == read().policies;
  };
  tell("xfrm policy add dst 10.2.0.0/16 dir out action block\n");
  output.await(is_read);
  tell("xfrm policy delete dst 10.1.3.3/32 dir out\nxfrm policy delete dst 10.1.4.4/32 dir out\n");
  output.await([&](const auto& s) { return s.ipsec.policies.size() == 1999; });
  // One that expires is announced elsewhere.
  tell("xfrm policy add dst 10.3.0.0/16 dir out action block limit time-hard 8\n");
  output.await([&](const auto& s) { return s.ipsec.policies.size() == 2000; });
  output.await([&](const auto& s) { return s.ipsec.policies.size() == 1999; });
  tell("xfrm policy flush\n");
  output.await([](const auto& s) { return s.ipsec.policies.empty(); });
}

}  // namespace
}  // namespace cowire::test
