#include "tfmbs/runtime/bank_images.hpp"

#include <algorithm>
#include <bit>
#include <span>
#include <utility>

#include "tfmbs/runtime/stepped_forward.hpp"

namespace tfmbs::runtime {
namespace {

using fabric::Transfer;

// Records of one key and place write the same words: a load, a forward of one sample, or of more
// (samples beyond the second write what the first two do).
std::uint64_t record_key(std::uint64_t layer, std::uint64_t samples) noexcept {
  return layer * 4 + std::min<std::uint64_t>(samples, 2);
}

// The six planes of int8 activations, the most significant first: a balanced ternary digit each.
BitPlaneMatrix planes_of(std::span<const std::int8_t> values, std::size_t rows, std::size_t depth) {
  if (values.empty()) return {};
  BitPlaneMatrix planes(kernels::kInt8Planes * rows, depth);
  for (std::size_t i = 0; i < values.size(); ++i) {
    int rest = values[i];
    for (std::size_t p = kernels::kInt8Planes; p-- > 0;) {
      const int trit = (rest + 3 * 128 + 1) % 3 - 1;
      rest = (rest - trit) / 3;
      if (trit == 0) continue;
      const std::size_t k = i % depth;
      std::uint64_t* word = planes.row(p * rows + i / depth) + bit_plane_word(k);
      word[0] |= std::uint64_t{1} << k % 64;
      if (trit < 0) word[kPlaneWords] |= std::uint64_t{1} << k % 64;
    }
  }
  return planes;
}

// Of one sample and one output's weights. The sum over p of 3^(5-p) times plane p's.
std::int32_t product(const ActivationPlanes& activations, std::size_t sample,
                     const std::uint64_t* weights) {
  std::int32_t sum = 0;
  for (std::uint32_t p = 0; p < activations.planes; ++p) {
    const std::uint64_t* a = activations.plane(p).row(sample);
    std::int32_t of_plane = 0;
    for (std::size_t b = 0; b < bit_plane_blocks(activations.depth); ++b) {
      for (std::size_t w = b * kBlockWords; w < b * kBlockWords + kPlaneWords; ++w) {
        const std::uint64_t nonzero = a[w] & weights[w];
        const std::uint64_t negative = nonzero & (a[w + kPlaneWords] ^ weights[w + kPlaneWords]);
        of_plane += std::popcount(nonzero) - 2 * std::popcount(negative);
      }
    }
    sum = 3 * sum + of_plane;
  }
  return sum;
}

}  // namespace

// A record of the same key and place is overwritten whole by a later one, so the older may go. Its
// list node is used again: a layer's steady state allocates nothing.
BankImages::Record& BankImages::renew(std::uint64_t layer, const placement::Schedule& schedule,
                                      std::shared_ptr<const PackedWeights> weights,
                                      std::uint64_t samples, fabric::Device& device) {
  const std::uint64_t key = record_key(layer, samples);
  if (const auto found = newest_.find(key); found != newest_.end()) {
    const auto record = found->second;
    if (record->schedule.placement() == schedule.placement()) {
      records_.splice(records_.end(), records_, record);
      record->weights = std::move(weights);
      record->samples = samples;
      return *record;
    }
  }
  if (records_.size() >= kMaxRecords) materialize(device);
  std::list<Record> made;
  made.push_back(Record{layer, schedule, std::move(weights), samples, {}, {}});
  newest_[key] = made.begin();
  records_.splice(records_.end(), made);
  return records_.back();
}

void BankImages::add_load(std::uint64_t layer, const placement::Schedule& schedule,
                          std::shared_ptr<const PackedWeights> weights, fabric::Device& device) {
  renew(layer, schedule, std::move(weights), 0, device);
}

void BankImages::add_forward(std::uint64_t layer, const placement::Schedule& schedule,
                             std::shared_ptr<const PackedWeights> weights,
                             const QuantizedActivations& activations, fabric::Device& device) {
  const std::uint64_t samples = activations.planes.samples;
  Record& record = renew(layer, schedule, std::move(weights), samples, device);
  try {
    add_tail(activations, record);
  } catch (...) {
    newest_.erase(record_key(layer, samples));
    records_.pop_back();
    throw;
  }
}

void BankImages::add_tail(const QuantizedActivations& activations, Record& record) {
  const auto& [planes, values] = activations;
  const std::size_t first = planes.samples - std::min(planes.samples, kTailSamples);
  if (values != nullptr) {
    record.tail_values.assign(values + first * planes.depth,
                              values + planes.samples * planes.depth);
  } else {
    const BitPlaneView rows = planes.plane(0);
    record.tail_trits.assign(rows.row(first), rows.row(planes.samples));
  }
}

void BankImages::materialize(fabric::Device& device) {
  for (const Record& record : records_) {
    if (record.samples == 0) {
      write_load(record, device);
    } else {
      write_forward(record, device);
    }
  }
  records_.clear();
  newest_.clear();
}

void BankImages::forget_layer(std::uint64_t layer) noexcept {
  for (std::uint64_t samples = 0; samples <= 2; ++samples) {
    newest_.erase(record_key(layer, samples));
  }
  records_.remove_if([layer](const Record& record) { return record.layer == layer; });
}

void BankImages::materialize_layer(std::uint64_t layer, fabric::Device& device) {
  if (std::any_of(records_.begin(), records_.end(),
                  [layer](const Record& record) { return record.layer == layer; })) {
    materialize(device);
  }
}

void BankImages::write_load(const Record& record, fabric::Device& device) {
  const placement::Schedule& schedule = record.schedule;
  std::vector<std::uint32_t> words;
  for (std::uint64_t p = 0; p < schedule.passes(); ++p) {
    for (std::uint32_t slot = 0; slot < schedule.pass_tiles(p); ++slot) {
      const placement::Group group = schedule.group(p, slot);
      const BitPlaneMatrix rows = record.weights->rows(group.first_output, group.lanes);
      for (std::uint64_t c = 0; c < schedule.chunks(); ++c) {
        pack_group_words(schedule, rows.view(), c, words);
        device.place({.kind = Transfer::Kind::kWeights,
                      .tile_mask = std::uint64_t{1} << group.tile,
                      .word = schedule.weight_word(p, c),
                      .source = words});
      }
    }
  }
}

// Only what later jobs of the same forward did not overwrite is written. In a tile's last two
// passes, the last three chunks and the last two samples cover both slots of Bank B, the remains of
// a full chunk under a shorter last one included; the last four chunks cover both slots of a
// streaming window for the same reason; and a last pass with fewer lanes leaves the results of the
// pass before in the others.
void BankImages::write_forward(const Record& record, fabric::Device& device) {
  const placement::Schedule& schedule = record.schedule;
  const std::uint64_t chunks = schedule.chunks();
  const std::uint64_t samples = record.samples;
  const std::size_t kept = std::min<std::size_t>(samples, kTailSamples);
  const std::size_t depth = schedule.shape().depth;
  const BitPlaneMatrix int8_planes = planes_of(record.tail_values, kept, depth);
  const ActivationPlanes tail{
      record.tail_values.empty() ? record.tail_trits.data() : int8_planes.view().words, kept, depth,
      schedule.shape().planes};
  std::vector<std::uint32_t> words;
  std::vector<std::int32_t> sums;

  for (std::uint32_t slot = 0; slot < schedule.tile_count(); ++slot) {
    if (slot >= schedule.groups()) break;  // a tile of the mask that never runs
    const std::uint64_t last_pass = (schedule.groups() - 1 - slot) / schedule.tile_count();
    const std::uint64_t first_pass = last_pass == 0 ? 0 : last_pass - 1;
    const std::uint64_t tile_bit = std::uint64_t{1} << schedule.tile(slot);

    if (schedule.placement().streamed) {
      const std::uint64_t last = last_pass * chunks + chunks - 1;
      for (std::uint64_t s = last < 3 ? 0 : last - 3; s <= last; ++s) {
        const placement::Group group = schedule.group(s / chunks, slot);
        const BitPlaneMatrix rows = record.weights->rows(group.first_output, group.lanes);
        pack_group_words(schedule, rows.view(), s % chunks, words);
        device.place({.kind = Transfer::Kind::kWeights,
                      .tile_mask = tile_bit,
                      .word = schedule.weight_word(s / chunks, s % chunks),
                      .source = words});
      }
    }
    for (std::uint64_t p = first_pass; p <= last_pass; ++p) {
      for (std::uint64_t c = chunks < 3 ? 0 : chunks - 3; c < chunks; ++c) {
        for (std::uint64_t m = samples - kept; m < samples; ++m) {
          pack_sample_words(schedule, tail, c, m - (samples - kept), words);
          device.place({.kind = Transfer::Kind::kActivations,
                        .tile_mask = tile_bit,
                        .word = schedule.activation_word(schedule.job(p, c, m, samples)),
                        .source = words});
        }
      }
      const placement::Group group = schedule.group(p, slot);
      sums.resize(group.lanes);
      const BitPlaneMatrix rows = record.weights->rows(group.first_output, group.lanes);
      for (std::uint32_t n = 0; n < group.lanes; ++n) {
        sums[n] = product(tail, kept - 1, rows.view().row(n));
      }
      device.place_results(group.tile, 0, sums);
    }
  }
}

}  // namespace tfmbs::runtime
