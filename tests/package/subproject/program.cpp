// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/ring_context.hpp>

int main() {
  cowire::ring_context ring;
  bool ran = false;
  asio::post(ring, [&] { ran = true; });
  ring.run();
  return ran ? 0 : 1;
}
