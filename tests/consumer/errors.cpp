// What libtfmbs throws is caught here, what is thrown here passes through it, and a type is one
// type on both sides.
#include <cstdint>
#include <cstdio>
#include <new>
#include <tfmbs/execution/executor.hpp>
#include <tfmbs/format/weight_panels.hpp>
#include <tfmbs/linear/packed_weights.hpp>
#include <tfmbs/linear/quantized_weights.hpp>
#include <typeinfo>

namespace {

struct NoThreads {};

class Failing final : public tfmbs::execution::Executor {
 public:
  std::size_t threads() const noexcept override { return 1; }
  void parallel_for(std::size_t, std::size_t, tfmbs::execution::RangeFunction) const override {
    throw NoThreads();
  }
};

bool bad_alloc_is_caught() {
  try {
    const tfmbs::WeightPanels panels(tfmbs::WeightLayout::kTritQuads, std::size_t{1} << 30,
                                     std::size_t{1} << 30);
  } catch (const std::bad_alloc&) {
    return true;
  }
  return false;
}

bool own_exception_passes() {
  const std::int8_t trits[] = {1, 0, -1};
  const double scale = 1.0;
  const auto weights = tfmbs::linear::read_trits(
      {.trits = trits, .outputs = 1, .depth = 3, .scales = &scale, .scale_count = 1});
  try {
    const tfmbs::linear::PackedWeights packed(weights.value(), tfmbs::WeightLayout::kTritQuads,
                                              Failing());
  } catch (const NoThreads&) {
    return true;
  }
  return false;
}

bool types_are_one() {
  const tfmbs::execution::Executor& executor = tfmbs::execution::process_executor();
  return typeid(executor) == typeid(tfmbs::execution::SerialExecutor) &&
         dynamic_cast<const tfmbs::execution::SerialExecutor*>(&executor) != nullptr;
}

bool an_error_has_its_code() {
  const std::int8_t no_trit[] = {2};
  const auto refused = tfmbs::linear::read_trits({.trits = no_trit, .outputs = 1, .depth = 1});
  return !refused && refused.error().code == tfmbs::ErrorCode::kInvalidArgument;
}

}  // namespace

int main() {
  const bool right =
      bad_alloc_is_caught() && own_exception_passes() && types_are_one() && an_error_has_its_code();
  std::printf("errors: %s\n", right ? "right" : "wrong");
  return right ? 0 : 1;
}
