"""Parts that the examples share: methods, data, layers, tables, pictures. No part of fusedstep."""
