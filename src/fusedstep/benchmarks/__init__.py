"""Benchmarks: this package's steps against those of others and against the memory's limit."""
