// SPDX-License-Identifier: Apache-2.0
// QUIC over a port, as examples/quic_server has it: served to Debian's client of ngtcp2 while
// routes change, to a thousand connections at once, and with the marks and probes on the wire that
// the same server has over sendmsg. EXAMPLES_DIR is set by the build.
#include <tests/async/frame_capture.hpp>
#include <tests/support/child.hpp>

#include <csignal>
#include <deque>
#include <fstream>
#include <iterator>
#include <set>

#include "examples/quic_server/dispatcher.hpp"
#include "examples/quic_server/document.hpp"
#include "examples/quic_server/http3.hpp"

namespace cowire::test {
namespace {

#if defined(COWIRE_ADDRESS_SANITIZER) || defined(COWIRE_THREAD_SANITIZER)
constexpr std::size_t large = 10'000'000, connections = 100;
#else
constexpr std::size_t large = 100'000'000, connections = 1000;
#endif
/// Long enough for all probes to be sent and answered meanwhile.
constexpr std::size_t small_document = 3'000'000;
constexpr std::uint16_t server_port = 4433;

/// The example, where the calling thread is.
class server {
 public:
  explicit server(std::size_t bytes, const std::string& how = "")
      : runs_(EXAMPLES_DIR "/quic_server --bytes " + std::to_string(bytes) + " " + how) {
    EXPECT_EQ("listening on port 4433\n", runs_.line());
  }
  /// What it says about itself.
  std::string stop() {
    runs_.signal(SIGTERM);
    const std::string report = runs_.line();
    EXPECT_EQ(0, runs_.wait());
    return report;
  }

 private:
  running_command runs_;
};

/// A serves at addresses of its loopback device, and B asks from such, so that all datagrams of A's
/// go by the routes that A has at that moment.
class quic : public two_links {
 protected:
  void SetUp() override {
    two_links::SetUp();
    if (IsSkipped()) return;
    if (std::system("command -v gtlsclient >/dev/null") != 0)
      GTEST_SKIP() << "needs gtlsclient (Debian's ngtcp2-client)";
    (*a)("ip addr add 10.79.0.1/32 dev lo && ip addr add fd79::1/128 dev lo nodad");
    (*b)("ip addr add fd78::1/128 dev lo nodad");
    (*b)("ip route add 10.79.0.1/32 via 10.77.1.1 src 10.78.0.1");
    (*b)("ip route add fd79::1/128 via fd77:1::1 src fd78::1");
    lead_by(1);
    for (const char* neighbour : {"10.77.1.2", "10.77.2.2", "fd77:1::2", "fd77:2::2"})
      resolve(neighbour);
  }
  /// A's way to B, over IPv4 and IPv6.
  void lead_by(int link, const std::string& more = "") {
    const std::string n = std::to_string(link);
    (*a)("ip route replace 10.78.0.0/16 via 10.77." + n + ".2 " + more);
    (*a)("ip route replace fd78::/64 via fd77:" + n + "::2 " + more);
  }
  /// Has Debian's client fetch the document; whether it is what it should be.
  bool fetch(const std::string& address, std::size_t bytes) {
    const std::string directory = run("mktemp -d");
    const std::filesystem::path into = directory.substr(0, directory.size() - 1);
    (*b)(
        "gtlsclient -q --no-quic-dump --no-http-dump --exit-on-all-streams-close "
        "--handshake-timeout=60s --timeout=60s --download=" +
        into.string() + " " + address + " 4433 https://localhost/document 2>&1");
    std::ifstream file(into / "document", std::ios::binary);
    const std::string got{std::istreambuf_iterator<char>(file), {}};
    std::filesystem::remove_all(into);
    EXPECT_EQ(bytes, got.size());
    return ::quic::is_document(bytes_of(got), 0);
  }
};

/// Of the server's report.
std::uint64_t number_before(const std::string& words, const std::string& report) {
  const auto end = report.find(words);
  if (end == std::string::npos) return 0;
  const auto begin = report.find_last_not_of("0123456789", end - 1) + 1;
  return begin < end ? std::stoull(report.substr(begin, end - begin)) : 0;
}

TEST_F(quic, serves_while_routes_change) {
  server serving(large);
  for (const char* address : {"10.79.0.1", "fd79::1"}) {
    const std::jthread moving([&](const std::stop_token& done) {
      const netns::scope here(*a);
      for (int turn = 0; !done.stop_requested(); ++turn) {
        lead_by(1 + turn % 2);
        std::this_thread::sleep_for(50ms);
      }
    });
    EXPECT_TRUE(fetch(address, large)) << address;
  }
  for (const char* device : {"a0", "a1"})
    EXPECT_GT(
        std::stoull((*a)("cat /sys/class/net/" + std::string(device) + "/statistics/tx_bytes")),
        large / 10)
        << device;
  const std::string report = serving.stop();
  EXPECT_EQ(2u, number_before(" connections", report)) << report;
  EXPECT_EQ(0u, number_before(" failed", report)) << report;
  EXPECT_GT(number_before(" datagrams past the kernel", report),
            number_before(" through it", report))
      << report;
}

/// What the server's datagrams of one connection look like on the wire.
struct wire_facts {
  /// Of those with an ECN mark: the mark, and whether it is of the handshake (a long header).
  std::set<std::pair<int, bool>> marked;
  /// Of UDP payloads, each longer than all before, from the least that a path takes on.
  std::vector<std::size_t> longest;
  int last_ecn = -1;
  std::size_t fragments = 0, without_df = 0;
  /// Not compared: until the other end has confirmed marks there are none, however long that takes.
  std::size_t unmarked = 0, datagrams = 0;
  friend bool operator==(const wire_facts& a, const wire_facts& b) {
    return a.marked == b.marked && a.longest == b.longest && a.last_ecn == b.last_ecn &&
           a.fragments == b.fragments && a.without_df == b.without_df;
  }
};

std::ostream& operator<<(std::ostream& out, const wire_facts& facts) {
  for (const auto& [ecn, handshake] : facts.marked)
    out << (handshake ? "long" : "short") << " ECN " << ecn << ", ";
  out << "longest";
  for (const std::size_t size : facts.longest) out << " " << size;
  return out << ", last ECN " << facts.last_ecn << ", fragments " << facts.fragments
             << ", without DF " << facts.without_df << ", unmarked " << facts.unmarked << " of "
             << facts.datagrams;
}

/// Adds what one frame tells, where it is of the server's.
void note(wire_facts& into, const std::string& frame) {
  const auto byte = [&](std::size_t at) {
    return at < frame.size() ? static_cast<unsigned char>(frame[at]) : 0u;
  };
  const auto word = [&](std::size_t at) { return byte(at) << 8 | byte(at + 1); };
  const bool v4 = word(12) == ETH_P_IP;
  if (!v4 && word(12) != ETH_P_IPV6) return;
  const unsigned protocol = byte(v4 ? 23 : 20);
  if (v4 ? protocol == IPPROTO_UDP && (word(20) & 0x3fff) != 0 : protocol == IPPROTO_FRAGMENT)
    ++into.fragments;
  const std::size_t udp = v4 ? 34 : 54;
  if (protocol != IPPROTO_UDP || word(udp) != server_port) return;
  const int ecn = static_cast<int>(byte(15) >> (v4 ? 0 : 4) & 3);
  const std::size_t size = word(udp + 4) - 8;
  ++into.datagrams;
  if (v4 && (byte(20) & 0x40) == 0) ++into.without_df;
  if (ecn == 0)
    ++into.unmarked;
  else
    into.marked.emplace(ecn, (byte(udp + 8) & 0x80) != 0);
  if (size > (into.longest.empty() ? 1199 : into.longest.back())) into.longest.push_back(size);
  into.last_ecn = ecn;
}

class marks_and_probes : public quic {
 protected:
  wire_facts facts_of(const std::string& how, const std::string& address) {
    wire_facts facts;
    server serving(small_document, how);
    capture wire(*b, "b0");
    EXPECT_TRUE(fetch(address, small_document));
    for (std::string frame = wire.any(0ms); !frame.empty(); frame = wire.any(0ms))
      note(facts, frame);
    return facts;
  }
  /// Of both servers, over both families, which is returned for sending through the kernel.
  std::array<wire_facts, 2> compare() {
    std::array<wire_facts, 2> kernel;
    for (const int v6 : {0, 1}) {
      const std::string address = v6 ? "fd79::1" : "10.79.0.1";
      auto& expected = kernel[static_cast<std::size_t>(v6)] = facts_of("--sendmsg", address);
      const wire_facts ours = facts_of("", address);
      EXPECT_EQ(expected, ours) << address;
      EXPECT_EQ(0u, expected.fragments + expected.without_df);
      EXPECT_EQ(2, expected.last_ecn) << "the other end has confirmed the marks";
      for (const auto& each : {expected, ours})
        EXPECT_LT(each.unmarked, each.datagrams / 2) << address << ": " << each;
    }
    return kernel;
  }
};

constexpr std::size_t first_probe = 1454 - 48, second_probe = 1492 - 48;

TEST_F(marks_and_probes, are_those_of_sendmsg) {
  for (const auto& facts : compare())
    EXPECT_EQ((std::vector<std::size_t>{1200, first_probe, second_probe}), facts.longest);
}
/// Probes are longer than what the kernel knows of the path.
TEST_F(marks_and_probes, are_those_of_sendmsg_beyond_the_path_mtu) {
  lead_by(1, "mtu 1400");
  for (const auto& facts : compare())
    EXPECT_EQ((std::vector<std::size_t>{1200, first_probe, second_probe}), facts.longest);
}
/// The second probe is longer than the device takes.
TEST_F(marks_and_probes, are_those_of_sendmsg_beyond_the_devices_mtu) {
  (*a)("ip link set a0 mtu 1470");
  for (const auto& facts : compare())
    EXPECT_EQ((std::vector<std::size_t>{1200, first_probe}), facts.longest);
}

/// Connections that fetch the document and look at it. They ask when the last one is established,
/// so that all are there at once.
class crowd {
 public:
  crowd(::quic::dispatcher& by, const endpoint& own, const endpoint& server) : by_(by) {
    for (std::size_t i = 0; i < connections; ++i)
      by.connect(members_.emplace_back(*this), own, server);
  }
  /// How many got all of it.
  [[nodiscard]] std::size_t served(std::size_t bytes) const {
    const auto has_all = [&](const member& m) { return m.right && m.got == bytes; };
    return static_cast<std::size_t>(std::ranges::count_if(members_, has_all));
  }

 private:
  struct member final : ::quic::protocol {
    explicit member(crowd& c) : of(c) {}
    void established(::quic::connection& on) override {
      ::quic::send_settings(on);
      connection = &on;
      of.one_more();
    }
    /// GET https://x/: entries 17, 23 and 1 of QPACK's static table, and 0 with a value.
    void ask() {
      const std::string request("\x01\x08\0\0\xd1\xd7\xc1\x50\x01x", 10);
      const auto bytes = bytes_of(request);
      asked = connection->open(true);
      connection->send(asked, {bytes.begin(), bytes.end()}, 0, true);
    }
    void received(::quic::connection& on, std::int64_t stream, std::span<const std::byte> bytes,
                  bool last) override {
      if (stream != asked) return;
      while (head.size() < head_size() && !bytes.empty()) {
        head.push_back(bytes.front());
        bytes = bytes.subspan(1);
      }
      right = right && ::quic::is_document(bytes, got);
      got += bytes.size();
      if (last) on.close();
    }
    /// HEADERS of five bytes, and the type and length of DATA, as far as it is known.
    [[nodiscard]] std::size_t head_size() const {
      return head.size() < 7 ? 7 : 6 + (std::size_t{1} << (std::to_integer<int>(head[6]) >> 6));
    }
    crowd& of;
    ::quic::connection* connection = nullptr;
    std::int64_t asked = -1;
    std::vector<std::byte> head;
    std::uint64_t got = 0;
    bool right = true;
  };

  void one_more() {
    if (++established_ < connections) return;
    for (member& each : members_) {
      each.ask();
      by_.wake(*each.connection);
    }
  }
  ::quic::dispatcher& by_;
  std::deque<member> members_;
  std::size_t established_ = 0;
};

TEST_F(quic, serves_a_thousand_connections_at_once) {
  constexpr std::size_t bytes = 50'000;
  server serving(bytes);
  {
    const netns::scope there(*b);
    ::quic::socket_transport transport(0);
    const ::quic::tls_credentials tls(::quic::tls_credentials::role::client);
    ::quic::dispatcher clients(transport, tls);
    const crowd all(clients, {*ip_address::parse("10.78.0.1"), transport.number()},
                    to("10.79.0.1:4433"));
    transport.run(clients.run());
    EXPECT_EQ(0u, clients.failed());
    EXPECT_EQ(connections, all.served(bytes));
  }
  const std::string report = serving.stop();
  EXPECT_EQ(connections, number_before(" connections", report)) << report;
  EXPECT_EQ(connections, number_before(" answers", report)) << report;
  EXPECT_EQ(0u, number_before(" failed", report)) << report;
}

}  // namespace
}  // namespace cowire::test
