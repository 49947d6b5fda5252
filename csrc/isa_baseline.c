/* The instructions that every CPU of the architecture has: SSE2 on x86-64, NEON on arm64. */
#include "squares.h"

#define ISA baseline
#define VECTOR_BYTES 16
#include "instantiate.inc"
