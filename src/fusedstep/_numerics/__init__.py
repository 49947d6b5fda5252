"""The arithmetic that fixes every bit of a result: rules, scalars, variants, and the norm."""
