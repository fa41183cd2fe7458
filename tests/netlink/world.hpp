// SPDX-License-Identifier: Apache-2.0
/// A consumer of monitor events, as simple as can be: objects by key. It checks on the way that the
/// events come in the order that monitor.hpp promises.
#pragma once

#include <cowire/netlink/monitor.hpp>

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace cowire::test {

/// Objects by the key that the kernel tells them apart by, as bytes that order by kind first.
class world {
 public:
  /// Adds, replaces or removes, as the message says. Twice is once.
  void apply(const netlink::message& m);
  void erase(const netlink::dump_scope& scope);
  [[nodiscard]] const std::map<std::string, netlink::message>& objects() const { return objects_; }
  friend bool operator==(const world&, const world&) = default;

 private:
  std::map<std::string, netlink::message> objects_;
};

/// One line per difference, for a failing test.
[[nodiscard]] std::string difference(const world& left, const world& right);

class consumer {
 public:
  /// Drains the monitor; false when an event came where it must not.
  bool drain(netlink::monitor& source);

  [[nodiscard]] const world& live() const { return live_; }
  /// Names of the events seen, runs of the same kind once: "sync_started object sync_complete".
  [[nodiscard]] const std::string& history() const { return history_; }
  [[nodiscard]] const std::vector<std::error_code>& setbacks() const { return setbacks_; }

 private:
  bool apply(const netlink::events::sync_started&);
  bool apply(const netlink::events::object&);
  bool apply(const netlink::events::dump_restarted&);
  bool apply(const netlink::events::sync_complete&);
  bool apply(const netlink::events::sync_abandoned&);
  bool apply(const netlink::events::change&);
  bool apply(const netlink::events::refresh_started&);
  bool apply(const netlink::events::refresh_complete&);
  void note(const char* name);

  world live_;
  bool has_live_ = false;
  std::optional<world> shadow_;
  std::optional<netlink::dump_scope> refreshing_;
  std::vector<netlink::message> refreshed_;
  std::string history_, last_;
  std::vector<std::error_code> setbacks_;
};

}  // namespace cowire::test
