"""An audit: checks of any torch, Keras or optax optimizer, each with a reproducer if it fails."""
