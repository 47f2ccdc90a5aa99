// Random trits for the tests, from a seed that a failure prints.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace tfmbs {

// Zero with probability `sparsity`, else +1 or -1.
inline std::vector<std::int8_t> random_trits(std::size_t count, double sparsity,
                                             std::mt19937_64& random) {
  std::bernoulli_distribution zero(sparsity);
  std::bernoulli_distribution negative(0.5);
  std::vector<std::int8_t> trits(count);
  for (auto& trit : trits) {
    trit = zero(random) ? std::int8_t{0} : negative(random) ? std::int8_t{-1} : std::int8_t{1};
  }
  return trits;
}

}  // namespace tfmbs
