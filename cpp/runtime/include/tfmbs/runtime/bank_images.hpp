// What the banks would hold, for an engine that moved no word: forwards and loads leave a record,
// and the bytes are written only when somebody looks (docs/architecture.md, "One forward").
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "tfmbs/fabric/device.hpp"
#include "tfmbs/runtime/closed_form.hpp"
#include "tfmbs/runtime/packed_weights.hpp"
#include "tfmbs/runtime/schedule.hpp"

namespace tfmbs::runtime {

class BankImages {
 public:
  void add_load(std::uint64_t layer, const Schedule& schedule,
                std::shared_ptr<const PackedWeights> weights);
  void add_forward(std::uint64_t layer, const Schedule& schedule,
                   std::shared_ptr<const PackedWeights> weights,
                   const ActivationPlanes& activations);

  // Writes everything recorded into the device's banks and results, in order, and forgets it.
  void materialize(fabric::Device& device);
  // The same, if any record holds this layer's weights.
  void materialize_layer(std::uint64_t layer, fabric::Device& device);
  [[nodiscard]] bool full() const noexcept { return records_.size() >= kMaxRecords; }

 private:
  // Bounds the memory that records hold; whoever adds materializes a full journal first.
  static constexpr std::size_t kMaxRecords = 64;
  // Samples whose activations a forward leaves in Bank B: the two slots' last.
  static constexpr std::size_t kTailSamples = 2;

  struct Record {
    std::uint64_t layer;
    Schedule schedule;
    std::shared_ptr<const PackedWeights> weights;
    std::uint64_t samples{0};         // 0: a load
    std::vector<std::uint64_t> tail;  // the last samples' planes, plane-major
  };

  Record& replace(std::uint64_t layer, const Schedule& schedule, std::uint64_t samples);
  static void write_load(const Record& record, fabric::Device& device);
  static void write_forward(const Record& record, fabric::Device& device);

  std::list<Record> records_;
};

}  // namespace tfmbs::runtime
