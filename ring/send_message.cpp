// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/send_message.hpp>

#include <cowire/base/assert.hpp>
#include <cowire/base/error.hpp>
#include <cowire/ring/detail/backend.hpp>

#include <cstring>

namespace cowire::detail {
namespace {

/// Ring thread only, but for its construction.
class send_state final : public ring_object, public request {
 public:
  send_state(detail::event_loop& l, int socket, const message_view& m)
      : ring_object(l), request(kind::send, socket) {
    COWIRE_ASSERT(m.address.size() <= sizeof address_);
    if (!m.address.empty()) std::memcpy(&address_, m.address.data(), m.address.size());
    // sendmsg reads through these pointers, whatever their type says.
    part_ = {const_cast<std::byte*>(m.payload.data()), m.payload.size()};
    message.msg_name = m.address.empty() ? nullptr : &address_;
    message.msg_namelen = static_cast<socklen_t>(m.address.size());
    message.msg_iov = &part_;
    message.msg_iovlen = 1;
    message.msg_control = const_cast<std::byte*>(m.control.data());
    message.msg_controllen = m.control.size();
    flags = m.flags | MSG_NOSIGNAL;
  }

  void start(completion_ptr<std::error_code, std::size_t> c) {
    // A deferred operation that was launched twice.
    if (started()) return c.release()->complete(errno_code(EALREADY), 0);
    waiting_.push(std::move(c));
    self_ = shared_from_this();
    loop().kernel().start(*this);
  }

  // The payload belongs to the kernel until the last event: the handler has to wait for it.
  void on_cancel(std::uint64_t) override { loop().kernel().cancel(*this); }

  void on_event(const event& e) noexcept override {
    const auto last = std::move(self_);
    auto* c = waiting_.pop();
    if (!c) return;  // The ring went away.
    if (e.result >= 0)
      c->complete({}, static_cast<std::size_t>(e.result));
    else if (e.result == -ECANCELED)
      c->complete(operation_aborted(), 0);
    else
      c->complete(errno_code(-e.result), 0);
  }

 private:
  void on_shutdown() noexcept override { waiting_.destroy_all(); }

  sockaddr_storage address_{};
  iovec part_{};
  wait_list<std::error_code, std::size_t> waiting_;  // At most one.
  std::shared_ptr<ring_object> self_;                // While the backend holds the request.
};

}  // namespace

std::shared_ptr<ring_object> make_send(event_loop& l, int socket, const message_view& m) {
  return std::make_shared<send_state>(l, socket, m);
}

void start_send(ring_object& object, completion_ptr<std::error_code, std::size_t> c) {
  static_cast<send_state&>(object).start(std::move(c));
}

}  // namespace cowire::detail
