// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/names.hpp>

#include <cowire/cli/parse.hpp>

#include <linux/rtnetlink.h>
#include <net/if.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>

namespace cowire::cli {
namespace {

using name_map = std::map<std::uint32_t, std::string>;

void read_names(const std::filesystem::path& path, name_map& names) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line.substr(0, line.find('#')));
    std::string number, name;
    if (!(in >> number >> name)) continue;
    try {
      names[static_cast<std::uint32_t>(std::stoul(number, nullptr, 0))] = name;
    } catch (const std::exception&) {
      continue;  // Somebody else's file: a line that makes no sense there is not our error.
    }
  }
}

// `base` of /etc/iproute2 and the *.conf files of its .d folder, over the names that iproute2 has
// built in.
name_map names_of(const std::string& base, name_map names) {
  const std::filesystem::path path = "/etc/iproute2/" + base;
  read_names(path, names);
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(path.string() + ".d", ec))
    if (entry.path().extension() == ".conf") read_names(entry.path(), names);
  return names;
}

const name_map& tables() {
  static const name_map names =
      names_of("rt_tables",
               {{RT_TABLE_DEFAULT, "default"}, {RT_TABLE_MAIN, "main"}, {RT_TABLE_LOCAL, "local"}});
  return names;
}

const name_map& protocols() {
  static const name_map names = names_of(
      "rt_protos",
      {{RTPROT_UNSPEC, "none"}, {RTPROT_REDIRECT, "redirect"}, {RTPROT_KERNEL, "kernel"},
       {RTPROT_BOOT, "boot"},   {RTPROT_STATIC, "static"},     {RTPROT_GATED, "gated"},
       {RTPROT_RA, "ra"},       {RTPROT_MRT, "mrt"},           {RTPROT_ZEBRA, "zebra"},
       {RTPROT_BIRD, "bird"},   {RTPROT_DNROUTED, "dnrouted"}, {RTPROT_XORP, "xorp"},
       {RTPROT_NTK, "ntk"},     {RTPROT_DHCP, "dhcp"},         {RTPROT_KEEPALIVED, "keepalived"},
       {RTPROT_BABEL, "babel"}, {RTPROT_BGP, "bgp"},           {RTPROT_ISIS, "isis"},
       {RTPROT_OSPF, "ospf"},   {RTPROT_RIP, "rip"},           {RTPROT_EIGRP, "eigrp"}});
  return names;
}

std::string name_in(const name_map& names, std::uint32_t number) {
  const auto found = names.find(number);
  return found == names.end() ? std::to_string(number) : found->second;
}

}  // namespace

std::string table_name(std::uint32_t table) { return name_in(tables(), table); }

std::uint32_t parse_table(const std::string& text) {
  for (const auto& [number, name] : tables())
    if (name == text) return number;
  if (text.find_first_not_of("0123456789abcdefxABCDEFX") != std::string::npos)
    throw usage_error(
        "table '" + text +
        "': no such name in /etc/iproute2/rt_tables; use a name from there or a number");
  return static_cast<std::uint32_t>(
      parse_number("table", text, 1, std::numeric_limits<std::uint32_t>::max()));
}

std::string protocol_name(std::uint8_t protocol) { return name_in(protocols(), protocol); }

std::string scope_name(std::uint8_t scope) {
  switch (scope) {
    case RT_SCOPE_UNIVERSE:
      return "global";
    case RT_SCOPE_SITE:
      return "site";
    case RT_SCOPE_LINK:
      return "link";
    case RT_SCOPE_HOST:
      return "host";
    case RT_SCOPE_NOWHERE:
      return "nowhere";
    default:
      return std::to_string(scope);
  }
}

std::string type_name(std::uint8_t type) {
  constexpr std::array names{"none",     "unicast",   "local",     "broadcast",
                             "anycast",  "multicast", "blackhole", "unreachable",
                             "prohibit", "throw",     "nat",       "xresolve"};
  return type < names.size() ? names[type] : std::to_string(type);
}

std::string interface_name(std::uint32_t index) {
  std::array<char, IF_NAMESIZE> name{};
  if (::if_indextoname(index, name.data()) != nullptr) return name.data();
  return "if" + std::to_string(index);
}

}  // namespace cowire::cli
