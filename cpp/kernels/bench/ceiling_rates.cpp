// Ceilings over time and threads.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <string_view>
#include <thread>
#include <vector>

#include "ceilings.hpp"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) noexcept {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// `work(thread)` returns its items. All threads begin together, and each goes on until `seconds`
// are over; the rate is the sum of the threads'.
template <typename Work>
double rate(unsigned threads, double seconds, const Work& work) {
  std::atomic<unsigned> waiting{threads};
  std::vector<double> rates(threads);
  const auto measure = [&](unsigned thread) {
    --waiting;
    while (waiting.load() != 0) {
    }
    const Clock::time_point start = Clock::now();
    double items = 0;
    double elapsed = 0;
    do {
      items += static_cast<double>(work(thread));
      elapsed = seconds_since(start);
    } while (elapsed < seconds);
    rates[thread] = items / elapsed;
  };
  {
    std::vector<std::jthread> others;
    for (unsigned thread = 1; thread < threads; ++thread) others.emplace_back(measure, thread);
    measure(0);
  }
  double sum = 0;
  for (const double one : rates) sum += one;
  return sum;
}

}  // namespace

tfmbs_ceiling tfmbs_peak(const char* name) noexcept {
  for (const Peak& peak : kPeaks) {
    if (std::string_view(peak.name) == name) return peak.function;
  }
  return nullptr;
}

double tfmbs_rate(tfmbs_ceiling ceiling, unsigned threads, double seconds) noexcept {
  if (threads == 0 || !(seconds > 0) || ceiling() == 0) return 0;
  return rate(threads, seconds, [&](unsigned) { return ceiling(); });
}

double tfmbs_read_rate(const void* data, std::size_t bytes, unsigned threads,
                       double seconds) noexcept {
  constexpr std::size_t kLine = 64;
  if (threads == 0 || !(seconds > 0) || bytes / kLine < threads) return 0;
  const std::size_t part = bytes / kLine / threads * kLine;
  // The result goes somewhere, so that the reads are done.
  std::atomic<std::uint64_t> sink{0};
  return rate(threads, seconds, [&](unsigned thread) {
    sink |= tfmbs_read(static_cast<const unsigned char*>(data) + thread * part, part);
    return part;
  });
}
