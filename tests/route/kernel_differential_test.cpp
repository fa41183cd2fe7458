// SPDX-License-Identifier: Apache-2.0
/// The kernel as oracle: seeded random worlds built with iproute2 in a network namespace of our
/// own, mirrored by dumps and, separately, by the notifications that building them caused; then
/// hundreds of questions, to RTM_GETROUTE and to resolve(). A disagreement prints the commands that
/// make the world.
///
/// COWIRE_WORLDS=N and COWIRE_SEED=N choose how many worlds and which is the first.
#include <cowire/base/error.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/route/resolve.hpp>

#include <gtest/gtest.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <thread>

namespace cowire {
namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

void write_file(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

std::uint32_t running_kernel() {
  utsname name{};
  unsigned major = 0, minor = 0;
  if (::uname(&name) != 0 || std::sscanf(name.release, "%u.%u", &major, &minor) != 2) return 0;
  return major * 1000 + minor;
}

/// A fresh network namespace for this thread; the one before goes when its last socket is closed.
bool enter_fresh_namespace() { return ::unshare(CLONE_NEWNET) == 0; }

class kernel_world {
 public:
  explicit kernel_world(std::uint64_t seed) : random_(seed) {
    std::error_code ec;
    events_ =
        netlink::open_event_socket({.non_blocking = true, .receive_buffer_bytes = 8 << 20}, ec);
    if (below(3) != 0) seed_ = static_cast<std::uint32_t>(random_() | 1);
    policy_ = static_cast<std::uint8_t>(below(2));
    write_file("/proc/sys/net/ipv4/fib_multipath_hash_seed", std::to_string(seed_));
    write_file("/proc/sys/net/ipv4/fib_multipath_hash_policy", std::to_string(policy_));
    write_file("/proc/sys/net/ipv6/fib_multipath_hash_policy", std::to_string(policy_));
    if (below(4) == 0) write_file("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    followed_ = dumped();  // Before anything exists but lo.
  }

  void build();
  /// A few more changes, links going down and up among them.
  void disturb();
  [[nodiscard]] mirror dumped();
  /// Dumped when nothing moves any more: the kernel finishes carrier changes and IPv6 addresses in
  /// the background.
  [[nodiscard]] mirror settled();
  /// The mirror that has only seen notifications since the namespace was empty.
  [[nodiscard]] const mirror& followed();
  struct random_question {
    flow question;
    netlink::route_query asked;
  };
  [[nodiscard]] random_question random_query(const mirror& state);
  [[nodiscard]] netlink::route_answer ask(const netlink::route_query& asked) {
    return socket_.get_route(asked);
  }
  [[nodiscard]] std::string commands() const { return commands_; }
  [[nodiscard]] std::mt19937_64& random() { return random_; }

 private:
  [[nodiscard]] std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>(random_() % bound);
  }
  [[nodiscard]] std::string pick(std::initializer_list<const char*> from) {
    return std::data(from)[below(static_cast<std::uint32_t>(from.size()))];
  }
  void run(const std::string& batch);
  [[nodiscard]] std::string links();
  [[nodiscard]] std::string random_prefix(bool v4);
  [[nodiscard]] std::string gateway(bool v4, std::uint32_t device);
  [[nodiscard]] std::string random_route(bool v4);
  [[nodiscard]] std::string random_rule(bool v4);
  [[nodiscard]] mirror_settings settings() const;

  std::mt19937_64 random_;
  netlink::request_socket socket_;
  unique_fd events_;
  mirror followed_;
  std::string commands_;
  std::uint32_t seed_ = 0;
  std::uint8_t policy_ = 0;
};

void kernel_world::run(const std::string& batch) {
  commands_ += batch;
  FILE* pipe = ::popen("ip -force -batch - >/dev/null 2>&1", "w");
  ASSERT_NE(pipe, nullptr);
  std::fputs(batch.c_str(), pipe);
  static_cast<void>(::pclose(pipe));  // Some random commands are refused by design.
}

std::string kernel_world::links() {
  std::string out = "link set lo up\n";
  for (std::uint32_t i = 0; i < 4; ++i) {
    const std::string n = std::to_string(i), u = "u" + n, p = "p" + n;
    out += "link add " + u + " type veth peer name " + p + "\n";
    out += "link set " + u + " addrgenmode none\nlink set " + p + " addrgenmode none\n";
    if (below(4) == 0) out += "link set " + u + " group 7\n";
    out += "link set " + p + " up\nlink set " + u + " up\n";
    out += "addr add 10." + n + ".0.1/24 dev " + u + "\n";
    out += "addr add fd00:" + n + "::1/64 dev " + u + " nodad\n";
    if (below(3) == 0)
      out += "addr add 10." + n + ".8.1/" + pick({"16", "24", "32"}) + " dev " + u + "\n";
    if (below(3) == 0) out += "addr add 10." + n + ".0.7/24 dev " + u + "\n";
    if (below(4) == 0) out += "addr add 10." + n + ".9.1/24 dev " + u + " scope link\n";
    if (below(3) == 0)
      out +=
          "addr add 2001:db8:" + n + "::1/" + pick({"64", "48", "128"}) + " dev " + u + " nodad\n";
    if (below(4) == 0) out += "addr add fe80::" + n + "/64 dev " + u + " nodad\n";
  }
  if (below(2) == 0) out += "addr add 192.0.2.1/32 dev lo\naddr add 2001:db8:ff::1/128 dev lo\n";
  return out;
}

std::string kernel_world::gateway(bool v4, std::uint32_t device) {
  const std::string n = std::to_string(device), last = std::to_string(2 + below(4));
  return v4 ? "10." + n + ".0." + last : "fd00:" + n + "::" + last;
}

std::string kernel_world::random_prefix(bool v4) {
  if (below(9) == 0) return "default";
  if (v4)
    return pick({"20.0.0.0", "20.0.1.0", "20.1.0.0", "20.1.2.0", "10.0.0.0", "10.1.0.0",
                 "239.0.0.0", "30.0.0.0"}) +
           "/" + pick({"8", "15", "16", "20", "24", "28", "32"});
  return pick({"2001:db8::", "2001:db8:1::", "2600::", "2600:1::", "fd00:1::", "fd00:9::",
               "fc00::"}) +
         "/" + pick({"8", "16", "32", "47", "48", "64", "128"});
}

std::string kernel_world::random_route(bool v4) {
  const std::uint32_t what = below(14);
  std::string line = std::string(v4 ? "" : "-6 ") + "route " +
                     pick({"add", "add", "append", "replace", "prepend"}) + " ";
  const std::string type =
      what == 0 ? pick({"blackhole ", "unreachable ", "prohibit ", "throw "}) : std::string();
  line += type + random_prefix(v4);
  if (v4 && below(8) == 0) line += " tos " + pick({"0x10", "0x04", "0xb8"});
  const std::uint32_t device = below(4);
  const std::string dev = " dev u" + std::to_string(device);
  std::string tail;
  if (below(3) == 0) tail += " metric " + pick({"5", "10", "20"});
  if (below(6) == 0) tail += " mtu " + pick({"1300", "1400"});
  if (below(8) == 0) tail += " hoplimit " + pick({"5", "77"});
  if (below(6) == 0)
    tail += " src " + (v4 ? "10." + std::to_string(below(4)) + ".0.1"
                          : "fd00:" + std::to_string(below(4)) + "::1");
  if (!v4 && below(6) == 0) tail += " pref " + pick({"low", "medium", "high"});
  tail += " table " + pick({"main", "main", "main", "100", "101", "102"});
  if (what == 0) return line + tail + "\n";
  if (what <= 2) return line + dev + tail + "\n";
  if (what == 3)
    return line + " nhid " +
           (v4 ? pick({"1", "2", "3", "10", "11"}) : pick({"21", "22", "23", "30", "31"})) + tail +
           "\n";
  if (what <= 6) {
    line += tail;
    for (std::uint32_t i = 2 + below(2); i > 0; --i) {
      const std::uint32_t hop = below(4);
      line += " nexthop via " + gateway(v4, hop) + " dev u" + std::to_string(hop) + " weight " +
              pick({"1", "2", "5"});
    }
    return line + "\n";
  }
  if (v4 && what == 7) return line + " via inet6 " + gateway(false, device) + dev + tail + "\n";
  return line + " via " + gateway(v4, device) + dev + tail + "\n";
}

std::string kernel_world::random_rule(bool v4) {
  std::string line =
      std::string(v4 ? "" : "-6 ") + "rule add pref " + std::to_string(100 + below(12));
  if (below(8) == 0) line += " not";
  if (below(4) == 0)
    line += " from " + (v4 ? pick({"10.0.0.0/16", "10.1.0.1", "0.0.0.0/1"})
                           : pick({"fd00:1::/64", "fd00:2::1"}));
  if (below(3) == 0)
    line += " to " + (v4 ? pick({"20.0.0.0/8", "20.1.0.0/16", "10.0.0.0/15"})
                         : pick({"2001:db8::/32", "2600::/16"}));
  if (below(4) == 0) line += " fwmark " + pick({"1", "2", "0x1/0x3", "0/0x2"});
  if (below(6) == 0) line += " tos 0x10";
  if (below(8) == 0) line += " oif u" + std::to_string(below(4));
  if (below(10) == 0) line += " iif lo";
  if (below(6) == 0) line += " ipproto " + pick({"udp", "tcp"});
  if (below(6) == 0) line += " uidrange " + pick({"0-0", "0-1000", "1000-2000"});
  if (below(8) == 0) line += " sport 7000-7500";
  if (below(8) == 0) line += " dport " + pick({"9000", "9000-9100"});
  const std::uint32_t what = below(10);
  if (what == 0) return line + " " + pick({"blackhole", "unreachable", "prohibit"}) + "\n";
  if (what == 1) return line + " goto " + std::to_string(105 + below(8)) + "\n";
  line += " lookup " + pick({"main", "100", "101", "102", "103"});
  if (below(6) == 0) line += " suppress_prefixlength " + pick({"0", "8", "16"});
  if (below(8) == 0) line += " suppress_ifgroup 7";
  return line + "\n";
}

void kernel_world::build() {
  run(links());
  std::string out;
  for (std::uint32_t i = 0; i < 3; ++i) {
    const std::string n = std::to_string(i + 1), d = " dev u" + std::to_string(i);
    out += "nexthop add id " + n + " via " + gateway(true, i) + d + "\n";
    out += "-6 nexthop add id 2" + n + " via " + gateway(false, i) + d + "\n";
  }
  out += "nexthop add id 10 group 1/2\nnexthop add id 11 group 1,3/3,1\n";
  out += "nexthop add id 30 group 21/22\nnexthop add id 31 group 21,1/23,4\n";
  for (std::uint32_t i = 10 + below(40); i > 0; --i) out += random_route(below(2) == 0);
  if (below(3) != 0)
    for (std::uint32_t i = 1 + below(6); i > 0; --i) out += random_rule(below(2) == 0);
  for (std::uint32_t i = below(4); i > 0; --i) {
    const std::uint32_t device = below(4);
    out += "neigh replace " + gateway(below(2) == 0, device) + " dev u" + std::to_string(device) +
           pick({" nud failed", " lladdr 02:00:00:00:00:09 nud permanent"}) + "\n";
  }
  run(out);
}

void kernel_world::disturb() {
  std::string out;
  for (std::uint32_t i = 2 + below(6); i > 0; --i) {
    const std::string u = "u" + std::to_string(below(4)), n = std::to_string(below(4));
    switch (below(10)) {
      case 0:
        out += "link set " + u + " down\n";
        break;
      case 1:
        out += "link set " + u + " down\nlink set " + u + " up\n";
        break;
      case 2:
        out += "link set p" + n + " down\n";
        break;
      case 3:
        out += "link set p" + n + " down\nlink set p" + n + " up\n";
        break;
      case 4:
        out += "addr del 10." + n + ".0.1/24 dev u" + n + "\n";
        break;
      case 5:
        out += "nexthop del id " + pick({"1", "2", "21", "22"}) + "\n";
        break;
      case 6:
        out += "link del " + u + "\n";
        break;
      case 7:
        out += "addr add 10." + n + ".0.1/24 dev u" + n + "\n";
        break;
      case 8:
        out += "link set " + u + " name v" + n + "\n";
        break;
      default:
        out += random_route(below(2) == 0);
        break;
    }
  }
  run(out);
}

mirror_settings kernel_world::settings() const {
  mirror_settings made;
  made.multipath_hash_seed = seed_;
  made.multipath_v4.policy = made.multipath_v6.policy = policy_;
  made.kernel_version = running_kernel();
  return made;
}

mirror kernel_world::dumped() {
  using netlink::object_kind;
  mirror state;
  mirror_changes changes;
  const auto take = [&](object_kind kind, const netlink::dump_filter& filter = {}) {
    for (const netlink::message& message : socket_.dump(kind, filter))
      state.apply(message, changes, message_origin::dump);
  };
  take(object_kind::link);
  take(object_kind::address);
  for (const ip_family family : {ip_family::v4, ip_family::v6})
    take(object_kind::netconf, {.family = family});
  take(object_kind::nexthop);
  take(object_kind::rule);
  take(object_kind::route);
  take(object_kind::neighbour);
  state.set_settings(settings(), changes);
  return state;
}

mirror kernel_world::settled() {
  mirror before = dumped();
  for (int quiet = 0; quiet < 2;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
    mirror now = dumped();
    quiet = difference(before, now).empty() ? quiet + 1 : 0;
    before = std::move(now);
  }
  return before;
}

const mirror& kernel_world::followed() {
  std::vector<std::byte> buffer(netlink::datagram_size_max);
  mirror_changes changes;
  followed_.set_settings(settings(), changes);
  for (;;) {
    const auto got = ::recv(events_.get(), buffer.data(), buffer.size(), 0);
    if (got <= 0) return followed_;
    std::span<const std::byte> datagram(buffer.data(), static_cast<std::size_t>(got));
    std::error_code ec;
    while (const auto envelope = netlink::next_envelope(datagram, ec)) {
      const auto message = netlink::decode(envelope->bytes, ec);
      if (message && netlink::is_forwarding_state(*message))
        followed_.apply(*message, changes, message_origin::notification);
    }
  }
}

kernel_world::random_question kernel_world::random_query(const mirror& state) {
  random_question made;
  flow_class& cls = made.question.cls;
  const bool v4 = below(2) == 0;
  const ip_family family = v4 ? ip_family::v4 : ip_family::v6;
  std::vector<ip_prefix> known;
  for (const auto& [id, table] : state.tables(family))
    for (const auto& [prefix, entries] : table) known.push_back(prefix);
  const std::uint32_t how = below(10);
  if (how < 6 && !known.empty()) {
    const ip_prefix& near = known[below(static_cast<std::uint32_t>(known.size()))];
    auto bytes = (below(2) == 0 ? near.address() : near.last()).bytes();
    const std::size_t last = v4 ? 3 : 15;
    bytes[last] = static_cast<std::uint8_t>(bytes[last] + pick({"\x01", "\xff", "\x02"})[0]);
    made.question.destination = ip_address::from_bytes(family, bytes.data());
  } else {
    const std::string text =
        v4 ? pick({"20.0.0.5", "20.1.2.3", "10.0.0.9", "10.1.0.1", "10.2.0.255", "8.8.8.8",
                   "239.1.2.3", "224.0.0.5", "255.255.255.255", "0.0.0.0", "127.0.0.1", "0.1.2.3"})
           : pick({"2001:db8::5", "2600:1::9", "fd00:1::1", "fd00:2::77", "2a00::1", "ff02::1",
                   "ff0e::1", "fe80::99", "::1", "2001:db8:1::"});
    made.question.destination = *ip_address::parse(text);
  }
  if (below(3) == 0) {
    const std::string n = std::to_string(below(4));
    const std::string text =
        v4 ? (below(8) == 0 ? "9.9.9.9" : "10." + n + ".0.1") : "fd00:" + n + "::1";
    (v4 ? cls.source_v4 : cls.source_v6) = *ip_address::parse(text);
  }
  if (below(3) == 0) cls.mark = below(4);
  if (below(4) == 0) cls.tos = static_cast<std::uint8_t>(below(2) == 0 ? 0x10 : below(8) * 4);
  if (below(4) == 0) cls.output_interface = 1 + below(10);
  cls.ip_protocol = below(3) == 0 ? 6 : 17;
  cls.source_port =
      static_cast<std::uint16_t>(below(2) == 0 ? 7000 + below(600) : 1 + below(60000));
  made.question.destination_port =
      static_cast<std::uint16_t>(below(2) == 0 ? 9000 + below(120) : 1 + below(60000));
  cls.uid = below(2) == 0 ? 0 : 1500;

  netlink::route_query& asked = made.asked;
  asked.destination = made.question.destination;
  asked.source = cls.source(family);
  asked.output_interface = cls.output_interface;
  asked.mark = cls.mark;
  asked.tos = cls.tos;
  asked.ip_protocol = cls.ip_protocol;
  asked.source_port = cls.source_port;
  asked.destination_port = made.question.destination_port;
  asked.uid = cls.uid;
  return made;
}

// ------------------------------------------------------------------------------------------------
// comparison

bool is_unknowable(const resolution& answer) {
  return answer.divert == divert_reason::kernel_history ||
         answer.divert == divert_reason::unsupported_rule ||
         answer.divert == divert_reason::unsupported_route;
}

std::string text_of(const std::optional<ip_address>& address) {
  return address ? address->to_string() : "-";
}

/// Empty = they agree.
std::string disagreement(const mirror& state, const flow& question, const resolution& ours,
                         const netlink::route_answer& kernel) {
  std::ostringstream out;
  if (ours.error != kernel.error_number) {
    out << "error " << ours.error << ", kernel " << kernel.error_number;
    return out.str();
  }
  if (ours.error != 0) return {};
  const netlink::route& theirs = kernel.route;
  const bool v4 = question.destination.is_v4();
  // The kernel caches its answer per nexthop object, type and metrics of whichever route was asked
  // first included.
  const bool cached = ours.route && ours.route->nexthop_id != 0;
  if (!cached && ours.type != theirs.type)
    out << "type " << int{ours.type} << ", kernel " << int{theirs.type} << "; ";
  const bool table_hidden = v4 && !state.rules_configured(ip_family::v4).value_or(false);
  if (!table_hidden && ours.table != theirs.table)
    out << "table " << ours.table << ", kernel " << theirs.table << "; ";
  const netlink::next_hop hop =
      theirs.next_hops.empty() ? netlink::next_hop{} : theirs.next_hops.front();
  const auto matches = [&](const path_member& member) {
    return member.interface_index == hop.index && member.gateway == hop.gateway;
  };
  std::optional<ip_address> source = ours.source;
  if (ours.members.empty()) {
    if (ours.interface_index != hop.index)
      out << "device " << ours.interface_index << ", kernel " << hop.index << "; ";
  } else if (ours.choice_known) {
    const path_member& member = ours.members[ours.chosen];
    if (!matches(member))
      out << "device " << member.interface_index << " via " << text_of(member.gateway)
          << ", kernel " << hop.index << " via " << text_of(hop.gateway) << "; ";
  } else {
    bool listed = false;
    for (const path_share& share : ours.shares) {
      if (!matches(ours.members[share.member])) continue;
      listed = true;
      source = ours.members[share.member].source;
    }
    if (!listed)
      out << "kernel " << hop.index << " via " << text_of(hop.gateway) << " is no share; ";
  }
  const std::optional<ip_address>& asked = question.cls.source(question.destination.family());
  if (!asked && ours.type == RTN_UNICAST && source != theirs.preferred_source)
    out << "source " << text_of(source) << ", kernel " << text_of(theirs.preferred_source) << "; ";
  if (ours.type == RTN_UNICAST && ours.route && !cached) {
    if (ours.route->metrics.mtu != theirs.metrics.mtu)
      out << "mtu metric " << ours.route->metrics.mtu << ", kernel " << theirs.metrics.mtu << "; ";
    if (v4 && ours.route->metrics.hop_limit != theirs.metrics.hop_limit)
      out << "hop limit metric " << ours.route->metrics.hop_limit << ", kernel "
          << theirs.metrics.hop_limit << "; ";
  }
  return out.str();
}

std::string describe_query(const netlink::route_query& q) {
  std::ostringstream out;
  out << "get " << q.destination.to_string() << " from " << text_of(q.source) << " oif "
      << q.output_interface << " mark " << q.mark << " tos " << int{q.tos} << " ipproto "
      << int{*q.ip_protocol} << " sport " << *q.source_port << " dport " << *q.destination_port
      << " uid " << *q.uid;
  return out.str();
}

struct tally {
  std::size_t asked = 0, diverted = 0;
};

void compare(kernel_world& world, const mirror& state, const char* which, int queries,
             tally& count) {
  for (int i = 0; i < queries; ++i) {
    const auto query = world.random_query(state);
    const auto kernel = world.ask(query.asked);
    const auto ours = resolve(state, query.question, route_question::get_route);
    ++count.asked;
    if (is_unknowable(ours)) {
      ++count.diverted;
      continue;
    }
    const std::string differs = disagreement(state, query.question, ours, kernel);
    ASSERT_TRUE(differs.empty()) << which << " mirror: " << describe_query(query.asked) << "\n  "
                                 << differs << "\n"
                                 << world.commands();
  }
}

class KernelDifferential : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0 || !enter_fresh_namespace())
      GTEST_SKIP() << "needs root for network namespaces: " << errno_name(errno);
  }
  static void run_worlds(std::uint64_t first, std::uint64_t count, bool disturbed);
};

void KernelDifferential::run_worlds(std::uint64_t first, std::uint64_t count, bool disturbed) {
  tally dumps, events;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("COWIRE_SEED=" + std::to_string(seed));
    ASSERT_TRUE(enter_fresh_namespace());
    kernel_world world(seed);
    world.build();
    if (disturbed) world.disturb();
    const mirror state = world.settled();
    compare(world, state, "dumped", 250, dumps);
    if (HasFatalFailure()) return;
    compare(world, world.followed(), "followed", 250, events);
    if (HasFatalFailure()) {
      for (const std::string& line : difference(world.followed(), state))
        std::printf("  differs: %s\n", line.c_str());
      return;
    }
  }
  std::printf(
      "%llu worlds from seed %llu: %zu questions, left to the kernel: %zu (dumps), %zu (events)\n",
      static_cast<unsigned long long>(count), static_cast<unsigned long long>(first),
      dumps.asked + events.asked, dumps.diverted, events.diverted);
  EXPECT_LT(dumps.diverted + events.diverted, (dumps.asked + events.asked) / 4);
}

TEST_F(KernelDifferential, StillWorldsAgree) {
  run_worlds(from_environment("COWIRE_SEED", 1), from_environment("COWIRE_WORLDS", 30), false);
}

TEST_F(KernelDifferential, DisturbedWorldsAgree) {
  run_worlds(from_environment("COWIRE_SEED", 1000), from_environment("COWIRE_WORLDS", 30), true);
}

}  // namespace
}  // namespace cowire
