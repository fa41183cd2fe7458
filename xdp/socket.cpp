// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/socket.hpp>

#include <cowire/base/error.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/xdp/known_trouble.hpp>
#include <cowire/xdp/locked_memory.hpp>
#include <cowire/xdp/program.hpp>

#include <xdp/xsk.h>

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <thread>

#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9  // Linux 6.17.
#endif
#ifndef SO_PREFER_BUSY_POLL  // Linux 5.11.
#define SO_PREFER_BUSY_POLL 69
#define SO_BUSY_POLL_BUDGET 70
#endif

namespace cowire {
namespace {

static_assert(sizeof(tx_descriptor) == sizeof(xdp_desc) &&
              offsetof(tx_descriptor, length) == offsetof(xdp_desc, len) &&
              offsetof(tx_descriptor, options) == offsetof(xdp_desc, options));

constexpr send_mode ladder[] = {send_mode::zero_copy, send_mode::copy, send_mode::generic};

int kick_socket(void* context) noexcept {
  const int fd = *static_cast<const int*>(context);
  return ::sendto(fd, nullptr, 0, MSG_DONTWAIT, nullptr, 0) < 0 ? errno : 0;
}

/// Waits for what `test` says, looking every few milliseconds.
template <class Test>
[[nodiscard]] bool wait_until(std::chrono::milliseconds limit, Test test) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!test()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace

/// libxdp leaves the ring structs as they are where it fails early, and reads them in its clean-up:
/// hence `= {}`.
struct xdp_socket::impl {
  umem& memory;
  send_mode mode = send_mode::copy;
  std::uint32_t interface_index = 0;
  std::shared_ptr<xdp_pass_program> program;  ///< Of all sockets on the interface.
  std::optional<frame_slice> fill_slice;
  xsk_umem* registration = nullptr;
  xsk_socket* socket = nullptr;
  int socket_fd = -1;
  xsk_ring_prod fill = {};
  xsk_ring_cons completion = {};
  xsk_ring_prod tx = {};
  std::vector<std::string> refused_options;
  bool busy_polling = false;
  const detail::fork_mark born{};
  detail::kept_from_children socket_kept, registration_kept;

  explicit impl(umem& memory_) : memory(memory_) {}
  impl(const impl&) = delete;
  impl& operator=(const impl&) = delete;
  ~impl() { close(); }

  void close() noexcept {
    if (born.inherited()) return;
    socket_kept = {};
    registration_kept = {};
    if (socket != nullptr) ::xsk_socket__delete(socket);
    if (registration != nullptr) ::xsk_umem__delete(registration);
    socket = nullptr;
    registration = nullptr;
    fill = {};
    completion = {};
    tx = {};
    program.reset();
    if (fill_slice) memory.release_slice(*fill_slice);
    fill_slice.reset();
  }

  /// A queue is busy until the last reference to its socket is gone: children shall have none.
  void keep_from_children() {
    socket_kept = detail::kept_from_children(socket_fd);
    const int registration_fd = ::xsk_umem__fd(registration);
    if (registration_fd != socket_fd)
      registration_kept = detail::kept_from_children(registration_fd);
    keep_from_children(tx, sizeof(xdp_desc));
    keep_from_children(fill, sizeof(std::uint64_t));
    keep_from_children(completion, sizeof(std::uint64_t));
  }

 private:
  /// The pages that libxdp mapped: its indices come first, the elements last (xsk_mmap_offsets).
  template <class Ring>
  static void keep_from_children(const Ring& ring, std::size_t element_bytes) noexcept {
    if (ring.ring == nullptr) return;
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = reinterpret_cast<std::uintptr_t>(ring.producer) / page * page;
    const auto end = reinterpret_cast<std::uintptr_t>(ring.ring) + ring.size * element_bytes;
    ::madvise(reinterpret_cast<void*>(begin), (end - begin + page - 1) / page * page,
              MADV_DONTFORK);
  }
};

/// One attempt after the other to open a socket on a device.
class socket_ladder {
 public:
  socket_ladder(umem& memory, const device_facts& device, const socket_options& options)
      : memory_(memory), device_(device), options_(options) {}

  /// "" and a socket in `out`, or the reason against this rung, of which kind() then is.
  [[nodiscard]] std::string try_rung(send_mode mode, std::unique_ptr<xdp_socket>& out) {
    kind_ = obstacle::device;
    if (std::string reason = reason_against(mode); !reason.empty()) return reason;
    auto attempt = std::make_unique<impl>(memory_);
    attempt->mode = mode;
    attempt->interface_index = device_.index;
    if (mode == send_mode::zero_copy) {
      if (std::string reason = attach_program(*attempt); !reason.empty()) return reason;
    }
    std::string reason = bind_patiently(*attempt);
    if (reason.empty()) attempt->keep_from_children();
    if (reason.empty()) out.reset(new xdp_socket(std::move(attempt)));
    return reason;
  }
  [[nodiscard]] obstacle kind() const noexcept { return kind_; }

 private:
  using impl = xdp_socket::impl;

  /// What can be said without trying. Where the ladder was not asked for, everything is tried but
  /// the impossible.
  [[nodiscard]] std::string reason_against(send_mode mode) {
    if (!device_.ethernet) return device_.name + " is not an Ethernet device";
    if (!device_.up)
      return because(obstacle::passing,
                     device_.name + " is down: ip link set " + device_.name + " up");
    if (options_.queue >= device_.queues.tx)
      return because(obstacle::passing,
                     device_.name + " has no transmit queue " + std::to_string(options_.queue) +
                         ", only " + std::to_string(device_.queues.tx) +
                         " from 0 on: " + more_queues(device_, options_.queue + 1));
    if (options_.mode) return {};
    if (std::string trouble = trouble_to_avoid(device_, mode); !trouble.empty()) return trouble;
    if (!device_.features) return {};
    if (mode == send_mode::zero_copy && !device_.features->zero_copy)
      return "driver " + device_.driver + " does not offer AF_XDP zero-copy";
    if (mode == send_mode::copy && !device_.features->native)
      return "driver " + device_.driver + " does not run XDP programs itself";
    return {};
  }

  /// Some NICs make their XDP transmit queues when a program is attached, and lose the carrier
  /// while they do.
  [[nodiscard]] std::string attach_program(impl& s) {
    if (options_.sibling != nullptr) {
      s.program = options_.sibling->impl_->program;
      return {};
    }
    if (device_.attached != xdp_attachment::none)
      return because(obstacle::passing, "program " + std::to_string(device_.program_id) +
                                            " of somebody else is attached to " + device_.name);
    std::error_code ec;
    s.program = std::make_shared<xdp_pass_program>(device_.index, xdp_program_mode::native, ec);
    if (ec)
      return because(ec == std::errc::device_or_resource_busy ? obstacle::passing : obstacle::host,
                     "cannot attach a native XDP program: " + ec.message());
    const bool had_carrier = device_.carrier;
    if (had_carrier && !wait_until(options_.carrier_deadline, [&] {
          std::error_code gone;
          return read_device(device_.name, gone).carrier || gone;
        }))
      return because(obstacle::host,
                     "the carrier did not come back after the XDP program was attached");
    return {};
  }

  /// A queue stays busy for a while after its last socket was closed.
  [[nodiscard]] std::string bind_patiently(impl& s) {
    int failure = 0;
    std::string operation;
    static_cast<void>(wait_until(options_.busy_deadline, [&] {
      failure = bind_once(s, operation);
      return failure != EBUSY;
    }));
    if (failure == 0) return {};
    std::string reason = operation + ": " + errno_name(failure);
    if (failure == EBUSY)
      reason += ", queue " + std::to_string(options_.queue) + " belongs to another AF_XDP socket";
    if (failure == EPERM) reason += ", needs CAP_NET_RAW";
    if (failure == ENOBUFS)
      reason += ", the limit of locked memory is " + read_locked_memory().to_string() + " and " +
                std::to_string(memory_.size() >> 10) +
                " KiB more are needed for each socket: " + locked_memory_remedy(memory_.size());
    if (failure == EOPNOTSUPP) reason += ", not offered by driver " + device_.driver;
    return because(failure == EBUSY        ? obstacle::passing
                   : failure == EOPNOTSUPP ? obstacle::device
                                           : obstacle::host,
                   std::move(reason));
  }

  [[nodiscard]] std::string because(obstacle kind, std::string reason) {
    kind_ = kind;
    return reason;
  }

  /// 0 or an errno, with the name of what failed.
  [[nodiscard]] int bind_once(impl& s, std::string& operation) const {
    const std::uint32_t fill_count = s.mode == send_mode::zero_copy ? wanted_fill_frames() : 0;
    const std::uint32_t tx_size = std::bit_ceil(std::clamp(options_.tx_ring_size, 64u, 1u << 16));
    operation = "register the umem";
    xsk_umem_config umem_config{};
    umem_config.fill_size = std::bit_ceil(std::max(fill_count, 64u));
    umem_config.comp_size = tx_size * 2;
    umem_config.frame_size = memory_.memory().frame_size;
    int failure = -::xsk_umem__create(&s.registration, memory_.memory().base, memory_.size(),
                                      &s.fill, &s.completion, &umem_config);
    if (failure == 0 && fill_count != 0) failure = give_fill_frames(s, fill_count, operation);
    if (failure == 0) {
      operation = "bind queue " + std::to_string(options_.queue);
      xsk_socket_config config{};
      config.tx_size = tx_size;
      config.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
      config.bind_flags = static_cast<std::uint16_t>(
          XDP_USE_NEED_WAKEUP | (s.mode == send_mode::zero_copy ? XDP_ZEROCOPY : XDP_COPY));
      failure = -::xsk_socket__create(&s.socket, device_.name.c_str(), options_.queue,
                                      s.registration, nullptr, &s.tx, &config);
    }
    if (failure != 0) {
      forget_attempt(s);
      return failure;
    }
    s.socket_fd = ::xsk_socket__fd(s.socket);
    if (s.mode == send_mode::zero_copy)
      ask_for_busy_polling(s);
    else  // One kick then sends a whole ring, not 32 frames.
      static_cast<void>(set_option(s, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, tx_size,
                                   "XDP_MAX_TX_SKB_BUDGET (Linux 6.17)"));
    return 0;
  }

  /// In copy mode the kernel sends within the kick anyhow.
  void ask_for_busy_polling(impl& s) const {
    if (options_.busy_poll.count() == 0) return;
    if (polled_apart(device_.index, options_.queue)) {
      s.refused_options.push_back("busy polling: driver " + device_.driver +
                                  " polls transmission apart from reception");
      return;
    }
    s.busy_polling =
        set_option(s, SOL_SOCKET, SO_PREFER_BUSY_POLL, 1, "SO_PREFER_BUSY_POLL") &&
        set_option(s, SOL_SOCKET, SO_BUSY_POLL,
                   static_cast<std::uint32_t>(options_.busy_poll.count()), "SO_BUSY_POLL") &&
        set_option(s, SOL_SOCKET, SO_BUSY_POLL_BUDGET, options_.busy_poll_budget,
                   "SO_BUSY_POLL_BUDGET");
  }

  /// Whether the kernel took it. What it refuses is noted: it costs speed, not datagrams.
  static bool set_option(impl& s, int level, int option, std::uint32_t number, const char* name) {
    const int value = static_cast<int>(number);
    if (::setsockopt(s.socket_fd, level, option, &value, sizeof value) == 0) return true;
    s.refused_options.push_back(std::string(name) + ": " + errno_name(errno));
    return false;
  }

  /// Everything but the program, which is worth keeping for the next attempt.
  static void forget_attempt(impl& s) noexcept {
    std::shared_ptr<xdp_pass_program> program = std::move(s.program);
    s.close();
    s.program = std::move(program);
  }

  [[nodiscard]] std::uint32_t wanted_fill_frames() const noexcept {
    if (options_.fill_frames != 0) return options_.fill_frames;
    const std::uint32_t ring = device_.rings.rx == 0 ? 512 : device_.rings.rx;
    return std::clamp(ring * 2, 64u, 8192u);
  }

  /// Before bind: drivers take their receive buffers from the ring while they bind.
  [[nodiscard]] int give_fill_frames(impl& s, std::uint32_t count, std::string& operation) const {
    operation = "take " + std::to_string(count) + " frames for the fill ring from the umem";
    s.fill_slice = memory_.allocate_slice(count);
    if (!s.fill_slice) return ENOMEM;
    std::uint32_t first = 0;
    const std::uint32_t reserved = ::xsk_ring_prod__reserve(&s.fill, count, &first);
    COWIRE_ASSERT(reserved == count);
    for (std::uint32_t i = 0; i < count; ++i) {
      *::xsk_ring_prod__fill_addr(&s.fill, first + i) =
          std::uint64_t{s.fill_slice->first + i} * memory_.memory().frame_size;
    }
    ::xsk_ring_prod__submit(&s.fill, count);
    return 0;
  }

  umem& memory_;
  const device_facts& device_;
  const socket_options& options_;
  obstacle kind_ = obstacle::device;
};

xdp_socket::xdp_socket(std::unique_ptr<impl> opened) : impl_(std::move(opened)) {}
xdp_socket::~xdp_socket() = default;

send_mode xdp_socket::mode() const noexcept { return impl_->mode; }
std::uint32_t xdp_socket::interface_index() const noexcept { return impl_->interface_index; }
int xdp_socket::fd() const noexcept { return impl_->socket_fd; }
bool xdp_socket::busy_polling() const noexcept { return impl_->busy_polling; }
std::span<const std::string> xdp_socket::refused_options() const noexcept {
  return impl_->refused_options;
}

tx_queue xdp_socket::queue() const noexcept {
  const impl& s = *impl_;
  tx_queue view;
  view.producer = s.tx.producer;
  view.consumer = s.tx.consumer;
  view.flags = s.tx.flags;
  view.descriptors = static_cast<tx_descriptor*>(s.tx.ring);
  view.size = s.tx.size;
  view.completion_producer = s.completion.producer;
  view.completion_consumer = s.completion.consumer;
  view.completions = static_cast<std::uint64_t*>(s.completion.ring);
  view.completion_size = s.completion.size;
  view.busy_polled = s.busy_polling;
  view.copies = s.mode != send_mode::zero_copy;
  view.kick = kick_socket;
  view.kick_context = &impl_->socket_fd;
  return view;
}

std::string opened_egress::explain() const {
  std::string text(name(mode));
  for (const rejected_mode& no : rejected) {
    text += "; not ";
    text += name(no.mode);
    text += ": " + no.reason;
  }
  return text;
}

opened_egress open_egress(umem& memory, const device_facts& device, const socket_options& options) {
  opened_egress result;
  socket_ladder attempts(memory, device, options);
  for (const send_mode mode : ladder) {
    if (options.mode && *options.mode != mode) continue;
    std::string reason = attempts.try_rung(mode, result.socket);
    if (reason.empty()) {
      result.mode = mode;
      return result;
    }
    result.rejected.push_back({mode, std::move(reason), attempts.kind()});
  }
  return result;
}

}  // namespace cowire
