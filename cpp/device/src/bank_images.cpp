#include "bank_images.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <ranges>
#include <span>
#include <utility>

#include "stepped_forward.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::device {
namespace {

using fabric::Transfer;

// A job's place in the loop order: pass, chunk, sample.
struct Job {
  std::uint64_t p{0};
  std::uint64_t c{0};
  std::uint64_t m{0};
};

// Work of one kind and place writes the same words: a load, a forward pass of one sample, or of
// more (samples beyond the second write what the first two do).
std::size_t kind_of(std::uint64_t samples) noexcept {
  return static_cast<std::size_t>(std::min<std::uint64_t>(samples, 2));
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

// Of one sample and one output's weights, from depth `begin` on. The sum over p of 3^(5-p) times
// plane p's.
std::int32_t product(const ActivationPlanes& activations, std::size_t sample,
                     const std::uint64_t* weights, std::size_t begin) {
  std::int32_t sum = 0;
  for (std::uint32_t p = 0; p < activations.planes; ++p) {
    const std::uint64_t* a = activations.plane(p).row(sample);
    std::int32_t of_plane = 0;
    std::uint64_t mask = ~std::uint64_t{0} << begin % 64;
    for (std::size_t b = begin / kBlockTrits; b < bit_plane_blocks(activations.depth); ++b) {
      for (std::size_t w = std::max(b * kBlockWords, bit_plane_word(begin));
           w < b * kBlockWords + kPlaneWords; ++w) {
        const std::uint64_t nonzero = a[w] & weights[w] & std::exchange(mask, ~std::uint64_t{0});
        const std::uint64_t negative = nonzero & (a[w + kPlaneWords] ^ weights[w + kPlaneWords]);
        of_plane += std::popcount(nonzero) - 2 * std::popcount(negative);
      }
    }
    sum = 3 * sum + of_plane;
  }
  return sum;
}

}  // namespace

BankImage* BankImages::found(Newest& newest, const LayerWork& work,
                             std::uint64_t samples) noexcept {
  const auto& record = newest[kind_of(samples)];
  if (!record || (*record)->schedule.placement() != work.schedule.placement()) return nullptr;
  return &**record;
}

// Memory for the tail of a forward pass.
void BankImages::reserve_tail(const LayerWork& work, BankImage& image) {
  const std::size_t kept = std::min<std::size_t>(work.samples, kTailSamples);
  const std::size_t depth = work.schedule.shape().depth;
  if (work.schedule.shape().planes > 1) {
    image.tail_values.reserve(kept * depth);
  } else {
    image.tail_trits.reserve(kept * bit_plane_blocks(depth) * kBlockWords);
  }
}

void BankImages::reserve(LayerWork& work) {
  Newest& newest = newest_[work.layer];
  const auto reserve_one = [&](std::uint64_t samples) {
    BankImage* image = found(newest, work, samples);
    if (image == nullptr) {
      work.images.push_back({.layer = work.layer,
                             .sequence = work.sequence,
                             .schedule = work.schedule,
                             .weights = nullptr,
                             .samples = samples,
                             .tail_trits = {},
                             .tail_values = {}});
      image = &work.images.back();
    }
    if (samples != 0) reserve_tail(work, *image);
  };
  if (work.load) reserve_one(0);
  if (work.samples != 0) reserve_one(work.samples);
}

void BankImages::commit(LayerWork& work) noexcept {
  if (work.load) add(work, 0);
  if (work.samples != 0) add(work, work.samples);
}

// Of work that overtook other work of the same layer, the record that this one writes over is no
// longer the newest.
BankImages::Records::iterator BankImages::overtaken(const LayerWork& work,
                                                    std::uint64_t samples) noexcept {
  return std::ranges::find_if(records_, [&](const BankImage& record) {
    return record.layer == work.layer && kind_of(record.samples) == kind_of(samples) &&
           record.schedule.placement() == work.schedule.placement();
  });
}

void BankImages::add(LayerWork& work, std::uint64_t samples) noexcept {
  const auto entry = newest_.find(work.layer);
  if (entry == newest_.end()) return;  // the layer left meanwhile
  auto& newest = entry->second[kind_of(samples)];
  Records::iterator record;
  if (found(entry->second, work, samples) != nullptr) {
    record = *newest;
  } else {
    const auto own = std::ranges::find_if(
        work.images, [&](const BankImage& image) { return image.samples == samples; });
    if (own != work.images.end()) {
      record = own;
      records_.splice(records_.end(), work.images, record);
    } else {
      record = overtaken(work, samples);
      if (record == records_.end()) return;
    }
  }
  if (record->sequence > work.sequence) return;  // later work was faster
  record->samples = samples;
  record->sequence = work.sequence;
  auto& discarded = work.discarded[samples == 0 ? 0 : 1];
  discarded = work.weights;
  record->weights.swap(discarded);
  // At the end, but for work that was admitted later and committed first.
  auto place = records_.end();
  while (place != records_.begin() &&
         (std::prev(place) == record || std::prev(place)->sequence > work.sequence)) {
    --place;
  }
  records_.splice(place, records_, record);
  if (!newest || (*newest)->sequence <= work.sequence) newest = record;
  if (samples == 0) return;
  const auto& [planes, values] = work.activations;
  const std::size_t first = planes.samples - std::min(planes.samples, kTailSamples);
  if (values != nullptr) {
    record->tail_values.assign(values + first * planes.depth,
                               values + planes.samples * planes.depth);
  } else {
    const BitPlaneView rows = planes.plane(0);
    record->tail_trits.assign(rows.row(first), rows.row(planes.samples));
  }
}

void BankImages::materialize(fabric::Device& device) {
  for (const BankImage& record : records_) {
    if (record.samples == 0) {
      write_load(record, device);
    } else {
      write_forward(record, device);
    }
  }
  forget();
}

void BankImages::forget() noexcept {
  records_.clear();
  newest_.clear();
}

void BankImages::forget_layer(std::uint64_t layer) noexcept {
  newest_.erase(layer);
  records_.remove_if([layer](const BankImage& record) { return record.layer == layer; });
}

void BankImages::materialize_layer(std::uint64_t layer, fabric::Device& device) {
  if (std::any_of(records_.begin(), records_.end(),
                  [layer](const BankImage& record) { return record.layer == layer; })) {
    materialize(device);
  }
}

void BankImages::write_load(const BankImage& record, fabric::Device& device) {
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

// Only what later jobs of the same forward did not overwrite is written. Which chunk of a pass uses
// which slot of Bank B or of a streaming window is the same two passes before, and a chunk's last
// two samples use the same slots of Bank B as its earlier ones: a tile's last two passes and two
// samples cover all that was written. A last pass with fewer lanes leaves the results of the pass
// before in the others; results are the sums of the last scale group.
void BankImages::write_forward(const BankImage& record, fabric::Device& device) {
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
  const std::size_t last_group = schedule.scale_group_begin(schedule.scale_groups() - 1);

  for (std::uint32_t slot = 0; slot < schedule.tile_count(); ++slot) {
    if (slot >= schedule.groups()) break;  // a tile of the mask that never runs
    const std::uint64_t last_pass = (schedule.groups() - 1 - slot) / schedule.tile_count();
    const std::uint64_t first_pass = last_pass == 0 ? 0 : last_pass - 1;
    const std::uint64_t tile_bit = std::uint64_t{1} << schedule.tile(slot);

    // Backwards: a slot's words beyond those that later chunks cover.
    std::array<std::uint32_t, 2> covered{};
    const auto uncovers = [&covered](std::uint64_t index, std::uint32_t words_of_chunk) {
      if (words_of_chunk <= covered[index % 2]) return false;
      covered[index % 2] = words_of_chunk;
      return true;
    };
    std::vector<Job> jobs;
    if (schedule.placement().streamed) {
      for (std::uint64_t p = last_pass + 1; p-- > first_pass;) {
        for (std::uint64_t c = chunks; c-- > 0;) {
          const std::uint64_t window_slot = schedule.ping_pong() ? p * chunks + c : 0;
          if (uncovers(window_slot, schedule.weight_words(c))) jobs.push_back({p, c, 0});
        }
      }
      for (const Job& job : std::views::reverse(jobs)) {
        const placement::Group group = schedule.group(job.p, slot);
        const BitPlaneMatrix rows = record.weights->rows(group.first_output, group.lanes);
        pack_group_words(schedule, rows.view(), job.c, words);
        device.place({.kind = Transfer::Kind::kWeights,
                      .tile_mask = tile_bit,
                      .word = schedule.weight_word(job.p, job.c),
                      .source = words});
      }
      jobs.clear();
      covered = {};
    }
    for (std::uint64_t p = last_pass + 1; p-- > first_pass;) {
      for (std::uint64_t c = chunks; c-- > 0;) {
        for (std::uint64_t m = samples; m-- > samples - kept;) {
          if (uncovers(schedule.job(p, c, m, samples), schedule.activation_words(c))) {
            jobs.push_back({p, c, m});
          }
        }
      }
    }
    for (const Job& job : std::views::reverse(jobs)) {
      pack_sample_words(schedule, tail, job.c, job.m - (samples - kept), words);
      device.place({.kind = Transfer::Kind::kActivations,
                    .tile_mask = tile_bit,
                    .word = schedule.activation_word(schedule.job(job.p, job.c, job.m, samples)),
                    .source = words});
    }
    for (std::uint64_t p = first_pass; p <= last_pass; ++p) {
      const placement::Group group = schedule.group(p, slot);
      sums.resize(group.lanes);
      const BitPlaneMatrix rows = record.weights->rows(group.first_output, group.lanes);
      for (std::uint32_t n = 0; n < group.lanes; ++n) {
        sums[n] = product(tail, kept - 1, rows.view().row(n), last_group);
      }
      device.place_results(group.tile, 0, sums);
    }
  }
}

}  // namespace tfmbs::device
