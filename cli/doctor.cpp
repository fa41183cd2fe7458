// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/doctor.hpp>

#include <cowire/cli/json_text.hpp>
#include <cowire/cli/parse.hpp>
#include <cowire/xdp/device.hpp>

#include <ifaddrs.h>
#include <net/if.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <memory>
#include <set>

namespace cowire::cli {
namespace {

const char* name(health status) {
  switch (status) {
    case health::ok:
      return "ok";
    case health::warn:
      return "warn";
    case health::fail:
      return "fail";
  }
  return "fail";
}

std::set<std::string> interfaces_up() {
  std::set<std::string> names;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return names;
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, &::freeifaddrs);
  for (const auto* entry = list; entry != nullptr; entry = entry->ifa_next)
    if ((entry->ifa_flags & IFF_UP) != 0 && (entry->ifa_flags & IFF_LOOPBACK) == 0)
      names.insert(entry->ifa_name);
  return names;
}

/// One for each interface that a transmitter without --interface serves.
std::size_t sockets_wanted() {
  const auto names = interfaces_up();
  return static_cast<std::size_t>(std::ranges::count_if(names, [](const std::string& each) {
    std::error_code ec;
    const auto device = read_device(each, ec);
    return !ec && device.ethernet;
  }));
}

bool fails(const std::vector<finding>& findings) {
  return std::ranges::any_of(findings, [](const finding& f) { return f.status == health::fail; });
}

// All interfaces that are up. One that cannot send is only worth a warning while another can.
std::vector<finding> examine_interfaces() {
  std::vector<finding> all;
  bool any_works = false;
  for (const auto& each : interfaces_up()) {
    auto findings = examine_interface(each);
    any_works = any_works || !fails(findings);
    std::ranges::move(findings, std::back_inserter(all));
  }
  if (all.empty())
    return {{"interfaces", health::fail, "none up", "there is nothing to send through",
             "ip link set IF up"}};
  if (any_works)
    for (auto& f : all)
      if (f.status == health::fail) f.status = health::warn;
  return all;
}

void print_text(const std::vector<finding>& findings) {
  std::size_t width = 0;
  for (const auto& f : findings) width = std::max(width, f.name.size());
  for (const auto& f : findings) {
    std::cout << std::left << std::setw(5) << name(f.status)
              << std::setw(static_cast<int>(width) + 2) << f.name << f.value << ": " << f.meaning;
    if (!f.remedy.empty()) std::cout << "; fix: " << f.remedy;
    std::cout << '\n';
  }
}

void print_json(const std::vector<finding>& findings, bool sendable) {
  nlohmann::ordered_json out;
  out["ok"] = sendable;
  out["checks"] = nlohmann::ordered_json::array();
  for (const auto& f : findings)
    out["checks"].push_back({{"name", f.name},
                             {"status", name(f.status)},
                             {"value", f.value},
                             {"meaning", f.meaning},
                             {"fix", f.remedy}});
  std::cout << json_line(out) << '\n';
}

}  // namespace

int run_doctor(const std::string& interface, bool json) {
  if (!interface.empty()) static_cast<void>(parse_interface("interface", interface));
  auto findings = examine_host(interface.empty() ? sockets_wanted() : 1);
  const auto up = interfaces_up();
  std::ranges::move(interface.empty() ? examine_decisions({up.begin(), up.end()})
                                      : examine_decisions({interface}),
                    std::back_inserter(findings));
  std::ranges::move(interface.empty() ? examine_interfaces() : examine_interface(interface),
                    std::back_inserter(findings));
  const bool sendable = !fails(findings);
  if (json)
    print_json(findings, sendable);
  else
    print_text(findings);
  return sendable ? 0 : 1;
}

}  // namespace cowire::cli
