"""Checks on single values, and the words in which errors are told."""
