// SPDX-License-Identifier: Apache-2.0
// Options out of their range, and the forms in which bytes and addresses may be given.
#include <cowire/async/transmitter.hpp>
#include <cowire/ring/endpoint.hpp>

#include <gtest/gtest.h>
#include <asio/buffer.hpp>

#include <array>
#include <string>
#include <type_traits>
#include <vector>

namespace cowire::test {
namespace {

using namespace std::chrono_literals;

/// What a transmitter says of a configuration; "" if nothing.
template <class Change>
std::string refusal(Change change) {
  transmitter_config config;
  change(config);
  try {
    const transmitter tx(config);
  } catch (const std::system_error& refused) {
    EXPECT_EQ(make_error_code(error::invalid_argument), refused.code()) << refused.what();
    return refused.what();
  }
  return "";
}
void expect_named(const std::string& option, const std::string& text) {
  EXPECT_EQ(0u, text.find(option)) << "'" << text << "' does not begin with " << option;
}

TEST(transmitter_options, out_of_their_ranges_are_refused_by_name) {
  expect_named("ring_capacity", refusal([](auto& c) { c.ring_capacity = 0; }));
  expect_named("ring_capacity", refusal([](auto& c) { c.ring_capacity = 1u << 31; }));
  expect_named("ring_capacity", refusal([](auto& c) { c.ring_capacity = 63; }));
  expect_named("busy_poll ", refusal([](auto& c) { c.busy_poll = -1us; }));
  expect_named("busy_poll ", refusal([](auto& c) { c.busy_poll = 10'001us; }));
  expect_named("busy_poll_budget", refusal([](auto& c) { c.busy_poll_budget = 0; }));
  expect_named("busy_poll_budget", refusal([](auto& c) { c.busy_poll_budget = 1025; }));
  expect_named("update_interval", refusal([](auto& c) { c.update_interval = -1ms; }));
  expect_named("update_interval",
               refusal([](auto& c) { c.update_interval = std::chrono::milliseconds::max(); }));
  expect_named("drain_timeout", refusal([](auto& c) { c.drain_timeout = -1ms; }));
  expect_named("drain_timeout",
               refusal([](auto& c) { c.drain_timeout = std::chrono::milliseconds::max(); }));
  expect_named("tracked_flows", refusal([](auto& c) { c.tracked_flows = 0; }));
  expect_named("tracked_flows", refusal([](auto& c) { c.tracked_flows = (1u << 20) + 1; }));
  expect_named("audit_rate", refusal([](auto& c) { c.audit_rate = 1'000'001; }));
  expect_named("tx_cores", refusal([](auto& c) { c.tx_cores = 0; }));
  expect_named("tx_cores", refusal([](auto& c) { c.tx_cores = tx_cores_max + 1; }));
  expect_named("cpus", refusal([](auto& c) { c.cpus = {0, 0}; }));
  expect_named("cpus", refusal([](auto& c) { c.cpus = {1u << 20}; }));
  expect_named("max_producers", refusal([](auto& c) { c.max_producers = 0; }));
  expect_named("frames_per_producer", refusal([](auto& c) { c.frames_per_producer = 0; }));
  expect_named("frame_size", refusal([](auto& c) { c.frame_size = 1024; }));
  expect_named("interfaces", refusal([](auto& c) { c.interfaces = {""}; }));
  expect_named("interfaces", refusal([](auto& c) { c.interfaces = {"longer-than-any-name"}; }));
}

TEST(transmitter_options, a_route_watcher_refuses_likewise) {
  try {
    const route_watcher watcher({.update_interval = -1ms});
    FAIL();
  } catch (const std::system_error& refused) {
    expect_named("update_interval", refused.what());
  }
}

TEST(endpoints, are_converted_from_and_to_those_of_asio_and_the_system) {
  for (const char* text : {"192.0.2.1:9000", "[2001:db8::7]:1", "[::ffff:192.0.2.1]:65535"}) {
    const auto original = *endpoint::parse(text);
    const asio::ip::udp::endpoint asios = to_asio(original);
    EXPECT_EQ(original.address.to_string(), asios.address().to_string());
    EXPECT_EQ(original.port, asios.port());
    EXPECT_EQ(original, to_endpoint(asios));
    sockaddr_storage storage;
    const socklen_t size = to_sockaddr(original, storage);
    EXPECT_EQ(asios.size(), size);
    EXPECT_EQ(original, to_endpoint(storage));
    EXPECT_EQ(original, to_endpoint(reinterpret_cast<const sockaddr*>(&storage), size));
    EXPECT_FALSE(to_endpoint(reinterpret_cast<const sockaddr*>(&storage), size - 1));
  }
  sockaddr_storage other{};
  other.ss_family = AF_UNIX;
  EXPECT_FALSE(to_endpoint(other));
  EXPECT_FALSE(to_endpoint(nullptr, 0));
}

std::string text_of(const datagram_bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.span().data()), bytes.span().size()};
}

TEST(datagram_bytes, come_in_every_form_that_says_how_many_they_are) {
  using namespace std::literals;
  const std::string string = "hello";
  std::array<char, 5> characters{'h', 'e', 'l', 'l', 'o'};
  EXPECT_EQ("hello", text_of(string));
  EXPECT_EQ("hello", text_of("hello"sv));
  EXPECT_EQ("hello", text_of(asio::buffer(string)));
  EXPECT_EQ("hello", text_of(asio::const_buffer(string.data(), string.size())));
  EXPECT_EQ("hello", text_of(asio::buffer(characters)));
  EXPECT_EQ("hello", text_of(std::as_bytes(std::span(string))));
  EXPECT_EQ("hello", text_of(std::as_bytes(std::span(characters))));
  const std::vector<std::byte> bytes(5, std::byte{'x'});
  EXPECT_EQ("xxxxx", text_of(bytes));
  static_assert(!std::is_constructible_v<datagram_bytes, const char*>);
  static_assert(!std::is_constructible_v<datagram_bytes, const char(&)[6]>);
}

}  // namespace
}  // namespace cowire::test
