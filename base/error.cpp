// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>

#include <cstring>

namespace cowire {
namespace {

class category final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "cowire"; }
  [[nodiscard]] std::string message(int value) const override {
    switch (static_cast<error>(value)) {
      case error::would_block:
        return "no free frame; await one or shed load";
      case error::closed:
        return "closed";
      case error::too_long:
        return "payload longer than a frame holds";
      case error::no_destination:
        return "no destination given";
      case error::family_mismatch:
        return "IPv4 and IPv6 mixed where one family is required";
      case error::malformed:
        return "malformed message";
      case error::truncated:
        return "truncated message";
      case error::overrun:
        return "kernel notifications were lost; re-synchronising";
      case error::interrupted_dump:
        return "kernel dump kept changing while it was read";
      case error::unsupported:
        return "not supported by this kernel, driver or device";
      case error::port_in_use:
        return "UDP port held by another socket; pass it as adopt_socket";
      case error::invalid_argument:
        return "value out of range";
      case error::forked:
        return "made before a fork() and not usable in the child; make another one there";
      case error::no_producer:
        return "all producers are in use; raise max_producers";
    }
    return "unknown cowire error " + std::to_string(value);
  }
};

}  // namespace

const std::error_category& error_category() noexcept {
  static const category instance;
  return instance;
}

std::string errno_name(int number) {
  if (const char* name = ::strerrorname_np(number)) return name;
  return "errno " + std::to_string(number);
}

void throw_error(std::error_code ec, const std::string& what) { throw std::system_error(ec, what); }

}  // namespace cowire
