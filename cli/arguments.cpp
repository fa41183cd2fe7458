// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/arguments.hpp>

#include <cowire/async/intake.hpp>
#include <cowire/cli/config.hpp>
#include <cowire/cli/log.hpp>
#include <cowire/cli/pacer.hpp>
#include <cowire/cli/parse.hpp>
#include <cowire/xdp/umem.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <limits>

namespace cowire::cli {
namespace {

constexpr std::uint32_t small_frame = 2048, large_frame = 4096;
constexpr std::size_t default_payload_size = 64;
/// More than this would be the control thread's main business.
constexpr std::uint64_t audit_rate_max = 10'000;
/// Thirty years: a clock's nanoseconds hold ten times as many.
constexpr double duration_s_max = 1e9;

template <class T>
T number_or_zero(const char* what, const std::string& text, std::uint64_t low) {
  if (text.empty()) return 0;
  return static_cast<T>(parse_number(what, text, low, std::numeric_limits<T>::max()));
}

// Unset = the best rung that works.
std::optional<send_mode> parse_mode(const std::string& text) {
  if (text == "auto") return std::nullopt;
  if (const auto mode = parse_send_mode(text)) return mode;
  throw usage_error("--mode '" + text +
                    "': no such mode; use auto, zero-copy, copy, generic or kernel");
}

full_policy parse_full_policy(const std::string& text) {
  if (text.empty() || text == "wait") return full_policy::wait;
  if (text == "fail") return full_policy::fail;
  if (text == "shed-oldest") return full_policy::shed_oldest;
  throw usage_error("--when-full '" + text + "': no such policy; use wait, fail or shed-oldest");
}

std::vector<unsigned> parse_cpus(const std::vector<std::string>& texts) {
  const auto last = static_cast<std::uint64_t>(::sysconf(_SC_NPROCESSORS_CONF)) - 1;
  std::vector<unsigned> out;
  for (const auto& text : texts) {
    const auto cpu = static_cast<unsigned>(parse_number("--cpu", text, 0, last));
    if (std::ranges::find(out, cpu) != out.end())
      throw usage_error("--cpu '" + text + "': given twice; give each TX core its own");
    out.push_back(cpu);
  }
  return out;
}

std::vector<std::uint32_t> parse_queues(const std::vector<std::string>& texts) {
  std::vector<std::uint32_t> out;
  for (const auto& text : texts) {
    const auto queue = static_cast<std::uint32_t>(parse_number("--queue", text, 0, queue_max));
    if (std::ranges::find(out, queue) != out.end())
      throw usage_error("--queue '" + text + "': given twice; give each TX core its own");
    out.push_back(queue);
  }
  return out;
}

/// Of this host, or of a tunnel that the transmitter will make.
void add_source(sender_options& options, const std::string& text,
                const std::vector<tunnel_declaration>& declared) {
  const bool comes = std::ranges::any_of(declared, [&](const tunnel_declaration& tunnel) {
    return std::ranges::find(tunnel.addresses, parse_address("--source", text).unmapped(),
                             &interface_address::local) != tunnel.addresses.end();
  });
  const auto source = parse_local_address("--source", text, options.bound_device, comes);
  auto& slot = source.is_v4() ? options.source_v4 : options.source_v6;
  if (slot)
    throw usage_error("--source '" + text +
                      "': a second address of its family; give at most one IPv4 and one IPv6");
  slot = source;
}

payload_plan make_payload(const send_arguments& arguments, std::size_t limit) {
  const int given =
      !arguments.size.empty() + !arguments.payload_file.empty() + arguments.from_stdin;
  if (given > 1)
    throw usage_error("--size, --payload-file and --stdin exclude each other; give one of them");
  payload_plan plan;
  if (!arguments.payload_file.empty() || arguments.from_stdin) {
    plan.generated = false;
    plan.bytes = arguments.from_stdin ? read_bytes("--stdin", "-", limit)
                                      : read_bytes("--payload-file", arguments.payload_file, limit);
    plan.size = plan.bytes.size();
  } else {
    plan.size = arguments.size.empty() ? default_payload_size
                                       : parse_number("--size", arguments.size, 0, limit);
  }
  return plan;
}

// An intake's datagrams leave with the server's options; silently ignoring ours would surprise.
void refuse_server_options(const send_arguments& arguments) {
  const auto server = std::to_array<std::pair<const char*, bool>>(
      {{"--config", !arguments.config_file.empty()},
       {"--source", !arguments.sources.empty()},
       {"--interface", !arguments.interfaces.empty()},
       {"--device", !arguments.device.empty()},
       {"--mark", !arguments.mark.empty()},
       {"--tos", !arguments.tos.empty()},
       {"--ttl", !arguments.ttl.empty()},
       {"--multicast-ttl", !arguments.multicast_ttl.empty()},
       {"--multicast-interface", !arguments.multicast_interface.empty()},
       {"--no-multicast-loop", arguments.no_multicast_loop},
       {"--broadcast", arguments.broadcast},
       {"--mode", !arguments.mode.empty()},
       {"--cpu", !arguments.cpus.empty()},
       {"--queue", !arguments.queues.empty()},
       {"--audit-rate", !arguments.audit_rate.empty()},
       {"--when-full", !arguments.when_full.empty()}});
  for (const auto& [name, given] : server)
    if (given)
      throw usage_error(
          std::string(name) +
          ": cannot go with --via; give it to the 'cowire run' that serves the intake");
}

void check_queues(const transmitter_config& config) {
  if (!config.queues.empty() && !config.cpus.empty() && config.queues.size() != config.cpus.size())
    throw usage_error("queues (--queue): " + std::to_string(config.queues.size()) + " for " +
                      std::to_string(config.cpus.size()) +
                      " TX cores (cpus, --cpu); give one for each of them");
}

void check_families(const send_plan& plan) {
  const auto& sender = plan.transmit.sender;
  if (!sender.source_v4 && !sender.source_v6) return;
  for (const auto& to : plan.to)
    if (!(to.address.unmapped().is_v4() ? sender.source_v4 : sender.source_v6))
      throw usage_error("--source: none of the family of " + to.to_string() +
                        "; add a --source of that family, or give none");
}

/// What the command line says goes before the file.
void set_multicast(sender_options& sender, const transmit_arguments& arguments,
                   const file_options& more) {
  apply_multicast(more, sender);
  if (!arguments.multicast_ttl.empty())
    sender.multicast_ttl =
        static_cast<std::uint8_t>(parse_number("--multicast-ttl", arguments.multicast_ttl, 0, 255));
  if (!arguments.multicast_interface.empty()) {
    static_cast<void>(parse_interface("--multicast-interface", arguments.multicast_interface));
    sender.multicast_interface = arguments.multicast_interface;
  }
  if (arguments.no_multicast_loop) sender.multicast_loop = false;
}

}  // namespace

transmit_plan make_plan(const transmit_arguments& arguments) {
  transmit_plan plan;
  file_options more;
  if (!arguments.config_file.empty()) read_config(arguments.config_file, plan.config, more);
  plan.intake_group = more.intake_group;
  set_multicast(plan.sender, arguments, more);
  if (!arguments.interfaces.empty()) plan.config.interfaces.clear();
  const auto& declared = plan.config.tunnels;
  const bool device_comes =
      std::ranges::find(declared, arguments.device, &tunnel_declaration::name) != declared.end();
  if (!arguments.device.empty() && !device_comes)
    static_cast<void>(parse_interface("--device", arguments.device));
  plan.sender.bound_device = arguments.device;
  for (const auto& text : arguments.sources) add_source(plan.sender, text, declared);
  for (const auto& text : arguments.interfaces) {
    static_cast<void>(parse_interface("--interface", text));
    plan.config.interfaces.push_back(text);
  }
  plan.sender.source_port =
      number_or_zero<std::uint16_t>("--source-port", arguments.source_port, 0);
  plan.sender.mark = number_or_zero<std::uint32_t>("--mark", arguments.mark, 0);
  plan.sender.tos = number_or_zero<std::uint8_t>("--tos", arguments.tos, 0);
  plan.sender.ttl = number_or_zero<std::uint8_t>("--ttl", arguments.ttl, 1);
  plan.sender.broadcast = arguments.broadcast;
  if (!arguments.mode.empty()) plan.config.mode = parse_mode(arguments.mode);
  if (!arguments.cpus.empty()) plan.config.cpus = parse_cpus(arguments.cpus);
  if (!arguments.queues.empty()) plan.config.queues = parse_queues(arguments.queues);
  check_queues(plan.config);
  if (!arguments.audit_rate.empty())
    plan.config.audit_rate = static_cast<std::uint32_t>(
        parse_number("--audit-rate", arguments.audit_rate, 0, audit_rate_max));
  if (!arguments.duration.empty())
    plan.duration_s = parse_real("--duration", arguments.duration, 0, duration_s_max);
  plan.config.log = make_log(arguments.verbosity);
  return plan;
}

send_plan make_plan(const send_arguments& arguments) {
  send_plan plan;
  plan.transmit = make_plan(static_cast<const transmit_arguments&>(arguments));
  plan.via = arguments.via;
  if (!plan.via.empty()) refuse_server_options(arguments);
  plan.transmit.sender.when_full = parse_full_policy(arguments.when_full);

  for (const auto& text : arguments.to) plan.to.push_back(parse_endpoint("--to", text));
  if (!arguments.to_file.empty()) {
    const auto more = read_endpoints(arguments.to_file);
    plan.to.insert(plan.to.end(), more.begin(), more.end());
  }
  if (plan.to.empty()) throw usage_error("no destination; give --to ADDR:PORT or --to-file FILE");
  check_families(plan);

  auto& frame_size = plan.transmit.config.frame_size;
  const std::size_t limit = plan.via.empty()
                                ? large_frame - payload_offset
                                : intake_message_capacity() - sizeof(intake_destination);
  plan.payload = make_payload(arguments, limit);
  frame_size = plan.payload.size > small_frame - payload_offset ? large_frame : small_frame;

  if (!arguments.count.empty())
    plan.count =
        parse_number("--count", arguments.count, 1, std::numeric_limits<std::uint64_t>::max());
  else if (!plan.payload.generated && !plan.transmit.duration_s)
    plan.count = 1;
  if (!arguments.rate.empty())
    plan.rate_pps = parse_real("--rate", arguments.rate, pacer::rate_pps_min, pacer::rate_pps_max);
  return plan;
}

}  // namespace cowire::cli
