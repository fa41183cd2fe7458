// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/version.hpp>

#define COWIRE_TEXT_OF(number) #number
#define COWIRE_TEXT(number) COWIRE_TEXT_OF(number)

namespace cowire {

std::string_view version() noexcept {
  return COWIRE_TEXT(COWIRE_VERSION_MAJOR) "." COWIRE_TEXT(COWIRE_VERSION_MINOR) "." COWIRE_TEXT(
      COWIRE_VERSION_PATCH);
}

}  // namespace cowire
