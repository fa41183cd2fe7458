// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/frame_pool.hpp>

namespace cowire {

frame_pool::frame_pool(const frame_memory& memory, const frame_slice& slice)
    : memory_(memory), slice_(slice) {
  COWIRE_ASSERT(slice.first + slice.count <= memory.frame_count);
  free_.reserve(slice.count);
#if defined(COWIRE_DEBUG_CHECKS)
  is_free_.assign(slice.count, false);
#endif
  // Backwards, so that the first frames acquired are the first in memory.
  for (std::uint32_t i = slice.count; i-- > 0;) release(slice.first + i);
}

}  // namespace cowire
