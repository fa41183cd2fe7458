// SPDX-License-Identifier: Apache-2.0
/// The kernel as oracle: seeded random worlds (inventor.hpp) in a network namespace of our own
/// (kernel_world.hpp), changed at random several times, mirrored by dumps and, separately, by the
/// notifications that all this caused. After each change the same questions go to RTM_GETROUTE,
/// plain and with RTM_F_FIB_MATCH, to a UDP socket (socket_oracle.hpp), and to resolve(); questions
/// about groups, of which some have members, to sockets that really send (group_oracle.hpp), as do
/// datagrams that have a fast hop, whose frames are compared with the hop's (frame_oracle.hpp); and
/// what a compiler publishes, incrementally and from scratch, is compared with what resolve() says.
/// And the two mirrors are compared: on a kernel that does not change an audit finds nothing.
///
/// A disagreement is reduced to the shortest list of commands that still shows it, and printed.
///
/// COWIRE_WORLDS=N and COWIRE_SEED=N choose how many worlds each test makes and which is the first;
/// scripts/fuzz-routes sets them. COWIRE_REDUCE=0 leaves out the reduction, which takes hours in
/// the lab.
#include "coverage.hpp"
#include "frame_oracle.hpp"
#include "group_oracle.hpp"
#include "inventor.hpp"
#include "kernel_world.hpp"
#include "published_view.hpp"
#include "reduction.hpp"
#include "socket_oracle.hpp"

#include <cowire/route/agreement.hpp>
#include <cowire/route/detail/bond.hpp>
#include <cowire/route/egress_choice.hpp>
#include <cowire/route/mirror_comparison.hpp>
#include <cowire/route/resolve.hpp>

#include <gtest/gtest.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "testbed/private_namespace.hpp"

namespace cowire::testing {
namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// The kernel caches answers over nexthop objects per CPU.
void stay_on_one_cpu() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(::sched_getcpu()), &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
}

/// Diverts after which the rest of the answer is right nevertheless.
bool is_delegated(std::string_view reason) {
  return reason == "local_destination" || reason == "broadcast_destination" ||
         reason == "multicast_destination" || reason == "multicast_member" ||
         reason == "multicast_members_unknown" || reason == "multicast_routing" ||
         reason == "no_source_address";
}

bool is_unknowable(const resolution& answer) {
  return answer.divert && !is_delegated(name(*answer.divert));
}

std::string text_of(const std::optional<ip_address>& address) {
  return address ? address->to_string() : "-";
}

std::string describe_query(const asked_flow& query) {
  const netlink::route_query& q = query.asked;
  std::ostringstream out;
  out << "get " << q.destination.to_string() << " from " << text_of(q.source) << " oif "
      << q.output_interface << " mark " << q.mark << " tos " << int{q.tos} << " ipproto "
      << int{*q.ip_protocol} << " sport " << *q.source_port << " dport " << *q.destination_port
      << " uid " << *q.uid << "; to a socket " << query.as_written.to_string() << " scope id "
      << query.as_written.scope_id;
  return out.str();
}

std::string describe_members(const resolution& ours) {
  std::ostringstream out;
  for (const path_member& member : ours.members)
    out << " [dev " << member.interface_index << " via " << text_of(member.gateway) << " weight "
        << member.weight << " flags " << member.flags << "]";
  out << "; shares:";
  for (const path_share& share : ours.shares)
    out << " up to " << share.bound << " member " << share.member << ";";
  return out.str();
}

struct kernel_answers {
  netlink::route_answer plain, match;
  std::optional<socket_answer> socket;  ///< Unset: there can be none such.
};

kernel_answers ask_all(kernel_world& world, const asked_flow& query) {
  kernel_answers answers;
  netlink::route_query asked = query.asked;
  answers.plain = world.ask(asked);
  asked.fib_match = true;
  answers.match = world.ask(asked);
  if (query.question.cls.ip_protocol == IPPROTO_UDP) answers.socket = ask_socket(query);
  return answers;
}

bool is_remote_of_tunnel(const mirror& state, const ip_address& address) {
  return std::ranges::any_of(state.devices(), [&](const auto& item) {
    const auto* tunnel = std::get_if<netlink::tunnel_info>(&item.second.link.info);
    return tunnel != nullptr && tunnel->remote == address;
  });
}

/// What a device says by itself (reports of members, solicitations) leaves through its tunnel, and
/// where the tunnel's datagrams are routed through a tunnel again, its own included, that tells the
/// kernel a path MTU to the remote address, at any time. No notification says so: a service hears
/// it from its audits, this test from the first answer that shows it.
template <class Note>
kernel_answers ask_and_learn(kernel_world& world, const asked_flow& query, mirror& settled,
                             Note&& note) {
  kernel_answers answers = ask_all(world, query);
  const ip_address& to = query.question.destination;
  if (!answers.plain.route.expires_s || world.told_about().contains(to) ||
      !is_remote_of_tunnel(settled, to))
    return answers;
  world.note_exception(to, {query.question.cls, flow_of_socket(query).cls});
  world.learn_exceptions(settled);
  world.follow(note);
  return ask_all(world, query);
}

/// Exceptions are asked about by class: where only the destination port decides the class has no
/// answer, and leaves them to the kernel. Nor are they asked about where the fast path sends
/// nothing: to ::, which is this host.
bool exception_is_not_asked(const kernel_world& world, const mirror& state, flow question) {
  if (!world.told_about().contains(question.destination)) return false;
  question.destination_port = 0;
  const resolution ours = resolve(state, question, route_question::get_route);
  return is_unknowable(ours) || ours.divert == divert_reason::local_destination;
}

enum class view : std::uint8_t { dumped, followed };

/// The classes of which exceptions matter, as many as there are questions about them.
void use_classes_of(kernel_world& world, const std::vector<asked_flow>& questions,
                    std::vector<flow_class> classes) {
  for (const asked_flow& query : questions)
    if (world.told_about().contains(query.question.destination)) {
      classes.push_back(query.question.cls);
      classes.push_back(flow_of_socket(query).cls);
    }
  world.use_classes(std::move(classes));
}

/// What a dump does not show: how old shares are; that a gateway was this host's own; in what IPv6
/// siblings differ, and a route of their metric that stands between them.
bool hidden_by_dump(const mirror& dumped, const mirror& followed, const ip_address& destination,
                    const resolution& by_dump, const resolution& by_events) {
  if (by_events.divert == divert_reason::stale_shares ||
      by_events.divert == divert_reason::own_gateway)
    return true;
  if (by_events.route && by_events.members.size() == 1 && by_events.route->nexthop_id == 0 &&
      by_events.route->next_hops.front().gateway && !by_events.members.front().gateway)
    return true;
  if (destination.is_v4()) return false;
  // What is left out may reject.
  for (const auto& [id, table] : followed.tables(ip_family::v6))
    for (const auto& [prefix, entries] : table) {
      const bool counts =
          by_events.route ? id == by_events.route->table && prefix == by_events.route->destination
                          : prefix.contains(destination);
      if (!counts) continue;
      const route_table* const other = dumped.find_table(ip_family::v6, id);
      const bool known = other != nullptr && other->contains(prefix);
      if ((known ? other->find(prefix)->size() : 0) < entries.size()) return true;
    }
  return by_dump.route && by_dump.route->next_hops.size() > 1 && is_unknowable(by_events);
}

/// What both mirrors make of one question.
struct opinions {
  opinions(const mirror& dumped, const mirror& followed, const asked_flow& query)
      : states{&dumped, &followed}, to(query.question.destination) {
    for (const int which : {0, 1}) {
      asked[which] = resolve(*states[which], query.question, route_question::get_route);
      sent[which] = resolve(*states[which], flow_of_socket(query), route_question::send);
    }
  }

  [[nodiscard]] bool is_hidden(view which, const resolution (&both)[2]) const {
    return which == view::dumped && hidden_by_dump(*states[0], *states[1], to, both[0], both[1]);
  }
  /// Whether nobody could know what the kernel answers to this one.
  [[nodiscard]] bool is_excused(view which, const resolution (&both)[2]) const {
    return is_unknowable(both[index(which)]) || is_hidden(which, both);
  }
  /// "" = as the kernel.
  [[nodiscard]] std::string disagreement(view which, const asked_flow& query,
                                         const kernel_answers& kernel) const {
    const mirror& state = *states[index(which)];
    const resolution& ours = asked[index(which)];
    if (is_excused(which, asked)) return {};
    std::string differs = compare_answers(state, query.question, ours, kernel.plain).text();
    if (differs.empty()) differs = match_disagreement(state, query.question, ours, kernel.match);
    if (differs.empty() && kernel.socket && !is_excused(which, sent))
      differs = socket_disagreement(query, sent[index(which)], *kernel.socket);
    return differs;
  }
  [[nodiscard]] static std::size_t index(view which) { return which == view::followed; }

  const mirror* states[2];
  ip_address to;
  resolution asked[2], sent[2];  ///< By view.
};

/// In what they differ, without values.
std::string kind_of(const std::string& disagreement) {
  return disagreement.substr(0, disagreement.find(' '));
}

/// Whether the world that `lines` make still shows this kind of disagreement for this question.
bool still_differs(const line_list& lines, const asked_flow& query, view which,
                   const std::string& kind) {
  kernel_world world;
  world.run(lines);
  use_classes_of(world, {query}, {});
  mirror settled = world.settled();
  world.learn_exceptions(settled);
  const auto kernel = ask_and_learn(world, query, settled, [](mirror_changes&&) {});
  return kind_of(opinions(settled, world.follow(), query).disagreement(which, query, kernel)) ==
         kind;
}

std::string script_of(const line_list& lines) {
  std::string text = "unshare --net sh -s <<'END'\n";
  // What the shell cannot do: hearsay.hpp, and members of groups.
  for (const std::string& line : lines)
    text += (line.starts_with("ip ") || line.starts_with("s") ? "" : "# ") + line + "\n";
  return text + "END\n";
}

/// COWIRE_REDUCE=0: what differs is shown as it was, at once.
template <class Predicate>
line_list as_short_as_wanted(const line_list& lines, Predicate&& fails) {
  return from_environment("COWIRE_REDUCE", 1) != 0 ? reduced(lines, fails) : lines;
}

/// Before it is reduced, which takes long where a world does.
void announce(const std::string& question, const std::string& differs) {
  std::printf("differs, and is reduced: %s\n  %s\n", question.c_str(), differs.c_str());
  std::fflush(stdout);
}

class KernelDifferential : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0 || !namespace_.entered())
      GTEST_SKIP() << "needs root: unshare(CLONE_NEWNET) was refused";
    stay_on_one_cpu();
  }
  void run_worlds(std::uint64_t first, std::uint64_t count, flavour kind);
  void run_world(std::uint64_t seed, flavour kind);
  static void compare_mirrors(kernel_world& world, const mirror& settled, const line_list& history);
  template <class Note>
  void compare_with_kernel(kernel_world& world, const std::vector<asked_flow>& asked,
                           mirror& settled, const line_list& history, Note&& note);
  void compare(kernel_world& world, const asked_flow& query, view which, const opinions& ours,
               const kernel_answers& kernel, const line_list& history);
  void compare_groups(inventor& from, kernel_world& world, const mirror& settled,
                      const line_list& history);
  void compare_frames(inventor& from, kernel_world& world, const std::vector<flow_class>& classes,
                      const mirror& settled, const line_list& history);
  void note_diverted(const asked_flow& query, view which, const resolution& ours,
                     const line_list& history);
  static void compare_published(inventor& from, const compiled& kept, const mirror& state,
                                const line_list& history);

  static constexpr int changes = 2, questions = 500, group_questions = 60;
  static constexpr std::size_t frames = 80, frame_lookups = 1500;
  static constexpr std::size_t lookups = 2000;
  const test::private_namespace namespace_;  ///< Empty: each world makes its own.
  tally tally_;
};

/// In which slaves of bonds two mirrors of devices with the same numbers differ.
std::vector<std::string> slaves_difference(const mirror& left, const mirror& right) {
  std::vector<std::string> found;
  for (const auto& [index, device] : left.devices()) {
    const mirror::device* const other = right.find_device(index);
    if (!hashes_frames(device.link) || other == nullptr || !hashes_frames(other->link)) continue;
    if (detail::usable_slaves(left, device) != detail::usable_slaves(right, *other))
      found.push_back("slaves of " + device.link.name);
  }
  return found;
}

/// What a mirror that followed and a dump differ in, and after the re-dumps that it might have been
/// advised to make. Siblings of which not all is told are diverted until then.
std::vector<std::string> audited(kernel_world& world, const mirror& dumped) {
  std::vector<std::string> found;
  const mirror& followed = world.followed();
  mirror_comparison comparison(followed, dumped);
  while (comparison.advance(64)) continue;
  mirror_changes routes;
  comparison.add_to(routes);
  const auto is_mixed = [&](const mirror_changes::prefix& where) {
    const route_table* table = followed.find_table(where.destination.family(), where.table);
    const route_entries* at = table != nullptr ? table->find(where.destination) : nullptr;
    return at != nullptr && std::ranges::any_of(*at, &route_entry::mixed_siblings);
  };
  for (const std::string& line : comparison.describe()) {
    const bool mixed = std::ranges::any_of(routes.routes, [&](const auto& where) {
      return line.find(where.destination.to_string()) != std::string::npos && is_mixed(where);
    });
    if (!mixed) found.push_back(line);
  }
  for (std::string& line : slaves_difference(followed, dumped)) found.push_back(std::move(line));
  for (const std::string& line : difference(world.refreshed(followed), dumped))
    found.push_back("after re-dumps: " + line);
  return found;
}

/// On a kernel that does not change an audit has nothing to find.
void KernelDifferential::compare_mirrors(kernel_world& world, const mirror& settled,
                                         const line_list& history) {
  const std::vector<std::string> found = audited(world, settled);
  if (found.empty()) return;
  announce("followed and dumped", found.front());
  const auto found_again = [&](const line_list& lines) {
    kernel_world again;
    again.run(lines);
    const mirror dumped = again.settled();
    again.follow();
    return std::ranges::any_of(audited(again, dumped), [&](const std::string& line) {
      return kind_of(line) == kind_of(found.front());
    });
  };
  const bool again = found_again(history);
  std::string text;
  for (const std::string& line : found) text += "  " + line + "\n";
  FAIL() << "followed and dumped differ:\n"
         << text << (again ? "reproduced by\n" : "not reproduced by doing the same again:\n")
         << script_of(again ? as_short_as_wanted(history, found_again) : history);
}

void KernelDifferential::note_diverted(const asked_flow& query, view which, const resolution& ours,
                                       const line_list& history) {
  if (!ours.divert) return;
  const std::string reason(name(*ours.divert));
  ++tally_.diverted[which == view::followed][reason];
  if (which == view::dumped || !is_unknowable(ours)) return;
  if (const auto [at, fresh] = tally_.first.try_emplace(reason); fresh)
    at->second = describe_query(query) + "\n" + script_of(history);
}

void KernelDifferential::compare(kernel_world& world, const asked_flow& query, view which,
                                 const opinions& ours, const kernel_answers& kernel,
                                 const line_list& history) {
  const resolution& asked = ours.asked[opinions::index(which)];
  if (!ours.is_excused(which, ours.asked))
    tally_.seen.count(asked, kernel.plain, query.question.destination.is_v4());
  const std::string differs = ours.disagreement(which, query, kernel);
  if (differs.empty()) return;
  announce(describe_query(query), differs);
  std::string missed;
  for (const std::string& line : difference(*ours.states[1], world.settled()))
    missed += "  " + line + "\n";
  const auto differs_again = [&](const line_list& lines) {
    return still_differs(lines, query, which, kind_of(differs));
  };
  const bool again = differs_again(history);
  const line_list shortest = again ? as_short_as_wanted(history, differs_again) : history;
  FAIL() << (which == view::dumped ? "dumped" : "followed") << " mirror: " << describe_query(query)
         << "\n  " << differs << "\n  resolved members:" << describe_members(asked)
         << (missed.empty() ? "" : "\nfollowed and dumped differ:\n") << missed
         << (again ? "\nreproduced by\n" : "\nnot reproduced by doing the same again:\n")
         << script_of(shortest);
}

/// The same questions to both mirrors.
template <class Note>
void KernelDifferential::compare_with_kernel(kernel_world& world,
                                             const std::vector<asked_flow>& asked, mirror& settled,
                                             const line_list& history, Note&& note) {
  for (const asked_flow& query : asked) {
    const auto kernel = ask_and_learn(world, query, settled, note);
    ++tally_.asked;
    if (kernel.socket) tally_.seen.count_socket(query);
    const opinions ours(settled, world.followed(), query);
    for (const view which : {view::dumped, view::followed}) {
      note_diverted(query, which, ours.asked[opinions::index(which)], history);
      if (exception_is_not_asked(world, *ours.states[opinions::index(which)], query.question))
        continue;
      compare(world, query, which, ours, kernel, history);
      if (HasFatalFailure()) return;
    }
  }
}

std::string describe_group_query(const flow& question) {
  const flow_class& cls = question.cls;
  std::ostringstream out;
  out << "to " << question.destination.to_string() << " from "
      << text_of(cls.source(question.destination.family())) << " bound to " << cls.output_interface
      << " for groups " << cls.multicast_interface << " loop " << cls.multicast_loop << " ttl "
      << int{cls.multicast_ttl} << " mark " << cls.mark << " tos " << int{cls.tos} << " sport "
      << cls.source_port << " uid " << cls.uid;
  return out.str();
}

/// Whether the world that `lines` make still shows this kind of disagreement for this group.
bool group_still_differs(const line_list& lines, const flow& question, view which,
                         const std::string& kind) {
  kernel_world world;
  world.run(lines);
  const mirror settled = world.settled();
  const mirror& followed = world.follow();
  const mirror& state = which == view::dumped ? settled : followed;
  const auto ours = resolve(state, question);
  if (!is_comparable(ours)) return false;
  const auto kernel = group_oracle().ask({question}).front();
  return kernel && kind_of(group_disagreement(state, question, ours, *kernel)) == kind;
}

/// Members, loop and interface options: what a socket does that really sends.
void KernelDifferential::compare_groups(inventor& from, kernel_world& world, const mirror& settled,
                                        const line_list& history) {
  const mirror* const states[] = {&settled, &world.followed()};
  std::vector<flow> asked;
  for (int i = 0; i < group_questions; ++i) {
    const flow question = from.group_question(settled);
    // Where we do not know the next hop, a datagram might change the world.
    if (std::ranges::all_of(
            states, [&](const mirror* state) { return is_comparable(resolve(*state, question)); }))
      asked.push_back(question);
  }
  const auto answers = group_oracle().ask(asked);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (!answers[i]) continue;
    tally_.seen.count_group(*answers[i], asked[i]);
    for (const view which : {view::dumped, view::followed}) {
      const mirror& state = *states[which == view::followed];
      const auto ours = resolve(state, asked[i]);
      const std::string differs = group_disagreement(state, asked[i], ours, *answers[i]);
      if (differs.empty()) continue;
      announce(describe_group_query(asked[i]), differs);
      const auto differs_again = [&](const line_list& lines) {
        return group_still_differs(lines, asked[i], which, kind_of(differs));
      };
      const bool again = differs_again(history);
      FAIL() << (which == view::dumped ? "dumped" : "followed")
             << " mirror: " << describe_group_query(asked[i]) << "\n  " << differs
             << "\n  resolved members:" << describe_members(ours)
             << (again ? "\nreproduced by\n" : "\nnot reproduced by doing the same again:\n")
             << script_of(again ? as_short_as_wanted(history, differs_again) : history);
    }
  }
}

/// IPv4 routes of groups and of others may share what the kernel caches of them, and so a TTL
/// (docs/limits.md). Nothing is cached after this.
void forget_cached_routes(kernel_world& world) {
  for (const char* value : {"1", "0"})
    world.run({std::string("sysctl -w net.ipv4.conf.lo.promote_secondaries=") + value});
}

/// Whether the world that `lines` make still shows this kind of disagreement for this datagram.
bool frame_still_differs(const line_list& lines, const frame_question& one,
                         const std::string& kind) {
  kernel_world world;
  world.run(lines);
  world.use_classes({one.of.cls});
  static_cast<void>(world.settled());
  const mirror& followed = world.follow();
  compiled published(followed);
  published.add(one.of.cls);
  published.publish(followed);
  const frame_question now{one.of, published.hop_for(0, one.of)};
  if (now.via.egress == divert_slot) return false;
  forget_cached_routes(world);
  const auto kernel = frame_oracle().ask(followed, {&now, 1}).front();
  return kernel && kind_of(frame_disagreement(followed, now, 0, *kernel)) == kind;
}

/// What goes through a tunnel leaves a path MTU behind, that of the tunnel (tnl_update_pmtu() in
/// net/ipv4/ip_tunnel.c), of which nobody has told this world.
void forget_path_mtus(kernel_world& world) {
  world.run({"ip route flush cache", "ip -6 route flush cache"});
}

std::string describe_frame_question(const flow& question) {
  const flow_class& cls = question.cls;
  std::ostringstream out;
  out << "to " << question.destination.to_string() << " port " << question.destination_port
      << " from " << text_of(cls.source(question.destination.family())) << " bound to "
      << cls.output_interface << " mark " << cls.mark << " tos " << int{cls.tos} << " ttl "
      << int{cls.ttl} << " sport " << cls.source_port << " uid " << cls.uid;
  return out.str();
}

/// Datagrams of published hops: where, and as what, those of a socket leave.
void KernelDifferential::compare_frames(inventor& from, kernel_world& world,
                                        const std::vector<flow_class>& classes,
                                        const mirror& settled, const line_list& history) {
  compiled published(world.followed());
  for (const flow_class& cls : classes) published.add(cls);
  published.publish(world.followed());
  std::vector<frame_question> asked;
  for (std::size_t i = 0; i < frame_lookups && asked.size() < frames; ++i) {
    const std::size_t cls = i % classes.size();
    frame_question one{from.question(settled).question, {}};
    one.of.cls = classes[cls];
    if (one.of.destination.is_multicast()) continue;  // compare_groups() has them.
    // By a seed that nobody knows one member is as good as another.
    const resolution known = resolve(world.followed(), one.of);
    if (known.shares.size() > 1 && !known.choice_known) continue;
    one.via = published.hop_for(cls, one.of);
    ++tally_.looked_up;
    if (one.via.egress == divert_slot)
      ++tally_.compiled[std::string(name(one.via.reason))];
    else if (asked.size() < frames)
      asked.push_back(one);
  }
  forget_cached_routes(world);
  const auto answers = frame_oracle().ask(world.followed(), asked);
  // What the kernel does by itself meanwhile is nobody's answer.
  const mirror now = world.settled();
  if (!difference(now, settled).empty() || !slaves_difference(now, settled).empty()) {
    ++tally_.given_up;
    return;
  }
  for (std::uint32_t i = 0; i < asked.size(); ++i) {
    if (!answers[i]) continue;
    const frame_question& one = asked[i];
    tally_.seen.count_frame(world.followed(), one);
    const std::string differs = frame_disagreement(world.followed(), one, i, *answers[i]);
    if (differs.empty()) continue;
    announce(describe_frame_question(one.of), differs);
    const auto differs_again = [&](const line_list& lines) {
      return frame_still_differs(lines, one, kind_of(differs));
    };
    const bool again = differs_again(history);
    FAIL() << describe_frame_question(one.of) << "\n  " << differs
           << (again ? "\nreproduced by\n" : "\nnot reproduced by doing the same again:\n")
           << script_of(again ? as_short_as_wanted(history, differs_again) : history);
  }
}

void KernelDifferential::compare_published(inventor& from, const compiled& kept,
                                           const mirror& state, const line_list& history) {
  for (std::size_t i = 0; i < lookups; ++i) {
    const flow question = from.question(state).question;
    ASSERT_EQ(kept.disagreement(i, question.destination, question.destination_port), "")
        << script_of(history);
  }
}

/// Those of a world, of sockets that know their port.
std::vector<flow_class> frame_classes_of(std::vector<flow_class> classes) {
  for (flow_class& cls : classes)
    if (cls.source_port == 0) cls.source_port = 7007;
  return classes;
}

void KernelDifferential::run_world(std::uint64_t seed, flavour kind) {
  kernel_world world;
  inventor from(seed, kind);
  compiled kept(world.followed());
  std::vector<flow_class> classes(1);
  for (int i = 0; i < 3; ++i) {
    classes.push_back(from.question(world.followed()).question.cls);
    classes.back().ip_protocol = IPPROTO_UDP;
  }
  for (const flow_class& cls : classes) kept.add(cls);
  // A sequence of its own, so that what a seed stands for does not hang on how much is fast.
  inventor of_frames(seed, kind);
  const std::vector<flow_class> frame_classes = frame_classes_of(classes);
  std::vector<flow_class> all_classes = classes;
  all_classes.push_back(frame_classes.front());
  line_list history;
  mirror settled;
  for (int change = 0; change <= changes; ++change) {
    line_list next = change == 0 ? from.build() : from.disturb(settled);
    if (change == 0) std::ranges::copy(of_frames.known_gateways(), std::back_inserter(next));
    history.insert(history.end(), next.begin(), next.end());
    world.run(next);
    settled = world.settled();
    std::vector<asked_flow> asked;
    for (int i = 0; i < questions; ++i) asked.push_back(from.question(settled));
    use_classes_of(world, asked, all_classes);
    const auto note = [&](mirror_changes&& what) { kept.note(std::move(what)); };
    const mirror& followed = world.follow(note);
    // What the kernel did by itself between the two is only in one of them.
    for (int more = 0; more < 3 && !audited(world, settled).empty(); ++more) {
      settled = world.settled();
      world.follow(note);
    }
    world.learn_exceptions(settled);
    compare_mirrors(world, settled, history);
    if (HasFatalFailure()) return;
    compare_with_kernel(world, asked, settled, history, note);
    if (HasFatalFailure()) return;
    compare_groups(from, world, settled, history);
    if (HasFatalFailure()) return;
    kept.publish(followed);
    compare_published(from, kept, followed, history);
    compiled scratch(followed);
    for (const flow_class& cls : classes) scratch.add(cls);
    scratch.publish(followed);
    for (const ip_address& at : boundaries(followed)) ASSERT_EQ(kept.difference(scratch, at), "");
    if (HasFatalFailure()) return;
    compare_frames(of_frames, world, frame_classes, settled, history);
    if (HasFatalFailure()) return;
    if (kind == flavour::devices) forget_path_mtus(world);
  }
  ++tally_.worlds;
}

void KernelDifferential::run_worlds(std::uint64_t first, std::uint64_t count, flavour kind) {
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("COWIRE_SEED=" + std::to_string(seed));
    run_world(seed, kind);
    if (HasFatalFailure()) return;
  }
  const coverage& seen = tally_.seen;
  std::printf("%zu worlds from seed %llu, %zu questions\n", tally_.worlds,
              static_cast<unsigned long long>(first), tally_.asked);
  std::fputs(seen.text().c_str(), stdout);
  EXPECT_TRUE(seen.complete(kind) || count < 2 * inventor::showcase_distance)
      << "these worlds show too little";
  for (const int which : {0, 1})
    for (const auto& [reason, times] : tally_.diverted[which])
      std::printf("  %s, left to the kernel: %s %zu\n", which == 0 ? "dumped" : "followed",
                  reason.c_str(), times);
  if (tally_.looked_up == 0) return;
  std::printf("  of %zu datagrams to one host, by what was published, left to the kernel:\n",
              tally_.looked_up);
  for (const auto& [reason, times] : tally_.compiled)
    std::printf("    %s %zu (%.2f %%)\n", reason.c_str(), times,
                100.0 * static_cast<double>(times) / static_cast<double>(tally_.looked_up));
  std::printf("  rounds in which something moved while frames left: %zu\n", tally_.given_up);
}

#if defined(COWIRE_WORLDS_all)

TEST_F(KernelDifferential, WorldsOfAllKindsAgree) {
  run_worlds(from_environment("COWIRE_SEED", 1), from_environment("COWIRE_WORLDS", 150),
             flavour::everything);
  if (tally_.worlds < 2 * inventor::showcase_distance) return;  // Single worlds differ a lot.
  for (const auto& diverted : tally_.diverted) {
    std::size_t unknown = 0;
    for (const auto& [reason, times] : diverted)
      if (!is_delegated(reason)) unknown += times;
    EXPECT_LT(unknown, tally_.asked / 10);
  }
}

TEST(Reduction, KeepsNothingButWhatTheFailureNeeds) {
  line_list lines;
  for (int i = 0; i < 40; ++i) lines.push_back(std::to_string(i));
  int tries = 0;
  const auto fails = [&](const line_list& some) {
    ++tries;
    const auto has = [&](const char* line) { return std::ranges::count(some, line) != 0; };
    return has("3") && has("17") && (has("38") || has("5"));
  };
  EXPECT_EQ(reduced(lines, fails), (line_list{"3", "5", "17"}));
  EXPECT_LT(tries, 100);
}

#elif defined(COWIRE_WORLDS_plain)

/// Whoever has followed such a world from its beginning leaves nothing to the kernel but what is
/// addressed to this host, to everybody or to a group.
TEST_F(KernelDifferential, PlainWorldsAreServedWhole) {
  run_worlds(from_environment("COWIRE_SEED", 1), from_environment("COWIRE_WORLDS", 50),
             flavour::plain);
  for (const auto& [reason, times] : tally_.diverted[1])
    EXPECT_TRUE(is_delegated(reason))
        << reason << " " << times << ", the first for " << tally_.first[reason];
}

#elif defined(COWIRE_WORLDS_devices)

TEST_F(KernelDifferential, WorldsOfAllDevicesAgree) {
  for (const char* kind : {"dummy", "bond", "vrf table 9", "gre remote 10.0.0.2"}) {
    const std::string make = std::string("ip link add probe type ") + kind + " 2>/dev/null";
    if (std::system(make.c_str()) != 0)
      GTEST_SKIP() << "the kernel has no devices of type " << kind;
    ASSERT_EQ(std::system("ip link del probe"), 0);
  }
  run_worlds(from_environment("COWIRE_SEED", 1), from_environment("COWIRE_WORLDS", 100),
             flavour::devices);
}

#endif

}  // namespace
}  // namespace cowire::testing
