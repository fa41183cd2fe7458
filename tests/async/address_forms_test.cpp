// SPDX-License-Identifier: Apache-2.0
/// The forms in which an AF_INET6 socket takes a destination, IPv4-mapped and with a scope id, mean
/// to cowire what they mean to the socket: each case sends through a plain one first.
#include <tests/async/frame_capture.hpp>

#include <cowire/async/tunnel.hpp>

#include <linux/in6.h>
#include <netinet/udp.h>

#include <vector>

namespace cowire::test {
namespace {

/// An application's AF_INET6 socket.
class inet6_socket {
 public:
  explicit inet6_socket(const endpoint& bind_to, bool v6_only = false) {
    fd_.reset(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    set(IPPROTO_IPV6, IPV6_V6ONLY, v6_only ? 1 : 0);
    const raw_address name(bind_to);
    EXPECT_EQ(0, ::bind(fd_.get(), name.name(), name.size))
        << bind_to.to_string() << " " << errno_name(errno);
  }
  void set(int level, int name, int value) const {
    EXPECT_EQ(0, ::setsockopt(fd_.get(), level, name, &value, sizeof value)) << errno_name(errno);
  }
  void bind_to_device(const std::string& device) const {
    EXPECT_EQ(0, ::setsockopt(fd_.get(), SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
                              static_cast<socklen_t>(device.size())));
  }
  /// 0, or an errno.
  [[nodiscard]] int send(const endpoint& there, const std::string& text) const {
    const raw_address name(there);
    const auto sent = ::sendto(fd_.get(), text.data(), text.size(), 0, name.name(), name.size);
    return sent == static_cast<ssize_t>(text.size()) ? 0 : errno;
  }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  unique_fd fd_;
};

class address_forms : public comparable<two_links> {
 protected:
  /// A link-local address that B has on both links, and A knows the way to.
  void give_link_locals() {
    for (const std::string n : {"0", "1"}) {
      (*b)("ip addr add fe80::77/64 dev b" + n + " nodad");
      (*a)("ip neigh replace fe80::77 dev a" + n + " lladdr " + mac_of("b" + n) + " nud permanent");
    }
    ASSERT_TRUE(eventually([&] {
      return (*a)("ip -6 addr show scope link").find("inet6 fe80") != std::string::npos &&
             (*a)("ip -6 addr show tentative").empty();
    }));
  }

  static std::string next_of(capture& wire, int sent) {
    EXPECT_EQ(0, sent) << errno_name(sent);
    auto frame = wire.next();
    EXPECT_FALSE(frame.empty());
    return frame;
  }
};

TEST_F(address_forms, a_mapped_destination_is_the_ipv4_host) {
  const auto mapped = to("[::ffff:10.77.1.2]:9000");
  capture wire(*b, "b0");
  std::string kernel;
  {
    const inet6_socket plain(to("[::]:8001"));
    kernel = next_of(wire, plain.send(mapped, "mapped"));
  }
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  ASSERT_TRUE(s.try_send(bytes_of("mapped"), mapped));
  EXPECT_EQ(hex(kernel), hex(wire.next()));
  auto p = s.try_acquire();
  ASSERT_TRUE(p);
  std::ranges::copy(bytes_of("mapped"), p.bytes().begin());
  p.resize(6);
  std::error_code ec;
  s.send(std::move(p), mapped, ec);
  EXPECT_FALSE(ec);
  EXPECT_EQ(hex(kernel), hex(wire.next()));
  const std::vector<endpoint> both{mapped, to("10.77.1.2:9000")};
  outcome<std::error_code, std::size_t> sent;
  s.async_send(bytes_of("mapped"), both, sent.handler());
  EXPECT_EQ(2u, std::get<1>(sent.future.get()));
  EXPECT_EQ(hex(kernel), hex(wire.next()));
  EXPECT_EQ(hex(kernel), hex(wire.next()));
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(4u, tx.stats().transmitted_total()) << summary(tx.stats());
}

TEST_F(address_forms, an_adopted_dual_stack_socket_serves_both_families_with_the_options_of_each) {
  const inet6_socket mine(to("[::]:8001"));
  mine.set(IPPROTO_IP, IP_TOS, 0x20);
  mine.set(IPPROTO_IP, IP_TTL, 9);
  mine.set(IPPROTO_IPV6, IPV6_TCLASS, 0xb8);
  mine.set(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 11);
  capture wire(*b, "b0");
  const std::vector<endpoint> destinations{to("10.77.1.2:9000"), to("[::ffff:10.77.1.2]:9000"),
                                           to("[fd77:1::2]:9000")};
  std::vector<std::string> kernel;
  for (const auto& there : destinations) kernel.push_back(next_of(wire, mine.send(there, "dual")));
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = mine.fd()});
  for (std::size_t i = 0; i < destinations.size(); ++i) {
    ASSERT_TRUE(s.try_send(bytes_of("dual"), destinations[i]));
    EXPECT_EQ(hex(kernel[i]), hex(wire.next())) << destinations[i].to_string();
  }
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(3u, tx.stats().transmitted_total()) << summary(tx.stats());

  // The kernel path, too: longer than the path MTU, so in fragments, which the sink puts together.
  for (const auto& there : destinations) {
    const std::string text(1600, 'l');
    ASSERT_TRUE(s.try_send(bytes_of(text), there));
    udp_sink& sink = *sinks[there.address.unmapped().is_v6()];
    for (auto got = sink.next(); got; got = sink.next())
      if (got->bytes == text) break;
  }
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(3u, tx.stats().kernel_path) << summary(tx.stats());
}

TEST_F(address_forms, an_error_that_comes_back_to_a_dual_stack_socket_names_the_ipv4_host) {
  const inet6_socket mine(to("[::]:8001"));
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = mine.fd()});
  outcome<std::error_code, send_error> told;
  s.async_next_error(told.handler());
  // Answers to a closed port are limited in rate.
  ASSERT_TRUE(eventually([&] {
    static_cast<void>(s.try_send(bytes_of("closed"), to("[::ffff:10.77.1.2]:7")));
    return told.future.wait_for(100ms) == std::future_status::ready;
  }));
  const auto [ec, what] = told.future.get();
  EXPECT_FALSE(ec);
  EXPECT_EQ(errno_code(ECONNREFUSED), what.code);
  EXPECT_EQ("10.77.1.2:7", what.destination.to_string());
}

TEST_F(address_forms, a_socket_bound_to_a_mapped_address_serves_ipv4_from_it_and_nothing_else) {
  const inet6_socket mine(to("[::ffff:10.77.1.7]:8001"));
  capture wire(*b, "b0");
  const auto kernel = next_of(wire, mine.send(to("[::ffff:10.77.1.2]:9000"), "from"));
  EXPECT_EQ(EAFNOSUPPORT, mine.send(to("[fd77:1::2]:9000"), "from"));
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = mine.fd()});
  EXPECT_EQ("10.77.1.7:8001", s.local_endpoint(ip_family::v4).to_string());
  ASSERT_TRUE(s.try_send(bytes_of("from"), to("10.77.1.2:9000")));
  EXPECT_EQ(hex(kernel), hex(wire.next()));
  std::error_code ec;
  s.try_send(bytes_of("from"), to("[fd77:1::2]:9000"), ec);
  EXPECT_EQ(make_error_code(error::family_mismatch), ec);
}

TEST_F(address_forms, a_socket_for_ipv6_only_has_no_way_to_a_mapped_destination) {
  const inet6_socket told_so(to("[::]:8001"), true), by_its_address(to("[fd77:1::7]:8002"));
  for (const auto* mine : {&told_so, &by_its_address}) {
    EXPECT_EQ(ENETUNREACH, mine->send(to("[::ffff:10.77.1.2]:9000"), "x"));
    transmitter tx(small());
    auto s = tx.make_sender({.adopt_socket = mine->fd()});
    for (const char* there : {"[::ffff:10.77.1.2]:9000", "10.77.1.2:9000"}) {
      std::error_code ec;
      s.try_send(bytes_of("x"), to(there), ec);
      EXPECT_EQ(make_error_code(error::family_mismatch), ec) << there;
    }
    EXPECT_TRUE(s.try_send(bytes_of("x"), to("[fd77:1::2]:9000")));
    EXPECT_TRUE(sinks[1]->next());
  }
}

TEST_F(address_forms, a_mapped_source_is_refused_where_an_ipv6_one_is_asked_for) {
  transmitter tx(small());
  std::error_code ec;
  static_cast<void>(tx.make_sender({.source_v6 = ip_address::parse("::ffff:10.77.1.1")}, ec));
  EXPECT_EQ(make_error_code(error::family_mismatch), ec);
}

TEST_F(address_forms, a_scope_id_chooses_the_device) {
  give_link_locals();
  capture wires[2] = {capture(*b, "b0"), capture(*b, "b1")};
  const std::vector<endpoint> destinations{to("[fe80::77%a0]:9000"), to("[fe80::77%a1]:9000"),
                                           to("[ff02::1%a1]:9000")};
  std::vector<std::string> kernel;
  {
    const inet6_socket plain(to("[::]:8001"));
    for (std::size_t i = 0; i < destinations.size(); ++i)
      kernel.push_back(next_of(wires[i != 0], plain.send(destinations[i], "scoped")));
  }
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  for (std::size_t i = 0; i < destinations.size(); ++i) {
    ASSERT_TRUE(s.try_send(bytes_of("scoped"), destinations[i]));
    EXPECT_EQ(hex(kernel[i]), hex(wires[i != 0].next())) << destinations[i].to_string();
  }
  EXPECT_TRUE(drained(tx));
  auto stats = tx.stats();
  EXPECT_EQ(3u, stats.diverted["scoped_destination"]) << summary(stats);
  EXPECT_EQ(3u, stats.kernel_path) << summary(stats);
}

TEST_F(address_forms, a_scope_id_that_is_the_bound_device_takes_the_fast_path) {
  give_link_locals();
  capture wire(*b, "b1");
  const auto there = to("[fe80::77%a1]:9000");
  std::string kernel;
  {
    const inet6_socket plain(to("[::]:8001"));
    kernel = next_of(wire, plain.send(there, "bound"));
  }
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001, .bound_device = "a1"});
  for (const auto& form : {there, to("[fe80::77]:9000")}) {
    ASSERT_TRUE(s.try_send(bytes_of("bound"), form));
    EXPECT_EQ(hex(kernel), hex(wire.next())) << form.to_string();
  }
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(2u, tx.stats().transmitted_total()) << summary(tx.stats());
}

TEST_F(address_forms,
       a_scope_id_goes_before_the_bound_device_and_means_nothing_to_other_addresses) {
  give_link_locals();
  capture wires[2] = {capture(*b, "b0"), capture(*b, "b1")};
  auto global = to("[fd77:1::2]:9000");
  global.scope_id = to("[fe80::77%a1]:9000").scope_id;
  const auto other = to("[fe80::77%a1]:9000");
  int answers[2];
  {
    const inet6_socket plain(to("[::]:8001"));
    plain.bind_to_device("a0");
    answers[0] = plain.send(global, "other");
    answers[1] = plain.send(other, "other");
  }
  ASSERT_EQ(0, answers[0]);
  const auto kernel = wires[0].next();
  const auto kernel_other = answers[1] == 0 ? wires[1].next() : std::string();
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001, .bound_device = "a0"});
  ASSERT_TRUE(s.try_send(bytes_of("other"), global));
  EXPECT_EQ(hex(kernel), hex(wires[0].next()));
  ASSERT_TRUE(s.try_send(bytes_of("other"), other));
  EXPECT_TRUE(drained(tx));
  auto stats = tx.stats();
  EXPECT_EQ(1u, stats.diverted["scoped_destination"]) << summary(stats);
  EXPECT_EQ(1u, stats.transmitted_total()) << summary(stats);
  if (answers[1] == 0)
    EXPECT_EQ(hex(kernel_other), hex(wires[1].next()));
  else
    EXPECT_EQ(1u, stats.refused[errno_name(answers[1])]) << summary(stats);
}

struct kernel_only {
  const char* text;
  int level, name, value;
};
constexpr kernel_only each_kernel_only[] = {
    {"SO_DONTROUTE", SOL_SOCKET, SO_DONTROUTE, 1},
    {"SO_NO_CHECK", SOL_SOCKET, SO_NO_CHECK, 1},
    {"SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, 5},
    {"SO_MAX_PACING_RATE", SOL_SOCKET, SO_MAX_PACING_RATE, 5000},
    {"UDP_CORK", IPPROTO_UDP, UDP_CORK, 1},
    {"UDP_SEGMENT", IPPROTO_UDP, UDP_SEGMENT, 2},
    {"UDP_NO_CHECK6_TX", IPPROTO_UDP, UDP_NO_CHECK6_TX, 1},
    {"IPV6_ADDR_PREFERENCES", IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, IPV6_PREFER_SRC_TMP},
    {"IPV6_AUTOFLOWLABEL", IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 1},
    {"IPV6_FLOWINFO_SEND", IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 1},
};

/// Why adopting it is refused; "" if it is not.
std::string refusal_of(transmitter& tx, int fd) {
  std::error_code ec;
  const auto made = tx.make_sender({.adopt_socket = fd}, ec);
  if (!ec) return {};
  EXPECT_EQ(make_error_code(error::unsupported), ec) << ec.message();
  try {
    static_cast<void>(tx.make_sender({.adopt_socket = fd}));
  } catch (const std::system_error& refused) {
    return refused.what();
  }
  return "not refused twice";
}

TEST_F(address_forms, an_adopted_socket_with_an_option_that_only_the_kernel_follows_is_refused) {
  transmitter tx(small());
  for (const auto& option : each_kernel_only) {
    const inet6_socket mine(to("[::]:8001"));
    mine.set(option.level, option.name, option.value);
    EXPECT_NE(std::string::npos, refusal_of(tx, mine.fd()).find(option.text)) << option.text;
  }
  const inet6_socket routed(to("[::]:8001"));
  const std::array<std::uint8_t, 8> padding{0, 0, 1, 4};  // A destination options header: PadN.
  ASSERT_EQ(0,
            ::setsockopt(routed.fd(), IPPROTO_IPV6, IPV6_DSTOPTS, padding.data(), padding.size()));
  EXPECT_NE(std::string::npos, refusal_of(tx, routed.fd()).find("IPV6_DSTOPTS"));
  // A TOS brings a priority along, which is its own.
  const inet6_socket plain(to("[::]:8002"));
  plain.set(IPPROTO_IP, IP_TOS, 0x10);
  EXPECT_EQ("", refusal_of(tx, plain.fd()));
  plain.set(SOL_SOCKET, SO_MAX_PACING_RATE, 5000);
  EXPECT_NE("", refusal_of(tx, plain.fd()));
  plain.set(SOL_SOCKET, SO_MAX_PACING_RATE, -1);  // Unlimited, as it was.
  EXPECT_EQ("", refusal_of(tx, plain.fd()));
}

/// With such an option the kernel sends elsewhere than the routes say: what the fast path does.
TEST_F(address_forms, a_socket_whose_unicast_interface_is_not_the_routes_is_refused) {
  (*a)("ip route add 10.78.0.0/16 via 10.77.1.2");
  (*a)("ip route add 10.78.0.0/16 via 10.77.2.2 metric 9");
  (*a)("ip -6 route add fd78::/16 via fd77:1::2");
  (*a)("ip -6 route add fd78::/16 via fd77:2::2 metric 2000");
  (*b)("ip -6 route add local fd78::/16 dev lo");
  capture first(*b, "b0"), second(*b, "b1");
  transmitter tx(small());
  for (const bool v4 : {true, false}) {
    const auto there = to(v4 ? "[::ffff:10.78.0.1]:9000" : "[fd78::1]:9000");
    const inet6_socket mine(to("[::]:8001"));
    EXPECT_EQ(0, mine.send(there, "by the routes"));
    EXPECT_FALSE(first.next().empty());
    mine.set(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_UNICAST_IF : IPV6_UNICAST_IF,
             static_cast<int>(htonl(::if_nametoindex("a1"))));
    EXPECT_EQ(0, mine.send(there, "elsewhere"));
    EXPECT_FALSE(second.next().empty());
    EXPECT_NE(std::string::npos, refusal_of(tx, mine.fd()).find("_UNICAST_IF"));
  }
}

/// Not the prefix that so many bits become in the kernel's message, where there is room for eight.
TEST_F(two_hosts, a_tunnels_prefix_longer_than_its_address_is_refused) {
  auto kernel = netlink::request_socket();
  for (const auto& [local, bits] : {std::pair{"10.9.0.1", 33u},
                                    {"10.9.0.1", 256u + 24u},
                                    {"fd09::1", 129u},
                                    {"fd09::1", 256u + 64u}}) {
    tunnel_declaration wanted = default_tunnel("gre7", "gre");
    wanted.addresses = {{*ip_address::parse(local), bits}};
    try {
      static_cast<void>(create_tunnel(kernel, wanted));
      ADD_FAILURE() << "not refused: " << local << "/" << bits;
    } catch (const std::system_error& refused) {
      EXPECT_EQ(make_error_code(error::invalid_argument), refused.code()) << refused.what();
      EXPECT_NE(std::string::npos, std::string(refused.what()).find("prefix_length of")) << bits;
    }
    EXPECT_FALSE(find_link(kernel, "gre7"));
  }
}

}  // namespace
}  // namespace cowire::test
