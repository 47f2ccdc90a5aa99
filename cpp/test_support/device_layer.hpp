// A layer at its device alone: no runtime, weights and activations given as trits.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tfmbs/device/account.hpp"

namespace tfmbs::device {

inline BitPlaneMatrix random_planes(unsigned seed, std::size_t rows, std::size_t depth) {
  std::mt19937 random(seed);
  std::vector<std::int8_t> trits(rows * depth);
  for (auto& trit : trits) trit = static_cast<std::int8_t>(static_cast<int>(random() % 3) - 1);
  return pack_bit_planes(trits, rows, depth).value();
}

class PlaneTrits final : public WeightTrits {
 public:
  explicit PlaneTrits(BitPlaneMatrix planes)
      : planes_(std::move(planes)), serial_(next_weight_serial()) {}
  [[nodiscard]] BitPlaneView view() const noexcept { return planes_.view(); }
  [[nodiscard]] BitPlaneMatrix rows(std::size_t first, std::size_t count) const override {
    BitPlaneMatrix copy(count, planes_.trits());
    const BitPlaneView slice = view().slice(first, count);
    std::copy(slice.row(0), slice.row(count), copy.data());
    return copy;
  }
  [[nodiscard]] std::uint64_t serial() const noexcept override { return serial_; }
  [[nodiscard]] double sparsity() const noexcept override { return 0.25; }

 private:
  BitPlaneMatrix planes_;
  std::uint64_t serial_;
};

class DeviceLayer {
 public:
  DeviceLayer(const std::shared_ptr<Fabric>& fabric, std::string name, std::uint64_t outputs,
              std::uint64_t depth, std::size_t samples, unsigned seed)
      : samples_(samples),
        trits_(std::make_shared<PlaneTrits>(random_planes(seed, outputs, depth))),
        input_(random_planes(seed + 1, samples, depth)),
        account_(
            Account::enter({.name = std::move(name), .outputs = outputs, .depth = depth}, fabric)
                .value()),
        statistics_(account_->statistics_of(trits_->view())) {}

  [[nodiscard]] Account& account() noexcept { return *account_; }
  // Without statistics: as where telemetry was off when they would have been made.
  [[nodiscard]] LayerWeights weights(bool with_statistics = true) const {
    return {trits_, with_statistics ? &statistics_ : nullptr};
  }
  [[nodiscard]] Status admit(Fabric::Ticket& ticket, execution::Scratch& scratch,
                             bool with_statistics = true) {
    return account_->admit(weights(with_statistics), samples_, scratch, ticket);
  }
  // The work of an admission, up to its commit.
  [[nodiscard]] Status run(Fabric::Ticket& ticket, execution::Scratch& scratch) {
    const std::size_t depth = input_.trits();
    const ActivationNeeds needs = ticket.needs();
    ActivationCounter counter(needs, samples_, depth, scratch);
    if (needs.counts) {
      counter.count(0, samples_, samples_, [&](std::size_t row, std::size_t) {
        return ActivationRows{.planes = input_.view().row(row), .values = nullptr};
      });
    }
    const BitPlaneView weights = trits_->view();
    std::vector<std::int32_t> products(samples_ * weights.rows);
    for (std::size_t i = 0; i < products.size(); ++i) {
      for (std::size_t k = 0; k < depth; ++k) {
        products[i] += input_.view().trit(i / weights.rows, k) * weights.trit(i % weights.rows, k);
      }
    }
    std::vector<std::int32_t> sums(products.size());
    const Products from = account_->fabric()->products();
    LayerInput input{
        .activations = {.planes = {input_.view().words, samples_, depth, 1}, .values = nullptr},
        .counts = needs.counts ? &counter.counts() : nullptr};
    if (from == Products::kBoth) input.products = products;
    if (from == Products::kDriver) input.sums = sums;
    if (auto s = ticket.run(input, execution::SerialExecutor{}); !s) return s;
    if (from == Products::kDriver) {
      EXPECT_EQ(sums, products);
    }
    return {};
  }
  // A whole forward pass.
  [[nodiscard]] Status forward(bool with_statistics = true) {
    execution::Scratch scratch;
    Fabric::Ticket ticket;
    if (auto s = admit(ticket, scratch, with_statistics); !s) return s;
    if (auto s = run(ticket, scratch); !s) return s;
    ticket.commit();
    return {};
  }
  [[nodiscard]] Result<bool> prefetch() { return account_->prefetch(weights()); }

 private:
  std::size_t samples_;
  std::shared_ptr<const PlaneTrits> trits_;
  BitPlaneMatrix input_;
  std::unique_ptr<Account> account_;
  LaneStatistics statistics_;
};

}  // namespace tfmbs::device
