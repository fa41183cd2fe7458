// SPDX-License-Identifier: Apache-2.0
/// A real routing daemon in the loop: BIRD learns prefixes over a BGP session from another BIRD and
/// installs them in table 100, behind a rule; the session flaps under traffic. Without the learned
/// routes the main table has a way over the other link, so the kernel always has one, and not a
/// single datagram may be missing.
///
/// COWIRE_BGP_PREFIXES (up to 131 072) and COWIRE_BGP_FLAPS choose the size; 20 000 and 3 by
/// default, 100 000 and 10 for the whole thing (about two minutes).
#include <tests/async/numbered_stream.hpp>
#include <tests/support/two_hosts.hpp>

#include <cowire/netlink/request_socket.hpp>

#include <sys/prctl.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace cowire::test {
namespace {

unsigned from_environment(const char* name, unsigned otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : otherwise;
}

/// Holds all that is learned.
const std::string everything_learned = "20.0.0.0/7";
/// The n-th prefix that is learned: 20.0.0.0/24, 20.0.1.0/24 ...
ip_prefix learned(unsigned n) { return {ip_address::v4(0x14000000 + (n << 8)), 24}; }

/// BIRD in a namespace; it ends with this object, or with the test's process.
class bird {
 public:
  bird(const netns& in, const std::filesystem::path& folder, const std::string& name,
       const std::string& configuration)
      : in_(in), control_(folder / (name + ".ctl")) {
    const std::string file = folder / (name + ".conf");
    std::ofstream(file) << "log \"" << (folder / (name + ".log")).string() << "\" all;\n"
                        << "protocol device {}\n"
                        << configuration;
    const std::vector<std::string> words = {"ip", "netns", "exec", in.name(), "bird",
                                            "-f", "-c",    file,   "-s",      control_};
    std::vector<char*> arguments;
    for (const auto& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    process_ = ::fork();
    if (process_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::execvp("ip", arguments.data());
    ::_exit(127);
  }
  ~bird() {
    ::kill(process_, SIGTERM);
    ::waitpid(process_, nullptr, 0);
  }
  bird(const bird&) = delete;
  bird& operator=(const bird&) = delete;

  void command(const std::string& words) const { in_("birdc -s " + control_ + " " + words); }

 private:
  const netns& in_;
  std::string control_;
  pid_t process_ = -1;
};

class bgp_flaps : public two_hosts {
 protected:
  void SetUp() override {
    if (std::system("command -v bird >/dev/null && command -v birdc >/dev/null") != 0)
      GTEST_SKIP() << "needs BIRD (Debian: bird2)";
    two_hosts::SetUp();
    if (IsSkipped()) return;
    ::alarm(600);
    connect(*a, "a1", *b, "b1", 2);
    (*b)("ip route add local " + everything_learned + " dev lo");
    (*b)(
        "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.b0.rp_filter=0 "
        "net.ipv4.conf.b1.rp_filter=0");
    (*a)("ip route add " + everything_learned + " via 10.77.1.2");
    (*a)("ip rule add to " + everything_learned + " lookup 100");
    resolve("10.77.1.2");
    resolve("10.77.2.2");
    folder = std::filesystem::temp_directory_path() / ("cowire-bgp-" + std::to_string(::getpid()));
    std::filesystem::create_directory(folder);
  }
  void TearDown() override {
    if (!folder.empty()) std::filesystem::remove_all(folder);
    two_hosts::TearDown();
  }
  static std::string session(unsigned own, unsigned other, const std::string& channel) {
    const auto end = [](unsigned host) {
      return "10.77.2." + std::to_string(host) + " as " + std::to_string(65000 + host) + ";\n";
    };
    return "router id 10.77.2." + std::to_string(own) + ";\nipv4 table feed;\n" +
           "protocol bgp peer {\n  local " + end(own) + "  neighbor " + end(other) +
           "  connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n"
           "  ipv4 { table feed; " +
           channel + " };\n}\n";
  }
  /// Learns, and tells the kernel.
  static std::string learner() {
    return session(1, 2, "import all; export none;") +
           "protocol kernel {\n  kernel table 100;\n"
           "  ipv4 { table feed; import none; export all; };\n}\n";
  }
  static std::string origin(unsigned prefixes) {
    std::string out = session(2, 1, "import none; export all; next hop self;") +
                      "protocol static {\n  ipv4 { table feed; };\n";
    for (unsigned i = 0; i < prefixes; ++i)
      out += "  route " + learned(i).to_string() + " unreachable;\n";
    return out + "}\n";
  }
  static std::size_t kernel_routes(std::uint32_t table) {
    netlink::request_socket socket;
    return socket.dump(netlink::object_kind::route, {{}, table, 0}).size();
  }
  /// Dumps now and then, so as to leave the CPU to those that are waited for.
  static bool table_grows_or_shrinks_to(std::size_t count) {
    return eventually([&] {
      std::this_thread::sleep_for(100ms);
      return kernel_routes(100) == count;
    });
  }
  /// As many routes as the kernel, and a re-dump that finds no difference.
  static bool equals_kernel(const transmitter& tx) {
    const auto checks = tx.stats().routes.redump_checks;
    const auto expected = kernel_routes(0);
    return eventually([&] { return tx.stats().routes.routes == expected; }) &&
           eventually([&] { return tx.stats().routes.redump_checks >= checks + 1; }) &&
           tx.stats().routes.redump_differences == 0;
  }

  std::filesystem::path folder;
};

TEST_F(bgp_flaps, lose_nothing_and_leave_the_tables_equal) {
  const unsigned prefixes = from_environment("COWIRE_BGP_PREFIXES", 20'000);
  const unsigned flaps = from_environment("COWIRE_BGP_FLAPS", 3);
  const bird far(*b, folder, "origin", origin(prefixes));
  const bird near(*a, folder, "learner", learner());
  ASSERT_TRUE(table_grows_or_shrinks_to(prefixes)) << kernel_routes(100) << " routes were learned";

  numbered_sink sink(*b, to("0.0.0.0:9000"));
  auto config = small();
  config.update_interval = 1000ms;
  config.log = [](log_severity severity, std::string_view text) {
    if (severity >= log_severity::warning)
      std::printf("%.*s\n", static_cast<int>(text.size()), text.data());
  };
  transmitter tx(config);
  std::vector<endpoint> destinations;
  for (unsigned i = 0; i < 64; ++i) {
    auto bytes = learned(i * (prefixes / 64)).address().bytes();
    bytes[3] = 7;
    destinations.push_back({ip_address::from_bytes(ip_family::v4, bytes.data()), 9000});
  }
  numbered_stream stream(tx, destinations, 200us);
  ASSERT_TRUE(eventually([&] { return tx.stats().transmitted["a1"] > 100; }));

  for (unsigned flap = 0; flap < flaps; ++flap) {
    near.command("disable peer");
    ASSERT_TRUE(table_grows_or_shrinks_to(0)) << flap;
    const auto without = tx.stats().transmitted["a0"];
    EXPECT_TRUE(equals_kernel(tx)) << flap << ": " << tx.stats().routes.redump_differences;
    EXPECT_TRUE(eventually([&] { return tx.stats().transmitted["a0"] > without + 100; })) << flap;
    near.command("enable peer");
    ASSERT_TRUE(table_grows_or_shrinks_to(prefixes)) << flap;
    const auto with = tx.stats().transmitted["a1"];
    EXPECT_TRUE(equals_kernel(tx)) << flap << ": " << tx.stats().routes.redump_differences;
    EXPECT_TRUE(eventually([&] { return tx.stats().transmitted["a1"] > with + 100; })) << flap;
  }
  stream.stop();
  EXPECT_TRUE(drained(tx));
  sink.stop();
  const auto stats = tx.stats();
  std::printf(
      "%u prefixes, %u flaps: %llu sent, %llu over the kernel path, %llu re-syncs, "
      "worst delay %.1f ms\n",
      prefixes, flaps, static_cast<unsigned long long>(stats.submitted),
      static_cast<unsigned long long>(stats.kernel_path),
      static_cast<unsigned long long>(stats.routes.resyncs),
      static_cast<double>(stats.routes.worst_delay_ns) / 1e6);
  EXPECT_EQ("", sink.missing(stream.sent())) << summary(stats);
  EXPECT_EQ(0u, sink.duplicates());
  EXPECT_EQ(0u, stats.refused_total() + stats.lost_in_device) << summary(stats);
  EXPECT_EQ(0u, stats.routes.truth.mismatched) << stats.routes.truth.last_mismatch;
}

}  // namespace
}  // namespace cowire::test
