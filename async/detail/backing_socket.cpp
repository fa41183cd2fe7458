// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/backing_socket.hpp>
#include <cowire/base/assert.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/socket_address.hpp>

#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/in6.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace cowire::detail {
namespace {

constexpr int picked_port_attempts = 16;

/// The kernel keeps 208 KiB for each unresolved neighbour (neigh/default/unres_qlen_bytes), so that
/// some 150 of them leave room. It takes the memory only for what waits.
constexpr int send_buffer_max = 32 << 20;

std::error_code last_error() noexcept { return errno_code(errno); }

int native(ip_family family) noexcept { return family == ip_family::v4 ? AF_INET : AF_INET6; }

std::error_code set_int(int fd, int level, int name, int value) noexcept {
  return ::setsockopt(fd, level, name, &value, sizeof value) == 0 ? std::error_code{}
                                                                  : last_error();
}

std::error_code set_group_interface(int fd, ip_family family, std::uint32_t index) noexcept {
  if (family == ip_family::v6)
    return set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, static_cast<int>(index));
  ip_mreqn request{};
  request.imr_ifindex = static_cast<int>(index);
  return ::setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request) == 0
             ? std::error_code{}
             : last_error();
}

/// Those that differ from a new socket's.
std::error_code set_group_options(int fd, ip_family family, const group_options& wanted) noexcept {
  const bool v4 = family == ip_family::v4;
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  const group_options plain;
  if (wanted.ttl != plain.ttl)
    if (const auto ec = set_int(fd, level, v4 ? IP_MULTICAST_TTL : IPV6_MULTICAST_HOPS, wanted.ttl))
      return ec;
  if (!wanted.loop)
    if (const auto ec = set_int(fd, level, v4 ? IP_MULTICAST_LOOP : IPV6_MULTICAST_LOOP, 0))
      return ec;
  if (v4 && wanted.broadcast)
    if (const auto ec = set_int(fd, SOL_SOCKET, SO_BROADCAST, 1)) return ec;
  return wanted.interface_index != 0 ? set_group_interface(fd, family, wanted.interface_index)
                                     : std::error_code{};
}

int get_int(int fd, int level, int name, int fallback) noexcept {
  int value = fallback;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, level, name, &value, &size) == 0 ? value : fallback;
}

std::error_code enable_error_queue(int fd, ip_family family) noexcept {
  return family == ip_family::v4 ? set_int(fd, IPPROTO_IP, IP_RECVERR, 1)
                                 : set_int(fd, IPPROTO_IPV6, IPV6_RECVERR, 1);
}

/// An option that leads datagrams elsewhere, or changes their bytes, in ways that the fast path
/// does not know: udp_sendmsg() in net/ipv4/udp.c, udpv6_sendmsg() in net/ipv6/udp.c and what they
/// call. What only the kernel path meets (multicast, fragments) is not among them: that is this
/// very socket. Nor what cannot be read back (docs/limits.md).
struct kernel_only_option {
  int level, name;
  const char* text;
};
constexpr kernel_only_option kernel_only_options[] = {
    {SOL_SOCKET, SO_DONTROUTE, "SO_DONTROUTE"},
    {SOL_SOCKET, SO_NO_CHECK, "SO_NO_CHECK"},
    {SOL_SOCKET, SO_PRIORITY, "SO_PRIORITY"},
    {SOL_SOCKET, SO_TXTIME, "SO_TXTIME"},
    {SOL_SOCKET, SO_MAX_PACING_RATE, "SO_MAX_PACING_RATE"},  // fq holds UDP to it.
    {IPPROTO_UDP, UDP_CORK, "UDP_CORK"},
    {IPPROTO_UDP, UDP_SEGMENT, "UDP_SEGMENT"},
    {IPPROTO_UDP, UDP_NO_CHECK6_TX, "UDP_NO_CHECK6_TX"},
    {IPPROTO_IP, IP_OPTIONS, "IP_OPTIONS"},
    {IPPROTO_IP, IP_UNICAST_IF, "IP_UNICAST_IF"},
    {IPPROTO_IPV6, IPV6_UNICAST_IF, "IPV6_UNICAST_IF"},
    {IPPROTO_IPV6, IPV6_HOPOPTS, "IPV6_HOPOPTS"},
    {IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, "IPV6_RTHDRDSTOPTS"},
    {IPPROTO_IPV6, IPV6_RTHDR, "IPV6_RTHDR"},
    {IPPROTO_IPV6, IPV6_DSTOPTS, "IPV6_DSTOPTS"},
    {IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, "IPV6_ADDR_PREFERENCES"},
    {IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, "IPV6_AUTOFLOWLABEL"},
    {IPPROTO_IPV6, IPV6_FLOWINFO_SEND, "IPV6_FLOWINFO_SEND"},
};

/// What getsockopt() tells, its errno where it tells nothing.
std::string raw_option(int fd, const kernel_only_option& option) {
  std::array<char, 256> value{};
  socklen_t size = value.size();
  if (::getsockopt(fd, option.level, option.name, value.data(), &size) != 0)
    return errno_name(errno);
  return {value.data(), size};
}

/// Those that a new socket, which is what senders are modelled on, does not have. nullptr = none.
const kernel_only_option* first_kernel_only_option(int fd) {
  const int domain = get_int(fd, SOL_SOCKET, SO_DOMAIN, -1);
  const unique_fd plain(::socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP));
  if (!plain) return nullptr;
  // A TOS has a priority (rt_tos2priority() in net/ipv4/ip_sockglue.c).
  if (const int tos = get_int(fd, IPPROTO_IP, IP_TOS, 0); tos != 0)
    static_cast<void>(set_int(plain.get(), IPPROTO_IP, IP_TOS, tos));
  for (const kernel_only_option& option : kernel_only_options)
    if (raw_option(fd, option) != raw_option(plain.get(), option)) return &option;
  return nullptr;
}

int default_hop_limit(ip_family family) {
  std::ifstream file(family == ip_family::v4 ? "/proc/sys/net/ipv4/ip_default_ttl"
                                             : "/proc/sys/net/ipv6/conf/all/hop_limit");
  int value = 64;
  file >> value;
  return value;
}

/// A UDP socket of `owner`'s. Policy rules see whose the inode is (sock_init_data_uid() in
/// net/core/sock.c), firewalls whose the open file (xt_owner.c, nft_meta.c): both are the file
/// system uid of the thread that makes it, while fchown() changes the first alone.
unique_fd make_socket(ip_family family, std::uint32_t owner, std::error_code& ec) {
  const auto make = [&] {
    unique_fd fd(::socket(native(family), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) ec = last_error();
    return fd;
  };
  const std::uint32_t mine = own_uid();
  if (owner == mine) return make();
  // A thread that changes its uid makes the process undumpable (commit_creds() in kernel/cred.c).
  const int dumpable = ::prctl(PR_GET_DUMPABLE);
  ::setfsuid(owner);
  unique_fd fd = make();
  ::setfsuid(mine);
  if (dumpable == 1) ::prctl(PR_SET_DUMPABLE, 1);
  struct stat status {};
  if (fd && (::fstat(fd.get(), &status) != 0 || status.st_uid != owner)) {  // setfsuid() is silent.
    ec = errno_code(EPERM);
    fd.reset();
  }
  return fd;
}

}  // namespace

std::uint32_t own_uid() noexcept {
  return static_cast<std::uint32_t>(::setfsuid(static_cast<uid_t>(-1)));  // Only asks.
}

bool may_set_marks() noexcept {
  // sk_setsockopt() and __sock_cmsg_send() in net/core/sock.c ask for the same.
  const unique_fd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP));
  return any && !set_int(any.get(), SOL_SOCKET, SO_MARK, 1);
}

std::size_t put_control(std::span<std::byte> to, int level, int type, const void* value,
                        std::size_t length) noexcept {
  COWIRE_ASSERT(CMSG_SPACE(length) <= to.size());
  cmsghdr header{};
  header.cmsg_level = level;
  header.cmsg_type = type;
  header.cmsg_len = CMSG_LEN(length);
  std::memcpy(to.data(), &header, sizeof header);
  std::memcpy(to.data() + CMSG_LEN(0), value, length);
  return CMSG_SPACE(length);
}

send_control send_control::from(ip_family family, std::uint32_t mark, std::uint8_t tos,
                                std::uint8_t ttl) noexcept {
  send_control control;
  const bool v4 = family == ip_family::v4;
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  if (mark != 0) control.add(SOL_SOCKET, SO_MARK, &mark, sizeof mark);
  if (const int value = tos; value != 0)
    control.add(level, v4 ? IP_TOS : IPV6_TCLASS, &value, sizeof value);
  if (const int value = ttl; value != 0)
    control.add(level, v4 ? IP_TTL : IPV6_HOPLIMIT, &value, sizeof value);
  return control;
}

datagram_control datagram_control::from(const send_control& of_sender, ip_family family,
                                        std::uint8_t tos, const datagram_options& chosen) noexcept {
  datagram_control control;
  std::ranges::copy(of_sender.bytes, control.bytes.begin());
  control.size = of_sender.size;
  const bool v4 = family == ip_family::v4;
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  if (chosen.mark) control.add(SOL_SOCKET, SO_MARK, &*chosen.mark, sizeof *chosen.mark);
  if (chosen.dscp || chosen.ecn) {
    const int ecn = chosen.ecn ? static_cast<int>(*chosen.ecn) : tos & 3;
    const int value = (chosen.dscp ? *chosen.dscp << 2 : tos & 0xfc) | ecn;
    control.add(level, v4 ? IP_TOS : IPV6_TCLASS, &value, sizeof value);
  }
  if (const int value = chosen.ttl; value != 0)
    control.add(level, v4 ? IP_TTL : IPV6_HOPLIMIT, &value, sizeof value);
  if (!chosen.source) return control;
  const ip_address source = chosen.source->unmapped();
  if (v4) {
    in_pktinfo info{};
    std::memcpy(&info.ipi_spec_dst, source.bytes().data(), sizeof info.ipi_spec_dst);
    control.add(level, IP_PKTINFO, &info, sizeof info);
  } else {
    in6_pktinfo info{};
    std::memcpy(&info.ipi6_addr, source.bytes().data(), sizeof info.ipi6_addr);
    control.add(level, IPV6_PKTINFO, &info, sizeof info);
  }
  return control;
}

socket_address socket_address::from(const endpoint& to, std::uint32_t scope) noexcept {
  endpoint scoped = to;
  if (!to.address.needs_scope_id())
    scoped.scope_id = 0;
  else if (scoped.scope_id == 0)
    scoped.scope_id = scope;
  socket_address out;
  out.size = to_sockaddr(scoped, out.storage);
  return out;
}

std::error_code backing_socket::bind_family(ip_family family, const source_key& key,
                                            std::uint16_t port) {
  std::error_code failed;
  unique_fd fd = make_socket(family, key.owner, failed);
  if (!fd) return failed;
  if (family == ip_family::v6)
    if (const auto ec = set_int(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1)) return ec;
  if (const auto ec = enable_error_queue(fd.get(), family)) return ec;
  if (!key.device.empty() && ::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, key.device.data(),
                                          static_cast<socklen_t>(key.device.size())) != 0)
    return last_error();
  if (const auto ec = set_group_options(fd.get(), family, key.groups)) return ec;
  groups_[static_cast<std::size_t>(family)] = key.groups;
  const auto& source = family == ip_family::v4 ? key.v4 : key.v6;
  const auto address = socket_address::from({source.value_or(ip_address::any(family)), port},
                                            ::if_nametoindex(key.device.c_str()));
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0)
    return errno == EADDRINUSE ? make_error_code(error::port_in_use) : last_error();
  const auto index = static_cast<std::size_t>(family);
  sources_[index] = source;
  fds_[index] = std::move(fd);
  return {};
}

std::error_code backing_socket::finish() {
  const int fd = fds_[0] ? fds_[0].get() : fds_[1].get();
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  struct stat status {};
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return last_error();
  if (::fstat(fd, &status) != 0) return last_error();
  const auto bound = to_endpoint(name);
  if (!bound || bound->port == 0) return make_error_code(error::invalid_argument);
  port_ = bound->port;
  uid_ = status.st_uid;
  interface_index_ = static_cast<std::uint32_t>(get_int(fd, SOL_SOCKET, SO_BINDTOIFINDEX, 0));
  mark_ = static_cast<std::uint32_t>(get_int(fd, SOL_SOCKET, SO_MARK, 0));
  return {};
}

std::shared_ptr<backing_socket> backing_socket::open(const source_key& key, std::error_code& ec) {
  // A port that the kernel picked for IPv4 may be taken in IPv6: then another one is picked.
  for (int attempt = 0; attempt < picked_port_attempts; ++attempt) {
    std::shared_ptr<backing_socket> out(new backing_socket);
    if ((ec = out->bind_family(ip_family::v4, key, key.port))) return nullptr;
    if ((ec = out->finish())) return nullptr;
    ec = out->bind_family(ip_family::v6, key, out->port_);
    const bool no_ipv6 = ec == std::errc::address_family_not_supported ||
                         (ec == std::errc::address_not_available && !key.v6);
    if (no_ipv6) ec.clear();
    if (!ec) return out;
    if (key.port != 0 || ec != make_error_code(error::port_in_use)) return nullptr;
  }
  return nullptr;
}

std::error_code backing_socket::read_options(ip_family family) {
  const int fd = this->fd(family);
  const auto index = static_cast<std::size_t>(family);
  const bool v4 = family == ip_family::v4;
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  const int discovery = get_int(fd, level, v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, 0);
  const int want = v4 ? IP_PMTUDISC_WANT : IPV6_PMTUDISC_WANT;
  const int always = v4 ? IP_PMTUDISC_DO : IPV6_PMTUDISC_DO;
  if (discovery != want && discovery != always) return make_error_code(error::unsupported);
  tos_[index] = static_cast<std::uint8_t>(get_int(fd, level, v4 ? IP_TOS : IPV6_TCLASS, 0));
  const int hops = get_int(fd, level, v4 ? IP_TTL : IPV6_UNICAST_HOPS, -1);
  // A socket without a TTL of its own reports the system's default, as if it had been set.
  if (hops > 0 && hops != default_hop_limit(family)) ttl_[index] = static_cast<std::uint8_t>(hops);
  return {};
}

/// An IPv4 datagram of an AF_INET6 socket has the loop flag of IPv6 (sk_mc_loop() in
/// net/core/sock.c).
void backing_socket::read_group_options(ip_family family) {
  const int fd = this->fd(family);
  const bool v4 = family == ip_family::v4;
  const bool socket_v6 = get_int(fd, SOL_SOCKET, SO_DOMAIN, AF_INET) == AF_INET6;
  const int loop = socket_v6 ? get_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 1)
                             : get_int(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 1);
  group_options& to = groups_[static_cast<std::size_t>(family)];
  to.ttl = static_cast<std::uint8_t>(v4 ? get_int(fd, IPPROTO_IP, IP_MULTICAST_TTL, 1)
                                        : get_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 1));
  to.loop = loop != 0;
  to.broadcast = get_int(fd, SOL_SOCKET, SO_BROADCAST, 0) != 0;
  // IP_MULTICAST_IF answers an address, and no index.
  to.interface_hidden = v4 && get_int(fd, SOL_SOCKET, SO_BINDTOIFINDEX, 0) == 0;
  if (!v4)
    to.interface_index =
        static_cast<std::uint32_t>(get_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, 0));
}

std::error_code backing_socket::adopt_for(ip_family family, int from) {
  // Of an AF_INET6 socket each family has a duplicate of its own, so that both can be watched.
  auto& slot = fds_[static_cast<std::size_t>(family)];
  slot = unique_fd(::fcntl(from, F_DUPFD_CLOEXEC, 0));
  if (!slot) return last_error();
  if (const auto ec = read_options(family)) return ec;
  read_group_options(family);
  return enable_error_queue(slot.get(), family);
}

std::string backing_socket::refusal_of(int fd) {
  if (const auto* option = first_kernel_only_option(fd))
    return std::string(option->text) +
           " is set, which only the kernel can follow; clear it, or send such datagrams on the "
           "socket itself";
  return {};
}

std::shared_ptr<backing_socket> backing_socket::adopt(int fd, std::error_code& ec,
                                                      std::uint32_t multicast_interface) {
  const int domain = get_int(fd, SOL_SOCKET, SO_DOMAIN, -1);
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  if ((domain != AF_INET && domain != AF_INET6) ||
      get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) != IPPROTO_UDP) {
    ec = error::invalid_argument;
    return nullptr;
  }
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) {
    ec = last_error();
    return nullptr;
  }
  const auto bound = to_endpoint(name);
  COWIRE_ASSERT(bound);  // By the domain.
  if (first_kernel_only_option(fd) != nullptr) {
    ec = error::unsupported;
    return nullptr;
  }
  // Bound to one IPv6 address it has become IPV6_V6ONLY (__inet6_bind in net/ipv6/af_inet6.c).
  const bool both = domain == AF_INET6 && get_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) == 0;
  // Bound to a mapped address it has no source for IPv6: EAFNOSUPPORT (ip6_dst_lookup_tail in
  // net/ipv6/ip6_output.c).
  const bool v6 = domain == AF_INET6 && !bound->address.is_v4_mapped();
  std::shared_ptr<backing_socket> out(new backing_socket);
  out->adopted_ = true;
  if ((domain == AF_INET || both) && (ec = out->adopt_for(ip_family::v4, fd))) return nullptr;
  if (v6 && (ec = out->adopt_for(ip_family::v6, fd))) return nullptr;
  for (const ip_family family : ip_families) {
    if (multicast_interface == 0 || out->fd(family) < 0) continue;
    if ((ec = set_group_interface(out->fd(family), family, multicast_interface))) return nullptr;
    group_options& groups = out->groups_[static_cast<std::size_t>(family)];
    groups.interface_index = multicast_interface;
    groups.interface_hidden = false;
  }
  if ((ec = out->finish())) return nullptr;
  const auto source = bound->address.unmapped();
  if (!source.is_unspecified()) out->sources_[static_cast<std::size_t>(source.family())] = source;
  return out;
}

bool backing_socket::enlarge(ip_family family) noexcept {
  const int fd = this->fd(family);
  const int now = get_int(fd, SOL_SOCKET, SO_SNDBUF, send_buffer_max);
  // The kernel doubles what it is given (SO_SNDBUF in socket(7)), and reports the double.
  return !adopted_ && now < send_buffer_max && !set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, now);
}

int backing_socket::begin_probe(ip_family family) noexcept {
  COWIRE_ASSERT(!adopted_);  // The application's own datagrams would be such, too.
  const bool v4 = family == ip_family::v4;
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6, name = v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER;
  const int probe = v4 ? IP_PMTUDISC_PROBE : IPV6_PMTUDISC_PROBE;
  const int before = get_int(fd(family), level, name, v4 ? IP_PMTUDISC_WANT : IPV6_PMTUDISC_WANT);
  static_cast<void>(set_int(fd(family), level, name, probe));
  return before;
}

void backing_socket::end_probe(ip_family family, int before) noexcept {
  const bool v4 = family == ip_family::v4;
  static_cast<void>(set_int(fd(family), v4 ? IPPROTO_IP : IPPROTO_IPV6,
                            v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, before));
}

/// Of an AF_INET6 socket that receives IPv4, too, the TOS comes as IPv4's (udpv6_recvmsg() in
/// net/ipv6/udp.c), and the rest as IPv6's (ip6_datagram_recv_common_ctl() in net/ipv6/datagram.c).
std::error_code backing_socket::receive_with(int fd, bool gro, std::size_t buffer_bytes) const {
  if (const auto ec = set_int(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1)) return ec;
  if (const auto ec = set_int(fd, SOL_SOCKET, SO_RXQ_OVFL, 1)) return ec;
  if (const auto ec = set_int(fd, IPPROTO_IP, IP_RECVTOS, 1)) return ec;
  if (get_int(fd, SOL_SOCKET, SO_DOMAIN, AF_INET) == AF_INET6) {
    if (const auto ec = set_int(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1)) return ec;
    if (const auto ec = set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)) return ec;
  } else {
    if (const auto ec = set_int(fd, IPPROTO_IP, IP_PKTINFO, 1)) return ec;
  }
  // An adopted socket may have it on, and buffers have room for what was asked for.
  if (const auto ec = set_int(fd, IPPROTO_UDP, UDP_GRO, gro ? 1 : 0)) return ec;
  if (buffer_bytes == 0) return {};
  const int size = static_cast<int>(buffer_bytes);
  if (!set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, size)) return {};
  return set_int(fd, SOL_SOCKET, SO_RCVBUF, size);
}

std::error_code backing_socket::begin_receiving(bool gro, std::size_t buffer_bytes) {
  // Pairs with the release in end_receiving(): one after the other.
  if (receiving_.exchange(true, std::memory_order_acquire))
    return make_error_code(error::port_in_use);
  for (const auto& fd : fds_) {
    if (!fd) continue;
    if (const auto ec = receive_with(fd.get(), gro, buffer_bytes)) {
      end_receiving();
      return ec;
    }
  }
  return {};
}

bool backing_socket::next_error(ip_family family, queued_error& error) noexcept {
  const int fd = this->fd(family);
  if (fd < 0) return false;
  sockaddr_storage name{};
  alignas(cmsghdr) std::array<std::byte, 512> control;
  msghdr message{};
  message.msg_name = &name;
  message.msg_namelen = sizeof name;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (::recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) return false;
  error = {};
  if (const auto to = to_endpoint(name)) error.destination = to->canonical();
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    const bool ours = (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) ||
                      (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR);
    if (!ours || c->cmsg_len < CMSG_LEN(sizeof(sock_extended_err))) continue;
    sock_extended_err what;
    std::memcpy(&what, CMSG_DATA(c), sizeof what);
    error.number = static_cast<int>(what.ee_errno);
    error.from_network =
        what.ee_origin == SO_EE_ORIGIN_ICMP || what.ee_origin == SO_EE_ORIGIN_ICMP6;
    if (error.number == EMSGSIZE) error.mtu = what.ee_info;
  }
  return true;
}

}  // namespace cowire::detail
