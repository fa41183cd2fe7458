// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/intake.hpp>

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace cowire::test {
namespace {

struct raw {
  std::vector<std::byte> bytes;
  void add(const void* from, std::size_t size) {
    const auto* p = static_cast<const std::byte*>(from);
    bytes.insert(bytes.end(), p, p + size);
  }
  std::error_code parse(intake_message& m) const {
    std::error_code ec;
    const auto all = std::span<const std::byte>(bytes);
    const auto header = all.first(std::min<std::size_t>(all.size(), sizeof(intake_header)));
    parse_intake(header, all.subspan(header.size()), m, ec);
    return ec;
  }
};

raw send_message(const intake_header& header, const std::string& payload,
                 const std::vector<endpoint>& destinations) {
  raw out;
  out.add(&header, sizeof header);
  out.add(payload.data(), payload.size());
  for (const auto& to : destinations) {
    const auto one = intake_destination::from(to);
    out.add(&one, sizeof one);
  }
  return out;
}

intake_header header_for(std::size_t payload, std::size_t destinations) {
  intake_header h;
  h.payload_length = static_cast<std::uint32_t>(payload);
  h.destination_count = static_cast<std::uint16_t>(destinations);
  return h;
}

const std::vector<endpoint> two = {*endpoint::parse("10.0.0.1:9000"),
                                   *endpoint::parse("[fd00::1]:9001")};

TEST(intake_format, a_send_message_is_read_as_it_was_written) {
  auto h = header_for(5, 2);
  h.source_port = 8001;
  intake_message m;
  const auto whole = send_message(h, "hello", two);  // The payload stays in it.
  ASSERT_FALSE(whole.parse(m));
  EXPECT_EQ(intake_type::send, m.type);
  EXPECT_EQ(8001, m.source_port);
  EXPECT_EQ("hello", std::string(reinterpret_cast<const char*>(m.payload.data()), 5));
  EXPECT_EQ(two, m.destinations);
}

/// A template, so that the branches for endpoints with a scope id and for those without compile.
template <class Endpoint>
void check_scope(Endpoint link_local) {
  auto h = header_for(5, 2);
  h.scope_id = 7;
  intake_message m;
  const auto both = send_message(h, "hello", {link_local, two[1]});
  std::uint32_t scope_id = 1;
  if constexpr (requires { link_local.scope_id; }) {
    ASSERT_FALSE(both.parse(m));
    const Endpoint& got = m.destinations[0];
    EXPECT_EQ(7u, got.scope_id);
    EXPECT_EQ(two[1], m.destinations[1]) << "it belongs to no interface";
    auto second = link_local;
    link_local.scope_id = 7;
    second.scope_id = 8;
    EXPECT_EQ(2u, intake_alike(std::vector{two[0], link_local, second}, scope_id));
    EXPECT_EQ(7u, scope_id);
    EXPECT_EQ(3u, intake_alike(std::vector{second, two[0], second}, scope_id));
    EXPECT_EQ(8u, scope_id);
  } else {
    EXPECT_EQ(make_error_code(error::malformed), both.parse(m));
  }
  EXPECT_EQ(2u, intake_alike(two, scope_id));
  EXPECT_EQ(0u, scope_id);
}

TEST(intake_format, a_scope_id_is_that_of_the_destinations_that_belong_to_an_interface) {
  check_scope(*endpoint::parse("[fe80::1]:9001"));
}

TEST(intake_format, a_flush_has_nothing_but_a_token) {
  intake_header h;
  h.type = intake_type::flush;
  h.token = 7;
  intake_message m;
  ASSERT_FALSE(send_message(h, "", {}).parse(m));
  EXPECT_EQ(7u, m.token);
  h.source_port = intake_all_totals;
  ASSERT_FALSE(send_message(h, "", {}).parse(m));
  EXPECT_EQ(intake_all_totals, m.source_port);
  EXPECT_EQ(make_error_code(error::malformed), send_message(h, "x", {}).parse(m));
}

TEST(intake_format, every_cut_of_a_message_is_refused) {
  const auto whole = send_message(header_for(5, 2), "hello", two);
  intake_message m;
  for (std::size_t size = 0; size < whole.bytes.size(); ++size) {
    raw cut{{whole.bytes.begin(), whole.bytes.begin() + static_cast<std::ptrdiff_t>(size)}};
    EXPECT_EQ(make_error_code(error::truncated), cut.parse(m)) << size;
  }
}

TEST(intake_format, what_contradicts_itself_is_refused) {
  intake_message m;
  const auto refused = [&](auto change, std::error_code expected) {
    auto h = header_for(5, 2);
    change(h);
    EXPECT_EQ(expected, send_message(h, "hello", two).parse(m));
  };
  refused([](auto& h) { h.magic = 0; }, error::malformed);
  refused([](auto& h) { h.version = 2; }, error::malformed);
  refused([](auto& h) { h.flags = 1; }, error::malformed);
  refused([](auto& h) { h.reserved = 1; }, error::malformed);
  refused([](auto& h) { h.type = intake_type::reply; }, error::malformed);
  refused([](auto& h) { h.destination_count = 0; }, error::no_destination);
  refused([](auto& h) { h.destination_count = 1; }, error::malformed);
  refused([](auto& h) { h.destination_count = 0xffff; }, error::truncated);
  refused([](auto& h) { h.payload_length = 0xffffffff; }, error::truncated);
  refused([](auto& h) { h.payload_length = 4; }, error::malformed);
  const std::vector<endpoint> port_zero = {{ip_address::v4(1), 0}};
  EXPECT_EQ(make_error_code(error::malformed),
            send_message(header_for(5, 1), "hello", port_zero).parse(m));
}

}  // namespace
}  // namespace cowire::test
