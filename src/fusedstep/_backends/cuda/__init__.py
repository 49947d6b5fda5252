"""The "cuda" backend: kernels that Numba compiles for a CUDA device."""
