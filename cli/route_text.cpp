// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/json_text.hpp>
#include <cowire/cli/route_view.hpp>

#include <sstream>

namespace cowire::cli {
namespace {

void add_gateway(std::ostream& out, const json& route) {
  add_word(out, route, "gateway", " via ");
  if (const auto via = route.find("via"); via != route.end())
    out << " via " << word((*via)["family"]) << ' ' << word((*via)["host"]);
}

void add_list(std::ostream& out, const json& route, const char* key, const char* separator) {
  if (const auto list = route.find(key); list != route.end())
    for (const auto& element : *list) out << separator << word(element);
}

void add_metrics(std::ostream& out, const json& route) {
  if (const auto metrics = route.find("metrics"); metrics != route.end())
    for (const auto& [name, value] : (*metrics)[0].items())
      out << ' ' << name << ' ' << word(value);
}

/// Hexadecimal from 16 on, as `ip` has it.
std::string mark_text(const json& mark) {
  const auto value = mark.get<std::uint32_t>();
  std::ostringstream out;
  if (value >= 16) out << "0x" << std::hex;
  out << value;
  return out.str();
}

void add_cowire(std::ostream& out, const json& route) {
  const auto found = route.find("cowire");
  if (found == route.end()) return;
  out << "\n    cowire";
  if (found->contains("fast")) {
    out << (found->value("fast", false) ? " fast" : " kernel path");
    add_list(out, *found, "egress", " ");
  }
  if (const auto audit = found->find("audit"); audit != found->end() && *audit != "agrees")
    out << " but " << word(*audit);
  if (found->contains("divert")) {
    out << " divert " << word((*found)["divert"]);
    if (found->contains("text")) out << " (" << word((*found)["text"]) << ')';
    add_word(out, *found, "obstacle", ": ");
    return;
  }
  if (found->contains("header_template")) add_word(out, *found, "egress", " egress ");
  add_word(out, *found, "destination_mac", " mac ");
  add_word(out, *found, "payload_offset", " payload at ");
  add_word(out, *found, "header_template", " header ");
}

}  // namespace

std::string route_text(const json& route) {
  std::ostringstream out;
  if (const auto type = route.find("type"); type != route.end()) out << word(*type) << ' ';
  out << word(route["dst"]);
  if (const auto error = route.find("error"); error != route.end()) {
    out << " error " << word(*error);
    return out.str();
  }
  add_word(out, route, "from", " from ");
  add_word(out, route, "tos", " tos ");
  add_word(out, route, "nhid", " nhid ");
  add_gateway(out, route);
  add_word(out, route, "dev", " dev ");
  add_word(out, route, "table", " table ");
  add_word(out, route, "protocol", " proto ");
  add_word(out, route, "scope", " scope ");
  add_word(out, route, "prefsrc", " src ");
  add_word(out, route, "metric", " metric ");
  add_list(out, route, "flags", " ");
  if (const auto mark = route.find("mark"); mark != route.end())
    out << " mark " << mark_text(*mark);
  add_word(out, route, "uid", " uid ");
  if (const auto cache = route.find("cache"); cache != route.end()) {
    out << "\n    cache";
    add_list(out, route, "cache", " ");
  }
  add_metrics(out, route);
  add_word(out, route, "expires", " expires ");
  add_word(out, route, "pref", " pref ");
  if (const auto hops = route.find("nexthops"); hops != route.end())
    for (const auto& hop : *hops) {
      out << "\n\tnexthop";
      add_gateway(out, hop);
      add_word(out, hop, "dev", " dev ");
      add_word(out, hop, "weight", " weight ");
      add_list(out, hop, "flags", " ");
    }
  add_cowire(out, route);
  return out.str();
}

}  // namespace cowire::cli
