// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/device.hpp>

#include <cowire/base/error.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/netlink/netdev.hpp>

#include <bpf/libbpf.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

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

// From linux/netdev.h, which older headers lack.
constexpr std::uint64_t checksum_bit = 2;     // NETDEV_XSK_FLAGS_TX_CHECKSUM
constexpr std::uint64_t launch_time_bit = 4;  // NETDEV_XSK_FLAGS_TX_LAUNCH_TIME_FIFO
constexpr std::uint64_t native_bits = 1;      // NETDEV_XDP_ACT_BASIC
constexpr std::uint64_t zero_copy_bit = 8;    // NETDEV_XDP_ACT_XSK_ZEROCOPY

[[nodiscard]] std::optional<xdp_features> read_features(std::uint32_t index) {
  const auto declared = netlink::read_netdev_features(index);
  if (!declared) return std::nullopt;
  return xdp_features{.native = (declared->xdp & native_bits) != 0,
                      .zero_copy = (declared->xdp & zero_copy_bit) != 0,
                      .tx_checksum = (declared->xsk & checksum_bit) != 0,
                      .tx_launch_time = (declared->xsk & launch_time_bit) != 0};
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
  const auto served_by = netlink::read_queue_napi(interface_index, queue);
  return served_by && served_by->rx != served_by->tx;
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
