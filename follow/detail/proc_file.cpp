// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/follow/detail/proc_file.hpp>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <sstream>

namespace cowire::detail {
namespace {

/// A file system of its own kind tells what the kernel knows: neither an empty folder where /proc
/// should be mounted, nor what a container has put in place of a file.
bool is_proc(int error, const struct statfs& where) {
  return error == 0 && where.f_type == PROC_SUPER_MAGIC;
}

}  // namespace

proc_file read_proc(const std::string& name) {
  const std::string path = "/proc/thread-self/" + name;
  proc_file out;
  struct statfs where {};
  const auto fails = [&](const std::string& why) { out.unreadable_because = path + ": " + why; };
  const unique_fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd && errno != ENOENT) {
    fails(errno_code(errno).message());
  } else if (!fd) {
    const int error = ::statfs("/proc/thread-self", &where);
    if (!is_proc(error, where)) fails("no proc file system is mounted");
  } else if (const int error = ::fstatfs(fd.get(), &where); !is_proc(error, where)) {
    fails("it is not the kernel's own file");
  } else {
    out.exists = true;
    std::string text;
    char part[4096];
    ssize_t size = 0;
    while ((size = ::read(fd.get(), part, sizeof part)) > 0)
      text.append(part, static_cast<std::size_t>(size));
    if (size < 0) fails(errno_code(errno).message());
    std::istringstream rest(text);
    for (std::string line; std::getline(rest, line);)
      if (!line.empty()) out.lines.push_back(line);
  }
  return out;
}

}  // namespace cowire::detail
