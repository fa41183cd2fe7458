// SPDX-License-Identifier: Apache-2.0
// What one datagram chooses for itself: the bytes, ways and refusals of a kernel's socket that is
// told the same by control messages.
#include <tests/async/choosing_socket.hpp>

#include <linux/capability.h>
#include <sys/syscall.h>

namespace cowire::test {
namespace {

using options = datagram_options;

class datagram_options_test : public comparable<two_links> {
 protected:
  static std::uint64_t diverted(const transmitter& tx, const char* reason) {
    const auto stats = tx.stats();
    const auto found = stats.diverted.find(reason);
    return found == stats.diverted.end() ? 0 : found->second;
  }
  /// All that the kernel made of the options, and then what we make of them: at once, whichever way
  /// that is, and when all classes are compiled.
  void compare(const endpoint& destination, const std::string& second, const sending_options& o) {
    capture wire(*b, "b0");
    const auto all = all_options(second);
    std::vector<std::string> kernel;
    {
      choosing_socket socket(destination.address.family(), o.port, o.tos, o.ttl);
      for (std::size_t i = 0; i < all.size(); ++i) {
        ASSERT_EQ(0, socket.send(destination, patterned(i), all[i])) << described(all[i]);
        kernel.push_back(wire.next());
      }
    }
    transmitter tx(small());
    auto s = tx.make_sender(as_sender(o));
    const auto send_all = [&] {
      for (std::size_t i = 0; i < all.size(); ++i) {
        ASSERT_TRUE(s.try_send(bytes_of(patterned(i)), destination, all[i]));
        const auto ours = wire.next();
        EXPECT_EQ(kernel[i], ours)
            << described(all[i]) << "\nkernel " << hex(kernel[i]) << "\ncowire " << hex(ours);
      }
    };
    send_all();
    EXPECT_TRUE(drained(tx));
    const auto first = tx.stats();
    EXPECT_GE(diverted(tx, "new_flow_class"), 1u);
    EXPECT_EQ(first.kernel_path, diverted(tx, "new_flow_class")) << summary(first);
    ASSERT_TRUE(eventually([&] {
      const auto before = tx.stats().kernel_path;
      send_all();
      return drained(tx) && tx.stats().kernel_path == before;
    })) << summary(tx.stats());
    EXPECT_EQ(0u, tx.stats().refused_total()) << summary(tx.stats());
  }
};

TEST_F(datagram_options_test, have_the_bytes_of_a_kernel_socket_over_ipv4) {
  compare(to("10.77.1.2:9000"), "10.77.1.7", {});
}
TEST_F(datagram_options_test, have_the_bytes_of_a_kernel_socket_over_ipv6) {
  compare(to("[fd77:1::2]:9000"), "fd77:1::7", {});
}
TEST_F(datagram_options_test, are_beside_the_senders_own_over_ipv4) {
  compare(to("10.77.1.2:9000"), "10.77.1.7", {.tos = 0x29, .ttl = 33});
}
TEST_F(datagram_options_test, are_beside_the_senders_own_over_ipv6) {
  compare(to("[fd77:1::2]:9000"), "fd77:1::7", {.tos = 0x2a, .ttl = 33});
}

/// The TTL is theirs, too, which the sender's does not concern.
TEST_F(datagram_options_test, have_the_bytes_of_a_kernel_socket_to_groups) {
  capture wire(*b, "b0");
  const std::uint32_t device = ::if_nametoindex("a0");
  for (const auto& [text, second] :
       {std::pair("239.1.2.3:9000", "10.77.1.7"), std::pair("[ff15::5]:9000", "fd77:1::7")}) {
    const endpoint there = to(text);
    const std::vector<options> all = {{},
                                      {.ttl = 9},
                                      {.dscp = 46, .ecn = ecn_codepoint::ce},
                                      {.source = *ip_address::parse(second), .ttl = 3}};
    std::vector<std::string> kernel;
    {
      choosing_socket socket(there.address.family(), 8001);
      socket.use_for_groups(device);
      for (const options& o : all) {
        ASSERT_EQ(0, socket.send(there, "to all", o)) << described(o);
        kernel.push_back(wire.next());
      }
    }
    transmitter tx(small());
    auto s =
        tx.make_sender({.source_port = 8001, .multicast_interface = "a0", .multicast_loop = false});
    ASSERT_TRUE(eventually([&] {
      const auto before = tx.stats().kernel_path;
      for (std::size_t i = 0; i < all.size(); ++i) {
        EXPECT_TRUE(s.try_send(bytes_of("to all"), there, all[i]));
        EXPECT_EQ(kernel[i], wire.next()) << described(all[i]);
      }
      return drained(tx) && tx.stats().kernel_path == before;
    })) << summary(tx.stats());
  }
}

TEST_F(datagram_options_test, ecn_alone_is_free_of_classes_and_of_the_kernel_path) {
  capture wire(*b, "b0");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  const auto shared = tx.make_shared_sender({.source_port = 8002});
  for (const char* there : {"10.77.1.2:9000", "[fd77:1::2]:9000"})
    for (const auto& ecn : all_ecn()) {
      ASSERT_TRUE(s.try_send(bytes_of("x"), to(there), {.ecn = ecn}));
      const auto one = wire.next();
      ASSERT_TRUE(shared.try_send(bytes_of("x"), to(there), {.ecn = ecn}));
      const auto other = wire.next();
      const bool v4 = to(there).address.is_v4();
      for (const auto& frame : {one, other}) {
        ASSERT_GT(frame.size(), 42u);
        const auto tos = static_cast<unsigned char>(frame[15]) >> (v4 ? 0 : 4);
        EXPECT_EQ(ecn ? static_cast<int>(*ecn) : 0, tos & 3) << hex(frame);
      }
    }
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
}

/// The kernel path takes the codepoint, too, where the fast path does not serve.
TEST_F(datagram_options_test, ecn_goes_with_what_is_diverted) {
  capture wire(*b, "b0");
  transmitter tx([] {
    auto config = small();
    config.mode = send_mode::kernel;
    return config;
  }());
  auto s = tx.make_sender({.tos = 0x28});
  ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:9000"), {.ecn = ecn_codepoint::ce}));
  const auto frame = wire.next();
  ASSERT_GT(frame.size(), 42u);
  EXPECT_EQ(0x2b, static_cast<unsigned char>(frame[15]));
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().kernel_path);
}

/// Rules by mark, source and DSCP lead elsewhere; ECN bits steer nothing.
TEST_F(datagram_options_test, steer_a_datagram_as_rules_say) {
  (*a)("ip route add 10.78.0.0/16 via 10.77.1.2");
  (*a)("ip route add 10.78.0.0/16 via 10.77.2.2 table 100");
  (*a)("ip rule add fwmark 5 table 100");
  (*a)("ip rule add from 10.77.1.7 table 100");
  (*a)("ip rule add tos 0x10 table 100");
  resolve("10.77.2.2");
  const endpoint there = to("10.78.0.1:9000");
  capture first(*b, "b0"), second(*b, "b1");
  transmitter tx(small());
  auto s = tx.make_sender();
  const ip_address own = *ip_address::parse("10.77.1.7");
  const std::vector<std::pair<options, bool>> expected = {
      {{}, false},
      {{.mark = 5}, true},
      {{.mark = 6}, false},
      {{.source = own}, true},
      {{.dscp = 4}, true},
      {{.dscp = 4, .ecn = ecn_codepoint::ce}, true},
      {{.ecn = ecn_codepoint::ce}, false},
      {{.dscp = 1, .ecn = ecn_codepoint::ect_0}, false},
  };
  const auto all_go_right = [&] {
    for (const auto& [o, elsewhere] : expected) {
      ASSERT_TRUE(s.try_send(bytes_of("x"), there, o));
      EXPECT_FALSE((elsewhere ? second : first).next().empty()) << described(o);
    }
  };
  all_go_right();
  ASSERT_TRUE(eventually([&] {
    EXPECT_TRUE(drained(tx));
    const auto before = tx.stats().kernel_path;
    all_go_right();
    return drained(tx) && tx.stats().kernel_path == before;
  })) << summary(tx.stats());
  EXPECT_TRUE(first.next(0ms).empty());
  EXPECT_TRUE(second.next(0ms).empty());
}

/// As the kernel answers a socket, before the class is known and after.
TEST_F(datagram_options_test, a_source_that_is_not_ours_is_refused_as_by_the_kernel) {
  transmitter tx(small());
  auto s = tx.make_sender();
  const std::pair<const char*, const char*> cases[] = {{"10.77.1.2:9000", "10.77.1.99"},
                                                       {"[fd77:1::2]:9000", "fd77:1::99"},
                                                       {"10.77.1.2:9000", "224.0.0.1"}};
  for (const auto& [there, source] : cases) {
    const options o{.source = *ip_address::parse(source)};
    choosing_socket socket(to(there).address.family(), 8055);
    const int kernel = socket.send(to(there), "x", o);
    ASSERT_NE(0, kernel);
    for (int round = 0; round < 3; ++round) {
      outcome<std::error_code, send_error> told;
      s.async_next_error(told.handler());
      ASSERT_TRUE(s.try_send(bytes_of("x"), to(there), o));
      const auto [ec, error] = told.future.get();
      ASSERT_FALSE(ec);
      EXPECT_EQ(kernel, error.code.value()) << source;
      EXPECT_TRUE(drained(tx));
      std::this_thread::sleep_for(20ms);  // Time to compile; either way the answer is the same.
    }
  }
  EXPECT_EQ(0u, tx.stats().transmitted_total()) << summary(tx.stats());
}

/// An address that comes and goes: kernel's answer and ours change with it.
TEST_F(datagram_options_test, a_source_is_fast_as_long_as_it_is_ours) {
  transmitter tx(small());
  auto s = tx.make_sender();
  const auto fast = [&](const char* there, const char* source) {
    return eventually([&, o = options{.source = *ip_address::parse(source)}] {
      const auto before = tx.stats().transmitted_total();
      EXPECT_TRUE(s.try_send(bytes_of("x"), to(there), o));
      return drained(tx) && tx.stats().transmitted_total() > before;
    });
  };
  const auto refused = [&](const char* there, const char* source) {
    return eventually([&, o = options{.source = *ip_address::parse(source)}] {
      const auto before = tx.stats().refused_total();
      EXPECT_TRUE(s.try_send(bytes_of("x"), to(there), o));
      return drained(tx) && tx.stats().refused_total() > before;
    });
  };
  EXPECT_TRUE(fast("10.77.1.2:9000", "10.77.1.7"));
  EXPECT_TRUE(fast("[fd77:1::2]:9000", "fd77:1::7"));
  (*a)("ip addr del 10.77.1.7/24 dev a0");
  (*a)("ip addr del fd77:1::7/64 dev a0");
  EXPECT_TRUE(refused("10.77.1.2:9000", "10.77.1.7")) << summary(tx.stats());
  EXPECT_TRUE(refused("[fd77:1::2]:9000", "fd77:1::7")) << summary(tx.stats());
  (*a)("ip addr add 10.77.1.7/24 dev a0");
  (*a)("ip addr add fd77:1::7/64 dev a0 nodad");
  EXPECT_TRUE(fast("10.77.1.2:9000", "10.77.1.7")) << summary(tx.stats());
  EXPECT_TRUE(fast("[fd77:1::2]:9000", "fd77:1::7")) << summary(tx.stats());
}

/// Up to the path MTU: as any datagram, fast. Longer than it, up to the device's: sent whole.
/// Longer than that: EMSGSIZE. And the socket is as before for others.
TEST_F(datagram_options_test, a_path_mtu_probe_is_sent_whole_or_refused) {
  (*a)("ip route replace 10.77.1.2/32 dev a0 mtu 1000");
  (*a)("ip -6 route replace fd77:1::2/128 dev a0 mtu 1300");
  for (const char* text : {"10.77.1.2:9000", "[fd77:1::2]:9000"}) {
    const endpoint there = to(text);
    const std::size_t headers = there.address.is_v4() ? 28 : 48;
    const options probe{.ecn = ecn_codepoint::ect_0, .path_mtu_probe = true};
    capture wire(*b, "b0");
    std::vector<std::string> kernel;
    const std::vector<std::size_t> sizes = {100, 1400 - headers, 1500 - headers};
    {
      choosing_socket socket(there.address.family(), 8001);
      for (const std::size_t size : sizes) {
        ASSERT_EQ(0, socket.send(there, patterned(size), probe));
        kernel.push_back(wire.next());
      }
      EXPECT_EQ(EMSGSIZE, socket.send(there, patterned(1501 - headers), probe));
    }
    transmitter tx(small());
    auto s = tx.make_sender({.source_port = 8001});
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      ASSERT_TRUE(s.try_send(bytes_of(patterned(sizes[i])), there, probe));
      EXPECT_EQ(kernel[i], wire.next()) << sizes[i];
    }
    outcome<std::error_code, send_error> told;
    s.async_next_error(told.handler());
    ASSERT_TRUE(s.try_send(bytes_of(patterned(1501 - headers)), there, probe));
    const auto [ec, error] = told.future.get();
    EXPECT_EQ(EMSGSIZE, error.code.value());
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(3u, diverted(tx, "path_mtu_probe")) << summary(tx.stats());
    EXPECT_EQ(1u, tx.stats().transmitted_total()) << summary(tx.stats());
    EXPECT_TRUE(wire.next(0ms).empty());
    // Neither is what the probe was refused for taken for the path's MTU.
    while (sinks[static_cast<std::size_t>(there.address.family())]->next(0ms)) continue;
    ASSERT_TRUE(s.try_send(bytes_of(patterned(1400 - headers)), there));
    const auto got = sinks[static_cast<std::size_t>(there.address.family())]->next();
    ASSERT_TRUE(got);
    EXPECT_EQ(patterned(1400 - headers), got->bytes);
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(1u, diverted(tx, "exceeds_mtu")) << summary(tx.stats());
  }
}

/// Where the kernel sends others without DF, a probe has it.
TEST_F(datagram_options_test, a_path_mtu_probe_has_df_where_the_mtu_is_locked) {
  (*a)("ip route replace 10.77.1.2/32 dev a0 mtu lock 1000");
  const endpoint there = to("10.77.1.2:9000");
  capture wire(*b, "b0");
  const std::vector<options> all = {{}, {.path_mtu_probe = true}};
  std::vector<std::string> kernel;
  {
    choosing_socket socket(ip_family::v4, 8001);
    for (const options& o : all) {
      ASSERT_EQ(0, socket.send(there, "x", o));
      kernel.push_back(wire.next());
    }
  }
  ASSERT_NE(kernel[0], kernel[1]);
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  for (int round = 0; round < 3; ++round)
    for (std::size_t i = 0; i < all.size(); ++i) {
      ASSERT_TRUE(s.try_send(bytes_of("x"), there, all[i]));
      EXPECT_EQ(kernel[i], wire.next()) << described(all[i]);
    }
  EXPECT_TRUE(drained(tx));
}

TEST_F(datagram_options_test, more_combinations_than_classes_are_left_to_the_kernel) {
  transmitter tx(small());
  auto s = tx.make_sender();
  constexpr std::uint32_t marks = chosen_classes_max + 3;
  const auto send_all = [&] {
    for (std::uint32_t mark = 1; mark <= marks; ++mark)
      ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:9000"), {.mark = mark}));
    EXPECT_TRUE(drained(tx));
  };
  send_all();
  EXPECT_EQ(3u, diverted(tx, "flow_class_limit")) << summary(tx.stats());
  ASSERT_TRUE(eventually([&] {
    const auto before = tx.stats().kernel_path;
    send_all();
    return tx.stats().kernel_path == before + 3;
  })) << summary(tx.stats());
  EXPECT_EQ(0u, tx.stats().refused_total()) << summary(tx.stats());
  // Who comes after has classes of its own.
  auto other = tx.make_sender();
  EXPECT_TRUE(eventually([&] {
    const auto before = tx.stats().transmitted_total();
    EXPECT_TRUE(other.try_send(bytes_of("x"), to("10.77.1.2:9000"), {.mark = 1000}));
    return drained(tx) && tx.stats().transmitted_total() > before;
  }));
}

/// Drops a privilege of this thread's, and of those that it starts.
void forget_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  ASSERT_EQ(0, ::syscall(SYS_capget, &header, data));
  for (const int which : {CAP_NET_ADMIN, CAP_NET_RAW}) data[0].effective &= ~(1u << which);
  ASSERT_EQ(0, ::syscall(SYS_capset, &header, data));
}

TEST_F(datagram_options_test, a_mark_without_the_privilege_is_refused_as_by_the_kernel) {
  std::thread([&] {
    forget_capabilities();
    auto config = small();
    config.mode = send_mode::kernel;
    transmitter tx(config);
    auto s = tx.make_sender();
    for (int round = 0; round < 3; ++round) {
      outcome<std::error_code, send_error> told;
      s.async_next_error(told.handler());
      ASSERT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:9000"), {.mark = 5}));
      EXPECT_EQ(EPERM, std::get<1>(told.future.get()).code.value());
      EXPECT_TRUE(drained(tx));
    }
    EXPECT_EQ(3u, diverted(tx, "new_flow_class")) << summary(tx.stats());
  }).join();
}

TEST_F(datagram_options_test, what_cannot_be_meant_is_refused_at_once) {
  transmitter tx(small());
  auto s = tx.make_sender();
  const auto why = [&](sender& by, const options& o) {
    std::error_code ec;
    by.try_send(bytes_of("x"), to("10.77.1.2:9000"), o, ec);
    return ec;
  };
  EXPECT_EQ(make_error_code(error::invalid_argument), why(s, {.dscp = 64}));
  EXPECT_EQ(make_error_code(error::invalid_argument),
            why(s, {.source = ip_address::any(ip_family::v4)}));
  EXPECT_EQ(make_error_code(error::family_mismatch),
            why(s, {.source = *ip_address::parse("fd77:1::7")}));
  const unique_fd mine(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const raw_address any({ip_address::any(ip_family::v4), 0});
  ASSERT_EQ(0, ::bind(mine.get(), any.name(), any.size));
  auto adopted = tx.make_sender({.adopt_socket = mine.get()});
  EXPECT_EQ(make_error_code(error::unsupported), why(adopted, {.path_mtu_probe = true}));
  EXPECT_FALSE(why(adopted, {.ecn = ecn_codepoint::ce}));
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(1u, tx.stats().submitted) << summary(tx.stats());
}

/// Every call that has options gives them to each of its datagrams.
TEST_F(datagram_options_test, are_taken_by_every_call) {
  capture wire(*b, "b0");
  transmitter tx(small());
  auto s = tx.make_sender();
  const auto shared = tx.make_shared_sender();
  const endpoint there = to("10.77.1.2:9000");
  const std::vector<endpoint> both = {there, there};
  const options ce{.ecn = ecn_codepoint::ce}, high{.dscp = 46};
  const auto expect_tos = [&](std::initializer_list<int> tos, const char* what) {
    for (const int expected : tos) {
      const auto frame = wire.next();
      ASSERT_GT(frame.size(), 42u) << what;
      EXPECT_EQ(expected, static_cast<unsigned char>(frame[15])) << what;
    }
  };
  const auto payload_of = [](auto& from) {
    payload p = from.try_acquire();
    EXPECT_TRUE(p);
    p.resize(5);
    return p;
  };
  const auto exercise = [&](auto& by) {
    std::error_code ec;
    by.try_send(bytes_of("x"), there, ce, ec);
    EXPECT_FALSE(ec);
    expect_tos({3}, "try_send");
    by.send(payload_of(by), there, ce, ec);
    EXPECT_FALSE(ec);
    expect_tos({3}, "send");
    EXPECT_EQ(2u, by.try_send_segments(bytes_of("abcd"), 2, there, ce, ec));
    expect_tos({3, 3}, "try_send_segments");
    // The second one has a class; as long as that is compiled it may come later.
    const message batch[] = {{bytes_of("1"), there, ce}, {bytes_of("2"), there}};
    EXPECT_EQ(2u, by.try_send_batch(batch, ec));
    expect_tos({3, 0}, "try_send_batch");
    const auto await = [&](auto&& begin) {
      outcome<std::error_code, std::size_t> done;
      begin(done.handler());
      const auto [failed, count] = done.future.get();
      EXPECT_FALSE(failed);
      return count;
    };
    EXPECT_EQ(1u, await([&](auto h) { by.async_send(payload_of(by), there, high, h); }));
    expect_tos({0xb8}, "async_send of a payload");
    EXPECT_EQ(2u, await([&](auto h) { by.async_send(payload_of(by), both, ce, h); }));
    expect_tos({3, 3}, "async_send of a payload to many");
    EXPECT_EQ(1u, await([&](auto h) { by.async_send(bytes_of("x"), there, high, h); }));
    expect_tos({0xb8}, "async_send");
    EXPECT_EQ(2u, await([&](auto h) { by.async_send(bytes_of("x"), both, ce, h); }));
    expect_tos({3, 3}, "async_send to many");
    EXPECT_EQ(2u,
              await([&](auto h) { by.async_send_segments(bytes_of("abcd"), 2, there, ce, h); }));
    expect_tos({3, 3}, "async_send_segments");
  };
  exercise(s);
  exercise(shared);
  std::error_code ec;
  EXPECT_EQ(2u, shared.try_send(bytes_of("x"), both, ce, ec));
  expect_tos({3, 3}, "fan-out");
  payload p = payload_of(shared);
  EXPECT_EQ(2u, shared.try_send(p, both, high, ec));
  expect_tos({0xb8, 0xb8}, "fan-out of a payload");
  EXPECT_TRUE(drained(tx));
}

TEST_F(datagram_options_test, are_taken_with_a_default_token_and_in_batches_up_to_a_wrong_one) {
  capture wire(*b, "b0");
  transmitter tx(small());
  auto s = tx.make_sender();
  const endpoint there = to("10.77.1.2:9000");
  const options ce{.ecn = ecn_codepoint::ce};
  const auto expect_marked = [&] {
    const auto frame = wire.next();
    ASSERT_GT(frame.size(), 42u);
    EXPECT_EQ(3, static_cast<unsigned char>(frame[15]));
  };
  auto awaiting = asio::use_awaitable.as_default_on(tx.make_sender());
  asio::io_context io;
  auto awaited =
      asio::co_spawn(io, awaiting.async_send(bytes_of("x"), there, ce), asio::use_future);
  io.run();
  EXPECT_EQ(1u, awaited.get());
  expect_marked();
  std::error_code ec;
  const message wrong[] = {{bytes_of("1"), there, ce}, {bytes_of("2"), there, {.dscp = 77}}};
  EXPECT_EQ(1u, s.try_send_batch(wrong, ec));
  EXPECT_EQ(make_error_code(error::invalid_argument), ec);
  expect_marked();
  EXPECT_TRUE(drained(tx));
}

}  // namespace
}  // namespace cowire::test
