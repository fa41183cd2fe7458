// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/ring_context.hpp>

#include <cowire/base/error.hpp>
#include <cowire/ring/detail/backend.hpp>

namespace cowire {

static_assert(asio::execution::is_executor<ring_context::executor_type>::value);
static_assert(std::is_constructible_v<asio::any_io_executor, ring_context::executor_type>);

ring_context::selection ring_context::select(const options& wanted) {
  if (wanted.queue_depth == 0)
    throw_error(make_error_code(error::invalid_argument), "ring_context: queue_depth 0");
  if (wanted.backend == backend_choice::epoll)
    return {detail::make_epoll_backend(), ring_backend::epoll, "epoll as configured"};
  std::error_code ec;
  std::string reason;
  if (auto kernel = detail::make_uring_backend(wanted.queue_depth, ec, reason))
    return {std::move(kernel), ring_backend::io_uring, reason};
  if (wanted.backend == backend_choice::io_uring) throw_error(ec, reason);
  return {detail::make_epoll_backend(), ring_backend::epoll, reason + "; epoll serves instead"};
}

ring_context::ring_context(const options& wanted) : ring_context(select(wanted)) {}

ring_context::ring_context(selection selected)
    : backend_(selected.backend),
      reason_(std::move(selected.reason)),
      loop_(std::move(selected.kernel)) {}

ring_context::~ring_context() {
  if (loop_->inherited()) return;
  shutdown();
  loop_->shutdown();
  destroy();
}

}  // namespace cowire
