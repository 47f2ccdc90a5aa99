// One decoder block (Llama's, or BitNet's with its two sub-norms) at one new position a sequence.
// The arithmetic is that of transformers' modules: tensors are of the model's type, and each of
// their operations rounds to it; but sums inside a norm, a softmax and a product of heads are fp32
// in an order of their own, and scores and weights of attention stay fp32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/execution/executor.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/linear/linear_args.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::decode {

// The products of a block, in the order in which they run.
enum class Product : std::uint8_t { kQuery, kKey, kValue, kOutput, kGate, kUp, kDown };
inline constexpr std::size_t kProducts = 7;

// Computes a product: `args` has input, output and samples, all of the block's type. A borrowed
// reference to a callable, which may throw.
class Multiply {
 public:
  template <typename Callable>
  Multiply(const Callable& callable) noexcept  // NOLINT(google-explicit-constructor)
      : object_(&callable),
        call_([](const void* object, Product product, const linear::LinearArgs& args) {
          (*static_cast<const Callable*>(object))(product, args);
        }) {}
  void operator()(Product product, const linear::LinearArgs& args) const {
    call_(object_, product, args);
  }

 private:
  const void* object_;
  void (*call_)(const void*, Product, const linear::LinearArgs&);
};

// Weights of the norms: of the block's type, one an input of what follows them.
struct Norms {
  const void* input{nullptr};
  const void* post_attention{nullptr};
  const void* attention_output{nullptr};  // before the output projection; or null for none
  const void* feed_forward{nullptr};      // before the down projection; or null for none
  float epsilon{0};
};

struct BlockShape {
  kernels::FloatType type{};  // fp32 or bf16
  std::size_t hidden{0};
  std::size_t heads{0};  // a multiple of key_heads
  std::size_t key_heads{0};
  std::size_t head_size{0};  // a multiple of 2 * kFloatLanes, at most kMaxHeadSize
  std::size_t feed_forward{0};
  float scaling{0};  // of scores
  kernels::GateFunction gate{};
};

// Keys and values of earlier positions, of the block's type. Strides in elements; a head's values
// follow each other.
struct KeysValues {
  void* keys{nullptr};
  void* values{nullptr};
  std::size_t sequence_stride{0};
  std::size_t head_stride{0};
  std::size_t position_stride{0};
  std::size_t capacity{0};  // positions that fit
};

struct BlockCall {
  const void* hidden{nullptr};  // sequences x hidden
  std::size_t sequences{0};
  // Of the new positions: head_size values a sequence, or the same for all (stride 0).
  const void* cosines{nullptr};
  const void* sines{nullptr};
  std::size_t angle_stride{0};
  KeysValues cache{};
  std::size_t position{0};  // of the new keys and values; < cache.capacity
  // Added to the scores: position + 1 values a sequence, or the same for all (stride 0); or null.
  const float* mask{nullptr};
  std::size_t mask_stride{0};
  void* out{nullptr};  // sequences x hidden; may be `hidden`
};

// Writes keys and values at `position` and gives the block's output. Nothing else changes, so a
// call that threw may be made again. Throws std::bad_alloc and what `multiply` throws.
void run_block(const BlockShape& shape, const Norms& norms, const BlockCall& call,
               const Multiply& multiply, const execution::Executor& executor);

}  // namespace tfmbs::decode

#pragma GCC visibility pop
