"""The command `fusedstep`."""
