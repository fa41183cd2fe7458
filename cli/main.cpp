// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/cli/arguments.hpp>
#include <cowire/cli/doctor.hpp>
#include <cowire/cli/output.hpp>
#include <cowire/cli/parse.hpp>
#include <cowire/cli/route.hpp>
#include <cowire/cli/send.hpp>
#include <cowire/cli/tunnel.hpp>
#include <cowire/cli/version.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <exception>
#include <functional>
#include <iostream>

namespace cowire::cli {
namespace {

constexpr int not_done = 1, bad_input = 2;

constexpr const char* examples = R"(Examples:
  cowire send --to 192.0.2.7:8001 --count 1000 --rate 500
  cowire send --to-file peers.txt --payload-file shred.bin --source-port 8001 -j
  cowire run --intake /run/cowire.sock --interface eth0 --cpu 2
  cowire send --via /run/cowire.sock --to 192.0.2.7:8001 --stdin < message
  cowire route get 192.0.2.7 mark 7 -j
  cowire route monitor -j
  cowire tunnel show
  cowire doctor eth0

Exit status:
  0  done
  1  begun, but not done: datagrams are unaccounted for, none left this host, a service did not take
     them all, the output could not be written; 'doctor': sending would fail or be slow for want of
     a permission
  2  not begun: bad input, no permission, no interface with the mode asked for; 'route get': the
     kernel would refuse the datagram, as for 'ip route get')";

constexpr const char* send_notes = R"(Notes:
  --to may be repeated and mixed with --to-file: every payload goes to every destination.
  --to-file holds one ADDR:PORT a line; '#' starts a comment.
  ADDR of link-local scope takes a zone: '[fe80::1%eth0]:8001'. Unless --device names the same
  interface, the kernel path sends there.
  --stdin reads all of standard input as one payload.
  Without --payload-file or --stdin payloads are generated: sequence number from 0 and
  CLOCK_REALTIME in nanoseconds at submission (8 bytes each, big-endian), then a fixed pattern;
  sizes below 16 hold the beginning of that.
  Without --count and --duration a given payload is sent once, generated ones until SIGINT.
  SIGINT, SIGTERM and SIGHUP drain what is on the way and print the summary; SIGUSR1 and SIGUSR2
  print the totals so far to standard error: with --via once the server has said them, which is
  when it has sent everything before.
Examples:
  cowire send --to 192.0.2.7:8001 --count 1000 --rate 500
  cowire send --to 192.0.2.7:8001 --to '[2001:db8::7]:8001' --size 1200 --duration 10 -j
  echo hello | cowire send --to 192.0.2.7:8001 --stdin)";

constexpr const char* get_notes = R"(The words are those of 'ip route get':
  DST[%ZONE] [from SRC] [mark M] [oif DEV] [tos T] [ipproto P] [sport N] [dport N] [uid U]
and of ours, for groups:
  [multicast_ttl N] [multicast_interface DEV] [multicast_loop {0|1}]
tos is hexadecimal, as there. In a batch file each line is one such query, optionally after
'route get'. Without oif it is the device that the sockets of this process are bound to, as under
'ip vrf exec'. Exit status 2 where the kernel would refuse; not in a batch.
Examples:
  cowire route get 192.0.2.7 from 192.0.2.1 mark 0x7 -j
  cowire route get -b queries.txt -j)";

constexpr const char* tunnel_notes = R"(The words are those of 'ip tunnel':
  NAME mode { gre | gretap | ip6gre | ip6gretap | ipip | sit | ip6ip6 | ipip6 | any }
       [remote ADDR] [local ADDR] [dev DEV] [ttl { 1..255 | inherit }] [tos { 00..ff | inherit }]
       [[i|o]key KEY] [[i|o]csum] [[i|o]seq] [[no]pmtudisc] [[no]ignore-df] [fwmark MARK]
       [encaplimit { 0..255 | none }] [hoplimit N] [tclass { 00..ff | inherit }]
       [flowlabel { 0..fffff | inherit }] [[no]allow-localremote] [mtu N]
'no' in front of key, csum or seq takes it away. tos, tclass and flowlabel are hexadecimal. Defaults
are those of iproute2. A new tunnel is down and without addresses.
Examples:
  cowire tunnel add doublezero0 mode gre remote 203.0.113.9 local 198.51.100.7 ttl 64 nopmtudisc
  cowire tunnel change doublezero0 remote 203.0.113.10
  cowire tunnel show -j
  cowire tunnel del doublezero0)";

void add_transmit_options(CLI::App& app, transmit_arguments& to) {
  app.add_option(
         "--source", to.sources,
         "Source address, of this host or of a tunnel that --config declares; one per family "
         "(default: as the routes say)")
      ->type_name("ADDR");
  app.add_option("--source-port", to.source_port, "Source UDP port (default: the kernel picks one)")
      ->type_name("N");
  app.add_option("--device", to.device,
                 "Send through this device only, as SO_BINDTODEVICE; it may be a declared tunnel")
      ->type_name("IF");
  app.add_option("--duration", to.duration, "Stop after this many seconds")->type_name("S");
  app.add_option("--mark", to.mark, "Mark that policy rules see, as SO_MARK")->type_name("M");
  app.add_option("--tos", to.tos, "TOS or traffic class byte, 0 to 255 or 0x00 to 0xff")
      ->type_name("T");
  app.add_option("--ttl", to.ttl, "TTL or hop limit (default: the route's or the system's)")
      ->type_name("N");
  app.add_option("--multicast-ttl", to.multicast_ttl,
                 "TTL or hop limit of multicast, 0 to 255 (default: 1)")
      ->type_name("N");
  app.add_option("--multicast-interface", to.multicast_interface,
                 "Device for multicast, as IP_MULTICAST_IF (default: as the routes say)")
      ->type_name("IF");
  app.add_flag("--no-multicast-loop", to.no_multicast_loop,
               "No copies of multicast for members on this host, as IP_MULTICAST_LOOP 0");
  app.add_flag("--broadcast", to.broadcast, "Permit broadcast, as SO_BROADCAST");
  app.add_option("--config", to.config_file,
                 "TOML file with [xdp], [doublezero], [multicast], [[tunnel]] and more; options go "
                 "before it")
      ->type_name("FILE");
  app.add_option("--interface", to.interfaces,
                 "Interfaces with AF_XDP sockets (default: every Ethernet device that is up)")
      ->type_name("IF");
  app.add_option("--mode", to.mode, "auto, zero-copy, copy, generic or kernel (default: auto)")
      ->type_name("MODE");
  app.add_option("--cpu", to.cpus,
                 "A CPU for the TX core, which polls there without sleeping if one more is left to "
                 "everything else; several for as many cores, each with a queue of its own")
      ->delimiter(',')
      ->type_name("N");
  app.add_option("--queue", to.queues,
                 "The hardware transmit queue of each TX core, in the order of --cpu (default: 0, "
                 "1 and so on)")
      ->delimiter(',')
      ->type_name("N");
  app.add_option("--audit-rate", to.audit_rate,
                 "Flows a second to compare with the kernel's answers (default: 500; 0 = none)")
      ->type_name("N");
  app.add_flag("-j,--json", to.json, "Print one JSON object at the end");
  app.add_flag("-v,--verbose", to.verbosity, "Log what happens to standard error; twice for more");
}

// What a subcommand does, once the whole command line has been read.
using action = std::function<int()>;

void add_send(CLI::App& app, send_arguments& to, action& chosen) {
  auto* send = app.add_subcommand("send", "Send UDP datagrams");
  send->add_option("--to", to.to, "Destination; repeat it to send each payload to several")
      ->type_name("ADDR:PORT");
  send->add_option("--to-file", to.to_file, "File of destinations, one ADDR:PORT a line")
      ->type_name("FILE");
  send->add_option("--size", to.size, "Bytes of a generated payload (default: 64)")->type_name("N");
  send->add_option("--payload-file", to.payload_file, "Send the bytes of this file")
      ->type_name("FILE");
  send->add_flag("--stdin", to.from_stdin, "Send all of standard input as one payload");
  send->add_option("--count", to.count, "Stop after this many payloads")->type_name("N");
  send->add_option("--rate", to.rate,
                   "Datagrams a second, all destinations together (default: as fast as it goes)")
      ->type_name("PPS");
  send->add_option("--when-full", to.when_full,
                   "Where there is no free frame: wait, fail (counted as would_block) or "
                   "shed-oldest (default: wait)")
      ->type_name("POLICY");
  send->add_option("--via", to.via,
                   "Hand the datagrams to the 'cowire run' that serves this socket")
      ->type_name("PATH");
  add_transmit_options(*send, to);
  send->footer(send_notes);
  send->callback([&] { chosen = [&] { return run_send(to); }; });
}

void add_run(CLI::App& app, run_arguments& to, action& chosen) {
  auto* run =
      app.add_subcommand("run", "Send for other processes, which hand datagrams to a Unix socket");
  run->add_option("--intake", to.intake, "Path of the socket to serve")->type_name("PATH");
  add_transmit_options(*run, to);
  run->footer(
      "Serves until SIGINT, SIGTERM or SIGHUP, then drains and prints the summary; SIGUSR1 and\n"
      "SIGUSR2 print the totals so far to standard error. A client's datagrams are sent as its\n"
      "user's, which needs CAP_SETUID for users other than this command's.\n"
      "Example:\n  cowire run --intake /run/cowire.sock --interface eth0 --cpu 2,3 -j");
  run->callback([&] { chosen = [&] { return run_service(to); }; });
}

struct route_arguments {
  route_get_arguments get;
  std::vector<std::string> show;
  int verbosity = 0;
  bool json = false;
};

// "table T", or nothing.
std::string table_of(const std::vector<std::string>& words) {
  if (words.empty()) return "";
  if (words.size() == 2 && words[0] == "table") return words[1];
  throw usage_error("route show '" + words[0] +
                    "': only 'table T' can follow; write: cowire route show table main");
}

void add_route(CLI::App& app, route_arguments& to, action& chosen) {
  auto* route =
      app.add_subcommand("route", "Show what cowire would do, and the routes that it goes by");
  route->require_subcommand(1);
  auto* get = route->add_subcommand("get", "How a datagram would be sent, and why");
  get->add_option("query", to.get.query, "DST and what else routing depends on");
  get->add_option("-b,--batch", to.get.batch_file, "File with a query a line; '-' = standard input")
      ->type_name("FILE");
  get->add_flag("-j,--json", to.get.json, "Print a JSON array a query");
  get->footer(get_notes);
  get->callback([&] { chosen = [&] { return run_route_get(to.get); }; });

  auto* show = route->add_subcommand("show", "Routes, and whether the fast path serves them");
  show->add_option("table", to.show, "'table T': a name, a number or 'all' (default: main)")
      ->type_name("table T");
  show->add_flag("-j,--json", to.json, "Print one JSON array");
  show->callback([&] { chosen = [&] { return run_route_show(table_of(to.show), to.json); }; });

  auto* monitor = route->add_subcommand(
      "monitor", "Print every change of routes and output path when published");
  monitor->add_flag("-j,--json", to.json, "Print a JSON object a line");
  monitor->add_flag("-v,--verbose", to.verbosity, "Log what happens to standard error");
  monitor->callback([&] { chosen = [&] { return run_route_monitor(to.json, to.verbosity); }; });
}

void add_tunnel(CLI::App& app, tunnel_arguments& to, action& chosen) {
  auto* tunnel = app.add_subcommand("tunnel", "Tunnels, and whether the fast path serves them");
  tunnel->require_subcommand(1);
  const auto add = [&](const char* name, const char* text, int (*run)(const tunnel_arguments&)) {
    auto* one = tunnel->add_subcommand(name, text);
    one->add_option("words", to.words, "NAME and the words of 'ip tunnel'")->type_name("WORD");
    one->add_flag("-j,--json", to.json, "Print a JSON array with the keys of 'ip -d -s -j link'");
    one->footer(tunnel_notes);
    one->callback([&, run] { chosen = [&, run] { return run(to); }; });
  };
  add("show", "All tunnels, or one: parameters, underlay, MTU budget", run_tunnel_show);
  add("add", "Make one", run_tunnel_add);
  add("change", "Change what the words tell, and leave the rest", run_tunnel_change);
  add("del", "Remove one", run_tunnel_del);
}

struct doctor_arguments {
  std::string interface;
  bool json = false;
};

void add_doctor(CLI::App& app, doctor_arguments& to, action& chosen) {
  auto* doctor = app.add_subcommand(
      "doctor", "Check whether sending works here, and what would make it faster");
  doctor->add_option("interface", to.interface, "Examine this one (default: all that are up)")
      ->type_name("IF");
  doctor->add_flag("-j,--json", to.json, "Print one JSON object");
  doctor->callback([&] { chosen = [&] { return run_doctor(to.interface, to.json); }; });
}

// Messages are one line whatever their origin.
int fail(std::string message, int status = bad_input) {
  std::ranges::replace(message, '\n', ' ');
  std::cerr << "cowire: " << message << '\n';
  return status;
}

int explain_parse_error(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* deepest = &app;
  std::string command = app.get_name();
  for (auto subcommands = app.get_subcommands(); !subcommands.empty();
       subcommands = deepest->get_subcommands()) {
    deepest = subcommands.front();
    command += " " + deepest->get_name();
  }
  // Without its subcommand CLI11 says that one is required, not what stands in its place.
  const auto unknown = deepest->remaining();
  if (!unknown.empty() && dynamic_cast<const CLI::RequiredError*>(&error) != nullptr)
    return fail("'" + unknown.front() + "': no such command; see '" + command + " --help'");
  std::string message = error.what();
  if (message.size() > 1 && std::islower(static_cast<unsigned char>(message[1])) != 0)
    message[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(message[0])));
  return fail(message + "; see '" + command + " --help'");
}

std::string permission_hint(const std::system_error& error) {
  if (error.code() != std::errc::operation_not_permitted &&
      error.code() != std::errc::permission_denied)
    return "";
  return "; run as root or with CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF and CAP_IPC_LOCK ('cowire "
         "doctor' tells which is missing)";
}

int run(int argc, char** argv) {
  CLI::App app{"UDP through AF_XDP, exactly as the Linux kernel would send it", "cowire"};
  app.set_version_flag("--version", [] { return version_text(); });
  app.require_subcommand(1);
  app.footer(examples);
  action chosen;
  send_arguments send;
  run_arguments service;
  route_arguments route;
  tunnel_arguments tunnel;
  doctor_arguments doctor;
  add_send(app, send, chosen);
  add_run(app, service, chosen);
  add_route(app, route, chosen);
  add_tunnel(app, tunnel, chosen);
  add_doctor(app, doctor, chosen);
  try {
    app.parse(argc, argv);
    return chosen();
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    return explain_parse_error(app, error);
  } catch (const usage_error& error) {
    return fail(error.what());
  } catch (const std::system_error& error) {
    return fail(error.what() + permission_hint(error));
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}

int run_and_write(int argc, char** argv) {
  reserve_standard_descriptors();
  guarded_output output;
  const int status = run(argc, argv);
  const int failed = output.finish();
  if (failed == 0 || status != 0) return status;
  return fail(std::string("standard output: ") + std::strerror(failed), not_done);
}

}  // namespace
}  // namespace cowire::cli

int main(int argc, char** argv) { return cowire::cli::run_and_write(argc, argv); }
