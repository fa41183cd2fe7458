// SPDX-License-Identifier: Apache-2.0
#include "tls.hpp"

#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#include <ctime>
#include <stdexcept>
#include <string>

namespace quic {
namespace {

constexpr const char* priorities =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:"
    "-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:%DISABLE_TLS13_COMPAT_MODE";
constexpr std::time_t day_s = 86'400;

void check(int answer, const char* what) {
  if (answer < 0) throw std::runtime_error(std::string(what) + ": " + gnutls_strerror(answer));
}

/// A key, and a certificate for it that is valid for a month.
void make_certificate(gnutls_x509_privkey_t key, gnutls_x509_crt_t certificate) {
  check(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                     GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
        "making a key");
  unsigned char serial[8];
  check(gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof serial), "making a serial number");
  serial[0] &= 0x7f;  // Not negative.
  const std::string name = "localhost";
  check(gnutls_x509_crt_set_version(certificate, 3), "version");
  check(gnutls_x509_crt_set_serial(certificate, serial, sizeof serial), "serial");
  check(gnutls_x509_crt_set_activation_time(certificate, std::time(nullptr) - day_s), "time");
  check(gnutls_x509_crt_set_expiration_time(certificate, std::time(nullptr) + 30 * day_s), "time");
  check(gnutls_x509_crt_set_dn(certificate, ("CN=" + name).c_str(), nullptr), "name");
  check(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, name.data(),
                                             static_cast<unsigned>(name.size()), 0),
        "name");
  check(gnutls_x509_crt_set_key(certificate, key), "key");
  check(gnutls_x509_crt_sign2(certificate, certificate, key, GNUTLS_DIG_SHA256, 0), "signing");
}

}  // namespace

tls_credentials::tls_credentials(role of) : role_(of) {
  check(gnutls_certificate_allocate_credentials(&credentials_), "credentials");
  if (of == role::client) return;
  gnutls_x509_privkey_t key = nullptr;
  gnutls_x509_crt_t certificate = nullptr;
  check(gnutls_x509_privkey_init(&key), "key");
  check(gnutls_x509_crt_init(&certificate), "certificate");
  make_certificate(key, certificate);
  check(gnutls_certificate_set_x509_key(credentials_, &certificate, 1, key), "certificate");
  gnutls_x509_crt_deinit(certificate);
  gnutls_x509_privkey_deinit(key);
}

tls_credentials::~tls_credentials() { gnutls_certificate_free_credentials(credentials_); }

tls_session tls_credentials::make_session(ngtcp2_crypto_conn_ref& connection) const {
  gnutls_session_t made = nullptr;
  const bool server = role_ == role::server;
  check(gnutls_init(&made, server ? GNUTLS_SERVER : GNUTLS_CLIENT), "TLS session");
  tls_session session(made);
  check(gnutls_priority_set_direct(made, priorities, nullptr), "priorities");
  const int configured = server ? ngtcp2_crypto_gnutls_configure_server_session(made)
                                : ngtcp2_crypto_gnutls_configure_client_session(made);
  if (configured != 0) throw std::runtime_error("the TLS session is not fit for QUIC");
  gnutls_session_set_ptr(made, &connection);
  check(gnutls_credentials_set(made, GNUTLS_CRD_CERTIFICATE, credentials_), "credentials");
  unsigned char h3[] = "h3";
  const gnutls_datum_t protocol{h3, 2};
  check(gnutls_alpn_set_protocols(made, &protocol, 1, GNUTLS_ALPN_MANDATORY), "ALPN");
  return session;
}

}  // namespace quic
