// What the fabric's tests share: words from trits, a copy of a device's whole state, and an
// independent model of a pass, in closed form, from trits.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "tfmbs/fabric/device.hpp"
#include "tfmbs/format/pt5.hpp"

namespace tfmbs::fabric {

using Trits = std::vector<std::int8_t>;
using Words = std::vector<std::uint32_t>;

inline Trits random_trits(std::size_t count, double sparsity, std::mt19937_64& random) {
  std::bernoulli_distribution zero(sparsity);
  std::bernoulli_distribution negative(0.5);
  Trits trits(count);
  for (auto& trit : trits) {
    trit = zero(random) ? std::int8_t{0} : negative(random) ? std::int8_t{-1} : std::int8_t{1};
  }
  return trits;
}

// 15 trits a word, the tail padded with zeros.
inline Words words_of_trits(const Trits& trits) {
  Words words(pt5_words(trits.size()));
  for (std::size_t i = 0; i < trits.size(); ++i) {
    std::uint32_t weight = 1;
    for (std::size_t digit = 0; digit < i % 5; ++digit) {
      weight *= 3;
    }
    words[i / 15] += trit_digit(trits[i]) * weight << (8 * (i % 15 / 5));
  }
  return words;
}

// weight[depth * lanes + lane] to the words of Bank A, `words_per_depth` of them a depth.
inline Words lane_major(const Trits& weights, std::size_t lanes, std::size_t words_per_depth) {
  Words words;
  for (std::size_t at = 0; at < weights.size(); at += lanes) {
    const auto first = weights.begin() + static_cast<std::ptrdiff_t>(at);
    Words depth = words_of_trits(Trits(first, first + static_cast<std::ptrdiff_t>(lanes)));
    depth.resize(words_per_depth);
    words.insert(words.end(), depth.begin(), depth.end());
  }
  return words;
}

// The six balanced trits of an int8, the most significant first.
inline std::array<std::int8_t, 6> balanced_trits(int value) {
  std::array<std::int8_t, 6> trits{};
  for (std::size_t p = 6; p-- > 0;) {
    const int rest = ((value % 3) + 3) % 3;
    trits[p] = static_cast<std::int8_t>(rest == 2 ? -1 : rest);
    value = (value - trits[p]) / 3;
  }
  return trits;
}

struct Snapshot {
  std::vector<Words> regions;
  std::vector<std::vector<std::uint8_t>> overflow;
  Counters counters;
  std::vector<TileCounters> tiles;

  friend bool operator==(const Snapshot&, const Snapshot&) = default;
};

inline Snapshot snapshot(const Device& device) {
  const Geometry& g = device.geometry();
  Snapshot copy;
  const auto add = [&](std::uint64_t base, std::size_t words) {
    Words& region = copy.regions.emplace_back(words);
    EXPECT_TRUE(device.read(base, region).ok());
  };
  for (std::uint32_t t = 0; t < g.tiles(); ++t) {
    add(g.results_base(t), g.lanes());
    add(g.bank_a_base(t), g.bank_a_words());
    add(g.bank_b_base(t), g.bank_b_words());
    copy.overflow.emplace_back(device.overflow(t).begin(), device.overflow(t).end());
  }
  copy.counters = device.counters();
  copy.tiles.assign(device.tile_counters().begin(), device.tile_counters().end());
  return copy;
}

}  // namespace tfmbs::fabric
