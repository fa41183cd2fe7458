// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/detail/class_set.hpp>

#include <algorithm>
#include <utility>

namespace cowire::detail {

void class_tries::assign(const ip_prefix& prefix, path_list_id value) {
  if (prefix.family() == ip_family::v4)
    v4.assign(to_key4(prefix.address()), prefix.length(), value);
  else
    v6.assign(to_key6(prefix.address()), prefix.length(), value);
}

void class_tries::erase(const ip_prefix& prefix) {
  if (prefix.family() == ip_family::v4)
    v4.erase(to_key4(prefix.address()), prefix.length());
  else
    v6.erase(to_key6(prefix.address()), prefix.length());
}

class_set::added class_set::add(const flow_class& cls, bool assigned) {
  const auto known = std::ranges::find(classes_, cls);
  if (known != classes_.end()) {
    const auto id = static_cast<flow_class_id>(known - classes_.begin());
    ++class_uses_[id];
    return {id, added::outcome::known};
  }
  const auto alike = std::ranges::find_if(classes_, [&](const flow_class& other) {
    return distinguished(other) == distinguished(cls);
  });
  const bool shares = assigned && alike != classes_.end();
  const std::uint16_t shared =
      shares ? class_index_[static_cast<std::size_t>(alike - classes_.begin())] : std::uint16_t{0};
  const auto id =
      static_cast<std::size_t>(std::ranges::find(class_uses_, 0u) - class_uses_.begin());
  if (id == classes_.size()) {
    COWIRE_ASSERT(classes_.size() < flow_classes_max);
    classes_.emplace_back();
    class_uses_.push_back(0);
    if (shares) class_index_.push_back(0);
  }
  classes_[id] = cls;
  class_uses_[id] = 1;
  if (shares) class_index_[id] = shared;
  return {static_cast<flow_class_id>(id), shares ? added::outcome::shared : added::outcome::apart};
}

/// What was built for it stays until another class takes its place, or everything is built anew.
void class_set::release(flow_class_id id) {
  COWIRE_ASSERT(id < class_uses_.size() && class_uses_[id] != 0);
  --class_uses_[id];
}

/// The class without what no rule looks at.
flow_class class_set::distinguished(const flow_class& cls) const {
  if (output_.has_something_to_say()) return cls;  // Firewalls look at anything.
  flow_class plain = cls;
  plain.mark = 0;
  plain.uid = 0;
  plain.source_port = 0;
  plain.ip_protocol = 0;
  for (const ip_family family : ip_families) {
    for (const netlink::rule& rule : state_.rules(family)) {
      if (rule.mark_mask != 0) plain.mark = cls.mark;
      if (rule.uid) plain.uid = cls.uid;
      if (rule.source_port) plain.source_port = cls.source_port;
      if (rule.ip_protocol != 0) plain.ip_protocol = cls.ip_protocol;
    }
  }
  return plain;
}

void class_set::assign() {
  std::vector<table> before = std::exchange(class_tables_, {});
  std::vector<flow_class> keys;
  class_index_.clear();
  any_output_interface_ = false;
  for (const flow_class& cls : classes_) {
    any_output_interface_ |= cls.output_interface != 0 || cls.multicast_interface != 0;
    const flow_class key = distinguished(cls);
    const auto known = std::ranges::find(keys, key);
    class_index_.push_back(static_cast<std::uint16_t>(known - keys.begin()));
    if (known != keys.end()) continue;
    keys.push_back(key);
    class_tables_.push_back({cls, std::make_unique<class_tries>()});
  }
  for (table& one : before) retired_tries_.push_back(std::move(one.tries));
}

bool class_set::is_current() const {
  for (std::size_t i = 0; i < classes_.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if ((class_index_[i] == class_index_[j]) !=
          (distinguished(classes_[i]) == distinguished(classes_[j])))
        return false;
  return true;
}

}  // namespace cowire::detail
