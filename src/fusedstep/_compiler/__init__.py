"""A Python function of one element, read as a formula and written as the text of kernels."""
