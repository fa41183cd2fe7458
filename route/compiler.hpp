// SPDX-License-Identifier: Apache-2.0
/// Turns the mirror into forwarding tables: one LPM trie per flow class, path lists, hops.
///
/// For every prefix that matters to anybody (routes of all tables that rules can reach, `to`
/// selectors, neighbours, path MTUs, special ranges) the compiler asks: what would the kernel
/// decide for a destination inside this prefix and inside no longer one? The answers make one trie
/// per flow class, so the fast path does one look-up whatever the number of tables. A change of one
/// route redoes that prefix and those inside it whose answer can depend on it; a change of a
/// neighbour, a MAC address or an egress socket redoes hops and path lists only, whatever the
/// number of prefixes.
///
/// Ownership: the compiler owns every byte that a published forwarding_table leads to, and frees it
/// through the epoch domain. Mirror, epoch domain and publisher outlive it. Destroy it only after
/// all readers left the epoch domain.
///
/// One thread at a time (the control thread); readers use the published table only.
#pragma once

#include <cowire/route/epoch.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/outer_flows.hpp>
#include <cowire/route/output_path.hpp>
#include <cowire/route/publisher.hpp>
#include <cowire/route/resolve.hpp>
#include <cowire/route/restrictions.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace cowire {

struct compiler_options {
  /// False: every publication rebuilds everything, asking the reference resolver's own linear
  /// look-up.
  bool performance_mode = true;
  /// Most hops alive at a time, the old versions' included. Address space, not memory, is reserved
  /// for all of them.
  std::uint32_t hop_capacity = 1u << 20;
  route_restrictions restrictions{};
  /// Whom hops over tunnels ask for the number of their outer headers, where connections are
  /// tracked; outlives the compiler. Null: such tunnels divert as conntrack_new.
  outer_flows* numbers = nullptr;
};

/// What a publish() did.
struct publication {
  std::uint64_t version = 0;
  std::size_t changes = 0;              ///< Noted changes that went into this version.
  std::size_t prefixes_evaluated = 0;   ///< Decisions taken, all classes together.
  std::chrono::nanoseconds duration{};  ///< Compilation and publication.
  /// What was noted and is reflected now, for who looks for what concerns him.
  mirror_changes reflected;
};

struct compiler_statistics {
  std::size_t prefixes_v4 = 0, prefixes_v6 = 0;            ///< Regions a class_table distinguishes.
  std::size_t class_tables = 0, path_lists = 0, hops = 0;  ///< In use, divert entries included.
  std::size_t situations = 0;     ///< Kinds of region that decisions tell apart.
  std::size_t bytes_live = 0;     ///< What the published version is made of.
  std::size_t bytes_writer = 0;   ///< The compiler's own record of prefixes and regions.
  std::size_t bytes_waiting = 0;  ///< Parts of older versions until their grace period ends.
};

/// What the fast path would do with a flow, and why.
struct explanation {
  resolution decision;
  hop template_hop{};                          ///< A divert hop names its reason.
  std::optional<mac_address> destination_mac;  ///< Where the hop is a real one.
  /// Of the output path, where the compiler knows it; asked for this destination and port, and the
  /// flow class. The port counts only where hops tell it.
  output_verdict output;
  /// Of a hop that diverts as neighbour_unresolved: whose address is not known. For a tunnel that
  /// is a neighbour on the way to its remote address.
  std::optional<neighbour_key> unresolved{};
  /// The ruleset was replaced, and what replaced it is being read: everything diverts meanwhile.
  bool rules_being_read = false;
};

class compiler {
 public:
  compiler(const mirror& state, epoch_domain& epoch, publisher& publish_to,
           compiler_options options = {});
  ~compiler();
  compiler(const compiler&) = delete;
  compiler& operator=(const compiler&) = delete;

  /// Registers a flow class; an equal one gets the same id. Takes effect with the next publish():
  /// until then no request of this class may be sent, because the current version has no
  /// class_index entry for it.
  flow_class_id add_class(const flow_class& cls);
  /// Takes one add_class() back: once all of a class are, its id may stand for another. No request
  /// of it may be on the way then.
  void release_class(flow_class_id id);
  [[nodiscard]] const flow_class& class_of(flow_class_id id) const;
  /// Of the classes that are compiled one for each table: those that decisions can differ between.
  [[nodiscard]] std::vector<flow_class> distinct_classes() const;

  /// Frames for `interface_index` go to the AF_XDP socket `slot` of the TX core from the next
  /// publish() on.
  void set_egress(std::uint32_t interface_index, egress_slot slot);
  /// They go to the kernel path again. Before the socket is closed: publish, then
  /// epoch_domain::synchronize().
  void clear_egress(std::uint32_t interface_index);

  /// Destinations inside `where` are left to the kernel (audit_quarantine) until lifted.
  void quarantine(const ip_prefix& where);
  void lift_quarantine(const ip_prefix& where);

  /// From the next publish() on, destinations of a flow class for which anything on the output path
  /// is not proven to leave them alone are diverted under its reason. Until it is called nothing is
  /// asked. What rules compare destinations with (addresses, prefixes, ranges, elements of sets)
  /// becomes boundaries of regions; destination ports become a few ranges of a hop, and where there
  /// would be more than port_ranges_max, all ports are diverted.
  void set_output(std::shared_ptr<const output_snapshot> state);

  /// Notes what apply() changed in the mirror. Cheap; note many, publish once.
  void note(mirror_changes&& changes);
  /// Whether anything was noted since the last publish().
  [[nodiscard]] bool pending() const noexcept;

  /// Where it will take long to compile what set_output() has noted (the output path has to be
  /// evaluated as a whole, and is large): publishes at once that all is diverted under the reason
  /// of what has changed, so that nothing is decided any longer by what is out of date, and leaves
  /// everything to the publish() that must follow. False: nothing to do.
  bool divert_until_compiled();

  /// Called before the mirror hears of a device that goes down or away, loses its carrier or
  /// changes its master: routes vanish with it, which takes long to find out and to compile where
  /// there are many. Publishes at once that what leaves over it diverts, and leaves everything
  /// else, what was noted included, to the publish() that must follow. Takes as long as there are
  /// hops, whatever the number of routes. False: it is no such message, or nothing leaves over it.
  bool divert_before(const netlink::link& change);

  /// Compiles what was noted, publishes a new version with one atomic store, retires the parts that
  /// it replaced. Frees what earlier versions held once no reader can see it. Without anything
  /// noted it frees, publishes nothing, and tells the current version.
  publication publish();

  /// Resolves `question` on the mirror as it is now and shows the hop that the next publish() would
  /// have for it: what a rule of policy routing decides by the destination port, which a class does
  /// not know, is left to the kernel. Without a port, a hop that diverts some ports is shown as it
  /// is, as one that diverts. The class need not be registered.
  [[nodiscard]] explanation explain(const flow& question) const;

  /// The hop that the published table has for a datagram of a flow of class `id`. A copy: until
  /// the next publish() it is what TX cores take. Cheap: a look-up.
  [[nodiscard]] hop published_hop(flow_class_id id, const flow& of) const;

  [[nodiscard]] compiler_statistics statistics() const noexcept;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace cowire
