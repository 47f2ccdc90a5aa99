// What the banks would hold, for an engine that moves no word: loads and forward passes leave a
// record, and the bytes are written only when they are read (docs/architecture.md, "One forward
// pass").
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>

#include "tfmbs/device/driver.hpp"
#include "tfmbs/fabric/device.hpp"

namespace tfmbs::device {

class BankImages {
 public:
  // Reserves the records of a piece of work, so that commit() allocates nothing. Throws
  // std::bad_alloc; nothing has changed then.
  void reserve(LayerWork& work);
  // Appends them, in the order of the admissions. Records of the same layer, place and kind are
  // written over whole, so the older one goes.
  void commit(LayerWork& work) noexcept;

  // Writes everything recorded into the device's banks and results, in order, and forgets it.
  // Throws std::bad_alloc; what is recorded stays then.
  void materialize(fabric::Device& device);
  // The same, if any record holds this layer's weights.
  void materialize_layer(std::uint64_t layer, fabric::Device& device);
  // Drops this layer's records: its banks' bytes are then those of before.
  void forget_layer(std::uint64_t layer) noexcept;
  // Drops all records.
  void forget() noexcept;
  // More records than this are worth writing out.
  [[nodiscard]] bool full() const noexcept { return records_.size() >= kMaxRecords; }

 private:
  using Records = std::list<BankImage>;
  // A layer that stays where it is keeps two records (its load, its forward passes) however often
  // it runs; only layers that move leave more. Bounds what they hold.
  static constexpr std::size_t kMaxRecords = 4096;
  // Samples whose activations a forward pass leaves in Bank B: the two slots' last.
  static constexpr std::size_t kTailSamples = 2;
  // A load, a forward pass of one sample, and of more.
  static constexpr std::size_t kKinds = 3;
  using Newest = std::array<std::optional<Records::iterator>, kKinds>;

  // The record that is written over by work of that kind, if there is one.
  [[nodiscard]] static BankImage* found(Newest& newest, const LayerWork& work,
                                        std::uint64_t samples) noexcept;
  static void reserve_tail(const LayerWork& work, BankImage& image);
  [[nodiscard]] Records::iterator overtaken(const LayerWork& work, std::uint64_t samples) noexcept;
  void add(LayerWork& work, std::uint64_t samples) noexcept;
  static void write_load(const BankImage& record, fabric::Device& device);
  static void write_forward(const BankImage& record, fabric::Device& device);

  Records records_;  // oldest first
  std::unordered_map<std::uint64_t, Newest> newest_;
};

}  // namespace tfmbs::device
