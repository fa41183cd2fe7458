// SPDX-License-Identifier: Apache-2.0
/// sequence_receiver PORT RECORD_FILE: what arrives, when, and through which interface.
///
/// The far end of `cowire send`: plain kernel sockets, nothing of cowire. It expects payloads that
/// begin with a sequence number and the time of submission, both big-endian 64-bit (the generated
/// payloads of `cowire send`), and appends one `record` a datagram to the file. Five times a second
/// the file is brought up to date and a line of JSON says how much there is. It ends at the end of
/// its standard input, having read all that had arrived, and so never outlives who started it.
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

namespace {

/// As it stands in the file, in the machine's byte order. Times are Unix time, in nanoseconds.
struct record {
  std::uint64_t sequence;
  std::uint64_t submitted_ns;  ///< As the payload says.
  std::uint64_t arrived_ns;    ///< The kernel's time stamp.
  std::uint64_t interface;     ///< Index.
};

constexpr std::size_t batch_size = 64;
constexpr std::size_t sequence_header_size = 16;
constexpr std::size_t receive_buffer_bytes = 64u
                                             << 20;  // Seconds of a stream, should we be held up.
constexpr auto report_period = std::chrono::milliseconds(200);

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::system_category(), what);
}

void set_option(int fd, int level, int name, int value, const char* what) {
  if (setsockopt(fd, level, name, &value, sizeof value) != 0)
    fail(std::string("setsockopt ") + what);
}

int open_socket(std::uint16_t port) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  set_option(fd, IPPROTO_IP, IP_PKTINFO, 1, "IP_PKTINFO");
  set_option(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1, "SO_TIMESTAMPNS");
  // Without privilege the system's limit applies, which serves slower streams.
  set_option(fd, SOL_SOCKET, SO_RCVBUF, receive_buffer_bytes, "SO_RCVBUF");
  const int size = receive_buffer_bytes;
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fail("bind to UDP port " + std::to_string(port));
  }
  return fd;
}

std::uint64_t big_endian(const std::byte* from) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof value; ++i)
    value = value << 8 | std::to_integer<std::uint64_t>(from[i]);
  return value;
}

class receiver {
 public:
  receiver(std::uint16_t port, const char* path)
      : fd_(open_socket(port)), file_(std::fopen(path, "wb")) {
    if (!file_) fail(std::string("open ") + path);
    for (std::size_t i = 0; i < batch_size; ++i) {
      parts_[i] = {.iov_base = payloads_[i].data(), .iov_len = payloads_[i].size()};
    }
  }

  int fd() const { return fd_; }

  /// Reads until nothing is waiting.
  void drain() {
    for (;;) {
      for (std::size_t i = 0; i < batch_size; ++i) {
        messages_[i].msg_hdr = {};
        messages_[i].msg_hdr.msg_iov = &parts_[i];
        messages_[i].msg_hdr.msg_iovlen = 1;
        messages_[i].msg_hdr.msg_control = controls_[i].bytes;
        messages_[i].msg_hdr.msg_controllen = sizeof controls_[i].bytes;
      }
      const int count = recvmmsg(fd_, messages_.data(), batch_size, 0, nullptr);
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (count < 0) fail("recvmmsg");
      for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) note(i);
    }
  }

  void report() {
    if (std::fflush(file_.get()) != 0) fail("write the records");
    std::string line = "{\"received\": " + std::to_string(received_) + ", \"interfaces\": {";
    const char* separator = "";
    for (const auto& [index, count] : by_interface_) {
      std::array<char, IF_NAMESIZE> name{};
      if (if_indextoname(index, name.data()) == nullptr) {
        std::snprintf(name.data(), name.size(), "if%u", index);
      }
      line += separator + ("\"" + std::string(name.data()) + "\": ") + std::to_string(count);
      separator = ", ";
    }
    std::printf("%s}}\n", line.c_str());
    std::fflush(stdout);
  }

 private:
  void note(std::size_t i) {
    if (messages_[i].msg_len < sequence_header_size) return;  // Not of the stream.
    record seen{};
    seen.sequence = big_endian(payloads_[i].data());
    seen.submitted_ns = big_endian(payloads_[i].data() + 8);
    msghdr& header = messages_[i].msg_hdr;
    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr;
         part = CMSG_NXTHDR(&header, part)) {
      if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_TIMESTAMPNS) {
        timespec at{};
        std::memcpy(&at, CMSG_DATA(part), sizeof at);
        seen.arrived_ns = static_cast<std::uint64_t>(at.tv_sec) * 1'000'000'000u +
                          static_cast<std::uint64_t>(at.tv_nsec);
      } else if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
        in_pktinfo info{};
        std::memcpy(&info, CMSG_DATA(part), sizeof info);
        seen.interface = static_cast<std::uint64_t>(info.ipi_ifindex);
      }
    }
    ++received_;
    ++by_interface_[static_cast<unsigned>(seen.interface)];
    if (std::fwrite(&seen, sizeof seen, 1, file_.get()) != 1) fail("write the records");
  }

  struct close_file {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  struct control_buffer {
    alignas(cmsghdr) std::byte bytes[CMSG_SPACE(sizeof(timespec)) + CMSG_SPACE(sizeof(in_pktinfo))];
  };

  int fd_;
  std::unique_ptr<std::FILE, close_file> file_;
  std::array<std::array<std::byte, sequence_header_size>, batch_size> payloads_{};
  std::array<control_buffer, batch_size> controls_{};
  std::array<iovec, batch_size> parts_{};
  std::array<mmsghdr, batch_size> messages_{};
  std::uint64_t received_ = 0;
  std::map<unsigned, std::uint64_t> by_interface_;
};

/// Whether standard input has ended.
bool input_ended() {
  std::array<char, 64> ignored;
  return read(STDIN_FILENO, ignored.data(), ignored.size()) == 0;
}

void run(std::uint16_t port, const char* path) {
  receiver stream(port, path);
  stream.report();  // The port is open: whoever waits for this line may start to send.
  auto next_report = std::chrono::steady_clock::now() + report_period;
  std::array<pollfd, 2> waits{pollfd{stream.fd(), POLLIN, 0}, pollfd{STDIN_FILENO, POLLIN, 0}};
  bool ended = false;
  while (!ended) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(
        next_report - std::chrono::steady_clock::now());
    const int timeout_ms = static_cast<int>(std::max<std::int64_t>(left.count(), 0));
    if (poll(waits.data(), waits.size(), timeout_ms) < 0 && errno != EINTR) fail("poll");
    ended = waits[1].revents != 0 && input_ended();
    stream.drain();
    if (ended || std::chrono::steady_clock::now() >= next_report) {
      stream.report();
      next_report = std::chrono::steady_clock::now() + report_period;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long port = argc == 3 ? std::strtol(argv[1], nullptr, 10) : 0;
  if (port < 1 || port > 65535) {
    std::fprintf(stderr, "usage: sequence_receiver PORT RECORD_FILE\n");
    return 2;
  }
  try {
    run(static_cast<std::uint16_t>(port), argv[2]);
  } catch (const std::system_error& error) {
    std::fprintf(stderr, "sequence_receiver: %s\n", error.what());
    return 1;
  }
}
