// What the banks would hold, for an engine that moved no word: forwards and loads leave a record,
// and the bytes are written only when somebody looks (docs/architecture.md, "One forward"). Where
// memory runs out (std::bad_alloc) the record that was under way is lost, and no other.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "tfmbs/fabric/device.hpp"
#include "tfmbs/placement/schedule.hpp"
#include "tfmbs/runtime/packed_weights.hpp"
#include "tfmbs/runtime/quantized_activations.hpp"

namespace tfmbs::runtime {

class BankImages {
 public:
  // A full journal is materialized first.
  void add_load(std::uint64_t layer, const placement::Schedule& schedule,
                std::shared_ptr<const PackedWeights> weights, fabric::Device& device);
  void add_forward(std::uint64_t layer, const placement::Schedule& schedule,
                   std::shared_ptr<const PackedWeights> weights,
                   const QuantizedActivations& activations, fabric::Device& device);

  // Writes everything recorded into the device's banks and results, in order, and forgets it.
  void materialize(fabric::Device& device);
  // The same, if any record holds this layer's weights.
  void materialize_layer(std::uint64_t layer, fabric::Device& device);
  // Drops this layer's records: its banks' bytes are then those of before.
  void forget_layer(std::uint64_t layer) noexcept;

 private:
  // A layer that stays where it is keeps two records (its load, its forwards) however often it
  // runs; only layers that move leave more. Bounds what they hold.
  static constexpr std::size_t kMaxRecords = 4096;
  // Samples whose activations a forward leaves in Bank B: the two slots' last.
  static constexpr std::size_t kTailSamples = 2;

  struct Record {
    std::uint64_t layer;
    placement::Schedule schedule;
    std::shared_ptr<const PackedWeights> weights;
    std::uint64_t samples{0};               // 0: a load
    std::vector<std::uint64_t> tail_trits;  // the last samples, one trit each
    std::vector<std::int8_t> tail_values;   // or of int8 activations
  };

  // The record is the newest, and holds the weights; a forward's tail is the caller's to write.
  Record& renew(std::uint64_t layer, const placement::Schedule& schedule,
                std::shared_ptr<const PackedWeights> weights, std::uint64_t samples,
                fabric::Device& device);
  static void add_tail(const QuantizedActivations& activations, Record& record);
  static void write_load(const Record& record, fabric::Device& device);
  static void write_forward(const Record& record, fabric::Device& device);

  std::list<Record> records_;  // oldest first
  // The newest record of each layer and footprint.
  std::unordered_map<std::uint64_t, std::list<Record>::iterator> newest_;
};

}  // namespace tfmbs::runtime
