// SPDX-License-Identifier: Apache-2.0
/// Small builders of kernel state for the tests of this room, and seeded random worlds made of
/// them.
#pragma once

#include <cowire/netlink/message.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace cowire::testing {

[[nodiscard]] ip_address ip(const char* text);
[[nodiscard]] ip_prefix net(const char* text);

/// An Ethernet device that is up; its MAC ends in the index.
[[nodiscard]] netlink::link ethernet(std::uint32_t index, const std::string& name);
[[nodiscard]] netlink::link loopback();
[[nodiscard]] netlink::address address(std::uint32_t index, const char* local, unsigned length);
[[nodiscard]] netlink::neighbour neighbour(std::uint32_t index, const ip_address& destination,
                                           std::uint16_t state = 0x02);
[[nodiscard]] netlink::route route_via(const ip_prefix& destination, const char* gateway,
                                       std::uint32_t index, std::uint32_t table = 254);
[[nodiscard]] netlink::route route_on(const ip_prefix& destination, std::uint32_t index,
                                      std::uint32_t table = 254);
[[nodiscard]] netlink::route local_route(const ip_address& own, std::uint32_t index);
[[nodiscard]] netlink::rule rule_to_table(ip_family family, std::uint32_t priority,
                                          std::uint32_t table);
template <class Message>
[[nodiscard]] Message removal(Message message) {
  message.action = netlink::action::remove;
  return message;
}
/// As the kernel announces `add`, `append` and `replace`.
[[nodiscard]] netlink::route added(netlink::route route);
[[nodiscard]] netlink::route appended(netlink::route route);
[[nodiscard]] netlink::route replacing(netlink::route route);

/// lo, the initial rules of both families, and three Ethernet devices u2, u3, u4 (ifindex 2 to 4)
/// with 10.N.0.1/24 and fd00:N::1/64 and the routes that come with them.
[[nodiscard]] mirror small_world();

/// How many random worlds a test looks at: COWIRE_SEEDS, or as many as the test takes itself.
[[nodiscard]] inline std::uint64_t world_count(std::uint64_t usual) {
  const char* text = std::getenv("COWIRE_SEEDS");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : usual;
}

/// Changes a mirror by random steps that a kernel could take.
class random_world {
 public:
  explicit random_world(std::uint64_t seed);

  [[nodiscard]] const mirror& state() const noexcept { return state_; }
  /// One random change; what it was is appended to log().
  mirror_changes step();
  [[nodiscard]] flow_class random_class();
  /// Random, or at the boundary of something that exists.
  [[nodiscard]] ip_address random_destination();
  [[nodiscard]] std::mt19937_64& random() noexcept { return random_; }
  [[nodiscard]] const std::vector<std::string>& log() const noexcept { return log_; }

 private:
  [[nodiscard]] std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>(random_() % bound);
  }
  [[nodiscard]] ip_family family() { return below(2) == 0 ? ip_family::v4 : ip_family::v6; }
  [[nodiscard]] ip_address random_address(ip_family family);
  [[nodiscard]] ip_prefix random_prefix(ip_family family);
  [[nodiscard]] ip_address random_gateway(ip_family family, std::uint32_t index);
  [[nodiscard]] netlink::route random_route();
  [[nodiscard]] netlink::rule random_rule();
  void add_route(mirror_changes& changes);
  void remove_route(mirror_changes& changes);
  void change_rule(mirror_changes& changes);
  void change_neighbour(mirror_changes& changes);
  void change_link(mirror_changes& changes);
  void change_address(mirror_changes& changes);
  void change_path_mtu(mirror_changes& changes);
  void change_nexthop(mirror_changes& changes);
  void change_bucket(mirror_changes& changes);
  void change_linkdown_setting(mirror_changes& changes);

  std::mt19937_64 random_;
  mirror state_;
  std::vector<std::string> log_;
};

}  // namespace cowire::testing
