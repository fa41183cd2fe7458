// SPDX-License-Identifier: Apache-2.0
/// What the command prints, so that it does no harm and nothing is lost unnoticed.
///
/// Words of a file, of a command line or of the kernel (an interface's name may hold any byte but
/// white space, '/' and ':') reach the terminal of whoever reads: as text, never as escape
/// sequences. And a full disk or a closed descriptor is an error of the command, not of its reader.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace cowire::cli {

/// `text` with every control character (C0 but tabs and newlines, DEL, C1) and every byte that is
/// not UTF-8 as "\x1b".
[[nodiscard]] std::string terminal_safe(std::string_view text);

/// Opens what of the descriptors 0, 1 and 2 the caller has closed, so that no socket gets such a
/// number and then the command's output. Writing to them still fails. Call it first.
void reserve_standard_descriptors() noexcept;

/// While it lives everything printed to std::cout and std::cerr goes through terminal_safe(). One
/// at a time; one thread.
class guarded_output {
 public:
  guarded_output();
  ~guarded_output();
  guarded_output(const guarded_output&) = delete;
  guarded_output& operator=(const guarded_output&) = delete;

  /// Writes what is left. 0, or the errno with which standard output has failed since.
  [[nodiscard]] int finish();

 private:
  class buffer;
  std::unique_ptr<buffer> out_, err_;
};

}  // namespace cowire::cli
