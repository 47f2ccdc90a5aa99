#include "operations.hpp"

namespace tfmbs::kernels::portable {
namespace {

// Products that are not zero count one each, and the negative ones among them minus two. Fits in 32
// bits: kMaxDepth is 2^24.
std::int32_t dot(const std::uint64_t* activation, const std::uint64_t* weight,
                 std::size_t blocks) noexcept {
  std::int64_t nonzero = 0;
  std::int64_t negative = 0;
  for (std::size_t b = 0; b < blocks; ++b) {
    for (std::size_t w = 0; w < kPlaneWords; ++w) {
      const std::uint64_t product = activation[w] & weight[w];
      const std::uint64_t minus = product & (activation[w + kPlaneWords] ^ weight[w + kPlaneWords]);
      nonzero += __builtin_popcountll(product);
      negative += __builtin_popcountll(minus);
    }
    activation += kBlockWords;
    weight += kBlockWords;
  }
  return static_cast<std::int32_t>(nonzero - 2 * negative);
}

}  // namespace

void trit_gemm(const TritGemmArgs& args) noexcept {
  const std::size_t row_words = args.blocks * kBlockWords;
  for (std::size_t m = 0; m < args.rows; ++m) {
    std::int32_t* out = args.out + m * args.out_stride;
    for (std::size_t n = 0; n < args.outputs; ++n) {
      const std::int32_t product =
          dot(args.activations + m * row_words, args.weights + n * row_words, args.blocks);
      out[n] = args.triple ? 3 * out[n] + product : product;
    }
  }
}

}  // namespace tfmbs::kernels::portable
