// What the tests of the two products share.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {

inline const char* layout_name(WeightLayout layout) {
  constexpr const char* kNames[] = {"TritQuads", "TritPairs", "TritFives", "Int8Quads",
                                    "Int8Fives"};
  return kNames[static_cast<std::size_t>(layout)];
}

// Elements from a matrix's first to its last one.
inline std::size_t span(std::size_t rows, std::size_t stride, std::size_t columns) {
  return rows == 0 ? 0 : (rows - 1) * stride + columns;
}

// What a set asks for in int8_scratch, neither a byte more nor of any use before.
class Scratch {
 public:
  explicit Scratch(const KernelSet& set)
      : memory_(set.int8_scratch.bytes == 0
                    ? nullptr
                    : static_cast<std::byte*>(::operator new(set.int8_scratch.bytes, kAlignment))) {
    std::fill_n(memory_.get(), set.int8_scratch.bytes, std::byte{0xFF});
  }
  [[nodiscard]] std::byte* data() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{kScratchAlignment};
  struct Delete {
    void operator()(std::byte* memory) const noexcept { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<std::byte[], Delete> memory_;
};

// The arguments of one product of either kind.
struct Products {
  std::size_t rows;
  const std::uint64_t* planes;  // of trit x trit
  const std::int8_t* values;    // the activations of either
  std::size_t row_stride;       // of `values`
  WeightPanelsView weights;
  std::size_t first_output;
  std::size_t outputs;
  std::size_t out_stride;

  void run(const KernelSet& set, std::int32_t* out, std::byte* scratch = nullptr) const {
    if (is_int8(weights.layout)) {
      set.int8_matmul({.activations = values,
                       .rows = rows,
                       .row_stride = row_stride,
                       .weights = weights,
                       .first_output = first_output,
                       .outputs = outputs,
                       .out = out,
                       .out_stride = out_stride,
                       .scratch = scratch});
    } else {
      set.trit_matmul({.activations = planes,
                       .rows = rows,
                       .weights = weights,
                       .first_output = first_output,
                       .outputs = outputs,
                       .out = out,
                       .out_stride = out_stride});
    }
  }
};

// What a product writes, from the trits of the weights themselves, summed in 64 bits; `before`
// stands where it must not write.
inline std::vector<std::int32_t> plain_sums(const Products& products, BitPlaneView trits,
                                            std::int32_t before) {
  const std::size_t depth = products.weights.depth;
  std::vector<std::int8_t> weights(trits.rows * depth);
  if (!unpack_bit_planes(trits, weights).ok()) throw std::runtime_error("unpack_bit_planes");
  std::vector<std::int32_t> out(span(products.rows, products.out_stride, products.outputs), before);
  for (std::size_t m = 0; m < products.rows; ++m) {
    const std::int8_t* a = products.values + m * products.row_stride;
    for (std::size_t n = 0; n < products.outputs; ++n) {
      const std::int8_t* w = weights.data() + (products.first_output + n) * depth;
      std::int64_t sum = 0;
      for (std::size_t k = 0; k < depth; ++k) sum += std::int64_t{a[k]} * w[k];
      out[m * products.out_stride + n] = static_cast<std::int32_t>(sum);
    }
  }
  return out;
}

}  // namespace tfmbs::kernels::test
