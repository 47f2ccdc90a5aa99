// Forwards as a C++ program calls them, into an output that it keeps, timed without an interpreter
// between them: what benchmarks/suite divides by the machine's limits. C linkage, so that the suite
// can load it.
#pragma once

#include <cstddef>
#include <cstdint>

#pragma GCC visibility push(default)

extern "C" {

struct tfmbs_bench_layer;

// A layer of such weights (fp32, outputs x depth; they must outlive it), packed, telemetry off.
// activation: as the runtime names it. Null where something is wrong; then
// tfmbs_bench_error, which is the calling thread's, says what.
tfmbs_bench_layer* tfmbs_bench_layer_make(const float* weights, std::uint64_t outputs,
                                          std::uint64_t depth, const char* activation) noexcept;
void tfmbs_bench_layer_free(tfmbs_bench_layer* layer) noexcept;
const char* tfmbs_bench_error() noexcept;

std::uint64_t tfmbs_bench_layer_weight_bytes(const tfmbs_bench_layer* layer) noexcept;
const char* tfmbs_bench_layer_layout(const tfmbs_bench_layer* layer) noexcept;

// Seconds that `calls` forwards on torch's threads take, of `count` layers in turn, the first of
// them layers[first]: rows x depth in, rows x outputs out, fp32. Negative after an error.
double tfmbs_bench_forwards(tfmbs_bench_layer* const* layers, std::size_t count, std::size_t first,
                            const float* input, std::size_t rows, float* output,
                            std::size_t calls) noexcept;

}  // extern "C"

#pragma GCC visibility pop
