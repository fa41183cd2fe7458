// SPDX-License-Identifier: Apache-2.0
// The C interface as a program in C++ sees it, and the examples in C and Python, which tests of
// other languages cannot be. COWIRE_LIBRARY and the examples' places are set by the build.
#include <cowire/c/cowire.h>

#include <tests/async/choosing_socket.hpp>
#include <tests/async/numbered_stream.hpp>
#include <tests/support/child.hpp>
#include <tests/support/two_hosts.hpp>

#include <fcntl.h>
#include <poll.h>

#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

namespace cowire::test {
namespace {

cowire_address address_of(const endpoint& to) {
  const raw_address raw(to);
  cowire_address out{};
  std::memcpy(&out, &raw.storage, raw.size);
  return out;
}

cowire_datagram_options as_c(const datagram_options& o) {
  cowire_datagram_options out = COWIRE_DATAGRAM_OPTIONS_INIT;
  if (o.source) out.source = address_of({*o.source, 0});
  if (o.dscp) out.dscp = *o.dscp;
  if (o.ecn) out.ecn = static_cast<int>(*o.ecn);
  out.ttl = o.ttl;
  if (o.mark) out.flags |= COWIRE_WITH_MARK;
  out.mark = o.mark.value_or(0);
  if (o.path_mtu_probe) out.flags |= COWIRE_PATH_MTU_PROBE;
  return out;
}

std::map<std::string, std::uint64_t> counters(const cowire_transmitter* tx) {
  std::vector<cowire_counter> some(cowire_counters(tx, nullptr, 0));
  EXPECT_EQ(some.size(), cowire_counters(tx, some.data(), some.size()));
  std::map<std::string, std::uint64_t> out;
  for (const auto& one : some) out[one.name] = one.value;
  return out;
}

/// What a program printed, but for what the library says of a starved machine.
std::string without_warnings(const std::string& printed) {
  std::istringstream lines(printed);
  std::string out;
  for (std::string line; std::getline(lines, line);)
    if (!line.starts_with("cowire: warning: ")) out += line + '\n';
  return out;
}

class c_interface : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    sink = std::make_unique<numbered_sink>(*b, to("10.77.1.2:9000"));
    resolve("10.77.1.2");
  }
  void TearDown() override {
    cowire_sender_close(s);
    cowire_close(tx);
    sink.reset();
    two_hosts::TearDown();
  }
  void open(std::uint32_t frames = 256, std::uint32_t parts = 1, std::uint16_t port = 0) {
    cowire_options options = COWIRE_OPTIONS_INIT;
    options.frames = frames;
    options.shared_producers = parts;
    ASSERT_EQ(0, cowire_open(&options, &tx)) << cowire_text();
    cowire_sender_options wanted = COWIRE_SENDER_OPTIONS_INIT;
    wanted.source_port = port;
    ASSERT_EQ(0, cowire_sender_open(tx, &wanted, &s)) << cowire_text();
  }
  int open_file(std::string_view text) {
    char path[] = "/tmp/cowire_c_XXXXXX";
    const unique_fd file(::mkstemp(path));
    EXPECT_EQ(static_cast<ssize_t>(text.size()), ::write(file.get(), text.data(), text.size()));
    const int opened = cowire_open_file(path, &tx);
    ::unlink(path);
    return opened;
  }
  cowire_datagram numbered(const std::uint64_t& number) const {
    return {&number, sizeof number, there, 0};
  }
  cowire_frame numbered_frame(const std::uint64_t& number) const {
    cowire_frame frame;
    EXPECT_EQ(0, cowire_frame_acquire(s, &frame)) << cowire_text();
    std::memcpy(frame.data, &number, sizeof number);
    frame.length = sizeof number;
    return frame;
  }
  std::vector<cowire_frame> all_frames() {
    std::vector<cowire_frame> out;
    cowire_frame one;
    while (cowire_frame_acquire(s, &one) == 0) out.push_back(one);
    return out;
  }
  bool readable(int timeout_ms) const {
    pollfd news{cowire_sender_fd(s), POLLIN, 0};
    return ::poll(&news, 1, timeout_ms) == 1;
  }
  void expect_exactly(std::uint64_t sent) {
    EXPECT_TRUE(eventually([&] { return counters(tx)["on_the_way"] == 0; }));
    EXPECT_EQ(sent, counters(tx)["submitted"]);
    EXPECT_TRUE(eventually([&] { return sink->arrived() == sent; })) << sink->arrived();
    sink->stop();
    EXPECT_EQ("", sink->missing(sent));
    EXPECT_EQ(0u, sink->duplicates());
  }

  const cowire_address there = address_of(to("10.77.1.2:9000"));
  cowire_transmitter* tx = nullptr;
  cowire_sender* s = nullptr;
  std::unique_ptr<numbered_sink> sink;
};

TEST_F(c_interface, threads_send_batches_and_wait_by_poll) {
  open(256, 4);
  constexpr std::uint64_t threads = 16, each = 500;
  std::vector<std::thread> all;
  for (std::uint64_t t = 0; t < threads; ++t)
    all.emplace_back([&, t] {
      std::vector<std::uint64_t> numbers(each);
      std::vector<cowire_datagram> some;
      for (std::uint64_t i = 0; i < each; ++i) {
        numbers[i] = t * each + i;
        some.push_back(numbered(numbers[i]));
      }
      for (std::size_t done = 0; done < some.size();) {
        const auto accepted = cowire_try_send(s, &some[done], some.size() - done);
        if (accepted >= 0) {
          done += static_cast<std::size_t>(accepted);
          continue;
        }
        ASSERT_EQ(-EAGAIN, accepted) << cowire_text();
        cowire_error error;
        readable(100);  // Another thread may take the news away: so not without limit.
        ASSERT_EQ(-EAGAIN, cowire_next_error(s, &error));
      }
    });
  for (auto& one : all) one.join();
  expect_exactly(threads * each);
}

TEST_F(c_interface, a_fan_out_says_whom_it_has_reached) {
  open();
  std::vector<cowire_address> to_all(10, there);
  auto leased = all_frames();
  ASSERT_EQ(256u, leased.size());
  const std::uint64_t number = 0;
  EXPECT_EQ(-EAGAIN, cowire_fan_out(s, &number, sizeof number, to_all.data(), 10, nullptr));
  hold_devices_up();
  for (int i = 0; i < 6; ++i) {
    cowire_frame_release(&leased.back());
    leased.pop_back();
  }
  // The descriptor's own frame is back by then, and it is told.
  EXPECT_TRUE(readable(60'000));
  ssize_t accepted = 0;
  EXPECT_TRUE(eventually([&] {
    accepted = cowire_fan_out(s, &number, sizeof number, to_all.data(), 10, nullptr);
    return accepted != -EAGAIN;
  }));
  EXPECT_EQ(6, accepted);
  for (auto& one : leased) cowire_frame_release(&one);
  EXPECT_TRUE(eventually([&] {
    const auto rest = static_cast<std::size_t>(10 - accepted);
    const auto more = cowire_fan_out(s, &number, sizeof number, &to_all[10 - rest], rest, nullptr);
    accepted += std::max<ssize_t>(more, 0);
    return accepted == 10;
  }));
  EXPECT_EQ(10u, counters(tx)["submitted"]);
}

TEST_F(c_interface, frames_are_written_in_place_submitted_and_released) {
  open();
  for (std::uint64_t i = 0; i < 100; ++i) {
    cowire_frame frame, moved;
    ASSERT_EQ(0, cowire_frame_acquire(s, &frame)) << cowire_text();
    EXPECT_EQ(cowire_payload_max(s), frame.capacity);
    std::memcpy(frame.data, &i, sizeof i);
    frame.length = sizeof i;
    moved = frame;
    ASSERT_EQ(1, cowire_frame_submit(s, &moved, &there, 1)) << cowire_text();
    EXPECT_EQ(nullptr, moved.data);
    EXPECT_EQ(-EINVAL, cowire_frame_submit(s, &moved, &there, 1));
    cowire_frame_release(&moved);
  }
  expect_exactly(100);
  auto all = all_frames();
  EXPECT_EQ(256u, all.size());
  for (auto& one : all) cowire_frame_release(&one);
}

TEST_F(c_interface, a_frame_of_another_threads_part_waits_for_room_there) {
  open(128, 2);
  // Ours, which has room, and that of a thread with the other part, which has none but `theirs`.
  auto ours = all_frames();
  std::vector<cowire_frame> theirs;
  while (theirs.empty()) std::thread([&] { theirs = all_frames(); }).join();
  for (auto& one : ours) cowire_frame_release(&one);
  cowire_frame handed = theirs.back();
  theirs.pop_back();
  ASSERT_FALSE(theirs.empty());
  const std::uint64_t number = 0;
  std::memcpy(handed.data, &number, sizeof number);
  handed.length = sizeof number;
  cowire_error error;
  ASSERT_TRUE(readable(60'000));  // Ours has room again.
  ASSERT_EQ(-EAGAIN, cowire_next_error(s, &error));
  const cowire_address two[] = {there, there};
  EXPECT_EQ(-EAGAIN, cowire_frame_submit(s, &handed, two, 2));  // Needs a copy.
  EXPECT_FALSE(readable(300));
  cowire_frame_release(&theirs.back());
  theirs.pop_back();
  EXPECT_TRUE(readable(60'000));
  EXPECT_EQ(2, cowire_frame_submit(s, &handed, two, 2)) << cowire_text();
  for (auto& one : theirs) cowire_frame_release(&one);
  EXPECT_TRUE(eventually([&] { return counters(tx)["on_the_way"] == 0; }));
  EXPECT_EQ(2u, counters(tx)["submitted"]);
}

TEST_F(c_interface, errors_make_the_descriptor_readable_and_are_told) {
  open();
  const cowire_address closed = address_of(to("10.77.1.2:7")),
                       nowhere = address_of(to("203.0.113.1:7"));
  cowire_error error;
  EXPECT_EQ(-EAGAIN, cowire_next_error(s, &error));
  EXPECT_FALSE(readable(0));
  EXPECT_EQ(1, cowire_fan_out(s, "x", 1, &closed, 1, nullptr));
  ASSERT_TRUE(readable(60'000));
  ASSERT_EQ(0, cowire_next_error(s, &error));
  EXPECT_EQ(ECONNREFUSED, error.number);
  EXPECT_EQ(1, error.from_network);
  EXPECT_EQ(0, std::memcmp(&closed, &error.destination, sizeof(sockaddr_in)));
  EXPECT_EQ(-EAGAIN, cowire_next_error(s, &error));
  EXPECT_FALSE(readable(0));
  EXPECT_EQ(1, cowire_fan_out(s, "x", 1, &nowhere, 1, nullptr));
  ASSERT_TRUE(readable(60'000));
  ASSERT_EQ(0, cowire_next_error(s, &error));
  EXPECT_EQ(ENETUNREACH, error.number);
  EXPECT_EQ(0, error.from_network);
}

TEST_F(c_interface, options_are_those_of_a_socket) {
  cowire_options options = COWIRE_OPTIONS_INIT;
  options.interfaces = "a0";
  ASSERT_EQ(0, cowire_open(&options, &tx)) << cowire_text();
  cowire_sender_options wanted = COWIRE_SENDER_OPTIONS_INIT;
  wanted.source_port = 4321;
  wanted.device = "a0";
  wanted.source_v4 = address_of(to("10.77.1.1:1"));
  ASSERT_EQ(0, cowire_sender_open(tx, &wanted, &s)) << cowire_text();
  EXPECT_EQ(4321, cowire_source_port(s));
  udp_sink other(*b, to("10.77.1.2:9001"));
  const cowire_address to_other = address_of(to("10.77.1.2:9001"));
  EXPECT_EQ(1, cowire_fan_out(s, "x", 1, &to_other, 1, nullptr));
  const auto got = other.next();
  ASSERT_TRUE(got);
  EXPECT_EQ(to("10.77.1.1:4321"), got->from);
}

// Values that programs are compiled with; the rest of the ABI is in c/cowire.abi.
static_assert(COWIRE_MODE_AUTO == 0 && COWIRE_MODE_ZERO_COPY == 1 && COWIRE_MODE_COPY == 2 &&
              COWIRE_MODE_KERNEL == 3 && COWIRE_WITH_MARK == 1 && COWIRE_PATH_MTU_PROBE == 2);

TEST_F(c_interface, sizes_tell_old_programs_from_new_ones) {
  struct {
    cowire_options known = COWIRE_OPTIONS_INIT;
    std::uint64_t later = 0;
  } newer;
  newer.known.size = sizeof newer;
  newer.known.mode = COWIRE_MODE_KERNEL;
  ASSERT_EQ(0, cowire_open(&newer.known, &tx)) << cowire_text();
  cowire_close(std::exchange(tx, nullptr));
  newer.later = 1;
  EXPECT_EQ(-E2BIG, cowire_open(&newer.known, &tx));
  cowire_options older = COWIRE_OPTIONS_INIT;
  older.size = offsetof(cowire_options, tx_cores);
  older.mode = COWIRE_MODE_KERNEL;
  older.tx_cores = 1u << 30;  // Not looked at.
  ASSERT_EQ(0, cowire_open(&older, &tx)) << cowire_text();
  older.size = 0;
  cowire_transmitter* none = nullptr;
  EXPECT_EQ(-EINVAL, cowire_open(&older, &none));
}

TEST_F(c_interface, a_second_transmitter_says_that_its_queues_are_taken) {
  open();
  int ends[2];
  ASSERT_EQ(0, ::pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  unique_fd reader(ends[0]);
  unique_fd writer(ends[1]);
  cowire_options options = COWIRE_OPTIONS_INIT;
  options.interfaces = "a0";
  options.log_fd = writer.get();
  const auto open_and_close = [&options] {
    cowire_transmitter* second = nullptr;
    EXPECT_EQ(0, cowire_open(&options, &second)) << cowire_text();
    cowire_close(second);
  };
  open_and_close();
  std::string said(4096, '\0');
  said.resize(static_cast<std::size_t>(
      std::max<ssize_t>(::read(reader.get(), said.data(), said.size()), 0)));
  const std::string warning = "cowire: warning: a0: kernel (";
  EXPECT_EQ(0u, said.find(warning)) << said;
  EXPECT_EQ('\n', said.back());
  // A program that knows of no log_fd yet, and one that wants none of it.
  const auto to_stderr = [&] {
    ::testing::internal::CaptureStderr();
    open_and_close();
    return ::testing::internal::GetCapturedStderr();
  };
  options.size = offsetof(cowire_options, log_fd);
  const std::string by_default = to_stderr();
  EXPECT_NE(std::string::npos, by_default.find(warning)) << by_default;
  options.size = sizeof options;
  options.log_fd = -1;
  const std::string silent = to_stderr();
  EXPECT_EQ(std::string::npos, silent.find("cowire: ")) << silent;
  // A reader that has gone harms nobody.
  options.log_fd = writer.get();
  reader.reset();
  open_and_close();
  cowire_transmitter* none = nullptr;
  options.log_fd = -2;
  EXPECT_EQ(-EINVAL, cowire_open(&options, &none));
  options.log_fd = 1 << 20;
  EXPECT_EQ(-EBADF, cowire_open(&options, &none));
  options.log_fd = 0;
  options.reserved = 1;
  EXPECT_EQ(-EINVAL, cowire_open(&options, &none));
}

TEST_F(c_interface, datagrams_choose_for_themselves) {
  open();
  capture wire(*b, "b0");
  cowire_datagram_options chosen = COWIRE_DATAGRAM_OPTIONS_INIT;
  chosen.ecn = 2;
  const std::uint64_t number = 0;
  const cowire_datagram two[] = {numbered(number), numbered(number)};
  ASSERT_EQ(1, cowire_try_send_with(s, two, 1, &chosen)) << cowire_text();
  ASSERT_EQ(2, cowire_try_send_with(s, two, 2, &chosen)) << cowire_text();
  ASSERT_EQ(1, cowire_fan_out(s, &number, sizeof number, &there, 1, &chosen)) << cowire_text();
  for (int i = 0; i < 4; ++i) {
    const auto frame = wire.next();
    ASSERT_GT(frame.size(), 42u);
    EXPECT_EQ(2, frame[15]) << i;
  }
  chosen.dscp = 46;
  chosen.ttl = 9;
  chosen.flags = COWIRE_WITH_MARK;
  chosen.mark = 5;
  ASSERT_EQ(1, cowire_try_send_with(s, two, 1, &chosen)) << cowire_text();
  const auto frame = wire.next();
  ASSERT_GT(frame.size(), 42u);
  EXPECT_EQ(0xba, static_cast<unsigned char>(frame[15]));
  EXPECT_EQ(9, frame[22]);
  ASSERT_EQ(1, cowire_try_send_with(s, two, 1, nullptr)) << cowire_text();
  const auto plain = wire.next();
  ASSERT_GT(plain.size(), 42u);
  EXPECT_EQ(0, plain[15]);
  chosen.dscp = 64;
  EXPECT_EQ(-EINVAL, cowire_try_send_with(s, two, 1, &chosen));
  EXPECT_NE(std::string::npos, std::string(cowire_text()).find("dscp is 64; it may be -1 to 63"));
  chosen.dscp = -1;
  chosen.flags = 4;
  EXPECT_EQ(-EINVAL, cowire_fan_out(s, &number, sizeof number, &there, 1, &chosen));
  chosen.flags = 0;
  chosen.source = address_of(to("[fd77:1::1]:1"));
  EXPECT_EQ(-EAFNOSUPPORT, cowire_try_send_with(s, two, 1, &chosen));
  chosen.size = 3;
  EXPECT_EQ(-EINVAL, cowire_try_send_with(s, two, 1, &chosen));
}

/// A frame that goes to two, a copy of it and itself, as a socket sends that chooses the same by
/// control messages: by the kernel at first, and past it.
TEST_F(c_interface, frames_choose_for_themselves) {
  (*a)("ip addr add 10.77.1.7/24 dev a0");
  capture wire(*b, "b0");
  const auto all = all_options("10.77.1.7");
  const std::uint64_t number = 0;
  const std::string text(reinterpret_cast<const char*>(&number), sizeof number);
  std::vector<std::string> kernel;
  {
    choosing_socket socket(ip_family::v4, 4321);
    for (const auto& o : all) {
      ASSERT_EQ(0, socket.send(to("10.77.1.2:9000"), text, o)) << described(o);
      kernel.push_back(wire.next());
    }
  }
  open(256, 1, 4321);
  const cowire_address two[] = {there, there};
  const auto send_all = [&] {
    for (std::size_t i = 0; i < all.size(); ++i) {
      cowire_frame frame = numbered_frame(number);
      const cowire_datagram_options chosen = as_c(all[i]);
      ASSERT_EQ(2, cowire_frame_submit_with(s, &frame, two, 2, &chosen)) << cowire_text();
      EXPECT_EQ(nullptr, frame.data);
      EXPECT_EQ(kernel[i], wire.next()) << described(all[i]);
      EXPECT_EQ(kernel[i], wire.next()) << described(all[i]);
    }
  };
  EXPECT_TRUE(eventually([&] {
    const auto before = counters(tx)["kernel_path"];
    send_all();
    return eventually([&] { return counters(tx)["on_the_way"] == 0; }) &&
           counters(tx)["kernel_path"] == before;
  }));
  // To more than are sent to at a time.
  const std::vector<cowire_address> many(130, there);
  cowire_frame frame = numbered_frame(number);
  const cowire_datagram_options chosen = as_c(all.back());
  ASSERT_EQ(130, cowire_frame_submit_with(s, &frame, many.data(), 130, &chosen)) << cowire_text();
  for (std::size_t i = 0; i < many.size(); ++i) EXPECT_EQ(kernel.back(), wire.next()) << i;
}

TEST_F(c_interface, a_frame_whose_choices_are_refused_stays_the_callers) {
  open();
  const std::uint64_t number = 0;
  cowire_frame frame = numbered_frame(number);
  cowire_datagram_options chosen = COWIRE_DATAGRAM_OPTIONS_INIT;
  chosen.dscp = 64;
  EXPECT_EQ(-EINVAL, cowire_frame_submit_with(s, &frame, &there, 1, &chosen));
  EXPECT_NE(std::string::npos, std::string(cowire_text()).find("dscp is 64")) << cowire_text();
  chosen.dscp = -1;
  chosen.source = address_of(to("[fd77:1::1]:1"));
  EXPECT_EQ(-EAFNOSUPPORT, cowire_frame_submit_with(s, &frame, &there, 1, &chosen));
  ASSERT_NE(nullptr, frame.data);
  ASSERT_EQ(1, cowire_frame_submit_with(s, &frame, &there, 1, nullptr)) << cowire_text();
  EXPECT_EQ(-EINVAL, cowire_frame_submit_with(s, &frame, &there, 1, nullptr));
  expect_exactly(1);
}

TEST_F(c_interface, what_is_wrong_has_a_number_and_a_text) {
  cowire_options options = COWIRE_OPTIONS_INIT;
  options.interfaces = "absent0";
  EXPECT_EQ(-ENODEV, cowire_open(&options, &tx));
  EXPECT_NE(std::string::npos, std::string(cowire_text()).find("absent0")) << cowire_text();
  options.interfaces = nullptr;
  options.mode = 77;
  EXPECT_EQ(-EINVAL, cowire_open(&options, &tx));
  EXPECT_GT(0, cowire_open_file("/absent/cowire.toml", &tx));
  EXPECT_NE(std::string::npos, std::string(cowire_text()).find("/absent/cowire.toml"));
  open();
  const std::vector<char> longest(cowire_payload_max(s) + 1);
  cowire_datagram d{longest.data(), longest.size(), there, 0};
  EXPECT_EQ(-EMSGSIZE, cowire_try_send(s, &d, 1));
  d.length = 1;
  d.reserved = 1;
  EXPECT_EQ(-EINVAL, cowire_try_send(s, &d, 1));
  d.reserved = 0;
  d.to.any.sa_family = AF_UNIX;
  EXPECT_EQ(-EINVAL, cowire_try_send(s, &d, 1));
  EXPECT_EQ(-EDESTADDRREQ, cowire_fan_out(s, "x", 1, nullptr, 0, nullptr));
  cowire_close(std::exchange(tx, nullptr));
  d.to = there;
  EXPECT_EQ(-ESHUTDOWN, cowire_try_send(s, &d, 1));
  cowire_frame frame;
  EXPECT_EQ(-ESHUTDOWN, cowire_frame_acquire(s, &frame));
  EXPECT_EQ(nullptr, frame.data);
}

TEST_F(c_interface, groups_are_sent_to_as_the_file_says) {
  capture wire(*b, "b0");
  ASSERT_EQ(0, open_file("[xdp]\ninterface = \"a0\"\n[multicast]\nttl = 9\ninterface = \"a0\"\n"
                         "loop = false\n[intake]\ngroup = 0\n"))
      << cowire_text();
  ASSERT_EQ(0, cowire_sender_open(tx, nullptr, &s)) << cowire_text();
  const cowire_address group = address_of(to("239.1.2.3:9000"));
  EXPECT_EQ(1, cowire_fan_out(s, "x", 1, &group, 1, nullptr)) << cowire_text();
  const auto frame = wire.next();
  ASSERT_GT(frame.size(), 42u);
  EXPECT_EQ(9, frame[22]);  // TTL
  EXPECT_EQ(1, cowire_fan_out(s, "x", 1, &there, 1, nullptr)) << cowire_text();
  const auto other = wire.next();
  ASSERT_GT(other.size(), 42u);
  EXPECT_EQ(64, other[22]);
}

TEST_F(c_interface, opens_from_a_file) {
  ASSERT_EQ(0, open_file("[xdp]\ninterface = \"a0\"\n")) << cowire_text();
  ASSERT_EQ(0, cowire_sender_open(tx, nullptr, &s)) << cowire_text();
  const std::uint64_t number = 0;
  const auto d = numbered(number);
  EXPECT_EQ(1, cowire_try_send(s, &d, 1));
  expect_exactly(1);
}

TEST_F(c_interface, explains_as_the_command_does) {
  std::string json(4096, '\0');
  const auto length = cowire_explain("10.77.1.2 dport 9000", json.data(), json.size());
  ASSERT_GT(length, 0) << cowire_text();
  json.resize(static_cast<std::size_t>(length));
  EXPECT_NE(std::string::npos, json.find("\"dev\":\"a0\"")) << json;
  EXPECT_NE(std::string::npos, json.find("\"cowire\":")) << json;
  char few[4];
  EXPECT_EQ(length, cowire_explain("10.77.1.2 dport 9000", few, sizeof few));
  EXPECT_EQ(json.substr(0, 3), few);
  EXPECT_EQ(-EINVAL, cowire_explain("no address", few, sizeof few));
}

TEST_F(c_interface, a_child_is_refused) {
  open();
  const std::uint64_t number = 0;
  const auto d = numbered(number);
  const pid_t child = fork_for_allocating();
  if (child == 0) {
    ::alarm(60);
    cowire_frame frame;
    const bool refused = cowire_try_send(s, &d, 1) == -ECHILD &&
                         cowire_fan_out(s, "x", 1, &there, 1, nullptr) == -ECHILD &&
                         cowire_frame_acquire(s, &frame) == -ECHILD;
    ::_exit(refused ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
  EXPECT_EQ(1, cowire_try_send(s, &d, 1));
  expect_exactly(1);
}

TEST_F(c_interface, a_child_is_refused_whoever_held_a_lock) {
#if defined(COWIRE_ADDRESS_SANITIZER)
  GTEST_SKIP() << "AddressSanitizer's own locks would hang the child, which allocates";
#endif
  open(64, 1);
  auto leased = all_frames();
  ASSERT_LT(1u, leased.size());
  cowire_frame_release(&leased.back());
  leased.pop_back();
  std::atomic<bool> done{false};
  // One takes the locks of reports, the other those of room.
  std::thread reads([&] {
    cowire_error error;
    while (!done) cowire_next_error(s, &error);
  });
  std::thread waits([&] {
    while (!done)
      for (auto& one : all_frames()) cowire_frame_release(&one);
  });
  for (int i = 0; i < 20; ++i) {
    const pid_t child = fork_for_allocating();
    if (child == 0) {
      ::alarm(60);  // A hang is a failure.
      cowire_error error;
      cowire_sender* another = nullptr;
      const bool refused = cowire_next_error(s, &error) == -ECHILD &&
                           cowire_frame_submit(s, &leased.front(), &there, 1) == -ECHILD &&
                           cowire_sender_open(tx, nullptr, &another) == -ECHILD &&
                           cowire_counters(tx, nullptr, 0) == 0 && cowire_errors_dropped(s) == 0;
      cowire_frame_release(&leased.front());
      ::_exit(refused ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(child, ::waitpid(child, &status, 0));
    EXPECT_EQ(0, status);
  }
  done = true;
  reads.join();
  waits.join();
  for (auto& one : leased) cowire_frame_release(&one);
}

TEST_F(c_interface, only_its_functions_are_exported) {
  const auto symbols = run("nm -D --defined-only --format=posix " COWIRE_LIBRARY);
  std::size_t functions = 0;
  std::istringstream lines(symbols);
  for (std::string name, type, rest; lines >> name >> type && std::getline(lines, rest);) {
    if (name.starts_with("COWIRE_0") && type == "A") continue;  // The version itself.
    EXPECT_TRUE(name.starts_with("cowire_") && type == "T") << name << " " << type;
    ++functions;
  }
  // As many as the header declares.
  std::ifstream header(COWIRE_HEADER);
  std::size_t declared = 0;
  for (std::string line; std::getline(header, line);) declared += line.starts_with("COWIRE_API ");
  EXPECT_EQ(declared, functions) << symbols;
}

#if defined(C_EXAMPLE)
TEST_F(c_interface, the_example_in_c_sends) {
  udp_sink other(*b, to("10.77.1.2:9001"));
  const auto out = run(C_EXAMPLE " 10.77.1.2 9001 20");
  EXPECT_NE(std::string::npos, out.find("submitted 20\n")) << out;
  for (int i = 0; i < 20; ++i) {
    const auto got = other.next();
    ASSERT_TRUE(got) << i;
    EXPECT_EQ("datagram " + std::to_string(i), got->bytes);
  }
}
#endif

TEST_F(c_interface, the_example_in_python_sends) {
#if defined(COWIRE_ADDRESS_SANITIZER) || defined(COWIRE_THREAD_SANITIZER)
  GTEST_SKIP() << "python3 is not built with the sanitizer that the library needs";
#endif
  udp_sink other(*b, to("10.77.1.2:9001"));
  const auto out = run("python3 -B " PYTHON_EXAMPLE " " COWIRE_LIBRARY " 10.77.1.2 9001 20");
  EXPECT_EQ("submitted 22\n", without_warnings(out));
  for (int i = 0; i < 22; ++i) {
    const auto got = other.next();
    ASSERT_TRUE(got) << i;
    EXPECT_EQ(i < 20 ? "datagram " + std::to_string(i) : "to all", got->bytes);
  }
}

}  // namespace
}  // namespace cowire::test
