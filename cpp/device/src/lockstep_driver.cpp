// Two drivers that must agree in every result, counter and byte.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "tfmbs/device/driver.hpp"
#include "tfmbs/format/text.hpp"

namespace tfmbs::device {
namespace {

std::string both(const auto& first, const auto& second) {
  return std::to_string(first) + " and " + std::to_string(second);
}

class LockstepDriver final : public Driver {
 public:
  LockstepDriver(const fabric::FabricConfig& config, std::unique_ptr<Driver> first,
                 std::unique_ptr<Driver> second)
      : geometry_(config.geometry),
        first_(std::move(first)),
        second_(std::move(second)),
        name_("lockstep of " + std::string(first_->name()) + " and " +
              std::string(second_->name())),
        second_tiles_(geometry_.tiles()) {}

  [[nodiscard]] std::string_view name() const noexcept override { return name_; }
  [[nodiscard]] bool concurrent() const noexcept override { return false; }
  [[nodiscard]] Products products() const noexcept override { return Products::kBoth; }

  void prepare(LayerWork& work) override {
    try {
      prepare_both(work);
    } catch (...) {
      forget_before();
      throw;
    }
    prepared_ = true;
  }

  [[nodiscard]] ActivationNeeds needs(const LayerWork& work) const noexcept override {
    const ActivationNeeds a = first_->needs(work);
    const ActivationNeeds b = second_->needs(*second_work_);
    return {.planes = a.planes || b.planes,
            .counts = a.counts || b.counts,
            .chunk_depth = std::max(a.chunk_depth, b.chunk_depth),
            .group_depth = std::max(a.group_depth, b.group_depth)};
  }

  Status run(LayerWork& work, const LayerInput& input,
             const execution::Executor& executor) override {
    if (stopped_) return *stopped_;
    std::vector<std::int32_t> first_sums;
    std::vector<std::int32_t> second_sums;
    const auto run_one = [&](Driver& driver, LayerWork& its, std::vector<std::int32_t>& sums) {
      LayerInput own = input;
      if (driver.products() != Products::kBoth) own.products = {};
      if (driver.products() == Products::kDriver) sums.resize(input.products.size());
      own.sums = sums;
      if (!driver.needs(its).counts) own.counts = nullptr;
      return driver.run(its, own, executor);
    };
    const Status first = run_one(*first_, work, first_sums);
    const Status second = run_one(*second_, *second_work_, second_sums);
    if (!first || !second) return errors_agree(&work, first, second);
    if (auto s = compare_sums(work, input.products, first_->name(), first_sums); !s) return s;
    if (auto s = compare_sums(work, input.products, second_->name(), second_sums); !s) return s;
    prepared_ = false;  // committed: from here the way back is the saved state
    counted_ = first_->commit(work);
    const fabric::Counters second_counted = second_->commit(*second_work_);
    return compare(&work, counted_, second_counted);
  }

  fabric::Counters commit(LayerWork& /*work*/) noexcept override {
    forget_before();
    return counted_;
  }

  void abort(LayerWork& work) noexcept override {
    if (prepared_) {
      first_->abort(work);
      second_->abort(*second_work_);
    }
    if (first_before_) first_->restore(std::move(first_before_));
    if (second_before_) second_->restore(std::move(second_before_));
    forget_before();
  }

  void leave(placement::LayerId layer) noexcept override {
    first_->leave(layer);
    second_->leave(layer);
  }

  Status load(std::uint64_t address, std::span<const std::uint32_t> words) override {
    return on_both([&](Driver& driver) { return driver.load(address, words); });
  }
  Status execute(const fabric::TaskDescriptor& task) override {
    return on_both([&](Driver& driver) { return driver.execute(task); });
  }
  Status read(std::uint64_t address, std::span<std::uint32_t> words) override {
    if (stopped_) return *stopped_;
    return first_->read(address, words);
  }
  Result<std::vector<std::int32_t>> results(std::uint32_t tile) override {
    if (stopped_) return *stopped_;
    return first_->results(tile);
  }

  [[nodiscard]] const fabric::Counters& counters() const noexcept override {
    return first_->counters();
  }
  [[nodiscard]] std::span<const fabric::TileCounters> tile_counters() const noexcept override {
    return first_->tile_counters();
  }
  void account(const fabric::Counters& counts) noexcept override {
    first_->account(counts);
    second_->account(counts);
  }
  void reset_counters() noexcept override {
    first_->reset_counters();
    second_->reset_counters();
  }
  void set_counting(bool on) noexcept override {
    first_->set_counting(on);
    second_->set_counting(on);
  }
  [[nodiscard]] bool counting() const noexcept override { return first_->counting(); }

  [[nodiscard]] std::unique_ptr<State> save() override {
    auto saved = std::make_unique<Saved>();
    saved->first = first_->save();
    saved->second = second_->save();
    return saved;
  }
  void restore(std::unique_ptr<State> state) noexcept override {
    auto& saved = static_cast<Saved&>(*state);
    first_->restore(std::move(saved.first));
    second_->restore(std::move(saved.second));
  }

 private:
  struct Saved final : State {
    std::unique_ptr<State> first;
    std::unique_ptr<State> second;
  };

  void prepare_both(LayerWork& work) {
    first_before_ = first_->save();
    second_before_ = second_->save();
    second_work_.emplace(LayerWork{.layer = work.layer,
                                   .name = work.name,
                                   .schedule = work.schedule,
                                   .weights = work.weights,
                                   .statistics = work.statistics,
                                   .samples = work.samples,
                                   .load = work.load,
                                   .counted = work.counted,
                                   .sequence = work.sequence,
                                   .counts = {work.counts.total, second_tiles_}});
    std::fill(second_tiles_.begin(), second_tiles_.end(), fabric::TileCounters{});
    first_->prepare(work);
    try {
      second_->prepare(*second_work_);
    } catch (...) {
      first_->abort(work);
      throw;
    }
  }

  void forget_before() noexcept {
    first_before_.reset();
    second_before_.reset();
    second_work_.reset();
    prepared_ = false;
  }

  // The same call on both drivers, outside of any layer.
  template <typename Call>
  Status on_both(const Call& call) {
    if (stopped_) return *stopped_;
    auto first_before = first_->save();
    auto second_before = second_->save();
    try {
      const Status first = call(*first_);
      const Status second = call(*second_);
      if (!first || !second) return errors_agree(nullptr, first, second);
      return compare(nullptr, {}, {});
    } catch (...) {  // no memory: in one of them, or to compare them
      first_->restore(std::move(first_before));
      second_->restore(std::move(second_before));
      throw;
    }
  }

  // --- what is compared ------------------------------------------------------------------------

  static std::string stage_of(const LayerWork* work) {
    if (work == nullptr) return "a task or load";
    std::string text = "layer '" + std::string(work->name) + "', ";
    if (work->samples == 0) return text + "load";
    return text + (work->load ? "load and " : "") + "forward pass of " +
           std::to_string(work->samples) + " samples";
  }

  Status stop(const LayerWork* work, const std::string& what) {
    stopped_ = Error{ErrorCode::kMismatch, name_ + ": " + stage_of(work) + ": " + what};
    return *stopped_;
  }

  Status errors_agree(const LayerWork* work, const Status& first, const Status& second) {
    if (!first && !second && first.error().code == second.error().code) return first;
    const auto text = [](const Status& status) {
      return status ? std::string("no error") : "\"" + status.error().message + "\"";
    };
    return stop(work, "errors differ: " + text(first) + " and " + text(second));
  }

  Status compare_sums(const LayerWork& work, std::span<const std::int32_t> products,
                      std::string_view driver, std::span<const std::int32_t> sums) {
    if (sums.empty()) return {};
    const auto [product, sum] = std::ranges::mismatch(products, sums);
    if (sum == sums.end()) return {};
    const auto at = static_cast<std::uint64_t>(sum - sums.begin());
    const auto& schedule = work.schedule;
    const std::uint64_t output = at % schedule.shape().outputs;
    const std::uint64_t row = at / schedule.shape().outputs;
    const std::uint64_t group = output / geometry_.lanes();
    const auto slot = static_cast<std::uint32_t>(group % schedule.tile_count());
    const std::string depths = schedule.scale_groups() == 1
                                   ? std::string{}
                                   : ", scale group " + std::to_string(row / work.samples);
    return stop(&work, "the result of sample " + std::to_string(row % work.samples) + depths +
                           ", output " + std::to_string(output) + " (pass " +
                           std::to_string(group / schedule.tile_count()) + ", tile " +
                           std::to_string(schedule.tile(slot)) + ") is " +
                           std::to_string(*product) + " by the kernels and " +
                           std::to_string(*sum) + " by " + std::string(driver));
  }

  Status compare(const LayerWork* work, const fabric::Counters& first_counted,
                 const fabric::Counters& second_counted) {
    for (const auto& field : fabric::kCounterFields) {
      const auto member = field.member;
      if (first_counted.*member != second_counted.*member) {
        return stop(work, "counted as '" + std::string(field.name) + "' " +
                              both(first_counted.*member, second_counted.*member));
      }
      if (first_->counters().*member != second_->counters().*member) {
        return stop(work, "counter '" + std::string(field.name) + "' is " +
                              both(first_->counters().*member, second_->counters().*member));
      }
    }
    for (std::uint32_t tile = 0; tile < geometry_.tiles(); ++tile) {
      for (const auto& field : fabric::kTileCounterFields) {
        const auto first = first_->tile_counters()[tile].*field.member;
        const auto second = second_->tile_counters()[tile].*field.member;
        if (first != second) {
          return stop(work, "counter '" + std::string(field.name) + "' of tile " +
                                std::to_string(tile) + " is " + both(first, second));
        }
      }
    }
    for (std::uint32_t tile = 0; tile < geometry_.tiles(); ++tile) {
      if (auto s = compare_memory(work, "Bank A", tile, geometry_.bank_a_base(tile),
                                  geometry_.bank_a_words());
          !s) {
        return s;
      }
      if (auto s = compare_memory(work, "Bank B", tile, geometry_.bank_b_base(tile),
                                  geometry_.bank_b_words());
          !s) {
        return s;
      }
      if (auto s = compare_memory(work, "the results", tile, geometry_.results_base(tile),
                                  geometry_.lanes());
          !s) {
        return s;
      }
    }
    return {};
  }

  Status compare_memory(const LayerWork* work, std::string_view region, std::uint32_t tile,
                        std::uint64_t base, std::uint32_t words) {
    first_words_.resize(words);
    second_words_.resize(words);
    if (auto s = first_->read(base, first_words_); !s) return s;
    if (auto s = second_->read(base, second_words_); !s) return s;
    const auto [first, second] = std::ranges::mismatch(first_words_, second_words_);
    if (first == first_words_.end()) return {};
    const auto word = static_cast<std::uint32_t>(first - first_words_.begin());
    std::string where = "word " + std::to_string(word) + " of " + std::string(region) +
                        " of tile " + std::to_string(tile) + ", address " + hex(base + 4ULL * word);
    if (work != nullptr) where += job_of(*work, region, tile, word);
    return stop(work, where + ", is " + hex(*first) + " and " + hex(*second));
  }

  // Which pass, chunk and sample of the work wrote a word of a bank last.
  static std::string job_of(const LayerWork& work, std::string_view region, std::uint32_t tile,
                            std::uint32_t word) {
    if (region == "the results") return {};
    const bool weights = region == "Bank A";
    const auto& schedule = work.schedule;
    const auto within = [word](std::uint32_t first, std::uint32_t words) {
      return word >= first && word - first < words;
    };
    std::uint32_t slot = 0;
    while (slot < schedule.tile_count() && schedule.tile(slot) != tile) ++slot;
    for (std::uint64_t p = schedule.passes(); p-- > 0;) {
      if (slot >= schedule.pass_tiles(p)) continue;
      for (std::uint64_t c = schedule.chunks(); c-- > 0;) {
        const std::string job = " (pass " + std::to_string(p) + ", chunk " + std::to_string(c);
        if (weights && within(schedule.weight_word(p, c), schedule.weight_words(c))) {
          return job + ")";
        }
        for (std::uint64_t m = weights ? 0 : work.samples; m-- > 0;) {
          if (within(schedule.activation_word(schedule.job(p, c, m, work.samples)),
                     schedule.activation_words(c))) {
            return job + ", sample " + std::to_string(m) + ")";
          }
        }
      }
    }
    return " (outside of the layer's words)";
  }

  Geometry geometry_;
  std::unique_ptr<Driver> first_;
  std::unique_ptr<Driver> second_;
  std::string name_;
  std::optional<Error> stopped_;
  // Of the work under way:
  std::optional<LayerWork> second_work_;
  std::vector<fabric::TileCounters> second_tiles_;
  std::unique_ptr<State> first_before_;
  std::unique_ptr<State> second_before_;
  bool prepared_{false};  // and not committed
  fabric::Counters counted_{};
  std::vector<std::uint32_t> first_words_;
  std::vector<std::uint32_t> second_words_;
};

}  // namespace

std::unique_ptr<Driver> make_lockstep_driver(const fabric::FabricConfig& config,
                                             std::unique_ptr<Driver> first,
                                             std::unique_ptr<Driver> second) {
  return std::make_unique<LockstepDriver>(config, std::move(first), std::move(second));
}

std::unique_ptr<Driver> make_driver(Engine engine, const fabric::FabricConfig& config) {
  switch (engine) {
    case Engine::kClosedForm:
      return make_closed_form_driver(config);
    case Engine::kStepped:
      return make_stepped_driver(config);
    case Engine::kLockstep:
      break;
  }
  return make_lockstep_driver(config, make_closed_form_driver(config), make_stepped_driver(config));
}

}  // namespace tfmbs::device
