// SPDX-License-Identifier: Apache-2.0
// Rulesets as real programs leave them (tests/data/rulesets): flows beside plain sockets of the
// same sources and marks. What the kernel drops or rewrites never leaves by AF_XDP, and of what it
// leaves alone nearly all does.
#include <tests/async/output_hosts.hpp>

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace cowire::test {
namespace {

/// What each datagram carries, so that it is known wherever it arrives.
struct [[gnu::packed]] mark_of_origin {
  std::uint32_t magic = 0x636f7769;
  std::uint32_t flow = 0, number = 0;
  std::uint8_t plain = 0;
};

/// A datagram as it arrived at B.
struct arrival {
  mark_of_origin origin;
  std::string source, destination;  ///< Addresses.
  std::uint16_t source_port = 0, destination_port = 0;
  unsigned tos = 0;
};

/// Everything that arrives at a device with a mark of ours.
class listener {
 public:
  listener(const netns& in, const char* device) {
    const netns::scope inside(in);
    fd_.reset(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    const int room = 64 << 20;
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    sockaddr_ll name{};
    name.sll_family = AF_PACKET;
    name.sll_protocol = htons(ETH_P_ALL);
    name.sll_ifindex = static_cast<int>(::if_nametoindex(device));
    if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0)
      throw_error(errno_code(errno), "listening");
  }
  /// What has come and comes until nothing has for `quiet`.
  void hear(std::vector<arrival>& into, std::chrono::milliseconds quiet) {
    for (;;) {
      pollfd readable{fd_.get(), POLLIN, 0};
      if (::poll(&readable, 1, static_cast<int>(quiet.count())) <= 0) return;
      std::array<unsigned char, 2048> bytes{};
      const auto size = ::recv(fd_.get(), bytes.data(), bytes.size(), 0);
      if (size <= 0) continue;
      if (const auto one = read({bytes.data(), static_cast<std::size_t>(size)}))
        into.push_back(*one);
    }
  }

 private:
  static std::string address(int family, const unsigned char* bytes) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    return ::inet_ntop(family, bytes, text.data(), text.size());
  }
  static std::optional<arrival> read(std::span<const unsigned char> packet) {
    arrival out;
    if (packet.size() < 48 + sizeof out.origin - 20) return std::nullopt;
    const bool v4 = packet[0] >> 4 == 4;
    const std::size_t header = v4 ? 4u * (packet[0] & 15) : 40;
    if (packet[v4 ? 9 : 6] != IPPROTO_UDP || packet.size() < header + 8 + sizeof out.origin)
      return std::nullopt;
    std::memcpy(&out.origin, &packet[header + 8], sizeof out.origin);
    if (out.origin.magic != mark_of_origin{}.magic) return std::nullopt;
    out.source = address(v4 ? AF_INET : AF_INET6, &packet[v4 ? 12 : 8]);
    out.destination = address(v4 ? AF_INET : AF_INET6, &packet[v4 ? 16 : 24]);
    const auto word = [&](std::size_t at) {
      return static_cast<std::uint16_t>(packet[at] << 8 | packet[at + 1]);
    };
    out.source_port = word(header);
    out.destination_port = word(header + 2);
    out.tos = v4 ? packet[1] : (word(0) >> 4 & 0xffu);
    return out;
  }
  unique_fd fd_;
};

/// Its addresses are not the devices' first ones, so that masquerading is seen.
struct origin_of_flows {
  std::uint16_t port;
  std::uint32_t mark;
};
constexpr const char *source_v4 = "10.77.1.7", *source_v6 = "fd77:1::7";
/// The kernel's own socket has another port.
constexpr std::uint16_t plain_port_offset = 100;
/// The second is one that Tailscale (0x40000 of 0xff0000) and kube-proxy (0x4000) masquerade.
constexpr std::array origins{origin_of_flows{8001, 0}, origin_of_flows{8002, 0x44000}};

struct flow {
  std::size_t origin;
  endpoint destination;
};

/// Ordinary peers first, so that what follows finds everything read.
std::vector<flow> all_flows() {
  std::vector<flow> out;
  for (const char* where :
       {"10.77.1.2:9000",       "10.77.1.2:9001",     "10.77.1.2:53",       "10.77.1.2:68",
        "10.77.1.2:22",         "203.0.113.9:9000",   "203.0.113.9:443",    "198.51.100.7:9000",
        "198.51.100.20:9000",   "198.51.100.20:9002", "198.51.100.21:9000", "10.77.1.65:9000",
        "10.77.1.200:9000",     "172.30.0.10:53",     "172.30.0.10:9000",   "172.30.0.46:53",
        "172.30.0.99:9000",     "172.17.0.5:9001",    "192.168.122.9:53",   "100.100.100.100:53",
        "[fd77:1::2]:9000",     "[fd77:1::2]:9001",   "[fd77:1::2]:53",     "[2001:db8::9]:9000",
        "[2002:a00::1]:9000",   "[fd77:1::200]:9000", "[fd00:10:96::a]:53", "[fd00:10:96::a]:9000",
        "[fd00:10:96::99]:9000"})
    for (std::size_t origin = 0; origin < origins.size(); ++origin)
      out.push_back({origin, to(where)});
  return out;
}

/// What came of all the flows of a ruleset.
struct verdict {
  std::size_t left_alone = 0, touched = 0;  ///< Flows, by what became of the plain datagrams.
  std::size_t unsound = 0;                  ///< Flows that the kernel touched, with some fast.
  std::size_t different = 0;                ///< With another outcome than the plain socket's.
  std::size_t slow = 0;                     ///< Left alone, and less than 99 % fast.
  std::string text;                         ///< Of what is wrong, a line each.
};

constexpr std::uint32_t plain_count = 3, measured = 100, of_touched = 12;

class recorded_rulesets : public output_hosts {
 protected:
  void SetUp() override {
    output_hosts::SetUp();
    if (IsSkipped()) return;
    (*a)("ip addr add 10.77.1.7/24 dev a0");
    // Not one that the kernel picks by itself.
    (*a)("ip addr add fd77:1::7/64 dev a0 nodad preferred_lft 0");
    const std::string mac = mac_of("b0");
    for (const char* peer : {"10.77.1.2", "10.77.1.65", "10.77.1.200", "fd77:1::2", "fd77:1::200"})
      (*a)("ip neigh replace " + std::string(peer) + " lladdr " + mac + " dev a0 nud permanent");
    (*a)("ip route add default via 10.77.1.2");
    (*a)("ip route add default via fd77:1::2");
    // Nobody answers: one-way flows are new for ever, and meet every rule each time.
    (*b)(
        "nft 'table inet q { chain c { type filter hook prerouting priority -400; "
        "meta l4proto udp drop; }; }'");
    heard_ = std::make_unique<listener>(*b, "b0");
  }
  void TearDown() override {
    heard_.reset();
    output_hosts::TearDown();
  }

  /// Loads all files of a stem. Empty: done; otherwise what is missing on this host.
  std::string load_ruleset(const std::string& stem, const std::string& variant) {
    for (const auto& [ending, command] : {std::pair<std::string, std::string>{".nft", "nft -f "},
                                          {".iptables", "iptables-" + variant + "-restore < "},
                                          {".ip6tables", "ip6tables-" + variant + "-restore < "}}) {
      const std::string file = std::string(RULESETS_DIR) + "/" + stem + ending;
      if (!std::filesystem::exists(file)) continue;
      const std::string program = command.substr(0, command.find(' '));
      if (std::system((program + " --version >/dev/null 2>&1").c_str()) != 0)
        return "needs " + program;
      (*a)(command + file);
    }
    return {};
  }

  static std::string payload_of(std::size_t flow, std::uint32_t number, bool plain) {
    const mark_of_origin origin{.flow = static_cast<std::uint32_t>(flow),
                                .number = number,
                                .plain = static_cast<std::uint8_t>(plain)};
    return {reinterpret_cast<const char*>(&origin), sizeof origin};
  }
  /// As an application sends, and does not mind refusals.
  static void send_plain(std::size_t number, const flow& one) {
    const bool v4 = one.destination.address.is_v4();
    const origin_of_flows& from = origins[one.origin];
    const unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(0, ::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &from.mark, sizeof from.mark));
    const raw_address own({*ip_address::parse(v4 ? source_v4 : source_v6),
                           static_cast<std::uint16_t>(from.port + plain_port_offset)});
    ASSERT_EQ(0, ::bind(fd.get(), own.name(), own.size)) << errno_name(errno);
    const raw_address there(one.destination);
    for (std::uint32_t i = 0; i < plain_count; ++i) {
      const std::string text = payload_of(number, i, true);
      static_cast<void>(::sendto(fd.get(), text.data(), text.size(), 0, there.name(), there.size));
    }
  }
  static sender_options options_of(const origin_of_flows& from) {
    sender_options out{.source_port = from.port, .mark = from.mark};
    out.source_v4 = ip_address::parse(source_v4);
    out.source_v6 = ip_address::parse(source_v6);
    return out;
  }
  static bool unchanged(const arrival& one, const flow& sent, std::uint16_t port) {
    return one.source == (sent.destination.address.is_v4() ? source_v4 : source_v6) &&
           one.destination == sent.destination.address.to_string() && one.source_port == port &&
           one.destination_port == sent.destination.port && one.tos == 0;
  }

  verdict judge(const transmitter_config& config, bool expect_fast = true);
  void send_ours(transmitter& tx, sender& s, std::size_t number, bool expect_fast, verdict& out);
  void compare_arrivals(verdict& out);

  const std::vector<flow> flows_ = all_flows();
  std::unique_ptr<listener> heard_;
  std::vector<arrival> arrived_;
  std::vector<std::uint32_t> sent_;  ///< Datagrams of ours, by flow.
  std::vector<bool> left_alone_;     ///< By flow.
};

/// Sends plain ones, then ours, and compares.
verdict recorded_rulesets::judge(const transmitter_config& config, bool expect_fast) {
  verdict out;
  for (std::size_t i = 0; i < flows_.size(); ++i) send_plain(i, flows_[i]);
  heard_->hear(arrived_, 500ms);
  for (std::size_t i = 0; i < flows_.size(); ++i) {
    const auto port =
        static_cast<std::uint16_t>(origins[flows_[i].origin].port + plain_port_offset);
    const auto untouched = std::ranges::count_if(arrived_, [&](const arrival& one) {
      return one.origin.flow == i && unchanged(one, flows_[i], port);
    });
    left_alone_.push_back(untouched == plain_count);
    ++(left_alone_.back() ? out.left_alone : out.touched);
  }
  {
    transmitter tx(config);
    std::vector<sender> senders;
    senders.reserve(origins.size());
    for (const auto& from : origins) senders.push_back(tx.make_sender(options_of(from)));
    for (std::size_t i = 0; i < flows_.size(); ++i)
      send_ours(tx, senders[flows_[i].origin], i, expect_fast, out);
  }
  heard_->hear(arrived_, 500ms);
  compare_arrivals(out);
  return out;
}

/// The first datagram of a flow, what waits until it is fast, and those that are counted.
void recorded_rulesets::send_ours(transmitter& tx, sender& s, std::size_t number, bool expect_fast,
                                  verdict& out) {
  const endpoint& there = flows_[number].destination;
  std::uint32_t count = 0;
  const auto send_one = [&] {
    const std::string text = payload_of(number, count, false);
    ASSERT_TRUE(s.try_send(bytes_of(text), there)) << there.to_string();
    ++count;
  };
  const auto name = [&] {
    return there.to_string() + " mark " + std::to_string(origins[flows_[number].origin].mark);
  };
  const auto before = by(tx, "a0");
  if (left_alone_[number]) {
    // Where many are not recognised, each need not be waited for.
    constexpr std::size_t waited_for_in_vain = 3;
    static_cast<void>(eventually(
        [&] {
          send_one();
          return drained(tx) && by(tx, "a0") > before;
        },
        expect_fast && out.slow < waited_for_in_vain ? 30s : 0s));
    const auto begin = by(tx, "a0");
    for (std::uint32_t i = 0; i < measured; ++i) send_one();
    ASSERT_TRUE(drained(tx)) << summary(tx.stats());
    if (const auto fast = by(tx, "a0") - begin; fast * 100 < measured * 99) {
      ++out.slow;
      out.text += "slow: " + name() + ": " + std::to_string(fast) + " fast\n";
      if (out.slow == 1) out.text += "  " + summary(tx.stats()) + "\n";
    }
  } else {
    for (std::uint32_t i = 0; i < of_touched; ++i) {
      send_one();
      ASSERT_TRUE(drained(tx)) << summary(tx.stats());
    }
    if (const auto fast = by(tx, "a0") - before; fast != 0) {
      ++out.unsound;
      out.text += "unsound: " + name() + ": " + std::to_string(fast) + " fast\n";
    }
  }
  sent_.push_back(count);
}

/// Each flow's datagrams arrive as the plain ones did: all or none, with the same addresses. Where
/// the kernel translates the source, its port may be any.
void recorded_rulesets::compare_arrivals(verdict& out) {
  using seen = std::set<std::pair<std::string, std::string>>;
  std::vector<seen> plain(flows_.size()), ours(flows_.size());
  std::vector<std::size_t> count(flows_.size());
  for (const arrival& one : arrived_) {
    const std::size_t i = one.origin.flow;
    ASSERT_LT(i, flows_.size());
    const auto own = static_cast<std::uint16_t>(origins[flows_[i].origin].port +
                                                (one.origin.plain != 0 ? plain_port_offset : 0));
    const bool own_address = one.source == source_v4 || one.source == source_v6;
    const std::string from = one.source + (!own_address             ? ""
                                           : one.source_port == own ? " own port"
                                                                    : " another port");
    const std::string where = one.destination + " " + std::to_string(one.destination_port) +
                              " tos " + std::to_string(one.tos);
    (one.origin.plain != 0 ? plain : ours)[i].insert({from, where});
    count[i] += one.origin.plain == 0;
  }
  for (std::size_t i = 0; i < flows_.size(); ++i) {
    const bool all = count[i] == (plain[i].empty() ? 0 : sent_[i]);
    if (plain[i] == ours[i] && all) continue;
    ++out.different;
    out.text += "different: " + flows_[i].destination.to_string() + " from port " +
                std::to_string(origins[flows_[i].origin].port) + ": " + std::to_string(count[i]) +
                " of " + std::to_string(sent_[i]) + " arrived\n";
    for (const auto& [whose, what] : {std::pair{"plain", &plain[i]}, {"ours", &ours[i]}})
      for (const auto& [from, where] : *what)
        out.text += std::string("  ") + whose + ": " + from + " to " + where + "\n";
  }
}

struct recording {
  friend void PrintTo(const recording& one, std::ostream* out) { *out << one.stem; }
  std::string stem;
  bool touches = true;       ///< Something of what all_flows() has.
  bool undecidable = false;  ///< Every datagram may be logged, as far as limits of rates let it.
};

const std::vector<recording>& recordings() {
  static const std::vector<recording> all = [] {
    std::set<std::string> stems;
    for (const auto& file : std::filesystem::directory_iterator(RULESETS_DIR))
      if (const auto ending = file.path().extension();
          ending == ".nft" || ending == ".iptables" || ending == ".ip6tables")
        stems.insert(file.path().stem());
    std::vector<recording> out;
    for (const std::string& stem : stems) {
      const bool harmless = stem == "ufw-0.36.2" || stem.starts_with("ufw-0.36.2-logging") ||
                            stem.starts_with("docker") || stem.starts_with("fail2ban") ||
                            stem.starts_with("libvirt") || stem.starts_with("wg-quick");
      out.push_back({stem, !harmless, stem.ends_with("-logging-medium")});
    }
    return out;
  }();
  return all;
}

std::vector<recording> of_iptables() {
  std::vector<recording> out = recordings();
  std::erase_if(out, [](const recording& one) {
    return !std::filesystem::exists(std::string(RULESETS_DIR) + "/" + one.stem + ".iptables");
  });
  return out;
}

class recorded_ruleset : public recorded_rulesets,
                         public ::testing::WithParamInterface<recording> {};
class recorded_legacy_ruleset : public recorded_ruleset {};

TEST_P(recorded_ruleset, is_obeyed_and_leaves_fast_what_it_does_not_touch) {
  NFT_OR_SKIP();
  if (const auto missing = load_ruleset(GetParam().stem, "nft"); !missing.empty())
    GTEST_SKIP() << missing;
  const verdict found = judge(small(), !GetParam().undecidable);
  std::cout << GetParam().stem << ": of " << flows_.size() << " flows the kernel touched "
            << found.touched << "; " << found.left_alone - found.slow << " of " << found.left_alone
            << " others were fast\n";
  EXPECT_EQ(0u, found.unsound) << found.text;
  EXPECT_EQ(0u, found.different) << found.text;
  EXPECT_EQ(GetParam().undecidable ? found.left_alone : 0u, found.slow) << found.text;
  EXPECT_GT(found.left_alone, 0u);
  EXPECT_EQ(GetParam().touches, found.touched > 0) << found.text;
}

/// As tables of legacy iptables: nothing of their families is fast, whatever they say.
TEST_P(recorded_legacy_ruleset, is_obeyed) {
  NFT_OR_SKIP();
  if (std::system("iptables-legacy-save >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "needs iptables-legacy, and a kernel that has it";
  ASSERT_EQ("", load_ruleset(GetParam().stem, "legacy"));
  const verdict found = judge(small(), false);
  EXPECT_EQ(0u, found.unsound) << found.text;
  EXPECT_EQ(0u, found.different) << found.text;
}

std::string name_of(const ::testing::TestParamInfo<recording>& one) {
  std::string name = one.param.stem;
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(all, recorded_ruleset, ::testing::ValuesIn(recordings()), name_of);
INSTANTIATE_TEST_SUITE_P(all, recorded_legacy_ruleset, ::testing::ValuesIn(of_iptables()), name_of);

/// The comparison above has teeth: a fast path that takes no notice of rules is found out.
TEST_F(recorded_rulesets, find_a_fast_path_that_ignores_rules) {
  NFT_OR_SKIP();
  ASSERT_EQ("", load_ruleset("kube-proxy-written", "nft"));
  auto config = small();
  config.output.netfilter = false;
  const verdict found = judge(config);
  EXPECT_EQ(found.touched, found.unsound) << found.text;
  EXPECT_EQ(found.touched, found.different) << found.text;
  EXPECT_GT(found.unsound, 0u);
}

}  // namespace
}  // namespace cowire::test
