// SPDX-License-Identifier: Apache-2.0
/// Signals are the application's: the threads that we start take none. A thread inherits the mask
/// of the one that starts it, which has everything blocked while this lives.
#pragma once

#include <signal.h>

namespace cowire {

class signals_blocked {
 public:
  signals_blocked() noexcept {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  signals_blocked(const signals_blocked&) = delete;
  signals_blocked& operator=(const signals_blocked&) = delete;
  ~signals_blocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace cowire
