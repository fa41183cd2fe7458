// SPDX-License-Identifier: Apache-2.0
/// TLS of connections, by GnuTLS: sessions that ngtcp2's helper drives, and a certificate that is
/// made on the spot and signed by itself.
#pragma once

#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2_crypto.h>

#include <memory>

namespace quic {

struct session_deleter {
  void operator()(gnutls_session_t session) const noexcept { gnutls_deinit(session); }
};
using tls_session = std::unique_ptr<gnutls_session_int, session_deleter>;

/// What all connections of a host share; goes after them.
class tls_credentials {
 public:
  enum class role { server, client };
  /// Of a server with a new key and certificate. A client believes every server: this is an
  /// example, and the certificate nobody's.
  explicit tls_credentials(role of);
  tls_credentials(const tls_credentials&) = delete;
  tls_credentials& operator=(const tls_credentials&) = delete;
  ~tls_credentials();

  /// `connection` finds the QUIC connection, and goes after the session.
  [[nodiscard]] tls_session make_session(ngtcp2_crypto_conn_ref& connection) const;
  [[nodiscard]] role of() const noexcept { return role_; }

 private:
  role role_;
  gnutls_certificate_credentials_t credentials_ = nullptr;
};

}  // namespace quic
