// SPDX-License-Identifier: Apache-2.0
// Every kind of device that adds something to a frame, and every parameter that shapes it: frames
// of the kernel's drivers and frames of the fast path, byte for byte.
#include <tests/async/choosing_socket.hpp>

#include <algorithm>
#include <initializer_list>
#include <map>

namespace cowire::test {
namespace {

/// One device: how `ip link add NAME type` makes it, and which families go through.
struct device_spec {
  std::string parameters;  ///< The kind comes first.
  bool carries_ipv4 = true, carries_ipv6 = true;
  /// What keeps the fast path from serving it; empty = it does.
  std::string diverted_as{};
};

/// Bytes of UDP payload, and the sockets that send them.
const std::vector<std::size_t> small_sizes = {1, 1232};
const std::vector<sending_options> senders = {
    {.port = 8001},
    {.tos = 0x01, .port = 8002},
    {.tos = 0x02, .ttl = 37, .port = 8003},
    {.tos = 0x03, .port = 8004},
    {.tos = 0xb8, .ttl = 1, .port = 8005},
    {.tos = 0xff, .ttl = 255, .port = 8006},
};

class device_fidelity : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    ::alarm(900);
    if (std::system("ip link add probe type gre local 10.77.1.1 remote 10.77.1.2 2>/dev/null") != 0)
      GTEST_SKIP() << "the kernel has no ip_gre";
    (*a)("ip link del probe");
    (*a)(
        "sysctl -qw net.ipv6.auto_flowlabels=0 net.ipv6.conf.default.addr_gen_mode=1 "
        "net.ipv6.conf.default.router_solicitations=0");
    // The remotes are nobody's, so nobody answers; B sees the frames and drops them.
    (*b)("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    (*a)("ip route add 198.18.0.0/15 via 10.77.1.2");
    (*a)("ip route add fd99::/16 via fd77:1::2");
    resolve("10.77.1.2");
    resolve("fd77:1::2");
    for (const char* gateway : {"10.77.1.2", "fd77:1::2"})
      (*a)("ip neigh change " + std::string(gateway) + " dev a0 nud permanent");
  }

  static std::string device_of(std::size_t number) { return "t" + std::to_string(number); }
  static endpoint destination(std::size_t number, ip_family family) {
    const std::string n = std::to_string(number);
    return to(family == ip_family::v4 ? "10.200." + n + ".2:9000" : "[fd20:" + n + "::2]:9000");
  }

  static bool starts_with_one_of(const std::string& text,
                                 std::initializer_list<const char*> beginnings) {
    return std::ranges::any_of(beginnings, [&](const char* b) { return text.starts_with(b); });
  }
  /// To a remote address of the underlay that no other tunnel has.
  static std::string ends_of(std::size_t number, const device_spec& spec) {
    if (starts_with_one_of(spec.parameters, {"vlan", "macvlan", "bond"})) return {};
    const std::string n = std::to_string(number);
    return spec.parameters.starts_with("ip6") ? "local fd77:1::1 remote fd99::" + n
                                              : "local 10.77.1.1 remote 198.18.0." + n;
  }
  void make(std::size_t number, const device_spec& spec) {
    make(number, spec, ends_of(number, spec));
  }
  void make(std::size_t number, const device_spec& spec, const std::string& ends) {
    const std::string device = device_of(number);
    const auto space = spec.parameters.find(' ');
    const bool above = starts_with_one_of(spec.parameters, {"vlan", "macvlan"});
    (*a)("ip link add " + std::string(above ? "link a0 name " : "") + device + " type " +
         spec.parameters.substr(0, space) + " " + ends +
         (space == std::string::npos ? "" : spec.parameters.substr(space)));
    address(number, spec);
  }
  void address(std::size_t number, const device_spec& spec) {
    const std::string device = device_of(number), n = std::to_string(number);
    (*a)("ip addr add 10.200." + n + ".1/24 dev " + device);
    (*a)("ip link set " + device + " up");
    if (spec.carries_ipv6) (*a)("ip addr add fd20:" + n + "::1/64 dev " + device + " nodad");
    if (!starts_with_one_of(spec.parameters, {"vlan", "macvlan", "bond", "gretap", "ip6gretap"}))
      return;
    for (const auto family : ip_families)
      (*a)("ip neigh replace " + destination(number, family).address.to_string() + " dev " +
           device + " lladdr 02:00:00:00:aa:" + (number % 2 != 0 ? "01" : "02") + " nud permanent");
  }

  /// Largest payload that fits: what the kernel says about the way to there.
  std::size_t largest(const endpoint& there, std::size_t number) {
    const std::string text = (*a)("cat /sys/class/net/" + device_of(number) + "/mtu");
    const std::size_t headers = there.address.is_v4() ? 28 : 48;
    return std::stoul(text) - headers;
  }

  struct question {
    std::size_t tunnel = 0, sender = 0;
    endpoint there;
    std::size_t size = 0;
  };

  std::vector<question> questions_about(const std::vector<device_spec>& specs) {
    std::vector<question> out;
    for (std::size_t i = 0; i < specs.size(); ++i)
      for (const auto family : ip_families) {
        if (!(family == ip_family::v4 ? specs[i].carries_ipv4 : specs[i].carries_ipv6)) continue;
        const endpoint there = destination(i + 1, family);
        auto sizes = small_sizes;
        const std::size_t edge = largest(there, i + 1);
        for (const std::size_t size : {edge - 1, edge}) sizes.push_back(size);
        for (std::size_t s = 0; s < senders.size(); ++s)
          for (const std::size_t size : sizes) out.push_back({i, s, there, size});
      }
    return out;
  }

  void compare(const std::vector<device_spec>& specs) {
    for (std::size_t i = 0; i < specs.size(); ++i) make(i + 1, specs[i]);
    const auto questions = questions_about(specs);
    std::vector<std::string> names;
    std::size_t served = 0;
    for (const question& q : questions) {
      names.push_back(specs[q.tunnel].parameters);
      served += specs[q.tunnel].diverted_as.empty();
    }
    const auto stats = compare(questions, names, served);
    for (const device_spec& spec : specs)
      if (!spec.diverted_as.empty()) {
        EXPECT_TRUE(stats.diverted.contains(spec.diverted_as))
            << spec.parameters << ": " << summary(stats);
      }
  }

  /// Waits until all classes of these are compiled: ECN and probes have none of their own.
  static void resolve_all(sender& s, const endpoint& there,
                          const std::vector<datagram_options>& all) {
    for (const datagram_options& o : all) {
      if (o.ecn || o.path_mtu_probe) continue;
      outcome<std::error_code, path_state> resolved;
      s.async_resolve(there, o, resolved.handler());
      EXPECT_FALSE(std::get<0>(resolved.future.get())) << described(o);
    }
  }

  /// Of as many bytes as the route's MTU of 1300 has room for, the device's, and of more.
  void compare_probes(std::size_t number, const device_spec& spec, ip_family family) {
    const endpoint there = destination(number, family);
    const std::size_t headers = there.address.is_v4() ? 28 : 48;
    const std::size_t edge = largest(there, number);
    const std::vector<std::size_t> sizes = {64, 1300 - headers, 1301 - headers, edge, edge + 1};
    const datagram_options probe{.path_mtu_probe = true};
    capture wire(*b, "b0");
    std::vector<std::string> kernel;
    {
      choosing_socket socket(family, 8001);
      for (const std::size_t size : sizes) {
        const int refused = socket.send(there, patterned(size), probe);
        EXPECT_EQ(size > edge ? EMSGSIZE : 0, refused) << spec.parameters << " " << size;
        if (refused != 0) continue;
        kernel.push_back(wire.next());
        ASSERT_FALSE(kernel.back().empty()) << spec.parameters << " " << size;
      }
    }
    transmitter tx(small());
    auto ours = tx.make_sender({.source_port = 8001});
    const auto send_all = [&] {
      for (std::size_t k = 0; k < kernel.size(); ++k) {
        EXPECT_TRUE(ours.try_send(bytes_of(patterned(sizes[k])), there, probe));
        const std::string frame = wire.next();
        EXPECT_EQ(kernel[k], frame) << spec.parameters << " " << sizes[k] << "\nkernel "
                                    << hex(kernel[k]) << "\ncowire " << hex(frame);
      }
      EXPECT_TRUE(ours.try_send(bytes_of(patterned(edge + 1)), there, probe));
      // The network may tell as well that nobody is at the far end.
      send_error error{.from = send_error::origin::network};
      while (error.from == send_error::origin::network) {
        outcome<std::error_code, send_error> told;
        ours.async_next_error(told.handler());
        ASSERT_EQ(std::future_status::ready, told.future.wait_for(patience)) << spec.parameters;
        error = std::get<1>(told.future.get());
      }
      EXPECT_EQ(EMSGSIZE, error.code.value()) << spec.parameters;
      EXPECT_TRUE(drained(tx));
    };
    // What is too long for the route is the kernel's, and nothing else.
    EXPECT_TRUE(eventually([&] {
      const auto before = tx.stats();
      send_all();
      const auto after = tx.stats();
      return after.kernel_path == before.kernel_path + 2 &&
             after.refused_total() == before.refused_total() + 1;
    })) << spec.parameters
        << ": " << summary(tx.stats());
  }

  /// Whether sooner or later the fast path sends over `device` what the kernel sends, the sockets'
  /// ports and with them the checksum aside.
  bool agrees_with_kernel(capture& wire, const transmitter& tx, sender& ours,
                          const kernel_sender& kernel, const endpoint& there,
                          const std::string& device) {
    const std::string text = patterned(100);
    const auto comparable = [&](std::string frame) {
      // The UDP header is right in front of the payload: its ports, its checksum.
      if (frame.size() < text.size() + 8) return std::string();
      const std::size_t udp = frame.size() - text.size() - 8;
      for (const std::size_t i : {udp, udp + 1, udp + 6, udp + 7}) frame[i] = 0;
      return frame;
    };
    std::string expected, got;
    const bool agreed = eventually([&] {
      while (!wire.next(0ms).empty()) continue;  // Of earlier attempts.
      kernel.send(there, text);
      expected = comparable(wire.next(300ms));
      if (expected.empty()) return false;
      const auto before = tx.stats().transmitted[device];
      if (!ours.try_send(bytes_of(text), there)) return false;
      got = comparable(wire.next(300ms));
      return got == expected &&
             eventually([&] { return tx.stats().transmitted[device] > before; }, 300ms);
    });
    EXPECT_TRUE(agreed) << "kernel " << hex(expected) << "\ncowire " << hex(got);
    return agreed;
  }

  /// `count` datagrams over a device arrive, and each is diverted for this reason.
  void expect_left_to_kernel(std::size_t number, std::uint64_t count, const std::string& reason) {
    transmitter tx(small());
    auto s = tx.make_sender({.source_port = 8001});
    capture wire(*b, "b0");
    for (std::uint64_t i = 0; i < count; ++i) {
      ASSERT_TRUE(s.try_send(bytes_of("x"), destination(number, ip_family::v4)));
      EXPECT_FALSE(wire.next().empty());
    }
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(count, tx.stats().diverted[reason]) << summary(tx.stats());
  }

  /// The same frames where each datagram chooses the ECN bits that its sender does not have. Those
  /// of some tunnels in tunnels are left to the kernel (hop::ecn_by_kernel).
  void compare_chosen_ecn(transmitter& tx, const std::vector<question>& questions,
                          const std::vector<std::string>& kernel, std::size_t served, capture& wire,
                          const std::function<std::string(std::size_t)>& told) {
    const auto before = tx.stats();
    std::vector<sender> ours;
    for (sending_options o : senders) {
      o.tos &= 0xfc;
      ours.push_back(tx.make_sender(as_sender(o)));
    }
    std::size_t differences = 0;
    for (std::size_t i = 0; i < questions.size() && differences < 10; ++i) {
      const question& q = questions[i];
      const auto ecn = static_cast<ecn_codepoint>(senders[q.sender].tos & 3);
      EXPECT_TRUE(ours[q.sender].try_send(bytes_of(patterned(q.size)), q.there, {.ecn = ecn}));
      const std::string frame = wire.next();
      if (frame == kernel[i]) continue;
      ++differences;
      ADD_FAILURE() << told(i) << ", ECN chosen\nkernel " << hex(kernel[i]) << "\ncowire "
                    << hex(frame);
    }
    EXPECT_TRUE(drained(tx));
    auto stats = tx.stats();
    const auto kernel_path = stats.kernel_path - before.kernel_path;
    EXPECT_EQ(served, stats.submitted - before.submitted - kernel_path + stats.diverted["tunnel"])
        << summary(stats);
    EXPECT_EQ(0u, stats.refused_total()) << summary(stats);
  }

  /// All through the kernel, then all through cowire, `served` of them by its fast path.
  transmitter_stats compare(const std::vector<question>& questions,
                            const std::vector<std::string>& names, std::size_t served) {
    const auto told = [&](std::size_t i) {
      const question& q = questions[i];
      return names[i] + " to " + q.there.to_string() + " tos " +
             std::to_string(senders[q.sender].tos) + " ttl " +
             std::to_string(senders[q.sender].ttl) + ", " + std::to_string(q.size) + " bytes";
    };
    capture wire(*b, "b0");
    std::vector<std::string> kernel;
    {
      std::map<std::pair<std::size_t, ip_family>, kernel_sender> sockets;
      for (const question& q : questions) {
        const auto family = q.there.address.family();
        const auto [socket, fresh] =
            sockets.try_emplace({q.sender, family}, family, senders[q.sender]);
        socket->second.send(q.there, patterned(q.size));
        kernel.push_back(wire.next());
        EXPECT_FALSE(kernel.back().empty()) << "from the kernel: " << told(kernel.size() - 1);
      }
    }
    transmitter tx(small());
    std::vector<sender> ours;
    for (const sending_options& o : senders) ours.push_back(tx.make_sender(as_sender(o)));
    std::size_t differences = 0;
    for (std::size_t i = 0; i < questions.size() && differences < 10; ++i) {
      const question& q = questions[i];
      EXPECT_TRUE(ours[q.sender].try_send(bytes_of(patterned(q.size)), q.there));
      const std::string frame = wire.next();
      if (frame == kernel[i]) continue;
      ++differences;
      ADD_FAILURE() << told(i) << "\nkernel " << hex(kernel[i]) << "\ncowire " << hex(frame);
    }
    EXPECT_TRUE(drained(tx));
    auto stats = tx.stats();
    EXPECT_EQ(served, stats.submitted - stats.kernel_path) << summary(stats);
    EXPECT_EQ(0u, stats.refused_total()) << summary(stats);
    compare_chosen_ecn(tx, questions, kernel, served, wire, told);
    std::printf("%zu combinations, %zu of them by the fast path, %zu differ\n", questions.size(),
                served, differences);
    return stats;
  }
};

TEST_F(device_fidelity, gre) {
  std::vector<device_spec> specs;
  for (const char* key : {"", " key 10", " ikey 1 okey 0x11223344"})
    for (const char* ttl : {" ttl inherit", " ttl 64", " ttl 7"})
      for (const char* tos : {" tos 0", " tos 0xb8", " tos inherit", " tos 0xb9"})
        specs.push_back({std::string("gre") + key + ttl + tos});
  for (const char* checksum : {" csum", " ocsum key 7"})
    for (const char* tos : {" tos 0", " tos inherit"})
      specs.push_back({std::string("gre") + checksum + tos});
  compare(specs);
}

TEST_F(device_fidelity, gre_without_path_mtu_discovery) {
  std::vector<device_spec> specs;
  for (const char* ttl : {" ttl inherit", " ttl 64"})
    for (const char* tos : {" tos 0", " tos 0x03", " tos 0xff"}) {
      // Inner IPv6 has no DF to copy: the outer header needs an identification.
      specs.push_back({std::string("gre nopmtudisc") + ttl + tos, true, false});
      specs.push_back({std::string("gre nopmtudisc ignore-df") + ttl + tos, true, true,
                       "needs_identification"});
    }
  compare(specs);
}

TEST_F(device_fidelity, ethernet_in_gre) {
  std::vector<device_spec> specs;
  for (const char* key : {"", " key 7", " csum"}) {
    for (const char* ttl : {" ttl inherit", " ttl 64"})
      for (const char* tos : {" tos 0", " tos inherit", " tos 0x10"})
        specs.push_back({std::string("gretap") + key + ttl + tos});
    for (const char* hops : {" hoplimit 0", " hoplimit 64"}) {
      specs.push_back({std::string("ip6gretap") + key + hops, true, false});
      // Two IPv6 headers, two Ethernet headers: just as long as a template, or longer.
      const bool fits = std::string_view(key).empty();
      specs.push_back(
          {std::string("ip6gretap") + key + hops, false, true, fits ? "" : "tunnel_depth"});
    }
  }
  compare(specs);
}

TEST_F(device_fidelity, ip_in_ip) {
  std::vector<device_spec> specs;
  for (const char* ttl : {" ttl inherit", " ttl 64"})
    for (const char* tos : {" tos 0", " tos inherit", " tos 0xb8", " tos 0xb9"}) {
      specs.push_back({std::string("ipip") + ttl + tos, true, false});
      specs.push_back({std::string("sit") + ttl + tos, false, true});
    }
  compare(specs);
}

TEST_F(device_fidelity, over_ipv6) {
  std::vector<device_spec> specs;
  for (const char* kind : {"ip6gre", "ip6tnl mode any"})
    for (const char* limit : {" encaplimit none", " encaplimit 4", " encaplimit 0"})
      for (const char* hops : {" hoplimit 0", " hoplimit 33"})
        for (const char* rest : {"", " tclass 0xb8", " tclass inherit", " flowlabel 0x12345"})
          specs.push_back({std::string(kind) + limit + hops + rest});
  for (const char* rest : {" key 5 encaplimit none", " csum", " key 5 csum encaplimit none"})
    specs.push_back({std::string("ip6gre") + rest});
  compare(specs);
}

TEST_F(device_fidelity, vlan_and_macvlan) {
  compare({
      {"vlan proto 802.1q id 5"},
      {"vlan proto 802.1ad id 4094"},
      {"vlan proto 802.1q id 6 egress-qos-map 0:3", true, true, "unsupported_device"},
      {"macvlan mode private"},
      {"macvlan mode vepa"},
      {"macvlan mode bridge", true, true, "unsupported_device"},
  });
}

/// All that a datagram may choose, once its classes are compiled: as a socket's control messages.
TEST_F(device_fidelity, choices_of_one_datagram) {
  const std::vector<device_spec> specs = {{"gre ttl inherit tos inherit"},
                                          {"gretap ttl 64 csum key 7"},
                                          {"ip6gre encaplimit none tclass inherit"},
                                          {"vlan proto 802.1q id 5"}};
  for (std::size_t i = 0; i < specs.size(); ++i) {
    make(i + 1, specs[i]);
    const std::string n = std::to_string(i + 1);
    if (specs[i].carries_ipv6) (*a)("ip addr add fd20:" + n + "::7/64 dev t" + n + " nodad");
    (*a)("ip addr add 10.200." + n + ".7/24 dev t" + n);
  }
  capture wire(*b, "b0");
  for (std::size_t i = 0; i < specs.size(); ++i)
    for (const auto family : ip_families) {
      const bool v4 = family == ip_family::v4;
      if (!(v4 ? specs[i].carries_ipv4 : specs[i].carries_ipv6)) continue;
      const std::string n = std::to_string(i + 1);
      const endpoint there = destination(i + 1, family);
      const auto all = all_options(v4 ? "10.200." + n + ".7" : "fd20:" + n + "::7");
      std::vector<std::string> kernel;
      {
        choosing_socket socket(family, 8001);
        for (const datagram_options& o : all) {
          ASSERT_EQ(0, socket.send(there, patterned(64), o)) << described(o);
          kernel.push_back(wire.next());
          ASSERT_FALSE(kernel.back().empty()) << specs[i].parameters << described(o);
        }
      }
      transmitter tx(small());
      auto ours = tx.make_sender({.source_port = 8001});
      // By the kernel at first. Rounds, not seconds: in the guest one may take long.
      bool all_fast = false;
      for (int round = 0; round < 30 && !all_fast; ++round) {
        if (round == 1) resolve_all(ours, there, all);
        const auto before = tx.stats().kernel_path;
        for (std::size_t k = 0; k < all.size(); ++k) {
          EXPECT_TRUE(ours.try_send(bytes_of(patterned(64)), there, all[k]));
          const std::string frame = wire.next();
          ASSERT_EQ(kernel[k], frame) << specs[i].parameters << described(all[k]) << "\nkernel "
                                      << hex(kernel[k]) << "\ncowire " << hex(frame);
        }
        all_fast = drained(tx) && tx.stats().kernel_path == before;
      }
      EXPECT_TRUE(all_fast) << specs[i].parameters << ": " << summary(tx.stats());
    }
}

/// Up to the device's MTU whatever the route's is, and no longer: as a socket whose option is
/// IP_PMTUDISC_PROBE. What the route's MTU has room for is fast.
TEST_F(device_fidelity, path_mtu_probes) {
  const std::vector<device_spec> specs = {
      {"gre ttl inherit tos inherit"}, {"gretap ttl 64 csum key 7"},
      {"ipip ttl 64", true, false},    {"sit ttl 64", false, true},
      {"ip6gre encaplimit none"},      {"ip6tnl mode any encaplimit none"},
      {"vlan proto 802.1q id 5"},
  };
  for (std::size_t i = 0; i < specs.size(); ++i) {
    make(i + 1, specs[i]);
    for (const auto family : ip_families)
      if (family == ip_family::v4 ? specs[i].carries_ipv4 : specs[i].carries_ipv6)
        (*a)("ip route add " + destination(i + 1, family).address.to_string() + " dev " +
             device_of(i + 1) + " mtu 1300");
  }
  for (std::size_t i = 0; i < specs.size(); ++i)
    for (const auto family : ip_families)
      if (family == ip_family::v4 ? specs[i].carries_ipv4 : specs[i].carries_ipv6)
        compare_probes(i + 1, specs[i], family);
}

/// The second slave takes over when the first one loses its carrier.
TEST_F(device_fidelity, bond_follows_its_active_slave) {
  const device_spec bond{"bond mode active-backup miimon 20"};
  connect(*a, "a1", *b, "b1", 2);
  connect(*a, "a2", *b, "b2", 3);
  (*a)("ip link add t1 type " + bond.parameters);
  for (const char* slave : {"a1", "a2"}) {
    (*a)(std::string("ip link set ") + slave + " down");
    (*a)(std::string("ip link set ") + slave + " master t1");
  }
  address(1, bond);
  transmitter tx(small());
  auto ours = tx.make_sender({.source_port = 8001});
  const kernel_sender kernel(ip_family::v4, {.port = 8002});
  for (const char* active : {"1", "2"}) {
    capture wire(*b, (std::string("b") + active).c_str());
    EXPECT_TRUE(agrees_with_kernel(wire, tx, ours, kernel, destination(1, ip_family::v4),
                                   std::string("a") + active))
        << summary(tx.stats());
    (*b)("ip link set b1 down");
  }
}

/// Changed by netlink and by ioctl (whose notification is stale), moved to another underlay,
/// deleted and made again: with each change the fast path goes on as the kernel does.
TEST_F(device_fidelity, tunnel_that_changes_under_the_stream) {
  connect(*a, "a1", *b, "b1", 2);
  (*a)("ip neigh replace 10.77.2.2 dev a1 lladdr 02:00:00:00:bb:01 nud permanent");
  make(1, {"gre ttl 64"});
  transmitter tx(small());
  auto ours = tx.make_sender({.source_port = 8001});
  const kernel_sender kernel(ip_family::v4, {.port = 8002});
  capture first(*b, "b0"), second(*b, "b1");
  const auto follows = [&](capture& wire, const char* device) {
    return agrees_with_kernel(wire, tx, ours, kernel, destination(1, ip_family::v4), device);
  };
  EXPECT_TRUE(follows(first, "a0")) << summary(tx.stats());
  (*a)("ip link change t1 type gre local 10.77.1.1 remote 198.18.0.1 ttl 33 key 7");
  EXPECT_TRUE(follows(first, "a0")) << "ip link change: " << summary(tx.stats());
  (*a)("ip tunnel change t1 mode gre local 10.77.1.1 remote 198.18.0.1 ttl 12 key 9");
  EXPECT_TRUE(follows(first, "a0")) << "ip tunnel change: " << summary(tx.stats());
  (*a)("ip route add 198.18.0.1 via 10.77.2.2");
  EXPECT_TRUE(follows(second, "a1")) << "underlay: " << summary(tx.stats());
  (*a)("ip neigh replace 10.77.2.2 dev a1 lladdr 02:00:00:00:bb:02 nud permanent");
  EXPECT_TRUE(follows(second, "a1")) << "neighbour: " << summary(tx.stats());
  (*a)("ip route del 198.18.0.1 via 10.77.2.2");
  EXPECT_TRUE(follows(first, "a0")) << "underlay back: " << summary(tx.stats());
  (*a)("ip link del t1");
  make(1, {"gre ttl inherit tos 0x10"});
  EXPECT_TRUE(follows(first, "a0")) << "made again: " << summary(tx.stats());
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(0u, tx.stats().lost_in_device) << summary(tx.stats());
}

TEST_F(device_fidelity, what_only_the_kernel_can_build) {
  compare({
      {"gre encap fou encap-sport 5555 encap-dport 5556", true, true, "tunnel_encapsulation"},
  });
}

/// Of a flow: the numbers of the two rounds differ, so only the reason is looked at.
TEST_F(device_fidelity, sequence_numbers_are_left_to_the_kernel) {
  make(1, {"gre seq"});
  expect_left_to_kernel(1, 3, "tunnel_sequence");
}

/// The far end of the outer tunnel is where the inner tunnel's packets are routed.
struct nested_spec {
  std::string outer, inner;
  bool carries_ipv4 = true, carries_ipv6 = true;
};

TEST_F(device_fidelity, tunnel_in_tunnel) {
  std::vector<nested_spec> specs;
  for (const char* hidden : {" ttl 64", " ttl inherit"})
    for (const char* tos : {" tos 0", " tos inherit"}) {
      specs.push_back({std::string("gre") + hidden + tos, "gre key 9 ttl 33 tos 0x10"});
      specs.push_back({std::string("gre") + hidden + tos, "gre ttl inherit tos inherit"});
      specs.push_back({std::string("ipip") + hidden + tos, "gre ttl 33", true, true});
      specs.push_back({std::string("gre") + hidden + tos, "ip6gre hoplimit 33", true, false});
    }
  specs.push_back({"ip6gre hoplimit 0 tclass inherit", "gre ttl 33 tos 0xb8", true, false});
  specs.push_back({"ip6tnl mode any hoplimit 7", "gre ttl inherit tos inherit", true, false});
  specs.push_back({"sit ttl 64 tos inherit", "ip6gre hoplimit 33", true, false});
  for (const char* outer : {"gre csum", "gre csum key 5", "ip6gre csum encaplimit none"})
    for (const char* inner : {"gre", "gre csum", "gre csum key 3"})
      specs.push_back({outer, inner, true, std::string_view(outer).starts_with("gre")});
  // The length of the inner tunnel's packet, in an IPv6 header, is under the outer one's checksum.
  for (const char* inner : {"ip6gre hoplimit 33", "ip6gre csum encaplimit none",
                            "ip6gre csum key 3 encaplimit none", "ip6tnl mode any hoplimit 7"})
    for (const char* outer : {"gre csum", "gre csum key 5"})
      specs.push_back({outer, inner, true, false});

  std::vector<question> questions;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const std::size_t below = 2 * i + 1, above = below + 1;
    make(below, {specs[i].outer});
    const bool v6 = specs[i].inner.starts_with("ip6");
    const std::string n = std::to_string(below);
    make(above, {specs[i].inner, specs[i].carries_ipv4, specs[i].carries_ipv6},
         v6 ? "local fd20:" + n + "::1 remote fd20:" + n + "::2"
            : "local 10.200." + n + ".1 remote 10.200." + n + ".2");
    for (const auto family : ip_families) {
      if (!(family == ip_family::v4 ? specs[i].carries_ipv4 : specs[i].carries_ipv6)) continue;
      for (std::size_t s = 0; s < senders.size(); ++s)
        for (const std::size_t size : small_sizes) {
          questions.push_back({above, s, destination(above, family), size});
          names.push_back(specs[i].inner + " in " + specs[i].outer);
        }
    }
  }
  compare(questions, names, questions.size());
}

/// The kernel delivers through three, a template holds two.
TEST_F(device_fidelity, three_deep_is_left_to_the_kernel) {
  make(1, {"gre ttl 64"});
  make(2, {"gre ttl 33"}, "local 10.200.1.1 remote 10.200.1.2");
  make(3, {"gre ttl 5"}, "local 10.200.2.1 remote 10.200.2.2");
  expect_left_to_kernel(3, 1, "tunnel_depth");
}

}  // namespace
}  // namespace cowire::test
