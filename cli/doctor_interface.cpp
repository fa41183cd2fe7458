// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/doctor.hpp>
#include <cowire/xdp/device.hpp>
#include <cowire/xdp/known_trouble.hpp>

#include <filesystem>
#include <fstream>
#include <set>
#include <system_error>

namespace cowire::cli {
namespace {

std::string or_unknown(std::uint32_t number) { return number == 0 ? "?" : std::to_string(number); }

finding link_state(const device_facts& device) {
  if (!device.up)
    return {"link", health::fail, "down", "nothing can be sent through it",
            "ip link set " + device.name + " up"};
  if (!device.carrier)
    return {"link", health::fail, "no carrier", "nothing reaches the wire",
            "check the cable, or the other end of the pair"};
  return {"link", health::ok, "up", "the link is up and has a carrier", ""};
}

finding driver(const device_facts& device) {
  finding f{"driver", health::ok, device.driver.empty() ? "?" : device.driver, "", ""};
  if (!device.driver_version.empty()) f.value += " " + device.driver_version;
  if (!device.bus.empty()) f.value += " at " + device.bus;
  f.meaning = "frames start with an Ethernet header, as AF_XDP needs it";
  if (!device.ethernet) {
    f.status = health::warn;
    f.meaning = "not an Ethernet device: the kernel path sends, correct but slower";
    f.remedy = "send through an Ethernet device where speed matters";
  }
  return f;
}

finding xdp_support(const device_facts& device) {
  if (!device.features)
    return {"xdp", health::warn, "unknown",
            "kernel or driver does not declare it (Linux 6.3 does); the mode ladder finds out", ""};
  if (!device.features->native)
    return {"xdp", health::warn, "generic only",
            "AF_XDP works in generic mode: frames are copied, no zero-copy", ""};
  return {"xdp", health::ok, "native", "the driver runs XDP programs itself", ""};
}

finding zero_copy_support(const device_facts& device) {
  if (device.features && device.features->zero_copy)
    return {"zero_copy", health::ok, "supported", "frames go to the NIC without a copy", ""};
  const std::string value = device.features ? "not supported" : "unknown";
  return {"zero_copy", health::warn, value,
          "frames are copied once by the kernel: correct, slower than zero-copy",
          device.features
              ? "use a NIC whose driver has AF_XDP zero-copy (i40e, ice, ixgbe, igb, mlx5, ...)"
              : ""};
}

finding transmit_metadata(const device_facts& device) {
  std::string offers;
  if (device.features && device.features->tx_checksum) offers = "checksum";
  if (device.features && device.features->tx_launch_time)
    offers += std::string(offers.empty() ? "" : ", ") + "launch time";
  return {"tx_metadata", health::ok, offers.empty() ? "none" : offers,
          "not used: checksums are made while payloads are copied, and a datagram leaves at once",
          ""};
}

void add_known_troubles(const device_facts& device, std::vector<finding>& out) {
  for (const known_trouble& trouble : known_troubles()) {
    if (trouble.driver != device.driver) continue;
    out.push_back({"known_trouble", health::warn, std::string(name(trouble.mode)),
                   std::string(trouble.what) + "; see " + std::string(trouble.source),
                   trouble.avoid ? "nothing: it is not used unless --mode names it" : ""});
  }
}

finding attached_program(const device_facts& device) {
  if (device.attached == xdp_attachment::none)
    return {"xdp_program", health::ok, "none",
            "cowire can attach its own where the driver needs one", ""};
  return {"xdp_program", health::warn,
          std::string(name(device.attached)) + ", id " + std::to_string(device.program_id),
          "somebody else's program is never replaced; without ours some drivers get a lower rung",
          "ip link set " + device.name + " xdp off, if it is not needed"};
}

/// The CPUs that serve the interrupts of a device's queues should not be those of the TX cores,
/// which never leave them; "" = the device does not say.
std::string interrupt_cpus(const device_facts& device) {
  std::error_code ec;
  std::set<std::string> cpus;
  const std::filesystem::path folder = "/sys/class/net/" + device.name + "/device/msi_irqs";
  for (const auto& irq : std::filesystem::directory_iterator(folder, ec)) {
    std::ifstream file("/proc/irq/" + irq.path().filename().string() + "/effective_affinity_list");
    if (std::string list; std::getline(file, list) && !list.empty()) cpus.insert(list);
  }
  std::string out;
  for (const auto& list : cpus) out += (out.empty() ? "" : ",") + list;
  return out;
}

void add_queues(const device_facts& device, std::vector<finding>& out) {
  const auto& queues = device.queues;
  finding f{"queues", health::ok,
            std::to_string(queues.rx) + " rx, " + std::to_string(queues.tx) + " tx",
            "as many TX cores can send on it at once, each on a queue of its own (--cpu N,M)", ""};
  if (queues.tx_max > queues.tx)
    f.remedy = more_queues(device, queues.tx_max) + ", for as many cores";
  out.push_back(f);
  if (const auto cpus = interrupt_cpus(device); !cpus.empty())
    out.push_back({"irq_cpus", health::ok, cpus,
                   "interrupts of its queues run here: give the TX cores other CPUs (--cpu), or "
                   "move interrupts by /proc/irq/N/smp_affinity_list",
                   ""});
}

finding mtu(const device_facts& device) {
  return {"mtu", health::ok, std::to_string(device.mtu),
          "longer datagrams are fragmented by the kernel, on its path", ""};
}

}  // namespace

std::vector<finding> examine_interface(const std::string& name) {
  std::error_code ec;
  const auto device = read_device(name, ec);
  if (ec)
    return {{name + " facts", health::fail, ec.message(), "the interface cannot be examined",
             "run as root"}};
  std::vector<finding> out{link_state(device), driver(device)};
  add_queues(device, out);
  out.push_back({"rings", health::ok,
                 "rx " + or_unknown(device.rings.rx) + " of " + or_unknown(device.rings.rx_max) +
                     ", tx " + or_unknown(device.rings.tx) + " of " +
                     or_unknown(device.rings.tx_max),
                 "larger rings ride out longer pauses, smaller ones stay in the cache", ""});
  out.push_back(xdp_support(device));
  out.push_back(zero_copy_support(device));
  out.push_back(transmit_metadata(device));
  add_known_troubles(device, out);
  out.push_back(attached_program(device));
  out.push_back(mtu(device));
  for (const auto& warning : device.warnings)
    out.push_back({"offload", health::warn, "in use", warning, ""});
  if (device.warnings.empty())
    out.push_back(
        {"offload", health::ok, "none that bites", "no setting in use that spoils AF_XDP", ""});
  for (auto& f : out) f.name = name + " " + f.name;
  return out;
}

}  // namespace cowire::cli
