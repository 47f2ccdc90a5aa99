#include "tfmbs/decode/block.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "tfmbs/execution/workspace.hpp"

namespace tfmbs::decode {
namespace {

using execution::Executor;
using kernels::FloatType;

// Work of attention below which another thread costs more than it brings: values read.
constexpr std::size_t kGrainValues = std::size_t{1} << 15;

// One element of a tensor of fp32 or bf16.
class Elements {
 public:
  Elements(const void* data, FloatType type) noexcept
      : data_(static_cast<std::byte*>(const_cast<void*>(data))),
        wide_(type == FloatType::kFloat32) {}

  [[nodiscard]] float get(std::size_t i) const noexcept {
    if (wide_) {
      float value = 0;
      std::memcpy(&value, data_ + 4 * i, sizeof value);
      return value;
    }
    std::uint16_t bits = 0;
    std::memcpy(&bits, data_ + 2 * i, sizeof bits);
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  void set(std::size_t i, float value) const noexcept {
    if (wide_) {
      std::memcpy(data_ + 4 * i, &value, sizeof value);
      return;
    }
    const std::uint16_t bits = bfloat16(value);
    std::memcpy(data_ + 2 * i, &bits, sizeof bits);
  }
  // Rounded to the elements' type.
  [[nodiscard]] float rounded(float value) const noexcept {
    return wide_ ? value : std::bit_cast<float>(static_cast<std::uint32_t>(bfloat16(value)) << 16);
  }

 private:
  static std::uint16_t bfloat16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return 0x7FC0;
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
  }

  std::byte* data_;
  bool wide_;
};

class Block {
 public:
  Block(const BlockShape& shape, const Norms& norms, const BlockCall& call,
        const Multiply& multiply, const Executor& executor) noexcept
      : shape_(shape),
        norms_(norms),
        call_(call),
        multiply_(multiply),
        executor_(executor),
        bytes_(kernels::float_bytes(shape.type)) {}

  void run() {
    const std::size_t sequences = call_.sequences;
    const std::size_t query_size = shape_.heads * shape_.head_size;
    const std::size_t key_size = shape_.key_heads * shape_.head_size;
    auto* const normed = take(sequences * shape_.hidden);
    auto* const queries = take(sequences * query_size);
    auto* const keys = take(sequences * key_size);
    auto* const values = take(sequences * key_size);
    norm(call_.hidden, norms_.input, shape_.hidden, normed);
    multiply(Product::kQuery, normed, queries);
    multiply(Product::kKey, normed, keys);
    multiply(Product::kValue, normed, values);
    rotate(queries, shape_.heads);
    rotate(keys, shape_.key_heads);
    remember(keys, call_.cache.keys);
    remember(values, call_.cache.values);
    attend(queries);  // in place
    if (norms_.attention_output != nullptr) {
      norm(queries, norms_.attention_output, query_size, queries);
    }
    auto* const attended = take(sequences * shape_.hidden);
    multiply(Product::kOutput, queries, attended);
    add(call_.hidden, attended, attended);

    auto* const gates = take(sequences * shape_.feed_forward);
    auto* const ups = take(sequences * shape_.feed_forward);
    norm(attended, norms_.post_attention, shape_.hidden, normed);
    multiply(Product::kGate, normed, gates);
    multiply(Product::kUp, normed, ups);
    kernels::active().gate({.gate = gates,
                            .up = ups,
                            .type = shape_.type,
                            .size = sequences * shape_.feed_forward,
                            .function = shape_.gate,
                            .out = gates});
    if (norms_.feed_forward != nullptr) {
      norm(gates, norms_.feed_forward, shape_.feed_forward, gates);
    }
    multiply(Product::kDown, gates, normed);
    add(attended, normed, call_.out);
  }

 private:
  std::byte* take(std::size_t values) { return memory_.take<std::byte>(values * bytes_).data(); }

  void multiply(Product product, const void* input, void* output) const {
    multiply_(product, {.input = input,
                        .input_type = shape_.type,
                        .samples = call_.sequences,
                        .output = output,
                        .output_type = shape_.type});
  }

  void norm(const void* input, const void* weight, std::size_t size, void* out) const noexcept {
    for (std::size_t s = 0; s < call_.sequences; ++s) {
      kernels::active().rms_norm({.input = static_cast<const std::byte*>(input) + s * size * bytes_,
                                  .weight = weight,
                                  .type = shape_.type,
                                  .size = size,
                                  .epsilon = norms_.epsilon,
                                  .out = static_cast<std::byte*>(out) + s * size * bytes_});
    }
  }

  void add(const void* a, const void* b, void* out) const noexcept {
    const Elements left(a, shape_.type);
    const Elements right(b, shape_.type);
    const Elements sum(out, shape_.type);
    const std::size_t count = call_.sequences * shape_.hidden;
    for (std::size_t i = 0; i < count; ++i) sum.set(i, left.get(i) + right.get(i));
  }

  // x cos + (-x2, x1) sin, of a head's halves x = (x1, x2); products and sum are rounded.
  void rotate(void* heads_of_sequences, std::size_t heads) const noexcept {
    const std::size_t half = shape_.head_size / 2;
    for (std::size_t s = 0; s < call_.sequences; ++s) {
      const std::size_t angles = s * call_.angle_stride * bytes_;
      const Elements cosines(static_cast<const std::byte*>(call_.cosines) + angles, shape_.type);
      const Elements sines(static_cast<const std::byte*>(call_.sines) + angles, shape_.type);
      for (std::size_t h = 0; h < heads; ++h) {
        const Elements x(static_cast<const std::byte*>(heads_of_sequences) +
                             (s * heads + h) * shape_.head_size * bytes_,
                         shape_.type);
        for (std::size_t k = 0; k < half; ++k) {
          const float first = x.get(k);
          const float second = x.get(k + half);
          x.set(k, x.rounded(first * cosines.get(k)) + x.rounded(-second * sines.get(k)));
          x.set(k + half,
                x.rounded(second * cosines.get(k + half)) + x.rounded(first * sines.get(k + half)));
        }
      }
    }
  }

  // The new position's keys or values to the cache.
  void remember(const std::byte* made, void* cache) const noexcept {
    const std::size_t row = shape_.head_size * bytes_;
    for (std::size_t s = 0; s < call_.sequences; ++s) {
      for (std::size_t h = 0; h < shape_.key_heads; ++h) {
        std::memcpy(static_cast<std::byte*>(cache) + place(s, h, call_.position),
                    made + (s * shape_.key_heads + h) * row, row);
      }
    }
  }

  [[nodiscard]] std::size_t place(std::size_t sequence, std::size_t head,
                                  std::size_t position) const noexcept {
    const KeysValues& cache = call_.cache;
    return (sequence * cache.sequence_stride + head * cache.head_stride +
            position * cache.position_stride) *
           bytes_;
  }

  // Queries to what is attended to, in their place. Threads share the heads of keys.
  void attend(std::byte* queries) {
    const std::size_t positions = call_.position + 1;
    const std::size_t group = shape_.heads / shape_.key_heads;
    const std::size_t group_size = group * shape_.head_size;
    const std::size_t values_a_head = 2 * positions * shape_.head_size * group;
    const std::size_t grain = 1 + kGrainValues / values_a_head;
    executor_.parallel_for(
        call_.sequences * shape_.key_heads, grain, [&](std::size_t begin, std::size_t end) {
          execution::Scratch memory;
          const auto floats = memory.take<float>(2 * group_size);
          const auto scores = memory.take<float>(group * kernels::attend_score_stride(positions));
          float* const attended = floats.data() + group_size;
          for (std::size_t item = begin; item < end; ++item) {
            const std::size_t s = item / shape_.key_heads;
            const std::size_t h = item % shape_.key_heads;
            const Elements query(queries + item * group_size * bytes_, shape_.type);
            for (std::size_t k = 0; k < group_size; ++k) floats[k] = query.get(k);
            kernels::active().attend(
                {.queries = floats.data(),
                 .heads = group,
                 .head_size = shape_.head_size,
                 .keys = static_cast<const std::byte*>(call_.cache.keys) + place(s, h, 0),
                 .key_stride = call_.cache.position_stride,
                 .values = static_cast<const std::byte*>(call_.cache.values) + place(s, h, 0),
                 .value_stride = call_.cache.position_stride,
                 .type = shape_.type,
                 .positions = positions,
                 .mask = call_.mask == nullptr ? nullptr : call_.mask + s * call_.mask_stride,
                 .scaling = shape_.scaling,
                 .scores = scores.data(),
                 .out = attended});
            for (std::size_t k = 0; k < group_size; ++k) query.set(k, attended[k]);
          }
        });
  }

  const BlockShape& shape_;
  const Norms& norms_;
  const BlockCall& call_;
  const Multiply& multiply_;
  const Executor& executor_;
  std::size_t bytes_;
  execution::Scratch memory_;
};

}  // namespace

void run_block(const BlockShape& shape, const Norms& norms, const BlockCall& call,
               const Multiply& multiply, const Executor& executor) {
  if (call.sequences == 0) return;
  Block(shape, norms, call, multiply, executor).run();
}

}  // namespace tfmbs::decode
