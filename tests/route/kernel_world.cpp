// SPDX-License-Identifier: Apache-2.0
#include "kernel_world.hpp"

#include "hearsay.hpp"

#include <cowire/base/socket_address.hpp>
#include <cowire/follow/detail/sysctls.hpp>
#include <cowire/netlink/dump_plan.hpp>
#include <cowire/route/detail/bond.hpp>
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/egress_choice.hpp>
#include <cowire/route/mirror_comparison.hpp>

#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <thread>

namespace cowire::testing {
namespace {

void write_file(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

/// Whether a bond has still to look at this slave, or to agree with itself which one to use.
bool is_awaited(const mirror& state, const mirror::device& slave) {
  const mirror::device* const bond = state.find_device(slave.link.master);
  if (!slave.link.bond_slave || bond == nullptr || !bond->up() || !hashes_frames(bond->link))
    return false;
  const bool works = slave.up() && detail::has_carrier(slave.link);
  if (works != (slave.link.bond_slave->mii_status == 0)) return true;
  return works && std::holds_alternative<divert_reason>(detail::usable_slaves(state, *bond));
}

/// Whether the kernel has still to act upon a carrier that came or went, up to a second later, or
/// to announce an IPv6 address that nobody else turns out to have.
bool is_moving(const mirror& state) {
  constexpr std::uint32_t lower_up = 0x10000, running = IFF_UP | IFF_RUNNING;
  return std::ranges::any_of(state.devices(), [&](const auto& item) {
    const std::uint32_t flags = item.second.link.flags;
    const bool carrier_pending =
        (flags & IFF_UP) != 0 && ((flags & lower_up) != 0) != ((flags & IFF_RUNNING) != 0);
    return carrier_pending || is_awaited(state, item.second) ||
           ((flags & running) == running && std::ranges::any_of(item.second.v6, is_in_detection));
  });
}

}  // namespace

kernel_world::kernel_world()
    : exceptions_(followed_, [this] { return classes_; }),
      clock_(std::chrono::steady_clock::now()) {
  if (!namespace_.entered()) throw std::runtime_error("cannot make a network namespace");
  std::error_code ec;
  events_ = netlink::open_event_socket({.non_blocking = true, .receive_buffer_bytes = 8 << 20}, ec);
  questions_ = netlink::open_request_socket({}, ec);
  followed_ = dumped();  // Before anything exists but lo.
}

void kernel_world::run(const line_list& lines) {
  for (std::size_t i = 0; i < lines.size();) {
    if (lines[i].starts_with("sleep")) {
      static_cast<void>(settled());
      ++i;
    } else if (lines[i].starts_with("icmp ")) {
      spread(lines[i]);
      ++i;
    } else if (lines[i].starts_with("join ")) {
      join(lines[i].substr(5));
      ++i;
    } else if (lines[i].starts_with("leave ")) {
      members_.erase(lines[i].substr(6));
      ++i;
    } else if (lines[i].starts_with("sysctl -w ")) {
      std::string path = lines[i].substr(10, lines[i].find('=') - 10);
      std::ranges::replace(path, '.', '/');
      write_file("/proc/sys/" + path, lines[i].substr(lines[i].find('=') + 1));
      ++i;
    } else {
      // `ip -batch` knows no option within a line: one batch for each run of one family.
      const std::string start = lines[i].starts_with("ip -6 ") ? "ip -6 " : "ip ";
      FILE* pipe = ::popen((start + "-force -batch - >/dev/null 2>&1").c_str(), "w");
      ASSERT_NE(pipe, nullptr);
      for (; i < lines.size() && lines[i].starts_with("ip ") &&
             lines[i].starts_with("ip -6 ") == (start == "ip -6 ");
           ++i)
        std::fputs((lines[i].substr(start.size()) + "\n").c_str(), pipe);
      static_cast<void>(::pclose(pipe));  // Some random commands are refused by design.
    }
  }
}

mirror kernel_world::dumped() {
  mirror state;
  mirror_changes changes;
  for (const netlink::dump_scope& scope : netlink::dump_plan)
    for (const netlink::message& message : socket_.dump(scope.kind, scope.filter))
      state.apply(message, changes, message_origin::dump);
  bonds_.settle(state, changes);
  state.set_settings(detail::read_mirror_settings(state), changes);
  return state;
}

/// As a transmitter would, once it has seen that nothing is on its way.
void kernel_world::settle_what_is_hidden(mirror& state, mirror_changes& changes) {
  bonds_.settle(state, changes);
  detail::device_order_reader().settle(state, clock_, changes);
  detail::rule_question rules;
  for (int twice = 0; twice < 2; ++twice) rules.settle(state, changes);
}

mirror kernel_world::settled() {
  using namespace std::chrono_literals;
  mirror before = dumped();
  // Some devices never agree with themselves.
  const auto patience = std::chrono::steady_clock::now() + 3s;
  for (int quiet = 0; quiet < 2;) {
    std::this_thread::sleep_for(40ms);
    mirror now = dumped();
    const bool moving = is_moving(now) && std::chrono::steady_clock::now() < patience;
    quiet = !moving && difference(before, now).empty() ? quiet + 1 : 0;
    before = std::move(now);
  }
  mirror_changes ignored;
  settle_what_is_hidden(before, ignored);
  return before;
}

mirror_changes kernel_world::take_in_events() {
  std::vector<std::byte> buffer(netlink::datagram_size_max);
  mirror_changes changes;
  followed_.set_settings(detail::read_mirror_settings(followed_), changes);
  for (;;) {
    const auto got = ::recv(events_.get(), buffer.data(), buffer.size(), 0);
    if (got <= 0) break;
    std::span<const std::byte> datagram(buffer.data(), static_cast<std::size_t>(got));
    std::error_code ec;
    while (const auto envelope = netlink::next_envelope(datagram, ec)) {
      const auto message = netlink::decode(envelope->bytes, ec);
      if (message && netlink::is_forwarding_state(*message))
        followed_.apply(*message, changes, message_origin::notification);
    }
  }
  // Of devices that came, too.
  followed_.set_settings(detail::read_mirror_settings(followed_), changes);
  settle_what_is_hidden(followed_, changes);
  // Routes and nexthops have to be right without.
  changes.refresh_advised = false;
  for (const netlink::dump_scope& scope : changes.advised()) refresh(followed_, scope, changes);
  mirror_changes of_exceptions;
  exceptions_.on_changes(changes, clock_, of_exceptions);
  changes.merge(std::move(of_exceptions));
  for (const ip_address& about : unheard_) exceptions_.ask(about, clock_);
  unheard_.clear();
  return changes;
}

void kernel_world::refresh(mirror& state, const netlink::dump_scope& scope,
                           mirror_changes& changes) {
  state.begin_refresh(scope.kind);
  for (const netlink::message& message : socket_.dump(scope.kind, scope.filter))
    state.apply(message, changes, message_origin::dump);
  state.end_refresh(scope.kind, changes);
}

mirror kernel_world::refreshed(mirror followed) {
  mirror_changes changes;
  changes.refresh_advised = changes.buckets_advised = true;
  changes.addresses_advised = changes.netconf_advised = true;
  for (const netlink::dump_scope& scope : changes.advised()) refresh(followed, scope, changes);
  return followed;
}

/// In vain where the device is gone; what is a member of a device that goes is none any more.
void kernel_world::join(const std::string& line) {
  const std::size_t space = line.find(' ');
  const ip_address group = *ip_address::parse(line.substr(space + 1));
  const bool v4 = group.is_v4();
  group_req request{};
  request.gr_interface = ::if_nametoindex(line.substr(0, space).c_str());
  if (request.gr_interface == 0) return;
  static_cast<void>(to_sockaddr({group, 0, 0}, request.gr_group));
  unique_fd& fd = members_[line];
  fd.reset(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  static_cast<void>(::setsockopt(fd.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, MCAST_JOIN_GROUP,
                                 &request, sizeof request));
}

/// A packet socket of the other end stands for the router behind it.
void kernel_world::spread(const std::string& line) {
  const auto said = hearsay::parse(line);
  ASSERT_TRUE(said) << line;
  told_about_.insert(said->about);
  unheard_.insert(said->about);
  const std::string frame = said->frame(), wire = "p" + std::to_string(said->device);
  sockaddr_ll there{};
  there.sll_family = AF_PACKET;
  there.sll_ifindex = static_cast<int>(::if_nametoindex(wire.c_str()));
  const unique_fd packets(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  // In vain where the device is down or gone.
  static_cast<void>(::sendto(packets.get(), frame.data(), frame.size(), 0,
                             reinterpret_cast<const sockaddr*>(&there), sizeof there));
}

void kernel_world::use_classes(std::vector<flow_class> classes) {
  classes_ = std::move(classes);
  for (const ip_address& about : told_about_)
    if (followed_.find_path_exception(about) == nullptr) unheard_.insert(about);
}

void kernel_world::note_exception(const ip_address& about, const std::vector<flow_class>& classes) {
  classes_.insert(classes_.end(), classes.begin(), classes.end());
  told_about_.insert(about);
  unheard_.insert(about);
}

void kernel_world::learn_exceptions(mirror& state) {
  detail::path_exceptions exceptions(state, [this] { return classes_; });
  for (const ip_address& about : told_about_) exceptions.ask(about, clock_);
  static_cast<void>(ask_about_exceptions(exceptions));
}

mirror_changes kernel_world::ask_about_exceptions(detail::path_exceptions& of) {
  constexpr int rounds = 4;  // A first answer is asked for twice again.
  std::vector<std::byte> buffer(netlink::datagram_size_max);
  mirror_changes changes;
  for (int round = 0; round < rounds; ++round) {
    while (const auto request = of.next_request()) {
      const auto sent = ::send(questions_.get(), request->data(), request->size(), 0);
      const auto got = sent > 0 ? ::recv(questions_.get(), buffer.data(), buffer.size(), 0) : sent;
      if (got <= 0) {
        ADD_FAILURE() << "cannot ask about an exception";
        return changes;
      }
      of.on_answer_datagram({buffer.data(), static_cast<std::size_t>(got)}, clock_, changes);
    }
    if (round + 1 == rounds) break;
    clock_ += std::chrono::seconds(2);
    of.on_timer(clock_, changes);
  }
  return changes;
}

}  // namespace cowire::testing
