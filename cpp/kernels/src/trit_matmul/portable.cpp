#include "operations.hpp"
#include "portable_panel.hpp"

namespace tfmbs::kernels::portable {

void trit_matmul(const TritMatmulArgs& args) noexcept {
  const BitPlaneView rows{args.activations, args.rows, args.weights.depth};
  panel_product(args, [&](std::size_t m, std::size_t first, std::size_t count, std::int8_t* to) {
    const std::uint64_t* row = rows.row(m);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t k = first + i;
      const std::uint64_t* word = row + bit_plane_word(k);
      const auto nonzero = static_cast<int>(word[0] >> k % 64 & 1);
      const auto negative = static_cast<int>(word[kPlaneWords] >> k % 64 & 1);
      to[i] = static_cast<std::int8_t>(nonzero - 2 * negative);
    }
  });
}

}  // namespace tfmbs::kernels::portable
