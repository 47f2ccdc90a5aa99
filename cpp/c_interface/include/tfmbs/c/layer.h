/* The C interface of libtfmbs: what compiled modules call (docs/compiler.md, "The C interface").
 * Plain C, no header but the standard's. No function throws or ends the process. All may be called
 * from several threads at once, on one slot too, and in a forked child; buffers are the caller's,
 * contiguous and row-major, and are not kept. */
#ifndef TFMBS_C_LAYER_H
#define TFMBS_C_LAYER_H

#include <stdint.h>

#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A layer with constant weights on a device. */
typedef struct tfmbs_layer tfmbs_layer;

enum { TFMBS_F32 = 0, TFMBS_F64 = 1, TFMBS_BF16 = 2, TFMBS_F16 = 3 };
enum { TFMBS_TERNARY = 0, TFMBS_INT8 = 1 };

/* Status of every call that can fail, and the code of tfmbs_last_error. */
enum {
  TFMBS_OK = 0,
  TFMBS_INVALID_ARGUMENT = 1,
  TFMBS_ENCODING = 2, /* a byte of the weights that is no PT-5 code */
  TFMBS_GEOMETRY = 3, /* the fabric's text names a device that cannot be built */
  TFMBS_ADDRESS = 4,
  TFMBS_DESCRIPTOR = 5,
  TFMBS_PLACEMENT = 6, /* the layer finds no room, or not where it was given one */
  TFMBS_GONE = 7,
  TFMBS_CLOSED = 8, /* the device was closed */
  TFMBS_OUT_OF_MEMORY = 9,
  TFMBS_INTERNAL = 10, /* anything else; the text says what */
  TFMBS_MISMATCH = 11  /* a lockstep device whose drivers do not agree */
};

/* Defines a layer of outputs x depth weights and puts it into *slot, which was NULL; where a layer
 * is there already, does nothing. Of threads that race, one defines and the others find it.
 *   name            shows in the device's telemetry; a taken one gets a suffix
 *   activation      how inputs are quantized
 *   tile_mask       bit t for tile t; 0: automatic
 *   weight_address  byte address in tile 0's Bank A; -1: automatic
 *   fabric          a device's specification; "": the process's default device
 *   weights         the matrix's trits as one PT-5 stream of ceil(outputs * depth / 5) bytes
 *   scales          1, or one an output, TFMBS_F32 or TFMBS_F64; NaN makes its output NaN
 * After an error *slot holds what tfmbs_layer_forward needs to fail as the contract says, and may
 * be defined again. */
int32_t tfmbs_layer_define(tfmbs_layer** slot, const char* name, int64_t outputs, int64_t depth,
                           int32_t activation, uint64_t tile_mask, int64_t weight_address,
                           const char* fabric, const uint8_t* weights, const void* scales,
                           int64_t scale_count, int32_t scale_type);

/* output (samples x outputs) = input (samples x depth) through the layer, plus bias (outputs, or
 * NULL). Arithmetic after the exact product is in fp64 where the input is TFMBS_F64, else in fp32.
 * After an error output is NaN, as far as its size is known: *slot, samples and output_type must
 * be good for that. */
int32_t tfmbs_layer_forward(tfmbs_layer** slot, const void* input, int32_t input_type,
                            int64_t samples, const void* bias, int32_t bias_type, void* output,
                            int32_t output_type);

/* Takes the layer off its device and sets *slot to NULL; fine where it is NULL. A forward that runs
 * in another thread is not disturbed: the layer ends after it. */
void tfmbs_layer_release(tfmbs_layer** slot);

/* Text of the calling thread's last error, "" where there is none; valid until the thread's next
 * call. *code, where code is not NULL, gets its status. */
const char* tfmbs_last_error(int32_t* code);
void tfmbs_clear_error(void);

#ifdef __cplusplus
}
#endif

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#endif
