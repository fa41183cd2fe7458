// SPDX-License-Identifier: Apache-2.0
/// A sender of the C interface, for what compares it with C++'s. One thread.
#pragma once

#include <cowire/base/unique_fd.hpp>

#include <arpa/inet.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

#include "c/cowire.h"

namespace cowire::bench {

/// A configuration with the core on `cpu`, never asleep: else the caller would do its work.
inline std::string file_for_c(unsigned cpu) {
  std::string name = "/tmp/cowire-bench-calls-XXXXXX";
  const unique_fd fd(::mkstemp(name.data()));
  const std::string content = "[xdp]\ncpus = [" + std::to_string(cpu) + "]\nidle = 'spin'\n";
  if (!fd || ::write(fd.get(), content.data(), content.size()) < 0)
    throw std::runtime_error("a file in /tmp");
  return name;
}

/// Its transmitter as well. Datagrams go to 127.0.0.1.
class c_sender {
 public:
  c_sender(unsigned core_cpu, std::string_view text, std::uint16_t port) {
    const std::string file = file_for_c(core_cpu);
    const int opened = cowire_open_file(file.c_str(), &tx_);
    ::unlink(file.c_str());
    cowire_sender_options choices = COWIRE_SENDER_OPTIONS_INIT;
    if (opened != 0 || cowire_sender_open(tx_, &choices, &sender_) != 0)
      throw std::runtime_error(cowire_text());
    one_.data = text.data();
    one_.length = text.size();
    one_.to.v4.sin_family = AF_INET;
    one_.to.v4.sin_port = htons(port);
    one_.to.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  c_sender(const c_sender&) = delete;
  c_sender& operator=(const c_sender&) = delete;
  ~c_sender() {
    cowire_sender_close(sender_);
    cowire_close(tx_);
  }
  [[nodiscard]] bool send() const { return cowire_try_send(sender_, &one_, 1) == 1; }
  void wait_until_home() const {
    for (std::array<cowire_counter, 32> all;;) {
      const std::size_t count = cowire_counters(tx_, all.data(), all.size());
      for (std::size_t i = 0; i < count && i < all.size(); ++i)
        if (std::string_view(all[i].name) == "on_the_way" && all[i].value == 0) return;
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }

 private:
  cowire_transmitter* tx_ = nullptr;
  cowire_sender* sender_ = nullptr;
  cowire_datagram one_{};
};

}  // namespace cowire::bench
