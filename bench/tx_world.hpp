// SPDX-License-Identifier: Apache-2.0
/// A TX core on rings in plain memory, with 5 000 destinations to send to and a device that is
/// instant: what the benchmarks of the core share. One thread uses all of it.
#pragma once

#include <cowire/xdp/tx_core.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "bench/route_table.hpp"
#include "testbed/hand_made_table.hpp"
#include "testbed/test_producer.hpp"

namespace cowire::bench {

inline constexpr std::size_t payload_size = 1232;
inline constexpr std::size_t destination_count = 5000;
inline constexpr std::uint32_t frame_count = 8192;
inline constexpr unsigned next_hops = 16;
/// The usual size; under callgrind the processor has less cache.
inline constexpr std::size_t flow_cache_bytes = std::size_t{1} << 19;

/// Completes whatever is in the ring.
class instant_device {
 public:
  [[nodiscard]] tx_queue queue() noexcept {
    tx_queue q;
    q.producer = &producer_;
    q.consumer = &consumer_;
    q.flags = &flags_;
    q.descriptors = descriptors_.data();
    q.size = static_cast<std::uint32_t>(descriptors_.size());
    q.completion_producer = &completion_producer_;
    q.completion_consumer = &completion_consumer_;
    q.completions = completions_.data();
    q.completion_size = static_cast<std::uint32_t>(completions_.size());
    q.kick = [](void*) noexcept { return 0; };
    return q;
  }
  void run() noexcept {
    const std::uint32_t ready = std::atomic_ref(producer_).load(std::memory_order_acquire);
    for (; consumer_ != ready; ++consumer_)
      completions_[completion_producer_++ % ring] = descriptors_[consumer_ % ring].address;
  }

 private:
  static constexpr std::uint32_t ring = 2048;
  std::uint32_t producer_ = 0, consumer_ = 0, flags_ = 0;
  std::uint32_t completion_producer_ = 0, completion_consumer_ = 0;
  std::vector<tx_descriptor> descriptors_ = std::vector<tx_descriptor>(ring);
  std::vector<std::uint64_t> completions_ = std::vector<std::uint64_t>(ring);
};

/// What the hops that the routes lead to put in front of a payload.
enum class hop_kind : std::uint8_t { plain, vlan, ipv6, gre, gre_in_gre };

inline constexpr std::array<std::pair<const char*, hop_kind>, 5> hop_kinds = {
    {{"plain", hop_kind::plain},
     {"vlan", hop_kind::vlan},
     {"ipv6", hop_kind::ipv6},
     {"gre", hop_kind::gre},
     {"gre_in_gre", hop_kind::gre_in_gre}}};

/// Always the same table and destinations for the same arguments.
struct tx_world {
  /// As many hops: 16 routers, or each destination a neighbour of its own.
  explicit tx_world(std::size_t routes, hop_kind kind = hop_kind::plain, unsigned hops = next_hops)
      : family(kind == hop_kind::ipv6 ? ip_family::v6 : ip_family::v4) {
    std::mt19937 random(1);
    std::vector<std::uint32_t> paths;
    for (unsigned i = 0; i < hops; ++i) {
      test::hop_spec spec;
      spec.family = family;
      spec.source = address(0x0a000001);
      spec.destination_mac.bytes[4] = static_cast<std::uint8_t>(i >> 8);
      spec.destination_mac.bytes[5] = static_cast<std::uint8_t>(i);
      if (kind == hop_kind::vlan) spec.vlan = 5;
      const auto tunnel = std::pair(ip_address::v4(0x0a000001), ip_address::v4(0x0a000100u + i));
      if (kind == hop_kind::gre) spec.outer = {tunnel};
      if (kind == hop_kind::gre_in_gre) spec.outer = {tunnel, tunnel};
      paths.push_back(table.add_hop(test::make_hop(spec)));
    }
    const auto prefixes = synthetic_table(routes, hops);
    for (const table_route& r : prefixes)
      table.route(ip_prefix(address(r.prefix), r.length + (family == ip_family::v6 ? 16 : 0)),
                  paths[r.value - 1]);
    tables.store(&table.finish());
    for (std::size_t i = 0; i < destination_count; ++i) {
      const table_route& r = prefixes[random() % prefixes.size()];
      const auto host = static_cast<std::uint32_t>(random()) & host_bits(r.length);
      destinations.push_back(request_destination::from({address(r.prefix | host), 8000}));
    }
    core.attach(producer.channel);
    core.add_port(1, 1, device.queue());
  }

  [[nodiscard]] const request_destination& next() noexcept {
    at = at + 1 == destinations.size() ? 0 : at + 1;
    return destinations[at];
  }

  /// From now on no datagram goes where one went before: each pass over the destinations has ports
  /// of its own.
  void use_new_destinations() noexcept { always_new = true; }

  /// A batch whose payloads lie in their frames already.
  void queue_batch_in_place() noexcept {
    producer.reclaim();
    for (std::size_t i = 0; i < tx_batch; ++i) {
      static_cast<void>(producer.send_in_place(payload_size, next()));
      if (always_new) change_port(destinations[at]);
    }
  }
  void send_batch_in_place() noexcept {
    queue_batch_in_place();
    static_cast<void>(core.run_once());
    device.run();
  }
  void queue_batch_with_copy() noexcept {
    producer.reclaim();
    for (std::size_t i = 0; i < tx_batch; ++i) static_cast<void>(producer.send(payload, next()));
  }
  void send_batch_with_copy() noexcept {
    queue_batch_with_copy();
    static_cast<void>(core.run_once());
    device.run();
  }

  static void change_port(request_destination& to) noexcept {
    const std::size_t size = to.family == ip_family::v4 ? 4 : 16;
    to = request_destination::from(
        {ip_address::from_bytes(to.family, to.bytes.data() + to.bytes.size() - size),
         static_cast<std::uint16_t>(to.port.host() + 1)});
  }

  /// The IPv6 table is the same one behind 2001::/16.
  [[nodiscard]] ip_address address(std::uint32_t v4) const noexcept {
    if (family == ip_family::v4) return ip_address::v4(v4);
    std::array<std::uint8_t, 16> bytes{0x20, 0x01};
    const be32 behind = be32::from_host(v4);
    std::memcpy(bytes.data() + 2, &behind, sizeof behind);
    return ip_address::v6(bytes);
  }

  ip_family family;
  umem memory{{.frame_count = frame_count}};
  publisher tables;
  epoch_domain epochs;
  doorbell control;
  test::hand_made_table table;
  std::vector<request_destination> destinations;
  std::vector<std::byte> payload = std::vector<std::byte>(payload_size, std::byte{0x5a});
  std::size_t at = 0;
  bool always_new = false;
  instant_device device;
  test::test_producer producer{memory, 0, frame_count};
  tx_core core{memory.memory(), tables, epochs, control, {.flow_cache_bytes = flow_cache_bytes}};
};

}  // namespace cowire::bench
