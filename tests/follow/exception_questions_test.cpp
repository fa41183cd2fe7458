// SPDX-License-Identifier: Apache-2.0
/// What is asked about one destination's exceptions, without a kernel: path_exceptions_test.cpp has
/// one.
#include <tests/route/world.hpp>

#include <cowire/follow/detail/path_exceptions.hpp>
#include <cowire/route/resolve.hpp>

#include <gtest/gtest.h>
#include <linux/netlink.h>

#include <cerrno>
#include <cstring>

namespace cowire::detail {
namespace {

using namespace cowire::testing;

class ExceptionQuestions : public ::testing::Test {
 protected:
  /// Two next hops, between which a seed decides that nobody told, have exceptions by class.
  void SetUp() override {
    netlink::route made = route_via(net("20.0.0.0/8"), "10.2.0.9", 2);
    made.next_hops.push_back({3, ip("10.3.0.9"), 1, 0, false});
    state.apply(added(made), changes, message_origin::notification);
  }
  void use_classes(std::size_t count) {
    classes.resize(count);
    for (std::size_t i = 0; i < count; ++i) classes[i].mark = static_cast<std::uint32_t>(i);
  }
  /// The number of questions asked in one round, each of which the kernel cannot answer.
  std::size_t ask() {
    questions.ask(to, now);
    std::size_t asked = 0;
    for (; const auto request = questions.next_request(); ++asked) answer(*request);
    return asked;
  }
  [[nodiscard]] bool is_diverted(std::uint32_t mark) const {
    flow asked;
    asked.destination = to;
    asked.cls.mark = mark;
    return resolve(state, asked).divert == divert_reason::path_exception;
  }

  mirror state = small_world();
  mirror_changes changes;
  std::vector<flow_class> classes;
  path_exceptions questions{state, [this] { return classes; }};
  const ip_address to = ip("20.0.0.1");
  const path_exceptions::time_point now = std::chrono::steady_clock::now();

 private:
  void answer(const std::vector<std::byte>& request) {
    struct {
      nlmsghdr header;
      nlmsgerr error;
    } said{};
    std::memcpy(&said.error.msg, request.data(), sizeof said.error.msg);
    said.header.nlmsg_len = sizeof said;
    said.header.nlmsg_type = NLMSG_ERROR;
    said.header.nlmsg_seq = said.error.msg.nlmsg_seq;
    said.error.error = -ENETUNREACH;
    questions.on_answer_datagram(std::as_bytes(std::span(&said, 1)), now, changes);
  }
};

TEST_F(ExceptionQuestions, ClassesOfWhichNoneIsLeftOutAreAsFastAsBefore) {
  use_classes(path_exceptions::questions_max);
  EXPECT_EQ(ask(), path_exceptions::questions_max);
  EXPECT_FALSE(is_diverted(0));
}

TEST_F(ExceptionQuestions, ThoseThatAreLeftOutAreTheKernels) {
  use_classes(path_exceptions::questions_max + 1);
  EXPECT_EQ(ask(), path_exceptions::questions_max);
  EXPECT_TRUE(is_diverted(path_exceptions::questions_max));
}

TEST_F(ExceptionQuestions, TheyAreFastAgainOnceAllCanBeAsked) {
  use_classes(path_exceptions::questions_max + 1);
  ask();
  use_classes(2);
  ask();
  // The next rounds of the same question.
  for (auto later = now; is_diverted(0) && later < now + std::chrono::seconds(10);) {
    later += std::chrono::milliseconds(50);
    questions.on_timer(later, changes);
    ask();
  }
  EXPECT_FALSE(is_diverted(0));
}

}  // namespace
}  // namespace cowire::detail
