// SPDX-License-Identifier: Apache-2.0
/// A long list of which copies share what they do not change.
///
/// In chunks: a copy costs a pointer for each, and a change of a copy one chunk of its own. So a
/// hundred thousand elements with one more are a new list within microseconds, and what differs
/// between the two is found by comparing pointers.
///
/// A value; one thread at a time for each. Threads may read copies of one list at once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

namespace cowire {

template <class T>
class shared_list {
 public:
  using value_type = T;
  using chunk = std::vector<T>;
  static constexpr std::size_t chunk_size_max = 256;

  class iterator {
   public:
    using iterator_concept = std::bidirectional_iterator_tag;
    using iterator_category = std::bidirectional_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = const T*;
    using reference = const T&;

    iterator() = default;
    reference operator*() const { return (*(*chunks_)[chunk_])[index_]; }
    pointer operator->() const { return &**this; }
    iterator& operator++() {
      if (++index_ == (*chunks_)[chunk_]->size()) ++chunk_, index_ = 0;
      return *this;
    }
    iterator operator++(int) { return std::exchange(*this, std::next(*this)); }
    iterator& operator--() {
      if (index_ == 0) index_ = (*chunks_)[--chunk_]->size();
      --index_;
      return *this;
    }
    iterator operator--(int) { return std::exchange(*this, std::prev(*this)); }
    friend bool operator==(const iterator& a, const iterator& b) noexcept {
      return a.chunk_ == b.chunk_ && a.index_ == b.index_;
    }

   private:
    friend class shared_list;
    using chunk_list = std::vector<std::shared_ptr<chunk>>;
    iterator(const chunk_list& chunks, std::size_t at, std::size_t index)
        : chunks_(&chunks), chunk_(at), index_(index) {}
    const chunk_list* chunks_ = nullptr;
    std::size_t chunk_ = 0, index_ = 0;
  };
  using const_iterator = iterator;

  shared_list() = default;
  shared_list(std::initializer_list<T> values) {
    for (const T& one : values) push_back(one);
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] iterator begin() const noexcept { return {chunks_, 0, 0}; }
  [[nodiscard]] iterator end() const noexcept { return {chunks_, chunks_.size(), 0}; }
  [[nodiscard]] const T& front() const { return chunks_.front()->front(); }
  [[nodiscard]] const T& back() const { return chunks_.back()->back(); }
  /// In as many steps as there are chunks.
  [[nodiscard]] const T& operator[](std::size_t index) const { return *at_index(index); }

  void push_back(T value) { insert(end(), std::move(value)); }
  /// Before `at`, which must be of this list. All iterators become invalid, as by erase().
  void insert(const iterator& at, T value) {
    std::size_t in = at.chunk_, index = at.index_;
    if (in == chunks_.size() && in > 0 && chunks_.back()->size() < chunk_size_max)
      index = chunks_[--in]->size();
    if (in == chunks_.size()) {
      chunks_.push_back(std::make_shared<chunk>());
      chunks_.back()->reserve(chunk_size_max);
    }
    chunk& into = own(in);
    into.insert(into.begin() + static_cast<std::ptrdiff_t>(index), std::move(value));
    ++size_;
    if (into.size() > chunk_size_max) split(in);
  }
  /// What comes behind it is at the returned place.
  iterator erase(const iterator& at) {
    const std::size_t in = at.chunk_, index = at.index_;
    chunk& from = own(in);
    from.erase(from.begin() + static_cast<std::ptrdiff_t>(index));
    --size_;
    if (from.empty()) {
      chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(in));
      return {chunks_, in, 0};
    }
    return index < from.size() ? iterator{chunks_, in, index} : iterator{chunks_, in + 1, 0};
  }
  void erase_at(std::size_t index) { static_cast<void>(erase(at_index(index))); }
  /// For a change in place.
  [[nodiscard]] T& edit(std::size_t index) {
    const iterator at = at_index(index);
    return own(at.chunk_)[at.index_];
  }

  /// The first for which the predicate no longer holds; those for which it holds come first.
  template <class Predicate>
  [[nodiscard]] iterator partition_point(const Predicate& holds) const {
    const auto in =
        std::ranges::partition_point(chunks_, [&](const auto& c) { return holds(c->back()); });
    const auto chunk_index = static_cast<std::size_t>(in - chunks_.begin());
    if (in == chunks_.end()) return end();
    const auto at = std::ranges::partition_point(**in, holds);
    return {chunks_, chunk_index, static_cast<std::size_t>(at - (*in)->begin())};
  }

  /// What may be shared with other lists; in order, none is empty.
  [[nodiscard]] const std::vector<std::shared_ptr<chunk>>& chunks() const noexcept {
    return chunks_;
  }

  /// Looks only at what is not the very same.
  friend bool operator==(const shared_list& a, const shared_list& b) { return a.equals(b); }

 private:
  [[nodiscard]] bool equals(const shared_list& other) const {
    if (size_ != other.size_) return false;
    iterator one = begin(), theirs = other.begin();
    while (one != end()) {
      if (one.index_ == 0 && theirs.index_ == 0 &&
          chunks_[one.chunk_] == other.chunks_[theirs.chunk_]) {
        ++one.chunk_, ++theirs.chunk_;
        continue;
      }
      if (!(*one == *theirs)) return false;
      ++one, ++theirs;
    }
    return true;
  }
  [[nodiscard]] iterator at_index(std::size_t index) const {
    std::size_t in = 0;
    while (index >= chunks_[in]->size()) index -= chunks_[in++]->size();
    return {chunks_, in, index};
  }
  [[nodiscard]] chunk& own(std::size_t in) {
    auto& one = chunks_[in];
    if (one.use_count() > 1) one = std::make_shared<chunk>(*one);
    return *one;
  }
  void split(std::size_t in) {
    chunk& full = *chunks_[in];
    const auto middle = full.begin() + static_cast<std::ptrdiff_t>(full.size() / 2);
    auto upper = std::make_shared<chunk>(std::make_move_iterator(middle),
                                         std::make_move_iterator(full.end()));
    full.erase(middle, full.end());
    chunks_.insert(chunks_.begin() + static_cast<std::ptrdiff_t>(in) + 1, std::move(upper));
  }

  std::vector<std::shared_ptr<chunk>> chunks_;
  std::size_t size_ = 0;
};

}  // namespace cowire
