// SPDX-License-Identifier: Apache-2.0
/// What `cowire --version` says: what a report of a fault should begin with.
#pragma once

#include <string>

namespace cowire::cli {

/// "cowire 0.2.0", then the compiler and the libraries it was built with, libbpf as it is loaded,
/// and the kernel.
[[nodiscard]] std::string version_text();

}  // namespace cowire::cli
