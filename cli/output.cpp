// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/output.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <iostream>
#include <streambuf>

namespace cowire::cli {
namespace {

constexpr std::size_t buffered_max = std::size_t{1} << 16;

/// Length of the UTF-8 sequence that a byte begins; 0 = none.
std::size_t sequence_length(unsigned char first) noexcept {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first < 0xe0) return 2;
  if (first >= 0xe0 && first < 0xf0) return 3;
  return first >= 0xf0 && first < 0xf5 ? 4 : 0;
}

/// Length of the character at the front that a terminal may have as it is; 0 = it may not.
std::size_t printable_length(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t length = sequence_length(byte(0));
  if (length == 0 || length > text.size()) return 0;
  if (length == 1) {
    const bool control = byte(0) < 0x20 && byte(0) != '\n' && byte(0) != '\t';
    return control || byte(0) == 0x7f ? 0 : 1;
  }
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  const bool c1 = byte(0) == 0xc2 && byte(1) < 0xa0;  // U+0080 to U+009F: U+009B is "ESC [".
  return c1 ? 0 : length;
}

}  // namespace

std::string terminal_safe(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    if (const std::size_t length = printable_length(text); length != 0) {
      out += text.substr(0, length);
      text.remove_prefix(length);
      continue;
    }
    const auto byte = static_cast<unsigned char>(text.front());
    out += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    text.remove_prefix(1);
  }
  return out;
}

void reserve_standard_descriptors() noexcept {
  // The lowest free number is the one closed. Opened for the wrong direction, each fails as before.
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd)
    if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF)
      static_cast<void>(::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY));
}

/// Stands in a stream's place for its descriptor.
class guarded_output::buffer : public std::streambuf {
 public:
  buffer(std::ostream& stream, int fd) : stream_(stream), before_(stream.rdbuf(this)), fd_(fd) {}
  ~buffer() override {
    static_cast<void>(write_out());
    stream_.rdbuf(before_);
  }
  buffer(const buffer&) = delete;
  buffer& operator=(const buffer&) = delete;

  /// The first errno of a write.
  [[nodiscard]] int failure() const noexcept { return failure_; }

 protected:
  int_type overflow(int_type next) override {
    if (traits_type::eq_int_type(next, traits_type::eof())) return traits_type::not_eof(next);
    const char one = traits_type::to_char_type(next);
    return xsputn(&one, 1) == 1 ? next : traits_type::eof();
  }
  std::streamsize xsputn(const char* text, std::streamsize size) override {
    text_.append(text, static_cast<std::size_t>(size));
    return text_.size() < buffered_max || write_out() ? size : 0;
  }
  int sync() override { return write_out() ? 0 : -1; }

 private:
  bool write_out() {
    const std::string safe = terminal_safe(text_);
    text_.clear();
    std::string_view rest = safe;
    while (!rest.empty() && failure_ == 0) {
      const auto written = ::write(fd_, rest.data(), rest.size());
      if (written >= 0)
        rest.remove_prefix(static_cast<std::size_t>(written));
      else if (errno != EINTR)
        failure_ = errno;
    }
    return failure_ == 0;
  }

  std::ostream& stream_;
  std::streambuf* before_;
  int fd_;
  int failure_ = 0;
  std::string text_;
};

guarded_output::guarded_output()
    : out_(std::make_unique<buffer>(std::cout, STDOUT_FILENO)),
      err_(std::make_unique<buffer>(std::cerr, STDERR_FILENO)) {}
guarded_output::~guarded_output() = default;

int guarded_output::finish() {
  std::cout.flush();
  return out_->failure();
}

}  // namespace cowire::cli
