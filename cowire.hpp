// SPDX-License-Identifier: Apache-2.0
/// What an application includes: `#include <cowire/cowire.hpp>`.
///
/// Fourteen headers, each of which stands alone as well. Beside them, for who needs it: the intake
/// of other processes' datagrams (async/intake.hpp), tunnel devices (async/tunnel.hpp), timers,
/// descriptors and other sockets on the same ring (ring/).
#pragma once

#include <cowire/async/await_frames.hpp>
#include <cowire/async/path_events.hpp>
#include <cowire/async/port.hpp>
#include <cowire/async/sender.hpp>
#include <cowire/async/shared_sender.hpp>
#include <cowire/async/transmitter.hpp>
#include <cowire/async/transmitter_config.hpp>
#include <cowire/async/transmitter_stats.hpp>
#include <cowire/base/address.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/version.hpp>
#include <cowire/follow/route_events.hpp>
#include <cowire/ring/endpoint.hpp>
#include <cowire/ring/ring_context.hpp>
