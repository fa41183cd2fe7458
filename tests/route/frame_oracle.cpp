// SPDX-License-Identifier: Apache-2.0
#include "frame_oracle.hpp"

#include "class_socket.hpp"

#include <cowire/base/socket_address.hpp>
#include <cowire/xdp/frame_writer.hpp>

#include <tests/support/frame_reader.hpp>

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <span>

namespace cowire::testing {
namespace {

/// What ends a frame of ours.
struct payload {
  std::array<char, 12> mark{'f', 'r', 'a', 'm', 'e', ' ', 'o', 'r', 'a', 'c', 'l', 'e'};
  std::uint32_t number = 0;
};

std::span<const std::byte> bytes_of(const payload& one) {
  return std::as_bytes(std::span(&one, 1));
}

std::optional<std::uint32_t> number_in(const std::string& frame) {
  payload last;
  if (frame.size() < sizeof last) return std::nullopt;
  std::memcpy(&last, frame.data() + frame.size() - sizeof last, sizeof last);
  return last.mark == payload().mark ? std::optional(last.number) : std::nullopt;
}

/// What the kernel leaves to the device: the checksum of the datagram, which ends the frame.
void complete_checksum(std::string& frame, ip_family family) {
  constexpr std::size_t udp_size = 8 + sizeof(payload);
  const std::size_t addresses = family == ip_family::v4 ? 8 : 32;
  if (frame.size() < udp_size + addresses) return;
  const std::size_t udp = frame.size() - udp_size;
  std::fill_n(frame.begin() + static_cast<std::ptrdiff_t>(udp + 6), 2, '\0');
  const be16 pseudo[2] = {be16::from_host(IPPROTO_UDP), be16::from_host(udp_size)};
  const auto bytes = std::as_bytes(std::span(frame));
  std::uint16_t sum = finish_sum(sum_bytes(bytes.subspan(udp - addresses)) +
                                 sum_bytes(std::as_bytes(std::span(pseudo))));
  if (sum == 0) sum = 0xffff;
  std::memcpy(frame.data() + udp + 6, &sum, sizeof sum);
}

/// Where frames that leave by a device arrive: the other end of its wire, or nowhere that is here.
std::optional<std::uint32_t> other_end(const mirror& state, std::uint32_t index) {
  const mirror::device* const device = state.find_device(index);
  if (device == nullptr || device->link.kind != "veth" || device->link.lower_in_other_namespace)
    return std::nullopt;
  return state.find_device(device->link.lower) != nullptr ? std::optional(device->link.lower)
                                                          : std::nullopt;
}

/// The next frame that the packet socket has, with where it was seen; false: there is none.
bool next_sighting(int fd, frame_oracle::sighting& seen) {
  sockaddr_ll from{};
  char bytes[2048];
  alignas(cmsghdr) char control[256];
  iovec room{bytes, sizeof bytes};
  msghdr message{&from, sizeof from, &room, 1, control, sizeof control, 0};
  const auto got = ::recvmsg(fd, &message, 0);
  if (got < 0) return false;
  seen = {static_cast<std::uint32_t>(from.sll_ifindex), from.sll_pkttype == PACKET_OUTGOING, false,
          std::string(bytes, static_cast<std::size_t>(got))};
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) continue;
    tpacket_auxdata told{};
    std::memcpy(&told, CMSG_DATA(c), sizeof told);
    seen.unfinished = (told.tp_status & TP_STATUS_CSUMNOTREADY) != 0;
    if (seen.frame.size() > ETH_HLEN) test::put_tag_back(seen.frame, told);
  }
  return true;
}

}  // namespace

frame_oracle::frame_oracle()
    : packets_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL))) {
  set_option(packets_.get(), SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20);
  set_option(packets_.get(), SOL_PACKET, PACKET_AUXDATA, 1);
}

std::vector<std::optional<frame_oracle::answer>> frame_oracle::ask(
    const mirror& state, std::span<const frame_question> questions) {
  std::vector<std::optional<answer>> answers(questions.size());
  std::vector<bool> arrive;
  for (std::uint32_t number = 0; number < questions.size(); ++number) {
    const flow& one = questions[number].of;
    arrive.push_back(other_end(state, questions[number].via.interface_index).has_value());
    const unique_fd fd = open_socket(one.cls, one.destination.family());
    if (!fd) continue;
    payload text;
    text.number = number;
    sockaddr_storage name{};
    const socklen_t size = to_sockaddr({one.destination, one.destination_port, 0}, name);
    const auto sent =
        ::sendto(fd.get(), &text, sizeof text, 0, reinterpret_cast<const sockaddr*>(&name), size);
    answers[number].emplace().error = sent < 0 ? errno : 0;
  }
  collect(answers, arrive);
  return answers;
}

/// Until all that was sent has arrived, which it does later where the kernel is busy, or has left
/// by a device that leads nowhere.
void frame_oracle::collect(std::vector<std::optional<answer>>& answers,
                           const std::vector<bool>& arrive) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  const auto is_complete = [&] {
    for (std::size_t i = 0; i < answers.size(); ++i)
      if (answers[i] && answers[i]->error == 0 &&
          std::ranges::all_of(answers[i]->seen,
                              [&](const sighting& seen) { return seen.leaving == arrive[i]; }))
        return false;
    return true;
  };
  pollfd waiting{packets_.get(), POLLIN, 0};
  while (!is_complete() && std::chrono::steady_clock::now() < deadline) {
    static_cast<void>(::poll(&waiting, 1, 50));
    sighting seen;
    while (next_sighting(packets_.get(), seen)) {
      const auto number = number_in(seen.frame);
      if (number && *number < answers.size() && answers[*number])
        answers[*number]->seen.push_back(seen);
    }
  }
}

std::string frame_of(const hop& via, const flow& of, std::uint32_t number) {
  payload text;
  text.number = number;
  std::vector<std::byte> room(header_capacity + sizeof text);
  std::byte* const at = room.data() + header_capacity;
  std::memcpy(at, &text, sizeof text);
  const std::uint16_t sum = fold_sum(sum_bytes(bytes_of(text)));
  const tx_request request =
      make_request({}, sizeof text, sum, be16::from_host(of.cls.source_port),
                   request_destination::from({of.destination, of.destination_port, 0}), 0);
  write_headers(at, via, request);
  write_second_pass(at, via, request);
  const std::byte* const begin = at - via.header_length;
  return {reinterpret_cast<const char*>(begin), via.header_length + sizeof text};
}

namespace {

/// Number, name and, of a bond's slave, whose.
std::string described(const mirror& state, std::uint32_t index) {
  const mirror::device* const device = state.find_device(index);
  if (device == nullptr) return std::to_string(index);
  const std::uint32_t master = device->link.master;
  return std::to_string(index) + " (" + device->link.name +
         (master != 0 ? " of " + std::to_string(master) : "") + ")";
}

/// Without identifications, and the IPv4 checksums that cover them.
std::string comparable(std::string frame) {
  static_cast<void>(test::frame_reader(frame).udp_port());
  return frame;
}

}  // namespace

std::string frame_disagreement(const mirror& state, const frame_question& asked,
                               std::uint32_t number, const frame_oracle::answer& kernel) {
  const auto& [of, via] = asked;
  if (kernel.error != 0) return "errno 0, the socket's " + std::to_string(kernel.error);
  const auto there = other_end(state, via.interface_index);
  const std::uint32_t where = there.value_or(via.interface_index);
  const auto is_there = [&](const auto& seen) {
    return seen.device == where && seen.leaving == !there.has_value();
  };
  const auto at = std::ranges::find_if(kernel.seen, is_there);
  if (at == kernel.seen.end()) {
    std::string elsewhere;
    for (const auto& seen : kernel.seen)
      elsewhere += (seen.leaving ? " " : " into ") + described(state, seen.device);
    return "device " + described(state, via.interface_index) + ", the socket's:" + elsewhere;
  }
  std::string theirs = at->frame;
  if (at->unfinished) complete_checksum(theirs, of.destination.family());
  const std::string ours = comparable(frame_of(via, of, number));
  theirs = comparable(theirs);
  if (ours == theirs) return {};
  return "frame " + test::hex(ours) + "\n     the socket's " + test::hex(theirs);
}

}  // namespace cowire::testing
