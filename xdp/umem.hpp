// SPDX-License-Identifier: Apache-2.0
/// The memory that all frames live in: one mapping, shared by every producer and every AF_XDP
/// socket.
///
///     frame:  | header_capacity bytes, written by the TX core | payload, written by the producer |
///             ^ index * frame_size                            ^ + payload_offset
///
/// A umem owns the mapping and says which slices of it are lent to whom; what happens inside a
/// slice is the borrower's business (frame_pool for producers, the fill ring for sockets). Mapped
/// from 2 MiB huge pages where the system has them, because a TLB miss per frame costs more than
/// the header; from ordinary pages otherwise, and pages_reason() says why.
///
/// Threads: slices are lent and taken back by the control thread only. frame_memory is a plain
/// value that any thread may copy and use while the umem lives.
#pragma once

#include <cowire/base/assert.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/xdp/tx_request.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace cowire {

/// Where the payload starts in every frame: behind the headers, on a cache line of its own.
inline constexpr std::size_t payload_offset = (header_capacity + 63) / 64 * 64;

/// Slices are lent in units of this many frames, so that one small table leads from a frame to its
/// channel.
inline constexpr std::uint32_t slice_granularity = 64;

/// Where the frames are. Does not own them.
struct frame_memory {
  std::byte* base = nullptr;
  std::uint32_t frame_size = 0;
  std::uint32_t frame_count = 0;

  [[nodiscard]] std::byte* payload(frame_index frame) const noexcept {
    return base + std::size_t{frame} * frame_size + payload_offset;
  }
  /// Address of a frame's payload as AF_XDP counts it, from the start of the memory.
  [[nodiscard]] std::uint64_t payload_address(frame_index frame) const noexcept {
    return std::uint64_t{frame} * frame_size + payload_offset;
  }
  /// The frame that a descriptor address lies in.
  [[nodiscard]] frame_index frame_at(std::uint64_t address) const noexcept {
    return static_cast<frame_index>(address >> __builtin_ctz(frame_size));
  }
  /// Longest payload in bytes.
  [[nodiscard]] std::size_t payload_capacity() const noexcept {
    return frame_size - payload_offset;
  }
};

/// A range of frames, lent as a whole. `first` and `count` are multiples of slice_granularity.
struct frame_slice {
  frame_index first = 0;
  std::uint32_t count = 0;
};

enum class page_kind : std::uint8_t { ordinary, huge_2mib };

struct umem_options {
  std::uint32_t frame_size = 2048;    ///< 2048 or 4096 bytes: what AF_XDP accepts on every driver.
  std::uint32_t frame_count = 16384;  ///< Rounded up to whole huge pages.
  bool huge_pages = true;             ///< Try 2 MiB pages first.
};

class umem {
 public:
  /// Maps and touches the memory. Throws std::system_error: invalid_argument for a frame size or
  /// count out of range, or what mmap answered for ordinary pages.
  explicit umem(const umem_options& options);
  /// The same; on failure `ec` is set and the object may only be destroyed.
  umem(const umem_options& options, std::error_code& ec);
  umem(const umem&) = delete;
  umem& operator=(const umem&) = delete;
  /// Every socket on it must be closed before. A child of fork() has none of the content: its copy
  /// of ordinary pages is zero, huge pages it does not have at all. Nothing is copied for it, and
  /// pages that a device reads from stay the parent's.
  ~umem();

  [[nodiscard]] const frame_memory& memory() const noexcept { return memory_; }
  /// Bytes mapped.
  [[nodiscard]] std::size_t size() const noexcept {
    return std::size_t{memory_.frame_size} * memory_.frame_count;
  }
  [[nodiscard]] page_kind pages() const noexcept { return pages_; }
  /// Why it is not huge pages, with the remedy; empty if it is.
  [[nodiscard]] const std::string& pages_reason() const noexcept { return pages_reason_; }

  /// Lends at least `count` frames (rounded up to slice_granularity), the first range that is large
  /// enough; nullopt if there is none. `count` is not 0.
  [[nodiscard]] std::optional<frame_slice> allocate_slice(std::uint32_t count);
  /// Takes a slice back. Nobody may hold a frame of it any more; asserted to be lent.
  void release_slice(const frame_slice& slice);
  /// Frames that are not lent now.
  [[nodiscard]] std::uint32_t free_frames() const noexcept;

 private:
  [[nodiscard]] std::error_code map(const umem_options& options);

  const detail::fork_mark born_;
  frame_memory memory_;
  page_kind pages_ = page_kind::ordinary;
  std::string pages_reason_;
  std::vector<bool> lent_;  ///< One bit for each slice_granularity frames.
};

}  // namespace cowire
