// SPDX-License-Identifier: Apache-2.0
/// The kernel's routing state of now, read once by dumps: no privilege, no AF_XDP socket, nothing
/// followed.
#pragma once

#include <cowire/route/compiler.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/output_path.hpp>
#include <cowire/route/publisher.hpp>

#include <memory>

namespace cowire::cli {

/// A mirror of the calling thread's network namespace with a compiler that can explain decisions.
/// The decisions are those of a transmitter with a socket on every Ethernet device that is up, as
/// `cowire send` without --interface has them.
class kernel_state {
 public:
  /// Throws std::system_error.
  kernel_state();

  [[nodiscard]] const mirror& state() const noexcept { return mirror_; }
  [[nodiscard]] const output_snapshot& output() const noexcept { return *output_; }
  [[nodiscard]] explanation explain(const flow& question) const {
    return compiler_.explain(question);
  }

 private:
  mirror mirror_;
  epoch_domain epoch_;
  publisher publisher_;
  outer_flows outer_flows_;
  compiler compiler_;
  std::shared_ptr<const output_snapshot> output_;
};

}  // namespace cowire::cli
