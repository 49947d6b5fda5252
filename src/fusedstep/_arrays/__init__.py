"""Arrays, the structure they come in, and the memory where they lie."""
