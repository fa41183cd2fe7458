// SPDX-License-Identifier: Apache-2.0
/// 1232-byte datagrams to 5 000 destinations out of a veth pair whose far end drops them in XDP,
/// and out of an ifb device, which drops them itself, where the kernel has that module: cowire
/// against the system calls, AF_PACKET without queueing discipline, and a bare AF_XDP loop, all in
/// copy mode, on one thread each, in private network namespaces.
///
/// Rounds are short and interleaved, so that what disturbs the machine disturbs all; medians are
/// reported. Every contestant copies the payload from user memory. cowire and the kernel's UDP look
/// routes up and compute checksums; the bare loop and AF_PACKET send ready-made headers without a
/// UDP checksum.
///
/// Prints a table, or what Google Benchmark prints for --benchmark_format=json. Needs root.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <cowire/xdp/socket.hpp>
#include <cowire/xdp/tx_core.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "testbed/hand_made_table.hpp"
#include "testbed/test_producer.hpp"
#include "testbed/veth_lab.hpp"

namespace cowire {
namespace {

constexpr std::size_t payload_size = 1232;
constexpr std::size_t headers_size = 14 + 20 + 8;
constexpr std::size_t destination_count = 5000;
constexpr std::size_t datagrams_per_round = 20'000;
constexpr int rounds = 15;

/// XDP_DROP on an interface of the current namespace, for as long as the descriptor is open.
[[nodiscard]] unique_fd drop_everything(std::uint32_t interface_index) {
  const bpf_insn instructions[] = {
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = XDP_DROP},
      {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
  };
  const unique_fd program(::bpf_prog_load(BPF_PROG_TYPE_XDP, "drop", "Dual BSD/GPL", instructions,
                                          std::size(instructions), nullptr));
  bpf_link_create_opts options{};
  options.sz = sizeof options;
  options.flags = XDP_FLAGS_DRV_MODE;
  unique_fd link(
      ::bpf_link_create(program.get(), static_cast<int>(interface_index), BPF_XDP, &options));
  COWIRE_ASSERT(link);
  return link;
}

/// Devices of namespace A that lead nowhere: the first for cowire and the kernel's routes, the
/// second for those who choose a device themselves.
struct dead_end {
  std::string group;
  device_facts devices[2];
  mac_address neighbour;
  std::vector<ip_address> destinations;

  [[nodiscard]] test::hop_spec hop_over(const device_facts& device) const {
    test::hop_spec spec;
    spec.source_mac = device.mac;
    spec.destination_mac = neighbour;
    spec.source = ip_address::v4(0x0a010001);
    return spec;
  }
};

/// What all contestants share.
struct world {
  test::veth_lab lab;
  std::vector<unique_fd> drops;
  std::vector<std::byte> payload = std::vector<std::byte>(payload_size, std::byte{0x5a});

  /// veth, and XDP_DROP at the far end.
  [[nodiscard]] dead_end veth() {
    for (const char* const name : {"b0", "b1"}) {
      const std::uint32_t index = lab.device_b(name).index;
      drops.push_back(lab.in_b([&] { return drop_everything(index); }));
    }
    return lead_to("end_to_end", {"a0", "a1"}, lab.device_b("b0").mac, "10.64.0.0");
  }

  /// Empty: the kernel has no such devices. It drops what does not come from a redirection.
  [[nodiscard]] std::optional<dead_end> ifb() {
    const bool made = lab.in_a([] {
      return std::system("ip link add ifb0 type ifb 2>&1 && ip link add ifb1 type ifb 2>&1") == 0;
    });
    if (!made) return std::nullopt;
    lab.run_in_a("ip link set ifb0 up && ip link set ifb1 up");
    return lead_to("end_to_end_ifb", {"ifb0", "ifb1"}, lab.device_a("ifb1").mac, "10.128.0.0");
  }

  [[nodiscard]] std::unique_ptr<xdp_socket> open(umem& memory, const device_facts& device) {
    opened_egress egress =
        lab.in_a([&] { return open_egress(memory, device, {.mode = send_mode::copy}); });
    if (!egress.socket) {
      std::fprintf(stderr, "no AF_XDP socket on %s: %s\n", device.name.c_str(),
                   egress.explain().c_str());
      std::exit(1);
    }
    return std::move(egress.socket);
  }

 private:
  /// Routes `net`/10 out of the first device.
  [[nodiscard]] dead_end lead_to(std::string group, const char* const (&names)[2],
                                 const mac_address& neighbour, const std::string& net) {
    dead_end end{std::move(group), {lab.device_a(names[0]), lab.device_a(names[1])}, neighbour, {}};
    lab.run_in_a("ip route add " + net + "/10 via 10.77.1.2 onlink dev " + names[0]);
    lab.run_in_a("ip neigh replace 10.77.1.2 lladdr " + neighbour.to_string() +
                 " nud permanent dev " + names[0]);
    std::mt19937 random(1);
    const std::uint32_t first = ip_address::parse(net)->v4_host();
    for (std::size_t i = 0; i < destination_count; ++i)
      end.destinations.push_back(
          ip_address::v4(first | (static_cast<std::uint32_t>(random()) & 0x3fffff)));
    return end;
  }
};

/// Ethernet, IPv4 and UDP headers for every destination, without a UDP checksum.
[[nodiscard]] std::vector<test::bytes> ready_made_headers(const dead_end& end) {
  std::vector<test::bytes> headers;
  for (const ip_address& a : end.destinations) {
    test::bytes frame =
        test::naive_frame(end.hop_over(end.devices[1]), {a, 8000}, 8001, test::bytes(payload_size));
    frame.resize(headers_size);
    frame[40] = frame[41] = 0;
    headers.push_back(std::move(frame));
  }
  return headers;
}

class cowire_contestant {
 public:
  cowire_contestant(world& w, const dead_end& end)
      : world_(w), socket_(w.open(memory_, end.devices[0])) {
    table_.route("10.0.0.0/8", table_.add_hop(test::make_hop(end.hop_over(end.devices[0]))));
    tables_.store(&table_.finish());
    for (const ip_address& a : end.destinations)
      destinations_.push_back(request_destination::from({a, 8000}));
    core_.attach(producer_.channel);
    core_.add_port(1, 1, socket_->queue());
  }
  void operator()() {
    const std::uint64_t target = producer_.sent + datagrams_per_round;
    while (producer_.sent < target) {
      producer_.reclaim();
      for (std::size_t i = 0; i < tx_batch; ++i)
        static_cast<void>(
            producer_.send(world_.payload, destinations_[producer_.sent % destination_count]));
      static_cast<void>(core_.run_once());
    }
    while (core_.snapshot().held != 0 || producer_.channel.requests.size_approximate() != 0)
      static_cast<void>(core_.run_once());
  }

 private:
  world& world_;
  umem memory_{{.frame_count = 8192}};
  std::unique_ptr<xdp_socket> socket_;
  publisher tables_;
  epoch_domain epochs_;
  doorbell control_;
  test::hand_made_table table_;
  std::vector<request_destination> destinations_;
  test::test_producer producer_{memory_, 0, 4096};
  tx_core core_{memory_.memory(), tables_, epochs_, control_};
};

/// The loop that libxdp's examples show.
class bare_contestant {
 public:
  bare_contestant(world& w, const dead_end& end)
      : world_(w),
        socket_(w.open(memory_, end.devices[1])),
        queue_(socket_->queue()),
        headers_(ready_made_headers(end)) {
    for (std::uint32_t i = 4096; i-- > 0;) free_.push_back(std::uint64_t{i} * 2048);
  }
  void operator()() {
    std::size_t sent = 0;
    while (sent < datagrams_per_round || outstanding_ != 0) {
      std::size_t batch = 0;
      while (batch < tx_batch && sent < datagrams_per_round && !free_.empty() &&
             producer_ - std::atomic_ref(*queue_.consumer).load(std::memory_order_acquire) <
                 queue_.size) {
        const std::uint64_t address = free_.back();
        free_.pop_back();
        std::byte* const frame = memory_.memory().base + address;
        std::memcpy(frame, headers_[sent % destination_count].data(), headers_size);
        std::memcpy(frame + headers_size, world_.payload.data(), payload_size);
        queue_.descriptors[producer_++ % queue_.size] = {address, payload_size + headers_size, 0};
        ++sent;
        ++batch;
        ++outstanding_;
      }
      std::atomic_ref(*queue_.producer).store(producer_, std::memory_order_release);
      static_cast<void>(queue_.kick(queue_.kick_context));
      const std::uint32_t ready =
          std::atomic_ref(*queue_.completion_producer).load(std::memory_order_acquire);
      for (; completed_ != ready; ++completed_, --outstanding_)
        free_.push_back(queue_.completions[completed_ % queue_.completion_size] &
                        ~std::uint64_t{2047});
      std::atomic_ref(*queue_.completion_consumer).store(completed_, std::memory_order_release);
    }
  }

 private:
  world& world_;
  umem memory_{{.frame_count = 4096}};
  std::unique_ptr<xdp_socket> socket_;
  tx_queue queue_;
  std::vector<test::bytes> headers_;
  std::vector<std::uint64_t> free_;
  std::uint32_t producer_ = 0, completed_ = 0;
  std::size_t outstanding_ = 0;
};

/// A round through sendmmsg(). `aim` readies a message for the destination of that number.
template <class Aim>
void send_messages(const unique_fd& fd, std::vector<mmsghdr>& messages, Aim aim) {
  for (std::size_t sent = 0; sent < datagrams_per_round;) {
    const std::size_t count = std::min(messages.size(), datagrams_per_round - sent);
    for (std::size_t i = 0; i < count; ++i)
      aim(messages[i].msg_hdr, (sent + i) % destination_count);
    const int done = ::sendmmsg(fd.get(), messages.data(), static_cast<unsigned>(count), 0);
    COWIRE_ASSERT(done > 0);
    sent += static_cast<std::size_t>(done);
  }
}

/// The system calls, one datagram or 64 at a time.
class kernel_contestant {
 public:
  kernel_contestant(world& w, const dead_end& end, std::size_t batch)
      : fd_(w.lab.in_a([] { return unique_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)); })),
        part_{w.payload.data(), w.payload.size()},
        messages_(batch) {
    for (const ip_address& a : end.destinations) {
      sockaddr_in to{};
      to.sin_family = AF_INET;
      to.sin_port = htons(8000);
      to.sin_addr.s_addr = htonl(a.v4_host());
      to_.push_back(to);
    }
    for (mmsghdr& m : messages_) {
      m.msg_hdr.msg_iov = &part_;
      m.msg_hdr.msg_iovlen = 1;
      m.msg_hdr.msg_namelen = sizeof(sockaddr_in);
    }
  }
  void operator()() {
    if (messages_.size() > 1) {
      send_messages(fd_, messages_, [&](msghdr& m, std::size_t i) { m.msg_name = &to_[i]; });
      return;
    }
    for (std::size_t sent = 0; sent < datagrams_per_round; ++sent) {
      const auto* const to = reinterpret_cast<const sockaddr*>(&to_[sent % destination_count]);
      COWIRE_ASSERT(::sendto(fd_.get(), part_.iov_base, part_.iov_len, 0, to, sizeof(sockaddr_in)) >
                    0);
    }
  }

 private:
  unique_fd fd_;
  std::vector<sockaddr_in> to_;
  iovec part_{};
  std::vector<mmsghdr> messages_;
};

/// AF_PACKET past the queueing discipline, 64 ready-made frames at a time.
class packet_contestant {
 public:
  packet_contestant(world& w, const dead_end& end)
      : fd_(w.lab.in_a([] { return unique_fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)); })),
        headers_(ready_made_headers(end)),
        messages_(tx_batch) {
    const int yes = 1;
    COWIRE_ASSERT(::setsockopt(fd_.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes) == 0);
    sockaddr_ll at{};
    at.sll_family = AF_PACKET;
    at.sll_ifindex = static_cast<int>(end.devices[1].index);
    COWIRE_ASSERT(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0);
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      parts_[i][1] = {w.payload.data(), w.payload.size()};
      messages_[i].msg_hdr.msg_iov = parts_[i];
      messages_[i].msg_hdr.msg_iovlen = 2;
    }
  }
  void operator()() {
    send_messages(fd_, messages_, [&](msghdr& m, std::size_t i) {
      m.msg_iov[0] = {headers_[i].data(), headers_size};
    });
  }

 private:
  unique_fd fd_;
  std::vector<test::bytes> headers_;
  iovec parts_[tx_batch][2] = {};
  std::vector<mmsghdr> messages_;
};

struct result {
  std::string name;
  std::vector<double> ns_per_datagram;

  [[nodiscard]] double median() {
    std::sort(ns_per_datagram.begin(), ns_per_datagram.end());
    return ns_per_datagram[ns_per_datagram.size() / 2];
  }
};

/// Every round is a repetition of its own.
void print_json(const std::vector<result>& results) {
  std::printf("{\n  \"context\": {\"executable\": \"bench_end_to_end\"},\n  \"benchmarks\": [");
  const char* separator = "\n";
  for (const result& r : results) {
    for (const double ns : r.ns_per_datagram) {
      std::printf(
          "%s    {\"name\": \"%s\", \"run_name\": \"%s\", \"run_type\": \"iteration\", "
          "\"iterations\": %zu, \"real_time\": %.3f, \"cpu_time\": %.3f, \"time_unit\": \"ns\", "
          "\"items_per_second\": %.1f}",
          separator, r.name.c_str(), r.name.c_str(), datagrams_per_round, ns, ns, 1e9 / ns);
      separator = ",\n";
    }
  }
  std::printf("\n  ]\n}\n");
}

/// All contestants against one another over one dead end.
void compete(world& w, const dead_end& end, std::vector<result>& results) {
  cowire_contestant ours(w, end);
  bare_contestant bare(w, end);
  kernel_contestant one(w, end, 1), many(w, end, tx_batch);
  packet_contestant packets(w, end);
  const std::pair<const char*, std::function<void()>> contestants[] = {
      {"/cowire", std::ref(ours)},      {"/sendto", std::ref(one)},
      {"/sendmmsg64", std::ref(many)},  {"/af_packet_bypass64", std::ref(packets)},
      {"/bare_libxdp", std::ref(bare)},
  };
  const std::size_t first = results.size();
  for (const auto& [name, round] : contestants) results.push_back({end.group + name, {}});
  for (int repetition = 0; repetition <= rounds; ++repetition) {
    for (std::size_t i = 0; i < std::size(contestants); ++i) {
      const auto start = std::chrono::steady_clock::now();
      contestants[i].second();
      const std::chrono::duration<double, std::nano> took =
          std::chrono::steady_clock::now() - start;
      if (repetition == 0) continue;  // Warms up.
      results[first + i].ns_per_datagram.push_back(took.count() / datagrams_per_round);
    }
  }
}

int run(bool json) {
  if (const std::string why = test::veth_lab::unavailable(); !why.empty()) {
    std::fprintf(stderr, "bench_end_to_end %s\n", why.c_str());
    return 1;
  }
  world w;
  std::vector<result> results;
  compete(w, w.veth(), results);
  if (const std::optional<dead_end> ifb = w.ifb())
    compete(w, *ifb, results);
  else
    std::fprintf(stderr, "bench_end_to_end: this kernel has no ifb; measured over veth only\n");
  if (json) {
    print_json(results);
    return 0;
  }
  std::printf("%-36s %14s %10s\n", "", "ns a datagram", "Mpps");
  for (result& r : results) {
    const double ns = r.median();
    std::printf("%-36s %14.1f %10.3f\n", r.name.c_str(), ns, 1e3 / ns);
  }
  return 0;
}

}  // namespace
}  // namespace cowire

int main(int argc, char** argv) {
  bool json = false;
  for (int i = 1; i < argc; ++i) json |= std::string_view(argv[i]) == "--benchmark_format=json";
  return cowire::run(json);
}
