"""Tests of fusedstep.thinc."""
