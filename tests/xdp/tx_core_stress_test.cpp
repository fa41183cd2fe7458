// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/tx_core.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "testbed/hand_made_table.hpp"
#include "testbed/test_producer.hpp"
#include "tests/xdp/fake_device.hpp"

namespace cowire {
namespace {

using namespace std::chrono_literals;

/// Producers, a core, two devices and the control thread, each a thread of its own, while ports
/// come and go.
TEST(tx_core_stress, every_frame_comes_home_while_ports_come_and_go) {
  constexpr std::uint32_t producer_count = 2;
  const char* const asked = std::getenv("COWIRE_STRESS_DATAGRAMS");
  const std::uint64_t per_producer = asked != nullptr ? std::strtoull(asked, nullptr, 10) : 30'000;

  umem memory({.frame_count = 1024, .huge_pages = false});
  publisher tables;
  epoch_domain epochs;
  doorbell control;
  test::hand_made_table table;
  test::hop_spec spec;
  spec.source = ip_address::v4(0x0a000001);
  const std::uint32_t by_1 = table.add_hop(test::make_hop(spec));
  spec.egress = 2;
  const std::uint32_t by_2 = table.add_hop(test::make_hop(spec));
  table.route("10.1.0.0/16", by_1);
  table.route("10.2.0.0/16", by_2);
  tables.store(&table.finish());

  test::fake_device steady(128), fickle(128);
  tx_core core(memory.memory(), tables, epochs, control, {.idle = idle_policy::adaptive});
  std::vector<std::unique_ptr<test::test_producer>> producers;
  for (std::uint32_t i = 0; i < producer_count; ++i) {
    producers.push_back(std::make_unique<test::test_producer>(memory, i, 256));
    core.attach(producers.back()->channel);
  }
  core.add_port(1, 11, steady.queue());
  core.add_port(2, 12, fickle.queue());
  core.start();

  std::atomic<bool> devices_run{true};
  std::thread devices([&] {
    for (std::uint32_t i = 0; devices_run; ++i) {
      const bool steady_did = steady.transmit(1 + i % 60) + steady.complete(1 + i % 50) != 0;
      const bool fickle_did = fickle.transmit(1 + i % 30) + fickle.complete(1 + i % 20) != 0;
      if (!steady_did && !fickle_did) std::this_thread::yield();
    }
  });
  std::vector<std::thread> threads;
  std::atomic<std::uint32_t> done{0};
  for (auto& producer : producers) {
    threads.emplace_back([&, p = producer.get()] {
      const std::array<request_destination, 3> to = {
          request_destination::from({ip_address::v4(0x0a010001), 9}),
          request_destination::from({ip_address::v4(0x0a020001), 9}),
          request_destination::from({ip_address::v4(0xc0000201), 9})};
      const std::vector<std::byte> payload(100);
      while (p->sent < per_producer) {
        if (p->send(payload, to[p->sent % 3])) {
          core.work_bell().ring();
        } else {
          std::this_thread::yield();
        }
      }
      ++done;
    });
  }

  std::uint64_t kernel_path = 0;
  const auto serve_control = [&] {
    diverted_request d;
    while (core.diverted().try_pop(d)) {
      ++kernel_path;
      auto& home = *producers[d.request.frame / 256];
      ASSERT_TRUE(home.returned_by_kernel.try_push(d.request.frame));
    }
  };
  bool has_fickle = true;
  for (int round = 0; done != producer_count; ++round) {
    serve_control();
    if (round % 50 == 49) {
      if (has_fickle) {
        core.remove_port(2, 1s);
      } else {
        core.add_port(2, 12, fickle.queue());
      }
      has_fickle = !has_fickle;
    }
    std::this_thread::yield();
  }
  for (auto& thread : threads) thread.join();
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  const auto settled = [&] {
    const tx_snapshot s = core.snapshot();  // Not a consistent cut: only sums that grow tell.
    return s.completed_total() + s.diverted_total() + s.lost_total() ==
           producer_count * per_producer;
  };
  while (!settled() && std::chrono::steady_clock::now() < deadline) {
    serve_control();
    std::this_thread::yield();
  }
  core.stop();
  devices_run = false;
  devices.join();
  serve_control();

  const tx_snapshot s = core.snapshot();
  EXPECT_EQ(s.taken, producer_count * per_producer);
  EXPECT_EQ(s.taken, s.completed_total() + s.diverted_total() + s.lost_total());
  EXPECT_EQ(s.diverted_total(), kernel_path);
  EXPECT_EQ(s.slots[1].unknown_completions + s.slots[2].unknown_completions, 0u);
  for (auto& producer : producers) {
    producer->reclaim();
    EXPECT_EQ(producer->pool.free_count(), producer->slice.count);
  }
}

/// A core that sleeps is woken by the first request, every time.
TEST(tx_core_stress, a_sleeping_core_wakes_for_a_single_request) {
  umem memory({.frame_count = 1024, .huge_pages = false});
  publisher tables;
  epoch_domain epochs;
  doorbell control;
  test::test_producer producer(memory, 0, 64);
  tx_core core(memory.memory(), tables, epochs, control, {.idle = idle_policy::adaptive});
  core.attach(producer.channel);
  core.start();
  const auto to = request_destination::from({ip_address::v4(0x0a010001), 9});
  std::uint64_t sleeps = 0;
  for (int i = 0; i < 30; ++i) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    for (const std::uint64_t before = sleeps; sleeps == before;) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::yield();
      sleeps = core.snapshot().idle_sleeps;
    }
    ASSERT_TRUE(producer.send({}, to));
    core.work_bell().ring();
    diverted_request d;
    while (!core.diverted().try_pop(d)) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::yield();
    }
    ASSERT_TRUE(producer.returned_by_kernel.try_push(d.request.frame));
  }
}

/// On a machine with two CPUs one that only polls would be half of it.
TEST(tx_core_stress, a_pinned_core_polls_for_ever_only_where_cpus_are_to_spare) {
  umem memory({.frame_count = 64, .huge_pages = false});
  publisher tables;
  epoch_domain epochs;
  doorbell control;
  tx_core core(memory.memory(), tables, epochs, control, {.cpu = 0});
  core.start();
  if (std::thread::hardware_concurrency() > 2) {
    std::this_thread::sleep_for(200ms);
    EXPECT_EQ(core.snapshot().idle_sleeps, 0u);
    return;
  }
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (core.snapshot().idle_sleeps == 0)
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "it never slept";
}

}  // namespace
}  // namespace cowire
