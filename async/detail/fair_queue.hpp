// SPDX-License-Identifier: Apache-2.0
/// What many clients handed in, served in turn: first among users, then among a user's clients, so
/// that nobody waits longer for being beside one who hands in much, and a user gains nothing by
/// being many clients.
///
/// Unbounded: the bound is what the items hold (frames, for the intake). A client costs something
/// only while it has items here. One thread.
#pragma once

#include <cowire/base/assert.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <utility>

namespace cowire::detail {

template <class Item, class Client>
class fair_queue {
 public:
  [[nodiscard]] bool empty() const noexcept { return users_.empty(); }

  /// Behind the client's own items. A client is one user's: the same name with another user is
  /// another client.
  void push(std::uint32_t user, const Client& client, Item item) {
    auto [known, is_new_user] = by_user_.try_emplace(user);
    if (is_new_user) known->second = users_.insert(users_.end(), {user, {}, {}});
    share& mine = *known->second;
    auto [place, is_new_client] = mine.by_client.try_emplace(client);
    if (is_new_client) place->second = mine.lines.insert(mine.lines.end(), {client, {}});
    place->second->items.push_back(std::move(item));
  }

  /// The next in turn, of which there must be one. Its client and its user go to the end.
  [[nodiscard]] Item pop() {
    COWIRE_ASSERT(!empty());
    share& user = users_.front();
    line& client = user.lines.front();
    Item item = std::move(client.items.front());
    client.items.pop_front();
    if (client.items.empty()) {
      user.by_client.erase(client.client);
      user.lines.pop_front();
    } else {
      user.lines.splice(user.lines.end(), user.lines, user.lines.begin());
    }
    if (user.lines.empty()) {
      by_user_.erase(user.user);
      users_.pop_front();
    } else {
      users_.splice(users_.end(), users_, users_.begin());
    }
    return item;
  }

 private:
  struct line {
    Client client;
    std::deque<Item> items;  ///< Never empty between calls.
  };
  struct share {
    std::uint32_t user;
    std::map<Client, typename std::list<line>::iterator> by_client;
    std::list<line> lines;  ///< The next in turn first.
  };
  std::map<std::uint32_t, typename std::list<share>::iterator> by_user_;
  std::list<share> users_;  ///< The next in turn first.
};

}  // namespace cowire::detail
