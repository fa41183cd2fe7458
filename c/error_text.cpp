// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/c/error_text.hpp>

#include <cerrno>
#include <exception>
#include <new>
#include <stdexcept>

namespace cowire::c {
namespace {

thread_local std::string last;

/// What C has for our own conditions.
int number_of(error condition) noexcept {
  switch (condition) {
    case error::would_block:
      return EAGAIN;
    case error::closed:
      return ESHUTDOWN;
    case error::too_long:
      return EMSGSIZE;
    case error::no_destination:
      return EDESTADDRREQ;
    case error::family_mismatch:
      return EAFNOSUPPORT;
    case error::malformed:
    case error::truncated:
    case error::invalid_argument:
      return EINVAL;
    case error::overrun:
    case error::interrupted_dump:
      return EINTR;
    case error::unsupported:
      return EOPNOTSUPP;
    case error::port_in_use:
      return EADDRINUSE;
    case error::forked:
      return ECHILD;
    case error::no_producer:
      return ENOBUFS;
  }
  return EIO;
}

int number_of(const std::error_code& ec) noexcept {
  if (ec.category() == error_category()) return number_of(static_cast<error>(ec.value()));
  const bool errno_like =
      ec.category() == std::system_category() || ec.category() == std::generic_category();
  return errno_like && ec.value() > 0 ? ec.value() : EIO;
}

}  // namespace

int failed(int number, const std::string& what) noexcept {
  try {
    last = what;
  } catch (const std::bad_alloc&) {
    last.clear();
  }
  return -number;
}

int failed(std::error_code ec, const std::string& what) noexcept {
  try {
    last = what.empty() ? ec.message() : what + ": " + ec.message();
  } catch (const std::bad_alloc&) {
    last.clear();
  }
  return -number_of(ec);
}

const char* text() noexcept { return last.c_str(); }

int failed_with_exception() noexcept {
  try {
    throw;
  } catch (const std::system_error& thrown) {
    return failed(number_of(thrown.code()), thrown.what());
  } catch (const std::bad_alloc&) {
    return failed(ENOMEM, "out of memory");
  } catch (const std::exception& thrown) {
    return failed(EINVAL, thrown.what());
  } catch (...) {
    return failed(EIO, "an exception of no known type");
  }
}

}  // namespace cowire::c
