"""Steps timed against those of other packages, and against the memory's limit."""
