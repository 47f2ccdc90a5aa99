/* Compiled as C99: the header needs nothing of C++. */
#include "c_client.h"

#include <stddef.h>
#include <string.h>

#include "tfmbs/c/layer.h"

int c_client_run(void) {
  /* + 0 - 0 + and - - - - -, first trit in the lowest digit of base 3, digit 2 for -1. */
  const uint8_t weights[2] = {1 + 2 * 9 + 81, 242};
  const float scale = 0.5F;
  const float input[5] = {1.0F, -2.0F, 3.0F, 0.0F, 4.0F};
  const float bias[2] = {10.0F, 20.0F};
  float output[2] = {0.0F, 0.0F};
  int32_t code = -1;
  tfmbs_layer* slot = NULL;

  tfmbs_clear_error();
  if (tfmbs_layer_forward(&slot, input, TFMBS_F32, 1, NULL, 0, output, TFMBS_F32) == TFMBS_OK)
    return 1;
  if (strlen(tfmbs_last_error(&code)) == 0 || code != TFMBS_INVALID_ARGUMENT) return 2;
  tfmbs_clear_error();
  if (strcmp(tfmbs_last_error(&code), "") != 0 || code != TFMBS_OK) return 3;
  if (tfmbs_layer_define(&slot, "c", 2, 5, TFMBS_TERNARY, 0, -1, "", weights, &scale, 1,
                         TFMBS_F32) != TFMBS_OK)
    return 4;
  if (tfmbs_layer_forward(&slot, input, TFMBS_F32, 1, bias, TFMBS_F32, output, TFMBS_F32) !=
      TFMBS_OK)
    return 5;
  /* Signs 1 -1 1 0 1: 1 - 1 + 1 = 1, and -(1 - 1 + 1 + 0 + 1) = -2. */
  if (output[0] != 10.5F || output[1] != 19.0F) return 6;
  tfmbs_layer_release(&slot);
  tfmbs_layer_release(&slot);
  return slot == NULL ? 0 : 7;
}
