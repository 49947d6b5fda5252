"""The way from a Python function of one element to a checked formula, and on to kernels' text."""
