// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/device.hpp>

#include <cowire/base/error.hpp>
#include <cowire/base/unique_fd.hpp>

#include <bpf/libbpf.h>
#include <libmnl/libmnl.h>
#include <linux/ethtool.h>
#include <linux/genetlink.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace cowire {
namespace {

/// An AF_INET socket to ask one interface through; ioctls fail with errno.
class interface_ioctl {
 public:
  explicit interface_ioctl(const std::string& name)
      : name_(name), socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {}

  [[nodiscard]] bool get(unsigned long request, ifreq& answer) const noexcept {
    answer = {};
    name_.copy(answer.ifr_name, IFNAMSIZ - 1);
    return ::ioctl(socket_.get(), request, &answer) == 0;
  }

  /// `command` begins with its ETHTOOL_* number, as all of them do.
  template <class Command>
  [[nodiscard]] bool ethtool(Command& command) const noexcept {
    ifreq request{};
    name_.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_data = reinterpret_cast<char*>(&command);
    return ::ioctl(socket_.get(), SIOCETHTOOL, &request) == 0;
  }

 private:
  const std::string& name_;
  unique_fd socket_;
};

template <std::size_t N>
[[nodiscard]] std::string text_of(const char (&field)[N]) {
  return {field, ::strnlen(field, N)};
}

void read_ethtool(const interface_ioctl& ask, device_facts& facts) {
  ethtool_drvinfo driver{};
  driver.cmd = ETHTOOL_GDRVINFO;
  if (ask.ethtool(driver)) {
    facts.driver = text_of(driver.driver);
    facts.driver_version = text_of(driver.version);
    facts.bus = text_of(driver.bus_info);
  }
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  if (ask.ethtool(channels)) {
    facts.queues = {.rx = std::max(1u, channels.combined_count + channels.rx_count),
                    .tx = std::max(1u, channels.combined_count + channels.tx_count),
                    .rx_max = channels.max_combined + channels.max_rx,
                    .tx_max = channels.max_combined + channels.max_tx,
                    .combined = channels.max_combined != 0};
  }
  ethtool_ringparam rings{};
  rings.cmd = ETHTOOL_GRINGPARAM;
  if (ask.ethtool(rings)) {
    facts.rings = {.rx = rings.rx_pending,
                   .rx_max = rings.rx_max_pending,
                   .tx = rings.tx_pending,
                   .tx_max = rings.tx_max_pending};
  }
  ethtool_value flags{};
  flags.cmd = ETHTOOL_GFLAGS;
  if (ask.ethtool(flags) && (flags.data & ETH_FLAG_LRO) != 0) {
    facts.warnings.push_back(
        "large receive offload is on, with which several drivers refuse native XDP: ethtool -K " +
        facts.name + " lro off");
  }
  // What one page holds with XDP's headroom and the skb's tail; the same in most drivers.
  constexpr std::uint32_t native_mtu_max = 3498;
  if (facts.mtu > native_mtu_max) {
    facts.warnings.push_back("MTU " + std::to_string(facts.mtu) +
                             " is more than most drivers allow with native XDP (about 3498): "
                             "ip link set " +
                             facts.name + " mtu 3498");
  }
}

void read_attached_program(device_facts& facts) {
  bpf_xdp_query_opts query{};
  query.sz = sizeof query;
  if (::bpf_xdp_query(static_cast<int>(facts.index), 0, &query) != 0) return;
  switch (query.attach_mode) {
    case XDP_ATTACHED_DRV:
      facts.attached = xdp_attachment::native;
      break;
    case XDP_ATTACHED_SKB:
      facts.attached = xdp_attachment::generic;
      break;
    case XDP_ATTACHED_HW:
      facts.attached = xdp_attachment::hardware;
      break;
    case XDP_ATTACHED_MULTI:
      facts.attached = xdp_attachment::several;
      break;
    default:
      return;
  }
  facts.program_id = query.prog_id;
}

// From linux/netdev.h (6.3), which older headers lack.
constexpr std::uint8_t netdev_command_get = 1;          // NETDEV_CMD_DEV_GET
constexpr std::uint16_t netdev_attribute_index = 1;     // NETDEV_A_DEV_IFINDEX
constexpr std::uint16_t netdev_attribute_features = 3;  // NETDEV_A_DEV_XDP_FEATURES
constexpr std::uint16_t netdev_attribute_xsk = 6;       // NETDEV_A_DEV_XSK_FEATURES, 6.8
constexpr std::uint64_t netdev_checksum_bit = 2;        // NETDEV_XSK_FLAGS_TX_CHECKSUM
constexpr std::uint64_t netdev_launch_time_bit = 4;     // NETDEV_XSK_FLAGS_TX_LAUNCH_TIME_FIFO
constexpr std::uint64_t netdev_native_bits = 1;         // NETDEV_XDP_ACT_BASIC
constexpr std::uint64_t netdev_zero_copy_bit = 8;       // NETDEV_XDP_ACT_XSK_ZEROCOPY

// Linux 6.8.
constexpr std::uint8_t netdev_command_queue_get = 10;  // NETDEV_CMD_QUEUE_GET
constexpr std::uint16_t netdev_queue_id = 1;           // NETDEV_A_QUEUE_ID
constexpr std::uint16_t netdev_queue_interface = 2;    // NETDEV_A_QUEUE_IFINDEX
constexpr std::uint16_t netdev_queue_type = 3;         // NETDEV_A_QUEUE_TYPE
constexpr std::uint16_t netdev_queue_napi = 4;         // NETDEV_A_QUEUE_NAPI_ID
enum class queue_type : std::uint32_t { rx, tx };

/// One generic-netlink question; `visit` sees the answer's attributes.
class generic_netlink {
 public:
  generic_netlink() : socket_(::mnl_socket_open2(NETLINK_GENERIC, SOCK_CLOEXEC)) {
    if (socket_ && ::mnl_socket_bind(socket_.get(), 0, MNL_SOCKET_AUTOPID) < 0) socket_.reset();
  }

  struct attribute {
    std::uint16_t type;
    const void* value;
    std::size_t size;
  };
  struct question {
    std::uint16_t family;
    std::uint8_t command, version;
    std::initializer_list<attribute> attributes;
  };
  using visitor = int (*)(const nlattr* attribute, void* context);

  [[nodiscard]] bool ask(const question& q, visitor visit, void* context) const {
    if (!socket_) return false;
    alignas(nlmsghdr) char buffer[8192] = {};  // libmnl leaves what pads attributes as it is.
    nlmsghdr* const header = ::mnl_nlmsg_put_header(buffer);
    header->nlmsg_type = q.family;
    header->nlmsg_flags = NLM_F_REQUEST;
    auto* const generic =
        static_cast<genlmsghdr*>(::mnl_nlmsg_put_extra_header(header, sizeof(genlmsghdr)));
    generic->cmd = q.command;
    generic->version = q.version;
    for (const attribute& a : q.attributes) ::mnl_attr_put(header, a.type, a.size, a.value);
    if (::mnl_socket_sendto(socket_.get(), header, header->nlmsg_len) < 0) return false;

    const ssize_t received = ::mnl_socket_recvfrom(socket_.get(), buffer, sizeof buffer);
    const auto* const answer = reinterpret_cast<const nlmsghdr*>(buffer);
    if (received < 0 || !::mnl_nlmsg_ok(answer, static_cast<int>(received))) return false;
    if (answer->nlmsg_type != q.family) return false;  // NLMSG_ERROR
    return ::mnl_attr_parse(answer, sizeof(genlmsghdr), visit, context) == MNL_CB_OK;
  }

 private:
  struct closer {
    void operator()(mnl_socket* socket) const noexcept { ::mnl_socket_close(socket); }
  };
  std::unique_ptr<mnl_socket, closer> socket_;
};

/// The netdev family's number; 0 = this kernel has none.
[[nodiscard]] std::uint16_t netdev_family(const generic_netlink& netlink) {
  std::uint16_t family = 0;
  constexpr char family_name[] = "netdev";
  const auto take_family = [](const nlattr* attribute, void* context) {
    if (::mnl_attr_get_type(attribute) == CTRL_ATTR_FAMILY_ID)
      *static_cast<std::uint16_t*>(context) = ::mnl_attr_get_u16(attribute);
    return MNL_CB_OK;
  };
  static_cast<void>(netlink.ask({GENL_ID_CTRL,
                                 CTRL_CMD_GETFAMILY,
                                 1,
                                 {{CTRL_ATTR_FAMILY_NAME, family_name, sizeof family_name}}},
                                take_family, &family));
  return family;
}

[[nodiscard]] std::optional<xdp_features> read_features(std::uint32_t index) {
  const generic_netlink netlink;
  const std::uint16_t family = netdev_family(netlink);
  if (family == 0) return std::nullopt;
  std::optional<xdp_features> features;
  const auto take_features = [](const nlattr* attribute, void* context) {
    const auto type = ::mnl_attr_get_type(attribute);
    if (type != netdev_attribute_features && type != netdev_attribute_xsk) return MNL_CB_OK;
    auto& out = *static_cast<std::optional<xdp_features>*>(context);
    if (!out) out.emplace();
    const std::uint64_t bits = ::mnl_attr_get_u64(attribute);
    if (type == netdev_attribute_xsk) {
      out->tx_checksum = (bits & netdev_checksum_bit) != 0;
      out->tx_launch_time = (bits & netdev_launch_time_bit) != 0;
    } else {
      out->native = (bits & netdev_native_bits) != 0;
      out->zero_copy = (bits & netdev_zero_copy_bit) != 0;
    }
    return MNL_CB_OK;
  };
  if (!netlink.ask(
          {family, netdev_command_get, 1, {{netdev_attribute_index, &index, sizeof index}}},
          take_features, &features))
    return std::nullopt;
  return features;
}

/// Of the NAPI instance that serves a queue; 0 = none, or the driver does not tell.
[[nodiscard]] std::uint32_t napi_of(const generic_netlink& netlink, std::uint16_t family,
                                    std::uint32_t index, queue_type type, std::uint32_t queue) {
  std::uint32_t napi = 0;
  const auto take_napi = [](const nlattr* attribute, void* context) {
    if (::mnl_attr_get_type(attribute) == netdev_queue_napi)
      *static_cast<std::uint32_t*>(context) = ::mnl_attr_get_u32(attribute);
    return MNL_CB_OK;
  };
  static_cast<void>(netlink.ask({family,
                                 netdev_command_queue_get,
                                 1,
                                 {{netdev_queue_interface, &index, sizeof index},
                                  {netdev_queue_type, &type, sizeof type},
                                  {netdev_queue_id, &queue, sizeof queue}}},
                                take_napi, &napi));
  return napi;
}

}  // namespace

std::string_view name(xdp_attachment attachment) noexcept {
  switch (attachment) {
    case xdp_attachment::none:
      return "none";
    case xdp_attachment::native:
      return "native";
    case xdp_attachment::generic:
      return "generic";
    case xdp_attachment::hardware:
      return "hardware";
    case xdp_attachment::several:
      return "several";
  }
  return "?";
}

std::string more_queues(const device_facts& device, std::uint32_t wanted) {
  if (device.queues.tx_max < wanted) return "its driver has no more";
  return "ethtool -L " + device.name + (device.queues.combined ? " combined " : " tx ") +
         std::to_string(wanted);
}

bool polled_apart(std::uint32_t interface_index, std::uint32_t queue) {
  const generic_netlink netlink;
  const std::uint16_t family = netdev_family(netlink);
  if (family == 0) return false;
  return napi_of(netlink, family, interface_index, queue_type::rx, queue) !=
         napi_of(netlink, family, interface_index, queue_type::tx, queue);
}

device_facts read_device(const std::string& name) {
  std::error_code ec;
  device_facts facts = read_device(name, ec);
  if (ec) {
    throw_error(ec,
                "read interface " + name +
                    (ec.value() == ENODEV ? " (`ip link` lists the interfaces there are)" : ""));
  }
  return facts;
}

device_facts read_device(const std::string& name, std::error_code& ec) {
  ec.clear();
  device_facts facts;
  facts.name = name;
  const interface_ioctl ask(facts.name);
  ifreq answer{};
  if (name.empty() || name.size() >= IFNAMSIZ) {
    ec = errno_code(ENODEV);
    return {};
  }
  if (!ask.get(SIOCGIFINDEX, answer)) {
    ec = errno_code(errno);
    return {};
  }
  facts.index = static_cast<std::uint32_t>(answer.ifr_ifindex);
  if (ask.get(SIOCGIFMTU, answer)) facts.mtu = static_cast<std::uint32_t>(answer.ifr_mtu);
  if (ask.get(SIOCGIFFLAGS, answer)) {
    facts.up = (answer.ifr_flags & IFF_UP) != 0;
    facts.carrier = (answer.ifr_flags & IFF_RUNNING) != 0;
  }
  if (ask.get(SIOCGIFHWADDR, answer)) {
    facts.ethernet = answer.ifr_hwaddr.sa_family == ARPHRD_ETHER;
    if (facts.ethernet)
      std::memcpy(facts.mac.bytes.data(), answer.ifr_hwaddr.sa_data, facts.mac.bytes.size());
  }
  read_ethtool(ask, facts);
  read_attached_program(facts);
  facts.features = read_features(facts.index);
  return facts;
}

}  // namespace cowire
