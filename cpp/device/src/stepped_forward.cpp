#include "stepped_forward.hpp"

#include <deque>
#include <vector>

#include "tfmbs/format/lane_major.hpp"
#include "tfmbs/format/pt5.hpp"

namespace tfmbs::device {
namespace {

using fabric::TaskDescriptor;
using fabric::Transfer;

// A job's place in the loop order: pass, chunk, sample.
struct Job {
  std::uint64_t p{0};
  std::uint64_t c{0};
  std::uint64_t m{0};
};

class SteppedForward {
 public:
  SteppedForward(fabric::Device& device, const placement::Schedule& schedule, BitPlaneView weights,
                 const ActivationPlanes& activations, std::span<std::int32_t> sums)
      : device_(device),
        schedule_(schedule),
        weights_(weights),
        activations_(activations),
        // Sums are host memory that the DMA reads and writes as words.
        sums_(sums.begin(), sums.end()) {}

  Status run(std::span<std::int32_t> sums) {
    const std::uint64_t samples = activations_.samples;
    const std::uint64_t jobs = schedule_.passes() * schedule_.chunks() * samples;
    if (schedule_.placement().streamed) add_weights(at(0));
    add_activations(at(0));
    if (auto s = flush({}); !s) return s;
    for (std::uint64_t q = 0; q < jobs; ++q) {
      const Job job = at(q);
      if (q > 0) {
        if (begins_chunk(job) && schedule_.placement().streamed && !schedule_.ping_pong()) {
          add_weights(job);
          if (auto s = flush({}); !s) return s;
        }
        add_results_out(at(q - 1));
      }
      if (!schedule_.begins_scale_group(job.c)) add_partials_in(job);
      if (q + 1 < jobs) {
        const Job next = at(q + 1);
        if (begins_chunk(next) && schedule_.placement().streamed && schedule_.ping_pong()) {
          add_weights(next);
        }
        add_activations(next);
      }
      if (auto s = flush(passes(job)); !s) return s;
    }
    add_results_out(at(jobs - 1));
    if (auto s = flush({}); !s) return s;
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = static_cast<std::int32_t>(sums_[i]);
    return {};
  }

 private:
  [[nodiscard]] Job at(std::uint64_t q) const noexcept {
    const std::uint64_t samples = activations_.samples;
    return {q / samples / schedule_.chunks(), q / samples % schedule_.chunks(), q % samples};
  }
  [[nodiscard]] static bool begins_chunk(const Job& job) noexcept { return job.m == 0; }
  [[nodiscard]] std::uint64_t pass_mask(std::uint64_t p) const noexcept {
    std::uint64_t mask = 0;
    for (std::uint32_t slot = 0; slot < schedule_.pass_tiles(p); ++slot) {
      mask |= std::uint64_t{1} << schedule_.tile(slot);
    }
    return mask;
  }
  [[nodiscard]] std::span<std::uint32_t> sums_of(const Job& job,
                                                 const placement::Group& group) noexcept {
    const std::uint64_t row = schedule_.scale_group(job.c) * activations_.samples + job.m;
    return {sums_.data() + row * schedule_.shape().outputs + group.first_output, group.lanes};
  }

  void add_weights(const Job& job) {
    for (std::uint32_t slot = 0; slot < schedule_.pass_tiles(job.p); ++slot) {
      const placement::Group group = schedule_.group(job.p, slot);
      auto& words = buffers_.emplace_back();
      pack_group_words(schedule_, weights_.slice(group.first_output, group.lanes), job.c, words);
      transfers_.push_back({.kind = Transfer::Kind::kWeights,
                            .tile_mask = std::uint64_t{1} << group.tile,
                            .word = schedule_.weight_word(job.p, job.c),
                            .source = words});
    }
  }
  void add_activations(const Job& job) {
    auto& words = buffers_.emplace_back();
    pack_sample_words(schedule_, activations_, job.c, job.m, words);
    transfers_.push_back({.kind = Transfer::Kind::kActivations,
                          .tile_mask = pass_mask(job.p),
                          .word = schedule_.activation_word(
                              schedule_.job(job.p, job.c, job.m, activations_.samples)),
                          .source = words});
  }
  void add_results_out(const Job& job) {
    for (std::uint32_t slot = 0; slot < schedule_.pass_tiles(job.p); ++slot) {
      const placement::Group group = schedule_.group(job.p, slot);
      transfers_.push_back({.kind = Transfer::Kind::kResultsOut,
                            .tile_mask = std::uint64_t{1} << group.tile,
                            .destination = sums_of(job, group)});
    }
  }
  void add_partials_in(const Job& job) {
    for (std::uint32_t slot = 0; slot < schedule_.pass_tiles(job.p); ++slot) {
      const placement::Group group = schedule_.group(job.p, slot);
      transfers_.push_back({.kind = Transfer::Kind::kPartialsIn,
                            .tile_mask = std::uint64_t{1} << group.tile,
                            .source = sums_of(job, group)});
    }
  }

  // One descriptor for the tiles that run all lanes, and one for a last tile that runs fewer.
  [[nodiscard]] std::vector<TaskDescriptor> passes(const Job& job) const {
    std::vector<TaskDescriptor> tasks;
    for (std::uint32_t slot = 0; slot < schedule_.pass_tiles(job.p); ++slot) {
      const placement::Group group = schedule_.group(job.p, slot);
      const std::uint64_t bit = std::uint64_t{1} << group.tile;
      if (!tasks.empty() && tasks.back().lanes == group.lanes) {
        tasks.back().tile_mask |= bit;
        continue;
      }
      tasks.push_back({.weight_base = 4ULL * schedule_.weight_word(job.p, job.c),
                       .activation_base = 4ULL * schedule_.activation_word(schedule_.job(
                                                     job.p, job.c, job.m, activations_.samples)),
                       .depth = schedule_.chunk_depths(job.c),
                       .lanes = group.lanes,
                       .tile_mask = bit,
                       .planes = schedule_.shape().planes,
                       .accumulate = !schedule_.begins_scale_group(job.c)});
    }
    return tasks;
  }

  Status flush(const std::vector<TaskDescriptor>& tasks) {
    Status status = device_.execute({.passes = tasks, .transfers = transfers_});
    transfers_.clear();
    buffers_.clear();
    return status;
  }

  fabric::Device& device_;
  const placement::Schedule& schedule_;
  BitPlaneView weights_;
  const ActivationPlanes& activations_;
  std::vector<std::uint32_t> sums_;
  std::vector<Transfer> transfers_;                 // of the stage that is being put together
  std::deque<std::vector<std::uint32_t>> buffers_;  // what they move; stable addresses
};

}  // namespace

void pack_group_words(const placement::Schedule& schedule, BitPlaneView group, std::uint64_t c,
                      std::vector<std::uint32_t>& words) {
  words.assign(schedule.weight_words(c), 0);
  // All lanes of the tile: those beyond the group are zero.
  pack_lane_major(group,
                  {.output = 0,
                   .lanes = schedule.geometry().lanes(),
                   .depth = schedule.chunk_begin(c),
                   .depths = schedule.chunk_depths(c)},
                  words);
}

void pack_sample_words(const placement::Schedule& schedule, const ActivationPlanes& activations,
                       std::uint64_t c, std::size_t sample, std::vector<std::uint32_t>& words) {
  words.assign(schedule.activation_words(c), 0);
  const std::size_t per_plane = words.size() / activations.planes;
  for (std::uint32_t p = 0; p < activations.planes; ++p) {
    pack_activations(activations.plane(p).slice(sample, 1), schedule.chunk_begin(c),
                     schedule.chunk_depths(c), std::span(words).subspan(p * per_plane, per_plane));
  }
}

Status load_stepped(fabric::Device& device, const placement::Schedule& schedule,
                    BitPlaneView weights) {
  std::deque<std::vector<std::uint32_t>> buffers;
  std::vector<Transfer> transfers;
  for (std::uint64_t p = 0; p < schedule.passes(); ++p) {
    for (std::uint32_t slot = 0; slot < schedule.pass_tiles(p); ++slot) {
      const placement::Group group = schedule.group(p, slot);
      for (std::uint64_t c = 0; c < schedule.chunks(); ++c) {
        auto& words = buffers.emplace_back();
        pack_group_words(schedule, weights.slice(group.first_output, group.lanes), c, words);
        transfers.push_back({.kind = Transfer::Kind::kWeights,
                             .tile_mask = std::uint64_t{1} << group.tile,
                             .word = schedule.weight_word(p, c),
                             .source = words});
      }
    }
  }
  return device.execute({.passes = {}, .transfers = transfers});
}

Status forward_stepped(fabric::Device& device, const placement::Schedule& schedule,
                       BitPlaneView weights, const ActivationPlanes& activations,
                       std::span<std::int32_t> sums) {
  return SteppedForward(device, schedule, weights, activations, sums).run(sums);
}

}  // namespace tfmbs::device
