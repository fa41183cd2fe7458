// SPDX-License-Identifier: Apache-2.0
/// Which version of cowire this is: the one home of the number, which the build reads from here.
///
/// Semantic versioning (https://semver.org); before 1.0 a minor version may break its users. Only
/// the C interface has a stable ABI (docs/versions.md).
#pragma once

#include <string_view>

/// Of the headers (docs/versions.md says what each promises).
#define COWIRE_VERSION_MAJOR 0
/// As COWIRE_VERSION_MAJOR.
#define COWIRE_VERSION_MINOR 2
/// As COWIRE_VERSION_MAJOR.
#define COWIRE_VERSION_PATCH 0

/// For comparisons by the preprocessor: 10000 * major + 100 * minor + patch.
#define COWIRE_VERSION \
  (COWIRE_VERSION_MAJOR * 10000 + COWIRE_VERSION_MINOR * 100 + COWIRE_VERSION_PATCH)

namespace cowire {

/// "0.2.0": the version of the library that the program is linked with. It may differ from
/// COWIRE_VERSION, that of the headers; then the program must be compiled again. Valid for ever;
/// any thread.
[[nodiscard]] std::string_view version() noexcept;

}  // namespace cowire
