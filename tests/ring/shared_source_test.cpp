// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/shared_source.hpp>

#include <cowire/base/error.hpp>
#include <cowire/ring/ring_timer.hpp>

#include "on_both_backends.hpp"

#include <array>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace cowire {
namespace {

using detail::shared_source;
using detail::source_entry;
using test::on_both_backends;
using test::socket_pair;
using test::text_of;
using namespace std::chrono_literals;

/// Takes what it can, until told to stop.
struct collecting_sink final : detail::datagram_sink {
  bool take(source_entry& arrived) noexcept override {
    texts.push_back(text_of(arrived.received.payload()));
    if (keeps) kept.push_back(std::move(arrived.received));
    return go_on;
  }
  void ring_gone() noexcept override { gone = true; }
  std::vector<std::string> texts;
  std::vector<datagram> kept;
  bool keeps = false, go_on = true, gone = false;
};

class shared_source_test : public on_both_backends {
 protected:
  [[nodiscard]] std::shared_ptr<shared_source> make(const socket_pair& on, std::size_t count) {
    return std::make_shared<shared_source>(ring(), on.near.get(),
                                           shared_source::options{.buffer_count = count}, nullptr);
  }
  /// A datagram of the sink's source is no work of the ring: a timer keeps it.
  void run_until(const collecting_sink& sink, std::size_t count) {
    ring_timer turn(ring());
    do {
      turn.expires_after(1ms);
      turn.async_wait([](std::error_code) {});
      run();
    } while (sink.texts.size() < count);
  }
  socket_pair sockets_;
};

TEST_P(shared_source_test, a_sink_takes_what_arrives_without_being_work) {
  auto sink = std::make_shared<collecting_sink>();
  const auto source = make(sockets_, 4);
  source->deliver_to(sink);
  std::vector<std::string> sent;
  for (int i = 0; i < 100; ++i) sent.push_back(std::to_string(i));
  for (std::size_t i = 0; i < sent.size(); ++i) {
    sockets_.send(sent[i]);
    run_until(*sink, i + 1);
  }
  EXPECT_EQ(sent, sink->texts);
  sink->go_on = false;
  sockets_.send("last");
  run_until(*sink, 101);
  sink->go_on = true;
  source->deliver_to(sink);
  sockets_.send("more");
  run_until(*sink, 102);
  run();  // Ends.
  source->close();
  run();
  sockets_.send("nobody's");
  run();
  EXPECT_EQ(102u, sink->texts.size());
}

TEST_P(shared_source_test, hands_over_no_more_than_it_may_and_loses_nothing) {
  for (int round = 0; round < 2; ++round) {
    auto sink = std::make_shared<collecting_sink>();
    sink->keeps = true;
    const auto source = make(sockets_, 3);
    source->deliver_to(sink);
    run_until(*sink, 0);
    std::vector<std::string> sent;
    for (int i = 0; i < 10; ++i) sockets_.send(sent.emplace_back(std::to_string(i)));
    for (std::size_t count = 3; count <= 10; ++count) {
      run_until(*sink, count);
      run_until(*sink, 0);
      EXPECT_EQ(count, sink->texts.size());
      EXPECT_GT(source->starved(), 0u);
      std::thread other([&] { sink->kept.erase(sink->kept.begin()); });
      other.join();
    }
    EXPECT_EQ(sent, sink->texts);
    EXPECT_EQ("9", text_of(sink->kept.back().payload()));
    source->close();
    run();
    EXPECT_EQ("8", text_of(sink->kept.front().payload()));  // Outlives its source.
  }
}

TEST_P(shared_source_test, one_that_has_used_up_its_share_takes_nothing_from_others) {
  std::array<socket_pair, 8> pairs;
  std::vector<std::shared_ptr<shared_source>> sources;
  std::vector<std::shared_ptr<collecting_sink>> sinks;
  for (auto& pair : pairs) {
    sinks.push_back(std::make_shared<collecting_sink>());
    sinks.back()->keeps = true;
    sources.push_back(make(pair, 100));
    sources.back()->deliver_to(sinks.back());
  }
  for (int i = 0; i < 100; ++i) {
    for (auto& pair : pairs) pair.send(std::to_string(i));
    if (i % 5 == 4)
      for (auto& sink : sinks) run_until(*sink, static_cast<std::size_t>(i) + 1);
  }
  pairs[0].send("too many");
  for (auto& sink : sinks) {
    EXPECT_EQ(100u, sink->texts.size());
    for (int i = 0; i < 100; ++i)
      EXPECT_EQ(std::to_string(i), text_of(sink->kept[static_cast<std::size_t>(i)].payload()));
  }
  sinks[1]->kept.clear();
  pairs[1].send("more");
  run_until(*sinks[1], 101);
  EXPECT_EQ(100u, sinks[0]->texts.size());
  for (const auto& source : sources) source->close();
  run();
}

TEST_P(shared_source_test, a_ring_that_goes_says_so_and_leases_stay) {
  auto sink = std::make_shared<collecting_sink>();
  sink->keeps = true;
  auto source = make(sockets_, 4);
  source->deliver_to(sink);
  sockets_.send("kept");
  run_until(*sink, 1);
  source = nullptr;  // Armed, so that the ring keeps it.
  ring_.reset();
  EXPECT_TRUE(sink->gone);
  EXPECT_EQ("kept", text_of(sink->kept[0].payload()));
  sink->kept.clear();
}

TEST_P(shared_source_test, receiving_goes_on_in_another_thread) {
  auto sink = std::make_shared<collecting_sink>();
  const auto source = make(sockets_, 4);
  source->deliver_to(sink);
  sockets_.send("here");
  run_until(*sink, 1);
  sockets_.send("there");
  std::thread([&] { run_until(*sink, 2); }).join();
  source->close();
  run();
}

TEST_P(shared_source_test, options_out_of_range_are_refused) {
  for (const std::size_t count : {std::size_t{0}, std::size_t{32769}})
    EXPECT_THROW(static_cast<void>(make(sockets_, count)), std::system_error);
}

COWIRE_ON_BOTH_BACKENDS(shared_source_test);

}  // namespace
}  // namespace cowire
