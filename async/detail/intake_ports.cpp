// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/intake_ports.hpp>

#include <algorithm>
#include <utility>

namespace cowire::detail {
namespace {

using namespace std::chrono_literals;

/// A port that was used this lately is in use: it does not make room for another of its client's,
/// lest two clients that take turns open and close ports all the time.
constexpr auto in_use_time = 1s;
constexpr auto complaint_interval = 60s;
constexpr std::size_t complaint_limit = 256;  ///< Users that complaints are remembered of.

std::string name_of(const intake_peer& client) {
  return "user " + std::to_string(client.uid) + " (process " + std::to_string(client.pid) + ")";
}

}  // namespace

intake_ports::intake_ports(sender_maker make, const intake_options& options,
                           cowire::producer received, cowire::producer copies, log_callback log)
    : make_(std::move(make)),
      options_(options),
      received_(std::move(received)),
      copies_(std::move(copies)),
      log_(std::move(log)) {}

std::shared_ptr<intake_senders> intake_ports::use(const intake_peer& by, std::uint16_t port) {
  if (port == 0) port = options_.sender.source_port;
  const auto now = clock::now();
  const key which{by.uid, port};
  if (const auto known = ports_.find(which); known != ports_.end()) {
    known->second.used = now;
    return known->second.senders;
  }
  if (!make_room(by, now)) return nullptr;
  sender_options wanted = options_.sender;
  wanted.source_port = port;
  wanted.owner = by.uid;
  wanted.when_full = full_policy::wait;  // Back-pressure reaches the clients by their own socket.
  std::error_code ec;
  auto made = std::make_shared<intake_senders>();
  wanted.via = received_;
  made->received = make_(wanted, ec);
  if (!ec) {
    wanted.via = copies_;
    made->copies = make_(wanted, ec);
  }
  if (ec) {
    complain(by, port, ec);
    return nullptr;
  }
  ++by_client_[by];
  ++by_user_[by.uid];
  return ports_.emplace(which, entry{std::move(made), by, now}).first->second.senders;
}

bool intake_ports::make_room(const intake_peer& by, clock::time_point now) {
  const auto mine = by_client_.find(by);
  if (mine != by_client_.end() && mine->second >= options_.ports_per_client) {
    const auto is_mine = [&](const key&, const entry& e) { return e.opened_by == by; };
    if (close_oldest(is_mine, now - in_use_time)) return true;
    complain(by, "uses " + std::to_string(mine->second) +
                     " source ports, as many as one client may; datagrams from further ones are "
                     "refused until one of them is no longer used");
    return false;
  }
  if (ports_.size() < options_.port_limit) return true;
  const std::uint32_t greatest = greatest_user();
  const auto held = by_user_.find(by.uid);
  const bool is_less = held == by_user_.end() || held->second < by_user_.at(greatest);
  const auto is_greatest = [&](const key& k, const entry&) { return k.first == greatest; };
  if (is_less && close_oldest(is_greatest, now)) return true;
  if (close_oldest([](const key&, const entry&) { return true; }, now - in_use_time)) return true;
  complain(by, "finds all " + std::to_string(options_.port_limit) + " source ports in use");
  return false;
}

template <class Counts>
bool intake_ports::close_oldest(Counts counts, clock::time_point before) {
  auto oldest = ports_.end();
  for (auto one = ports_.begin(); one != ports_.end(); ++one)
    if (counts(one->first, one->second) &&
        (oldest == ports_.end() || one->second.used < oldest->second.used))
      oldest = one;
  if (oldest == ports_.end() || oldest->second.used > before) return false;
  static_cast<void>(close(oldest));
  return true;
}

intake_ports::iterator intake_ports::close(iterator which) {
  const auto less = [](auto& counts, const auto& of) {
    const auto count = counts.find(of);
    if (--count->second == 0) counts.erase(count);
  };
  less(by_client_, which->second.opened_by);
  less(by_user_, which->first.first);
  return ports_.erase(which);
}

void intake_ports::close_idle() {
  const auto before = clock::now() - options_.port_idle;
  for (auto one = ports_.begin(); one != ports_.end();)
    one = one->second.used > before ? std::next(one) : close(one);
}

std::uint32_t intake_ports::greatest_user() const {
  const auto less = [](const auto& a, const auto& b) { return a.second < b.second; };
  return std::ranges::max_element(by_user_, less)->first;
}

void intake_ports::complain(const intake_peer& by, std::uint16_t port, std::error_code why) {
  std::string text = "cannot use UDP port " + std::to_string(port) + ": " + why.message();
  if (why == std::errc::operation_not_permitted)
    text =
        "cannot be sent for: without CAP_SETUID no socket can be made that is theirs, and "
        "another's may be routed otherwise; run as root, or as that user";
  else if (why == std::errc::too_many_files_open)
    text += "; raise the limit of open files (ulimit -n)";
  complain(by, text);
}

void intake_ports::complain(const intake_peer& by, const std::string& text) {
  const auto now = clock::now();
  std::erase_if(complained_, [&](const auto& c) { return now - c.second > complaint_interval; });
  if (complained_.size() >= complaint_limit || !complained_.emplace(by.uid, now).second) return;
  if (log_) log_(log_severity::warning, "intake: " + name_of(by) + " " + text);
}

}  // namespace cowire::detail
