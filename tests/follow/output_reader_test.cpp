// SPDX-License-Identifier: Apache-2.0
// What is set up in a namespace on the output path, as it is read and judged.
#include <cowire/follow/detail/output_reader.hpp>
#include <cowire/follow/detail/unlisted_hooks.hpp>

#include <tests/follow/followed_output.hpp>
#include <tests/support/netns.hpp>

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "testbed/bpf_programs.hpp"

/// Called in the middle of each reading of everything, between rules and devices.
static std::function<void()> while_reading;

/// Instead of the C library's, which readings of devices ask for a list of them.
extern "C" struct if_nameindex* if_nameindex() noexcept {
  if (while_reading) while_reading();
  const auto real =
      reinterpret_cast<struct if_nameindex* (*)()>(::dlsym(RTLD_NEXT, "if_nameindex"));
  return real();
}

namespace cowire::test {
namespace {

#define NFT_OR_SKIP() \
  NETNS_OR_SKIP();    \
  if (std::system("nft --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs nft"

/// A host with one device towards another, without any rule.
class output_path : public ::testing::Test {
 protected:
  void set_up() {
    host_.emplace();
    peer_.emplace();
    connect(*host_, "eth0", *peer_, "eth0", 1);
    const netns::scope inside(*host_);
    device_ = ::if_nametoindex("eth0");
  }
  /// Whether the host's kernel and tc know it.
  bool tries(const std::string& command) const {
    return std::system(
               ("ip netns exec " + host_->name() + " " + command + " 2>/dev/null").c_str()) == 0;
  }
  [[nodiscard]] output_snapshot read() const {
    const netns::scope inside(*host_);
    return detail::output_reader().read();
  }
  [[nodiscard]] output_verdict judge(const output_snapshot& state, ip_family family) const {
    output_flow region;
    region.destination = ip_prefix::all(family);
    region.output_interface = device_;
    region.output_name = "eth0";
    region.devices = {device_};
    return judge_output(state, region);
  }
  void expect(ip_family family, std::optional<divert_reason> wanted) const {
    const auto found = judge(read(), family);
    EXPECT_EQ(found.reason, wanted) << (found.reason ? found.obstacle : "untouched");
  }
  /// Untouched, but that the kernel tracks the flow.
  void expect_tracked(ip_family family) const {
    const auto found = judge(read(), family);
    EXPECT_TRUE(found.untouched() && found.tracked) << found.obstacle;
  }
  void expect_both(std::optional<divert_reason> wanted) const {
    expect(ip_family::v4, wanted);
    expect(ip_family::v6, wanted);
  }

  std::optional<netns> host_, peer_;
  std::uint32_t device_ = 0;
};

TEST_F(output_path, of_an_ordinary_namespace_is_empty) {
  NETNS_OR_SKIP();
  set_up();
  const auto state = read();
  EXPECT_TRUE(is_empty(state));
  EXPECT_TRUE(state.devices.contains(device_));
  EXPECT_FALSE(state.cgroup.unreadable_because) << *state.cgroup.unreadable_because;
  EXPECT_FALSE(state.ipsec.unreadable_because) << *state.ipsec.unreadable_because;
  expect_both(std::nullopt);
}

/// On a thread of its own that sees other mounts.
void apart(const std::function<void()>& look) {
  std::thread hidden([&] {
    ASSERT_EQ(0, ::unshare(CLONE_FS | CLONE_NEWNS));
    ASSERT_EQ(0, ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
    look();
  });
  hidden.join();
}

/// As `ip netns exec` runs a program: with another /sys, below which no control groups are seen.
TEST_F(output_path, is_read_where_control_groups_are_not_mounted) {
  NETNS_OR_SKIP();
  set_up();
  apart([&] {
    ASSERT_EQ(0, ::mount("none", "/sys", "tmpfs", 0, nullptr));
    const auto state = read();
    EXPECT_TRUE(is_empty(state));
    EXPECT_FALSE(state.cgroup.unreadable_because) << *state.cgroup.unreadable_because;
  });
}

/// Whether it names the file, and that alone diverts.
void expect_unreadable(const cgroup_state& state, const std::string& why) {
  ASSERT_TRUE(state.unreadable_because);
  EXPECT_NE(state.unreadable_because->find(why), std::string::npos) << *state.unreadable_because;
  output_snapshot only;
  only.cgroup = state;
  EXPECT_FALSE(is_empty(only));
  for (const ip_family family : ip_families) {
    output_flow region;
    region.destination = ip_prefix::all(family);
    EXPECT_EQ(judge_output(only, region).reason, divert_reason::cgroup_program);
  }
}

TEST_F(output_path, is_unreadable_where_proc_is_not_mounted) {
  NETNS_OR_SKIP();
  set_up();
  apart([&] {
    const netns::scope inside(*host_);
    ASSERT_EQ(0, ::mount("none", "/proc", "tmpfs", 0, nullptr));
    const auto state = detail::output_reader().read();
    expect_unreadable(state.cgroup, "/proc/thread-self/cgroup: ");
    ASSERT_TRUE(state.netfilter.legacy_unreadable);
    output_snapshot only;
    only.netfilter.legacy_unreadable = state.netfilter.legacy_unreadable;
    EXPECT_FALSE(is_empty(only));
    EXPECT_EQ(judge(only, ip_family::v4).reason, divert_reason::netfilter);
  });
}

/// As containers hide what nobody is to read: the file is there, and empty.
TEST_F(output_path, is_unreadable_where_files_of_proc_are_masked) {
  NETNS_OR_SKIP();
  set_up();
  apart([&] {
    ASSERT_EQ(0, ::mount("/dev/null", "/proc/thread-self/cgroup", nullptr, MS_BIND, nullptr));
    expect_unreadable(read().cgroup, "/proc/thread-self/cgroup: ");
  });
}

/// A kernel that knows no bpf() says the same.
TEST_F(output_path, programs_that_a_filter_of_system_calls_hides_count_as_unreadable) {
  NETNS_OR_SKIP();
  set_up();
  apart([&] {
    sock_filter refuse_bpf[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{std::size(refuse_bpf), refuse_bpf};
    ASSERT_EQ(0, ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
      GTEST_SKIP() << "the kernel has no seccomp";
    if (::access("/proc/sys/kernel/unprivileged_bpf_disabled", F_OK) != 0)
      GTEST_SKIP() << "the kernel has no bpf()";
    const auto state = read();
    expect_unreadable(state.cgroup, errno_code(ENOSYS).message());
    EXPECT_TRUE(state.devices.at(device_).unreadable_because);
  });
}

TEST_F(output_path, a_rule_that_drops_is_named) {
  NFT_OR_SKIP();
  set_up();
  (*host_)("nft add table ip guard");
  (*host_)("nft 'add chain ip guard out { type filter hook output priority 0; }'");
  expect_both(std::nullopt);
  (*host_)("nft add rule ip guard out udp dport 9000 drop");
  const auto found = judge(read(), ip_family::v4);
  EXPECT_EQ(found.reason, divert_reason::netfilter);
  EXPECT_EQ(found.table, "ip guard");
  EXPECT_EQ(found.chain, "out");
  EXPECT_NE(found.rule, 0u);
  EXPECT_EQ(found.obstacle,
            "table ip guard, chain out, rule " + std::to_string(found.rule) + ": drop");
  EXPECT_FALSE(found.certain);
  expect(ip_family::v6, std::nullopt);
}

TEST_F(output_path, hooks_that_are_not_listed_are_obstacles_by_what_shows_of_them) {
  output_snapshot state;
  EXPECT_TRUE(is_empty(state));
  state.netfilter.unlisted_hooks = {{ip_family::v6, "of a BPF program (link 7)"}};
  EXPECT_FALSE(is_empty(state));
  EXPECT_TRUE(judge(state, ip_family::v4).untouched());
  EXPECT_EQ(judge(state, ip_family::v6).reason, divert_reason::netfilter);
  EXPECT_EQ(judge(state, ip_family::v6).obstacle, "a netfilter hook of a BPF program (link 7)");
}

/// struct bpf_attr of linux/bpf.h since 6.4, for BPF_LINK_CREATE.
struct netfilter_link_request {
  std::uint32_t program = 0, target = 0, attach_type = 45, flags = 0;
  std::uint32_t family = 0, hook = 0;
  std::int32_t priority = 0;
  std::uint32_t netfilter_flags = 0;
};

/// At a hook that nothing passes on its way out: such a link diverts everybody's datagrams.
TEST_F(output_path, bpf_programs_at_hooks_are_found_and_only_those_on_the_way_out_count) {
  NETNS_OR_SKIP();
  set_up();
  const bpf_insn accept[] = {{BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 1},
                             {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  bpf_attr load{};
  load.prog_type = 32;                                               // BPF_PROG_TYPE_NETFILTER
  load.expected_attach_type = netfilter_link_request().attach_type;  // BPF_NETFILTER
  load.insn_cnt = std::size(accept);
  load.insns = reinterpret_cast<std::uintptr_t>(accept);
  load.license = reinterpret_cast<std::uintptr_t>("GPL");
  const unique_fd program(static_cast<int>(::syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load)));
  if (!program) GTEST_SKIP() << "the kernel has no BPF programs of netfilter: " << errno;
  const netns::scope inside(*host_);
  netfilter_link_request make;
  make.program = static_cast<std::uint32_t>(program.get());
  make.family = AF_INET6;
  make.hook = 1;  // NF_INET_LOCAL_IN
  make.priority = 7;
  const unique_fd link(static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &make, sizeof make)));
  ASSERT_TRUE(link) << errno;
  EXPECT_TRUE(std::ranges::any_of(detail::netfilter_links(), [&](const auto& one) {
    return one.id != 0 && one.family == make.family && one.hook == make.hook;
  }));
  EXPECT_TRUE(is_empty(read()));
}

TEST_F(output_path, translation_and_tracking_are_told_apart) {
  NFT_OR_SKIP();
  set_up();
  (*host_)("nft add table ip n");
  (*host_)("nft 'add chain ip n in { type filter hook input priority 0; }'");
  (*host_)("nft add rule ip n in ct state established accept");
  expect_tracked(ip_family::v4);
  expect(ip_family::v6, std::nullopt);
  EXPECT_FALSE(judge(read(), ip_family::v6).tracked);
  (*host_)("nft 'add chain ip n post { type nat hook postrouting priority 100; }'");
  (*host_)("nft add rule ip n post oifname other masquerade");
  expect_tracked(ip_family::v4);
  (*host_)("nft add rule ip n post oifname eth0 masquerade");
  expect(ip_family::v4, divert_reason::nat);
}

TEST_F(output_path, a_rule_at_a_devices_egress_hook_is_an_obstacle) {
  NFT_OR_SKIP();
  set_up();
  (*host_)("nft add table netdev d");
  if (std::system(("ip netns exec " + host_->name() +
                   " nft 'add chain netdev d e { type filter hook egress device eth0 priority 0; }'"
                   " 2>/dev/null")
                      .c_str()) != 0)
    GTEST_SKIP() << "the kernel or nft has no egress hook";
  expect_both(std::nullopt);
  (*host_)("nft add rule netdev d e udp dport 9000 drop");
  expect_both(divert_reason::netfilter);
}

TEST_F(output_path, policies_and_a_blocking_default_of_ipsec_are_obstacles) {
  NETNS_OR_SKIP();
  set_up();
  (*host_)("ip xfrm policy add src 10.77.0.0/16 dst 10.2.0.0/16 dir out action block");
  expect(ip_family::v4, divert_reason::ipsec);
  expect(ip_family::v6, std::nullopt);
  (*host_)("ip xfrm policy flush");
  expect_both(std::nullopt);
  (*host_)("ip xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir in action block");
  expect_both(std::nullopt);
  (*host_)("ip xfrm policy setdefault out block");
  expect_both(divert_reason::ipsec);
}

TEST_F(output_path, disciplines_that_shape_and_filters_are_obstacles) {
  NETNS_OR_SKIP();
  set_up();
  std::size_t tried = 0;
  if (tries("tc qdisc replace dev eth0 root tbf rate 1mbit burst 10kb latency 10ms") && ++tried)
    expect_both(divert_reason::queueing_discipline);
  if (tries("tc qdisc replace dev eth0 root netem delay 10ms") && ++tried)
    expect_both(divert_reason::queueing_discipline);
  if (tries("tc qdisc replace dev eth0 root fq maxrate 1mbit") && ++tried)
    expect_both(divert_reason::queueing_discipline);
  if (tries("tc qdisc replace dev eth0 root fq_codel") && ++tried) expect_both(std::nullopt);
  if (tries("tc qdisc replace dev eth0 root handle 1: prio") && ++tried) {
    expect_both(std::nullopt);
    if (tries("tc filter add dev eth0 parent 1: matchall action drop"))
      expect_both(divert_reason::tc_egress);
  }
  if (tries("tc qdisc del dev eth0 root")) expect_both(std::nullopt);
  if (tries("tc qdisc add dev eth0 clsact") && ++tried) {
    expect_both(std::nullopt);
    if (tries("tc filter add dev eth0 ingress matchall action drop")) expect_both(std::nullopt);
    if (tries("tc filter add dev eth0 egress matchall action drop"))
      expect_both(divert_reason::tc_egress);
  }
  if (tried == 0) GTEST_SKIP() << "the kernel has no traffic control";
}

TEST_F(output_path, disciplines_that_drop_while_idle_are_obstacles) {
  NETNS_OR_SKIP();
  set_up();
  if (!tries("tc qdisc replace dev eth0 root pfifo")) GTEST_SKIP() << "no traffic control";
  expect_both(std::nullopt);
  // Others' limit of 0 tc takes for none given, and the kernel has its own.
  const char* const dropping[] = {"pfifo limit 0",   "bfifo limit 500",         "fq limit 0",
                                  "fq flow_limit 0", "fq_codel memory_limit 0", "drr"};
  for (const char* root : dropping) {
    SCOPED_TRACE(root);
    if (tries(std::string("tc qdisc replace dev eth0 root ") + root))
      expect_both(divert_reason::queueing_discipline);
    tries("tc qdisc del dev eth0 root");
  }
  for (const char* root : {"pfifo limit 1", "bfifo", "fq", "codel", "fq_codel", "pie", "fq_pie"}) {
    SCOPED_TRACE(root);
    if (tries(std::string("tc qdisc replace dev eth0 root ") + root)) expect_both(std::nullopt);
    tries("tc qdisc del dev eth0 root");
  }
}

/// Nothing is told of a queue whose discipline was removed.
TEST_F(output_path, a_queue_without_discipline_is_an_obstacle) {
  NETNS_OR_SKIP();
  set_up();
  (*host_)("ip link add many numtxqueues 4 type veth peer name peer");
  (*host_)("ip link set many up");
  (*host_)("ip link set peer up");
  {
    const netns::scope inside(*host_);
    device_ = ::if_nametoindex("many");
  }
  const std::string tc = "ip netns exec " + host_->name() + " tc qdisc ";
  if (std::system((tc + "replace dev many root handle 1: mq 2>/dev/null").c_str()) != 0)
    GTEST_SKIP() << "the kernel has no traffic control";
  expect_both(std::nullopt);
  (*host_)("tc qdisc replace dev many parent 1:2 handle 2: pfifo");
  expect_both(std::nullopt);
  (*host_)("tc qdisc del dev many parent 1:2");
  expect_both(divert_reason::queueing_discipline);
}

/// The programs that a process sees which is in `folder`, or -1.
int egress_programs_in(const std::string& folder) {
  const pid_t child = ::fork();
  if (child == 0) {
    const unique_fd members(::open((folder + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
    if (::write(members.get(), "0", 1) != 1) ::_exit(100);
    const auto state = detail::output_reader().read();
    ::_exit(state.cgroup.unreadable_because ? 101 : static_cast<int>(state.cgroup.egress.size()));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) < 100 ? WEXITSTATUS(status) : -1;
}

TEST_F(output_path, programs_of_the_own_control_group_and_of_those_above_count) {
  NETNS_OR_SKIP();
  const std::string mount = run("findmnt -n -o TARGET -t cgroup2 | head -n1 | tr -d '\\n'");
  if (mount.empty()) GTEST_SKIP() << "no cgroup2 hierarchy is mounted";
  const std::string outer = mount + "/cowire-test-" + std::to_string(::getpid());
  const std::string inner = outer + "/inner";
  if (::mkdir(outer.c_str(), 0755) != 0) GTEST_SKIP() << "no control group can be made";
  EXPECT_EQ(0, ::mkdir(inner.c_str(), 0755));
  const auto before = egress_programs_in(inner);
  EXPECT_GE(before, 0);
  const unique_fd program = load_egress_program(true);
  const unique_fd folder(::open(outer.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  bpf_attr attach{};
  attach.target_fd = static_cast<std::uint32_t>(folder.get());
  attach.attach_bpf_fd = static_cast<std::uint32_t>(program.get());
  attach.attach_type = BPF_CGROUP_INET_EGRESS;
  const bool attached = program && ::syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) == 0;
  const auto after = attached ? egress_programs_in(inner) : before;
  EXPECT_EQ(0, ::rmdir(inner.c_str()));
  EXPECT_EQ(0, ::rmdir(outer.c_str()));
  if (!attached) GTEST_SKIP() << "the kernel has no programs of control groups";
  EXPECT_EQ(before + 1, after);
}

TEST_F(output_path, another_devices_discipline_is_none_of_ours) {
  NETNS_OR_SKIP();
  set_up();
  connect(*host_, "eth1", *peer_, "eth1", 2);
  if (std::system(("ip netns exec " + host_->name() +
                   " tc qdisc replace dev eth1 root tbf rate 1mbit burst 10kb latency 10ms"
                   " 2>/dev/null")
                      .c_str()) != 0)
    GTEST_SKIP() << "the kernel has no tbf";
  expect_both(std::nullopt);
}

TEST_F(output_path, layers_that_are_ignored_are_not_read) {
  NFT_OR_SKIP();
  set_up();
  (*host_)("nft add table ip t");
  (*host_)("nft 'add chain ip t out { type filter hook output priority 0; policy drop; }'");
  (*host_)("ip xfrm policy setdefault out block");
  const netns::scope inside(*host_);
  const auto state =
      detail::output_reader(
          {.netfilter = false, .ipsec = false, .traffic_control = false, .control_groups = false})
          .read();
  output_snapshot nothing;
  nothing.obeyed = state.obeyed;
  EXPECT_EQ(state, nothing);
  EXPECT_TRUE(is_empty(state));
  // Nor is it judged where it is there.
  for (const output_layer_name& layer : output_layer_names()) {
    auto all = detail::output_reader().read();
    EXPECT_FALSE(is_empty(all));
    all.obeyed.*layer.member = false;
    const auto wanted = layer.name == "ipsec" ? divert_reason::netfilter : divert_reason::ipsec;
    EXPECT_EQ(judge(all, ip_family::v4).reason, wanted) << layer.name;
  }
}

/// Between two rulesets nobody may go by the old one, however long it takes to read the new one.
TEST_F(output_path, a_replaced_ruleset_is_unreadable_until_it_is_read) {
  NFT_OR_SKIP();
  set_up();
  followed_output output(*host_);
  (*host_)("nft add table ip old");
  output.await([](const auto& s) { return s.netfilter.rules->tables.size() == 1; });
  const std::string file = "/tmp/" + host_->name() + ".nft";
  std::ofstream(file) << "flush ruleset\ntable ip t {\n chain out {\n"
                         "type filter hook output priority 0; policy drop;\n}\n}\n";
  (*host_)("nft -f " + file);
  ::unlink(file.c_str());
  std::vector<bool> unreadable;
  output.await([&](const auto& s) {
    const bool closed = s.netfilter.rules_unreadable.has_value();
    if (closed) {
      EXPECT_EQ(judge(s, ip_family::v4).reason, divert_reason::netfilter);
    }
    unreadable.push_back(closed);
    return !closed && s.netfilter.rules->chains.size() == 1;
  });
  ASSERT_GE(unreadable.size(), 2u);
  EXPECT_TRUE(unreadable[unreadable.size() - 2]);
}

/// Devices may take long to read, and then what was read of rules is old.
TEST_F(output_path, what_comes_while_the_rest_is_read_is_in_force_with_it) {
  NFT_OR_SKIP();
  set_up();
  (*host_)("nft add table ip first");
  const struct ended {
    ~ended() { while_reading = nullptr; }
  } when_done;
  const std::string chain = "add chain ip t out { type filter hook output priority 0; }";
  for (const std::string more : {"rule ip t out udp dport 9000 drop", "table ip u"}) {
    SCOPED_TRACE(more);
    std::atomic<bool> added = false;
    while_reading = [&] {
      if (!added) added = tries("sh -c 'nft list table ip t >/dev/null && nft add " + more + "'");
    };
    followed_output output(*host_);
    (*host_)("nft 'add table ip t; " + chain + "'");
    output.await([&](const output_snapshot& s) {
      if (s.netfilter.rules_unreadable || s.netfilter.rules->chains.empty()) return false;
      const auto& rules = *s.netfilter.rules;
      EXPECT_EQ(1u, rules.chains.begin()->second.rules.size() + (rules.tables.size() - 2));
      return true;
    });
    EXPECT_TRUE(added);
    (*host_)("nft 'flush ruleset; add table ip first'");
  }
}

TEST_F(output_path, changes_are_followed_announced_or_not) {
  NFT_OR_SKIP();
  set_up();
  followed_output output(*host_);
  EXPECT_TRUE(is_empty(output.first()));
  (*host_)("nft add table ip t");
  output.await([](const auto& s) { return s.netfilter.rules->tables.size() == 1; });
  (*host_)("ip xfrm policy setdefault out block");
  output.await([](const auto& s) { return s.ipsec.blocks_by_default; });
  // A device that comes announces no discipline.
  const std::size_t devices = output.first().devices.size();
  (*host_)("ip link add v0 type veth peer name v1");
  output.await([&](const auto& s) { return s.devices.size() == devices + 2; });
  (*host_)("nft flush ruleset");
  output.await([](const auto& s) { return s.netfilter.rules->empty(); });
}

}  // namespace
}  // namespace cowire::test
