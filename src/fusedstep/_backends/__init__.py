"""A step that has been laid out, run: in C, by Numba, on a CUDA device or by NumPy."""
