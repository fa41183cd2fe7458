// SPDX-License-Identifier: Apache-2.0
#include <cowire/c/log.hpp>

#include <cowire/base/error.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/cli/output.hpp>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <memory>
#include <string>

namespace cowire::c {
namespace {

/// A pipe that is full, or that nobody reads any more, gets no line: the control thread does not
/// wait for its reader. One that poll() has room in takes PIPE_BUF bytes at once.
void write_line(int fd, log_severity severity, std::string_view text) {
  if (severity < log_severity::warning) return;
  pollfd one{fd, POLLOUT, 0};
  if (::poll(&one, 1, 0) != 1 || one.revents != POLLOUT) return;
  std::string line = "cowire: " + std::string(name(severity)) + ": " + cli::terminal_safe(text);
  line.resize(std::min<std::size_t>(line.size(), PIPE_BUF - 1));
  line += '\n';
  static_cast<void>(::write(fd, line.data(), line.size()));
}

}  // namespace

log_callback make_log(int log_fd) {
  if (log_fd == -1) return {};
  if (log_fd == 0)
    return [](log_severity severity, std::string_view text) {
      write_line(STDERR_FILENO, severity, text);
    };
  const auto what = "cowire_options.log_fd is " + std::to_string(log_fd);
  if (log_fd < 0) throw_error(error::invalid_argument, what + "; it is a descriptor, 0 or -1");
  const auto own = std::make_shared<unique_fd>(::fcntl(log_fd, F_DUPFD_CLOEXEC, 3));
  if (!*own) throw_error(errno_code(errno), what);
  return [own](log_severity severity, std::string_view text) {
    write_line(own->get(), severity, text);
  };
}

}  // namespace cowire::c
