// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/reason.hpp>

#include <cowire/base/assert.hpp>

namespace cowire {
namespace {

struct entry {
  std::string_view name, text;
};

constexpr entry entries[] = {
#define COWIRE_X(identifier, text) {#identifier, text},
    COWIRE_DIVERT_REASONS(COWIRE_X)
#undef COWIRE_X
};

const entry& at(divert_reason reason) noexcept {
  const auto index = static_cast<std::size_t>(reason);
  COWIRE_ASSERT(index < divert_reason_count);
  return entries[index];
}

}  // namespace

std::string_view name(divert_reason reason) noexcept { return at(reason).name; }
std::string_view describe(divert_reason reason) noexcept { return at(reason).text; }

bool is_transient(divert_reason reason) noexcept {
  switch (reason) {
    case divert_reason::neighbour_unresolved:
    case divert_reason::new_flow_class:
    case divert_reason::no_table:
    case divert_reason::bond_unsettled:
    case divert_reason::resilient_group:
      return true;
    default:
      return false;
  }
}

}  // namespace cowire
