// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/compiler.hpp>
#include <cowire/route/detail/class_set.hpp>
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/detail/family_compiler.hpp>
#include <cowire/route/detail/hop_planner.hpp>
#include <cowire/route/detail/hop_store.hpp>
#include <cowire/route/detail/path_facts.hpp>
#include <cowire/route/detail/version.hpp>
#include <cowire/route/multipath_hash.hpp>
#include <cowire/route/resolve_by_search.hpp>

#include <linux/if.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

namespace cowire {
struct compiler::impl {
  impl(const mirror& state, epoch_domain& epoch, publisher& publish_to, compiler_options options);

  flow_class_id add_class(const flow_class& cls);
  void set_egress(std::uint32_t interface_index, egress_slot slot);
  void clear_egress(std::uint32_t interface_index);
  void set_output(std::shared_ptr<const output_snapshot> state);
  bool divert_until_compiled();
  bool divert_before(const netlink::link& change);
  publication publish();
  [[nodiscard]] explanation explain(const flow& question);
  [[nodiscard]] hop published_hop(flow_class_id id, const flow& of) const;
  [[nodiscard]] std::vector<flow_class> distinct_classes() const;
  [[nodiscard]] compiler_statistics statistics() const noexcept;
  [[nodiscard]] bool pending() const noexcept {
    return !noted_.empty() || output_changed_ || egress_changed_ || class_added_ ||
           (rebuild_ && (version_.number() == 0 || !classes_.empty()));
  }

  detail::class_set& classes() noexcept { return classes_; }
  detail::hop_planner& planner() noexcept { return planner_; }
  mirror_changes noted_;

 private:
  [[nodiscard]] detail::family_compiler& of(ip_family family) noexcept {
    return family == ip_family::v4 ? v4_ : v6_;
  }
  [[nodiscard]] bool ends_device(const netlink::link& change) const;
  void rebuild_everything();
  void list_tunnels();
  [[nodiscard]] bool tunnels_may_move(const mirror_changes& changes) const;
  mirror_changes incorporate();

  const mirror& state_;
  epoch_domain& epoch_;
  const publisher& published_;
  compiler_options options_;
  detail::hop_planner planner_;
  detail::class_set classes_;
  std::shared_ptr<detail::hop_store> hops_;
  detail::family_compiler v4_, v6_;
  detail::version_store version_;
  bool egress_changed_ = false;
  bool output_changed_ = false;
  bool class_added_ = false;  ///< One that shares its table with another.
  bool rebuild_ = true;
  std::map<std::uint32_t, ip_address> tunnels_;  ///< Remote address by ifindex.
};

compiler::impl::impl(const mirror& state, epoch_domain& epoch, publisher& publish_to,
                     compiler_options options)
    : state_(state),
      epoch_(epoch),
      published_(publish_to),
      options_(std::move(options)),
      planner_(state, options_.restrictions, options_.numbers),
      classes_(state, planner_.output()),
      hops_(std::make_shared<detail::hop_store>(options_.hop_capacity)),
      v4_(ip_family::v4, state, options_.performance_mode, planner_, classes_, *hops_),
      v6_(ip_family::v6, state, options_.performance_mode, planner_, classes_, *hops_),
      version_(epoch, publish_to) {
  hops_->set_builder([this](const detail::hop_key& key) { return planner_.build(key); });
}

flow_class_id compiler::impl::add_class(const flow_class& cls) {
  using outcome = detail::class_set::added::outcome;
  const auto added = classes_.add(cls, !rebuild_);
  rebuild_ |= added.how == outcome::apart;
  class_added_ |= added.how == outcome::shared;
  return added.id;
}

// ------------------------------------------------------------------------------------------------
// changes

void compiler::impl::rebuild_everything() {
  for (const ip_family family : ip_families) of(family).clear();
  classes_.assign();
  for (const ip_family family : ip_families) of(family).build();
}

/// Returns what was noted.
mirror_changes compiler::impl::incorporate() {
  mirror_changes changes = std::exchange(noted_, {});
  // While a ruleset is being read nothing of what is known of it counts.
  egress_changed_ |= planner_.close(planner_.output().held());
  if (rebuild_ || !changes.links.empty()) list_tunnels();
  // Rules name devices, and those by which a tunnel's outer datagrams leave, and ask the local
  // table.
  if (planner_.output().has_something_to_say() &&
      (!changes.links.empty() ||
       ((changes.decisions_v4 || changes.decisions_v6 || tunnels_may_move(changes)) &&
        planner_.output().circumstances_differ()))) {
    planner_.output().forget();
    changes.decisions_v4 = changes.decisions_v6 = true;
  }
  const bool links = std::exchange(egress_changed_, false) || !changes.links.empty();
  class_added_ = output_changed_ = false;
  if (classes_.empty()) return changes;  // Nobody asks yet; the first class has everything built.
  const bool everything =
      std::exchange(rebuild_, false) || !options_.performance_mode ||
      ((changes.decisions_v4 || changes.decisions_v6) && !classes_.is_current());
  if (links) hops_->rebuild_if([](const detail::hop_key&) { return true; });
  for (const neighbour_key& key : changes.neighbours) hops_->rebuild_neighbour(key);
  if (!links && (everything || tunnels_may_move(changes)))
    hops_->rebuild_if(
        [this](const detail::hop_key& key) { return tunnels_.contains(key.interface_index); });
  if (everything) {
    rebuild_everything();
    return changes;
  }
  for (const ip_family family : ip_families) {
    const bool noted = family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6;
    of(family).change(changes, noted ||
                                   (!changes.nexthops.empty() && of(family).names_nexthops()) ||
                                   of(family).neighbours_look_different(changes));
  }
  for (const ip_family family : ip_families) of(family).purge_if_due();
  return changes;
}

void compiler::impl::list_tunnels() {
  tunnels_.clear();
  for (const auto& [index, device] : state_.devices())
    if (const auto* info = std::get_if<netlink::tunnel_info>(&device.link.info))
      tunnels_.emplace(index, info->remote);
}

/// Whether the outer route of some tunnel, or its next hop's MAC address, may be another one now.
bool compiler::impl::tunnels_may_move(const mirror_changes& changes) const {
  if (tunnels_.empty()) return false;
  if (changes.decisions_v4 || changes.decisions_v6 || !changes.nexthops.empty() ||
      !changes.neighbours.empty())
    return true;
  return std::ranges::any_of(tunnels_, [&](const auto& tunnel) {
    const ip_address& remote = tunnel.second;
    return std::ranges::any_of(changes.routes,
                               [&](const auto& route) {
                                 return route.destination.contains(detail::host_prefix(remote));
                               }) ||
           std::ranges::find(changes.path_mtus, remote) != changes.path_mtus.end();
  });
}

void compiler::impl::set_egress(std::uint32_t interface_index, egress_slot slot) {
  COWIRE_ASSERT(slot != divert_slot);
  planner_.egress()[interface_index] = slot;
  egress_changed_ = true;
}

void compiler::impl::clear_egress(std::uint32_t interface_index) {
  planner_.egress().erase(interface_index);
  egress_changed_ = true;
}

void compiler::impl::set_output(std::shared_ptr<const output_snapshot> state) {
  output_changed_ = true;
  if (planner_.output().set(std::move(state))) noted_.decisions_v4 = noted_.decisions_v6 = true;
}

// ------------------------------------------------------------------------------------------------
// publication

bool compiler::impl::divert_until_compiled() {
  // What is compiled sooner than a look at the clock would tell: a hundredth of a second.
  constexpr std::size_t small = 1000;
  if (!output_changed_ || classes_.empty() || version_.number() == 0) return false;
  const auto because = planner_.output().must_ask_anew();
  if (!because) return false;
  const compiler_statistics known = statistics();
  const std::size_t regions =
      !rebuild_ && classes_.is_current() ? 0 : known.prefixes_v4 + known.prefixes_v6;
  if (planner_.output().size_of_change() + regions < small || !planner_.close(because))
    return false;
  hops_->rebuild_if([](const detail::hop_key&) { return true; });
  version_.publish(state_.settings(), classes_, hops_);
  return true;
}

bool compiler::impl::ends_device(const netlink::link& change) const {
  const mirror::device* const known = state_.find_device(change.index);
  if (known == nullptr || !known->up()) return false;
  const bool up = (change.flags & IFF_UP) != 0 && detail::has_carrier(change);
  return change.action == netlink::action::remove || known->link.master != change.master ||
         (!up && detail::has_carrier(known->link));
}

bool compiler::impl::divert_before(const netlink::link& change) {
  if (classes_.empty() || version_.number() == 0 || !ends_device(change)) return false;
  planner_.take_for_gone(change.index);
  // Other plain devices have nothing to do with it; a tunnel or a VLAN may lead to it.
  hops_->rebuild_if([&](const detail::hop_key& key) {
    return key.interface_index == change.index ||
           !detail::leaves_by_itself(state_, key.interface_index);
  });
  planner_.take_for_gone(0);
  if (!hops_->changed()) return false;
  egress_changed_ = true;  // So that publish() makes them again, whatever is noted until then.
  version_.publish(state_.settings(), classes_, hops_);
  return true;
}

publication compiler::impl::publish() {
  const auto start = std::chrono::steady_clock::now();
  publication done;
  done.changes = noted_.count();
  if (pending()) {
    done.reflected = incorporate();
    version_.publish(state_.settings(), classes_, hops_);
  }
  epoch_.reclaim();
  done.version = version_.number();
  done.prefixes_evaluated = v4_.take_evaluated() + v6_.take_evaluated();
  done.duration = std::chrono::steady_clock::now() - start;
  return done;
}

// ------------------------------------------------------------------------------------------------
// questions

explanation compiler::impl::explain(const flow& question) {
  explanation told;
  told.decision = resolve_by_search(state_, question, route_question::send);
  const ip_address& to = question.destination;
  const ip_address source = question.cls.source(to.family()).value_or(ip_address::any(to.family()));
  const std::uint32_t hash =
      multipath_hash_of(state_.settings(), to.family(), question.cls.ip_protocol)(
          source, to, be16::from_host(question.cls.source_port),
          be16::from_host(question.destination_port));
  detail::decider decides(state_, detail::covers_by_search, planner_.mirrored_tables());
  const detail::hop_plan plan = planner_.plan(decides, question.cls, detail::host_prefix(to));
  const detail::planned_share& share = detail::hop_planner::share_for(plan, hash);
  if (share.output_asked)
    told.output = planner_.output().explain(question.cls, share.hop, detail::host_prefix(to),
                                            question.destination_port);
  told.rules_being_read = planner_.output().held().has_value();
  const slave_terms terms = slave_terms_of(to, be16::from_host(question.cls.source_port),
                                           be16::from_host(question.destination_port));
  if (share.divert) {
    told.template_hop = detail::divert_hop(*share.divert);
  } else {
    const detail::built_hop built = planner_.build(share.hop);
    told.template_hop = built.of(terms);
    told.unresolved = built.unresolved;
  }
  if (question.destination_port != 0 && told.template_hop.egress_of_ports != divert_slot)
    told.template_hop = told.template_hop.for_port(question.destination_port);
  const hop& shown = told.template_hop;
  if (shown.egress != divert_slot) {
    const std::size_t outermost = header_capacity - shown.header_length;
    told.destination_mac.emplace();
    std::memcpy(told.destination_mac->bytes.data(), shown.header + outermost, 6);
    if (shown.group_mac_at == outermost) told.destination_mac = detail::group_mac(to);
  }
  return told;
}

hop compiler::impl::published_hop(flow_class_id id, const flow& of) const {
  // This thread frees what is published, so it may look without entering the epoch.
  const forwarding_table* const table = published_.current();
  if (table == nullptr || id >= table->class_count)
    return detail::divert_hop(divert_reason::no_table);
  const ip_address& to = of.destination;
  const forwarding_table::class_table& tries = table->table_of(id);
  const std::uint32_t path_list_id =
      to.is_v4() ? tries.v4.lookup(to_key4(to)) : tries.v6.lookup(to_key6(to));
  const path_list paths = table->path_list_of(path_list_id);
  if (paths.count <= 1) return table->hops[paths.index];
  const be16 from_port = be16::from_host(of.cls.source_port);
  const be16 to_port = be16::from_host(of.destination_port);
  const auto terms = [&] { return slave_terms_of(to, from_port, to_port); };
  const auto hash = [&] {
    const ip_address source = of.cls.source(to.family()).value_or(ip_address::any(to.family()));
    return (to.is_v4() ? table->hash_v4 : table->hash_v6)(source, to, from_port, to_port);
  };
  return table->hops[select_hop(*table, paths, terms, hash)];
}

std::vector<flow_class> compiler::impl::distinct_classes() const {
  std::vector<flow_class> all;
  for (const detail::class_set::table& one : classes_.tables()) all.push_back(one.cls);
  return all;
}

compiler_statistics compiler::impl::statistics() const noexcept {
  compiler_statistics now;
  now.prefixes_v4 = v4_.region_count();
  now.prefixes_v6 = v6_.region_count();
  now.class_tables = classes_.tables().size();
  now.path_lists = hops_->path_lists_in_use();
  now.hops = hops_->hops_in_use();
  now.bytes_live = hops_->bytes() + version_.bytes();
  for (const detail::class_set::table& one : classes_.tables()) {
    now.bytes_live += one.tries->bytes();
    now.bytes_writer += one.tries->v4.memory().bytes_writer + one.tries->v6.memory().bytes_writer;
  }
  now.situations = v4_.situation_count() + v6_.situation_count();
  now.bytes_writer += v4_.bytes() + v6_.bytes();
  now.bytes_waiting = epoch_.statistics().bytes_waiting;
  return now;
}

// ------------------------------------------------------------------------------------------------
// public face

compiler::compiler(const mirror& state, epoch_domain& epoch, publisher& publish_to,
                   compiler_options options)
    : impl_(std::make_unique<impl>(state, epoch, publish_to, std::move(options))) {}
compiler::~compiler() = default;

flow_class_id compiler::add_class(const flow_class& cls) { return impl_->add_class(cls); }
void compiler::release_class(flow_class_id id) { impl_->classes().release(id); }
const flow_class& compiler::class_of(flow_class_id id) const { return impl_->classes().at(id); }
void compiler::set_egress(std::uint32_t interface_index, egress_slot slot) {
  impl_->set_egress(interface_index, slot);
}
void compiler::clear_egress(std::uint32_t interface_index) { impl_->clear_egress(interface_index); }

void compiler::set_output(std::shared_ptr<const output_snapshot> state) {
  impl_->set_output(std::move(state));
}

void compiler::quarantine(const ip_prefix& where) {
  impl_->planner().quarantined().insert(where);
  (where.family() == ip_family::v4 ? impl_->noted_.decisions_v4 : impl_->noted_.decisions_v6) =
      true;
}

void compiler::lift_quarantine(const ip_prefix& where) {
  if (impl_->planner().quarantined().erase(where) == 0) return;
  (where.family() == ip_family::v4 ? impl_->noted_.decisions_v4 : impl_->noted_.decisions_v6) =
      true;
}

void compiler::note(mirror_changes&& changes) { impl_->noted_.merge(std::move(changes)); }
bool compiler::pending() const noexcept { return impl_->pending(); }
std::vector<flow_class> compiler::distinct_classes() const { return impl_->distinct_classes(); }
bool compiler::divert_until_compiled() { return impl_->divert_until_compiled(); }
bool compiler::divert_before(const netlink::link& change) { return impl_->divert_before(change); }

publication compiler::publish() { return impl_->publish(); }
explanation compiler::explain(const flow& question) const { return impl_->explain(question); }
hop compiler::published_hop(flow_class_id id, const flow& of) const {
  return impl_->published_hop(id, of);
}
compiler_statistics compiler::statistics() const noexcept { return impl_->statistics(); }

}  // namespace cowire
