// A driver that lies once: about one counter, one word of memory, one product, or an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tfmbs/device/driver.hpp"

namespace tfmbs::testing {

struct Fault {
  // Of the layers' work, loads and tasks, in the order in which the device is asked: 0 is the
  // first.
  std::size_t piece{0};
  // One of:
  std::uint64_t fabric::Counters::* counter{nullptr};
  std::uint64_t fabric::Counters::* counted{
      nullptr};  // what commit() gives, the totals being right
  std::uint64_t fabric::TileCounters::* tile_counter{nullptr};
  std::uint32_t tile{0};  // of tile_counter
  std::uint64_t address{0};
  std::size_t product{0};  // its number + 1
  bool error{false};
};

class FaultyDriver final : public device::Driver {
 public:
  FaultyDriver(std::unique_ptr<device::Driver> sound, const Fault& fault)
      : sound_(std::move(sound)), fault_(fault), name_("faulty " + std::string(sound_->name())) {}

  [[nodiscard]] std::string_view name() const noexcept override { return name_; }
  [[nodiscard]] bool concurrent() const noexcept override { return sound_->concurrent(); }
  [[nodiscard]] device::Products products() const noexcept override { return sound_->products(); }

  void prepare(device::LayerWork& work) override { sound_->prepare(work); }
  [[nodiscard]] device::ActivationNeeds needs(
      const device::LayerWork& work) const noexcept override {
    return sound_->needs(work);
  }
  Status run(device::LayerWork& work, const device::LayerInput& input,
             const execution::Executor& executor) override {
    begin();
    if (lies_ && fault_.error) return planted_error();
    if (auto s = sound_->run(work, input, executor); !s) return s;
    if (lies_ && fault_.product != 0) ++input.sums[fault_.product - 1];
    return {};
  }
  fabric::Counters commit(device::LayerWork& work) noexcept override {
    fabric::Counters counted = sound_->commit(work);
    if (lies_ && fault_.counted != nullptr) ++(counted.*fault_.counted);
    return counted;
  }
  void abort(device::LayerWork& work) noexcept override { sound_->abort(work); }
  void leave(placement::LayerId layer) noexcept override { sound_->leave(layer); }

  Status load(std::uint64_t address, std::span<const std::uint32_t> words) override {
    begin();
    if (lies_ && fault_.error) return planted_error();
    return sound_->load(address, words);
  }
  Status execute(const fabric::TaskDescriptor& task) override {
    begin();
    if (lies_ && fault_.error) return planted_error();
    return sound_->execute(task);
  }
  Status read(std::uint64_t address, std::span<std::uint32_t> words) override {
    if (auto s = sound_->read(address, words); !s) return s;
    if (lies_ && fault_.address >= address && fault_.address < address + 4 * words.size()) {
      words[(fault_.address - address) / 4] ^= 1;
    }
    return {};
  }
  Result<std::vector<std::int32_t>> results(std::uint32_t tile) override {
    return sound_->results(tile);
  }

  [[nodiscard]] const fabric::Counters& counters() const noexcept override {
    counters_ = sound_->counters();
    if (lies_ && fault_.counter != nullptr) ++(counters_.*fault_.counter);
    return counters_;
  }
  [[nodiscard]] std::span<const fabric::TileCounters> tile_counters() const noexcept override {
    const auto sound = sound_->tile_counters();
    if (!lies_ || fault_.tile_counter == nullptr) return sound;
    tiles_.assign(sound.begin(), sound.end());
    ++(tiles_[fault_.tile].*fault_.tile_counter);
    return tiles_;
  }
  void account(const fabric::Counters& counts) noexcept override { sound_->account(counts); }
  void reset_counters() noexcept override { sound_->reset_counters(); }
  void set_counting(bool on) noexcept override { sound_->set_counting(on); }
  [[nodiscard]] bool counting() const noexcept override { return sound_->counting(); }

  [[nodiscard]] std::unique_ptr<State> save() override { return sound_->save(); }
  void restore(std::unique_ptr<State> state) noexcept override {
    sound_->restore(std::move(state));
  }

 private:
  void begin() noexcept { lies_ = pieces_++ == fault_.piece; }
  static Error planted_error() { return {ErrorCode::kDescriptor, "the planted error"}; }

  std::unique_ptr<device::Driver> sound_;
  Fault fault_;
  std::string name_;
  std::size_t pieces_{0};
  bool lies_{false};
  mutable fabric::Counters counters_{};
  mutable std::vector<fabric::TileCounters> tiles_;
};

}  // namespace tfmbs::testing
