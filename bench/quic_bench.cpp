// SPDX-License-Identifier: Apache-2.0
/// CPU time of a QUIC server (examples/quic_server) for each kilobyte of a document that Debian's
/// client of ngtcp2 fetches over a veth pair: sent by cowire, and with sendmsg. All threads of the
/// process count, TX core and control thread included; the client does not, nor what the kernel
/// does for it. Each server has a pair of namespaces of its own, and they serve in turn.
///
/// bench_quic [--bytes N] [--rounds N] [--json] [--benchmark_format=json]
///
/// Needs root, and gtlsclient (ngtcp2-client). SERVER is set by the build.
#include <time.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/results.hpp"
#include "testbed/netns.hpp"

namespace cowire::bench {
namespace {

struct spent {
  double seconds = 0, user = 0;  ///< Of them, outside of the kernel: as far as ticks tell.
  std::map<std::string, double> by_thread;
};

/// One way of sending: a server that runs, and who asks it.
class contestant {
 public:
  contestant(const std::string& name, const std::string& how, std::size_t bytes) : name_(name) {
    test::connect(a_, "a0", b_, "b0", 1);
    a_("ethtool -K a0 tx on >/dev/null");  // As NICs have it: only cowire computes checksums.
    const test::netns::scope here(a_);
    const std::string command =
        "echo $$; exec " SERVER " --bytes " + std::to_string(bytes) + " " + how + " 2>&1";
    pipe_ = ::popen(command.c_str(), "r");
    char line[256] = {};
    if (pipe_ == nullptr || std::fgets(line, sizeof line, pipe_) == nullptr)
      throw std::runtime_error("no server");
    process_ = std::atoi(line);
    if (std::fgets(line, sizeof line, pipe_) == nullptr || std::string(line).find("listening"))
      throw std::runtime_error(std::string("the server says: ") + line);
  }
  contestant(const contestant&) = delete;
  contestant& operator=(const contestant&) = delete;
  ~contestant() {
    ::kill(process_, SIGTERM);
    char line[256] = {};
    if (std::fgets(line, sizeof line, pipe_) != nullptr)
      std::fprintf(stderr, "%s: %s", name_.c_str(), line);
    ::pclose(pipe_);
  }

  [[nodiscard]] const std::string& name() const { return name_; }
  /// CPU time of the server for one fetch.
  spent fetch() {
    const spent before = so_far();
    b_("gtlsclient -q --no-quic-dump --no-http-dump --exit-on-all-streams-close 10.77.1.1 4433 "
       "https://localhost/ 2>&1");
    spent now = so_far();
    now.seconds -= before.seconds;
    now.user -= before.user;
    for (const auto& [thread, seconds] : before.by_thread) now.by_thread[thread] -= seconds;
    return now;
  }

 private:
  [[nodiscard]] spent so_far() const {
    spent out;
    clockid_t clock{};
    timespec time{};
    if (::clock_getcpuclockid(process_, &clock) != 0 || ::clock_gettime(clock, &time) != 0)
      throw std::runtime_error("the server is gone");
    out.seconds = static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
    const std::filesystem::path process = "/proc/" + std::to_string(process_);
    std::ifstream stat(process / "stat");
    std::string word;
    for (int i = 0; i < 14; ++i) stat >> word;  // utime (proc(5)); our name has no space.
    out.user = std::stod(word) / static_cast<double>(::sysconf(_SC_CLK_TCK));
    for (const auto& task : std::filesystem::directory_iterator(process / "task")) {
      std::string name;
      double nanoseconds = 0;
      std::getline(std::ifstream(task.path() / "comm"), name);
      std::ifstream(task.path() / "schedstat") >> nanoseconds;
      out.by_thread[name] += 1e-9 * nanoseconds;
    }
    return out;
  }

  std::string name_;
  test::netns a_, b_;
  FILE* pipe_ = nullptr;
  int process_ = 0;
};

int run(int argc, char** argv) {
  std::size_t bytes = 100'000'000, rounds = 7;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--json" || argument == "--benchmark_format=json") json = true;
    if (argument == "--bytes" && i + 1 < argc) bytes = std::strtoul(argv[++i], nullptr, 10);
    if (argument == "--rounds" && i + 1 < argc) rounds = std::strtoul(argv[++i], nullptr, 10);
  }
  if (const std::string why = test::netns_unavailable(); !why.empty())
    return std::fprintf(stderr, "bench_quic %s\n", why.c_str()), 1;
  contestant ours("cowire", "", bytes), theirs("sendmsg", "--sendmsg", bytes);
  const double kilobytes = static_cast<double>(bytes) / 1e3;
  std::map<std::string, std::vector<double>> all, user;
  std::map<std::string, std::map<std::string, std::vector<double>>> threads;
  std::vector<result> results;
  for (std::size_t round = 0; round <= rounds; ++round)
    for (contestant* each : {&ours, &theirs}) {
      const spent cpu = each->fetch();
      if (round == 0) continue;  // Warms up.
      const double ns = 1e9 * cpu.seconds / kilobytes;
      all[each->name()].push_back(ns);
      user[each->name()].push_back(1e9 * cpu.user / kilobytes);
      for (const auto& [thread, seconds] : cpu.by_thread)
        threads[each->name()][thread].push_back(1e9 * seconds / kilobytes);
      results.push_back({"quic_kilobyte/" + each->name(), ns});
    }
  if (json) return print_json(argv[0], results), 0;
  for (const auto& [name, values] : all) {
    std::printf("%-8s %6.0f ns of CPU a kilobyte (least %.0f), %.0f outside of the kernel;",
                name.c_str(), median(values), *std::ranges::min_element(values),
                median(user[name]));
    for (const auto& [thread, of_thread] : threads[name])
      std::printf(" %s %.0f", thread.c_str(), median(of_thread));
    std::printf("\n");
  }
  std::printf("cowire : sendmsg = %.2f (of the least: %.2f)\n",
              median(all["cowire"]) / median(all["sendmsg"]),
              *std::ranges::min_element(all["cowire"]) / *std::ranges::min_element(all["sendmsg"]));
  return 0;
}

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) try {
  return cowire::bench::run(argc, argv);
} catch (const std::exception& failed) {
  return std::fprintf(stderr, "bench_quic: %s\n", failed.what()), 1;
}
