// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/request_socket.hpp>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace cowire::netlink {
namespace {

static_assert(monitor_groups ==
              std::array<int, 11>{RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR,
                                  RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_IFADDR,
                                  RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE, RTNLGRP_IPV4_NETCONF,
                                  RTNLGRP_IPV6_NETCONF, RTNLGRP_NEXTHOP});

std::error_code last_error() { return errno_code(errno); }

[[noreturn]] void fail(std::error_code ec, const std::string& what, const std::string& diagnostic) {
  throw std::system_error(ec, diagnostic.empty() ? what : what + " (" + diagnostic + ")");
}

const char* name_of(object_kind kind) {
  switch (kind) {
    case object_kind::link:
      return "dump of links";
    case object_kind::address:
      return "dump of addresses";
    case object_kind::route:
      return "dump of routes";
    case object_kind::rule:
      return "dump of rules";
    case object_kind::neighbour:
      return "dump of neighbours";
    case object_kind::nexthop:
      return "dump of nexthop objects";
    case object_kind::nexthop_bucket:
      return "dump of nexthop buckets";
    case object_kind::netconf:
      return "dump of netconf";
    case object_kind::membership:
      return "dump of group memberships";
  }
  return "dump";
}

void set_option(int fd, int level, int name, int value) noexcept {
  // Refusal is no failure: each of these options only improves what works without it.
  static_cast<void>(::setsockopt(fd, level, name, &value, sizeof value));
}

void set_receive_buffer(int fd, int bytes) noexcept {
  if (bytes == 0) return;
  if (::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
    set_option(fd, SOL_SOCKET, SO_RCVBUF, bytes);
}

unique_fd open_socket(const socket_options& options, std::error_code& ec) {
  ec.clear();
  const int type = SOCK_RAW | SOCK_CLOEXEC | (options.non_blocking ? SOCK_NONBLOCK : 0);
  unique_fd fd(::socket(AF_NETLINK, type, NETLINK_ROUTE));
  if (!fd) {
    ec = last_error();
    return {};
  }
  set_receive_buffer(fd.get(), options.receive_buffer_bytes);
  sockaddr_nl any{};
  any.nl_family = AF_NETLINK;
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0) {
    ec = last_error();
    return {};
  }
  return fd;
}

}  // namespace

unique_fd open_request_socket(const socket_options& options, std::error_code& ec) {
  unique_fd fd = open_socket(options, ec);
  if (ec) return {};
  set_option(fd.get(), SOL_NETLINK, NETLINK_EXT_ACK, 1);
  set_option(fd.get(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
  set_option(fd.get(), SOL_NETLINK, NETLINK_CAP_ACK, 1);
  return fd;
}

unique_fd open_event_socket(const socket_options& options, std::error_code& ec) {
  unique_fd fd = open_socket(options, ec);
  if (ec) return {};
  const auto subscribe = [&fd](int group) {
    return ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0;
  };
  if (!std::ranges::all_of(monitor_groups, subscribe)) {
    ec = last_error();
    return {};
  }
  for (const int group : newer_monitor_groups)
    if (!subscribe(group) && errno != EINVAL) ec = last_error();
  if (ec) return {};
  return fd;
}

request_socket::request_socket(std::chrono::milliseconds timeout) : buffer_(datagram_size_max) {
  std::error_code ec;
  fd_ = open_request_socket({}, ec);
  if (ec) fail(ec, "cannot open a netlink route socket", {});
  timeval limit{};
  limit.tv_sec = timeout.count() / 1000;
  limit.tv_usec = (timeout.count() % 1000) * 1000;
  if (::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0)
    fail(last_error(), "cannot set the timeout of a netlink socket", {});
}

void request_socket::send(std::span<const std::byte> request, std::error_code& ec) {
  ec.clear();
  diagnostic_.clear();
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  const auto sent = ::sendto(fd_.get(), request.data(), request.size(), 0,
                             reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
  if (sent < 0) ec = last_error();
}

std::span<const std::byte> request_socket::receive(std::error_code& ec) {
  for (;;) {
    sockaddr_nl from{};
    socklen_t from_size = sizeof from;
    const auto size = ::recvfrom(fd_.get(), buffer_.data(), buffer_.size(), MSG_TRUNC,
                                 reinterpret_cast<sockaddr*>(&from), &from_size);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) {
      ec = errno == EAGAIN ? errno_code(ETIMEDOUT) : last_error();
      return {};
    }
    if (from.nl_pid != 0) continue;  // Not from the kernel: any process may write to us.
    const auto length = static_cast<std::size_t>(size);
    if (length > buffer_.size()) {
      ec = error::truncated;
      return {};
    }
    return {buffer_.data(), length};
  }
}

// Calls visit(envelope) for each message that answers `sequence`, until visit returns false or
// something fails. Answers to an earlier request that was given up are skipped.
template <class Visitor>
void request_socket::for_each_answer(std::uint32_t sequence, std::error_code& ec, Visitor&& visit) {
  for (;;) {
    auto datagram = receive(ec);
    if (ec) return;
    while (const auto answer = next_envelope(datagram, ec)) {
      if (answer->sequence == sequence && !visit(*answer)) return;
    }
    if (ec) return;
  }
}

// True: whole. False: interrupted, or `ec` is set.
bool request_socket::dump_once(object_kind kind, const dump_filter& filter,
                               std::vector<message>& found, std::error_code& ec) {
  const std::uint32_t sequence = ++sequence_;
  send(dump_request(kind, filter, sequence), ec);
  if (ec) return false;
  bool interrupted = false;
  std::error_code
      failure;  // Kept until the dump's end, so that the next request finds a clean socket.
  for_each_answer(sequence, ec, [&](const envelope& answer) {
    interrupted |= answer.dump_interrupted();
    std::error_code decode_error;
    if (auto end = decode_completion(answer, decode_error)) {
      if (end->error_number != 0 && !means_none(end->error_number)) {
        failure = errno_code(end->error_number);
        diagnostic_ = std::move(end->diagnostic);
      }
      return false;
    }
    if (!decode_error) {
      if (auto m = decode(answer.bytes, decode_error);
          m && kind_of(*m) == kind && matches(filter, *m) && is_forwarding_state(*m))
        found.push_back(std::move(*m));
    }
    if (decode_error) failure = decode_error;
    return true;
  });
  if (!ec) ec = failure;
  return !ec && !interrupted;
}

std::vector<message> request_socket::dump(object_kind kind, const dump_filter& filter,
                                          std::error_code& ec) {
  std::vector<message> found;
  for (int attempt = 0; attempt < dump_attempts_max; ++attempt) {
    found.clear();
    if (dump_once(kind, filter, found, ec)) return found;
    if (ec) return {};
  }
  ec = error::interrupted_dump;
  return {};
}

std::vector<message> request_socket::dump(object_kind kind, const dump_filter& filter) {
  std::error_code ec;
  auto found = dump(kind, filter, ec);
  if (ec) fail(ec, name_of(kind), diagnostic_);
  return found;
}

route_answer request_socket::get_route(const route_query& query, std::error_code& ec) {
  const std::uint32_t sequence = ++sequence_;
  send(route_request(query, sequence), ec);
  if (ec) return {};
  route_answer result;
  std::error_code failure;
  for_each_answer(sequence, ec, [&](const envelope& answer) {
    if (auto end = decode_completion(answer, failure)) {
      result.error_number = end->error_number;
      diagnostic_ = std::move(end->diagnostic);
      return false;
    }
    if (failure) return false;
    auto m = decode(answer.bytes, failure);
    if (!m || !std::holds_alternative<route>(*m)) {
      if (!failure) failure = error::malformed;
      return false;
    }
    result.route = std::get<route>(std::move(*m));
    return false;
  });
  if (!ec) ec = failure;
  return result;
}

std::optional<link> request_socket::get_link(std::uint32_t index, std::error_code& ec) {
  const std::uint32_t sequence = ++sequence_;
  send(link_request(index, sequence), ec);
  if (ec) return std::nullopt;
  std::optional<link> found;
  std::error_code failure;
  for_each_answer(sequence, ec, [&](const envelope& answer) {
    if (auto end = decode_completion(answer, failure)) {
      failure = errno_code(end->error_number);
      diagnostic_ = std::move(end->diagnostic);
      return false;
    }
    if (failure) return false;
    auto m = decode(answer.bytes, failure);
    if (m && std::holds_alternative<link>(*m))
      found = std::get<link>(std::move(*m));
    else if (!failure)
      failure = error::malformed;
    return false;
  });
  if (!ec) ec = failure;
  return found;
}

route_answer request_socket::get_route(const route_query& query) {
  std::error_code ec;
  auto answer = get_route(query, ec);
  if (ec) fail(ec, "route query for " + query.destination.to_string(), diagnostic_);
  return answer;
}

void request_socket::execute(std::vector<std::byte> request, std::error_code& ec) {
  nlmsghdr header;
  if (request.size() < sizeof header) {
    ec = error::truncated;
    return;
  }
  const std::uint32_t sequence = ++sequence_;
  std::memcpy(&header, request.data(), sizeof header);
  header.nlmsg_flags = static_cast<std::uint16_t>(header.nlmsg_flags | NLM_F_REQUEST | NLM_F_ACK);
  header.nlmsg_seq = sequence;
  std::memcpy(request.data(), &header, sizeof header);
  send(request, ec);
  if (ec) return;
  std::error_code failure;
  for_each_answer(sequence, ec, [&](const envelope& answer) {
    auto end = decode_completion(answer, failure);
    if (!end) return !failure;  // A request may also be answered by an object (NLM_F_ECHO).
    if (end->error_number != 0) failure = errno_code(end->error_number);
    diagnostic_ = std::move(end->diagnostic);
    return false;
  });
  if (!ec) ec = failure;
}

void request_socket::execute(std::vector<std::byte> request) {
  std::error_code ec;
  execute(std::move(request), ec);
  if (ec) fail(ec, "netlink request", diagnostic_);
}

}  // namespace cowire::netlink
