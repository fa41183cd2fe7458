// SPDX-License-Identifier: Apache-2.0
/// Multicast as applications have it: plain sockets that send to groups with the options that a
/// sender has, and members. Each is in the namespace of the thread that makes it.
#pragma once

#include <tests/async/frame_capture.hpp>

#include <mutex>

namespace cowire::test {

/// What a socket, and a sender, may have that sends to groups.
struct group_sending {
  int ttl = -1;              ///< -1 = as the socket has it.
  std::string interface {};  ///< "" = none.
  bool loop = true;
  int unicast_ttl = 0;  ///< 0 = as the socket has it.
};

inline constexpr std::uint16_t group_port = captured_port;  // What frames are captured of.

inline sender_options as_options(const group_sending& o) {
  sender_options wanted;
  wanted.source_port = 8001;
  if (o.ttl >= 0) wanted.multicast_ttl = static_cast<std::uint8_t>(o.ttl);
  wanted.multicast_interface = o.interface;
  wanted.multicast_loop = o.loop;
  wanted.ttl = static_cast<std::uint8_t>(o.unicast_ttl);
  return wanted;
}

/// A plain socket with these options, bound to the port.
inline unique_fd group_socket(ip_family family, const group_sending& o, std::uint16_t port = 8001) {
  const bool v4 = family == ip_family::v4;
  unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto set = [&](int name, int value) {
    EXPECT_EQ(0,
              ::setsockopt(fd.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, name, &value, sizeof value));
  };
  if (o.ttl >= 0) set(v4 ? IP_MULTICAST_TTL : IPV6_MULTICAST_HOPS, o.ttl);
  if (o.unicast_ttl != 0) set(v4 ? IP_TTL : IPV6_UNICAST_HOPS, o.unicast_ttl);
  if (!o.loop) set(v4 ? IP_MULTICAST_LOOP : IPV6_MULTICAST_LOOP, 0);
  const auto index = static_cast<int>(::if_nametoindex(o.interface.c_str()));
  if (!v4) {
    set(IPV6_V6ONLY, 1);
    if (index != 0) set(IPV6_MULTICAST_IF, index);
  } else if (index != 0) {
    ip_mreqn by_index{};
    by_index.imr_ifindex = index;
    EXPECT_EQ(0, ::setsockopt(fd.get(), IPPROTO_IP, IP_MULTICAST_IF, &by_index, sizeof by_index));
  }
  const raw_address name({ip_address::any(family), port});
  EXPECT_EQ(0, ::bind(fd.get(), name.name(), name.size));
  return fd;
}

inline void join(int fd, const ip_address& group, const char* device, bool joins = true) {
  group_req request{};
  request.gr_interface = ::if_nametoindex(device);
  const raw_address name({group, 0});
  std::memcpy(&request.gr_group, name.name(), name.size);
  ASSERT_EQ(0, ::setsockopt(fd, group.is_v4() ? IPPROTO_IP : IPPROTO_IPV6,
                            joins ? MCAST_JOIN_GROUP : MCAST_LEAVE_GROUP, &request, sizeof request))
      << errno_name(errno);
}

/// A socket bound to the group's port, a member if `device` is not null.
inline unique_fd listener(const ip_address& group, const char* device,
                          std::uint16_t port = group_port) {
  const bool v4 = group.is_v4();
  unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const raw_address name({ip_address::any(group.family()), port});
  EXPECT_EQ(0, ::bind(fd.get(), name.name(), name.size));
  if (device != nullptr) join(fd.get(), group, device);
  return fd;
}

/// Sends until the reason of a datagram's diversion, or "" for none, is this one.
inline bool comes_to(const transmitter& tx, sender& s, const endpoint& there,
                     const std::string& reason) {
  return eventually([&] {
    const auto before = tx.stats();
    if (!s.try_send(bytes_of("hello"), there)) return false;
    if (!eventually([&] { return tx.stats().on_the_way() == 0; })) return false;
    const auto after = tx.stats();
    if (reason.empty()) return after.kernel_path == before.kernel_path;
    const auto count = [&](const transmitter_stats& of) {
      const auto found = of.diverted.find(reason);
      return found == of.diverted.end() ? 0 : found->second;
    };
    return count(after) != count(before);
  });
}

/// Listens on a thread of its own, and counts how often each number came.
class group_ears {
 public:
  explicit group_ears(unique_fd fd) : fd_(std::move(fd)), thread_([this] { listen(); }) {
    const int room = 64 << 20;
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  }
  ~group_ears() {
    stopping_ = true;
    thread_.join();
  }
  group_ears(const group_ears&) = delete;
  group_ears& operator=(const group_ears&) = delete;

  [[nodiscard]] int fd() const { return fd_.get(); }
  /// One past the greatest number that came.
  [[nodiscard]] std::uint64_t end() const {
    const std::lock_guard lock(mutex_);
    return times_.size();
  }
  /// Whether each of these came so often.
  [[nodiscard]] bool heard(std::uint64_t first, std::uint64_t end, unsigned times) const {
    const std::lock_guard lock(mutex_);
    for (; first < end; ++first)
      if ((first < times_.size() ? times_[first] : 0) != times) return false;
    return true;
  }

 private:
  void listen() {
    while (!stopping_) {
      pollfd readable{fd_.get(), POLLIN, 0};
      if (::poll(&readable, 1, 50) <= 0) continue;
      std::uint64_t number = 0;
      if (::recv(fd_.get(), &number, sizeof number, 0) != sizeof number) continue;
      const std::lock_guard lock(mutex_);
      if (times_.size() <= number) times_.resize(number + 1);
      ++times_[number];
    }
  }

  unique_fd fd_;
  mutable std::mutex mutex_;
  std::vector<std::uint8_t> times_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace cowire::test
