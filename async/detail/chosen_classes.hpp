// SPDX-License-Identifier: Apache-2.0
/// The flow classes of those datagrams of a sender that chose a source, DSCP, TTL or mark of their
/// own (datagram_options.hpp).
///
/// The producer's thread looks a combination up, and has the control thread compile those it has
/// not seen. Until the class is in a published table its number stands for "new": the release in
/// publish(), which comes after the table, pairs with the acquire in find(), so a request of a
/// class never meets a table without it. Nothing is forgotten as long as the sender lives.
#pragma once

#include <cowire/async/datagram_options.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/xdp/tx_request.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace cowire::detail {

class chosen_classes {
 public:
  /// `own`: the sender's classes by ip_family.
  explicit chosen_classes(const std::array<flow_class, 2>& own) : own_(own) {}

  struct found {
    flow_class_id id;                     ///< Or what stands for one (tx_request.hpp).
    std::optional<std::size_t> number{};  ///< The combination's; unset = there is no room.
    bool fresh = false;                   ///< It is new, and to be compiled.
  };
  /// Producer's thread. The first call allocates. chooses_class() is true.
  [[nodiscard]] found find(ip_family family, const datagram_options& options);

  /// Any thread: the class of datagrams with these options.
  [[nodiscard]] flow_class class_with(ip_family family, const datagram_options& options) const {
    return class_of(combination_of(family, options));
  }

  // Control thread. -------------------------------------------------------------------------------

  /// The class of a combination.
  [[nodiscard]] flow_class class_of(std::size_t number) const {
    return class_of(all_[number].what);
  }
  [[nodiscard]] flow_class_id id_of(std::size_t number) const noexcept {
    return all_[number].id.load(std::memory_order_relaxed);  // Written by this thread.
  }
  /// It is never compiled: the kernel refuses each datagram.
  void refuse(std::size_t number) noexcept { all_[number].refused = true; }
  [[nodiscard]] bool is_refused(std::size_t number) const noexcept { return all_[number].refused; }
  [[nodiscard]] bool has_mark(std::size_t number) const {
    return all_[number].what.mark.has_value();
  }
  /// From now on find() gives this.
  void publish(std::size_t number, flow_class_id id) noexcept {
    all_[number].id.store(id, std::memory_order_release);
  }
  /// Calls `with` for the number of each class that was published. When nobody calls find() any
  /// more.
  template <class With>
  void for_each(With&& with) const {
    for (std::size_t i = 0; i < count_; ++i)
      if (const auto id = all_[i].id.load(std::memory_order_relaxed); id < first_without_table)
        with(id);
  }

 private:
  struct combination {
    ip_family family = ip_family::v4;
    std::uint8_t ttl = 0;
    std::optional<std::uint8_t> dscp{};
    std::optional<std::uint32_t> mark{};
    std::optional<ip_address> source{};
    friend bool operator==(const combination&, const combination&) noexcept = default;
  };
  struct entry {
    combination what;
    std::atomic<flow_class_id> id{new_class};
    bool refused = false;  ///< The control thread's.
  };
  static constexpr std::size_t places = 2 * chosen_classes_max;
  [[nodiscard]] static combination combination_of(ip_family family,
                                                  const datagram_options& options);
  [[nodiscard]] flow_class class_of(const combination& what) const;
  [[nodiscard]] static std::size_t place_of(const combination& what) noexcept;

  const std::array<flow_class, 2> own_;
  std::unique_ptr<entry[]> all_;
  std::size_t count_ = 0;
  std::array<std::uint8_t, places> at_{};  ///< By place: 1 + the number; 0 = none.
};

}  // namespace cowire::detail
