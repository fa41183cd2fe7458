// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/query.hpp>

#include <cowire/cli/parse.hpp>

#include <cowire/base/unique_fd.hpp>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <limits>
#include <sstream>

namespace cowire::cli {
namespace {

template <class T>
T number(const char* what, const std::string& text, int base = 0) {
  return static_cast<T>(parse_number(what, text, 0, std::numeric_limits<T>::max(), base));
}

// The protocols for which the kernel answers RTM_GETROUTE.
std::uint8_t protocol(const std::string& text) {
  if (text == "udp" || text == "17") return IPPROTO_UDP;
  if (text == "tcp" || text == "6") return IPPROTO_TCP;
  if (text == "icmp" || text == "1") return IPPROTO_ICMP;
  if (text == "ipv6-icmp" || text == "58") return IPPROTO_ICMPV6;
  throw usage_error(
      "ipproto '" + text +
      "': routes can be asked for udp, tcp, icmp and ipv6-icmp only; use one of these");
}

/// What a socket has that this process opens now, before any option is set: a control-group program
/// may bind it and mark it. `ip vrf exec` is such a program.
void apply_binding(flow_class& cls) {
  const unique_fd fd{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  const auto option = [&](int name) {
    int value = 0;
    socklen_t size = sizeof value;
    const bool told = fd && ::getsockopt(fd.get(), SOL_SOCKET, name, &value, &size) == 0;
    return told ? static_cast<std::uint32_t>(value) : 0;
  };
  cls.output_interface = option(SO_BINDTOIFINDEX);
  cls.mark = option(SO_MARK);
}

void apply(flow& f, const std::string& key, const std::string& value) {
  if (key == "from") {
    const auto source = parse_address("from", value).unmapped();
    (source.is_v4() ? f.cls.source_v4 : f.cls.source_v6) = source;
    if (source.family() != f.destination.family())
      throw usage_error("from '" + value + "': not of the family of " + f.destination.to_string() +
                        "; use a source of the same family");
  } else if (key == "mark") {
    f.cls.mark = number<std::uint32_t>("mark", value);
  } else if (key == "oif" || key == "dev") {
    f.cls.output_interface = parse_interface(key, value);
  } else if (key == "tos" || key == "dsfield") {
    f.cls.tos = number<std::uint8_t>("tos", value, 16);
  } else if (key == "ipproto") {
    f.cls.ip_protocol = protocol(value);
  } else if (key == "sport") {
    f.cls.source_port = number<std::uint16_t>("sport", value);
  } else if (key == "dport") {
    f.destination_port = number<std::uint16_t>("dport", value);
  } else if (key == "uid") {
    f.cls.uid = number<std::uint32_t>("uid", value);
  } else if (key == "multicast_ttl") {
    f.cls.multicast_ttl = number<std::uint8_t>("multicast_ttl", value);
  } else if (key == "multicast_interface") {
    f.cls.multicast_interface = parse_interface(key, value);
  } else if (key == "multicast_loop") {
    f.cls.multicast_loop = parse_number("multicast_loop", value, 0, 1) != 0;
  } else {
    throw usage_error(
        "'" + key +
        "': not a part of a route query; use from, mark, oif, tos, ipproto, sport, dport, uid, "
        "multicast_ttl, multicast_interface or multicast_loop");
  }
}

}  // namespace

flow parse_query(std::span<const std::string> words) {
  if (!words.empty() && words.front() == "to") words = words.subspan(1);
  if (words.empty())
    throw usage_error("route get: no destination; write: cowire route get 192.0.2.1");
  flow f;
  const auto [address, scope_id] = parse_scoped_address("destination", words.front());
  f.destination = address;
  f.cls.uid = ::getuid();
  apply_binding(f.cls);
  for (words = words.subspan(1); !words.empty(); words = words.subspan(2)) {
    if (words.size() == 1)
      throw usage_error("'" + words.front() + "': its value is missing; write it after the word");
    apply(f, words[0], words[1]);
  }
  // As udpv6_sendmsg has it: the scope id goes before the device that the socket is bound to.
  if (scope_id != 0) f.cls.output_interface = scope_id;
  return f;
}

std::vector<std::string> split_query(std::string_view line) {
  std::istringstream in{std::string(line.substr(0, line.find('#')))};
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  if (words.size() > 1 && words[0] == "route" && words[1] == "get")
    words.erase(words.begin(), words.begin() + 2);
  return words;
}

}  // namespace cowire::cli
