"""The command `fusedstep`: what it shows, draws and measures."""
