// SPDX-License-Identifier: Apache-2.0
/// The three-valued walk of a ruleset: which datagrams of a region of flows can be touched.
///
/// As nf_tables evaluates it, but with registers of which some bits are known. Where a match cannot
/// be decided, the walk goes both ways. Obstacles are all verdicts but accept and all statements
/// but those known to leave the datagram as it is.
///
/// One walk answers for all destinations: each way carries the set of those that may come along,
/// and what a destination is compared with (an address, a prefix, a range, elements of a set)
/// divides the set. An obstacle ends the walk for the destinations that meet it; the others go on.
///
/// The state that rules may change and later rules may see (mark, connection tracking) is carried
/// along, too; where ways meet, what differs becomes unknown.
#pragma once

#include <cowire/netlink/nft_message.hpp>
#include <cowire/route/detail/address_set.hpp>
#include <cowire/route/detail/destination_verdicts.hpp>
#include <cowire/route/detail/output_sets.hpp>
#include <cowire/route/detail/partial_bytes.hpp>
#include <cowire/route/output_path.hpp>
#include <cowire/route/port_ranges.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace cowire::detail {

inline constexpr std::uint32_t hook_local_out = 3, hook_post_routing = 4;  // NF_INET_*

/// A number of 32 bits of which some are known.
struct partial_u32 {
  std::uint32_t value = 0, known = ~std::uint32_t{0};
  void join(const partial_u32& other) noexcept {
    known &= other.known & ~(value ^ other.value);
    value &= known;
  }
  friend bool operator==(const partial_u32&, const partial_u32&) = default;
};

/// Whether chains of a table of this family see datagrams of the other one's.
[[nodiscard]] constexpr bool is_one_of_ours(netlink::nft::family which, ip_family ours) noexcept {
  using netlink::nft::family;
  return which == family::inet || which == (ours == ip_family::v4 ? family::ipv4 : family::ipv6);
}

/// Destination ports that are asked about together, and what was learnt on the way.
struct asked_ports {
  port_range range{0, 0xffff};
  /// Within the range: the first port of a part that a comparison told from the one before, which
  /// is why it could not be decided. In any order, several times.
  std::vector<std::uint16_t> divided_at{};
  bool meets_notrack = false;  ///< By some ways, early enough to count.
  std::size_t steps = 0;       ///< What the walks cost.

  /// Whether parts of the range may have other answers than this, which is for all of it.
  [[nodiscard]] bool may_pay_to_divide(const destination_verdicts& answer) const noexcept {
    return !divided_at.empty() &&
           (answer.touches_something() || (meets_notrack && !answer.tracked().empty()));
  }
};

class output_walk {
 public:
  using chain_rules = netlink::nft::ruleset::chain_rules;
  using rule = netlink::nft::rule;

  /// All outlive the walk; `sets` are those of the rules. Of the region's destinations only those
  /// that `into` has as untouched are asked for; what meets an obstacle is told there. `ports`:
  /// where the region has no destination port; null = any, and nobody wants to know.
  output_walk(const netlink::nft::ruleset& rules, output_sets& sets, const output_flow& region,
              tracking_state tracked, destination_verdicts& into, asked_ports* ports = nullptr);
  ~output_walk() {
    if (ports_ != nullptr) ports_->steps += steps_;
  }
  output_walk(const output_walk&) = delete;
  output_walk& operator=(const output_walk&) = delete;

  /// All base chains of both hooks. The destinations whose datagrams pass a `notrack` for certain
  /// before connection tracking would see them; those that meet an obstacle may be among them.
  address_set run();
  /// After it: whether the other state of a flow's entry may have another answer.
  [[nodiscard]] bool depends_on_tracking() const noexcept { return depends_on_tracking_; }

  /// Without run(): the destinations whose datagrams may get past the matches of a rule, whatever
  /// other rules do to them before. With `into` that knows of all destinations.
  [[nodiscard]] address_set that_may_match(const chain_rules& chain, const rule& one);
  /// Likewise whether any datagram may that is new to connection tracking, or untracked.
  [[nodiscard]] bool may_match_new(const chain_rules& chain, const rule& one);
  /// Those for which a look-up of this set by the rule may have another answer for these elements.
  [[nodiscard]] address_set that_may_find(const chain_rules& chain, const rule& one,
                                          const netlink::nft::object_key& set,
                                          std::span<const netlink::nft::element* const> elements);

  /// Expressions and elements looked at in one walk; more is an obstacle: not understood in time.
  static constexpr std::size_t steps_max = 2'000'000;
  /// As NFT_JUMP_STACK_SIZE, beyond which the kernel refuses a ruleset; `goto` counts here too.
  static constexpr unsigned depth_max = 64, jump_depth_max = 16;

 private:
  using expression = netlink::nft::expression;
  using expression_lookup = netlink::nft::expressions::lookup;

  /// What rules may have changed by now.
  struct packet_state {
    partial_u32 mark;
    bool maybe_untracked =
        false;            ///< A `notrack` may have been passed, by others than `untracked`.
    bool forked = false;  ///< Not every datagram to these destinations has come this way.
    address_set destinations;
    /// What goes to these of them has passed a `notrack` before connection tracking. There may be
    /// others in it that do not come this way.
    address_set untracked;
    void join(const packet_state& other);
    friend bool operator==(const packet_state&, const packet_state&) = default;
  };
  using maybe_state = std::optional<packet_state>;
  /// Ways out of a chain or a rule, with the state on each that exists.
  struct ways {
    maybe_state on;        ///< To the next rule, or back from the end of a chain.
    maybe_state accepted;  ///< The base chain is done.
    maybe_state returned;  ///< Of a rule: the chain ends here.
  };
  /// A byte of the destination in a register: (byte & mask) ^ flip.
  struct destination_byte {
    static constexpr std::uint8_t none = 0xff;
    std::uint8_t index = none, mask = 0xff, flip = 0;
    [[nodiscard]] bool is_plain(std::size_t as) const noexcept {
      return index == as && mask == 0xff && flip == 0;
    }
  };
  /// One rule's evaluation.
  struct evaluation {
    const chain_rules* chain = nullptr;
    const rule* current = nullptr;
    unsigned depth = 0, jumps = 0;
    partial_bytes<netlink::nft::register_bytes> registers;
    std::array<destination_byte, netlink::nft::register_bytes> destination_at;
    /// 1 = the high byte of the destination port, 2 = the low one; where it is asked for.
    std::array<std::uint8_t, netlink::nft::register_bytes> port_at{};
    packet_state state;
    ways out;
    bool ended = false;  ///< No way goes on within the rule.
    /// Where the datagram's length lies: in host order, and made big endian.
    std::optional<std::size_t> length_at, ordered_length_at;
    /// The way on to the next expression exists, but so may the one out of the rule.
    void fork() {
      state.forked = true;
      merge(out.on, state);
    }
    void must_break() {
      merge(out.on, std::exchange(state, {}));
      ended = true;
    }
    void apply(ternary matched) {
      if (matched == ternary::no) must_break();
      if (matched == ternary::maybe) fork();
    }
  };
  /// A match that the destination takes part in deciding.
  struct destination_match {
    /// Whether the rest of the datagram matches, for destinations in `where`; others do not match.
    ternary rest = ternary::yes;
    address_set where;
  };

  static void merge(maybe_state& to, maybe_state from);
  void build_headers();
  void build_network_v4();
  void build_network_v6();
  [[nodiscard]] partial_u32 tracking_in(const packet_state& state) const noexcept;
  [[nodiscard]] bool concerns(const chain_rules& one, std::uint32_t hook) const;
  void run_hook(std::uint32_t hook, packet_state& state);
  [[nodiscard]] packet_state run_chains_alike(std::span<const chain_rules* const> chains,
                                              packet_state state);
  [[nodiscard]] packet_state run_base_chain(const chain_rules& one, packet_state state);
  [[nodiscard]] ways run_chain(const chain_rules& one, packet_state state, unsigned depth,
                               unsigned jumps);
  [[nodiscard]] ways run_rule(const chain_rules& chain, const rule& one, packet_state state,
                              unsigned depth, unsigned jumps);
  [[nodiscard]] evaluation begin_anywhere(const chain_rules& chain, const rule& one);
  void run_matches(evaluation& e);
  [[nodiscard]] address_set with_obstacles(address_set found) const;
  [[nodiscard]] address_set that_find(const evaluation& e, const expression_lookup& l,
                                      const output_sets::prepared& set,
                                      std::span<const netlink::nft::element* const> elements);
  void run_verdict(evaluation& e, const netlink::nft::verdict& v, packet_state state);

  void on(evaluation& e, const expression& x, const netlink::nft::expressions::other&);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::immediate& i);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::compare& c);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::bitwise& b);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::bitwise_unknown& b);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::byteorder& b);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::range& r);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::lookup& l);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::payload_load& p);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::payload_write& p);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::meta_load& m);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::meta_write& m);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::ct_load& c);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::fib& f);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::option_load& o);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::unknown_load&);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::soft&);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::notrack&);
  void on(evaluation& e, const expression& x, const netlink::nft::expressions::xt_match& m);

  void look_up(evaluation& e, const expression_lookup& l, const set_answer& answer);
  void look_up_destination(evaluation& e, const expression_lookup& l,
                           const destination_answer& answer);
  void answer_verdicts(evaluation& e, const set_answer& answer);
  /// Unset: the destination has no part in this key, or not one that intervals can express.
  [[nodiscard]] std::optional<destination_match> equal_to(const evaluation& e, std::size_t at,
                                                          std::span<const std::byte> value);
  [[nodiscard]] std::optional<address_set> between(const evaluation& e, std::size_t at,
                                                   std::span<const std::byte> low,
                                                   std::span<const std::byte> high) const;
  /// Unset: as it is without a destination.
  [[nodiscard]] std::optional<destination_answer> answer_for(const evaluation& e,
                                                             const expression_lookup& l,
                                                             const output_sets::prepared& set);
  class answer_builder;
  void answer_plainly(const output_sets::prepared& set, const address_set& within,
                      answer_builder& builder, std::size_t& steps) const;
  void answer_ports(const output_sets::prepared& set, answer_builder& builder);
  [[nodiscard]] bool answer_fields(const evaluation& e, const expression_lookup& l,
                                   const output_sets::prepared& set, answer_builder& builder);
  [[nodiscard]] std::optional<destination_match> match_element(const evaluation& e,
                                                               std::size_t key_at,
                                                               const output_sets::prepared& set,
                                                               const partial_key& key,
                                                               const netlink::nft::element& one);
  [[nodiscard]] std::optional<destination_match> also_within(
      const evaluation& e, std::size_t key_at, std::size_t at, std::span<const std::byte> low,
      std::span<const std::byte> high, const partial_key& key, destination_match match);
  [[nodiscard]] bool has_port_at(const evaluation& e, std::size_t at) const noexcept {
    return at + 1 < netlink::nft::register_bytes && e.port_at[at] == 1 && e.port_at[at + 1] == 2;
  }
  /// Whether the asked ports lie between these; where not all do the same, notes the bounds.
  [[nodiscard]] ternary ports_between(std::uint16_t low, std::uint16_t high);
  [[nodiscard]] ternary ports_between(std::span<const std::byte> low,
                                      std::span<const std::byte> high);
  /// Unset: the key is not the asked ports.
  [[nodiscard]] std::optional<ternary> port_match(const evaluation& e, std::size_t at,
                                                  std::span<const std::byte> low,
                                                  std::span<const std::byte> high);
  [[nodiscard]] ternary match_xt_ports(const evaluation& e,
                                       const netlink::nft::expressions::xt_match& m);
  /// Goes on within the rule with those destinations that match, out of it with the others; both
  /// ways with those that are possible and not sure.
  void divide(evaluation& e, const address_set& possible, const address_set& sure, bool inverted);
  void apply(evaluation& e, destination_match match, bool inverted);
  [[nodiscard]] ternary match_xt(const evaluation& e, const netlink::nft::expressions::xt_match& m,
                                 std::optional<std::uint16_t> destination_port) const;
  [[nodiscard]] bool load_meta(evaluation& e, const netlink::nft::expressions::meta_load& m);
  void store(evaluation& e, std::size_t at, std::span<const std::uint8_t> bytes);
  void store_unknown(evaluation& e, std::size_t at, std::size_t length);
  void store_u32(evaluation& e, std::size_t at, const partial_u32& number);
  [[nodiscard]] partial_key key_at(const evaluation& e, std::size_t at, std::size_t length) const;
  static void overwrite(evaluation& e, std::size_t at, std::size_t length);
  /// All destinations of the evaluation's state meet an obstacle; it has ended.
  void touch(evaluation& e, divert_reason reason, const std::string& what);
  void stop(const chain_rules& chain, std::uint64_t handle, const packet_state& state,
            divert_reason reason, const std::string& what);
  [[nodiscard]] bool stopped() const noexcept { return into_.untouched().empty(); }
  [[nodiscard]] bool spend(const evaluation& e, std::size_t steps = 1);

  const netlink::nft::ruleset& rules_;
  const output_flow& region_;
  const tracking_state tracked_;
  const ip_family family_;
  output_sets& sets_;
  destination_verdicts& into_;
  asked_ports* const ports_;  ///< Null where the port is known, or nobody wants to know.
  unsigned port_scans_ = 0;
  partial_bytes<64> network_;
  std::size_t network_size_ = 0;
  partial_bytes<8> transport_;
  std::size_t steps_ = 0;
  std::uint32_t hook_ = 0;
  const chain_rules* base_ = nullptr;  ///< The base chain that is being walked.
  mutable bool depends_on_tracking_ = false;
};

}  // namespace cowire::detail
