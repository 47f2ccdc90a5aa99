// The stages of a layer's forward that the shape decides: how many words the DMA moves in each, and
// what it moves in all (docs/fabric-layers.md). The closed form and the estimate both read it.
#pragma once

#include <cstdint>

#include "tfmbs/fabric/timing.hpp"
#include "tfmbs/placement/schedule.hpp"

namespace tfmbs::device {

// Engine cycles of a stage with a pass, beside its steps.
inline constexpr std::uint64_t kPassOverhead = fabric::kStartCycles + fabric::kDrainCycles;

class TimeLine {
 public:
  // `schedule` must outlive it. Preconditions: samples > 0.
  TimeLine(const placement::Schedule& schedule, std::uint64_t samples) noexcept
      : schedule_(schedule),
        samples_(samples),
        chunks_(schedule.chunks()),
        passes_(schedule.passes()),
        ping_pong_(schedule.placement().streamed && schedule.ping_pong()) {}

  // Stages that run a pass.
  [[nodiscard]] std::uint64_t jobs() const noexcept { return passes_ * chunks_ * samples_; }

  // Calls visit(p, count) for passes that stand for all: the `count` passes from p on have the same
  // stages.
  template <typename Visit>
  void for_each_kind_of_pass(const Visit& visit) const {
    visit(std::uint64_t{0}, std::uint64_t{1});
    std::uint64_t p = 1;
    if (is_interior(1)) {
      const std::uint64_t last = is_interior(passes_ - 2) ? passes_ - 2 : passes_ - 3;
      visit(std::uint64_t{1}, last);
      p = last + 1;
    }
    for (; p < passes_; ++p) visit(p, std::uint64_t{1});
  }

  // Calls visit(c, first, end, words) for runs of samples [first, end) of pass p, chunk by chunk,
  // beside each of whose stages the DMA moves as many words.
  template <typename Visit>
  void for_each_run(std::uint64_t p, const Visit& visit) const {
    for (std::uint64_t c = 0; c < chunks_; ++c) {
      const auto run = [&](std::uint64_t first, std::uint64_t end) {
        visit(c, first, end, words_beside(p, c, first));
      };
      run(0, 1);
      if (samples_ > 2) run(1, samples_ - 1);
      if (samples_ > 1) run(samples_ - 1, samples_);
    }
  }

  // Words of the stages without a pass: the first, the last, and the weights that a window of one
  // slot cannot overlap. The load of a resident layer that missed is not among them.
  [[nodiscard]] std::uint64_t serial_words() const noexcept {
    const std::uint64_t words = schedule_.activation_words(0) + schedule_.pass_outputs(passes_ - 1);
    if (!schedule_.placement().streamed) return words;
    return words +
           (ping_pong_ ? chunk_weights(0, 0) : schedule_.groups() * schedule_.tile_pass_words());
  }

  // The stage that loads a resident layer's weights.
  [[nodiscard]] std::uint64_t load_words() const noexcept {
    return schedule_.groups() * schedule_.tile_pass_words();
  }

  // --- the forward's traffic in all -----------------------------------------------------------
  // Activations of a pass: all samples, all chunks. One broadcast each.
  [[nodiscard]] std::uint64_t pass_activation_words() const noexcept {
    std::uint64_t words = 0;
    for (std::uint64_t c = 0; c < chunks_; ++c) words += schedule_.activation_words(c);
    return words * samples_;
  }
  // Weights that a tile is sent in a pass.
  [[nodiscard]] std::uint64_t streamed_pass_words() const noexcept {
    return schedule_.placement().streamed ? schedule_.tile_pass_words() : 0;
  }
  // Partial sums in: between the chunks of a scale group.
  [[nodiscard]] std::uint64_t partial_words() const noexcept {
    return schedule_.shape().outputs * samples_ * (chunks_ - schedule_.scale_groups());
  }
  [[nodiscard]] std::uint64_t words_read() const noexcept {
    return pass_activation_words() * passes_ + partial_words() +
           streamed_pass_words() * schedule_.groups();
  }
  [[nodiscard]] std::uint64_t words_written() const noexcept {
    return schedule_.shape().outputs * samples_ * chunks_;
  }

 private:
  // A full pass between full passes.
  [[nodiscard]] bool is_interior(std::uint64_t p) const noexcept {
    return p > 0 && p + 1 < passes_ && schedule_.pass_tiles(p + 1) == schedule_.tile_count();
  }

  // DMA words beside job (p, c, m), as docs/fabric-layers.md lists them.
  [[nodiscard]] std::uint64_t words_beside(std::uint64_t p, std::uint64_t c,
                                           std::uint64_t m) const noexcept {
    // Partial sums in.
    std::uint64_t words = schedule_.begins_scale_group(c) ? 0 : schedule_.pass_outputs(p);
    if (m > 0 || c > 0) {
      words += schedule_.pass_outputs(p);  // results of the job before, of the same pass
    } else if (p > 0) {
      words += schedule_.pass_outputs(p - 1);
    }
    if (m + 1 < samples_) return words + schedule_.activation_words(c);
    std::uint64_t next_p = p;
    std::uint64_t next_c = c + 1;
    if (next_c == chunks_) {
      next_c = 0;
      if (++next_p == passes_) return words;
    }
    if (ping_pong_) words += chunk_weights(next_p, next_c);
    return words + schedule_.activation_words(next_c);
  }

  [[nodiscard]] std::uint64_t chunk_weights(std::uint64_t p, std::uint64_t c) const noexcept {
    return std::uint64_t{schedule_.weight_words(c)} * schedule_.pass_tiles(p);
  }

  const placement::Schedule& schedule_;
  std::uint64_t samples_;
  std::uint64_t chunks_;
  std::uint64_t passes_;
  bool ping_pong_;
};

}  // namespace tfmbs::device
