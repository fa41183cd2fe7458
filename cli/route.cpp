// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/json_text.hpp>
#include <cowire/cli/kernel_state.hpp>
#include <cowire/cli/names.hpp>
#include <cowire/cli/parse.hpp>
#include <cowire/cli/query.hpp>
#include <cowire/cli/route.hpp>
#include <cowire/cli/route_view.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/route/agreement.hpp>
#include <cowire/route/resolve_by_search.hpp>

#include <linux/rtnetlink.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <optional>

namespace cowire::cli {
namespace {

// Routes about which `show` asks the kernel, too: enough for a look, a millisecond or two in all.
constexpr std::size_t audited_max = 1000;

/// Whether the kernel would take the datagram.
bool print_answer(const kernel_state& kernel, const flow& question, bool as_json) {
  const auto answer = answer_json(question, kernel.explain(question));
  std::cout << (as_json ? json_line(json::array({answer})) : route_text(answer)) << '\n';
  return !answer.contains("error");
}

int answer_batch(const route_get_arguments& arguments) {
  std::ifstream file;
  if (arguments.batch_file != "-") {
    file.open(arguments.batch_file);
    if (!file)
      throw usage_error("-b '" + arguments.batch_file + "': " + std::strerror(errno) +
                        "; name a file that you can read");
  }
  std::istream& in = arguments.batch_file == "-" ? std::cin : file;
  const kernel_state kernel;
  int status = 0;
  std::string line;
  for (std::size_t number = 1; std::cout && read_line(in, line); ++number) {
    if (line.size() > line_length_max)
      throw usage_error(arguments.batch_file + ":" + std::to_string(number) + ": longer than " +
                        std::to_string(line_length_max) + " bytes; write one query a line");
    const auto words = split_query(line);
    if (words.empty()) continue;
    try {
      static_cast<void>(print_answer(kernel, parse_query(words), arguments.json));
    } catch (const usage_error& error) {
      // An array all the same: answers are matched to queries by their order.
      if (arguments.json) std::cout << "[]\n";
      std::cerr << "cowire: " << arguments.batch_file << ':' << number << ": " << error.what()
                << '\n';
      status = 2;
    }
  }
  return status;
}

divert_reason reason_of_type(std::uint8_t type) {
  switch (type) {
    case RTN_LOCAL:
      return divert_reason::local_destination;
    case RTN_BROADCAST:
      return divert_reason::broadcast_destination;
    case RTN_MULTICAST:
      return divert_reason::multicast_destination;
    case RTN_UNREACHABLE:
    case RTN_PROHIBIT:
    case RTN_BLACKHOLE:
    case RTN_THROW:
      return divert_reason::rejected;
    default:
      return divert_reason::unsupported_route;
  }
}

/// A group that stands for all that this is a route to, or nothing.
std::optional<ip_address> group_of(const netlink::route& route) {
  const ip_prefix& to = route.destination;
  const bool v4 = to.family() == ip_family::v4;
  if (!to.address().is_multicast() || to.length() < (v4 ? 4 : 8)) return std::nullopt;
  // Global scope, which no group has of which all hosts are members.
  const ip_address wide = *ip_address::parse(v4 ? "224.0.1.0" : "ff1e::1:0");
  return to.contains(wide) ? wide : to.address();
}

// The hop that frames over this member of a route take: that of the gateway itself, asked on its
// device, or the group's, which is sent to otherwise. Without a gateway every destination has its
// own neighbour; then an unresolved one says nothing against the route.
divert_reason member_service(const kernel_state& kernel, const netlink::route& route,
                             const netlink::next_hop& member, bool& fast) {
  flow question;
  const std::optional<ip_address> group = group_of(route);
  question.destination = group            ? *group
                         : member.gateway ? *member.gateway
                                          : route.destination.address();
  question.cls.output_interface = member.index;
  question.cls.uid = ::getuid();
  const hop h = kernel.explain(question).template_hop;
  fast = h.egress != divert_slot ||
         (!member.gateway && h.reason == divert_reason::neighbour_unresolved);
  return h.reason;
}

// What happens to a datagram that takes this route.
json service_of(const kernel_state& kernel, const netlink::route& route) {
  const auto diverted = [](divert_reason reason) {
    return json{{"fast", false}, {"divert", name(reason)}, {"text", describe(reason)}};
  };
  if (route.type != RTN_UNICAST && !(route.type == RTN_MULTICAST && group_of(route)))
    return diverted(reason_of_type(route.type));
  auto egress = json::array();
  for (const auto& member : route.next_hops) {
    bool fast = false;
    const auto reason = member_service(kernel, route, member, fast);
    if (!fast) return diverted(reason);
    egress.push_back(interface_name(member.index));
  }
  if (egress.empty()) return diverted(divert_reason::unsupported_route);
  return {{"fast", true}, {"egress", egress}};
}

// Whether the kernel, asked about an address inside, answers as the mirror does: "agrees", or both
// answers. Nothing where the kernel decides anyhow.
std::optional<std::string> audit_of(const kernel_state& kernel, netlink::request_socket& socket,
                                    const ip_prefix& prefix) {
  flow question;
  // The last but one: the first and the last are often own or broadcast addresses.
  auto bytes = prefix.last().bytes();
  if (!prefix.is_host()) bytes[prefix.address().size() - 1] &= 0xfe;
  question.destination = ip_address::from_bytes(prefix.family(), bytes.data());
  question.cls.uid = ::getuid();
  const auto ours = resolve_by_search(kernel.state(), question, route_question::get_route);
  if (is_left_to_kernel(ours)) return std::nullopt;
  std::error_code ec;
  const auto theirs = socket.get_route(query_of(question), ec);
  if (ec) return std::nullopt;
  const auto found = compare_answers(kernel.state(), question, ours, theirs);
  return found.agrees() ? "agrees" : found.text();
}

}  // namespace

int run_route_get(const route_get_arguments& arguments) {
  if (!arguments.batch_file.empty()) {
    if (!arguments.query.empty())
      throw usage_error("route get: '" + arguments.query.front() +
                        "' beside -b; give a destination or a file, not both");
    return answer_batch(arguments);
  }
  const auto question = parse_query(arguments.query);
  return print_answer(kernel_state(), question, arguments.json) ? 0 : 2;
}

int run_route_show(const std::string& table, bool as_json) {
  const bool all = table == "all";
  const auto wanted = all || table.empty() ? std::uint32_t{RT_TABLE_MAIN} : parse_table(table);
  const kernel_state kernel;
  netlink::request_socket socket;
  std::size_t audited = 0;
  auto out = json::array();
  for (const auto family : ip_families)
    for (const auto& [id, prefixes] : kernel.state().tables(family)) {
      if (!all && id != wanted) continue;
      for (const auto& [prefix, entries] : prefixes)
        for (const auto& entry : entries) {
          const netlink::route route = entry.route_to(prefix);
          auto shown = route_json(route, all);
          shown["cowire"] = service_of(kernel, route);
          if (audited < audited_max && shown["cowire"]["fast"] == true)
            if (const auto audit = audit_of(kernel, socket, prefix)) {
              shown["cowire"]["audit"] = *audit;
              ++audited;
            }
          out.push_back(std::move(shown));
        }
    }
  if (as_json) {
    std::cout << json_line(out) << '\n';
  } else {
    for (const auto& route : out) std::cout << route_text(route) << '\n';
  }
  return 0;
}

}  // namespace cowire::cli
