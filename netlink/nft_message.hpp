// SPDX-License-Identifier: Apache-2.0
/// nf_tables as the kernel tells it: tables, chains, rules with their expressions, sets, elements.
///
/// Plain values in, plain values out; nothing here asks the kernel (nft_codec.hpp decodes,
/// nft_reader.hpp reads a whole ruleset). Numbers are in host order. What registers hold, what
/// `compare` compares and what sets contain stays *bytes*, as nf_tables itself sees it: a
/// comparison there is a memcmp, and nft(8) merges, splits and shortens fields as it likes.
///
/// A message that has an attribute which this code does not know loses nothing: the expression is
/// then `expressions::other`, a rule, set or chain says so in `not_understood`. Whoever evaluates
/// must not pass by such a thing.
///
/// Source: the kernel's include/uapi/linux/netfilter/nf_tables.h; what the expressions do is in
/// net/netfilter/nft_*.c.
#pragma once

#include <cowire/base/shared_list.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

namespace cowire::netlink::nft {

/// NFPROTO_*.
enum class family : std::uint8_t { inet = 1, ipv4 = 2, arp = 3, netdev = 5, bridge = 7, ipv6 = 10 };
[[nodiscard]] const char* name(family which) noexcept;

using bytes = std::vector<std::byte>;

/// Where in the 64 bytes of registers something lies. nf_tables numbers them twice: four of 16
/// bytes, or sixteen of 4.
using register_offset = std::uint8_t;
inline constexpr std::size_t register_bytes = 64;

/// Of an `immediate`, or what a verdict map answers.
struct verdict {
  enum : std::int32_t {
    drop = 0,
    accept = 1,
    stolen = 2,
    queue = 3,
    proceed = -1,  ///< NFT_CONTINUE
    leave_rule = -2,
    jump = -3,
    go_to = -4,
    return_to_caller = -5
  };
  std::int32_t code = accept;
  std::string chain;  ///< Of jump and go_to.
  friend bool operator==(const verdict&, const verdict&) = default;
};

namespace expressions {

/// One that is not decoded: a name is all that is known, see expression::name.
struct other {
  friend bool operator==(const other&, const other&) = default;
};
struct immediate {
  register_offset to = 0;
  std::variant<bytes, nft::verdict> value;
  friend bool operator==(const immediate&, const immediate&) = default;
};
struct compare {
  enum operation : std::uint32_t { equal, not_equal, less, at_most, greater, at_least };
  register_offset from = 0;
  std::uint32_t operation = equal;
  bytes value;
  friend bool operator==(const compare&, const compare&) = default;
};
/// to = (from & mask) ^ exclusive_or.
struct bitwise {
  register_offset from = 0, to = 0;
  std::uint32_t length = 0;
  bytes mask, exclusive_or;  ///< `length` bytes each.
  friend bool operator==(const bitwise&, const bitwise&) = default;
};
/// A shift of a whole value, or an operation with a second register: not evaluated, result unknown.
struct bitwise_unknown {
  register_offset to = 0;
  std::uint32_t length = 0;
  friend bool operator==(const bitwise_unknown&, const bitwise_unknown&) = default;
};
/// Each group of `size` bytes reversed on little-endian hosts, whichever way it goes.
struct byteorder {
  register_offset from = 0, to = 0;
  std::uint32_t length = 0, size = 0;
  friend bool operator==(const byteorder&, const byteorder&) = default;
};
struct range {
  register_offset from = 0;
  bool outside = false;  ///< True: matches what is not inside.
  bytes low, high;       ///< Both inside.
  friend bool operator==(const range&, const range&) = default;
};
struct lookup {
  std::string set;
  register_offset key = 0;
  /// Where a map's answer goes; `verdict_register` says that it is obeyed. Unset: a set.
  std::optional<register_offset> to;
  bool inverted = false;
  friend bool operator==(const lookup&, const lookup&) = default;
};
inline constexpr register_offset verdict_register = 0xff;

enum class payload_base : std::uint32_t {
  link = 0,
  network = 1,
  transport = 2,
  inner = 3,
  tun = 4
};
struct payload_load {
  register_offset to = 0;
  payload_base base = payload_base::link;
  std::uint32_t offset = 0, length = 0;
  friend bool operator==(const payload_load&, const payload_load&) = default;
};
struct payload_write {
  register_offset from = 0;
  payload_base base = payload_base::link;
  std::uint32_t offset = 0, length = 0;
  friend bool operator==(const payload_write&, const payload_write&) = default;
};
/// NFT_META_*.
enum class meta_key : std::uint32_t {
  length = 0,
  protocol = 1,
  priority = 2,
  mark = 3,
  iif = 4,
  oif = 5,
  iifname = 6,
  oifname = 7,
  iiftype = 8,
  oiftype = 9,
  skuid = 10,
  skgid = 11,
  nftrace = 12,
  rtclassid = 13,
  secmark = 14,
  nfproto = 15,
  l4proto = 16,
  pkttype = 19,
  cpu = 20,
  iifgroup = 21,
  oifgroup = 22,
  cgroup = 23,
};
struct meta_load {
  register_offset to = 0;
  meta_key key = meta_key::length;
  friend bool operator==(const meta_load&, const meta_load&) = default;
};
struct meta_write {
  register_offset from = 0;
  meta_key key = meta_key::length;
  friend bool operator==(const meta_write&, const meta_write&) = default;
};
/// NFT_CT_*: the others are not told apart.
inline constexpr std::uint32_t ct_key_state = 0, ct_key_direction = 1;
struct ct_load {
  register_offset to = 0;
  std::uint32_t key = ct_key_state;
  friend bool operator==(const ct_load&, const ct_load&) = default;
};
struct fib {
  static constexpr std::uint32_t result_type = 3;
  enum : std::uint32_t { of_source = 1, of_destination = 2 };
  register_offset to = 0;
  std::uint32_t result = 0, flags = 0;
  friend bool operator==(const fib&, const fib&) = default;
};
/// Of an extension header of IPv6 or an option of IPv4, whether there is one, or bytes of it: then
/// the rule ends where there is none.
struct option_load {
  enum carrier : std::uint32_t { ipv6 = 0, tcp = 1, ipv4 = 2 };  ///< NFT_EXTHDR_OP_*.
  register_offset to = 0;
  std::uint32_t of = ipv6;
  std::uint8_t type = 0;  ///< The number of the header or option.
  bool presence = false;  ///< 1 or 0, in a register of 32 bits.
  friend bool operator==(const option_load&, const option_load&) = default;
};
/// Reads something that is not modelled into a register and does nothing else: rt, socket, hash,
/// xfrm, tunnel, or in a way that this code does not know.
struct unknown_load {
  friend bool operator==(const unknown_load&, const unknown_load&) = default;
};
/// counter or last: the datagram is left alone.
struct soft {
  friend bool operator==(const soft&, const soft&) = default;
};
struct notrack {
  friend bool operator==(const notrack&, const notrack&) = default;
};
/// A match of x_tables (iptables-nft); `info` is the raw struct of linux/netfilter/xt_*.h.
struct xt_match {
  std::string name;
  std::uint32_t revision = 0;
  bytes info;
  friend bool operator==(const xt_match&, const xt_match&) = default;
};

}  // namespace expressions

struct expression {
  std::string name;  ///< As the kernel names it: "payload", "limit", "target:MASQUERADE".
  std::variant<
      expressions::other, expressions::immediate, expressions::compare, expressions::bitwise,
      expressions::bitwise_unknown, expressions::byteorder, expressions::range, expressions::lookup,
      expressions::payload_load, expressions::payload_write, expressions::meta_load,
      expressions::meta_write, expressions::ct_load, expressions::fib, expressions::option_load,
      expressions::unknown_load, expressions::soft, expressions::notrack, expressions::xt_match>
      content;
  /// The set that a `dynset` fills from the packet path; empty otherwise.
  std::string filled_set;
  friend bool operator==(const expression&, const expression&) = default;
};

struct table {
  nft::family family = nft::family::inet;
  std::string name;
  std::uint32_t flags = 0;
  /// NFT_TABLE_F_DORMANT: its hooks are not registered, nothing of it is in force.
  [[nodiscard]] bool is_dormant() const noexcept { return (flags & 1) != 0; }
  friend bool operator==(const table&, const table&) = default;
};

/// Where a base chain is called.
struct chain_hook {
  std::uint32_t number = 0;  ///< NF_INET_*, or of netdev: 0 ingress, 1 egress.
  std::int32_t priority = 0;
  /// Of netdev chains. One that ends in '*' stands for all names that begin so (since 7.0).
  std::vector<std::string> devices;
  friend bool operator==(const chain_hook&, const chain_hook&) = default;
};

struct chain {
  nft::family family = nft::family::inet;
  std::string table, name;
  std::optional<chain_hook> hook;  ///< Of base chains only.
  std::uint32_t policy = 1;        ///< 0 drop, 1 accept.
  std::string type;                ///< Of base chains: "filter", "route" or "nat".
  bool policy_counts = false;      ///< Of base chains: datagrams that come to their policy.
  bool not_understood = false;
  friend bool operator==(const chain&, const chain&) = default;
};

struct rule {
  nft::family family = nft::family::inet;
  std::string table, chain;
  std::uint64_t handle = 0;  ///< As `nft -a list` shows it.
  std::vector<expression> expressions;
  bool not_understood = false;
  friend bool operator==(const rule&, const rule&) = default;
};

/// NFT_SET_*.
enum set_flags : std::uint32_t {
  set_interval = 0x4,
  set_map = 0x8,
  set_timeout = 0x10,
  set_eval = 0x20,
  set_object = 0x40,
};

struct set {
  nft::family family = nft::family::inet;
  std::string table, name;
  std::uint32_t flags = 0;
  std::uint32_t key_length = 0;  ///< Bytes.
  bool maps_to_verdict = false;
  std::vector<std::uint32_t> fields;  ///< Of a concatenation with ranges: their lengths, bytes.
  bool not_understood = false;
  friend bool operator==(const set&, const set&) = default;
};

struct element {
  bytes key;                     ///< Empty for the catch-all.
  std::optional<bytes> key_end;  ///< Of ranges in a concatenation: the last key inside.
  std::variant<std::monostate, bytes, verdict> value;
  bool ends_interval = false;  ///< The first key that is no longer inside.
  bool is_catch_all = false;
  bool not_understood = false;  ///< Or it has an expression that is more than a counter.
  bool counts = false;          ///< Has a counter.
  friend bool operator==(const element&, const element&) = default;
};

/// The elements of a set by ascending key; where an interval ends and another begins, the end comes
/// first, and the catch-all before all others. Copies share what is the same.
class element_list : private shared_list<element> {
 public:
  using shared_list::front, shared_list::back, shared_list::operator[], shared_list::chunks;
  using shared_list::partition_point;
  using shared_list::size, shared_list::empty, shared_list::begin, shared_list::end;
  using shared_list::value_type, shared_list::iterator, shared_list::const_iterator;

  element_list() = default;
  element_list(std::initializer_list<element> all) : element_list(std::vector<element>(all)) {}
  /// In any order.
  explicit element_list(std::vector<element> all);

  /// Where it belongs, instead of one that is there.
  void add(element one);
  /// The one with this key that ends an interval, or does not; false: there is none.
  bool remove(const element& like);
  /// Whether all keys, but that of the catch-all, are of this size.
  [[nodiscard]] bool has_keys_of(std::size_t key_bytes) const noexcept {
    return !mixed_ && (key_size_ == 0 || key_size_ == key_bytes);
  }
  [[nodiscard]] static bool is_before(const element& a, const element& b) noexcept;
  friend bool operator==(const element_list& a, const element_list& b) {
    return static_cast<const shared_list&>(a) == static_cast<const shared_list&>(b);
  }

 private:
  void note_size(const element& one) noexcept;
  std::size_t key_size_ = 0;  ///< 0: not known yet.
  bool mixed_ = false;
};

/// Elements of one set; the kernel sends them in several messages.
struct set_elements {
  nft::family family = nft::family::inet;
  std::string table, set;
  std::vector<element> elements;
  friend bool operator==(const set_elements&, const set_elements&) = default;
};

/// A named object that rules refer to.
struct object {
  nft::family family = nft::family::inet;
  std::string table, name;
  std::uint32_t type = 0;  ///< NFT_OBJECT_*.
  /// Whether connections are tracked as long as it exists: a helper, timeout or expectation of
  /// connection tracking, a limit of connections, synproxy.
  [[nodiscard]] bool needs_tracking() const noexcept {
    return type == 3 || type == 5 || type == 7 || type == 9 || type == 10;
  }
  friend bool operator==(const object&, const object&) = default;
};

/// The ruleset's number, which grows with each transaction of user space. It does not move when the
/// packet path fills a set, when elements expire, nor with legacy iptables.
struct generation {
  std::uint32_t id = 0;
  std::string process;  ///< Whose transaction it was; may be empty.
  friend bool operator==(const generation&, const generation&) = default;
};

using message = std::variant<table, chain, rule, set, set_elements, object, generation>;

/// Tables, chains and sets go by this.
struct object_key {
  nft::family family = nft::family::inet;
  std::string table, name;
  friend auto operator<=>(const object_key& a, const object_key& b) {
    return std::tie(a.family, a.table, a.name) <=> std::tie(b.family, b.table, b.name);
  }
  friend bool operator==(const object_key&, const object_key&) = default;
};

/// All of a network namespace at one generation. A copy shares rules and elements.
struct ruleset {
  struct chain_rules {
    nft::chain chain;
    shared_list<rule> rules;  ///< In order of evaluation.
    friend bool operator==(const chain_rules&, const chain_rules&) = default;
  };
  struct set_contents {
    nft::set set;
    element_list elements;
    /// A rule of the packet path fills it: the contents change without a word.
    bool filled_by_packets = false;
    friend bool operator==(const set_contents&, const set_contents&) = default;
  };

  std::uint32_t generation = 0;
  std::map<object_key, table> tables;  ///< Name empty.
  std::map<object_key, chain_rules> chains;
  std::map<object_key, set_contents> sets;
  std::vector<object> tracking_objects;  ///< Those that need connections to be tracked.

  [[nodiscard]] bool empty() const noexcept { return tables.empty(); }
  [[nodiscard]] std::size_t rule_count() const noexcept;
  friend bool operator==(const ruleset&, const ruleset&) = default;
};

}  // namespace cowire::netlink::nft
