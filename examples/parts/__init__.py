"""What the examples share, and no part of fusedstep: methods, data, layers, tables, pictures."""
