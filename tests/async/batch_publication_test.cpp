// SPDX-License-Identifier: Apache-2.0
// How often a producer publishes to a TX core: after each instruction of a call it is looked at how
// many requests the core would see.
#include <cowire/async/detail/core_set.hpp>
#include <cowire/async/detail/producer.hpp>

#include <gtest/gtest.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

namespace cowire::detail {
namespace {

#if defined(__x86_64__) && !defined(COWIRE_ADDRESS_SANITIZER) && !defined(COWIRE_THREAD_SANITIZER)

constexpr std::size_t batch = 64;
static_assert(batch == tx_batch);

producer_channel* watched = nullptr;
std::size_t seen = 0, publications = 0;

void look(int) {
  const std::size_t now = watched->requests.readable();
  publications += now != seen;
  seen = now;
}

/// The processor's trap flag: SIGTRAP after each instruction of this thread.
void step(bool on) {
  constexpr std::uint64_t trap_flag = 1 << 8;
  const std::uint64_t flags = __builtin_ia32_readeflags_u64();
  __builtin_ia32_writeeflags_u64(on ? flags | trap_flag : flags & ~trap_flag);
}

class batch_publication : public ::testing::Test {
 protected:
  void SetUp() override {
    watched = &via.channel(0);
    seen = publications = 0;
    from->family_served = {true, true};
    std::signal(SIGTRAP, look);
  }
  void TearDown() override { std::signal(SIGTRAP, SIG_DFL); }
  /// How often so many datagrams are published.
  std::size_t publications_of(std::size_t count) {
    const std::vector<message> all(count, message{text, to});
    producer::send_operation op{.from = from, .batch = all};
    step(true);
    const bool done = via.advance(op);
    step(false);
    EXPECT_TRUE(done);
    EXPECT_EQ(count, watched->requests.readable());
    return publications;
  }

  const transmitter_config config;
  umem memory{{.frame_count = 4 * batch, .huge_pages = false}};
  epoch_domain epochs;
  publisher tables;
  doorbell control;
  const tracked_flows tracked{64};
  core_set cores{config, memory.memory(), tables, epochs, control, tracked};
  producer via{0, memory.memory(), {.first = 0, .count = 4 * batch}, cores};
  const std::shared_ptr<sender_state> from = std::make_shared<sender_state>();
  const std::string text = "x";
  const endpoint to = endpoint::parse("192.0.2.1:9000").value();
};

TEST_F(batch_publication, of_sixty_four_datagrams_is_one) { EXPECT_EQ(1u, publications_of(batch)); }

TEST_F(batch_publication, of_more_is_one_for_each_sixty_four) {
  EXPECT_EQ(3u, publications_of(2 * batch + 1));
}

#else

TEST(batch_publication, of_sixty_four_datagrams_is_one) {
  GTEST_SKIP() << "steps through an x86-64 program without a sanitizer";
}

#endif

}  // namespace
}  // namespace cowire::detail
