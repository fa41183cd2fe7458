// SPDX-License-Identifier: Apache-2.0
/// Files of /proc, told from what containers put in their place.
#pragma once

#include <cowire/route/output_path.hpp>

#include <string>
#include <vector>

namespace cowire::detail {

/// Neither `exists` nor `unreadable_because`: the kernel has no such file.
struct proc_file {
  bool exists = false;
  std::vector<std::string> lines;  ///< But the empty ones.
  unreadable unreadable_because;
};

/// What the calling thread's part of /proc says. Any thread.
[[nodiscard]] proc_file read_proc(const std::string& name);

}  // namespace cowire::detail
