// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/nft_reader.hpp>

#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cowire::netlink::nft {
namespace {

/// What a kernel answers that has no nf_tables (nfnetlink knows no such subsystem).
constexpr bool means_no_nf_tables(int error_number) noexcept {
  return error_number == EINVAL || error_number == EOPNOTSUPP;
}

void mark_filled_sets(ruleset& in) {
  for (const auto& [key, chain] : in.chains)
    for (const rule& each : chain.rules)
      for (const expression& e : each.expressions)
        if (!e.filled_set.empty())
          if (const auto set = in.sets.find({key.family, key.table, e.filled_set});
              set != in.sets.end())
            set->second.filled_by_packets = true;
}

/// Whether two readings tell the same, but for the contents of sets that change by themselves.
bool tell_the_same(const ruleset& a, const ruleset& b) {
  const auto same_set = [](const auto& one, const auto& other) {
    const bool changes =
        one.second.filled_by_packets || (one.second.set.flags & (set_timeout | set_eval)) != 0;
    return one.first == other.first && one.second.set == other.second.set &&
           (changes || one.second.elements == other.second.elements);
  };
  return a.generation == b.generation && a.tables == b.tables && a.chains == b.chains &&
         a.tracking_objects == b.tracking_objects && std::ranges::equal(a.sets, b.sets, same_set);
}

}  // namespace

void reader::start() {
  attempts_ = 0;
  before_.reset();
  restart();
}

void reader::restart() {
  if (++attempts_ > attempts_max) return finish(cowire::error::interrupted_dump);
  stage_ = stage::generation;
  waits_ = moved_ = false;
  error_.clear();
  result_ = {};
  sets_to_read_.clear();
  elements_.clear();
}

void reader::finish(std::error_code ec) {
  stage_ = stage::done;
  waits_ = false;
  error_ = ec;
  before_.reset();
  if (ec) result_ = {};
}

std::optional<std::vector<std::byte>> reader::next_request() {
  if (waits_ || done()) return std::nullopt;
  waits_ = true;
  ++sequence_;
  switch (stage_) {
    case stage::settling:
      waits_ = false;
      advance();
      return settle_request(sequence_);
    case stage::tables:
      return dump_request(object_kind::table, sequence_);
    case stage::chains:
      return dump_request(object_kind::chain, sequence_);
    case stage::rules:
      return dump_request(object_kind::rule, sequence_);
    case stage::objects:
      return dump_request(object_kind::object, sequence_);
    case stage::sets:
      return dump_request(object_kind::set, sequence_);
    case stage::elements:
      return elements_request(sets_to_read_.back(), sequence_);
    default:
      return generation_request(sequence_);
  }
}

void reader::on_loss() {
  if (!done()) restart();
}

void reader::on_datagram(std::span<const std::byte> datagram) {
  std::error_code ec;
  while (const auto answer = next_envelope(datagram, ec)) {
    if (!waits_ || answer->sequence != sequence_) continue;
    moved_ |= answer->dump_interrupted();
    if (const auto end = decode_completion(*answer, ec)) {
      on_end(end->error_number);
      continue;
    }
    if (ec) break;
    if (auto one = decode(answer->bytes, ec)) keep(std::move(*one));
    if (ec) break;
  }
  if (ec && !done()) finish(ec);
}

void reader::on_end(int error_number) {
  waits_ = false;
  if (stage_ == stage::generation && means_no_nf_tables(error_number)) return finish({});
  if (error_number == EINTR || error_number == ENOENT || moved_) return restart();
  if (error_number != 0) return finish(errno_code(error_number));
  advance();
}

void reader::advance() {
  if (stage_ == stage::elements) {
    result_.sets[sets_to_read_.back()].elements = element_list(std::exchange(elements_, {}));
    sets_to_read_.pop_back();
  }
  if (stage_ != stage::elements) stage_ = static_cast<stage>(static_cast<int>(stage_) + 1);
  if (stage_ == stage::elements && sets_to_read_.empty()) stage_ = stage::generation_again;
}

void reader::keep(generation&& one) {
  waits_ = false;
  if (stage_ == stage::generation) {
    result_.generation = one.id;
    advance();
  } else if (stage_ == stage::generation_again) {
    if (one.id != result_.generation) return restart();
    conclude();
  }
}

void reader::conclude() {
  // A dump that tells of nothing had nothing to go on with.
  if (result_.empty()) return finish({});
  mark_filled_sets(result_);
  if (before_ && tell_the_same(*before_, result_)) return finish({});
  before_ = std::move(result_);
  restart();
}

void reader::keep(decoded&& one) {
  if (auto* number = std::get_if<generation>(&one.message)) return keep(std::move(*number));
  moved_ |= one.generation_low != static_cast<std::uint16_t>(result_.generation);
  if (moved_) return;
  if (auto* t = std::get_if<table>(&one.message)) {
    const object_key key{t->family, t->name, {}};
    result_.tables.insert_or_assign(key, std::move(*t));
  } else if (auto* c = std::get_if<chain>(&one.message)) {
    const object_key key{c->family, c->table, c->name};
    result_.chains.insert_or_assign(key, ruleset::chain_rules{std::move(*c), {}});
  } else if (auto* r = std::get_if<rule>(&one.message)) {
    const auto found = result_.chains.find({r->family, r->table, r->chain});
    moved_ = found == result_.chains.end();
    if (moved_) return;
    auto& rules = found->second.rules;
    moved_ = one.position != (rules.empty() ? 0 : rules.back().handle);
    if (!moved_) rules.push_back(std::move(*r));
  } else if (auto* s = std::get_if<set>(&one.message)) {
    const object_key key{s->family, s->table, s->name};
    sets_to_read_.push_back(key);
    result_.sets.insert_or_assign(key, ruleset::set_contents{std::move(*s), {}, false});
  } else if (auto* o = std::get_if<object>(&one.message)) {
    if (o->needs_tracking()) result_.tracking_objects.push_back(std::move(*o));
  } else if (auto* e = std::get_if<set_elements>(&one.message)) {
    const auto found = result_.sets.find({e->family, e->table, e->set});
    if (found == result_.sets.end()) return finish(cowire::error::malformed);
    if (stage_ != stage::elements ||
        object_key{e->family, e->table, e->set} != sets_to_read_.back())
      return finish(cowire::error::malformed);
    std::ranges::move(e->elements, std::back_inserter(elements_));
  }
}

unique_fd open_socket(const socket_options& options, bool listen, std::error_code& ec) {
  ec.clear();
  const int type = SOCK_RAW | SOCK_CLOEXEC | (options.non_blocking ? SOCK_NONBLOCK : 0);
  unique_fd fd(::socket(AF_NETLINK, type, NETLINK_NETFILTER));
  const int room = options.receive_buffer_bytes;
  if (fd && room != 0 &&
      ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) != 0)
    static_cast<void>(::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &room, sizeof room));
  sockaddr_nl any{};
  any.nl_family = AF_NETLINK;
  const int group = notification_group;
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
      (listen &&
       ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)) {
    ec = errno_code(errno);
    return {};
  }
  return fd;
}

ruleset read_ruleset(std::error_code& ec, std::chrono::milliseconds timeout) {
  const unique_fd fd = open_socket({.receive_buffer_bytes = 1 << 20}, false, ec);
  if (ec) return {};
  std::vector<std::byte> buffer(datagram_size_max);
  reader reading;
  reading.start();
  while (const auto request = reading.next_request()) {
    if (::send(fd.get(), request->data(), request->size(), 0) < 0) {
      ec = errno_code(errno);
      return {};
    }
    while (reading.waits()) {
      pollfd readable{fd.get(), POLLIN, 0};
      if (::poll(&readable, 1, static_cast<int>(timeout.count())) == 0) {
        ec = errno_code(ETIMEDOUT);
        return {};
      }
      const auto size = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_TRUNC | MSG_DONTWAIT);
      if (size < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (size < 0 || static_cast<std::size_t>(size) > buffer.size())
        reading.on_loss();
      else
        reading.on_datagram(std::span(buffer).first(static_cast<std::size_t>(size)));
    }
  }
  ec = reading.error();
  return reading.take();
}

}  // namespace cowire::netlink::nft
