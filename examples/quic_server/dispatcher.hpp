// SPDX-License-Identifier: Apache-2.0
/// All connections of one transport: datagrams find them by their ids, time by their expiries, and
/// what they write is sent in turn. One coroutine, run(), does all of it.
#pragma once

#include "connection.hpp"

#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace quic {

class dispatcher final : public id_registry {
 public:
  /// All of it goes after the dispatcher. A server's accepts whoever comes.
  dispatcher(transport& over, const tls_credentials& tls, protocol& with)
      : transport_(over), tls_(tls), protocol_(&with) {}
  /// For clients.
  dispatcher(transport& over, const tls_credentials& tls) : transport_(over), tls_(tls) {}

  /// `with` goes after the connection, which goes when it is over.
  connection& connect(protocol& with, const cowire::endpoint& local,
                      const cowire::endpoint& remote);
  /// It has something to write, of which nothing that arrived for it tells.
  void wake(connection& of) { touched_.insert(&of); }
  /// Until a client's last connection is over; of a server for ever.
  asio::awaitable<void> run();

  [[nodiscard]] std::size_t accepted() const noexcept { return accepted_; }
  /// Connections that ended otherwise than by the other end or close().
  [[nodiscard]] std::size_t failed() const noexcept { return failed_; }

  void add(const std::string& id, connection& of) override { by_id_[id] = &of; }
  void remove(const std::string& id) override { by_id_.erase(id); }

 private:
  [[nodiscard]] bool is_server() const noexcept { return protocol_ != nullptr; }
  [[nodiscard]] clock::time_point next_deadline() const;
  void dispatch(const arrival& got);
  [[nodiscard]] connection* accept(const arrival& got);
  void answer_version(const ngtcp2_version_cid& asked, const arrival& got);
  void expire();
  asio::awaitable<void> write_all();
  /// What the connection has to say now, or a quantum of it.
  asio::awaitable<void> write(connection& from);
  asio::awaitable<void> flush();
  /// Sets its deadline anew, or forgets it.
  void settle(connection& of);

  transport& transport_;
  const tls_credentials& tls_;
  protocol* protocol_ = nullptr;
  std::unordered_map<std::string, connection*> by_id_;
  std::map<connection*, std::pair<std::unique_ptr<connection>, clock::time_point>> all_;
  std::set<std::pair<clock::time_point, connection*>> deadlines_;
  std::set<connection*> touched_;  ///< These may have something to write.
  std::vector<std::array<std::byte, datagram_max>> rooms_ =
      std::vector<std::array<std::byte, datagram_max>>(batch_max);
  std::vector<cowire::message> batch_;
  std::size_t accepted_ = 0, failed_ = 0;

  static constexpr std::size_t batch_max = 64;
};

}  // namespace quic
