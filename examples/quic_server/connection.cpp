// SPDX-License-Identifier: Apache-2.0
#include "connection.hpp"

#include "document.hpp"

#include <cowire/base/socket_address.hpp>

#include <gnutls/crypto.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace quic {
namespace {

/// H3_NO_ERROR (RFC 9114, 8.1).
constexpr std::uint64_t no_error = 0x100;
constexpr std::uint64_t stream_window = 1 << 20, connection_window = 16 << 20;
/// For the other end to say something.
constexpr ngtcp2_duration patience = 60 * NGTCP2_SECONDS;

void fill_randomly(void* bytes, std::size_t size) {
  if (gnutls_rnd(GNUTLS_RND_NONCE, bytes, size) != 0) throw std::runtime_error("no randomness");
}

[[nodiscard]] ngtcp2_cid new_id(std::size_t size) {
  ngtcp2_cid id;
  id.datalen = size;
  fill_randomly(id.data, size);
  return id;
}

/// The two ends of a datagram's way as ngtcp2 has them.
struct path {
  path(const cowire::endpoint& own, const cowire::endpoint& other) {
    const auto set = [](ngtcp2_addr& to, sockaddr_storage& storage, const cowire::endpoint& from) {
      to.addrlen = cowire::to_sockaddr(from, storage);
      to.addr = reinterpret_cast<ngtcp2_sockaddr*>(&storage);
    };
    set(ends.local, local, own);
    set(ends.remote, remote, other);
  }
  path(const path&) = delete;
  path& operator=(const path&) = delete;
  sockaddr_storage local, remote;
  ngtcp2_path ends{};
};

[[nodiscard]] cowire::endpoint endpoint_of(const ngtcp2_addr& from) {
  return cowire::to_endpoint(from.addr, static_cast<socklen_t>(from.addrlen)).value();
}

/// What ngtcp2, which is C, calls: no exception may go through it.
template <class Call>
[[nodiscard]] int guarded(Call&& call) noexcept {
  try {
    call();
    return 0;
  } catch (const std::exception&) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
}

[[nodiscard]] connection& object(void* user_data) { return *static_cast<connection*>(user_data); }

}  // namespace

/// What is written of a stream next.
struct connection::piece {
  explicit piece(const outgoing& of) {
    const auto add = [&](std::span<const std::byte> bytes) {
      // ngtcp2 does not write there.
      auto* const base = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(bytes.data()));
      parts[count++] = {base, bytes.size()};
      size += bytes.size();
    };
    if (of.sent < of.head.size()) add(std::span(of.head).subspan(of.sent));
    if (const std::uint64_t at = of.sent + size; at < of.size) {
      const auto bytes = document_at(at - of.head.size());
      add(bytes.first(std::min<std::uint64_t>(bytes.size(), of.size - at)));
    }
    ends = of.last && of.sent + size == of.size;
  }
  ngtcp2_vec parts[2];
  std::size_t count = 0, size = 0;
  bool ends = false;
};

connection::connection(id_registry& ids, const tls_credentials& tls, protocol& over,
                       std::uint16_t port, const ngtcp2_pkt_hd& first, const arrival& with)
    : ids_(ids), over_(over), port_(port) {
  auto offered = parameters();
  offered.original_dcid = first.dcid;
#if NGTCP2_VERSION_NUM >= 0x010000
  offered.original_dcid_present = 1;
#endif
  offered.stateless_reset_token_present = 1;
  fill_randomly(offered.stateless_reset_token, sizeof offered.stateless_reset_token);
  const auto id = new_id(id_size);
  const path way({with.destination, port}, with.source);
  const auto calls = callbacks(tls.of());
  const auto chosen = settings();
  if (ngtcp2_conn_server_new(&quic_, &first.scid, &id, &way.ends, first.version, &calls, &chosen,
                             &offered, nullptr, this) != 0)
    throw std::runtime_error("no server connection");
  adopt(id);
  adopt(first.dcid);
  finish_making(tls);
}

connection::connection(id_registry& ids, const tls_credentials& tls, protocol& over,
                       const cowire::endpoint& local, const cowire::endpoint& remote)
    : ids_(ids), over_(over), port_(local.port) {
  const auto offered = parameters();
  const auto id = new_id(id_size), first = new_id(NGTCP2_MAX_CIDLEN);
  const path way(local, remote);
  const auto calls = callbacks(tls.of());
  const auto chosen = settings();
  if (ngtcp2_conn_client_new(&quic_, &first, &id, &way.ends, NGTCP2_PROTO_VER_V1, &calls, &chosen,
                             &offered, nullptr, this) != 0)
    throw std::runtime_error("no client connection");
  adopt(id);
  finish_making(tls);
}

void connection::finish_making(const tls_credentials& tls) {
  reference_.user_data = this;
  reference_.get_conn = [](ngtcp2_crypto_conn_ref* of) { return object(of->user_data).quic_; };
  tls_ = tls.make_session(reference_);
  ngtcp2_conn_set_tls_native_handle(quic_, tls_.get());
}

connection::~connection() {
  for (const std::string& id : own_ids_) ids_.remove(id);
  ngtcp2_conn_del(quic_);
}

void connection::adopt(const ngtcp2_cid& id) {
  const std::string key = key_of(id.data, id.datalen);
  own_ids_.insert(key);
  ids_.add(key, *this);
}

ngtcp2_callbacks connection::callbacks(tls_credentials::role of) {
  ngtcp2_callbacks calls{};
  if (of == tls_credentials::role::server) {
    calls.recv_client_initial = ngtcp2_crypto_recv_client_initial_cb;
  } else {
    calls.client_initial = ngtcp2_crypto_client_initial_cb;
    calls.recv_retry = ngtcp2_crypto_recv_retry_cb;
  }
  calls.recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb;
  calls.encrypt = ngtcp2_crypto_encrypt_cb;
  calls.decrypt = ngtcp2_crypto_decrypt_cb;
  calls.hp_mask = ngtcp2_crypto_hp_mask_cb;
  calls.update_key = ngtcp2_crypto_update_key_cb;
  calls.delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb;
  calls.delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb;
  calls.get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb;
  calls.version_negotiation = ngtcp2_crypto_version_negotiation_cb;
  calls.rand = [](std::uint8_t* to, std::size_t size, const ngtcp2_rand_ctx*) noexcept {
    fill_randomly(to, size);
  };
  calls.get_new_connection_id = [](ngtcp2_conn*, ngtcp2_cid* id, std::uint8_t* token,
                                   std::size_t size, void* self) {
    return guarded([&] {
      *id = new_id(size);
      fill_randomly(token, NGTCP2_STATELESS_RESET_TOKENLEN);
      object(self).adopt(*id);
    });
  };
  calls.remove_connection_id = [](ngtcp2_conn*, const ngtcp2_cid* id, void* self) {
    const std::string key = key_of(id->data, id->datalen);
    object(self).own_ids_.erase(key);
    object(self).ids_.remove(key);
    return 0;
  };
  calls.handshake_completed = [](ngtcp2_conn*, void* self) {
    return guarded([&] { object(self).over_.established(object(self)); });
  };
  calls.recv_stream_data = [](ngtcp2_conn*, std::uint32_t flags, std::int64_t stream, std::uint64_t,
                              const std::uint8_t* data, std::size_t size, void* self, void*) {
    const bool last = (flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0;
    return guarded(
        [&] { object(self).received(stream, std::as_bytes(std::span(data, size)), last); });
  };
  calls.stream_close = [](ngtcp2_conn* quic, std::uint32_t, std::int64_t stream, std::uint64_t,
                          void* self, void*) {
    object(self).streams_.erase(stream);
    if (ngtcp2_conn_is_local_stream(quic, stream) == 0 && ngtcp2_is_bidi_stream(stream) != 0)
      ngtcp2_conn_extend_max_streams_bidi(quic, 1);
    return 0;
  };
  return calls;
}

ngtcp2_settings connection::settings() {
  ngtcp2_settings chosen;
  ngtcp2_settings_default(&chosen);
  chosen.initial_ts = now();
  chosen.max_tx_udp_payload_size = datagram_max;
  chosen.handshake_timeout = patience;
  return chosen;
}

ngtcp2_transport_params connection::parameters() {
  ngtcp2_transport_params offered;
  ngtcp2_transport_params_default(&offered);
  offered.initial_max_stream_data_bidi_local = stream_window;
  offered.initial_max_stream_data_bidi_remote = stream_window;
  offered.initial_max_stream_data_uni = stream_window;
  offered.initial_max_data = connection_window;
  offered.initial_max_streams_bidi = 100;
  offered.initial_max_streams_uni = 10;
  offered.max_idle_timeout = patience;
  return offered;
}

ngtcp2_tstamp connection::now() {
  return static_cast<ngtcp2_tstamp>(clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
}

void connection::received(std::int64_t stream, std::span<const std::byte> bytes, bool last) {
  ngtcp2_conn_extend_max_stream_offset(quic_, stream, bytes.size());
  ngtcp2_conn_extend_max_offset(quic_, bytes.size());
  over_.received(*this, stream, bytes, last);
}

void connection::read(const arrival& got) {
  const path way({got.destination, port_}, got.source);
  ngtcp2_pkt_info marks{};
  marks.ecn = got.ecn;
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(got.bytes.data());
  take_answer(ngtcp2_conn_read_pkt(quic_, &way.ends, &marks, bytes, got.bytes.size(), now()));
}

void connection::handle_expiry() { take_answer(ngtcp2_conn_handle_expiry(quic_, now())); }

/// What is fatal is told to the other end by the next write(), where anybody listens.
void connection::take_answer(int answer) {
  if (answer == 0 || state_ == state::over) return;
  const bool silent = answer == NGTCP2_ERR_DRAINING || answer == NGTCP2_ERR_DROP_CONN ||
                      answer == NGTCP2_ERR_IDLE_CLOSE || answer == NGTCP2_ERR_RETRY;
  if (answer != NGTCP2_ERR_DRAINING) error_ = answer;
  state_ = silent ? state::over : state::closing;
}

clock::time_point connection::expiry() const {
  const ngtcp2_tstamp at = ngtcp2_conn_get_expiry(quic_);
  if (at == UINT64_MAX) return clock::time_point::max();
  return clock::time_point(std::chrono::nanoseconds(at));
}

std::int64_t connection::open(bool bidirectional) {
  std::int64_t stream = -1;
  const int answer = bidirectional ? ngtcp2_conn_open_bidi_stream(quic_, &stream, nullptr)
                                   : ngtcp2_conn_open_uni_stream(quic_, &stream, nullptr);
  if (answer != 0) throw std::runtime_error(ngtcp2_strerror(answer));
  return stream;
}

void connection::send(std::int64_t stream, std::vector<std::byte> head, std::uint64_t document,
                      bool last) {
  outgoing& to = streams_[stream];
  to.size = head.size() + document;
  to.head = std::move(head);
  to.last = last;
}

std::map<std::int64_t, connection::outgoing>::iterator connection::next_pending(
    const std::set<std::int64_t>& blocked) {
  return std::find_if(streams_.begin(), streams_.end(), [&](const auto& each) {
    return each.second.pending() && !blocked.contains(each.first);
  });
}

/// Packs streams into one datagram until it is full, or nothing is left to be written.
ngtcp2_ssize connection::write_streams(std::span<std::byte> room, ngtcp2_path& way,
                                       ngtcp2_pkt_info& marks) {
  std::set<std::int64_t> blocked;
  for (;;) {
    const auto next = next_pending(blocked);
    const bool any = next != streams_.end();
    const piece data = any ? piece(next->second) : piece(outgoing{});
    std::uint32_t flags = any ? NGTCP2_WRITE_STREAM_FLAG_MORE : NGTCP2_WRITE_STREAM_FLAG_NONE;
    if (data.ends) flags |= NGTCP2_WRITE_STREAM_FLAG_FIN;
    ngtcp2_ssize taken = -1;
    const ngtcp2_ssize size = ngtcp2_conn_writev_stream(
        quic_, &way, &marks, reinterpret_cast<std::uint8_t*>(room.data()), room.size(), &taken,
        flags, any ? next->first : -1, data.parts, data.count, now());
    if (any && taken >= 0) {
      next->second.sent += static_cast<std::uint64_t>(taken);
      next->second.ended = data.ends && static_cast<std::size_t>(taken) == data.size;
    }
    if (size == NGTCP2_ERR_WRITE_MORE) continue;
    if (size != NGTCP2_ERR_STREAM_DATA_BLOCKED && size != NGTCP2_ERR_STREAM_SHUT_WR &&
        size != NGTCP2_ERR_STREAM_NOT_FOUND)
      return size;
    blocked.insert(next->first);
  }
}

ngtcp2_ssize connection::write_close(std::span<std::byte> room, ngtcp2_path& way,
                                     ngtcp2_pkt_info& marks) {
#if NGTCP2_VERSION_NUM >= 0x010000
  ngtcp2_ccerr why;
  if (error_ == NGTCP2_ERR_CRYPTO)
    ngtcp2_ccerr_set_tls_alert(&why, ngtcp2_conn_get_tls_alert(quic_), nullptr, 0);
  else if (error_ != 0)
    ngtcp2_ccerr_set_liberr(&why, error_, nullptr, 0);
  else
    ngtcp2_ccerr_set_application_error(&why, no_error, nullptr, 0);
#else
  ngtcp2_connection_close_error why;
  if (error_ == NGTCP2_ERR_CRYPTO)
    ngtcp2_connection_close_error_set_transport_error_tls_alert(
        &why, ngtcp2_conn_get_tls_alert(quic_), nullptr, 0);
  else if (error_ != 0)
    ngtcp2_connection_close_error_set_transport_error_liberr(&why, error_, nullptr, 0);
  else
    ngtcp2_connection_close_error_set_application_error(&why, no_error, nullptr, 0);
#endif
  return ngtcp2_conn_write_connection_close(
      quic_, &way, &marks, reinterpret_cast<std::uint8_t*>(room.data()), room.size(), &why, now());
}

bool connection::write(std::span<std::byte> room, cowire::message& into) {
  if (state_ == state::over) return false;
  ngtcp2_path_storage way;
  ngtcp2_path_storage_zero(&way);
  ngtcp2_pkt_info marks{};
  ngtcp2_ssize size = 0;
  if (state_ == state::open) size = write_streams(room, way.path, marks);
  if (size < 0) take_answer(static_cast<int>(size));
  if (state_ == state::closing) {
    size = write_close(room, way.path, marks);
    state_ = state::over;
  }
  if (size <= 0) return false;
  into.bytes = std::span<const std::byte>(room.first(static_cast<std::size_t>(size)));
  into.destination = endpoint_of(way.path.remote);
  // None may be fragmented, and some are to find out how long they may be (RFC 9000, 14).
  into.options = {.source = endpoint_of(way.path.local).address,
                  .ecn = static_cast<cowire::ecn_codepoint>(marks.ecn),
                  .path_mtu_probe = true};
  return true;
}

}  // namespace quic
