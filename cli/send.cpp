// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/json_text.hpp>
#include <cowire/cli/pacer.hpp>
#include <cowire/cli/payload_source.hpp>
#include <cowire/cli/privilege.hpp>
#include <cowire/cli/report.hpp>
#include <cowire/cli/send.hpp>
#include <cowire/cli/send_via.hpp>
#include <cowire/cli/signals.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>

#include <algorithm>
#include <csignal>
#include <exception>
#include <iostream>

namespace cowire::cli {
namespace {

using clock = pacer::clock;

double seconds_since(clock::time_point start) {
  return std::chrono::duration<double>(clock::now() - start).count();
}

bool is_cancellation(const std::exception_ptr& error) {
  if (!error) return false;
  try {
    std::rethrow_exception(error);
  } catch (const std::system_error& failed) {
    return failed.code() == asio::error::operation_aborted;
  } catch (...) {
    return false;
  }
}

// Everything of one `cowire send`. All of it runs on the thread that calls run(): the io_context
// has no other.
class send_job {
 public:
  explicit send_job(const send_plan& plan)
      : plan_(plan),
        source_(plan.payload),
        transmitter_(plan.transmit.config),
        sender_(transmitter_.make_sender(plan.transmit.sender)),
        log_(plan.transmit.config.log) {
    require_mode(plan.transmit, transmitter_.stats().interfaces);
  }

  int run(bool as_json) {
    for (const int number : ending_signals()) signals_.add(number);
    report_when_asked();
    signals_.async_wait([this](std::error_code ec, int) {
      if (ec) return;
      signals_.clear();  // A second signal ends the process.
      stop();
      // Whatever it waits for, frames or the last datagrams: the transmitter drains for so long as
      // it is to, and no longer.
      interrupt_.emit(asio::cancellation_type::terminal);
    });
    start_ = clock::now();
    if (plan_.transmit.duration_s) {
      deadline_.expires_at(start_ + std::chrono::duration_cast<clock::duration>(
                                        std::chrono::duration<double>(*plan_.transmit.duration_s)));
      deadline_.async_wait([this](std::error_code ec) {
        if (!ec) stop();
      });
    }
    if (progress_.wanted()) asio::co_spawn(context_, show_progress(), asio::detached);
    asio::co_spawn(context_, log_errors(), asio::detached);
    asio::co_spawn(
        context_, send_all(),
        asio::bind_cancellation_slot(interrupt_.slot(), [this](std::exception_ptr error) {
          finish(is_cancellation(error) ? nullptr : std::move(error));
        }));
    context_.run();
    if (failure_) std::rethrow_exception(failure_);
    return summarise(as_json);
  }

 private:
  // How many payloads may be sent without looking at timers and signals.
  static constexpr std::uint64_t burst_limit = 64;

  void report_when_asked() {
    reports_.async_wait([this](std::error_code ec, int) {
      if (ec) return;
      progress_.clear();
      std::cerr << summary_text(transmitter_.stats(), seconds_since(start_)) << std::flush;
      report_when_asked();
    });
  }

  void stop() {
    stopping_ = true;
    pace_.cancel();
  }

  // Ends every other operation, so that run() returns.
  void finish(std::exception_ptr error) {
    failure_ = std::move(error);
    elapsed_s_ = seconds_since(start_);
    finished_ = true;
    progress_.clear();
    signals_.cancel();
    reports_.cancel();
    deadline_.cancel();
    tick_.cancel();
    drain_.cancel();
    sender_ = sender();
  }

  [[nodiscard]] bool done() const noexcept {
    return stopping_ || (left_.empty() && plan_.count && source_.produced() == *plan_.count);
  }

  asio::awaitable<void> send_all() {
    std::optional<pacer> pace;
    if (plan_.rate_pps) pace.emplace(*plan_.rate_pps, clock::now());
    while (!done()) {
      std::uint64_t datagrams = burst_limit * plan_.to.size();
      if (pace) datagrams = std::min(datagrams, pace->due(clock::now()));
      if (datagrams == 0) {
        pace_.expires_at(pace->next(clock::now()));
        co_await pace_.async_wait(as_tuple(asio::use_awaitable));  // Cancelled by stop().
        continue;
      }
      std::uint64_t sent = 0;
      while (sent < datagrams && !done()) {
        const auto some = co_await send_some(datagrams - sent);
        sent += some;
      }
      if (pace) pace->sent(sent);
      co_await asio::post(context_, asio::use_awaitable);
    }
    drain_.expires_after(plan_.transmit.config.drain_timeout);
    drain_.async_wait([this](std::error_code ec) {
      if (ec) return;
      gave_up_draining_ = true;
      interrupt_.emit(asio::cancellation_type::terminal);
    });
    co_await sender_.async_flush(asio::use_awaitable);
  }

  /// Sends a payload to at most so many of the destinations that it has not gone to yet; how many.
  /// What is paced is the datagram, not the payload.
  asio::awaitable<std::uint64_t> send_some(std::uint64_t limit) {
    const bool another = left_.empty();
    if (another) left_ = plan_.to;
    const auto to = left_.first(std::min<std::uint64_t>(limit, left_.size()));
    left_ = left_.subspan(to.size());
    // Not in the await expression: gcc 12 evaluates a conditional operand there twice.
    const auto bytes = another ? source_.next() : source_.again();
    co_await send_to(to, bytes);
    co_return to.size();
  }

  asio::awaitable<void> send_to(std::span<const endpoint> to, std::span<const std::byte> bytes) {
    auto frame = sender_.try_acquire();
    if (!frame) {
      auto [ec, waited_for] = co_await sender_.async_acquire(as_tuple(asio::use_awaitable));
      if (gave_up(ec, to.size())) co_return;
      frame = std::move(waited_for);
    }
    std::copy(bytes.begin(), bytes.end(), frame.bytes().begin());
    frame.resize(bytes.size());
    if (to.size() > 1) {
      const auto [ec, sent] =
          co_await sender_.async_send(std::move(frame), to, as_tuple(asio::use_awaitable));
      static_cast<void>(gave_up(ec, to.size() - sent));
      co_return;
    }
    std::error_code ec;
    sender_.send(std::move(frame), to.front(), ec);
    if (ec) throw_error(ec, "send to " + to.front().to_string());
  }

  /// Counts datagrams for which there was no frame, under full_policy::fail.
  [[nodiscard]] bool gave_up(std::error_code ec, std::size_t datagrams) {
    if (ec == error::would_block) {
      would_block_ += datagrams;
      return true;
    }
    if (ec) throw_error(ec, "send");
    return false;
  }

  asio::awaitable<void> show_progress() {
    while (!finished_) {
      tick_.expires_after(std::chrono::milliseconds(500));
      const auto [ec] = co_await tick_.async_wait(as_tuple(asio::use_awaitable));
      if (!ec && !finished_) progress_.show(transmitter_.stats(), seconds_since(start_));
    }
  }

  asio::awaitable<void> log_errors() {
    while (!finished_) {
      const auto [ec, error] = co_await sender_.async_next_error(as_tuple(asio::use_awaitable));
      if (ec) co_return;
      log_(log_severity::info,
           error.destination.to_string() + ": " + error.code.message() +
               (error.mtu != 0 ? ", path MTU " + std::to_string(error.mtu) : ""));
    }
  }

  int summarise(bool as_json) {
    if (const auto left = transmitter_.stats().on_the_way(); gave_up_draining_ && left != 0)
      log_(log_severity::warning,
           std::to_string(left) + " datagrams were still on the way " +
               std::to_string(plan_.transmit.config.drain_timeout.count()) +
               " ms after the last one; those that the kernel has not taken when the socket closes "
               "are refused with ECANCELED");
    const auto stats = stop_and_count(transmitter_);
    if (as_json) {
      json out = summary_json(stats, elapsed_s_);
      out["would_block"] = would_block_;
      std::cout << json_line(out) << std::endl;
    } else {
      std::cout << summary_text(stats, elapsed_s_);
      if (would_block_ != 0) std::cout << "would block    " << would_block_ << " never submitted\n";
      std::cout << std::flush;
    }
    return status_of(stats, would_block_);
  }

  const send_plan& plan_;
  payload_source source_;
  std::span<const endpoint> left_;  ///< Where the present payload is still to go.
  asio::io_context context_{1};
  asio::signal_set signals_{context_};
  asio::signal_set reports_{context_, report_signals[0], report_signals[1]};
  asio::cancellation_signal interrupt_;
  asio::steady_timer pace_{context_}, deadline_{context_}, tick_{context_}, drain_{context_};
  progress_line progress_;
  transmitter transmitter_;
  sender sender_;
  log_callback log_;
  clock::time_point start_;
  double elapsed_s_ = 0;
  std::uint64_t would_block_ = 0;  ///< Datagrams.
  bool stopping_ = false, finished_ = false, gave_up_draining_ = false;
  std::exception_ptr failure_;
};

}  // namespace

int run_send(const send_arguments& arguments) {
  const auto plan = make_plan(arguments);
  if (!plan.via.empty()) return send_via(plan, arguments.json);
  require_privilege(plan.transmit);
  return send_job(plan).run(arguments.json);
}

}  // namespace cowire::cli
