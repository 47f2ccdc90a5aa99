#include "tfmbs/execution/team_watch.hpp"

#include <algorithm>

namespace tfmbs::execution {

// Several callers may note at once; the counts are then those of one of them, which is as good.
void TeamWatch::note(const Call& call) noexcept {
  constexpr auto relaxed = std::memory_order_relaxed;
  const Duration own = call.own_end - call.begin;
  const Duration waited = call.end - call.own_end;
  if (waited <= kShares * own + kGrace) {
    if (alone_for_.load(relaxed) == 0) return;
    if (in_time_.fetch_add(1, relaxed) + 1 < kCallsToForgive) return;
    in_time_.store(0, relaxed);
    const Duration half(alone_for_.load(relaxed) / 2);
    alone_for_.store(half < kLeastAlone ? 0 : half.count(), relaxed);
    return;
  }
  const Duration alone =
      std::clamp<Duration>(2 * Duration(alone_for_.load(relaxed)), kLeastAlone, kMostAlone);
  in_time_.store(0, relaxed);
  alone_for_.store(alone.count(), relaxed);
  alone_until_.store((call.end + alone).time_since_epoch().count(), relaxed);
}

}  // namespace tfmbs::execution
