// SPDX-License-Identifier: Apache-2.0
/// The configuration file of `cowire send` and `cowire run`: TOML with the tables [xdp],
/// [doublezero], [output] and [[tunnel]], which fill a transmitter_config, [multicast] and
/// [intake].
/// examples/doublezero.toml shows every key.
///
/// Unknown keys and bad values throw a usage_error that begins with FILE:LINE:COLUMN. What the file
/// does not tell stays as it was. No state; any thread.
#pragma once

#include <cowire/async/transmitter_config.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cowire {
struct sender_options;
}

namespace cowire::cli {

/// What a file may say besides.
struct file_options {
  std::optional<std::uint32_t> intake_group;  ///< gid; intake_options::group.
  // [multicast]: of sender_options.
  std::optional<std::uint8_t> multicast_ttl;
  std::optional<std::string> multicast_interface;
  std::optional<bool> multicast_loop;
};

/// What [multicast] says goes into `to`.
void apply_multicast(const file_options& from, sender_options& to);

void read_config(const std::string& path, transmitter_config& to, file_options& more);

/// `name` stands for the file in messages.
void parse_config(std::string_view text, const std::string& name, transmitter_config& to,
                  file_options& more);

}  // namespace cowire::cli
