// SPDX-License-Identifier: Apache-2.0
/// A Unix datagram socket with a name in the file system, and that name: made, and removed again.
///
/// Nothing is ever removed that is not a socket, that somebody serves, or (at the end) that is not
/// this very socket: a name is first moved aside within its directory, looked at there, and put
/// back if it has become somebody else's meanwhile.
#pragma once

#include <cowire/base/forked.hpp>
#include <cowire/base/unique_fd.hpp>

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace cowire::detail {

class served_path {
 public:
  /// Binds; the file has mode 0660 whatever the umask, and the group (gid) given, and each message
  /// comes with its sender's credentials (SO_PASSCRED, unix(7)). A socket file that nobody serves
  /// is replaced. Throws std::system_error naming the path: EEXIST (something else has the name),
  /// EADDRINUSE (another process serves it), EPERM (the group), error::invalid_argument (its
  /// length, or no name of a file in it), other errno.
  explicit served_path(std::string path, std::optional<std::uint32_t> group = std::nullopt);
  served_path(const served_path&) = delete;
  served_path& operator=(const served_path&) = delete;
  /// Removes the name if it still is this socket's.
  ~served_path();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  [[nodiscard]] bool bind();
  void remove_stale();
  void note_own(std::optional<std::uint32_t> group);
  [[nodiscard]] unique_fd own_file() const;
  [[nodiscard]] bool is_own(const std::string& name) const;

  const std::string path_;
  parents_fd fd_;
  unique_fd directory_;
  std::string name_;  ///< Within the directory.
  dev_t device_ = 0;
  ino_t number_ = 0;  ///< Cannot be another file's: the bound socket keeps its inode.
};

}  // namespace cowire::detail
