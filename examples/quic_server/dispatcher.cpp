// SPDX-License-Identifier: Apache-2.0
#include "dispatcher.hpp"

#include <stdexcept>

namespace quic {

connection& dispatcher::connect(protocol& with, const cowire::endpoint& local,
                                const cowire::endpoint& remote) {
  auto made = std::make_unique<connection>(*this, tls_, with, local, remote);
  connection& out = *made;
  all_[&out] = {std::move(made), clock::time_point::max()};
  touched_.insert(&out);
  return out;
}

asio::awaitable<void> dispatcher::run() {
  co_await write_all();
  while (is_server() || !all_.empty()) {
    for (const arrival& got : co_await transport_.receive(next_deadline())) dispatch(got);
    expire();
    co_await write_all();
  }
}

clock::time_point dispatcher::next_deadline() const {
  return deadlines_.empty() ? clock::time_point::max() : deadlines_.begin()->first;
}

void dispatcher::dispatch(const arrival& got) {
  ngtcp2_version_cid head;
  const int answer = ngtcp2_pkt_decode_version_cid(
      &head, reinterpret_cast<const std::uint8_t*>(got.bytes.data()), got.bytes.size(), id_size);
  if (answer == NGTCP2_ERR_VERSION_NEGOTIATION && is_server()) return answer_version(head, got);
  if (answer != 0) return;
  const auto found = by_id_.find(key_of(head.dcid, head.dcidlen));
  connection* const to = found != by_id_.end() ? found->second
                         : is_server()         ? accept(got)
                                               : nullptr;
  if (to == nullptr || to->over()) return;
  to->read(got);
  touched_.insert(to);
}

/// Null for what begins no connection: what comes late for one that is over, or is not QUIC.
connection* dispatcher::accept(const arrival& got) {
  ngtcp2_pkt_hd first;
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(got.bytes.data());
  if (ngtcp2_accept(&first, bytes, got.bytes.size()) != 0) return nullptr;
  auto made =
      std::make_unique<connection>(*this, tls_, *protocol_, transport_.number(), first, got);
  connection* const out = made.get();
  all_[out] = {std::move(made), clock::time_point::max()};
  ++accepted_;
  return out;
}

/// The batch is empty before what has arrived is dispatched, and has room for an answer to each.
void dispatcher::answer_version(const ngtcp2_version_cid& asked, const arrival& got) {
  static_assert(batch_max >= arrivals_max);
  const std::uint32_t versions[] = {NGTCP2_PROTO_VER_V1};
  auto& room = rooms_[batch_.size()];
  const auto size = ngtcp2_pkt_write_version_negotiation(
      reinterpret_cast<std::uint8_t*>(room.data()), room.size(), 0, asked.scid, asked.scidlen,
      asked.dcid, asked.dcidlen, versions, std::size(versions));
  if (size <= 0) return;
  batch_.push_back({std::span<const std::byte>(room).first(static_cast<std::size_t>(size)),
                    got.source,
                    {.source = got.destination, .path_mtu_probe = true}});
}

void dispatcher::expire() {
  const auto now = clock::now();
  for (const auto& [when, of] : deadlines_) {
    if (when > now) break;
    of->handle_expiry();
    touched_.insert(of);
  }
}

asio::awaitable<void> dispatcher::write_all() {
  for (connection* const each : touched_) co_await write(*each);
  co_await flush();
  for (connection* const each : touched_) settle(*each);
  touched_.clear();
}

asio::awaitable<void> dispatcher::write(connection& from) {
  std::size_t written = 0;
  const std::size_t quantum = from.over() ? 0 : from.quantum();
  while (written < quantum) {
    if (batch_.size() == batch_max) co_await flush();
    cowire::message next;
    if (!from.write(rooms_[batch_.size()], next)) break;
    written += next.bytes.span().size();
    batch_.push_back(next);
  }
  if (!from.over()) from.pacing();
}

asio::awaitable<void> dispatcher::flush() {
  if (!batch_.empty()) co_await transport_.send(batch_);
  batch_.clear();
}

void dispatcher::settle(connection& of) {
  auto& [owner, deadline] = all_.at(&of);
  if (!of.over() && of.expiry() == deadline) return;
  deadlines_.erase({deadline, &of});
  if (of.over()) {
    if (of.failed()) ++failed_;
    all_.erase(&of);
    return;
  }
  deadline = of.expiry();
  if (deadline != clock::time_point::max()) deadlines_.insert({deadline, &of});
}

}  // namespace quic
