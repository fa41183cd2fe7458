// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/config.hpp>

#include <cowire/async/sender.hpp>
#include <cowire/cli/names.hpp>
#include <cowire/cli/parse.hpp>
#include <cowire/cli/tunnel_words.hpp>

// Compiled in: nothing of it is left to link against.
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
// toml++ 3.3 takes for granted that a key begins after "[[" and aborts, or with NDEBUG lets the
// compiler assume it, where a file says otherwise. Without that it reports the error like others.
#undef NDEBUG
#define TOML_ASSERT(expression) static_assert(true)
#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <sstream>

namespace cowire::cli {
namespace {

/// Longer files are no configuration.
constexpr std::size_t file_size_max = 1u << 20;
using limits = transmitter_limits;
constexpr auto interval_max_s = static_cast<double>(limits::interval_max.count());

/// A usage_error that tells its place already.
class placed_error : public usage_error {
 public:
  using usage_error::usage_error;
};

class config_reader {
 public:
  config_reader(const std::string& name, transmitter_config& to, file_options& more)
      : name_(name), to_(to), more_(more) {}

  void read(std::string_view text) {
    refuse_non_ascii(text);
    const toml::parse_result parsed = toml::parse(text);
    if (!parsed) fail(parsed.error().source(), std::string(parsed.error().description()));
    for (const auto& [key, value] : parsed.table()) {
      if (key == "xdp")
        read_table(key, value, xdp_keys);
      else if (key == "doublezero")
        read_table(key, value, doublezero_keys);
      else if (key == "output")
        read_table(key, value, output_keys);
      else if (key == "multicast")
        read_table(key, value, multicast_keys);
      else if (key == "intake")
        read_table(key, value, intake_keys);
      else if (key == "tunnel")
        read_tunnels(value);
      else
        fail(key.source(),
             "'" + std::string(key.str()) +
                 "': no such table; use xdp, doublezero, output, multicast, intake or [[tunnel]]");
    }
  }

 private:
  using setter = void (config_reader::*)(const toml::node&);
  struct key_rule {
    const char* name;
    setter set;
  };

  /// toml++ 3.3 looks up some characters above U+00A0 with undefined behaviour.
  void refuse_non_ascii(std::string_view text) const {
    toml::source_region at{{1, 1}, {1, 1}, {}};
    for (const char c : text) {
      if (static_cast<unsigned char>(c) > 0x7f)
        fail(at, "a character that is not ASCII; the file is plain ASCII, comments included");
      ++at.begin.column;
      if (c == '\n') at.begin = {at.begin.line + 1, 1};
    }
  }

  [[noreturn]] void fail(const toml::source_region& at, const std::string& what) const {
    throw placed_error(name_ + ":" + std::to_string(at.begin.line) + ":" +
                       std::to_string(at.begin.column) + ": " + what);
  }
  /// What `use` refuses is refused at the place of `at`.
  template <class Use>
  void at_place_of(const toml::node& at, Use&& use) const {
    try {
      use();
    } catch (const placed_error&) {
      throw;
    } catch (const usage_error& error) {
      fail(at.source(), error.what());
    }
  }

  void read_table(const toml::key& table, const toml::node& value,
                  std::span<const key_rule> rules) {
    const auto* keys = value.as_table();
    if (keys == nullptr)
      fail(value.source(),
           std::string(table.str()) + ": not a table; write [" + std::string(table.str()) + "]");
    for (const auto& [key, content] : *keys) {
      key_ = key.str();
      const auto rule =
          std::ranges::find_if(rules, [&](const key_rule& r) { return key_ == r.name; });
      if (rule == rules.end()) {
        std::string known;
        for (const key_rule& r : rules) known += (known.empty() ? "" : ", ") + std::string(r.name);
        fail(key.source(), "'" + key_ + "': no such key in [" + std::string(table.str()) +
                               "]; use one of " + known);
      }
      (this->*rule->set)(content);
    }
  }

  // ---- values ---------------------------------------------------------------------------------

  [[nodiscard]] std::string text(const toml::node& from) const {
    if (const auto* found = from.as_string()) return found->get();
    fail(from.source(), key_ + ": not a string; write it in quotes");
  }
  [[nodiscard]] bool truth(const toml::node& from) const {
    if (const auto* found = from.as_boolean()) return found->get();
    fail(from.source(), key_ + ": neither true nor false; write one of these");
  }
  [[nodiscard]] std::string whole(const toml::node& from) const {
    if (const auto* found = from.as_integer()) return std::to_string(found->get());
    fail(from.source(), key_ + ": not a whole number");
  }
  template <class Use>
  void each(const toml::node& from, Use&& use) const {
    const auto* all = from.as_array();
    if (all == nullptr) fail(from.source(), key_ + ": not an array; write [ ... ]");
    for (const auto& one : *all) at_place_of(one, [&] { use(one); });
  }

  // ---- [xdp] ----------------------------------------------------------------------------------

  void set_interface(const toml::node& from) {
    to_.interfaces.clear();
    const auto add = [&](const toml::node& one) {
      const auto interface = text(one);
      static_cast<void>(parse_interface(key_, interface));
      to_.interfaces.push_back(interface);
    };
    if (from.is_array()) return each(from, add);
    at_place_of(from, [&] { add(from); });
  }
  void set_cpus(const toml::node& from) {
    const auto last = static_cast<std::uint64_t>(::sysconf(_SC_NPROCESSORS_CONF)) - 1;
    to_.cpus.clear();
    each(from, [&](const toml::node& one) {
      const auto cpu = static_cast<unsigned>(parse_number(key_, whole(one), 0, last));
      if (std::ranges::find(to_.cpus, cpu) != to_.cpus.end())
        fail(one.source(), "cpus: " + std::to_string(cpu) + " twice; give each TX core its own");
      to_.cpus.push_back(cpu);
    });
  }
  void set_queues(const toml::node& from) {
    to_.queues.clear();
    each(from, [&](const toml::node& one) {
      const auto queue = static_cast<std::uint32_t>(parse_number(key_, whole(one), 0, queue_max));
      if (std::ranges::find(to_.queues, queue) != to_.queues.end())
        fail(one.source(),
             "queues: " + std::to_string(queue) + " twice; give each TX core its own");
      to_.queues.push_back(queue);
    });
  }
  void set_tx_cores(const toml::node& from) {
    at_place_of(from, [&] {
      to_.tx_cores = static_cast<std::uint32_t>(parse_number(key_, whole(from), 1, tx_cores_max));
    });
  }
  void set_idle(const toml::node& from) {
    const std::string told = text(from);
    if (told == "spin")
      to_.idle = idle_policy::spin;
    else if (told == "yield")
      to_.idle = idle_policy::yield;
    else if (told == "adaptive")
      to_.idle = idle_policy::adaptive;
    else
      fail(from.source(), "idle '" + told + "': use \"spin\", \"yield\" or \"adaptive\"");
  }
  void set_zero_copy(const toml::node& from) {
    to_.mode = truth(from) ? send_mode::zero_copy : send_mode::copy;
  }
  void set_ring_capacity(const toml::node& from) {
    at_place_of(from, [&] {
      to_.ring_capacity = static_cast<std::uint32_t>(
          parse_number(key_, whole(from), limits::ring_capacity_min, limits::ring_capacity_max));
    });
  }
  void set_busy_poll(const toml::node& from) {
    at_place_of(from, [&] {
      to_.busy_poll = std::chrono::microseconds(parse_number(
          key_, whole(from), 0, static_cast<std::uint64_t>(limits::busy_poll_max.count())));
    });
  }
  void set_busy_poll_budget(const toml::node& from) {
    at_place_of(from, [&] {
      to_.busy_poll_budget = static_cast<std::uint32_t>(
          parse_number(key_, whole(from), 1, limits::busy_poll_budget_max));
    });
  }
  void set_huge_pages(const toml::node& from) { to_.huge_pages = truth(from); }

  // ---- [doublezero] ---------------------------------------------------------------------------

  void set_routing_tables(const toml::node& from) {
    to_.restrictions.routing_tables.emplace();
    each(from, [&](const toml::node& one) {
      to_.restrictions.routing_tables->push_back(
          parse_table(one.is_integer() ? whole(one) : text(one)));
    });
  }
  void set_tunnel_interfaces(const toml::node& from) {
    to_.restrictions.tunnel_interfaces.emplace();
    each(from, [&](const toml::node& one) {
      to_.restrictions.tunnel_interfaces->push_back(parse_interface_name(key_, text(one)));
    });
  }
  void set_update_interval(const toml::node& from) {
    const auto seconds = from.value<double>();
    if (!seconds || !(*seconds >= 0 && *seconds <= interval_max_s))
      fail(from.source(), key_ + ": not a number of seconds from 0 (never) to " +
                              std::to_string(static_cast<long>(interval_max_s)));
    to_.update_interval = std::chrono::milliseconds(std::lround(*seconds * 1000));
  }
  void set_performance_mode(const toml::node& from) { to_.performance_mode = truth(from); }
  void set_prefixes(const toml::node& from) {
    to_.restrictions.tunnel_prefixes.emplace();
    each(from, [&](const toml::node& one) {
      const auto prefix = ip_prefix::parse(text(one));
      if (!prefix)
        fail(one.source(), key_ + " '" + text(one) +
                               "': not a prefix; write it as 192.0.2.0/24 or 2001:db8::/32");
      to_.restrictions.tunnel_prefixes->push_back(*prefix);
    });
  }

  // ---- [output] -------------------------------------------------------------------------------

  void set_output(const toml::node& from) {
    const std::string told = text(from);
    if (told != "obey" && told != "ignore")
      fail(from.source(), key_ + " '" + told + "': use \"obey\" or \"ignore\"");
    for (const auto& layer : output_layer_names())
      if (layer.name == key_) to_.output.*layer.member = told == "obey";
  }

  void set_counters(const toml::node& from) {
    const std::string told = text(from);
    if (told != "soft" && told != "strict")
      fail(from.source(), key_ + " '" + told + "': use \"soft\" or \"strict\"");
    to_.output.strict_counters = told == "strict";
  }

  void set_tracked_flows(const toml::node& from) {
    at_place_of(from, [&] {
      to_.tracked_flows =
          static_cast<std::uint32_t>(parse_number(key_, whole(from), 1, limits::tracked_flows_max));
    });
  }

  // ---- [multicast] ----------------------------------------------------------------------------

  void set_multicast_ttl(const toml::node& from) {
    at_place_of(from, [&] {
      more_.multicast_ttl = static_cast<std::uint8_t>(parse_number(key_, whole(from), 0, 255));
    });
  }
  void set_multicast_interface(const toml::node& from) {
    at_place_of(from, [&] {
      static_cast<void>(parse_interface(key_, text(from)));
      more_.multicast_interface = text(from);
    });
  }
  void set_multicast_loop(const toml::node& from) { more_.multicast_loop = truth(from); }

  // ---- [intake] -------------------------------------------------------------------------------

  void set_group(const toml::node& from) {
    at_place_of(from, [&] {
      more_.intake_group = parse_group(key_, from.is_integer() ? whole(from) : text(from));
    });
  }

  // ---- [[tunnel]] -----------------------------------------------------------------------------

  void read_tunnels(const toml::node& from) {
    const auto* all = from.as_array();
    if (all == nullptr || !all->is_array_of_tables())
      fail(from.source(), "tunnel: not an array of tables; write [[tunnel]]");
    for (const auto& one : *all) at_place_of(one, [&] { read_tunnel(*one.as_table()); });
  }

  void read_tunnel(const toml::table& from) {
    const auto required = [&](const char* key) {
      key_ = key;
      const toml::node* found = from.get(key);
      if (found == nullptr) fail(from.source(), "[[tunnel]]: no " + key_ + "; add " + key_ + " = ");
      return found;
    };
    const auto* name = required("name");
    const auto* mode = required("mode");
    tunnel_declaration tunnel;
    at_place_of(*name, [&] { static_cast<void>(parse_interface_name("name", text(*name))); });
    at_place_of(*mode, [&] { tunnel = tunnel_of_mode(text(*name), text(*mode)); });
    if (std::ranges::find(to_.tunnels, tunnel.name, &tunnel_declaration::name) != to_.tunnels.end())
      fail(name->source(), "name '" + tunnel.name + "': declared before; use another name");
    for (const auto& [key, value] : from) {
      key_ = key.str();
      if (key_ != "name" && key_ != "mode") set_word(tunnel, key, value);
    }
    complete_tunnel(tunnel);
    tunnel.up = true;
    to_.tunnels.push_back(std::move(tunnel));
  }

  void set_word(tunnel_declaration& tunnel, const toml::key& key, const toml::node& value) {
    if (key_ == "addresses")
      return each(value, [&](const toml::node& one) {
        tunnel.addresses.push_back(parse_interface_address(key_, text(one)));
      });
    bool with_value = false;
    try {
      with_value = takes_value(key_);
      if (key_.starts_with("no"))
        throw usage_error("'" + key_ + "': write " + key_.substr(2) + " = false");
    } catch (const usage_error& error) {
      fail(key.source(), error.what());
    }
    if (with_value)
      at_place_of(value, [&] { apply_word(tunnel, key_, word_value(value)); });
    else
      at_place_of(value, [&] { apply_word(tunnel, truth(value) ? key_ : "no" + key_, ""); });
  }

  /// As it would be written on the command line, where some words are hexadecimal.
  [[nodiscard]] std::string word_value(const toml::node& from) const {
    const auto* number = from.as_integer();
    if (number == nullptr) return text(from);
    const bool hexadecimal = key_ == "tos" || key_ == "tclass" || key_ == "dsfield" ||
                             key_ == "flowlabel" || key_ == "fl";
    if (!hexadecimal || number->get() < 0) return std::to_string(number->get());
    std::ostringstream out;
    out << std::hex << "0x" << number->get();
    return out.str();
  }

  static constexpr std::array<key_rule, 10> xdp_keys = {{
      {"interface", &config_reader::set_interface},
      {"cpus", &config_reader::set_cpus},
      {"queues", &config_reader::set_queues},
      {"tx_cores", &config_reader::set_tx_cores},
      {"idle", &config_reader::set_idle},
      {"zero_copy", &config_reader::set_zero_copy},
      {"ring_capacity", &config_reader::set_ring_capacity},
      {"busy_poll_us", &config_reader::set_busy_poll},
      {"busy_poll_budget", &config_reader::set_busy_poll_budget},
      {"huge_pages", &config_reader::set_huge_pages},
  }};
  static constexpr std::array<key_rule, 5> doublezero_keys = {{
      {"routing_tables", &config_reader::set_routing_tables},
      {"tunnel_interfaces", &config_reader::set_tunnel_interfaces},
      {"update_interval", &config_reader::set_update_interval},
      {"performance_mode", &config_reader::set_performance_mode},
      {"prefixes", &config_reader::set_prefixes},
  }};

  static constexpr std::array<key_rule, 7> output_keys = {{
      {"netfilter", &config_reader::set_output},
      {"conntrack", &config_reader::set_output},
      {"ipsec", &config_reader::set_output},
      {"traffic_control", &config_reader::set_output},
      {"control_groups", &config_reader::set_output},
      {"counters", &config_reader::set_counters},
      {"tracked_flows", &config_reader::set_tracked_flows},
  }};

  static constexpr std::array<key_rule, 3> multicast_keys = {{
      {"ttl", &config_reader::set_multicast_ttl},
      {"interface", &config_reader::set_multicast_interface},
      {"loop", &config_reader::set_multicast_loop},
  }};

  static constexpr std::array<key_rule, 1> intake_keys = {{
      {"group", &config_reader::set_group},
  }};

  const std::string& name_;
  transmitter_config& to_;
  file_options& more_;
  std::string key_;  ///< Whose value is read.
};

}  // namespace

void apply_multicast(const file_options& from, sender_options& to) {
  to.multicast_ttl = from.multicast_ttl.value_or(to.multicast_ttl);
  to.multicast_interface = from.multicast_interface.value_or(to.multicast_interface);
  to.multicast_loop = from.multicast_loop.value_or(to.multicast_loop);
}

void read_config(const std::string& path, transmitter_config& to, file_options& more) {
  const auto bytes = read_bytes("--config", path, file_size_max);
  parse_config({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path, to, more);
}

void parse_config(std::string_view text, const std::string& name, transmitter_config& to,
                  file_options& more) {
  config_reader(name, to, more).read(text);
}

}  // namespace cowire::cli
