// SPDX-License-Identifier: Apache-2.0
/// What `cowire send` and `cowire run` were told, first as words (filled in by the command line),
/// then checked and turned into the library's own types. Values of one thread.
#pragma once

#include <cowire/async/transmitter.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cowire::cli {

/// Options that `send` and `run` share. An empty word = not given. What is given goes before what
/// the configuration file says.
struct transmit_arguments {
  std::vector<std::string> sources, interfaces, cpus, queues;
  std::string config_file, source_port, mark, tos, ttl, mode, audit_rate, duration, device;
  std::string multicast_ttl, multicast_interface;
  int verbosity = 0;
  bool json = false, no_multicast_loop = false, broadcast = false;
};

struct send_arguments : transmit_arguments {
  std::vector<std::string> to;
  std::string to_file, size, payload_file, count, rate, when_full, via;
  bool from_stdin = false;
};

struct run_arguments : transmit_arguments {
  std::string intake;
};

struct transmit_plan {
  transmitter_config config;
  sender_options sender;
  std::optional<double> duration_s;
  std::optional<std::uint32_t> intake_group;  ///< As intake_options::group.
};

/// What to send: generated payloads of `size` bytes when `bytes` is empty and `generated` is set.
struct payload_plan {
  bool generated = true;
  std::size_t size = 0;
  std::vector<std::byte> bytes;  ///< Of a payload that is given.
};

struct send_plan {
  transmit_plan transmit;
  payload_plan payload;
  std::vector<endpoint> to;
  std::optional<std::uint64_t> count;  ///< Payloads; each goes to every destination.
  std::optional<double> rate_pps;      ///< Datagrams a second, all destinations together.
  std::string via;
};

/// All of them throw usage_error.
[[nodiscard]] transmit_plan make_plan(const transmit_arguments& arguments);
[[nodiscard]] send_plan make_plan(const send_arguments& arguments);

}  // namespace cowire::cli
