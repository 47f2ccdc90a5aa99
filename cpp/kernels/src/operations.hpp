// What a kernel's file includes: the operations' arguments, and the declaration of every function
// that a file <operation>/<variant>.cpp defines, tfmbs::kernels::<variant>::<operation>.
#pragma once

#include "kernel_functions.hpp"  // made by variants.cmake
#include "tfmbs/kernels/kernels.hpp"
