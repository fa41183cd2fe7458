// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/chosen_classes.hpp>

#include <cstring>

namespace cowire::detail {

std::size_t chosen_classes::place_of(const combination& what) noexcept {
  std::uint64_t mixed = std::uint64_t{what.mark.value_or(0)} << 32 | std::uint64_t{what.ttl} << 16 |
                        std::uint64_t{what.dscp.value_or(0xff)} << 8 |
                        static_cast<std::uint64_t>(what.family);
  if (what.source) {
    std::uint64_t words[2];
    std::memcpy(words, what.source->bytes().data(), sizeof words);
    mixed = (mixed ^ words[0]) * 0x9e3779b97f4a7c15u ^ words[1];
  }
  return static_cast<std::size_t>(mixed * 0xd6e8feb86659fd93u >> 32) % places;
}

chosen_classes::combination chosen_classes::combination_of(ip_family family,
                                                           const datagram_options& options) {
  combination what{family, options.ttl, options.dscp, options.mark, options.source};
  if (what.source) what.source = what.source->unmapped();
  return what;
}

chosen_classes::found chosen_classes::find(ip_family family, const datagram_options& options) {
  const combination what = combination_of(family, options);
  if (!all_) all_ = std::make_unique<entry[]>(chosen_classes_max);
  std::size_t place = place_of(what);
  for (; at_[place] != 0; place = (place + 1) % places) {
    const std::size_t number = at_[place] - 1u;
    const entry& known = all_[number];
    // Pairs with the release in publish(): the class is in the table.
    if (known.what == what) return {known.id.load(std::memory_order_acquire), number};
  }
  if (count_ == chosen_classes_max) return {class_limit_class};
  all_[count_].what = what;
  at_[place] = static_cast<std::uint8_t>(count_ + 1);
  return {new_class, count_++, true};
}

flow_class chosen_classes::class_of(const combination& what) const {
  flow_class cls = own_[static_cast<std::size_t>(what.family)];
  if (what.source) {
    (what.family == ip_family::v4 ? cls.source_v4 : cls.source_v6) = what.source;
    cls.source_is_asked_for = what.family == ip_family::v6;
  }
  if (what.dscp) cls.tos = static_cast<std::uint8_t>(*what.dscp << 2 | (cls.tos & 3));
  if (what.ttl != 0) cls.ttl = cls.multicast_ttl = what.ttl;
  if (what.mark) cls.mark = *what.mark;
  return cls;
}

}  // namespace cowire::detail
