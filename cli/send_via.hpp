// SPDX-License-Identifier: Apache-2.0
/// `cowire send --via PATH`: hands the payloads to a `cowire run` instead of sending them itself.
/// Needs no privilege but to write to the socket. The intake client is blocking, so this needs no
/// event loop: one thread, one loop.
#pragma once

#include <cowire/cli/arguments.hpp>

namespace cowire::cli {

/// Returns the exit status: 1 when the server could not submit everything, or the kernel refused
/// all of it. Throws std::system_error.
int send_via(const send_plan& plan, bool as_json);

}  // namespace cowire::cli
