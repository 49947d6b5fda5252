"""The "c" backend: the kernels of csrc/."""
