// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/route_view.hpp>

#include <sstream>

namespace cowire::cli {
namespace {

// A JSON value as a word: strings without quotes.
std::string word(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void add(std::ostream& out, const json& route, const char* key, const char* before) {
  if (const auto found = route.find(key); found != route.end()) out << before << word(*found);
}

void add_gateway(std::ostream& out, const json& route) {
  add(out, route, "gateway", " via ");
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
    return;
  }
  if (found->contains("header_template")) add(out, *found, "egress", " egress ");
  add(out, *found, "destination_mac", " mac ");
  add(out, *found, "payload_offset", " payload at ");
  add(out, *found, "header_template", " header ");
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
  add(out, route, "from", " from ");
  add(out, route, "tos", " tos ");
  add(out, route, "nhid", " nhid ");
  add_gateway(out, route);
  add(out, route, "dev", " dev ");
  add(out, route, "table", " table ");
  add(out, route, "protocol", " proto ");
  add(out, route, "scope", " scope ");
  add(out, route, "prefsrc", " src ");
  add(out, route, "metric", " metric ");
  add_list(out, route, "flags", " ");
  add(out, route, "mark", " mark ");
  add(out, route, "uid", " uid ");
  if (const auto cache = route.find("cache"); cache != route.end()) {
    out << "\n    cache";
    add_list(out, route, "cache", " ");
  }
  add_metrics(out, route);
  add(out, route, "expires", " expires ");
  add(out, route, "pref", " pref ");
  if (const auto hops = route.find("nexthops"); hops != route.end())
    for (const auto& hop : *hops) {
      out << "\n\tnexthop";
      add_gateway(out, hop);
      add(out, hop, "dev", " dev ");
      add(out, hop, "weight", " weight ");
      add_list(out, hop, "flags", " ");
    }
  add_cowire(out, route);
  return out.str();
}

}  // namespace cowire::cli
