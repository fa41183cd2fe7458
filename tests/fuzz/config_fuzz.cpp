// SPDX-License-Identifier: Apache-2.0
/// Any text as a configuration file: it is accepted, or refused with its place in one line.
#include "tests/fuzz/fuzz_target.hpp"

#include <cowire/async/tunnel.hpp>
#include <cowire/base/assert.hpp>
#include <cowire/cli/config.hpp>
#include <cowire/cli/parse.hpp>

#include <array>
#include <string>
#include <string_view>

namespace cowire::test {
namespace {

constexpr std::array<std::string_view, 12> lines = {
    "[xdp]\ninterface = ['lo']\n",
    "[xdp]\ncpus = [0]\nzero_copy = true\nring_capacity = 1024\nhuge_pages = false\n",
    "[doublezero]\nupdate_interval = 0.5\nperformance_mode = true\n",
    "[[tunnel]]\nname = 'g0'\nmode = 'gre'\n",
    "[[tunnel]]\nname = 'g6'\nmode = 'ip6gre'\n",
    "remote = '10.0.0.2'\nlocal = '10.0.0.1'\n",
    "ttl = 'inherit'\ntos = 0x10\nmtu = 1400\n",
    "key = '0.0.0.5'\ncsum = true\nseq = false\n",
    "addresses = ['169.254.0.1/31', 'fe80::1/64']\n",
    "encaplimit = 'none'\nflowlabel = 0xfffff\n",
    "dev = 'eth0'\nfwmark = 7\npmtudisc = false\nignore-df = true\n",
    "# nothing\n",
};

}  // namespace

std::vector<std::uint8_t> fuzz_seed(std::mt19937_64& random) {
  std::vector<std::uint8_t> seed;
  for (auto left = 1 + random() % 6; left > 0; --left) {
    const auto line = lines[random() % lines.size()];
    seed.insert(seed.end(), line.begin(), line.end());
  }
  return seed;
}

}  // namespace cowire::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cowire;
  transmitter_config config;
  try {
    cli::file_options more;
    cli::parse_config({reinterpret_cast<const char*>(data), size}, "f", config, more);
    for (const auto& tunnel : config.tunnels) {
      COWIRE_ASSERT(declarable_kind(tunnel.kind) != nullptr);
      COWIRE_ASSERT(!tunnel.name.empty() && tunnel.name.size() < 16);
      for (const auto& address : tunnel.addresses)
        COWIRE_ASSERT(address.prefix_length <= address.local.bits());
    }
  } catch (const cli::usage_error& error) {
    const std::string_view message = error.what();
    COWIRE_ASSERT(message.starts_with("f:") && message.find_first_of("123456789") == 2);
  }
  return 0;
}
