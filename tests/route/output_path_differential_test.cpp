// SPDX-License-Identifier: Apache-2.0
// Random rulesets and random flows, each datagram really sent by a plain socket: where the verdict
// is
// "untouched", the datagram must have left exactly as it was sent. The share of flows that the
// kernel left alone and that were recognised is printed. COWIRE_SEED chooses the worlds,
// COWIRE_RULESETS how many; a failing one is printed as small as it gets.
#include "tests/route/random_ruleset.hpp"
#include "tests/support/netns.hpp"

#include <cowire/netlink/nft_reader.hpp>
#include <cowire/route/detail/judge_destinations.hpp>
#include <cowire/route/output_path.hpp>

#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <optional>
#include <variant>

namespace cowire {
namespace {

namespace nft = netlink::nft;
using namespace std::chrono_literals;

std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

constexpr std::uint16_t marker_type = 0x88b5;  // IEEE 802 local experimental.

struct sent_flow {
  ip_address source, destination;
  std::uint16_t source_port = 0, destination_port = 0;
  std::uint8_t tos = 0;
  std::uint32_t mark = 0;
  std::uint32_t uid = 0;
};

/// A datagram as it left: what the sender chose of it.
struct seen_datagram {
  std::uint8_t tos = 0, ttl = 0;
  ip_address source, destination;
  std::uint16_t source_port = 0, destination_port = 0;
  std::vector<std::uint8_t> frame;
};

/// Two hosts. Everything that leaves the first is seen by the second, frame by frame, in order:
/// the thread stays on one CPU.
class two_ends {
 public:
  explicit two_ends(ip_family family) : family_(family) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(::sched_getcpu()), &one);
    ::sched_setaffinity(0, sizeof one, &one);
    test::connect(a_, "a0", b_, "b0", 1);
    std::string mac = b_("cat /sys/class/net/b0/address");
    mac.resize(17);
    a_("ip addr add 10.0.0.1/32 dev a0");
    a_("ip addr add fd00::1/128 dev a0 nodad");
    a_("ip neigh replace 10.77.1.2 dev a0 lladdr " + mac + " nud permanent");
    a_("ip neigh replace fd77:1::2 dev a0 lladdr " + mac + " nud permanent");
    a_("ip route add 10.0.0.0/16 via 10.77.1.2");
    a_("ip -6 route add fd00::/32 via fd77:1::2");
    capture_ = packet_socket(b_, "b0");
    marker_ = packet_socket(a_, "a0");
    const test::netns::scope inside(a_);
    index_ = ::if_nametoindex("a0");
  }

  [[nodiscard]] bool load(const std::string& rules) const {
    const test::netns::scope inside(a_);
    FILE* pipe = ::popen("nft -f - 2>/dev/null", "w");
    std::fwrite(rules.data(), 1, rules.size(), pipe);
    return ::pclose(pipe) == 0;
  }
  [[nodiscard]] nft::ruleset read() const {
    const test::netns::scope inside(a_);
    std::error_code ec;
    auto found = nft::read_ruleset(ec);
    EXPECT_FALSE(ec) << ec.message();
    return found;
  }
  [[nodiscard]] std::uint32_t index() const { return index_; }

  /// A socket of its own, as the flow says.
  [[nodiscard]] unique_fd open(const sent_flow& f) const {
    const test::netns::scope inside(a_);
    const auto before = static_cast<uid_t>(::setfsuid(f.uid));
    unique_fd fd(::socket(domain(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ::setfsuid(before);
    sockaddr_storage own{};
    const socklen_t size = fill(own, f.source, f.source_port);
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&own), size) != 0) return {};
    const int tos = f.tos;
    const std::uint32_t mark = f.mark;
    const bool v4 = family_ == ip_family::v4;
    ::setsockopt(fd.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, &tos,
                 sizeof tos);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark);
    return fd;
  }

  /// Sends; what of it came out, if it did.
  [[nodiscard]] std::optional<seen_datagram> send(int fd, const sent_flow& f) {
    const std::uint64_t tag = ++tag_;
    sockaddr_storage to{};
    const socklen_t size = fill(to, f.destination, f.destination_port);
    const bool accepted =
        ::sendto(fd, &tag, sizeof tag, 0, reinterpret_cast<sockaddr*>(&to), size) == sizeof tag;
    auto seen = wait_for_marker(tag);
    return accepted ? seen : std::nullopt;
  }

  /// The peer answers: what was seen, both ways round. True once the socket has it.
  [[nodiscard]] bool answer(int fd, const seen_datagram& to) {
    std::vector<std::uint8_t> back = to.frame;
    const bool v4 = family_ == ip_family::v4;
    const std::size_t size = v4 ? 4 : 16, addresses = 14 + (v4 ? 12u : 8u),
                      ports = 14 + (v4 ? 20u : 40u);
    std::swap_ranges(back.begin(), back.begin() + 6, back.begin() + 6);
    const auto swap = [&](std::size_t at, std::size_t length) {
      const auto first = back.begin() + static_cast<std::ptrdiff_t>(at);
      std::swap_ranges(first, first + static_cast<std::ptrdiff_t>(length),
                       first + static_cast<std::ptrdiff_t>(length));
    };
    swap(addresses, size);
    swap(ports, 2);
    if (::send(capture_.get(), back.data(), back.size(), 0) < 0) return false;
    pollfd readable{fd, POLLIN, 0};
    return ::poll(&readable, 1, 10'000) == 1;
  }

 private:
  [[nodiscard]] int domain() const { return family_ == ip_family::v4 ? AF_INET : AF_INET6; }
  [[nodiscard]] static unique_fd packet_socket(const test::netns& in, const char* device) {
    const test::netns::scope inside(in);
    unique_fd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    const int room = 8 << 20, yes = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    ::setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes);
    sockaddr_ll name{};
    name.sll_family = AF_PACKET;
    name.sll_protocol = htons(ETH_P_ALL);
    name.sll_ifindex = static_cast<int>(::if_nametoindex(device));
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0)
      throw_error(errno_code(errno), "binding a packet socket");
    return fd;
  }
  static socklen_t fill(sockaddr_storage& to, const ip_address& address, std::uint16_t port) {
    if (address.is_v4()) {
      auto* in = reinterpret_cast<sockaddr_in*>(&to);
      in->sin_family = AF_INET;
      in->sin_port = htons(port);
      std::memcpy(&in->sin_addr, address.bytes().data(), 4);
      return sizeof *in;
    }
    auto* in = reinterpret_cast<sockaddr_in6*>(&to);
    in->sin6_family = AF_INET6;
    in->sin6_port = htons(port);
    std::memcpy(&in->sin6_addr, address.bytes().data(), 16);
    return sizeof *in;
  }

  /// Sends a frame that no rule sees, and reads until it has arrived: what was sent before is in.
  std::optional<seen_datagram> wait_for_marker(std::uint64_t tag) {
    std::array<std::uint8_t, 60> frame{};
    std::memset(frame.data(), 0xff, 6);
    frame[12] = marker_type >> 8;
    frame[13] = marker_type & 0xff;
    std::memcpy(frame.data() + 14, &tag, sizeof tag);
    EXPECT_EQ(::send(marker_.get(), frame.data(), frame.size(), 0), 60);
    std::optional<seen_datagram> found;
    std::array<std::uint8_t, 2048> buffer;
    for (;;) {
      pollfd readable{capture_.get(), POLLIN, 0};
      if (::poll(&readable, 1, 20'000) != 1) {
        ADD_FAILURE() << "the marker did not arrive";
        return std::nullopt;
      }
      const auto size = ::recv(capture_.get(), buffer.data(), buffer.size(), 0);
      if (size < 14) continue;
      const std::span got(buffer.data(), static_cast<std::size_t>(size));
      const unsigned type = static_cast<unsigned>(got[12]) << 8 | got[13];
      if (type == marker_type && std::memcmp(got.data() + 14, &tag, sizeof tag) == 0) return found;
      if (auto one = parse(got, type, tag)) found = std::move(one);
    }
  }
  [[nodiscard]] std::optional<seen_datagram> parse(std::span<const std::uint8_t> frame,
                                                   unsigned type, std::uint64_t tag) const {
    const bool v4 = family_ == ip_family::v4;
    const std::size_t udp = 14 + (v4 ? 20u : 40u), payload = udp + 8;
    if (type != (v4 ? 0x0800u : 0x86ddu) || frame.size() < payload + sizeof tag)
      return std::nullopt;
    if (frame[v4 ? 23 : 20] != 17 || std::memcmp(frame.data() + payload, &tag, sizeof tag) != 0)
      return std::nullopt;
    seen_datagram out;
    out.frame.assign(frame.begin(), frame.end());
    out.tos = v4 ? frame[15] : static_cast<std::uint8_t>(frame[14] << 4 | frame[15] >> 4);
    out.ttl = frame[v4 ? 22 : 21];
    const std::size_t addresses = v4 ? 26 : 22, size = v4 ? 4 : 16;
    out.source = ip_address::from_bytes(family_, frame.data() + addresses);
    out.destination = ip_address::from_bytes(family_, frame.data() + addresses + size);
    out.source_port = static_cast<std::uint16_t>(frame[udp] << 8 | frame[udp + 1]);
    out.destination_port = static_cast<std::uint16_t>(frame[udp + 2] << 8 | frame[udp + 3]);
    return out;
  }

  const ip_family family_;
  test::netns a_, b_;
  unique_fd capture_, marker_;
  std::uint32_t index_ = 0;
  std::uint64_t tag_ = 0x636f776972650000;
};

bool unchanged(const std::optional<seen_datagram>& seen, const sent_flow& f) {
  return seen && seen->tos == f.tos && seen->ttl == 64 && seen->source == f.source &&
         seen->destination == f.destination && seen->source_port == f.source_port &&
         seen->destination_port == f.destination_port;
}

output_flow region_of(const sent_flow& f, std::uint32_t device) {
  output_flow region;
  region.destination = {f.destination, f.destination.bits()};
  region.source = f.source;
  region.source_port = f.source_port;
  region.destination_port = f.destination_port;
  region.mark = f.mark;
  region.tos = f.tos;
  region.ttl = 64;
  region.uid = f.uid;
  region.output_interface = device;
  region.output_name = "a0";
  region.devices = {device};
  region.destination_type = 1;  // RTN_UNICAST
  region.mark_matters_below = false;
  return region;
}

// ---- faults -------------------------------------------------------------------------------------

/// What an evaluation would see that has a fault: it must be found out.
struct fault {
  const char* name;
  void (*plant)(nft::ruleset&);
};

template <class Change>
void change_expressions(nft::ruleset& in, Change&& change) {
  for (auto& [key, chain] : in.chains)
    for (std::size_t i = 0; i < chain.rules.size(); ++i)
      for (nft::expression& e : chain.rules.edit(i).expressions) change(e);
}

template <class Change>
void change_elements(nft::ruleset& in, Change&& change) {
  for (auto& [key, set] : in.sets) {
    std::vector<nft::element> all(set.elements.begin(), set.elements.end());
    for (nft::element& e : all) change(e);
    set.elements = nft::element_list(std::move(all));
  }
}

void change_verdict(nft::expression& e, std::int32_t from, std::int32_t to) {
  if (auto* i = std::get_if<nft::expressions::immediate>(&e.content))
    if (auto* v = std::get_if<nft::verdict>(&i->value); v != nullptr && v->code == from)
      v->code = to;
}

void change_verdicts(nft::ruleset& in, std::int32_t from, std::int32_t to) {
  change_expressions(in, [&](nft::expression& e) { change_verdict(e, from, to); });
}

/// One more, or one less, of a number of any length.
void step(nft::bytes& number, int by) {
  for (auto b = number.rbegin(); b != number.rend(); ++b) {
    const int sum = static_cast<int>(*b) + by;
    *b = static_cast<std::byte>(sum & 0xff);
    if (sum >= 0 && sum <= 255) return;
  }
}

/// What the bytes of a destination, wholly or in part, are compared with.
template <class Change>
void for_destinations(nft::ruleset& in, Change&& change) {
  const nft::expressions::payload_load* last = nullptr;
  change_expressions(in, [&](nft::expression& e) {
    if (const auto* load = std::get_if<nft::expressions::payload_load>(&e.content)) last = load;
    auto* compare = std::get_if<nft::expressions::compare>(&e.content);
    if (compare == nullptr || last == nullptr) return;
    const bool destination = last->base == nft::expressions::payload_base::network &&
                             (last->offset == 16 || last->offset == 24);
    if (destination && compare->from == last->to) change(compare->value);
  });
}

const fault faults[] = {
    {"an interval's end is taken for inside",
     [](nft::ruleset& in) {
       change_elements(in, [](nft::element& e) {
         if (e.ends_interval) step(e.key, +1);
       });
     }},
    {"an interval's last key is taken for outside",
     [](nft::ruleset& in) {
       change_elements(in, [](nft::element& e) {
         if (e.ends_interval && e.key != nft::bytes(e.key.size())) step(e.key, -1);
       });
     }},
    {"return is passed by",
     [](nft::ruleset& in) {
       change_verdicts(in, nft::verdict::return_to_caller, nft::verdict::proceed);
     }},
    {"jumps are not made",
     [](nft::ruleset& in) { change_verdicts(in, nft::verdict::jump, nft::verdict::proceed); }},
    {"a chain that was jumped to jumps no further",
     [](nft::ruleset& in) {
       for (auto& [key, chain] : in.chains) {
         if (chain.chain.hook) continue;
         for (std::size_t i = 0; i < chain.rules.size(); ++i)
           for (nft::expression& e : chain.rules.edit(i).expressions)
             change_verdict(e, nft::verdict::jump, nft::verdict::proceed);
       }
     }},
    {"a goto comes back like a jump",
     [](nft::ruleset& in) { change_verdicts(in, nft::verdict::go_to, nft::verdict::jump); }},
    {"the policy is not looked at",
     [](nft::ruleset& in) {
       for (auto& [key, chain] : in.chains) chain.chain.policy = 1;
     }},
    {"statements that are not understood are passed by",
     [](nft::ruleset& in) {
       change_expressions(in, [](nft::expression& e) {
         if (std::holds_alternative<nft::expressions::other>(e.content))
           e.content = nft::expressions::soft{};
       });
     }},
    {"what is not known is taken for no match",
     [](nft::ruleset& in) {
       change_expressions(in, [](nft::expression& e) {
         const auto* m = std::get_if<nft::expressions::meta_load>(&e.content);
         if (m != nullptr && m->key == nft::expressions::meta_key::length)
           e.content = nft::expressions::immediate{m->to, nft::bytes(4)};
       });
     }},
    {"changes of the datagram are passed by",
     [](nft::ruleset& in) {
       change_expressions(in, [](nft::expression& e) {
         if (std::holds_alternative<nft::expressions::payload_write>(e.content))
           e.content = nft::expressions::soft{};
       });
     }},
    {"marks that rules set are not seen by later ones",
     [](nft::ruleset& in) {
       change_expressions(in, [](nft::expression& e) {
         if (std::holds_alternative<nft::expressions::meta_write>(e.content))
           e.content = nft::expressions::soft{};
       });
     }},
    {"not equal is taken for equal",
     [](nft::ruleset& in) {
       change_expressions(in, [](nft::expression& e) {
         auto* c = std::get_if<nft::expressions::compare>(&e.content);
         if (c != nullptr && c->operation == nft::expressions::compare::not_equal)
           c->operation = nft::expressions::compare::equal;
       });
     }},
    {"a destination is taken for the one before it",
     [](nft::ruleset& in) { for_destinations(in, [](nft::bytes& value) { step(value, +1); }); }},
    {"elements of sets are taken for the ones before them",
     [](nft::ruleset& in) {
       change_elements(in, [](nft::element& e) {
         if (!e.key.empty() && !e.ends_interval) step(e.key, +1);
       });
     }},
    {"masks of addresses are not looked at",
     [](nft::ruleset& in) {
       change_expressions(in, [](nft::expression& e) {
         if (auto* b = std::get_if<nft::expressions::bitwise>(&e.content))
           std::ranges::fill(b->mask, std::byte{0xff});
       });
     }},
    {"a verdict map answers every key alike",
     [](nft::ruleset& in) {
       change_elements(in, [](nft::element& e) {
         if (std::holds_alternative<nft::verdict>(e.value))
           e.value = nft::verdict{nft::verdict::accept, {}};
       });
     }},
    {"lookups are not inverted",
     [](nft::ruleset& in) {
       change_expressions(in, [](nft::expression& e) {
         if (auto* l = std::get_if<nft::expressions::lookup>(&e.content)) l->inverted = false;
       });
     }},
};

/// What chance seldom makes, and a fault would pass by.
std::vector<test::random_ruleset> chosen_rulesets() {
  const auto with = [](std::vector<test::random_ruleset::chain> chains) {
    return test::random_ruleset{{"inet"}, {}, std::move(chains)};
  };
  const std::string output = "chain b { type filter hook output priority 0; policy ";
  return {
      with({{"chain c {", {"udp dport 1 accept"}}, {output + "drop;", {"goto c", "accept"}}}),
      with({{"chain c {", {"meta mark 5 drop"}},
            {output + "accept;", {"meta mark set 5", "jump c"}}}),
      with({{"chain d {", {"udp dport 1-60000 drop"}},
            {"chain c {", {"jump d"}},
            {output + "accept;", {"jump c"}}}),
      with({{output + "accept;", {"meta length > 30 drop"}}}),
      with({{output + "drop;", {"udp dport 1-60000 return", "accept"}}}),
      with({{output + "drop;", {"udp dport { 53, 8000-8002, 20000-40000 } accept"}}}),
      with({{output + "accept;", {"udp dport { 8000-8003, 20000-40000 } drop"}}}),
  };
}

// ---- the comparison -----------------------------------------------------------------------------

class output_path_differential : public ::testing::TestWithParam<ip_family> {
 protected:
  struct tally {
    std::size_t rulesets = 0, refused = 0, flows = 0, left_alone = 0, recognised = 0;
    std::size_t unseen = 0;  ///< Left alone in bytes, but counted or tracked for certain.
    std::size_t widened = 0, widened_untouched = 0, established = 0;
    /// Of those left alone and not unseen: recognised as the compiler asks, for all destinations
    /// and ports of a flow class; and those whose class is untouched as a whole.
    std::size_t by_destination = 0, as_a_class = 0;
    std::map<std::string, std::size_t> missed;  ///< By what was taken for an obstacle.
    std::vector<bool> found = std::vector<bool>(std::size(faults));
  };

  output_path_differential()
      : family_(GetParam()), seed_(number_from("COWIRE_SEED", 20261128)), random_(seed_) {
    const bool v4 = family_ == ip_family::v4;
    world_.family = family_;
    world_.device = "a0";
    world_.source = v4 ? "10.0.0.1" : "fd00::1";
    for (const char* host : {"2", "3", "4", "5", "9"})
      world_.destinations.push_back((v4 ? "10.0.0." : "fd00::") + std::string(host));
    world_.destinations.push_back(v4 ? "10.0.1.7" : "fd00:0:0:1::7");
    world_.destinations.push_back(v4 ? "10.0.2.200" : "fd00:0:0:2::200");
    world_.ports = {9000, 9001, 8003, 53, 30000};
  }

  template <class T>
  [[nodiscard]] T one_of(std::initializer_list<T> from) {
    return *(from.begin() + random_() % from.size());
  }

  sent_flow make_flow() {
    sent_flow f;
    f.source = *ip_address::parse(world_.source);
    f.destination = *ip_address::parse(world_.destinations[random_() % world_.destinations.size()]);
    next_port_ = next_port_ >= 60'000 ? 10'000 : next_port_ + 1;
    f.source_port = next_port_;
    f.destination_port = world_.ports[random_() % world_.ports.size()];
    f.tos = one_of<std::uint8_t>({0, 0, 0x20});
    f.mark = one_of<std::uint32_t>({0, 0, 5, 4});
    f.uid = one_of<std::uint32_t>({0, 0, 1000});
    return f;
  }

  /// A region that holds the flow and more.
  output_flow widen(output_flow region) {
    const unsigned all = region.destination.address().bits();
    const unsigned length = all - static_cast<unsigned>(random_() % (all == 32 ? 20 : 80));
    if (random_() % 2) region.destination = {region.destination.address(), length};
    if (random_() % 2) region.destination_port.reset();
    if (random_() % 3 == 0) region.source_port.reset();
    if (random_() % 4 == 0) region.uid.reset();
    if (random_() % 4 == 0) region.ttl.reset();
    if (random_() % 4 == 0) region.destination_type.reset();
    if (random_() % 6 == 0) {
      region.output_interface.reset();
      region.output_name.reset();
    }
    return region;
  }

  /// All that a flow class knows of the flow: not where to.
  output_flow class_of(output_flow region) const {
    region.destination = ip_prefix::all(family_);
    region.destination_port.reset();
    return region;
  }
  static std::vector<detail::port_verdicts> judge_all(const nft::ruleset& rules,
                                                      const output_flow& region) {
    output_snapshot state;
    state.obeyed = {true, false, false, false, false};
    state.netfilter.rules = rules;
    state.netfilter.hooks.emplace();
    detail::output_sets sets(*state.netfilter.rules);
    return detail::judge_all_ports(state, sets, region);
  }
  static output_verdict look_up(const std::vector<detail::port_verdicts>& all, const sent_flow& f) {
    for (const auto& one : all)
      if (one.ports.contains(f.destination_port))
        return one.answer.of({f.destination, f.destination.bits()});
    return {};
  }

  /// Loads and sends again: is the verdict "untouched" still wrong?
  bool still_unsound(const test::random_ruleset& rules, const sent_flow& like) {
    if (!made_->load(rules.text())) return false;
    sent_flow f = like;
    f.source_port = make_flow().source_port;
    const auto verdict =
        judge_ruleset(made_->read(), region_of(f, made_->index()), tracking_state::fresh);
    const nft::ruleset read = made_->read();
    const bool untouched =
        verdict.untouched() ||
        look_up(judge_all(read, class_of(region_of(f, made_->index()))), f).untouched();
    const unique_fd fd = made_->open(f);
    return fd && untouched && !unchanged(made_->send(fd.get(), f), f);
  }

  test::random_ruleset shrink(test::random_ruleset rules, const sent_flow& f) {
    for (bool smaller = true; std::exchange(smaller, false);) {
      for (std::size_t c = 0; c < rules.chains.size(); ++c)
        for (std::size_t r = rules.chains[c].rules.size(); r-- > 0;) {
          auto less = rules;
          less.chains[c].rules.erase(less.chains[c].rules.begin() + static_cast<std::ptrdiff_t>(r));
          if (!still_unsound(less, f)) continue;
          rules = std::move(less);
          smaller = true;
        }
      for (std::size_t c = rules.chains.size(); c-- > 0;) {
        auto less = rules;
        less.chains.erase(less.chains.begin() + static_cast<std::ptrdiff_t>(c));
        if (!still_unsound(less, f)) continue;
        rules = std::move(less);
        smaller = true;
      }
    }
    return rules;
  }

  void report(const test::random_ruleset& rules, const sent_flow& f, const char* how) {
    const auto least = still_unsound(rules, f) ? shrink(rules, f) : rules;
    ADD_FAILURE() << "COWIRE_SEED=" << seed_ << ": taken for untouched (" << how
                  << "): " << f.source.to_string() << ":" << f.source_port << " -> "
                  << f.destination.to_string() << ":" << f.destination_port << " tos " << int{f.tos}
                  << " mark " << f.mark << " uid " << f.uid << " under\n"
                  << least.text();
  }

  static bool drops_for_certain(const output_verdict& verdict) {
    return verdict.obstacle.ends_with(": drop") || verdict.obstacle.ends_with("policy, drop") ||
           verdict.obstacle.ends_with(": reject");
  }

  void compare(const test::random_ruleset& rules, const nft::ruleset& read,
               const std::vector<nft::ruleset>& faulty, tally& t) {
    const sent_flow f = make_flow();
    const output_flow region = region_of(f, made_->index());
    const output_verdict verdict = judge_ruleset(read, region, tracking_state::fresh);
    const output_flow wide = widen(region);
    const bool wide_untouched = judge_ruleset(read, wide, tracking_state::fresh).untouched();
    const auto everywhere = judge_all(read, class_of(region));
    const output_verdict there = look_up(everywhere, f);
    const unique_fd fd = made_->open(f);
    if (!fd) return;  // The port is taken.
    const auto seen = made_->send(fd.get(), f);
    const bool alone = unchanged(seen, f);
    ++t.flows;
    ++t.widened;
    t.widened_untouched += wide_untouched;
    t.left_alone += alone;
    t.recognised += alone && verdict.untouched();
    if (alone && verdict.certain && drops_for_certain(verdict))
      report(rules, f, "dropped for certain, it said");
    t.unseen += alone && verdict.certain && !verdict.untouched();
    if (alone && !verdict.untouched() && !verdict.certain)
      ++t.missed[verdict.obstacle.substr(verdict.obstacle.rfind(": ") + 2)];
    if (!alone && verdict.untouched()) report(rules, f, "one flow");
    if (!alone && !verdict.untouched() && wide_untouched) report(rules, f, "a region");
    if (!alone && there.untouched()) report(rules, f, "a destination of a flow class");
    if (alone && there.certain && drops_for_certain(there))
      report(rules, f, "all to a destination dropped for certain, it said");
    if (alone && (verdict.untouched() || !verdict.certain)) {
      t.by_destination += there.untouched();
      t.as_a_class += std::ranges::all_of(
          everywhere, [](const auto& one) { return !one.answer.touches_something(); });
    }
    for (std::size_t i = 0; !alone && i < faulty.size(); ++i)
      if (!t.found[i])
        t.found[i] = look_up(judge_all(faulty[i], class_of(region)), f).untouched() ||
                     judge_ruleset(faulty[i], region, tracking_state::fresh).untouched();
    if (!alone || random_() % 3 != 0 || !made_->answer(fd.get(), *seen)) return;
    ++t.established;
    const bool again = judge_ruleset(read, region, tracking_state::established).untouched();
    if (again && !unchanged(made_->send(fd.get(), f), f)) report(rules, f, "an established flow");
  }

  const ip_family family_;
  const std::uint64_t seed_;
  std::mt19937_64 random_;
  test::ruleset_world world_;
  std::uint16_t next_port_ = 10'000;
  std::optional<two_ends> made_;
};

#define NFT_OR_SKIP() \
  NETNS_OR_SKIP();    \
  if (std::system("nft --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs nft"

TEST_P(output_path_differential, untouched_means_that_the_kernel_sends_the_datagram_as_it_is) {
  NFT_OR_SKIP();
  made_.emplace(family_);
  const std::uint64_t wanted = number_from("COWIRE_RULESETS", 500);
  auto chosen = chosen_rulesets();
  tally t;
  while (t.rulesets < wanted && !HasFailure()) {
    const auto rules = chosen.empty() ? test::make_ruleset(random_, world_) : chosen.back();
    // Chosen ones are for faults that show with one port of five.
    const int flows = chosen.empty() ? 10 : 40;
    if (!chosen.empty()) chosen.pop_back();
    if (!made_->load(rules.text())) {
      ++t.refused;
      ASSERT_LT(t.refused, 100 + wanted) << "nft refuses nearly everything";
      continue;
    }
    ++t.rulesets;
    const nft::ruleset read = made_->read();
    std::vector<nft::ruleset> faulty(std::size(faults), read);
    for (std::size_t i = 0; i < faulty.size(); ++i) faults[i].plant(faulty[i]);
    for (int i = 0; i < flows && !HasFailure(); ++i) compare(rules, read, faulty, t);
  }
  // A limit, a quota or a translation that finds nothing to change does not show in the bytes, but
  // its counter or entry moved: the kernel did not leave such a flow alone.
  const std::size_t of = t.left_alone - t.unseen;
  const double share =
      of == 0 ? 0 : 100.0 * static_cast<double>(t.recognised) / static_cast<double>(of);
  std::cout << "seed " << seed_ << ": " << t.rulesets << " rulesets (" << t.refused
            << " refused by nft), " << t.flows << " flows, " << t.left_alone
            << " sent as they were, " << t.unseen
            << " of them counted or tracked by a rule, of the rest " << t.recognised
            << " recognised (" << share << " %), " << t.widened_untouched << " regions untouched, "
            << t.established << " flows established; as compiled for a flow class, "
            << t.by_destination << " recognised ("
            << (of == 0 ? 0
                        : 100.0 * static_cast<double>(t.by_destination) / static_cast<double>(of))
            << " %), " << t.as_a_class << " without a look at destination and port\n";
  if (std::getenv("COWIRE_SHOW_MISSED") != nullptr)
    for (const auto& [what, count] : t.missed)
      std::cout << "  missed " << count << ": " << what << "\n";
  if (wanted < 500 || HasFailure()) return;  // Too few for what follows.
  EXPECT_GE(share, 90.0);
  EXPECT_GE(t.by_destination * 100, of * 90);
  EXPECT_GT(t.by_destination, t.as_a_class);
  EXPECT_GT(t.established, 0u);
  for (std::size_t i = 0; i < std::size(faults); ++i)
    EXPECT_TRUE(t.found[i]) << "not found out: " << faults[i].name;
}

INSTANTIATE_TEST_SUITE_P(families, output_path_differential,
                         ::testing::Values(ip_family::v4, ip_family::v6), [](const auto& chosen) {
                           return chosen.param == ip_family::v4 ? "v4" : "v6";
                         });

}  // namespace
}  // namespace cowire
