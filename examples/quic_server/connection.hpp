// SPDX-License-Identifier: Apache-2.0
/// One QUIC connection: ngtcp2's state machine, its TLS session, and the streams that are written.
/// Without I/O: datagrams in, datagrams out, and a time at which it wants to be called.
#pragma once

#include "tls.hpp"
#include "transport.hpp"

#include <ngtcp2/ngtcp2.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace quic {

class connection;

/// By which id datagrams find a connection.
class id_registry {
 public:
  virtual ~id_registry() = default;
  virtual void add(const std::string& id, connection& of) = 0;
  virtual void remove(const std::string& id) = 0;
};

/// What runs over QUIC. All calls come from inside connection::read().
class protocol {
 public:
  virtual ~protocol() = default;
  /// The handshake is complete: streams may be opened.
  virtual void established(connection& on) = 0;
  /// In order; `last`: nothing comes behind it.
  virtual void received(connection& on, std::int64_t stream, std::span<const std::byte> bytes,
                        bool last) = 0;
};

/// The longest datagram that is ever written, probes included.
inline constexpr std::size_t datagram_max = 1452;
/// Of the ids that we choose.
inline constexpr std::size_t id_size = 12;

class connection {
 public:
  /// A server's, for a client's first packet. Throws what cannot be made.
  connection(id_registry& ids, const tls_credentials& tls, protocol& over, std::uint16_t port,
             const ngtcp2_pkt_hd& first, const arrival& with);
  /// A client's.
  connection(id_registry& ids, const tls_credentials& tls, protocol& over,
             const cowire::endpoint& local, const cowire::endpoint& remote);
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;
  ~connection();

  void read(const arrival& got);
  /// Writes the next datagram into `room` (datagram_max bytes). False: there is none now.
  bool write(std::span<std::byte> room, cowire::message& into);
  /// How many bytes may go at once, before pacing() is told and others have their turn.
  [[nodiscard]] std::size_t quantum() const { return ngtcp2_conn_get_send_quantum(quic_); }
  /// After the last write() of a turn.
  void pacing() { ngtcp2_conn_update_pkt_tx_time(quic_, now()); }
  /// When to call handle_expiry().
  [[nodiscard]] clock::time_point expiry() const;
  void handle_expiry();
  /// Nothing will come of it any more: no call but destruction.
  [[nodiscard]] bool over() const noexcept { return state_ == state::over; }
  [[nodiscard]] bool failed() const noexcept { return error_ != 0; }

  /// Bytes for a stream: `head`, then `document` bytes of the document, and then its end if `last`.
  /// Once for a stream.
  void send(std::int64_t stream, std::vector<std::byte> head, std::uint64_t document, bool last);
  /// A stream of our own; throws where the other end allows no more.
  [[nodiscard]] std::int64_t open(bool bidirectional);
  /// With the application's error 0x100 (no error), when write() is called next.
  void close() noexcept { state_ = state::closing; }

 private:
  enum class state { open, closing, over };
  /// A stream's bytes. `head` stays for retransmissions; the document always does.
  struct outgoing {
    std::vector<std::byte> head;
    std::uint64_t size = 0;  ///< Of head and document.
    std::uint64_t sent = 0;
    bool last = false;
    bool ended = false;
    [[nodiscard]] bool pending() const noexcept { return sent < size || (last && !ended); }
  };
  struct piece;

  [[nodiscard]] static ngtcp2_callbacks callbacks(tls_credentials::role of);
  [[nodiscard]] static ngtcp2_settings settings();
  [[nodiscard]] static ngtcp2_transport_params parameters();
  [[nodiscard]] static ngtcp2_tstamp now();
  void finish_making(const tls_credentials& tls);
  void adopt(const ngtcp2_cid& id);
  void received(std::int64_t stream, std::span<const std::byte> bytes, bool last);
  [[nodiscard]] std::map<std::int64_t, outgoing>::iterator next_pending(
      const std::set<std::int64_t>& blocked);
  [[nodiscard]] ngtcp2_ssize write_streams(std::span<std::byte> room, ngtcp2_path& path,
                                           ngtcp2_pkt_info& marks);
  [[nodiscard]] ngtcp2_ssize write_close(std::span<std::byte> room, ngtcp2_path& path,
                                         ngtcp2_pkt_info& marks);
  void take_answer(int answer);

  id_registry& ids_;
  protocol& over_;
  std::uint16_t port_;
  ngtcp2_crypto_conn_ref reference_;
  ngtcp2_conn* quic_ = nullptr;
  tls_session tls_;
  std::set<std::string> own_ids_;
  std::map<std::int64_t, outgoing> streams_;
  state state_ = state::open;
  int error_ = 0;  ///< Of ngtcp2, for which it is closed.
};

/// An id as a key.
[[nodiscard]] inline std::string key_of(const std::uint8_t* id, std::size_t size) {
  return {reinterpret_cast<const char*>(id), size};
}

}  // namespace quic
