// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/log.hpp>

#include <cowire/cli/output.hpp>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace cowire::cli {
namespace {

spdlog::level::level_enum level_of(log_severity severity) {
  switch (severity) {
    case log_severity::debug:
      return spdlog::level::debug;
    case log_severity::info:
      return spdlog::level::info;
    case log_severity::warning:
      return spdlog::level::warn;
    case log_severity::error:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

log_callback make_log(int verbosity) {
  auto logger = std::make_shared<spdlog::logger>(
      "cowire", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%H:%M:%S.%f %^%l%$ %v");
  logger->set_level(verbosity == 0   ? spdlog::level::warn
                    : verbosity == 1 ? spdlog::level::info
                                     : spdlog::level::debug);
  return [logger](log_severity severity, std::string_view text) {
    logger->log(level_of(severity), terminal_safe(text));
  };
}

}  // namespace cowire::cli
