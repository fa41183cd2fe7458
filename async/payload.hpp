// SPDX-License-Identifier: Apache-2.0
/// A lease on one frame: the place where a payload is written once, straight into the memory that
/// the NIC reads. For bytes that are somewhere already it saves nothing: the calls that take
/// datagram_bytes copy them once, too.
///
/// Got from sender::async_acquire() or sender::try_acquire(), given back by sending it or by
/// dropping it. Belongs to the producer that it came from: use, move and drop it only where calls
/// on that producer's senders are made (sender.hpp, "Threads"). An empty payload (default
/// constructed or moved from) has no bytes. In a child of fork() a payload made before has lost its
/// bytes: do not touch them (transmitter.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

namespace cowire {

namespace detail {
class producer;
}

class payload {
 public:
  payload() noexcept = default;
  payload(payload&& other) noexcept
      : owner_(std::move(other.owner_)),
        data_(std::exchange(other.data_, nullptr)),
        frame_(other.frame_),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  payload& operator=(payload&& other) noexcept {
    if (this != &other) {
      reset();
      owner_ = std::move(other.owner_);
      data_ = std::exchange(other.data_, nullptr);
      frame_ = other.frame_;
      size_ = std::exchange(other.size_, 0);
      capacity_ = std::exchange(other.capacity_, 0);
    }
    return *this;
  }
  payload(const payload&) = delete;
  payload& operator=(const payload&) = delete;
  ~payload() { reset(); }

  /// All the room there is, whatever size() says: write here, then resize().
  [[nodiscard]] std::span<std::byte> bytes() noexcept { return {data_, capacity_}; }
  /// What will be sent: the first size() bytes.
  [[nodiscard]] std::span<const std::byte> content() const noexcept { return {data_, size_}; }
  /// How many bytes will be sent; 0 at first, which is a valid datagram.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// bytes().size(): sender::payload_capacity().
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  /// At most capacity(); more is an assertion.
  void resize(std::size_t size) noexcept;
  /// Whether there is a frame.
  [[nodiscard]] explicit operator bool() const noexcept { return owner_ != nullptr; }
  /// Gives the frame back to its pool unsent.
  void reset() noexcept;

 private:
  friend class detail::producer;
  payload(std::shared_ptr<detail::producer> owner, std::uint32_t frame, std::byte* data,
          std::size_t capacity) noexcept
      : owner_(std::move(owner)),
        data_(data),
        frame_(frame),
        capacity_(static_cast<std::uint32_t>(capacity)) {}

  std::shared_ptr<detail::producer> owner_;
  std::byte* data_ = nullptr;
  std::uint32_t frame_ = 0;
  std::uint32_t size_ = 0;
  std::uint32_t capacity_ = 0;
};

}  // namespace cowire
