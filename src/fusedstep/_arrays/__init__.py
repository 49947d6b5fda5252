"""Arrays: the structure they come in, the memory they lie in, and the libraries they are from."""
