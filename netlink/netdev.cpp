// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/netdev.hpp>

#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <sys/socket.h>

#include <cstddef>
#include <initializer_list>
#include <memory>

namespace cowire::netlink {
namespace {

// From linux/netdev.h (6.3), which older headers lack.
constexpr std::uint8_t netdev_command_get = 1;          // NETDEV_CMD_DEV_GET
constexpr std::uint16_t netdev_attribute_index = 1;     // NETDEV_A_DEV_IFINDEX
constexpr std::uint16_t netdev_attribute_features = 3;  // NETDEV_A_DEV_XDP_FEATURES
constexpr std::uint16_t netdev_attribute_xsk = 6;       // NETDEV_A_DEV_XSK_FEATURES, 6.8

// Linux 6.8.
constexpr std::uint8_t netdev_command_queue_get = 10;  // NETDEV_CMD_QUEUE_GET
constexpr std::uint16_t netdev_queue_id = 1;           // NETDEV_A_QUEUE_ID
constexpr std::uint16_t netdev_queue_interface = 2;    // NETDEV_A_QUEUE_IFINDEX
constexpr std::uint16_t netdev_queue_type = 3;         // NETDEV_A_QUEUE_TYPE
constexpr std::uint16_t netdev_queue_napi = 4;         // NETDEV_A_QUEUE_NAPI_ID
enum class netdev_queue_kind : std::uint32_t { rx, tx };

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

/// Of the NAPI instance that serves a queue; 0 = none, or the driver does not tell.
[[nodiscard]] std::uint32_t napi_of(const generic_netlink& netlink, std::uint16_t family,
                                    std::uint32_t index, netdev_queue_kind kind,
                                    std::uint32_t queue) {
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
                                  {netdev_queue_type, &kind, sizeof kind},
                                  {netdev_queue_id, &queue, sizeof queue}}},
                                take_napi, &napi));
  return napi;
}

}  // namespace

std::optional<netdev_features> read_netdev_features(std::uint32_t interface_index) {
  const generic_netlink netlink;
  const std::uint16_t family = netdev_family(netlink);
  if (family == 0) return std::nullopt;
  std::optional<netdev_features> features;
  const auto take_features = [](const nlattr* attribute, void* context) {
    const auto type = ::mnl_attr_get_type(attribute);
    if (type != netdev_attribute_features && type != netdev_attribute_xsk) return MNL_CB_OK;
    auto& out = *static_cast<std::optional<netdev_features>*>(context);
    if (!out) out.emplace();
    (type == netdev_attribute_features ? out->xdp : out->xsk) = ::mnl_attr_get_u64(attribute);
    return MNL_CB_OK;
  };
  if (!netlink.ask({family,
                    netdev_command_get,
                    1,
                    {{netdev_attribute_index, &interface_index, sizeof interface_index}}},
                   take_features, &features))
    return std::nullopt;
  return features;
}

std::optional<queue_napi> read_queue_napi(std::uint32_t interface_index, std::uint32_t queue) {
  const generic_netlink netlink;
  const std::uint16_t family = netdev_family(netlink);
  if (family == 0) return std::nullopt;
  return queue_napi{napi_of(netlink, family, interface_index, netdev_queue_kind::rx, queue),
                    napi_of(netlink, family, interface_index, netdev_queue_kind::tx, queue)};
}

}  // namespace cowire::netlink
