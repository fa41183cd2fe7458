// SPDX-License-Identifier: Apache-2.0
/// The configuration file of `cowire send` and `cowire run`: TOML with the tables [xdp],
/// [doublezero], [output] and [[tunnel]], which fill a transmitter_config. examples/doublezero.toml
/// shows every key.
///
/// Unknown keys and bad values throw a usage_error that begins with FILE:LINE:COLUMN. What the file
/// does not tell stays as it was. No state; any thread.
#pragma once

#include <cowire/async/transmitter.hpp>

#include <string>
#include <string_view>

namespace cowire::cli {

void read_config(const std::string& path, transmitter_config& to);

/// `name` stands for the file in messages.
void parse_config(std::string_view text, const std::string& name, transmitter_config& to);

}  // namespace cowire::cli
