// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/reason.hpp>
#include <cowire/base/version.hpp>
#include <cowire/c/error_text.hpp>
#include <cowire/c/handles.hpp>
#include <cowire/c/log.hpp>
#include <cowire/c/options.hpp>
#include <cowire/cli/config.hpp>
#include <cowire/cli/json_text.hpp>
#include <cowire/cli/kernel_state.hpp>
#include <cowire/cli/query.hpp>
#include <cowire/cli/route_view.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace cowire;

std::optional<send_mode> mode_of(std::uint32_t mode) {
  switch (mode) {
    case COWIRE_MODE_AUTO:
      return std::nullopt;
    case COWIRE_MODE_ZERO_COPY:
      return send_mode::zero_copy;
    case COWIRE_MODE_COPY:
      return send_mode::copy;
    case COWIRE_MODE_KERNEL:
      return send_mode::kernel;
    default:
      throw_error(error::invalid_argument,
                  "mode is " + std::to_string(mode) + "; it is a cowire_mode, 0 to 3");
  }
}

/// All frames are for shared senders: there are no others here.
void share_all(transmitter_config& config) { config.max_producers = 1; }

transmitter_config config_of(const cowire_options& options) {
  if (options.reserved != 0)
    throw_error(error::invalid_argument, "cowire_options.reserved must be 0");
  transmitter_config config;
  config.log = c::make_log(options.log_fd);
  if (options.interfaces != nullptr)
    for (std::string_view rest = options.interfaces; !rest.empty();) {
      const auto comma = std::min(rest.find(','), rest.size());
      config.interfaces.emplace_back(rest.substr(0, comma));
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  config.mode = mode_of(options.mode);
  if (options.tx_cores != 0) config.tx_cores = options.tx_cores;
  if (options.frames != 0) config.frames_per_producer = options.frames;
  if (options.shared_producers != 0) config.shared_producers = options.shared_producers;
  share_all(config);
  return config;
}

int open(transmitter_config config, cli::file_options more, cowire_transmitter** out) {
  *out = new cowire_transmitter{transmitter(std::move(config)), std::move(more)};
  return 0;
}

/// Names and values of all counters.
std::vector<std::pair<std::string, std::uint64_t>> count(const transmitter_stats& stats) {
  std::vector<std::pair<std::string, std::uint64_t>> out{
      {"submitted", stats.submitted},           {"transmitted", stats.transmitted_total()},
      {"kernel_path", stats.kernel_path},       {"refused", stats.refused_total()},
      {"lost_in_device", stats.lost_in_device}, {"shed", stats.shed},
      {"on_the_way", stats.on_the_way()},       {"errors_from_network", stats.errors_from_network},
  };
  for (std::size_t i = 0; i < divert_reason_count; ++i) {
    const std::string reason(name(static_cast<divert_reason>(i)));
    const auto found = stats.diverted.find(reason);
    out.emplace_back("diverted_" + reason, found == stats.diverted.end() ? 0 : found->second);
  }
  return out;
}

/// Their names, for good.
const std::vector<std::string>& counter_names() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> out;
    for (auto& [name, value] : count({})) out.push_back(std::move(name));
    return out;
  }();
  return all;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto space = std::min(text.find(' '), text.size());
    if (space != 0) out.emplace_back(text.substr(0, space));
    text.remove_prefix(std::min(space + 1, text.size()));
  }
  return out;
}

}  // namespace

const char* cowire_version(void) {
  static const std::string text(version());
  return text.c_str();
}

const char* cowire_text(void) { return c::text(); }

int cowire_open(const cowire_options* options, cowire_transmitter** out) {
  return c::guarded([&] {
    const cowire_options defaults = COWIRE_OPTIONS_INIT;
    return open(config_of(c::known(options, defaults, "cowire_options")), {}, out);
  });
}

int cowire_open_file(const char* path, cowire_transmitter** out) {
  return c::guarded([&] {
    transmitter_config config;
    cli::file_options more;
    cli::read_config(path, config, more);
    const cowire_options defaults = COWIRE_OPTIONS_INIT;
    config.log = c::make_log(defaults.log_fd);
    share_all(config);
    return open(std::move(config), std::move(more), out);
  });
}

void cowire_close(cowire_transmitter* tx) { delete tx; }

size_t cowire_counters(const cowire_transmitter* tx, cowire_counter* counters, size_t n) {
  size_t known = 0;
  static_cast<void>(c::guarded([&] {
    const auto all = count(tx->sends.stats());  // First: refuses in a child of fork().
    const auto& names = counter_names();
    for (std::size_t i = 0; i < std::min(n, all.size()); ++i)
      counters[i] = {names[i].c_str(), all[i].second};
    known = all.size();
    return 0;
  }));
  return known;
}

ssize_t cowire_explain(const char* question, char* json, size_t size) {
  return c::guarded([&]() -> ssize_t {
    const flow asked = cli::parse_query(words_of(question));
    const cli::kernel_state kernel;
    const std::string line = cli::json_line(cli::answer_json(asked, kernel.explain(asked)));
    if (size != 0) {
      const std::size_t shown = std::min(line.size(), size - 1);
      std::memcpy(json, line.data(), shown);
      json[shown] = '\0';
    }
    return static_cast<ssize_t>(line.size());
  });
}
