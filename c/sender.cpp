// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/socket_address.hpp>
#include <cowire/c/error_text.hpp>
#include <cowire/c/handles.hpp>
#include <cowire/c/options.hpp>

#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

namespace {

using namespace cowire;

std::optional<endpoint> endpoint_of(const cowire_address& from) noexcept {
  if (from.any.sa_family == AF_INET) return to_endpoint(from.v4);
  if (from.any.sa_family == AF_INET6) return to_endpoint(from.v6);
  return std::nullopt;
}

void fill(cowire_address& to, const endpoint& from) noexcept {
  sockaddr_storage address;
  const auto size = to_sockaddr(from, address);
  to = {};
  std::memcpy(&to, &address, std::min<std::size_t>(size, sizeof to));
}

std::optional<ip_address> source_of(const cowire_address& from, const char* name) {
  if (from.any.sa_family == AF_UNSPEC) return std::nullopt;
  const auto parsed = endpoint_of(from);
  if (!parsed)
    throw_error(error::invalid_argument,
                std::string(name) + " is of family " + std::to_string(from.any.sa_family));
  return parsed->address;
}

sender_options options_of(const cowire_sender_options& from) {
  sender_options out;
  out.source_port = from.source_port;
  out.source_v4 = source_of(from.source_v4, "source_v4");
  out.source_v6 = source_of(from.source_v6, "source_v6");
  out.mark = from.mark;
  out.tos = from.tos;
  out.ttl = from.ttl;
  if (from.device != nullptr) out.bound_device = from.device;
  out.adopt_socket = from.adopt_socket;
  if (from.errors_max != 0) out.error_queue_limit = from.errors_max;
  out.when_full = full_policy::wait;
  return out;
}

datagram_options options_of(const cowire_datagram_options& from) {
  const auto check = [](const char* name, std::int64_t value, std::int64_t low, std::int64_t high) {
    if (value >= low && value <= high) return;
    throw_error(error::invalid_argument, std::string("cowire_datagram_options.") + name + " is " +
                                             std::to_string(value) + "; it may be " +
                                             std::to_string(low) + " to " + std::to_string(high));
  };
  check("dscp", from.dscp, -1, 63);
  check("ecn", from.ecn, -1, 3);
  check("ttl", from.ttl, 0, 255);
  check("flags", from.flags, 0, COWIRE_WITH_MARK | COWIRE_PATH_MTU_PROBE);
  datagram_options out;
  out.source = source_of(from.source, "source");
  if (from.dscp >= 0) out.dscp = static_cast<std::uint8_t>(from.dscp);
  if (from.ecn >= 0) out.ecn = static_cast<ecn_codepoint>(from.ecn);
  out.ttl = static_cast<std::uint8_t>(from.ttl);
  if ((from.flags & COWIRE_WITH_MARK) != 0) out.mark = from.mark;
  out.path_mtu_probe = (from.flags & COWIRE_PATH_MTU_PROBE) != 0;
  return out;
}

/// 0, or what is wrong with them.
int read_options(const cowire_datagram_options* from, datagram_options& to) noexcept {
  if (from == nullptr) return 0;
  return c::guarded([&] {
    const cowire_datagram_options defaults = COWIRE_DATAGRAM_OPTIONS_INIT;
    to = options_of(c::known(from, defaults, "cowire_datagram_options"));
    return 0;
  });
}

/// What an attempt comes to: how many, or why not even one. It was made where the frame of `what`
/// is at home; nullptr: at the calling thread's place.
ssize_t result(const cowire_sender* s, std::size_t accepted, std::error_code ec,
               const payload* what = nullptr) noexcept {
  if (ec == error::would_block) {
    const auto& through = s->core->through();
    s->core->tell_of_room(what == nullptr ? through.place() : through.place(*what));
  }
  if (accepted != 0 || !ec) return static_cast<ssize_t>(accepted);
  return c::failed(ec);
}

int bad_address(std::size_t index, sa_family_t family) noexcept {
  return c::failed(EINVAL, "address " + std::to_string(index) + " is of family " +
                               std::to_string(family) + "; AF_INET or AF_INET6 is wanted");
}

/// Calls `send` with some endpoints at a time, in order, until it takes fewer than it was given;
/// the last of all take `what`, if there is any.
template <class Send>
ssize_t in_batches(const cowire_sender* s, const cowire_address* to, std::size_t n,
                   const payload* what, Send&& send) {
  std::size_t accepted = 0;
  std::error_code ec;
  bool last = false;
  if (n == 0) return c::failed(error::no_destination);
  while (accepted < n) {
    std::array<endpoint, 64> some;
    std::size_t count = 0;
    for (; count < some.size() && accepted + count < n; ++count) {
      const auto one = endpoint_of(to[accepted + count]);
      if (!one) break;
      some[count] = *one;
    }
    if (count == 0 && accepted == 0) return bad_address(0, to[0].any.sa_family);
    if (count == 0) break;
    last = accepted + count == n;
    const std::size_t taken = send(std::span<const endpoint>(some.data(), count), last, ec);
    accepted += taken;
    if (taken < count) break;
  }
  return result(s, accepted, ec, last ? what : nullptr);
}

int bad_datagram(const cowire_datagram& first) noexcept {
  if (first.reserved != 0) return c::failed(EINVAL, "reserved must be 0");
  return bad_address(0, first.to.any.sa_family);
}

std::span<const std::byte> bytes_of(const cowire_datagram& one) noexcept {
  return {static_cast<const std::byte*>(one.data), one.length};
}

/// With options, or none at all, which costs less than some that choose nothing.
template <class... Options>
ssize_t send_one(const cowire_sender* s, const cowire_datagram& one,
                 const Options&... options) noexcept {
  const sa_family_t family = one.to.any.sa_family;
  if ((family != AF_INET && family != AF_INET6) || one.reserved != 0) [[unlikely]]
    return bad_datagram(one);
  // Made where it is, and not copied by way of an optional.
  const endpoint to = family == AF_INET ? to_endpoint(one.to.v4) : to_endpoint(one.to.v6);
  std::error_code ec;
  s->core->through().try_send(bytes_of(one), to, options..., ec);
  if (!ec) [[likely]]
    return 1;
  return result(s, 0, ec);
}

ssize_t send_all(cowire_sender* s, const cowire_datagram* datagrams, std::size_t n,
                 const datagram_options& options) noexcept {
  if (n == 1) return send_one(s, *datagrams, options);
  std::size_t accepted = 0;
  std::error_code ec;
  while (accepted < n) {
    std::array<message, 64> some;
    std::size_t count = 0;
    for (; count < some.size() && accepted + count < n; ++count) {
      const cowire_datagram& one = datagrams[accepted + count];
      const auto to = endpoint_of(one.to);
      if (!to || one.reserved != 0) break;
      some[count] = {bytes_of(one), *to, options};
    }
    if (count == 0) break;
    const std::size_t taken = s->core->through().try_send_batch({some.data(), count}, ec);
    accepted += taken;
    if (taken < count) break;
  }
  if (accepted == 0 && !ec && n != 0) return bad_datagram(*datagrams);
  return result(s, accepted, ec);
}

payload& payload_in(cowire_frame& frame) noexcept {
  static_assert(sizeof(payload) <= sizeof frame.opaque &&
                alignof(payload) <= alignof(cowire_frame));
  return *std::launder(reinterpret_cast<payload*>(frame.opaque));
}

void forget(cowire_frame& frame) noexcept {
  std::destroy_at(&payload_in(frame));
  frame = {};
}

/// With options, or none at all.
template <class... Options>
ssize_t submit(const cowire_sender* s, cowire_frame& frame, const cowire_address* addresses,
               std::size_t n, const Options&... options) noexcept {
  if (frame.data == nullptr) return c::failed(EINVAL, "the frame is gone already");
  if (frame.length > frame.capacity)
    return c::failed(EMSGSIZE, "length is " + std::to_string(frame.length) + " and capacity " +
                                   std::to_string(frame.capacity));
  payload& what = payload_in(frame);
  what.resize(frame.length);
  const ssize_t accepted = in_batches(
      s, addresses, n, &what, [&](std::span<const endpoint> to, bool last, std::error_code& ec) {
        const auto& through = s->core->through();
        // Only the last destination of all takes the frame itself.
        return last ? through.try_send(what, to, options..., ec)
                    : through.try_send(what.content(), to, options..., ec);
      });
  if (!what) forget(frame);
  return accepted;
}

}  // namespace

int cowire_sender_open(cowire_transmitter* tx, const cowire_sender_options* options,
                       cowire_sender** out) {
  return c::guarded([&] {
    const cowire_sender_options defaults = COWIRE_SENDER_OPTIONS_INIT;
    sender_options wanted = options_of(c::known(options, defaults, "cowire_sender_options"));
    // A socket that is adopted has its own, as all its options.
    if (wanted.adopt_socket < 0) cli::apply_multicast(tx->more, wanted);
    auto core = std::make_shared<c::sender_core>(tx->sends.make_shared_sender(wanted),
                                                 wanted.error_queue_limit);
    core->begin();
    *out = new cowire_sender{std::move(core)};
    return 0;
  });
}

void cowire_sender_close(cowire_sender* s) { delete s; }

uint16_t cowire_source_port(const cowire_sender* s) { return s->core->through().source_port(); }

size_t cowire_payload_max(const cowire_sender* s) { return s->core->through().payload_capacity(); }

ssize_t cowire_try_send(cowire_sender* s, const cowire_datagram* datagrams, size_t n) {
  return n == 1 ? send_one(s, *datagrams) : send_all(s, datagrams, n, {});
}

ssize_t cowire_try_send_with(cowire_sender* s, const cowire_datagram* datagrams, size_t n,
                             const cowire_datagram_options* options) {
  datagram_options chosen;
  if (const int wrong = read_options(options, chosen); wrong != 0) return wrong;
  return send_all(s, datagrams, n, chosen);
}

ssize_t cowire_fan_out(cowire_sender* s, const void* data, size_t length,
                       const cowire_address* addresses, size_t n,
                       const cowire_datagram_options* options) {
  datagram_options chosen;
  if (const int wrong = read_options(options, chosen); wrong != 0) return wrong;
  const std::span bytes(static_cast<const std::byte*>(data), length);
  return in_batches(s, addresses, n, nullptr,
                    [&](std::span<const endpoint> to, bool, std::error_code& ec) {
                      return s->core->through().try_send(bytes, to, chosen, ec);
                    });
}

int cowire_frame_acquire(cowire_sender* s, cowire_frame* frame) {
  *frame = {};
  std::error_code ec;
  payload got = s->core->through().try_acquire(ec);
  if (!got) return static_cast<int>(result(s, 0, ec));
  frame->data = got.bytes().data();
  frame->capacity = got.capacity();
  ::new (static_cast<void*>(frame->opaque)) payload(std::move(got));
  return 0;
}

ssize_t cowire_frame_submit(cowire_sender* s, cowire_frame* frame, const cowire_address* addresses,
                            size_t n) {
  return submit(s, *frame, addresses, n);
}

ssize_t cowire_frame_submit_with(cowire_sender* s, cowire_frame* frame,
                                 const cowire_address* addresses, size_t n,
                                 const cowire_datagram_options* options) {
  datagram_options chosen;
  if (const int wrong = read_options(options, chosen); wrong != 0) return wrong;
  return submit(s, *frame, addresses, n, chosen);
}

void cowire_frame_release(cowire_frame* frame) {
  if (frame->data != nullptr) forget(*frame);
}

int cowire_sender_fd(const cowire_sender* s) { return s->core->fd(); }

int cowire_next_error(cowire_sender* s, cowire_error* error) {
  if (s->core->inherited()) return c::failed(cowire::error::forked);
  return c::guarded([&] {
    send_error told;
    if (!s->core->next_error(told)) return c::failed(EAGAIN, "no error is waiting");
    fill(error->destination, told.destination);
    error->number = told.code.value();
    error->mtu = told.mtu;
    error->from_network = told.from == send_error::origin::network ? 1 : 0;
    return 0;
  });
}

uint64_t cowire_errors_dropped(const cowire_sender* s) {
  return s->core->through().errors_dropped();
}
