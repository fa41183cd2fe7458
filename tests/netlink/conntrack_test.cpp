// SPDX-License-Identifier: Apache-2.0
// Entries of connection tracking: bytes there and back, and a real kernel's answers.
#include <cowire/base/error.hpp>
#include <cowire/netlink/conntrack_codec.hpp>
#include <cowire/netlink/conntrack_socket.hpp>

#include "tests/support/netns.hpp"

#include <gtest/gtest.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include <cerrno>
#include <cstring>
#include <map>

#define NFT_OR_SKIP() \
  NETNS_OR_SKIP();    \
  if (std::system("nft --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs nft"

namespace cowire::netlink {
namespace {

ip_address ip(const char* text) { return *ip_address::parse(text); }

conntrack_entry sample(ip_family family, std::uint64_t seed = 1) {
  const bool v4 = family == ip_family::v4;
  conntrack_entry out;
  out.original = {ip(v4 ? "10.0.0.1" : "fd00::1"), ip(v4 ? "10.0.0.2" : "fd00::2"), 5070, 9000, 17};
  out.reply = out.original.inverse();
  out.status = static_cast<std::uint32_t>(seed % 0x10000);
  if (seed % 3 != 0) out.timeout_s = static_cast<std::uint32_t>(seed * 7 % 1000);
  out.mark = static_cast<std::uint32_t>(seed % 5 * 0x1000);
  out.id = static_cast<std::uint32_t>(seed % 7 * 0x1000001);
  out.zone = static_cast<std::uint16_t>(seed % 2 * 7);
  out.has_helper = seed % 4 == 0;
  return out;
}

std::optional<conntrack_entry> decode_bytes(std::span<const std::byte> bytes, std::error_code& ec) {
  const auto whole = next_envelope(bytes, ec);
  return whole ? decode_conntrack(*whole, ec) : std::nullopt;
}

TEST(conntrack_codec, an_entry_comes_back_as_it_was) {
  for (std::uint64_t seed = 1; seed < 200; ++seed)
    for (const ip_family family : ip_families) {
      const conntrack_entry entry = sample(family, seed);
      std::error_code ec;
      EXPECT_EQ(decode_bytes(encode_conntrack(entry, 3), ec), entry) << seed;
      EXPECT_FALSE(ec) << ec.message();
    }
}

TEST(conntrack_codec, a_message_that_is_cut_or_lies_is_an_error_and_never_another_entry) {
  const auto whole = encode_conntrack(sample(ip_family::v4, 8), 3);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    auto part = std::vector(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    std::error_code ec;
    EXPECT_FALSE(decode_bytes(part, ec));
    EXPECT_EQ(static_cast<bool>(ec), length != 0);
    // With a length that says that this is all.
    if (length < sizeof(nlmsghdr)) continue;
    const auto told = static_cast<std::uint32_t>(length);
    std::memcpy(part.data(), &told, sizeof told);
    ec.clear();
    const auto found = decode_bytes(part, ec);
    EXPECT_FALSE(found && ec);
    if (found) {
      EXPECT_EQ(found->original, sample(ip_family::v4).original);
    }
  }
  auto other_family = whole;
  other_family[sizeof(nlmsghdr)] = std::byte{AF_INET6};
  std::error_code ec;
  EXPECT_FALSE(decode_bytes(other_family, ec));
  EXPECT_EQ(ec, error::malformed);
  auto other_type = whole;
  other_type[offsetof(nlmsghdr, nlmsg_type) + 1] = std::byte{NFNL_SUBSYS_NFTABLES};
  ec.clear();
  EXPECT_FALSE(decode_bytes(other_type, ec));
  EXPECT_FALSE(ec);
}

TEST(conntrack_codec, translation_is_what_differs_between_the_directions) {
  conntrack_entry entry = sample(ip_family::v4, 2);
  entry.status = conntrack_status::confirmed | conntrack_status::source_nat_done |
                 conntrack_status::destination_nat_done;
  EXPECT_FALSE(entry.is_translated());
  entry.reply.destination_port = 1177;
  EXPECT_TRUE(entry.is_translated());
  entry.reply = entry.original.inverse();
  entry.status |= conntrack_status::source_nat;
  EXPECT_TRUE(entry.is_translated());
}

// ---- a kernel -----------------------------------------------------------------------------------

class conntrack_of_a_kernel : public ::testing::Test {
 protected:
  void SetUp() override {
    NFT_OR_SKIP();
    a_.emplace();
    b_.emplace();
    test::connect(*a_, "a0", *b_, "b0", 1);
    // Any expression `ct` has both families tracked.
    (*a_)("nft add table inet t");
    (*a_)("nft 'add chain inet t in { type filter hook input priority 0; }'");
    (*a_)("nft add rule inet t in ct state invalid drop");
    inside_.emplace(*a_);
    std::error_code ec;
    kernel_.emplace(ec);
    ASSERT_FALSE(ec) << ec.message();
  }
  void TearDown() override { inside_.reset(); }

  [[nodiscard]] static conntrack_tuple tuple(ip_family family, std::uint16_t port) {
    const bool v4 = family == ip_family::v4;
    return {ip(v4 ? "10.77.1.1" : "fd77:1::1"), ip(v4 ? "10.77.1.2" : "fd77:1::2"), port, 9000, 17};
  }
  static void send(const conntrack_tuple& as) {
    const bool v4 = as.source.is_v4();
    const unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in6 v6_name{};
    sockaddr_in v4_name{};
    v6_name.sin6_family = AF_INET6;
    v4_name.sin_family = AF_INET;
    auto* const name =
        v4 ? reinterpret_cast<sockaddr*>(&v4_name) : reinterpret_cast<sockaddr*>(&v6_name);
    const socklen_t size = v4 ? sizeof v4_name : sizeof v6_name;
    const auto set = [&](const ip_address& address, std::uint16_t port) {
      v4_name.sin_port = v6_name.sin6_port = be16::from_host(port).raw;
      std::memcpy(v4 ? static_cast<void*>(&v4_name.sin_addr) : &v6_name.sin6_addr,
                  address.bytes().data(), address.size());
    };
    set(as.source, as.source_port);
    ASSERT_EQ(0, ::bind(fd.get(), name, size));
    set(as.destination, as.destination_port);
    ASSERT_EQ(1, ::sendto(fd.get(), "x", 1, 0, name, size));
  }
  /// What is answered to each request, by sequence number.
  std::map<std::uint32_t, conntrack_answer> exchange(const conntrack_batch& batch) {
    std::map<std::uint32_t, conntrack_answer> out;
    std::error_code ec;
    kernel_->exchange(
        batch, [&](const conntrack_answer& a) { out[a.sequence] = a; }, ec);
    EXPECT_FALSE(ec) << ec.message();
    return out;
  }
  std::optional<conntrack_entry> get(const conntrack_tuple& which) {
    conntrack_batch batch;
    batch.get(which, 1);
    const auto answers = exchange(batch);
    EXPECT_EQ(answers.size(), 1u);
    return answers.empty() ? std::nullopt : answers.begin()->second.entry;
  }

  std::optional<test::netns> a_, b_;
  std::optional<test::netns::scope> inside_;
  std::optional<conntrack_socket> kernel_;
};

TEST_F(conntrack_of_a_kernel, an_entry_is_there_when_the_datagram_is_sent_by_either_tuple) {
  for (const ip_family family : ip_families) {
    const auto own = tuple(family, 5070);
    EXPECT_FALSE(get(own));
    send(own);
    for (const auto& asked : {own, own.inverse()}) {
      const auto entry = get(asked);
      ASSERT_TRUE(entry);
      EXPECT_EQ(entry->original, own);
      EXPECT_EQ(entry->reply, own.inverse());
      EXPECT_EQ(entry->status & ~conntrack_status::source_nat_done &
                    ~conntrack_status::destination_nat_done,
                conntrack_status::confirmed);
      ASSERT_TRUE(entry->timeout_s);
      EXPECT_GE(*entry->timeout_s, 20u);
      EXPECT_LE(*entry->timeout_s, 30u);
      EXPECT_FALSE(entry->is_translated() || entry->has_helper || entry->zone != 0);
    }
  }
}

TEST_F(conntrack_of_a_kernel, a_batch_sets_timers_and_tells_of_those_that_failed) {
  conntrack_batch batch;
  constexpr std::uint32_t count = conntrack_socket::batch_max;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto own = tuple(ip_family::v4, static_cast<std::uint16_t>(6000 + i));
    if (i % 3 != 0) send(own);
    batch.refresh(own, 500 + i, i);
  }
  const auto failed = exchange(batch);
  for (std::uint32_t i = 0; i < count; ++i) {
    ASSERT_EQ(failed.contains(i), i % 3 == 0) << i;
    if (i % 3 == 0) {
      EXPECT_EQ(failed.at(i).error_number, ENOENT);
    }
  }
  batch.clear();
  for (std::uint32_t i = 0; i < count; ++i)
    batch.get(tuple(ip_family::v4, static_cast<std::uint16_t>(6000 + i)), i);
  const auto all = exchange(batch);
  ASSERT_EQ(all.size(), count);
  for (const auto& [i, answer] : all) {
    ASSERT_EQ(answer.entry.has_value(), i % 3 != 0);
    if (!answer.entry) continue;
    ASSERT_TRUE(answer.entry->timeout_s);
    EXPECT_LE(*answer.entry->timeout_s, 500 + i);
    EXPECT_GT(*answer.entry->timeout_s + 100, 500 + i);
  }
}

TEST_F(conntrack_of_a_kernel, entries_are_removed_one_by_one_or_all) {
  for (std::uint16_t port = 7000; port < 7003; ++port) send(tuple(ip_family::v4, port));
  send(tuple(ip_family::v6, 7000));
  conntrack_batch batch;
  batch.remove(tuple(ip_family::v4, 7001), 1);
  EXPECT_TRUE(exchange(batch).empty());
  EXPECT_FALSE(get(tuple(ip_family::v4, 7001)));
  EXPECT_TRUE(get(tuple(ip_family::v4, 7000)));
  EXPECT_TRUE(get(tuple(ip_family::v6, 7000)));
  batch.clear();
  batch.flush(2);
  EXPECT_TRUE(exchange(batch).empty());
  EXPECT_FALSE(get(tuple(ip_family::v4, 7000)));
  EXPECT_FALSE(get(tuple(ip_family::v6, 7000)));
}

TEST_F(conntrack_of_a_kernel, zones_are_told_apart_and_helpers_and_translation_are_told) {
  (*a_)("nft add table ip n");
  (*a_)("nft 'add chain ip n raw { type filter hook output priority -300; }'");
  (*a_)("nft add rule ip n raw udp sport 5001 ct zone set 7");
  (*a_)("nft 'add chain ip n post { type nat hook postrouting priority 100; }'");
  (*a_)("nft add rule ip n post udp sport 5002 snat to 10.77.1.1:1177");
  send(tuple(ip_family::v4, 5001));
  EXPECT_FALSE(get(tuple(ip_family::v4, 5001)));
  send(tuple(ip_family::v4, 5002));
  const auto translated = get(tuple(ip_family::v4, 5002));
  ASSERT_TRUE(translated);
  EXPECT_TRUE(translated->is_translated());
  EXPECT_EQ(translated->reply.destination_port, 1177);
  EXPECT_NE(translated->status & conntrack_status::source_nat, 0u);
}

}  // namespace
}  // namespace cowire::netlink
