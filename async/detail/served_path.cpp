// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/served_path.hpp>
#include <cowire/base/error.hpp>

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace cowire::detail {
namespace {

constexpr mode_t mode = 0660;
/// SIOCUNIXFILE of linux/un.h, which sys/un.h does not go with.
constexpr unsigned long file_of_socket = SIOCPROTOPRIVATE;

[[noreturn]] void fail(int number, const std::string& what) {
  throw_error(errno_code(number), "intake socket " + what);
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    throw_error(error::invalid_argument, "intake socket " + path + ": the path must have 1 to " +
                                             std::to_string(sizeof address.sun_path - 1) +
                                             " bytes");
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

/// A name in an open directory as one path, which a socket address has room for.
std::string through(int directory, const std::string& name) {
  return "/proc/self/fd/" + std::to_string(directory) + "/" + name;
}

/// 0 if somebody serves it, ECONNREFUSED if nobody does, or why that cannot be told.
int probe(int directory, const std::string& name) {
  const unique_fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return errno;
  const auto to = address_of(through(directory, name));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) return 0;
  return errno == EPROTOTYPE ? 0 : errno;  // A stream socket, say, is served.
}

int move(int directory, const std::string& from, const std::string& to) {
  const auto done =
      ::syscall(SYS_renameat2, directory, from.c_str(), directory, to.c_str(), RENAME_NOREPLACE);
  return done == 0 ? 0 : errno;
}

/// Removes a name if `is_wanted(name)`, asked when nobody else can give the name another meaning
/// any more. 0, EBUSY if it was not wanted (it is back then), or an errno.
template <class Check>
int remove_if(int directory, const std::string& name, Check is_wanted) {
  static std::atomic<unsigned> counter{0};
  const std::string aside =
      ".cowire-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
  if (const int number = move(directory, name, aside)) return number;
  if (is_wanted(aside)) return ::unlinkat(directory, aside.c_str(), 0) == 0 ? 0 : errno;
  const int number = move(directory, aside, name);
  return number != 0 ? number : EBUSY;
}

const char* kind_of(mode_t type) {
  if (S_ISREG(type)) return "a regular file";
  if (S_ISLNK(type)) return "a symbolic link";
  if (S_ISDIR(type)) return "a directory";
  return "not a socket";
}

}  // namespace

served_path::served_path(std::string path, std::optional<std::uint32_t> group)
    : path_(std::move(path)),
      fd_(unique_fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0))) {
  static_cast<void>(address_of(path_));
  if (!fd_) fail(errno, path_);
  const int yes = 1;
  if (::setsockopt(fd_.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) != 0)
    fail(errno, path_ + ": SO_PASSCRED");
  const std::filesystem::path whole(path_);
  name_ = whole.filename();
  if (name_.empty() || name_ == "." || name_ == "..")
    throw_error(error::invalid_argument,
                "intake socket " + path_ + ": that is a directory; name a file in it");
  const std::string parent = whole.has_parent_path() ? whole.parent_path().string() : ".";
  directory_.reset(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory_) fail(errno, path_);
  ::fchmod(fd_.get(), mode);  // The file never has more than this, and less by the umask.
  if (!bind()) {
    if (errno != EADDRINUSE) fail(errno, path_);
    remove_stale();
    if (!bind()) fail(errno, path_ + ": taken by another process just now");
  }
  note_own(group);
}

served_path::~served_path() {
  const auto own = [this](const std::string& name) { return is_own(name); };
  if (is_own(name_)) static_cast<void>(remove_if(directory_.get(), name_, own));
}

bool served_path::is_own(const std::string& name) const {
  struct stat now {};
  return ::fstatat(directory_.get(), name.c_str(), &now, AT_SYMLINK_NOFOLLOW) == 0 &&
         now.st_dev == device_ && now.st_ino == number_;
}

bool served_path::bind() {
  const auto address = address_of(path_);
  return ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

void served_path::remove_stale() {
  struct stat there {};
  if (::fstatat(directory_.get(), name_.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return;  // Gone meanwhile.
    fail(errno, path_);
  }
  if (!S_ISSOCK(there.st_mode))
    fail(EEXIST, path_ + " is " + kind_of(there.st_mode) +
                     ", which is left alone; give another path, or remove it");
  const int number = probe(directory_.get(), name_);
  if (number == 0) fail(EADDRINUSE, path_ + " is served by another process");
  if (number == ENOENT) return;
  if (number != ECONNREFUSED) fail(number, path_ + " exists, and whether it is served is unknown");
  const int removed = remove_if(directory_.get(), name_, [this](const std::string& aside) {
    return probe(directory_.get(), aside) == ECONNREFUSED;
  });
  if (removed == EBUSY) fail(EADDRINUSE, path_ + ": taken by another process just now");
  if (removed != 0 && removed != ENOENT) fail(removed, path_ + ": replacing what nobody serves");
}

/// Nobody may lead the change of mode elsewhere: a descriptor is the same file for all calls.
unique_fd served_path::own_file() const {
  // The socket's own, whatever has the name meanwhile; that takes CAP_NET_ADMIN.
  unique_fd file(::ioctl(fd_.get(), file_of_socket));
  if (!file) file.reset(::openat(directory_.get(), name_.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  return file;
}

void served_path::note_own(std::optional<std::uint32_t> group) {
  const unique_fd file = own_file();
  struct stat own {};
  if (!file || ::fstat(file.get(), &own) != 0 || !S_ISSOCK(own.st_mode))
    fail(EBUSY, path_ + ": taken by another process just now");
  device_ = own.st_dev;
  number_ = own.st_ino;
  const std::string same = "/proc/self/fd/" + std::to_string(file.get());
  if (group && ::chown(same.c_str(), static_cast<uid_t>(-1), *group) != 0) {
    const int number = errno;
    fd_ = parents_fd();  // So that what somebody serves by this name is not this one.
    const auto is_left = [this](const std::string& name) {
      return is_own(name) && probe(directory_.get(), name) == ECONNREFUSED;
    };
    if (is_left(name_)) static_cast<void>(remove_if(directory_.get(), name_, is_left));
    fail(number, path_ + ": giving it to the group " + std::to_string(*group) +
                     ", of which the process must be a member, or have CAP_CHOWN");
  }
  ::chmod(same.c_str(), mode);
}

}  // namespace cowire::detail
