// SPDX-License-Identifier: Apache-2.0
// What the guide's snippets use without having made it; declared only, as they are compiled only.
#pragma once

#include <asio/io_context.hpp>
#include <cowire/cowire.hpp>

#include <array>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace snippets {

extern asio::io_context io;
extern cowire::ring_context ring;
extern cowire::transmitter tx;
extern cowire::sender sender;
extern cowire::shared_sender shared;
extern cowire::port port;
extern cowire::endpoint destination;
extern std::vector<cowire::endpoint> peers;
extern std::span<const std::byte> bytes;
extern int my_socket;
std::size_t encode_into(std::span<std::byte> room);

}  // namespace snippets
