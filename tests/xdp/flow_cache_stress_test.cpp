// SPDX-License-Identifier: Apache-2.0
/// What the TX core remembers of flows while everything that it remembers changes.
#include <cowire/xdp/tx_core.hpp>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "testbed/hand_made_table.hpp"
#include "testbed/test_producer.hpp"
#include "tests/xdp/fake_device.hpp"

namespace cowire {
namespace {

using namespace std::chrono_literals;

std::uint64_t asked_for(const char* name, std::uint64_t usual) {
  const char* const asked = std::getenv(name);
  return asked != nullptr ? std::strtoull(asked, nullptr, 10) : usual;
}

#if defined(COWIRE_ADDRESS_SANITIZER) || defined(COWIRE_THREAD_SANITIZER)
constexpr std::uint64_t usual_changes = 100'000;
#else
constexpr std::uint64_t usual_changes = 1'000'000;
#endif

/// Where a datagram has to go: by a slot with this hop, or to the kernel path.
struct outcome {
  egress_slot slot = divert_slot;
  std::uint64_t serial = 0;  ///< Of the hop, as its MAC address has it.
  divert_reason reason = {};
  friend bool operator==(const outcome&, const outcome&) = default;
  friend std::ostream& operator<<(std::ostream& out, const outcome& o) {
    return out << "slot " << int{o.slot} << " hop " << o.serial << ' ' << name(o.reason);
  }
};

/// A forwarding table that is changed in place while nobody reads it, and always at the same
/// address and of the same version: only its number tells one publication from another.
class changing_world {
 public:
  static constexpr std::uint32_t hop_count = 12, group_count = 4, place_count = 24;
  static constexpr std::uint32_t first_single = divert_reason_count;
  static constexpr std::uint32_t first_group = first_single + hop_count;
  static constexpr flow_class_id class_count = 2;
  static constexpr egress_slot egress_count = 3;  ///< The last one has no socket.

  explicit changing_world(std::mt19937_64& random) : random_(random) {
    for (std::size_t i = 0; i < divert_reason_count; ++i) {
      hops_[i].reason = static_cast<divert_reason>(i);
      lists_[i] = {static_cast<std::uint32_t>(i), 1};
    }
    for (std::uint32_t i = 0; i < hop_count; ++i) {
      lists_[first_single + i] = {first_hop + i, 1};
      new_neighbour(i);
    }
    for (std::uint32_t i = 0; i < group_count; ++i) new_members(i);
    for (flow_class_id cls = 0; cls < class_count; ++cls)
      for (std::uint32_t place = 0; place < place_count; ++place) new_route(cls, place);
    finish();
  }

  void change() {
    switch (random_() % 4) {
      case 0:
        return new_route(static_cast<flow_class_id>(random_() % class_count),
                         static_cast<std::uint32_t>(random_() % place_count));
      case 1:
        return new_members(static_cast<std::uint32_t>(random_() % group_count));
      case 2:
        return new_neighbour(static_cast<std::uint32_t>(random_() % hop_count));
      default:
        hops_[first_hop + random_() % hop_count].egress = random_egress();
    }
  }
  void publish(publisher& tables) {
    for (std::size_t i = 0; i < class_count; ++i) {
      classes_[i].v4 = v4_[i].commit();
      classes_[i].v6 = v6_[i].commit();
      static_cast<void>(v4_[i].take_garbage());
      static_cast<void>(v6_[i].take_garbage());
    }
    static_cast<void>(tables.store(&table_));
  }

  /// Odd places are IPv6 ones.
  [[nodiscard]] static endpoint destination(std::uint32_t place, std::uint16_t port) {
    if (place % 2 == 0) return {ip_address::v4(0x0a000001 + (place << 8)), port};
    std::array<std::uint8_t, 16> bytes{0xfd, 0, 0, 0, 0, static_cast<std::uint8_t>(place)};
    bytes[15] = 1;
    return {ip_address::v6(bytes), port};
  }
  [[nodiscard]] outcome decide(const endpoint& to, std::uint16_t source_port,
                               flow_class_id cls) const {
    const auto& with = classes_[cls];
    const bool v4 = to.address.is_v4();
    const std::uint32_t id =
        v4 ? with.v4.lookup(to_key4(to.address)) : with.v6.lookup(to_key6(to.address));
    const path_list list = lists_[id];
    std::uint32_t chosen = list.index;
    if (list.count > 1) {
      const be16 from = be16::from_host(source_port), port = be16::from_host(to.port);
      std::array<std::uint8_t, 4> short_one{};
      std::array<std::uint8_t, 16> long_one{};
      if (v4)
        std::memcpy(short_one.data(), to.address.bytes().data(), short_one.size());
      else
        std::memcpy(long_one.data(), to.address.bytes().data(), long_one.size());
      const auto hash =
          v4 ? table_.hash_v4({}, short_one, from, port) : table_.hash_v6({}, long_one, from, port);
      chosen = select_member(group_pointers_[list.index], list, hash);
    }
    const hop& via = hops_[chosen];
    if (via.egress == divert_slot) return {.reason = via.reason};
    if (via.egress == egress_count) return {.reason = divert_reason::no_egress_socket};
    return {.slot = via.egress, .serial = serial_of(via)};
  }

 private:
  static constexpr std::uint32_t first_hop = divert_reason_count;

  static std::uint64_t serial_of(const hop& via) {
    std::uint64_t serial = 0;
    std::memcpy(&serial, via.header + header_capacity - via.header_length, 6);
    return serial;
  }
  egress_slot random_egress() { return static_cast<egress_slot>(1 + random_() % egress_count); }

  void new_route(flow_class_id cls, std::uint32_t place) {
    const std::uint32_t id =
        random_() % 8 == 0
            ? static_cast<std::uint32_t>(random_() % divert_reason_count)
            : static_cast<std::uint32_t>(first_single + random_() % (hop_count + group_count));
    const ip_address address = destination(place, 0).address;
    if (id == 0) {
      if (address.is_v4())
        v4_[cls].erase(to_key4(address), 24);
      else
        v6_[cls].erase(to_key6(address), 48);
    } else if (address.is_v4()) {
      v4_[cls].assign(to_key4(address), 24, id);
    } else {
      v6_[cls].assign(to_key6(address), 48, id);
    }
  }
  void new_members(std::uint32_t group) {
    const std::uint64_t count = 1 + random_() % members_[group].size();
    for (std::uint64_t i = 0; i < count; ++i)
      members_[group][i] = {
          static_cast<std::uint32_t>((std::uint64_t{1} << 31) * (i + 1) / count - 1),
          static_cast<std::uint32_t>(first_hop + random_() % hop_count)};
    lists_[first_group + group] = count == 1 ? path_list{members_[group][0].hop, 1}
                                             : path_list{group, static_cast<std::uint16_t>(count)};
  }
  void new_neighbour(std::uint32_t i) {
    ++newest_serial_;
    test::hop_spec spec;
    std::memcpy(spec.destination_mac.bytes.data(), &newest_serial_, 6);
    if (i % 3 == 0) spec.vlan = 5;
    spec.source = ip_address::v4(0x0a000001);
    hop& via = hops_[first_hop + i];
    const egress_slot egress = via.egress != divert_slot ? via.egress : random_egress();
    if (made_[i]) {  // All else stays.
      std::memcpy(made_[i]->header + header_capacity - made_[i]->header_length, &newest_serial_, 6);
    } else {
      made_[i] = test::make_hop(spec);
    }
    via = *made_[i];
    via.egress = egress;
  }
  void finish() {
    for (const auto& group : members_) group_pointers_.push_back(group.data());
    table_.version = 1;
    table_.class_tables = classes_.data();
    table_.class_index = class_index_.data();
    table_.class_count = class_count;
    table_.path_list_chunks = &chunk_;
    table_.hops = hops_.data();
    table_.groups = group_pointers_.data();
  }

  std::mt19937_64& random_;
  std::uint64_t newest_serial_ = 0;
  std::vector<hop> hops_ = std::vector<hop>(first_hop + hop_count);
  std::array<std::optional<hop>, hop_count> made_;
  std::array<path_list, forwarding_table::path_list_chunk> lists_{};
  std::array<std::array<hop_group_member, 4>, group_count> members_{};
  std::vector<const hop_group_member*> group_pointers_;
  std::array<lpm_trie<lpm_key4>, class_count> v4_;
  std::array<lpm_trie<lpm_key6>, class_count> v6_;
  std::array<forwarding_table::class_table, class_count> classes_{};
  std::array<std::uint16_t, class_count> class_index_{0, 1};
  const path_list* chunk_ = lists_.data();
  forwarding_table table_;
};

/// Sends batches on one thread and compares what becomes of each datagram with the newest table.
class sending_world {
 public:
  explicit sending_world(std::mt19937_64& random) : world(random), random_(random) {
    core.attach(producer_.channel);
    core.attach(another_.channel);
    core.add_port(1, 11, one_.queue());
    core.add_port(2, 12, two_.queue());
  }
  void publish() { world.publish(tables_); }

  void draw_batch() {
    batch_.resize(1 + random_() % 6);
    for (sent& s : batch_) {
      s.to = changing_world::destination(static_cast<std::uint32_t>(random_() % world.place_count),
                                         static_cast<std::uint16_t>(9 + random_() % 2));
      s.source_port = static_cast<std::uint16_t>(8001 + random_() % 2);
      s.cls = static_cast<flow_class_id>(random_() % world.class_count);
    }
  }
  void send_batch() {
    for (std::uint32_t i = 0; i < batch_.size(); ++i) {
      sent& s = batch_[i];
      s.met.reset();
      std::array<std::byte, 32> payload{};
      std::memcpy(payload.data(), &i, sizeof i);
      auto& by = i % 5 == 0 ? another_ : producer_;
      ASSERT_TRUE(by.send(payload, request_destination::from(s.to), s.cls, s.source_port));
    }
    static_cast<void>(core.run_once());
    transmit(one_, 1);
    transmit(two_, 2);
    diverted_request d;
    while (core.diverted().try_pop(d)) {
      meet(d.request.frame, {.reason = d.reason});
      auto& home = d.request.frame < another_.slice.first ? producer_ : another_;
      ASSERT_TRUE(home.returned_by_kernel.try_push(d.request.frame));
    }
    for (const sent& s : batch_)
      ASSERT_EQ(s.met, world.decide(s.to, s.source_port, s.cls)) << s.to.to_string();
  }

 private:
  struct sent {
    endpoint to;
    std::uint16_t source_port = 0;
    flow_class_id cls = 0;
    std::optional<outcome> met;
  };

  void meet(frame_index frame, const outcome& what) {
    std::uint32_t number;
    std::memcpy(&number, memory_.memory().payload(frame), sizeof number);
    ASSERT_FALSE(batch_.at(number).met);
    batch_[number].met = what;
  }
  void transmit(test::fake_device& device, egress_slot slot) {
    device.transmit(64, [&](const tx_descriptor& d) {
      outcome what{.slot = slot};
      std::memcpy(&what.serial, memory_.memory().base + d.address, 6);
      meet(memory_.memory().frame_at(d.address), what);
    });
    device.complete();
  }

  umem memory_{{.frame_count = 512, .huge_pages = false}};
  publisher tables_;
  epoch_domain epochs_;
  doorbell control_;
  test::test_producer producer_{memory_, 0, 128}, another_{memory_, 1, 128};
  test::fake_device one_{64}, two_{64};
  std::vector<sent> batch_;

 public:
  changing_world world;
  /// Its cache is so small that flows push each other out, too.
  tx_core core{memory_.memory(),
               tables_,
               epochs_,
               control_,
               {.stall_deadline = 1h, .flow_cache_bytes = 4096}};

 private:
  std::mt19937_64& random_;
};

/// Every datagram of every batch goes where the newest table sends it.
TEST(flow_cache_stress, no_frame_has_a_stale_hop_in_a_million_changes) {
  const std::uint64_t changes = asked_for("COWIRE_STRESS_CHANGES", usual_changes);
  const std::uint64_t seed = asked_for("COWIRE_STRESS_SEED", std::random_device{}());
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  sending_world sending(random);
  for (std::uint64_t done = 0; done < changes;) {
    for (std::uint64_t n = 1 + random() % 3; n > 0 && done < changes; --n, ++done)
      sending.world.change();
    sending.publish();
    sending.draw_batch();
    for (std::uint64_t n = 1 + random() % 4; n > 0; --n) {
      sending.send_batch();
      if (HasFatalFailure()) return;
    }
  }
  const tx_snapshot s = sending.core.snapshot();
  std::cout << s.flow_hits << " hits, " << s.flow_misses << " misses, " << s.flow_pauses
            << " pauses\n";
  EXPECT_GT(s.flow_hits, changes / 8);
  EXPECT_GT(s.flow_misses, changes / 8);
}

/// Eight places, and in each version each has another hop, which carries the version's number.
class numbered_world {
 public:
  static constexpr std::uint32_t places = 8;

  [[nodiscard]] static std::uint32_t hop_of(std::uint32_t place, std::uint64_t version) {
    return static_cast<std::uint32_t>((place + version) % places);
  }
  [[nodiscard]] static egress_slot egress_of(std::uint64_t version) {
    return static_cast<egress_slot>(1 + version / 2 % 2);
  }

  numbered_world() {
    test::hop_spec spec;
    spec.source = ip_address::v4(0x0a000001);
    pattern_ = test::make_hop(spec);
    for (std::uint32_t i = 0; i < places; ++i)
      trie_.assign(to_key4(ip_address::v4(0x0a000000 + (i << 8))), 24, first + i);
    classes_[0].v4 = trie_.commit();
  }

  /// The memory of the last version but one is used again: nobody reads it any more.
  forwarding_table& make(std::uint64_t version) {
    const std::size_t half = version % 2;
    const auto first_hop = static_cast<std::uint32_t>(half * places);
    for (std::uint32_t i = 0; i < places; ++i) {
      hop& made = hops_[first_hop + i];
      made = pattern_;
      made.egress = egress_of(version);
      std::byte* const start = made.header + header_capacity - made.header_length;
      start[0] = static_cast<std::byte>(i);
      std::memcpy(start + 6, &version, 6);
      lists_[half][first + i] = {first_hop + hop_of(i, version), 1};
    }
    forwarding_table& table = tables_[half];
    table.version = 1;
    table.class_tables = classes_.data();
    table.class_index = &class_index_;
    table.class_count = 1;
    table.path_list_chunks = &chunks_[half];
    table.hops = hops_.data();
    return table;
  }

 private:
  static constexpr std::uint32_t first = divert_reason_count;
  hop pattern_;
  lpm_trie<lpm_key4> trie_;
  std::array<forwarding_table::class_table, 1> classes_{};
  std::uint16_t class_index_ = 0;
  std::vector<hop> hops_ = std::vector<hop>(2 * places);
  std::array<std::array<path_list, forwarding_table::path_list_chunk>, 2> lists_{};
  std::array<const path_list*, 2> chunks_{lists_[0].data(), lists_[1].data()};
  std::array<forwarding_table, 2> tables_;
};

/// Looks at each frame that a device has: its hop is the one of its place in one version, and that
/// version is not older than the one that was current when the request was made.
class frame_checker {
 public:
  frame_checker(const frame_memory& memory, const std::atomic<std::uint64_t>& newest)
      : memory_(memory), newest_(newest) {}

  void check(const tx_descriptor& d, egress_slot slot) {
    const std::byte* const frame = memory_.base + d.address;
    const std::byte* const payload = memory_.payload(memory_.frame_at(d.address));
    std::uint64_t version = 0, least;
    std::uint32_t place;
    std::memcpy(&version, frame + 6, 6);
    std::memcpy(&least, payload, sizeof least);
    std::memcpy(&place, payload + sizeof least, sizeof place);
    // It may have been published and not counted yet.
    const bool right =
        version >= least && version <= newest_.load() + 1 &&
        static_cast<std::uint32_t>(frame[0]) == numbered_world::hop_of(place, version) &&
        slot == numbered_world::egress_of(version);
    if (!right) ++stale;
    ++seen;
  }
  std::atomic<std::uint64_t> seen{0}, stale{0};

 private:
  frame_memory memory_;
  const std::atomic<std::uint64_t>& newest_;
};

/// Publishes version after version, some batches each, or when asked to.
void publish_versions(numbered_world& world, publisher& tables, epoch_domain& epochs,
                      std::atomic<std::uint64_t>& newest, const std::atomic<std::uint64_t>& seen,
                      std::atomic<bool>& asked, const std::atomic<bool>& stop) {
  while (!stop) {
    const std::uint64_t until = seen + newest % 7 * 8;
    while (seen < until && !stop && !asked.exchange(false)) std::this_thread::yield();
    const std::uint64_t next = newest + 1;
    static_cast<void>(tables.store(&world.make(next)));
    newest = next;
    epochs.retire(std::make_unique<std::uint64_t>(next), sizeof next);
    while (!epochs.synchronize(std::chrono::steady_clock::now() + 1s)) {
    }
  }
}

/// With threads of their own for changes, core, producer and devices.
TEST(flow_cache_stress, frames_follow_publications_of_another_thread) {
  const std::uint64_t datagrams = asked_for("COWIRE_STRESS_DATAGRAMS", 60'000);
  umem memory({.frame_count = 512, .huge_pages = false});
  publisher tables;
  epoch_domain epochs;
  doorbell control;
  numbered_world world;
  static_cast<void>(tables.store(&world.make(1)));
  std::atomic<std::uint64_t> newest{1};
  std::atomic<bool> stop{false}, asked{false};
  frame_checker checker(memory.memory(), newest);
  tx_core core(memory.memory(), tables, epochs, control,
               {.idle = idle_policy::yield, .stall_deadline = 1h});
  test::test_producer producer(memory, 0, 256);
  core.attach(producer.channel);
  test::fake_device one(128), two(128);
  core.add_port(1, 11, one.queue());
  core.add_port(2, 12, two.queue());
  core.start();

  std::thread changes(
      [&] { publish_versions(world, tables, epochs, newest, checker.seen, asked, stop); });
  std::thread devices([&] {
    while (!stop) {
      std::uint32_t did = one.transmit(64, [&](const auto& d) { checker.check(d, 1); });
      did += two.transmit(64, [&](const auto& d) { checker.check(d, 2); });
      did += one.complete() + two.complete();
      if (did == 0) std::this_thread::yield();
    }
  });
  std::vector<request_destination> to;
  for (std::uint32_t i = 0; i < world.places; ++i)
    to.push_back(request_destination::from({ip_address::v4(0x0a000001 + (i << 8)), 9}));
  constexpr std::uint64_t at_most_of_one_version = 500;
  std::uint64_t last = newest;
  while (producer.sent < datagrams) {
    if (producer.sent % at_most_of_one_version == 0) {  // However threads are scheduled.
      asked = true;
      while (newest == last) std::this_thread::yield();
      last = newest;
    }
    const auto place = static_cast<std::uint32_t>(producer.sent % world.places);
    const std::uint64_t least = newest;
    std::array<std::byte, 16> payload{};
    std::memcpy(payload.data(), &least, sizeof least);
    std::memcpy(payload.data() + sizeof least, &place, sizeof place);
    if (!producer.send(payload, to[place])) std::this_thread::yield();
    core.work_bell().ring();
  }
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (checker.seen != datagrams && std::chrono::steady_clock::now() < deadline)
    std::this_thread::yield();
  stop = true;
  changes.join();
  devices.join();
  core.stop();
  const tx_snapshot s = core.snapshot();
  std::cout << newest << " versions, " << s.flow_hits << " hits, " << s.flow_misses << " misses\n";
  EXPECT_EQ(checker.seen, datagrams);
  EXPECT_EQ(checker.stale, 0u);
  EXPECT_GE(newest, datagrams / at_most_of_one_version);
  EXPECT_GE(s.flow_misses, datagrams / at_most_of_one_version);
  EXPECT_GT(s.flow_hits, 0u);
}

}  // namespace
}  // namespace cowire
