// SPDX-License-Identifier: Apache-2.0
// The monitor driven from bytes: a kernel that says exactly what each test wants it to say.
#include "tests/netlink/world.hpp"

#include <cowire/base/error.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/detail/message_builder.hpp>
#include <cowire/netlink/monitor.hpp>

#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <cerrno>
#include <cstring>

namespace cowire {
namespace {

using namespace netlink;
using namespace std::chrono_literals;
using test::consumer;
using test::world;
using bytes = std::vector<std::byte>;

constexpr std::size_t dumps_of_a_sync = 13;

bytes with_header(bytes m, std::uint16_t flags, std::uint32_t sequence) {
  nlmsghdr header;
  std::memcpy(&header, m.data(), sizeof header);
  header.nlmsg_flags = static_cast<std::uint16_t>(header.nlmsg_flags | flags);
  header.nlmsg_seq = sequence;
  std::memcpy(m.data(), &header, sizeof header);
  return m;
}

route route_to(unsigned number, std::uint32_t interface = 1) {
  route r;
  r.destination = {ip_address::v4(0x0a000000 + (number << 8)), 24};
  r.source = ip_prefix::all(ip_family::v4);
  r.table = RT_TABLE_MAIN;
  r.type = RTN_UNICAST;
  r.next_hops = {{interface, std::nullopt, 1, 0, false}};
  return r;
}

route removal_of(route r) {
  r.action = action::remove;
  return r;
}

class monitor_test : public ::testing::Test {
 protected:
  // Plays the kernel: what a dump finds. Objects that the request does not ask for are left out.
  std::vector<message> kernel_;
  monitor::time_point now_{};
  monitor monitor_;
  consumer consumer_;

  struct request {
    std::uint32_t sequence = 0;
    std::uint16_t type = 0;
    ip_family family = ip_family::v4;
  };

  std::optional<request> next_request() {
    const auto b = monitor_.next_request(now_);
    if (!b) return std::nullopt;
    nlmsghdr header;
    std::memcpy(&header, b->data(), sizeof header);
    const bool v6 = b->at(sizeof header) == std::byte{AF_INET6};
    return request{header.nlmsg_seq, header.nlmsg_type, v6 ? ip_family::v6 : ip_family::v4};
  }

  void reply(const bytes& b) {
    monitor_.on_reply_datagram(b, now_);
    EXPECT_TRUE(consumer_.drain(monitor_));
  }
  void reply_done(const request& r, int error_number = 0, std::uint16_t flags = 0) {
    reply(detail::message_builder(NLMSG_DONE, static_cast<std::uint16_t>(NLM_F_MULTI | flags),
                                  r.sequence, std::int32_t{-error_number})
              .finish());
  }
  void reply_object(const request& r, const message& m, std::uint16_t flags = 0) {
    reply(with_header(encode(m), static_cast<std::uint16_t>(NLM_F_MULTI | flags), r.sequence));
  }
  // The objects of kernel_ in a datagram each.
  void reply_objects(const request& r, std::uint16_t flags = 0) {
    const bool routes = r.type == RTM_GETROUTE;
    for (const message& m : kernel_)
      if (routes == std::holds_alternative<route>(m) && (!routes || family_of(m) == r.family))
        reply_object(r, m, flags);
  }
  void answer(const request& r) {
    reply_objects(r);
    reply_done(r);
  }
  // Answers whatever is asked; returns how many dumps that were.
  std::size_t answer_all() {
    std::size_t dumps = 0;
    for (; const auto r = next_request(); ++dumps) answer(*r);
    return dumps;
  }
  void event(const message& m) {
    monitor_.on_event_datagram(encode(m), now_);
    EXPECT_TRUE(consumer_.drain(monitor_));
  }
  void overrun() {
    monitor_.on_overrun(now_);
    EXPECT_TRUE(consumer_.drain(monitor_));
  }
  void timer() {
    monitor_.on_timer(now_);
    EXPECT_TRUE(consumer_.drain(monitor_));
  }
  // Answers up to and with the dump of this type, without that one's end.
  request answer_until(std::uint16_t type) {
    for (;;) {
      const auto r = next_request();
      EXPECT_TRUE(r);
      if (!r || r->type == type) return r.value_or(request{});
      answer(*r);
    }
  }
  [[nodiscard]] static world world_of(const std::vector<message>& objects) {
    world w;
    for (const message& m : objects) w.apply(m);
    return w;
  }
  void expect_live(const std::vector<message>& objects) {
    EXPECT_EQ(test::difference(consumer_.live(), world_of(objects)), "");
  }
  void sync() {
    monitor_.start();
    EXPECT_EQ(answer_all(), dumps_of_a_sync);
    EXPECT_TRUE(monitor_.in_sync());
  }
};

TEST_F(monitor_test, asks_nothing_before_the_start) {
  EXPECT_FALSE(next_request());
  EXPECT_FALSE(monitor_.deadline());
  event(route_to(1));
  overrun();
  EXPECT_EQ(consumer_.history(), "");
}

TEST_F(monitor_test, dumps_everything_once_and_then_follows_the_events) {
  kernel_ = {route_to(1), route_to(2)};
  sync();
  expect_live(kernel_);
  EXPECT_EQ(consumer_.history(), "sync_started object sync_complete");
  EXPECT_FALSE(next_request());
  EXPECT_FALSE(monitor_.deadline());
  event(route_to(3));
  event(removal_of(route_to(1)));
  expect_live({route_to(2), route_to(3)});
}

TEST_F(monitor_test, can_be_started_again) {
  kernel_ = {route_to(1)};
  sync();
  static_cast<void>(next_request());
  kernel_ = {route_to(2)};
  sync();
  expect_live(kernel_);
}

TEST_F(monitor_test, asks_one_dump_at_a_time) {
  monitor_.start();
  EXPECT_TRUE(next_request());
  EXPECT_FALSE(next_request());
}

TEST_F(monitor_test, replays_events_that_arrive_during_the_dumps) {
  kernel_ = {route_to(1), route_to(2)};
  monitor_.start();
  event(route_to(7));
  const auto r = answer_until(RTM_GETROUTE);
  event(removal_of(route_to(1)));  // The dump, older than this, still has it.
  answer(r);
  event(removal_of(route_to(7)));
  answer_all();
  expect_live({route_to(2)});
  EXPECT_EQ(consumer_.history(), "sync_started object replayed sync_complete");
}

TEST_F(monitor_test, keeps_the_old_world_current_while_a_new_one_is_read) {
  kernel_ = {route_to(1)};
  sync();
  monitor_.request_sync();
  const auto r = answer_until(RTM_GETROUTE);
  event(route_to(2));
  expect_live({route_to(1), route_to(2)});
  answer(r);
  answer_all();
  expect_live({route_to(1), route_to(2)});
}

TEST_F(monitor_test, reads_everything_again_after_an_overrun) {
  kernel_ = {route_to(1)};
  sync();
  kernel_ = {route_to(2)};
  overrun();
  EXPECT_FALSE(monitor_.in_sync());
  expect_live({route_to(1)});  // Until the new one is whole.
  EXPECT_EQ(answer_all(), dumps_of_a_sync);
  expect_live({route_to(2)});
  EXPECT_TRUE(monitor_.in_sync());
  EXPECT_EQ(monitor_.counters().overruns, 1u);
  EXPECT_EQ(monitor_.counters().syncs_completed, 2u);
}

TEST_F(monitor_test, begins_anew_after_an_overrun_during_a_dump) {
  kernel_ = {route_to(1)};
  monitor_.start();
  const auto r = answer_until(RTM_GETROUTE);
  reply_object(r, route_to(1));
  overrun();
  EXPECT_FALSE(next_request());  // The kernel is still busy with the old dump.
  kernel_ = {route_to(2)};
  reply_object(r, route_to(9));
  reply_done(r);
  EXPECT_EQ(answer_all(), dumps_of_a_sync);
  expect_live({route_to(2)});
  EXPECT_EQ(monitor_.counters().syncs_abandoned, 1u);
}

TEST_F(monitor_test, backs_off_when_overruns_do_not_stop) {
  sync();
  overrun();
  EXPECT_EQ(answer_all(), dumps_of_a_sync);  // The first time at once.
  auto pause = 50ms;
  for (int i = 0; i < 10; ++i) {
    overrun();
    EXPECT_FALSE(next_request());
    ASSERT_EQ(monitor_.deadline(), now_ + pause);
    overrun();  // Nothing new.
    timer();    // Too early.
    EXPECT_FALSE(next_request());
    now_ += pause;
    timer();
    EXPECT_EQ(answer_all(), dumps_of_a_sync);
    pause = std::min(pause * 2, 5000ms);
  }
  now_ += 6s;  // A quiet time is forgiven.
  overrun();
  EXPECT_EQ(answer_all(), dumps_of_a_sync);
}

TEST_F(monitor_test, delivers_events_while_backing_off) {
  sync();
  overrun();
  answer_all();
  overrun();
  event(route_to(5));
  expect_live({route_to(5)});
}

TEST_F(monitor_test, treats_too_many_held_events_as_an_overrun) {
  monitor_options options;
  options.held_events_max = 3;
  monitor small(options);
  consumer sink;
  small.start();
  for (unsigned i = 0; i < 4; ++i) small.on_event_datagram(encode(route_to(i)), now_);
  EXPECT_TRUE(sink.drain(small));
  EXPECT_EQ(sink.setbacks(), std::vector<std::error_code>{error::overrun});
  EXPECT_EQ(small.counters().overruns, 1u);
}

TEST_F(monitor_test, repeats_an_interrupted_dump) {
  kernel_ = {route_to(1)};
  monitor_.start();
  const auto r = answer_until(RTM_GETROUTE);
  reply_object(r, route_to(8));
  reply_object(r, route_to(1), NLM_F_DUMP_INTR);
  reply_done(r);
  const auto again = next_request();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->type, r.type);
  EXPECT_NE(again->sequence, r.sequence);
  answer(*again);
  answer_all();
  expect_live({route_to(1)});
  EXPECT_EQ(monitor_.counters().interrupted_dumps, 1u);
  EXPECT_EQ(monitor_.counters().syncs_started, 1u);
}

TEST_F(monitor_test, sees_an_interruption_that_only_the_end_tells) {
  monitor_.start();
  const auto r = next_request();
  ASSERT_TRUE(r);
  reply_done(*r, 0, NLM_F_DUMP_INTR);
  const auto again = next_request();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->type, r->type);
}

TEST_F(monitor_test, gives_a_sync_up_whose_dump_is_always_interrupted) {
  monitor_.start();
  std::size_t dumps = 0;
  for (; const auto r = next_request(); ++dumps) reply_done(*r, 0, NLM_F_DUMP_INTR);
  // The first setback is answered at once, the second after a pause.
  EXPECT_EQ(dumps, 2u * 8u);
  EXPECT_EQ(consumer_.setbacks(), (std::vector<std::error_code>(2, error::interrupted_dump)));
  EXPECT_TRUE(monitor_.deadline());
}

TEST_F(monitor_test, takes_what_the_kernel_lacks_as_empty) {
  monitor_.start();
  for (const int number : {EOPNOTSUPP, EAFNOSUPPORT, ENOENT, ENODEV}) {
    const auto r = next_request();
    ASSERT_TRUE(r);
    reply_done(*r, number);
  }
  EXPECT_EQ(answer_all(), dumps_of_a_sync - 4);
  EXPECT_TRUE(monitor_.in_sync());
}

TEST_F(monitor_test, gives_a_sync_up_on_other_errors) {
  monitor_.start();
  const auto r = next_request();
  ASSERT_TRUE(r);
  reply_done(*r, ENOBUFS);
  EXPECT_EQ(consumer_.setbacks(), (std::vector<std::error_code>{errno_code(ENOBUFS)}));
}

TEST_F(monitor_test, ignores_answers_to_other_requests) {
  kernel_ = {route_to(1)};
  monitor_.start();
  const auto r = answer_until(RTM_GETROUTE);
  reply_object({r.sequence + 1000, r.type, r.family}, route_to(9));
  reply_done({r.sequence - 1, r.type, r.family});
  answer(r);
  answer_all();
  expect_live({route_to(1)});
  EXPECT_EQ(monitor_.counters().unrelated_replies, 2u);
}

TEST_F(monitor_test, ignores_objects_that_were_not_asked_for) {
  kernel_ = {route_to(1)};
  monitor_.start();
  const auto r = answer_until(RTM_GETROUTE);
  rule other;
  reply_object(r, other);
  route cloned = route_to(4);
  cloned.flags = RTM_F_CLONED;
  reply_object(r, cloned);
  answer(r);
  answer_all();
  event(cloned);
  expect_live({route_to(1)});
}

TEST_F(monitor_test, gives_up_on_silence) {
  monitor_.start();
  ASSERT_TRUE(next_request());
  ASSERT_EQ(monitor_.deadline(), now_ + 5s);
  now_ += 5s;
  timer();
  EXPECT_EQ(consumer_.setbacks(), (std::vector<std::error_code>{errno_code(ETIMEDOUT)}));
  EXPECT_EQ(answer_all(), dumps_of_a_sync);
}

TEST_F(monitor_test, does_not_trust_a_dump_that_lost_a_datagram) {
  monitor_.start();
  const auto r = next_request();
  ASSERT_TRUE(r);
  monitor_.on_reply_loss();
  reply_done(*r);
  EXPECT_EQ(consumer_.setbacks(), (std::vector<std::error_code>{error::truncated}));
}

TEST_F(monitor_test, does_not_trust_a_dump_with_a_malformed_object) {
  monitor_.start();
  const auto r = answer_until(RTM_GETROUTE);
  bytes lie = with_header(encode(route_to(1)), NLM_F_MULTI, r.sequence);
  lie[sizeof(nlmsghdr) + offsetof(rtmsg, rtm_dst_len)] = std::byte{77};
  reply(lie);
  reply_done(r);
  EXPECT_EQ(consumer_.setbacks(), (std::vector<std::error_code>{error::malformed}));
  EXPECT_EQ(monitor_.counters().malformed, 1u);
}

TEST_F(monitor_test, reads_everything_again_after_a_malformed_event) {
  sync();
  bytes lie = encode(route_to(1));
  lie[sizeof(nlmsghdr) + offsetof(rtmsg, rtm_dst_len)] = std::byte{77};
  monitor_.on_event_datagram(lie, now_);
  EXPECT_TRUE(consumer_.drain(monitor_));
  EXPECT_EQ(consumer_.setbacks(), (std::vector<std::error_code>{error::malformed}));
  EXPECT_EQ(answer_all(), dumps_of_a_sync);
}

const dump_scope ipv4_routes{object_kind::route, {ip_family::v4, 0, 0}};

TEST_F(monitor_test, refreshes_one_kind_by_mark_and_sweep) {
  kernel_ = {route_to(1), route_to(2)};
  sync();
  kernel_ = {route_to(2), route_to(3)};  // Changed without a word.
  monitor_.request_refresh(ipv4_routes);
  EXPECT_EQ(answer_all(), 1u);
  expect_live(kernel_);
  EXPECT_EQ(monitor_.counters().refreshes_completed, 1u);
}

TEST_F(monitor_test, refreshes_what_uses_one_interface) {
  kernel_ = {route_to(1, 1), route_to(2, 2), route_to(3, 2)};
  sync();
  kernel_ = {route_to(2, 2)};
  // This kernel lacks strict checking and would answer all; only interface 2 is believed.
  monitor_.request_refresh({object_kind::route, {ip_family::v4, 0, 2}});
  EXPECT_EQ(answer_all(), 1u);
  expect_live({route_to(1, 1), route_to(2, 2)});
}

TEST_F(monitor_test, delivers_events_at_once_during_a_refresh_and_again_after_it) {
  kernel_ = {route_to(1), route_to(2)};
  sync();
  monitor_.request_refresh(ipv4_routes);
  const auto r = next_request();
  ASSERT_TRUE(r);
  reply_objects(*r);
  event(removal_of(route_to(1)));
  expect_live({route_to(2)});
  event(route_to(5));
  reply_done(*r);
  expect_live({route_to(2), route_to(5)});
  EXPECT_EQ(consumer_.history(),
            "sync_started object sync_complete refresh_started object change replayed "
            "refresh_complete");
}

TEST_F(monitor_test, repeats_an_interrupted_refresh) {
  kernel_ = {route_to(1)};
  sync();
  monitor_.request_refresh(ipv4_routes);
  const auto r = next_request();
  ASSERT_TRUE(r);
  reply_object(*r, route_to(9), NLM_F_DUMP_INTR);
  reply_done(*r);
  EXPECT_EQ(answer_all(), 1u);
  expect_live(kernel_);
}

TEST_F(monitor_test, runs_refreshes_after_the_sync_that_they_were_asked_in) {
  kernel_ = {route_to(1)};
  monitor_.start();
  static_cast<void>(answer_until(RTM_GETROUTE));
  monitor_.request_refresh(ipv4_routes);
  monitor_.request_refresh(ipv4_routes);  // Once is enough.
  monitor_.start();
  monitor_.request_refresh(ipv4_routes);
  EXPECT_EQ(answer_all(), dumps_of_a_sync + 1);
}

TEST_F(monitor_test, asks_again_for_a_refresh_that_is_already_running) {
  sync();
  monitor_.request_refresh(ipv4_routes);
  const auto r = next_request();
  ASSERT_TRUE(r);
  monitor_.request_refresh(ipv4_routes);
  answer(*r);
  EXPECT_EQ(answer_all(), 1u);
}

TEST_F(monitor_test, drops_refreshes_that_an_overrun_makes_pointless) {
  sync();
  monitor_.request_refresh(ipv4_routes);
  const auto r = next_request();
  ASSERT_TRUE(r);
  overrun();
  answer(*r);
  EXPECT_EQ(answer_all(), dumps_of_a_sync);
  EXPECT_EQ(monitor_.counters().refreshes_completed, 0u);
}

TEST_F(monitor_test, merges_refreshes_that_are_too_many) {
  sync();
  for (std::uint32_t interface = 1; interface <= 1000; ++interface)
    monitor_.request_refresh({object_kind::route, {ip_family::v4, 0, interface}});
  EXPECT_LE(answer_all(), 64u);
}

}  // namespace
}  // namespace cowire
