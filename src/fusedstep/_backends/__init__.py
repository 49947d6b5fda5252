"""The backends, which run a step that has been laid out: C, Numba, CUDA and NumPy."""
