// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/checked_config.hpp>
#include <cowire/async/detail/engine.hpp>
#include <cowire/async/detail/port_state.hpp>
#include <cowire/async/detail/shared_producer.hpp>
#include <cowire/base/assert.hpp>
#include <cowire/base/signals_blocked.hpp>
#include <cowire/route/compiler.hpp>

#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <future>
#include <utility>

namespace cowire::detail {
namespace {

/// struct sched_attr of linux/sched/types.h, which cannot be included beside sched.h.
struct scheduling {
  std::uint32_t size, policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime_ns, deadline_ns, period_ns;
};
static_assert(sizeof(scheduling) == 48);  // SCHED_ATTR_SIZE_VER0

/// Our threads have little to do at a time, which should be done at once: with shorter turns one
/// gets its turn earlier, at the same share of the CPU (EEVDF since Linux 6.12; before, the
/// kernel ignores it).
void ask_for_short_turns() noexcept {
  scheduling now{};
  if (::syscall(SYS_sched_getattr, 0, &now, sizeof now, 0) != 0 || now.policy != SCHED_OTHER)
    return;
  now.runtime_ns = 100'000;  // The least that the kernel grants.
  static_cast<void>(::syscall(SYS_sched_setattr, 0, &now, 0));
}

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;

/// How long the first dump may take; a million routes take half a second.
constexpr auto start_timeout = 30s;
/// Of all senders, so that senders without number cannot use up the numbers of classes.
constexpr std::size_t chosen_classes_in_all_max = 4096;
/// Diverted requests served between two looks at everything else on the ring.
constexpr std::size_t diverted_turn = 256;

/// Receive buffers of zero-copy queues come out of the same umem (socket_options::fill_frames).
std::uint32_t fill_frames(const transmitter_config& config) {
  if (config.mode && *config.mode != send_mode::zero_copy) return 0;
  std::uint32_t sum = 0;
  const auto add = [&](const std::string& name) {
    std::error_code ec;
    const auto facts = read_device(name, ec);
    if (ec || !facts.features || !facts.features->zero_copy) return;
    sum += core_count(config) * (2 * std::max(facts.rings.rx, 512u) + slice_granularity);
  };
  if (!config.interfaces.empty()) {
    for (const auto& name : config.interfaces) add(name);
  } else if (struct if_nameindex* all = ::if_nameindex()) {
    for (auto* one = all; one->if_index != 0; ++one) add(one->if_name);
    ::if_freenameindex(all);
  }
  return sum;
}

/// Those of one shared producer: together they have those of one producer, and a block at least.
std::uint32_t frames_of_shared(const transmitter_config& config) {
  const std::uint32_t each = config.frames_per_producer / config.shared_producers;
  return std::max((each + slice_granularity - 1) / slice_granularity, 1u) * slice_granularity;
}

umem_options memory_options(const transmitter_config& config) {
  const std::uint32_t shared =
      config.shared_producers == 0 ? 0 : config.shared_producers * frames_of_shared(config);
  return {.frame_size = config.frame_size,
          .frame_count =
              config.max_producers * config.frames_per_producer + shared + fill_frames(config),
          .huge_pages = config.huge_pages};
}

/// Names the layers that are ignored, and what that means; empty where none is.
std::string ignored_output(const output_layers& obeyed) {
  std::string out;
  for (const output_layer_name& layer : ignored_layers(obeyed))
    out.append(out.empty() ? "ignored on the output path: " : "; ")
        .append(layer.name)
        .append(" (")
        .append(layer.if_ignored)
        .append(")");
  return out;
}

}  // namespace

engine::engine(transmitter_config config)
    : config_(checked(std::move(config))),
      ring_(ring_context::options{.backend = config_.backend}),
      kernel_ring_(ring_context::options{.backend = config_.backend}),
      umem_(memory_options(config_)),
      routes_(ring_, epochs_, tables_,
              {.update_interval = config_.update_interval,
               .audit_rate = config_.audit_rate,
               .performance_mode = config_.performance_mode,
               .restrictions = config_.restrictions,
               .numbers = &outer_flows_,
               .output = config_.output,
               .log = config_.log}),
      tracker_(ring_, epochs_, outer_flows_, config_.tracked_flows, config_.log),
      paths_(routes_, config_.mode == send_mode::kernel, tracker_.available()),
      cores_(config_, umem_.memory(), tables_, epochs_, bell_, tracker_.flows()),
      egress_(config_, umem_, cores_, routes_, epochs_),
      kernel_(kernel_ring_, umem_.memory(), config_.frames_per_producer, tracker_,
              [this](const ip_address& to, std::uint32_t mtu, std::function<void()> then) {
                learn_path_mtu(to, mtu, std::move(then));
              }),
      bell_ready_(kernel_ring_, bell_.fd()) {
  if (!config_.tunnels.empty()) tunnels_.emplace(config_.tunnels);
  for (const auto& name : config_.interfaces) static_cast<void>(read_device(name));
  if (config_.log && !umem_.pages_reason().empty())
    config_.log(log_severity::info, umem_.pages_reason());
  if (config_.log && ring_.backend() != ring_backend::io_uring)
    config_.log(log_severity::info, ring_.backend_reason());
  if (const auto warning = ignored_output(config_.output); config_.log && !warning.empty())
    config_.log(log_severity::warning, warning);
}

engine::~engine() { COWIRE_ASSERT(!control_.joinable() && !kernel_thread_.joinable()); }

// Running
// -------------------------------------------------------------------------------------------

template <class Work>
void engine::on_thread_of(ring_context& ring, Work&& work) {
  if (ring.running_in_this_thread()) return work();
  std::promise<std::exception_ptr> done;
  asio::post(ring.get_executor(), [&] {
    std::exception_ptr failed;
    try {
      work();
    } catch (...) {
      failed = std::current_exception();
    }
    done.set_value(std::move(failed));  // The caller's alone from here on, its end included.
  });
  auto outcome = done.get_future();
  // A call that loses the race with stop() would wait for a thread that is gone.
  while (outcome.wait_for(100ms) != std::future_status::ready)
    if (ended()) throw_error(error::closed, "transmitter");
  if (auto failed = outcome.get()) std::rethrow_exception(std::move(failed));
}

template <class Work>
void engine::on_control_thread(Work&& work) {
  on_thread_of(ring_, std::forward<Work>(work));
}

route_service_hooks engine::hooks() {
  return {.on_published = [this](const publication& done) { paths_.on_published(done); },
          .on_links = [this] { egress_.reconcile(); },
          .on_other_rules = [this] { tracker_.begin_anew(); },
          .on_tick =
              [this] {
                egress_.poll();
                egress_.note_activity();
                settle_idle_producers();
                paths_.on_tick(clock::now());
              },
          .interface_in_use = [this](std::uint32_t index) { return egress_.active(index); },
          .flow_in_use = [this](flow& in_use) { return next_sample(in_use); }};
}

void engine::start() {
  const signals_blocked during_creation;
  const auto ready = std::make_shared<std::promise<void>>();
  auto outcome = ready->get_future();
  asio::post(ring_.get_executor(), [this, ready] {
    routes_.start(hooks(), [this, ready] {
      // The first publication: sockets next, so that the constructor returns with them in use.
      asio::post(ring_.get_executor(), [this, ready] {
        egress_.reconcile();
        ready->set_value();
      });
    });
  });
  asio::post(kernel_ring_.get_executor(), [this] {
    kernel_.start();
    co_spawn(kernel_ring_.get_executor(), serve_cores(), rethrow);
  });
  start_threads();
  if (outcome.wait_for(start_timeout) != std::future_status::ready)
    throw_error(errno_code(ETIMEDOUT), "reading the kernel's routes");
  outcome.get();
  check_interfaces();
}

/// The control thread last: what begins on it needs the others.
void engine::start_threads() {
  cores_.start();
  kernel_thread_ = std::thread([this] { run(kernel_ring_); });
  ::pthread_setname_np(kernel_thread_.native_handle(), "cowire-kernel");
  control_ = std::thread([this] { run(ring_); });
  ::pthread_setname_np(control_.native_handle(), "cowire-control");
}

void engine::run(ring_context& ring) noexcept {
  ask_for_short_turns();
  const auto work = asio::prefer(ring.get_executor(), asio::execution::outstanding_work.tracked);
  for (;;) {
    try {
      ring.run();
      return;
    } catch (const std::exception& failed) {
      if (inherited()) return;  // A handler has forked, and we are the child.
      // One handler's failure is not everybody's: what it was about is said, and the ring goes on.
      if (!config_.log) continue;
      asio::post(ring_.get_executor(), [this, text = std::string(failed.what())] {
        config_.log(log_severity::error, text);
      });
    }
  }
}

void engine::check_interfaces() {
  if (!config_.mode || *config_.mode == send_mode::kernel) return;
  for (const auto& one : egress_.stats(cores_.snapshots())) {
    const bool named = std::ranges::find(config_.interfaces, one.name) != config_.interfaces.end();
    if (named && one.mode != *config_.mode)
      throw_error(error::unsupported, one.name + ": mode " + std::string(name(*config_.mode)) +
                                          " is not available (" + one.reason + "); use mode auto");
  }
}

awaitable<void> engine::serve_cores() {
  while (!kernel_closed_) {
    bell_.arm();
    if (!cores_have_news() && !kernel_closed_)
      co_await bell_ready_.async_wait(as_tuple(use_awaitable));
    bell_.disarm();
    take_diverted();
    for (producer* const one : heard_) one->on_news();
    tell_egress();
    // Whatever else is due on the ring has its turn between two of ours.
    co_await asio::post(kernel_ring_.get_executor(), use_awaitable);
  }
}

/// Cores ring, too, when they are done with the sockets of an interface that closes.
void engine::tell_egress() {
  if (!egress_.awaits_cores() || egress_told_.exchange(true, std::memory_order_acq_rel)) return;
  asio::post(ring_.get_executor(), [this] {
    egress_told_.exchange(false, std::memory_order_acq_rel);
    if (!closing_) egress_.poll();
  });
}

void engine::learn_path_mtu(const ip_address& destination, std::uint32_t mtu,
                            std::function<void()> then) {
  asio::post(ring_.get_executor(), [this, destination, mtu, then = std::move(then)] {
    if (!closing_) routes_.learn_path_mtu(destination, mtu);
    then();
  });
}

bool engine::cores_have_news() noexcept {
  const auto diverted = [](const auto& core) { return core->diverted().readable() != 0; };
  return std::ranges::any_of(cores_, diverted) ||
         std::ranges::any_of(heard_, [](producer* one) { return one->has_news(); });
}

void engine::take_diverted() {
  for (const auto& core : cores_) take_diverted_of(*core);
}

void engine::take_diverted_of(tx_core& core) {
  std::array<diverted_request, 64> some;
  for (std::size_t taken = 0; taken < diverted_turn;) {
    const auto count = core.diverted().pop_some(some);
    if (count == 0) return;
    for (std::size_t i = 0; i < count; ++i) kernel_.send(some[i]);
    taken += count;
  }
}

bool engine::next_sample(flow& in_use) {
  flow_sample sample;
  std::size_t tried = 0;
  while (!cores_[next_sampled_core_++ % cores_.size()].samples().try_pop(sample))
    if (++tried == cores_.size()) return false;
  in_use.cls = routes_.compiler().class_of(sample.flow_class);
  in_use.destination = sample.destination;
  in_use.destination_port = sample.destination_port.host();
  return true;
}

void engine::wake_producers() {
  for (const auto& one : producers_) one->wake();
}

void engine::wait_until_drained() noexcept {
  const auto deadline = clock::now() + config_.drain_timeout;
  while (stats().on_the_way() != 0 && clock::now() < deadline) {
    for (const auto& core : cores_) core->work_bell().ring();  // They collect completions.
    std::this_thread::sleep_for(500us);
  }
}

void engine::close_ports() {
  std::vector<std::weak_ptr<port_state>> all;
  {
    const std::lock_guard lock(ports_mutex_);
    ports_closed_ = true;
    all.swap(ports_);
  }
  for (const auto& one : all)
    if (const auto open = one.lock()) open->close();
}

bool engine::add_port(const std::shared_ptr<port_state>& made) {
  const std::lock_guard lock(ports_mutex_);
  if (ports_closed_) return false;
  if (ports_.size() == ports_.capacity())  // About to grow.
    std::erase_if(ports_, [](const auto& one) { return one.expired(); });
  ports_.push_back(made);
  return true;
}

void engine::close_everything() {
  close_ports();
  paths_.close();
  egress_.close_all();
  cores_.stop();
  tracker_.stop();
  on_thread_of(kernel_ring_, [this] { close_kernel_path(); });
  routes_.stop();
  closing_ = true;
}

void engine::close_kernel_path() {
  take_diverted();
  kernel_.stop();
  for (const auto& core : cores_)
    while (core->diverted().readable() != 0) take_diverted_of(*core);
  kernel_closed_ = true;
  bell_ready_.cancel();
  kernel_.remove_all_senders();
}

void engine::refuse_if_inherited() const {
  if (inherited()) throw_error(error::forked, "transmitter");
}

void engine::stop() noexcept {
  if (inherited()) return;
  const bool first = !stopping_.exchange(true, std::memory_order_acq_rel);
  if (!ring_.running_in_this_thread())
    std::call_once(stop_once_, [this] { stop_now(); });
  else if (first)
    stop_elsewhere();
}

/// The control thread cannot wait for the end of its own handler.
void engine::stop_elsewhere() noexcept {
  const signals_blocked during_creation;
  try {
    std::thread([self = shared_from_this()] {
      ::pthread_setname_np(::pthread_self(), "cowire-stop");
      std::call_once(self->stop_once_, [&self] { self->stop_now(); });
    }).detach();
  } catch (const std::system_error& failed) {
    // Nothing more is sent; a later call from elsewhere can still end the threads.
    if (config_.log) config_.log(log_severity::error, std::string("stopping: ") + failed.what());
    leave_behind(shared_from_this());
  }
}

void engine::stop_now() noexcept {
  if (control_.joinable()) end_control_thread();
  kernel_ring_.stop();
  if (kernel_thread_.joinable()) kernel_thread_.join();
  tunnels_.reset();
  ended_.store(true, std::memory_order_release);
  wake_producers();
}

void engine::end_control_thread() noexcept {
  on_control_thread([this] { wake_producers(); });
  wait_until_drained();
  on_control_thread([this] {
    close_everything();
    closed_.store(true, std::memory_order_release);
    wake_producers();
  });
  // Some turns more, so that cancelled operations, and those that waited for it, end by themselves.
  for (int turn = 0; turn < 3; ++turn) {
    on_thread_of(kernel_ring_, [] {});
    on_control_thread([] {});
  }
  ring_.stop();
  control_.join();
}

// Producers
// -----------------------------------------------------------------------------------------

std::shared_ptr<producer> engine::producer_of_this_thread() {
  refuse_if_inherited();
  struct mine {
    const engine* of;
    std::weak_ptr<producer> which;
  };
  thread_local std::vector<mine> all;
  std::erase_if(all, [](const mine& m) { return m.which.expired(); });
  for (const mine& m : all)
    if (m.of == this)
      if (auto found = m.which.lock()) return found;
  auto made = new_producer();
  all.push_back({this, made});
  return made;
}

/// Control thread, with producers_mutex_ locked.
producer* engine::add_producer(std::uint32_t frames) {
  const auto slice = umem_.allocate_slice(frames);
  COWIRE_ASSERT(slice);  // The umem was made for all that may be asked for.
  producers_.push_back(std::make_unique<producer>(static_cast<std::uint32_t>(producers_.size()),
                                                  umem_.memory(), *slice, cores_));
  producer* const made = producers_.back().get();
  for (std::uint32_t i = 0; i < cores_.size(); ++i) cores_[i].attach(made->channel(i));
  // Nobody waits for it here: its thread may want the lock. No datagram of the producer is earlier.
  asio::post(kernel_ring_.get_executor(), [this, made] { heard_.push_back(made); });
  return made;
}

std::shared_ptr<producer> engine::new_producer() {
  refuse_if_inherited();
  if (stopping()) throw_error(error::closed, "transmitter");
  producer* chosen = nullptr;
  on_control_thread([&] {
    const std::lock_guard lock(producers_mutex_);
    if (!idle_producers_.empty()) {
      chosen = idle_producers_.back();
      idle_producers_.pop_back();
      return;
    }
    if (producers_.size() - shared_made_ >= config_.max_producers)
      throw_error(error::no_producer, "max_producers is " + std::to_string(config_.max_producers));
    chosen = add_producer(config_.frames_per_producer);
  });
  // Lets go of the engine when it runs: the deleter itself lives as long as any weak_ptr does.
  std::shared_ptr<producer> handle(chosen, [self = shared_from_this()](producer* idle) mutable {
    const auto owner = std::move(self);
    owner->recycle(idle);
  });
  chosen->lend(shared_from_this(), handle);
  return handle;
}

void engine::recycle(producer* idle) noexcept {
  if (inherited()) return leave_behind(shared_from_this());
  idle->take_back();
  const std::lock_guard lock(producers_mutex_);
  idle_producers_.push_back(idle);
}

void engine::settle_idle_producers() {
  if (const auto shared = shared_.lock()) shared->settle();
  const std::lock_guard lock(producers_mutex_);
  for (producer* idle : idle_producers_) idle->settle();
  for (producer* idle : idle_shared_) idle->settle();
}

// Shared producers
// ----------------------------------------------------------------------------------

std::shared_ptr<shared_producers> engine::shared() {
  refuse_if_inherited();
  if (stopping()) throw_error(error::closed, "transmitter");
  if (config_.shared_producers == 0) throw_error(error::no_producer, "shared_producers is 0");
  std::shared_ptr<shared_producers> out;
  on_control_thread([&] {
    out = shared_.lock();
    if (out) return;
    out = std::make_shared<shared_producers>(shared_from_this(), take_shared());
    out->begin();
    shared_ = out;
  });
  return out;
}

std::vector<producer*> engine::take_shared() {
  std::unique_lock lock(producers_mutex_);
  while (shared_made_ < config_.shared_producers) {
    idle_shared_.push_back(add_producer(frames_of_shared(config_)));
    ++shared_made_;
  }
  // The last owner of the former ones may be about to return them, on a thread that needs nothing
  // of ours for it.
  shared_returned_.wait(lock, [this] { return idle_shared_.size() == shared_made_; });
  return std::exchange(idle_shared_, {});
}

void engine::recycle_shared(producer* idle) noexcept {
  const std::lock_guard lock(producers_mutex_);
  idle_shared_.push_back(idle);
  shared_returned_.notify_all();
}

// Senders
// -------------------------------------------------------------------------------------------

/// Its control groups count as long as it lives. Null stays null.
std::shared_ptr<backing_socket> engine::counted(std::shared_ptr<backing_socket> socket) {
  if (!socket) return socket;
  std::array<std::shared_ptr<const void>, 2> groups;
  for (const ip_family family : ip_families)
    if (const int fd = socket->fd(family); fd >= 0)
      groups[static_cast<std::size_t>(family)] = routes_.look_at_group_of(fd);
  socket->keep(std::move(groups));
  return socket;
}

std::shared_ptr<backing_socket> engine::socket_for(const sender_options& options,
                                                   std::error_code& ec, bool apart) {
  const std::string& device = options.multicast_interface;
  const std::uint32_t groups_device = device.empty() ? 0 : ::if_nametoindex(device.c_str());
  if (!device.empty() && groups_device == 0) {
    ec = errno_code(ENODEV);
    return nullptr;
  }
  if (options.adopt_socket >= 0)
    return counted(backing_socket::adopt(options.adopt_socket, ec, groups_device));
  const source_key key{options.source_port,
                       options.source_v4,
                       options.source_v6,
                       options.bound_device,
                       options.owner.value_or(own_uid()),
                       {.ttl = options.multicast_ttl,
                        .loop = options.multicast_loop,
                        .broadcast = options.broadcast,
                        .interface_index = groups_device}};
  if (apart && key.port == 0) return counted(backing_socket::open(key, ec));
  const std::lock_guard lock(sockets_mutex_);
  if (const auto known = sockets_.find(key); known != sockets_.end())
    if (auto socket = known->second.socket.lock()) return socket;
  std::erase_if(sockets_, [&](const auto& entry) {
    const auto& [of, known] = entry;
    if (!known.socket.expired()) return false;
    // Its port is taken until it is closed, which needs nothing of ours.
    if (of.port == key.port) known.closed->wait(false, std::memory_order_acquire);
    return known.closed->test(std::memory_order_acquire);
  });
  auto socket = counted(backing_socket::open(key, ec));
  if (socket) sockets_[key] = {socket, socket->closed()};
  return socket;
}

namespace {

/// What decides about a sender's datagrams besides their destination, by ip_family.
std::array<flow_class, 2> classes_of(const sender_options& options, const backing_socket& socket) {
  const bool adopted = options.adopt_socket >= 0;
  flow_class cls;
  cls.source_v4 = socket.source(ip_family::v4);
  cls.source_v6 = socket.source(ip_family::v6);
  cls.mark = adopted || options.mark == 0 ? socket.mark() : options.mark;
  cls.output_interface = socket.interface_index();
  cls.source_port = socket.port();
  cls.uid = socket.uid();
  std::array<flow_class, 2> classes{cls, cls};
  for (const auto family : ip_families) {
    flow_class& one = classes[static_cast<std::size_t>(family)];
    one.tos = adopted ? socket.tos(family) : options.tos;
    one.ttl = adopted ? socket.ttl(family) : options.ttl;
    const group_options& groups = socket.groups(family);
    one.multicast_ttl = groups.ttl;
    one.multicast_loop = groups.loop;
    one.multicast_interface = groups.interface_index;
    one.multicast_interface_hidden = groups.interface_hidden;
  }
  return classes;
}

}  // namespace

std::shared_ptr<sender_state> engine::make_sender(const sender_options& options, producer& via,
                                                  std::error_code& ec, bool apart) {
  auto state = describe(options, ec, apart);
  if (!state) return nullptr;
  state->via = &via;
  if (options.when_full == full_policy::shed_oldest) via.allow_shedding();
  enroll({&state, 1}, options);
  return state;
}

std::vector<std::shared_ptr<sender_state>> engine::make_shared_sender(const sender_options& options,
                                                                      const shared_producers& via,
                                                                      std::error_code& ec) {
  const auto first = describe(options, ec);
  if (!first) return {};
  std::vector<std::shared_ptr<sender_state>> states;
  for (std::size_t i = 0; i < via.size(); ++i) {
    states.push_back(i == 0 ? first : std::make_shared<sender_state>(*first));
    states[i]->hears_network = i == 0;
    states[i]->via = &via[i].via();
    if (options.when_full == full_policy::shed_oldest) states[i]->via->allow_shedding();
  }
  enroll(states, options);
  return states;
}

/// All of it but what others know it by.
std::shared_ptr<sender_state> engine::describe(const sender_options& options, std::error_code& ec,
                                               bool apart) {
  refuse_if_inherited();
  if (stopping()) {
    ec = error::closed;
    return nullptr;
  }
  if ((options.source_v4 && !options.source_v4->is_v4()) ||
      (options.source_v6 && !options.source_v6->unmapped().is_v6())) {
    ec = error::family_mismatch;
    return nullptr;
  }
  auto state = std::make_shared<sender_state>();
  state->socket = socket_for(options, ec, apart);
  if (!state->socket) return nullptr;
  const backing_socket& socket = *state->socket;
  state->source_port = be16::from_host(socket.port());
  state->scope = socket.interface_index();
  state->when_full = options.when_full;
  state->adopted = options.adopt_socket >= 0;
  state->errors =
      std::make_shared<event_queue<send_error>>(control_executor(), options.error_queue_limit);
  for (const auto family : ip_families) {
    const auto index = static_cast<std::size_t>(family);
    state->family_served[index] = socket.fd(family) >= 0;
    // An adopted socket has its options set already.
    if (options.adopt_socket >= 0) continue;
    state->group_control[index] = send_control::from(family, options.mark, options.tos, 0);
    state->control[index] = send_control::from(family, options.mark, options.tos, options.ttl);
  }
  return state;
}

void engine::enroll(std::span<const std::shared_ptr<sender_state>> states,
                    const sender_options& options) {
  const std::array<flow_class, 2> classes = classes_of(options, *states.front()->socket);
  on_control_thread([&] {
    for (const auto& state : states) {
      state->id = ++last_sender_id_;
      state->tos = {classes[0].tos, classes[1].tos};
      state->chosen = std::make_shared<chosen_classes>(classes);
      for (std::size_t index = 0; index < classes.size(); ++index) {
        // The class of a family without a socket is never sent with.
        const bool needed = state->family_served[index];
        state->flow_class[index] =
            routes_.compiler().add_class(needed ? classes[index] : classes[1 - index]);
      }
    }
    routes_.publish();  // No request of a class may be sent before a table knows it.
  });
  on_thread_of(kernel_ring_, [&] {
    for (const auto& state : states) kernel_.add_sender(state);
  });
}

void engine::retire(const sender_state& sender) {
  sender.errors->close();
  asio::post(control_executor(), [weak = weak_from_this(), id = sender.id] {
    if (const auto self = weak.lock()) self->paths_.forget(id);
  });
  sender.via->when_drained(
      [weak = weak_from_this(), id = sender.id, cls = sender.flow_class, chosen = sender.chosen] {
        const auto self = weak.lock();
        if (!self || self->ended()) return;
        asio::post(self->kernel_ring_.get_executor(), [weak, id] {
          if (const auto still = weak.lock()) still->kernel_.remove_sender(id);
        });
        asio::post(self->control_executor(), [self, cls, chosen] {
          for (const flow_class_id one : cls) self->routes_.compiler().release_class(one);
          std::erase_if(self->being_chosen_, [&](const auto& one) { return one.first == chosen; });
          chosen->for_each([&](flow_class_id one) {
            self->routes_.compiler().release_class(one);
            --self->chosen_classes_;
          });
        });
      });
}

void engine::compile_chosen(const std::shared_ptr<chosen_classes>& of, std::size_t number) {
  asio::post(control_executor(), [weak = weak_from_this(), of, number] {
    const auto self = weak.lock();
    if (!self || self->closing_) return;
    // Each datagram is refused by the kernel, as any process's would be.
    if (of->has_mark(number) && !may_set_marks()) {
      of->refuse(number);
      return self->paths_.on_chosen();
    }
    self->being_chosen_.emplace_back(of, number);
    if (self->being_chosen_.size() != 1) return;
    asio::post(self->control_executor(), [weak] {  // After those that are posted already.
      const auto still = weak.lock();
      if (still && !still->closing_) still->compile_chosen_now();
    });
  });
}

void engine::compile_chosen_now() {
  const auto chosen = std::exchange(being_chosen_, {});
  std::vector<flow_class_id> ids;
  for (const auto& [of, number] : chosen) {
    const bool room = chosen_classes_ < chosen_classes_in_all_max;
    ids.push_back(room ? routes_.compiler().add_class(of->class_of(number)) : class_limit_class);
    chosen_classes_ += room;
  }
  if (!chosen.empty()) routes_.publish();  // No request may name a class that no table knows.
  for (std::size_t i = 0; i < chosen.size(); ++i)
    chosen[i].first->publish(chosen[i].second, ids[i]);
  paths_.on_chosen();
}

// Paths
// -------------------------------------------------------------------------------------------

path_events engine::watch_path(path_question what) {
  auto states = std::make_shared<path_watches::queue>(control_executor(), 1);
  add_watch(std::move(what), states, false);
  return {std::move(states), shared_from_this()};
}

void engine::resolve_path(path_question what, direct_completion<std::error_code, path_state> done) {
  auto answer = std::make_shared<path_watches::queue>(control_executor(), 1);
  answer->start(std::move(done));
  add_watch(std::move(what), std::move(answer), true);
}

void engine::add_watch(path_question what, std::shared_ptr<path_watches::queue> whom,
                       bool until_settled) {
  paths_.add(std::move(what), std::move(whom), until_settled);
  asio::post(control_executor(), [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->paths_.begin_added();
  });
}

// Statistics
// ----------------------------------------------------------------------------------------

transmitter_stats engine::stats() const {
  refuse_if_inherited();
  transmitter_stats out;
  const auto counters = cores_.snapshots();
  out.interfaces = egress_.stats(counters);
  for (const auto& one : out.interfaces) {
    if (one.transmitted != 0) out.transmitted[one.name] += one.transmitted;
    out.lost_in_device += one.lost_in_device;
  }
  out.cores_in_use = cores_.in_use();
  out.cores_reason = egress_.cores_reason();
  for (const tx_snapshot& core : counters) {
    out.cores.push_back({.taken = core.taken,
                         .transmitted = core.completed_total(),
                         .diverted = core.diverted_total(),
                         .lost_in_device = core.lost_total(),
                         .flow_hits = core.flow_hits,
                         .flow_misses = core.flow_misses,
                         .flow_pauses = core.flow_pauses});
    for (std::size_t i = 0; i < divert_reason_count; ++i) {
      auto reason = static_cast<divert_reason>(i);
      if (reason == divert_reason::no_egress_socket && config_.mode == send_mode::kernel)
        reason = divert_reason::forced_kernel;
      if (core.diverted[i] != 0) out.diverted[std::string(name(reason))] += core.diverted[i];
    }
  }
  out.kernel_path = kernel_.sent();
  for (int number = 1; number < static_cast<int>(kernel_path::errno_limit); ++number)
    if (const auto count = kernel_.refused(number); count != 0)
      out.refused[errno_name(number)] += count;
  out.errors_from_network = kernel_.errors_from_network();
  out.routes = routes_.stats();
  out.tracking = tracker_.stats();
  for (const auto& layer : ignored_layers(config_.output))
    out.output_ignored.emplace_back(layer.name);
  const std::lock_guard lock(producers_mutex_);
  for (const auto& one : producers_) {
    out.shed += one->shed();
    out.submitted += one->submitted();
  }
  return out;
}

}  // namespace cowire::detail

namespace cowire {

std::uint64_t umem_bytes(const transmitter_config& config) {
  constexpr std::uint64_t huge_page_bytes = 2u << 20;  // To which umem rounds up.
  const umem_options options = detail::memory_options(config);
  const std::uint64_t bytes = std::uint64_t{options.frame_size} * options.frame_count;
  return (bytes + huge_page_bytes - 1) / huge_page_bytes * huge_page_bytes;
}

}  // namespace cowire
