// SPDX-License-Identifier: Apache-2.0
#include "tests/netlink/world.hpp"

#include <cowire/netlink/codec.hpp>

#include <algorithm>

namespace cowire::test {
namespace {

using namespace netlink;

// The message as a dump would tell it: what only a notification says is reset.
message settled(message m) {
  std::visit([](auto& object) { object.action = action::add; }, m);
  if (auto* r = std::get_if<route>(&m)) r->placement = {};
  if (auto* n = std::get_if<nexthop_object>(&m)) n->replace = false;
  return m;
}

struct key_writer {
  std::string operator()(const link& l) const { return "link " + std::to_string(l.index); }
  std::string operator()(const address& a) const {
    return "address " + std::to_string(a.index) + ' ' + a.local.to_string() + '/' +
           std::to_string(a.prefix_length);
  }
  std::string operator()(const route& r) const {
    std::string key = group_of(r);
    for (const next_hop& hop : r.next_hops)
      key += " dev " + std::to_string(hop.index) + " via " +
             (hop.gateway ? hop.gateway->to_string() : "none");
    return key + " nhid " + std::to_string(r.nexthop_id) + " type " + std::to_string(r.type);
  }
  // A rule has no key but all that it says.
  std::string operator()(const rule& r) const {
    const auto bytes = encode(settled(r));
    std::string key = "rule " + std::to_string(r.priority) + ' ';
    for (const std::byte b : bytes) key += static_cast<char>(b);
    return key;
  }
  std::string operator()(const neighbour& n) const {
    return "neighbour " + std::to_string(n.index) + ' ' + n.destination.to_string();
  }
  std::string operator()(const nexthop_object& n) const {
    return "nexthop " + std::to_string(n.id);
  }
  std::string operator()(const nexthop_bucket& b) const {
    return "nexthop " + std::to_string(b.group) + " bucket " + std::to_string(b.index);
  }
  std::string operator()(const netconf& n) const {
    return "netconf " + std::to_string(static_cast<int>(n.family)) + ' ' + std::to_string(n.index);
  }
  std::string operator()(const membership& m) const {
    return "membership " + std::to_string(m.index) + ' ' + m.group.to_string();
  }

  // What NLM_F_REPLACE goes by.
  static std::string group_of(const route& r) {
    return "route table " + std::to_string(r.table) + ' ' + r.destination.to_string() + " from " +
           r.source.to_string() + " tos " + std::to_string(r.tos) + " metric " +
           std::to_string(r.priority);
  }
};

// A notification of netconf tells only what changed.
void merge(netconf& known, const netconf& news) {
  if (news.forwarding) known.forwarding = news.forwarding;
  if (news.ignore_routes_with_linkdown)
    known.ignore_routes_with_linkdown = news.ignore_routes_with_linkdown;
  if (news.multicast_forwarding) known.multicast_forwarding = news.multicast_forwarding;
}

std::string key_of(const message& m) { return std::visit(key_writer{}, m); }

}  // namespace

void world::apply(const message& m) {
  const std::string key = key_of(m);
  const bool removal =
      std::visit([](const auto& object) { return object.action; }, m) == action::remove;
  if (removal) {
    objects_.erase(key);
    return;
  }
  if (const auto* r = std::get_if<route>(&m); r && r->placement.replace) {
    const std::string group = key_writer::group_of(*r) + ' ';
    std::erase_if(objects_, [&](const auto& entry) { return entry.first.starts_with(group); });
  }
  const auto [entry, is_new] = objects_.try_emplace(key, settled(m));
  if (is_new) return;
  if (auto* known = std::get_if<netconf>(&entry->second))
    merge(*known, std::get<netconf>(m));
  else
    entry->second = settled(m);
}

void world::erase(const dump_scope& scope) {
  std::erase_if(objects_, [&](const auto& entry) {
    return kind_of(entry.second) == scope.kind && matches(scope.filter, entry.second);
  });
}

std::string difference(const world& left, const world& right) {
  std::string text;
  for (const auto& [key, value] : left.objects()) {
    const auto other = right.objects().find(key);
    if (other == right.objects().end())
      text += "only left: " + key + '\n';
    else if (other->second != value)
      text += "differs: " + key + '\n';
  }
  for (const auto& [key, value] : right.objects())
    if (!left.objects().contains(key)) text += "only right: " + key + '\n';
  return text;
}

bool consumer::drain(monitor& source) {
  bool in_order = true;
  while (auto event = source.next_event())
    in_order &= std::visit([this](const auto& e) { return apply(e); }, *event);
  return in_order;
}

void consumer::note(const char* name) {
  if (last_ == name) return;
  history_ += (history_.empty() ? "" : " ") + std::string(name);
  last_ = name;
}

bool consumer::apply(const events::sync_started&) {
  note("sync_started");
  shadow_.emplace();
  refreshing_.reset();
  return true;
}

bool consumer::apply(const events::object& e) {
  note(e.from_event ? "replayed" : "object");
  if (refreshing_) {
    refreshed_.push_back(e.value);
    return kind_of(e.value) == refreshing_->kind;
  }
  if (!shadow_) return false;
  shadow_->apply(e.value);
  return true;
}

bool consumer::apply(const events::dump_restarted& e) {
  note("dump_restarted");
  if (!shadow_ || refreshing_) return false;
  shadow_->erase(e.scope);
  return true;
}

bool consumer::apply(const events::sync_complete&) {
  note("sync_complete");
  if (!shadow_ || refreshing_) return false;
  live_ = std::move(*shadow_);
  shadow_.reset();
  has_live_ = true;
  return true;
}

bool consumer::apply(const events::sync_abandoned& e) {
  note("sync_abandoned");
  setbacks_.push_back(e.reason);
  shadow_.reset();
  refreshing_.reset();
  return bool{e.reason};
}

bool consumer::apply(const events::change& e) {
  note("change");
  live_.apply(e.value);
  return has_live_;
}

bool consumer::apply(const events::refresh_started& e) {
  note("refresh_started");
  refreshing_ = e.scope;
  refreshed_.clear();
  return has_live_ && !shadow_;
}

bool consumer::apply(const events::refresh_complete& e) {
  note("refresh_complete");
  if (!refreshing_ || *refreshing_ != e.scope) return false;
  live_.erase(e.scope);
  for (const message& value : refreshed_) live_.apply(value);
  refreshing_.reset();
  return true;
}

}  // namespace cowire::test
