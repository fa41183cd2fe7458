// SPDX-License-Identifier: Apache-2.0
/// 1232-byte datagrams to 5 000 destinations out of a veth pair whose far end drops them in XDP:
/// cowire against the system calls and against a bare AF_XDP loop, all in copy mode, on one thread
/// each, in private network namespaces.
///
/// Rounds are short and interleaved, so that what disturbs the machine disturbs all; medians are
/// reported. Every contestant copies the payload from user memory. cowire and the kernel look
/// routes up and compute checksums; the bare loop sends ready-made headers without a UDP checksum.
///
/// Prints a table, or what Google Benchmark prints for --benchmark_format=json. Needs root.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <sys/socket.h>
#include <cowire/xdp/socket.hpp>
#include <cowire/xdp/tx_core.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tests/xdp/hand_made_table.hpp"
#include "tests/xdp/test_producer.hpp"
#include "tests/xdp/veth_lab.hpp"

namespace cowire {
namespace {

constexpr std::size_t payload_size = 1232;
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

/// What all contestants share.
struct world {
  test::veth_lab lab;
  std::vector<unique_fd> drops;
  std::vector<std::byte> payload = std::vector<std::byte>(payload_size, std::byte{0x5a});
  std::vector<ip_address> destinations;

  world() {
    std::mt19937 random(1);
    for (std::size_t i = 0; i < destination_count; ++i)
      destinations.push_back(
          ip_address::v4(0x0a400000 | (static_cast<std::uint32_t>(random()) & 0x3fffff)));
    const std::string mac = lab.device_b("b0").mac.to_string();
    lab.run_in_a("ip neigh replace 10.1.0.2 lladdr " + mac + " dev a0 nud permanent");
    lab.run_in_a("ip route add 10.64.0.0/10 via 10.1.0.2");
    for (const char* const name : {"b0", "b1"}) {
      const std::uint32_t index = lab.device_b(name).index;
      drops.push_back(lab.in_b([&] { return drop_everything(index); }));
    }
  }

  [[nodiscard]] std::unique_ptr<xdp_socket> open(umem& memory, const std::string& name) {
    const device_facts device = lab.device_a(name);
    opened_egress egress =
        lab.in_a([&] { return open_egress(memory, device, {.mode = send_mode::copy}); });
    if (!egress.socket) {
      std::fprintf(stderr, "no AF_XDP socket on %s: %s\n", name.c_str(), egress.explain().c_str());
      std::exit(1);
    }
    return std::move(egress.socket);
  }

  [[nodiscard]] test::hop_spec hop_over(const std::string& n) {
    test::hop_spec spec;
    spec.source_mac = lab.device_a("a" + n).mac;
    spec.destination_mac = lab.device_b("b" + n).mac;
    spec.source = ip_address::v4(0x0a010001);
    return spec;
  }
};

class cowire_contestant {
 public:
  explicit cowire_contestant(world& w) : world_(w), socket_(w.open(memory_, "a0")) {
    table_.route("10.64.0.0/10", table_.add_hop(test::make_hop(w.hop_over("0"))));
    tables_.store(&table_.finish());
    for (const ip_address& a : w.destinations)
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
  explicit bare_contestant(world& w)
      : world_(w), socket_(w.open(memory_, "a1")), queue_(socket_->queue()) {
    const test::hop_spec spec = w.hop_over("1");
    for (const ip_address& a : w.destinations) {
      test::bytes frame = test::naive_frame(spec, {a, 8000}, 8001, test::bytes(payload_size));
      frame.resize(42);
      frame[40] = frame[41] = 0;
      headers_.push_back(std::move(frame));
    }
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
        std::memcpy(frame, headers_[sent % destination_count].data(), 42);
        std::memcpy(frame + 42, world_.payload.data(), payload_size);
        queue_.descriptors[producer_++ % queue_.size] = {address, payload_size + 42, 0};
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

/// The system calls, one datagram or 64 at a time.
class kernel_contestant {
 public:
  kernel_contestant(world& w, std::size_t batch)
      : batch_(batch),
        fd_(w.lab.in_a([] { return unique_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)); })) {
    for (const ip_address& a : w.destinations) {
      sockaddr_in to{};
      to.sin_family = AF_INET;
      to.sin_port = htons(8000);
      to.sin_addr.s_addr = htonl(a.v4_host());
      to_.push_back(to);
    }
    part_ = {w.payload.data(), w.payload.size()};
    messages_.resize(batch);
    for (mmsghdr& m : messages_) {
      m.msg_hdr.msg_iov = &part_;
      m.msg_hdr.msg_iovlen = 1;
      m.msg_hdr.msg_namelen = sizeof(sockaddr_in);
    }
  }
  void operator()() {
    for (std::size_t sent = 0; sent < datagrams_per_round;) {
      if (batch_ == 1) {
        const auto* const to = reinterpret_cast<const sockaddr*>(&to_[sent % destination_count]);
        COWIRE_ASSERT(
            ::sendto(fd_.get(), part_.iov_base, part_.iov_len, 0, to, sizeof(sockaddr_in)) > 0);
        ++sent;
        continue;
      }
      const std::size_t count = std::min(batch_, datagrams_per_round - sent);
      for (std::size_t i = 0; i < count; ++i)
        messages_[i].msg_hdr.msg_name = &to_[(sent + i) % destination_count];
      const int done = ::sendmmsg(fd_.get(), messages_.data(), static_cast<unsigned>(count), 0);
      COWIRE_ASSERT(done > 0);
      sent += static_cast<std::size_t>(done);
    }
  }

 private:
  std::size_t batch_;
  unique_fd fd_;
  std::vector<sockaddr_in> to_;
  iovec part_{};
  std::vector<mmsghdr> messages_;
};

struct contestant {
  std::string name;
  std::function<void()> round;
  std::vector<double> ns_per_datagram;

  [[nodiscard]] double median() {
    std::sort(ns_per_datagram.begin(), ns_per_datagram.end());
    return ns_per_datagram[ns_per_datagram.size() / 2];
  }
};

/// Every round is a repetition of its own.
void print_json(const std::vector<contestant>& contestants) {
  std::printf("{\n  \"context\": {\"executable\": \"bench_end_to_end\"},\n  \"benchmarks\": [");
  const char* separator = "\n";
  for (const contestant& c : contestants) {
    for (const double ns : c.ns_per_datagram) {
      std::printf(
          "%s    {\"name\": \"%s\", \"run_name\": \"%s\", \"run_type\": \"iteration\", "
          "\"iterations\": %zu, \"real_time\": %.3f, \"cpu_time\": %.3f, \"time_unit\": \"ns\", "
          "\"items_per_second\": %.1f}",
          separator, c.name.c_str(), c.name.c_str(), datagrams_per_round, ns, ns, 1e9 / ns);
      separator = ",\n";
    }
  }
  std::printf("\n  ]\n}\n");
}

int run(bool json) {
  if (const std::string why = test::veth_lab::unavailable(); !why.empty()) {
    std::fprintf(stderr, "bench_end_to_end %s\n", why.c_str());
    return 1;
  }
  world w;
  cowire_contestant ours(w);
  bare_contestant bare(w);
  kernel_contestant one(w, 1), many(w, 64);
  std::vector<contestant> contestants;
  contestants.push_back({"end_to_end/cowire", std::ref(ours), {}});
  contestants.push_back({"end_to_end/sendto", std::ref(one), {}});
  contestants.push_back({"end_to_end/sendmmsg64", std::ref(many), {}});
  contestants.push_back({"end_to_end/bare_libxdp", std::ref(bare), {}});
  for (int round = 0; round <= rounds; ++round) {
    for (contestant& c : contestants) {
      const auto start = std::chrono::steady_clock::now();
      c.round();
      const std::chrono::duration<double, std::nano> took =
          std::chrono::steady_clock::now() - start;
      if (round != 0)
        c.ns_per_datagram.push_back(took.count() / datagrams_per_round);  // 0 warms up.
    }
  }
  if (json) {
    print_json(contestants);
    return 0;
  }
  std::printf("%-28s %14s %10s\n", "", "ns a datagram", "Mpps");
  for (contestant& c : contestants) {
    const double ns = c.median();
    std::printf("%-28s %14.1f %10.3f\n", c.name.c_str(), ns, 1e3 / ns);
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
