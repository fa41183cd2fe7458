// SPDX-License-Identifier: Apache-2.0
/// `cowire send` and `cowire run`. Both return the exit status: that of status_of(), and 1 where a
/// service through which `send` went could not submit everything. SIGINT, SIGTERM and SIGHUP
/// end them in good order: what is on the way is drained and the summary is printed; a second
/// signal ends the process at once.
#pragma once

#include <cowire/cli/arguments.hpp>

namespace cowire::cli {

int run_send(const send_arguments& arguments);
int run_service(const run_arguments& arguments);

}  // namespace cowire::cli
