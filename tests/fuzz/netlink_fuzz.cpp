// SPDX-License-Identifier: Apache-2.0
// An input is a play for the monitor: scenes of one byte what, one byte how, two bytes length
// (little endian) and as many bytes of netlink. Each netlink message is also decoded on its own.
#include "tests/fuzz/fuzz_target.hpp"

#include "tests/netlink/random_message.hpp"
#include "tests/netlink/world.hpp"

#include <cowire/base/assert.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/monitor.hpp>

#include <linux/netlink.h>

#include <algorithm>
#include <cstring>
#include <span>

namespace cowire {
namespace {

using namespace netlink;
using bytes = std::vector<std::byte>;

enum class scene : std::uint8_t {
  event,
  reply,         // Sequence numbers are made to fit, or no dump would ever end.
  end_of_dumps,  // `how` of them, without error.
  overrun,
  reply_loss,
  timer,
  refresh,
  restart,
  count
};

void check_decode(std::span<const std::byte> datagram) {
  std::error_code ec;
  while (const auto e = next_envelope(datagram, ec)) {
    const auto m = decode(e->bytes, ec);
    COWIRE_ASSERT(!(m && ec));
    const auto end = decode_completion(*e, ec);
    COWIRE_ASSERT(!(end && ec));
    // What was understood can be said, and is understood again.
    if (m) COWIRE_ASSERT(decode(encode(*m), ec) && !ec);
  }
}

class play {
 public:
  play() { monitor_.start(); }

  void perform(scene what, std::uint8_t how, std::span<const std::byte> netlink_bytes) {
    now_ += std::chrono::milliseconds(how);
    switch (what) {
      case scene::event:
        check_decode(netlink_bytes);
        monitor_.on_event_datagram(netlink_bytes, now_);
        break;
      case scene::reply:
        monitor_.on_reply_datagram(with_sequence(netlink_bytes), now_);
        break;
      case scene::end_of_dumps:
        for (unsigned i = how % 16u; i > 0; --i) end_dump();
        break;
      case scene::overrun:
        monitor_.on_overrun(now_);
        break;
      case scene::reply_loss:
        monitor_.on_reply_loss();
        break;
      case scene::timer:
        now_ += std::chrono::milliseconds(how * 100);
        monitor_.on_timer(now_);
        break;
      case scene::refresh:
        monitor_.request_refresh({static_cast<object_kind>(how % object_kind_count),
                                  {how % 2 == 0 ? ip_family::v4 : ip_family::v6, 0, how / 64u}});
        break;
      default:
        monitor_.start();
        break;
    }
    COWIRE_ASSERT(consumer_.drain(monitor_));
    ask();
    // There is always a way on: something to wait for, or nothing to do.
    COWIRE_ASSERT(monitor_.in_sync() || monitor_.deadline());
  }

 private:
  void ask() {
    if (const auto request = monitor_.next_request(now_)) {
      nlmsghdr header;
      std::memcpy(&header, request->data(), sizeof header);
      sequence_ = header.nlmsg_seq;
    }
  }
  [[nodiscard]] bytes with_sequence(std::span<const std::byte> from) const {
    bytes copy(from.begin(), from.end());
    std::span<const std::byte> rest = copy;
    std::error_code ec;
    while (const auto e = next_envelope(rest, ec)) {
      const auto at = static_cast<std::size_t>(e->bytes.data() - copy.data());
      std::memcpy(copy.data() + at + offsetof(nlmsghdr, nlmsg_seq), &sequence_, sizeof sequence_);
    }
    return copy;
  }
  void end_dump() {
    ask();
    const nlmsghdr done{sizeof done, NLMSG_DONE, NLM_F_MULTI, sequence_, 0};
    monitor_.on_reply_datagram(std::as_bytes(std::span(&done, 1)), now_);
    COWIRE_ASSERT(consumer_.drain(monitor_));
  }

  monitor::time_point now_{};
  monitor monitor_;
  test::consumer consumer_;
  std::uint32_t sequence_ = 0;
};

}  // namespace

std::vector<std::uint8_t> test::fuzz_seed(std::mt19937_64& random) {
  std::vector<std::uint8_t> input;
  for (auto scenes = 1 + random() % 12; scenes > 0; --scenes) {
    const auto what = static_cast<std::uint8_t>(
        random() % 2 == 0 ? random() % 3 : random() % static_cast<unsigned>(scene::count));
    bytes netlink_bytes;
    for (auto messages = random() % 3; messages > 0; --messages) {
      const bytes one = encode(random_message(random));
      netlink_bytes.insert(netlink_bytes.end(), one.begin(), one.end());
    }
    const auto size = netlink_bytes.size();
    input.insert(input.end(),
                 {what, static_cast<std::uint8_t>(random()), static_cast<std::uint8_t>(size),
                  static_cast<std::uint8_t>(size >> 8)});
    for (const std::byte b : netlink_bytes) input.push_back(static_cast<std::uint8_t>(b));
  }
  return input;
}

}  // namespace cowire

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cowire;
  std::span<const std::byte> rest = std::as_bytes(std::span(data, size));
  play p;
  while (rest.size() >= 4) {
    const auto what = static_cast<std::uint8_t>(rest[0]) % static_cast<unsigned>(scene::count);
    const auto how = static_cast<std::uint8_t>(rest[1]);
    const auto length = static_cast<std::size_t>(rest[2]) | static_cast<std::size_t>(rest[3]) << 8;
    rest = rest.subspan(4);
    const auto content = rest.first(std::min(length, rest.size()));
    rest = rest.subspan(content.size());
    // A copy of its own, so that a sanitizer sees a read past its end.
    const bytes copy(content.begin(), content.end());
    p.perform(static_cast<scene>(what), how, copy);
  }
  return 0;
}
