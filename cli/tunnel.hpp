// SPDX-License-Identifier: Apache-2.0
/// `cowire tunnel show | add | change | del`: tunnel devices by rtnetlink, in the words of
/// `ip tunnel`. `show` needs no privilege. All return the exit status and throw what main() tells.
#pragma once

#include <string>
#include <vector>

namespace cowire::cli {

struct tunnel_arguments {
  std::vector<std::string> words;
  bool json = false;  ///< Print the tunnels shown, the one added or changed, as a JSON array.
};

int run_tunnel_show(const tunnel_arguments& arguments);
int run_tunnel_add(const tunnel_arguments& arguments);
int run_tunnel_change(const tunnel_arguments& arguments);
int run_tunnel_del(const tunnel_arguments& arguments);

}  // namespace cowire::cli
