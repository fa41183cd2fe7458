// SPDX-License-Identifier: Apache-2.0
/// Invents the state of a kernel, changes of it, and questions about it. Depends on nothing but its
/// seed and what it is given: the same calls give the same lines.
#pragma once

#include <cowire/netlink/request.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <initializer_list>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace cowire::testing {

/// One question in all languages.
struct asked_flow {
  flow question;
  netlink::route_query asked;
  /// The destination as an AF_INET6 socket bound to the class's device would be given it: mapped,
  /// with or without a scope id, and that may be one that means nothing.
  endpoint as_written;
};

/// What a world may contain.
enum class flavour : std::uint8_t {
  everything,
  plain,    ///< Nothing that the kernel decides by something that cannot be seen.
  devices,  ///< As plain, over devices of all kinds.
};

class inventor {
 public:
  inventor(std::uint64_t seed, flavour kind)
      : random_(seed),
        plain_(kind != flavour::everything),
        devices_(kind == flavour::devices),
        shows_all_(seed % showcase_distance == 0) {}

  /// One in so many seeds makes a world that has everything `coverage` asks for, before it changes.
  static constexpr std::uint64_t showcase_distance = 8;

  /// The lines of a world (kernel_world::run()).
  [[nodiscard]] std::vector<std::string> build();
  /// That the MAC addresses of many gateways are known, as frames need it.
  [[nodiscard]] std::vector<std::string> known_gateways();
  /// A few changes, links going down and up among them; `state` is the world as it is.
  [[nodiscard]] std::vector<std::string> disturb(const mirror& state);
  [[nodiscard]] asked_flow question(const mirror& state);
  /// Of a socket of the destination's family, to a group, of which half have members here.
  [[nodiscard]] flow group_question(const mirror& state);

 private:
  [[nodiscard]] std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>(random_() % bound);
  }
  [[nodiscard]] std::string pick(std::initializer_list<const char*> from) {
    return std::data(from)[below(static_cast<std::uint32_t>(from.size()))];
  }
  [[nodiscard]] std::string settings();
  [[nodiscard]] std::string changed_setting(const std::string& device);
  /// What the kernel acts upon and says little or nothing about.
  [[nodiscard]] std::string quiet_change();
  [[nodiscard]] std::string links();
  [[nodiscard]] std::string bond(const std::string& name, const std::string& n);
  [[nodiscard]] std::string changed_bond();
  [[nodiscard]] std::string hash_policy();
  [[nodiscard]] std::string vlan(const std::string& name, const std::string& above);
  // Of what they make, `name` becomes the name.
  [[nodiscard]] std::string lower(const std::string& n, std::string& name);
  [[nodiscard]] std::string underlay(const std::string& n, std::string& name);
  [[nodiscard]] std::string tunnel(const std::string& n);
  [[nodiscard]] std::string vrfs();
  [[nodiscard]] std::string changed_vrf();
  [[nodiscard]] std::uint32_t vrf_device(const mirror& state);
  /// Routes of every kind that chance alone might leave out, where no random one is.
  [[nodiscard]] std::string showcase() const;
  /// Makes u`n`, below or beside it p`n`, and what else it takes: w, x and y, whose other ends are
  /// p, q and r, a bond b, a VLAN l.
  [[nodiscard]] std::string device(const std::string& n);
  [[nodiscard]] std::string addresses(const std::string& n);
  [[nodiscard]] std::string random_prefix(bool v4);
  [[nodiscard]] std::string gateway(bool v4, std::uint32_t device);
  [[nodiscard]] std::string random_route(bool v4);
  [[nodiscard]] std::string random_rule(bool v4);
  [[nodiscard]] std::string random_neighbour();
  [[nodiscard]] std::string known_neighbour(const ip_address& of, const std::string& device);
  [[nodiscard]] std::string changed_link();
  [[nodiscard]] std::string changed_addresses();
  [[nodiscard]] std::string changed_rules();
  [[nodiscard]] std::string changed_objects();
  [[nodiscard]] std::string changed_members();
  [[nodiscard]] ip_address random_group(bool v4);
  /// ICMP from the gateway of some destination, which makes it an exception or changes one.
  [[nodiscard]] std::string rumour(const mirror& state);
  [[nodiscard]] ip_address random_destination(bool v4, const mirror& state);
  [[nodiscard]] endpoint written_form(const flow& question);

  std::mt19937_64 random_;
  bool plain_, devices_, shows_all_;
  bool has_vrfs_ = false;
  std::vector<ip_address> told_about_;
  std::vector<std::string> joined_;                          ///< "DEVICE GROUP".
  std::vector<std::pair<std::string, std::string>> slaves_;  ///< And their bonds that hash frames.
};

}  // namespace cowire::testing
