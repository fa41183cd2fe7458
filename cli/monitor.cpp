// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/json_text.hpp>
#include <cowire/cli/log.hpp>
#include <cowire/cli/route.hpp>
#include <cowire/follow/route_events.hpp>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <nlohmann/json.hpp>

#include <csignal>
#include <ctime>
#include <exception>
#include <iostream>

namespace cowire::cli {
namespace {

using json = nlohmann::ordered_json;

json change_json(const route_change& change) {
  json out;
  out["event"] = name(change.what);
  out["action"] = change.removed ? "removed" : "changed";
  const auto add = [&out](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = value;
  };
  add("family", change.family);
  add("dst", change.destination);
  add("gateway", change.gateway);
  add("dev", change.device);
  add("prefsrc", change.source);
  add("table", change.table);
  add("layer", change.layer);
  add("detail", change.detail);
  out["version"] = change.version;
  out["event_time_ns"] = change.event_time_ns;
  out["publish_time_ns"] = change.publish_time_ns;
  return out;
}

std::string change_text(const route_change& change) {
  const std::time_t seconds = change.event_time_ns / 1'000'000'000;
  std::tm local{};
  ::localtime_r(&seconds, &local);
  char stamp[32];
  const auto length = std::strftime(stamp, sizeof stamp, "%H:%M:%S", &local);
  const auto micros =
      std::to_string(1'000'000 + change.event_time_ns / 1'000 % 1'000'000).substr(1);

  std::string out = std::string(stamp, length) + "." + micros + (change.removed ? " - " : " + ");
  out += name(change.what);
  if (!change.layer.empty()) out += " " + change.layer;
  const auto add = [&out](const char* before, const std::string& value) {
    if (!value.empty()) out += before + value;
  };
  add(" ", change.destination);
  add(" via ", change.gateway);
  add(" dev ", change.device);
  add(" src ", change.source);
  add(" table ", change.table);
  add(" ", change.detail);
  out += ", published after " +
         std::to_string((change.publish_time_ns - change.event_time_ns) / 1'000) +
         " us as version " + std::to_string(change.version);
  return out;
}

/// Until nobody can read them any more.
asio::awaitable<void> print_changes(asio::io_context& context, route_events& events, bool as_json) {
  while (std::cout) {
    const auto [ec, change] = co_await events.async_next(as_tuple(asio::use_awaitable));
    if (ec) co_return;
    std::cout << (as_json ? json_line(change_json(change)) : change_text(change)) << std::endl;
  }
  context.stop();
}

}  // namespace

int run_route_monitor(bool as_json, int verbosity) {
  asio::io_context context{1};
  asio::signal_set signals{context, SIGINT, SIGTERM};
  route_watcher watcher({.log = make_log(verbosity)});
  auto events = watcher.watch();
  signals.async_wait([&](std::error_code, int) { context.stop(); });
  asio::co_spawn(context, print_changes(context, events, as_json), asio::detached);
  context.run();
  return 0;
}

}  // namespace cowire::cli
