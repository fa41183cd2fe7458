// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/shared_source.hpp>

#include <cowire/base/error.hpp>
#include <cowire/ring/detail/duplicate.hpp>
#include <cowire/ring/detail/shared_pool.hpp>
#include <cowire/ring/detail/socket_drops.hpp>

#include <cerrno>
#include <cstring>
#include <new>
#include <string>
#include <utility>

namespace cowire::detail {

shared_source::shared_source(ring_context& ring, int socket, const options& wanted,
                             std::shared_ptr<void> keep)
    : ring_object(loop_of(ring)),
      request(kind::receive, -1),
      kept_(std::move(keep)),
      socket_(duplicate(socket)),
      wanted_(wanted) {
  if (wanted.buffer_count == 0 || wanted.buffer_count > buffer_group::count_max)
    throw_error(make_error_code(error::invalid_argument),
                "receiving: buffer_count " + std::to_string(wanted.buffer_count) +
                    " is not in 1 to " + std::to_string(buffer_group::count_max));
  if (wanted.payload_capacity == 0)
    throw_error(make_error_code(error::invalid_argument), "receiving: payload_capacity 0");
  fd = socket_.get();
  message.msg_namelen = static_cast<socklen_t>(wanted.name_capacity);
  message.msg_controllen = wanted.control_capacity;
}

std::uint32_t shared_source::socket_drops() const noexcept { return drops_of(socket_.get()); }

void shared_source::deliver_to(const std::shared_ptr<datagram_sink>& sink) {
  owner_ = sink;
  loop().post_function([s = std::static_pointer_cast<shared_source>(shared_from_this()),
                        to = sink]() mutable { s->begin(std::move(to)); });
}

void shared_source::begin(std::shared_ptr<datagram_sink> sink) {
  if (closed_) return;
  sink_ = std::move(sink);
  listening_ = true;
  if (!pool_) try {
      pool_ = shared_pool::join(loop(), wanted_);
      request::group = &pool_->group();
    } catch (const std::bad_alloc&) {
      return deliver({{}, errno_code(ENOMEM)});
    }
  flush();
}

void shared_source::close() noexcept {
  loop().post_function([s = std::static_pointer_cast<shared_source>(shared_from_this())] {
    if (!s->closed_) s->finish();
  });
}

void shared_source::finish() {
  closed_ = true;
  const auto sink = std::move(sink_);
  parked_.clear();
  if (!started()) return leave();
  // The ring runs on until the socket is closed.
  loop().work_started();
  ending_ = true;
  loop().kernel().cancel(*this);
}

void shared_source::leave() noexcept {
  if (!pool_) return;
  if (std::exchange(starved_, false)) pool_->add_waiting(-1);
  pool_->collect();
  pool_->leave(*this, wanted_.buffer_count, held_);
  pool_ = nullptr;
}

void shared_source::on_shutdown() noexcept {
  closed_ = true;
  const auto sink = owner_.lock();
  sink_ = nullptr;
  parked_.clear();
  if (!started()) leave();
  if (sink) sink->ring_gone();
}

void shared_source::on_event(const event& e) noexcept {
  // Released last: it may be all that keeps this object.
  const auto last = e.more ? nullptr : std::move(self_);
  if (!e.more && std::exchange(ending_, false)) loop().work_finished();
  if (e.buffer) {
    if (closed_ || e.result < 0)
      pool_->put_back(*e.buffer);
    else
      receive(*e.buffer, e.result);
  }
  if (e.more) return;
  if (closed_) return leave();
  conclude(e.result);
}

void shared_source::receive(std::uint16_t id, int result) {
  if (!has_room()) pool_->collect();
  if (!has_room() || !parked_.empty()) {
    const auto filled = pool_->buffer(id).first(static_cast<std::size_t>(result));
    parked_.emplace_back(filled.begin(), filled.end());
    return pool_->put_back(id);
  }
  pool_->hand_to(*this, id);
  hand_over(id, result);
  if (!has_room()) starve();
}

void shared_source::hand_over(std::uint16_t id, int result) {
  ++held_;
  deliver({datagram(pool_, id, pool_->payload(id, result)), {}});
}

void shared_source::deliver(source_entry entry) noexcept {
  if (sink_ && !sink_->take(entry)) listening_ = false;
}

/// All leases are in use, as far as is known: leaves the rest to the socket's own queue.
void shared_source::starve() {
  if (starved_) return;
  starved_ = true;
  // In this order: what comes back from here on is told of, what came before is found.
  pool_->add_waiting(1);
  pool_->collect();
  if (has_room()) return;
  times_starved_.fetch_add(1, std::memory_order_relaxed);
  loop().kernel().cancel(*this);
}

/// The receive is no longer armed: decides what that means.
void shared_source::conclude(int result) noexcept {
  if (result == -ENOBUFS)
    pool_->deepen();
  else if (result < 0 && result != -ECANCELED)
    deliver({{}, errno_code(-result)});
  schedule_flush();
}

void shared_source::flush() {
  if (closed_) return;
  for (; has_room() && !parked_.empty(); parked_.pop_front()) {
    const auto& bytes = parked_.front();
    const std::uint16_t id = pool_->pop();
    std::memcpy(pool_->buffer(id).data(), bytes.data(), bytes.size());
    pool_->hand_to(*this, id);
    hand_over(id, static_cast<int>(bytes.size()));
  }
  if (!has_room()) return starve();
  if (std::exchange(starved_, false)) pool_->add_waiting(-1);
  if (started() || !listening_) return;
  self_ = shared_from_this();
  loop().kernel().start(*this);
}

void shared_source::schedule_flush() noexcept {
  if (!flush_.queued())
    flush_.post(loop(), std::static_pointer_cast<shared_source>(shared_from_this()));
}

}  // namespace cowire::detail
