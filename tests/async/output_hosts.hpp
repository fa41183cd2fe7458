// SPDX-License-Identifier: Apache-2.0
/// Fixture: two hosts, and what happens to datagrams of A on its output path.
#pragma once

#include <tests/support/two_hosts.hpp>

namespace cowire::test {

#define NFT_OR_SKIP() \
  if (std::system("nft --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs nft"

class output_hosts : public two_hosts {
 protected:
  static constexpr const char* place = "10.77.1.2:9000";
  static constexpr const char* place_v6 = "[fd77:1::2]:9000";

  static void in(const netns& host, const std::string& script) {
    host("sh -ec \"" + script + "\"");
  }
  /// Table `t` of A with a chain `c` at this hook, and a rule in it: all at once, so that whoever
  /// has heard of the table reads a ruleset that has the rule.
  void load(const std::string& hook, const std::string& rule) {
    (*a)("nft 'add table inet t; add chain inet t c { type " + hook + "; }; add rule inet t c " +
         rule + "'");
  }
  static std::uint64_t diverted(const transmitter& tx, const std::string& reason) {
    const auto stats = tx.stats();
    const auto found = stats.diverted.find(reason);
    return found == stats.diverted.end() ? 0 : found->second;
  }
  /// Sends until one is diverted for the reason. Whether it arrives is not looked at.
  static bool comes_to_divert(transmitter& tx, sender& s, const std::string& reason,
                              const std::string& where = place) {
    return eventually([&] {
      const auto before = diverted(tx, reason);
      return s.try_send(bytes_of("probe"), to(where)) && drained(tx) &&
             diverted(tx, reason) > before;
    });
  }
  /// Sends until one leaves by AF_XDP.
  static bool comes_to_transmit(transmitter& tx, sender& s, const std::string& where = place,
                                const std::string& interface = "a0") {
    return eventually([&] {
      const auto before = by(tx, interface);
      return s.try_send(bytes_of("probe"), to(where)) && drained(tx) && by(tx, interface) > before;
    });
  }
  static void send(transmitter& tx, sender& s, int count, const std::string& where = place) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(s.try_send(bytes_of("x"), to(where)));
    ASSERT_TRUE(drained(tx));
  }
};

}  // namespace cowire::test
