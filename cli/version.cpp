// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/version.hpp>
#include <cowire/cli/version.hpp>
#include <cowire/ring/asio.hpp>

#include <bpf/libbpf.h>
#include <sys/utsname.h>

namespace cowire::cli {
namespace {

std::string compiler() {
#ifdef __clang__
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

// ASIO_VERSION is 100000 * major + 100 * minor + patch.
std::string asio_version() {
  return "Asio " + std::to_string(ASIO_VERSION / 100000) + "." +
         std::to_string(ASIO_VERSION / 100 % 1000) + "." + std::to_string(ASIO_VERSION % 100);
}

std::string running_kernel() {
  utsname names{};
  if (::uname(&names) != 0) return "unknown";
  return std::string(names.sysname) + " " + names.release + " " + names.machine;
}

}  // namespace

std::string version_text() {
  // libbpf alone can tell its version when it is loaded; COWIRE_LIBRARIES comes from pkg-config.
  return "cowire " + std::string(version()) + "\nbuilt with " + compiler() + ", " + asio_version() +
         ", " COWIRE_LIBRARIES "\nruns with libbpf " + (::libbpf_version_string() + 1) +
         "\nkernel " + running_kernel();
}

}  // namespace cowire::cli
