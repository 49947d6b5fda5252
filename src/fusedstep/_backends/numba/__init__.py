"""The "numba" backend: kernels that Numba compiles for the CPU."""
