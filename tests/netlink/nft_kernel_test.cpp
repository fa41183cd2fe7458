// SPDX-License-Identifier: Apache-2.0
// Rulesets that nft(8) loads into a namespace, as they are read back.
#include <cowire/base/error.hpp>
#include <cowire/netlink/nft_follower.hpp>
#include <cowire/netlink/nft_reader.hpp>

#include "tests/support/netns.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#define NFT_OR_SKIP() \
  if (std::system("nft --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs nft"

namespace cowire::netlink::nft {
namespace {

void load(const test::netns& in, const std::string& text) {
  const std::string file = "/tmp/" + in.name() + ".nft";
  std::ofstream(file) << text;
  in("nft -f " + file);
  ::unlink(file.c_str());
}

/// What nft refuses changes nothing.
void try_to_load(const test::netns& in, const std::string& text) {
  const std::string file = "/tmp/" + in.name() + ".nft";
  std::ofstream(file) << text;
  in("nft -f " + file + " 2>/dev/null || true");
  ::unlink(file.c_str());
}

ruleset read_in(const test::netns& in) {
  const test::netns::scope inside(in);
  std::error_code ec;
  auto found = read_ruleset(ec);
  EXPECT_FALSE(ec) << ec.message();
  return found;
}

template <class T>
const T* find(const rule& in) {
  for (const expression& e : in.expressions)
    if (const T* found = std::get_if<T>(&e.content)) return found;
  return nullptr;
}

bytes of(std::initializer_list<int> values) {
  bytes out;
  for (const int v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}

constexpr const char* sample = R"(
table inet t {
  set blocked { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.1.1 } }
  set seen { type ipv4_addr; size 100; flags dynamic,timeout; timeout 1m; }
  map places { type ipv4_addr . inet_service : verdict; flags interval;
    elements = { 10.1.0.0/16 . 53 : drop, 10.2.0.0/16 . 80-90 : jump side } }
  chain side { counter accept
 }
  chain out {
    type filter hook output priority -150; policy drop;
    ip daddr @blocked reject
    ip daddr != 1.2.3.4 udp dport 9000 drop
    ip daddr . udp dport vmap @places
    oifname "eth*" meta mark & 0xff == 0x7 ct state established,related accept
    udp dport 1000-2000 add @seen { ip daddr limit rate 1/second }
    meta mark set 0x5
    ip daddr 10.9.9.9 limit rate 5/second accept
  }
}
table ip n {
  chain post { type nat hook postrouting priority srcnat
    masquerade
  }
}
table ip6 d {
  flags dormant
  chain o { type filter hook output priority 0
    drop
  }
}
)";

TEST(nft_kernel, an_untouched_namespace_has_no_rules) {
  NETNS_OR_SKIP();
  const test::netns ns;
  const auto found = read_in(ns);
  EXPECT_TRUE(found.empty());
  EXPECT_EQ(found.rule_count(), 0u);
}

TEST(nft_kernel, tables_chains_and_rules_are_read_as_they_were_loaded) {
  NETNS_OR_SKIP();
  NFT_OR_SKIP();
  const test::netns ns;
  load(ns, sample);
  const ruleset found = read_in(ns);
  EXPECT_NE(found.generation, 0u);
  ASSERT_EQ(found.tables.size(), 3u);
  EXPECT_TRUE(found.tables.at({family::ipv6, "d", ""}).is_dormant());
  const auto& out = found.chains.at({family::inet, "t", "out"});
  ASSERT_TRUE(out.chain.hook);
  EXPECT_EQ(out.chain.hook->number, 3u);
  EXPECT_EQ(out.chain.hook->priority, -150);
  EXPECT_EQ(out.chain.policy, 0u);
  EXPECT_EQ(out.chain.type, "filter");
  ASSERT_EQ(out.rules.size(), 7u);
  EXPECT_FALSE(found.chains.at({family::inet, "t", "side"}).chain.hook);
  EXPECT_EQ(found.chains.at({family::ipv4, "n", "post"}).chain.type, "nat");
  for (const rule& r : out.rules) {
    EXPECT_NE(r.handle, 0u);
    EXPECT_FALSE(r.not_understood);
  }
  EXPECT_EQ(out.rules[0].expressions.back().name, "reject");
  EXPECT_TRUE(std::holds_alternative<expressions::other>(out.rules[0].expressions.back().content));
  const auto* lookup = find<expressions::lookup>(out.rules[2]);
  ASSERT_NE(lookup, nullptr);
  EXPECT_EQ(lookup->to, expressions::verdict_register);
  EXPECT_NE(find<expressions::ct_load>(out.rules[3]), nullptr);
  EXPECT_EQ(out.rules[4].expressions.back().filled_set, "seen");
  EXPECT_NE(find<expressions::meta_write>(out.rules[5]), nullptr);
  EXPECT_EQ(out.rules[6].expressions[4].name, "limit");
}

TEST(nft_kernel, elements_are_read_with_their_intervals_and_verdicts) {
  NETNS_OR_SKIP();
  NFT_OR_SKIP();
  const test::netns ns;
  load(ns, sample);
  const ruleset found = read_in(ns);
  const auto& blocked = found.sets.at({family::inet, "t", "blocked"});
  EXPECT_EQ(blocked.set.flags & set_interval, set_interval);
  const auto has = [&](const bytes& key, bool end) {
    return std::ranges::any_of(
        blocked.elements, [&](const element& e) { return e.key == key && e.ends_interval == end; });
  };
  EXPECT_TRUE(has(of({10, 0, 0, 0}), false));
  EXPECT_TRUE(has(of({11, 0, 0, 0}), true));
  EXPECT_TRUE(has(of({192, 168, 1, 2}), true));
  const auto& places = found.sets.at({family::inet, "t", "places"});
  EXPECT_TRUE(places.set.maps_to_verdict);
  EXPECT_EQ(places.set.fields, (std::vector<std::uint32_t>{4, 2}));
  ASSERT_EQ(places.elements.size(), 2u);
  const auto jumps = std::ranges::find_if(places.elements, [](const element& e) {
    return std::get<verdict>(e.value).code == verdict::jump;
  });
  ASSERT_NE(jumps, places.elements.end());
  EXPECT_EQ(std::get<verdict>(jumps->value).chain, "side");
  EXPECT_EQ(jumps->key, of({10, 2, 0, 0, 0, 80, 0, 0}));
  ASSERT_TRUE(jumps->key_end);
  EXPECT_EQ(*jumps->key_end, of({10, 2, 255, 255, 0, 90, 0, 0}));
  EXPECT_TRUE(found.sets.at({family::inet, "t", "seen"}).filled_by_packets);
  EXPECT_FALSE(blocked.filled_by_packets);
}

TEST(nft_kernel, ten_thousand_rules_and_a_large_set_come_whole) {
  NETNS_OR_SKIP();
  NFT_OR_SKIP();
  const test::netns ns;
  std::string text = "table ip big {\n set s { type ipv4_addr; elements = { ";
  for (int i = 0; i < 5000; ++i)
    text += (i ? ", 10.1." : "10.1.") + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1);
  text += " } }\n chain c {\n";
  for (int i = 1; i <= 10'000; ++i) text += "  udp dport " + std::to_string(i) + " counter drop\n";
  load(ns, text + " }\n}\n");
  const ruleset found = read_in(ns);
  EXPECT_EQ(found.rule_count(), 10'000u);
  const auto& rules = found.chains.at({family::ipv4, "big", "c"}).rules;
  // In order: nf_tables evaluates them so.
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const auto* port = std::get_if<expressions::compare>(&rules[i].expressions[3].content);
    ASSERT_NE(port, nullptr);
    const auto number = static_cast<int>(i) + 1;
    ASSERT_EQ(port->value, of({number >> 8, number & 0xff}));
  }
  EXPECT_EQ(found.sets.at({family::ipv4, "big", "s"}).elements.size(), 5000u);
}

// What is followed is what is read, whatever user space does.
TEST(nft_kernel, a_followed_ruleset_is_the_one_that_would_be_read) {
  NETNS_OR_SKIP();
  NFT_OR_SKIP();
  const test::netns ns;
  load(ns, sample);
  load(ns, "add set inet t plain { type ipv4_addr; }\n");
  std::error_code ec;
  unique_fd fd;
  {
    const test::netns::scope inside(ns);
    fd = open_socket({.non_blocking = true}, true, ec);
    ASSERT_FALSE(ec) << ec.message();
  }
  ruleset known = read_in(ns);
  follower following;
  std::vector<std::byte> buffer(datagram_size_max);
  std::mt19937_64 random(20261129);
  const auto number = [&](unsigned below) { return std::to_string(1 + random() % below); };
  const auto command = [&]() -> std::string {
    switch (random() % 9) {
      case 0:
        return "add rule inet t out ip daddr 10.3.0." + number(250) + " drop\n";
      case 1:
        return "insert rule inet t out ip daddr { 10.4.0." + number(9) + ", 10.5.0.1 } accept\n";
      case 2:
        return "add element inet t blocked { 20." + number(200) + ".0.0/16 }\n";
      case 3:
        return "delete element inet t plain { 1.1.1." + number(40) + " }\n";
      case 4: {
        const auto& rules = known.chains.at({family::inet, "t", "out"}).rules;
        const auto handle = std::to_string(rules[random() % rules.size()].handle);
        return (random() % 2 ? "delete rule inet t out handle " + handle
                             : "add rule inet t out handle " + handle + " udp dport 7 drop") +
               "\n";
      }
      case 5:
        return "add chain inet t extra" + number(3) + "\n";
      default:
        return "add element inet t plain { 1.1.1." + number(40) + " }\n" +
               (random() % 2 ? "add rule inet t out udp dport 9 drop\n" : "");
    }
  };
  unsigned followed = 0, read = 0;
  for (int i = 0; i < 150; ++i) {
    try_to_load(ns, command());
    for (ssize_t size; (size = ::recv(fd.get(), buffer.data(), buffer.size(), 0)) > 0;)
      following.on_datagram(std::span(buffer).first(static_cast<std::size_t>(size)));
    const auto outcome = following.follow(known);
    const ruleset now = read_in(ns);
    if (outcome == follower::outcome::must_be_read) {
      known = now;
      ++read;
    }
    followed += outcome == follower::outcome::elements || outcome == follower::outcome::rules;
    ASSERT_EQ(known.generation, now.generation);
    ASSERT_TRUE(known == now) << "step " << i;
  }
  EXPECT_GT(followed, 60u);
  EXPECT_GT(read, 0u);
}

TEST(nft_kernel, a_transaction_that_was_not_heard_whole_is_not_followed) {
  NETNS_OR_SKIP();
  NFT_OR_SKIP();
  const test::netns ns;
  load(ns, sample);
  std::error_code ec;
  unique_fd fd;
  {
    const test::netns::scope inside(ns);
    fd = open_socket({.non_blocking = true}, true, ec);
  }
  std::vector<std::byte> buffer(datagram_size_max);
  for (const bool lost : {false, true}) {
    ruleset known = read_in(ns);
    follower following;
    load(ns, "add element inet t blocked { 30.0.0.0/8 }\n");
    if (lost) following.on_loss();
    for (ssize_t size; (size = ::recv(fd.get(), buffer.data(), buffer.size(), 0)) > 0;)
      following.on_datagram(std::span(buffer).first(static_cast<std::size_t>(size)));
    EXPECT_EQ(following.follow(known),
              lost ? follower::outcome::must_be_read : follower::outcome::elements);
    load(ns, "delete element inet t blocked { 30.0.0.0/8 }\n");
    // One that nobody heard of makes a gap.
    while (::recv(fd.get(), buffer.data(), buffer.size(), 0) > 0) continue;
    load(ns, "add element inet t blocked { 31.0.0.0/8 }\n");
    for (ssize_t size; (size = ::recv(fd.get(), buffer.data(), buffer.size(), 0)) > 0;)
      following.on_datagram(std::span(buffer).first(static_cast<std::size_t>(size)));
    EXPECT_EQ(following.follow(known), follower::outcome::must_be_read);
    load(ns, "delete element inet t blocked { 31.0.0.0/8 }\n");
    while (::recv(fd.get(), buffer.data(), buffer.size(), 0) > 0) continue;
  }
}

// Somebody loads rulesets all the time: what is read is one of them, never a mixture.
TEST(nft_kernel, a_ruleset_that_is_replaced_meanwhile_is_never_read_as_a_mixture) {
  NETNS_OR_SKIP();
  NFT_OR_SKIP();
  const test::netns ns;
  const auto version = [](int n) {
    std::string text = "flush ruleset\n";
    for (int t = 0; t < 3; ++t) {
      text += "table ip t" + std::to_string(t) + " {\n chain c {\n";
      for (int i = 0; i < 100; ++i) text += "  udp dport " + std::to_string(n) + " drop\n";
      text += " }\n}\n";
    }
    return text;
  };
  load(ns, version(1));
  std::atomic<bool> stop{false};
  // Grows while no reading comes whole, so that some do however busy the machine is; and shrinks
  // with each that does, so that many are interrupted.
  std::atomic<int> pause_us{0};
  std::thread writer([&] {
    for (int n = 2; !stop; n = n % 2000 + 1) {
      load(ns, version(n));
      std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
    }
  });
  int whole = 0;
  for (int i = 0; i < 1000 && whole < 30; ++i) {
    const test::netns::scope inside(ns);
    std::error_code ec;
    const ruleset found = read_ruleset(ec);
    if (ec == error::interrupted_dump) {
      pause_us = pause_us * 2 + 500;
      continue;
    }
    EXPECT_FALSE(ec) << ec.message();
    ++whole;
    pause_us = pause_us / 2;
    EXPECT_EQ(found.rule_count(), 300u);
    const auto& first = found.chains.begin()->second.rules[0].expressions.at(3);
    for (const auto& [key, chain] : found.chains)
      for (const rule& r : chain.rules) EXPECT_EQ(r.expressions.at(3), first);
    if (HasFailure()) break;
  }
  stop = true;
  writer.join();
  EXPECT_GT(whole, 0);
}

// Somebody has rulesets checked all the time: while they are, their rules are linked in front of
// those in force, and dumps count them.
TEST(nft_kernel, a_ruleset_that_is_only_checked_meanwhile_leaves_out_no_rule) {
  NETNS_OR_SKIP();
  NFT_OR_SKIP();
  const test::netns ns;
  std::string text, checked;
  constexpr int chains = 20, rules = 60;
  for (int c = 0; c < chains; ++c) {
    const std::string name = "c" + std::to_string(c);
    text += "add table ip t\nadd chain ip t " + name + "\n";
    for (int i = 0; i < rules; ++i)
      text += "add rule ip t " + name + " udp dport " + std::to_string(i + 1) + " drop\n";
    checked += "insert rule ip t " + name + " udp sport 7 drop\n";
  }
  load(ns, text);
  const ruleset wanted = read_in(ns);
  ASSERT_EQ(wanted.rule_count(), std::size_t{chains} * rules);
  const std::string file = "/tmp/" + ns.name() + "-checked.nft";
  std::ofstream(file) << checked;
  std::atomic<bool> stop{false};
  std::thread checker([&] {
    while (!stop) ns("nft -c -f " + file);
  });
  int whole = 0;
  for (int i = 0; i < 200 && !HasFailure(); ++i) {
    const test::netns::scope inside(ns);
    std::error_code ec;
    const ruleset found = read_ruleset(ec);
    if (ec == error::interrupted_dump) continue;
    EXPECT_FALSE(ec) << ec.message();
    EXPECT_TRUE(found == wanted) << found.rule_count() << " rules";
    ++whole;
  }
  stop = true;
  checker.join();
  ::unlink(file.c_str());
  EXPECT_GT(whole, 0);
}

TEST(nft_kernel, the_group_tells_of_a_transaction_when_it_ends) {
  NETNS_OR_SKIP();
  NFT_OR_SKIP();
  const test::netns ns;
  unique_fd fd;
  {
    const test::netns::scope inside(ns);
    std::error_code ec;
    fd = open_socket({}, true, ec);
    ASSERT_FALSE(ec) << ec.message();
  }
  ns("nft add table ip t");
  bool ended = false;
  std::vector<std::byte> buffer(datagram_size_max);
  while (!ended) {
    pollfd readable{fd.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&readable, 1, 10'000), 1);
    const auto size = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    ASSERT_GT(size, 0);
    std::span<const std::byte> rest(buffer.data(), static_cast<std::size_t>(size));
    std::error_code ec;
    while (const auto one = next_envelope(rest, ec)) ended |= ends_transaction(*one);
  }
}

}  // namespace
}  // namespace cowire::netlink::nft
