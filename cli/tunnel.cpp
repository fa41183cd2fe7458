// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/json_text.hpp>
#include <cowire/cli/tunnel.hpp>

#include <cowire/cli/names.hpp>
#include <cowire/cli/parse.hpp>
#include <cowire/cli/tunnel_view.hpp>
#include <cowire/cli/tunnel_words.hpp>

#include <iostream>

namespace cowire::cli {
namespace {

// The device of that name, which must be a tunnel.
netlink::link existing_tunnel(netlink::request_socket& kernel, const std::string& name) {
  auto found = find_link(kernel, name);
  if (!found)
    throw usage_error("tunnel '" + name +
                      "': no such interface; 'cowire tunnel show' lists the tunnels");
  if (!std::holds_alternative<netlink::tunnel_info>(found->info))
    throw usage_error("tunnel '" + name + "': not a tunnel but " +
                      (found->kind.empty() ? "another device" : "a " + found->kind) +
                      "; 'cowire tunnel show' lists the tunnels");
  return std::move(*found);
}

// One that may be changed and removed.
netlink::link own_tunnel(netlink::request_socket& kernel, const tunnel_arguments& arguments,
                         const std::string& command) {
  if (arguments.words.empty())
    throw usage_error("tunnel " + command + ": no name; 'cowire tunnel show' lists the tunnels");
  auto found = existing_tunnel(kernel, arguments.words.front());
  if (const auto why = left_to_kernel(found); !why.empty())
    throw usage_error("tunnel '" + found.name + "': " + why +
                      "; it is left to the kernel and to 'ip link'");
  return found;
}

void print(const std::vector<netlink::link>& tunnels, bool as_json) {
  const kernel_state kernel;
  const auto traffic = read_sent_traffic();
  auto all = json::array();
  for (const auto& tunnel : tunnels) {
    const auto sent = traffic.find(tunnel.name);
    all.push_back(
        tunnel_json(kernel, tunnel, sent == traffic.end() ? sent_traffic{} : sent->second));
    if (!as_json) std::cout << tunnel_text(tunnel, all.back()) << '\n';
  }
  if (as_json) std::cout << json_line(all) << '\n';
}

}  // namespace

int run_tunnel_show(const tunnel_arguments& arguments) {
  netlink::request_socket kernel;
  if (arguments.words.size() > 1)
    throw usage_error("tunnel show '" + arguments.words[1] +
                      "': only one name can follow; write: cowire tunnel show gre1");
  std::vector<netlink::link> tunnels;
  if (!arguments.words.empty()) {
    tunnels.push_back(existing_tunnel(kernel, arguments.words.front()));
  } else {
    for (auto& m : kernel.dump(netlink::object_kind::link))
      if (auto& link = std::get<netlink::link>(m);
          std::holds_alternative<netlink::tunnel_info>(link.info))
        tunnels.push_back(std::move(link));
  }
  print(tunnels, arguments.json);
  return 0;
}

int run_tunnel_add(const tunnel_arguments& arguments) {
  const auto tunnel = parse_tunnel(arguments.words);
  netlink::request_socket kernel;
  create_tunnel(kernel, tunnel);
  if (arguments.json) print({existing_tunnel(kernel, tunnel.name)}, true);
  return 0;
}

int run_tunnel_change(const tunnel_arguments& arguments) {
  netlink::request_socket kernel;
  const auto existing = own_tunnel(kernel, arguments, "change");
  const auto bound = std::get<netlink::tunnel_info>(existing.info).link;
  auto tunnel = declaration_of(existing, bound == 0 ? "" : interface_name(bound));
  tunnel.mtu = 0;  // Unless a word tells it, the kernel adapts it to the new headers.
  parse_tunnel_change(tunnel, std::span(arguments.words).subspan(1));
  change_tunnel(kernel, tunnel);
  if (arguments.json) print({existing_tunnel(kernel, tunnel.name)}, true);
  return 0;
}

int run_tunnel_del(const tunnel_arguments& arguments) {
  netlink::request_socket kernel;
  const auto existing = own_tunnel(kernel, arguments, "del");
  if (arguments.words.size() > 1)
    throw usage_error("tunnel del '" + arguments.words[1] +
                      "': only a name can follow; write: cowire tunnel del " + existing.name);
  remove_tunnel(kernel, existing);
  return 0;
}

}  // namespace cowire::cli
