/* What a C program does with the C interface. */
#ifndef TFMBS_TESTS_C_CLIENT_H
#define TFMBS_TESTS_C_CLIENT_H

#ifdef __cplusplus
extern "C" {
#endif

/* Runs a layer of 2 x 5 weights; 0 where all was right, else the number of the step that was not.
 */
int c_client_run(void);

#ifdef __cplusplus
}
#endif

#endif
